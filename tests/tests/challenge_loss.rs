//! What gets lost on the way to a challenged client and back, who is on the way,
//! and an agent that stands still.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::{Agent, on_host},
    firewall::{Nft, netstat},
    flood::{
        answerable, flooded, is_greeting, is_served, limit_backlog, route_to_everybody, strangers,
        sysctl, talk, until_answered,
    },
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, Namespace, join},
    poll::until,
    stacks,
};

const CLIENT: &str = "192.0.2.100";
/// Of the host's listeners, which connections wait in for the agent, too.
const BACKLOG: u64 = 64;

const ARGUMENTS: &str = "--syn-rate 1000";

/// Addresses, and up.
fn bring_up((namespace, interface): (&Namespace, &str), addresses: &[&str]) {
    for address in addresses {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        namespace.ip(&format!("address add {address} dev {interface}{nodad}"));
    }
    namespace.ip(&format!("link set {interface} up"));
}

/// A client one hop behind the lab's client, which forwards.
fn inner(lab: &Lab) -> Namespace {
    stacks::forward(lab);
    let inner = Namespace::new("inner");
    join((&inner, "inner0"), (&lab.client, "router0"));
    bring_up(
        (&lab.client, "router0"),
        &["198.51.100.1/24", "2001:db8:1::1/64"],
    );
    bring_up(
        (&inner, "inner0"),
        &["198.51.100.50/24", "2001:db8:1::50/64"],
    );
    inner.ip("route add default via 198.51.100.1");
    inner.ip("route add default via 2001:db8:1::1");
    inner
}

/// 5 % of the honest client's packets are lost in each direction; none of the
/// flood's is. The goal is 99.9 % within 16 s: of these, one may fail.
#[test]
fn with_loss_each_way_the_honest_are_through() {
    const CLIENTS: usize = 40;
    const CONNECTIONS: usize = 10;
    const PATIENCE: Duration = Duration::from_secs(16);
    let nft = Nft::install();
    let lab = Lab::new();
    route_to_everybody(&lab);
    limit_backlog(&lab.host, BACKLOG);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let inner = inner(&lab);
    nft.load(
        &lab.client,
        "table inet test {
            chain forward { type filter hook forward priority 0; policy accept;
                meta l4proto tcp numgen random mod 100 < 5 counter drop; } }",
    );
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    let (served, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let slowest = std::sync::Mutex::new(Duration::ZERO);
    let during_flood = inner.within(|| {
        thread::scope(|scope| {
            flooded(
                &lab.client,
                CLIENT_INTERFACE,
                &strangers("192.0.2.1:25"),
                || {
                    until_answered(&agent);
                    let begun = Instant::now();
                    for _ in 0..CLIENTS {
                        scope.spawn(|| {
                            for _ in 0..CONNECTIONS {
                                let talked = talk("198.51.100.50", HOST_IPV4, PATIENCE);
                                match &talked {
                                    Ok(talked) if is_greeting(&talked.heard) => {
                                        served.fetch_add(1, Ordering::Relaxed);
                                        let mut slowest = slowest.lock().unwrap();
                                        *slowest = slowest.max(talked.established);
                                    }
                                    _ => println!("{talked:?}"),
                                }
                                done.fetch_add(1, Ordering::Relaxed);
                            }
                        });
                    }
                    while done.load(Ordering::Relaxed) < CLIENTS * CONNECTIONS
                        && begun.elapsed() < Duration::from_secs(8)
                    {
                        thread::sleep(Duration::from_millis(20));
                    }
                    done.load(Ordering::Relaxed)
                },
            )
        })
    });
    let served = served.load(Ordering::Relaxed);
    println!(
        "5 % loss each way: {served} of {} served, {during_flood} while the flood went on, \
         {} proofs, {} SYNs passed, slowest {:.1?}, ListenOverflows {}",
        CLIENTS * CONNECTIONS,
        agent.count("/answers/proven"),
        agent.count("/syn/passed"),
        slowest.lock().unwrap(),
        netstat(&lab.host, "ListenOverflows"),
    );
    assert!(
        served + 1 >= CLIENTS * CONNECTIONS,
        "{served} of {} were served",
        CLIENTS * CONNECTIONS
    );
    assert!(agent.count("/answers/proven") as usize >= during_flood * 3 / 4);
}

