//! The sender matrix: what becomes of mail for a host that refuses it, for each
//! program that sends mail and each point of refusal.
//!
//! `cargo xtask test senders [-- [--write] [NAME…]]`: prints the matrix, for all
//! senders or those whose name contains one of NAME; fails when a cell is worse
//! than [`EXPECTED`]. With `--write`, puts it into `docs/senders.md`, and the senders' own
//! words into `target/senders.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on is to fail, and has no harness to print for it"
)]

use std::{
    env, fs,
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::{Agent, binary},
    firewall::Nft,
    internet::Internet,
    lab::{HOST_INTERFACE, Namespace, Star},
    matrix::{Outcome, table},
    repository::repository,
    senders::{Running, SENDERS, Sender},
};

/// What a host does.
enum Role {
    /// Serves DNS.
    Names,
    /// Runs nomail with that `--refuse-at`.
    Refuses(&'static str),
    /// Runs nomail with `--refuse-at auto`, and sees each connection come from another network.
    RefusesFarm,
    /// Runs nomail with [`RELAY`].
    Relays,
    /// Takes all mail.
    Takes,
}

/// Names below `example`, and roles; each is a host of its own, and knows
/// nothing of what another has seen.
const HOSTS: &[(&str, Role)] = &[
    ("ns", Role::Names),
    ("greeting", Role::Refuses("greeting")),
    ("ehlo", Role::Refuses("ehlo")),
    ("mail", Role::Refuses("mail")),
    ("rcpt", Role::Refuses("rcpt")),
    ("auto", Role::Refuses("auto")),
    // Only for senders that look up MX records, from here on.
    ("soon", Role::Refuses("auto")),
    ("dual", Role::Refuses("auto")),
    ("farm", Role::RefusesFarm),
    ("old-greeting", Role::Refuses("greeting")),
    ("old-auto", Role::Refuses("auto")),
    ("both1", Role::Refuses("auto")),
    ("both2", Role::Refuses("auto")),
    ("relay", Role::Relays),
    ("good", Role::Takes),
];
/// Hosts that all senders meet.
const COMMON_HOSTS: usize = 6;

/// The only records beside each host's address. A mailless host is in no MX
/// record (RFC 1846 section 4.3); the `stale` ones are the mistake.
const RECORDS: &str = "\
stale-greeting.example. 60 IN MX 10 old-greeting.example.
stale-greeting.example. 60 IN MX 20 good.example.
stale-auto.example. 60 IN MX 10 old-auto.example.
stale-auto.example. 60 IN MX 20 good.example.
stale-rcpt.example. 60 IN MX 10 rcpt.example.
stale-rcpt.example. 60 IN MX 20 good.example.
both.example. 60 IN MX 10 both1.example.
both.example. 60 IN MX 20 both2.example.
null.example. 60 IN MX 0 .
mailless.example. 60 IN MX 10 relay.example.
any.mailless.example. 60 IN MX 10 relay.example.
unlisted.example. 60 IN MX 10 relay.example.
";

const RELAY: &str = r#"
[relay]
domains = ["mailless.example", "*.mailless.example"]
"#;

/// Each connection is from another of these, as from a large sender: a /16 each, and a /32.
const FARM: &str = "table inet farm {
    chain input { type nat hook input priority 100; policy accept;
        meta nfproto ipv4 tcp dport 25 snat ip to numgen inc mod 8 map {
            0 : 11.1.0.25, 1 : 11.2.0.25, 2 : 11.3.0.25, 3 : 11.4.0.25,
            4 : 11.5.0.25, 5 : 11.6.0.25, 6 : 11.7.0.25, 7 : 11.8.0.25 }
        meta nfproto ipv6 tcp dport 25 snat ip6 to numgen inc mod 4 map {
            0 : 2a01:1::25, 1 : 2a01:2::25, 2 : 2a01:3::25, 3 : 2a01:4::25 }
    }
}";

