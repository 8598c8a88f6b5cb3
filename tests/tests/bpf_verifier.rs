//! What the programs cost the verifier: a program that it takes today may grow
//! over its bound of a million instructions, or take it seconds to load.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::collections::HashSet;

use nomail_agent::bpf::Guard;

/// Instructions that the verifier walked through (`bpftool prog show` calls them
/// `verified_insns`), on Linux 6.18. When a change needs more than a tenth more,
/// look why; if it is worth it, write down here what this test prints.
const RECORDED: [(&str, u32); 2] = [("nomail", 143_836), ("nomail_clock", 2)];

#[test]
fn the_programs_cost_the_verifier_what_they_did() {
    let mut guard = Guard::load(&HashSet::from([25])).unwrap();
    let verified = guard.verified_instructions().unwrap();
    println!("{verified:?}, recorded: {RECORDED:?}");
    assert_eq!(verified.len(), RECORDED.len());
    for ((name, verified), (recorded_name, recorded)) in verified.into_iter().zip(RECORDED) {
        assert_eq!(name, recorded_name);
        assert!(
            verified <= recorded + recorded / 10,
            "{name}: {verified} instructions, recorded were {recorded}"
        );
    }
}
