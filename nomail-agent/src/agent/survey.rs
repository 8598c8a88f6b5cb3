//! Surveys of the network: what the kernel answers, collected while the loop serves others, and
//! then applied at once.

use std::collections::{BTreeMap, BTreeSet};

use log::debug;

use super::root::Root;
use crate::{
    config,
    net::{
        ConfiguredAddress, Drivers, IfaceError, Interface, Interfaces, LinkStatus, Links,
        LocalRoutes, XDP_SENDS,
    },
};

/// Asks the kernel.
#[derive(Clone)]
pub(super) struct Surveyor {
    kernel: Interfaces,
    /// None: the kernel does not tell what drivers can do.
    drivers: Option<Drivers>,
}

/// What the other end of an interface accepts from native XDP. That of a veth pair accepts
/// nothing, unless it has GRO or an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    All,
    Nothing,
    /// The kernel does not tell, as before Linux 6.3.
    Unknown,
}

/// The state of a link that is guarded, or is to be.
#[derive(Debug)]
pub(super) struct LinkSurvey {
    pub(super) index: u32,
    pub(super) status: LinkStatus,
    pub(super) accepts: Accepts,
}

/// By index, without links that are gone.
pub(super) type LinkSurveys = BTreeMap<u32, Result<LinkSurvey, IfaceError>>;

/// The addresses and local routes of this host.
#[derive(Debug, Default)]
pub(super) struct HostAddresses {
    pub(super) configured: BTreeSet<ConfiguredAddress>,
    pub(super) routes: LocalRoutes,
}

/// The links, addresses and routes of this host.
#[derive(Debug, Default)]
pub(super) struct HostSurvey {
    pub(super) links: Links,
    /// The interface of the default route, where one is named so.
    pub(super) default_route: Option<Interface>,
    pub(super) addresses: HostAddresses,
}

/// What the kernel says at one time.
#[derive(Debug)]
pub(super) struct Survey {
    /// The links that are guarded, or are to be.
    pub(super) links: LinkSurveys,
    /// The whole host, where it may have changed.
    pub(super) host: Option<Result<HostSurvey, IfaceError>>,
}

impl Surveyor {
    /// Connects to the kernel; to generic netlink needs root.
    pub(super) fn connect(_: &Root) -> Result<Self, IfaceError> {
        let drivers = Drivers::connect();
        if let Err(error) = &drivers {
            debug!("no generic netlink: {error}");
        }
        Ok(Self {
            kernel: Interfaces::connect()?,
            drivers: drivers.ok(),
        })
    }

    /// Surveys the guarded interfaces, and with `whole` the host.
    pub(super) async fn survey(self, guarded: Vec<Interface>, whole: bool) -> Survey {
        let mut indexes: BTreeSet<_> = guarded.iter().map(|on| on.index).collect();
        let mut host = None;
        if whole {
            let names = guarded.iter().map(|on| on.name.as_str());
            let surveyed = self.host(names).await;
            if let Ok(host) = &surveyed {
                let returned = guarded.iter().filter_map(|on| host.find_again(on));
                indexes.extend(returned.map(|on| on.index));
            }
            host = Some(surveyed);
        }
        Survey {
            links: self.links(indexes).await,
            host,
        }
    }

    /// Surveys the host, of which interfaces with these names are guarded.
    pub(super) async fn host(
        &self,
        mut names: impl Iterator<Item = &str>,
    ) -> Result<HostSurvey, IfaceError> {
        let links = self.kernel.links().await?;
        let default_route = match names.any(|name| name == config::DEFAULT_ROUTE) {
            false => None,
            true => match self.kernel.of_default_route(&links).await {
                Err(IfaceError::NoDefaultRoute) => None,
                found => Some(found?.clone()),
            },
        };
        Ok(HostSurvey {
            links,
            default_route,
            addresses: HostAddresses {
                configured: self.kernel.configured_addresses().await?,
                routes: self.kernel.local_routes().await?,
            },
        })
    }

    /// Surveys the links with these indexes.
    pub(super) async fn links(&self, indexes: impl IntoIterator<Item = u32>) -> LinkSurveys {
        let mut links = LinkSurveys::new();
        // 0 is one that does not exist yet.
        for index in indexes.into_iter().filter(|index| *index != 0) {
            let surveyed = match self.kernel.link_status(index).await {
                Ok(None) => continue,
                Ok(Some(status)) => Ok(LinkSurvey {
                    index,
                    accepts: self.accepts(&status, index).await,
                    status,
                }),
                Err(error) => Err(error),
            };
            links.insert(index, surveyed);
        }
        links
    }

    async fn accepts(&self, status: &LinkStatus, index: u32) -> Accepts {
        if !status.veth {
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

impl HostSurvey {
    /// The interface that has a name of `gone` now.
    pub(super) fn find_again(&self, gone: &Interface) -> Option<&Interface> {
        if gone.name == config::DEFAULT_ROUTE {
            return self.default_route.as_ref();
        }
        let mut names = std::iter::once(&gone.name).chain(&gone.alternatives);
        names.find_map(|name| self.links.named(name).ok())
    }
}
