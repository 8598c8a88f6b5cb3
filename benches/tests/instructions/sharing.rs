//! The cache lines that two CPUs write at once: those that frames of two strangers both write.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nomail_agent::guard::{Policy, Rate};
use nomail_common::{
    abi::{self, CAP, RESETS},
    guard::{policy::FloodAnswer, tickets::ALL_RESETS_BURST},
    verdict::Verdict::{Flood, LimitedPrefix, Malformed},
};
use nomail_tests::{
    frames::{ACK, FIN, RST, SYN, Segment},
    program::reset_for,
};

use crate::paths::{
    ADMITTED, FLOODED, InterpretedGuard, Outcome, PROVEN, Paths, UNTOUCHED, challenged, dropped,
    flagged, full,
};

/// A line of 64 bytes in the values of a map.
type Line = (String, u64);

/// A kind of frame, and what comes of it.
struct Case {
    name: &'static str,
    change: fn(&mut Policy),
    /// What came before, with a SYN of somebody else.
    before: fn(&mut InterpretedGuard<'_>, Segment),
    /// The frame of a stranger.
    frame: fn(&mut InterpretedGuard<'_>, Segment) -> Vec<u8>,
    outcome: Outcome,
    /// The lines that CPUs may write at once.
    allowed: &'static [(&'static str, u32)],
}

const FLOOD: Case = Case {
    name: "SYN challenged, no proof alive",
    change: |policy| policy.cap = FLOODED,
    before: |guard, syn| guard.admit(&full(syn)),
    frame: |_, syn| full(syn),
    outcome: challenged(Flood),
    allowed: &[],
};

const PEACE: Case = Case {
    name: "SYN passes",
    change: |_| {},
    outcome: ADMITTED,
    // No more often than the listener takes SYNs: not once the cap is exhausted.
    allowed: &[(abi::SHARED_MAP, CAP)],
    ..FLOOD
};

const WRONG_RESET: Case = Case {
    name: "RST that proves nothing",
    frame: |_, syn| full(flagged(syn, RST)),
    outcome: UNTOUCHED,
    // No more often than RSTs are taken for honest ones.
    allowed: &[(abi::SHARED_MAP, RESETS)],
    ..PEACE
};

const CASES: [Case; 13] = [
    PEACE,
    Case {
        name: "SYN passes, prefix limited",
        change: |policy| policy.prefix = Some(Rate { rate: 1, burst: 2 }),
        ..PEACE
    },
    FLOOD,
    Case {
        name: "SYN challenged, proofs alive",
        before: |guard, syn| {
            guard.admit(&full(syn));
            guard.prove(syn, Flood);
        },
        ..FLOOD
    },
    Case {
        name: "SYN over the cap, dropped",
        change: |policy| {
            policy.cap = FLOODED;
            policy.flood_answer = FloodAnswer::Drop;
        },
        outcome: dropped(Flood),
        ..FLOOD
    },
    Case {
        name: "SYN over its prefix's bucket",
        change: |policy| {
            policy.cap = FLOODED;
            policy.prefix = Some(Rate { rate: 1, burst: 1 });
        },
        before: |guard, syn| {
            guard.admit(&full(syn));
            // The prefix of each stranger is over its bucket.
            for stranger in strangers(syn) {
                guard.run("a SYN before", &full(stranger), challenged(Flood));
            }
        },
        outcome: challenged(LimitedPrefix),
        ..FLOOD
    },
    Case {
        name: "RST that proves",
        frame: |guard, syn| {
            let (challenge, _) = guard.run("a challenge before", &full(syn), challenged(Flood));
            reset_for(syn, &challenge)
        },
        outcome: PROVEN,
        ..FLOOD
    },
    Case {
        name: "SYN proven",
        frame: |guard, syn| {
            guard.prove(syn, Flood);
            full(syn)
        },
        outcome: ADMITTED,
        ..FLOOD
    },
    Case {
        name: "malformed SYN",
        frame: |_, syn| full(flagged(syn, SYN | FIN)),
        outcome: dropped(Malformed),
        ..FLOOD
    },
    Case {
        name: "RST that proves nothing, in a flood",
        change: FLOOD.change,
        ..WRONG_RESET
    },
    WRONG_RESET,
    Case {
        name: "RST that proves nothing, of too many",
        change: FLOOD.change,
        before: |guard, syn| {
            for port in 0..=2 * ALL_RESETS_BURST {
                let mut wrong = flagged(syn, RST);
                // From a source of its own.
                wrong.source = match syn.source {
                    SocketAddr::V4(_) => (Ipv4Addr::from_bits(0x0a00_0000 + port), 1).into(),
                    SocketAddr::V6(_) => {
                        let [high, low] = [(port >> 16) as u16, port as u16];
                        (Ipv6Addr::new(0x2001, 0xdb9, high, low, 0, 0, 0, 1), 1).into()
                    }
                };
                guard.run("a RST before", &wrong.frame(), UNTOUCHED);
            }
        },
        allowed: &[],
        ..WRONG_RESET
    },
    Case {
        name: "ACK",
        frame: |_, syn| full(flagged(syn, ACK)),
        outcome: UNTOUCHED,
        allowed: &[],
        ..PEACE
    },
];

/// Two hosts that were not here before, of the family of a SYN.
fn strangers(syn: Segment) -> [Segment; 2] {
    let sources = if syn.source.is_ipv4() {
        ["203.0.113.9:40000", "192.0.2.200:41000"]
    } else {
        ["[2001:db8:7::1]:40000", "[2001:db8:8::1]:41000"]
    };
    sources.map(|source| Segment {
        source: source.parse().unwrap(),
        ..syn
    })
}

/// Checks what two CPUs write at once on each path.
pub(crate) fn check(object: &[u8]) {
    for mut paths in Paths::of_families(object) {
        let (family, syn) = (paths.family, paths.syn);
        for case in CASES {
            let name = format!("{family} {}", case.name);
            let mut guard = paths.guard(case.change);
            (case.before)(&mut guard, syn);
            let written = strangers(syn).map(|stranger| {
                let frame = (case.frame)(&mut guard, stranger);
                let (_, cost) = guard.run(&name, &frame, case.outcome);
                guard.named(&cost.shared_lines)
            });
            let both: BTreeSet<Line> = &written[0] & &written[1];
            let allowed = case.allowed.iter();
            let allowed = allowed.map(|&(map, line)| (map.to_owned(), line.into()));
            assert_eq!(both, allowed.collect(), "{name}, of {written:?}");
        }
    }
}
