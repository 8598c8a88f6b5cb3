//! Addresses that no client has: a packet with such a source is forged, and an answer to it
//! would go to this host or to a whole network.

use std::{
    collections::{BTreeSet, HashSet},
    iter::once,
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net};
use nomail_common::wire::packet::Address;

use crate::net::{ConfiguredAddress, LocalRoutes};

/// This host's addresses, and the first and the last address of each of its networks, those
/// of the guarded interfaces first; except those that XDP never answers, because no host can
/// have them.
pub(super) fn addresses(
    routes: &LocalRoutes,
    configured: &BTreeSet<ConfiguredAddress>,
    interfaces: &BTreeSet<u32>,
) -> Vec<IpAddr> {
    let on_guarded = |of: &&ConfiguredAddress| interfaces.contains(&of.local.interface);
    let of_network = |of: &ConfiguredAddress| {
        let ends = match &of.network {
            IpNet::V4(network) => ends(network),
            IpNet::V6(_) => None,
        };
        once(of.local.address).chain(ends.into_iter().flatten())
    };
    let near = configured.iter().filter(on_guarded).flat_map(of_network);
    let far = configured.iter().flat_map(of_network);
    let single = routes.own.iter().filter_map(|route| {
        let prefix = route.prefix;
        (prefix.prefix_len() == prefix.max_prefix_len()).then_some(prefix.addr())
    });
    let mut seen = HashSet::new();
    near.chain(routes.shared.iter().copied())
        .chain(far)
        .chain(single)
        .filter(|address| Address::from(*address).is_answerable(address.is_ipv6()))
        .filter(|address| seen.insert(*address))
        .collect()
}

/// The first and the last address of a network, if hosts do not have them (RFC 3021).
fn ends(network: &Ipv4Net) -> Option<[IpAddr; 2]> {
    (network.prefix_len() < 31).then(|| [network.network().into(), network.broadcast().into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{LocalAddress, LocalRoute};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found() -> Vec<String> {
        let network = |interface, own: &str| {
            let network: IpNet = own.parse().unwrap();
            let local = LocalAddress {
                address: network.addr(),
                interface,
            };
            ConfiguredAddress {
                local,
                network: network.trunc(),
                secondary: false,
            }
        };
        let networks = [
            network(1, "127.0.0.1/8"),
            network(1, "::1/128"),
            network(2, "10.0.0.1/24"),
            network(2, "10.0.1.4/31"),
            network(3, "192.0.2.1/24"),
            network(3, "2001:db8::1/64"),
        ];
        let route = |prefix: &str| LocalRoute {
            prefix: prefix.parse().unwrap(),
            interface: 3,
        };
        let routes = LocalRoutes {
            own: ["192.0.2.1/32", "198.51.100.7/32", "203.0.113.0/24"]
                .map(route)
                .into(),
            shared: ["192.0.2.255", "192.0.2.127", "127.255.255.255"]
                .map(address)
                .into(),
        };
        addresses(&routes, &networks.into(), &[3].into())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn those_of_guarded_interfaces_come_first_and_loopback_never() {
        let all = [
            "192.0.2.1",
            "192.0.2.0",
            "192.0.2.255",
            "2001:db8::1",
            "192.0.2.127",
            "10.0.0.1",
            "10.0.0.0",
            "10.0.0.255",
            "10.0.1.4",
            "198.51.100.7",
        ];
        assert_eq!(found(), all);
    }
}
