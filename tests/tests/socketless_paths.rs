//! `responder = "xdp"`: who and what may be between it and its clients, TCP stacks that
//! are not Linux's, and an agent that is killed.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::{Agent, on_host},
    bpffs::Bpffs,
    capture::{Capture, Captured, Seen},
    firewall::Nft,
    flood::{answerable, is_greeting, is_served, route_to_everybody, talk},
    lab::{CLIENT_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, Namespace},
    poll::until,
    root::Root,
    stacks::{self, LWIP_IPV6, ROUTER_IPV4, STACK_IPV4, TAP, forward, forward_to_tap, start_lwip},
};

const ARGUMENTS: &str = "--responder xdp --syn-rate 10000 --syn-burst 10000";
/// Longest that a client here waits for a connection: one that gets only the third
/// answer to its SYN waits for seconds.
const PATIENCE: Duration = Duration::from_secs(15);
const CLIENT_IPV4: &str = "192.0.2.100";
const CLIENT_IPV6: &str = "2001:db8::100";
/// A client behind [`CLIENT_IPV4`] and [`CLIENT_IPV6`].
const INNER_IPV4: &str = "198.51.100.50";
const INNER_IPV6: &str = "2001:db8:1::50";

/// A host without a listener.
fn host() -> (Lab, OwnedFd, Agent) {
    let lab = Lab::new();
    route_to_everybody(&lab);
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    (lab, program, agent)
}

/// How the host began a connection that was established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beginning {
    /// Bare SYNs that it sent.
    bare_syns: usize,
    /// SYN-ACKs that it sent and that acknowledge the SYN: no challenges.
    syn_acks: usize,
}

/// Of all connections in a capture.
fn beginning(frames: &[Captured], host: IpAddr) -> Beginning {
    let mut beginning = Beginning::default();
    let segments: Vec<_> = frames.iter().filter_map(Captured::seen).collect();
    for segment in &segments {
        if segment.from != host || !segment.syn {
            continue;
        }
        if !segment.ack {
            beginning.bare_syns += 1;
            continue;
        }
        let asked = |other: &Seen| {
            other.from != host
                && other.syn
                && other.sequence.wrapping_add(1) == segment.acknowledgment
        };
        beginning.syn_acks += usize::from(segments.iter().any(asked));
    }
    beginning
}

/// What a client of the namespace gets, and how it began.
fn captured<T>(lab: &Lab, host: &str, work: impl FnOnce() -> T) -> (T, Beginning) {
    let capture = Capture::start(&lab.client, CLIENT_INTERFACE);
    let done = work();
    (done, beginning(&capture.stop(), host.parse().unwrap()))
}

/// Connections, one after another.
fn served(namespace: &Namespace, from: &str, to: &str, count: usize) -> usize {
    namespace.within(|| (0..count).filter(|_| is_served(from, to)).count())
}

