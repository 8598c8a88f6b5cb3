//! What XDP answers has to leave the host: where a driver sends nothing for it, the
//! agent notices, uses a mode in which answers arrive, or says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{fs, time::Duration};

use nomail_tests::{
    agent::{self, Agent},
    bridged::Bridged,
    flood::{answerable, flooded, is_served, strangers, until_answered},
    http::{get, samples},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, Namespace, auto_on_veth},
    poll::until,
    tap::Tap,
};
use serde_json::Value;

/// Connections of the honest under a flood, so many of them at the same time.
const HONEST: usize = 20;
const CLIENTS: usize = 10;
const METRICS: &str = "127.0.0.1:9521";
const ARGUMENTS: &[&str] = &["--iface", HOST_INTERFACE];

/// How many connections of the honest client are served.
fn served(client: &Namespace, from: &str, to: &str) -> usize {
    let talk = || {
        let served = || {
            (0..HONEST / CLIENTS)
                .filter(|_| is_served(from, to))
                .count()
        };
        client.within(served)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(talk)).collect();
        let served = clients.into_iter().map(|client| client.join().unwrap());
        served.sum::<usize>()
    })
}

fn of_interface(agent: &Agent, key: &str) -> Value {
    agent.status()["interfaces"][0][key].clone()
}

fn until_health(host: &Namespace, code: u16) -> String {
    until("the health is told", || {
        let health = get(host, METRICS, "/healthz");
        (health.code == code).then_some(health.body)
    })
}

fn until_metric(host: &Namespace, series: &str, value: f64) {
    until("the metric is told", || {
        let found = samples(&get(host, METRICS, "/metrics").body);
        (found.get(series) == Some(&value)).then_some(())
    });
}

/// A file that says more than the command line can.
fn configured(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    fs::write(
        &file,
        format!("interfaces = [{HOST_INTERFACE:?}]\n{text}\n"),
    )
    .unwrap();
    let file = file.to_str().unwrap().to_owned();
    (directory, file)
}

/// What doctor says about answers.
fn doctor(host: &Namespace, text: &str) -> Value {
    let (_directory, file) = configured(text);
    let mut command = host.command(agent::binary().to_str().unwrap());
    let output = command
        .args(["doctor", "--json", "--config", &file])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found.as_array().or_else(|| found["checks"].as_array());
    let findings = findings.unwrap_or_else(|| panic!("{found:#}"));
    let wanted = findings.iter().find(|one| one["check"] == "answers");
    wanted.unwrap_or_else(|| panic!("{found:#}")).clone()
}

#[test]
fn a_flooded_container_on_a_bridge_serves_its_honest_clients() {
    let lab = Bridged::new();
    assert_eq!(doctor(&lab.host, "")["result"], "ok");
    let agent = Agent::start(&lab.host, ARGUMENTS);
    for (to, from, host) in [
        ("192.0.2.1:25", "192.0.2.100", HOST_IPV4),
        ("[2001:db8::1]:25", "2001:db8::100", HOST_IPV6),
    ] {
        let served = flooded(&lab.client, CLIENT_INTERFACE, &strangers(to), || {
            until_answered(&agent);
            served(&lab.client, from, host)
        });
        assert_eq!(served, HONEST, "{:#}", agent.status());
    }
    assert!(agent.count("/answers/proven") > 0, "{:#}", agent.status());
    assert_eq!(of_interface(&agent, "xdp_mode"), "generic");
    let reason = match auto_on_veth() {
        "native" => "the other end of the veth pair drops what native XDP sends",
        _ => {
            "the kernel does not tell whether the other end of the veth pair takes what native \
             XDP sends"
        }
    };
    assert_eq!(of_interface(&agent, "reason"), reason);
    assert!(of_interface(&agent, "trouble").is_null());
    assert!(
        agent.log().contains("generic XDP, which costs more"),
        "{}",
        agent.log()
    );
    until_health(&lab.host, 200);
}

#[test]
fn a_container_on_a_bridge_is_answered_without_a_socket() {
    let lab = Bridged::new();
    let (_directory, file) = configured("responder = \"xdp\"");
    let agent = Agent::start(&lab.host, &["--config", &file]);
    assert_eq!(
        served(&lab.client, "192.0.2.100", HOST_IPV4),
        HONEST,
        "{:#}",
        agent.status()
    );
    assert_eq!(of_interface(&agent, "xdp_mode"), "generic");
}

