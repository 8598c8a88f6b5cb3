//! Honest clients, and the time of the receiving CPU, the faster a spoofed flood is:
//! behind nomail and behind others.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    thread::sleep,
    time::Duration,
};

use nomail_benches::guards::{self, Guard};
use nomail_tests::{
    generator::{Syns, dropper},
    honest::{Outcome, Plan},
    rig::{FLOOD_MAX, HONEST_COUNT, RECEIVING_CPU, Rig, Work, honest_addresses},
    root::Root,
};

use crate::{Measured, knee, say};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// SYNs a second; 0: as many as the generator can.
const RATES: [u32; 6] = [10_000, 30_000, 100_000, 300_000, 1_000_000, 0];
const RATES_QUICK: [u32; 2] = [100_000, 1_000_000];
/// None: a program that drops everything, and no client.
const GUARDS: [Option<Guard>; 6] = [
    Some(Guard::Nomail),
    Some(Guard::NomailCookie),
    Some(Guard::Kernel),
    Some(Guard::Nft),
    Some(Guard::Hashlimit),
    None,
];
const GUARDS_QUICK: [Option<Guard>; 3] = [Some(Guard::Nomail), Some(Guard::Kernel), None];
/// Honest connections a second.
const HONEST_RATE: u32 = 400;
/// Who is served later is lost: see the benchmark of the guard.
const SOON: Duration = Duration::from_secs(2);
/// How long a flood lasts before anything is measured.
const SETTLED: Duration = Duration::from_millis(700);
/// Below that share served, a guard has failed.
const SERVED_MIN: f64 = 0.99;

const STRANGERS: Syns = Syns {
    source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
    source_mask: 0x7f_ffff,
    port: 1024,
    port_mask: 0x3fff,
    repeated: false,
    destination: HOST,
};

struct Scope {
    rounds: usize,
    honest: usize,
    patience: Duration,
}

/// What was measured behind one guard at one rate.
#[derive(Default)]
struct Cell {
    honest: Outcome,
    work: Work,
    per_frame: Measured,
    failed: Option<String>,
}

pub(crate) fn print(quick: bool) {
    let (scope, rates, all) = if quick {
        let scope = Scope {
            rounds: 1,
            honest: 150,
            patience: Duration::from_millis(2500),
        };
        (scope, &RATES_QUICK[..], &GUARDS_QUICK[..])
    } else {
        let scope = Scope {
            rounds: 2,
            honest: 600,
            patience: Duration::from_secs(5),
        };
        (scope, &RATES[..], &GUARDS[..])
    };
    let root = guards::install();
    let mut cells: Vec<Vec<Cell>> = rates
        .iter()
        .map(|_| all.iter().map(|_| Cell::default()).collect())
        .collect();
    for number in 1..=scope.rounds {
        for (&rate, row) in rates.iter().zip(&mut cells) {
            say(&format!("{} kpps, round {number}", shown_rate(rate)));
            for (&guard, cell) in all.iter().zip(row) {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    round(&scope, guard, rate, root.as_ref(), cell);
                }));
                cell.failed = done.err().map(|panic| guards::reason(&*panic));
            }
        }
    }
    println!("\n## Flood rate: spoofed strangers on a veth pair\n");
    println!(
        "| flood, kpps | guard | honest connections served, % (95 %) | of | greeted within 2 s, % | \
         greeted after, ms | offered, kpps | received | ns per packet | to bare XDP_DROP |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (&rate, row) in rates.iter().zip(&cells) {
        let floor = all.iter().position(Option::is_none);
        let floor = floor.map(|at| &row[at].per_frame);
        for (&guard, cell) in all.iter().zip(row) {
            cell.print(rate, guard, floor);
        }
    }
    println!(
        "\nRounds: {}, each with a fresh pair of namespaces. The receiving thread and the server \
         have CPU {RECEIVING_CPU}, the generator and the honest clients ({HONEST_RATE} connections \
         a second, {HONEST_COUNT} addresses) the other. Served: greeted, QUIT answered, closed, \
         within {:.1} s. The interval is Wilson's; the other spreads are least to most.\n",
        scope.rounds,
        scope.patience.as_secs_f64()
    );
    for (number, guard) in all.iter().enumerate() {
        print_knees(rates, guard.map_or(FLOOR, name), |at| &cells[at][number]);
    }
}

const FLOOR: &str = "bare XDP_DROP";

