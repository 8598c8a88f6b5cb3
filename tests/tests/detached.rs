//! A guard that another process took off its interface, or replaced: it is missed within
//! seconds, told everywhere, and attached again where nobody else's program is.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{fs, path::Path, process::Output};

use nomail_tests::{
    agent::{self, Agent},
    bpffs::Bpffs,
    files::Files,
    flood::{answerable, is_served},
    foreign::Program,
    http::{get, samples},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab, Namespace, auto_on_veth},
    links::Link,
    poll::until,
};
use serde_json::Value;

const METRICS: &str = "127.0.0.1:9521";
const ARGUMENTS: &[&str] = &["--iface", HOST_INTERFACE];

/// The XDP program on the host's interface, by the kernel's number.
fn program_on(lab: &Lab) -> Option<u64> {
    let shown = lab
        .host
        .ip(&format!("-j -d link show dev {HOST_INTERFACE}"));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown.pointer("/0/xdp/prog/id").and_then(Value::as_u64)
}

fn of_interface(agent: &Agent, key: &str) -> Value {
    agent.status()["interfaces"][0][key].clone()
}

fn link_of(agent: &Agent) -> Link {
    let program = of_interface(agent, "program_id").as_u64().unwrap();
    Link::of_program(program as u32).unwrap()
}

fn metric(lab: &Lab, series: &str) -> f64 {
    let text = get(&lab.host, METRICS, "/metrics").body;
    let found = samples(&text).get(series).copied();
    found.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

fn until_metric(lab: &Lab, series: &str, value: f64) {
    until("the metric is told", || {
        (metric(lab, series) == value).then_some(())
    });
}

fn until_health(lab: &Lab, code: u16) -> String {
    until("the health is told", || {
        let health = get(&lab.host, METRICS, "/healthz");
        (health.code == code).then_some(health.body)
    })
}

/// What doctor says of the program on the interface.
fn doctor(lab: &Lab, agent: &Agent) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    fs::write(&file, format!("control = {:?}\n", agent.control())).unwrap();
    let run = |command: &Path| -> Output {
        let mut command = lab.host.command(command.to_str().unwrap());
        command.args(["doctor", "--json", "--config"]).arg(&file);
        command.output().unwrap()
    };
    let output = run(&agent::binary());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found.as_array().or_else(|| found["checks"].as_array());
    let findings = findings.unwrap_or_else(|| panic!("{found:#}"));
    let wanted = findings.iter().find(|one| one["check"] == "xdp_program");
    wanted.unwrap_or_else(|| panic!("{found:#}")).clone()
}

#[test]
fn a_program_that_was_detached_is_attached_again() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let program = program_on(&lab).unwrap();
    for time in 1..=2u64 {
        link_of(&agent).detach();
        until("the loss is told", || {
            (of_interface(&agent, "losses") == time).then_some(())
        });
        until("it is attached again", || {
            let told = of_interface(&agent, "trouble").is_null()
                && of_interface(&agent, "xdp_mode") == auto_on_veth();
            (told && program_on(&lab) == Some(program)).then_some(())
        });
    }
    let log = agent.log();
    let lost = log
        .matches("another process detached the XDP program")
        .count();
    assert_eq!(lost, 2, "{log}");
    assert_eq!(
        log.matches("the XDP program is attached again").count(),
        2,
        "{log}"
    );
    until_health(&lab, 200);
    until_metric(&lab, "nomail_guard_losses_total{iface=\"host0\"}", 2.0);
    let status = agent::status(&agent.control(), &[]);
    assert!(status.contains("(lost 2 times)"), "{status}");
    // It guards, and goes with the agent.
    let before = agent.count("/syn/passed");
    assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));
    assert!(agent.count("/syn/passed") > before);
    agent.stop();
    until("it is gone with the agent", || {
        program_on(&lab).is_none().then_some(())
    });
}

