//! List files that are wrong, cut off or not there: the agent starts, does without
//! what it cannot read, and says so everywhere. What changes is taken up by itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::{self, Agent},
    files::Files,
    http::{get, samples},
    lab::{HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, until},
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const METRICS: &str = "127.0.0.1:9521";
/// Longest for a connection that is not denied.
const PATIENCE: Duration = Duration::from_secs(2);

struct Host {
    lab: Lab,
    files: Files,
}

impl Host {
    fn new() -> Self {
        Self {
            lab: Lab::new(),
            files: Files::new(),
        }
    }

    /// Writes the configuration; `@` in it stands for the directory.
    fn configure(&self, toml: &str) {
        let at = self.files.directory().to_str().unwrap();
        let file = format!("hostname = \"mailless.example.org\"\n{toml}");
        self.files.write("nomail.toml", file.replace('@', at));
    }

    fn start(&self) -> Agent {
        let file = self.files.path("nomail.toml");
        let file = file.to_str().unwrap();
        let arguments = ["--iface", HOST_INTERFACE, "--config", file];
        let unlimited = ["--syn-rate", "10000", "--syn-burst", "10000"];
        Agent::start(&self.lab.host, &[&arguments[..], &unlimited].concat())
    }

    /// What a client at this address hears for what it says until the connection is
    /// closed; nothing if it is denied.
    fn talk(&self, from: &str, says: &str) -> Option<String> {
        self.lab.client.within(|| {
            let from: SocketAddr = format!("{from}:0").parse().unwrap();
            let to: SocketAddr = format!("{HOST_IPV4}:25").parse().unwrap();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect_timeout(&to.into(), PATIENCE).ok()?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(says.as_bytes()).unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            Some(heard)
        })
    }

    fn serves(&self, from: &str) -> bool {
        self.talk(from, "QUIT\r\n").is_some()
    }

    /// Waits until a metric has this value: it is looked at once a second.
    #[track_caller]
    fn has_metric(&self, series: &str, value: f64) {
        until(&format!("{series} is {value}"), || {
            let answer = get(&self.lab.host, METRICS, "/metrics");
            (samples(&answer.body)[series] == value).then_some(())
        });
    }

    /// What `nomail-agent ARGUMENTS --config FILE` says, and its exit code.
    fn tool(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.lab.host.within(|| {
            Command::new(agent::binary())
                .args(arguments)
                .arg("--config")
                .arg(self.files.path("nomail.toml"))
                .output()
                .unwrap()
        });
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(both).unwrap())
    }
}

/// What is promised for a list file that changes.
const WITHIN: Duration = Duration::from_secs(10);

#[track_caller]
fn within(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// Has it reload, and gives what it logs until it is done.
fn reload(agent: &Agent) -> String {
    let before = agent.log().len();
    agent.signal(Signal::SIGHUP);
    until("the reload is over", || {
        let log = agent.log().split_off(before);
        let over = ["the configuration was reloaded", "the configuration stays"];
        over.iter().any(|over| log.contains(over)).then_some(log)
    })
}

fn line<'a>(text: &'a str, begin: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(begin));
    line.unwrap_or_else(|| panic!("no line {begin} in {text}"))
}

/// Lists as they are published, with one bad line: it costs that line.
#[test]
fn a_bad_line_costs_that_line_and_public_lists_are_read() {
    let host = Host::new();
    host.files.write(
        "drop",
        "; Spamhaus DROP List\n198.51.100.0/24 ; SBL1\n<bad line>\n\
         {\"cidr\":\"203.0.113.0/24\",\"sblid\":\"SBL2\",\"rir\":\"apnic\"}\n\
         {\"type\":\"metadata\",\"records\":2}\n",
    );
    host.files.write(
        "dshield",
        "# DShield\nStart\tEnd\tNetblock\tAttacks\tName\tCountry\temail\n\
         192.0.2.101\t192.0.2.101\t32\t99\tNAME\tUS\ta@example.net\n",
    );
    host.files
        .write("ipsum", b"# IPsum, \xE4\xF6\n192.0.2.102\t9\n");
    host.configure("lists.deny_files = [\"@/drop\", \"@/dshield\", \"@/ipsum\"]\n");
    let agent = host.start();
    let bad = format!(
        "{}:3:1: left out: \"<bad\" is not an address or a network",
        host.files.path("drop").display()
    );
    assert!(agent.log().contains(&bad), "{}", agent.log());
    assert!(host.serves("192.0.2.100"));
    for denied in ["192.0.2.101", "192.0.2.102"] {
        assert!(!host.serves(denied), "{denied}");
    }

    let lists = agent.status()["lists"].clone();
    assert_eq!(lists["deny"], 4, "{lists:#}");
    assert_eq!(lists["files"][0]["entries"], 2);
    assert_eq!(lists["files"][0]["left_out"], 1);
    assert_eq!(lists["files"][2]["left_out"], 0);
    assert_eq!(lists["denies_nothing"], false);
    let text = agent::status(&agent.control(), &[]);
    assert!(
        line(&text, "lists ").contains("drop: 1 wrong lines"),
        "{text}"
    );
    let left_out = "nomail_list_lines_left_out{list=\"deny\"}";
    host.has_metric(left_out, 1.0);
    host.has_metric("nomail_list_entries{list=\"deny\"}", 4.0);
    let (code, said) = host.tool(&["check-config"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&bad), "{said}");

    // A reload reads it as a start does.
    host.files
        .write("drop", "198.51.100.0/24\n192.0.2.100/24x\n");
    let log = reload(&agent);
    assert!(log.contains("the configuration was reloaded"), "{log}");
    assert!(log.contains("drop:2:1: left out: "), "{log}");
    assert_eq!(agent.status()["lists"]["deny"], 3);
    host.files.write("drop", "198.51.100.0/24\n");
    reload(&agent);
    host.has_metric(left_out, 0.0);
    let text = agent::status(&agent.control(), &[]);
    assert!(!text.contains("\nlists "), "{text}");
    agent.stop();
}

