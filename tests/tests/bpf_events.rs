//! The events of the loaded program, by BPF_PROG_TEST_RUN.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{collections::HashSet, time::Duration};

use nomail_agent::guard::{Guard, Limited, Policy, Rate};
use nomail_common::{
    abi::{REPORTED_LINES, REPORTED_PER_LINE},
    guard::policy::FloodAnswer,
    verdict::Verdict,
};
use nomail_tests::{
    frames::Segment,
    lab::Lab,
    program::{
        self, LOOPBACK_INDEX, TIGHT, XDP_DROP, XDP_PASS, XDP_TX, from_port, guard, prove, run,
    },
};

fn policy() -> Policy {
    Policy {
        source: Rate { rate: 1, burst: 2 },
        ..program::policy()
    }
}

/// Address, verdict, proven, of each event.
fn told(guard: &mut Guard) -> Vec<(String, Verdict, bool)> {
    let events = guard.take_events().unwrap();
    let shown = events.into_iter().map(|event| {
        let Limited {
            address,
            verdict,
            proven,
            interface,
            ago,
        } = event;
        assert_eq!(interface, LOOPBACK_INDEX);
        assert!(ago < Duration::from_secs(10), "{ago:?}");
        (address.to_string(), verdict, proven)
    });
    shown.collect()
}

#[test]
fn a_source_is_told_of_once_and_again_when_it_is_proven() {
    let mut guard = guard(&policy());
    for (segment, address) in [
        (
            Segment::syn("198.51.100.1:1", "192.0.2.7:25"),
            "198.51.100.1",
        ),
        (
            Segment::syn("[2001:db8:1::5]:1", "[2001:db8::7]:25"),
            "2001:db8:1::",
        ),
    ] {
        let frame = segment.frame();
        guard.test_run(&frame, 2).unwrap();
        assert_eq!(told(&mut guard), [], "not over its limit yet");
        guard.test_run(&frame, 1).unwrap();
        let forged = (address.to_owned(), Verdict::LimitedSource, false);
        assert_eq!(told(&mut guard), [forged]);
        for _ in 0..200 {
            let (action, _) = guard.test_answer(&frame).unwrap();
            assert!(action != XDP_TX || guard.take_events().unwrap().is_empty());
        }
        // What was forged in its name does not hide what was proven. A ticket is charged
        // once: the third one is over the limit.
        for port in 2..=4 {
            prove(&mut guard, from_port(segment, port));
            assert_eq!(told(&mut guard), []);
        }
        let tickets = (2..=4).map(|port| from_port(segment, port).frame());
        let actions: Vec<_> = tickets.map(|frame| run(&guard, &frame)).collect();
        assert_eq!(actions, [XDP_PASS, XDP_PASS, XDP_DROP]);
        let proven = (address.to_owned(), Verdict::LimitedSource, true);
        assert_eq!(told(&mut guard), [proven]);
    }
}

#[test]
fn a_prefix_is_told_of_also_while_observing() {
    let mut guard = guard(&Policy {
        prefix: Some(Rate { rate: 1, burst: 3 }),
        flood_answer: FloodAnswer::Drop,
        observe: true,
        ..policy()
    });
    for last in 1..=100 {
        for (from, to) in [
            (format!("203.0.113.{last}:1"), "192.0.2.7:25"),
            (format!("[2001:db8:2:{last}::1]:1"), "[2001:db8::7]:25"),
        ] {
            guard.test_run(&Segment::syn(&from, to).frame(), 1).unwrap();
        }
    }
    let mut told = told(&mut guard);
    told.sort();
    assert_eq!(
        told,
        [
            ("2001:db8:2::".to_owned(), Verdict::LimitedPrefix, false),
            ("203.0.113.0".to_owned(), Verdict::LimitedPrefix, false),
        ]
    );
}

/// More sources than are told of, and nobody who reads: none of the first is lost,
/// and nothing stands still.
#[test]
fn a_flood_of_sources_makes_a_bounded_number_of_events() {
    const PLACES: usize = REPORTED_LINES * REPORTED_PER_LINE;
    let mut guard = guard(&Policy {
        source: TIGHT,
        ..policy()
    });
    let lab = Lab::new();
    lab.attach(&mut guard);
    for number in 0..2 * PLACES as u32 {
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
        let frame = Segment::syn(&format!("{source}:1"), "192.0.2.7:25").frame();
        guard.test_run(&frame, 40).unwrap();
    }
    let told = told(&mut guard);
    assert!(
        told.len() <= PLACES && told.len() > PLACES * 9 / 10,
        "{}",
        told.len()
    );
    let different: HashSet<_> = told.iter().map(|(address, ..)| address).collect();
    assert_eq!(different.len(), told.len());
}
