//! `nomail-agent doctor` on real hosts: with an agent and without, with name
//! servers that tell the truth, hang or garble, beside a foreign XDP program, a
//! server that holds the port, and rules of nftables and iptables.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::{Agent, binary},
    firewall::Nft,
    flood::sysctl,
    foreign::Program,
    internet::Internet,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab, Namespace, succeeded},
    poll::until,
    root::Root,
};
use serde_json::Value;
use tempfile::TempDir;

const HOSTNAME: &str = "mailless.example.org";
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The bounds of name servers, and time for all else on a busy machine.
const BOUND: Duration = Duration::from_secs(10 + 10);

/// Nobody's mail is lost here.
const GOOD: &str = "\
mailless.example.org. 60 IN A 192.0.2.1
example.org. 60 IN MX 10 mx.example.org.
mx.example.org. 60 IN A 192.0.2.9
1.2.0.192.in-addr.arpa. 60 IN PTR mailless.example.org.
";

/// What doctor reads: its configuration, and /etc/resolv.conf.
struct Files(TempDir);

impl Files {
    fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config =
            format!("interfaces = [\"{HOST_INTERFACE}\"]\nhostname = \"{HOSTNAME}\"\n{more}\n");
        fs::write(directory.path().join("nomail.toml"), config).unwrap();
        let resolv_conf = format!("nameserver {NAME_SERVER}\n");
        fs::write(directory.path().join("resolv.conf"), resolv_conf).unwrap();
        Self(directory)
    }

    /// Of the agent that runs.
    fn of(agent: &Agent) -> Self {
        Self::new(&format!("control = {:?}", agent.control()))
    }

    /// Of none.
    fn without_agent() -> Self {
        Self::new("control = \"/nonexistent/control.sock\"")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs doctor in the namespace, with /etc/resolv.conf of its own.
    fn run(&self, namespace: &Namespace, arguments: &[&str]) -> Output {
        self.run_through(namespace, &[], &binary(), arguments)
    }

    fn run_through(
        &self,
        namespace: &Namespace,
        through: &[&str],
        binary: &Path,
        arguments: &[&str],
    ) -> Output {
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace.name()))
            .args(["unshare", "--mount", "sh", "-euc"])
            .arg("mount --bind \"$RESOLV_CONF\" /etc/resolv.conf; exec \"$@\"")
            .arg("sh")
            .args(through)
            .arg(binary)
            .args(["doctor", "--config"])
            .arg(self.path("nomail.toml"))
            .args(arguments)
            .env("RESOLV_CONF", self.path("resolv.conf"))
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap()
    }
}

/// The findings of `doctor --json`, and its exit code.
struct Findings {
    code: i32,
    all: Vec<Value>,
}

impl Findings {
    fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stdout);
        let all = serde_json::from_str(&said).unwrap_or_else(|error| {
            let log = String::from_utf8_lossy(&output.stderr);
            panic!("{error}: {said}\n{log}")
        });
        Self {
            code: output.status.code().unwrap(),
            all,
        }
    }

    fn named(&self, check: &str) -> Vec<&Value> {
        let named: Vec<_> = self
            .all
            .iter()
            .filter(|finding| finding["check"] == check)
            .collect();
        assert!(!named.is_empty(), "{check} is missing: {:#?}", self.all);
        named
    }

    /// One finding of the check has this result and all of `needles`, in what
    /// was found or in the remedy.
    #[track_caller]
    fn has(&self, check: &str, result: &str, needles: &[&str]) {
        let named = self.named(check);
        let fits = |finding: &&&Value| {
            let text = format!("{} {}", finding["found"], finding["remedy"]);
            finding["result"] == result && needles.iter().all(|needle| text.contains(needle))
        };
        assert!(
            named.iter().any(|finding| fits(&finding)),
            "no {result} of {check} with {needles:?}: {named:#?}"
        );
    }

    #[track_caller]
    fn all_are(&self, check: &str, result: &str) {
        for finding in self.named(check) {
            assert_eq!(finding["result"], result, "{finding:#}");
        }
    }
}

