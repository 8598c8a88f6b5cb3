//! What the agent may do once it serves, and that this suffices: started with no
//! more than the unit allows.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use nomail_tests::{
    agent::{self, Agent},
    client::quit,
    lab::{HOST_INTERFACE, Lab, Namespace, succeeded},
    poll::until,
};
use tempfile::TempDir;

const UNIT: &str = include_str!("../../packaging/systemd/nomail-agent.service");

/// CAP_NET_BIND_SERVICE and CAP_BPF.
const KEPT: u64 = 1 << 10 | 1 << 39;

/// What the unit lays out for the agent, and a file that it does not.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let world = fs::Permissions::from_mode(0o755);
        fs::set_permissions(host.directory.path(), world).unwrap();
        for name in ["bpf", "etc", "elsewhere", "state", "run"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        // Of whom the agent becomes, as RuntimeDirectory= and StateDirectory= are.
        for name in ["state", "run"] {
            chown(host.path(name), Some(12345), Some(12345)).unwrap();
        }
        mount(
            Some("bpf"),
            &host.path("bpf"),
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> String {
        self.path("etc/nomail.toml").to_str().unwrap().to_owned()
    }

    /// Writes the configuration, of which `rest` is a part.
    fn configure(&self, hostname: &str, rest: &str) {
        let text = format!(
            "interfaces = [{HOST_INTERFACE:?}]\nhostname = {hostname:?}\nuser = \"12345\"\n\
             refuse_at = \"greeting\"\non_exit = \"keep\"\npin_dir = {:?}\nstate_dir = {:?}\n\
             {rest}\n",
            self.path("bpf/nomail"),
            self.path("state"),
        );
        fs::write(self.config(), text).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let unmounted = umount2(&self.path("bpf"), MntFlags::MNT_DETACH);
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

/// setpriv's form of the unit's CapabilityBoundingSet=.
fn bounding_set() -> String {
    let mut lines = UNIT.lines();
    let set = lines.find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let added = set.unwrap().split(' ').map(|name| {
        let name = name.strip_prefix("CAP_").unwrap().to_lowercase();
        format!(",+{name}")
    });
    format!("--bounding-set=-all{}", added.collect::<String>())
}

fn start(namespace: &Namespace, host: &Host) -> Agent {
    let set = bounding_set();
    let through = ["setpriv", &set, "--inh-caps=-all", "--no-new-privs"];
    let control = host.path("run/control.sock");
    let config = host.config();
    let arguments = ["--config", &config, "--control", control.to_str().unwrap()];
    Agent::spawn_through(namespace, &through, &arguments).serving()
}

fn detach(namespace: &Namespace, host: &Host) -> String {
    let binary = agent::binary();
    let mut command = namespace.command(binary.to_str().unwrap());
    let output = command
        .args(["detach", "--config", &host.config()])
        .output();
    succeeded("nomail-agent detach", &output.unwrap())
}

fn reload(agent: &Agent, says: &str) {
    agent.signal(Signal::SIGHUP);
    until("the reload is done", || {
        agent.log().contains(says).then_some(())
    });
}

#[test]
fn it_gives_up_root() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, &["--iface", HOST_INTERFACE]);
    has_little(&agent);
}

/// Every thread is without root, and has no other capabilities than [`KEPT`], the
/// one that serves none at all.
fn has_little(agent: &Agent) {
    let mut serving = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let kept = if status.starts_with("Name:\tsmtp\n") {
            serving += 1;
            0
        } else {
            KEPT
        };
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(field("Uid:").iter().all(|uid| uid != "0"), "{status}");
        assert!(field("Gid:").iter().all(|gid| gid != "0"), "{status}");
        assert_eq!(field("Groups:"), Vec::<String>::new());
        let kept = format!("{kept:016x}");
        assert_eq!(field("CapEff:"), std::slice::from_ref(&kept));
        assert_eq!(field("CapPrm:"), [kept]);
        let none = "0000000000000000";
        for set in ["CapBnd:", "CapInh:", "CapAmb:"] {
            assert_eq!(field(set), [none]);
        }
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        assert_eq!(field("Seccomp:"), ["2"]);
    }
    assert_eq!(serving, 1);
}

