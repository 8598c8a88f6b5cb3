//! How the guard holds: time per frame, and honest clients under floods of SYNs,
//! beside what else holds floods off. Prints Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

mod bulk;
mod frames;
mod live;

use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    // For work on one part: `--only frames`.
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1));
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let start = Instant::now();
    if wanted("frames") {
        frames::print(quick);
    }
    if wanted("bulk") {
        bulk::print(quick);
    }
    if wanted("live") {
        live::print(quick);
    }
    println!(
        "\n{} Took {:.0} s. {}",
        if quick {
            "--quick: fewer rounds, connections, floods and guards."
        } else {
            ""
        },
        start.elapsed().as_secs_f64(),
        environment()
    );
}

fn environment() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load = load.split(' ').next().unwrap().to_owned();
    let cpus = std::thread::available_parallelism().unwrap();
    format!(
        "Linux {}, {cpus} CPUs, load {load} at the end.",
        release.trim()
    )
}

/// Whether a goal is met, as the table says it.
fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**MISSED**" }
}

fn median(measured: &mut [f64]) -> f64 {
    measured.sort_by(f64::total_cmp);
    let half = measured.len() / 2;
    if measured.len().is_multiple_of(2) {
        (measured[half - 1] + measured[half]) / 2.0
    } else {
        measured[half]
    }
}
