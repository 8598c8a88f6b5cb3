//! The agent on VLAN devices, bridges, bonds, VRFs and jumbo frames: guarded
//! where it says so, or refused with the reason. Run by `cargo xtask test vm`:
//! a development kernel may have none of these devices.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use nomail_tests::{
    agent::Agent,
    flood::{answerable, is_served, sysctl},
    frames::{FrameSender, Segment},
    lab::{HOST_IPV4, HOST_IPV6, Namespace},
    poll::{DEADLINE, until},
};

const ARGUMENTS: &[&str] = &[
    "--hostname",
    "mailless.example.org",
    "--refuse-at",
    "greeting",
];
const LISTEN: &[&str] = &["--listen", "192.0.2.1:25", "--listen", "[2001:db8::1]:25"];
/// Before Linux 6.3 `auto` is generic mode on veth.
const NATIVE: &[&str] = &["--xdp-mode", "native"];
const CLIENTS: [(&str, &str); 2] = [("192.0.2.100", HOST_IPV4), ("2001:db8::100", HOST_IPV6)];

/// The next source port of a SYN in the client's name.
static PORT: AtomicU16 = AtomicU16::new(2000);

/// A host and a client with wires between them, `host0` to `client0` and so on.
struct Wires {
    /// What lets XDP send to the client.
    _answerable: Vec<OwnedFd>,
    host: Namespace,
    client: Namespace,
}

impl Wires {
    fn new(count: usize) -> Self {
        let host = Namespace::new("host");
        let client = Namespace::new("client");
        let mut programs = Vec::new();
        for number in 0..count {
            client.ip(&format!(
                "link add client{number} type veth peer name host{number} netns {}",
                host.name()
            ));
            host.ip(&format!("link set host{number} up"));
            client.ip(&format!("link set client{number} up"));
            programs.push(answerable(&client, &format!("client{number}")));
        }
        Self {
            _answerable: programs,
            host,
            client,
        }
    }

    /// The ends: a namespace, the name of its wires, the last octet of its
    /// hardware address and of its addresses.
    fn ends(&self) -> [(&Namespace, &'static str, u32, u32); 2] {
        [(&self.host, "host", 2, 1), (&self.client, "client", 1, 100)]
    }

    /// Gives both ends the addresses of the lab, on `host` and `client`.
    fn address(&self, host: &str, client: &str) {
        for ((namespace, _, hardware, last), device) in self.ends().into_iter().zip([host, client])
        {
            namespace.ip(&format!(
                "link set {device} address 02:00:00:00:00:0{hardware}"
            ));
            namespace.ip(&format!("address add 192.0.2.{last}/24 dev {device}"));
            namespace.ip(&format!(
                "address add 2001:db8::{last}/64 dev {device} nodad"
            ));
            namespace.ip(&format!("link set {device} up"));
        }
    }

    /// VLAN 5 on the wire: `host0.5` and `client0.5`.
    fn vlan() -> Self {
        let wires = Self::new(1);
        for (namespace, end, ..) in wires.ends() {
            namespace.ip(&format!(
                "link add link {end}0 name {end}0.5 type vlan id 5"
            ));
        }
        wires.address("host0.5", "client0.5");
        wires
    }

    /// The host's wire is a port of `br0`.
    fn bridge() -> Self {
        let wires = Self::new(1);
        wires.host.ip("link add br0 type bridge");
        wires.host.ip("link set host0 master br0");
        wires.address("br0", "client0");
        wires
    }

    /// Two wires, of which one is in use: `bond0` at both ends.
    fn bond() -> Self {
        let wires = Self::new(2);
        for (namespace, end, ..) in wires.ends() {
            namespace.ip("link add bond0 type bond mode active-backup miimon 50");
            for number in 0..2 {
                namespace.ip(&format!("link set {end}{number} down"));
                namespace.ip(&format!("link set {end}{number} master bond0"));
                namespace.ip(&format!("link set {end}{number} up"));
            }
        }
        wires.address("bond0", "bond0");
        wires
    }

    /// A connection of each family is answered, and its SYN counted.
    #[track_caller]
    fn are_served(&self, agent: &Agent) {
        for (from, to) in CLIENTS {
            let passed = agent.count("/syn/passed");
            // The first packets of a new device find it still settling.
            until("the client is served", || {
                self.client.within(|| is_served(from, to)).then_some(())
            });
            assert!(agent.count("/syn/passed") > passed, "the SYN of {from}");
        }
        assert!(agent.count("/connections/accepted") >= 2);
    }

    /// SYNs in the client's name put it over its limit, and what becomes of an
    /// honest one then: a device that XDP can answer on asks the client, whose
    /// reset proves it.
    #[track_caller]
    fn are_limited(&self, agent: &Agent, device: &str, answered: bool) {
        let count = |pointer| agent.count(pointer);
        let (proven, challenged) = (count("/answers/proven"), count("/answers/challenge"));
        let limited = count("/syn/limited_source");
        self.client.within(|| {
            let sender = FrameSender::open(device);
            for _ in 0..60 {
                // Never one that was proven before.
                let port = PORT.fetch_add(1, Ordering::Relaxed);
                let source = format!("192.0.2.100:{port}");
                sender.send(&Segment::syn(&source, "192.0.2.1:25").frame());
            }
        });
        until("the source is limited", || {
            (count("/syn/limited_source") >= limited + 30).then_some(())
        });
        if answered {
            until("the client has proven that it is there", || {
                (count("/answers/proven") > proven).then_some(())
            });
            assert!(count("/answers/challenge") > challenged);
        } else {
            assert_eq!(count("/answers/challenge"), challenged);
            assert!(count("/answers/unanswerable") >= 30);
        }
        // Also who is not answered gets through, when the bucket is no longer empty.
        self.are_served(agent);
    }
}

fn arguments<'a>(interface: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [ARGUMENTS, &["--iface", interface], more].concat()
}

