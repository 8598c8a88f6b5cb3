//! `fallback = "xdp"`: XDP in the place of a listener that takes no connections.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::{self, Agent, GOODBYE, GREETING, REFUSAL},
    bpffs::Bpffs,
    flood::{answerable, limit_backlog},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, run, succeeded},
    poll::{DEADLINE, until},
};
use tempfile::TempDir;

/// Who has said nothing in this time does not mean to.
const SILENCE: Duration = Duration::from_millis(300);

/// A host with a listener, and XDP for when it fails.
struct House {
    agent: Agent,
    lab: Lab,
    directory: TempDir,
    _program: OwnedFd,
}

fn start(lab: &Lab, directory: &Path) -> Agent {
    let file = directory.join("nomail.toml");
    let arguments = ["--iface", HOST_INTERFACE, "--config"];
    Agent::start(
        &lab.host,
        &[&arguments[..], &[file.to_str().unwrap()]].concat(),
    )
}

impl House {
    fn build(lab: Lab, more: &str) -> Self {
        let program = answerable(&lab.client, CLIENT_INTERFACE);
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "hostname = \"mailless.example.org\"\nfallback = \"xdp\"\nrefuse_at = \"greeting\"\n\
             {more}limits.unproven_rate = 1000\nlimits.syn_burst = 1000\n"
        );
        fs::write(directory.path().join("nomail.toml"), text).unwrap();
        Self {
            agent: start(&lab, directory.path()),
            lab,
            directory,
            _program: program,
        }
    }

    fn connect(&self, to: &str) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(to.parse().unwrap(), 25);
        let client = &self.lab.client;
        client.within(|| TcpStream::connect_timeout(&to, DEADLINE))
    }

    /// A dialog with the listener, greeted.
    fn listener(&self, to: &str) -> TcpStream {
        until("the listener serves", || {
            let before = self.agent.count("/connections/accepted");
            let mut stream = self.connect(to).ok()?;
            hear(&mut stream, GREETING);
            // It is XDP for a moment where the agent is slow.
            (self.agent.count("/connections/accepted") > before).then_some(stream)
        })
    }

    /// Stops all threads of the agent, which takes a moment.
    fn stall(&self) {
        self.agent.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.agent.pid());
        until("every thread stands still", || {
            let stopped = fs::read_dir(&tasks).unwrap().all(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                status.contains("\nState:\tT")
            });
            stopped.then_some(())
        });
    }

    /// Dialogs that began while the listener failed and XDP had yet to take over; and one
    /// with XDP, greeted.
    fn taken_over(&self, to: &str) -> (Vec<TcpStream>, TcpStream) {
        let began = Instant::now();
        let mut early = Vec::new();
        let served = until("XDP takes over", || {
            let mut stream = self.connect(to).ok()?;
            if is_silent(&mut stream) {
                early.push(stream);
                return None;
            }
            hear(&mut stream, GREETING);
            Some(stream)
        });
        println!(
            "XDP serves {:?} after the listener has failed",
            began.elapsed()
        );
        (early, served)
    }
}

fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    match stream.peek(&mut [0]) {
        Ok(heard) => {
            assert_ne!(heard, 0, "it was closed");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            true
        }
    }
}

fn hear(stream: &mut TcpStream, expected: &str) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}

