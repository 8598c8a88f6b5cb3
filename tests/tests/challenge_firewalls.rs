//! Stateful firewalls at the client and at the host, with nftables, under a flood.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::{Agent, on_host},
    firewall::{HOST_RULES, Nft, conntrack_entries, netstat},
    flood::{
        answerable, flooded, is_served, limit_backlog, route_to_everybody, strangers, talk,
        until_answered, until_over,
    },
    lab::{CLIENT_INTERFACE, HOST_IPV4, Lab},
    poll::until,
};

const CLIENT: &str = "192.0.2.100";
/// Connections of the honest client under each flood.
const HONEST: u64 = 100;
/// Longest that a client here waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of the host's listeners: [`Row::admitted`] is what follows.
const BACKLOG: u64 = 16;

/// A lab whose host challenges nearly everybody once there is a flood.
fn lab() -> (Lab, OwnedFd) {
    let lab = Lab::new();
    route_to_everybody(&lab);
    limit_backlog(&lab.host, BACKLOG);
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    (lab, program)
}

/// What a flood left behind.
#[derive(Debug)]
struct Row {
    /// Of [`HONEST`].
    served: u64,
    challenged: u64,
    /// That the host tracks more than before.
    entries: u64,
    took: Duration,
}

impl Row {
    /// What the cap may have let through meanwhile.
    fn admitted(&self) -> u64 {
        BACKLOG / 2 + BACKLOG / 8 * (self.took.as_secs() + 1)
    }
}

/// Connections from [`CLIENT`] under a flood of forged SYNs to port 25.
fn under_flood(lab: &Lab, agent: &Agent) -> Row {
    let entries = conntrack_entries(&lab.host);
    let challenged = agent.count("/answers/proven");
    let begun = Instant::now();
    let flood = strangers("192.0.2.1:25");
    let served = flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until_answered(agent);
        lab.client
            .within(|| (0..HONEST).filter(|_| is_served(CLIENT, HOST_IPV4)).count())
    });
    Row {
        served: served as u64,
        challenged: agent.count("/answers/proven") - challenged,
        entries: conntrack_entries(&lab.host) - entries,
        took: begun.elapsed(),
    }
}

/// All are served, nearly all were challenged, and what was forged did not get
/// into the host's table.
fn assert_good(name: &str, row: &Row) {
    println!("{name}: {row:?}");
    assert_eq!(row.served, HONEST, "{name}: {row:?}");
    // The others are those that the cap had room for.
    assert!(row.challenged + row.admitted() >= HONEST, "{name}: {row:?}");
    assert!(row.entries <= HONEST + row.admitted(), "{name}: {row:?}");
}

#[test]
fn rules_of_the_host_let_the_challenge_do_its_work() {
    let nft = Nft::install();
    for rules in &HOST_RULES {
        let (lab, _program) = lab();
        rules.load(&nft, &lab.host);
        let listen = rules.listen.map(|listen| format!("--listen {listen}"));
        let more = format!("--syn-rate 1000 {}", listen.unwrap_or_default());
        let agent = Agent::start(&lab.host, &on_host(&more));
        assert_good(rules.name, &under_flood(&lab, &agent));
    }
}

/// What the table above is for: without the challenge the flood is in the table.
#[test]
fn without_nomail_the_flood_fills_the_table_of_the_host() {
    let nft = Nft::install();
    let (lab, _program) = lab();
    HOST_RULES[1].load(&nft, &lab.host);
    let _agent = Agent::start(&lab.host, &on_host("--syn-rate 1000 --xdp-mode off"));
    let flood = strangers("192.0.2.1:25");
    flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until("the table fills", || {
            (conntrack_entries(&lab.host) > 4000).then_some(())
        });
    });
}

