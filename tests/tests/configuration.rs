//! The files of a running agent: drop-ins, reloads that succeed and fail, and the output of
//! `check-config`.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output},
};

use nix::sys::{signal::Signal, stat::Mode};
use nomail_tests::{
    agent::{self, Agent},
    files::{Files, copy_program},
    lab::{HOST_INTERFACE, HOST_IPV4, Lab, succeeded},
    poll::{DEADLINE, until},
    repository::repository,
};
use serde_json::Value;

/// The uid of `nobody`, which has no privilege.
const NOBODY: u32 = 65_534;

/// A lab, and a file with its drop-ins.
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

    /// The path of the file.
    fn file(&self) -> String {
        self.files.path("nomail.toml").to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.files.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a drop-in.
    fn drop_in(&self, name: &str, text: &str) {
        self.write(&format!("nomail.toml.d/{name}"), text);
    }

    fn start(&self) -> Agent {
        let file = self.file();
        let arguments = ["--iface", HOST_INTERFACE, "--config", &file];
        let unlimited = ["--syn-rate", "10000", "--syn-burst", "10000"];
        Agent::start(&self.lab.host, &[&arguments[..], &unlimited].concat())
    }

    /// The replies to a client that says QUIT.
    fn talk(&self) -> String {
        self.lab.client.within(|| {
            let to: SocketAddr = format!("{HOST_IPV4}:25").parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"QUIT\r\n").unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            heard
        })
    }

    fn assert_greeted_by(&self, name: &str) {
        let heard = self.talk();
        let expected = format!("521 {name} does not accept mail\r\n");
        assert!(heard.starts_with(&expected), "{heard}");
    }
}

/// Reloads, and returns what the agent logs meanwhile.
fn reload(agent: &Agent) -> String {
    let before = agent.log().len();
    agent.signal(Signal::SIGHUP);
    until("the reload is over", || {
        let log = agent.log().split_off(before);
        let over = ["the configuration was reloaded", "the configuration stays"];
        over.iter().any(|over| log.contains(over)).then_some(log)
    })
}

/// The hash of the configuration in effect.
fn hash(agent: &Agent) -> String {
    agent.status()["config_hash"].as_str().unwrap().to_owned()
}

