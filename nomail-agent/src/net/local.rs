//! The kernel's local routes: all addresses that are this host's, also those that no
//! interface has.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{IfaceError, Interfaces};

/// A prefix that is this host's own: a single address, or more (AnyIP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalRoute {
    /// The addresses.
    pub prefix: IpNet,
    /// The number of the interface that the route names.
    pub interface: u32,
}

/// What the kernel keeps for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRoutes {
    /// What is this host's own.
    pub own: BTreeSet<LocalRoute>,
    /// Addresses of all hosts of a network, or of the nearest: no client has them.
    pub shared: BTreeSet<IpAddr>,
}

impl Interfaces {
    /// The local routes of all tables: those of a VRF are in a table of its own.
    ///
    /// # Errors
    /// When the kernel does not tell.
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
            // The kernel leaves out all others, which may be a million: it checks
            // strictly, since this connection asked for it.
            wanted.header.kind = kind;
            let mut routes = self.routes.route().get(wanted).execute();
            while let Some(route) = routes.try_next().await? {
                local.add(&route);
            }
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

/// Where a route leads to. A default route names no destination.
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
mod tests {
    use super::*;

    fn route(kind: RouteType, prefix: &str) -> RouteMessage {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut route = RouteMessage::default();
        route.header.kind = kind;
        route.header.destination_prefix_length = prefix.prefix_len();
        route.header.address_family = match prefix {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        route.attributes.push(RouteAttribute::Oif(7));
        if prefix.prefix_len() > 0 {
            let destination = RouteAddress::from(prefix.addr());
            route
                .attributes
                .push(RouteAttribute::Destination(destination));
        }
        route
    }

    fn found(routes: &[RouteMessage]) -> (Vec<String>, Vec<String>) {
        let mut local = LocalRoutes::default();
        for route in routes {
            local.add(route);
        }
        assert!(local.own.iter().all(|route| route.interface == 7));
        let own = local.own.iter().map(|route| route.prefix.to_string());
        let shared = local.shared.iter().map(ToString::to_string);
        (own.collect(), shared.collect())
    }

    #[test]
    fn addresses_and_prefixes_are_own_and_broadcast_is_of_all() {
        let (own, shared) = found(&[
            route(RouteType::Local, "198.51.100.7/32"),
            route(RouteType::Local, "198.51.100.128/25"),
            route(RouteType::Local, "0.0.0.0/0"),
            route(RouteType::Local, "2001:db8::7/128"),
            route(RouteType::Local, "::/0"),
            route(RouteType::Broadcast, "192.0.2.255/32"),
            route(RouteType::Anycast, "2001:db8::/128"),
            route(RouteType::Unicast, "203.0.113.1/32"),
            route(RouteType::Multicast, "ff00::/8"),
        ]);
        let expected = [
            "0.0.0.0/0",
            "198.51.100.7/32",
            "198.51.100.128/25",
            "::/0",
            "2001:db8::7/128",
        ];
        assert_eq!(own, expected);
        assert_eq!(shared, ["192.0.2.255", "2001:db8::"]);
    }

    #[test]
    fn a_route_that_names_no_destination_is_one_to_everything_or_nothing() {
        let mut nameless = route(RouteType::Local, "0.0.0.0/0");
        nameless.header.destination_prefix_length = 24;
        assert_eq!(found(&[nameless]), Default::default());
    }

    #[tokio::test]
    async fn the_kernel_tells_what_is_its_own() {
        let kernel = Interfaces::connect().unwrap();
        let local = kernel.local_routes().await.unwrap();
        let loopback: IpNet = "127.0.0.1/32".parse().unwrap();
        assert!(local.own.iter().any(|route| route.prefix == loopback));
        for configured in kernel.configured_addresses().await.unwrap() {
            let own = configured.local.address;
            let mut routes = local.own.iter();
            assert!(
                routes.any(|route| route.prefix.contains(&own)),
                "{configured:?}"
            );
        }
    }
}
