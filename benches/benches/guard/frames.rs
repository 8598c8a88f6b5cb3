//! Time per frame by BPF_PROG_TEST_RUN, and what is admitted.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use nomail_agent::guard::{Guard, Lists, Mode, Policy, Rate};
use nomail_benches::{
    program::{NO_BOUND, deny},
    rivals::Rival,
};
use nomail_common::{
    counted::Counted as _,
    guard::policy::FloodAnswer,
    guard::tickets::TICKET_SYNS,
    verdict::{Answer, Verdict},
};
use nomail_tests::{
    foreign::Program,
    frames::{ACK, ETHERNET_LENGTH, FIN, RST, SYN, Segment},
    generator::{Generator, Syns, Then, returner},
    lab::{HOST_INTERFACE, Lab},
    program::guard,
    rig::pin,
};

use crate::{median, met};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Runs of the program in one measurement. Fewer than what 256 sources may send at
/// once.
const RUNS: u32 = 400_000;

/// From 256 sources.
const FEW: Syns = Syns {
    source: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 0)),
    source_mask: 0xff,
    port: 1024,
    port_mask: 0x3fff,
    repeated: false,
    destination: IpAddr::V4(HOST),
};
/// From 16 million.
const MANY: Syns = Syns {
    source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
    source_mask: 0xff_ffff,
    ..FEW
};

struct Row {
    name: String,
    nanoseconds: Vec<f64>,
    ratios: Vec<f64>,
    goal: Option<f64>,
}

impl Row {
    fn new(name: &str, goal: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            nanoseconds: Vec::new(),
            ratios: Vec::new(),
            goal,
        }
    }

    fn add(&mut self, nanoseconds: f64, floor: f64) {
        self.nanoseconds.push(nanoseconds);
        self.ratios.push(nanoseconds / floor);
    }

    fn print(&mut self) {
        let middle = median(&mut self.nanoseconds);
        let [least, most] = [
            self.nanoseconds[0],
            self.nanoseconds[self.nanoseconds.len() - 1],
        ];
        let ratio = median(&mut self.ratios);
        let (goal, said) = self.goal.map_or((String::new(), ""), |goal| {
            (format!("{goal}"), met(ratio <= goal + 0.005))
        });
        println!(
            "| {} | {middle:.1} ({least:.1} to {most:.1}) | {ratio:.2} | {goal} | {said} |",
            self.name
        );
    }
}

pub(crate) fn print(quick: bool) {
    let rounds = if quick { 2 } else { 15 };
    println!("## Time per frame by BPF_PROG_TEST_RUN, median of {rounds} rounds\n");
    println!("| frame | nanoseconds (least to most) | to bare XDP_PASS | goal | |");
    println!("|---|---|---|---|---|");
    // Here, where there is a way to Debian's packages.
    let rival = Rival::Challenges.load();
    let lab = Lab::new();
    let loads = lab.host.within(|| times(rounds, &rival));
    println!(
        "\nThe ratio is to bare XDP_PASS in the same round. SYNs are made anew for each run, by a \
         program that calls ours: from the time of both, that of the same program calling a bare \
         XDP_PASS is taken off. Cap, buckets and the challenge are on in each row. In the rows of SYNs that pass, no tuple was proven lately, as without a flood: the hash of the tuple is not in them."
    );
    println!("\n## What is admitted, by BPF_PROG_TEST_RUN\n");
    println!("| work | measured | goal | |");
    println!("|---|---|---|---|");
    for (prefixes, took) in loads {
        println!(
            "| a deny list of {prefixes} prefixes replaces another, milliseconds | {:.0} | 2000 | {} |",
            took.as_secs_f64() * 1000.0,
            met(took < Duration::from_secs(2))
        );
    }
    lab.host.within(|| {
        accuracy(Duration::from_secs(if quick { 2 } else { 8 }));
        innocents(if quick { 100 } else { 400 });
    });
}

