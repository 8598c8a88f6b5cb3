//! Mail servers that refuse all mail, side by side in one run: exchanges, and
//! connections held. Prints Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

mod exchanges;
mod figures;
mod held;

use std::{env, io::Write as _, time::Duration};

use nomail_benches::{
    epoll_loop,
    peers::{EPOLL_LOOP, Packages, target},
};

/// How much is measured.
struct Scope {
    rounds: usize,
    warm_up: Duration,
    window: Duration,
    /// By all servers.
    few: usize,
    /// By the agent.
    held: usize,
    /// New clients meanwhile.
    probes: u32,
    idle: Duration,
}

const FULL: Scope = Scope {
    rounds: 11,
    warm_up: Duration::from_millis(200),
    window: Duration::from_secs(1),
    few: 1_000,
    held: 100_000,
    probes: 1_000,
    idle: Duration::from_secs(10),
};
const QUICK: Scope = Scope {
    rounds: 2,
    warm_up: Duration::from_millis(50),
    window: Duration::from_millis(250),
    few: 100,
    held: 5_000,
    probes: 200,
    idle: Duration::from_secs(2),
};

/// Only the agent with all the connections of the goal: what the guest runs.
const HELD: &str = "--held";

fn main() {
    let given = |wanted: &str| env::args().any(|argument| argument == wanted);
    if given(EPOLL_LOOP) {
        epoll_loop::serve(target()).unwrap();
    }
    let quick = given("--quick");
    let scope = if quick { QUICK } else { FULL };
    if given(HELD) {
        held::section(&FULL);
        return;
    }
    let packages = Packages::install();
    let mut entries = exchanges::measure(&packages, &scope);
    held::peers(&mut entries, &scope);
    drop(entries);
    held::agent(&scope);
    if quick {
        println!(
            "\n--quick: {} rounds of {:?} instead of {} of {:?}; {} connections held by each server \
             instead of {}, {} by the agent instead of {}, with {} new clients instead of {}; {:?} \
             of idling instead of {:?}; nothing else was left out.",
            QUICK.rounds,
            QUICK.window,
            FULL.rounds,
            FULL.window,
            QUICK.few,
            FULL.few,
            QUICK.held,
            FULL.held,
            QUICK.probes,
            FULL.probes,
            QUICK.idle,
            FULL.idle
        );
    }
}

/// Progress, beside the table.
fn say(text: &str) {
    // Nothing depends on it.
    let _ = writeln!(std::io::stderr(), "smtp: {text}");
}
