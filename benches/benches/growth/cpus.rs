//! SYNs judged a second, by one CPU and by two at once.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use nomail_tests::{
    foreign::Program,
    generator::{Generator, Then},
    lab::{HOST_INTERFACE, Lab},
    rig::pin,
};

use crate::{
    Measured,
    program::{CHALLENGING, NO_BOUND, guard, policy, syns},
};

/// SYNs of one call into the kernel: some milliseconds.
const AT_ONCE: u32 = 50_000;
/// An interface for the program on each CPU: the kernel patches its XDP dispatcher for
/// each test run of one that is attached nowhere, with all CPUs.
const INTERFACES: [&str; 2] = ["lo", HOST_INTERFACE];

struct Work {
    name: &'static str,
    /// Sources, as a power of two.
    bits: u32,
    /// None: a bare XDP_PASS.
    program: Option<Program>,
    /// In millions a second, on one CPU and on two.
    rates: [Measured; INTERFACES.len()],
}

pub(crate) fn print(quick: bool) {
    let (rounds, length) = if quick {
        (2, Duration::from_millis(200))
    } else {
        (7, Duration::from_millis(400))
    };
    let lab = Lab::new();
    let mut all = Vec::new();
    lab.host.within(|| {
        let bare = Program::load("bare");
        let (_passing, passing) = guard(&policy(NO_BOUND));
        let (_few, few) = guard(&policy(NO_BOUND));
        let (_challenging, challenging) = guard(&policy(CHALLENGING));
        for (name, bits, program) in [
            ("made, then bare XDP_PASS", 24, None),
            ("made, then passed, 16 million sources", 24, Some(passing)),
            ("made, then passed, 1 source", 0, Some(few)),
            (
                "made, then challenged, 16 million sources",
                24,
                Some(challenging),
            ),
        ] {
            all.push(Work {
                name,
                bits,
                program,
                rates: Default::default(),
            });
        }
        for _ in 0..rounds {
            for work in &mut all {
                let program = work.program.as_ref().unwrap_or(&bare);
                for (cpus, rates) in (1..).zip(&mut work.rates) {
                    rates.add(rate(program, work.bits, cpus, length));
                }
            }
        }
    });
    println!("\n## CPUs: SYNs judged a second by BPF_PROG_TEST_RUN, {rounds} rounds\n");
    println!("| work | CPUs | million a second | to one CPU | to bare XDP_PASS |");
    println!("|---|---|---|---|---|");
    for work in &all {
        for (cpus, rates) in (1..).zip(&work.rates) {
            println!(
                "| {} | {} | {} | {:.2} | {:.2} |",
                work.name,
                if cpus == 1 { "1 CPU" } else { "2 CPUs" },
                rates.shown(2),
                rates.to(&work.rates[0]),
                rates.to(&all[0].rates[cpus - 1]),
            );
        }
    }
    println!(
        "\nMedian (least to most) of {:.1} s each. Each CPU makes SYNs and judges them, so that \
         the making is in each row. What the CPUs share is the table of sources, the cap and the \
         configuration.\n",
        length.as_secs_f64()
    );
    for work in &all {
        let scaling = work.rates[1].to(&work.rates[0]);
        let of_bare = all[0].rates[1].to(&all[0].rates[0]);
        println!(
            "- {}: two CPUs do {scaling:.2} times as many as one{}.",
            work.name,
            if work.program.is_none() {
                ": what this machine gives to anything".to_owned()
            } else if scaling < of_bare / crate::KNEE {
                format!(
                    ", less than the {of_bare:.2} of the bare program: a knee, they wait for each other"
                )
            } else {
                format!(" (the bare program {of_bare:.2}): no knee")
            }
        );
    }
}

/// Millions a second of that many CPUs together.
fn rate(program: &Program, bits: u32, cpus: usize, length: Duration) -> f64 {
    let together = Barrier::new(cpus);
    let rates = std::thread::scope(|scope| {
        let threads: Vec<_> = INTERFACES[..cpus]
            .iter()
            .enumerate()
            .map(|(cpu, interface)| {
                let together = &together;
                scope.spawn(move || {
                    pin(0, cpu);
                    let maker = Generator::load(&syns(bits), &Then::Call(program));
                    let _attached = maker.program().attach(interface);
                    maker.test_run(AT_ONCE);
                    together.wait();
                    let start = Instant::now();
                    let mut runs = 0;
                    while start.elapsed() < length {
                        maker.test_run(AT_ONCE);
                        runs += AT_ONCE;
                    }
                    f64::from(runs) / start.elapsed().as_secs_f64()
                })
            })
            .collect();
        let rates = threads.into_iter().map(|thread| thread.join().unwrap());
        rates.sum::<f64>()
    });
    rates / 1e6
}