/// A guard of the host on an interface that carries nothing: for many short test runs. The
/// kernel patches its XDP dispatcher for each of a program that is attached nowhere.
fn attached(policy: &Policy) -> Guard {
    let mut guard = guard(policy);
    let interface = nix::net::if_::if_nametoindex(HOST_INTERFACE).unwrap();
    guard.attach(interface, &[Mode::Native]).unwrap();
    guard
}

fn program_of(guard: &mut Guard) -> Program {
    Program::of_id(guard.program_id().unwrap())
}

fn policy() -> Policy {
    Policy {
        source: Rate {
            rate: 10_000,
            burst: 10_000,
        },
        ..nomail_benches::program::policy(NO_BOUND)
    }
}

/// How often each verdict was given, and each answer.
fn counts(guard: &Guard) -> ([u64; Verdict::COUNT], [u64; Answer::COUNT]) {
    let counters = guard.counters(Some(0)).unwrap();
    (counters.verdicts, counters.answers)
}

fn times(rounds: usize, rival: &Result<Program, String>) -> Vec<(usize, Duration)> {
    let bare = Program::load("bare");
    let bare_of = |syns: &Syns| Generator::load(syns, &Then::Call(&bare));
    let (bare_few, bare_many) = (bare_of(&FEW), bare_of(&MANY));
    let segment = Segment::syn("198.51.100.1:40000", "192.0.2.1:25");
    let mut udp = segment.frame();
    udp[ETHERNET_LENGTH + 9] = 17;
    let connection = Segment {
        flags: ACK,
        ..segment
    }
    .frame();
    let other_port = Segment::syn("198.51.100.1:40000", "192.0.2.1:443").frame();
    let other_address = Segment::syn("198.51.100.1:40000", "192.0.2.2:25").frame();
    let full = segment.frame_with(0, &[1; 20], &[]);
    assert_eq!(full.len(), MANY.length());
    let malformed = Segment {
        flags: SYN | FIN,
        ..segment
    }
    .frame();

    let mut floor = Row::new("any, bare XDP_PASS", None);
    let mut returned = Row::new("SYN, bare XDP_TX", None);
    let mut other = [
        (Row::new("UDP", Some(1.06)), udp),
        (Row::new("TCP of a connection", Some(1.12)), connection),
        (Row::new("SYN to another port", Some(1.1)), other_port),
        (
            Row::new(
                "SYN to port 25 of an address that is not guarded",
                Some(1.2),
            ),
            other_address,
        ),
    ];
    // What a SYN pays before its source is looked at.
    let mut dropped = Row::new("SYN with FIN: dropped and counted", None);
    let mut uncapped = Row::new("SYN that passes, 256 sources, without a cap of all", None);
    let mut few = Row::new("SYN that passes, 256 sources", Some(1.6));
    let mut many = Row::new("SYN that passes, 16 million random sources", Some(2.6));
    let mut refused = Row::new("SYN over the cap, dropped, 16 million random sources", None);
    let mut asked = Row::new(
        "SYN that is challenged, 16 million random sources",
        Some(3.2),
    );
    let mut in_c = Row::new("the same by the same algorithm in C", None);
    let mut proves = Row::new("RST for a tuple that has a ticket", Some(2.0));
    // A ticket is spent after a few runs: caches are cold, which the bare program's are not.
    let mut proven = Row::new("SYN that has a ticket, 256 tuples", None);
    let mut proven_over = Row::new(
        "SYN that has a ticket, over its bucket, 256 tuples",
        Some(2.2),
    );
    let lists: Vec<Arc<Lists>> = [0, 100, 10_000, 100_000]
        .map(|count| deny(count, false))
        .into();
    let mut denies: Vec<Row> = lists
        .iter()
        .map(|list| {
            let name = format!(
                "the same beside a deny list of {} addresses",
                list.deny.len()
            );
            Row::new(&name, None)
        })
        .collect();
    let mut loads: Vec<(usize, Vec<f64>)> = lists[1..]
        .iter()
        .map(|l| (l.deny.len(), Vec::new()))
        .collect();

    let returner = returner();
    let returner_many = Generator::load(&MANY, &Then::Call(&returner));
    let rival_many = rival
        .as_ref()
        .map(|program| Generator::load(&MANY, &Then::Call(program)));
    if let Err(error) = &rival_many {
        println!("| {} | not measured: {error} | | | |", in_c.name);
    }

    let mut passing = guard(&policy());
    let passing_program = program_of(&mut passing);
    for round in 0..=rounds {
        let ping = bare.test_run(&other[0].1, RUNS);
        let base = f64::from(ping);
        let measured = round > 0;
        // What the program that makes the frames takes, but for a bare XDP_PASS.
        let (making_few, making_many) = (
            bare_few.test_run(RUNS) - base,
            bare_many.test_run(RUNS) - base,
        );
        if measured {
            floor.add(base, base);
            returned.add(returner_many.test_run(RUNS) - making_many, base);
        }
        if let Ok(maker) = &rival_many {
            maker.test_run(RUNS);
            let time = maker.test_run(RUNS) - making_many;
            if measured {
                in_c.add(time, base);
            }
        }
        for (row, frame) in &mut other {
            let before = counts(&passing);
            let time = f64::from(passing_program.test_run(frame, RUNS));
            assert_eq!(
                counts(&passing),
                before,
                "{}: it must not be ours",
                row.name
            );
            if measured {
                row.add(time, base);
            }
        }
        {
            let before = counts(&passing).0[Verdict::Malformed as usize];
            let time = f64::from(passing_program.test_run(&malformed, RUNS));
            let after = counts(&passing).0[Verdict::Malformed as usize];
            assert_eq!(after - before, u64::from(RUNS), "each is malformed");
            if measured {
                dropped.add(time, base);
            }
        }
        {
            let mut guard = guard(&Policy {
                cap: None,
                ..policy()
            });
            let program = program_of(&mut guard);
            let maker = Generator::load(&FEW, &Then::Call(&program));
            let time = maker.test_run(RUNS) - making_few;
            all_are(&guard, Verdict::Passed, RUNS);
            if measured {
                uncapped.add(time, base);
            }
        }
        // New buckets each time: 256 sources send more than is admitted for long.
        {
            let mut guard = guard(&policy());
            let program = program_of(&mut guard);
            let maker = Generator::load(&FEW, &Then::Call(&program));
            let time = maker.test_run(RUNS) - making_few;
            all_are(&guard, Verdict::Passed, RUNS);
            let maker = Generator::load(&MANY, &Then::Call(&program));
            maker.test_run(RUNS);
            let time_many = maker.test_run(RUNS) - making_many;
            all_are(&guard, Verdict::Passed, 3 * RUNS);
            if measured {
                few.add(time, base);
                many.add(time_many, base);
            }
        }
        {
            let cap = Some(Rate { rate: 1, burst: 1 });
            for (row, flood_answer) in [
                (&mut refused, FloodAnswer::Drop),
                (&mut asked, FloodAnswer::Challenge),
            ] {
                let mut guard = guard(&Policy {
                    cap,
                    flood_answer,
                    ..policy()
                });
                let program = program_of(&mut guard);
                let maker = Generator::load(&MANY, &Then::Call(&program));
                maker.test_run(RUNS);
                let time = maker.test_run(RUNS) - making_many;
                all_are(&guard, Verdict::Flood, 2 * RUNS);
                let answered = counts(&guard).1[Answer::Challenge as usize];
                let expected = flood_answer == FloodAnswer::Challenge;
                if expected {
                    // The next run of the generator would have to lengthen a shorter one, and
                    // that time would be in the row.
                    let (_, answer) = guard.test_answer(&full).unwrap();
                    assert_eq!(
                        answer.len(),
                        MANY.length(),
                        "the answer is as long as the SYN"
                    );
                }
                assert_eq!(
                    answered > u64::from(RUNS),
                    expected,
                    "{answered} were answered"
                );
                if measured {
                    row.add(time, base);
                }
            }
        }
        let times = proofs();
        if measured {
            proves.add(times[0], base);
            proven.add(times[1], base);
            proven_over.add(times[2], base);
        }
        for (index, (row, list)) in denies.iter_mut().zip(&lists).enumerate() {
            // Each of the lists costs time to load: every third round will do.
            if round % 3 != 1 {
                continue;
            }
            let mut guard = guard(&policy());
            let start = Instant::now();
            let lists = Arc::clone(list);
            guard.configure(&Policy { lists, ..policy() }).unwrap();
            if index > 0 {
                loads[index - 1].1.push(start.elapsed().as_secs_f64());
            }
            let program = program_of(&mut guard);
            let maker = Generator::load(&MANY, &Then::Call(&program));
            maker.test_run(RUNS);
            row.add(maker.test_run(RUNS) - making_many, base);
            let denied = counts(&guard).0[Verdict::Denied as usize];
            assert!(denied > 0 || index < 2, "none of {} is denied", 2 * RUNS);
        }
    }
    floor.print();
    returned.print();
    for (row, _) in &mut other {
        row.print();
    }
    for row in [&mut dropped, &mut uncapped, &mut few, &mut many] {
        row.print();
    }
    for row in &mut denies {
        row.print();
    }
    for row in [&mut refused, &mut asked] {
        row.print();
    }
    if rival_many.is_ok() {
        in_c.print();
    }
    for row in [&mut proves, &mut proven, &mut proven_over] {
        row.print();
    }
    let took = |times: &mut Vec<f64>| Duration::from_secs_f64(median(times));
    loads
        .iter_mut()
        .map(|(n, times)| (*n, took(times)))
        .collect()
}

