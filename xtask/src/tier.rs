//! The tiers of tests, by what they need.

use std::fmt;

/// What a test needs, and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Host,
    Bpf,
    Netns,
    Senders,
    Vm,
    Package,
    Mechanisms,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Bpf => "bpf",
            Self::Netns => "netns",
            Self::Senders => "senders",
            Self::Vm => "vm",
            Self::Package => "package",
            Self::Mechanisms => "mechanisms",
        })
    }
}

/// The tier of a test program of the package nomail-tests.
pub(crate) fn of_program(name: &str) -> Tier {
    if name.starts_with("bpf_") {
        Tier::Bpf
    } else if name == "senders" {
        Tier::Senders
    } else if ["vm", "devices", "clock"].contains(&name) {
        Tier::Vm
    } else if name == "package" {
        Tier::Package
    } else {
        Tier::Netns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_belong_to_tiers() {
        assert_eq!(of_program("bpf_limiter"), Tier::Bpf);
        assert_eq!(of_program("responder"), Tier::Netns);
        assert_eq!(of_program("no_bpf_here"), Tier::Netns);
        assert_eq!(of_program("bpf"), Tier::Netns);
        assert_eq!(of_program("senders"), Tier::Senders);
        assert_eq!(of_program("devices"), Tier::Vm);
        assert_eq!(of_program("package"), Tier::Package);
    }
}
