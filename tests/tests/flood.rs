//! Floods against the real agent: who is honest is served, whatever is forged.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::{Agent, on_host},
    flood::{
        answerable, flooded, frames, is_served, repeated, stranger, strangers, syns, talk,
        until_answered, until_over,
    },
    frames::{FrameSender, RST, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab},
    poll::until,
};
use socket2::{Domain, Socket, Type};

/// Connections of the honest client under each flood.
const HONEST: usize = 100;
/// So many of them at the same time.
const CLIENTS: usize = 10;

const ARGUMENTS: &str = "--syn-rate 100 --syn-burst 200";
const PREFIX_LIMITED: &str =
    "limits.syn_rate = 100\nlimits.syn_burst = 200\nlimits.prefix_rate = 200\n";

/// The honest client's connections under the flood, after it has begun to bite.
fn honest_under(agent: &Agent, lab: &Lab, frames: &[Vec<u8>], from: &str, to: &str) {
    let served = flooded(&lab.client, CLIENT_INTERFACE, frames, || {
        until_answered(agent);
        // Each forged SYN comes again after whoever has its address has said that it
        // is none of theirs: that must not have spoken for it.
        let around = agent.count("/syn/total") + 4 * frames.len() as u64;
        until("the flood has gone around", || {
            (agent.count("/syn/total") > around).then_some(())
        });
        served(lab, from, to)
    });
    assert_eq!(served, HONEST, "{:#}", agent.status());
    one_verdict_each(agent);
}

/// How many of the honest client's connections are served.
fn served(lab: &Lab, from: &str, to: &str) -> usize {
    // At the same time: an answer that overflows the wire's ring costs its
    // client a second, which must not add up.
    let client = || {
        let client = || {
            (0..HONEST / CLIENTS)
                .filter(|_| is_served(from, to))
                .count()
        };
        lab.client.within(client)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum::<usize>()
    })
}

fn one_verdict_each(agent: &Agent) {
    let status = agent.status();
    let verdicts = status["syn"].as_object().unwrap();
    let sum: u64 = verdicts
        .iter()
        .filter(|(name, _)| *name != "total")
        .map(|(_, count)| count.as_u64().unwrap())
        .sum();
    assert_eq!(agent.count("/syn/total"), sum, "one verdict for each SYN");
}

#[test]
fn strangers_with_forged_sources_do_not_stop_an_honest_one() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    let ipv4 = strangers("192.0.2.1:25");
    honest_under(&agent, &lab, &ipv4, "192.0.2.100", HOST_IPV4);
    assert!(agent.count("/syn/flood") > 1000);
    assert!(agent.count("/answers/proven") > 0);
    until("the flood is told", || {
        agent.log().contains("flood of SYNs").then_some(())
    });
    let ipv6 = strangers("[2001:db8::1]:25");
    honest_under(&agent, &lab, &ipv6, "2001:db8::100", HOST_IPV6);

    // Without a flood nobody is asked for a proof.
    until_over(&agent, &lab.client, "192.0.2.101", HOST_IPV4);
    until("the end of the flood is told", || {
        let over = agent.log().contains("the flood of SYNs is over");
        (over && agent.status()["flood"] == false).then_some(())
    });
}

#[test]
fn forging_an_address_does_not_silence_it() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    let own = frames("192.0.2.1:25", |_| "192.0.2.100".to_owned());
    honest_under(&agent, &lab, &own, "192.0.2.100", HOST_IPV4);
    assert!(agent.count("/syn/limited_source") > 1000);
}

#[test]
fn forging_the_neighbours_does_not_silence_a_network() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::configured(&lab.host, PREFIX_LIMITED, &on_host(""));
    let network = frames("192.0.2.1:25", |n| format!("192.0.2.{}", 110 + n % 100));
    honest_under(&agent, &lab, &network, "192.0.2.100", HOST_IPV4);
    assert!(agent.count("/syn/limited_prefix") > 1000);
}

/// Addresses of the client, each of which answers what it is sent.
const BOTS: u32 = 256;

/// The frames of a botnet whose hosts are there: they answer a challenge, repeat
/// their SYN, and are proven.
fn botnet(lab: &Lab) -> Vec<Vec<u8>> {
    lab.client.ip("route add local 198.18.0.0/24 dev lo");
    lab.host.ip("route add 198.18.0.0/24 via 192.0.2.100");
    frames("192.0.2.1:25", |n| format!("198.18.0.{}", n % BOTS))
}