#[test]
fn a_killed_agent_is_not_missed() {
    const CLIENTS: usize = 4;
    /// Exchanges in each part: before, without an agent, and with the next.
    const EXCHANGES: usize = 150;
    let bpffs = Bpffs::mount();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    let keep = format!("on_exit = \"keep\"\npin_dir = \"{}\"\n", bpffs.pins());
    fs::write(&file, keep).unwrap();
    let more = format!("{ARGUMENTS} --config {}", file.display());
    let arguments = on_host(&more);
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let mut agent = Agent::start(&lab.host, &arguments);

    let over = AtomicBool::new(false);
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (lab, over, good, bad) = (&lab, &over, &good, &bad);
                let (from, to) = if number % 2 == 0 {
                    (CLIENT_IPV4, HOST_IPV4)
                } else {
                    (CLIENT_IPV6, HOST_IPV6)
                };
                scope.spawn(move || {
                    lab.client.within(|| {
                        while !over.load(Ordering::Relaxed) {
                            match talk(from, to, PATIENCE) {
                                Ok(told) if told.heard.contains("\r\n221 ") => {
                                    good.fetch_add(1, Ordering::Relaxed);
                                }
                                other => {
                                    println!("{other:?}");
                                    bad.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    });
                })
            })
            .collect();
        // The clients end also when this panics.
        let _end = End(&over);
        let more = |what: &str| {
            let before = good.load(Ordering::Relaxed);
            until(what, || {
                (good.load(Ordering::Relaxed) >= before + EXCHANGES).then_some(())
            });
        };
        more("exchanges with the agent");
        agent.signal(Signal::SIGKILL);
        agent.wait();
        more("exchanges without an agent");
        agent = Agent::start(&lab.host, &arguments);
        more("exchanges with the next agent");
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    let (good, bad) = (good.into_inner(), bad.into_inner());
    println!("an agent killed and started anew: {good} exchanges, {bad} failed");
    assert_eq!(bad, 0, "of {}", good + bad);
    assert!(agent.count("/answers/quit") as usize >= good);
    agent.stop();
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A router with one address for all who are behind it; and what it makes of ports.
fn masquerade(lab: &Lab, nft: &Nft, ports: &str) -> Namespace {
    forward(lab);
    let inner = Namespace::new("inner");
    inner.ip(&format!(
        "link add inner0 type veth peer name router0 netns {}",
        lab.client.name()
    ));
    let router = &lab.client;
    router.ip("address add 198.51.100.1/24 dev router0");
    router.ip("address add 2001:db8:1::1/64 dev router0 nodad");
    router.ip("link set router0 up");
    inner.ip(&format!("address add {INNER_IPV4}/24 dev inner0"));
    inner.ip(&format!("address add {INNER_IPV6}/64 dev inner0 nodad"));
    inner.ip("link set inner0 up");
    inner.ip("route add default via 198.51.100.1");
    inner.ip("route add default via 2001:db8:1::1");
    nft.load(
        router,
        &format!(
            "table inet test {{
                chain forward {{ type filter hook forward priority 0; policy drop;
                    oif {CLIENT_INTERFACE} accept
                    ct state established,related accept; }}
                chain postrouting {{ type nat hook postrouting priority 100; policy accept;
                    oif {CLIENT_INTERFACE} masquerade {ports}; }} }}"
        ),
    );
    inner
}

/// The ports that connections came from, as the host sees them.
fn ports(frames: &[Captured], router: &str) -> Vec<u16> {
    let router: IpAddr = router.parse().unwrap();
    let segments = frames.iter().filter_map(Captured::seen);
    let mut ports: Vec<_> = segments
        .filter(|seen| seen.from == router && seen.syn && !seen.ack)
        .map(|seen| seen.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn clients_behind_a_masquerade_are_served() {
    const HONEST: usize = 40;
    let nft = Nft::install();
    let (lab, _program, agent) = host();
    let inner = masquerade(&lab, &nft, "");
    for (from, to, router) in [
        (INNER_IPV4, HOST_IPV4, CLIENT_IPV4),
        (INNER_IPV6, HOST_IPV6, CLIENT_IPV6),
    ] {
        let capture = Capture::start(&lab.client, CLIENT_INTERFACE);
        let count = served(&inner, from, to, HONEST);
        let frames = capture.stop();
        let how = beginning(&frames, to.parse().unwrap());
        println!("masquerade, to {to}: {count} of {HONEST}, {how:?}");
        assert_eq!(count, HONEST, "to {to}");
        // The router may choose a port twice by chance.
        let ports = ports(&frames, router).len();
        assert!(
            (HONEST - 3..=HONEST).contains(&ports),
            "it is masqueraded: {ports}"
        );
        assert!(how.bare_syns >= HONEST, "{how:?}");
    }
    agent.stop();
}

/// A known limit: the reset that proves the client ends the connection for the router,
/// which then gives the next SYN another port, of which nothing is proven.
#[test]
fn clients_whose_router_chooses_ports_by_chance_are_not_served() {
    let nft = Nft::install();
    let (lab, _program, agent) = host();
    let inner = masquerade(&lab, &nft, "fully-random");
    for (from, to, router) in [
        (INNER_IPV4, HOST_IPV4, CLIENT_IPV4),
        (INNER_IPV6, HOST_IPV6, CLIENT_IPV6),
    ] {
        let proven = agent.count("/answers/proven");
        let capture = Capture::start(&lab.client, CLIENT_INTERFACE);
        let talked = inner.within(|| talk(from, to, Duration::from_secs(5)));
        let ports = ports(&capture.stop(), router).len();
        let proven = agent.count("/answers/proven") - proven;
        println!("ports by chance, to {to}: {talked:?}, {ports} ports, {proven} proven");
        assert!(talked.is_err(), "{talked:?}");
        assert!(ports > 1 && proven > 0, "{ports} ports, {proven} proven");
    }
    agent.stop();
}

/// What a client's own firewall may let in, and what the host then begins with.
#[test]
fn clients_with_a_firewall_are_served() {
    const HONEST: usize = 30;
    const STATEFUL: &str = "table inet test {
        chain input { type filter hook input priority 0; policy drop;
            iif lo accept
            icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
            ct state established,related accept; } }";
    const INVALID: &str = "table inet test {
        chain input { type filter hook input priority 0; policy accept;
            ct state invalid drop
            tcp flags & (fin|syn|rst|ack) == syn ct state new drop; } }";
    const NO_SYN: &str = "table inet test {
        chain input { type filter hook input priority 0; policy accept;
            tcp flags & (fin|syn|rst|ack) == syn drop; } }";
    let nft = Nft::install();
    for (name, rules, honest) in [
        ("established, related only", STATEFUL, HONEST),
        ("invalid and new dropped", INVALID, HONEST),
        ("bare SYNs dropped", NO_SYN, 2),
    ] {
        let (lab, _program, agent) = host();
        nft.load(&lab.client, rules);
        for (from, to) in [(CLIENT_IPV4, HOST_IPV4), (CLIENT_IPV6, HOST_IPV6)] {
            let (count, how) = captured(&lab, to, || served(&lab.client, from, to, honest));
            println!("client's firewall, {name}, to {to}: {count} of {honest}, {how:?}");
            assert_eq!(count, honest, "{name}, to {to}");
            if rules == NO_SYN {
                assert!(how.syn_acks >= honest, "{how:?}");
            } else {
                assert!(how.bare_syns >= honest, "{how:?}");
            }
        }
        agent.stop();
    }
}

