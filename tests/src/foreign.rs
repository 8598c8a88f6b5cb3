//! An XDP program that is not ours.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::net::if_::if_nametoindex;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// `mov32 r0, 2` (XDP_PASS) and `exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b4, 0x95];

/// The head of `union bpf_attr` as BPF_PROG_LOAD reads it.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` as BPF_LINK_CREATE reads it.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// The head of `union bpf_attr` as BPF_PROG_TEST_RUN reads it.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    return_value: u32,
    frame_length: u32,
    output_length: u32,
    frame: u64,
    output: u64,
    repeat: u32,
    duration_nanos: u32,
}

/// A loaded program that passes everything.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads it under that name.
    ///
    /// # Panics
    /// Without root.
    pub fn load(name: &str) -> Self {
        let mut load = ProgramLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: PASS.len() as u32,
            instructions: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..ProgramLoad::default()
        };
        load.name[..name.len()].copy_from_slice(name.as_bytes());
        Self(owned(bpf(BPF_PROG_LOAD, &mut load)))
    }

    /// Attaches it. It is there until the result is dropped.
    ///
    /// # Panics
    /// Without root, or when something is attached already.
    pub fn attach(&self, interface: &str) -> OwnedFd {
        let mut link = LinkCreate {
            program: self.0.as_raw_fd() as u32,
            interface: if_nametoindex(interface).expect("the interface is there"),
            attach_type: BPF_XDP,
            ..LinkCreate::default()
        };
        owned(bpf(BPF_LINK_CREATE, &mut link))
    }

    /// Mean nanoseconds of `repeat` runs on a frame.
    ///
    /// # Panics
    /// Without root.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> u32 {
        let mut run = TestRun {
            program: self.0.as_raw_fd() as u32,
            frame_length: frame.len() as u32,
            frame: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut run);
        run.duration_nanos
    }
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> i32 {
    // SAFETY: the attributes are the head of the union of that command, with
    // their length; what they point to lives as long as the call, and the
    // kernel writes to no field but those declared.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    assert!(
        result >= 0,
        "bpf({command}): {}",
        io::Error::last_os_error()
    );
    result as i32
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: only given the descriptors that BPF_PROG_LOAD and BPF_LINK_CREATE
    // have just made, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