/// An agent that guards `interface`, in that mode.
fn guarding(wires: &Wires, interface: &str, more: &[&str], mode: &str) -> Agent {
    let agent = Agent::start(&wires.host, &arguments(interface, more));
    let status = agent.status();
    assert_eq!(status["interfaces"][0]["name"], interface);
    assert_eq!(status["interfaces"][0]["xdp_mode"], mode, "{}", agent.log());
    assert!(wires.host.has_xdp(interface));
    agent
}

/// An agent that must not start: its exit code and what it said.
fn refused(wires: &Wires, interface: &str, more: &[&str]) -> (i32, String) {
    let mut agent = Agent::spawn(&wires.host, &arguments(interface, more));
    let status = agent.wait();
    (status.code().unwrap(), agent.log())
}

#[test]
fn a_vlan_device_is_guarded_itself() {
    let wires = Wires::vlan();
    let agent = guarding(&wires, "host0.5", &[], "generic");
    assert!(agent.log().contains("generic XDP, which costs more"));
    wires.are_served(&agent);
    wires.are_limited(&agent, "client0.5", true);
    agent.stop();
    assert!(!wires.host.has_xdp("host0.5"));
    let (code, log) = refused(&wires, "host0.5", &["--xdp-mode", "native"]);
    assert_eq!(code, 69, "{log}");
    assert!(
        log.contains("host0.5") && log.contains("native mode"),
        "{log}"
    );
}

#[test]
fn the_parent_of_a_vlan_device_is_guarded_for_its_address() {
    let wires = Wires::vlan();
    for mode in ["native", "generic"] {
        let more = [LISTEN, &["--xdp-mode", mode]].concat();
        let agent = guarding(&wires, "host0", &more, mode);
        wires.are_served(&agent);
        // XDP may not know the tag: it answers nothing.
        wires.are_limited(&agent, "client0.5", false);
        agent.stop();
    }
    // Without an address of its own there is nothing to listen on there.
    wires.host.ip("address flush dev host0");
    let (code, log) = refused(&wires, "host0", &[]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("host0") && log.contains("address"), "{log}");
}

#[test]
fn a_bridge_is_guarded_itself_or_by_its_port() {
    let wires = Wires::bridge();
    let agent = guarding(&wires, "br0", &[], "generic");
    wires.are_served(&agent);
    wires.are_limited(&agent, "client0", true);
    agent.stop();
    let agent = guarding(&wires, "host0", &[LISTEN, NATIVE].concat(), "native");
    wires.are_served(&agent);
    wires.are_limited(&agent, "client0", false);
    agent.stop();
}

