//! The system calls that each thread may make once the agent serves: a list of exactly those
//! that it uses, with arguments where they bound what a call can do.
//!
//! Any other call fails with EPERM, as under systemd's SystemCallErrorNumber=EPERM. The threads
//! share their memory: a list bounds what code in its thread can ask of the kernel, not what it
//! can write into another thread's stack.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use log::warn;
use nix::{
    sys::signal::{SigHandler, Signal, signal},
    unistd::{getpid, gettid},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A thread of the agent, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The event loop: reloads, addresses, maps, metrics, control socket.
    Main {
        /// It holds a guard, so it calls bpf(2).
        guard: bool,
    },
    /// The thread that speaks SMTP.
    Smtp,
    /// The only thread of `nomail-agent crowdsec`.
    Crowdsec,
}

/// Restricts the calling thread to the calls of `thread`, for good. Threads started before are
/// not restricted.
pub fn restrict_syscalls(thread: Thread) -> Result<()> {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        warn!("no seccomp filter for {}", std::env::consts::ARCH);
        return Ok(());
    };
    let program = compile(thread, architecture).context("seccomp")?;
    seccompiler::apply_filter(&program).context("seccomp")
}

/// Makes SIGSEGV and SIGBUS end the process by the kernel's default. The handler of Rust's
/// runtime removes itself by a system call that the threads may not make, and would run for
/// ever.
pub fn die_of_faults() -> Result<()> {
    for fault in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: this installs no handler, and the one before only prints the message of a
        // stack overflow.
        unsafe { signal(fault, SigHandler::SigDfl) }.with_context(|| fault.to_string())?;
    }
    Ok(())
}

/// A condition on one argument, by its index.
#[derive(Clone, Copy)]
enum Argument {
    /// An `int` of this value.
    Is(u8, u64),
    /// A pointer that is null.
    Null(u8),
    /// An `int` that, masked by the first value, equals the second.
    Bits(u8, u64, u64),
}
use Argument::{Bits, Is, Null};

/// A call by its number, and when it is allowed: always, or if all conditions of one of the
/// lists hold.
type Call = (libc::c_long, &'static [&'static [Argument]]);

const ALWAYS: &[&[Argument]] = &[];

/// Only anonymous memory, and none that can be executed: memory that can be written must never
/// run. Files, maps and ring buffers are mapped before.
const ANONYMOUS: &[&[Argument]] = &[&[
    Bits(2, libc::PROT_EXEC as u64, 0),
    Bits(3, libc::MAP_ANONYMOUS as u64, libc::MAP_ANONYMOUS as u64),
]];
const NOT_EXECUTABLE: &[&[Argument]] = &[&[Bits(2, libc::PROT_EXEC as u64, 0)]];
const MPROTECT: &[&[Argument]] = if nomail_common::Mechanism::NoExecutableMemory.is_on() {
    NOT_EXECUTABLE
} else {
    ALWAYS
};

/// The calls of all threads: event loop, memory, log, exit.
const ALL: &[Call] = &[
    (libc::SYS_epoll_ctl, ALWAYS),
    (libc::SYS_epoll_pwait, ALWAYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, ALWAYS),
    (libc::SYS_clock_gettime, ALWAYS),
    (libc::SYS_futex, ALWAYS),
    (libc::SYS_sched_yield, ALWAYS),
    (libc::SYS_restart_syscall, ALWAYS),
    (libc::SYS_getrandom, ALWAYS),
    (libc::SYS_read, ALWAYS),
    (libc::SYS_write, ALWAYS),
    (libc::SYS_writev, ALWAYS),
    (libc::SYS_recvfrom, ALWAYS),
    (libc::SYS_shutdown, ALWAYS),
    (libc::SYS_getsockopt, ALWAYS),
    (libc::SYS_close, ALWAYS),
    // Rust's runtime, built for debugging, checks a descriptor that it closes.
    (libc::SYS_fcntl, &[&[Is(1, libc::F_GETFD as u64)]]),
    (libc::SYS_brk, ALWAYS),
    (libc::SYS_madvise, ALWAYS),
    (libc::SYS_mmap, ANONYMOUS),
    (libc::SYS_mprotect, MPROTECT),
    (libc::SYS_mremap, ALWAYS),
    (libc::SYS_munmap, ALWAYS),
    (libc::SYS_exit, ALWAYS),
    (libc::SYS_exit_group, ALWAYS),
    (libc::SYS_getpid, ALWAYS),
    (libc::SYS_gettid, ALWAYS),
    (libc::SYS_rt_sigprocmask, ALWAYS),
    (libc::SYS_rt_sigreturn, ALWAYS),
    (libc::SYS_sigaltstack, ALWAYS),
];