#[test]
fn the_units_capabilities_suffice_for_all_that_comes_later() {
    let (lab, host) = (Lab::new(), Host::new());
    host.configure("before.example.org", "");
    let agent = start(&lab.host, &host);
    has_little(&agent);
    let ids = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(
        ids.contains("\nUid:\t12345\t12345\t12345\t12345\n"),
        "{ids}"
    );
    let status = |ask: &str| {
        let text = agent::status(&host.path("run/control.sock"), &["--json"]);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status.pointer(ask).unwrap().clone()
    };
    assert_eq!(status("/interfaces/0/pinned"), true);
    assert_ne!(status("/interfaces/0/xdp_mode"), "off");

    host.configure("after.example.org", "observe = true");
    reload(&agent, "the configuration was reloaded");
    assert_eq!(status("/observe"), true);

    lab.host.ip("address add 192.0.2.9/24 dev host0");
    until("a new address is guarded", || {
        let guarded = status("/guarded").to_string();
        guarded.contains("192.0.2.9:25").then_some(())
    });
    let heard = quit(&lab.client, "192.0.2.9").unwrap();
    assert!(heard.starts_with("521 after.example.org "), "{heard}");

    lab.host.ip("link del host0");
    until("it is told", || {
        agent.log().contains("host0 is gone").then_some(())
    });
    lab.host.ip("link add host0 type veth peer name spare0");
    lab.host.ip("address add 192.0.2.1/24 dev host0");
    lab.host.ip("link set host0 up");
    until("the interface that came back is guarded", || {
        let guarded = status("/guarded").to_string().contains("192.0.2.1:25");
        (guarded && status("/interfaces/0/xdp_mode") != "off").then_some(())
    });
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    let heard = quit(&lab.host, "192.0.2.1").unwrap();
    assert!(heard.starts_with("521 after.example.org "), "{heard}");
    agent.stop();
    assert!(!host.path("run/control.sock").exists());
    assert!(host.path("state/senders").exists());

    // Pinned by one, taken over by the next, removed by root.
    let agent = start(&lab.host, &host);
    agent.stop();
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    let agent = start(&lab.host, &host);
    assert!(agent.log().contains("taken over"), "{}", agent.log());
    agent.stop();
    let told = detach(&lab.host, &host);
    assert_eq!(told, "host0: detached\n");
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
}

