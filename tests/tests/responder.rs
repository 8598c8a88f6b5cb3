//! The responder over a real wire: what every client hears and how that is
//! counted, remembered and logged, whatever the client does.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    },
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_agent::smtp::{Senders, unix_now};
use nomail_tests::{
    agent::{self, Agent, GREETING, NAME, WELCOME},
    files::Files,
    flood::answerable,
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, succeeded},
    poll::{DEADLINE, until},
};
use socket2::{Domain, Socket, Type};

/// Flags that leave the limit of SYNs out of a test.
const UNLIMITED: &[&str] = &[
    "--syn-rate",
    "10000",
    "--syn-burst",
    "10000",
    "--xdp-mode",
    "native",
];
const FIRST: &str = "192.0.2.100";
const SECOND: &str = "192.0.2.101";
const THIRD: &str = "192.0.2.102";

/// A lab and the files of its agent.
struct Host {
    lab: Lab,
    files: Files,
    /// So that XDP is native, and nothing is warned of.
    _program: OwnedFd,
}

impl Host {
    fn new() -> Self {
        let lab = Lab::new();
        let program = answerable(&lab.client, CLIENT_INTERFACE);
        Self {
            lab,
            files: Files::new(),
            _program: program,
        }
    }

    /// Writes the configuration. The memory is the test's own, and not that of an
    /// agent which is installed.
    fn configure(&self, toml: &str) {
        let state = format!("state_dir = {}\n", self.files.quoted("state"));
        self.files.write("nomail.toml", state + toml);
    }

    fn spawn(&self, through: &[&str], flags: &[&str]) -> Agent {
        let arguments = [&["--hostname", NAME], flags].concat();
        self.files.spawn(&self.lab, through, &arguments)
    }

    /// Starts an agent that a test can send as many SYNs as it likes.
    fn start(&self, toml: &str) -> Agent {
        self.start_with(toml, &[])
    }

    fn start_with(&self, toml: &str, flags: &[&str]) -> Agent {
        self.configure(toml);
        self.spawn(&[], &[UNLIMITED, flags].concat()).serving()
    }

    /// Runs an agent that must refuse to start: its exit code and what it said.
    fn refused(&self, toml: &str, flags: &[&str]) -> (i32, String) {
        self.configure(toml);
        let mut agent = self.spawn(&[], flags);
        (agent.wait().code().unwrap(), agent.log())
    }

    /// Writes a configuration that is to be taken over, and waits until it is.
    fn reload(&self, agent: &Agent, toml: &str) {
        let before = times(&agent.log(), "the configuration was reloaded");
        self.configure(toml);
        agent.signal(Signal::SIGHUP);
        until("the configuration is reloaded", || {
            (times(&agent.log(), "the configuration was reloaded") > before).then_some(())
        });
    }

    /// Has it reload what is wrong, and gives what it logs about that.
    fn reload_in_vain(&self, agent: &Agent) -> String {
        let before = agent.log().len();
        agent.signal(Signal::SIGHUP);
        until("the configuration stays as it was", || {
            let log = agent.log().split_off(before);
            log.contains("the configuration stays as it was")
                .then_some(log)
        })
    }

    /// Connects from an address of the client to the host's of the same family.
    fn connect(&self, from: &str) -> Client {
        self.lab.client.within(|| Client::connect(from, None))
    }
}

/// How often `part` is in `log`.
fn times(log: &str, part: &str) -> usize {
    log.matches(part).count()
}

/// Waits until no connection is open, and all that they left is known.
fn settled(agent: &Agent) {
    until("no connection is open", || {
        (agent.count("/connections/active") == 0).then_some(())
    });
}

/// One who speaks SMTP.
struct Client(BufReader<TcpStream>);

impl Client {
    /// Must be called within the namespace. A small receive buffer makes the
    /// host keep what the client does not read.
    fn connect(from: &str, receive_buffer: Option<usize>) -> Self {
        let from: IpAddr = from.parse().unwrap();
        let host = if from.is_ipv4() { HOST_IPV4 } else { HOST_IPV6 };
        let to = SocketAddr::new(host.parse().unwrap(), 25);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        if let Some(octets) = receive_buffer {
            socket.set_recv_buffer_size(octets).unwrap();
        }
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect_timeout(&to.into(), DEADLINE).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        Self(BufReader::new(socket.into()))
    }

