//! The agent on a real interface: what it answers, what it limits, what it
//! leaves alone, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::{self, Agent, GREETING},
    client::converse,
    flood::answerable,
    foreign::Program,
    frames::{FrameSender, SYN, Segment},
    lab::{
        CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, Namespace, auto_on_veth, join,
    },
    poll::{DEADLINE, until},
};

const ARGUMENTS: &[&str] = &[
    "--iface",
    HOST_INTERFACE,
    "--hostname",
    "mailless.example.org",
    "--refuse-at",
    "greeting",
];

fn number(status: &serde_json::Value, path: &str) -> u64 {
    status
        .pointer(path)
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_else(|| {
            panic!("status has no number {path}: {status:#}");
        })
}

/// Runs an agent that must refuse to start: its exit code and what it said.
fn refused(namespace: &Namespace, arguments: &[&str]) -> (i32, String) {
    let mut agent = Agent::spawn(namespace, arguments);
    let status = agent.wait();
    (status.code().unwrap(), agent.log())
}

#[test]
fn attaches_answers_detaches_and_leaves_nothing() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    for (from, to) in [("192.0.2.100", HOST_IPV4), ("2001:db8::100", HOST_IPV6)] {
        let heard = lab
            .client
            .within(|| converse(from, to, "EHLO client\r\nQUIT\r\n"))
            .unwrap();
        let lines: Vec<_> = heard.split_inclusive("\r\n").collect();
        assert_eq!(lines[0], GREETING);
        assert!(
            lines[1].starts_with("521 5.3.2 ") && lines[2].starts_with("221 2.0.0 "),
            "{heard}"
        );
    }
    // A connection is counted when it is closed, which the client does not see.
    let status = until("both have quit", || {
        let status = agent.status();
        (number(&status, "/connections/quit") == 2).then_some(status)
    });
    assert_eq!(status["hostname"], "mailless.example.org");
    assert_eq!(status["interfaces"][0]["name"], HOST_INTERFACE);
    assert_eq!(status["interfaces"][0]["xdp_mode"], auto_on_veth());
    assert_eq!(number(&status, "/syn/passed"), 2);
    let control = agent.control();
    agent.stop();
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
    assert!(!control.exists());
    assert!(
        lab.client
            .within(|| converse("192.0.2.100", HOST_IPV4, ""))
            .is_err()
    );
}

#[test]
fn after_sigkill_the_kernel_removes_the_program() {
    let lab = Lab::new();
    let mut agent = Agent::start(&lab.host, ARGUMENTS);
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    until("the program is gone", || {
        (!lab.host.has_xdp(HOST_INTERFACE)).then_some(())
    });
    // And the next start finds nothing in its way.
    Agent::start(&lab.host, ARGUMENTS).stop();
}