#[test]
fn a_router_between_is_no_obstacle() {
    const HONEST: usize = 50;
    let lab = Lab::new();
    route_to_everybody(&lab);
    limit_backlog(&lab.host, BACKLOG);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let inner = inner(&lab);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    for (from, to, flood) in [
        ("198.51.100.50", HOST_IPV4, "192.0.2.1:25"),
        ("2001:db8:1::50", HOST_IPV6, "[2001:db8::1]:25"),
    ] {
        let before = agent.count("/answers/proven");
        let served = flooded(&lab.client, CLIENT_INTERFACE, &strangers(flood), || {
            until_answered(&agent);
            inner.within(|| (0..HONEST).filter(|_| is_served(from, to)).count())
        });
        let proven = agent.count("/answers/proven") - before;
        println!("behind a router, to {to}: {served} of {HONEST}, {proven} challenged");
        assert_eq!(served, HONEST);
        assert!(proven as usize >= HONEST / 2, "{proven}");
    }
}

/// left - a - b - right: a and b have nomail on both sides, and forward.
#[test]
fn two_hosts_with_nomail_forward_for_each_other() {
    const HONEST: usize = 50;
    let [left, a, b, right] = ["left", "a", "b", "right"].map(Namespace::new);
    join((&left, "left0"), (&a, "a0"));
    join((&a, "a1"), (&b, "b1"));
    join((&b, "b0"), (&right, "right0"));
    for host in [&a, &b] {
        limit_backlog(host, BACKLOG);
        sysctl(host, "net/ipv4/conf/all/forwarding", "1");
        host.ip("route add blackhole 10.0.0.0/8");
    }
    // What the frames of a flood are sent to.
    a.ip("link set a0 address 02:00:00:00:00:02");
    b.ip("link set b0 address 02:00:00:00:00:02");
    bring_up((&left, "left0"), &["198.51.100.50/24"]);
    bring_up((&a, "a0"), &["198.51.100.1/24"]);
    bring_up((&a, "a1"), &["192.0.2.1/24"]);
    bring_up((&b, "b1"), &["192.0.2.2/24"]);
    bring_up((&b, "b0"), &["203.0.113.1/24"]);
    bring_up((&right, "right0"), &["203.0.113.50/24"]);
    left.ip("route add default via 198.51.100.1");
    right.ip("route add default via 203.0.113.1");
    a.ip("route add 203.0.113.0/24 via 192.0.2.2");
    b.ip("route add 198.51.100.0/24 via 192.0.2.1");
    let _left = answerable(&left, "left0");
    let _right = answerable(&right, "right0");
    let common = ["--hostname", "mailless.example.org", "--syn-rate", "1000"];
    let on_a = Agent::start(&a, &[&common[..], &["--iface", "a0,a1"]].concat());
    let on_b = Agent::start(&b, &[&common[..], &["--iface", "b0,b1"]].concat());

    for (client, interface, from, to, near, far) in [
        (&left, "left0", "198.51.100.50", "192.0.2.2", &on_a, &on_b),
        (&right, "right0", "203.0.113.50", "192.0.2.1", &on_b, &on_a),
    ] {
        let before = [
            near.count("/syn/total"),
            near.count("/answers/challenge"),
            near.count("/answers/proven"),
        ];
        let proven = far.count("/answers/proven");
        let flood = strangers(&format!("{to}:25"));
        let served = flooded(client, interface, &flood, || {
            until_answered(far);
            client.within(|| (0..HONEST).filter(|_| is_served(from, to)).count())
        });
        let proven = far.count("/answers/proven") - proven;
        println!("{from} to {to}: {served} of {HONEST}, {proven} challenged");
        assert_eq!(served, HONEST);
        assert!(proven as usize >= HONEST / 2, "{proven}");
        // Whoever forwards has not looked at them.
        let after = [
            near.count("/syn/total"),
            near.count("/answers/challenge"),
            near.count("/answers/proven"),
        ];
        assert_eq!(before, after);
        assert!(client.within(|| is_served(
            from,
            if to == "192.0.2.2" {
                "192.0.2.1"
            } else {
                "192.0.2.2"
            }
        )));
    }
}