/// All but one in a hundred of the SYNs had this verdict, and none had none.
fn all_are(guard: &Guard, verdict: Verdict, all: u32) {
    let verdicts = counts(guard).0;
    assert_eq!(
        verdicts.iter().sum::<u64>(),
        u64::from(all),
        "each is counted"
    );
    let right = verdicts[verdict as usize];
    assert!(
        right * 100 >= u64::from(all) * 99,
        "{right} of {all} are {verdict:?}"
    );
}

/// Nanoseconds of a RST for a tuple that has a ticket, of a SYN for it, and of such a SYN
/// that is over its bucket.
fn proofs() -> [f64; 3] {
    const TUPLES: u32 = 256;
    const EACH: u32 = 2_000;
    let cap = Some(Rate { rate: 1, burst: 1 });
    let few = Rate { rate: 1, burst: 1 };
    let open = Policy { cap, ..policy() };
    let tight = Policy {
        source: few,
        ..policy()
    };
    let mut sums = [0.0; 3];
    for (policy, is_tight) in [(open, false), (tight, true)] {
        let mut guard = attached(&policy);
        for n in 0..TUPLES {
            let of_port = |port| Segment::syn(&format!("198.51.100.{n}:{port}"), "192.0.2.1:25");
            let first = of_port(40_000);
            let rst = prove(&mut guard, first, EACH);
            if is_tight {
                // It uses the bucket up; the next one is over it, and its ticket stays new.
                guard.test_run(&first.frame(), 1).unwrap();
                let next = of_port(40_001);
                prove(&mut guard, next, 1);
                sums[2] += guard.test_run(&next.frame(), EACH).unwrap().1 as f64;
            } else {
                sums[0] += rst;
                sums[1] += guard.test_run(&first.frame(), TICKET_SYNS).unwrap().1 as f64;
            }
        }
        let (verdicts, answers) = counts(&guard);
        let (wanted, each, proofs) = match is_tight {
            true => (Verdict::LimitedSource, EACH, 2),
            false => (Verdict::Passed, TICKET_SYNS, 1),
        };
        let [wanted, all] = [verdicts[wanted as usize], u64::from(TUPLES * each)];
        // More where a tuple was challenged twice, less where a bucket had filled again.
        assert!(wanted.abs_diff(all) < all / 50, "{verdicts:?}");
        assert_eq!(answers[Answer::Proven as usize], u64::from(TUPLES * proofs));
    }
    sums.map(|sum| sum / f64::from(TUPLES))
}

