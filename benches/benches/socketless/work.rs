//! The time of the receiving CPU for an exchange: XDP, and the listener.

use std::{fs, time::Duration};

use nomail_tests::{
    agent::Agent,
    rig::{RECEIVING_CPU, Rig, worked},
};

use crate::{HOST, House, XDP, median, met, plan, spread};

/// Exchanges a second: so few that each packet wakes the receiver, and so many that
/// some arrive together.
const RATES: [u32; 2] = [1000, 4000];
/// An exchange of the measured ones takes no longer, or the round does not count.
const PATIENCE: Duration = Duration::from_secs(5);
/// Else the guard would challenge some of the listener's clients at these rates.
const NO_CAP: &str = "unproven_rate = 50000";
/// Most that XDP may take of the listener's time.
const GOAL: f64 = 0.4;

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Xdp,
    Listener,
    Alone,
}

impl Answers {
    const ALL: [Self; 3] = [Self::Xdp, Self::Listener, Self::Alone];

    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "**XDP**, `responder = \"xdp\"`",
            Self::Listener => "the listener, behind the guard",
            Self::Alone => "the listener, `xdp_mode = \"off\"`",
        }
    }

    /// What the agent's file says of it.
    const fn keys(self) -> &'static str {
        match self {
            Self::Xdp => XDP,
            Self::Listener => "xdp_mode = \"native\"",
            Self::Alone => "xdp_mode = \"off\"",
        }
    }
}

/// What was measured, round by round: microseconds an exchange.
#[derive(Default)]
struct Column {
    receiver: Vec<f64>,
    agent: Vec<f64>,
    all: Vec<f64>,
    frames: Vec<f64>,
    exchanges: usize,
}

pub(crate) fn print(quick: bool) {
    let (rounds, count) = if quick { (1, 800) } else { (9, 4000) };
    println!("## The host's work for an exchange, {rounds} rounds in turns\n");
    println!(
        "| answers | exchanges/s | exchanges | frames received each | receiver, µs | agent, µs | \
         together, µs | XDP to it | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for rate in RATES {
        let mut columns = Answers::ALL.map(|answers| (answers, Column::default()));
        for round in 0..rounds {
            // None is always first.
            for turn in 0..columns.len() {
                let at = (round + turn) % columns.len();
                let (answers, column) = &mut columns[at];
                measure(*answers, count, rate, column);
            }
        }
        let [(_, xdp), ..] = &columns;
        for (answers, column) in &columns {
            let ratios: Vec<_> = xdp
                .all
                .iter()
                .zip(&column.all)
                .map(|(of, to)| of / to)
                .collect();
            let judged = if *answers == Answers::Xdp {
                "| | |".to_owned()
            } else {
                let is_met = median(&ratios) <= GOAL;
                format!("{} | {GOAL} | {} |", spread(&ratios, 2), met(is_met))
            };
            println!(
                "| {} | {rate} | {} | {:.1} | {} | {} | {} | {judged}",
                answers.name(),
                column.exchanges,
                median(&column.frames),
                spread(&column.receiver, 1),
                spread(&column.agent, 1),
                spread(&column.all, 1),
            );
        }
    }
    println!(
        "\nAn exchange: connect, greeting, QUIT, 221, end; with XDP the proof of the address before \
         it, too. Receiver: what the kernel says that the thread worked which receives on CPU \
         {RECEIVING_CPU}, the network stack included; agent: all of its threads, with their system \
         calls, on the same CPU. Medians of the rounds (least to most), each on a fresh pair of \
         namespaces; a ratio is the median of the ratios within rounds. All exchanges were served, or \
         the bench would have failed.\n"
    );
}

fn measure(answers: Answers, count: usize, rate: u32, column: &mut Column) {
    let House { agent, rig, .. } = &House::new(Rig::new(0), answers.keys(), NO_CAP);
    // Each address once: neighbours, routes and code are then where they stay.
    let first = plan(HOST, 128, rate, PATIENCE);
    rig.honest(|| first.run());
    let plan = plan(HOST, count, rate, PATIENCE);
    let before = (rig.read(), agent_worked(agent));
    let outcome = rig.honest(|| plan.run());
    let agent = agent_worked(agent) - before.1;
    let work = rig.since(&before.0);
    assert_eq!(
        outcome.served,
        outcome.begun,
        "{}: {outcome:?}",
        answers.name()
    );
    let each = |nanoseconds: f64| nanoseconds / 1000.0 / outcome.served as f64;
    column.receiver.push(each(work.nanoseconds));
    column.agent.push(each(agent as f64));
    column.all.push(each(work.nanoseconds + agent as f64));
    column
        .frames
        .push(work.frames as f64 / outcome.served as f64);
    column.exchanges += outcome.served;
}

/// Nanoseconds that all threads of an agent have run.
fn agent_worked(agent: &Agent) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    tasks
        .map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .map(worked)
        .sum()
}