/// Mail that is sent.
struct Case {
    title: &'static str,
    domain: &'static str,
    /// One after the other, each when it is clear what became of the last.
    messages: usize,
    /// Whether the next follows at once, and not after the retry interval.
    soon: bool,
    /// What the sender must be told.
    reason: &'static str,
    /// Whether a host takes this mail: then to return it is to lose it.
    taken: bool,
}

const fn case(
    title: &'static str,
    domain: &'static str,
    messages: usize,
    reason: &'static str,
) -> Case {
    Case {
        title,
        domain,
        messages,
        soon: false,
        reason,
        taken: false,
    }
}

const fn stale(title: &'static str, domain: &'static str) -> Case {
    Case {
        taken: true,
        ..case(title, domain, 2, "521")
    }
}

/// Columns of the first table.
const POINTS: &[Case] = &[
    case("greeting", "greeting.example", 1, "521"),
    case("ehlo", "ehlo.example", 1, "521"),
    case("mail", "mail.example", 1, "521"),
    case("rcpt", "rcpt.example", 1, "521"),
    case("auto", "auto.example", 2, "521"),
];

/// Rows of the second table.
const ROUTES: &[Case] = &[
    Case {
        soon: true,
        ..case("auto, two messages at once", "soon.example", 2, "521")
    },
    case("auto, IPv6 and IPv4", "dual.example", 1, "521"),
    case(
        "auto, from another network each time",
        "farm.example",
        1,
        "521",
    ),
    case("both MX nomail, auto", "both.example", 1, "521"),
    stale(
        "MX 10 nomail with greeting, MX 20 takes mail",
        "stale-greeting.example",
    ),
    stale(
        "MX 10 nomail with auto, MX 20 takes mail",
        "stale-auto.example",
    ),
    stale(
        "MX 10 nomail with rcpt, MX 20 takes mail",
        "stale-rcpt.example",
    ),
    case("null MX", "null.example", 1, "null.example"),
    case("relay, listed domain", "mailless.example", 1, "556"),
    case(
        "relay, domain below a listed one",
        "any.mailless.example",
        1,
        "556",
    ),
    case("relay, other domain", "unlisted.example", 1, "550"),
];

/// For each sender, the letters of [`Outcome::from_letter`]: messages of POINTS,
/// and messages of ROUTES if it looks up MX records.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("Postfix", "D 0 0 0 1 0", "1 0 1 1 1 + + + 0 0 0 0 0 0 0"),
    ("Exim", "0 0 0 0 0 0", "0 1 0 0 0 + + + 0 0 0 0 0 0 0"),
    ("OpenSMTPD", "D D 0 0 1 0", "1 0 1 1 1 + + + 0 0 0 D 0 0 0"),
    ("msmtp", "0 0 0 0 0 0", ""),
    ("swaks", "0 0 0 0 0 0", ""),
    ("curl", "0 0 0 0 0 0", ""),
    ("smtplib", "0 0 0 0 0 0", ""),
    ("nodemailer", "0 0 0 0 0 0", ""),
    ("lettre", "0 0 0 0 0 0", ""),
    ("Postfix, TLS required", "D 0 D D 2 1", ""),
    ("Exim, TLS required", "0 0 D D 0 1", ""),
    ("OpenSMTPD, TLS required", "D D D D D D", ""),
];

/// Longest from the first message to what became of the last.
const SENDER_DEADLINE: Duration = Duration::from_secs(240);

/// How often the senders' logs are read.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What became of one message.
struct Cell {
    case: &'static Case,
    message: usize,
    outcome: Outcome,
    line: String,
}