#[test]
fn a_botnet_that_proves_itself_gets_its_rate_and_no_more() {
    const RATE: u64 = 2;
    const BURST: u64 = 5;
    const HONEST: u8 = 30;
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    // Each of the honest comes once.
    lab.client.ip("route add local 198.51.100.0/24 dev lo");
    lab.host.ip("route add 198.51.100.0/24 via 192.0.2.100");
    let (rate, burst) = (RATE.to_string(), BURST.to_string());
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--syn-rate",
        &rate,
        "--syn-burst",
        &burst,
    ];
    let agent = Agent::start(&lab.host, &arguments);
    let begun = Instant::now();
    let served = repeated(&lab.client, CLIENT_INTERFACE, &botnet(&lab), || {
        until("the botnet is limited", || {
            (agent.count("/syn/limited_source") > 20_000).then_some(())
        });
        let served = |n| is_served(&format!("198.51.100.{n}"), HOST_IPV4);
        lab.client
            .within(|| (1..=HONEST).filter(|&n| served(n)).count())
    });
    let elapsed = begun.elapsed().as_secs() + 1;
    let status = agent.status();
    assert_eq!(served, usize::from(HONEST), "{status:#}");
    assert!(agent.count("/answers/proven") >= u64::from(BOTS));
    // A bucket for what is proven and one for what is not; the honest are counted
    // with their repetitions.
    let most = u64::from(BOTS) * 2 * (BURST + RATE * elapsed) + u64::from(HONEST) * 4;
    let passed = agent.count("/syn/passed");
    println!("the botnet: {passed} SYNs passed, at most {most} may; {status:#}");
    assert!(passed <= most, "{passed} passed, at most {most} may");
    one_verdict_each(&agent);
}

#[test]
fn all_of_them_at_once_do_not_stop_an_honest_one() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::configured(&lab.host, PREFIX_LIMITED, &on_host(""));
    let own = frames("192.0.2.1:25", |_| "192.0.2.100".to_owned());
    let network = frames("192.0.2.1:25", |n| format!("192.0.2.{}", 110 + n % 100));
    let forged = strangers("192.0.2.1:25").into_iter().zip(own).zip(network);
    let forged: Vec<_> = forged
        .flat_map(|((stranger, own), neighbour)| [stranger, own, neighbour])
        .collect();
    let verdicts = ["/syn/limited_source", "/syn/limited_prefix", "/syn/flood"];
    let served = flooded(&lab.client, CLIENT_INTERFACE, &forged, || {
        repeated(&lab.client, CLIENT_INTERFACE, &botnet(&lab), || {
            until("each kind is judged", || {
                let many = |verdict: &&str| agent.count(verdict) > 1000;
                verdicts.iter().all(many).then_some(())
            });
            served(&lab, "192.0.2.100", HOST_IPV4)
        })
    });
    assert_eq!(served, HONEST, "{:#}", agent.status());
    assert!(agent.count("/answers/proven") > u64::from(BOTS));
    one_verdict_each(&agent);
}

#[test]
fn without_the_challenge_the_flood_wins() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::configured(&lab.host, "limits.flood_answer = \"drop\"\n", &on_host(""));
    let own = frames("192.0.2.1:25", |_| "192.0.2.100".to_owned());
    flooded(&lab.client, CLIENT_INTERFACE, &own, || {
        until("the flood is limited", || {
            (agent.count("/syn/limited_source") > 1000).then_some(())
        });
        let connect = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let from: SocketAddr = "192.0.2.100:0".parse().unwrap();
            socket.bind(&from.into()).unwrap();
            let to: SocketAddr = "192.0.2.1:25".parse().unwrap();
            socket
                .connect_timeout(&to.into(), Duration::from_millis(900))
                .is_ok()
        };
        let served = std::thread::scope(|scope| {
            let client = || lab.client.within(connect);
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients
                .into_iter()
                .filter_map(|client| client.join().unwrap().then_some(()))
                .count()
        });
        // One or the other may meet a token.
        assert!(served <= CLIENTS / 2, "{served} of {CLIENTS} were served");
    });
    assert_eq!(agent.count("/answers/challenge"), 0);
}

/// An address that no device on the wire has: it lives on loopback, and is routed here.
#[test]
fn an_address_of_loopback_is_challenged_and_served() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    lab.host.ip("addr add 198.51.100.7/32 dev lo");
    lab.client.ip("route add 198.51.100.7/32 via 192.0.2.1");
    let more = format!("{ARGUMENTS} --listen 198.51.100.7:25");
    let agent = Agent::start(&lab.host, &on_host(&more));
    let strangers = strangers("198.51.100.7:25");
    honest_under(&agent, &lab, &strangers, "192.0.2.100", "198.51.100.7");
    assert_eq!(agent.count("/answers/unanswerable"), 0);
}