/// Runs `nomail-agent check-config ARGUMENTS` without any privilege.
fn check_config(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    // `nobody` may not enter the build directory.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("nomail-agent");
    copy_program(&agent::binary(), &binary);
    Command::new(binary)
        .arg("check-config")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const FILE: &str = "refuse_at = \"greeting\"\nhostname = \"file.example.org\"\n";

#[test]
fn drop_ins_come_and_go_with_a_reload() {
    let host = Host::new();
    host.write("nomail.toml", FILE);
    let agent = host.start();
    host.assert_greeted_by("file.example.org");
    let began_with = hash(&agent);

    // The directory is new to the agent, which is no longer root.
    host.drop_in("20-b.toml", "hostname = \"b.example.org\"\n");
    host.drop_in(
        "10-a.toml",
        "hostname = \"a.example.org\"\nobserve = true\n",
    );
    host.drop_in(".30-hidden.toml", "nonsense");
    host.drop_in("30-old.toml.bak", "nonsense");
    let log = reload(&agent);
    assert!(log.contains("the configuration was reloaded"), "{log}");
    host.assert_greeted_by("b.example.org");
    assert_eq!(agent.status()["observe"], true);
    assert_ne!(hash(&agent), began_with);

    fs::remove_file(host.files.path("nomail.toml.d/20-b.toml")).unwrap();
    reload(&agent);
    host.assert_greeted_by("a.example.org");

    // A drop-in alone is a configuration.
    fs::remove_file(host.files.path("nomail.toml")).unwrap();
    host.drop_in("30-c.toml", "refuse_at = \"greeting\"\n");
    reload(&agent);
    host.assert_greeted_by("a.example.org");

    host.write("nomail.toml", FILE);
    fs::remove_dir_all(host.files.path("nomail.toml.d")).unwrap();
    reload(&agent);
    host.assert_greeted_by("file.example.org");
    let status = agent.status();
    assert_eq!(status["observe"], false);
    assert_eq!(status["reload"]["ok"], true, "{status:#}");
    assert_eq!(hash(&agent), began_with);
    agent.stop();
}

#[test]
fn a_drop_in_alone_starts_an_agent() {
    let host = Host::new();
    host.drop_in("a.toml", FILE);
    let agent = host.start();
    host.assert_greeted_by("file.example.org");
    agent.stop();
}

/// A start as root can read more than the agent's account: it warns before a reload fails.
#[test]
fn what_a_reload_cannot_read_is_told_at_the_start() {
    let host = Host::new();
    host.write("nomail.toml", FILE);
    host.drop_in("a.toml", "observe = true\n");
    let drop_in = host.files.path("nomail.toml.d/a.toml");
    fs::set_permissions(&drop_in, fs::Permissions::from_mode(0o600)).unwrap();
    let agent = host.start();
    let told = format!("{}: a reload will fail, because uid ", drop_in.display());
    assert!(agent.log().contains(&told), "{}", agent.log());
    agent.stop();
    let directory = host.files.path("nomail.toml.d");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let agent = host.start();
    let told = format!("{}: a reload will fail, because uid ", directory.display());
    assert!(agent.log().contains(&told), "{}", agent.log());
    assert_eq!(agent.status()["observe"], true);
    agent.stop();
}

/// The file that packages install has only defaults.
#[test]
fn the_shipped_file_changes_nothing() {
    let host = Host::new();
    host.write("nomail.toml", "");
    let agent = host.start();
    let began_with = hash(&agent);
    let shipped = repository().join("packaging/nomail.toml");
    fs::copy(shipped, host.files.path("nomail.toml")).unwrap();
    let log = reload(&agent);
    assert!(log.contains("the configuration was reloaded"), "{log}");
    assert!(!log.contains("needs a restart"), "{log}");
    assert_eq!(hash(&agent), began_with);
    let told = succeeded(
        "check-config",
        &check_config(&["--config", &host.file()], &[]),
    );
    assert_eq!(told, format!("{}: ok\n", host.file()));
    agent.stop();
}

/// A reload reports each of these with its place, and changes nothing.
#[test]
fn a_bad_configuration_never_stops_a_running_agent() {
    type Break = fn(&Host);
    let breakages: &[(&str, Break, &str)] = &[
        (
            "syntax",
            |host| host.write("nomail.toml", "hostname = \n"),
            "nomail.toml:1:12: not TOML",
        ),
        (
            "unknown key",
            |host| host.write("nomail.toml", &format!("{FILE}nonsense = 1\n")),
            "nomail.toml:3:1: nonsense: unknown key",
        ),
        (
            "wrong value",
            |host| host.write("nomail.toml", "observe = 1\nlimits.syn_rate = 0\n"),
            "nomail.toml:1:11: observe: an integer is neither true nor false (and 1 more)",
        ),
        (
            "not UTF-8",
            |host| host.files.write("nomail.toml", b"# \xFF"),
            "nomail.toml:1:3: not UTF-8",
        ),
        (
            "unreadable",
            |host| forbid(&host.files.path("nomail.toml")),
            "nomail.toml: cannot be read: Permission denied",
        ),
        (
            "gone",
            |host| {
                fs::remove_file(host.files.path("nomail.toml")).unwrap();
                fs::remove_dir_all(host.files.path("nomail.toml.d")).unwrap();
            },
            "nomail.toml: there is no such file",
        ),
        (
            "a directory",
            |host| {
                fs::remove_file(host.files.path("nomail.toml")).unwrap();
                fs::create_dir(host.files.path("nomail.toml")).unwrap();
            },
            "nomail.toml: cannot be read: Is a directory",
        ),
        (
            "a pipe, which opening would wait for",
            |host| {
                fs::remove_file(host.files.path("nomail.toml")).unwrap();
                nix::unistd::mkfifo(
                    &host.files.path("nomail.toml"),
                    Mode::S_IRWXU | Mode::S_IROTH,
                )
                .unwrap();
            },
            "nomail.toml: cannot be read: it is a pipe",
        ),
        (
            "huge",
            |host| {
                let file = fs::File::create(host.files.path("nomail.toml")).unwrap();
                file.set_len(1 << 40).unwrap();
            },
            "nomail.toml: is longer than 1048576 bytes",
        ),
        (
            "deep",
            |host| host.write("nomail.toml", &format!("a = {}", "[".repeat(1_000_000))),
            "nomail.toml:1:",
        ),
        (
            "broken drop-in",
            |host| host.drop_in("b.toml", "observe = true\n[limits\n"),
            "nomail.toml.d/b.toml:2:8: not TOML",
        ),
        (
            "huge drop-in",
            |host| {
                let file = fs::File::create(host.files.path("nomail.toml.d/b.toml")).unwrap();
                file.set_len(1 << 40).unwrap();
            },
            "nomail.toml.d/b.toml: is longer than 1048576 bytes",
        ),
        (
            "unreadable drop-in",
            |host| forbid(&host.files.path("nomail.toml.d/a.toml")),
            "nomail.toml.d/a.toml: cannot be read: Permission denied",
        ),
        (
            "unreadable directory",
            |host| forbid(&host.files.path("nomail.toml.d")),
            "nomail.toml.d: cannot be read: Permission denied",
        ),
        (
            "drop-in that leads out of what the agent may read",
            |host| {
                std::os::unix::fs::symlink(
                    "/etc/hostname",
                    host.files.path("nomail.toml.d/b.toml"),
                )
                .unwrap();
            },
            "nomail.toml.d/b.toml: cannot be read: Permission denied",
        ),
        (
            "list gone",
            |host| fs::remove_file(host.files.path("deny")).unwrap(),
            "deny: there is no such file: create it, or leave it out of lists.deny_files",
        ),
        (
            "list unreadable",
            |host| forbid(&host.files.path("deny")),
            "deny: cannot be read: Permission denied",
        ),
        (
            "list broken",
            |host| host.write("deny", "<!DOCTYPE html>\n<html>\n"),
            "deny: has no line that is a prefix: is it the file it should be?",
        ),
    ];
    let host = Host::new();
    let right = || {
        let path = host.files.path("nomail.toml");
        // The path may be a file, a directory or missing.
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        let drop_ins = host.files.path("nomail.toml.d");
        if drop_ins.exists() {
            fs::set_permissions(&drop_ins, fs::Permissions::from_mode(0o755)).unwrap();
            fs::remove_dir_all(&drop_ins).unwrap();
        }
        let _ = fs::remove_file(host.files.path("deny"));
        host.write("deny", "198.51.100.0/24\n");
        host.write("nomail.toml", FILE);
        let lists = format!("lists.deny_files = [{:?}]\n", host.files.path("deny"));
        host.drop_in("a.toml", &lists);
    };
    right();
    let agent = host.start();
    let began_with = hash(&agent);
    for (what, breakage, expected) in breakages {
        breakage(&host);
        let log = reload(&agent);
        assert!(log.contains("stays as it was"), "{what}: {log}");
        assert!(
            log.contains(expected.split(" (and").next().unwrap()),
            "{what}: {log}"
        );
        let status = agent.status();
        let told = &status["reload"];
        assert_eq!(told["ok"], false, "{what}: {told}");
        let error = told["error"].as_str().unwrap();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(told["age_secs"].as_u64().unwrap() < 20, "{what}: {told}");
        assert_eq!(status["config_hash"], Value::from(&*began_with), "{what}");
        let text = agent::status(&agent.control(), &[]);
        let failed = text
            .lines()
            .find(|line| line.starts_with("reload       failed "));
        assert!(
            failed.is_some_and(|failed| failed.contains(expected)),
            "{what}: {text}"
        );
        host.assert_greeted_by("file.example.org");

        right();
        let log = reload(&agent);
        assert!(log.contains("was reloaded"), "{what}: {log}");
        assert_eq!(agent.status()["reload"]["ok"], true, "{what}");
    }
    assert!(!agent::status(&agent.control(), &[]).contains("\nreload "));
    assert_eq!(hash(&agent), began_with);
    agent.stop();
}

fn forbid(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
}

#[test]
fn what_needs_a_restart_is_told_until_it_is_undone() {
    let host = Host::new();
    host.write("nomail.toml", FILE);
    let agent = host.start();
    let status = agent.status();
    assert_eq!(status["reload"]["ok"], true, "the start counts: {status:#}");
    assert_eq!(status["reload"]["needs_restart"], Value::Array(Vec::new()));
    let began_with = hash(&agent);

    host.drop_in("a.toml", "listen = [\"192.0.2.1:2525\"]\nuser = 65533\n");
    for _ in 0..2 {
        reload(&agent);
        let status = agent.status();
        assert_eq!(status["reload"]["ok"], true);
        assert_eq!(
            status["reload"]["needs_restart"],
            Value::from(vec!["listen", "user"])
        );
        assert_eq!(
            status["config_hash"],
            Value::from(&*began_with),
            "in effect"
        );
        let text = agent::status(&agent.control(), &[]);
        assert!(
            text.contains("reload       a change of listen, user needs a restart\n"),
            "{text}"
        );
    }
    fs::remove_file(host.files.path("nomail.toml.d/a.toml")).unwrap();
    reload(&agent);
    assert_eq!(
        agent.status()["reload"]["needs_restart"],
        Value::Array(Vec::new())
    );
    agent.stop();
}

#[test]
fn show_tells_what_is_in_effect_and_where_it_is_from() {
    let host = Host::new();
    host.write(
        "nomail.toml",
        &format!("{FILE}[limits]\nsyn_rate = 3\nsyn_burst = 3\n"),
    );
    host.drop_in("a.toml", "[limits]\n# few\nsyn_burst = 4\n");
    let file = host.file();
    let variables = [("NOMAIL_OBSERVE", "true"), ("NOMAIL_CONFIG", &*file)];
    let output = check_config(&["--show", "--iface", HOST_INTERFACE], &variables);
    let shown = succeeded("check-config --show", &output);
    for (line, origin) in [
        ("interfaces = [\"host0\"]", "flag --iface"),
        ("hostname = \"file.example.org\"", &format!("{file}:2")),
        ("observe = true", "environment NOMAIL_OBSERVE"),
        ("xdp_mode = \"auto\"", "default"),
        ("syn_rate = 3", &format!("{file}:4")),
        ("syn_burst = 4", &format!("{file}.d/a.toml:3")),
    ] {
        let found = shown.lines().find(|shown| shown.starts_with(line));
        let found = found.unwrap_or_else(|| panic!("{line}:\n{shown}"));
        let (_, told) = found.split_once("  # ").unwrap();
        assert_eq!(told, origin, "{found}");
    }

    // An agent with the shown file has the same status as one with files, flags and variables.
    let arguments = ["--iface", HOST_INTERFACE, "--config", &file, "--observe"];
    let agent = Agent::start(&host.lab.host, &arguments);
    let expected = agent.status();
    agent.stop();
    fs::remove_dir_all(host.files.path("nomail.toml.d")).unwrap();
    host.write("nomail.toml", &shown);
    let agent = Agent::start(&host.lab.host, &["--config", &file]);
    let status = agent.status();
    for key in ["hostname", "observe", "interfaces", "guarded"] {
        let without_id = |status: &Value| {
            let mut part = status[key].clone();
            if key == "interfaces" {
                part[0]["program_id"].take();
            }
            part
        };
        assert_eq!(without_id(&status), without_id(&expected), "{key}");
    }
    agent.stop();
}

#[test]
fn check_config_tells_what_is_wrong_and_exits_with_78() {
    let host = Host::new();
    host.write("nomail.toml", FILE);
    host.drop_in("a.toml", "observe = true\n");
    let file = host.file();
    let told = succeeded("check-config", &check_config(&["--config", &file], &[]));
    assert_eq!(told, format!("{file}: ok\n{file}.d/a.toml: ok\n"));

    host.drop_in("b.toml", "\nobserve = 1\n");
    let expected = format!("{file}.d/b.toml:2:11: observe: an integer is neither true nor false");
    for arguments in [&["--config", &file][..], &["--config", &file, "--show"]] {
        let output = check_config(arguments, &[]);
        assert_eq!(output.status.code(), Some(78));
        assert_eq!(output.stdout, b"");
        assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    }
    fs::remove_file(host.files.path("nomail.toml.d/b.toml")).unwrap();

    // The environment is the shell's: only --show depends on it.
    let variables = [("NOMAIL_SYN_RATE", "many")];
    let output = check_config(&["--config", &file], &variables);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = check_config(&["--config", &file, "--show"], &variables);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("NOMAIL_SYN_RATE: \"many\" is not"),
        "{}",
        stderr(&output)
    );
}
