//! The guard beyond its agent: `on_exit = "keep"`, upgrades, `detach`; and the
//! agent beyond its interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use nomail_agent::guard::{Guard, Pins, Policy, Rate};
use nomail_common::{abi::ABI_VERSION, guard::lease::LEASE_SECS};
use nomail_tests::{
    agent::{self, Agent, GREETING},
    client::quit,
    flood::answerable,
    foreign::Program,
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, until},
    program::{self, LOOPBACK_INDEX, TIGHT, XDP_PASS, XDP_TX, ipv4, reset_for},
};
use tempfile::TempDir;

/// A BPF file system for one test, and a configuration that pins there.
struct Pinned {
    directory: TempDir,
}

impl Pinned {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bpf = directory.path().join("bpf");
        fs::create_dir(&bpf).unwrap();
        mount(
            Some("bpf"),
            &bpf,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .unwrap();
        let pinned = Self { directory };
        pinned.configure("on_exit = \"keep\"");
        pinned
    }

    fn bpf(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    fn pin_dir(&self) -> PathBuf {
        self.bpf().join("nomail")
    }

    /// What is pinned for the ABI version.
    fn version(&self, version: u32) -> PathBuf {
        self.pin_dir().join(format!("v{version}"))
    }

    fn config(&self) -> String {
        let file = self.directory.path().join("nomail.toml");
        file.to_str().unwrap().to_owned()
    }

    fn configure(&self, text: &str) {
        let text = format!(
            "interfaces = [{HOST_INTERFACE:?}]\nhostname = \"mailless.example.org\"\n\
             refuse_at = \"greeting\"\npin_dir = {:?}\n{text}\n",
            self.pin_dir()
        );
        fs::write(self.config(), text).unwrap();
    }

    fn start(&self, lab: &Lab) -> Agent {
        Agent::start(&lab.host, &["--config", &self.config()])
    }

    fn refused(&self, lab: &Lab, arguments: &[&str]) -> (i32, String) {
        let config = self.config();
        let arguments = [&["--config", &config], arguments].concat();
        let mut agent = Agent::spawn(&lab.host, &arguments);
        (agent.wait().code().unwrap(), agent.log())
    }

    fn detach(&self, lab: &Lab, arguments: &[&str]) -> Output {
        lab.host
            .command(agent::binary().to_str().unwrap())
            .args(["detach", "--config", &self.config()])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What `detach` says when it succeeds.
    fn detached(&self, lab: &Lab, arguments: &[&str]) -> String {
        let output = self.detach(lab, arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let unmounted = umount2(&self.bpf(), MntFlags::MNT_DETACH);
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn links(directory: &Path) -> Vec<String> {
    let mut names = names(directory);
    names.retain(|name| name.starts_with("link_"));
    names
}

fn link_name(lab: &Lab) -> String {
    let index = lab
        .host
        .within(|| nix::net::if_::if_nametoindex(HOST_INTERFACE).unwrap());
    format!("link_{index}")
}

/// Sends SYNs from `count` ports of a source.
fn send(lab: &Lab, source: &str, count: u16) {
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for port in 0..count {
            let from = format!("{source}:{}", 1024 + port);
            sender.send(&Segment::syn(&from, "192.0.2.1:25").frame());
        }
    });
}

/// Sends SYNs from `count` sources, more than the listener can take.
fn send_forged(lab: &Lab, count: u32) {
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for n in 0..count {
            let from = format!("198.18.{}.{}:{}", n >> 8 & 255, n & 255, 1024 + n % 50_000);
            sender.send(&Segment::syn(&from, "192.0.2.1:25").frame());
            if n % 64 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

fn total(agent: &Agent, expected: u64) {
    until("all SYNs are counted", || {
        let total = agent.count("/syn/total");
        assert!(total <= expected, "{total} of {expected}");
        (total == expected).then_some(())
    });
}

#[test]
fn kept_it_counts_on_and_the_next_agent_goes_on_from_there() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let agent = pinned.start(&lab);
    assert_eq!(agent.status()["interfaces"][0]["pinned"], true);
    let mode = fs::metadata(pinned.version(ABI_VERSION)).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o700);
    send(&lab, "203.0.113.9", 30);
    assert!(quit(&lab.client, HOST_IPV4).unwrap().starts_with(GREETING));
    total(&agent, 31);
    let program = agent.count("/interfaces/0/program_id");
    agent.stop();

    assert!(lab.host.has_xdp(HOST_INTERFACE));
    assert_eq!(links(&pinned.version(ABI_VERSION)), [link_name(&lab)]);
    // The kernel says that nobody listens, and nobody is kept waiting.
    let error = quit(&lab.client, HOST_IPV4).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    send(&lab, "203.0.113.9", 40);

    let agent = pinned.start(&lab);
    assert!(agent.log().contains("taken over"), "{}", agent.log());
    total(&agent, 30 + 1 + 1 + 40);
    send(&lab, "203.0.113.9", 5);
    total(&agent, 30 + 1 + 1 + 40 + 5);
    assert_ne!(agent.count("/interfaces/0/program_id"), program);
    let status = agent.status();
    let source = status["sources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|source| source["source"] == "203.0.113.9")
        .collect::<Vec<_>>();
    assert_eq!(source.len(), 1, "it is found in its old place");
    assert_eq!(source[0]["syn"], 75);
    // Over its limit as it was before, not at the beginning of a new burst.
    assert!(source[0]["limited"].as_u64().unwrap() >= 40, "{status:#}");
    assert!(quit(&lab.client, HOST_IPV4).unwrap().starts_with(GREETING));
    agent.stop();
}

/// Each SYN has one verdict, whatever becomes of the agent meanwhile.
#[test]
fn no_syn_is_missed_while_agents_come_and_go() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let mut running = Some(pinned.start(&lab));
    let (sending, sent) = (AtomicBool::new(true), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let client = &lab.client;
        let (sending, sent) = (&sending, &sent);
        scope.spawn(move || {
            client.within(|| {
                let sender = FrameSender::open(CLIENT_INTERFACE);
                let started = Instant::now();
                let mut port = 1024u16;
                while sending.load(Ordering::Relaxed) && started.elapsed() < DEADLINE {
                    port = port.wrapping_add(1).max(1024);
                    let from = format!("203.0.113.{}:{port}", port % 250);
                    sender.send(&Segment::syn(&from, "192.0.2.1:25").frame());
                    sent.fetch_add(1, Ordering::Relaxed);
                    if port.is_multiple_of(8) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        });
        for kill in [false, true, false] {
            let before = sent.load(Ordering::Relaxed);
            let mut agent = running.take().unwrap();
            if kill {
                agent.signal(Signal::SIGKILL);
                agent.wait();
            } else {
                agent.stop();
            }
            let agent = pinned.start(&lab);
            assert!(agent.log().contains("taken over"));
            running = Some(agent);
            until("it goes on", || {
                (sent.load(Ordering::Relaxed) > before + 200).then_some(())
            });
        }
        sending.store(false, Ordering::Relaxed);
    });
    let agent = running.unwrap();
    total(&agent, sent.load(Ordering::Relaxed));
    let status = agent.status();
    let verdicts: u64 = status["syn"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "total")
        .map(|(_, count)| count.as_u64().unwrap())
        .sum();
    assert_eq!(verdicts, sent.load(Ordering::Relaxed));
}

#[test]
fn proven_tuples_and_the_buckets_survive_and_the_key_with_them() {
    let pinned = Pinned::new();
    let policy = Policy {
        source: Rate {
            rate: 1,
            burst: 1000,
        },
        cap: Some(TIGHT),
        ..program::policy()
    };
    let load = || {
        // A program that another test starts holds a copy of the lock until it
        // is executed.
        let pins = until("the pins are free", || Pins::create(&pinned.pin_dir()).ok());
        let ports = HashSet::from([25]);
        let mut guard = Guard::load_pinned(&ports, false, &[LOOPBACK_INDEX], pins, true).unwrap();
        guard.configure(&policy).unwrap();
        guard.settle_pins().unwrap();
        guard
    };
    // The cap is full again after a second, which a start may take.
    let judged = |guard: &mut Guard, segment: Segment| {
        let unproven = Segment::syn("198.18.0.99:1", "192.0.2.7:25").frame();
        guard.test_run(&unproven, 1).unwrap();
        guard.test_answer(&segment.frame()).unwrap()
    };
    let mut guard = load();
    let segment = ipv4();
    let (action, answer) = judged(&mut guard, segment);
    assert_eq!(action, XDP_TX);
    let reset = reset_for(segment, &answer);
    drop(guard);

    // The proof comes to the next agent, the SYN to the one after that.
    let guard = load();
    guard.test_run(&reset, 1).unwrap();
    drop(guard);
    let mut guard = load();
    assert_eq!(judged(&mut guard, segment).0, XDP_PASS);
    let other = Segment::syn("198.51.100.2:40000", "192.0.2.7:25");
    assert_eq!(judged(&mut guard, other).0, XDP_TX);
}

#[test]
fn a_dead_agent_challenges_nobody() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let mut agent = pinned.start(&lab);
    send_forged(&lab, 6000);
    total(&agent, 6000);
    let challenges = agent.count("/answers/challenge");
    assert!(challenges > 100, "{challenges}");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    // It cannot say so itself any more.
    std::thread::sleep(Duration::from_secs(u64::from(LEASE_SECS) + 1));
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    send_forged(&lab, 6000);
    let error = quit(&lab.client, HOST_IPV4).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);

    let agent = pinned.start(&lab);
    total(&agent, 12_001);
    assert_eq!(agent.count("/answers/challenge"), challenges);
    assert_eq!(
        agent.status()["flood"],
        false,
        "what was is no flood of now"
    );
    agent.stop();
    let error = quit(&lab.client, HOST_IPV4).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    send_forged(&lab, 6000);
    let agent = pinned.start(&lab);
    total(&agent, 18_002);
    assert_eq!(agent.count("/answers/challenge"), challenges);
}

#[test]
fn a_lease_is_renewed() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let agent = pinned.start(&lab);
    std::thread::sleep(Duration::from_secs(u64::from(LEASE_SECS) + 1));
    send_forged(&lab, 6000);
    total(&agent, 6000);
    assert!(agent.count("/answers/challenge") > 100);
}

#[test]
fn what_another_version_pinned_is_taken_over_and_removed() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let agent = pinned.start(&lab);
    send(&lab, "203.0.113.9", 5);
    total(&agent, 5);
    agent.stop();
    for old in [0, ABI_VERSION + 7] {
        fs::rename(pinned.version(ABI_VERSION), pinned.version(old)).unwrap();
        let agent = pinned.start(&lab);
        let log = agent.log();
        assert!(log.contains("taken over"), "not one SYN is missed: {log}");
        assert_eq!(names(&pinned.pin_dir()), [format!("v{ABI_VERSION}")]);
        assert_eq!(links(&pinned.version(ABI_VERSION)), [link_name(&lab)]);
        assert_eq!(agent.count("/syn/total"), 0, "its counters are not read");
        send(&lab, "203.0.113.9", 7);
        total(&agent, 7);
        agent.stop();
        assert!(lab.host.has_xdp(HOST_INTERFACE));
    }
}

#[test]
fn maps_of_another_shape_or_not_all_of_them_are_not_used() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    pinned.start(&lab).stop();
    let version = pinned.version(ABI_VERSION);
    let breakages: [fn(&Path); 3] = [
        |version| {
            // All are there, two of them of another shape than their names say.
            for (from, to) in [
                ("CARRIES", "other"),
                ("SOURCES", "CARRIES"),
                ("other", "SOURCES"),
            ] {
                fs::rename(version.join(from), version.join(to)).unwrap();
            }
        },
        |version| fs::remove_file(version.join("TICKETS")).unwrap(),
        |version| fs::remove_file(version.join("secrets")).unwrap(),
    ];
    let all = names(&version);
    for breakage in breakages {
        send(&lab, "203.0.113.9", 5);
        breakage(&version);
        let agent = pinned.start(&lab);
        let log = agent.log();
        assert!(
            log.contains("start again at zero") && log.contains("taken over"),
            "{log}"
        );
        send(&lab, "203.0.113.9", 7);
        total(&agent, 7);
        assert_eq!(names(&version), all);
        agent.stop();
    }
}

