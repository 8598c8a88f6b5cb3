//! Tables of the program that are full: who comes then is judged as ever.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::net::Ipv4Addr;

use nomail_agent::guard::{Guard, Policy, Rate};
use nomail_common::{
    abi::{LINES, SLOTS_PER_LINE, TICKET_LINES, TICKETS_PER_LINE},
    verdict::Verdict,
};
use nomail_tests::{
    frames::Segment,
    lab::Lab,
    program::{self, TIGHT, WIDE, XDP_DROP, XDP_PASS, XDP_TX, policy, reset_for, run, verdicts},
};

/// A loaded guard, and the lab that it is attached in.
fn guard(source: Rate, cap: Option<Rate>) -> (Guard, Lab) {
    let mut guard = program::guard(&Policy {
        source,
        cap,
        ..policy()
    });
    let lab = Lab::new();
    lab.attach(&mut guard);
    (guard, lab)
}

fn syn(first: u32, n: u32) -> Segment {
    let source = Ipv4Addr::from_bits((first << 24) + n);
    Segment::syn(&format!("{source}:40000"), "192.0.2.7:25")
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
        assert_eq!(run(&guard, &bot), XDP_PASS);
    }
    assert_ne!(run(&guard, &bot), XDP_PASS, "over its bucket");
    for n in 0..2 * PLACES {
        let action = run(&guard, &syn(10, n).frame());
        assert_eq!(action, XDP_PASS, "stranger {n}");
    }
    // What it got back meanwhile is less than what it asks for now.
    let passed = (0..400).filter(|_| run(&guard, &bot) == XDP_PASS).count();
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
    // No SYN of the unproven passes but the first, and one a second.
    let (mut guard, _lab) = guard(WIDE, Some(TIGHT));
    let mut proven = 0;
    for n in 0..PLACES * 5 / 4 {
        let segment = syn(10, n);
        let (action, answer) = guard.test_answer(&segment.frame()).unwrap();
        if action != XDP_TX {
            assert_eq!(action, XDP_PASS, "one a second");
            continue;
        }
        assert_eq!(run(&guard, &reset_for(segment, &answer)), XDP_DROP);
        let action = run(&guard, &segment.frame());
        assert_eq!(action, XDP_PASS, "proof {n} is not remembered");
        proven += 1;
    }
    assert!(proven > PLACES, "{proven} of {PLACES}");
    assert_eq!(verdicts(&guard, Verdict::Flood), u64::from(proven));
}
