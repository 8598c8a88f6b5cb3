//! Makes a thread of another process call the kernel, as injected code would.
#![cfg(target_arch = "x86_64")]

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// A system call: what it shows, its number, its arguments.
pub type Call = (&'static str, libc::c_long, [u64; 6]);

/// A thread stopped in a blocking system call; it continues on drop. The thread that
/// stopped it has to drop it.
#[derive(Debug)]
pub struct Puppet {
    thread: Pid,
    before: libc::user_regs_struct,
}

impl Puppet {
    /// Stops a thread that is blocked.
    ///
    /// # Panics
    /// When it cannot be traced, or does not wait in a system call.
    pub fn hold(thread: Pid) -> Self {
        ptrace::attach(thread).expect("root may trace it");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        let before = ptrace::getregs(thread).expect("it stands still");
        let at = (before.rip - SYSCALL.len() as u64) as ptrace::AddressType;
        let word = ptrace::read(thread, at).expect("its code can be read");
        assert_eq!(
            word.to_ne_bytes()[..2],
            SYSCALL,
            "it waits in no system call"
        );
        Self { thread, before }
    }

    /// Makes it call the kernel and returns the result.
    ///
    /// # Panics
    /// When the thread is gone or dies of it.
    pub fn call(&self, (what, number, arguments): Call) -> Result<u64, Errno> {
        let mut registers = self.before;
        registers.rip -= SYSCALL.len() as u64;
        registers.rax = number as u64;
        // The interrupted call is not restarted.
        registers.orig_rax = u64::MAX;
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        (registers.rdi, registers.rsi, registers.rdx) = (rdi, rsi, rdx);
        (registers.r10, registers.r8, registers.r9) = (r10, r8, r9);
        ptrace::setregs(self.thread, registers).expect("it stands still");
        ptrace::step(self.thread, None).expect("it stands still");
        let stopped = waitpid(self.thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        assert!(
            matches!(stopped, WaitStatus::Stopped(..)),
            "{what}: {stopped:?}"
        );
        let registers = ptrace::getregs(self.thread).expect("it stands still");
        match registers.rax as i64 {
            error @ -4095..0 => Err(Errno::from_raw(-error as i32)),
            _ => Ok(registers.rax),
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // It may be gone, after a test that failed.
        let _ = ptrace::setregs(self.thread, self.before);
        let _ = ptrace::detach(self.thread, None);
    }
}
