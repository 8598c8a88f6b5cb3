//! The XDP mode to attach in: what the other end of a veth pair accepts decides whether
//! native XDP can answer there.

use log::warn;

use super::survey::{Accepts, LinkSurvey};
use crate::{config::XdpMode, net::native_xdp_is_blind};

/// Why native mode cannot answer on an end of a veth pair.
pub(super) const ONE_SIDED: &str = "the other end of the veth pair drops what native XDP sends";
/// What can be done about [`ONE_SIDED`].
pub(super) const ONE_SIDED_REMEDY: &str =
    "it has neither GRO nor an XDP program: `ethtool -K PEER gro on` there makes it take them";
/// Why native mode is useless on some devices of virtual machines.
pub(super) const BLIND: &str =
    "virtio_net takes native XDP without mergeable buffers, and never runs it";
const BLIND_REMEDY: &str = "the virtual machine's setting mrg_rxbuf=on makes it run";
/// Why native mode is not tried there before Linux 6.3.
const UNKNOWN: &str =
    "the kernel does not tell whether the other end of the veth pair takes what native XDP sends";
const UNKNOWN_REMEDY: &str = "Linux 6.3 and newer do; if that end has GRO or an XDP program, set \
                              xdp_mode = \"native\"";

/// The mode to attach in, and why if it is not the configured one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AttachMode {
    pub(super) mode: XdpMode,
    /// Empty where it is the configured one.
    pub(super) reason: &'static str,
}

impl AttachMode {
    /// The mode for an interface where `configured` is the setting. `auto` is generic mode
    /// where native XDP sees nothing, or cannot answer, or may not be able to.
    pub(super) fn choose(configured: XdpMode, link: Option<&LinkSurvey>) -> Self {
        let as_configured = Self {
            mode: configured,
            reason: "",
        };
        let Some(link) = link.filter(|_| configured == XdpMode::Auto) else {
            return as_configured;
        };
        let blind = native_xdp_is_blind(&link.status.name, link.index);
        let (reason, remedy, then) = match link.accepts {
            _ if blind => (BLIND, BLIND_REMEDY, ""),
            Accepts::All => return as_configured,
            Accepts::Nothing => (
                ONE_SIDED,
                ONE_SIDED_REMEDY,
                ", and a restart of the agent then uses native mode",
            ),
            Accepts::Unknown => (UNKNOWN, UNKNOWN_REMEDY, ""),
        };
        warn!(
            "{}: generic XDP, which costs more: {reason}; {remedy}{then}",
            link.status.name
        );
        Self {
            mode: XdpMode::Generic,
            reason,
        }
    }
}
