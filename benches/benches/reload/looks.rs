//! Looks at the figures while the table of sources is full, and who is served
//! meanwhile.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nomail_common::abi::{LINES, SLOTS_PER_LINE};
use nomail_tests::{honest::Outcome, http, rig::worked};

use crate::{House, SYNS, met, millis, served, waits};

const METRICS: &str = "127.0.0.1:9521";
/// What a look may take of the agent's thread that is not the one that serves.
const GOAL: Duration = Duration::from_millis(20);
/// Longer than any figure is kept for others who ask: each look is one.
const APART: Duration = Duration::from_millis(1200);

pub(crate) fn print(quick: bool) {
    let (looks, count) = if quick { (1, 1200) } else { (6, 4000) };
    let places = LINES as u64 * SLOTS_PER_LINE as u64;
    // In a flood strangers do not enter it. So this is none, for long enough.
    let house = House::with("[limits]\nunproven_rate = 50000\n");
    house.rig.flooded(&SYNS, 0, || {
        let full = Instant::now() + Duration::from_secs(8);
        // The last places take long: who comes is a stranger to none of them.
        while Instant::now() < full && house.agent.count("/sources_tracked") * 20 < places * 19 {
            sleep(Duration::from_millis(100));
        }
    });
    house.rig.until_quiet();
    let tracked = house.agent.count("/sources_tracked");
    assert!(tracked * 10 > places * 9, "{tracked}: it has to be full");
    println!("\n## Looks at the figures, {tracked} sources in the table of {places}\n");
    println!(
        "| look | answered after ms, median; most | of the agent's main thread ms, median; most | octets \
         | honest meanwhile, served (95 %) | greeted after ms, median; 99 %; most | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut none = Outcome::default();
    while none.begun < looks * 1200 {
        none.add(&house.honest(count));
    }
    println!("| none | | | | {} | {} | | |", served(&none), waits(&none));
    let over_http = |path: &'static str| {
        move |house: &House| http::get(&house.rig.lab.host, METRICS, path).body.len()
    };
    look_by(&house, looks, "`/metrics`", &over_http("/metrics"));
    look_by(&house, looks, "`/`", &over_http("/"));
    look_by(&house, looks, "`/status.json`", &over_http("/status.json"));
    for sources in [20, 1000, 65_536] {
        let name = format!("`status --sources {sources}`");
        look_by(&house, looks, &name, &|house| ask(house, sources));
    }
    house.stop();
    println!(
        "\n{looks} looks of each kind, {} ms apart, so that none is answered from an earlier one. \
         Goal: milliseconds of the thread. It is the one that tells, not the one that serves.",
        APART.as_millis()
    );
}

fn look_by(house: &House, looks: usize, name: &str, look: &(dyn Fn(&House) -> usize + Sync)) {
    let over = AtomicBool::new(false);
    let mut honest = Outcome::default();
    let (mut answered, mut cost, mut octets) = (Vec::new(), Vec::new(), 0);
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut honest = Outcome::default();
            while !over.load(Ordering::Relaxed) {
                honest.add(&house.honest(1000));
            }
            honest
        });
        let thread = house.agent.pid().as_raw();
        for _ in 0..looks {
            sleep(APART);
            let (begun, before) = (Instant::now(), worked(thread));
            octets = look(house);
            answered.push(begun.elapsed());
            cost.push(Duration::from_nanos(worked(thread) - before));
        }
        over.store(true, Ordering::Relaxed);
        honest.add(&clients.join().unwrap());
    });
    answered.sort_unstable();
    cost.sort_unstable();
    let shown = |times: &[Duration]| {
        let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
        format!("{}; {}", millis(middle), millis(most))
    };
    let (goal, said) = match name.contains("65536") {
        // Who asks for all of the table has it written out.
        true => (String::new(), ""),
        false => {
            let is_met = cost[cost.len() / 2] <= GOAL;
            (GOAL.as_millis().to_string(), met(is_met))
        }
    };
    println!(
        "| {name} | {} | {} | {octets} | {} | {} | {goal} | {said} |",
        shown(&answered),
        shown(&cost),
        served(&honest),
        waits(&honest)
    );
}

/// Asks as `nomail-agent status` does, and gives the length of the answer.
fn ask(house: &House, sources: usize) -> usize {
    let mut stream = UnixStream::connect(house.agent.control()).unwrap();
    writeln!(stream, "status {sources}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.len()
}
