//! The account that the agent becomes, on hosts that know no accounts at all.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use nomail_tests::{
    agent::Agent,
    lab::{HOST_INTERFACE, Lab},
};

const ARGUMENTS: &[&str] = &[
    "--iface",
    HOST_INTERFACE,
    "--hostname",
    "mailless.example.org",
    "--refuse-at",
    "greeting",
];

/// Without any file below /etc, as in an image from nothing: the C library then says
/// that there is no such file, not that there is no such user.
const WITHOUT_ETC: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-euc",
    "mount -t tmpfs none /etc; exec \"$@\"",
    "sh",
];

#[test]
fn the_default_account_may_be_missing() {
    let lab = Lab::new();
    let agent = Agent::spawn_through(&lab.host, WITHOUT_ETC, ARGUMENTS).serving();
    let log = agent.log();
    assert!(log.contains("there is no user \"nomail\""), "{log}");
    assert_ne!(agent.process("Uid"), "0");
    agent.stop();
}

#[test]
fn a_configured_account_that_is_missing_is_named() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    std::fs::write(&file, "user = \"guard\"\n").unwrap();
    let arguments = [ARGUMENTS, &["--config", file.to_str().unwrap()]].concat();
    let mut agent = Agent::spawn_through(&lab.host, WITHOUT_ETC, &arguments);
    let status = agent.wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(
        log.contains("there is no user \"guard\": create it with `useradd --system guard`"),
        "{log}"
    );
}