#[test]
fn the_pin_of_a_deleted_interface_is_removed() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    pinned.start(&lab).stop();
    let severed = link_name(&lab);
    recreate(&lab);
    assert_ne!(link_name(&lab), severed);
    assert_eq!(links(&pinned.version(ABI_VERSION)), [severed]);
    let agent = pinned.start(&lab);
    assert_eq!(links(&pinned.version(ABI_VERSION)), [link_name(&lab)]);
    assert_eq!(agent.status()["interfaces"][0]["pinned"], true);
    assert!(quit(&lab.client, HOST_IPV4).unwrap().starts_with(GREETING));
    agent.stop();
    recreate(&lab);
    let said = pinned.detached(&lab, &[]);
    assert!(said.contains("an interface that is gone"), "{said}");
    // Those are the kernel's own, where it is built with them.
    let mut left = names(&pinned.bpf());
    left.retain(|name| !["maps.debug", "progs.debug"].contains(&name.as_str()));
    assert_eq!(left, [""; 0]);
}

/// Deletes the wire, and lays it anew.
fn recreate(lab: &Lab) {
    lab.host.ip("link del host0");
    lab.lay_wire();
}

#[test]
fn an_interface_that_is_deleted_and_comes_back_is_guarded_again() {
    for keep in [false, true] {
        let (lab, pinned) = (Lab::new(), Pinned::new());
        if !keep {
            pinned.configure("");
        }
        let agent = pinned.start(&lab);
        send(&lab, "203.0.113.9", 5);
        total(&agent, 5);
        lab.host.ip("link del host0");
        until("it is told", || {
            agent.log().contains("host0 is gone").then_some(())
        });
        assert_eq!(agent.status()["interfaces"][0]["xdp_mode"], "off");
        // Twice, with nothing in between that could be waited for.
        lab.host.ip("link add host0 type veth peer name spare0");
        recreate(&lab);
        let heard = until("it is guarded and served", || {
            let status = agent.status();
            let guarded = status["guarded"].to_string().contains("192.0.2.1:25");
            (guarded && status["interfaces"][0]["xdp_mode"] != "off")
                .then(|| quit(&lab.client, HOST_IPV4).unwrap())
        });
        assert!(heard.starts_with(GREETING));
        assert!(lab.host.has_xdp(HOST_INTERFACE));
        total(&agent, 6);
        assert_eq!(agent.status()["interfaces"][0]["pinned"], false);
        agent.stop();
        // What could not be pinned without root goes with the agent.
        assert!(!lab.host.has_xdp(HOST_INTERFACE));
    }
}