    /// Reads a whole reply.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let begin = reply.len();
            let count = self.0.read_line(&mut reply).unwrap();
            assert_ne!(count, 0, "the end after {reply:?}");
            if reply.as_bytes().get(begin + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    fn send(&mut self, octets: &[u8]) {
        self.0.get_mut().write_all(octets).unwrap();
    }

    /// Says a command and reads the reply.
    fn say(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// Says a command that is to be answered with this code.
    fn told(&mut self, command: &str, expected: &str) {
        let reply = self.say(command);
        assert_eq!(code(&reply), expected, "{command:?} was answered {reply:?}");
    }

    /// All that is still to be heard; an error when the host resets.
    fn rest(mut self) -> io::Result<String> {
        let mut heard = String::new();
        self.0.read_to_string(&mut heard)?;
        Ok(heard)
    }

    /// Says QUIT, and is let go in order.
    fn quit(mut self) {
        self.told("QUIT", "221 2.0.0");
        assert_eq!(self.rest().unwrap(), "");
    }
}

/// The code of a reply, with its enhanced code if it has one.
fn code(reply: &str) -> &str {
    let last = reply.strip_suffix("\r\n").unwrap().lines().last().unwrap();
    let end = last[4..].find(' ').map_or(last.len(), |at| at + 4);
    let word = &last[4..end];
    let enhanced =
        word.split('.').count() == 3 && word.split('.').all(|number| number.parse::<u16>().is_ok());
    if enhanced { &last[..end] } else { &last[..3] }
}

/// The code of each reply.
fn codes(heard: &str) -> Vec<&str> {
    let lines = heard.split_inclusive("\r\n");
    lines
        .filter(|line| line.as_bytes()[3] != b'-')
        .map(code)
        .collect()
}

/// Commands, each with the code of its reply.
type Script<'a> = &'a [(&'a str, &'a str)];

#[test]
fn each_refusal_point_has_its_dialog() {
    let recipient = "RCPT TO:<b@mailless.example.org>";
    let sender = "MAIL FROM:<a@client.example>";
    let cases: [(&str, &str, Script<'_>); 4] = [
        (
            "greeting",
            GREETING,
            &[
                ("EHLO client.example", "521 5.3.2"),
                ("HELO client.example", "521 5.3.2"),
                (sender, "521 5.3.2"),
                (recipient, "521 5.3.2"),
                ("DATA", "521 5.3.2"),
                ("NOOP", "521 5.3.2"),
                ("nonsense", "521 5.3.2"),
            ],
        ),
        (
            "ehlo",
            WELCOME,
            &[
                ("EHLO client.example", "521"),
                ("HELO client.example", "521"),
                (sender, "521 5.3.2"),
                (recipient, "521 5.3.2"),
                ("DATA", "521 5.3.2"),
                ("RSET", "250 2.0.0"),
                ("NOOP", "250 2.0.0"),
            ],
        ),
        (
            "mail",
            WELCOME,
            &[
                ("DATA", "503 5.5.1"),
                ("EHLO client.example", "250"),
                (sender, "521 5.3.2"),
                ("MAIL FROM:<>", "521 5.3.2"),
                (recipient, "521 5.3.2"),
                ("DATA", "503 5.5.1"),
                ("HELO client.example", "250"),
                (sender, "521 5.3.2"),
            ],
        ),
        (
            "rcpt",
            WELCOME,
            &[
                (recipient, "521 5.3.2"),
                ("EHLO", "250"),
                ("EHLO b\u{fc}ro.example", "250"),
                (recipient, "521 5.3.2"),
                ("mail from:a@client.example SIZE=1 X=Y", "250 2.1.0"),
                (sender, "250 2.1.0"),
                (recipient, "521 5.3.2"),
                ("rcpt to:<Postmaster>", "521 5.3.2"),
                ("RCPT TO:<b@mailless.example.org> NOTIFY=NEVER", "521 5.3.2"),
                ("RCPT TO:b@mailless.example.org", "521 5.3.2"),
                ("RCPT TO:<root>", "521 5.3.2"),
                ("AUTH PLAIN", "521 5.3.2"),
                ("DATA", "554 5.5.1"),
                ("RSET", "250 2.0.0"),
                ("DATA", "503 5.5.1"),
                ("NOOP is ignored", "250 2.0.0"),
                ("VRFY b", "550 5.1.1"),
                ("HELP", "214 2.0.0"),
                ("STARTTLS", "502 5.5.1"),
                ("BDAT 1 LAST", "502 5.5.1"),
                ("nonsense", "500 5.5.1"),
                ("MAIL FROM:<>", "250 2.1.0"),
                (recipient, "521 5.3.2"),
                ("EHLO again.example", "250"),
                ("DATA", "503 5.5.1"),
            ],
        ),
    ];
    let host = Host::new();
    for (point, greeting, script) in cases {
        let agent = host.start_with("", &["--refuse-at", point]);
        for from in [FIRST, "2001:db8::100"] {
            let mut client = host.connect(from);
            assert_eq!(client.reply(), greeting, "{point}");
            for (command, expected) in script {
                client.told(command, expected);
            }
            client.quit();

            let mut hasty = host.connect(from);
            let commands: String = script
                .iter()
                .map(|(command, _)| format!("{command}\r\n"))
                .collect();
            hasty.send(format!("{commands}QUIT\r\n").as_bytes());
            let heard = hasty.rest().unwrap();
            let mut expected = vec![&greeting[..3]];
            expected.extend(script.iter().map(|(_, code)| *code));
            expected.push("221 2.0.0");
            assert_eq!(codes(&heard), expected, "{point}, all at once");
        }
        settled(&agent);
        let status = agent.status();
        for other in ["greeting", "ehlo", "mail", "rcpt"] {
            let expected = if other == point { 4 } else { 0 };
            let counted = &status["connections"][format!("refused_{other}")];
            assert_eq!(counted, expected, "refused_{other} with {point}");
        }
        assert_eq!(status["connections"]["quit"], 4, "{status:#}");
        agent.stop();
    }
}

/// Where `refuse_at = "auto"` has refused a client.
#[derive(Debug, PartialEq, Eq)]
enum Rung {
    Greeting,
    Ehlo,
    Rcpt,
}

/// Comes with mail, and sees where it is refused.
fn rung(host: &Host, from: &str) -> Rung {
    let mut client = host.connect(from);
    let greeting = client.reply();
    let rung = if greeting == GREETING {
        Rung::Greeting
    } else {
        assert_eq!(greeting, WELCOME);
        let ehlo = client.say("EHLO client.example");
        if code(&ehlo) == "521" {
            client.told("HELO client.example", "521");
            Rung::Ehlo
        } else {
            assert_eq!(code(&ehlo), "250");
            client.told("MAIL FROM:<>", "250 2.1.0");
            client.told("RCPT TO:<b@mailless.example.org>", "521 5.3.2");
            Rung::Rcpt
        }
    };
    client.quit();
    rung
}

/// Comes back for TLS, which is not offered, and goes away.
fn leave_after_ehlo(host: &Host, agent: &Agent, from: &str) {
    let mut client = host.connect(from);
    assert_eq!(client.reply(), WELCOME);
    client.told("EHLO client.example", "250");
    client.told("STARTTLS", "502 5.5.1");
    client.quit();
    settled(agent);
}

/// More networks of the client: addresses in the /32 of the first, and in another /16.
fn more_networks(host: &Host) {
    for (address, network) in [
        ("2001:db8:0:1::100/64", "2001:db8:0:1::/64"),
        ("2001:db8:1::100/64", "2001:db8:1::/64"),
        ("198.51.100.100/24", "198.51.100.0/24"),
    ] {
        let nodad = if address.contains("::") { " nodad" } else { "" };
        let add = format!("address add {address} dev {CLIENT_INTERFACE}{nodad}");
        host.lab.client.ip(&add);
        let route = format!("route add {network} dev {HOST_INTERFACE}");
        host.lab.host.ip(&route);
    }
}

#[test]
fn auto_remembers_networks_over_reload_restart_and_kill() {
    let host = Host::new();
    more_networks(&host);
    let file = host.files.path("state/senders");
    let agent = host.start("");
    assert_eq!(rung(&host, FIRST), Rung::Greeting);
    assert_eq!(rung(&host, SECOND), Rung::Rcpt, "the same network");
    assert_eq!(
        rung(&host, "2001:db8::100"),
        Rung::Rcpt,
        "maybe the same sender"
    );
    assert_eq!(rung(&host, "2001:db8:1::100"), Rung::Rcpt);

    leave_after_ehlo(&host, &agent, FIRST);
    assert_eq!(rung(&host, SECOND), Rung::Ehlo, "it wanted TLS");
    settled(&agent);
    assert_eq!(rung(&host, FIRST), Rung::Rcpt, "the rungs alternate");
    assert_eq!(agent.count("/connections/refused_greeting"), 1);
    assert_eq!(agent.count("/connections/refused_ehlo"), 1);
    assert_eq!(agent.count("/connections/refused_rcpt"), 4);
    assert_eq!(agent.count("/connections/senders"), 2);

    host.reload(&agent, "");
    assert_eq!(rung(&host, THIRD), Rung::Rcpt);
    leave_after_ehlo(&host, &agent, FIRST);
    let uid: u32 = agent.process("Uid").parse().unwrap();
    agent.stop();
    let kept = fs::metadata(&file).unwrap();
    assert_eq!(kept.mode() & 0o7777, 0o600);
    assert_eq!(kept.uid(), uid);
    assert_ne!(uid, 0);

    let mut agent = host.start("");
    assert!(agent.log().contains("2 networks remembered"));
    assert_eq!(rung(&host, THIRD), Rung::Ehlo, "the rung is kept, too");
    assert_eq!(rung(&host, "2001:db8:0:1::100"), Rung::Rcpt);
    assert_eq!(
        rung(&host, "198.51.100.100"),
        Rung::Rcpt,
        "the pause is kept"
    );
    agent.signal(Signal::SIGKILL);
    agent.wait();
    // As if it had been writing.
    host.files.write("state/senders.new", "nomail send");
    chown(host.files.path("state/senders.new"), Some(uid), Some(uid)).unwrap();

    let agent = host.start("");
    assert!(!agent.log().contains("WARN"), "{}", agent.log());
    assert_ne!(rung(&host, FIRST), Rung::Greeting, "known before");
    assert_eq!(rung(&host, "2001:db8::100"), Rung::Rcpt);
    // Not known as of the last time it was written down: as if new.
    assert_eq!(agent.count("/connections/senders"), 2);
    assert_eq!(rung(&host, "198.51.100.100"), Rung::Rcpt);
    agent.stop();
    let kept = Senders::restore(&fs::read(&file).unwrap(), unix_now(), 3600).unwrap();
    assert_eq!(kept.len(), 3);
}

/// As large senders do: each attempt is from another pool of addresses.
#[test]
fn auto_refuses_a_sender_that_returns_from_another_network() {
    let host = Host::new();
    more_networks(&host);
    let agent = host.start("");
    assert_eq!(rung(&host, FIRST), Rung::Greeting);
    for from in ["198.51.100.100", "2001:db8::100", FIRST] {
        assert_eq!(rung(&host, from), Rung::Rcpt, "{from}");
    }
    agent.stop();
}

#[test]
fn without_a_usable_memory_nobody_is_harmed() {
    let host = Host::new();
    let file = host.files.path("state/senders");
    fs::create_dir(host.files.path("state")).unwrap();
    chown(host.files.path("state"), Some(65_534), Some(65_534)).unwrap();
    fs::write(&file, "nomail senders 1\n192.0.2.0/24 yesterday rcpt\n").unwrap();
    chown(&file, Some(65_534), Some(65_534)).unwrap();
    let agent = host.start("user = 65534\n");
    assert_eq!(rung(&host, FIRST), Rung::Rcpt, "in doubt");
    assert_eq!(rung(&host, "2001:db8::100"), Rung::Rcpt);
    let log = agent.log();
    assert_eq!(times(&log, "WARN"), 1, "{log}");
    assert!(log.contains(&format!("WARN  {}: cannot be used", file.display())));
    assert!(log.contains("not a memory of this version"), "{log}");
    agent.stop();

    // The doubt is remembered, and the warning is over.
    let agent = host.start("user = 65534\n");
    assert_eq!(rung(&host, "2001:db8::100"), Rung::Rcpt);
    assert!(!agent.log().contains("WARN"), "{}", agent.log());
    agent.stop();

    // A directory of root's.
    fs::remove_dir_all(host.files.path("state")).unwrap();
    fs::create_dir(host.files.path("state")).unwrap();
    let agent = host.start("");
    let cannot = "what nomail remembers of senders and domains cannot be written to";
    until("that is told", || {
        agent.log().contains(cannot).then_some(())
    });
    assert_eq!(rung(&host, FIRST), Rung::Greeting);
    assert_eq!(rung(&host, SECOND), Rung::Rcpt);
    agent.signal(Signal::SIGTERM);
    let mut agent = agent;
    assert!(agent.wait().success());
    assert_eq!(times(&agent.log(), cannot), 1, "{}", agent.log());
    assert_eq!(times(&agent.log(), "WARN"), 1, "{}", agent.log());

    // The default one, where nothing is installed. It is not the test's to use.
    if fs::exists("/var/lib/nomail").unwrap() {
        return;
    }
    host.files.write("nomail.toml", "");
    let agent = host.spawn(&[], UNLIMITED).serving();
    assert_eq!(rung(&host, FIRST), Rung::Greeting);
    assert_eq!(rung(&host, SECOND), Rung::Rcpt);
    let log = agent.log();
    agent.stop();
    assert!(!log.contains("WARN"), "{log}");
    assert!(!fs::exists("/var/lib/nomail").unwrap());
}

#[test]
fn auto_under_pressure_greets_and_remembers() {
    let host = Host::new();
    let agent = host.start("limits.connections = 1\n");
    let mut held = host.connect(FIRST);
    assert_eq!(held.reply(), GREETING);
    for from in [SECOND, "2001:db8::100"] {
        // An idle one would make room for another network.
        held.told("NOOP", "521 5.3.2");
        let mut shed = host.connect(from);
        shed.send(b"EHLO client.example\r\n");
        assert_eq!(shed.rest().unwrap(), GREETING);
    }
    held.quit();
    settled(&agent);
    assert_eq!(rung(&host, "2001:db8::100"), Rung::Rcpt);
    settled(&agent);
    assert_eq!(rung(&host, SECOND), Rung::Rcpt);
    settled(&agent);
    assert_eq!(agent.count("/connections/shed"), 2);
    assert_eq!(agent.count("/connections/refused_greeting"), 3);
    agent.stop();
}

/// One home network with a /48 has 65,536 sources, and holds what it can get.
#[test]
fn a_full_house_has_room_for_all_but_the_fullest_network() {
    const PLACES: usize = 256;
    const NETWORKS: usize = 128;
    const HONEST: usize = 30;
    let host = Host::new();
    for network in 0..NETWORKS {
        let address =
            format!("addr add 2001:db8:5:{network:x}::1/128 dev {CLIENT_INTERFACE} nodad");
        host.lab.client.ip(&address);
    }
    let route = format!("route add 2001:db8:5::/48 dev {HOST_INTERFACE}");
    host.lab.host.ip(&route);
    let agent = host.start(&format!(
        "refuse_at = \"rcpt\"\n[limits]\nconnections = {PLACES}\nconnections_per_source = 80\n"
    ));
    let crowd_from = |number: usize| format!("2001:db8:5:{:x}::1", number % NETWORKS);
    let mut crowd: Vec<_> = (0..PLACES)
        .map(|number| host.connect(&crowd_from(number)))
        .collect();
    for client in &mut crowd {
        assert_eq!(client.reply(), WELCOME);
    }
    // More of them get no more.
    let mut more = host.connect(&crowd_from(7));
    assert_eq!(more.reply(), GREETING);

    // Half of the honest come while all others are held.
    let mut held = Vec::new();
    for number in 0..HONEST {
        let mut client = host.connect([FIRST, SECOND, THIRD][number % 3]);
        assert_eq!(client.reply(), WELCOME, "honest client {number}");
        client.told("EHLO client.example", "250");
        client.told("MAIL FROM:<a@client.example>", "250 2.1.0");
        client.told("RCPT TO:<b@mailless.example.org>", "521 5.3.2");
        if number < HONEST / 2 {
            held.push(client);
        } else {
            client.quit();
        }
    }
    for client in held {
        client.quit();
    }
    // Those that made room were told so in order.
    let evicted = agent.count("/connections/evicted");
    assert!((HONEST / 2..=HONEST).contains(&usize::try_from(evicted).unwrap()));
    let refusal = "521 5.3.2 mailless.example.org does not accept mail\r\n";
    let (told, kept) = crowd.split_at_mut(HONEST / 2);
    for client in told {
        let mut heard = String::new();
        client.0.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, refusal);
    }
    kept.last_mut().unwrap().told("NOOP", "250 2.0.0");
    drop((crowd, more));
    settled(&agent);
    assert_eq!(agent.count("/connections/shed"), 1);
    let quit = agent.count("/connections/quit");
    assert_eq!(usize::try_from(quit).unwrap(), HONEST);
    agent.stop();
}

/// What HAProxy's `smtpchk` hears, check after check.
fn checks(host: &Host, agent: &Agent, times: usize) -> Vec<String> {
    let check = |_| {
        let mut client = host.connect(FIRST);
        let greeting = client.reply();
        let ehlo = client.say("EHLO check.example");
        client.quit();
        settled(agent);
        format!("{} {}", &greeting[..3], &ehlo[..3])
    };
    (0..times).map(check).collect()
}

#[test]
fn a_health_check_settles_and_a_monitor_never_flaps() {
    let host = Host::new();
    let agent = host.start("");
    let heard = checks(&host, &agent, 16);
    let steady = heard
        .iter()
        .rposition(|answer| answer != "220 250")
        .unwrap();
    assert!(steady < 6, "{heard:?}");
    assert!(heard.contains(&"220 521".to_owned()), "{heard:?}");
    let senders = agent.count("/connections/senders");
    assert_eq!(senders, 1);

    for point in ["auto", "greeting", "ehlo"] {
        let toml = format!("refuse_at = {point:?}\nmonitors = [\"192.0.2.100/32\"]\n");
        host.reload(&agent, &toml);
        assert_eq!(checks(&host, &agent, 6), ["220 250"; 6], "{point}");
    }
    let mut monitor = host.connect(FIRST);
    monitor.reply();
    monitor.told("MAIL FROM:<check@client.example>", "250 2.1.0");
    monitor.told("RCPT TO:<check@other.example>", "521 5.3.2");
    monitor.quit();
    settled(&agent);
    assert_eq!(agent.count("/connections/senders"), senders);
    assert_eq!(agent.count("/connections/recipients_elsewhere"), 0);
    let log = agent.log();
    assert!(!log.contains("arrives here"), "{log}");
    agent.stop();
}

#[test]
fn mail_for_other_domains_is_told_once_and_no_envelope_unasked() {
    let host = Host::new();
    let toml = "refuse_at = \"rcpt\"\nlog.ignore = [\"192.0.2.102\"]\n";
    let agent = host.start(toml);
    let mut client = host.connect(FIRST);
    assert_eq!(client.reply(), WELCOME);
    client.told("EHLO client.example", "250");
    client.told("MAIL FROM:<secret.sender@client.example>", "250 2.1.0");
    let here = "arrives here";
    for own in [
        "b@mailless.example.org",
        "b@MAILLESS.example.org.",
        "b@[192.0.2.1]",
    ] {
        client.told(&format!("RCPT TO:<{own}>"), "521 5.3.2");
    }
    assert_eq!(times(&agent.log(), here), 0, "{}", agent.log());
    for domain in ["example.org", "example.org", "EXAMPLE.Org", "example.org."] {
        let recipient = format!("RCPT TO:<secret.recipient@{domain}>");
        client.told(&recipient, "521 5.3.2");
    }
    // Another network asks for it, too.
    let mut other = host.connect("2001:db8::100");
    assert_eq!(other.reply(), WELCOME);
    other.told("EHLO client.example", "250");
    other.told("MAIL FROM:<secret.sender@client.example>", "250 2.1.0");
    other.told("RCPT TO:<secret.recipient@example.org>", "521 5.3.2");
    let log = until("it is warned of", || {
        let log = agent.log();
        (times(&log, here) > 0).then_some(log)
    });
    let warned =
        "WARN  mail for example.org arrives here (from 2 networks, last from 2001:db8::100)";
    assert_eq!(times(&log, warned), 1, "{log}");
    assert_eq!(times(&log, here), 1, "{log}");
    assert_eq!(agent.count("/connections/recipients_elsewhere"), 5);

    // No name that anybody can have, and one in U-labels.
    client.told("RCPT TO:<u@b\u{fc}cher\u{202e}.example>", "521 5.3.2");
    for client in [&mut client, &mut other] {
        client.told("RCPT TO:<u@b\u{fc}cher.example>", "521 5.3.2");
    }
    other.quit();
    client.told("RCPT TO:<u\u{fc}@eight.example>", "521 5.3.2");
    client.send(b"RCPT TO:<u@b\xfccher.latin>\r\n");
    assert_eq!(code(&client.reply()), "521 5.3.2");
    until("the other is warned of", || {
        let warned = "mail for xn--bcher-kva.example arrives here";
        agent.log().contains(warned).then_some(())
    });
    assert_eq!(times(&agent.log(), here), 2, "{}", agent.log());
    // A terminal would obey: refused, and closed.
    client.send(b"RCPT TO:<\"\x1b[31m\"@red.example>\r\nNOOP\r\n");
    assert_eq!(codes(&client.rest().unwrap()), ["521 5.3.2"]);

    // A health checker has no line, whatever it asks for.
    let mut checker = host.connect(THIRD);
    checker.reply();
    for (command, expected) in [
        ("EHLO checker.example", "250"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("RCPT TO:<u@checked.example>", "521 5.3.2"),
    ] {
        checker.told(command, expected);
    }
    let log = agent.log();
    assert!(!log.contains("secret"), "{log}");
    assert!(!log.contains("checked.example"), "{log}");
    assert!(!log.contains("red.example"), "{log}");

    host.reload(&agent, &format!("{toml}log.envelope = true\n"));
    let mut client = host.connect(FIRST);
    client.reply();
    for (command, expected) in [
        ("HELO client.example", "250"),
        ("MAIL FROM:<@r.example:now@client.example>", "250 2.1.0"),
        ("RCPT TO:<now@b\u{fc}cher.example>", "521 5.3.2"),
    ] {
        client.told(command, expected);
    }
    client.quit();
    // The checker's session began before; what is new for it is none of it.
    checker.told("RCPT TO:<v@checked.example>", "521 5.3.2");
    checker.quit();
    let mut checker = host.connect(THIRD);
    checker.reply();
    checker.told("HELO checker.example", "250");
    checker.told("MAIL FROM:<checker@client.example>", "250 2.1.0");
    checker.quit();
    let log = agent.log();
    for line in [
        r"192.0.2.100: MAIL FROM:<@r.example:now@client.example>",
        r"192.0.2.100: RCPT TO:<now@b\xc3\xbccher.example>",
    ] {
        assert_eq!(times(&log, line), 1, "{log}");
    }
    assert!(!log.contains("192.0.2.102"), "{log}");
    assert!(!log.contains("checker@"), "{log}");
    let printable = |octet: &u8| matches!(octet, b'\n' | b' '..=b'~');
    assert!(log.as_bytes().iter().all(printable), "{log:?}");
}

/// What a relay says of each of these recipients.
fn relayed(host: &Host, recipients: &[(&str, &str)]) {
    let mut client = host.connect(FIRST);
    assert_eq!(client.reply(), WELCOME);
    client.told("EHLO client.example", "250");
    client.told("MAIL FROM:<a@client.example>", "250 2.1.0");
    for (recipient, expected) in recipients {
        let reply = client.say(&format!("RCPT TO:<{recipient}>"));
        assert!(reply.starts_with(expected), "{recipient}: {reply:?}");
    }
    client.told("DATA", "554 5.5.1");
    client.quit();
}

const LISTED: &str = "556 5.1.2 this domain does not accept mail\r\n";
const UNLISTED: &str = "550 5.7.1 ";
/// RFC 1846 section 3: what a host says of itself.
const OWN: &str = "521 5.3.2 mailless.example.org does not accept mail\r\n";

#[test]
fn a_relay_refuses_its_domains_and_follows_its_list() {
    let host = Host::new();
    let list = host.files.path("domains");
    fs::write(
        &list,
        "# mailless\nlisted.example\n*.Wild.example # below\n\
         other.example  Write to other.example.net\nxn--strae-oqa.example\n",
    )
    .unwrap();
    let toml = format!(
        "[relay]\ndomains = [\"example.com\", \"*.example.com gone\", \"b\u{fc}cher.example\"]\n\
         domain_files = [{}]\npostmaster = \"postmaster@example.net\"\n",
        host.files.quoted("domains")
    );
    let agent = host.start(&toml);
    let elsewhere = "551 5.1.6 User not local; please try <postmaster@example.net>\r\n";
    relayed(
        &host,
        &[
            ("u@example.com", LISTED),
            ("u@EXAMPLE.Com.", LISTED),
            ("\"a>@ b\"@example.com", LISTED),
            ("u@a.b.example.com", "556 5.1.2 gone\r\n"),
            ("u@b\u{fc}cher.example", LISTED),
            ("u@B\u{dc}CHER.example", LISTED),
            ("u@xn--bcher-kva.example", LISTED),
            ("u@stra\u{df}e.example", LISTED),
            ("u@listed.example", LISTED),
            ("u@a.listed.example", UNLISTED),
            ("u@wild.example", UNLISTED),
            ("u@deep.in.wild.EXAMPLE", LISTED),
            (
                "u@other.example",
                "556 5.1.2 Write to other.example.net\r\n",
            ),
            ("@a.example,@b.example:u@example.com", LISTED),
            ("@example.com:u@unlisted.example", UNLISTED),
            ("u@unlisted.example", UNLISTED),
            ("u@mailless.example.org", OWN),
            ("u@MAILLESS.example.org.", OWN),
            (&format!("u@[{HOST_IPV4}]"), OWN),
            ("root", OWN),
            ("u@[192.0.2.250]", UNLISTED),
            ("Postmaster", elsewhere),
            ("postmaster@example.com", elsewhere),
            ("POSTMASTER@mailless.example.org", elsewhere),
            ("postmaster@unlisted.example", UNLISTED),
        ],
    );
    settled(&agent);
    let status = agent.status();
    assert_eq!(status["connections"]["refused_rcpt"], 1);
    assert_eq!(status["connections"]["recipients_elsewhere"], 0);
    assert!(!agent.log().contains("arrives here"));

    fs::write(&list, "new.example\n").unwrap();
    host.reload(&agent, &toml);
    let now = [("u@new.example", LISTED), ("u@listed.example", UNLISTED)];
    relayed(&host, &now);

    // Whatever becomes of the list, what was known is kept.
    let shown = list.display().to_string();
    fs::write(&list, "# none\n").unwrap();
    let log = host.reload_in_vain(&agent);
    assert!(log.contains(&format!("{shown}: lists no domain")), "{log}");
    relayed(&host, &now);
    fs::write(&list, "new.example\n").unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    let log = host.reload_in_vain(&agent);
    assert!(log.contains(&format!("{shown}: cannot be read")), "{log}");
    relayed(&host, &now);
    fs::remove_file(&list).unwrap();
    let log = host.reload_in_vain(&agent);
    assert!(log.contains(&shown), "{log}");
    relayed(&host, &now);

    // The letter of RFC 1846, and no postmaster.
    fs::write(&list, "new.example\n").unwrap();
    let letter = toml.replace("postmaster = \"postmaster@example.net\"", "code = 521");
    host.reload(&agent, &letter);
    relayed(
        &host,
        &[
            (
                "u@new.example",
                "521 5.3.2 this domain does not accept mail\r\n",
            ),
            ("postmaster@new.example", "521 5.3.2 "),
            ("Postmaster", OWN),
        ],
    );

    // No room: later, and never "no mail here".
    host.reload(&agent, &format!("limits.connections = 1\n{toml}"));
    settled(&agent);
    let mut held = host.connect(FIRST);
    assert_eq!(held.reply(), WELCOME);
    for from in [SECOND, "2001:db8::100"] {
        // An idle one would make room for another network.
        held.told("NOOP", "250 2.0.0");
        let mut shed = host.connect(from);
        shed.send(b"EHLO client.example\r\n");
        let heard = shed.rest().unwrap();
        assert!(heard.starts_with("421 mailless.example.org "), "{heard}");
        assert_eq!(heard.lines().count(), 1, "{heard}");
    }
    held.told("EHLO client.example", "250");
    held.quit();
    assert_eq!(agent.count("/connections/shed"), 2);
    assert_eq!(agent.count("/connections/refused_greeting"), 0);

    // It need not stay a relay.
    host.reload(&agent, "refuse_at = \"greeting\"\n");
    settled(&agent);
    assert_eq!(host.connect(FIRST).reply(), GREETING);
    host.reload(&agent, &toml);
    relayed(&host, &now);
    agent.stop();
}

#[test]
fn a_relay_without_a_list_or_with_another_point_does_not_start() {
    let host = Host::new();
    let toml = format!(
        "[relay]\ndomain_files = [{}]\n",
        host.files.quoted("domains")
    );
    host.files.write("domains", "example.org\n");
    for point in ["greeting", "ehlo", "mail", "auto"] {
        let (code, log) = host.refused(&toml, &["--refuse-at", point]);
        assert_eq!(code, 78, "{log}");
        assert!(
            log.contains("--refuse-at") && log.contains("[relay]"),
            "{log}"
        );
        let (code, log) = host.refused(&format!("refuse_at = {point:?}\n{toml}"), &[]);
        assert_eq!(code, 78, "{log}");
    }
    let (code, log) = host.refused("[relay]\n", &[]);
    assert_eq!(code, 78, "{log}");
    host.start_with(&toml, &["--refuse-at", "rcpt"]).stop();
}

#[test]
fn a_hundred_thousand_domains_are_read_answered_and_read_again() {
    let host = Host::new();
    let domains: String = (0..100_000)
        .map(|number| format!("mailless-{number}.example\n"))
        .collect();
    host.files.write("domains", &domains);
    let toml = format!(
        "[relay]\ndomain_files = [{}]\n",
        host.files.quoted("domains")
    );
    host.configure(&toml);
    let begin = Instant::now();
    let output = Command::new(agent::binary())
        .args([OsStr::new("check-config"), OsStr::new("--config")])
        .arg(host.files.path("nomail.toml"))
        .output()
        .unwrap();
    succeeded("check-config", &output);
    println!("check-config of 100,000 domains: {:?}", begin.elapsed());

    let agent = host.start(&toml);
    relayed(
        &host,
        &[
            ("u@mailless-0.example", LISTED),
            ("u@mailless-99999.example", LISTED),
            ("u@mailless-100000.example", UNLISTED),
        ],
    );
    fs::write(
        host.files.path("domains"),
        format!("{domains}mailless-100000.example\n"),
    )
    .unwrap();
    let begin = Instant::now();
    host.reload(&agent, &toml);
    println!("reload of 100,001 domains: {:?}", begin.elapsed());
    relayed(&host, &[("u@mailless-100000.example", LISTED)]);
}

#[test]
fn who_does_not_speak_smtp_is_told_once_and_closed() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let talkers: [(&str, &[u8]); 6] = [
        (
            "http",
            b"GET / HTTP/1.1\r\nHost: mailless.example.org\r\n\r\n",
        ),
        (
            "http",
            b"CONNECT example.org:25 HTTP/1.1\r\n\r\nEHLO client.example\r\n",
        ),
        ("tls", hello),
        ("proxy", b"PROXY TCP4 192.0.2.1 192.0.2.2 9 25\r\n"),
        ("garbage", b"\x00\x01\x02\x03\r\nEHLO client.example\r\n"),
        ("garbage", b"SSH-2.0-client\0\x01\x14\x0a\x14\r\n"),
    ];
    let host = Host::new();
    for (point, greeting) in [("rcpt", WELCOME), ("greeting", GREETING)] {
        let agent = host.start_with("", &["--refuse-at", point]);
        for (_, says) in talkers {
            let mut client = host.connect(FIRST);
            assert_eq!(client.reply(), greeting);
            client.send(says);
            // More than is looked at.
            client.send(&[b'x'; 100_000]);
            let heard = client.rest().unwrap();
            let refusal = "521 5.3.2 mailless.example.org does not accept mail\r\n";
            assert_eq!(heard, refusal);
        }
        settled(&agent);
        let status = agent.status();
        for (kind, count) in [
            ("http", 2),
            ("tls", 1),
            ("proxy", 1),
            ("garbage", 2),
            ("closed", 6),
        ] {
            assert_eq!(status["connections"][kind], count, "{kind}: {status:#}");
        }
        agent.stop();
    }
}

#[test]
fn a_proxy_header_and_a_bare_lf_end_in_521() {
    let refusal = "521 5.3.2 mailless.example.org does not accept mail\r\n";
    let bare_lf =
        "521 5.5.2 mailless.example.org does not accept mail, and lines end with CR LF\r\n";
    let host = Host::new();
    for (point, greeting) in [("rcpt", WELCOME), ("greeting", GREETING)] {
        let agent = host.start_with("", &["--refuse-at", point]);
        // The longest that an answer takes is far below the time-out.
        let begin = Instant::now();
        let mut client = host.connect(FIRST);
        assert_eq!(client.reply(), greeting);
        client.send(b"EHLO client.example\n");
        assert_eq!(client.rest().unwrap(), bare_lf);
        let mut client = host.connect(FIRST);
        assert_eq!(client.reply(), greeting);
        client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01");
        client.send(b"\xc0\x00\x02\x02\x04\x00\x00\x19EHLO client.example\r\n");
        assert_eq!(client.rest().unwrap(), refusal.repeat(3));
        assert!(begin.elapsed() < Duration::from_secs(10));
        settled(&agent);
        let status = agent.status();
        for (kind, count) in [("proxy", 1), ("garbage", 0), ("closed", 2)] {
            assert_eq!(status["connections"][kind], count, "{kind}: {status:#}");
        }
        agent.stop();
    }
}

#[test]
fn slow_clients_hold_neither_a_place_nor_memory() {
    let host = Host::new();
    let agent = host.start("refuse_at = \"rcpt\"\nlimits.idle_timeout_secs = 1\n");
    // Who drips has one deadline for the whole command.
    let mut client = host.connect(FIRST);
    assert_eq!(client.reply(), WELCOME);
    client.0.get_ref().set_nonblocking(true).unwrap();
    let begin = Instant::now();
    let mut octets = b"NOOP ".iter().chain(std::iter::repeat(&b'x'));
    until("the one who drips is ended", || {
        // It may have been reset by now, after its end.
        let _ = client.0.get_mut().write(&[*octets.next().unwrap()]);
        sleep(Duration::from_millis(180));
        match client.0.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            heard => {
                assert!(heard.unwrap().starts_with(b"421 4.4.2 "));
                Some(())
            }
        }
    });
    let dripped = begin.elapsed();
    assert!(dripped >= Duration::from_millis(900), "{dripped:?}");
    client.0.get_ref().set_nonblocking(false).unwrap();
    assert_eq!(times(&client.rest().unwrap(), "\r\n"), 1);

    // Who goes on has one for the session.
    host.reload(
        &agent,
        "refuse_at = \"rcpt\"\n[limits]\nidle_timeout_secs = 2\nsession_timeout_secs = 3\n",
    );
    let mut client = host.connect(FIRST);
    assert_eq!(client.reply(), WELCOME);
    let begin = Instant::now();
    let heard = loop {
        let reply = client.say("NOOP");
        if code(&reply) != "250 2.0.0" {
            break reply;
        }
        assert!(begin.elapsed() < DEADLINE, "NOOP for ever");
        sleep(Duration::from_millis(500));
    };
    assert_eq!(code(&heard), "421 4.4.2");
    assert!(begin.elapsed() >= Duration::from_millis(2500));
    assert_eq!(client.rest().unwrap(), "");
    settled(&agent);
    assert_eq!(agent.count("/connections/timed_out"), 2);

    // Who never reads gets no more than what the kernel holds for him.
    let resident = || agent.process("VmRSS").parse::<u64>().unwrap();
    let before = resident();
    let clients: Vec<_> = host.lab.client.within(|| {
        let connect = |number: usize| {
            let (from, command) = [(SECOND, "NOOP\r\n"), (THIRD, "HELP\r\n")][number % 2];
            let mut client = Client::connect(from, Some(1));
            client.0.get_ref().set_nonblocking(true).unwrap();
            let commands = command.repeat(100_000);
            let mut left = commands.as_bytes();
            while let Ok(count) = client.0.get_mut().write(left) {
                left = &left[count..];
            }
            assert!(!left.is_empty(), "the host has taken all");
            client
        };
        (0..100).map(connect).collect()
    });
    let most = (0..10).map(|_| {
        sleep(Duration::from_millis(20));
        resident()
    });
    let most = most.max().unwrap();
    println!("VmRSS with 100 that never read: {before} KiB, then {most} KiB");
    assert!(most < before + 2048, "{before} KiB, then {most} KiB");
    settled(&agent);
    let timed_out = agent.count("/connections/timed_out");
    let closed = agent.count("/connections/closed");
    // The kernel may have had room for a thousand answers to NOOP.
    assert!(timed_out >= 52, "{:#}", agent.status());
    assert_eq!(timed_out + closed, 102, "{:#}", agent.status());
    drop(clients);
}

/// Lets the agent find all that `connect` does at once.
fn at_once<T>(agent: &Agent, connect: impl FnOnce() -> T) -> T {
    agent.signal(Signal::SIGSTOP);
    let connected = connect();
    agent.signal(Signal::SIGCONT);
    connected
}

#[test]
fn the_log_has_a_line_for_the_busiest_and_one_for_the_others() {
    let host = Host::new();
    let agent = host.start_with(
        "refuse_at = \"rcpt\"\n[log]\ninterval_secs = 1\nsources_max = 1\n\
         ignore = [\"192.0.2.102\"]\n",
        &["-v"],
    );
    let quit = |from| {
        let mut client = host.connect(from);
        client.send(b"QUIT\r\n");
        client
    };
    // Again, if a report came in between.
    until("both lines are there", || {
        let clients = at_once(&agent, || [FIRST, SECOND, FIRST, FIRST, THIRD].map(quit));
        for client in clients {
            assert_eq!(codes(&client.rest().unwrap()), ["220", "221 2.0.0"]);
        }
        sleep(Duration::from_millis(1500));
        let log = agent.log();
        let both = log.contains("INFO  192.0.2.100: 3 connections, 3 quit in 1 s\n")
            && log.contains("INFO  1 other sources: 1 connection, 1 quit in 1 s\n");
        both.then_some(())
    });
    // Who may be forged: SYNs, and never more.
    let before = agent.count("/syn/passed");
    host.lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for port in 2000..2050 {
            let source = format!("192.0.2.55:{port}");
            sender.send(&Segment::syn(&source, "192.0.2.1:25").frame());
        }
    });
    until("all are counted", || {
        (agent.count("/syn/passed") >= before + 50).then_some(())
    });
    let reports = times(&agent.log(), " in 1 s\n");
    until("another report is there", || {
        quit(FIRST).rest().unwrap();
        (times(&agent.log(), " in 1 s\n") > reports).then_some(())
    });
    let log = agent.log();
    assert!(log.contains("192.0.2.100: quit after"), "{log}");
    for unnamed in ["192.0.2.55", "192.0.2.102"] {
        assert!(!log.contains(unnamed), "{log}");
    }
    agent.stop();

    let toml = "refuse_at = \"rcpt\"\nlog.interval_secs = 1\n";
    host.configure(toml);
    let flags = ["--syn-rate", "1", "--syn-burst", "2"];
    let agent = host.spawn(&[], &flags).serving();
    quit(FIRST).rest().unwrap();
    host.lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for port in 2000..2030 {
            let source = format!("192.0.2.100:{port}");
            sender.send(&Segment::syn(&source, "192.0.2.1:25").frame());
        }
    });
    until("they are limited", || {
        (agent.count("/syn/limited_source") >= 25).then_some(())
    });
    until("that is logged", || {
        // The kernel tries again until it is let in.
        quit(FIRST).rest().unwrap();
        let log = agent.log();
        let limited = log.lines().filter_map(|line| {
            let (before, _) = line.split_once(" SYNs limited")?;
            let (who, count) = before.rsplit_once(", ")?;
            assert!(who.contains("192.0.2.100: "), "{line}");
            count.parse::<u64>().ok()
        });
        (limited.sum::<u64>() >= 25).then_some(())
    });
    agent.stop();
}