/// Simultaneous open is all that it needs.
#[test]
fn smoltcp_is_served() {
    const HONEST: usize = 2;
    let (lab, _program, agent) = host();
    forward_to_tap(&lab);
    for to in [HOST_IPV4, HOST_IPV6] {
        let address: IpAddr = to.parse().unwrap();
        let (spoken, how) = captured(&lab, to, || {
            lab.client.within(|| {
                (0..HONEST)
                    .map(|_| stacks::smoltcp(address, PATIENCE))
                    .collect::<Vec<_>>()
            })
        });
        let greeted = spoken.iter().all(|spoken| is_greeting(&spoken.heard));
        assert!(greeted, "{spoken:?}, {how:?}");
        let established: Vec<_> = spoken.iter().map(|spoken| spoken.established).collect();
        println!("smoltcp, to {to}: established after {established:.1?}, {how:?}");
    }
    agent.stop();
}

/// It takes no bare SYN, and gets its SYN-ACK in the end.
#[test]
fn lwip_is_served() {
    let root = Root::install("lwip", &["liblwip-dev"]);
    let (lab, _program, agent) = host();
    let mut lwip = start_lwip(&root, &lab, "");
    for (to, name, from) in [
        (HOST_IPV4, "ipv4", format!("{STACK_IPV4} {ROUTER_IPV4}")),
        (HOST_IPV6, "ipv6", format!("{LWIP_IPV6} -")),
    ] {
        let file = format!("/root/lwip/{name}");
        let (line, how) = captured(&lab, to, || {
            lwip.run(&format!(
                "cd /root/lwip; PRECONFIGURED_TAPIF={TAP} ./lwip {from} {to} 1 > {file}"
            ));
            let line = lwip.line(&file, &["after"]);
            lwip.line(&file, &["done"]);
            line
        });
        println!("lwIP, to {to}: {line}, {how:?}");
        let (_, heard) = line
            .strip_prefix("established after ")
            .and_then(|line| line.split_once(" ms: "))
            .unwrap_or_else(|| panic!("{line}, {how:?}"));
        assert!(is_greeting(heard), "{line}");
        assert!(how.bare_syns >= 1 && how.syn_acks >= 1, "{how:?}");
    }
    agent.stop();
}
