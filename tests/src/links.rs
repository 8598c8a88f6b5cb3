//! Links of attached programs, found, detached and updated as bpftool does.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::foreign::{Program, try_bpf};

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The head of `union bpf_attr` as BPF_LINK_GET_NEXT_ID and BPF_LINK_GET_FD_BY_ID read it.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// The head of `union bpf_attr` as BPF_OBJ_GET_INFO_BY_FD reads it.
#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
}

/// The head of `union bpf_attr` as BPF_LINK_DETACH and BPF_LINK_UPDATE read it.
#[repr(C)]
#[derive(Default)]
struct Change {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// The link of a program.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// The link of the program with that id, if it has one.
    ///
    /// # Panics
    /// Without root.
    pub fn of_program(program: u32) -> Option<Self> {
        let mut found = ById::default();
        loop {
            if let Err(error) = try_bpf(BPF_LINK_GET_NEXT_ID, &mut found) {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
                return None;
            }
            found.id = found.next;
            let mut by_id = ById {
                id: found.id,
                ..ById::default()
            };
            // Another test's may be gone by now.
            let Ok(descriptor) = try_bpf(BPF_LINK_GET_FD_BY_ID, &mut by_id) else {
                continue;
            };
            // SAFETY: bpf(2) has just made the descriptor, which this process alone owns.
            let link = Self(unsafe { OwnedFd::from_raw_fd(descriptor) });
            let mut info = LinkInfo::default();
            let mut ask = InfoByFd {
                descriptor: link.0.as_raw_fd() as u32,
                length: size_of::<LinkInfo>() as u32,
                info: (&raw mut info) as u64,
            };
            try_bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask).expect("root may ask");
            if info.program == program {
                return Some(link);
            }
        }
    }

    /// Takes the program off its interface, as `bpftool link detach` does.
    ///
    /// # Panics
    /// When that is refused.
    pub fn detach(&self) {
        let mut change = Change {
            link: self.0.as_raw_fd() as u32,
            ..Change::default()
        };
        try_bpf(BPF_LINK_DETACH, &mut change).expect("a link of XDP can be detached");
    }

    /// Replaces its program.
    ///
    /// # Panics
    /// When that is refused.
    pub fn update(&self, program: &Program) {
        let mut change = Change {
            link: self.0.as_raw_fd() as u32,
            program: program.descriptor() as u32,
            ..Change::default()
        };
        try_bpf(BPF_LINK_UPDATE, &mut change).expect("a link of XDP can be updated");
    }
}
