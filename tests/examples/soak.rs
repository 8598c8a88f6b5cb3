//! A soak: honest, hostile and faulty traffic, all at once and for minutes, and what
//! the agent takes meanwhile. Fails when an identity of its counters breaks, an
//! honest sender is not served while nothing is wrong, or memory or descriptors are
//! not flat at the end.
//!
//! `soak [MINUTES]`, as root; `cargo xtask soak` builds and runs it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a soak that cannot go on is to fail, and prints a table"
)]

use std::{
    env, fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_common::abi::{LINES, SLOTS_PER_LINE};
use nomail_tests::{
    agent::Agent,
    frames::{FrameSender, Segment},
    honest::{Outcome, Plan},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, until},
    processes::pss_kib,
    random::Random,
};
use serde_json::Value;
use tempfile::TempDir;

/// Places in the table of sources.
const SOURCES_MAX: u64 = (LINES * SLOTS_PER_LINE) as u64;
/// Minutes, unless the command line says how many.
const MINUTES: u64 = 10;
/// Between two samples.
const SAMPLE: Duration = Duration::from_secs(5);
/// One round of all that happens.
const ROUND: Duration = Duration::from_secs(30);
/// A flood, each round.
const FLOOD: Duration = Duration::from_secs(8);
/// SYNs of a flood between two pauses of a millisecond.
const BURST: u32 = 32;
/// Of the honest, a second.
const HONEST_RATE: u32 = 20;
/// The last third of the samples may be above the third before it by so much.
const MEMORY_MARGIN_KIB: u64 = 2048;
/// See [`MEMORY_MARGIN_KIB`].
const DESCRIPTORS_MARGIN: u64 = 16;

/// What was seen at one time.
struct Sample {
    at: Duration,
    status: Value,
    pss_kib: u64,
    descriptors: u64,
}

impl Sample {
    fn count(&self, pointer: &str) -> u64 {
        let count = self.status.pointer(pointer).and_then(Value::as_u64);
        count.unwrap_or_else(|| panic!("no number {pointer}: {:#}", self.status))
    }

    /// What has to hold at any time, and since the sample before.
    fn broken(&self, before: Option<&Self>) -> Vec<String> {
        let mut broken = Vec::new();
        let syns = self.status["syn"].as_object().unwrap();
        let sum: u64 = syns
            .iter()
            .filter(|(name, _)| *name != "total")
            .map(|(_, count)| count.as_u64().unwrap())
            .sum();
        if sum != self.count("/syn/total") {
            broken.push(format!("syn.total is no sum of verdicts: {syns:?}"));
        }
        if self.count("/sources_tracked") > SOURCES_MAX {
            broken.push("more sources than there are places".into());
        }
        for source in self.status["sources"].as_array().unwrap() {
            if source["limited"].as_u64() > source["syn"].as_u64() {
                broken.push(format!("more limited than came: {source}"));
            }
        }
        if let Some(before) = before {
            let counts = self.status["connections"].as_object().unwrap().keys();
            let monotone = ["accepted", "quit", "shed"];
            let counts = counts.filter(|name| monotone.contains(&name.as_str()));
            let pointers = counts.map(|name| format!("/connections/{name}"));
            let verdicts = syns.keys().map(|name| format!("/syn/{name}"));
            for pointer in pointers.chain(verdicts) {
                if self.count(&pointer) < before.count(&pointer) {
                    broken.push(format!("{pointer} went back"));
                }
            }
        }
        broken
    }
}

/// A host with the agent, and its files.
struct House {
    lab: Lab,
    agent: Agent,
    directory: TempDir,
}

impl House {
    fn new() -> Self {
        let lab = Lab::new();
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("nomail.toml");
        fs::write(&file, configuration(&directory, 0)).unwrap();
        let agent = Agent::start(&lab.host, &["--config", file.to_str().unwrap()]);
        Self {
            lab,
            agent,
            directory,
        }
    }

    fn reload(&self, text: &str) {
        fs::write(self.directory.path().join("nomail.toml"), text).unwrap();
        self.agent.signal(Signal::SIGHUP);
    }