/// A number of the log's lines.
fn field(line: &serde_json::Value, key: &str) -> u64 {
    let number = line[key].as_u64();
    number.unwrap_or_else(|| panic!("{key} is no number in {line}"))
}

#[test]
fn the_log_in_json_is_json_and_detail_is_sampled() {
    let host = Host::new();
    let agent = host.start_with(
        "refuse_at = \"auto\"\nlog.interval_secs = 1\nlog.envelope = true\n",
        &["-v", "--log-format", "json"],
    );
    let begin = Instant::now();
    host.lab.client.within(|| {
        for _ in 0..200 {
            let mut client = Client::connect(FIRST, None);
            client.send(b"QUIT\r\n");
            client.rest().unwrap();
        }
    });
    settled(&agent);
    let burst = begin.elapsed();
    let mut client = host.connect(SECOND);
    client.reply();
    for command in [
        "EHLO client.example",
        "MAIL FROM:<\"a\\\"b\"@client.example>",
        "RCPT TO:<\"\\\"q\\\"\"@b\u{fc}cher.example>",
    ] {
        client.say(command);
    }
    // What is skipped is told with the next line.
    sleep(Duration::from_millis(1100));
    client.quit();
    until("the last report is there", || {
        let log = agent.log();
        log.contains("192.0.2.101: 0 connections, 1 quit in 1 s")
            .then_some(())
            .or_else(|| {
                log.contains("192.0.2.101: 1 connection, 1 quit")
                    .then_some(())
            })
    });
    agent.signal(Signal::SIGHUP);
    until("a reload is logged", || {
        agent
            .log()
            .contains("configuration was reloaded")
            .then_some(())
    });
    let log = agent.log();
    agent.stop();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    for line in &lines {
        for key in ["time", "level", "message"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
    let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
    let mut connections = 0;
    for line in of("activity") {
        for key in "sources syn_limited timed_out closed_by_peer closed shed http tls proxy garbage"
            .split(' ')
        {
            field(line, key);
        }
        assert!(field(line, "interval_secs") >= 1);
        if line["source"] == FIRST {
            connections += field(line, "connections");
            assert!(field(line, "quit") <= 200);
        }
    }
    assert_eq!(connections, 200);
    assert_eq!(of("envelope").count(), 2, "{log}");

    let details: Vec<_> = lines
        .iter()
        .filter_map(|line| line["message"].as_str())
        .filter(|message| message.contains(" commands and "))
        .collect();
    let skipped: u64 = details
        .iter()
        .filter_map(|line| line.split_once(" (")?.1.split_once(" more before this)"))
        .map(|(count, _)| count.parse::<u64>().unwrap())
        .sum();
    let most = 10 * (burst.as_secs() + 2) + 1;
    println!("{} details in {burst:?}", details.len());
    assert!(
        details.len() as u64 <= most,
        "{} in {burst:?}",
        details.len()
    );
    assert_eq!(details.len() as u64 + skipped, 201);
}

#[test]
fn a_report_tells_the_time_that_it_is_of() {
    let host = Host::new();
    let mut agent = host.start("refuse_at = \"rcpt\"\n");
    let mut client = host.connect(FIRST);
    assert_eq!(client.reply(), WELCOME);
    client.quit();
    let begin = Instant::now();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(30));
    let log = agent.log();
    assert!(
        log.contains("192.0.2.100: 1 connection, 1 quit in "),
        "{log}"
    );
    // Not the minute that is configured.
    assert!(!log.contains("in 60 s"), "{log}");
}

#[test]
fn at_its_end_everybody_is_told() {
    let host = Host::new();
    for (toml, shed) in [
        ("refuse_at = \"rcpt\"\n", "521"),
        ("relay.domains = [\"example.com\"]\n", "421"),
    ] {
        let mut agent = host.start(toml);
        let mut open: Vec<_> = (0..50).map(|_| host.connect(FIRST)).collect();
        for client in &mut open {
            assert_eq!(client.reply(), WELCOME);
            client.send(b"NOOP half a comm");
        }
        // These wait in the queue, and have said something already.
        let serving = agent.hold_thread("smtp");
        let waiting: Vec<_> = (0..30)
            .map(|_| {
                let mut client = host.connect(SECOND);
                client.send(b"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n");
                client
            })
            .collect();
        agent.signal(Signal::SIGTERM);
        until("the end has begun", || {
            (!host.lab.host.has_xdp(HOST_INTERFACE)).then_some(())
        });
        // The order to close follows at once.
        sleep(Duration::from_millis(100));
        drop(serving);
        for client in open {
            assert_eq!(codes(&client.rest().unwrap()), ["421 4.3.2"]);
        }
        for client in waiting {
            assert_eq!(codes(&client.rest().unwrap()), [shed]);
        }
        let status = agent.wait();
        assert!(status.success(), "{status}");
        assert!(!agent.log().contains("still open"), "{}", agent.log());
    }
}

#[test]
fn with_few_descriptors_it_sheds() {
    let host = Host::new();
    host.configure("refuse_at = \"rcpt\"\n");
    let agent = host
        .spawn(
            &[
                "prlimit",
                "--nofile=300:300",
                "setpriv",
                "--bounding-set=-sys_resource",
                "--inh-caps=-sys_resource",
            ],
            UNLIMITED,
        )
        .serving();
    let log = agent.log();
    let warned =
        "limits.connections is 10000, but the descriptors that are allowed suffice for 75:";
    assert!(log.contains(warned), "{log}");
    let mut held: Vec<_> = (0..75).map(|_| host.connect(FIRST)).collect();
    for client in &mut held {
        assert_eq!(client.reply(), WELCOME);
    }
    // These stay as long as they may.
    let shed: Vec<_> = (0..300)
        .map(|_| {
            let mut client = host.connect(SECOND);
            assert_eq!(client.reply(), GREETING);
            client
        })
        .collect();
    assert!(!agent.log().contains("cannot accept"), "{}", agent.log());
    assert_eq!(agent.count("/connections/shed"), 300);
    for client in shed {
        assert_eq!(client.rest().unwrap(), "");
    }
    for client in held {
        client.quit();
    }
    settled(&agent);
    let mut client = host.connect(SECOND);
    assert_eq!(client.reply(), WELCOME);
    client.quit();
    agent.stop();
}

/// Nobody is served any more, so the service manager is to see it.
#[test]
#[cfg(target_arch = "x86_64")]
fn without_its_serving_thread_it_ends() {
    let host = Host::new();
    let mut agent = host.start("refuse_at = \"rcpt\"\n");
    agent.hold_thread("smtp").fail();
    let status = agent.wait();
    let log = agent.log();
    assert!(log.contains("port 25 is no longer served"), "{log}");
    assert!(log.contains("the serving thread has ended"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!host.lab.host.has_xdp(HOST_INTERFACE));
    assert!(!agent.control().exists());
}
