//! The kernel features that the XDP program needs, and which of them this kernel lacks.
//!
//! Checked only after the kernel has refused the program: a kernel that loads it has them all.
//! Distributions backport features, so the version number alone does not decide.

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};

/// A feature that Linux has since a version, or with an option.
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
        what: "arrays of maps",
        since: "Linux 4.12",
        probe: Probe::Map(MapType::ArrayOfMaps),
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
    /// False only where the kernel says that it lacks the feature.
    fn is_there(self) -> bool {
        match self {
            Self::Program(kind) => is_program_supported(kind).unwrap_or(true),
            Self::Map(kind) => is_map_supported(kind).unwrap_or(true),
            Self::Helper(helper) => is_helper_supported(ProgramType::Xdp, helper).unwrap_or(true),
        }
    }
}

/// The features that the kernel lacks, as text; empty if none. Needs the permission to load
/// programs.
pub fn missing_features() -> String {
    missing(Probe::is_there)
}

fn missing(is_there: impl Fn(Probe) -> bool) -> String {
    let missing = NEEDS.iter().filter(|need| !is_there(need.probe));
    let named = missing.map(|need| format!("{} ({})", need.what, need.since));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
