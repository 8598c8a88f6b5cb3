//! BPF programs besides nomail: one that only passes, and those that
//! [`crate::generator`] assembles.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::net::if_::if_nametoindex;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
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
    interface: u32,
    expected_attach_type: u32,
}

/// The head of `union bpf_attr` as BPF_MAP_CREATE reads it.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The head of `union bpf_attr` as BPF_MAP_UPDATE_ELEM reads it.
#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The head of `union bpf_attr` as BPF_PROG_GET_FD_BY_ID reads it.
#[repr(C)]
#[derive(Default)]
struct ProgramById {
    id: u32,
    next: u32,
    flags: u32,
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
    context_length: u32,
    context_output_length: u32,
    context: u64,
    context_output: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// Types of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Frames that an interface receives.
    Xdp,
    /// Packets that an interface sends.
    Egress,
}

/// A map for such a program.
#[derive(Debug)]
pub struct Map(OwnedFd);

impl Map {
    /// One value of that length, zero at first.
    ///
    /// # Panics
    /// Without root.
    pub fn value(length: u32) -> Self {
        Self::create(BPF_MAP_TYPE_ARRAY, length)
    }

    /// Holds one program, to be called.
    ///
    /// # Panics
    /// Without root, or when the program is not of the kind that a map can hold.
    pub fn of_program(program: &Program) -> Self {
        let map = Self::create(BPF_MAP_TYPE_PROG_ARRAY, size_of::<u32>() as u32);
        let (key, value) = (0u32, program.0.as_raw_fd() as u32);
        let mut update = MapUpdate {
            map: map.descriptor() as u32,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            ..MapUpdate::default()
        };
        bpf(BPF_MAP_UPDATE_ELEM, &mut update);
        map
    }

    fn create(map_type: u32, value_size: u32) -> Self {
        let mut create = MapCreate {
            map_type,
            key_size: size_of::<u32>() as u32,
            value_size,
            max_entries: 1,
        };
        Self(owned(bpf(BPF_MAP_CREATE, &mut create)))
    }

    /// Its descriptor, as an instruction names it.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads one that passes everything under that name.
    ///
    /// # Panics
    /// Without root.
    pub fn load(name: &str) -> Self {
        Self::assembled(name, Hook::Xdp, &PASS)
    }

    /// Loads these instructions under that name.
    ///
    /// # Panics
    /// Without root, or when the verifier refuses them, with its log.
    pub fn assembled(name: &str, hook: Hook, instructions: &[u64]) -> Self {
        // As aya loads nomail: what differs in one of them cannot call it.
        let (program_type, flags, expected_attach_type) = match hook {
            Hook::Xdp => (BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, BPF_XDP),
            Hook::Egress => (BPF_PROG_TYPE_SCHED_CLS, 0, 0),
        };
        let mut load = ProgramLoad {
            program_type,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            flags,
            expected_attach_type,
            ..ProgramLoad::default()
        };
        load.name[..name.len()].copy_from_slice(name.as_bytes());
        if let Ok(descriptor) = try_bpf(BPF_PROG_LOAD, &mut load) {
            return Self(owned(descriptor));
        }
        // Again, to hear why not.
        let mut log = vec![0u8; 1 << 20];
        load.log_level = 1;
        load.log_size = log.len() as u32;
        load.log_buffer = log.as_mut_ptr() as u64;
        let result = try_bpf(BPF_PROG_LOAD, &mut load);
        let said = String::from_utf8_lossy(&log);
        let tail = said.trim_end_matches('\0').lines().rev().take(20);
        let tail: Vec<_> = tail.collect();
        panic!(
            "{name}: {result:?}, the log from its end:\n{}",
            tail.join("\n")
        );
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// The loaded program of that number.
    ///
    /// # Panics
    /// Without root, or when it is gone.
    pub fn of_id(id: u32) -> Self {
        let mut by_id = ProgramById {
            id,
            ..ProgramById::default()
        };
        Self(owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id)))
    }

    /// Attaches it to what an interface sends. It is there until the result is
    /// dropped. Linux 6.6 or newer.
    ///
    /// # Panics
    /// Without root, or on an older kernel.
    pub fn attach_to_egress(&self, interface: &str) -> OwnedFd {
        self.attach_as(interface, BPF_TCX_EGRESS)
    }

    /// Sends `count` copies of a frame through the program as if an interface had
    /// received them, in batches: what it redirects is on the wire.
    ///
    /// # Panics
    /// Without root.
    pub fn run_live(&self, frame: &[u8], count: u32) {
        let mut run = TestRun {
            program: self.0.as_raw_fd() as u32,
            frame_length: frame.len() as u32,
            frame: frame.as_ptr() as u64,
            repeat: count,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: 64,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut run);
    }

    /// Attaches it. It is there until the result is dropped.
    ///
    /// # Panics
    /// Without root, or when something is attached already.
    pub fn attach(&self, interface: &str) -> OwnedFd {
        self.attach_as(interface, BPF_XDP)
    }

    fn attach_as(&self, interface: &str, attach_type: u32) -> OwnedFd {
        let mut link = LinkCreate {
            program: self.0.as_raw_fd() as u32,
            interface: if_nametoindex(interface).expect("the interface is there"),
            attach_type,
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
    match try_bpf(command, attributes) {
        Ok(result) => result,
        Err(error) => panic!("bpf({command}): {error}"),
    }
}

pub(crate) fn try_bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are the head of the union of that command, with
    // their length; what they point to lives as long as the call, and the
    // kernel writes to no field but those declared.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: only given the descriptors that bpf(2) has just made, which this process alone owns.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
