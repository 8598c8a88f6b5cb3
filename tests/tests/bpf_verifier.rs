//! What the programs cost the verifier: a program that it takes today may grow
//! over its bound of a million instructions, or take it seconds to load.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{collections::HashSet, fs};

use nomail_agent::guard::{Guard, missing_features};
use nomail_tests::record::{Record, Row};

/// Instructions that the verifier walked through (`bpftool prog show` calls them
/// `verified_insns`).
const VERIFIED: Record = Record {
    file: "tests/tests/bpf_verifier.txt",
    text: include_str!("bpf_verifier.txt"),
    command: "cargo xtask test bpf -- the_programs_cost_the_verifier_what_is_recorded",
};

/// The most that another kernel than the recorded one, or one that a development object is
/// for, may walk through: a quarter of what it gives up at. Older ones forget less: Linux 6.1 walks 110,175 and 139,248.
const ELSEWHERE_MAX: u64 = 250_000;

/// Where the responder answers, a SYN is looked at with the lease held and with it ended,
/// because XDP may stand in for listeners. A development object has no record.
#[test]
fn the_programs_cost_the_verifier_what_is_recorded() {
    let rows = |guard: Guard, with: &str| {
        let verified = guard.verified_instructions().iter();
        let row = |&(name, count): &(&str, u32)| (format!("{name}{with}"), vec![count.into()]);
        verified.map(row).collect::<Vec<Row>>()
    };
    let ports = HashSet::from([25]);
    let mut all = rows(Guard::load(&ports).unwrap(), "");
    all.extend(rows(
        Guard::load_responder(&ports).unwrap(),
        " where the responder answers",
    ));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<_> = release.split('.').take(2).collect();
    let kernel = format!("Linux {}", version.join("."));
    let records = std::env::var_os("NOMAIL_GOLDEN_WRITE").is_some();
    if records || kernel == VERIFIED.maker() && cfg!(not(feature = "trace")) {
        VERIFIED.check(&kernel, &["verified instructions"], &all);
    } else {
        println!("{kernel}: {all:?}");
        assert!(
            all.iter().all(|(_, counts)| counts[0] <= ELSEWHERE_MAX),
            "{all:?}"
        );
    }
}

/// On each kernel of the tiers bpf and vm: what takes the program is not said to lack
/// anything.
#[test]
fn a_kernel_that_takes_the_programs_lacks_nothing() {
    Guard::load_responder(&HashSet::from([25])).unwrap();
    assert_eq!(missing_features(), "");
}