    fn sample(&self, begun: Instant) -> Sample {
        let pid = self.agent.pid();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Sample {
            at: begun.elapsed(),
            status: self.agent.status(),
            pss_kib: pss_kib(pid.as_raw() as u32).unwrap(),
            descriptors: descriptors as u64,
        }
    }
}

fn configuration(directory: &TempDir, number: u64) -> String {
    format!(
        "interfaces = [{HOST_INTERFACE:?}]\nhostname = \"mailless.example.org\"\n\
         state_dir = {:?}\n[lists]\nallow = [\"192.0.2.100\"]\ndeny = [\"203.0.113.{}\"]\n\
         [limits]\nidle_timeout_secs = 10\n",
        directory.path().join("state"),
        number % 250
    )
}

fn honest(count: usize) -> Plan {
    Plan {
        from: vec!["192.0.2.100".parse::<IpAddr>().unwrap()],
        to: format!("{HOST_IPV4}:25").parse().unwrap(),
        count,
        rate: HONEST_RATE,
        timeout: DEADLINE,
    }
}

/// SYNs of strangers, of a botnet, of who is denied, and frames of noise; for the
/// time of one flood.
fn flood(over: &AtomicBool, random: &mut Random) {
    let Ok(sender) = std::panic::catch_unwind(|| FrameSender::open(CLIENT_INTERFACE)) else {
        return;
    };
    let begun = Instant::now();
    while begun.elapsed() < FLOOD && !over.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            let noise = random.next();
            let port = 1024 + (noise >> 48) % 60_000;
            let source = match random.below(10) {
                0..5 => format!(
                    "10.{}.{}.{}",
                    noise & 255,
                    noise >> 8 & 255,
                    noise >> 16 & 255
                ),
                5..8 => format!("198.18.0.{}", noise & 63),
                _ => format!("203.0.113.{}", noise & 255),
            };
            let mut segment = Segment::syn(&format!("{source}:{port}"), "192.0.2.1:25");
            segment.sequence = random.next() as u32;
            let mut frame = segment.frame();
            if random.percent(10) {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.next() as u8;
            }
            // The interface may be down.
            let _ = sender.try_send(&frame);
        }
        sleep(Duration::from_millis(1));
    }
}

/// Clients that say nothing, nonsense, or an octet at a time.
fn slow(over: &AtomicBool, random: &mut Random) {
    let to: SocketAddr = format!("{HOST_IPV4}:25").parse().unwrap();
    let mut held = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
            let said: &[u8] = random.choose(&[
                b"",
                b"EH",
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00",
                b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n",
            ]);
            let _ = stream.write_all(said);
            held.push(stream);
        }
        if held.len() > 64 {
            held.remove(random.below(64) as usize);
        }
        for stream in &mut held {
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(b"N");
        }
        sleep(Duration::from_millis(100));
    }
}

