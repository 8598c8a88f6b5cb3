//! Where to listen, and what to guard for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use nomail_common::abi::MAX_OWN;

use super::own;
use crate::{
    config::{Config, ListenAddress},
    exit::Failure,
    iface::{Interface, Interfaces, LocalAddress},
};

/// Port of SMTP.
const SMTP_PORT: u16 = 25;

/// A listening socket to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ListenSocket {
    /// Its address, with the scope of a link-local one.
    pub(super) address: SocketAddr,
    /// Found on an interface: it may still be tentative, or go any moment.
    pub(super) found: bool,
}

/// Where to listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Sockets, each with the addresses that it answers on: its own, or all of
    /// its family for a wildcard.
    sockets: BTreeMap<ListenSocket, BTreeSet<IpAddr>>,
    /// Addresses that live on the guarded interfaces themselves, not on a VLAN
    /// or a bridge above them.
    direct: BTreeSet<IpAddr>,
    /// Addresses that no client has, as far as XDP has room for them.
    own: BTreeSet<IpAddr>,
}

impl Places {
    /// What `config` asks for on the host as it is now.
    pub(super) async fn find(
        kernel: &Interfaces,
        config: &Config,
        interfaces: &[Interface],
    ) -> Result<Self, Failure> {
        let local = kernel.addresses().await?;
        let on_guarded = |found: &&LocalAddress| {
            interfaces
                .iter()
                .any(|interface| interface.index == found.interface)
        };
        let direct = local.iter().filter(on_guarded);
        let mut places = Self {
            direct: direct.map(|found| found.address).collect(),
            ..Self::default()
        };
        if config.listen.is_empty() {
            for found in local.iter().filter(on_guarded) {
                let scope = if found.is_link_local() {
                    found.interface
                } else {
                    0
                };
                let address = socket_address(found.address, SMTP_PORT, scope);
                places.add(address, true, [found.address].into());
            }
        }
        for listen in &config.listen {
            let scope = match &listen.scope {
                Some(name) => kernel.named(name).await?.index,
                None => 0,
            };
            let address = socket_address(listen.address, listen.port, scope);
            places.add(address, false, answered_on(listen, &local));
        }
        let routes = kernel.local_routes().await?;
        let networks = kernel.networks().await?;
        let guarded = interfaces.iter().map(|interface| interface.index).collect();
        let own = own::addresses(&routes, &networks, &guarded, &places.guarded());
        places.own = own.into_iter().take(MAX_OWN).collect();
        Ok(places)
    }

    fn add(&mut self, address: SocketAddr, found: bool, answered_on: BTreeSet<IpAddr>) {
        self.sockets
            .insert(ListenSocket { address, found }, answered_on);
    }

    /// The sockets to bind.
    pub(super) fn sockets(&self) -> Vec<ListenSocket> {
        self.sockets.keys().copied().collect()
    }

    /// Whether there is a socket of this address.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.sockets.keys().any(|socket| socket.address == address)
    }

    /// The pairs to guard.
    pub(super) fn guarded(&self) -> HashSet<(IpAddr, u16)> {
        let pairs = self.sockets.iter().flat_map(|(socket, addresses)| {
            let port = socket.address.port();
            addresses.iter().map(move |&address| (address, port))
        });
        pairs.collect()
    }

    /// The addresses that live on the guarded interfaces themselves.
    pub(super) fn direct(&self) -> HashSet<IpAddr> {
        self.direct.iter().copied().collect()
    }

    /// Addresses that no client has, and XDP does not answer to.
    pub(super) fn own(&self) -> HashSet<IpAddr> {
        self.own.iter().copied().collect()
    }

    /// Whether what comes in on an interface gets to a listener, if nothing else is
    /// in the way: Linux takes packets for any of its addresses on any interface,
    /// but for link-local ones.
    pub(super) fn are_reached_over(&self, interface: u32) -> bool {
        self.sockets.iter().any(|(socket, addresses)| {
            let scope = match socket.address {
                SocketAddr::V6(address) => address.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            addresses.iter().any(|address| match address {
                IpAddr::V6(address) if address.is_unicast_link_local() => scope == interface,
                address => !address.is_loopback(),
            })
        })
    }

    /// Leaves out what could not be bound.
    pub(super) fn remove(&mut self, refused: &BTreeSet<ListenSocket>) {
        self.sockets.retain(|socket, _| !refused.contains(socket));
    }

    /// The guarded pairs as people write them, in a steady order.
    pub(super) fn shown(&self, interfaces: &[Interface]) -> Vec<String> {
        let shown = self.sockets.iter().flat_map(|(socket, addresses)| {
            let scope = match socket.address {
                SocketAddr::V6(address) => address.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            let interface = interfaces.iter().find(|interface| interface.index == scope);
            let port = socket.address.port();
            addresses.iter().map(move |address| match interface {
                Some(interface) => format!("[{address}%{}]:{port}", interface.name),
                None => SocketAddr::new(*address, port).to_string(),
            })
        });
        shown.collect()
    }
}

fn answered_on(listen: &ListenAddress, local: &BTreeSet<LocalAddress>) -> BTreeSet<IpAddr> {
    if !listen.address.is_unspecified() {
        return [listen.address].into();
    }
    let addresses = local.iter().map(|local| local.address);
    addresses
        .filter(|address| address.is_ipv4() == listen.address.is_ipv4())
        .collect()
}

fn socket_address(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_link_local_address_on_two_interfaces_is_two_sockets_and_one_pair() {
        let address: IpAddr = "fe80::1".parse().unwrap();
        let mut places = Places::default();
        for scope in [2, 3] {
            places.add(socket_address(address, 25, scope), true, [address].into());
        }
        assert_eq!(places.sockets().len(), 2);
        let pair = HashSet::from([(address, 25)]);
        assert_eq!(places.guarded(), pair);
        places.remove(&[places.sockets()[0]].into());
        assert_eq!(places.guarded(), pair, "the other socket still answers");
    }

    #[test]
    fn an_address_is_reached_over_every_interface_unless_it_is_local_to_one() {
        let mut places = Places::default();
        for (address, scope) in [("fe80::1", 2), ("127.0.0.1", 0), ("::1", 0)] {
            let address: IpAddr = address.parse().unwrap();
            places.add(socket_address(address, 25, scope), true, [address].into());
        }
        assert!(places.are_reached_over(2));
        assert!(!places.are_reached_over(3));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        places.add(socket_address(address, 25, 0), true, [address].into());
        assert!(places.are_reached_over(3));
    }
}