#[test]
fn a_redirected_port_is_not_guarded_when_only_its_target_is_listened_on() {
    let nft = Nft::install();
    let (lab, _program) = lab();
    let [.., redirected] = HOST_RULES;
    redirected.load(&nft, &lab.host);
    let agent = Agent::start(
        &lab.host,
        &on_host("--syn-rate 1000 --listen 192.0.2.1:2525"),
    );
    assert!(lab.client.within(|| is_served(CLIENT, HOST_IPV4)));
    let flood = strangers("192.0.2.1:25");
    flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until("the table fills", || {
            (conntrack_entries(&lab.host) > 4000).then_some(())
        });
    });
    assert_eq!(agent.count("/syn/total"), 0);
    // Its own port is guarded as always.
    let to: SocketAddr = "192.0.2.1:2525".parse().unwrap();
    lab.client
        .within(|| std::net::TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    assert_eq!(agent.count("/syn/passed"), 1);
}

#[test]
fn a_client_that_filters_by_state_is_through() {
    let nft = Nft::install();
    let (lab, _program) = lab();
    nft.load(
        &lab.client,
        "table inet test {
            chain input { type filter hook input priority 0; policy drop;
                iif lo accept
                icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                ct state established,related accept; } }",
    );
    let agent = Agent::start(&lab.host, &on_host("--syn-rate 1000"));
    let row = under_flood(&lab, &agent);
    println!("client filters by state: {row:?}");
    assert_eq!(row.served, HONEST, "{row:?}");
    assert!(row.challenged + row.admitted() >= HONEST, "{row:?}");
}

/// The known limit: a challenge is answered by RST, and this client sends none.
#[test]
fn a_client_without_resets_waits_for_the_end_of_the_flood() {
    const HONEST: usize = 8;
    let nft = Nft::install();
    let (lab, _program) = lab();
    nft.load(
        &lab.client,
        "table inet test {
            chain output { type filter hook output priority 0; policy accept;
                tcp flags & rst == rst drop; } }",
    );
    let agent = Agent::start(&lab.host, &on_host("--syn-rate 1000"));
    let flood = strangers("192.0.2.1:25");
    let served = flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until_answered(&agent);
        lab.client.within(|| {
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..HONEST)
                    .map(|_| scope.spawn(|| talk(CLIENT, HOST_IPV4, PATIENCE).is_ok()))
                    .collect();
                clients
                    .into_iter()
                    .map(|client| client.join().unwrap())
                    .filter(|served| *served)
                    .count()
            })
        })
    });
    println!("client without RST: {served} of {HONEST} during the flood");
    // One that the cap let through, at most.
    assert!(served <= 1, "{served}");
    assert_eq!(agent.count("/answers/proven"), 0);
    until_over(&agent, &lab.client, CLIENT, HOST_IPV4);
}

/// What the cap lets through is no more than the listener's queue takes: the
/// kernel does not fall back to cookies of its own.
#[test]
fn the_listeners_queue_never_overflows() {
    let lab = Lab::new();
    route_to_everybody(&lab);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host("--syn-rate 1000"));
    let flood = strangers("192.0.2.1:25");
    let begun = Instant::now();
    let half_open = flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        let mut most = 0;
        while begun.elapsed() < Duration::from_secs(9) {
            most = most.max(half_open(&lab));
            std::thread::sleep(Duration::from_millis(200));
        }
        most
    });
    println!(
        "passed {}, half open at most {half_open}, SyncookiesSent {}, TCPReqQFullDoCookies {}",
        agent.count("/syn/passed"),
        netstat(&lab.host, "SyncookiesSent"),
        netstat(&lab.host, "TCPReqQFullDoCookies")
    );
    assert!(half_open > 500, "the flood has to reach the listener");
    assert_eq!(netstat(&lab.host, "SyncookiesSent"), 0);
}

/// Half-open connections of the host.
fn half_open(lab: &Lab) -> usize {
    let text = lab
        .host
        .within(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    // SYN_RECV
    text.lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("03"))
        .count()
}