/// As the plots and the sentences call it.
fn name(guard: Guard) -> &'static str {
    match guard {
        Guard::Nomail => "nomail",
        Guard::NomailCookie => "nomail, cookie",
        Guard::Kernel => "kernel, SYN cookies",
        Guard::Nft => "nft dynamic set",
        other => other.name(),
    }
}

fn shown_rate(rate: u32) -> String {
    match rate {
        0 => "at most".to_owned(),
        rate => (rate / 1000).to_string(),
    }
}

fn round(
    scope: &Scope,
    guard: Option<Guard>,
    rate: u32,
    root: Result<&Root, &String>,
    cell: &mut Cell,
) {
    let rig = Rig::new(0);
    let Some(guard) = guard else {
        let _dropper = guards::on_host(&rig, &dropper());
        let work = rig.flooded(&STRANGERS, rate, || {
            sleep(SETTLED / 2);
            let before = rig.read();
            sleep(SETTLED);
            rig.since(&before)
        });
        cell.per_frame.add(work.per_frame());
        cell.work.add(&work);
        return;
    };
    let _set = guards::set_up(&rig, guard, root);
    let agent = guards::serve(&rig, guard, guards::LIMIT, None);
    let plan = Plan {
        from: honest_addresses(HOST),
        to: SocketAddr::new(HOST, 25),
        count: scope.honest,
        rate: HONEST_RATE,
        timeout: scope.patience,
    };
    let (honest, mut work) = rig.flooded(&STRANGERS, rate, || {
        sleep(SETTLED);
        let before = rig.read();
        let honest = rig.honest(|| plan.run());
        (honest, rig.since(&before))
    });
    agent.stop();
    // The honest may take longer than a flood may last.
    work.seconds = work.seconds.min((FLOOD_MAX - SETTLED).as_secs_f64());
    cell.per_frame.add(work.per_frame());
    cell.work.add(&work);
    cell.honest.add(&honest);
}

impl Cell {
    fn print(&self, rate: u32, guard: Option<Guard>, floor: Option<&Measured>) {
        let rate = shown_rate(rate);
        let name = guard.map_or(FLOOR, name);
        if let Some(reason) = &self.failed {
            println!("| {rate} | {name} | not measured: {reason} | | | | | | | |");
            return;
        }
        let honest = &self.honest;
        let begun = honest.begun;
        let served = if guard.is_none() {
            "none tried | | | ".to_owned()
        } else {
            let (share, least, most) = honest.share();
            let soon = honest.greeted.partition_point(|time| *time <= SOON);
            format!(
                "{:.2} ({:.2} to {:.2}) | {begun} | {:.2} | {}",
                share * 100.0,
                least * 100.0,
                most * 100.0,
                100.0 * soon as f64 / begun.max(1) as f64,
                honest.median().map_or("–".to_owned(), |time| format!(
                    "{:.1}",
                    time.as_secs_f64() * 1000.0
                ))
            )
        };
        println!(
            "| {rate} | {name} | {served} | {:.0} | {:.0} | {} | {} |",
            (self.work.frames + self.work.lost) as f64 / self.work.seconds / 1000.0,
            self.work.rate() / 1000.0,
            self.per_frame.shown(0),
            floor.map_or(String::new(), |floor| format!(
                "{:.2}",
                self.per_frame.to(floor)
            )),
        );
    }
}

fn print_knees<'a>(rates: &[u32], name: &str, cell: impl Fn(usize) -> &'a Cell) {
    let places = || rates.iter().enumerate().map(|(at, rate)| (at, *rate));
    let place = |rate| format!("{} kpps", shown_rate(rate));
    if places().any(|(at, _)| cell(at).honest.begun > 0) {
        let failing = places().find(|(at, _)| {
            let cell = cell(*at);
            cell.honest.begun > 0 && cell.honest.share().0 < SERVED_MIN
        });
        match failing {
            Some((at, rate)) => println!(
                "- {name}: serves fewer than {:.0} of 100 from {} on, {:.1} there.",
                SERVED_MIN * 100.0,
                place(rate),
                cell(at).honest.share().0 * 100.0
            ),
            None => println!(
                "- {name}: serves at least {:.0} of 100 at every rate.",
                SERVED_MIN * 100.0
            ),
        }
    }
    let times: Vec<_> = places()
        .map(|(at, rate)| (place(rate), cell(at).per_frame.median()))
        .collect();
    println!(
        "{}",
        knee(&format!("{name}, time per packet"), "ns", &times)
    );
}