/// What is denied may be allowed by the file that is missing.
#[test]
fn without_a_file_of_the_allowed_nothing_is_denied_until_it_is_there() {
    let host = Host::new();
    host.files.write("deny", "192.0.2.101\n");
    host.configure(
        "[lists]\ndeny = [\"192.0.2.102\"]\nallow_files = [\"@/allow\"]\n\
         deny_files = [\"@/deny\", \"@/gone\"]\n",
    );
    let agent = host.start();
    let log = agent.log();
    for told in [
        "/allow: there is no such file: create it, or leave it out of lists.allow_files",
        "/gone: there is no such file",
        "nothing is denied, because a file of lists.allow_files is not known",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    for served in ["192.0.2.100", "192.0.2.101", "192.0.2.102"] {
        assert!(host.serves(served), "{served}");
    }
    let status = agent.status();
    let unread = |of: &Value, index: usize| of["lists"]["files"][index]["error"].clone();
    assert_eq!(status["lists"]["denies_nothing"], true, "{status:#}");
    assert_ne!(unread(&status, 0), "");
    assert_eq!(unread(&status, 1), "");
    assert_ne!(unread(&status, 2), "");
    let text = agent::status(&agent.control(), &[]);
    assert!(
        line(&text, "lists ").contains("NOTHING IS DENIED"),
        "{text}"
    );
    host.has_metric("nomail_denies_nothing", 1.0);
    for list in ["allow", "deny"] {
        host.has_metric(&format!("nomail_list_files_unread{{list={list:?}}}"), 1.0);
    }
    let control = agent.control();
    host.configure(&format!(
        "control = {control:?}\nlists.allow_files = [\"@/allow\"]\n"
    ));
    let (_, said) = host.tool(&["doctor"]);
    assert!(said.contains("fail  lists "), "{said}");
    // Who checks a file before it is used is to hear of a name that is wrong.
    let (code, said) = host.tool(&["check-config"]);
    assert_eq!(code, Some(78), "{said}");
    host.configure(
        "[lists]\ndeny = [\"192.0.2.102\"]\nallow_files = [\"@/allow\"]\n\
         deny_files = [\"@/deny\", \"@/gone\"]\n",
    );

    // Other keys can be reloaded meanwhile; and the files, when they come.
    let log = reload(&agent);
    assert!(log.contains("the configuration was reloaded"), "{log}");
    assert_eq!(agent.status()["lists"]["denies_nothing"], true);
    host.files
        .write("allow", "192.0.2.102/32 # a health checker\n");
    let log = reload(&agent);
    assert!(log.contains("the configuration was reloaded"), "{log}");
    assert_eq!(agent.status()["lists"]["denies_nothing"], false);
    host.has_metric("nomail_denies_nothing", 0.0);
    assert!(host.serves("192.0.2.102"), "it is allowed");
    assert!(!host.serves("192.0.2.101"));

    // What is in force is not given up by a reload.
    fs::remove_file(host.files.path("allow")).unwrap();
    let log = reload(&agent);
    assert!(log.contains("the configuration stays as it was"), "{log}");
    assert_eq!(agent.status()["reload"]["ok"], false);
    assert!(!host.serves("192.0.2.101"));
    assert!(host.serves("192.0.2.102"));
    agent.stop();
}

#[test]
fn a_relay_without_its_file_relays_nothing_and_says_so() {
    let host = Host::new();
    host.configure("relay.domain_files = [\"@/domains\"]\n");
    let agent = host.start();
    assert!(
        agent.log().contains("/domains: there is no such file"),
        "{}",
        agent.log()
    );
    let mail = "EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<u@gone.example>\r\nQUIT\r\n";
    let said = |host: &Host| host.talk("192.0.2.100", mail).unwrap();
    let heard = said(&host);
    assert!(heard.contains("\r\n550 5.7.1 "), "{heard}");
    host.has_metric("nomail_list_files_unread{list=\"domains\"}", 1.0);

    host.files
        .write("domains", "gone.example\nwrong..example\n; a comment\n");
    let log = reload(&agent);
    assert!(log.contains("domains:2:1: left out: "), "{log}");
    let heard = said(&host);
    assert!(heard.contains("\r\n556 5.1.2 "), "{heard}");
    let lists = agent.status()["lists"].clone();
    assert_eq!(lists["domains"], 1, "{lists:#}");
    assert_eq!(lists["files"][0]["left_out"], 1, "{lists:#}");
    agent.stop();
}

/// Replaced by rename, written in place, removed or new: each is followed within 10 s and
/// without a signal, and a file that can no longer be read takes nothing away.
#[test]
fn files_that_change_are_taken_up_by_themselves() {
    let host = Host::new();
    let replace = |name: &str, text: &str| {
        host.files.write("new", text);
        fs::rename(host.files.path("new"), host.files.path(name)).unwrap();
    };
    host.files.write("deny", "192.0.2.101\n");
    host.files.write("domains", "first.example\n");
    host.configure(
        "[lists]\nallow_files = [\"@/allow\"]\ndeny_files = [\"@/deny\"]\n\
         [relay]\ndomain_files = [\"@/domains\"]\n",
    );
    let agent = host.start();
    assert!(host.serves("192.0.2.101"), "while nothing is denied");
    host.files.write("allow", "192.0.2.109\n");
    within("the list of allowed sources is there", || {
        !host.serves("192.0.2.101")
    });
    assert_eq!(agent.status()["lists"]["denies_nothing"], false);

    replace("deny", "192.0.2.102\n");
    within("replaced by rename", || !host.serves("192.0.2.102"));
    assert!(host.serves("192.0.2.101"));
    let hash = agent.status()["config_hash"].clone();
    host.files.write("deny", "192.0.2.101\n");
    within("written in place", || host.serves("192.0.2.102"));
    assert!(!host.serves("192.0.2.101"));
    assert_ne!(agent.status()["config_hash"], hash);
    host.files.write("allow", "192.0.2.101\n");
    within("allowed", || host.serves("192.0.2.101"));
    replace("domains", "second.example\n");
    let mail =
        "EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<u@second.example>\r\nQUIT\r\n";
    within("a relayed domain", || {
        host.talk("192.0.2.100", mail).unwrap().contains("\r\n556 ")
    });

    // What the configuration says by now waits for a reload.
    host.configure("lists.deny = [\"192.0.2.100\"]\n");
    replace("deny", "192.0.2.102\n");
    within("a list beside an edit", || !host.serves("192.0.2.102"));
    assert!(host.serves("192.0.2.100"));

    // Bad files: each is reported once, and takes nothing away.
    let path = host.files.path("deny").display().to_string();
    let entry = || {
        let files = agent.status()["lists"]["files"].clone();
        let mut files = files.as_array().unwrap().clone();
        files.retain(|file| file["path"] == path.as_str());
        files.remove(0)
    };
    for (bad, why) in [
        (Some("<html>\n"), "has no line"),
        (None, "there is no such file"),
    ] {
        match bad {
            Some(text) => replace("deny", text),
            None => fs::remove_file(host.files.path("deny")).unwrap(),
        }
        within(why, || entry()["error"].to_string().contains(why));
        assert_eq!(entry()["kept"], true);
        assert!(!host.serves("192.0.2.102"));
        assert!(
            agent
                .log()
                .contains("what all lists said before stays in force")
        );
        host.has_metric("nomail_list_files_unread{list=\"deny\"}", 1.0);
        let text = agent::status(&agent.control(), &[]);
        let shown = line(&text, "lists ");
        assert!(shown.contains("ITS EARLIER LINES STAY IN FORCE"), "{text}");
    }
    let log = agent.log();
    let reports = log
        .matches("what all lists said before stays in force")
        .count();
    assert_eq!(reports, 2, "{log}");
    replace("deny", "192.0.2.100\n");
    within("a good file again", || !host.serves("192.0.2.100"));
    assert!(host.serves("192.0.2.102"));
    assert_eq!(
        (entry()["error"].clone(), entry()["kept"].clone()),
        ("".into(), false.into())
    );
    host.has_metric("nomail_list_files_unread{list=\"deny\"}", 0.0);
    assert!(!agent.log().contains("the configuration was reloaded"));
    agent.stop();
}