/// The rest of a dialog, which is answered whoever has begun it.
fn end(mut stream: TcpStream) {
    stream.write_all(b"NOOP\r\n").unwrap();
    hear(&mut stream, REFUSAL);
    stream.write_all(b"QUIT\r\n").unwrap();
    hear(&mut stream, GOODBYE);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[test]
fn a_stalled_agent_is_stood_in_for() {
    let house = House::build(Lab::new(), "");
    for to in [HOST_IPV4, HOST_IPV6] {
        let mut before = house.listener(to);
        let accepted = house.agent.count("/connections/accepted");
        house.stall();
        before.write_all(b"EHLO a\r\n").unwrap();
        let (early, mut served) = house.taken_over(to);
        served.write_all(b"EHLO a\r\n").unwrap();
        hear(&mut served, REFUSAL);
        // What has begun with the listener waits for it.
        assert!(is_silent(&mut before));
        let waiting = early.len() as u64;
        house.agent.signal(Signal::SIGCONT);
        hear(&mut before, REFUSAL);
        end(before);
        for mut stream in early {
            hear(&mut stream, GREETING);
            end(stream);
        }
        until("the listener has its place back", || {
            let status = house.agent.status();
            (status["responder"]["serving"] == "listener").then_some(())
        });
        // What has begun with XDP ends with it.
        end(served);
        let now = house.agent.count("/connections/accepted");
        assert_eq!(now, accepted + waiting);
        drop(house.listener(to));
    }
    assert!(house.agent.count("/responder/takeovers") >= 2);
    assert!(house.agent.count("/answers/greeted") >= 2);
    let log = house.agent.log();
    for words in [
        "the listeners take no connections: XDP took over ",
        "the listeners take connections again: XDP was in their place for ",
    ] {
        assert!(log.contains(words), "{words} in {log}");
    }
    house.agent.stop();
}

#[test]
fn a_stalled_thread_is_stood_in_for_and_the_agent_tells() {
    let house = House::build(Lab::new(), "");
    let before = house.listener(HOST_IPV4);
    let held = house.agent.hold_thread("smtp");
    let (early, served) = house.taken_over(HOST_IPV4);
    until("the agent tells", || {
        let log = house.agent.log();
        log.contains("XDP took over").then_some(())
    });
    assert_eq!(house.agent.status()["responder"]["serving"], "xdp");
    let text = agent::status(&house.agent.control(), &[]);
    assert!(text.contains("XDP, IN PLACE OF THE LISTENER"), "{text}");
    end(served);
    drop(held);
    until("the listener has its place back", || {
        let status = house.agent.status();
        (status["responder"]["serving"] == "listener").then_some(())
    });
    for mut stream in early {
        hear(&mut stream, GREETING);
        end(stream);
    }
    end(before);
    drop(house.listener(HOST_IPV4));
    house.agent.stop();
}

#[test]
fn a_queue_that_stays_full_is_stood_in_for() {
    let lab = Lab::new();
    limit_backlog(&lab.host, 4);
    let house = House::build(lab, "");
    drop(house.listener(HOST_IPV4));
    let pid = house.agent.pid().to_string();
    let descriptor = |number: &usize| fs::read_link(format!("/proc/{pid}/fd/{number}"));
    let free = (0..).find(|number| descriptor(number).is_err()).unwrap();
    // As its own user, who may do that without a capability.
    let [user, group] = ["Uid", "Gid"].map(|field| house.agent.process(field));
    let [user, group] = [format!("--reuid={user}"), format!("--regid={group}")];
    let descriptors = |most: usize| {
        let limit = format!("--nofile={most}:");
        let setpriv = ["setpriv", &user, &group, "--clear-groups"];
        run(&[&setpriv[..], &["prlimit", "--pid", &pid, &limit]].concat());
    };
    // The agent lives, and can accept nothing.
    descriptors(free);
    let told = || {
        let log = house.agent.log();
        log.contains("the queue of a listener stays full: XDP took over")
    };
    // Some may be accepted at first: connections that end make room.
    let (mut early, mut greeted) = (Vec::new(), Vec::new());
    until("XDP takes over from a full queue", || {
        let told = told();
        // Who comes to a full queue is not answered before XDP takes over.
        let mut stream = house.connect(HOST_IPV4).ok()?;
        if is_silent(&mut stream) {
            early.push(stream);
            return None;
        }
        hear(&mut stream, GREETING);
        greeted.push(stream);
        told.then_some(())
    });
    assert!(early.len() >= 4, "{} were in the queue", early.len());
    descriptors(4096);
    for mut stream in early {
        hear(&mut stream, GREETING);
        end(stream);
    }
    greeted.into_iter().for_each(end);
    drop(house.listener(HOST_IPV4));
    assert!(house.agent.count("/responder/takeovers") >= 1);
    house.agent.stop();
}

#[test]
fn an_agent_that_is_gone_is_stood_in_for_if_its_guard_is_kept() {
    let bpffs = Bpffs::mount();
    let keep = format!("on_exit = \"keep\"\npin_dir = {:?}\n", bpffs.pins());
    let mut house = House::build(Lab::new(), &keep);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        drop(house.listener(HOST_IPV4));
        house.agent.signal(signal);
        house.agent.wait();
        // At first nobody listens, and the kernel says so.
        let mut served = until("XDP serves", || house.connect(HOST_IPV4).ok());
        hear(&mut served, GREETING);
        let file = house.directory.path().join("nomail.toml");
        let file = file.to_str().unwrap();
        let status = std::process::Command::new(agent::binary())
            .args(["status", "--config", file, "--control", "/nowhere"])
            .output();
        let status = succeeded("status", &status.unwrap());
        assert!(status.contains("XDP, IN PLACE OF THE LISTENER"), "{status}");
        house.agent = start(&house.lab, house.directory.path());
        end(served);
    }
    drop(house.listener(HOST_IPV6));
    let file = house.directory.path().join("nomail.toml");
    house.agent.stop();
    let detach = std::process::Command::new(agent::binary())
        .arg("detach")
        .arg("--config")
        .arg(file)
        .output();
    succeeded("detach", &detach.unwrap());
}