/// An agent that can be reached on all of its addresses: not while the kernel still
/// looks whether somebody else has the link-local one.
fn start(lab: &Lab) -> Agent {
    until("no address is tentative", || {
        let tentative = lab.host.ip("address show dev host0 tentative");
        tentative.trim().is_empty().then_some(())
    });
    Agent::start(
        &lab.host,
        &["--iface", HOST_INTERFACE, "--hostname", HOSTNAME],
    )
}

#[test]
fn a_host_that_is_well() {
    let lab = lab_with_routes();
    let internet = Internet::new();
    internet.serve_names(&lab.client, NAME_SERVER, GOOD);
    let agent = start(&lab);
    let files = Files::of(&agent);
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    assert_eq!(found.code, 0, "{:#?}", found.all);
    for check in [
        "kernel",
        "bpf_load",
        "configuration",
        "agent",
        "interface",
        "topology",
        "xdp_program",
        "xdp_native",
        "mtu",
        "checksums",
        "pins",
        "port",
        "greeting",
        "firewall",
        "conntrack",
        "hostname",
        "mx",
    ] {
        found.all_are(check, "ok");
    }
    found.has(
        "mx",
        "ok",
        &[
            "example.org, which mailless.example.org is below",
            "another host",
        ],
    );
    found.has(
        "greeting",
        "ok",
        &["192.0.2.1:25", "[2001:db8::1]:25", "%host0]:25"],
    );
    // It said QUIT on each of them.
    let listening = agent.status()["guarded"].as_array().unwrap().len() as u64;
    until("all have quit", || {
        (agent.count("/connections/quit") == listening).then_some(())
    });

    // People are told the same.
    let output = files.run(&lab.host, &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        !text.contains('\u{1b}'),
        "no colour but on a terminal: {text}"
    );
    assert_eq!(text.lines().count(), found.all.len() + 1);
    let last = text.lines().last().unwrap();
    let of = |result: &str| {
        found
            .all
            .iter()
            .filter(|all| all["result"] == result)
            .count()
    };
    assert!(
        last.starts_with(&format!("{} checks: {} ok, ", found.all.len(), of("ok"))),
        "{last}"
    );
    assert!(last.contains(" 0 errors"), "{last}");
    for (line, finding) in text.lines().zip(&found.all) {
        let of = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some(of("result").as_str()), "{line}");
        assert_eq!(words.next(), Some(of("check").as_str()), "{line}");
        // The count of connections is another one by now.
        if of("check") != "conntrack" {
            assert!(line.contains(&of("found")), "{line}\n{finding:#}");
            assert!(line.ends_with(&of("remedy")), "{line}\n{finding:#}");
        }
    }
    // Only what is not right, by the socket of the command line.
    let elsewhere = Files::without_agent();
    let control = agent.control();
    let control = ["--control", control.to_str().unwrap()];
    let quiet = elsewhere.run(&lab.host, &[&control[..], &["--quiet", "--json"]].concat());
    let quiet = Findings::of(&quiet);
    let not_ok = found.all.iter().filter(|finding| finding["result"] != "ok");
    let checks = |all: &[Value]| -> Vec<Value> {
        all.iter().map(|finding| finding["check"].clone()).collect()
    };
    let not_ok: Vec<_> = not_ok.cloned().collect();
    assert_eq!(checks(&quiet.all), checks(&not_ok));
    let quiet = elsewhere.run(&lab.host, &[&control[..], &["--quiet"]].concat());
    let quiet = String::from_utf8(quiet.stdout).unwrap();
    assert_eq!(quiet.lines().count(), not_ok.len(), "{quiet}");
    agent.stop();
}

