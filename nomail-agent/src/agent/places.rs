//! Where to listen, and what to guard for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use anyhow::anyhow;
use ipnet::IpNet;
use nomail_common::abi::{MAX_GUARDED, MAX_OWN};

use super::own;
use crate::{
    config::{Config, ListenAddress},
    exit::{Exit, Failure},
    net::{ConfiguredAddress, IfaceError, Interface, Interfaces, LocalAddress, LocalRoutes},
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
    /// Sockets, each with the addresses that it answers on and that are guarded: its
    /// own, or those of its family for a wildcard.
    sockets: BTreeMap<ListenSocket, BTreeSet<IpAddr>>,
    /// Those of them for which frames come without a VLAN tag.
    untagged: BTreeSet<IpAddr>,
    /// Addresses that no client has, as far as XDP has room for them.
    own: BTreeSet<IpAddr>,
    /// Those that it has no room for.
    own_left_out: usize,
    /// Pairs that are not guarded, because there is no room, and whole networks that a
    /// wildcard answers for.
    unguarded: Vec<String>,
    /// Configured sockets that no address or interface is there for.
    absent: BTreeSet<String>,
}

/// What the kernel tells of addresses.
#[derive(Debug, Default)]
struct Local {
    configured: BTreeSet<ConfiguredAddress>,
    routes: LocalRoutes,
}

/// Which of too many pairs are guarded: the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It is configured.
    Configured,
    /// The first address of its network on an interface.
    Primary,
    /// No interface has it.
    Routed,
    /// One more of the same network, or a temporary one.
    Secondary,
    /// Of loopback.
    Loopback,
}

/// A pair to be guarded, if there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    /// It is not guarded yet.
    new: bool,
    address: IpAddr,
    socket: ListenSocket,
}

