//! The verdicts of the loaded program, by BPF_PROG_TEST_RUN.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::collections::HashSet;

use nomail_agent::guard::{Guard, Policy, Rate};
use nomail_common::{counted::Counted as _, guard::policy::FloodAnswer, verdict::Verdict};
use nomail_tests::{
    frames::{ACK, ETHERNET_LENGTH, SYN, Segment},
    program::{XDP_DROP, XDP_PASS, guard, guarding, ipv4, ipv6},
};

fn policy() -> Policy {
    Policy {
        source: Rate { rate: 1, burst: 5 },
        flood_answer: FloodAnswer::Drop,
        ..guarding(&["192.0.2.7:25", "[2001:db8::7]:25", "192.0.2.7:587"])
    }
}

/// The action for one frame, and what it added to the counters.
fn run(guard: &mut Guard, frame: &[u8]) -> (u32, Vec<Verdict>) {
    let before = guard.counters(Some(0)).unwrap().verdicts;
    let (action, _) = guard.test_run(frame, 1).unwrap();
    let after = guard.counters(Some(0)).unwrap().verdicts;
    let mut counted = Vec::new();
    for &verdict in Verdict::ALL {
        let times = after[verdict as usize] - before[verdict as usize];
        counted.extend((0..times).map(|_| verdict));
    }
    (action, counted)
}

#[test]
fn syns_for_guarded_pairs_are_counted() {
    let mut guard = guard(&policy());
    for segment in [ipv4(), ipv6()] {
        for vlan_tags in 0..=2 {
            let frame = Segment {
                vlan_tags,
                ..segment
            }
            .frame();
            let passed = (XDP_PASS, vec![Verdict::Passed]);
            assert_eq!(
                run(&mut guard, &frame),
                passed,
                "{segment:?}, {vlan_tags} tags"
            );
        }
    }
    let other_port = Segment::syn("198.51.100.9:1", "192.0.2.7:587").frame();
    assert_eq!(
        run(&mut guard, &other_port),
        (XDP_PASS, vec![Verdict::Passed])
    );
    // Options that an honest SYN carries: ECN and congestion window reduced.
    let ecn = Segment {
        flags: SYN | 0xc0,
        ..ipv4()
    }
    .frame();
    assert_eq!(run(&mut guard, &ecn), (XDP_PASS, vec![Verdict::Passed]));
}

#[test]
fn all_else_passes_uncounted() {
    let mut guard = guard(&policy());
    let mut udp = ipv4().frame();
    udp[ETHERNET_LENGTH + 9] = 17;
    let mut arp = ipv4().frame();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut later_fragment = ipv4().frame();
    later_fragment[ETHERNET_LENGTH + 7] = 1;
    let mut triple_tagged = Segment {
        vlan_tags: 2,
        ..ipv4()
    }
    .frame();
    triple_tagged.splice(12..12, [0x81, 0, 0, 1]);
    let mut mapped = ipv6().frame();
    let mapped_destination: [u8; 16] = "::ffff:192.0.2.7"
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets();
    mapped[ETHERNET_LENGTH + 24..ETHERNET_LENGTH + 40].copy_from_slice(&mapped_destination);
    let frames = [
        (
            "a segment of a connection",
            Segment {
                flags: ACK,
                ..ipv4()
            }
            .frame(),
        ),
        (
            "a SYN-ACK",
            Segment {
                flags: SYN | ACK,
                ..ipv4()
            }
            .frame(),
        ),
        (
            "another port",
            Segment::syn("198.51.100.1:1", "192.0.2.7:80").frame(),
        ),
        (
            "another address",
            Segment::syn("198.51.100.1:1", "192.0.2.8:25").frame(),
        ),
        (
            "a port guarded elsewhere",
            Segment::syn("[2001:db8:1::1]:1", "[2001:db8::7]:587").frame(),
        ),
        (
            "outbound mail's answer",
            Segment {
                flags: SYN | ACK,
                ..Segment::syn("198.51.100.1:25", "192.0.2.7:40000")
            }
            .frame(),
        ),
        ("UDP", udp),
        ("ARP", arp),
        ("a later fragment", later_fragment),
        ("three VLAN tags", triple_tagged),
        ("an IPv4-mapped destination on the wire", mapped),
    ];
    for (name, frame) in frames {
        assert_eq!(run(&mut guard, &frame), (XDP_PASS, vec![]), "{name}");
    }
    assert_eq!(guard.sources().unwrap(), []);
}