#[test]
fn a_foreign_program_on_an_interface_that_comes_back_is_left_alone() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    pinned.configure("");
    let agent = pinned.start(&lab);
    lab.host.ip("link del host0");
    until("it is told", || {
        agent.log().contains("host0 is gone").then_some(())
    });
    lab.host.ip("link add spare0 type veth peer name spare1");
    let foreign = lab
        .host
        .within(|| Program::load("foreign").attach("spare0"));
    lab.host.ip("link set spare0 name host0");
    until("it is told", || {
        agent.log().contains("is attached to host0").then_some(())
    });
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    drop(foreign);
    until("it is guarded when that is gone", || {
        (agent.status()["interfaces"][0]["xdp_mode"] != "off").then_some(())
    });
    agent.stop();
}

#[test]
fn detach_removes_everything_and_says_so() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let nothing = pinned.detached(&lab, &[]);
    assert!(nothing.contains("nothing of nomail is pinned"), "{nothing}");
    let agent = pinned.start(&lab);
    let output = pinned.detach(&lab, &["--all"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stop it first"), "{said}");
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    agent.stop();

    let output = pinned.detach(&lab, &["--iface", "nosuch0"]);
    assert_eq!(output.status.code(), Some(69));
    let said = pinned.detached(&lab, &["--iface", "lo"]);
    assert_eq!(said, "lo: nothing of nomail is pinned\n");
    assert!(lab.host.has_xdp(HOST_INTERFACE));

    fs::create_dir(pinned.version(0)).unwrap();
    let said = pinned.detached(&lab, &["--iface", HOST_INTERFACE]);
    assert_eq!(said, "host0: detached\n");
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
    assert!(!pinned.pin_dir().exists());
    for _ in 0..2 {
        let said = pinned.detached(&lab, &["--iface", HOST_INTERFACE]);
        assert_eq!(said, "host0: nothing of nomail is pinned\n");
    }

    // And the whole of it again, from all interfaces.
    pinned.start(&lab).stop();
    assert_eq!(pinned.detached(&lab, &["--all"]), "host0: detached\n");
    assert!(!lab.host.has_xdp(HOST_INTERFACE) && !pinned.pin_dir().exists());
}

#[test]
fn detach_leaves_foreign_programs_alone_and_wants_root() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let foreign = lab
        .host
        .within(|| Program::load("foreign").attach(HOST_INTERFACE));
    let said = pinned.detached(&lab, &["--iface", HOST_INTERFACE]);
    assert!(
        said.contains("left alone") && said.contains("foreign"),
        "{said}"
    );
    assert!(lab.host.has_xdp(HOST_INTERFACE));

    // Nor does a start with keep touch it, and leaves nothing.
    let (code, log) = pinned.refused(&lab, &[]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("foreign"), "{log}");
    assert!(!pinned.pin_dir().exists());
    drop(foreign);

    let output = lab
        .host
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(agent::binary())
        .args(["detach", "--all"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("root"), "{said}");
}

#[test]
fn without_keep_the_next_agent_takes_over_and_pins_nothing() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let agent = pinned.start(&lab);
    send(&lab, "203.0.113.9", 5);
    total(&agent, 5);
    // It cannot be changed by a reload.
    pinned.configure("");
    agent.signal(Signal::SIGHUP);
    until("it says so", || {
        agent
            .log()
            .contains("a change of on_exit needs a restart")
            .then_some(())
    });
    agent.stop();
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    let agent = pinned.start(&lab);
    assert!(agent.log().contains("taken over"));
    total(&agent, 5);
    assert_eq!(agent.status()["interfaces"][0]["pinned"], false);
    assert!(!pinned.pin_dir().exists());
    agent.stop();
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
}

