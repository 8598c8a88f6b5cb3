//! BPF objects that a process has open, and those that outlive it.

use std::{collections::BTreeSet, fs};

use nix::unistd::Pid;

use crate::foreign::try_bpf;

/// Objects by the kernel's ids, which it does not reuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// Objects that a process has open; none if it is gone.
    pub fn of(process: Pid) -> Self {
        let mut found = Self::default();
        let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fdinfo")) else {
            return found;
        };
        for descriptor in descriptors.flatten() {
            // It may be closed meanwhile.
            let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
            for (name, ids) in [
                ("prog_id:", &mut found.programs),
                ("map_id:", &mut found.maps),
                ("link_id:", &mut found.links),
            ] {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name));
                ids.extend(lines.filter_map(|id| id.trim().parse::<u32>().ok()));
            }
        }
        found
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.programs.extend(&other.programs);
        self.maps.extend(&other.maps);
        self.links.extend(&other.links);
    }

    /// The objects that still exist.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    pub fn living(&self) -> Self {
        let living = |command, ids: &BTreeSet<u32>| {
            let ids = ids.iter().copied();
            ids.filter(|&id| exists(command, id)).collect()
        };
        Self {
            programs: living(BPF_PROG_GET_NEXT_ID, &self.programs),
            maps: living(BPF_MAP_GET_NEXT_ID, &self.maps),
            links: living(BPF_LINK_GET_NEXT_ID, &self.links),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }
}

const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;

/// Whether an object has that id. No descriptor of it is opened: of a
/// program array whose last one was closed a moment ago, Linux loses count when it is
/// opened and closed once more, and never removes it (seen on 6.18).
fn exists(command: libc::c_long, id: u32) -> bool {
    // The number after which to look, the next one, and flags.
    let mut attributes: [u32; 3] = [id - 1, 0, 0];
    match try_bpf(command, &mut attributes) {
        Ok(_) => attributes[1] == id,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            false
        }
    }
}
