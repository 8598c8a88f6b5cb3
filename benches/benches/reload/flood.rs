//! Reloads while a flood is held off, beside the same without them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nomail_tests::{
    honest::Outcome,
    rig::{SynCount, Work},
};

use crate::{HONEST_RATE, House, SYNS, met, millis, served, waits};

/// Forged SYNs a second.
const FLOOD_RATE: u32 = 1_000_000;
/// From one reload to the next.
const RELOAD_INTERVAL: Duration = Duration::from_millis(400);
/// How long a flood lasts before anything is measured.
const SETTLED: Duration = Duration::from_millis(700);

#[derive(Default)]
struct Side {
    honest: Outcome,
    work: Work,
    /// What the kernel saw.
    syns: SynCount,
    /// What the agent counted, and the sum of its verdicts.
    counted: u64,
    verdicts: u64,
    reloads: Vec<Duration>,
}

pub(crate) fn print(quick: bool) {
    let (rounds, count) = if quick { (1, 1500) } else { (6, 4000) };
    println!("## Reloads under a flood, {rounds} rounds of each in turns\n");
    println!(
        "| | honest, served (95 %) | refused; timed out | begun a second | greeted after ms, \
         median; 99 %; most | flood, Mpps offered; received | receiving CPU busy with it | SYNs received, forged + honest | SYNs counted | \
         sum of verdicts | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let (mut without, mut with) = (Side::default(), Side::default());
    for round in 0..rounds {
        let house = House::new();
        // Neither is always first.
        for turn in 0..2 {
            let reloading = (round + turn) % 2 == 1;
            let side = if reloading { &mut with } else { &mut without };
            go(&house, reloading, count, side);
        }
        house.stop();
    }
    let flood = format!("{} Mpps of forged SYNs wanted", f64::from(FLOOD_RATE) / 1e6);
    report(&flood, &without);
    with.reloads.sort_unstable();
    let name = format!("the same with {} reloads", with.reloads.len());
    report(&name, &with);
    let more = with.honest.failed() as f64 / with.honest.begun as f64
        - without.honest.failed() as f64 / without.honest.begun as f64;
    let error = uncertainty(&with.honest, &without.honest);
    println!(
        "| more lost with reloads | {:.3} % (± {:.3}; goal: 0) | | | | | | | | | {} |",
        more * 100.0,
        error * 100.0,
        met(more <= error)
    );
    let took = |share: f64| {
        let last = with.reloads.len() - 1;
        millis(with.reloads[(last as f64 * share) as usize])
    };
    println!(
        "\nEach reload changes limits, the deny list and the name in the greeting, and was in effect \
         after {} ms (median; at most {} ms), one every {} ms. Honest: {HONEST_RATE} connections a \
         second wanted, each greeted, QUIT answered, closed, within 2 s. SYNs received: what the \
         kernel put into the host's ring of the flood, and what the client's TCP sent (ActiveOpens, \
         TCPSynRetrans), less {} of its frames that found no room there; counted before the flood and \
         when the wire is quiet again.",
        took(0.5),
        took(1.0),
        RELOAD_INTERVAL.as_millis(),
        without.syns.lost + with.syns.lost
    );
}

fn go(house: &House, reloading: bool, count: usize, side: &mut Side) {
    house.rig.until_quiet();
    let verdicts = || {
        let status = house.agent.status();
        let syn = status["syn"].as_object().unwrap();
        let of = |name: &str| syn[name].as_u64().unwrap();
        let all: u64 = syn.keys().map(|name| of(name)).sum();
        (of("total"), all - of("total"))
    };
    let (before, counted) = (house.rig.syns(), verdicts());
    let over = AtomicBool::new(false);
    house.rig.flooded(&SYNS, FLOOD_RATE, || {
        sleep(SETTLED);
        thread::scope(|scope| {
            let reloads = scope.spawn(|| {
                let mut took = Vec::new();
                while reloading && !over.load(Ordering::Relaxed) {
                    let next = Instant::now() + RELOAD_INTERVAL;
                    took.push(house.reload());
                    sleep(next.saturating_duration_since(Instant::now()));
                }
                took
            });
            let reading = house.rig.read();
            side.honest.add(&house.honest(count));
            side.work.add(&house.rig.since(&reading));
            over.store(true, Ordering::Relaxed);
            side.reloads.extend(reloads.join().unwrap());
        });
    });
    house.rig.until_quiet();
    assert_eq!(house.in_effect(), house.latest());
    let syns = house.rig.syns().since(&before);
    side.syns.forged += syns.forged;
    side.syns.honest += syns.honest;
    side.syns.lost += syns.lost;
    let after = verdicts();
    side.counted += after.0 - counted.0;
    side.verdicts += after.1 - counted.1;
}

fn report(name: &str, side: &Side) {
    let received = side.syns.forged + side.syns.honest;
    // A frame that was lost may have been a SYN.
    let possible = received - side.syns.lost..=received;
    println!(
        "| {name} | {} | {}; {} | {:.0} | {} | {:.2}; {:.2} | {:.0} % | {received} = {} + {} | {} | {} | {} |",
        served(&side.honest),
        side.honest.refused,
        side.honest.failed() - side.honest.refused,
        side.honest.rate(),
        waits(&side.honest),
        (side.work.frames + side.work.lost) as f64 / side.work.seconds / 1e6,
        side.work.rate() / 1e6,
        side.work.nanoseconds / side.work.seconds / 1e7,
        side.syns.forged,
        side.syns.honest,
        side.counted,
        side.verdicts,
        met(possible.contains(&side.counted) && side.counted == side.verdicts)
    );
}

/// Half of the interval in which the difference of two shares lies with 95 %, each
/// by Wilson's interval (Newcombe's method).
fn uncertainty(with: &Outcome, without: &Outcome) -> f64 {
    let (share, least, _) = with.share();
    let (other, _, most) = without.share();
    ((share - least).powi(2) + (most - other).powi(2)).sqrt()
}