#[test]
fn a_burst_is_limited_for_its_source_alone_and_every_number_adds_up() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let sent = 1000;
    let started = std::time::Instant::now();
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for port in 0..sent {
            let source = format!("192.0.2.100:{}", 1024 + port);
            sender.send(&Segment::syn(&source, "192.0.2.1:25").frame());
        }
    });
    let burst_secs = started.elapsed().as_secs_f64();
    let heard = lab
        .client
        .within(|| converse("192.0.2.101", HOST_IPV4, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
    let heard = lab
        .client
        .within(|| converse("2001:db8::100", HOST_IPV6, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));

    let status = until("all SYNs are counted", || {
        let status = agent.status();
        (number(&status, "/syn/total") == sent + 2).then_some(status)
    });
    let passed = number(&status, "/syn/passed");
    let limited = number(&status, "/syn/limited_source");
    let most = 20.0 + 10.0 * burst_secs + 1.0;
    assert!(
        (20..=most as u64).contains(&(passed - 2)),
        "{passed} passed in {burst_secs} s"
    );
    assert_eq!(
        passed + limited + number(&status, "/syn/malformed"),
        sent + 2
    );
    let sources = status["sources"].as_array().unwrap();
    let of = |name: &str| {
        sources
            .iter()
            .find(|source| source["source"] == name)
            .unwrap()
    };
    assert_eq!(number(of("192.0.2.100"), "/syn"), sent);
    assert_eq!(number(of("192.0.2.100"), "/limited"), limited);
    assert_eq!(number(of("192.0.2.101"), "/limited"), 0);
    assert_eq!(number(of("192.0.2.101"), "/connections"), 1);
    assert_eq!(number(of("2001:db8::/64"), "/syn"), 1);
    assert_eq!(
        sources[0]["source"], "192.0.2.100",
        "the busiest comes first"
    );
    let connections = &status["connections"];
    let ended: u64 = [
        "active",
        "quit",
        "timed_out",
        "closed_by_peer",
        "closed",
        "shed",
    ]
    .iter()
    .map(|outcome| number(connections, &format!("/{outcome}")))
    .sum();
    assert_eq!(number(connections, "/accepted"), ended);
    let text = agent::status(&agent.control(), &[]);
    assert!(
        text.contains("192.0.2.100") && text.contains("BUSIEST SOURCES"),
        "{text}"
    );
}

#[test]
fn a_flooding_source_does_not_stop_an_honest_one() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let flooding = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let client = &lab.client;
        let flooding = &flooding;
        scope.spawn(move || {
            client.within(|| {
                let sender = FrameSender::open(CLIENT_INTERFACE);
                let started = std::time::Instant::now();
                let mut port = 0u16;
                while flooding.load(std::sync::atomic::Ordering::Relaxed)
                    && started.elapsed() < Duration::from_secs(10)
                {
                    port = port.wrapping_add(1);
                    let source = format!("203.0.113.9:{port}");
                    sender.send(&Segment::syn(&source, "192.0.2.1:25").frame());
                }
            });
        });
        until("the flood is limited", || {
            (number(&agent.status(), "/syn/limited_source") > 1000).then_some(())
        });
        for _ in 0..15 {
            let heard = client
                .within(|| converse("192.0.2.101", HOST_IPV4, "QUIT\r\n"))
                .unwrap();
            assert!(heard.starts_with(GREETING));
        }
        flooding.store(false, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn other_traffic_and_a_loopback_mta_are_left_alone() {
    let lab = Lab::new();
    // Both the MTA of the host itself and another service.
    let (mta, web, dns) = lab.host.within(|| {
        (
            TcpListener::bind("127.0.0.1:25").unwrap(),
            TcpListener::bind("0.0.0.0:80").unwrap(),
            UdpSocket::bind("0.0.0.0:53").unwrap(),
        )
    });
    let agent = Agent::start(
        &lab.host,
        &[ARGUMENTS, &["--syn-rate", "1", "--syn-burst", "1"]].concat(),
    );
    lab.host
        .within(|| TcpStream::connect("127.0.0.1:25").unwrap());
    drop(mta.accept().unwrap());
    lab.client.within(|| {
        for _ in 0..50 {
            TcpStream::connect((HOST_IPV4, 80)).unwrap();
        }
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        dns.set_read_timeout(Some(DEADLINE)).unwrap();
        for _ in 0..50 {
            socket.send_to(b"?", (HOST_IPV4, 53)).unwrap();
            // At once: 50 are more than a socket's buffer is sure to hold.
            dns.recv(&mut [0; 8]).unwrap();
        }
    });
    for _ in 0..50 {
        web.accept().unwrap();
    }
    assert_eq!(number(&agent.status(), "/syn/total"), 0);
}

#[test]
fn forwarded_port_25_passes() {
    let lab = Lab::new();
    let inner = Namespace::new("inner");
    join((&inner, "wan0"), (&lab.host, "lan0"));
    inner.ip("address add 198.51.100.2/24 dev wan0");
    inner.ip("link set wan0 up");
    inner.ip("route add default via 198.51.100.1");
    lab.host.ip("address add 198.51.100.1/24 dev lan0");
    lab.host.ip("link set lan0 up");
    lab.client.ip("route add 198.51.100.0/24 via 192.0.2.1");
    lab.host
        .within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let agent = Agent::start(
        &lab.host,
        &[ARGUMENTS, &["--syn-rate", "1", "--syn-burst", "1"]].concat(),
    );
    let behind = inner.within(|| TcpListener::bind("198.51.100.2:25").unwrap());
    for _ in 0..30 {
        lab.client
            .within(|| TcpStream::connect("198.51.100.2:25").unwrap());
        behind.accept().unwrap();
    }
    assert_eq!(number(&agent.status(), "/syn/total"), 0);
}

#[test]
fn observe_drops_nothing() {
    let lab = Lab::new();
    let arguments = [
        ARGUMENTS,
        &["--observe", "--syn-rate", "1", "--syn-burst", "1"],
    ]
    .concat();
    let agent = Agent::start(&lab.host, &arguments);
    for _ in 0..10 {
        let heard = lab
            .client
            .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
            .unwrap();
        assert!(heard.starts_with(GREETING));
    }
    // A connection is counted after its last reply.
    let status = until("all are counted", || {
        let status = agent.status();
        (number(&status, "/connections/quit") == 10).then_some(status)
    });
    assert!(number(&status, "/syn/limited_source") >= 5, "{status:#}");
    assert_eq!(status["observe"], true);
}

#[test]
fn generic_mode_and_the_responder_alone() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, &[ARGUMENTS, &["--xdp-mode", "generic"]].concat());
    assert_eq!(agent.status()["interfaces"][0]["xdp_mode"], "generic");
    let heard = lab
        .client
        .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
    assert_eq!(number(&agent.status(), "/syn/passed"), 1);
    agent.stop();

    let agent = Agent::start(&lab.host, &[ARGUMENTS, &["--xdp-mode", "off"]].concat());
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
    let heard = lab
        .client
        .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
    assert_eq!(number(&agent.status(), "/syn/total"), 0);
}

