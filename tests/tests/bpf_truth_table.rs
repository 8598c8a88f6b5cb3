//! The truth table of verdicts, all of it, through the loaded program by
//! BPF_PROG_TEST_RUN: for every combination of its inputs, in both families, the
//! program is driven into that state, and its verdict, action and answer are
//! compared with `policy::decide` and with the table said in another way.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nomail_agent::guard::{Guard, Lists, Policy};
use nomail_common::{
    counted::Counted as _,
    guard::policy::{Action, Facts, FloodAnswer, Server, action, decide},
    guard::tickets::Proof,
    verdict::{Answer, Verdict},
};
use nomail_tests::{
    frames::{SYN, Segment},
    lab::Lab,
    program::{TIGHT, WIDE, XDP_DROP, XDP_PASS, XDP_TX, from_port, guard, policy, prove, run},
};

/// A bucket that was charged so long ago counts as over without a doubt.
const FRESH: Duration = Duration::from_millis(900);

/// What one policy settles.
#[derive(Clone, Copy, Debug)]
struct Regime {
    over_source: bool,
    over_prefix: bool,
    over_cap: bool,
    observe: bool,
    challenge: bool,
}

/// What one SYN settles.
#[derive(Clone, Copy, Debug)]
struct Case {
    ipv6: bool,
    malformed: bool,
    allowed: bool,
    denied: bool,
    /// It has a ticket
    proven: bool,
    /// that has admitted a SYN, if so.
    used: bool,
    answerable: bool,
    /// A /24 and /48 of its own.
    segment: Segment,
}

fn bits<const N: usize>(number: u32) -> [bool; N] {
    std::array::from_fn(|bit| number >> bit & 1 != 0)
}

/// All cases, with sources that no other group has.
fn cases(group: u32) -> Vec<Case> {
    let cases = (0..128).map(|number| {
        let [ipv6, malformed, allowed, denied, proven, used, answerable] = bits(number);
        let segment = if ipv6 {
            Segment::syn(
                &format!("[2001:{group:x}:{number:x}::1]:40000"),
                "[2001:db8::7]:25",
            )
        } else {
            Segment::syn(&format!("10.{group}.{number}.1:40000"), "192.0.2.7:25")
        };
        Case {
            ipv6,
            malformed,
            allowed,
            denied,
            proven,
            used,
            answerable,
            segment,
        }
    });
    cases.collect()
}

/// The oracle's facts.
struct Known(Case, Regime);

impl Facts for Known {
    fn malformed(&mut self) -> bool {
        self.0.malformed
    }
    fn allowed(&mut self) -> bool {
        self.0.allowed
    }
    fn denied(&mut self) -> bool {
        self.0.denied
    }
    fn proof(&mut self) -> Proof {
        match (self.0.proven && self.1.challenge, self.0.used) {
            (false, _) => Proof::None,
            (true, false) => Proof::New,
            (true, true) => Proof::Used,
        }
    }
    fn admit(&mut self) {}
    fn over_source(&mut self, _proven: bool) -> bool {
        self.1.over_source
    }
    fn over_prefix(&mut self, _proven: bool) -> bool {
        self.1.over_prefix
    }
    fn over_cap(&mut self) -> bool {
        self.1.over_cap
    }
}

/// What is to come of a case: the verdict, the action, the answer.
type Outcome = (Verdict, u32, Option<Answer>);

fn by_policy(case: Case, regime: Regime) -> Outcome {
    let decision = decide(&mut Known(case, regime));
    let verdict = decision.verdict;
    match action(decision, Server::Listeners, regime.observe) {
        Action::Pass => (verdict, XDP_PASS, None),
        Action::Answer if regime.challenge && case.answerable => {
            (verdict, XDP_TX, Some(Answer::Challenge))
        }
        Action::Answer if regime.challenge => (verdict, XDP_PASS, Some(Answer::Unanswerable)),
        _ => (verdict, XDP_DROP, None),
    }
}

/// The table of docs/guard.md, without the code's help.
fn by_table(case: Case, regime: Regime) -> Outcome {
    let proven = case.proven && regime.challenge;
    let limited = !case.allowed;
    let charged = limited && !(proven && case.used);
    let rows = [
        (case.malformed, Verdict::Malformed, false),
        (case.denied && limited, Verdict::Denied, false),
        (
            regime.over_source && charged,
            Verdict::LimitedSource,
            !proven,
        ),
        (
            regime.over_prefix && charged,
            Verdict::LimitedPrefix,
            !proven,
        ),
        (regime.over_cap && !proven, Verdict::Flood, true),
        (true, Verdict::Passed, false),
    ];
    let (_, verdict, asked) = rows.into_iter().find(|(holds, ..)| *holds).unwrap();
    let (action, answer) = match (verdict, regime.observe, asked && regime.challenge) {
        (Verdict::Passed, ..) | (_, true, _) => (XDP_PASS, None),
        (_, false, false) => (XDP_DROP, None),
        (_, false, true) if case.answerable => (XDP_TX, Some(Answer::Challenge)),
        (_, false, true) => (XDP_PASS, Some(Answer::Unanswerable)),
    };
    (verdict, action, answer)
}

/// The loaded program, and when the cap that all share was charged.
struct Bench {
    guard: Guard,
    cap_charged: Option<Instant>,
    strangers: u32,
}

impl Bench {
    fn run(&self, segment: Segment) -> u32 {
        run(&self.guard, &segment.frame())
    }