/// On a port of a bridge XDP does not know the way of the bridge's address. Its SYNs are
/// the kernel's, whose cookies then serve the honest.
#[test]
fn what_xdp_cannot_answer_the_kernel_does() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    lab.host.ip("link add br0 type bridge");
    lab.host.ip(&format!("addr flush dev {HOST_INTERFACE}"));
    lab.host
        .ip(&format!("link set {HOST_INTERFACE} master br0"));
    lab.host.ip("link set br0 address 02:00:00:00:00:02 up");
    lab.host.ip("addr add 192.0.2.1/24 dev br0");
    let more = format!("{ARGUMENTS} --listen 192.0.2.1:25");
    let agent = Agent::start(&lab.host, &on_host(&more));
    let status = agent.status();
    let unchallenged = &status["addresses"]["unchallenged"]["names"];
    assert_eq!(unchallenged[0], "192.0.2.1:25", "{status:#}");
    let flood = strangers("192.0.2.1:25");
    let served = flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until("the kernel gets the flood", || {
            (agent.count("/answers/unanswerable") > 1000).then_some(())
        });
        lab.client.within(|| {
            (0..HONEST)
                .filter(|_| is_served("192.0.2.100", HOST_IPV4))
                .count()
        })
    });
    assert_eq!(served, HONEST, "{:#}", agent.status());
    assert_eq!(agent.count("/answers/challenge"), 0);
    assert_eq!(agent.count("/answers/unanswerable_dropped"), 0);
}

/// So many RSTs that answer nothing that a client has to answer twice: it is served a
/// second later.
#[test]
fn a_flood_of_resets_does_not_stop_an_honest_one() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    let mut flood = strangers("192.0.2.1:25");
    let resets = syns("192.0.2.1:25", |n| stranger("192.0.2.1:25", !n));
    flood.extend(resets.into_iter().map(|syn| {
        let reset = Segment { flags: RST, ..syn };
        reset.frame()
    }));
    let begun = Instant::now();
    let served = flooded(&lab.client, CLIENT_INTERFACE, &flood, || {
        until_answered(&agent);
        let client = || {
            let patience = Duration::from_secs(5);
            let talk = || talk("192.0.2.100", HOST_IPV4, patience).ok();
            let served = lab.client.within(talk);
            served.map(|served| served.established)
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let served = clients.into_iter().filter_map(|one| one.join().unwrap());
            served.collect::<Vec<_>>()
        })
    });
    println!("{served:?} of {CLIENTS} in {:?}", begun.elapsed());
    assert_eq!(served.len(), CLIENTS, "{:#}", agent.status());
}

/// Lines of the log about sources that are over their limit.
fn limited_lines(agent: &Agent) -> Vec<serde_json::Value> {
    let lines = agent.log();
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &serde_json::Value| line["event"] == "limited")
        .collect()
}

#[test]
fn a_line_about_syns_over_the_limit_says_nothing_about_a_host() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let arguments = ["--iface", HOST_INTERFACE, "--log-format", "json", "-v"];
    let agent = Agent::start(&lab.host, &arguments);
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for frame in frames("192.0.2.1:25", |_| "192.0.2.111".to_owned())
            .iter()
            .take(500)
        {
            sender.send(frame);
        }
    });
    // A real one: it is asked for proofs, gives them, and goes on.
    let from: SocketAddr = "192.0.2.100:0".parse().unwrap();
    let to: SocketAddr = "192.0.2.1:25".parse().unwrap();
    let of = |source: &str, level: &str| -> Vec<_> {
        let wanted = limited_lines(&agent).into_iter();
        wanted
            .filter(|line| line["source"] == source && line["level"] == level)
            .collect()
    };
    let line = until("the source that has connections is told of", || {
        lab.client.within(|| {
            for _ in 0..20 {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&from.into()).unwrap();
                let _ = socket.connect_timeout(&to.into(), Duration::from_millis(20));
            }
        });
        of("192.0.2.100", "info").pop()
    });
    assert!(line["connections"].as_u64() > Some(0), "{line:#}");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with("192.0.2.100: SYNs over the limit of 10 per second, perhaps forged; "),
        "{message}"
    );
    let [forged] = &of("192.0.2.111", "debug")[..] else {
        panic!("{:#?}", limited_lines(&agent));
    };
    assert_eq!(
        forged["message"],
        "192.0.2.111: SYNs over the limit of 10 per second, perhaps forged; 0 connections from \
         there"
    );
    assert_eq!(forged["verdict"], "limited_source");
    assert_eq!(forged["interface"], HOST_INTERFACE);
    assert_eq!(of("192.0.2.111", "info"), Vec::<serde_json::Value>::new());
    // Nothing that an engine may be handed calls a host proven.
    assert!(!agent.log().contains("proven"), "{}", agent.log());
}
