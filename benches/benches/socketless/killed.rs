//! Agents that are killed and started anew under exchanges, beside the same without.

use std::{
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{bpffs::Bpffs, honest::Outcome, rig::Rig};

use crate::{HOST, House, XDP, met, plan, served, start, waits};

/// Exchanges a second.
const RATE: u32 = 1000;
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the start to the first kill, from a kill to the next agent, and from its start to
/// the next kill.
const PAUSE: Duration = Duration::from_millis(700);

#[derive(Default)]
struct Side {
    honest: Outcome,
    kills: usize,
    /// Time without an agent, while exchanges went on.
    without: Duration,
}

pub(crate) fn print(quick: bool) {
    let (rounds, count, kills) = if quick { (1, 2500, 1) } else { (3, 5000, 2) };
    println!(
        "## Agents killed under exchanges, `on_exit = \"keep\"`, {rounds} rounds of each in turns\n"
    );
    println!(
        "| | exchanges, served to the end (95 %) | refused; timed out | begun a second | greeted after \
         ms, median; 99 %; most | without an agent, s | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let (mut without, mut with) = (Side::default(), Side::default());
    for round in 0..rounds {
        // Neither is always first.
        for turn in 0..2 {
            if (round + turn) % 2 == 1 {
                go(count, kills, &mut with);
            } else {
                go(count, 0, &mut without);
            }
        }
    }
    report("the agent lives", &without);
    let name = format!(
        "it is killed (SIGKILL) and started anew, {} times",
        with.kills
    );
    report(&name, &with);
    let more = lost(&with) - lost(&without);
    let error = uncertainty(&with.honest, &without.honest);
    println!(
        "| more lost with kills | {:.3} % (± {:.3}) | | | | | 0 | {} |\n",
        more * 100.0,
        error * 100.0,
        met(more <= error)
    );
    println!(
        "Each round on a fresh pair of namespaces; {RATE} exchanges a second wanted, from 128 \
         addresses, each greeted, QUIT answered, closed, within 5 s. Killed after {} ms, the next \
         agent started as long after the death of the one before; without an agent: until the next \
         one serves.\n",
        PAUSE.as_millis()
    );
}

fn go(count: usize, kills: usize, side: &mut Side) {
    let bpffs = Bpffs::mount();
    let keep = format!("{XDP}\non_exit = \"keep\"\npin_dir = \"{}\"", bpffs.pins());
    let mut house = House::new(Rig::new(0), &keep, "");
    let plan = plan(HOST, count, RATE, PATIENCE);
    let rig = &house.rig;
    let begun = Instant::now();
    let mut gaps = Vec::new();
    let honest = thread::scope(|scope| {
        let honest = scope.spawn(|| rig.honest(|| plan.run()));
        for _ in 0..kills {
            sleep(PAUSE);
            // Where the machine is slow, the exchanges are through by now.
            if honest.is_finished() {
                break;
            }
            let killed = Instant::now();
            house.agent.signal(Signal::SIGKILL);
            house.agent.wait();
            sleep(PAUSE);
            house.agent = start(rig, &house.arguments);
            gaps.push((killed, Instant::now()));
        }
        honest.join().unwrap()
    });
    house.agent.stop();
    // Only while exchanges were begun.
    let end = begun + honest.beginning;
    side.kills += gaps.len();
    side.without += gaps
        .iter()
        .map(|(killed, served)| (*served).min(end).saturating_duration_since(*killed))
        .sum::<Duration>();
    side.honest.add(&honest);
}

fn report(name: &str, side: &Side) {
    println!(
        "| {name} | {} | {}; {} | {:.0} | {} | {:.1} | | |",
        served(&side.honest),
        side.honest.refused,
        side.honest.failed() - side.honest.refused,
        side.honest.rate(),
        waits(&side.honest),
        side.without.as_secs_f64()
    );
}

fn lost(side: &Side) -> f64 {
    side.honest.failed() as f64 / side.honest.begun as f64
}

/// Half of the interval in which the difference of two shares lies with 95 %, each
/// by Wilson's interval (Newcombe's method).
fn uncertainty(with: &Outcome, without: &Outcome) -> f64 {
    let (share, least, _) = with.share();
    let (other, _, most) = without.share();
    ((share - least).powi(2) + (most - other).powi(2)).sqrt()
}
