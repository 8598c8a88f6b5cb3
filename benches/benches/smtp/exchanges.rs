//! Connect, greeting, QUIT, 221, end: how many in a second, and how long each.

use std::{collections::BTreeMap, thread, time::Duration};

use nomail_benches::{
    load::{Load, Measured, SOURCES, exchange},
    peers::{Packages, Peer, Server, target},
};
use nomail_tests::processes::{Processes, ticks_per_second};

use crate::{
    Scope,
    figures::{median, quantile, ratios, shown, verdict},
    say,
};

/// The closed loops that all servers meet.
const CLIENTS: [usize; 2] = [20, 100];
/// The third load: this part of what the bare loop bears.
const PACED_PART: f64 = 0.25;
/// A server meets it that bears at least so much more.
const PACED_MARGIN: f64 = 1.2;

/// A server, and what it made of each load.
pub(crate) struct Entry<'packages> {
    pub(crate) server: Server<'packages>,
    columns: Vec<Column>,
    pss_kib: u64,
    processes: usize,
}

/// What one server made of one load, round by round.
#[derive(Default)]
struct Column {
    rates: Vec<f64>,
    p50_millis: Vec<f64>,
    p99_millis: Vec<f64>,
    exchanges: u64,
    goodbyes: u64,
    failed: u64,
    first_failure: Option<String>,
    codes: BTreeMap<u16, u64>,
    ticks: u64,
    all: u64,
    waited: Duration,
}

/// Measures all servers and prints the table and the goals.
pub(crate) fn measure<'packages>(
    packages: &'packages Packages,
    scope: &Scope,
) -> Vec<Entry<'packages>> {
    let mut entries = Vec::new();
    let mut missing = Vec::new();
    for peer in Peer::ALL {
        match Server::start(peer, packages) {
            Ok(server) => entries.push(Entry {
                server,
                columns: Vec::new(),
                pss_kib: 0,
                processes: 0,
            }),
            Err(reason) => missing.push((peer, reason)),
        }
    }
    assert!(
        entries[0].server.peer == Peer::EpollLoop,
        "the bare loop does not run: {missing:?}"
    );
    for clients in CLIENTS {
        rounds(&mut entries, scope, Load::Clients(clients), 0.0);
    }
    let least = entries[0]
        .columns
        .iter()
        .map(|column| median(&column.rates));
    let least = least.fold(f64::INFINITY, f64::min);
    let paced = ((least * PACED_PART / 100.0) as u32).max(1) * 100;
    let needed = f64::from(paced) * PACED_MARGIN;
    rounds(&mut entries, scope, Load::PerSecond(paced), needed);
    for entry in &mut entries {
        entry.measure_memory();
    }
    print_table(&entries, &missing, scope, paced);
    print_goals(&entries);
    entries
}

