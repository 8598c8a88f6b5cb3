//! The challenge of the loaded program, by BPF_PROG_TEST_RUN.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{sync::Arc, time::Instant};

use etherparse::{NetHeaders, PacketHeaders};
use nomail_agent::guard::{Guard, Lists, Policy, Rate};
use nomail_common::{
    abi::{LINES_OF_SOURCE, TICKETS_PER_LINE},
    guard::policy::FloodAnswer,
    guard::tickets::{RESETS_BURST, TICKET_SYNS},
    verdict::{Answer, Verdict},
};
use nomail_tests::{
    frames::{ETHERNET_LENGTH, RST, Segment},
    lab::Lab,
    poll::until,
    program::{
        self, CLIENT_HARDWARE, HOST_HARDWARE, TIGHT, XDP_DROP, XDP_PASS, XDP_TX, answers,
        from_port, ipv4, ipv6, prove, reset_for, run, tcp, verdicts,
    },
};

/// Nothing unproven passes after the first SYN.
fn policy() -> Policy {
    Policy {
        source: Rate {
            rate: 1,
            burst: 1000,
        },
        cap: Some(TIGHT),
        ..program::policy()
    }
}

/// A program whose cap is used up.
fn guard(policy: &Policy) -> Guard {
    let guard = program::guard(policy);
    let first = Segment::syn("198.18.0.99:1", "192.0.2.7:25").frame();
    assert_eq!(run(&guard, &first), XDP_PASS);
    guard
}

#[test]
fn a_challenge_is_right_in_every_field() {
    let mut guard = guard(&policy());
    for segment in [ipv4(), ipv6()] {
        for padding in [0, 6, 40] {
            let mut frame = segment.frame();
            frame.extend(vec![0xaa; padding]);
            let (action, answer) = guard.test_answer(&frame).unwrap();
            assert_eq!(action, XDP_TX);
            let packet = PacketHeaders::from_ethernet_slice(&answer).unwrap();
            let link = packet.link.unwrap().ethernet2().unwrap();
            assert_eq!(
                (link.source, link.destination),
                (HOST_HARDWARE, CLIENT_HARDWARE)
            );
            let tcp = tcp(&answer);
            let checksum = match packet.net.unwrap() {
                NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    assert_eq!(ip.destination, [198, 51, 100, 1]);
                    tcp.calc_checksum_ipv4(&ip, &[]).unwrap()
                }
                NetHeaders::Ipv6(ip, _) => {
                    assert_eq!(ip.destination_addr().to_string(), "2001:db8:1::1");
                    tcp.calc_checksum_ipv6(&ip, &[]).unwrap()
                }
                NetHeaders::Arp(_) => panic!("an ARP"),
            };
            assert_eq!(tcp.checksum, checksum);
            assert_eq!((tcp.source_port, tcp.destination_port), (25, 40_000));
            assert!(tcp.syn && tcp.ack && !tcp.rst);
            let behind = segment.sequence.wrapping_sub(tcp.acknowledgment_number);
            assert!(behind < 0x1_0000, "{behind}");
            assert!(answer.len() <= frame.len());
            assert!(packet.payload.slice().is_empty());
        }
    }
    assert_eq!(answers(&guard, Answer::Challenge), 6);
    assert_eq!(verdicts(&guard, Verdict::Flood), 6);
}

/// Also of a jumbo frame, whose end is in fragments.
#[test]
fn nothing_but_padding_follows_an_answer() {
    let mut guard = program::guard(&Policy {
        source: program::TIGHT,
        ..program::policy()
    });
    for segment in [program::ipv4(), program::ipv6()] {
        // Its source is over the limit from then on.
        run(&guard, &segment.frame());
        let headers = segment.frame().len();
        for payload in [0, 64, 65, 1400, 4000, 8900] {
            let frame = segment.frame_with(0, &[], &vec![0xab; payload]);
            let (action, answer) = guard.test_answer(&frame).unwrap();
            assert_eq!(action, XDP_TX, "{payload} bytes");
            let padding = answer.len() - headers;
            assert!(
                padding <= 64 && padding <= payload,
                "{padding} of {payload} bytes"
            );
        }
    }
}