#[test]
fn addresses_that_come_and_go_are_followed() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    lab.host.ip("address add 192.0.2.9/24 dev host0");
    lab.host.ip("address add 2001:db8::9/64 dev host0 nodad");
    until("both are guarded", || {
        let guarded = agent.status()["guarded"].to_string();
        let both = guarded.contains("192.0.2.9:25") && guarded.contains("[2001:db8::9]:25");
        both.then_some(())
    });
    for (from, to) in [
        ("192.0.2.100", "192.0.2.9"),
        ("2001:db8::100", "2001:db8::9"),
    ] {
        let heard = lab
            .client
            .within(|| converse(from, to, "QUIT\r\n"))
            .unwrap();
        assert!(heard.starts_with(GREETING));
    }
    assert_eq!(number(&agent.status(), "/syn/passed"), 2);
    lab.host.ip("address del 192.0.2.9/24 dev host0");
    until("the address is let go", || {
        (!agent.status()["guarded"]
            .to_string()
            .contains("192.0.2.9:25"))
        .then_some(())
    });
    // The others are served on.
    let heard = lab
        .client
        .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
}

#[test]
fn a_renamed_interface_is_followed() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    // Older kernels rename only what is down.
    lab.host.ip("link set host0 down");
    lab.host.ip("link set host0 name wire0");
    lab.host.ip("link set wire0 up");
    lab.host.ip("address add 192.0.2.9/24 dev wire0");
    for to in ["192.0.2.9", HOST_IPV4] {
        let heard = until("it is served", || {
            let talk = || converse("192.0.2.100", to, "QUIT\r\n");
            lab.client.within(talk).ok()
        });
        assert!(heard.starts_with(GREETING));
    }
    assert!(lab.host.has_xdp("wire0"));
    // An address is bound before it is guarded.
    until("it is guarded", || {
        let talk = || converse("192.0.2.100", "192.0.2.9", "QUIT\r\n");
        lab.client.within(talk).ok()?;
        (number(&agent.status(), "/syn/passed") >= 2).then_some(())
    });
    assert!(!agent.log().contains("is gone"), "{}", agent.log());
}