#[test]
fn another_mode_or_another_interface_replaces_what_was_kept() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    pinned.configure("on_exit = \"keep\"\nxdp_mode = \"native\"");
    pinned.start(&lab).stop();
    pinned.configure("on_exit = \"keep\"\nxdp_mode = \"generic\"");
    let agent = pinned.start(&lab);
    assert_eq!(agent.status()["interfaces"][0]["xdp_mode"], "generic");
    assert!(agent.log().contains("for a moment there is none"));
    assert!(quit(&lab.client, HOST_IPV4).unwrap().starts_with(GREETING));
    agent.stop();
    // The mode that is there is good enough for auto.
    pinned.configure("on_exit = \"keep\"");
    let agent = pinned.start(&lab);
    assert_eq!(agent.status()["interfaces"][0]["xdp_mode"], "generic");
    agent.stop();

    lab.host.ip("link add other0 type veth peer name other1");
    lab.host.ip("address add 198.51.100.1/24 dev other0");
    lab.host.ip("link set other0 up");
    let agent = Agent::start(
        &lab.host,
        &["--config", &pinned.config(), "--iface", "other0"],
    );
    until("the old one is detached", || {
        (!lab.host.has_xdp(HOST_INTERFACE)).then_some(())
    });
    assert_eq!(links(&pinned.version(ABI_VERSION)).len(), 1);
    agent.stop();
    assert!(lab.host.has_xdp("other0"));
    let text = pinned.detached(&lab, &[]);
    assert_eq!(text, "other0: detached\n");
}