#[test]
fn the_reset_proves_the_tuple_and_its_next_syn_passes() {
    let mut guard = guard(&policy());
    for segment in [ipv4(), ipv6()] {
        let frame = segment.frame();
        let (action, answer) = guard.test_answer(&frame).unwrap();
        assert_eq!(action, XDP_TX);
        let wrong = Segment {
            flags: RST,
            sequence: 4711 << 16,
            ..segment
        };
        assert_eq!(run(&guard, &wrong.frame()), XDP_PASS);
        assert_eq!(run(&guard, &frame), XDP_TX, "still unproven");
        let proven = answers(&guard, Answer::Proven);
        let reset = reset_for(segment, &answer);
        assert_eq!(run(&guard, &reset), XDP_DROP);
        assert_eq!(answers(&guard, Answer::Proven), proven + 1);
        assert_eq!(run(&guard, &frame), XDP_PASS);
        // It speaks for no other tuple, and for no other sequence number.
        let other_port = from_port(segment, 40_001);
        assert_eq!(run(&guard, &other_port.frame()), XDP_TX);
        let other_sequence = Segment {
            sequence: segment.sequence.wrapping_add(0x5_0000),
            ..segment
        };
        assert_eq!(run(&guard, &other_sequence.frame()), XDP_TX);
    }
}

#[test]
fn over_its_bucket_the_proven_is_dropped_and_the_unproven_challenged() {
    let mut guard = guard(&Policy {
        source: Rate { rate: 1, burst: 2 },
        cap: Some(Rate { rate: 1, burst: 9 }),
        ..policy()
    });
    let frame = ipv4().frame();
    for n in 0..10 {
        let action = if n < 2 { XDP_PASS } else { XDP_TX };
        assert_eq!(run(&guard, &frame), action);
    }
    assert_eq!(verdicts(&guard, Verdict::LimitedSource), 8);
    let (_, answer) = guard.test_answer(&frame).unwrap();
    let reset = reset_for(ipv4(), &answer);
    assert_eq!(run(&guard, &reset), XDP_DROP);
    // What was forged in its name has not emptied the bucket of its tickets, of which each
    // charges one SYN.
    for port in [40_001, 40_002] {
        prove(&mut guard, from_port(ipv4(), port));
    }
    for (port, action) in [(40_000, XDP_PASS), (40_001, XDP_PASS), (40_002, XDP_DROP)] {
        let frame = from_port(ipv4(), port).frame();
        assert_eq!(run(&guard, &frame), action, "{port}");
    }
    assert_eq!(answers(&guard, Answer::UnanswerableDropped), 0);
}

/// Exact replay: 80 times the same SYN, whose victim's kernel answers the challenge.
#[test]
fn a_ticket_admits_a_first_syn_and_its_retransmissions_and_charges_once() {
    for segment in [ipv4(), ipv6()] {
        let mut guard = guard(&Policy {
            source: Rate { rate: 1, burst: 2 },
            cap: Some(TIGHT),
            ..policy()
        });
        let before = verdicts(&guard, Verdict::Passed);
        prove(&mut guard, segment);
        let actions: Vec<_> = (0..80).map(|_| run(&guard, &segment.frame())).collect();
        let admitted = TICKET_SYNS as usize;
        assert!(actions[..admitted].iter().all(|&action| action == XDP_PASS));
        assert!(actions[admitted..].iter().all(|&action| action == XDP_DROP));
        let replayed = verdicts(&guard, Verdict::Replayed);
        assert_eq!(replayed, 80 - u64::from(TICKET_SYNS));
        let passed = verdicts(&guard, Verdict::Passed) - before;
        assert_eq!(passed, u64::from(TICKET_SYNS));
        assert_eq!(verdicts(&guard, Verdict::LimitedSource), 0);
        // It has charged one of two: the next connection of the source is served.
        let next = from_port(segment, 40_001);
        prove(&mut guard, next);
        assert_eq!(run(&guard, &next.frame()), XDP_PASS);
    }
}

