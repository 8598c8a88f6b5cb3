//! Floods against the real agent: who is honest is served, whatever is forged.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::Agent,
    foreign::Program,
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab},
    poll::{DEADLINE, until},
};
use socket2::{Domain, Socket, Type};

/// More than a test may be flooded.
const FLOOD_MAX: Duration = Duration::from_secs(10);
/// Connections of the honest client under each flood.
const HONEST: usize = 100;

const ARGUMENTS: &[&str] = &[
    "--iface",
    HOST_INTERFACE,
    "--hostname",
    "mailless.example.org",
    "--syn-rate",
    "100",
    "--syn-burst",
    "200",
];

/// A connection from `from`: whether it was told what there is to be told.
fn is_served(from: &str, to: &str) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), 25);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::new(from.parse().unwrap(), 0).into())
        .unwrap();
    let talk = || -> std::io::Result<String> {
        socket.connect_timeout(&to.into(), DEADLINE)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"QUIT\r\n")?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        Ok(heard)
    };
    talk().is_ok_and(|heard| heard.contains("\r\n221 "))
}

fn number(agent: &Agent, path: &str) -> u64 {
    agent.status().pointer(path).unwrap().as_u64().unwrap()
}

/// Frames of a flood: `source` gives the address of each.
fn frames(to: &str, source: impl Fn(u32) -> String) -> Vec<Vec<u8>> {
    (0..8192u32)
        .map(|n| {
            // Any order will do, as long as it repeats neither port nor number.
            let noise = n.wrapping_mul(0x9e37_79b9);
            let port = 1024 + (noise >> 17);
            let from = SocketAddr::new(source(noise).parse().unwrap(), port as u16);
            let segment = Segment {
                sequence: noise.rotate_left(13) ^ n,
                ..Segment::syn(&from.to_string(), to)
            };
            segment.frame()
        })
        .collect()
}

/// Runs `work` while the client's interface sends `frames` over and over.
fn flooded<T>(lab: &Lab, frames: &[Vec<u8>], work: impl FnOnce() -> T) -> T {
    let flooding = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.client.within(|| {
                let sender = FrameSender::open(CLIENT_INTERFACE);
                let begun = Instant::now();
                for frame in frames.iter().cycle() {
                    if !flooding.load(Ordering::Relaxed) || begun.elapsed() > FLOOD_MAX {
                        return;
                    }
                    sender.send(frame);
                }
            });
        });
        let done = work();
        flooding.store(false, Ordering::Relaxed);
        done
    })
}

/// XDP sends on a veth pair only when the peer has a program too.
fn client_that_can_be_answered(lab: &Lab) -> std::os::fd::OwnedFd {
    lab.client
        .within(|| Program::load("pass").attach(CLIENT_INTERFACE))
}

/// The honest client's connections under the flood, after it has begun to bite.
fn honest_under(agent: &Agent, lab: &Lab, frames: &[Vec<u8>], from: &str, to: &str) {
    let before = number(agent, "/answers/challenge");
    let served = flooded(lab, frames, || {
        until("the flood is answered", || {
            (number(agent, "/answers/challenge") > before + 1000).then_some(())
        });
        lab.client
            .within(|| (0..HONEST).filter(|_| is_served(from, to)).count())
    });
    let status = agent.status();
    assert_eq!(served, HONEST, "{status:#}");
    let verdicts = status["syn"].as_object().unwrap();
    let sum: u64 = verdicts
        .iter()
        .filter(|(name, _)| *name != "total")
        .map(|(_, count)| count.as_u64().unwrap())
        .sum();
    assert_eq!(number(agent, "/syn/total"), sum, "one verdict for each SYN");
}

#[test]
fn strangers_with_forged_sources_do_not_stop_an_honest_one() {
    let lab = Lab::new();
    let _program = client_that_can_be_answered(&lab);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let ipv4 = frames("192.0.2.1:25", |n| {
        let [_, a, b, c] = n.to_be_bytes();
        format!("10.{a}.{b}.{c}")
    });
    honest_under(&agent, &lab, &ipv4, "192.0.2.100", HOST_IPV4);
    assert!(number(&agent, "/syn/flood") > 1000);
    assert!(number(&agent, "/answers/proven") > 0);
    until("the flood is told", || {
        agent.log().contains("flood of SYNs").then_some(())
    });
    let ipv6 = frames("[2001:db8::1]:25", |n| format!("2001:db9:{:x}::1", n >> 16));
    honest_under(&agent, &lab, &ipv6, "2001:db8::100", HOST_IPV6);

    // Without a flood nobody is asked for a proof.
    until("the cap has room again", || {
        let challenges = number(&agent, "/answers/challenge");
        let served = lab.client.within(|| is_served("192.0.2.101", HOST_IPV4));
        (served && number(&agent, "/answers/challenge") == challenges).then_some(())
    });
    until("the end of the flood is told", || {
        let over = agent.log().contains("the flood of SYNs is over");
        (over && agent.status()["flood"] == false).then_some(())
    });
}

#[test]
fn forging_an_address_does_not_silence_it() {
    let lab = Lab::new();
    let _program = client_that_can_be_answered(&lab);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let own = frames("192.0.2.1:25", |_| "192.0.2.100".to_owned());
    honest_under(&agent, &lab, &own, "192.0.2.100", HOST_IPV4);
    assert!(number(&agent, "/syn/limited_source") > 1000);
}

#[test]
fn forging_the_neighbours_does_not_silence_a_network() {
    let lab = Lab::new();
    let _program = client_that_can_be_answered(&lab);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    std::fs::write(
        &file,
        "limits.syn_rate = 100\nlimits.syn_burst = 200\nlimits.prefix_rate = 200\n",
    )
    .unwrap();
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--config",
        file.to_str().unwrap(),
    ];
    let agent = Agent::start(&lab.host, &arguments);
    let network = frames("192.0.2.1:25", |n| format!("192.0.2.{}", 110 + n % 100));
    honest_under(&agent, &lab, &network, "192.0.2.100", HOST_IPV4);
    assert!(number(&agent, "/syn/limited_prefix") > 1000);
}

#[test]
fn without_the_challenge_the_flood_wins() {
    let lab = Lab::new();
    let _program = client_that_can_be_answered(&lab);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    std::fs::write(&file, "limits.flood_answer = \"drop\"\n").unwrap();
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--config",
        file.to_str().unwrap(),
    ];
    let agent = Agent::start(&lab.host, &arguments);
    let own = frames("192.0.2.1:25", |_| "192.0.2.100".to_owned());
    flooded(&lab, &own, || {
        until("the flood is limited", || {
            (number(&agent, "/syn/limited_source") > 1000).then_some(())
        });
        let begun = Instant::now();
        let served = lab.client.within(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let from: SocketAddr = "192.0.2.100:0".parse().unwrap();
            socket.bind(&from.into()).unwrap();
            let to: SocketAddr = "192.0.2.1:25".parse().unwrap();
            socket
                .connect_timeout(&to.into(), Duration::from_millis(900))
                .is_ok()
        });
        assert!(!served, "served after {:?}", begun.elapsed());
    });
    assert_eq!(number(&agent, "/answers/challenge"), 0);
}
