//! Memory, and what a new client notices, the more connections are held.

use std::time::Duration;

use nomail_benches::{
    crowd::Crowd,
    load::{Load, exchange},
    peers::{self, Configuration, Limits, Packages, Peer, Server, target},
};
use nomail_tests::{
    lab::Lab,
    processes::{Processes, raise_descriptors},
};

use crate::{knee, say};

const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const SIZES_QUICK: [usize; 4] = [10, 100, 1_000, 10_000];
/// What servers are given of which not all bear more.
const PEERS_MAX: usize = 1_000;
/// Descriptors of a server for other purposes than these.
const DESCRIPTORS_SPARE: usize = 2_000;
/// Fewer are less than the pages that memory is counted in.
const EACH_MIN: usize = 1_000;
/// New clients a second, while connections are held.
const PROBES_PER_SECOND: u32 = 100;

struct Row {
    held: usize,
    pss_kib: u64,
    octets_each: Option<f64>,
    p50_millis: f64,
    p99_millis: f64,
    failed: u64,
}

pub(crate) fn print(quick: bool) {
    let (sizes, others, probing) = if quick {
        (&SIZES_QUICK[..], &[][..], Duration::from_secs(1))
    } else {
        let others = &[Peer::SmtpSink, Peer::Rblsmtpd][..];
        (&SIZES[..], others, Duration::from_secs(3))
    };
    let most = sizes[sizes.len() - 1];
    let bearable = raise_descriptors(most + DESCRIPTORS_SPARE).saturating_sub(DESCRIPTORS_SPARE);
    let mut sizes: Vec<usize> = sizes.iter().map(|&size| size.min(bearable)).collect();
    sizes.dedup();
    let mut rows: Vec<(&str, Vec<Row>)> = Vec::new();
    let mut missing = Vec::new();
    {
        let lab = peers::lab();
        let configuration = Configuration::new();
        configuration.write(Limits {
            connections: bearable + bearable / 10,
            connections_per_source: bearable,
        });
        let agent = peers::agent(&lab, &configuration, "off");
        rows.push(("nomail", series("nomail", &lab, &sizes, probing)));
        agent.stop();
    }
    let packages = Packages::install_for(others);
    for &peer in [Peer::EpollLoop].iter().chain(others) {
        let most = if peer == Peer::EpollLoop {
            bearable
        } else {
            PEERS_MAX
        };
        let sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size <= most).collect();
        match Server::start(peer, &packages) {
            Ok(server) => rows.push((
                peer.name(),
                series(peer.name(), &server.lab, &sizes, probing),
            )),
            Err(reason) => missing.push((peer.name(), reason)),
        }
    }
    println!("\n## Held connections: memory, and a new client's greeting\n");
    println!(
        "| held | server | PSS, MiB | octets each | greeting p50, ms | greeting p99, ms | failed |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, rows) in &rows {
        for row in rows {
            println!(
                "| {} | {name} | {:.2} | {} | {:.3} | {:.3} | {} |",
                row.held,
                row.pss_kib as f64 / 1024.0,
                row.octets_each
                    .map_or("–".to_owned(), |octets| format!("{octets:.0}")),
                row.p50_millis,
                row.p99_millis,
                row.failed
            );
        }
    }
    println!(
        "\nPSS of all processes of the server; its growth for each connection from {EACH_MIN} on. \
         Greeting: {PROBES_PER_SECOND} new clients a second for {} s meanwhile, and how many of \
         them failed. One run: the spread between the places is the spread.\n",
        probing.as_secs()
    );
    for (name, rows) in &rows {
        let octets: Vec<_> = rows
            .iter()
            .filter_map(|row| Some((row.held.to_string(), row.octets_each?)))
            .collect();
        println!(
            "{}",
            knee(&format!("{name}, memory of each"), "octets", &octets)
        );
        let greetings: Vec<_> = rows
            .iter()
            .map(|row| (row.held.to_string(), row.p50_millis * 1000.0))
            .collect();
        println!(
            "{}",
            knee(
                &format!("{name}, a new client's greeting, p50"),
                "µs",
                &greetings
            )
        );
    }
    if bearable < most {
        println!(
            "- {most} were wanted: this machine gives a process {} descriptors (the hard limit of \
             RLIMIT_NOFILE, without CAP_SYS_RESOURCE), so {bearable} were held. `cargo xtask bench \
             smtp` holds {most} in a virtual machine.",
            bearable + DESCRIPTORS_SPARE
        );
    }
    for (name, reason) in missing {
        println!("- {name}: not measured: {reason}");
    }
    if !others.is_empty() {
        println!(
            "- Servers of other projects were given at most {PEERS_MAX}: a process for each, or a \
             limit of 4096."
        );
    }
}

/// One server, with more and more.
fn series(name: &str, lab: &Lab, sizes: &[usize], probing: Duration) -> Vec<Row> {
    // Whatever the first clients bring into memory is not of those held.
    let _ = probe(lab, Duration::from_secs(1));
    let before = Processes::of(&lab.host).pss_kib;
    let mut crowds: Vec<Crowd> = Vec::new();
    let mut rows = Vec::new();
    let mut held = 0;
    for &size in sizes {
        say(&format!("{size} held by {name}"));
        let crowd = lab.client.within(|| Crowd::gather(target(), size - held));
        held += crowd.counts().held;
        crowds.push(crowd);
        let pss_kib = Processes::of(&lab.host).pss_kib;
        let (p50_millis, p99_millis, failed) = probe(lab, probing);
        let octets = pss_kib.saturating_sub(before) as f64 * 1024.0 / held.max(1) as f64;
        rows.push(Row {
            held,
            pss_kib,
            octets_each: (held >= EACH_MIN).then_some(octets),
            p50_millis,
            p99_millis,
            failed,
        });
        if held < size {
            break;
        }
    }
    for crowd in crowds {
        crowd.leave();
    }
    rows
}

/// New clients: milliseconds to the greeting, the middle and 99 of 100; and how many
/// failed.
fn probe(lab: &Lab, length: Duration) -> (f64, f64, u64) {
    let mut measured = lab.client.within(|| {
        let load = Load::PerSecond(PROBES_PER_SECOND);
        exchange(target(), load, Duration::ZERO, length)
    });
    let times = &mut measured.greeting_micros;
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        let time = times.get(index.min(times.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| f64::from(*time) / 1000.0)
    };
    (at(0.5), at(0.99), measured.failed)
}
