//! What the XDP program asks of a kernel, and which of it this one lacks.
//!
//! It is looked at only after the kernel has refused the program: whatever takes the
//! program has all of it, and distributors take features over into kernels of older
//! numbers, so that the number alone does not tell.

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};

/// Something that came to Linux with version `since`, or is there by an option.
struct Need {
    what: &'static str,
    since: &'static str,
    probe: Probe,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    Program(ProgramType),
    Map(MapType),
    Helper(BpfHelper),
}

/// Oldest first.
const NEEDS: [Need; 7] = [
    Need {
        what: "XDP programs",
        since: "Linux 4.8, CONFIG_BPF_SYSCALL",
        probe: Probe::Program(ProgramType::Xdp),
    },
    Need {
        what: "prefix tries",
        since: "Linux 4.11",
        probe: Probe::Map(MapType::LpmTrie),
    },
    Need {
        what: "SYN cookies for a listener",
        since: "Linux 5.3, CONFIG_INET",
        probe: Probe::Helper(BpfHelper::BPF_FUNC_tcp_gen_syncookie),
    },
    Need {
        what: "the clock in jiffies",
        since: "Linux 5.6",
        probe: Probe::Helper(BpfHelper::BPF_FUNC_jiffies64),
    },
    Need {
        what: "ring buffers",
        since: "Linux 5.8",
        probe: Probe::Map(MapType::RingBuf),
    },
    Need {
        what: "access to frames in several buffers",
        since: "Linux 5.18",
        probe: Probe::Helper(BpfHelper::BPF_FUNC_xdp_load_bytes),
    },
    Need {
        what: "SYN cookies without a socket",
        since: "Linux 6.0, CONFIG_SYN_COOKIES",
        probe: Probe::Helper(BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4),
    },
];

impl Probe {
    /// False only where the kernel says that it has no such thing.
    fn is_there(self) -> bool {
        match self {
            Self::Program(kind) => is_program_supported(kind).unwrap_or(true),
            Self::Map(kind) => is_map_supported(kind).unwrap_or(true),
            Self::Helper(helper) => is_helper_supported(ProgramType::Xdp, helper).unwrap_or(true),
        }
    }
}

/// What the kernel lacks of all that the program needs, in words; empty if nothing.
/// Needs the permission to load programs.
pub fn missing_features() -> String {
    missing(Probe::is_there)
}

fn missing(is_there: impl Fn(Probe) -> bool) -> String {
    let missing = NEEDS.iter().filter(|need| !is_there(need.probe));
    let named = missing.map(|need| format!("{} ({})", need.what, need.since));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_not_there_and_nothing_else() {
        assert_eq!(missing(|_| true), "");
        // As Linux 5.15 has it.
        let newer = [
            BpfHelper::BPF_FUNC_xdp_load_bytes,
            BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4,
        ]
        .map(Probe::Helper);
        assert_eq!(
            missing(|probe| !newer.contains(&probe)),
            "access to frames in several buffers (Linux 5.18), SYN cookies without a socket (Linux \
             6.0, CONFIG_SYN_COOKIES)"
        );
    }
}