#[test]
fn native_mode_that_was_asked_for_and_cannot_answer_is_loud() {
    let lab = Lab::new();
    let text = "xdp_mode = \"native\"\nresponder = \"xdp\"";
    let (_directory, file) = configured(text);
    let agent = Agent::start(&lab.host, &["--config", &file]);
    until("it is told", || {
        (of_interface(&agent, "trouble") == "answers-lost").then_some(())
    });
    assert_eq!(
        of_interface(&agent, "xdp_mode"),
        "native",
        "as it was asked for"
    );
    let status = agent::status(&agent.control(), &[]);
    assert!(status.starts_with("state        ANSWERS LOST"), "{status}");
    assert!(agent.log().contains("gro on"), "{}", agent.log());
    let why = until_health(&lab.host, 503);
    assert!(
        why.starts_with("Clients on host0 get no answer: the other end"),
        "{why}"
    );
    let series = "nomail_guard_trouble{iface=\"host0\",kind=\"answers-lost\"}";
    until_metric(&lab.host, series, 1.0);
    let control = format!("{text}\ncontrol = {:?}", agent.control());
    let found = doctor(&lab.host, &control);
    assert_eq!(found["result"], "fail", "{found:#}");

    // The other end takes them, and all is well.
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    until("it is told that it can", || {
        of_interface(&agent, "trouble").is_null().then_some(())
    });
    until_health(&lab.host, 200);
    until_metric(&lab.host, series, 0.0);
    assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));
    assert_eq!(doctor(&lab.host, &control)["result"], "ok");
    drop(program);
    until_health(&lab.host, 503);
}

#[test]
fn with_a_listener_it_is_healthy_and_loud() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, &[ARGUMENTS, &["--xdp-mode", "native"]].concat());
    until("it is told", || {
        (of_interface(&agent, "trouble") == "answers-lost").then_some(())
    });
    until_health(&lab.host, 200);
    assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));
}

#[test]
fn answers_that_no_longer_arrive_end_native_mode() {
    let lab = Lab::new();
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    assert_eq!(of_interface(&agent, "xdp_mode"), "native");
    let served = flooded(
        &lab.client,
        CLIENT_INTERFACE,
        &strangers("192.0.2.1:25"),
        || {
            until_answered(&agent);
            drop(program);
            until("generic mode is used", || {
                (of_interface(&agent, "xdp_mode") == "generic").then_some(())
            });
            served(&lab.client, "192.0.2.100", HOST_IPV4)
        },
    );
    assert_eq!(served, HONEST, "{:#}", agent.status());
    assert!(of_interface(&agent, "trouble").is_null());
    assert_eq!(of_interface(&agent, "losses"), 0, "nobody took it away");
    // Not more than once, whatever the other end does next.
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    std::thread::sleep(Duration::from_millis(2500));
    drop(program);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(of_interface(&agent, "xdp_mode"), "generic");
    assert_eq!(
        agent.log().matches("generic XDP from now on").count(),
        1,
        "{}",
        agent.log()
    );
}

/// A virtual machine that does not read its queue: the driver counts what it drops, and
/// that is all that tells.
#[test]
fn a_driver_that_drops_all_that_xdp_sends_is_noticed() {
    let host = Namespace::new("host");
    let tap = Tap::create(&host, HOST_INTERFACE);
    host.ip("link set host0 txqueuelen 8");
    host.ip("address add 192.0.2.1/24 dev host0");
    host.ip("link set host0 address 02:00:00:00:00:02");
    host.ip("link set host0 up");
    let agent = Agent::start(&host, ARGUMENTS);
    assert_eq!(of_interface(&agent, "xdp_mode"), "native");
    let frames = strangers("192.0.2.1:25");
    until("it is noticed", || {
        frames[..2000].iter().for_each(|frame| tap.write(frame));
        let mode = of_interface(&agent, "xdp_mode");
        (mode == "generic").then_some(())
    });
    // Neither does anything arrive now, and there is no other mode.
    until("it is told", || {
        frames[..2000].iter().for_each(|frame| tap.write(frame));
        (of_interface(&agent, "trouble") == "answers-lost").then_some(())
    });
    let log = agent.log();
    assert_eq!(log.matches("generic XDP from now on").count(), 1, "{log}");
    assert!(log.contains("the driver drops what XDP sends"), "{log}");
    // A queue that is read.
    until("it is told that they arrive", || {
        frames[..2000].iter().for_each(|frame| {
            tap.write(frame);
            tap.drain();
        });
        of_interface(&agent, "trouble").is_null().then_some(())
    });
}