impl Places {
    /// What `config` asks for on the host as it is now. Where there is too much, what is
    /// guarded `before` stays so.
    pub(super) async fn find(
        kernel: &Interfaces,
        config: &Config,
        interfaces: &[Interface],
        before: &HashSet<(IpAddr, u16)>,
    ) -> Result<Self, Failure> {
        let local = Local {
            configured: kernel.configured_addresses().await?,
            routes: kernel.local_routes().await?,
        };
        let mut scopes = BTreeMap::new();
        for name in config.listen.iter().filter_map(|on| on.scope.as_deref()) {
            match kernel.named(name).await {
                Ok(found) => drop(scopes.insert(name, found.index)),
                Err(IfaceError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::of(
            &config.listen,
            &scopes,
            interfaces,
            &local,
            before,
        ))
    }

    fn of(
        listen: &[ListenAddress],
        scopes: &BTreeMap<&str, u32>,
        interfaces: &[Interface],
        local: &Local,
        before: &HashSet<(IpAddr, u16)>,
    ) -> Self {
        let guarded: BTreeSet<_> = interfaces.iter().map(|on| on.index).collect();
        let mut candidates = Vec::new();
        let mut absent = BTreeSet::new();
        if listen.is_empty() {
            let here = local.configured.iter();
            for found in here.filter(|found| guarded.contains(&found.local.interface)) {
                let LocalAddress { address, interface } = found.local;
                let scope = match found.local.is_link_local() {
                    true => interface,
                    false => 0,
                };
                let socket = ListenSocket {
                    address: socket_address(address, SMTP_PORT, scope),
                    found: true,
                };
                candidates.push((rank(found), address, socket));
            }
        }
        let mut unguarded = Vec::new();
        for on in listen {
            let scope = on.scope.as_deref().map(|name| scopes.get(name));
            if scope == Some(None) {
                absent.insert(on.to_string());
                continue;
            }
            let scope = scope.flatten().copied().unwrap_or(0);
            let address = socket_address(on.address, on.port, scope);
            let socket = ListenSocket {
                address,
                found: false,
            };
            if on.address.is_unspecified() {
                let answered = local.answered(on.address.is_ipv4());
                candidates.extend(answered.map(|(rank, address)| (rank, address, socket)));
                let networks = local.networks(on.address.is_ipv4());
                unguarded.extend(networks.map(|network| format!("{network} port {}", on.port)));
            } else {
                if !local.has(on.address) {
                    absent.insert(address.to_string());
                }
                candidates.push((Rank::Configured, on.address, socket));
            }
        }
        let mut candidates: Vec<_> = candidates
            .into_iter()
            .map(|(rank, address, socket)| Candidate {
                rank,
                new: !before.contains(&(address, socket.address.port())),
                address,
                socket,
            })
            .collect();
        candidates.sort_unstable();
        let mut places = Self {
            untagged: candidates
                .iter()
                .map(|candidate| candidate.address)
                .filter(|address| local.is_untagged(*address, interfaces))
                .collect(),
            absent,
            ..Self::default()
        };
        for on in listen.iter().filter(|on| on.address.is_unspecified()) {
            // It answers, even if there is no address to guard.
            let address = socket_address(on.address, on.port, 0);
            places.add(address, false, BTreeSet::new());
        }
        let mut pairs = HashSet::new();
        let mut left_out = BTreeSet::new();
        for Candidate {
            address, socket, ..
        } in candidates
        {
            let pair = (address, socket.address.port());
            if pairs.len() < MAX_GUARDED || pairs.contains(&pair) {
                pairs.insert(pair);
                places.sockets.entry(socket).or_default().insert(address);
            } else {
                left_out.insert(pair);
            }
        }
        let left_out = left_out.iter().filter(|pair| !pairs.contains(pair));
        places.unguarded = left_out
            .map(|&(address, port)| SocketAddr::new(address, port).to_string())
            .chain(unguarded)
            .collect();
        // The guarded ones first. Any of them may yet turn out not to be bound, and is own then.
        let of_guard: HashSet<_> = pairs.iter().map(|(address, _)| *address).collect();
        let mut own = own::addresses(&local.routes, &local.configured, &guarded);
        own.sort_by_key(|own| !of_guard.contains(own));
        places.own_left_out = own.len().saturating_sub(MAX_OWN);
        own.truncate(MAX_OWN);
        places.own = own.into_iter().collect();
        places
    }

    /// At the start something is to be there: with nothing but mistyped addresses the
    /// agent would only seem to serve.
    pub(super) async fn some_are_there(
        &self,
        kernel: &Interfaces,
        config: &Config,
    ) -> Result<(), Failure> {
        if self.absent.len() < config.listen.len() || config.listen.is_empty() {
            return Ok(());
        }
        for name in config.listen.iter().filter_map(|on| on.scope.as_deref()) {
            kernel.named(name).await?;
        }
        let absent: Vec<_> = self.absent.iter().map(String::as_str).collect();
        Err(Failure::new(
            Exit::Failed,
            anyhow!(
                "cannot listen on {}: no interface has that address: `ip address` lists those \
                 that are there",
                absent.join(", ")
            ),
        ))
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

    /// The addresses that XDP may answer for.
    pub(super) fn untagged(&self) -> HashSet<IpAddr> {
        self.untagged.iter().copied().collect()
    }

    /// Addresses that no client has, and XDP does not answer to.
    pub(super) fn own(&self) -> HashSet<IpAddr> {
        self.own.iter().copied().collect()
    }

    /// How many of them XDP has no room for.
    pub(super) fn own_left_out(&self) -> usize {
        self.own_left_out
    }

    /// What is not guarded, as people write it.
    pub(super) fn unguarded(&self) -> &[String] {
        &self.unguarded
    }

    /// Whether a configured socket is for an address that is not there.
    pub(super) fn is_absent(&self, socket: ListenSocket) -> bool {
        !socket.found && self.absent.contains(&socket.address.to_string())
    }

    /// What is configured and not there, as people write it.
    pub(super) fn absent(&self) -> &BTreeSet<String> {
        &self.absent
    }

    /// Guarded pairs that XDP does not answer for, as people write them. Loopback
    /// addresses do not come over a wire.
    pub(super) fn unchallenged(&self) -> BTreeSet<SocketAddr> {
        let there = self
            .sockets
            .iter()
            .filter(|(socket, _)| !self.is_absent(**socket));
        let pairs = there.flat_map(|(socket, addresses)| {
            let port = socket.address.port();
            addresses
                .iter()
                .filter(|address| !address.is_loopback() && !self.untagged.contains(address))
                .map(move |address| SocketAddr::new(*address, port))
        });
        pairs.collect()
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
            let interface = interfaces
                .iter()
                .find(|interface| scope != 0 && interface.index == scope);
            let port = socket.address.port();
            addresses.iter().map(move |address| match interface {
                Some(interface) => format!("[{address}%{}]:{port}", interface.name),
                None => SocketAddr::new(*address, port).to_string(),
            })
        });
        shown.collect()
    }
}

impl Local {
    /// Addresses that no interface has, and yet this host.
    fn routed(&self) -> impl Iterator<Item = IpAddr> {
        let configured: HashSet<_> = self.configured.iter().map(|on| on.local.address).collect();
        let single = self.routes.own.iter().map(|route| route.prefix);
        let single = single.filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
        let addresses: BTreeSet<_> = single.map(|prefix| prefix.addr()).collect();
        addresses
            .into_iter()
            .filter(move |address| !configured.contains(address))
    }

