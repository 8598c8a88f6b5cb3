//! An XDP program that is not ours.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::net::if_::if_nametoindex;

const BPF_PROG_LOAD: libc::c_long = 5;
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

/// Attaches a program of that name which passes everything. It is there until
/// the result is dropped.
///
/// # Panics
/// Without root, or when something is attached already.
pub fn attach(interface: &str, name: &str) -> OwnedFd {
    let mut load = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..ProgramLoad::default()
    };
    load.name[..name.len()].copy_from_slice(name.as_bytes());
    let program = bpf(BPF_PROG_LOAD, &load);
    bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            program: program.as_raw_fd() as u32,
            interface: if_nametoindex(interface).expect("the interface is there"),
            attach_type: BPF_XDP,
            ..LinkCreate::default()
        },
    )
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> OwnedFd {
    // SAFETY: the attributes are the head of the union of that command, with
    // their length; what they point to lives as long as the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    assert!(
        descriptor >= 0,
        "bpf({command}): {}",
        io::Error::last_os_error()
    );
    // SAFETY: both commands give a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}
