//! Reloads of long deny lists, and who is served meanwhile.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use nomail_tests::{honest::Outcome, rig::worked};

use crate::{House, SYNS, met, millis, served, waits};

/// Prefixes of a family.
const PREFIXES: u32 = 100_000;
/// What a reload may take.
const GOAL: Duration = Duration::from_secs(2);
/// Of the flood in the rows that have one.
const FLOOD_RATE: u32 = 1_000_000;

#[derive(Clone, Copy)]
enum Denied {
    Ipv4,
    Both,
}

impl Denied {
    /// Two numbers give lists that have no prefix in common.
    fn text(self, number: u32) -> String {
        let mut text = String::new();
        for place in 0..PREFIXES {
            // Spread over all that is not the clients'.
            let address = Ipv4Addr::from_bits(0x0b00_0000 + place * 2311 + number);
            writeln!(text, "{address}").unwrap();
            if matches!(self, Self::Both) {
                let spread = u128::from(place) * 0x9e37_79b9_7f4a_7c15;
                let address = 0x2400 << 112 | (spread & 0xffff_ffff_ffff) << 64;
                let address = Ipv6Addr::from_bits(address ^ u128::from(number) << 64);
                writeln!(text, "{address}/64").unwrap();
            }
        }
        text
    }
}

pub(crate) fn print(quick: bool) {
    let (rounds, count, floods) = if quick {
        (1, 1200, &[0][..])
    } else {
        (2, 4000, &[0, FLOOD_RATE][..])
    };
    println!("\n## Reloads of long deny lists, the slowest of {rounds} each\n");
    println!(
        "| deny list | flood | reload ms | of them the agent's own ms | honest meanwhile, served (95 %) \
         | greeted after ms, median; 99 %; most | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &flood in floods {
        let house = House::new();
        let mut none = Outcome::default();
        for _ in 0..rounds {
            under(&house, flood, || none.add(&house.honest(count)));
        }
        row("no reload", flood, None, &none);
        let mut number = 0;
        for (name, denied, whole) in [
            (format!("{PREFIXES} IPv4 addresses"), Denied::Ipv4, true),
            (
                format!("{PREFIXES} IPv4 addresses, {PREFIXES} IPv6 prefixes"),
                Denied::Both,
                true,
            ),
            (
                "one prefix more than the last".to_owned(),
                Denied::Both,
                false,
            ),
        ] {
            // Both sets of maps are as full before as they are after.
            for _ in 0..2 {
                number += u32::from(whole);
                house.deny(&denied.text(number));
                house.reload();
            }
            let mut slowest = (Duration::ZERO, Duration::ZERO);
            let mut honest = Outcome::default();
            for round in 0..rounds {
                number += u32::from(whole);
                let mut text = denied.text(number);
                if !whole {
                    writeln!(text, "203.0.{round}.1").unwrap();
                }
                house.deny(&text);
                under(&house, flood, || {
                    thread::scope(|scope| {
                        let clients = scope.spawn(|| house.honest(count));
                        thread::sleep(Duration::from_millis(500));
                        let before = worked(house.agent.pid().as_raw());
                        let took = house.reload();
                        let after = worked(house.agent.pid().as_raw());
                        let own = Duration::from_nanos(after - before);
                        slowest = slowest.max((took, own));
                        assert_eq!(house.in_effect(), house.latest());
                        honest.add(&clients.join().unwrap());
                    });
                });
            }
            row(&name, flood, Some(slowest), &honest);
        }
        house.stop();
    }
    println!(
        "\nFrom SIGHUP to the line of the log. A list replaces one of the same length of which \
         nothing stays, but for the last row. The connections begin half a second before the reload, and go on after it. \
         Under the flood the agent, on the CPU that receives, waits for it: that is what the reload \
         takes beside the agent's own milliseconds."
    );
}

fn under(house: &House, flood: u32, work: impl FnOnce()) {
    if flood == 0 {
        work();
    } else {
        house.rig.flooded(&SYNS, flood, work);
    }
}

fn row(name: &str, flood: u32, took: Option<(Duration, Duration)>, honest: &Outcome) {
    let (reload, own, goal, said) = match took {
        Some((took, own)) => (
            millis(took),
            millis(own),
            if flood == 0 {
                GOAL.as_millis().to_string()
            } else {
                String::new()
            },
            if flood == 0 { met(took < GOAL) } else { "" },
        ),
        None => Default::default(),
    };
    let flood = match flood {
        0 => "none".to_owned(),
        rate => format!("{} Mpps", f64::from(rate) / 1e6),
    };
    println!(
        "| {name} | {flood} | {reload} | {own} | {} | {} | {goal} | {said} |",
        served(honest),
        waits(honest)
    );
}
