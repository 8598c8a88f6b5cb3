//! The plan of sockets: where to listen, and what to guard for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use anyhow::anyhow;
use ipnet::IpNet;
use nomail_common::abi::{MAX_GUARDED, MAX_OWN};

use super::{
    own_addresses,
    survey::{HostAddresses, HostSurvey},
};
use crate::{
    config::ListenAddress,
    exit::{Exit, Failure},
    net::{ConfiguredAddress, Interface, Links, LocalAddress},
    smtp::Arrival,
};

/// Port of SMTP.
const SMTP_PORT: u16 = 25;

/// A listening socket of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ListenSocket {
    /// Its address, with the scope of a link-local one.
    pub(super) address: SocketAddr,
    /// Found on an interface: it may still be tentative, and may disappear at any moment.
    pub(super) found: bool,
}

/// The sockets to bind, and the addresses to guard for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListenPlan {
    /// Sockets, each with the addresses that it answers on and that are guarded: its
    /// own, or those of its family for a wildcard.
    sockets: BTreeMap<ListenSocket, BTreeSet<IpAddr>>,
    /// Those of them for which frames arrive without a VLAN tag.
    untagged: BTreeSet<IpAddr>,
    /// Addresses that no client has, as far as XDP has room for them.
    own: BTreeSet<IpAddr>,
    /// How many of those it has no room for.
    own_left_out: usize,
    /// Pairs that are not guarded for lack of room, and whole networks that a wildcard
    /// answers for.
    unguarded: Vec<String>,
    /// Configured sockets whose address or interface does not exist.
    absent: BTreeSet<String>,
}

/// Of too many pairs the first are guarded.
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

/// An address that a socket answers on.
type Wanted = (Rank, IpAddr, ListenSocket);

/// A pair to guard, if there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    /// It is not guarded yet.
    new: bool,
    address: IpAddr,
    socket: ListenSocket,
}

impl ListenPlan {
    /// Plans for `listen` on the host as it is now. Of too many pairs, those that are guarded
    /// `before` stay so.
    pub(super) fn find(
        host: &HostSurvey,
        listen: &[ListenAddress],
        interfaces: &[Interface],
        before: &HashSet<(IpAddr, u16)>,
    ) -> Self {
        let names = listen.iter().filter_map(|on| on.scope.as_deref());
        let scopes = names.filter_map(|name| {
            let found = host.links.named(name).ok()?;
            Some((name, found.index))
        });
        let scopes = scopes.collect();
        Self::of(listen, &scopes, interfaces, &host.addresses, before)
    }

    fn of(
        listen: &[ListenAddress],
        scopes: &BTreeMap<&str, u32>,
        interfaces: &[Interface],
        local: &HostAddresses,
        before: &HashSet<(IpAddr, u16)>,
    ) -> Self {
        let guarded: BTreeSet<_> = interfaces.iter().map(|on| on.index).collect();
        let mut plan = Self::default();
        let wanted = match listen.is_empty() {
            true => local.found_on(&guarded),
            false => plan.configured(listen, scopes, local),
        };
        let mut candidates: Vec<_> = wanted
            .into_iter()
            .map(|(rank, address, socket)| Candidate {
                rank,
                new: !before.contains(&(address, socket.address.port())),
                address,
                socket,
            })
            .collect();
        candidates.sort_unstable();
        let addresses = candidates.iter().map(|candidate| candidate.address);
        plan.untagged = addresses
            .filter(|address| local.is_untagged(*address, interfaces))
            .collect();
        plan.guard(&candidates);
        let own = own_addresses::addresses(&local.routes, &local.configured, &guarded);
        plan.keep_own(own);
        plan
    }

