//! The XDP program in test runs: what the parts that call it have in common.

use std::net::{IpAddr, Ipv4Addr};

use nomail_agent::guard::{Guard, Policy, Rate};
pub(crate) use nomail_benches::program::NO_BOUND;
use nomail_common::verdict::Verdict;
use nomail_tests::{foreign::Program, generator::Syns};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Strangers of which no more than the first few may pass.
pub(crate) const CHALLENGING: Rate = Rate { rate: 1, burst: 1 };

/// SYNs of 2^`bits` sources, from ports at random.
pub(crate) const fn syns(bits: u32) -> Syns {
    Syns {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
        source_mask: (1 << bits) - 1,
        port: 1024,
        port_mask: 0x3fff,
        repeated: false,
        destination: IpAddr::V4(HOST),
    }
}

/// No source is ever over its bucket.
pub(crate) fn policy(cap: Rate) -> Policy {
    Policy {
        source: NO_BOUND,
        ..nomail_benches::program::policy(cap)
    }
}

/// A guard of the host, attached nowhere, and its program.
pub(crate) fn guard(policy: &Policy) -> (Guard, Program) {
    let mut guard = nomail_tests::program::guard(policy);
    let program = Program::of_id(guard.program_id().unwrap());
    (guard, program)
}

/// All but one in a hundred of the SYNs had this verdict, and there were some.
pub(crate) fn all_are(guard: &Guard, verdict: Verdict) {
    let verdicts = guard.counters(Some(0)).unwrap().verdicts;
    let all: u64 = verdicts.iter().sum();
    let right = verdicts[verdict as usize];
    assert!(
        all > 0 && right * 100 >= all * 99,
        "{right} of {all} are {verdict:?}"
    );
}
