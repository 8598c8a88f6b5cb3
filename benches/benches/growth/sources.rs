//! Time per SYN, the more sources there are.

use nomail_common::verdict::Verdict;
use nomail_tests::{
    foreign::Program,
    frames::Segment,
    generator::{Generator, Then},
    lab::Lab,
};

use crate::{
    Measured, knee,
    program::{CHALLENGING, NO_BOUND, all_are, guard, policy, syns},
};

/// Sources, as powers of two: 1 to 16 million.
const BITS: [u32; 10] = [0, 4, 8, 12, 14, 16, 18, 20, 22, 24];
const BITS_QUICK: [u32; 5] = [0, 8, 16, 20, 24];

#[derive(Default)]
struct Place {
    bare: Measured,
    passes: Measured,
    challenged: Measured,
}

pub(crate) fn print(quick: bool) {
    let (rounds, runs, bits) = if quick {
        (2, 200_000, &BITS_QUICK[..])
    } else {
        (7, 400_000, &BITS[..])
    };
    let mut places: Vec<(u32, Place)> = bits.iter().map(|&bits| (bits, Place::default())).collect();
    let lab = Lab::new();
    lab.host.within(|| {
        for _ in 0..rounds {
            round(&mut places, runs);
        }
    });
    println!("\n## Sources: time per SYN by BPF_PROG_TEST_RUN, {rounds} rounds\n");
    println!(
        "| sources | bare XDP_PASS, ns | passes, ns | to bare XDP_PASS | challenged, ns | to bare XDP_PASS |"
    );
    println!("|---|---|---|---|---|---|");
    let (mut passes, mut challenged) = (Vec::new(), Vec::new());
    for (bits, place) in &places {
        let sources = (1u64 << bits).to_string();
        println!(
            "| {sources} | {} | {} | {:.2} | {} | {:.2} |",
            place.bare.shown(1),
            place.passes.shown(1),
            place.passes.to(&place.bare),
            place.challenged.shown(1),
            place.challenged.to(&place.bare),
        );
        passes.push((sources.clone(), place.passes.median()));
        challenged.push((sources, place.challenged.median()));
    }
    println!(
        "\nMedian (least to most). Each SYN has a source and a port at random; what it takes to \
         make it is taken off. The table has 65,536 places: above, a SYN that passes takes the \
         place of another source. A stranger that is challenged takes none.\n"
    );
    println!("{}", knee("SYN that passes", "ns", &passes));
    println!("{}", knee("SYN that is challenged", "ns", &challenged));
}

fn round(places: &mut [(u32, Place)], runs: u32) {
    let bare = Program::load("bare");
    let frame = Segment::syn("198.51.100.1:40000", "192.0.2.1:25").frame();
    let (passing, passing_program) = guard(&policy(NO_BOUND));
    let (challenging, challenging_program) = guard(&policy(CHALLENGING));
    for (bits, place) in places.iter_mut() {
        let time = |program: &Program| {
            let maker = Generator::load(&syns(*bits), &Then::Call(program));
            // The first run finds the sources of the place before it.
            maker.test_run(runs);
            maker.test_run(runs)
        };
        let base = f64::from(bare.test_run(&frame, runs));
        let making = time(&bare) - base;
        place.bare.add(base);
        place.passes.add(time(&passing_program) - making);
        place.challenged.add(time(&challenging_program) - making);
    }
    all_are(&passing, Verdict::Passed);
    all_are(&challenging, Verdict::Flood);
}