/// 65,536 RSTs for a chosen tuple, twice: one round for each number there is.
#[test]
fn trying_all_proofs_gives_hardly_a_ticket() {
    let guard = guard(&policy());
    let mut proven = 0;
    for port in 1..=4 {
        let segment = from_port(ipv4(), port);
        for number in 0..=0xffff {
            let reset = Segment {
                flags: RST,
                sequence: segment.sequence & 0xffff_0000 | number,
                ..segment
            };
            guard.test_run(&reset.frame(), 1).unwrap();
        }
        // The cap has room for the first one.
        guard.test_run(&segment.frame(), 1).unwrap();
        let action = run(&guard, &segment.frame());
        proven += u32::from(action != XDP_TX);
    }
    // Among the 1,024 of each source before the limit, and the 512 a second after that,
    // there is one in 10 runs, or without the limit four in each.
    assert!(proven <= 2, "{proven}");
    assert!(answers(&guard, Answer::Proven) <= 2);
}

#[test]
fn beyond_the_limit_of_wrong_answers_a_client_answers_twice() {
    let mut guard = guard(&policy());
    let exhaust = |guard: &Guard| {
        for sequence in 0..RESETS_BURST * 2 {
            let reset = Segment {
                flags: RST,
                sequence,
                ..from_port(ipv4(), 9)
            };
            guard.test_run(&reset.frame(), 1).unwrap();
        }
    };
    let answered = |guard: &mut Guard, segment: Segment| {
        let (action, answer) = guard.test_answer(&segment.frame()).unwrap();
        let reset = (action == XDP_TX).then(|| reset_for(segment, &answer))?;
        // The limit has room again after 2 ms.
        exhaust(guard);
        assert_eq!(run(guard, &reset), XDP_DROP);
        Some(reset)
    };
    let mut port = 40_000;
    until("a client answers twice", || {
        port += 1;
        let segment = from_port(ipv4(), port);
        // Each may pass: the cap has room for one a second, and a ticket is there after the
        // first answer if there was room for it.
        let numbers = [
            answered(&mut guard, segment)?,
            answered(&mut guard, segment)?,
        ];
        assert_ne!(numbers[0], numbers[1]);
        assert_eq!(run(&guard, &segment.frame()), XDP_PASS);
        Some(())
    });
    // Other sources are asked once.
    let other = Segment::syn("198.51.100.200:40000", "192.0.2.7:25");
    let reset = until("it is challenged", || {
        let (action, answer) = guard.test_answer(&other.frame()).unwrap();
        (action == XDP_TX).then(|| reset_for(other, &answer))
    });
    assert_eq!(run(&guard, &reset), XDP_DROP);
    assert_eq!(run(&guard, &other.frame()), XDP_PASS);
}

/// No SYN from there is challenged: XDP never answers a port of ours, nor port 0.
#[test]
fn a_reset_from_a_port_that_is_never_challenged_is_not_charged() {
    let (lab, mut guard) = (Lab::new(), guard(&policy()));
    // Faster than a limit has room again.
    lab.attach(&mut guard);
    for port in [0, 25] {
        let forged = from_port(ipv4(), port);
        let challenges = answers(&guard, Answer::Challenge);
        guard.test_run(&forged.frame(), 2).unwrap();
        assert_eq!(answers(&guard, Answer::Challenge), challenges, "{port}");
        let wrong = Segment {
            flags: RST,
            sequence: 77,
            ..forged
        };
        let before = answers(&guard, Answer::Proven);
        let mut challenged = 0;
        for client in 0..20 {
            let segment = from_port(ipv4(), 40_000 + port + client);
            let (action, answer) = guard.test_answer(&segment.frame()).unwrap();
            // One a second passes.
            if action == XDP_TX {
                challenged += 1;
                guard.test_run(&wrong.frame(), RESETS_BURST * 2).unwrap();
                run(&guard, &reset_for(segment, &answer));
            }
        }
        assert!(challenged > 10, "{challenged}");
        assert_eq!(
            answers(&guard, Answer::Proven),
            before + challenged,
            "{port}"
        );
    }
}