#[test]
fn an_mx_that_is_this_host_is_told_without_being_asked() {
    const RECORDS: &str = "\
mailless.example.org. 60 IN A 192.0.2.1
example.org. 60 IN MX 10 mailless.example.org.
example.org. 60 IN MX 5 mx.example.org.
mx.example.org. 60 IN A 192.0.2.9
1.2.0.192.in-addr.arpa. 60 IN PTR pointer.example.net.
pointer.example.net. 60 IN MX 5 other.example.net.
other.example.net. 60 IN A 192.0.2.1
example.net. 60 IN A 192.0.2.1
null.example.com. 60 IN MX 0 .
null.example.com. 60 IN TXT \"v=spf1 -all\"
both.example.com. 60 IN MX 0 .
both.example.com. 60 IN MX 10 mx.example.org.
both.example.com. 60 IN TXT \"v=spf1 mx -all\"
listed.example.com. 60 IN MX 0 mailless.example.org.
";
    let lab = Lab::new();
    let internet = Internet::new();
    internet.serve_names(&lab.client, NAME_SERVER, RECORDS);
    let domains = "null.example.com,both.example.com,bare.example.com,listed.example.com";
    let files = Files::without_agent();
    let found = Findings::of(&files.run(&lab.host, &["--json", "--domain", domains]));
    assert_eq!(found.code, 1);
    found.has(
        "mx",
        "ok",
        &[
            "mailless.example.org, the name of the greeting",
            "has no MX",
        ],
    );
    found.has(
        "mx",
        "fail",
        &[
            "example.org, which",
            "MX 10 mailless.example.org.",
            "[relay]",
        ],
    );
    found.has(
        "mx",
        "fail",
        &["pointer.example.net, the name of 192.0.2.1", "MX 5 other."],
    );
    found.has(
        "mx",
        "warn",
        &["example.net, which", "has no MX", "IN MX 0 ."],
    );
    found.has(
        "mx",
        "ok",
        &["null.example.com, asked for", "has a null MX"],
    );
    found.has("mx", "fail", &["listed.example.com, asked for"]);
    found.has("null_mx", "ok", &["null.example.com"]);
    found.has("null_mx", "fail", &["both.example.com", "RFC 7505"]);
    found.has("null_mx", "warn", &["bare.example.com. IN MX 0 ."]);
    found.has("spf", "ok", &["null.example.com"]);
    found.has("spf", "skip", &["both.example.com", "mx.example.org"]);
    found.has("spf", "warn", &["bare.example.com. IN TXT", "v=spf1 -all"]);

    // What [relay] lists is to come here.
    let relay = "control = \"/nonexistent/control.sock\"\n[relay]\n\
                 domains = [\"listed.example.com\", \"example.org\", \"*.example.net\"]";
    let arguments = ["--json", "--domain", "listed.example.com"];
    let found = Findings::of(&Files::new(relay).run(&lab.host, &arguments));
    found.has("mx", "ok", &["listed.example.com", "as [relay] says"]);
    found.has("mx", "ok", &["example.org, which", "as [relay] says"]);
    assert_eq!(found.code, 0, "{:#?}", found.all);
}

/// The mail that arrives says what to look at.
#[test]
fn domains_that_mail_arrives_for_are_looked_up() {
    const RECORDS: &str = "\
mailless.example.org. 60 IN A 192.0.2.1
stale.example.com. 60 IN MX 5 mx.example.org.
stale.example.com. 60 IN MX 10 mailless.example.org.
mx.example.org. 60 IN A 192.0.2.9
fine.example.com. 60 IN MX 5 mx.example.org.
";
    let lab = Lab::new();
    let internet = Internet::new();
    internet.serve_names(&lab.client, NAME_SERVER, RECORDS);
    let agent = Agent::start(
        &lab.host,
        &[
            "--iface",
            HOST_INTERFACE,
            "--hostname",
            HOSTNAME,
            "--refuse-at",
            "rcpt",
        ],
    );
    let mail = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u@stale.example.com>\r\n\
                RCPT TO:<u@fine.example.com>\r\nQUIT\r\n";
    let heard = lab.client.within(|| {
        let mut stream = std::net::TcpStream::connect((HOST_IPV4, 25)).unwrap();
        std::io::Write::write_all(&mut stream, mail.as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    });
    assert_eq!(heard.matches("\r\n521 5.3.2 ").count(), 2, "{heard}");
    let found = Findings::of(&Files::of(&agent).run(&lab.host, &["--json"]));
    let stale = "stale.example.com, which mail arrived for, from 1 network: MX 10 ";
    found.has("mx", "fail", &[stale]);
    found.has(
        "mx",
        "ok",
        &["domains that mail arrived for and whose MX is not here: 1"],
    );
    agent.stop();
}

#[test]
fn a_name_server_that_hangs_is_not_waited_for() {
    let lab = Lab::new();
    let silent = lab
        .client
        .within(|| UdpSocket::bind((NAME_SERVER, 53)).unwrap());
    let files = Files::without_agent();
    let begun = Instant::now();
    let found = Findings::of(&files.run(
        &lab.host,
        &["--json", "--domain", "a.example.com,b.example.com"],
    ));
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    // It was asked.
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 512]).is_ok());
    for check in ["mx", "null_mx", "spf"] {
        found.all_are(check, "skip");
        found.has(check, "skip", &["a.example.com", "does not answer in time"]);
    }
    assert_eq!(found.code, 0, "{:#?}", found.all);
}