/// Has the tuple of `syn` challenged, and answers so many times, of which the first gives
/// the ticket: nanoseconds of an answer.
fn prove(guard: &mut Guard, syn: Segment, times: u32) -> f64 {
    // The first may pass, and those over their bucket ask for another.
    let challenge = (0..3).find_map(|_| {
        let (_, answer) = guard.test_answer(&syn.frame()).unwrap();
        (answer[ETHERNET_LENGTH + 20 + 13] == 0x12).then_some(answer)
    });
    let challenge = challenge.expect("a challenge");
    let at = ETHERNET_LENGTH + 20 + 8;
    let number: [u8; 4] = challenge[at..at + 4].try_into().unwrap();
    let rst = Segment {
        flags: RST,
        sequence: u32::from_be_bytes(number),
        ..syn
    };
    guard.test_run(&rst.frame(), times).unwrap().1 as f64
}

/// Two CPUs send for the same sources at once: what is admitted against what the
/// rate gives.
fn accuracy(length: Duration) {
    const SOURCES: u32 = 16;
    const RATE: Rate = Rate {
        rate: 1000,
        // More than what fills up while another guest has the CPU.
        burst: 500,
    };
    let mut guard = guard(&Policy {
        source: RATE,
        flood_answer: FloodAnswer::Drop,
        cap: None,
        ..policy()
    });
    let program = program_of(&mut guard);
    let syns = Syns {
        source_mask: SOURCES - 1,
        ..FEW
    };
    let loaded = Barrier::new(2);
    let seconds = std::thread::scope(|scope| {
        let cpus = [0, 1].map(|cpu| {
            let (program, syns, loaded) = (&program, &syns, &loaded);
            scope.spawn(move || {
                pin(0, cpu);
                let maker = Generator::load(syns, &Then::Call(program));
                loaded.wait();
                let start = Instant::now();
                while start.elapsed() < length {
                    maker.test_run(100_000);
                }
                start.elapsed().as_secs_f64()
            })
        });
        let seconds = cpus.map(|cpu| cpu.join().unwrap());
        seconds[0].max(seconds[1])
    });
    let (verdicts, _) = counts(&guard);
    let admitted = verdicts[Verdict::Passed as usize];
    let sent: u64 = verdicts.iter().sum();
    let exact = f64::from(SOURCES) * (f64::from(RATE.burst) + f64::from(RATE.rate) * seconds);
    let off = (admitted as f64 / exact - 1.0) * 100.0;
    println!(
        "| admitted of {sent} SYNs of {SOURCES} sources on two CPUs in {seconds:.2} s, exactly {exact:.0} | \
         {admitted} ({off:+.2} %) | within 1 % | {} |",
        met(off.abs() <= 1.0)
    );
}