#[test]
fn two_interfaces_one_agent() {
    let lab = Lab::new();
    let other = Namespace::new("other");
    join((&other, "c1"), (&lab.host, "host1"));
    other.ip("address add 198.51.100.100/24 dev c1");
    other.ip("link set c1 up");
    lab.host.ip("address add 198.51.100.1/24 dev host1");
    lab.host.ip("link set host1 up");
    let agent = Agent::start(&lab.host, &[ARGUMENTS, &["--iface", "host1"]].concat());
    assert!(lab.host.has_xdp("host0") && lab.host.has_xdp("host1"));
    let heard = other
        .within(|| converse("198.51.100.100", "198.51.100.1", "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
    let heard = lab
        .client
        .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
    assert_eq!(number(&agent.status(), "/syn/passed"), 2);
    agent.stop();
    assert!(!lab.host.has_xdp("host0") && !lab.host.has_xdp("host1"));
}

#[test]
fn a_second_agent_is_refused_and_the_first_unhurt() {
    let lab = Lab::new();
    let first = Agent::start(&lab.host, ARGUMENTS);
    let (code, log) = refused(&lab.host, ARGUMENTS);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("another nomail-agent guards host0"), "{log}");
    let heard = lab
        .client
        .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
        .unwrap();
    assert!(heard.starts_with(GREETING));
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    drop(first);
}

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code() {
    let lab = Lab::new();
    let (code, log) = refused(&lab.host, &["--iface", "nosuch0"]);
    assert_eq!(code, 69, "{log}");
    assert!(
        log.contains("nosuch0") && log.contains("host0"),
        "names it and those there: {log}"
    );

    lab.host.ip("tuntap add dev tun0 mode tun");
    lab.host.ip("link set tun0 up");
    let (code, log) = refused(&lab.host, &["--iface", "tun0"]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("not an Ethernet interface"), "{log}");

    let holder = lab
        .host
        .within(|| TcpListener::bind("192.0.2.1:25").unwrap());
    let (code, log) = refused(&lab.host, ARGUMENTS);
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("192.0.2.1:25") && log.contains("(pid "),
        "says who: {log}"
    );
    drop(holder);

    let (code, log) = refused(&lab.host, &[ARGUMENTS, &["--user", "nosuchuser"]].concat());
    assert_eq!(code, 64, "an unknown flag: {log}");
    let (code, log) = refused(
        &lab.host,
        &["--iface", HOST_INTERFACE, "--hostname", "a\u{7}b"],
    );
    assert_eq!(code, 78, "{log}");
    assert!(!lab.host.has_xdp(HOST_INTERFACE), "nothing half-attached");
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let lab = Lab::new();
    let foreign = lab
        .host
        .within(|| Program::load("foreign").attach(HOST_INTERFACE));
    let (code, log) = refused(&lab.host, ARGUMENTS);
    assert_eq!(code, 69, "{log}");
    assert!(
        log.contains("foreign") && log.contains("--xdp-mode off"),
        "{log}"
    );
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    drop(foreign);
}