/// In turns, so that a drift of the machine meets all of them.
fn rounds(entries: &mut [Entry<'_>], scope: &Scope, load: Load, needed: f64) {
    for entry in entries.iter_mut() {
        entry.columns.push(Column::default());
    }
    for round in 1..=scope.rounds {
        say(&format!("{load:?}, round {round} of {}", scope.rounds));
        for entry in entries.iter_mut() {
            let (column, before) = entry.columns.split_last_mut().unwrap();
            if before.iter().any(|before| median(&before.rates) < needed) {
                continue;
            }
            let lab = &entry.server.lab;
            let ticks = Processes::of(&lab.host).ticks;
            let measured = lab
                .client
                .within(|| exchange(target(), load, scope.warm_up, scope.window));
            let ticks = Processes::of(&lab.host).ticks.saturating_sub(ticks);
            column.add(measured, ticks);
        }
    }
}

impl Entry<'_> {
    /// Under a load that does not count, because looking takes time as well.
    fn measure_memory(&mut self) {
        let lab = &self.server.lab;
        let load = || {
            let load = Load::Clients(CLIENTS[1]);
            exchange(target(), load, Duration::ZERO, Duration::from_millis(900))
        };
        thread::scope(|scope| {
            let load = scope.spawn(|| lab.client.within(load));
            thread::sleep(Duration::from_millis(300));
            while !load.is_finished() {
                let processes = Processes::of(&lab.host);
                if processes.pss_kib > self.pss_kib {
                    self.pss_kib = processes.pss_kib;
                    self.processes = processes.count;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
    }
}

impl Column {
    fn add(&mut self, measured: Measured, ticks: u64) {
        self.rates.push(measured.per_second());
        self.p50_millis.push(quantile(&measured.whole_micros, 0.50));
        self.p99_millis.push(quantile(&measured.whole_micros, 0.99));
        self.exchanges += measured.whole_micros.len() as u64;
        self.goodbyes += measured.goodbyes;
        self.failed += measured.failed;
        self.first_failure = self.first_failure.take().or(measured.first_failure);
        for (code, count) in measured.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.ticks += ticks;
        self.all += measured.all;
        self.waited += measured.waited;
    }

    /// What it says, in the words of the table.
    fn says(&self) -> String {
        let codes: Vec<_> = self.codes.keys().map(u16::to_string).collect();
        let end = match self.goodbyes {
            0 => "closes".to_owned(),
            all if all == self.exchanges => "221".to_owned(),
            some => format!("221 ({some} of {})", self.exchanges),
        };
        format!("{}, {end}", codes.join("/"))
    }

    fn processor_micros(&self) -> f64 {
        self.ticks as f64 / ticks_per_second() * 1e6 / self.all as f64
    }
}

fn print_table(entries: &[Entry<'_>], missing: &[(Peer, String)], scope: &Scope, paced: u32) {
    println!(
        "## Exchanges: connect, greeting, QUIT, 221, end\n\n\
         {} rounds of {:?} in which the servers take turns, each after {:?} that do not count. \
         Host and clients are two namespaces joined by veth, and each has one processor for its \
         programs and for what it receives: the host's is the one that sets the rate. The clients \
         are one thread, with {SOURCES} addresses, and close last. Figures are medians over the \
         rounds (least to most); a ratio is the median of the rounds' ratios. Latency is from \
         before connect to the end of the connection. With 20 and 100 clients each comes again at \
         once, so that a slower server is asked less; \"{paced}/s\" is a quarter of the bare \
         loop's rate for all servers that bear a fifth more. The server's time is that of all its \
         processes, with what the kernel charges to them; PSS is theirs too, at 100 clients.\n",
        scope.rounds, scope.window, scope.warm_up,
    );
    println!(
        "| server | says | load | exchanges/s | to the loop | p50, ms | p99, ms | p99 to the loop \
         | server's time, µs each | PSS, MiB (processes) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let loads = CLIENTS
        .iter()
        .map(|clients| format!("{clients} clients"))
        .chain([format!("{paced}/s")]);
    for (number, load) in loads.enumerate() {
        let bare = &entries[0].columns[number];
        for entry in entries {
            let column = &entry.columns[number];
            let name = entry.server.peer.name();
            if column.rates.is_empty() {
                println!("| {name} | – | {load} | – | – | – | – | – | – | – |");
                continue;
            }
            let memory = if number + 1 == CLIENTS.len() {
                let mebibytes = entry.pss_kib as f64 / 1024.0;
                format!("{mebibytes:.1} ({})", entry.processes)
            } else {
                String::new()
            };
            println!(
                "| {name} | {} | {load} | {} | {:.2} | {} | {} | {:.2} | {:.0} | {memory} |",
                column.says(),
                shown(&column.rates, 0),
                median(&ratios(&column.rates, &bare.rates)),
                shown(&column.p50_millis, 2),
                shown(&column.p99_millis, 2),
                median(&ratios(&column.p99_millis, &bare.p99_millis)),
                column.processor_micros(),
            );
        }
    }
    println!();
    let columns = || entries.iter().flat_map(|entry| &entry.columns);
    let waited: Duration = columns().map(|column| column.waited).sum();
    let all: u32 = columns().map(|column| column.rates.len() as u32).sum();
    let all = (scope.warm_up + scope.window) * all;
    println!(
        "- The clients have waited for their processor {:.1} % of the time. Nothing else should \
         run there: above 5 %, the machine was busy, and the figures only give a shape.",
        100.0 * waited.as_secs_f64() / all.as_secs_f64()
    );
    for entry in entries {
        let name = entry.server.peer.name();
        for column in &entry.columns {
            if let Some(first) = &column.first_failure {
                println!(
                    "- {name}: {} exchanges failed; the first: {first}",
                    column.failed
                );
            }
        }
        if entry.columns.last().unwrap().rates.is_empty() {
            println!("- {name}: – at {paced}/s: it does not bear as much.");
        }
    }
    for (peer, reason) in missing {
        println!("- {}: not measured: {reason}", peer.name());
    }
    println!(
        "- \"closes\": the server closes after its greeting, and does less than the others.\n\
         - With XDP attached, veth takes packets by NAPI, in batches. What that alone does to a \
         server is in the row of the bare loop behind a bare XDP_PASS.\n\
         - The peers log to a file as they do by default, and look up no names."
    );
}

/// With XDP on its interface a host receives in another way, whatever the program does: who
/// is guarded is compared with both bare loops.
fn is_fair(nomail: Peer, peer: Peer) -> bool {
    nomail == Peer::NomailGuarded || peer != Peer::EpollLoopPassed
}

/// What a refusal may cost, beside the least that it can.
fn print_goals(entries: &[Entry<'_>]) {
    println!("\n### Goals\n\n| goal | load | measured | |");
    println!("|---|---|---|---|");
    let column = |peer: Peer, number: usize| {
        let entry = entries.iter().find(|entry| entry.server.peer == peer)?;
        Some(&entry.columns[number]).filter(|column| !column.rates.is_empty())
    };
    let print = |goal: &str, load: &str, measured: Option<Vec<f64>>, met: &dyn Fn(f64) -> bool| {
        match measured {
            None => println!("| {goal} | {load} | – | not measured |"),
            Some(measured) => println!(
                "| {goal} | {load} | {} | {} |",
                shown(&measured, 2),
                verdict(met(median(&measured)))
            ),
        }
    };
    for nomail in [Peer::Nomail, Peer::NomailGuarded] {
        let name = nomail.name();
        for (number, clients) in CLIENTS.iter().enumerate() {
            let load = format!("{clients} clients");
            for (peer, goal) in [
                (Peer::EpollLoop, 0.95),
                (Peer::EpollLoopPassed, 0.95),
                (Peer::Postscreen, 2.0),
                (Peer::Rblsmtpd, 8.0),
            ] {
                if !is_fair(nomail, peer) {
                    continue;
                }
                let rates = column(nomail, number).zip(column(peer, number));
                let rates = rates.map(|(of, to)| ratios(&of.rates, &to.rates));
                let goal_text = format!("{name}: at least {goal} × {}", peer.name());
                print(&goal_text, &load, rates, &|ratio| ratio >= goal);
            }
        }
        for (number, load) in ["20 clients", "100 clients", "equal load"]
            .iter()
            .enumerate()
        {
            for peer in [Peer::EpollLoop, Peer::EpollLoopPassed] {
                if !is_fair(nomail, peer) {
                    continue;
                }
                let columns = column(nomail, number).zip(column(peer, number));
                let p99 = columns.map(|(of, to)| ratios(&of.p99_millis, &to.p99_millis));
                let goal = format!("{name}: p99 at most 1.2 × that of the {}", peer.name());
                print(&goal, load, p99, &|ratio| ratio <= 1.2);
            }
        }
    }
}
