//! The 521 without a socket: what an exchange costs the host beside the listener, and
//! who is served under a flood, with loss, and while agents are killed. Prints Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

mod honest;
mod killed;
mod work;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::Agent,
    honest::{Outcome, Plan},
    lab::HOST_INTERFACE,
    rig::{RECEIVING_CPU, Rig, honest_addresses},
};
use tempfile::TempDir;

/// The responder of this benchmark, in the agent's file.
const XDP: &str = "responder = \"xdp\"\nxdp_mode = \"native\"";
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    // For work on one part: `--only work`.
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1));
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let start = Instant::now();
    if wanted("work") {
        work::print(quick);
    }
    if wanted("honest") {
        honest::print(quick);
    }
    if wanted("killed") {
        killed::print(quick);
    }
    println!(
        "\n{} Took {:.0} s. {}",
        if quick {
            "--quick: one round of each, of fewer exchanges than the goals are for."
        } else {
            ""
        },
        start.elapsed().as_secs_f64(),
        environment()
    );
}

fn environment() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load = load.split(' ').next().unwrap().to_owned();
    let cpus = std::thread::available_parallelism().unwrap();
    format!(
        "Linux {}, {cpus} CPUs, load {load} at the end.",
        release.trim()
    )
}

/// A host on a wire, with an agent on the receiving CPU.
struct House {
    agent: Agent,
    rig: Rig,
    arguments: Vec<String>,
    _directory: TempDir,
}

impl House {
    /// Starts it with these keys in its file, and more of the table `limits`.
    fn new(rig: Rig, keys: &str, limits: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("nomail.toml");
        // Limits that the honest, who share some addresses, do not meet.
        let text = format!(
            "hostname = \"mailless.example.org\"\nrefuse_at = \"greeting\"\n{keys}\n\
             [limits]\nsyn_rate = 1000\nsyn_burst = 2000\n{limits}\n"
        );
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let arguments = ["--iface", HOST_INTERFACE, "--config", file].map(str::to_owned);
        Self {
            agent: start(&rig, &arguments),
            rig,
            arguments: arguments.into(),
            _directory: directory,
        }
    }
}

/// Starts an agent.
fn start(rig: &Rig, arguments: &[String]) -> Agent {
    let cpu = RECEIVING_CPU.to_string();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Agent::spawn_through(&rig.lab.host, &["taskset", "-c", &cpu], &arguments).serving()
}

/// Honest exchanges with a host: so many, so many a second, and how long each may take.
fn plan(host: IpAddr, count: usize, rate: u32, timeout: Duration) -> Plan {
    Plan {
        from: honest_addresses(host),
        to: SocketAddr::new(host, 25),
        count,
        rate,
        timeout,
    }
}

/// Whether a goal is met, as the table says it.
fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**MISSED**" }
}

/// The share that was served, with its interval, in the words of a table.
fn served(outcome: &Outcome) -> String {
    let (share, least, most) = outcome.share();
    format!(
        "{:.2} % ({:.2} to {:.2}) of {}",
        share * 100.0,
        least * 100.0,
        most * 100.0,
        outcome.begun
    )
}

/// Times to the greeting, in milliseconds: median, 99 %, most.
fn waits(outcome: &Outcome) -> String {
    let millis = |share: f64| {
        outcome.quantile(share).map_or("-".to_owned(), |time| {
            format!("{:.1}", time.as_secs_f64() * 1000.0)
        })
    };
    format!("{}; {}; {}", millis(0.5), millis(0.99), millis(1.0))
}

fn median(measured: &[f64]) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[half - 1] + sorted[half]) / 2.0
    } else {
        sorted[half]
    }
}

/// Median and spread.
fn spread(measured: &[f64], digits: usize) -> String {
    let least = measured.iter().copied().fold(f64::INFINITY, f64::min);
    let most = measured.iter().copied().fold(0.0, f64::max);
    let middle = median(measured);
    format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
}