/// One address that proves a tuple after the other does not turn the table over.
#[test]
fn a_source_has_so_many_tickets_at_a_time() {
    let mut guard = guard(&policy());
    let honest = Segment::syn("198.51.100.77:40000", "192.0.2.7:25");
    prove(&mut guard, honest);
    let proven = answers(&guard, Answer::Proven);
    for port in 1001..=5000 {
        let segment = from_port(ipv4(), port);
        // The cap has room for one a second, which is not asked.
        until("it is challenged", || {
            let (action, answer) = guard.test_answer(&segment.frame()).unwrap();
            let reset = (action == XDP_TX).then(|| reset_for(segment, &answer))?;
            guard.test_run(&reset, 1).ok()
        });
    }
    assert_eq!(answers(&guard, Answer::Proven), proven + 4000);
    let began = Instant::now();
    let live = (1001..=5000)
        .filter(|&port| {
            let frame = from_port(ipv4(), port).frame();
            // Passed, or dropped for being over the bucket of tickets.
            run(&guard, &frame) != XDP_TX
        })
        .count();
    let by_cap = began.elapsed().as_secs() as usize + 1;
    let most = TICKETS_PER_LINE * LINES_OF_SOURCE;
    // The newest fill its lines.
    let all = most * 9 / 10..=most + by_cap;
    assert!(all.contains(&live), "{live}");
    assert_eq!(run(&guard, &honest.frame()), XDP_PASS);
}

/// The victim of a forged SYN resets what that opens: the same SYN, sent again, opens
/// nothing more, and charges the victim no more.
#[test]
fn a_reset_of_what_was_opened_spends_the_ticket() {
    for segment in [ipv4(), ipv6()] {
        let mut guard = guard(&Policy {
            source: Rate { rate: 1, burst: 2 },
            cap: Some(TIGHT),
            ..policy()
        });
        prove(&mut guard, segment);
        let frame = segment.frame();
        assert_eq!(run(&guard, &frame), XDP_PASS);
        let reset = Segment {
            flags: RST,
            sequence: segment.sequence.wrapping_add(1),
            ..segment
        };
        for _ in 0..40 {
            assert_eq!(run(&guard, &reset.frame()), XDP_PASS);
            assert_eq!(run(&guard, &frame), XDP_DROP);
        }
        assert_eq!(verdicts(&guard, Verdict::Replayed), 40);
        let next = from_port(segment, 40_001);
        prove(&mut guard, next);
        assert_eq!(run(&guard, &next.frame()), XDP_PASS);
    }
}

/// 2^32 sources behind one /64: each has its own bucket, and is challenged.
#[test]
fn a_client_behind_nat64_is_one_of_many() {
    let mut guard = guard(&Policy {
        source: TIGHT,
        cap: Some(Rate { rate: 1, burst: 4 }),
        ..policy()
    });
    let from = |last: u8| {
        Segment::syn(
            &format!("[64:ff9b::198.51.100.{last}]:40000"),
            "[2001:db8::7]:25",
        )
    };
    for last in 1..=3 {
        let frame = from(last).frame();
        assert_eq!(run(&guard, &frame), XDP_PASS, "{last}");
        assert_eq!(run(&guard, &frame), XDP_TX, "{last}");
    }
    assert_eq!(verdicts(&guard, Verdict::LimitedSource), 3);
    prove(&mut guard, from(1));
    assert_eq!(run(&guard, &from(1).frame()), XDP_PASS);
    let nobody = Segment::syn("[64:ff9b::127.0.0.1]:40000", "[2001:db8::7]:25").frame();
    assert_eq!(run(&guard, &nobody), XDP_PASS, "the cap");
    let challenges = answers(&guard, Answer::Challenge);
    guard.test_run(&nobody, 5).unwrap();
    assert_eq!(answers(&guard, Answer::Challenge), challenges);
}