/// Attackers that are over their bucket, and innocents that send one SYN each, in
/// turns.
fn innocents(turns: u32) {
    const AT_ONCE: u32 = 2_048;
    let source = Rate {
        rate: 10,
        burst: 20,
    };
    let guarded = |syns: &Syns| {
        let mut guard = guard(&Policy {
            source,
            cap: None,
            flood_answer: FloodAnswer::Drop,
            ..policy()
        });
        let program = program_of(&mut guard);
        let maker = Generator::load(syns, &Then::Call(&program));
        (guard, program, maker)
    };
    let (guard, program, attackers) = guarded(&FEW);
    // Not the attackers' /24.
    let others = Syns {
        source: IpAddr::V4(Ipv4Addr::new(11, 0, 0, 0)),
        ..MANY
    };
    let maker = Generator::load(&others, &Then::Call(&program));
    let limited = || counts(&guard).0[Verdict::LimitedSource as usize];
    attackers.test_run(20 * 256 * 4);
    let (mut innocent, mut dropped, mut attack, mut caught) = (0, 0, 0, 0);
    for _ in 0..turns {
        let before = limited();
        attackers.test_run(AT_ONCE);
        let between = limited();
        maker.test_run(AT_ONCE);
        caught += between - before;
        dropped += limited() - between;
        attack += u64::from(AT_ONCE);
        innocent += u64::from(AT_ONCE);
    }
    println!(
        "| innocents dropped, of {innocent} that send once while 256 attackers send {attack}, of \
         which {caught} are dropped | {dropped} | 0 | {} |",
        met(dropped == 0 && caught * 100 >= attack * 90)
    );
}
