//! Which addresses and interfaces the agent serves: many, ones that no interface has, ones
//! that come late or come back, and those that go by another name.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use nomail_tests::{
    agent::Agent,
    flood::{answerable, is_served, sysctl},
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab, Namespace},
    poll::until,
};
use serde_json::{Value, json};

const CLIENT: &str = "192.0.2.100";
const COMMON: &[&str] = &[
    "--hostname",
    "mailless.example.org",
    "--refuse-at",
    "greeting",
    "--syn-rate",
    "1000",
    "--syn-burst",
    "1000",
];

fn start(lab: &Lab, arguments: &[&str]) -> Agent {
    Agent::start(&lab.host, &[COMMON, arguments].concat())
}

/// An agent that must not start: its exit code and what it said.
fn refused(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let mut agent = Agent::spawn(&lab.host, &[COMMON, arguments].concat());
    let status = agent.wait();
    (status.code().unwrap(), agent.log())
}

/// Many `ip` commands at once.
fn batch(namespace: &Namespace, lines: impl IntoIterator<Item = String>) {
    let mut ip = Command::new("ip")
        .args(["-n", namespace.name(), "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    let mut input = ip.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(ip.wait().unwrap().success(), "ip -batch");
}

fn guarded(agent: &Agent) -> Vec<String> {
    serde_json::from_value(agent.status()["guarded"].take()).unwrap()
}

fn named(agent: &Agent, what: &str) -> Value {
    agent.status()["addresses"][what]["names"].take()
}

/// A connection to the address is served, and its SYN was judged.
#[track_caller]
fn is_served_and_guarded(lab: &Lab, agent: &Agent, to: &str) {
    until("it is served and guarded", || {
        let before = agent.count("/syn/passed");
        let served = lab.client.within(|| is_served(CLIENT, to));
        (served && agent.count("/syn/passed") > before).then_some(())
    });
}

#[test]
fn more_addresses_than_can_be_guarded_cost_the_excess() {
    let lab = Lab::new();
    let many = |numbers: std::ops::Range<u32>| {
        numbers.map(|n| format!("address add 10.9.{}.{}/16 dev host0", n >> 8, n & 0xff))
    };
    lab.client.ip("route add 10.9.0.0/16 dev client0");
    lab.client.ip("route add 203.0.113.0/24 dev client0");
    batch(&lab.host, many(1..301));
    let agent = start(&lab, &["--iface", HOST_INTERFACE]);
    assert!(guarded(&agent).len() >= 302);
    assert_eq!(agent.count("/addresses/unguarded/count"), 0);
    is_served_and_guarded(&lab, &agent, "10.9.1.44");

    batch(&lab.host, many(301..1201));
    until("the rest is named", || {
        (agent.count("/addresses/unguarded/count") >= 170).then_some(())
    });
    assert_eq!(guarded(&agent).len(), 1024);
    for to in [HOST_IPV4, "10.9.1.44"] {
        is_served_and_guarded(&lab, &agent, to);
    }
    let log = agent.log();
    let said = "XDP has room for 1024 pairs of address and port";
    assert!(log.contains(said) && log.contains(" and "), "{log}");

    // The first address of another network, and the last to come.
    lab.host.ip("address add 203.0.113.1/24 dev host0");
    is_served_and_guarded(&lab, &agent, "203.0.113.1");
    assert_eq!(guarded(&agent).len(), 1024);
    // One that goes makes room.
    let left_out = agent.count("/addresses/unguarded/count");
    lab.host.ip("address del 203.0.113.1/24 dev host0");
    until("there is room again", || {
        (agent.count("/addresses/unguarded/count") < left_out).then_some(())
    });
    agent.stop();
}

#[test]
fn an_address_that_no_interface_has_is_guarded_and_a_network_is_named() {
    let lab = Lab::new();
    lab.client.ip("route add 198.51.100.0/24 dev client0");
    lab.client.ip("route add 203.0.113.0/24 dev client0");
    lab.host.ip("route add local 198.51.100.7/32 dev host0");
    lab.host.ip("route add local 203.0.113.0/24 dev host0");
    let agent = start(&lab, &["--iface", HOST_INTERFACE, "--listen", "0.0.0.0:25"]);
    assert!(guarded(&agent).contains(&"198.51.100.7:25".to_owned()));
    is_served_and_guarded(&lab, &agent, "198.51.100.7");
    assert_eq!(
        named(&agent, "unguarded"),
        json!(["203.0.113.0/24 port 25"])
    );
    assert!(agent.log().contains("not guarded: 203.0.113.0/24 port 25"));

    // One comes, and goes again: no interface changes.
    lab.host.ip("route add local 198.51.100.8/32 dev lo");
    is_served_and_guarded(&lab, &agent, "198.51.100.8");
    lab.host.ip("route del local 198.51.100.8/32 dev lo");
    lab.host.ip("route del local 203.0.113.0/24 dev host0");
    until("they are forgotten", || {
        let guarded = guarded(&agent).contains(&"198.51.100.8:25".to_owned());
        (!guarded && named(&agent, "unguarded") == json!([])).then_some(())
    });
    agent.stop();
}

/// A flood puts the client over its limit; it is challenged, and its kernel proves it.
#[test]
fn clients_of_an_address_on_lo_are_challenged() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    lab.client.ip("route add 198.51.100.0/24 dev client0");
    lab.host.ip("address add 198.51.100.7/32 dev lo");
    lab.host.ip("route add local 198.51.100.8/32 dev host0");
    let listen = ["198.51.100.7:25", "198.51.100.8:25"];
    let agent = Agent::start(
        &lab.host,
        &[
            "--iface",
            HOST_INTERFACE,
            "--listen",
            listen[0],
            "--listen",
            listen[1],
            "--syn-rate",
            "1",
            "--syn-burst",
            "1",
        ],
    );
    assert_eq!(named(&agent, "unchallenged"), json!([]));
    for to in listen {
        let challenged = agent.count("/answers/challenge");
        lab.client.within(|| {
            let sender = FrameSender::open(CLIENT_INTERFACE);
            for port in 3000..3020 {
                let source = format!("{CLIENT}:{port}");
                sender.send(&Segment::syn(&source, to).frame());
            }
        });
        until("it is challenged", || {
            (agent.count("/answers/challenge") > challenged).then_some(())
        });
    }
    assert_eq!(agent.count("/answers/unanswerable"), 0);
    agent.stop();
}

#[test]
fn an_address_that_cannot_be_challenged_is_named() {
    let lab = Lab::new();
    lab.host.ip("link add br0 type bridge");
    lab.host.ip("link set br0 up");
    lab.host.ip("address add 198.51.100.7/24 dev br0");
    let listen = ["--listen", "192.0.2.1:25", "--listen", "198.51.100.7:25"];
    let agent = start(&lab, &[&["--iface", HOST_INTERFACE], &listen[..]].concat());
    assert_eq!(named(&agent, "unchallenged"), json!([]));
    lab.host.ip("link set host0 master br0");
    until("it is named", || {
        (named(&agent, "unchallenged") == json!(["198.51.100.7:25"])).then_some(())
    });
    let said = "guarded but cannot be challenged: 198.51.100.7:25";
    assert!(agent.log().contains(said), "{}", agent.log());
    lab.host.ip("link set host0 nomaster");
    until("it can be challenged again", || {
        (named(&agent, "unchallenged") == json!([])).then_some(())
    });
    agent.stop();
}

fn number_of(lab: &Lab, interface: &str) -> u64 {
    let told = lab.host.ip(&format!("-j link show dev {interface}"));
    let told: Value = serde_json::from_str(&told).unwrap();
    told[0]["ifindex"].as_u64().unwrap()
}

fn address_again(lab: &Lab) {
    lab.host.ip("address add 192.0.2.1/24 dev host0");
    lab.host.ip("link set host0 up");
}

#[test]
fn an_interface_that_comes_back_with_its_number_is_guarded_again() {
    let lab = Lab::new();
    let elsewhere = Namespace::new("elsewhere");
    let agent = start(&lab, &["--iface", HOST_INTERFACE]);
    let number = number_of(&lab, HOST_INTERFACE);
    let away = format!("link set host0 netns {}", elsewhere.name());
    lab.host.ip(&away);
    until("it is told", || {
        agent.log().contains("host0 is gone").then_some(())
    });
    elsewhere.ip(&format!("link set host0 netns {}", lab.host.name()));
    assert_eq!(number_of(&lab, HOST_INTERFACE), number);
    address_again(&lab);
    is_served_and_guarded(&lab, &agent, HOST_IPV4);
    assert!(lab.host.has_xdp(HOST_INTERFACE));

    // Within less time than changes are given to settle.
    let again = format!(
        "link add host0 index {number} type veth peer name client0 netns {}",
        lab.client.name()
    );
    batch(&lab.host, ["link del host0".to_owned(), again]);
    assert_eq!(number_of(&lab, HOST_INTERFACE), number);
    address_again(&lab);
    lab.client.ip("address add 192.0.2.100/24 dev client0");
    lab.client.ip("link set client0 up");
    is_served_and_guarded(&lab, &agent, HOST_IPV4);
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    agent.stop();
}

#[test]
fn an_interface_is_known_by_its_other_names() {
    let lab = Lab::new();
    let long = "mail-interface-of-this-host";
    for name in ["mail0", long] {
        lab.host
            .ip(&format!("link property add dev host0 altname {name}"));
    }
    for names in [&["mail0"][..], &[long], &["mail0", "host0", long]] {
        let arguments = names.iter().flat_map(|name| ["--iface", name]);
        let agent = start(&lab, &arguments.collect::<Vec<_>>());
        let status = agent.status();
        assert_eq!(status["interfaces"][0]["name"], HOST_INTERFACE);
        assert_eq!(status["interfaces"].as_array().unwrap().len(), 1);
        is_served_and_guarded(&lab, &agent, HOST_IPV4);
        agent.stop();
    }
}

#[test]
fn a_default_route_may_lead_by_a_next_hop_object() {
    let lab = Lab::new();
    // With it the kernel tells the interface, too.
    sysctl(&lab.host, "net/ipv4/nexthop_compat_mode", "0");
    lab.host.ip("nexthop add id 5 via 192.0.2.100 dev host0");
    lab.host.ip("nexthop add id 6 group 5");
    for route in ["route add default nhid 5", "route add default nhid 6"] {
        lab.host.ip(route);
        let agent = start(&lab, &["--iface", "default-route"]);
        assert_eq!(agent.status()["interfaces"][0]["name"], HOST_INTERFACE);
        agent.stop();
        lab.host.ip("route del default");
    }
    lab.host.ip("nexthop add id 7 blackhole");
    lab.host.ip("route add default nhid 7");
    let (code, log) = refused(&lab, &["--iface", "default-route"]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("there is no default route"), "{log}");
}

#[test]
fn what_is_not_there_yet_is_taken_up_when_it_comes() {
    let lab = Lab::new();
    lab.client.ip("route add 198.51.100.0/24 dev client0");
    let listen = ["192.0.2.1:25", "198.51.100.9:25", "[fe80::1%later0]:25"];
    let listen: Vec<_> = listen.iter().flat_map(|on| ["--listen", on]).collect();
    let on = ["--iface", "later0", "--iface", HOST_INTERFACE];
    let agent = start(&lab, &[&on, &listen[..]].concat());
    is_served_and_guarded(&lab, &agent, HOST_IPV4);
    let absent = json!(["later0", "198.51.100.9:25", "[fe80::1%later0]:25"]);
    assert_eq!(named(&agent, "absent"), absent);
    let said = "not on this host yet: later0, 198.51.100.9:25, [fe80::1%later0]:25";
    assert!(agent.log().contains(said), "{}", agent.log());

    lab.host.ip("address add 198.51.100.9/32 dev host0");
    is_served_and_guarded(&lab, &agent, "198.51.100.9");
    lab.host.ip("link add later0 type veth peer name later1");
    lab.host.ip("address add fe80::1/64 dev later0 nodad");
    lab.host.ip("link set later0 up");
    until("all is there", || {
        let absent = named(&agent, "absent") == json!([]);
        (absent && lab.host.has_xdp("later0")).then_some(())
    });
    until("it is listened on", || {
        guarded(&agent)
            .contains(&"[fe80::1%later0]:25".to_owned())
            .then_some(())
    });
    agent.stop();
}

#[test]
fn where_nothing_is_there_it_does_not_start() {
    let lab = Lab::new();
    let (code, log) = refused(&lab, &["--iface", "later0", "--iface", "later1"]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("there is no interface later"), "{log}");
    let on = ["--iface", HOST_INTERFACE];
    let listen = ["--listen", "198.51.100.8:25", "--listen", "198.51.100.9:25"];
    let (code, log) = refused(&lab, &[on, listen[..2].try_into().unwrap()].concat());
    assert_eq!(code, 1, "{log}");
    let (code, log) = refused(&lab, &[&on[..], &listen].concat());
    assert_eq!(code, 1, "{log}");
    let said = "cannot listen on 198.51.100.8:25, 198.51.100.9:25: no interface has that address";
    assert!(log.contains(said), "{log}");
}
