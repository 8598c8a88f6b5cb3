//! The XDP mode to attach in: what the other end of a veth pair accepts decides whether
//! native XDP can answer there.

use log::{debug, warn};

use super::root::Root;
use crate::{
    config::XdpMode,
    net::{Drivers, Interfaces, LinkStatus, XDP_SENDS},
};

/// Why native mode cannot answer on an end of a veth pair.
pub(super) const ONE_SIDED: &str = "the other end of the veth pair drops what native XDP sends";
/// What can be done about [`ONE_SIDED`].
pub(super) const ONE_SIDED_REMEDY: &str =
    "it has neither GRO nor an XDP program: `ethtool -K PEER gro on` there makes it take them";
/// Why native mode is not tried there before Linux 6.3.
const UNKNOWN: &str =
    "the kernel does not tell whether the other end of the veth pair takes what native XDP sends";
const UNKNOWN_REMEDY: &str = "Linux 6.3 and newer do; if that end has GRO or an XDP program, set \
                              xdp_mode = \"native\"";

/// Chooses modes.
#[derive(Debug)]
pub(super) struct Modes {
    configured: XdpMode,
    /// None: the kernel does not tell what drivers can do.
    drivers: Option<Drivers>,
}

/// The mode to attach in, and why if it is not the configured one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AttachMode {
    pub(super) mode: XdpMode,
    /// Empty where it is the configured one.
    pub(super) reason: &'static str,
}

/// What the other end of an interface accepts from native XDP. That of a veth pair accepts
/// nothing, unless it has GRO or an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    All,
    Nothing,
    /// The kernel does not tell, as before Linux 6.3.
    Unknown,
}

impl Modes {
    /// Connects to generic netlink, which needs root.
    pub(super) fn open(_: &Root, configured: XdpMode) -> Self {
        let drivers = Drivers::connect();
        if let Err(error) = &drivers {
            debug!("no generic netlink: {error}");
        }
        Self {
            configured,
            drivers: drivers.ok(),
        }
    }

    pub(super) fn configured(&self) -> XdpMode {
        self.configured
    }

    /// The mode for an interface, by its number. `auto` is generic mode where native XDP
    /// cannot answer, or may not be able to.
    pub(super) async fn choose(&self, kernel: &Interfaces, index: u32) -> AttachMode {
        let configured = AttachMode {
            mode: self.configured,
            reason: "",
        };
        if self.configured != XdpMode::Auto {
            return configured;
        }
        let Ok(Some(glance)) = kernel.link_status(index).await else {
            return configured;
        };
        let (reason, remedy, then) = match self.accepts(&glance, index).await {
            Accepts::All => return configured,
            Accepts::Nothing => (
                ONE_SIDED,
                ONE_SIDED_REMEDY,
                ", and a restart of the agent then uses native mode",
            ),
            Accepts::Unknown => (UNKNOWN, UNKNOWN_REMEDY, ""),
        };
        warn!(
            "{}: generic XDP, which costs more: {reason}; {remedy}{then}",
            glance.name
        );
        AttachMode {
            mode: XdpMode::Generic,
            reason,
        }
    }

    /// Whether the other end of an interface drops all that native XDP sends.
    pub(super) async fn is_one_sided(&self, glance: &LinkStatus, index: u32) -> bool {
        self.accepts(glance, index).await == Accepts::Nothing
    }

    async fn accepts(&self, glance: &LinkStatus, index: u32) -> Accepts {
        if !glance.veth {
            return Accepts::All;
        }
        let features = match &self.drivers {
            Some(drivers) => drivers.xdp_features(index).await,
            None => None,
        };
        match features {
            None => Accepts::Unknown,
            Some(_) if nomail_common::Mechanism::PeerFeatures.is_off() => Accepts::All,
            // Without any, native mode is refused.
            Some(bits) if bits != 0 && bits & XDP_SENDS == 0 => Accepts::Nothing,
            Some(_) => Accepts::All,
        }
    }
}
