//! Tables of the program that are full: who comes then is judged as ever.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use etherparse::{PacketHeaders, TransportHeader};
use nomail_agent::guard::{Guard, GuardedInterface, Policy, Rate};
use nomail_common::{
    abi::{LINES, SLOTS_PER_LINE, TICKET_LINES, TICKETS_PER_LINE},
    guard::policy::FloodAnswer,
    verdict::Verdict,
};
use nomail_tests::{
    frames::{RST, Segment},
    lab::Lab,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const LOCAL: &str = "192.0.2.7";

/// A loaded guard, and the lab that it is attached in.
fn guard(source: Rate, cap: Option<Rate>) -> (Guard, Lab) {
    let mut guard = Guard::load(&HashSet::from([25])).unwrap();
    let lab = Lab::new();
    lab.attach(&mut guard);
    let address: IpAddr = LOCAL.parse().unwrap();
    guard
        .configure(&Policy {
            source,
            prefix: None,
            cap,
            flood_answer: FloodAnswer::Challenge,
            observe: false,
            interfaces: vec![GuardedInterface {
                // A test run claims to come from the loopback interface.
                index: 1,
                hardware: [2, 0, 0, 0, 0, 2],
                ..GuardedInterface::default()
            }],
            guarded: HashSet::from([(address, 25)]),
            answerable: HashSet::from([address]),
            own: HashSet::new(),
            lists: Arc::default(),
            responder: None,
            fallback: false,
        })
        .unwrap();
    (guard, lab)
}

fn syn(first: u32, n: u32) -> Segment {
    let source = Ipv4Addr::from_bits((first << 24) + n);
    Segment::syn(&format!("{source}:40000"), &format!("{LOCAL}:25"))
}

/// Twice as many sources as there are places. Who is in debt keeps his place, and
/// nobody else is refused for the want of one.
#[test]
fn a_full_table_of_sources_refuses_nobody_else() {
    const PLACES: u32 = (LINES * SLOTS_PER_LINE) as u32;
    // A second for each SYN: the bot is in debt for minutes, a stranger for one second.
    let (guard, _lab) = guard(
        Rate {
            rate: 1,
            burst: 200,
        },
        None,
    );
    let bot = syn(198, 18 << 16).frame();
    for _ in 0..200 {
        assert_eq!(guard.test_run(&bot, 1).unwrap().0, XDP_PASS);
    }
    assert_ne!(
        guard.test_run(&bot, 1).unwrap().0,
        XDP_PASS,
        "over its bucket"
    );
    for n in 0..2 * PLACES {
        let (action, _) = guard.test_run(&syn(10, n).frame(), 1).unwrap();
        assert_eq!(action, XDP_PASS, "stranger {n}");
    }
    // What it got back meanwhile is less than what it asks for now.
    let passed = (0..400)
        .filter(|_| guard.test_run(&bot, 1).unwrap().0 == XDP_PASS)
        .count();
    assert!(passed < 150, "{passed}: it has lost its place");
    let counters = guard.counters(Some(0)).unwrap();
    let sources = guard.sources().unwrap();
    println!(
        "{} sources in {PLACES} places, {} evictions",
        sources.len(),
        counters.evictions
    );
    assert!(sources.len() <= PLACES as usize && sources.len() > PLACES as usize * 9 / 10);
    assert_eq!(
        counters.evictions + sources.len() as u64,
        u64::from(2 * PLACES) + 1,
        "each that came has a place, or has lost it"
    );
    assert_eq!(
        counters.verdicts.iter().sum::<u64>(),
        200 + 1 + 400 + u64::from(2 * PLACES)
    );
}

/// More proofs than there are places: the last ones hold.
#[test]
fn a_full_table_of_proofs_takes_the_next_one() {
    const PLACES: u32 = (TICKET_LINES * TICKETS_PER_LINE) as u32;
    const WIDE: Rate = Rate {
        rate: 10_000,
        burst: 20_000,
    };
    // No SYN of the unproven passes but the first, and one a second.
    let (mut guard, _lab) = guard(WIDE, Some(Rate { rate: 1, burst: 1 }));
    let mut proven = 0;
    for n in 0..PLACES * 5 / 4 {
        let segment = syn(10, n);
        let (action, answer) = guard.test_answer(&segment.frame()).unwrap();
        if action != XDP_TX {
            assert_eq!(action, XDP_PASS, "one a second");
            continue;
        }
        let packet = PacketHeaders::from_ethernet_slice(&answer).unwrap();
        let Some(TransportHeader::Tcp(tcp)) = packet.transport else {
            panic!("no TCP in {answer:?}");
        };
        let reset = Segment {
            flags: RST,
            sequence: tcp.acknowledgment_number,
            ..segment
        };
        assert_eq!(guard.test_run(&reset.frame(), 1).unwrap().0, XDP_DROP);
        let (action, _) = guard.test_run(&segment.frame(), 1).unwrap();
        assert_eq!(action, XDP_PASS, "proof {n} is not remembered");
        proven += 1;
    }
    assert!(proven > PLACES, "{proven} of {PLACES}");
    let counters = guard.counters(Some(0)).unwrap();
    assert_eq!(
        counters.verdicts[Verdict::Flood as usize],
        u64::from(proven)
    );
}
