//! What a development object logs: built and run by `cargo xtask test bpf --trace` alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    cell::RefCell,
    io::Read as _,
    net::{SocketAddr, TcpStream},
};

use ipnet::IpNet;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nomail_agent::guard::{Guard, Lists, Policy};
use nomail_common::guard::policy::FloodAnswer;
use nomail_tests::{
    agent::{Agent, on_host},
    frames::{RST, Segment},
    lab::{HOST_IPV4, Lab},
    poll::{DEADLINE, until},
    program::{TIGHT, guard, ipv4, ipv6, policy, reset_for, run},
};

/// A log of one's own for each test.
struct Lines;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        if record.target() == "nomail_ebpf" {
            assert_eq!(record.level(), Level::Trace);
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

fn traced(policy: &Policy) -> Guard {
    // Not the first of the process.
    let _ = log::set_logger(&Lines);
    log::set_max_level(LevelFilter::Trace);
    guard(policy)
}

/// What is logged of a frame.
fn lines_of(guard: &Guard, frame: &[u8]) -> Vec<String> {
    LINES.take();
    run(guard, frame);
    LINES.take()
}

#[test]
fn a_syn_that_passes_has_its_steps_and_its_verdict_logged() {
    let guard = traced(&policy());
    let rest = [
        "kind: SYN",
        "state: peace",
        "bucket of the source: within its limit",
        "cap: within its limit",
        "verdict: passed",
        "action: XDP_PASS",
    ];
    for (segment, first) in [
        (ipv4(), "198.51.100.1:40000 to 192.0.2.7:25"),
        (ipv6(), "[2001:db8:1::1]:40000 to [2001:db8::7]:25"),
    ] {
        let lines = lines_of(&guard, &segment.frame());
        assert_eq!(lines[0], first);
        assert_eq!(lines[1..], rest);
    }
}

#[test]
fn a_challenge_and_its_answer_can_be_followed() {
    let mut guard = traced(&Policy {
        cap: Some(TIGHT),
        ..policy()
    });
    run(&guard, &ipv4().frame());
    let lines = lines_of(&guard, &ipv4().frame());
    let expected = [
        "198.51.100.1:40000 to 192.0.2.7:25",
        "kind: SYN",
        "state: cap exhausted",
        "bucket of the source: within its limit",
        "cap: over its limit",
        "verdict: flood",
        "counted: challenge",
        "action: XDP_TX",
    ];
    assert_eq!(lines, expected);
    let (_, challenge) = guard.test_answer(&ipv4().frame()).unwrap();
    let lines = lines_of(&guard, &reset_for(ipv4(), &challenge));
    let expected = [
        "198.51.100.1:40000 to 192.0.2.7:25",
        "kind: RST",
        "state: cap exhausted",
        "RST answers: a challenge",
        "counted: proven",
        "action: XDP_DROP",
    ];
    assert_eq!(lines, expected);
    let lines = lines_of(&guard, &ipv4().frame());
    let expected = [
        "198.51.100.1:40000 to 192.0.2.7:25",
        "kind: SYN",
        "state: cap exhausted, tickets alive",
        "ticket: new",
        "bucket of the source: within its limit",
        "verdict: passed",
        "action: XDP_PASS",
    ];
    assert_eq!(lines, expected);
    let wrong = Segment {
        flags: RST,
        sequence: 1,
        ..ipv4()
    };
    let lines = lines_of(&guard, &wrong.frame());
    assert_eq!(
        lines[3..],
        ["RST answers: no challenge", "action: XDP_PASS"]
    );
}

#[test]
fn lists_and_buckets_say_what_they_found() {
    let denied = "198.51.100.0/24".parse::<IpNet>().unwrap();
    let guard = traced(&Policy {
        lists: Lists {
            deny: [denied].into(),
            ..Lists::default()
        }
        .into(),
        source: TIGHT,
        flood_answer: FloodAnswer::Drop,
        ..policy()
    });
    let lines = lines_of(&guard, &ipv4().frame());
    let expected = ["on the deny list", "verdict: denied", "action: XDP_DROP"];
    assert_eq!(lines[3..], expected);
    let unlisted = Segment::syn("203.0.113.1:40000", "192.0.2.7:25").frame();
    run(&guard, &unlisted);
    let lines = lines_of(&guard, &unlisted);
    let expected = [
        "not on the deny list",
        "bucket of the source: over its limit",
        "verdict: limited_source",
        "action: XDP_DROP",
    ];
    assert_eq!(lines[3..], expected);
}

#[test]
fn a_pair_that_is_not_guarded_ends_there() {
    let guard = traced(&policy());
    let elsewhere = Segment::syn("198.51.100.1:40000", "192.0.2.8:25").frame();
    let expected = [
        "198.51.100.1:40000 to 192.0.2.8:25",
        "kind: SYN",
        "guarded: no",
        "action: XDP_PASS",
    ];
    assert_eq!(lines_of(&guard, &elsewhere), expected);
    let other_port = Segment::syn("198.51.100.1:40000", "192.0.2.7:80").frame();
    assert!(lines_of(&guard, &other_port).is_empty());
}

/// Confined as it is, it may read what the program logs.
#[test]
fn the_agent_shows_the_steps_at_vvv_alone() {
    for (verbose, is_shown) in [("-vvv", true), ("-vv", false)] {
        let lab = Lab::new();
        let agent = Agent::start(&lab.host, &on_host(verbose));
        let to = SocketAddr::new(HOST_IPV4.parse().unwrap(), 25);
        let mut code = [0; 3];
        lab.client.within(|| {
            let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
            stream.read_exact(&mut code).unwrap();
        });
        assert_eq!(&code, b"521");
        let is_there = || agent.log().contains("TRACE verdict: passed");
        if is_shown {
            until("the verdict is logged", || is_there().then_some(()));
        } else {
            // Later than a line may be.
            until("it is counted", || {
                (agent.count("/syn/passed") > 0).then_some(())
            });
            assert!(!is_there());
        }
        agent.stop();
    }
}