#[test]
fn malformed_is_dropped_and_charges_nobody() {
    let mut guard = guard(&policy());
    let mut short_header = ipv4().frame();
    short_header[ETHERNET_LENGTH + 20 + 12] = 0x40;
    let mut long_header = ipv4().frame();
    long_header[ETHERNET_LENGTH + 20 + 12] = 0xf0;
    let mut first_fragment = ipv4().frame();
    first_fragment[ETHERNET_LENGTH + 6] = 0x20;
    let mut fragment6 = ipv6().frame();
    fragment6[ETHERNET_LENGTH + 6] = 44;
    fragment6.splice(
        ETHERNET_LENGTH + 40..ETHERNET_LENGTH + 40,
        [6, 0, 0, 1, 0, 0, 0, 9],
    );
    fragment6[ETHERNET_LENGTH + 5] += 8;
    let frames = [
        (
            "SYN and FIN",
            Segment {
                flags: SYN | 1,
                ..ipv4()
            }
            .frame(),
        ),
        (
            "SYN and RST",
            Segment {
                flags: SYN | 4,
                ..ipv6()
            }
            .frame(),
        ),
        ("a header shorter than TCP's", short_header),
        ("a header beyond the packet", long_header),
        ("a first fragment", first_fragment),
        ("a first fragment of IPv6", fragment6),
    ];
    for (name, frame) in frames {
        assert_eq!(
            run(&mut guard, &frame),
            (XDP_DROP, vec![Verdict::Malformed]),
            "{name}"
        );
    }
    assert_eq!(guard.sources().unwrap(), []);
}

#[test]
fn extension_headers_and_options_are_looked_through() {
    let mut guard = guard(&policy());
    let mut hop_by_hop = ipv6().frame();
    hop_by_hop[ETHERNET_LENGTH + 6] = 0;
    hop_by_hop.splice(
        ETHERNET_LENGTH + 40..ETHERNET_LENGTH + 40,
        [6, 0, 1, 4, 0, 0, 0, 0],
    );
    hop_by_hop[ETHERNET_LENGTH + 5] += 8;
    assert_eq!(
        run(&mut guard, &hop_by_hop),
        (XDP_PASS, vec![Verdict::Passed])
    );

    let mut chain = ipv6().frame();
    chain[ETHERNET_LENGTH + 6] = 60;
    for header in 0..7u8 {
        let next = if header == 0 { 6 } else { 60 };
        chain.splice(
            ETHERNET_LENGTH + 40..ETHERNET_LENGTH + 40,
            [next, 0, 1, 4, 0, 0, 0, 0],
        );
        chain[ETHERNET_LENGTH + 5] += 8;
    }
    assert_eq!(
        run(&mut guard, &chain),
        (XDP_PASS, vec![]),
        "over the bound: uncounted"
    );

    let mut options = ipv4().frame();
    options[ETHERNET_LENGTH] = 0x46;
    options[ETHERNET_LENGTH + 3] += 4;
    options.splice(ETHERNET_LENGTH + 20..ETHERNET_LENGTH + 20, [1, 1, 1, 0]);
    assert_eq!(run(&mut guard, &options), (XDP_PASS, vec![Verdict::Passed]));
}

#[test]
fn every_truncation_passes_uncounted() {
    let mut guard = guard(&policy());
    for segment in [ipv4(), ipv6()] {
        let frame = segment.frame();
        for length in ETHERNET_LENGTH..frame.len() {
            assert_eq!(
                run(&mut guard, &frame[..length]),
                (XDP_PASS, vec![]),
                "{length}"
            );
        }
    }
}