#[test]
fn a_second_agent_does_not_take_over_from_a_living_one() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    let agent = pinned.start(&lab);
    let (code, log) = pinned.refused(&lab, &["--listen", "192.0.2.1:2525"]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("another nomail-agent uses the pins"), "{log}");
    pinned.configure("");
    let (code, log) = pinned.refused(&lab, &["--listen", "192.0.2.1:2525"]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("another nomail-agent guards host0"), "{log}");
    assert!(quit(&lab.client, HOST_IPV4).unwrap().starts_with(GREETING));
    agent.stop();

    // In another namespace, the interface of that number is another one.
    let other = Lab::new();
    pinned.configure("on_exit = \"keep\"");
    let (code, log) = pinned.refused(&other, &[]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("another network namespace"), "{log}");
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    pinned.detached(&lab, &[]);
}

#[test]
fn keep_wants_a_bpf_file_system_that_is_its_own() {
    let (lab, pinned) = (Lab::new(), Pinned::new());
    fs::create_dir(pinned.pin_dir()).unwrap();
    fs::set_permissions(pinned.pin_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, log) = pinned.refused(&lab, &[]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("cannot be trusted"), "{log}");
    fs::remove_dir(pinned.pin_dir()).unwrap();

    let text = format!(
        "on_exit = \"keep\"\npin_dir = {:?}\ninterfaces = [\"host0\"]\n",
        pinned.directory.path().join("elsewhere")
    );
    fs::write(pinned.config(), text).unwrap();
    let (code, log) = pinned.refused(&lab, &[]);
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("mount -t bpf"), "{log}");
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
    let said = pinned.detached(&lab, &[]);
    assert!(said.contains("nothing of nomail is pinned"), "{said}");
}
