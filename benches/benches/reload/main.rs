//! What a reload, and a look at the figures, cost those who are served meanwhile.
//! Prints Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

mod flood;
mod lists;
mod looks;

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::Agent,
    generator::Syns,
    honest::{Outcome, Plan},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, succeeded},
    poll::until,
    rig::{RECEIVING_CPU, Rig, honest_addresses},
};
use tempfile::TempDir;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Honest connections a second.
const HONEST_RATE: u32 = 1000;
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether a reload is over.
const LOOK: Duration = Duration::from_millis(1);
/// What the log says when one is.
const RELOADED: &str = "the configuration was reloaded";

/// Strangers with forged addresses.
const SYNS: Syns = Syns {
    source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
    source_mask: 0x7f_ffff,
    port: 1024,
    port_mask: 0x3fff,
    repeated: false,
    destination: HOST,
};

/// A host with the agent, on a wire.
struct House {
    agent: Agent,
    rig: Rig,
    directory: TempDir,
    reloads: AtomicUsize,
}

impl House {
    fn new() -> Self {
        Self::with("")
    }

    /// With a drop-in of this text.
    fn with(drop_in: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("deny"), "").unwrap();
        let drop_ins = directory.path().join("nomail.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::write(drop_ins.join("50-more.toml"), drop_in).unwrap();
        let file = directory.path().join("nomail.toml");
        fs::write(&file, configuration(0, &directory.path().join("deny"))).unwrap();
        let rig = Rig::new(0);
        // As any other interface has one: since Linux 6.16 frames of the stack wait in
        // there, instead of being lost, while the flood has filled the ring.
        for (namespace, interface) in [
            (&rig.lab.host, HOST_INTERFACE),
            (&rig.lab.client, CLIENT_INTERFACE),
        ] {
            let mut tc = namespace.command("tc");
            tc.args(["qdisc", "add", "dev", interface, "root", "pfifo"]);
            succeeded("tc", &tc.output().unwrap());
        }
        let cpu = RECEIVING_CPU.to_string();
        let arguments = [
            "--iface",
            HOST_INTERFACE,
            "--xdp-mode",
            "native",
            "--config",
            file.to_str().unwrap(),
        ];
        let agent =
            Agent::spawn_through(&rig.lab.host, &["taskset", "-c", &cpu], &arguments).serving();
        Self {
            agent,
            rig,
            directory,
            reloads: AtomicUsize::new(0),
        }
    }

    /// Writes the file of denied prefixes.
    fn deny(&self, prefixes: &str) {
        fs::write(self.directory.path().join("deny"), prefixes).unwrap();
    }

    /// Has it reload a configuration of which the limits, the deny list and the name
    /// in the greeting are new. Gives the time from SIGHUP until the log says that it
    /// is in effect.
    fn reload(&self) -> Duration {
        let number = self.reloads.fetch_add(1, Ordering::Relaxed) + 1;
        let deny = self.directory.path().join("deny");
        let text = configuration(number, &deny);
        fs::write(self.directory.path().join("nomail.toml"), text).unwrap();
        let begun = Instant::now();
        self.agent.signal(Signal::SIGHUP);
        until("the configuration is reloaded", || {
            // `until` itself looks less often.
            let soon = Instant::now() + 20 * LOOK;
            while Instant::now() < soon {
                if self.agent.log().matches(RELOADED).count() >= number {
                    return Some(begun.elapsed());
                }
                sleep(LOOK);
            }
            None
        })
    }

    /// Which configuration is in effect, by the name that it greets with.
    fn in_effect(&self) -> String {
        let status = self.agent.status();
        status["hostname"].as_str().unwrap().to_owned()
    }

    /// The name in the configuration that was written last.
    fn latest(&self) -> String {
        name(self.reloads.load(Ordering::Relaxed))
    }

    /// So many honest connections, one a millisecond, without a flood or under one.
    fn honest(&self, count: usize) -> Outcome {
        let plan = Plan {
            from: honest_addresses(HOST),
            to: SocketAddr::new(HOST, 25),
            count,
            rate: HONEST_RATE,
            timeout: PATIENCE,
        };
        self.rig.honest(|| plan.run())
    }

    fn stop(self) {
        self.agent.stop();
    }
}

/// Each number gives another one: limits, what is denied, and the greeting.
fn configuration(number: usize, deny: &Path) -> String {
    format!(
        "hostname = {:?}\n\
         [limits]\nsyn_rate = {}\nsyn_burst = {}\n\
         [lists]\ndeny = [\"198.51.100.{}\", \"203.0.113.0/24\"]\ndeny_files = [{deny:?}]\n",
        name(number),
        // More than an honest client sends, also while it is asked for a proof.
        1000 + number,
        2000 + number,
        number % 256,
    )
}

/// The host's name in configuration `number`.
fn name(number: usize) -> String {
    format!("mailless-{number}.example.org")
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    // For work on one part: `--only lists`.
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1));
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let start = Instant::now();
    for (part, print) in [
        ("flood", flood::print as fn(bool)),
        ("lists", lists::print),
        ("looks", looks::print),
    ] {
        if wanted(part) {
            print(quick);
        }
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "\n{}Took {:.0} s. Linux {}, {} CPUs, load {} at the end. The agent and the thread that \
         receives have CPU {RECEIVING_CPU}, the generator and the honest clients the other; the \
         agent's part of the kernel's work included.",
        if quick {
            "--quick: fewer rounds and connections, and no flood beside the long lists. "
        } else {
            ""
        },
        start.elapsed().as_secs_f64(),
        release.trim(),
        std::thread::available_parallelism().unwrap(),
        load.split(' ').next().unwrap()
    );
}

/// Whether a goal is met, as the tables say it.
fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**MISSED**" }
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// Median, 99 of 100, and most, in milliseconds.
fn waits(honest: &Outcome) -> String {
    let at = |share| honest.quantile(share).map_or("-".to_owned(), millis);
    format!("{}; {}; {}", at(0.5), at(0.99), at(1.0))
}

/// The share that was served, with its interval.
fn served(honest: &Outcome) -> String {
    let (share, least, most) = honest.share();
    format!(
        "{:.3} % ({:.3} to {:.3}) of {}",
        share * 100.0,
        least * 100.0,
        most * 100.0,
        honest.begun
    )
}