/// Only to the peer of a connected socket, and no TCP Fast Open, which connects.
const SEND_CONNECTED: Call = (
    libc::SYS_sendto,
    &[&[Is(3, libc::MSG_NOSIGNAL as u64), Null(4)]],
);

const SMTP: &[Call] = &[
    (libc::SYS_accept4, ALWAYS),
    // A relay refuses mail for the address that the client connected to.
    (libc::SYS_getsockname, ALWAYS),
    // Whether the kernel tells over which interface a connection arrived.
    (
        libc::SYS_setsockopt,
        &[
            &[
                Is(1, libc::IPPROTO_IP as u64),
                Is(2, libc::IP_PKTINFO as u64),
            ],
            &[
                Is(1, libc::IPPROTO_IPV6 as u64),
                Is(2, libc::IPV6_RECVPKTINFO as u64),
            ],
        ],
    ),
    SEND_CONNECTED,
];

/// TCP over IPv4 and IPv6 only: no datagrams, no MPTCP.
const TCP_SOCKETS: &[&[Argument]] = &[
    &[
        Is(0, libc::AF_INET as u64),
        Bits(1, SOCKET_TYPE, libc::SOCK_STREAM as u64),
        Is(2, 0),
    ],
    &[
        Is(0, libc::AF_INET as u64),
        Bits(1, SOCKET_TYPE, libc::SOCK_STREAM as u64),
        Is(2, libc::IPPROTO_TCP as u64),
    ],
    &[
        Is(0, libc::AF_INET6 as u64),
        Bits(1, SOCKET_TYPE, libc::SOCK_STREAM as u64),
        Is(2, 0),
    ],
    &[
        Is(0, libc::AF_INET6 as u64),
        Bits(1, SOCKET_TYPE, libc::SOCK_STREAM as u64),
        Is(2, libc::IPPROTO_TCP as u64),
    ],
];
/// SOCK_TYPE_MASK of the kernel; the other bits are SOCK_NONBLOCK and SOCK_CLOEXEC.
const SOCKET_TYPE: u64 = 0xf;

/// The files of a reload, and those that are replaced: the memory of `auto`, decisions.
const FILES: &[Call] = &[
    (libc::SYS_openat, ALWAYS),
    (libc::SYS_fstat, ALWAYS),
    (libc::SYS_fstatfs, ALWAYS),
    (libc::SYS_newfstatat, ALWAYS),
    (libc::SYS_statx, ALWAYS),
    (libc::SYS_lseek, ALWAYS),
    (libc::SYS_readv, ALWAYS),
    (libc::SYS_getdents64, ALWAYS),
    (libc::SYS_readlinkat, ALWAYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, ALWAYS),
    (libc::SYS_renameat, ALWAYS),
    (libc::SYS_renameat2, ALWAYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, ALWAYS),
    (libc::SYS_unlinkat, ALWAYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, ALWAYS),
    (libc::SYS_geteuid, ALWAYS),
    (libc::SYS_getuid, ALWAYS),
    (libc::SYS_uname, ALWAYS),
];

const CROWDSEC: &[Call] = &[
    (libc::SYS_socket, TCP_SOCKETS),
    (libc::SYS_connect, ALWAYS),
    (libc::SYS_getpeername, ALWAYS),
    (libc::SYS_getsockname, ALWAYS),
    SEND_CONNECTED,
];