    /// What the configured sockets ask for. Notes what does not exist, and networks that
    /// wildcards answer for.
    fn configured(
        &mut self,
        listen: &[ListenAddress],
        scopes: &BTreeMap<&str, u32>,
        local: &HostAddresses,
    ) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for on in listen {
            let scope = on.scope.as_deref().map(|name| scopes.get(name));
            if scope == Some(None) {
                self.absent.insert(on.to_string());
                continue;
            }
            let scope = scope.flatten().copied().unwrap_or(0);
            let address = socket_address(on.address, on.port, scope);
            let socket = ListenSocket {
                address,
                found: false,
            };
            if on.address.is_unspecified() {
                // It answers even if there is no address to guard.
                self.sockets.entry(socket).or_default();
                let answered = local.answered(on.address.is_ipv4());
                wanted.extend(answered.map(|(rank, address)| (rank, address, socket)));
                let networks = local.networks(on.address.is_ipv4());
                let networks = networks.map(|network| format!("{network} port {}", on.port));
                self.unguarded.extend(networks);
            } else {
                if !local.has(on.address) {
                    self.absent.insert(address.to_string());
                }
                wanted.push((Rank::Configured, on.address, socket));
            }
        }
        wanted
    }

    /// Guards the first candidates, as far as there is room.
    fn guard(&mut self, candidates: &[Candidate]) {
        let mut pairs = HashSet::new();
        let mut left_out = BTreeSet::new();
        for Candidate {
            address, socket, ..
        } in candidates
        {
            let pair = (*address, socket.address.port());
            if pairs.len() < MAX_GUARDED || pairs.contains(&pair) {
                pairs.insert(pair);
                self.sockets.entry(*socket).or_default().insert(*address);
            } else {
                left_out.insert(pair);
            }
        }
        let left_out = left_out.into_iter().filter(|pair| !pairs.contains(pair));
        let left_out = left_out.map(|pair| SocketAddr::from(pair).to_string());
        self.unguarded.splice(0..0, left_out);
    }

    /// Keeps as many of its own addresses as there is room for, the guarded ones first: any of
    /// them may yet turn out not to be bound.
    fn keep_own(&mut self, mut own: Vec<IpAddr>) {
        let guarded: HashSet<_> = self.sockets.values().flatten().collect();
        own.sort_by_key(|own| !guarded.contains(&own));
        self.own_left_out = own.len().saturating_sub(MAX_OWN);
        own.truncate(MAX_OWN);
        self.own = own.into_iter().collect();
    }

    /// Returns an error if none of the configured addresses exists: with mistyped addresses
    /// alone the agent would only seem to serve.
    pub(super) fn check_some_are_present(
        &self,
        links: &Links,
        listen: &[ListenAddress],
    ) -> Result<(), Failure> {
        if self.absent.len() < listen.len() || listen.is_empty() {
            return Ok(());
        }
        for name in listen.iter().filter_map(|on| on.scope.as_deref()) {
            links.named(name)?;
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

    /// The sockets to bind.
    pub(super) fn sockets(&self) -> Vec<ListenSocket> {
        self.sockets.keys().copied().collect()
    }

    /// Whether it has a socket for this address.
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

    /// How many of these connections came from other hosts for guarded pairs, by the number of
    /// the interface. XDP does not see what this host sends to itself.
    pub(super) fn connections(&self, arrivals: &[Arrival]) -> HashMap<u32, u64> {
        let guarded = self.guarded();
        // A SYN of IPv6 with many extension headers passes uncounted, by the choice of the
        // client, which would make any guard seem blind.
        let has_ipv4 = guarded.iter().any(|(address, _)| address.is_ipv4());
        let mut connections = HashMap::new();
        for Arrival {
            interface,
            to,
            from,
        } in arrivals
        {
            let is_own = from.is_loopback() || self.own.contains(from);
            let tells = to.is_ipv4() || !has_ipv4;
            if tells && !is_own && guarded.contains(&(to.ip(), to.port())) {
                *connections.entry(*interface).or_default() += 1;
            }
        }
        connections
    }

    /// The addresses that XDP may answer for.
    pub(super) fn untagged(&self) -> HashSet<IpAddr> {
        self.untagged.iter().copied().collect()
    }

    /// Addresses that no client has, to which XDP sends no answer.
    pub(super) fn own(&self) -> HashSet<IpAddr> {
        self.own.iter().copied().collect()
    }

    /// How many of them XDP has no room for.
    pub(super) fn own_left_out(&self) -> usize {
        self.own_left_out
    }

    /// What is not guarded, as text.
    pub(super) fn unguarded(&self) -> &[String] {
        &self.unguarded
    }

    /// Whether a configured socket is for an address that does not exist.
    pub(super) fn is_absent(&self, socket: ListenSocket) -> bool {
        !socket.found && self.absent.contains(&socket.address.to_string())
    }

    /// What is configured and does not exist, as text.
    pub(super) fn absent(&self) -> &BTreeSet<String> {
        &self.absent
    }

    /// Guarded pairs for which XDP does not answer. Frames for loopback addresses do not
    /// arrive over a wire.
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

    /// Whether packets arriving on an interface reach a listener: Linux accepts packets for
    /// any of its addresses on any interface, except link-local ones.
    pub(super) fn is_reached_over(&self, interface: u32) -> bool {
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

    /// Leaves out sockets that could not be bound.
    pub(super) fn leave_out(&mut self, refused: &BTreeSet<ListenSocket>) {
        self.sockets.retain(|socket, _| !refused.contains(socket));
    }

    /// The guarded pairs as text, in a stable order.
    pub(super) fn labels(&self, interfaces: &[Interface]) -> Vec<String> {
        let labels = self.sockets.iter().flat_map(|(socket, addresses)| {
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
        labels.collect()
    }
}

impl HostAddresses {
    /// The addresses of these interfaces, each with a socket of its own.
    fn found_on(&self, interfaces: &BTreeSet<u32>) -> Vec<Wanted> {
        let here = self.configured.iter();
        here.filter(|found| interfaces.contains(&found.local.interface))
            .map(|found| {
                let LocalAddress { address, interface } = found.local;
                let scope = match found.local.is_link_local() {
                    true => interface,
                    false => 0,
                };
                let socket = ListenSocket {
                    address: socket_address(address, SMTP_PORT, scope),
                    found: true,
                };
                (rank(found), address, socket)
            })
            .collect()
    }

    /// Addresses that are this host's although no interface has them.
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

    /// Networks that are this host's as a whole, except loopback's.
    fn networks(&self, ipv4: bool) -> impl Iterator<Item = IpNet> {
        let networks: BTreeSet<_> = self.routes.own.iter().map(|route| route.prefix).collect();
        networks.into_iter().filter(move |network| {
            let single = network.prefix_len() == network.max_prefix_len();
            !single && network.addr().is_ipv4() == ipv4 && !network.addr().is_loopback()
        })
    }

    /// Whether the address is this host's.
    fn has(&self, address: IpAddr) -> bool {
        let mut configured = self.configured.iter();
        configured.any(|found| found.local.address == address)
            || self
                .routes
                .own
                .iter()
                .any(|route| route.prefix.contains(&address))
    }

    /// Whether frames for the address on the guarded interfaces have no VLAN tag: an
    /// interface has it; or no device stacked on one has it, as with loopback and routed
    /// addresses, and there is no VLAN over which they may arrive as well.
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
mod tests;
