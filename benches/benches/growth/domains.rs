//! The time to the reply to RCPT, and memory, the more domains are refused.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_benches::{load::apart, peers::target};
use nomail_tests::{
    agent::Agent,
    lab::{HOST_INTERFACE, Lab},
    poll::DEADLINE,
    processes::{End, pss_kib},
};

use crate::{Measured, knee, say};

const SIZES: [usize; 6] = [0, 1, 100, 1_000, 10_000, 100_000];
const SIZES_QUICK: [usize; 3] = [0, 1_000, 100_000];
/// Recipients of each kind in a connection: fewer than the commands that it may have.
const RECIPIENTS: usize = 400;
/// What the log says after a reload.
const RELOADED: &str = "the configuration was reloaded";
/// Smaller lists are less than the pages that memory is counted in.
const EACH_MIN: usize = 1_000;

#[derive(Default)]
struct Place {
    ours_micros: Measured,
    other_micros: Measured,
    reload_millis: Measured,
    pss_kib: u64,
}

pub(crate) fn print(quick: bool) {
    let (rounds, sizes) = if quick {
        (2, &SIZES_QUICK[..])
    } else {
        (9, &SIZES[..])
    };
    let places: Vec<_> = sizes
        .iter()
        .map(|&domains| {
            say(&format!("{domains} domains"));
            (domains, measure(domains, rounds))
        })
        .collect();
    println!("\n## Relay domains: a reply to RCPT, {rounds} rounds\n");
    println!(
        "| domains | RCPT of a domain, µs | RCPT of another, µs | PSS, MiB | octets each | reload, ms |"
    );
    println!("|---|---|---|---|---|---|");
    let none = places[0].1.pss_kib;
    let each = |domains: usize, place: &Place| {
        let more = place.pss_kib.saturating_sub(none) as f64 * 1024.0;
        (domains >= EACH_MIN).then(|| more / domains as f64)
    };
    for (domains, place) in &places {
        println!(
            "| {domains} | {} | {} | {:.2} | {} | {} |",
            place.ours_micros.shown(1),
            place.other_micros.shown(1),
            place.pss_kib as f64 / 1024.0,
            each(*domains, place).map_or("–".to_owned(), |octets| format!("{octets:.0}")),
            place.reload_millis.shown(1),
        );
    }
    println!(
        "\nMedian of the rounds' medians over {RECIPIENTS} recipients (least to most), one after \
         the other on one connection over veth: each is a packet there, a look-up, and a packet \
         back. Client and agent have a CPU each. 0: no `[relay]`, every recipient is refused. The \
         reload, from SIGHUP to the line of the log, reads all domains again.\n"
    );
    let points = |figure: &dyn Fn(&Place) -> f64| -> Vec<_> {
        places
            .iter()
            .map(|(domains, place)| (domains.to_string(), figure(place)))
            .collect()
    };
    let ours = points(&|place| place.ours_micros.median());
    println!("{}", knee("RCPT of a domain", "µs", &ours));
    let other = points(&|place| place.other_micros.median());
    println!("{}", knee("RCPT of another", "µs", &other));
    let memory: Vec<_> = places
        .iter()
        .filter_map(|(domains, place)| Some((domains.to_string(), each(*domains, place)?)))
        .collect();
    println!("{}", knee("memory of each domain", "octets", &memory));
}

fn measure(domains: usize, rounds: usize) -> Place {
    let lab = Lab::new();
    apart(&lab);
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let [list, file] = ["domains", "nomail.toml"].map(|name| directory.path().join(name));
    let mut text = String::new();
    for number in 0..domains {
        writeln!(text, "{}", domain(number)).unwrap();
    }
    fs::write(&list, text).unwrap();
    let relay = if domains == 0 {
        "refuse_at = \"rcpt\"\n".to_owned()
    } else {
        format!("[relay]\ndomain_files = [{list:?}]\n")
    };
    fs::write(&file, relay).unwrap();
    let cpu = End::Host.processor().to_string();
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--hostname",
        "mailless.example.org",
        "--xdp-mode",
        "off",
        "--config",
        file.to_str().unwrap(),
    ];
    let agent = Agent::spawn_through(&lab.host, &["taskset", "-c", &cpu], &arguments).serving();
    let mut place = Place::default();
    for round in 0..rounds {
        let (ours, other) = lab.client.within(|| {
            End::Client.stay();
            replies(domains, round)
        });
        if domains > 0 {
            place.ours_micros.add(ours);
        }
        place.other_micros.add(other);
    }
    place.pss_kib = pss_kib(agent.pid().as_raw() as u32).unwrap();
    // The first one has two lists in memory for the first time.
    for number in 1..=rounds.min(3) {
        place.reload_millis.add(reload(&agent, number));
    }
    agent.stop();
    place
}

fn domain(number: usize) -> String {
    format!("mailless-{number}.example.net")
}

/// One connection: the median microseconds to the reply, for recipients of the domains
/// and for others.
fn replies(domains: usize, round: usize) -> (f64, f64) {
    let stream = TcpStream::connect(target()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut line = String::new();
    let mut reply = |expected: &str| loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with(expected), "{line}");
        if line.as_bytes().get(3) != Some(&b'-') {
            return;
        }
    };
    reply("220");
    stream.write_all(b"EHLO client.example.com\r\n").unwrap();
    reply("250");
    stream.write_all(b"MAIL FROM:<a@example.com>\r\n").unwrap();
    reply("250");
    let (mut ours, mut other) = (Measured::default(), Measured::default());
    let mut state = round as u32 + 1;
    for number in 0..2 * RECIPIENTS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let picked = (state >> 8) as usize;
        let is_ours = number % 2 == 0 && domains > 0;
        let recipient = if is_ours {
            domain(picked % domains)
        } else {
            format!("mail-{picked}.example.com")
        };
        let command = format!("RCPT TO:<user@{recipient}>\r\n");
        let start = Instant::now();
        stream.write_all(command.as_bytes()).unwrap();
        reply("5");
        let micros = start.elapsed().as_secs_f64() * 1e6;
        if is_ours {
            ours.add(micros);
        } else {
            other.add(micros);
        }
    }
    stream.write_all(b"QUIT\r\n").unwrap();
    reply("221");
    (ours.median(), other.median())
}

/// Milliseconds from SIGHUP until the log has the line for this time.
fn reload(agent: &Agent, number: usize) -> f64 {
    let start = Instant::now();
    agent.signal(Signal::SIGHUP);
    while agent.log().matches(RELOADED).count() < number {
        assert!(start.elapsed() < DEADLINE, "no reload: {}", agent.log());
        sleep(Duration::from_millis(1));
    }
    start.elapsed().as_secs_f64() * 1000.0
}
