//! Each connection begins with a SYN that the guard has to see. Where it does not, the agent
//! notices, uses a mode in which it does, or says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::{self, Agent},
    firewall::Nft,
    flood::answerable,
    http::{get, samples},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, Namespace},
    poll::{DEADLINE, until},
};
use serde_json::Value;

const METRICS: &str = "127.0.0.1:9521";
/// A port that rules of the host redirect to port 25: what XDP sees is no SYN for that.
const REDIRECTED: u16 = 587;

fn of_interface(agent: &Agent, key: &str) -> Value {
    agent.status()["interfaces"][0][key].clone()
}

/// Connects to the host, and reads the refusal.
fn connect(client: &Namespace, to: &str, port: u16) {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    client.within(|| {
        let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).unwrap();
        assert!(matches!(&first, b"521 " | b"220 "), "{first:?}");
    });
}

/// Connects again and again until that is so.
fn connecting_until(lab: &Lab, port: u16, what: &str, is_so: impl Fn() -> bool) {
    until(what, || {
        for to in [HOST_IPV4, HOST_IPV6] {
            connect(&lab.client, to, port);
        }
        is_so().then_some(())
    });
}

fn health(host: &Namespace) -> (u16, String) {
    let health = get(host, METRICS, "/healthz");
    (health.code, health.body)
}

/// What doctor says about it.
fn doctor(host: &Namespace, agent: &Agent) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    let text = format!(
        "interfaces = [{HOST_INTERFACE:?}]\ncontrol = {:?}\n",
        agent.control()
    );
    fs::write(&file, text).unwrap();
    let mut command = host.command(agent::binary().to_str().unwrap());
    let output = command
        .args(["doctor", "--json", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut findings = found.as_array().unwrap().iter();
    let wanted = findings.find(|one| one["check"] == "sight");
    wanted.unwrap_or_else(|| panic!("{found:#}"))["result"].clone()
}

/// The kernel says of such a connection that it arrived over the interface that has the address.
#[test]
fn connections_of_the_host_to_itself_are_not_missed() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &["--iface", HOST_INTERFACE]);
    // As long as the agent needs to notice connections that it misses.
    let end = Instant::now() + Duration::from_secs(16);
    while Instant::now() < end {
        for to in [HOST_IPV4, HOST_IPV6] {
            connect(&lab.host, to, 25);
        }
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(of_interface(&agent, "xdp_mode"), "native");
    assert!(of_interface(&agent, "trouble").is_null());
    assert_eq!(health(&lab.host).0, 200);
}

#[test]
fn a_guard_that_misses_what_connects_is_noticed() {
    let nft = Nft::install();
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    nft.load(
        &lab.host,
        &format!(
            "table inet test {{
            chain redirected {{ type nat hook prerouting priority -100; policy accept;
                tcp dport {REDIRECTED} redirect to :25; }} }}"
        ),
    );
    let agent = Agent::start(
        &lab.host,
        &["--iface", HOST_INTERFACE, "--syn-rate", "1000"],
    );
    assert_eq!(of_interface(&agent, "xdp_mode"), "native");
    assert_eq!(doctor(&lab.host, &agent), "ok");

    connecting_until(&lab, REDIRECTED, "generic mode is used", || {
        of_interface(&agent, "xdp_mode") == "generic"
    });
    let log = agent.log();
    assert!(
        log.contains("generic XDP from now on, which costs more: connections arrive whose SYNs"),
        "{log}"
    );
    assert!(of_interface(&agent, "trouble").is_null());
    // It sees no more, and there is no other mode.
    connecting_until(&lab, REDIRECTED, "it is told", || {
        of_interface(&agent, "trouble") == "blind"
    });
    let status = agent::status(&agent.control(), &[]);
    assert!(status.starts_with("state        GUARD BLIND"), "{status}");
    let (code, why) = health(&lab.host);
    assert_eq!(code, 503);
    assert!(
        why.starts_with("host0 is not guarded: connections arrive"),
        "{why}"
    );
    let series = "nomail_guard_trouble{iface=\"host0\",kind=\"blind\"}";
    let metric = || {
        samples(&get(&lab.host, METRICS, "/metrics").body)
            .get(series)
            .copied()
    };
    assert_eq!(metric(), Some(1.0));
    assert_eq!(doctor(&lab.host, &agent), "fail");

    // What the guard sees is no trouble.
    connecting_until(&lab, 25, "it is told that it sees", || {
        of_interface(&agent, "trouble").is_null()
    });
    assert_eq!(health(&lab.host).0, 200);
    assert_eq!(metric(), Some(0.0));
    let log = agent.log();
    assert_eq!(log.matches("are not counted").count(), 1, "{log}");
}