#[test]
fn without_privilege_it_says_so() {
    let lab = Lab::new();
    let output = lab
        .host
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(agent::binary())
        .args([
            "--iface",
            HOST_INTERFACE,
            "--control",
            "/nonexistent/control.sock",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("root"), "{said}");
}

#[test]
fn a_reload_changes_what_it_can_and_an_error_changes_nothing() {
    let lab = Lab::new();
    let text = |hostname: &str, rest: &str| {
        format!("hostname = {hostname:?}\nrefuse_at = \"greeting\"\n{rest}")
    };
    let file = text("before.example.org", "");
    let agent = Agent::configured(&lab.host, &file, &["--iface", HOST_INTERFACE]);
    let write = |hostname: &str, rest: &str| agent.configure(&text(hostname, rest));
    let greeting = || {
        lab.client
            .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
            .unwrap()
    };
    assert!(greeting().starts_with("521 before.example.org "));

    write(
        "after.example.org",
        "observe = true\nafter_greeting = \"close\"\n",
    );
    agent.signal(Signal::SIGHUP);
    until("the new name is in force", || {
        agent
            .log()
            .contains("the configuration was reloaded")
            .then_some(())
    });
    assert_eq!(greeting(), "521 after.example.org does not accept mail\r\n");
    assert_eq!(agent.status()["observe"], true);

    write("worse.example.org", "nonsense = 1\n");
    agent.signal(Signal::SIGHUP);
    until("the error is told", || {
        let log = agent.log();
        (log.contains("nomail.toml:3:") && log.contains("stays as it was")).then_some(())
    });
    assert!(greeting().starts_with("521 after.example.org "));
    agent.stop();
}

#[test]
fn malformed_syns_are_counted_as_such() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        let segment = Segment::syn("192.0.2.100:2000", "192.0.2.1:25");
        sender.send(
            &Segment {
                flags: SYN | 1,
                ..segment
            }
            .frame(),
        );
        sender.send(
            &Segment {
                vlan_tags: 1,
                ..segment
            }
            .frame(),
        );
    });
    until("both are counted", || {
        let status = agent.status();
        (number(&status, "/syn/malformed") == 1 && number(&status, "/syn/passed") == 1)
            .then_some(())
    });
}

/// Guarded is exactly what we listen on, also where another server was faster,
/// and also after a reload.
#[test]
fn an_address_held_by_another_server_is_not_guarded() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let limits = "limits.syn_rate = 1\nlimits.syn_burst = 1\n";
    let native = ["--iface", HOST_INTERFACE, "--xdp-mode", "native"];
    let agent = Agent::configured(&lab.host, limits, &native);
    lab.host.ip("address add 192.0.2.9/24 dev lo");
    let other = lab
        .host
        .within(|| TcpListener::bind("192.0.2.9:25").unwrap());
    lab.host.ip("address del 192.0.2.9/24 dev lo");
    lab.host.ip("address add 192.0.2.9/24 dev host0");
    until("the agent cannot bind it", || {
        agent
            .log()
            .contains("cannot listen on 192.0.2.9:25")
            .then_some(())
    });
    agent.signal(Signal::SIGHUP);
    until("the reload is done", || {
        agent
            .log()
            .contains("the configuration was reloaded")
            .then_some(())
    });
    for _ in 0..10 {
        lab.client
            .within(|| TcpStream::connect("192.0.2.9:25").unwrap());
        other.accept().unwrap();
    }
    let status = agent.status();
    assert_eq!(number(&status, "/syn/total"), 0);
    assert!(!status["guarded"].to_string().contains("192.0.2.9"));
    assert!(!agent.log().contains("WARN"), "{}", agent.log());
}

#[test]
fn without_its_interface_it_waits_for_it() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    lab.host.ip("link set host0 down");
    lab.host.ip("link set host0 up");
    let heard = until("it is served after down and up", || {
        lab.client
            .within(|| converse("192.0.2.100", HOST_IPV4, "QUIT\r\n"))
            .ok()
    });
    assert!(heard.starts_with(GREETING));
    lab.host.ip("link del host0");
    until("it is told, and nothing is guarded", || {
        let told = agent
            .log()
            .contains("the guarded interface host0 is gone: it is guarded again when it is back");
        (told && agent.status()["guarded"] == serde_json::json!([])).then_some(())
    });
    assert_eq!(agent.status()["interfaces"][0]["xdp_mode"], "off");
    let control = agent.control();
    agent.stop();
    assert!(!control.exists());
}