#[test]
fn strangers_in_a_flood_leave_no_trace_and_who_is_known_stays_limited() {
    let guard = guard(&Policy {
        source: Rate { rate: 1, burst: 2 },
        cap: Some(Rate { rate: 1, burst: 4 }),
        ..policy()
    });
    let from = |source: u32| {
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 | source);
        Segment::syn(&format!("{source}:40000"), "192.0.2.7:25").frame()
    };
    for _ in 0..3 {
        guard.test_run(&from(1), 1).unwrap();
    }
    // The last of the cap, and from here on it is a flood.
    guard.test_run(&from(2), 1).unwrap();
    for stranger in 1000..1100 {
        assert_eq!(run(&guard, &from(stranger)), XDP_TX);
    }
    assert_eq!(verdicts(&guard, Verdict::Flood), 100);
    assert_eq!(run(&guard, &from(1)), XDP_TX);
    assert_eq!(verdicts(&guard, Verdict::LimitedSource), 2);
    let sources = guard.sources().unwrap();
    assert_eq!(
        sources.len(),
        3,
        "these two, and the one of the first SYN: {sources:?}"
    );
}

#[test]
fn nobody_is_answered_who_must_not_be() {
    // Without a listener there is no cookie for anybody: what XDP cannot answer is asked
    // before that.
    for flood_answer in [FloodAnswer::Challenge, FloodAnswer::Cookie] {
        what_must_not_be_answered_is_not(flood_answer);
    }
}

fn what_must_not_be_answered_is_not(flood_answer: FloodAnswer) {
    let guard = guard(&Policy {
        flood_answer,
        ..policy()
    });
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = ipv4().frame();
        edit(&mut frame);
        frame
    };
    let source = |octets: [u8; 4]| {
        edited(&|frame| frame[ETHERNET_LENGTH + 12..ETHERNET_LENGTH + 16].copy_from_slice(&octets))
    };
    let mut with_options = ipv4().frame();
    with_options[ETHERNET_LENGTH] = 0x46;
    with_options[ETHERNET_LENGTH + 3] += 4;
    with_options.splice(ETHERNET_LENGTH + 20..ETHERNET_LENGTH + 20, [1; 4]);
    let tagged = Segment {
        vlan_tags: 1,
        ..ipv4()
    };
    // However many: what comes that way is the kernel's.
    let ways = [
        ("for another host", edited(&|frame| frame[5] = 9)),
        ("broadcast", edited(&|frame| frame[..6].fill(0xff))),
        (
            "behind a tag that its address is not behind",
            tagged.frame(),
        ),
    ];
    // No client's SYN is like these: few of them are the kernel's.
    let packets = [
        ("from a group", edited(&|frame| frame[6] |= 1)),
        ("from this network", source([0, 1, 2, 3])),
        ("from loopback", source([127, 0, 0, 1])),
        ("from multicast", source([224, 0, 0, 1])),
        ("from broadcast", source([255; 4])),
        ("from ourselves", source([192, 0, 2, 7])),
        ("with an IP option", with_options),
        ("from one of our ports", from_port(ipv4(), 25).frame()),
        (
            "from ::/8",
            Segment::syn("[::5]:1", "[2001:db8::7]:25").frame(),
        ),
        (
            "from multicast",
            Segment::syn("[ff02::1]:1", "[2001:db8::7]:25").frame(),
        ),
    ];
    for (what, frame) in &ways {
        let before = answers(&guard, Answer::Unanswerable);
        let flood = verdicts(&guard, Verdict::Flood);
        for _ in 0..100 {
            assert_eq!(run(&guard, frame), XDP_PASS, "{what}");
        }
        assert_eq!(
            answers(&guard, Answer::Unanswerable),
            before + 100,
            "{what}"
        );
        assert_eq!(verdicts(&guard, Verdict::Flood), flood + 100, "{what}");
    }
    let before = answers(&guard, Answer::Unanswerable);
    let flood = verdicts(&guard, Verdict::Flood);
    for (what, frame) in &packets {
        let actions = [(); 3].map(|()| run(&guard, frame));
        assert!(!actions.contains(&XDP_TX), "{what}");
    }
    let sent = 3 * packets.len() as u64;
    let passed = answers(&guard, Answer::Unanswerable) - before;
    assert!((1..=2).contains(&passed), "{passed} passed, one a second");
    assert_eq!(answers(&guard, Answer::UnanswerableDropped), sent - passed);
    assert_eq!(verdicts(&guard, Verdict::Flood), flood + sent);
    assert_eq!(answers(&guard, Answer::Challenge), 0);
    assert_eq!(answers(&guard, Answer::Cookie), 0);
}

