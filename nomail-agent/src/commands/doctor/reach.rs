//! Whether a SYN that comes in at an interface reaches the listener.
//!
//! The kernel is asked, not its rules: one SYN of a stranger is let in at the interface, as
//! if the wire had brought it, and the kernel shows what became of it. So it passes what
//! every SYN passes: ingress hooks, connection tracking, the firewall's rules of whatever
//! kind, the check of the way back, and the socket.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    thread::sleep,
    time::{Duration, Instant},
};

use nomail_common::verdict::Verdict;
use procfs::net::{tcp, tcp6};

use super::{
    device::Device,
    finding::{Check, Finding},
    host::Host,
    syn::Attempt,
};
use crate::{
    guard::Guard,
    net::{Interfaces, LocalAddress, is_held},
    status::Status,
};

/// Most SYNs that are let in; more addresses are not tried.
const ATTEMPTS_MAX: usize = 32;
/// Longest that the kernel may take to take all of them.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);
/// Networks that belong to nobody (RFC 5737, RFC 3849, RFC 9637), in the order in which
/// one is taken: not one that this host has an address in.
const STRANGERS_IPV4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(198, 51, 100, 0),
    Ipv4Addr::new(203, 0, 113, 0),
    Ipv4Addr::new(192, 0, 2, 0),
];
const STRANGERS_IPV6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0x6e6f, 0x6d61, 0, 0, 0, 0),
    Ipv6Addr::new(0x3fff, 0x6e6f, 0x6d61, 0x696c, 0, 0, 0, 0),
];
const STRANGER_PORTS: u16 = 49_152;

/// What became of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A socket has answered it: this one.
    Reached(SocketAddr),
    /// Nothing is known of it.
    Lost,
    /// Nothing is known of it, but the kernel has answered some with cookies meanwhile.
    Cookies,
    /// The way back to strangers does not lead over the interface.
    NoWayBack,
}

/// An address, the interface at which a SYN for it came in, and its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tried {
    interface: String,
    from: IpAddr,
    to: SocketAddr,
    fate: Fate,
}

/// What was tried, or why nothing was.
#[derive(Debug)]
pub(super) struct ReachTest {
    tried: Result<Vec<Tried>, Finding>,
    /// Addresses that were not tried because there are too many.
    left_out: usize,
}

impl ReachTest {
    /// Whether SYNs from outside reach this listener; none: it is not known.
    pub(super) fn of(&self, listener: SocketAddr) -> Option<bool> {
        let mut fates = self.tried.iter().flatten().filter(|tried| {
            let is_any = listener.ip().is_unspecified();
            tried.to.port() == listener.port() && (is_any || tried.to.ip() == listener.ip())
        });
        let known = |tried: &Tried| match tried.fate {
            Fate::Reached(_) => Some(true),
            Fate::Lost => Some(false),
            Fate::Cookies | Fate::NoWayBack => None,
        };
        fates.find_map(known)
    }
}

/// Lets a SYN in for each address and port of the interfaces where the agent listens, or
/// would: where nobody does a listener stands in meanwhile. Takes less than a second.
pub(super) async fn attempt(
    kernel: &Interfaces,
    host: &Host,
    devices: &[Device],
    local: &BTreeSet<LocalAddress>,
) -> ReachTest {
    let check = Check::Firewall;
    let none = |finding| ReachTest {
        tried: Err(finding),
        left_out: 0,
    };
    if host.answers_in_xdp() {
        return none(Finding::ok(
            check,
            "its rules see nothing of this: XDP answers before them",
        ));
    }
    if !host.root {
        return none(Finding::needs_root(
            check,
            "whether a SYN reaches the listener",
        ));
    }
    if host.status.as_ref().is_some_and(|status| status.flood) {
        return none(Finding::unseen(
            check,
            "a flood is on: a SYN more would tell nothing",
            "look again when it is over",
        ));
    }
    let mut targets = targets(host, devices, local);
    let left_out = targets.len().saturating_sub(ATTEMPTS_MAX);
    targets.truncate(ATTEMPTS_MAX);
    let listeners: Vec<_> = targets
        .iter()
        .filter(|(_, to)| host.status.is_none() && !is_held(*to))
        // Who takes the place meanwhile listens as well.
        .filter_map(|(_, to)| TcpListener::bind(to).ok())
        .collect();
    let tried = let_in(kernel, &targets, local).await.map_err(|error| {
        Finding::unseen(
            check,
            format!("no SYN can be let in at an interface: {error:#}"),
            "connect from another host, and see `nft list ruleset`",
        )
    });
    drop(listeners);
    ReachTest { tried, left_out }
}