#[test]
fn another_program_in_its_place_is_told_of_and_left_alone() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let program = program_on(&lab).unwrap();
    // Between two looks of the agent.
    let link = link_of(&agent);
    let foreign = Program::load("foreign");
    let foreign = lab.host.within(|| {
        link.detach();
        foreign.attach(HOST_INTERFACE)
    });
    let found = program_on(&lab).unwrap();
    assert_ne!(found, program);
    until("it is told", || {
        (of_interface(&agent, "trouble") == "replaced").then_some(())
    });
    assert_eq!(of_interface(&agent, "xdp_mode"), "off");
    assert_eq!(of_interface(&agent, "program_id"), 0);
    let status = agent::status(&agent.control(), &[]);
    assert!(status.starts_with("state        GUARD LOST"), "{status}");
    let named = format!("the XDP program {found} of another process is in its place");
    assert!(status.contains(&named), "{status}");
    assert!(agent.log().contains(&named), "{}", agent.log());
    let why = until_health(&lab, 503);
    assert!(
        why.starts_with("host0 is not guarded: the XDP program"),
        "{why}"
    );
    let replaced = "nomail_guard_trouble{iface=\"host0\",kind=\"replaced\"}";
    until_metric(&lab, replaced, 1.0);
    until_metric(&lab, "nomail_xdp_mode{iface=\"host0\",mode=\"off\"}", 1.0);
    let finding = doctor(&lab, &agent);
    assert_eq!(finding["result"], "fail", "{finding:#}");
    assert_eq!(
        program_on(&lab),
        Some(found),
        "nobody's program is replaced"
    );
    assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));

    drop(foreign);
    until("it is attached again", || {
        let told = of_interface(&agent, "trouble").is_null();
        (told && program_on(&lab) == Some(program)).then_some(())
    });
    until_health(&lab, 200);
    until_metric(&lab, replaced, 0.0);
    assert_eq!(doctor(&lab, &agent)["result"], "ok");
}

#[test]
fn a_link_that_was_given_another_program_is_told_of() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let program = program_on(&lab).unwrap();
    let link = link_of(&agent);
    link.update(&Program::load("foreign"));
    until("it is told", || {
        (of_interface(&agent, "trouble") == "replaced").then_some(())
    });
    link.update(&Program::of_id(program as u32));
    until("it is told that it is back", || {
        let told = of_interface(&agent, "trouble").is_null()
            && of_interface(&agent, "xdp_mode") == auto_on_veth()
            && of_interface(&agent, "program_id") == program;
        told.then_some(())
    });
}

/// An interface in another namespace for a while has the same number when it is back.
#[test]
fn an_interface_that_comes_back_under_its_number_is_guarded_again() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let program = program_on(&lab);
    let number = fs_number(&lab);
    let elsewhere = Namespace::new("elsewhere");
    let there = elsewhere.name();
    lab.host
        .ip(&format!("link set {HOST_INTERFACE} netns {there}"));
    until("it is told to be gone", || {
        (of_interface(&agent, "trouble") == "gone").then_some(())
    });
    elsewhere.ip(&format!(
        "link set {HOST_INTERFACE} netns {}",
        lab.host.name()
    ));
    assert_eq!(fs_number(&lab), number, "else this test is about nothing");
    until("it is guarded again", || {
        (of_interface(&agent, "trouble").is_null() && program_on(&lab) == program).then_some(())
    });
    assert_eq!(of_interface(&agent, "losses"), 0);
}

fn fs_number(lab: &Lab) -> Option<u64> {
    let shown = lab.host.ip(&format!("-j link show dev {HOST_INTERFACE}"));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown.pointer("/0/ifindex").and_then(Value::as_u64)
}

#[test]
fn a_pinned_guard_that_was_detached_is_attached_again() {
    let lab = Lab::new();
    let bpffs = Bpffs::mount();
    let files = Files::new();
    let pin_dir = bpffs.pins();
    let text =
        format!("interfaces = [{HOST_INTERFACE:?}]\non_exit = \"keep\"\npin_dir = {pin_dir:?}\n");
    files.write("nomail.toml", text);
    let file = files.path("nomail.toml");
    let arguments = ["--config", file.to_str().unwrap()];
    let agent = Agent::start(&lab.host, &arguments);
    assert_eq!(of_interface(&agent, "pinned"), true);
    let program = program_on(&lab);
    link_of(&agent).detach();
    until(
        "it is attached again, for as long as the agent is there",
        || {
            let told = of_interface(&agent, "losses") == 1
                && of_interface(&agent, "trouble").is_null()
                && of_interface(&agent, "pinned") == false;
            (told && program_on(&lab) == program).then_some(())
        },
    );
    assert!(
        agent.log().contains("restart the agent to have it pinned"),
        "{}",
        agent.log()
    );
    agent.stop();
    // The next one pins it, in place of the pin that holds nothing.
    let agent = Agent::start(&lab.host, &arguments);
    assert_eq!(of_interface(&agent, "pinned"), true);
    agent.stop();
    assert!(program_on(&lab).is_some());
}
