//! Checks whether a SYN that arrives at an interface reaches the listener.
//!
//! It is tried, not read from rules: one SYN is injected at the interface as if it came from
//! the wire. It passes what every SYN passes: ingress hooks, connection tracking, firewall
//! rules of any kind, `rp_filter`, and the socket. The kernel's table of sockets shows the
//! result.

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
    net::{Interfaces, LocalAddress, has_listener},
    status::Status,
};

/// SYNs that are injected; further addresses are not tried.
const ATTEMPTS_MAX: usize = 32;
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);
/// Networks for documentation (RFC 5737, RFC 3849, RFC 9637). The first in which this host has
/// no address is the source of the SYNs.
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

/// What happened to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// This socket answered it.
    Reached(SocketAddr),
    /// No socket answered it.
    Lost,
    /// No socket answered it, but meanwhile the kernel answered some SYNs with cookies.
    Cookies,
    /// No route back to its source leads over the interface.
    NoWayBack,
}

/// A SYN to an address, injected at an interface, and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TriedSyn {
    interface: String,
    from: IpAddr,
    to: SocketAddr,
    fate: Fate,
}

/// What was tried, or why nothing was.
#[derive(Debug)]
pub(super) struct ReachTest {
    tried: Result<Vec<TriedSyn>, Finding>,
    /// Addresses beyond [`ATTEMPTS_MAX`].
    left_out: usize,
}

impl ReachTest {
    /// Whether SYNs from outside reach this listener; none if that is unknown.
    pub(super) fn of(&self, listener: SocketAddr) -> Option<bool> {
        let mut fates = self.tried.iter().flatten().filter(|tried| {
            let is_any = listener.ip().is_unspecified();
            tried.to.port() == listener.port() && (is_any || tried.to.ip() == listener.ip())
        });
        let known = |tried: &TriedSyn| match tried.fate {
            Fate::Reached(_) => Some(true),
            Fate::Lost => Some(false),
            Fate::Cookies | Fate::NoWayBack => None,
        };
        fates.find_map(known)
    }
}

/// Injects a SYN for each address and port of the interfaces where the agent listens, or would;
/// where no process listens yet, doctor does meanwhile. Takes less than a second.
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
            "rules do not matter: XDP answers before them",
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
            "not tried during a flood",
            "run doctor again when it is over",
        ));
    }
    let mut targets = targets(host, devices, local);
    let left_out = targets.len().saturating_sub(ATTEMPTS_MAX);
    targets.truncate(ATTEMPTS_MAX);
    let listeners: Vec<_> = targets
        .iter()
        .filter(|(_, to)| host.status.is_none() && !has_listener(*to))
        // A process that took the port meanwhile listens as well.
        .filter_map(|(_, to)| TcpListener::bind(to).ok())
        .collect();
    let tried = let_in(kernel, &targets, local).await.map_err(|error| {
        Finding::unseen(
            check,
            format!("no SYN can be injected at an interface: {error:#}"),
            "connect from another host, and see `nft list ruleset`",
        )
    });
    drop(listeners);
    ReachTest { tried, left_out }
}

/// Addresses of the interfaces with the ports that are listened on there, without link-local
/// ones, which no SYN from outside reaches.
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
) -> anyhow::Result<Vec<TriedSyn>> {
    // Without a port to guard it passes everything.
    let guard = Guard::load(&HashSet::new())?;
    let random = getrandom::u64()?;
    let cookies = cookies_sent();
    let mut tried = Vec::with_capacity(targets.len());
    let mut attempts = Vec::with_capacity(targets.len());
    for (number, (device, to)) in (0..).zip(targets) {
        let from = stranger(to.ip(), random, number, local);
        let leads_back = kernel.interface_to(from.ip()).await? == Some(device.index);
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
        tried.push(TriedSyn {
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
        for (index, _, attempt) in &attempts {
            let by = waiting.iter().find(|(_, remote)| *remote == attempt.from);
            if let Some((by, _)) = by {
                tried[*index].fate = Fate::Reached(*by);
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
    // Else the kernel would repeat its answer for a minute.
    for (_, interface, attempt) in &attempts {
        guard.let_in(*interface, &attempt.reset())?;
    }
    Ok(tried)
}

/// An address and port that no host has.
fn stranger(like: IpAddr, random: u64, number: u8, local: &BTreeSet<LocalAddress>) -> SocketAddr {
    // Different in each run and for each SYN: rules may count per source.
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

/// Local and remote address of the connected sockets of this network namespace.
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

/// SYN cookies that the kernel has sent in this network namespace. A SYN answered so leaves no
/// socket.
fn cookies_sent() -> Option<u64> {
    counter(
        &fs::read_to_string("/proc/net/netstat").ok()?,
        "SyncookiesSent",
    )
}

/// A counter of TCP: one line has the names, the next one the values.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let index = names.split_whitespace().position(|found| found == name)?;
    values.split_whitespace().nth(index)?.parse().ok()
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
            "nothing listens on an address of these interfaces",
        ));
    }
    if reach.left_out > 0 {
        findings.push(Finding::skip(
            check,
            format!("{} more addresses were not tried", reach.left_out),
        ));
    }
    findings.extend(host.status.as_ref().and_then(counted));
    findings
}

fn judged(tried: &[TriedSyn], listening: &[SocketAddr]) -> Vec<Finding> {
    let check = Check::Firewall;
    let mut findings = Vec::new();
    let mut reached = Vec::new();
    for TriedSyn {
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
                    "a SYN to {to} that arrives at {interface} is redirected to {by}, where \
                         nomail does not listen"
                ),
                format!("remove that rule, or listen on both: listen = [\"{to}\", \"{by}\"]"),
            )),
            Fate::Lost => findings.push(Finding::fail(
                check,
                format!(
                    "a SYN to {to} that arrives at {interface}, from {from}, does not reach the \
                     listener: something between the interface and the socket drops or redirects it"
                ),
                "find it with: nft list ruleset; iptables-save. A rule against reserved source \
                 addresses only is harmless: real SYNs get through",
            )),
            Fate::Cookies => findings.push(Finding::unseen(
                check,
                format!(
                    "whether a SYN to {to} that arrives at {interface} reaches the listener is \
                     not known: the kernel answers with SYN cookies, which leave nothing to see"
                ),
                "run doctor again when the listener's queue is not full, with tcp_syncookies = 1",
            )),
            Fate::NoWayBack => findings.push(Finding::skip(
                check,
                format!(
                    "{to} ({interface}) was not tried: no route to outside leads back over \
                         {interface}"
                ),
            )),
        }
    }
    if !reached.is_empty() {
        findings.push(Finding::ok(
            check,
            format!(
                "a SYN from outside reaches the listener of {}",
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

/// Passed SYNs without one connection that are worth a warning.
const PASSED_MIN: u64 = 20;

/// The counters of a running agent say the same of all SYNs since its start.
fn counted(status: &Status) -> Option<Finding> {
    let (passed, accepted) = (
        status.counts.syn[Verdict::Passed],
        status.connections.accepted,
    );
    (passed >= PASSED_MIN && accepted == 0).then(|| {
        Finding::warn(
            Check::Firewall,
            format!("XDP passed {passed} SYNs, and not one connection came of them"),
            "unless they are a scan: nft list ruleset; iptables-save",
        )
    })
}

#[cfg(test)]
mod tests;