    /// Sees to it that the cap is over under [`TIGHT`], for the time being.
    fn charge_cap(&mut self) {
        if self
            .cap_charged
            .is_some_and(|charged| charged.elapsed() < FRESH / 2)
        {
            return;
        }
        let cap = Some(TIGHT);
        self.guard.configure(&Policy { cap, ..policy() }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            self.strangers += 1;
            let charged = Instant::now();
            // From none of our ports: such a SYN passes without a charge.
            let port = 10_000 + self.strangers as u16;
            let source = SocketAddr::new([172, 16, 0, 1].into(), port).to_string();
            if self.run(Segment::syn(&source, "192.0.2.7:25")) == XDP_PASS {
                self.cap_charged = Some(charged);
                return;
            }
            assert!(Instant::now() < deadline, "the cap stays used up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every case under one regime; false when it took too long to be told anything.
    fn group(&mut self, regime: Regime, group: u32) -> bool {
        let cases = cases(group);
        let begin = Instant::now();
        let over = |is: bool| if is { TIGHT } else { WIDE };
        let source = over(regime.over_source);
        self.guard
            .configure(&Policy {
                source: TIGHT,
                ..policy()
            })
            .unwrap();
        for case in cases.iter().filter(|case| case.proven) {
            assert_eq!(self.run(case.segment), XDP_PASS);
            prove(&mut self.guard, case.segment);
            prove(&mut self.guard, from_port(case.segment, 39_999));
        }
        // A SYN of each charges the buckets that are to be over.
        let charging = Policy {
            source,
            prefix: Some(over(regime.over_prefix)),
            flood_answer: if regime.challenge {
                FloodAnswer::Challenge
            } else {
                FloodAnswer::Drop
            },
            ..policy()
        };
        self.guard.configure(&charging).unwrap();
        for case in &cases {
            // Or its ticket would no longer be new.
            let spared = case.proven && !case.used && regime.challenge;
            self.run(if spared {
                from_port(case.segment, 39_999)
            } else {
                case.segment
            });
        }
        if regime.over_cap {
            self.charge_cap();
        }
        let listed = |wanted: fn(&Case) -> bool| {
            let listed = cases.iter().filter(|case| wanted(case));
            let network = |case: &Case| {
                let length = if case.ipv6 { 48 } else { 24 };
                let network = format!("{}/{length}", case.segment.source.ip());
                network.parse::<ipnet::IpNet>().unwrap().trunc()
            };
            let sorted: BTreeSet<_> = listed.map(network).collect();
            sorted.into_iter().collect()
        };
        self.guard
            .configure(&Policy {
                cap: Some(over(regime.over_cap)),
                observe: regime.observe,
                lists: Arc::new(Lists {
                    allow: listed(|case| case.allowed),
                    deny: listed(|case| case.denied),
                }),
                ..charging
            })
            .unwrap();
        let outcomes: Vec<_> = cases.iter().map(|case| self.outcome(*case)).collect();
        let cap_charged = self.cap_charged.unwrap_or(begin);
        if begin.elapsed() > FRESH || regime.over_cap && cap_charged.elapsed() > FRESH {
            return false;
        }
        for (case, outcome) in cases.iter().zip(outcomes) {
            let table = by_table(*case, regime);
            assert_eq!(by_policy(*case, regime), table, "{case:?} {regime:?}");
            assert_eq!(outcome, table, "{case:?} {regime:?}");
        }
        true
    }

    /// What the program makes of a case.
    fn outcome(&self, case: Case) -> Outcome {
        let mut segment = case.segment;
        if case.malformed {
            segment.flags = SYN | 1;
        }
        let mut frame = segment.frame();
        if !case.answerable {
            // For another host's hardware.
            frame[5] = 9;
        }
        let before = self.guard.counters(Some(0)).unwrap();
        let action = run(&self.guard, &frame);
        let after = self.guard.counters(Some(0)).unwrap();
        let added = |before: &[u64], after: &[u64]| -> Vec<usize> {
            let differences = before
                .iter()
                .zip(after)
                .map(|(before, after)| after - before);
            let counted = differences.enumerate();
            counted
                .flat_map(|(index, times)| std::iter::repeat_n(index, times as usize))
                .collect()
        };
        let verdicts = added(&before.verdicts, &after.verdicts);
        let [verdict] = verdicts[..] else {
            panic!("{verdicts:?} for {case:?}");
        };
        let answers = added(&before.answers, &after.answers);
        let answer = match answers[..] {
            [] => None,
            [answer] if answer == Answer::Challenge as usize => Some(Answer::Challenge),
            [answer] if answer == Answer::Unanswerable as usize => Some(Answer::Unanswerable),
            _ => panic!("{answers:?} for {case:?}"),
        };
        (Verdict::ALL[verdict], action, answer)
    }
}

#[test]
fn the_whole_truth_table() {
    let mut bench = Bench {
        guard: guard(&policy()),
        cap_charged: None,
        strangers: 0,
    };
    let lab = Lab::new();
    lab.attach(&mut bench.guard);
    let mut group = 0;
    let mut again = 0;
    for number in 0..32 {
        let [observe, challenge, over_source, over_prefix, over_cap] = bits(number);
        let regime = Regime {
            over_source,
            over_prefix,
            over_cap,
            observe,
            challenge,
        };
        loop {
            group += 1;
            if bench.group(regime, group) {
                break;
            }
            again += 1;
            assert!(again < 100, "too slow a machine");
        }
    }
    println!("32 regimes of 128 cases; {again} done again");
}
