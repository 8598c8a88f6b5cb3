//! What the programs cost the verifier: a program that it takes today may grow
//! over its bound of a million instructions, or take it seconds to load.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::collections::HashSet;

use nomail_agent::guard::{Guard, missing_features};

/// Instructions that the verifier walked through (`bpftool prog show` calls them
/// `verified_insns`), on Linux 6.18. When a change needs more than a tenth more,
/// look why; if it is worth it, write down here what this test prints.
const RECORDED: [(&str, u32); 2] = [("nomail", 36_201), ("nomail_clock", 2)];
/// The same where the responder answers: then a SYN is looked at with the lease held and
/// with it ended, because XDP may stand in for listeners.
const RECORDED_WITH_RESPONDER: [(&str, u32); 3] = [
    ("nomail", 38_757),
    ("nomail_clock", 2),
    ("nomail_responder", 33_055),
];

#[test]
fn the_programs_cost_the_verifier_what_they_did() {
    let guard = Guard::load(&HashSet::from([25])).unwrap();
    check(&guard, &RECORDED);
}

#[test]
fn with_the_responder_too() {
    let guard = Guard::load_responder(&HashSet::from([25])).unwrap();
    check(&guard, &RECORDED_WITH_RESPONDER);
}

/// On each kernel of the tiers bpf and vm: what takes the program is not said to lack
/// anything.
#[test]
fn a_kernel_that_takes_the_programs_lacks_nothing() {
    Guard::load_responder(&HashSet::from([25])).unwrap();
    assert_eq!(missing_features(), "");
}

fn check(guard: &Guard, recorded: &[(&str, u32)]) {
    let verified = guard.verified_instructions();
    println!("{verified:?}, recorded: {recorded:?}");
    assert_eq!(verified.len(), recorded.len());
    for (&(name, verified), (recorded_name, recorded)) in verified.iter().zip(recorded) {
        assert_eq!(name, *recorded_name);
        assert!(
            verified <= recorded + recorded / 10,
            "{name}: {verified} instructions, recorded were {recorded}"
        );
    }
}