#[test]
fn a_source_over_its_bucket_is_dropped_and_no_other() {
    let mut guard = guard(&policy());
    let frame = ipv4().frame();
    let verdicts: Vec<_> = (0..100).map(|_| run(&mut guard, &frame).1[0]).collect();
    let passed = verdicts
        .iter()
        .filter(|&&verdict| verdict == Verdict::Passed)
        .count();
    assert!(
        (5..=7).contains(&passed),
        "{passed} passed of a burst of 5 at 1 per second"
    );
    assert!(verdicts[5..].contains(&Verdict::LimitedSource));

    let other = Segment::syn("198.51.100.2:1", "192.0.2.7:25").frame();
    assert_eq!(run(&mut guard, &other), (XDP_PASS, vec![Verdict::Passed]));

    // One /64 is one source, its neighbour another.
    for host in 1..=5 {
        let frame = Segment::syn(&format!("[2001:db8:1::{host}]:1"), "[2001:db8::7]:25").frame();
        assert_eq!(run(&mut guard, &frame).1, [Verdict::Passed]);
    }
    assert_eq!(
        run(&mut guard, &ipv6().frame()),
        (XDP_DROP, vec![Verdict::LimitedSource])
    );
    let neighbour = Segment::syn("[2001:db8:2::1]:1", "[2001:db8::7]:25").frame();
    assert_eq!(
        run(&mut guard, &neighbour),
        (XDP_PASS, vec![Verdict::Passed])
    );

    let sources = guard.sources().unwrap();
    let flooder = sources
        .iter()
        .find(|source| source.address.to_string() == "198.51.100.1")
        .unwrap();
    assert_eq!((flooder.syn, flooder.limited), (100, 100 - passed as u64));
    assert_eq!(sources.len(), 4);
}

#[test]
fn counts_beyond_a_carry_are_exact() {
    let guard = guard(&policy());
    guard.test_run(&ipv4().frame(), 100_000).unwrap();
    let counters = guard.counters(Some(0)).unwrap();
    assert_eq!(counters.verdicts.iter().sum::<u64>(), 100_000);
    let sources = guard.sources().unwrap();
    assert_eq!(sources[0].syn, 100_000);
    assert_eq!(
        sources[0].limited,
        counters.verdicts[Verdict::LimitedSource as usize]
    );
    assert!(sources[0].last_seen.as_secs() <= 5);
}

#[test]
fn observe_counts_and_drops_nothing() {
    let mut guard = guard(&Policy {
        observe: true,
        ..policy()
    });
    let frame = ipv4().frame();
    for _ in 0..50 {
        assert_eq!(run(&mut guard, &frame).0, XDP_PASS);
    }
    let counters = guard.counters(Some(0)).unwrap().verdicts;
    assert!(counters[Verdict::LimitedSource as usize] >= 40);
    let malformed = Segment {
        flags: SYN | 1,
        ..ipv4()
    }
    .frame();
    assert_eq!(
        run(&mut guard, &malformed),
        (XDP_PASS, vec![Verdict::Malformed])
    );
}

#[test]
fn a_new_policy_replaces_the_old_one_whole() {
    let mut guard = guard(&policy());
    let frame = ipv4().frame();
    let limited = (0..20)
        .filter(|_| run(&mut guard, &frame).0 == XDP_DROP)
        .count();
    assert!(limited >= 13);

    let refused = Policy {
        source: Rate { rate: 0, burst: 5 },
        guarded: HashSet::new(),
        ..policy()
    };
    assert!(guard.configure(&refused).is_err());
    assert_eq!(run(&mut guard, &frame).0, XDP_DROP, "the old policy stays");

    guard
        .configure(&Policy {
            guarded: HashSet::new(),
            ..policy()
        })
        .unwrap();
    assert_eq!(run(&mut guard, &frame), (XDP_PASS, vec![]));
    guard
        .configure(&Policy {
            source: Rate {
                rate: 10_000,
                burst: 10_000,
            },
            ..policy()
        })
        .unwrap();
    assert_eq!(run(&mut guard, &frame), (XDP_PASS, vec![Verdict::Passed]));
}