/// Addresses that live on the interfaces, with the ports that are listened on there. Not
/// those of a single link: no stranger comes to them.
fn targets<'a>(
    host: &Host,
    devices: &'a [Device],
    local: &BTreeSet<LocalAddress>,
) -> Vec<(&'a Device, SocketAddr)> {
    let mut targets = Vec::new();
    for device in devices {
        let on_it = local.iter().filter(|found| {
            found.interface == device.index
                && !found.is_link_local()
                && !found.address.is_loopback()
        });
        for LocalAddress { address, .. } in on_it {
            let ports: BTreeSet<_> = host
                .pairs
                .iter()
                .map(|pair| pair.address)
                .filter(|pair| {
                    let is_any = pair.ip().is_unspecified();
                    let same_family = pair.is_ipv4() == address.is_ipv4();
                    pair.ip() == *address || is_any && same_family
                })
                .map(|pair| pair.port())
                .collect();
            let pairs = ports.into_iter();
            targets.extend(pairs.map(|port| (device, SocketAddr::new(*address, port))));
        }
    }
    targets
}

async fn let_in(
    kernel: &Interfaces,
    targets: &[(&Device, SocketAddr)],
    local: &BTreeSet<LocalAddress>,
) -> anyhow::Result<Vec<Tried>> {
    // It has no port to guard: it passes everything.
    let guard = Guard::load(&HashSet::new())?;
    let random = getrandom::u64()?;
    let cookies = cookies_sent();
    let mut tried = Vec::with_capacity(targets.len());
    let mut attempts = Vec::with_capacity(targets.len());
    for (number, (device, to)) in (0..).zip(targets) {
        let from = stranger(to.ip(), random, number, local);
        let leads_back = kernel.way_to(from.ip()).await? == Some(device.index);
        if leads_back {
            let attempt = Attempt {
                from,
                to: *to,
                hardware: device.hardware,
                sequence: (random >> 32) as u32,
            };
            guard.let_in(device.index, &attempt.syn())?;
            attempts.push((tried.len(), device.index, attempt));
        }
        tried.push(Tried {
            interface: device.name.clone(),
            from: from.ip(),
            to: *to,
            fate: if leads_back {
                Fate::Lost
            } else {
                Fate::NoWayBack
            },
        });
    }
    let begun = Instant::now();
    loop {
        let waiting = waiting();
        for (place, _, attempt) in &attempts {
            let by = waiting.iter().find(|(_, remote)| *remote == attempt.from);
            if let Some((by, _)) = by {
                tried[*place].fate = Fate::Reached(*by);
            }
        }
        let all = tried.iter().all(|tried| tried.fate != Fate::Lost);
        if all || begun.elapsed() > PATIENCE {
            break;
        }
        sleep(PAUSE);
    }
    if cookies_sent() > cookies {
        for tried in tried.iter_mut().filter(|tried| tried.fate == Fate::Lost) {
            tried.fate = Fate::Cookies;
        }
    }
    // Or the kernel would wait for the rest, and repeat its answer, for a minute.
    for (_, interface, attempt) in &attempts {
        guard.let_in(*interface, &attempt.reset())?;
    }
    Ok(tried)
}

/// An address and a port that nobody has.
fn stranger(like: IpAddr, random: u64, number: u8, local: &BTreeSet<LocalAddress>) -> SocketAddr {
    // Another one in each run and for each SYN: rules may count those of a source.
    let last = 1 + (random % (254 - ATTEMPTS_MAX as u64)) as u8 + number;
    let port = STRANGER_PORTS + (random >> 8) as u16 % (u16::MAX - STRANGER_PORTS);
    let is_ours = |network: &[u8]| {
        local.iter().any(|found| match found.address {
            IpAddr::V4(address) => address.octets().starts_with(network),
            IpAddr::V6(address) => address.octets().starts_with(network),
        })
    };
    let address = match like {
        IpAddr::V4(_) => {
            let mut free = STRANGERS_IPV4.iter().map(Ipv4Addr::octets);
            let [a, b, c, _] = free
                .find(|network| !is_ours(&network[..3]))
                .unwrap_or_default();
            IpAddr::from([a, b, c, last])
        }
        IpAddr::V6(_) => {
            let mut free = STRANGERS_IPV6.iter().map(Ipv6Addr::octets);
            let mut octets = free
                .find(|network| !is_ours(&network[..8]))
                .unwrap_or_default();
            octets[15] = last;
            IpAddr::from(octets)
        }
    };
    SocketAddr::new(address, port)
}

