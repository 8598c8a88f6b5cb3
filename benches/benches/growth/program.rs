//! The XDP program in test runs: what the parts that call it have in common.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use nomail_agent::guard::{Guard, GuardedInterface, Policy, Rate};
use nomail_common::{guard::policy::FloodAnswer, verdict::Verdict};
use nomail_tests::{foreign::Program, generator::Syns};

/// A test run claims to come from the loopback interface.
const LOOPBACK_INDEX: u32 = 1;
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// More than anybody sends.
pub(crate) const NO_BOUND: Rate = Rate {
    rate: 1_000_000,
    burst: 100_000_000,
};

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
        prefix: None,
        cap: Some(cap),
        flood_answer: FloodAnswer::Challenge,
        answerable: HashSet::from([HOST.into()]),
        own: HashSet::new(),
        lists: Arc::default(),
        responder: None,
        fallback: false,
        observe: false,
        interfaces: vec![GuardedInterface {
            index: LOOPBACK_INDEX,
            hardware: [2, 0, 0, 0, 0, 2],
            ..GuardedInterface::default()
        }],
        guarded: HashSet::from([(HOST.into(), 25)]),
    }
}

/// A guard of the host, attached nowhere, and its program.
pub(crate) fn guard(policy: &Policy) -> (Guard, Program) {
    let mut guard = Guard::load(&HashSet::from([25])).unwrap();
    guard.configure(policy).unwrap();
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