/// The permissions of the file would let it be read.
#[test]
fn landlock_hides_what_is_not_the_configurations() {
    let (lab, host) = (Lab::new(), Host::new());
    let list = |name: &str| {
        let path = host.path(name);
        fs::write(&path, "203.0.113.0/24\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        format!("lists.deny_files = [{path:?}]")
    };
    let (beside, elsewhere) = (list("etc/deny"), list("elsewhere/deny"));
    host.configure("before.example.org", "");
    let agent = start(&lab.host, &host);
    host.configure("beside.example.org", &beside);
    reload(&agent, "the configuration was reloaded");
    host.configure("elsewhere.example.org", &elsewhere);
    reload(&agent, "the configuration stays as it was");
    let log = agent.log();
    let refused = log.lines().find(|line| line.contains("elsewhere/deny"));
    assert!(
        refused.is_some_and(|line| line.contains("Permission denied")),
        "{log}"
    );
    let heard = quit(&lab.client, "192.0.2.1").unwrap();
    assert!(heard.starts_with("521 beside.example.org "), "{heard}");
    agent.stop();
    // At the start, as root, it may be read.
    let agent = start(&lab.host, &host);
    let heard = quit(&lab.client, "192.0.2.1").unwrap();
    assert!(heard.starts_with("521 elsewhere.example.org "), "{heard}");
    agent.stop();
}

/// Root does not act in a directory of the account: there could be links.
#[test]
fn the_control_socket_belongs_to_whom_its_directory_belongs() {
    use std::os::unix::fs::MetadataExt as _;
    let (lab, host) = (Lab::new(), Host::new());
    host.configure("mailless.example.org", "");
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    let agent = start(&lab.host, &host);
    assert_eq!(owner(&host.path("run/control.sock")), 12345);
    agent.stop();
    let roots = host.path("elsewhere/control.sock");
    let control = ["--control", roots.to_str().unwrap()];
    let agent = Agent::start(
        &lab.host,
        &[&["--config", &host.config()], &control[..]].concat(),
    );
    assert_eq!(owner(&roots), 0);
    agent.stop();
    // In a directory with the sticky bit only the owner can remove it.
    let agent = Agent::start(&lab.host, &["--config", &host.config()]);
    let control = agent.control();
    assert_eq!(owner(&control), 12345);
    agent.signal(Signal::SIGTERM);
    until("it is removed", || (!control.exists()).then_some(()));
}

/// Another account could put a link in the place of the socket, and of the directory.
#[test]
fn a_control_socket_in_a_directory_of_another_account_is_refused() {
    use std::os::unix::fs::{lchown, symlink};
    let (lab, host) = (Lab::new(), Host::new());
    host.configure("mailless.example.org", "");
    let other = 23_456;
    fs::create_dir_all(host.path("of_other/run")).unwrap();
    chown(host.path("of_other"), Some(other), Some(other)).unwrap();
    fs::create_dir(host.path("open")).unwrap();
    fs::set_permissions(host.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink(host.path("elsewhere"), host.path("link")).unwrap();
    lchown(host.path("link"), Some(other), Some(other)).unwrap();
    for (control, said) in [
        ("of_other/control.sock", "belongs to uid 23456"),
        ("of_other/new/control.sock", "belongs to uid 23456"),
        ("of_other/run/control.sock", "belongs to uid 23456"),
        ("open/control.sock", "`chmod go-w"),
        ("open/new/control.sock", "`chmod go-w"),
        ("link/control.sock", "is a link that uid 23456 has made"),
    ] {
        let path = host.path(control);
        let arguments = [
            "--config",
            &host.config(),
            "--control",
            path.to_str().unwrap(),
        ];
        let mut agent = Agent::spawn(&lab.host, &arguments);
        assert_eq!(agent.wait().code(), Some(78), "{control}: {}", agent.log());
        let log = agent.log();
        assert!(
            log.contains("no control socket") && log.contains(said),
            "{control}: {log}"
        );
        assert!(!path.exists());
        assert!(!host.path("of_other/new").exists() && !host.path("open/new").exists());
    }
}

/// The agent reads its lists as root at the start: no link of another account leads it
/// to what that may not read, and its words are not told by an error.
#[test]
fn a_list_or_key_is_not_read_over_a_link_of_another_account() {
    use std::os::unix::fs::{lchown, symlink};
    let (lab, host) = (Lab::new(), Host::new());
    let other = 23_456;
    fs::write(host.path("elsewhere/secret"), "hunter2\n").unwrap();
    fs::set_permissions(
        host.path("elsewhere/secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::create_dir(host.path("of_other")).unwrap();
    chown(host.path("of_other"), Some(other), Some(other)).unwrap();
    let link = host.path("of_other/list");
    symlink(host.path("elsewhere/secret"), &link).unwrap();
    lchown(&link, Some(other), Some(other)).unwrap();
    for (key, table) in [
        ("lists.deny_files", format!("lists.deny_files = [{link:?}]")),
        (
            "lists.allow_files",
            format!("lists.allow_files = [{link:?}]"),
        ),
        (
            "relay.domain_files",
            format!("refuse_at = \"rcpt\"\n[relay]\ndomain_files = [{link:?}]"),
        ),
    ] {
        let refuse_at = if key.starts_with("relay") {
            ""
        } else {
            "refuse_at = \"greeting\"\n"
        };
        let text = format!("interfaces = [{HOST_INTERFACE:?}]\n{refuse_at}{table}\n");
        fs::write(host.config(), text).unwrap();
        let agent = Agent::start(&lab.host, &["--config", &host.config()]);
        // It is left out, and said so.
        let status = agent.status();
        let unread = status["lists"].to_string();
        assert!(unread.contains("make the link as root"), "{status:#}");
        let log = agent.log();
        assert!(log.contains(link.to_str().unwrap()), "{key}: {log}");
        assert!(log.contains("make the link as root"), "{key}: {log}");
        assert!(!log.contains("hunter2"), "{key}: {log}");
    }
    // A key is needed.
    let crowdsec = format!("[crowdsec]\nurl = \"http://127.0.0.1:1\"\napi_key_file = {link:?}\n");
    fs::write(host.config(), crowdsec).unwrap();
    let mut command = lab.host.command(agent::binary().to_str().unwrap());
    let output = command
        .args(["crowdsec", "--config", &host.config()])
        .output();
    let output = output.unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{log}");
    assert!(log.contains(link.to_str().unwrap()), "{log}");
    assert!(log.contains("make the link as root"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    // Decisions of an account that has put a link in their place.
    let decisions = host.path("of_other");
    symlink(host.path("elsewhere/secret"), decisions.join("deny")).unwrap();
    lchown(decisions.join("deny"), Some(other), Some(other)).unwrap();
    let figures = serde_json::json!({
        "url": "", "ok": true, "decisions": 1, "decisions_ipv6": 0, "left_out": 0,
        "last_pull_secs": null, "last_pull_unix_secs": 1, "error": "",
    });
    fs::write(decisions.join("status.json"), figures.to_string()).unwrap();
    let table = format!(
        "interfaces = [{HOST_INTERFACE:?}]\n[crowdsec]\napi_key_file = {link:?}\n\
         run_dir = {decisions:?}\n"
    );
    fs::write(host.config(), table).unwrap();
    let agent = Agent::start(&lab.host, &["--config", &host.config()]);
    until("the link is named", || {
        let error = agent.status()["crowdsec"]["error"].to_string();
        error.contains("make the link as root").then_some(())
    });
    assert!(!agent.log().contains("hunter2"), "{}", agent.log());
    agent.stop();
    // The same link, of root's.
    fs::write(host.path("elsewhere/secret"), "203.0.113.0/24\n").unwrap();
    lchown(&link, Some(0), Some(0)).unwrap();
    host.configure(
        "mailless.example.org",
        &format!("lists.deny_files = [{link:?}]"),
    );
    let agent = Agent::start(&lab.host, &["--config", &host.config()]);
    agent.stop();
}

/// Where no account was created: what `nobody` runs can neither signal it nor write
/// its memory.
#[test]
fn without_an_account_it_runs_as_a_uid_of_its_own() {
    use std::os::unix::fs::MetadataExt as _;
    if nix::unistd::User::from_name("nomail").unwrap().is_some() {
        return;
    }
    let (lab, host) = (Lab::new(), Host::new());
    let state = host.path("of_its_own");
    let config = format!("interfaces = [{HOST_INTERFACE:?}]\nstate_dir = {state:?}\n");
    fs::write(host.config(), config).unwrap();
    let start = || Agent::start(&lab.host, &["--config", &host.config()]);
    let uid_of = |agent: &Agent| agent.process("Uid").parse::<u32>().unwrap();
    let agent = start();
    let uid = uid_of(&agent);
    assert!((61_184..=65_519).contains(&uid), "{uid}");
    assert_eq!(fs::metadata(&state).unwrap().uid(), uid);
    let log = agent.log();
    assert!(
        log.contains(&format!("running as uid {uid}, which nothing else uses")),
        "{log}"
    );
    // A second agent has another one, and the next one that of the directory.
    let second = Agent::start(&lab.client, &["--iface", "client0", "--metrics", "off"]);
    assert_ne!(uid_of(&second), uid);
    agent.stop();
    assert!(state.join("senders").exists());
    let agent = start();
    assert_eq!(uid_of(&agent), uid);
    assert!(!agent.log().contains("cannot be"), "{}", agent.log());
    agent.stop();
    second.stop();
}
