//! `flood_answer = "cookie"`: the kernel's own SYN cookies, sent by XDP.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::Agent,
    flood::{
        answerable, flooded, frames, is_served, limit_backlog, route_to_everybody, socket_from,
        strangers, sysctl, talk, until_answered,
    },
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab},
    poll::until,
};

/// Connections of the honest client under each flood, all at the same time.
const HONEST: usize = 10;
/// Longest that one of them waits before it tries once more: the flood lasts 10 s, and
/// who loses two SYNs in the ring would send the next one after 7.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of the listener's queue: full at once, and one client after another fits into
/// that of the established.
const BACKLOG: u64 = 64;

/// A host whose floods are answered with cookies.
struct House {
    lab: Lab,
    agent: Agent,
    _program: std::os::fd::OwnedFd,
}

impl House {
    fn build(configuration: &str) -> Self {
        let lab = Lab::new();
        let program = answerable(&lab.client, CLIENT_INTERFACE);
        limit_backlog(&lab.host, BACKLOG);
        route_to_everybody(&lab);
        let agent = Agent::configured(&lab.host, configuration, &["--iface", HOST_INTERFACE]);
        Self {
            lab,
            agent,
            _program: program,
        }
    }

    fn until_cookies(&self) {
        let before = self.agent.count("/answers/cookie");
        until("the flood is answered with cookies", || {
            (self.agent.count("/answers/cookie") > before + 1000).then_some(())
        });
    }

    /// How many of the honest are served, at the first or the second try.
    fn served(&self, from: &str, to: &str) -> usize {
        let is_served = || {
            let served = talk(from, to, PATIENCE);
            served.is_ok_and(|served| served.heard.contains("\r\n221 "))
        };
        let client = || self.lab.client.within(|| is_served() || is_served());
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..HONEST).map(|_| scope.spawn(client)).collect();
            let served = clients.into_iter().map(|client| client.join().unwrap());
            served.filter(|served| *served).count()
        })
    }

    /// A count of the kernel's `TcpExt`.
    fn kernel(&self, name: &str) -> u64 {
        let text = self
            .lab
            .host
            .within(|| fs::read_to_string("/proc/thread-self/net/netstat"));
        let text = text.unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(found, _)| *found == name).unwrap();
        value.parse().unwrap()
    }
}

const COOKIE: &str = "limits.flood_answer = \"cookie\"\n\
                      limits.syn_rate = 1000\nlimits.syn_burst = 2000\n";

#[test]
fn strangers_with_forged_sources_do_not_stop_an_honest_one() {
    let house = House::build(COOKIE);
    let House { lab, agent, .. } = &house;
    for (from, to, forged) in [
        ("192.0.2.100", HOST_IPV4, strangers("192.0.2.1:25")),
        ("2001:db8::100", HOST_IPV6, strangers("[2001:db8::1]:25")),
    ] {
        let received = house.kernel("SyncookiesRecv");
        let served = flooded(&lab.client, CLIENT_INTERFACE, &forged, || {
            house.until_cookies();
            house.served(from, to)
        });
        assert_eq!(served, HONEST, "{:#}", agent.status());
        // The kernel has taken what XDP sent.
        let taken = house.kernel("SyncookiesRecv") - received;
        assert!(taken as usize > HONEST / 2, "{taken}");
    }
    assert!(agent.count("/syn/flood") >= agent.count("/answers/cookie"));
    assert_eq!(agent.count("/answers/challenge"), 0);

    // Its listener is served as before within seconds.
    until("SYNs pass again", || {
        let (cookies, passed) = (agent.count("/answers/cookie"), agent.count("/syn/passed"));
        let served = lab.client.within(|| is_served("192.0.2.101", HOST_IPV4));
        let same = agent.count("/answers/cookie") == cookies;
        (served && same && agent.count("/syn/passed") > passed).then_some(())
    });
}