#[test]
fn observing_answers_nothing_and_drops_nothing() {
    let guard = guard(&Policy {
        observe: true,
        ..policy()
    });
    let frame = ipv4().frame();
    assert_eq!(run(&guard, &frame), XDP_PASS);
    assert_eq!(verdicts(&guard, Verdict::Flood), 1);
    let reset = Segment {
        flags: RST,
        ..ipv4()
    };
    assert_eq!(run(&guard, &reset.frame()), XDP_PASS);
    let counters = guard.counters(Some(0)).unwrap();
    assert_eq!(counters.answers.iter().sum::<u64>(), 0);
}

#[test]
fn lists_come_first_and_are_replaced_as_a_whole() {
    let lists = |allow: &[&str], deny: &[&str]| {
        let parse = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        Arc::new(Lists {
            allow: parse(allow),
            deny: parse(deny),
        })
    };
    let mut guard = guard(&Policy {
        source: TIGHT,
        cap: None,
        lists: lists(
            &["198.51.100.1/32"],
            &["198.51.100.0/24", "2001:db8:1::/48"],
        ),
        ..policy()
    });
    // The guard's first SYN came from the denied network, before this.
    let run = |guard: &Guard, segment: Segment| run(guard, &segment.frame());
    let denied = Segment::syn("198.51.100.2:1", "192.0.2.7:25");
    let allowed = ipv4();
    let before = verdicts(&guard, Verdict::Denied);
    assert_eq!(run(&guard, denied), XDP_DROP);
    assert_eq!(run(&guard, ipv6()), XDP_DROP);
    assert_eq!(verdicts(&guard, Verdict::Denied), before + 2);
    // Exempt from the deny list and from the bucket.
    for _ in 0..5 {
        assert_eq!(run(&guard, allowed), XDP_PASS);
    }
    guard
        .configure(&Policy {
            cap: None,
            lists: lists(&[], &["198.51.100.1/32"]),
            ..policy()
        })
        .unwrap();
    assert_eq!(run(&guard, allowed), XDP_DROP);
    assert_eq!(run(&guard, denied), XDP_PASS);
    assert_eq!(run(&guard, ipv6()), XDP_PASS);
    guard
        .configure(&Policy {
            cap: None,
            ..policy()
        })
        .unwrap();
    assert_eq!(run(&guard, allowed), XDP_PASS);
    // Not from the flood answer.
    guard
        .configure(&Policy {
            lists: lists(&["198.51.100.1/32"], &[]),
            ..policy()
        })
        .unwrap();
    let actions: Vec<_> = (0..3).map(|_| run(&guard, allowed)).collect();
    assert!(actions.contains(&XDP_TX), "{actions:?}");
}

#[test]
fn a_prefix_has_its_own_bucket() {
    let guard = guard(&Policy {
        prefix: Some(Rate { rate: 1, burst: 3 }),
        cap: None,
        flood_answer: FloodAnswer::Drop,
        ..policy()
    });
    for (from, to) in [
        ("203.0.113", "192.0.2.7:25"),
        ("2001:db8:2", "[2001:db8::7]:25"),
    ] {
        let before = verdicts(&guard, Verdict::LimitedPrefix);
        let actions: Vec<_> = (1..=5)
            .map(|last| {
                let from = if from.contains(':') {
                    format!("[{from}:{last}::1]:1")
                } else {
                    format!("{from}.{last}:1")
                };
                let frame = Segment::syn(&from, to).frame();
                run(&guard, &frame)
            })
            .collect();
        assert_eq!(actions, [XDP_PASS, XDP_PASS, XDP_PASS, XDP_DROP, XDP_DROP]);
        assert_eq!(verdicts(&guard, Verdict::LimitedPrefix), before + 2);
    }
    let other = Segment::syn("203.0.112.1:1", "192.0.2.7:25").frame();
    assert_eq!(run(&guard, &other), XDP_PASS);
}
