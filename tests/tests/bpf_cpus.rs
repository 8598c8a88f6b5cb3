//! The limiter under two CPUs at once, through the loaded program by
//! BPF_PROG_TEST_RUN.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use nomail_agent::guard::{Guard, Policy, Rate};
use nomail_common::{guard::policy::FloodAnswer, verdict::Verdict};
use nomail_tests::{
    lab::Lab,
    program::{guard, ipv4, policy},
};

/// Frames in one system call.
const REPEAT: u32 = 2000;
const DURATION: Duration = Duration::from_secs(3);

/// Runs `frame` on both CPUs at once for [`DURATION`]; gives the time from the first
/// run to the last.
fn hammer(guard: &Guard, frame: &[u8]) -> Duration {
    let together = Barrier::new(2);
    let hammer = |cpu| {
        let mut set = CpuSet::new();
        set.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        together.wait();
        let begin = Instant::now();
        while begin.elapsed() < DURATION {
            guard.test_run(frame, REPEAT).unwrap();
        }
        (begin, Instant::now())
    };
    let spans = std::thread::scope(|scope| {
        let other = scope.spawn(|| hammer(1));
        [hammer(0), other.join().unwrap()]
    });
    let begin = spans.iter().map(|(begin, _)| *begin).min().unwrap();
    spans.iter().map(|(_, end)| *end).max().unwrap() - begin
}

/// One source from two CPUs at their full speed: what passes is the exact rate. Its
/// bursts are long, so that a machine that stands still for a while loses nothing.
#[test]
fn a_source_on_two_cpus_gets_its_exact_rate() {
    let lab = Lab::new();
    let frame = ipv4().frame();
    for source in [
        Rate {
            rate: 1000,
            burst: 1000,
        },
        Rate {
            rate: 10,
            burst: 300,
        },
    ] {
        let mut guard = guard(&Policy {
            source,
            flood_answer: FloodAnswer::Drop,
            ..policy()
        });
        lab.attach(&mut guard);
        let elapsed = hammer(&guard, &frame);
        let counters = guard.counters(Some(0)).unwrap();
        let passed = counters.verdicts[Verdict::Passed as usize];
        let all: u64 = counters.verdicts.iter().sum();
        let exact = f64::from(source.burst) + f64::from(source.rate) * elapsed.as_secs_f64();
        let error = passed as f64 / exact - 1.0;
        println!(
            "{source:?}: {passed} of {all} passed in {elapsed:?}, exact {exact:.1}, error {:.3} %, \
             {} contended",
            error * 100.0,
            counters.contended
        );
        assert!(error.abs() < 0.01, "{passed} passed instead of {exact:.1}");
        let counted = guard.sources().unwrap();
        let [source] = counted[..] else {
            panic!("one source: {counted:?}");
        };
        assert!(source.syn <= all && all - source.syn <= counters.contended);
    }
}