#[test]
fn a_source_over_its_bucket_gets_a_cookie_only_while_the_queue_is_full() {
    let house = House::build("limits.flood_answer = \"cookie\"\n");
    let House { lab, agent, .. } = &house;
    let own = frames("192.0.2.1:25", |_| "192.0.2.100".to_owned());
    let calm = flooded(&lab.client, CLIENT_INTERFACE, &own, || {
        until("the source is over its limit", || {
            (agent.count("/syn/limited_source") > 1000).then_some(())
        });
        agent.count("/answers/cookie")
    });
    assert_eq!(calm, 0, "20 SYNs do not fill the queue");
    let mixed = strangers("192.0.2.1:25").into_iter().zip(own);
    let mixed: Vec<_> = mixed.flat_map(|(stranger, own)| [stranger, own]).collect();
    let served = flooded(&lab.client, CLIENT_INTERFACE, &mixed, || {
        house.until_cookies();
        house.served("192.0.2.100", HOST_IPV4)
    });
    assert_eq!(served, HONEST, "{:#}", agent.status());
}

#[test]
fn a_stalled_agent_does_not_let_the_flood_through() {
    let house = House::build(&format!("{COOKIE}limits.unproven_rate = 500\n"));
    let House { lab, agent, .. } = &house;
    let forged = strangers("192.0.2.1:25");
    let thread = agent.hold_thread("smtp");
    // Nobody takes them: the queue of the established fills, and while it is full
    // the kernel wants no cookies.
    let waiting: Vec<_> = lab.client.within(|| {
        let to: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let connect = |_| {
            let socket = socket_from("192.0.2.100");
            let patience = Duration::from_millis(300);
            socket
                .connect_timeout(&to.into(), patience)
                .is_ok()
                .then_some(socket)
        };
        (0..BACKLOG * 2).map_while(connect).collect()
    });
    assert_eq!(waiting.len() as u64, BACKLOG + 1);
    let begun = Instant::now();
    let before = agent.count("/syn/passed");
    let (passed, flood) = flooded(&lab.client, CLIENT_INTERFACE, &forged, || {
        until("the flood is over the cap", || {
            (agent.count("/syn/flood") > 20_000).then_some(())
        });
        (
            agent.count("/syn/passed") - before,
            agent.count("/syn/flood"),
        )
    });
    // Four seconds of the cap at once, and one more for what is rounded.
    let most = 500 * (begun.elapsed().as_secs() + 5);
    assert!(
        passed <= most,
        "{passed} of {flood} passed, at most {most} may"
    );
    assert_eq!(agent.count("/answers/cookie"), 0);
    drop(thread);
    drop(waiting);
    let served = lab.client.within(|| is_served("192.0.2.101", HOST_IPV4));
    assert!(served, "it goes on");
}

#[test]
fn without_the_kernels_cookies_it_challenges_and_says_so() {
    let house = House::build(COOKIE);
    let House { lab, agent, .. } = &house;
    sysctl(&lab.host, "net/ipv4/tcp_syncookies", "0");
    until("it is told", || {
        agent.log().contains("tcp_syncookies is 0").then_some(())
    });
    let forged = strangers("192.0.2.1:25");
    let cookies = agent.count("/answers/cookie");
    let served = flooded(&lab.client, CLIENT_INTERFACE, &forged, || {
        until_answered(agent);
        house.served("192.0.2.100", HOST_IPV4)
    });
    assert_eq!(served, HONEST, "{:#}", agent.status());
    assert_eq!(agent.count("/answers/cookie"), cookies);
    sysctl(&lab.host, "net/ipv4/tcp_syncookies", "1");
    until("it is told again", || {
        agent
            .log()
            .contains("tcp_syncookies is on again")
            .then_some(())
    });
    flooded(&lab.client, CLIENT_INTERFACE, &forged, || {
        house.until_cookies();
    });
}

#[test]
fn a_reload_changes_the_answer() {
    let house = House::build("");
    let House { lab, agent, .. } = &house;
    let forged = strangers("192.0.2.1:25");
    flooded(&lab.client, CLIENT_INTERFACE, &forged, || {
        until_answered(agent);
        agent.configure(COOKIE);
        agent.signal(Signal::SIGHUP);
        house.until_cookies();
    });
}
