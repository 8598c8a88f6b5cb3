//! The kernel's local routes: all addresses of this host, also those that no interface has.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{
    error::IfaceError,
    netlink::{Interfaces, read_all},
};

/// A prefix of this host's own addresses: one address, or more (AnyIP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalRoute {
    /// The addresses.
    pub prefix: IpNet,
    /// The index of the interface that the route names, 0 for none.
    pub interface: u32,
}

/// The local routes of all tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRoutes {
    /// This host's own addresses.
    pub own: BTreeSet<LocalRoute>,
    /// Broadcast and anycast addresses, which no client has.
    pub shared: BTreeSet<IpAddr>,
}

impl Interfaces {
    /// The local routes of all tables: those of a VRF are in a table of its own.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn local_routes(&self) -> Result<LocalRoutes, IfaceError> {
        let mut local = LocalRoutes::default();
        for (family, kind) in [
            (AddressFamily::Inet, RouteType::Local),
            (AddressFamily::Inet, RouteType::Broadcast),
            (AddressFamily::Inet6, RouteType::Local),
            (AddressFamily::Inet6, RouteType::Anycast),
        ] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            // With strict checking the kernel leaves out all others, which may be a million.
            wanted.header.kind = kind;
            let answer = self.routes.route().get(wanted).execute();
            read_all(answer, |route| local.add(&route)).await?;
        }
        Ok(local)
    }
}

impl LocalRoutes {
    fn add(&mut self, route: &RouteMessage) {
        let Some(prefix) = destination(route) else {
            return;
        };
        match route.header.kind {
            RouteType::Local => {
                let interface = route.attributes.iter().find_map(|attribute| {
                    let RouteAttribute::Oif(interface) = attribute else {
                        return None;
                    };
                    Some(*interface)
                });
                self.own.insert(LocalRoute {
                    prefix,
                    interface: interface.unwrap_or(0),
                });
            }
            RouteType::Broadcast | RouteType::Anycast
                if prefix.prefix_len() == prefix.max_prefix_len() =>
            {
                self.shared.insert(prefix.addr());
            }
            _ => {}
        }
    }
}

/// The destination of a route. A default route names none.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    let named = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        });
    let length = route.header.destination_prefix_length;
    let everything = || match route.header.address_family {
        AddressFamily::Inet => Some(IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    };
    let address = named.or_else(|| everything().filter(|_| length == 0))?;
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests;
