//! Time per SYN, and of writing the list, the more prefixes are denied.

use std::{sync::Arc, time::Instant};

use nomail_agent::guard::{Lists, Policy};
use nomail_benches::program::deny;
use nomail_common::verdict::Verdict;
use nomail_tests::{
    foreign::Program,
    frames::Segment,
    generator::{Generator, Then},
    lab::Lab,
};

use crate::{
    Measured, knee,
    program::{NO_BOUND, guard, policy, syns},
};

const PREFIXES: [usize; 6] = [0, 10, 100, 1_000, 10_000, 100_000];
const PREFIXES_QUICK: [usize; 3] = [0, 1_000, 100_000];
/// SYNs come from 10.0.0.0/8.
const BITS: u32 = 24;

#[derive(Default)]
struct Place {
    bare: Measured,
    beside: Measured,
    load_millis: Measured,
}

pub(crate) fn print(quick: bool) {
    let (rounds, runs, prefixes) = if quick {
        (2, 200_000, &PREFIXES_QUICK[..])
    } else {
        (7, 400_000, &PREFIXES[..])
    };
    let lists: Vec<Arc<Lists>> = prefixes.iter().map(|&count| deny(count)).collect();
    let mut places: Vec<Place> = lists.iter().map(|_| Place::default()).collect();
    let lab = Lab::new();
    lab.host.within(|| {
        let bare = Program::load("bare");
        let frame = Segment::syn("198.51.100.1:40000", "192.0.2.1:25").frame();
        let making_bare = Generator::load(&syns(BITS), &Then::Call(&bare));
        for _ in 0..rounds {
            for (place, lists) in places.iter_mut().zip(&lists) {
                let base = f64::from(bare.test_run(&frame, runs));
                let making = making_bare.test_run(runs) - base;
                place.bare.add(base);
                let (mut guard, program) = guard(&policy(NO_BOUND));
                let lists = Arc::clone(lists);
                let count = lists.deny.len();
                let start = Instant::now();
                guard
                    .configure(&Policy {
                        lists,
                        ..policy(NO_BOUND)
                    })
                    .unwrap();
                place
                    .load_millis
                    .add(start.elapsed().as_secs_f64() * 1000.0);
                let maker = Generator::load(&syns(BITS), &Then::Call(&program));
                maker.test_run(runs);
                place.beside.add(maker.test_run(runs) - making);
                let denied = guard.counters(Some(0)).unwrap().verdicts[Verdict::Denied as usize];
                assert!(denied > 0 || count < 1000, "{count} prefixes deny none");
            }
        }
    });
    println!("\n## Deny prefixes: time per SYN by BPF_PROG_TEST_RUN, {rounds} rounds\n");
    println!(
        "| prefixes | bare XDP_PASS, ns | SYN beside the list, ns | to bare XDP_PASS | the list is written, ms |"
    );
    println!("|---|---|---|---|---|");
    let (mut times, mut writes) = (Vec::new(), Vec::new());
    for (count, place) in prefixes.iter().zip(&places) {
        println!(
            "| {count} | {} | {} | {:.2} | {} |",
            place.bare.shown(1),
            place.beside.shown(1),
            place.beside.to(&place.bare),
            place.load_millis.shown(1),
        );
        times.push((count.to_string(), place.beside.median()));
        if *count >= 1000 {
            let each = place.load_millis.median() * 1000.0 / *count as f64;
            writes.push((count.to_string(), each));
        }
    }
    println!(
        "\nMedian (least to most). SYNs of 16 million random sources of 10.0.0.0/8, addresses of \
         the list at random from there: few SYNs are denied, all are looked up.\n"
    );
    println!("{}", knee("SYN beside the list", "ns", &times));
    println!(
        "{}",
        knee("writing the list, for each prefix", "µs", &writes)
    );
}