struct Row {
    sender: &'static Sender,
    version: String,
    cells: Vec<Cell>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|a| a.starts_with("--"));
    let write = flags.contains(&&"--write".to_owned());
    let chosen: Vec<_> = SENDERS
        .iter()
        .filter(|sender| {
            let name = sender.name.to_lowercase();
            names.is_empty() || names.iter().any(|n| name.contains(&n.to_lowercase()))
        })
        .collect();
    let (mut rows, failed) = run_all(&chosen);
    rows.sort_by_key(|row| SENDERS.iter().position(|s| s.name == row.sender.name));
    let report = report(&rows);
    let words = words(&rows);
    println!("{report}\n{words}");

    let worse: usize = rows.iter().map(compare).filter(|worse| *worse > 0).count();
    if chosen.len() == SENDERS.len() && failed + worse == 0 {
        document(&report, write);
        if write {
            keep(&words);
        }
    } else if write {
        eprintln!("docs/senders.md is not written: not all senders passed");
    }
    println!(
        "senders: {} passed, {} failed",
        rows.len() - worse,
        failed + worse
    );
    if failed + worse == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs some at a time; gives the rows, and how many senders have none.
fn run_all(senders: &[&'static Sender]) -> (Vec<Row>, usize) {
    let threads = env::var("RUST_TEST_THREADS")
        .ok()
        .and_then(|n| n.parse().ok());
    let mut queue: Vec<_> = senders.to_vec();
    // Those that wait for longest are to start first.
    queue.sort_by_key(|sender| (sender.retry_interval, sender.requires_tls()));
    let queue = Mutex::new(queue);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(2) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop();
                    let Some(sender) = next else { break };
                    let start = Instant::now();
                    // What it panics with is printed; the others go on.
                    let row = catch_unwind(AssertUnwindSafe(|| run(sender)));
                    let verdict = if row.is_ok() { "ran" } else { "FAILED" };
                    eprintln!(
                        "{}: {verdict} ({} s)",
                        sender.name,
                        start.elapsed().as_secs()
                    );
                    rows.lock().unwrap().extend(row);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    let failed = senders.len() - rows.len();
    (rows, failed)
}

/// Lays out a lab for one sender and sends all its messages.
fn run(sender: &'static Sender) -> Row {
    let root = sender.install();
    let (hosts, cases): (_, Vec<_>) = if looks_up_routes(sender) {
        (HOSTS, POINTS.iter().chain(ROUTES).collect())
    } else {
        (&HOSTS[..COMMON_HOSTS], POINTS.iter().collect())
    };
    let star = Star::new(hosts.len());
    let internet = Internet::new();
    let configurations = tempfile::tempdir().unwrap();
    let mut agents = Vec::new();
    for (number, (name, role)) in hosts.iter().enumerate() {
        let host = &star.hosts[number];
        let address: Ipv4Addr = Star::ipv4(number).parse().unwrap();
        match role {
            Role::Names => internet.serve_names(host, address, &records(hosts)),
            Role::Takes => internet.take_mail(host, address, "good.example"),
            Role::Refuses(_) | Role::RefusesFarm | Role::Relays => {
                if matches!(role, Role::RefusesFarm) {
                    // Where the answers are translated back, a route has been found already.
                    for networks in ["11.0.0.0/8", "2a01::/16"] {
                        host.ip(&format!("route add {networks} dev {HOST_INTERFACE}"));
                    }
                    Nft::install().load(host, FARM);
                }
                agents.push(start_agent(host, name, role, configurations.path()));
            }
        }
    }
    let _agents: Vec<_> = agents.into_iter().map(Agent::serving).collect();

    let mut running = sender.start(&root, &star.client, &Star::ipv4(0));
    let mut cells = send_all(&mut running, sender.retry_interval, &cases);
    if cells.iter().any(|cell| cell.outcome == Outcome::Lost) {
        eprintln!("{}:\n{}", sender.name, running.tail());
    }
    cells.sort_by_key(|cell| {
        let place = cases
            .iter()
            .position(|case| case.domain == cell.case.domain);
        (place, cell.message)
    });
    Row {
        sender,
        version: running.version(),
        cells,
    }
}

/// Sends every message when its time has come, and waits for what becomes of it.
fn send_all(
    running: &mut Running<'_>,
    retry_interval: Duration,
    cases: &[&'static Case],
) -> Vec<Cell> {
    let start = Instant::now();
    let mut unsent: Vec<_> = cases.iter().map(|case| (*case, 0, start)).collect();
    let mut sent = Vec::new();
    let mut cells = Vec::new();
    while !(unsent.is_empty() && sent.is_empty()) {
        let now = Instant::now();
        for (case, message, due) in std::mem::take(&mut unsent) {
            if due > now {
                unsent.push((case, message, due));
            } else {
                running.send(case.domain, &recipient(case, message));
                sent.push((case, message));
            }
        }
        let late = now - start > SENDER_DEADLINE;
        for (case, message) in std::mem::take(&mut sent) {
            let found = running.outcome(&recipient(case, message), case.reason);
            let (outcome, line) = match found {
                // To whom?
                Some((Outcome::Delivered, line)) if !case.taken => (Outcome::Lost, line),
                Some(found) => found,
                None if late => (Outcome::Lost, format!("nothing in {SENDER_DEADLINE:?}")),
                None => {
                    sent.push((case, message));
                    continue;
                }
            };
            cells.push(Cell {
                case,
                message,
                outcome,
                line,
            });
            if message + 1 < case.messages {
                let wait = if case.soon {
                    Duration::ZERO
                } else {
                    retry_interval
                };
                unsent.push((case, message + 1, now + wait));
            }
        }
        thread::sleep(POLL_INTERVAL);
    }
    cells
}

/// Starts nomail, without waiting for it.
fn start_agent(host: &Namespace, name: &str, role: &Role, directory: &Path) -> Agent {
    // What one has seen, no other may read from the default directory.
    let state = directory.join(name);
    let configuration = directory.join(format!("{name}.toml"));
    let relay = if matches!(role, Role::Relays) {
        RELAY
    } else {
        ""
    };
    fs::write(&configuration, format!("state_dir = {state:?}\n{relay}")).unwrap();
    let hostname = format!("{name}.example");
    let mut arguments = vec!["--iface", HOST_INTERFACE, "--hostname", &hostname];
    arguments.extend(["--config", configuration.to_str().unwrap()]);
    match role {
        Role::Refuses(point) => arguments.extend(["--refuse-at", point]),
        Role::RefusesFarm => arguments.extend(["--refuse-at", "auto"]),
        Role::Names | Role::Relays | Role::Takes => {}
    }
    Agent::spawn(host, &arguments)
}

fn looks_up_routes(sender: &Sender) -> bool {
    sender.is_server() && !sender.requires_tls()
}

fn recipient(case: &Case, message: usize) -> String {
    format!("{}@{}", ["first", "second"][message], case.domain)
}

fn records(hosts: &[(&str, Role)]) -> String {
    let addresses = hosts.iter().enumerate().map(|(number, (name, _))| {
        let ipv6 = if ["dual", "farm"].contains(name) {
            format!("{name}.example. 60 IN AAAA {}\n", Star::ipv6(number))
        } else {
            String::new()
        };
        format!("{name}.example. 60 IN A {}\n{ipv6}", Star::ipv4(number))
    });
    addresses.chain([RECORDS.to_owned()]).collect()
}

/// Says which cells differ from what is expected; gives how many are worse.
fn compare(row: &Row) -> usize {
    let (_, points, routes) = EXPECTED
        .iter()
        .find(|(name, ..)| *name == row.sender.name)
        .expect("every sender has a line in EXPECTED");
    let expected: Vec<_> = points
        .split(' ')
        .chain(routes.split_whitespace())
        .map(Outcome::from_letter)
        .collect();
    assert_eq!(expected.len(), row.cells.len(), "{}", row.sender.name);
    let mut worse = 0;
    for (cell, expected) in row.cells.iter().zip(expected) {
        if cell.outcome != expected {
            let verdict = if cell.outcome > expected {
                worse += 1;
                "WORSE"
            } else {
                "better"
            };
            eprintln!(
                "{verdict}: {}, {}: {} instead of {expected}: {}",
                row.sender.name,
                title(cell),
                cell.outcome,
                cell.line
            );
        }
    }
    worse
}

fn title(cell: &Cell) -> String {
    let title = cell.case.title;
    match cell.message {
        0 => title.to_owned(),
        _ => format!("{title}: second message"),
    }
}

fn shown(cell: &Cell) -> String {
    match cell.outcome {
        Outcome::Delivered => "delivered by MX 20".to_owned(),
        Outcome::Returned(_) if cell.case.taken => format!("**LOSS**: {}", cell.outcome),
        outcome => outcome.to_string(),
    }
}

/// The tables in Markdown.
fn report(rows: &[Row]) -> String {
    let mut text = String::from("### Refusal points\n\n");
    let Some(first) = rows.first() else {
        return "no sender ran\n".to_owned();
    };
    let points: usize = POINTS.iter().map(|case| case.messages).sum();
    let head = ["sender", "version"].map(str::to_owned);
    let mut lines = vec![
        head.into_iter()
            .chain(first.cells[..points].iter().map(title))
            .collect(),
    ];
    for row in rows {
        let head = [row.sender.name.to_owned(), row.version.clone()];
        lines.push(
            head.into_iter()
                .chain(row.cells[..points].iter().map(shown))
                .collect(),
        );
    }
    text += &table(&lines);

    let servers: Vec<_> = rows.iter().filter(|row| row.cells.len() > points).collect();
    if let Some(first) = servers.first() {
        text += "\n### MX records and relay\n\n";
        let names = servers.iter().map(|row| row.sender.name.to_owned());
        let mut lines = vec![[String::new()].into_iter().chain(names).collect::<Vec<_>>()];
        for number in points..first.cells.len() {
            let cells = servers.iter().map(|row| shown(&row.cells[number]));
            let title = title(&first.cells[number]);
            lines.push([title].into_iter().chain(cells).collect());
        }
        text += &table(&lines);
    }

    text
}

/// The sender's own words about each case, in Markdown.
fn words(rows: &[Row]) -> String {
    let mut text = String::from("# What the senders said\n");
    for row in rows {
        text += &format!("\n## {}\n\n", row.sender.name);
        let head = ["case", "outcome", "line"].map(str::to_owned).to_vec();
        let cells = row
            .cells
            .iter()
            .map(|cell| vec![title(cell), shown(cell), format!("`{}`", cell.line)]);
        text += &table(&[head].into_iter().chain(cells).collect::<Vec<_>>());
    }
    text
}

/// Between these lines of the document is what this program has written.
const MARKERS: [&str; 2] = [
    "<!-- begin of the matrix -->\n",
    "<!-- end of the matrix -->",
];

/// Keeps the senders' words in `target/senders.md`.
fn keep(words: &str) {
    let agent = binary();
    let target = agent
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/nomail-agent");
    let path = target.join("senders.md");
    fs::write(&path, words).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    eprintln!("what each sender said is in {}", path.display());
}

/// Puts the report into the document, or says that it differs.
fn document(report: &str, write: bool) {
    let path = repository().join("docs/senders.md");
    let old = fs::read_to_string(&path).expect("docs/senders.md is there");
    let (head, rest) = old.split_once(MARKERS[0]).expect("it has the markers");
    let (_, tail) = rest.split_once(MARKERS[1]).expect("it has the markers");
    let [begin, end] = MARKERS;
    let new = format!("{head}{begin}\n{report}\n{end}{tail}");
    if new == old {
        eprintln!("docs/senders.md says the same");
    } else if write {
        fs::write(&path, new).expect("it is writable");
        eprintln!("docs/senders.md is written");
    } else {
        eprintln!("docs/senders.md differs: cargo xtask test senders -- --write");
    }
}
