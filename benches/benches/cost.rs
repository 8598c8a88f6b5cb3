//! What nomail costs a host: time per frame beside a program that only passes,
//! memory at rest, and how soon it serves. Prints Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

use std::{
    collections::HashSet,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use nomail_agent::guard::{Mode, Policy, Rate};
use nomail_common::verdict::Verdict;
use nomail_tests::{
    agent::Agent,
    foreign::Program,
    frames::{ACK, ETHERNET_LENGTH, Segment},
    lab::{HOST_INTERFACE, HOST_IPV4, Lab},
    program::{guard, guarding},
};

/// Sources that take turns in the rows about SYNs.
const SOURCES: u32 = 256;
/// Runs of each frame in one measurement; the kernel reports their mean in
/// whole nanoseconds.
const REPEAT: u32 = 4_000;

struct Row {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    /// The verdict that each of the frames must get, if they are SYNs for us.
    verdict: Option<Verdict>,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    // The first rounds of a cold machine do not count.
    let rounds = if quick { 3 } else { 15 };
    println!("## Time per frame by BPF_PROG_TEST_RUN, {rounds} rounds\n");
    println!("| frame | nanoseconds, median (least to most) | to the floor |");
    println!("|---|---|---|");
    let lab = Lab::new();
    lab.host.within(|| frames(rounds));
    drop(lab);
    println!("\n## The agent at rest\n");
    println!("| what | median (least to most) | goal | |");
    println!("|---|---|---|---|");
    at_rest(if quick { 3 } else { 9 });
    if quick {
        println!("\n--quick: fewer rounds (3 of 15, and 3 of 9); nothing else was left out.");
    }
}

/// The programs are attached to an interface that carries nothing: the kernel
/// patches its XDP dispatcher for every test run of one that is not, which
/// takes longer than the run.
fn frames(rounds: usize) {
    let rows = rows();
    let floor = Program::load("floor");
    let attached = floor.attach("lo");
    let mut floors = Vec::new();
    let mut nanoseconds: Vec<Vec<f64>> = rows.iter().map(|_| Vec::new()).collect();
    // In turns, so that a drift of the machine meets all of them.
    for _ in 0..rounds {
        let arp = &rows[0].frames[0];
        let times = (0..SOURCES).map(|_| f64::from(floor.test_run(arp, REPEAT)));
        floors.push(times.sum::<f64>() / f64::from(SOURCES));
        for (row, measured) in rows.iter().zip(&mut nanoseconds) {
            measured.push(measure(row));
        }
    }
    drop(attached);
    let floor = median(&mut floors);
    println!(
        "| any, a program that only passes | {} | 1.00 |",
        shown(&mut floors)
    );
    for (row, measured) in rows.iter().zip(&mut nanoseconds) {
        let ratio = median(measured) / floor;
        println!("| {} | {} | {ratio:.2} |", row.name, shown(measured));
    }
}

/// Mean nanoseconds for a frame of the row, under a limit that gives each the
/// verdict that the row is about.
fn measure(row: &Row) -> f64 {
    let burst = if row.verdict == Some(Verdict::LimitedSource) {
        1
    } else {
        10_000
    };
    let mut guard = guard(&Policy {
        source: Rate { rate: burst, burst },
        // Not challenged: the next run of the frame would get the answer.
        answerable: HashSet::new(),
        ..guarding(&["192.0.2.1:25", "[2001:db8::1]:25"])
    });
    let interface = nix::net::if_::if_nametoindex(HOST_INTERFACE).unwrap();
    guard.attach(interface, &[Mode::Native]).unwrap();
    if row.verdict == Some(Verdict::LimitedSource) {
        for frame in &row.frames {
            guard.test_run(frame, 2).unwrap();
        }
    }
    let before = guard.counters(Some(0)).unwrap().verdicts;
    let times = row.frames.iter().cycle().take(SOURCES as usize);
    let times = times.map(|frame| guard.test_run(frame, REPEAT).unwrap().1 as f64);
    let mean = times.sum::<f64>() / f64::from(SOURCES);
    let after = guard.counters(Some(0)).unwrap().verdicts;
    let all = u64::from(SOURCES * REPEAT);
    let counted: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    match row.verdict {
        None => assert_eq!(counted, 0, "{}: it must not be ours", row.name),
        Some(verdict) => {
            let wanted = after[verdict as usize] - before[verdict as usize];
            assert_eq!(counted, all, "{}: each is counted", row.name);
            assert!(wanted * 100 >= all * 99, "{}: {wanted} of {all}", row.name);
        }
    }
    mean
}

fn rows() -> Vec<Row> {
    let ipv4 = Segment::syn("198.51.100.1:40000", "192.0.2.1:25");
    let ipv6 = Segment::syn("[2001:db8:9::1]:40000", "[2001:db8::1]:25");
    let mut arp = ipv4.frame();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut udp = ipv4.frame();
    udp[ETHERNET_LENGTH + 9] = 17;
    let mut udp6 = ipv6.frame();
    udp6[ETHERNET_LENGTH + 6] = 17;
    let syns: Vec<_> = (0..SOURCES)
        .map(|n| {
            Segment::syn(
                &format!("198.51.{}.{}:40000", n / 16, n % 16),
                "192.0.2.1:25",
            )
            .frame()
        })
        .collect();
    let syns6: Vec<_> = (0..SOURCES)
        .map(|n| Segment::syn(&format!("[2001:db8:9:{n:x}::1]:40000"), "[2001:db8::1]:25").frame())
        .collect();
    let other = |name, frame| Row {
        name,
        frames: vec![frame],
        verdict: None,
    };
    let ours = |name, frames, verdict| Row {
        name,
        frames,
        verdict: Some(verdict),
    };
    vec![
        other("ARP", arp),
        other("UDP over IPv4", udp),
        other("UDP over IPv6", udp6),
        other(
            "TCP of a connection, IPv4",
            Segment { flags: ACK, ..ipv4 }.frame(),
        ),
        other(
            "TCP of a connection, IPv6",
            Segment { flags: ACK, ..ipv6 }.frame(),
        ),
        other(
            "TCP of a connection, two VLAN tags",
            Segment {
                flags: ACK,
                vlan_tags: 2,
                ..ipv4
            }
            .frame(),
        ),
        other(
            "SYN to another port",
            Segment::syn("198.51.100.1:1", "192.0.2.1:443").frame(),
        ),
        other(
            "SYN to port 25 of another address",
            Segment::syn("198.51.100.1:1", "192.0.2.2:25").frame(),
        ),
        ours(
            "SYN that passes, 256 sources, IPv4",
            syns.clone(),
            Verdict::Passed,
        ),
        ours(
            "SYN that passes, 256 sources, IPv6",
            syns6.clone(),
            Verdict::Passed,
        ),
        ours(
            "SYN over the limit, 256 sources, IPv4",
            syns,
            Verdict::LimitedSource,
        ),
        ours(
            "SYN over the limit, 256 sources, IPv6",
            syns6,
            Verdict::LimitedSource,
        ),
    ]
}

fn at_rest(rounds: usize) {
    let (mut memory, mut start) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let lab = Lab::new();
        let started = Instant::now();
        let agent = Agent::spawn(&lab.host, &["--iface", HOST_INTERFACE]);
        lab.client.within(greeted);
        start.push(started.elapsed().as_secs_f64() * 1000.0);
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        memory.push(kib / 1024.0);
        agent.stop();
    }
    for (what, measured, goal) in [
        ("resident memory, MiB", &mut memory, 6.0),
        ("from start to a greeting, milliseconds", &mut start, 80.0),
    ] {
        let said = met(median(measured) <= goal);
        println!("| {what} | {} | {goal} | {said} |", shown(measured));
    }
}

/// Whether a goal is met, as the table says it.
fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**MISSED**" }
}

/// Connects until it is greeted.
fn greeted() {
    let host = SocketAddr::new(HOST_IPV4.parse().unwrap(), 25);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect(host) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let mut code = [0; 3];
    stream.read_exact(&mut code).unwrap();
    assert_eq!(&code, b"521");
}

fn median(measured: &mut [f64]) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}

fn shown(measured: &mut [f64]) -> String {
    let middle = median(measured);
    format!(
        "{middle:.1} ({:.1} to {:.1})",
        measured[0],
        measured[measured.len() - 1]
    )
}