#[test]
fn a_bond_is_guarded_on_all_of_its_ports() {
    let wires = Wires::bond();
    let agent = guarding(&wires, "bond0", &[], "native");
    wires.are_served(&agent);
    wires.are_limited(&agent, "bond0", true);
    // The wire in use is cut.
    wires.host.ip("link set host0 down");
    wires.are_served(&agent);
    wires.are_limited(&agent, "bond0", true);
    // A port that comes later.
    wires.host.ip("link set host0 nomaster");
    wires.host.ip("link set host0 master bond0");
    wires.host.ip("link set host0 up");
    wires.host.ip("link set host1 down");
    wires.are_served(&agent);
    wires.are_limited(&agent, "bond0", true);

    // What a port could do beside it, the kernel does not allow.
    let more = ["--listen", "192.0.2.1:2525", "--metrics", "off"];
    let (code, log) = refused(&wires, "host1", &more);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("host1"), "{log}");
    agent.stop();
    assert!(!wires.host.has_xdp("bond0"));
}

#[test]
fn a_bond_is_guarded_in_generic_mode() {
    let wires = Wires::bond();
    let agent = guarding(&wires, "bond0", &["--xdp-mode", "generic"], "generic");
    wires.are_served(&agent);
    wires.are_limited(&agent, "bond0", true);
    agent.stop();
}

#[test]
fn frames_of_9000_octets_are_guarded_natively_and_others_pass_whole() {
    const OCTETS: usize = 4 << 20;
    let wires = Wires::new(1);
    wires.address("host0", "client0");
    for (namespace, end, ..) in wires.ends() {
        namespace.ip(&format!("link set {end}0 mtu 9000"));
    }
    let agent = guarding(&wires, "host0", NATIVE, "native");
    wires.are_served(&agent);
    wires.are_limited(&agent, "client0", true);
    let text: Vec<u8> = (0..OCTETS).map(|octet| (octet % 251) as u8).collect();
    let listener = wires
        .host
        .within(|| TcpListener::bind((HOST_IPV4, 80)).unwrap());
    let heard = thread::scope(|scope| {
        let sent = scope.spawn(|| {
            wires.client.within(|| {
                let mut stream = TcpStream::connect((HOST_IPV4, 80)).unwrap();
                stream.write_all(&text).unwrap();
            });
        });
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        sent.join().unwrap();
        heard
    });
    assert!(heard == text, "{} octets arrived", heard.len());
    agent.stop();
}

#[test]
fn an_interface_of_a_vrf_is_served_in_it_and_refused_elsewhere() {
    let wires = Wires::new(1);
    wires.host.ip("link add red type vrf table 10");
    wires.host.ip("link set red up");
    wires.host.ip("link set host0 master red");
    wires.address("host0", "client0");
    for mode in ["auto", "off"] {
        let (code, log) = refused(&wires, "host0", &["--xdp-mode", mode]);
        assert_eq!(code, 69, "{log}");
        assert!(log.contains("ip vrf exec red"), "{log}");
    }
    // The metrics' default address is not in the VRF, and the error says so.
    let in_vrf = ["ip", "vrf", "exec", "red"];
    let agent = Agent::spawn_through(&wires.host, &in_vrf, &arguments("host0", &[])).serving();
    assert!(
        agent.log().contains(
            "cannot show metrics on 127.0.0.1:9521: it is not in the VRF red, which this process \
             was started in: use --metrics with an address of the VRF, or with off"
        ),
        "{}",
        agent.log()
    );
    agent.stop();
    let agent = Agent::spawn_through(
        &wires.host,
        &in_vrf,
        // 127.0.0.1 is not in the VRF.
        &arguments("host0", &["--metrics", "off"]),
    );
    let agent = agent.serving();
    wires.are_served(&agent);
    wires.are_limited(&agent, "client0", true);
    agent.stop();

    sysctl(&wires.host, "net/ipv4/tcp_l3mdev_accept", "1");
    let agent = guarding(&wires, "host0", NATIVE, "native");
    wires.are_served(&agent);
    agent.stop();
}
