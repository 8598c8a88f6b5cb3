//! How cost grows with sources, with the rate of a flood, with held connections, deny
//! prefixes, relay domains and CPUs. Prints Markdown, with a sentence on each knee.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

mod cpus;
mod deny;
mod domains;
mod flood;
mod held;
mod program;
mod sources;

use std::{env, fs, io::Write as _, time::Instant};

use nomail_benches::{epoll_loop, peers};

/// What costs so many times as much as at first is said to have a knee there.
const KNEE: f64 = 1.5;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let given = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if given(peers::EPOLL_LOOP) {
        epoll_loop::serve(peers::target()).unwrap();
    }
    let quick = given("--quick");
    // For work on one part: `--only sources`.
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1));
    let start = Instant::now();
    for (part, print) in [
        ("sources", sources::print as fn(bool)),
        ("flood", flood::print),
        ("held", held::print),
        ("deny", deny::print),
        ("domains", domains::print),
        ("cpus", cpus::print),
    ] {
        if only.is_none_or(|only| only == part) {
            say(part);
            print(quick);
            say(&format!("{:.0} s so far", start.elapsed().as_secs_f64()));
        }
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "\n{}A knee is the first place at which a figure is more than {KNEE} times what it is at \
         the first place. Took {:.0} s. Linux {}, {} CPUs, load {} at the end.",
        if quick {
            "--quick: fewer rounds, fewer places of each row, fewer guards and servers. "
        } else {
            ""
        },
        start.elapsed().as_secs_f64(),
        release.trim(),
        std::thread::available_parallelism().unwrap(),
        load.split(' ').next().unwrap()
    );
}

/// Progress, beside the tables.
fn say(text: &str) {
    // Nothing depends on it.
    let _ = writeln!(std::io::stderr(), "growth: {text}");
}

/// What was measured at one place, round by round.
#[derive(Clone, Debug, Default)]
struct Measured(Vec<f64>);

impl Measured {
    fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one; of none, not a number.
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even.is_multiple_of(2) => (sorted[half - 1] + sorted[half]) / 2.0,
            _ => sorted[half],
        }
    }

    /// Median, least and most.
    fn shown(&self, digits: usize) -> String {
        if self.0.is_empty() {
            return "–".to_owned();
        }
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = self.median();
        format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
    }

    /// The median of the ratios, round by round: the neighbours of a round met the same
    /// machine.
    fn to(&self, floor: &Self) -> f64 {
        let ratios = self.0.iter().zip(&floor.0).map(|(of, to)| of / to);
        Self(ratios.collect()).median()
    }
}

/// The sentence on the knee of one figure, `unit` behind it, by its places in order.
fn knee(what: &str, unit: &str, points: &[(String, f64)]) -> String {
    let measured: Vec<_> = points
        .iter()
        .filter(|(_, value)| value.is_finite())
        .collect();
    let Some((first_place, first)) = measured.first() else {
        return format!("- {what}: not measured.");
    };
    match measured.iter().find(|(_, value)| *value > first * KNEE) {
        Some((place, value)) => format!(
            "- {what}: the knee is at {place}, with {value:.1} {unit} against {first:.1} at \
             {first_place}."
        ),
        None => {
            let most = measured.iter().map(|(_, value)| value / first);
            let most = most.fold(0.0, f64::max);
            format!(
                "- {what}: no knee; at most {most:.2} times the {first:.1} {unit} at {first_place}."
            )
        }
    }
}