/// The sockets of this network namespace that have a peer: their own address, and its.
fn waiting() -> Vec<(SocketAddr, SocketAddr)> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let all = tcp()
        .into_iter()
        .flatten()
        .chain(tcp6().into_iter().flatten());
    all.map(|socket| {
        (
            canonical(socket.local_address),
            canonical(socket.remote_address),
        )
    })
    .collect()
}

/// SYN cookies that the kernel has sent in this network namespace. What it answers so
/// leaves no socket.
fn cookies_sent() -> Option<u64> {
    counter(
        &fs::read_to_string("/proc/net/netstat").ok()?,
        "SyncookiesSent",
    )
}

/// A counter of TCP: a line has the names, and the next one the values.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|found| found == name)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

pub(super) fn findings(host: &Host, reach: &ReachTest) -> Vec<Finding> {
    let tried = match &reach.tried {
        Ok(tried) => tried,
        Err(finding) => return vec![finding.clone()],
    };
    let mut findings = judged(tried, &host.listening());
    let check = Check::Firewall;
    if tried.is_empty() {
        findings.push(Finding::skip(
            check,
            "no address of these interfaces is listened on",
        ));
    }
    if reach.left_out > 0 {
        findings.push(Finding::skip(
            check,
            format!("{} addresses more were not tried", reach.left_out),
        ));
    }
    findings.extend(host.status.as_ref().and_then(counted));
    findings
}

fn judged(tried: &[Tried], listening: &[SocketAddr]) -> Vec<Finding> {
    let check = Check::Firewall;
    let mut findings = Vec::new();
    let mut reached = Vec::new();
    for Tried {
        interface,
        from,
        to,
        fate,
    } in tried
    {
        match fate {
            Fate::Reached(by) if by == to || is_listening(listening, *by) => {
                reached.push(format!("{to} ({interface})"));
            }
            Fate::Reached(by) => findings.push(Finding::fail(
                check,
                format!(
                    "a SYN to {to} that comes in at {interface} is redirected to {by}, where \
                         nomail does not listen"
                ),
                format!("remove that rule, or listen on both: listen = [\"{to}\", \"{by}\"]"),
            )),
            Fate::Lost => findings.push(Finding::fail(
                check,
                format!(
                    "a SYN to {to} that comes in at {interface}, from {from}, does not reach the \
                     listener: something between the interface and the socket drops or redirects it"
                ),
                "see what does: nft list ruleset; iptables-save. If it is a rule against reserved \
                 source addresses alone, others get through",
            )),
            Fate::Cookies => findings.push(Finding::unseen(
                check,
                format!(
                    "whether a SYN to {to} that comes in at {interface} reaches the listener is \
                     not known: the kernel answers with SYN cookies, which leave nothing to see"
                ),
                "look again when the listener's queue is not full, with tcp_syncookies = 1",
            )),
            Fate::NoWayBack => findings.push(Finding::skip(
                check,
                format!(
                    "{to} ({interface}) was not tried: no route to strangers leads back over \
                         {interface}"
                ),
            )),
        }
    }
    if !reached.is_empty() {
        findings.push(Finding::ok(
            check,
            format!(
                "a SYN of a stranger reaches the listener of {}",
                reached.join(", ")
            ),
        ));
    }
    findings
}

fn is_listening(listening: &[SocketAddr], by: SocketAddr) -> bool {
    listening.iter().any(|on| {
        on.port() == by.port()
            && (on.ip() == by.ip() || on.ip().is_unspecified() && on.is_ipv4() == by.is_ipv4())
    })
}

/// SYNs that have passed without one connection that came of them.
const PASSED_MIN: u64 = 20;

/// What a running agent has counted says the same of its whole life.
fn counted(status: &Status) -> Option<Finding> {
    let (passed, accepted) = (
        status.counts.syn[Verdict::Passed],
        status.connections.accepted,
    );
    (passed >= PASSED_MIN && accepted == 0).then(|| {
        Finding::warn(
            Check::Firewall,
            format!("XDP has let {passed} SYNs pass, and not one connection came of them"),
            "if they are no scan: nft list ruleset; iptables-save",
        )
    })
}

#[cfg(test)]
mod tests;