#[test]
fn a_name_server_that_garbles_reaches_no_terminal() {
    let lab = Lab::new();
    let server = lab
        .client
        .within(|| UdpSocket::bind((NAME_SERVER, 53)).unwrap());
    server.set_read_timeout(Some(BOUND)).unwrap();
    let garbler = std::thread::spawn(move || {
        let mut query = [0; 512];
        let mut answered = 0;
        while let Ok((length, from)) = server.recv_from(&mut query) {
            let Some(answer) = garbled(&query[..length]) else {
                break;
            };
            server.send_to(&answer, from).unwrap();
            answered += 1;
        }
        answered
    });
    let files = Files::without_agent();
    for arguments in [
        &["--domain", "example.com"][..],
        &["--domain", "example.com", "--json"],
    ] {
        let output = files.run(&lab.host, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("[31m"), "what it said is told: {text}");
        let raw = |character: char| {
            character != '\n' && (character.is_control() || !character.is_ascii())
        };
        assert!(!text.contains(raw), "{text:?}");
        assert!(
            output.stderr.is_empty(),
            "{:?}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // To end it.
    lab.client.within(|| {
        let socket = UdpSocket::bind((NAME_SERVER, 0)).unwrap();
        socket.send_to(b"end", (NAME_SERVER, 53)).unwrap();
    });
    assert!(garbler.join().unwrap() > 0);
}

/// An answer to the query: an MX or a TXT record with what a terminal would act
/// on, or with anything that is no record.
fn garbled(query: &[u8]) -> Option<Vec<u8>> {
    const EVIL: &[u8] = b"\x1b[31m\x07\r\n\xff\xe2\x80\xae";
    let question = query.get(12..)?;
    let end = question.iter().position(|&octet| octet == 0)? + 5;
    let question = question.get(..end)?;
    let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
    let mut data = Vec::new();
    match kind {
        15 => {
            data.extend([0, 10, EVIL.len() as u8]);
            data.extend(EVIL);
            data.push(0);
        }
        16 => {
            let text = [b"v=spf1 ", EVIL].concat();
            data.push(text.len() as u8);
            data.extend(text);
        }
        _ => data.extend(EVIL),
    }
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(question);
    answer.extend([0xc0, 12]);
    answer.extend(kind.to_be_bytes());
    answer.extend([0, 1, 0, 0, 0, 60]);
    answer.extend((data.len() as u16).to_be_bytes());
    answer.extend(data);
    Some(answer)
}

#[test]
fn what_is_in_the_way_is_named() {
    let lab = Lab::new();
    let internet = Internet::new();
    internet.serve_names(&lab.client, NAME_SERVER, GOOD);
    let foreign = Program::load("watcher");
    let (_link, holder) = lab.host.within(|| {
        let link = foreign.attach(HOST_INTERFACE);
        (link, TcpListener::bind((HOST_IPV4, 25)).unwrap())
    });
    let files = Files::without_agent();
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    assert_eq!(found.code, 1);
    found.has("agent", "skip", &["/nonexistent/control.sock"]);
    found.has("greeting", "skip", &[]);
    found.has(
        "xdp_program",
        "fail",
        &["watcher", "ip link set dev host0 xdp off"],
    );
    let pid = format!("(pid {})", std::process::id());
    found.has("port", "fail", &["192.0.2.1:25", &pid]);
    found.has("port", "ok", &["[2001:db8::1]:25"]);

    drop((_link, holder));
    until("both are gone", || {
        let found = Findings::of(&files.run(&lab.host, &["--json"]));
        (found.code == 0).then_some(())
    });
    // Another interface, and one that is not there.
    let found = Findings::of(&files.run(&lab.host, &["--json", "--iface", "lo,nothing0"]));
    assert_eq!(found.code, 1);
    found.has("interface", "fail", &["nothing0"]);
    found.has("xdp_native", "warn", &["lo: ", "no native XDP"]);
}

#[test]
fn an_agent_that_does_not_greet_fails() {
    let lab = Lab::new();
    let internet = Internet::new();
    internet.serve_names(&lab.client, NAME_SERVER, GOOD);
    let agent = start(&lab);
    let files = Files::of(&agent);
    let held = agent.hold_thread("smtp");
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    drop(held);
    assert_eq!(found.code, 1);
    found.has("agent", "ok", &[]);
    found.all_are("greeting", "fail");
    found.has("greeting", "fail", &["192.0.2.1:25", "timed out"]);
    agent.stop();
}

#[test]
fn without_root_it_tells_what_it_could_not_see() {
    let lab = Lab::new();
    let internet = Internet::new();
    internet.serve_names(&lab.client, NAME_SERVER, GOOD);
    let agent = start(&lab);
    let files = Files::of(&agent);
    // Where anybody may run it.
    let copy = files.path("nomail-agent");
    // By cp: another test's child would have it open for writing for a moment.
    let copied = Command::new("cp")
        .arg(binary())
        .arg(&copy)
        .output()
        .unwrap();
    succeeded("cp", &copied);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let found = Findings::of(&files.run_through(&lab.host, &nobody, &copy, &["--json"]));
    assert_eq!(found.code, 0, "{:#?}", found.all);
    for check in ["bpf_load", "agent", "descriptors", "firewall"] {
        found.has(check, "skip", &["only root sees", "run as root"]);
    }
    found.has("port", "skip", &["192.0.2.1:25", "run as root"]);
    found.has("xdp_program", "skip", &["run as root"]);
    for check in ["kernel", "interface", "xdp_native", "mtu", "mx", "hostname"] {
        found.all_are(check, "ok");
    }
    agent.stop();
}

#[test]
fn exit_codes() {
    let lab = Lab::new();
    let files = Files::without_agent();
    let code = |arguments: &[&str]| files.run(&lab.host, arguments).status.code().unwrap();
    assert_eq!(code(&["--domain", "a b"]), 78);
    assert_eq!(code(&["--nonsense"]), 64);
    fs::write(files.path("nomail.toml"), "hostname = 1\nnonsense = 2\n").unwrap();
    let output = files.run(&lab.host, &["--json", "--iface", HOST_INTERFACE]);
    let found = Findings::of(&output);
    assert_eq!(found.code, 1);
    found.has("configuration", "fail", &["nomail.toml:1:12", "hostname"]);
    found.has("configuration", "fail", &["nomail.toml:2:1", "nonsense"]);
    found.has("interface", "ok", &[HOST_INTERFACE]);
}

/// Rules, by the command that loads them; then what becomes of strangers' SYNs for
/// 192.0.2.1 and for 2001:db8::1.
const RULES: &[(&str, [&str; 2])] = &[
    ("true", ["ok", "ok"]),
    (
        "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; policy \
         drop; }; add rule inet t in iif lo accept; add rule inet t in ct state \
         established,related accept; add rule inet t in tcp dport { 22, 80 } accept'",
        ["fail", "fail"],
    ),
    (
        "nft insert rule inet t in tcp dport 25 accept",
        ["ok", "ok"],
    ),
    (
        "nft flush ruleset; nft 'add table inet t; add chain inet t in { type filter hook input \
         priority 0; }; add rule inet t in ct state vmap { invalid : drop, established : accept }; \
         add rule inet t in tcp flags & (fin|syn|rst|ack) != syn ct state new drop; add rule inet t \
         in tcp flags & (fin|syn) == (fin|syn) drop; add rule inet t in udp dport 25 drop'",
        ["ok", "ok"],
    ),
    (
        "nft flush ruleset; nft 'add table ip n; add chain ip n pre { type nat hook prerouting \
         priority -100; }; add rule ip n pre tcp dport 25 redirect to :2525'",
        ["fail", "ok"],
    ),
    (
        "nft flush ruleset; nft 'add table inet t; add chain inet t in { type filter hook input \
         priority 0; policy drop; }; add rule inet t in ip saddr 192.0.2.0/24 accept; add rule \
         inet t in meta nfproto ipv6 accept'",
        ["fail", "ok"],
    ),
    // A condition on IPv4 in a table of both families is nothing to IPv6.
    (
        "nft flush ruleset; nft 'add table inet t; add chain inet t in { type filter hook input \
         priority 0; }; add rule inet t in ip saddr != 192.0.2.0/24 tcp dport 25 drop'",
        ["fail", "ok"],
    ),
    // An administrator's own limit for each source, which is none for one SYN.
    (
        "nft flush ruleset; nft 'add table inet t; add set inet t m { type ipv4_addr; size 65535; \
         flags dynamic; timeout 5m; }; add chain inet t in { type filter hook input priority 0; }; \
         add rule inet t in tcp dport 25 ct state new add @m { ip saddr limit rate over 3/minute } \
         drop'",
        ["ok", "ok"],
    ),
    (
        "nft flush ruleset; nft 'add table inet t; add chain inet t in { type filter hook input \
         priority 0; }; add rule inet t in tcp dport 25 ip ttl < 10 drop'",
        ["ok", "ok"],
    ),
    (
        "nft flush ruleset; nft 'add table inet t; add chain inet t in { type filter hook input \
         priority 0; }; add rule inet t in tcp dport 25 ip ttl != 255 drop'",
        ["fail", "ok"],
    ),
    // Before all rules of the stack.
    (
        "nft flush ruleset; nft 'add table netdev d; add chain netdev d in { type filter hook \
         ingress device host0 priority 0; }; add rule netdev d in tcp dport 25 drop'",
        ["fail", "fail"],
    ),
    (
        "nft flush ruleset; iptables -P INPUT DROP; iptables -A INPUT -m conntrack --ctstate \
         ESTABLISHED -j ACCEPT; iptables -A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT",
        ["fail", "ok"],
    ),
    (
        "iptables -t filter -I INPUT -p tcp --dport 25 -j ACCEPT",
        ["ok", "ok"],
    ),
];

/// A lab whose host has a way back to strangers.
fn lab_with_routes() -> Lab {
    let lab = Lab::new();
    lab.host.ip("route add default via 192.0.2.100");
    lab.host.ip("-6 route add default via 2001:db8::100");
    lab
}

/// No connection of the host waits for the rest of its handshake.
fn is_without_trace(lab: &Lab) {
    let waiting = lab.host.within(|| {
        let of = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let lines = of("tcp") + &of("tcp6");
        lines.lines().filter(|line| line.contains(" 03 ")).count()
    });
    assert_eq!(waiting, 0);
}

#[test]
fn a_syn_is_let_in_whatever_the_rules_say() {
    let root = Root::install("firewalls", &["nftables", "iptables"]);
    let lab = lab_with_routes();
    let files = Files::without_agent();
    let script = "rm -f /etc/resolv.conf; : > /etc/resolv.conf\n";
    let config = files.path("nomail.toml");
    let copies = [
        (&*binary(), "/nomail-agent"),
        (config.as_path(), "/nomail.toml"),
    ];
    let mut instance = root.start_with(&lab.host, script, &copies);
    instance.ready();
    for (number, (command, results)) in RULES.iter().enumerate() {
        instance.run(&format!(
            "{command}\n/nomail-agent doctor --json --config /nomail.toml > /root/{number}\n\
             echo $? > /root/{number}.code"
        ));
        instance.line(&format!("/root/{number}.code"), &[]);
        let said = instance.read(&format!("/root/{number}"));
        let all = serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{command}: {error}: {said}\n{}", instance.output()));
        let found = Findings { code: 0, all };
        println!("{command}: {:?}", found.named("firewall"));
        for (address, result) in ["192.0.2.1:25", "[2001:db8::1]:25"].iter().zip(results) {
            found.has("firewall", result, &[address]);
        }
        if *results != ["ok", "ok"] {
            found.has("firewall", "fail", &["nft list ruleset"]);
        }
        if *results == ["fail", "fail"] {
            found.all_are("firewall", "fail");
        }
    }
    is_without_trace(&lab);
}

#[test]
fn a_syn_is_let_in_to_a_running_agent() {
    let lab = lab_with_routes();
    let agent = start(&lab);
    let files = Files::of(&agent);
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    found.has("firewall", "ok", &["192.0.2.1:25", "[2001:db8::1]:25"]);
    found.all_are("firewall", "ok");
    is_without_trace(&lab);

    // With cookies nothing is to be seen, and nothing is said to be wrong.
    sysctl(&lab.host, "net/ipv4/tcp_syncookies", "2");
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    found.all_are("firewall", "skip");
    found.has("firewall", "skip", &["192.0.2.1:25", "SYN cookies"]);
    sysctl(&lab.host, "net/ipv4/tcp_syncookies", "1");

    let nft = Nft::install();
    nft.load(
        &lab.host,
        "table inet t { chain in { type filter hook input priority 0; iif != lo tcp dport 25 ip ttl \
         < 200 drop; } }",
    );
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    found.has("firewall", "fail", &["192.0.2.1:25", "host0"]);
    found.has("firewall", "ok", &["[2001:db8::1]:25"]);
    // From the host itself it is answered all the same.
    found.all_are("greeting", "ok");
    agent.stop();
}

#[test]
fn neighbours_alone_are_no_strangers() {
    let lab = Lab::new();
    let found = Findings::of(&Files::without_agent().run(&lab.host, &["--json"]));
    found.all_are("firewall", "skip");
    found.has("firewall", "skip", &["192.0.2.1:25", "no route to outside"]);
}

#[test]
fn a_host_that_may_not_send_mail_is_well() {
    let lab = lab_with_routes();
    let agent = start(&lab);
    let files = Files::of(&agent);
    let nft = Nft::install();
    for verdict in ["drop", "reject with tcp reset"] {
        nft.load(
            &lab.host,
            &format!(
                "flush ruleset\ntable inet t {{ chain out {{ type filter hook output priority 0; \
                 tcp dport 25 {verdict}; }} }}"
            ),
        );
        let found = Findings::of(&files.run(&lab.host, &["--json"]));
        found.all_are("firewall", "ok");
        found.all_are("greeting", "skip");
        found.has(
            "greeting",
            "skip",
            &["192.0.2.1:25", "rules for outgoing mail", "another host"],
        );
        assert_eq!(found.code, 0, "{verdict}: {:#?}", found.all);
    }
    agent.stop();
}

#[test]
fn a_wildcard_has_link_local_addresses_too() {
    let lab = lab_with_routes();
    until("no address is tentative", || {
        let tentative = lab.host.ip("address show dev host0 tentative");
        tentative.trim().is_empty().then_some(())
    });
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--hostname",
        HOSTNAME,
        "--listen",
        "[::]:25",
    ];
    let agent = Agent::start(&lab.host, &arguments);
    let files = Files::of(&agent);
    let found = Findings::of(&files.run(&lab.host, &["--json"]));
    found.all_are("greeting", "ok");
    found.has("greeting", "ok", &["[fe80::", "%host0]:25", "[::1]:25"]);
    found.has("firewall", "ok", &["[2001:db8::1]:25"]);
    agent.stop();
}

#[test]
fn an_agent_of_another_network_namespace_is_named() {
    let lab = Lab::new();
    let agent = start(&lab);
    let files = Files::of(&agent);
    let found = Findings::of(&files.run(&lab.client, &["--json", "--iface", CLIENT_INTERFACE]));
    let pid = format!("pid {}", agent.pid());
    let remedy = format!("nsenter --net=/proc/{}/ns/net", agent.pid());
    found.has(
        "agent",
        "fail",
        &["another network namespace", lab.host.name(), &pid, &remedy],
    );
    // What is said below is about this one, and not about that agent's.
    found.has("port", "ok", &["no process listens on", "192.0.2.100:25"]);
    found.all_are("greeting", "skip");
    agent.stop();
}