const MAIN: &[Call] = &[
    // Clients of the control socket and of the metrics; addresses that appear.
    (libc::SYS_accept4, ALWAYS),
    (libc::SYS_socket, TCP_SOCKETS),
    (libc::SYS_setsockopt, ALWAYS),
    (libc::SYS_bind, ALWAYS),
    (libc::SYS_listen, ALWAYS),
    (libc::SYS_getpeername, ALWAYS),
    (libc::SYS_getsockname, ALWAYS),
    // Netlink names its destination, and a packet socket its interface. No TCP Fast Open,
    // which connects.
    (
        libc::SYS_sendto,
        &[&[Bits(3, libc::MSG_FASTOPEN as u64, 0)]],
    ),
    // Makes a listening socket non-blocking.
    (libc::SYS_ioctl, &[&[Is(1, libc::FIONBIO)]]),
    (
        libc::SYS_fcntl,
        &[
            &[Is(1, libc::F_GETFD as u64)],
            &[Is(1, libc::F_GETFL as u64)],
            &[Is(1, libc::F_SETFL as u64)],
            &[Is(1, libc::F_DUPFD_CLOEXEC as u64)],
        ],
    ),
    (libc::SYS_clock_getres, ALWAYS),
    (libc::SYS_clock_nanosleep, ALWAYS),
    (libc::SYS_nanosleep, ALWAYS),
];

/// Commands of bpf(2), `enum bpf_cmd` of the kernel, for a new map, and on open maps and
/// programs.
const MAP_CREATE: u64 = 0;
const MAP_LOOKUP_ELEM: u64 = 1;
const MAP_UPDATE_ELEM: u64 = 2;
const MAP_DELETE_ELEM: u64 = 3;
const MAP_GET_NEXT_KEY: u64 = 4;
const OBJ_GET_INFO_BY_FD: u64 = 15;
const MAP_LOOKUP_BATCH: u64 = 24;
const LINK_CREATE: u64 = 28;

/// What a guard needs. A link is created for an interface that comes back, a map for lists
/// that changed.
const GUARD: Call = (
    libc::SYS_bpf,
    &[
        &[Is(0, MAP_CREATE)],
        &[Is(0, MAP_LOOKUP_ELEM)],
        &[Is(0, MAP_UPDATE_ELEM)],
        &[Is(0, MAP_DELETE_ELEM)],
        &[Is(0, MAP_GET_NEXT_KEY)],
        &[Is(0, OBJ_GET_INFO_BY_FD)],
        &[Is(0, MAP_LOOKUP_BATCH)],
        &[Is(0, LINK_CREATE)],
    ],
);

/// The calls of a thread, with those of all threads.
fn calls(thread: Thread) -> Vec<Call> {
    let mut calls = match thread {
        Thread::Main { .. } => [ALL, FILES, MAIN].concat(),
        Thread::Smtp if nomail_common::Mechanism::SmtpSyscalls.is_off() => {
            [ALL, FILES, MAIN].concat()
        }
        Thread::Smtp => [ALL, SMTP].concat(),
        Thread::Crowdsec => [ALL, FILES, CROWDSEC].concat(),
    };
    if let Thread::Main { guard: true } = thread {
        calls.push(GUARD);
    }
    calls
}

fn compile(thread: Thread, architecture: TargetArch) -> Result<BpfProgram> {
    let mut rules: BTreeMap<_, Vec<SeccompRule>> = BTreeMap::new();
    for (call, allowed) in calls(thread) {
        let of_call = rules.entry(call).or_default();
        for arguments in allowed {
            of_call.push(rule(arguments)?);
        }
    }
    rules.insert(libc::SYS_tgkill, vec![own_abort()?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        architecture,
    )?;
    Ok(filter.try_into()?)
}

/// abort(3) sends SIGABRT to the calling thread. Allows that, and no other thread.
fn own_abort() -> Result<SeccompRule> {
    rule(&[
        Is(0, getpid().as_raw() as u64),
        Is(1, gettid().as_raw() as u64),
        Is(2, libc::SIGABRT as u64),
    ])
}

fn rule(arguments: &[Argument]) -> Result<SeccompRule> {
    let conditions = arguments.iter().map(|&argument| {
        use SeccompCmpArgLen::{Dword, Qword};
        let (index, length, operator, value) = match argument {
            Is(index, value) => (index, Dword, SeccompCmpOp::Eq, value),
            Null(index) => (index, Qword, SeccompCmpOp::Eq, 0),
            Bits(index, mask, value) => (index, Dword, SeccompCmpOp::MaskedEq(mask), value),
        };
        SeccompCondition::new(index, length, operator, value)
    });
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

#[cfg(test)]
mod tests;