/// What goes wrong on the host: malformed control clients, reloads, one in three of
/// what is wrong.
fn faults(house: &House, over: &AtomicBool, random: &mut Random) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let right = configuration(&house.directory, number);
        house.reload(&if number % 3 == 0 {
            right + "nonsense = [\n"
        } else {
            right
        });
        for _ in 0..3 {
            if let Ok(mut stream) = UnixStream::connect(house.agent.control()) {
                let said: &[u8] = random.choose(&[b"", b"stat", b"\xff\x00\n", b"status 70000\n"]);
                let _ = stream.write_all(said);
            }
        }
        for _ in 0..10 {
            sleep(Duration::from_millis(100));
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs it all, and gives the samples, what became of the honest, and what broke.
fn soak(house: &House, length: Duration) -> (Vec<Sample>, Outcome, Vec<String>) {
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    let down = AtomicBool::new(false);
    let (mut samples, mut broken): (Vec<Sample>, _) = (Vec::new(), Vec::new());
    let served = thread::scope(|scope| {
        let guard = Over(&over);
        let (over, down, lab) = (&over, &down, &house.lab);
        scope.spawn(move || {
            let mut random = Random(1);
            lab.client.within(|| {
                let mut round = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    flood(over, &mut random);
                    while round.elapsed() < ROUND && !over.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(50));
                    }
                    round = Instant::now();
                }
            });
        });
        scope.spawn(move || lab.client.within(|| slow(over, &mut Random(2))));
        scope.spawn(move || faults(house, over, &mut Random(3)));
        let served = scope.spawn(move || {
            let mut all = Outcome::default();
            while !over.load(Ordering::Relaxed) {
                if down.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(100));
                    continue;
                }
                let outcome = lab.client.within(|| honest(HONEST_RATE as usize).run());
                // What began while the wire was there, and did not end so, is nobody's
                // fault: TCP needs a while to find out that it is there again.
                if !down.load(Ordering::Relaxed) {
                    all.add(&outcome);
                }
            }
            all
        });
        println!(
            "| s | SYNs | flood | limited | denied | malformed | connections | active | sources | PSS KiB | descriptors |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        let mut next_outage = ROUND * 3 / 4;
        while begun.elapsed() < length {
            sleep(SAMPLE);
            if begun.elapsed() > next_outage {
                next_outage += ROUND;
                down.store(true, Ordering::Relaxed);
                // Until all that are under way are through.
                sleep(Duration::from_secs(2));
                lab.host.ip("link set host0 down");
                sleep(Duration::from_millis(500));
                lab.host.ip("link set host0 up");
                let to: SocketAddr = format!("{HOST_IPV4}:25").parse().unwrap();
                until("it is there again", || {
                    let reached = lab.client.within(|| {
                        TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok()
                    });
                    reached.then_some(())
                });
                down.store(false, Ordering::Relaxed);
            }
            let sample = house.sample(begun);
            broken.extend(sample.broken(samples.last()));
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                sample.at.as_secs(),
                sample.count("/syn/total"),
                sample.count("/syn/flood"),
                sample.count("/syn/limited_source") + sample.count("/syn/limited_prefix"),
                sample.count("/syn/denied"),
                sample.count("/syn/malformed"),
                sample.count("/connections/accepted"),
                sample.count("/connections/active"),
                sample.count("/sources_tracked"),
                sample.pss_kib,
                sample.descriptors
            );
            samples.push(sample);
        }
        drop(guard);
        served.join().unwrap()
    });
    (samples, served, broken)
}

/// The median of some samples.
fn median(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> ExitCode {
    let minutes = env::args().nth(1).map_or(MINUTES, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{text:?} is no number of minutes"))
    });
    let house = House::new();
    let (samples, served, mut broken) = soak(&house, Duration::from_secs(minutes * 60));
    println!(
        "\n{} of {} honest senders were served; the table of sources has {SOURCES_MAX} places",
        served.served, served.begun
    );
    if served.served != served.begun {
        broken.push(format!(
            "{} honest senders were not served",
            served.failed()
        ));
    }
    let third = samples.len() / 3;
    let (before, last) = (&samples[third..2 * third], &samples[2 * third..]);
    for (what, margin, of) in [
        (
            "PSS in KiB",
            MEMORY_MARGIN_KIB,
            (|sample| sample.pss_kib) as fn(&Sample) -> u64,
        ),
        ("descriptors", DESCRIPTORS_MARGIN, |sample| {
            sample.descriptors
        }),
    ] {
        let (before, last) = (median(before, of), median(last, of));
        println!("{what}, median of the second and of the last third: {before}, {last}");
        if last > before + margin {
            broken.push(format!("{what} not flat at the end: {before}, then {last}"));
        }
    }
    house.reload(&configuration(&house.directory, 0));
    until("all connections are over", || {
        (house.agent.count("/connections/active") == 0).then_some(())
    });
    let end = house.sample(Instant::now());
    println!(
        "at the end: {} descriptors, PSS {} KiB",
        end.descriptors, end.pss_kib
    );
    broken.extend(end.broken(samples.last()));
    house.agent.stop();
    if broken.is_empty() {
        println!("all held");
        return ExitCode::SUCCESS;
    }
    for line in broken {
        println!("BROKEN: {line}");
    }
    ExitCode::FAILURE
}