    /// All addresses that a wildcard answers on.
    fn answered(&self, ipv4: bool) -> impl Iterator<Item = (Rank, IpAddr)> {
        let configured = self.configured.iter();
        let configured = configured.map(|found| (rank(found), found.local.address));
        let routed = self.routed().map(|address| (Rank::Routed, address));
        configured
            .chain(routed)
            .filter(move |(_, address)| address.is_ipv4() == ipv4)
    }

    /// Networks that are this host's as a whole, loopback's apart.
    fn networks(&self, ipv4: bool) -> impl Iterator<Item = IpNet> {
        let networks: BTreeSet<_> = self.routes.own.iter().map(|route| route.prefix).collect();
        networks.into_iter().filter(move |network| {
            let single = network.prefix_len() == network.max_prefix_len();
            !single && network.addr().is_ipv4() == ipv4 && !network.addr().is_loopback()
        })
    }

    /// Whether it is this host's.
    fn has(&self, address: IpAddr) -> bool {
        let mut configured = self.configured.iter();
        configured.any(|found| found.local.address == address)
            || self
                .routes
                .own
                .iter()
                .any(|route| route.prefix.contains(&address))
    }

    /// Whether frames for the address on the guarded interfaces have no VLAN tag: it is
    /// one of theirs; or it is of nothing that is stacked on one, as loopback's and
    /// routed ones are, and there is no VLAN by which they may come as well.
    fn is_untagged(&self, address: IpAddr, interfaces: &[Interface]) -> bool {
        let here = self.configured.iter().map(|found| found.local);
        let mut here = here.filter(|found| found.address == address).peekable();
        let vlans = interfaces.iter().any(|guarded| guarded.has_vlans);
        if here.peek().is_none() {
            return self.has(address) && !vlans;
        }
        here.any(|found| {
            interfaces.iter().any(|on| on.index == found.interface)
                || !vlans
                    && interfaces
                        .iter()
                        .all(|on| !on.stacked.contains(&found.interface))
        })
    }
}

fn rank(found: &ConfiguredAddress) -> Rank {
    if found.local.address.is_loopback() {
        Rank::Loopback
    } else if found.secondary {
        Rank::Secondary
    } else {
        Rank::Primary
    }
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
    use crate::net::LocalRoute;

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

    fn listen(texts: &[&str]) -> Vec<ListenAddress> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn on(interface: u32, address: &str, secondary: bool) -> ConfiguredAddress {
        let network: IpNet = address.parse().unwrap();
        ConfiguredAddress {
            local: LocalAddress {
                address: network.addr(),
                interface,
            },
            network: network.trunc(),
            secondary,
        }
    }

    fn interface(index: u32) -> Interface {
        Interface {
            index,
            ..Interface::absent("host0")
        }
    }

    fn find(listen: &[ListenAddress], guarded: &[Interface], local: &Local) -> Places {
        let scopes = BTreeMap::from([("host0", 2)]);
        Places::of(listen, &scopes, guarded, local, &HashSet::new())
    }

    fn routes(prefixes: &[&str]) -> LocalRoutes {
        let own = prefixes.iter().map(|prefix| LocalRoute {
            prefix: prefix.parse().unwrap(),
            interface: 2,
        });
        LocalRoutes {
            own: own.collect(),
            ..LocalRoutes::default()
        }
    }

    #[test]
    fn too_many_addresses_cost_the_last_ones_and_no_served_one() {
        let secondary = (0..MAX_GUARDED + 20).map(|n| {
            let address = format!("10.0.{}.{}/16", n / 256, n % 256);
            on(2, &address, true)
        });
        let primary = on(2, "198.51.100.1/24", false);
        let local = Local {
            configured: secondary.chain([primary]).collect(),
            ..Local::default()
        };
        let guarded = [interface(2)];
        let places = find(&[], &guarded, &local);
        assert_eq!(places.guarded().len(), MAX_GUARDED);
        assert_eq!(places.sockets().len(), MAX_GUARDED);
        assert!(places.guarded().contains(&(primary.local.address, 25)));
        assert_eq!(places.unguarded().len(), 21);
        assert_eq!(places.unguarded()[0], "10.0.3.255:25");
        // What was guarded before is not given up for another one like it.
        let late: IpAddr = "10.0.4.19".parse().unwrap();
        let before = HashSet::from([(late, 25)]);
        let scopes = BTreeMap::new();
        let places = Places::of(&[], &scopes, &guarded, &local, &before);
        assert!(places.guarded().contains(&(late, 25)));
        assert_eq!(places.unguarded().len(), 21);
        // A wildcard answers for the others as well.
        let places = find(&listen(&["0.0.0.0:25"]), &guarded, &local);
        assert_eq!(places.sockets().len(), 1);
        assert_eq!(places.unguarded().len(), 21);
    }

    #[test]
    fn a_wildcard_guards_what_is_routed_here_and_names_networks() {
        let local = Local {
            configured: [on(1, "127.0.0.1/8", false), on(2, "192.0.2.1/24", false)].into(),
            routes: routes(&[
                "127.0.0.0/8",
                "127.0.0.1/32",
                "192.0.2.1/32",
                "198.51.100.7/32",
                "203.0.113.0/24",
                "2001:db8:1::/64",
                "2001:db8::7/128",
            ]),
        };
        let guarded = [interface(2)];
        let places = find(&listen(&["0.0.0.0:25", "[::]:26"]), &guarded, &local);
        let expected = [
            "127.0.0.1:25",
            "192.0.2.1:25",
            "198.51.100.7:25",
            "[2001:db8::7]:26",
        ];
        assert_eq!(places.shown(&guarded), expected);
        assert_eq!(
            places.unguarded(),
            ["203.0.113.0/24 port 25", "2001:db8:1::/64 port 26"]
        );
        assert!(places.unchallenged().is_empty());
        let only_found = find(&[], &guarded, &local);
        assert_eq!(only_found.shown(&guarded), ["192.0.2.1:25"]);
        assert!(only_found.unguarded().is_empty());
    }

    #[test]
    fn what_may_come_by_a_vlan_is_not_challenged() {
        let local = Local {
            configured: [
                on(1, "198.51.100.1/32", false),
                on(2, "192.0.2.1/24", false),
                on(3, "10.0.0.1/24", false),
            ]
            .into(),
            routes: routes(&["198.51.100.7/32", "203.0.113.0/24"]),
        };
        let on = listen(&["0.0.0.0:25", "203.0.113.9:25"]);
        let unchallenged = |guarded: Interface| {
            let places = find(&on, &[guarded], &local);
            let shown = places.unchallenged().into_iter();
            shown.map(|pair| pair.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(unchallenged(interface(2)), [""; 0]);
        let bridged = Interface {
            stacked: vec![3],
            ..interface(2)
        };
        assert_eq!(unchallenged(bridged.clone()), ["10.0.0.1:25"]);
        let vlan = Interface {
            has_vlans: true,
            ..bridged
        };
        let all = [
            "10.0.0.1:25",
            "198.51.100.1:25",
            "198.51.100.7:25",
            "203.0.113.9:25",
        ];
        assert_eq!(unchallenged(vlan), all);
    }

    #[test]
    fn what_is_not_there_takes_nothing_else_down() {
        let local = Local {
            configured: [on(2, "192.0.2.1/24", false)].into(),
            ..Local::default()
        };
        let texts = [
            "192.0.2.1:25",
            "192.0.2.9:25",
            "[fe80::1%host0]:25",
            "[fe80::1%host9]:25",
        ];
        let places = find(&listen(&texts), &[interface(2)], &local);
        let absent: Vec<_> = places.absent().iter().collect();
        assert_eq!(
            absent,
            ["192.0.2.9:25", "[fe80::1%2]:25", "[fe80::1%host9]:25"]
        );
        let sockets = places.sockets();
        let absent = sockets.iter().map(|socket| places.is_absent(*socket));
        assert_eq!(absent.collect::<Vec<_>>(), [false, true, true]);
        assert!(places.unchallenged().is_empty());
    }
}