/// The agent stands still: the listener's queues fill, nobody accepts. XDP goes on
/// as it was told, so that the stack gets no more than the cap lets through.
#[test]
fn a_stalled_agent_does_not_let_the_flood_through() {
    let lab = Lab::new();
    route_to_everybody(&lab);
    limit_backlog(&lab.host, BACKLOG);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    assert!(lab.client.within(|| is_served(CLIENT, HOST_IPV4)));
    let (passed, proven) = (agent.count("/syn/passed"), agent.count("/answers/proven"));
    let flood = strangers("192.0.2.1:25");
    let stalled = Instant::now();
    agent.signal(Signal::SIGSTOP);
    // Honest ones go on as well, until they fill the queue of the accepted.
    let established = flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        let begun = Instant::now();
        lab.client.within(|| {
            thread::scope(|scope| {
                let clients: Vec<_> = (0..100)
                    .map(|_| {
                        scope.spawn(|| {
                            let patience = Duration::from_secs(3);
                            std::net::TcpStream::connect_timeout(
                                &"192.0.2.1:25".parse().unwrap(),
                                patience,
                            )
                            .is_ok()
                        })
                    })
                    .collect();
                let established = clients
                    .into_iter()
                    .map(|client| client.join().unwrap())
                    .filter(|established| *established)
                    .count();
                thread::sleep(Duration::from_secs(5).saturating_sub(begun.elapsed()));
                established
            })
        })
    });
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    agent.signal(Signal::SIGCONT);
    let seconds = stalled.elapsed().as_secs() + 1;
    let passed = agent.count("/syn/passed") - passed;
    let proven = agent.count("/answers/proven") - proven;
    let continued = Instant::now();
    until("it serves again", || {
        lab.client
            .within(|| is_served(CLIENT, HOST_IPV4))
            .then_some(())
    });
    println!(
        "stalled for {seconds} s: {passed} SYNs passed, {proven} proofs, \
         {established} established by the kernel; served {:.1?} after SIGCONT; \
         ListenOverflows {}, SyncookiesSent {}",
        continued.elapsed(),
        netstat(&lab.host, "ListenOverflows"),
        netstat(&lab.host, "SyncookiesSent"),
    );
    // A proven tuple may repeat its SYN, when the queue of the accepted is full.
    let honest = proven * 8;
    assert!(
        passed <= BACKLOG / 2 + BACKLOG / 8 * seconds + honest,
        "{passed} passed"
    );
    assert!(continued.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_agent_that_has_ended_answers_nothing() {
    let lab = Lab::new();
    route_to_everybody(&lab);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let mut agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    let flood = strangers("192.0.2.1:25");
    flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until_answered(&agent);
        agent.signal(Signal::SIGKILL);
        agent.wait();
        until("the kernel removes the program", || {
            (!lab.host.has_xdp(HOST_INTERFACE)).then_some(())
        });
        // Nobody listens: the client is told so, by the kernel.
        let refused = lab
            .client
            .within(|| talk(CLIENT, HOST_IPV4, Duration::from_secs(4)));
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

/// The queue of a listener stays as small as it was when the agent reconfigures
/// itself, without the privileges that it began with.
#[test]
fn the_cap_is_the_same_after_a_change_of_addresses() {
    let lab = Lab::new();
    route_to_everybody(&lab);
    limit_backlog(&lab.host, BACKLOG);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    lab.host.ip("address add 192.0.2.3/24 dev host0");
    until("the new address is guarded", || {
        let served = lab.client.within(|| is_served(CLIENT, "192.0.2.3"));
        served.then_some(())
    });
    let passed = agent.count("/syn/passed");
    let begun = Instant::now();
    let flood = strangers("192.0.2.1:25");
    flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until_answered(&agent);
    });
    let passed = agent.count("/syn/passed") - passed;
    let admitted = BACKLOG / 2 + BACKLOG / 8 * (begun.elapsed().as_secs() + 1);
    println!("after a change of addresses: {passed} of at most {admitted} SYNs passed");
    assert!(passed <= admitted);
}
