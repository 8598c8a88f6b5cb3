//! Faults that are made on purpose, and what holds all the same: honest senders are
//! served, counters stay exact, and the rest comes back by itself. docs/limits.md says it for
//! operators.
//!
//! `NOMAIL_FAULTS_KILLS` says how often an agent is killed, `NOMAIL_FAULTS_SEED` at
//! which moments.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    os::unix::{
        net::UnixStream,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
};
use nomail_agent::smtp::{Senders, unix_now};
use nomail_tests::{
    agent::{self, Agent, GREETING, NAME, UNLIMITED, WELCOME},
    bpf_objects::Objects,
    cgroup::MemoryGroup,
    client::connect,
    files::Files,
    frames::{FrameSender, Segment},
    honest::Plan,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab, run},
    poll::{DEADLINE, is_emulated, longest, until},
    processes::{ticks, ticks_per_second},
    random::Random,
};

const CLIENT: &str = "192.0.2.100";
/// Kills, unless the environment says how many.
const KILLS: u64 = 30;

/// A file system for a fault; unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    fn new(kind: &str, at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options)).unwrap();
        Self(at.to_owned())
    }

    fn set_read_only(&self, read_only: bool) {
        let mode = if read_only { "ro" } else { "rw" };
        let at = self.0.to_str().unwrap();
        run(&["mount", "-o", &format!("remount,{mode}"), at]);
    }

    /// Fills it up, until not one octet more fits in.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filling");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = umount2(&self.0, MntFlags::MNT_DETACH);
        assert!(unmounted.is_ok() || thread::panicking());
    }
}

/// A lab, and the files of its agent.
#[derive(Default)]
struct Host {
    lab: Lab,
    files: Files,
}

impl Host {
    /// Writes the configuration.
    fn configure(&self, toml: &str) {
        let state = self.files.quoted("state");
        let text = format!("hostname = {NAME:?}\nstate_dir = {state}\n{toml}\n");
        self.files.write("nomail.toml", text);
    }

    /// Starts it, with limits that no test's own clients reach.
    fn spawn(&self, through: &[&str]) -> Agent {
        self.spawn_with(through, &[])
    }

    fn spawn_with(&self, through: &[&str], more: &[&str]) -> Agent {
        let arguments = [UNLIMITED, more].concat();
        self.files.spawn(&self.lab, through, &arguments)
    }

    fn start(&self, toml: &str) -> Agent {
        self.configure(toml);
        self.spawn(&[]).serving()
    }

    /// Nobody is there, and nothing is left of him.
    fn is_bare(&self) -> bool {
        !self.lab.host.has_xdp(HOST_INTERFACE)
            && self
                .lab
                .client
                .within(|| connect(CLIENT, HOST_IPV4).is_err())
    }

    /// Honest senders from now on are all served.
    fn serves(&self) {
        let outcome = self.lab.client.within(|| honest(10).run());
        assert_eq!(outcome.served, outcome.begun, "{outcome:?}");
    }
}

/// Honest senders, 20 a second.
fn honest(count: usize) -> Plan {
    Plan {
        from: ["192.0.2.100", "192.0.2.101", "192.0.2.102"]
            .map(|from| from.parse::<IpAddr>().unwrap())
            .into(),
        to: format!("{HOST_IPV4}:25").parse().unwrap(),
        count,
        rate: 20,
        timeout: DEADLINE,
    }
}

/// Reads a reply of one line.
fn reply(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\n") {
        let mut octet = [0];
        assert_eq!(
            stream.read(&mut octet).unwrap(),
            1,
            "the end after {heard:?}"
        );
        heard.extend(octet);
    }
    String::from_utf8(heard).unwrap()
}

/// Each SYN has one verdict.
fn adds_up(agent: &Agent) -> u64 {
    let status = agent.status();
    let counts = status["syn"].as_object().unwrap().iter();
    let (total, others): (Vec<_>, Vec<_>) = counts.partition(|(name, _)| *name == "total");
    let sum: u64 = others
        .iter()
        .map(|(_, count)| count.as_u64().unwrap())
        .sum();
    assert_eq!(total[0].1.as_u64().unwrap(), sum, "{status:#}");
    sum
}

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid()))
        .unwrap()
        .count()
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// When an agent is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Load,
    Upgrade,
    Serving,
    Reload,
    Shutdown,
}

/// Whatever an agent is doing when it is killed: the program is on the interface if
/// that was asked for, and not if not; nothing else is left; and the next agent
/// starts and serves.
#[test]
fn an_agent_that_is_killed_leaves_nothing_that_was_not_asked_for() {
    let default = if is_emulated() { KILLS / 5 } else { KILLS };
    let kills = setting("NOMAIL_FAULTS_KILLS").unwrap_or(default);
    let seed = setting("NOMAIL_FAULTS_SEED").unwrap_or(1);
    println!("NOMAIL_FAULTS_KILLS={kills} NOMAIL_FAULTS_SEED={seed}");
    let mut random = Random(seed);
    let host = Host::default();
    let bpf = Mount::new("bpf", &host.files.path("bpf"), "mode=0700");
    let pins = bpf.0.join("nomail");
    let configure = |keep: bool, number: u64| {
        let on_exit = if keep { "keep" } else { "detach" };
        host.configure(&format!(
            "refuse_at = \"greeting\"\non_exit = {on_exit:?}\npin_dir = {pins:?}\n\
             [lists]\ndeny = [\"198.51.100.{}\"]",
            number % 250
        ));
    };
    let mut all = Objects::default();
    let mut start_time = Duration::from_millis(500);
    let mut killed = [0; 5];
    for number in 0..kills {
        let keep = random.percent(50);
        let moment = match number % 5 {
            0 => Moment::Load,
            1 => Moment::Upgrade,
            2 => Moment::Serving,
            3 => Moment::Reload,
            _ => Moment::Shutdown,
        };
        let mut fraction = |of: Duration| of.mul_f64(random.below(1000) as f64 / 1000.0);
        configure(keep, number);
        let begun = Instant::now();
        let mut victim = host.spawn(&[]).serving();
        start_time = (start_time * 3 + begun.elapsed()) / 4;
        assert!(host.lab.host.has_xdp(HOST_INTERFACE));
        let mut held = host
            .lab
            .client
            .within(|| connect(CLIENT, HOST_IPV4).unwrap());
        assert_eq!(reply(&mut held), GREETING);
        all.add(&Objects::of(victim.pid()));
        match moment {
            Moment::Load => {
                victim.stop();
                victim = host.spawn(&[]);
                sleep(fraction(start_time));
            }
            Moment::Upgrade => {
                victim.signal(Signal::SIGKILL);
                victim.wait();
                victim = host.spawn(&[]);
                sleep(fraction(start_time));
            }
            Moment::Serving => {
                let _others: Vec<_> = (0..8)
                    .map(|_| {
                        host.lab
                            .client
                            .within(|| connect(CLIENT, HOST_IPV4).unwrap())
                    })
                    .collect();
                sleep(fraction(Duration::from_millis(20)));
            }
            Moment::Reload => {
                configure(keep, number + 1);
                victim.signal(Signal::SIGHUP);
                sleep(fraction(Duration::from_millis(40)));
            }
            Moment::Shutdown => {
                victim.signal(Signal::SIGTERM);
                sleep(fraction(Duration::from_millis(200)));
            }
        }
        let mut objects = Objects::of(victim.pid());
        victim.signal(Signal::SIGKILL);
        let ended = victim.wait();
        killed[moment as usize] += u64::from(ended.signal() == Some(libc::SIGKILL));
        objects.add(&Objects::of(victim.pid()));
        let what = format!("{moment:?}, kept: {keep}, kill {number}");
        if keep {
            // Attached once, it is never off again.
            assert!(host.lab.host.has_xdp(HOST_INTERFACE), "{what}");
        } else {
            let begun = Instant::now();
            while !(objects.living().is_empty() && host.is_bare()) {
                assert!(
                    begun.elapsed() < DEADLINE,
                    "{what}: still there are {:?}; pinned: {:?}; XDP on the interface: {}",
                    objects.living(),
                    fs::read_dir(&pins)
                        .into_iter()
                        .flatten()
                        .flatten()
                        .collect::<Vec<_>>(),
                    host.lab.host.has_xdp(HOST_INTERFACE)
                );
                sleep(Duration::from_millis(20));
            }
        }
        all.add(&objects);
    }
    println!(
        "killed, and not ended before that: {killed:?} of load, upgrade, serving, reload, shutdown"
    );
    configure(false, 0);
    let last = host.spawn(&[]).serving();
    host.serves();
    adds_up(&last);
    last.stop();
    assert!(host.is_bare());
    let left: Vec<_> = fs::read_dir(&pins)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    until("the kernel has nothing more of all these", || {
        all.living().is_empty().then_some(())
    });
    println!(
        "gone: {} programs, {} maps, {} links",
        all.programs.len(),
        all.maps.len(),
        all.links.len()
    );
}

/// Not one descriptor more: who is served is served on, the others wait, and are
/// served when there is room again. Nothing spins meanwhile.
#[test]
fn descriptors_run_out_and_come_back() {
    const WAITING: usize = 20;
    let host = Host::default();
    let agent = host.start("refuse_at = \"rcpt\"");
    let mut held = host
        .lab
        .client
        .within(|| connect(CLIENT, HOST_IPV4).unwrap());
    assert_eq!(reply(&mut held), WELCOME);
    let before = descriptors(&agent);
    let limit = |soft: &str| {
        // Who is of the same user may.
        let user = format!("--reuid={}", agent.process("Uid"));
        let group = format!("--regid={}", agent.process("Gid"));
        let pid = agent.pid().to_string();
        let soft = format!("--nofile={soft}:");
        let own = ["setpriv", &user, &group, "--clear-groups"];
        run(&[&own[..], &["prlimit", "--pid", &pid, &soft]].concat());
    };
    let unlimited = {
        let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let soft = line.unwrap().split_whitespace().nth(3).unwrap();
        soft.to_owned()
    };
    // Below all that are open: not even a gap between them is left.
    limit("3");
    let mut waiting: Vec<_> = host.lab.client.within(|| {
        (0..WAITING)
            .map(|_| connect(CLIENT, HOST_IPV4).unwrap())
            .collect()
    });
    let mut asking = UnixStream::connect(agent.control()).unwrap();
    asking.write_all(b"status 1\n").unwrap();
    until("that is told", || {
        agent
            .log()
            .contains("cannot accept connections, trying again")
            .then_some(())
    });
    let pid = agent.pid().as_raw() as u32;
    let (_, worked) = ticks(pid).unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        held.write_all(b"NOOP\r\n").unwrap();
        assert!(
            reply(&mut held).starts_with("250 "),
            "who is served is served on"
        );
        sleep(Duration::from_millis(50));
    }
    let (_, after) = ticks(pid).unwrap();
    let share = (after - worked) as f64 / ticks_per_second() / begun.elapsed().as_secs_f64();
    println!("{:.1} % of a processor without descriptors", share * 100.0);
    assert!(share < 0.5, "it spins: {share}");
    // Fewer, if a connection of the start was still open before.
    assert!(descriptors(&agent) <= before);

    limit(&unlimited);
    for client in &mut waiting {
        assert_eq!(reply(client), WELCOME);
    }
    asking.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut heard = String::new();
    asking.read_to_string(&mut heard).unwrap();
    assert!(heard.starts_with('{'), "{heard}");
    drop((waiting, held, asking));
    host.serves();
    until("all are closed", || {
        (descriptors(&agent) < before).then_some(())
    });
    adds_up(&agent);
    agent.stop();
}

/// The kernel kills what takes more memory than it may: in a start, and while it
/// serves. Nothing is left, and the next start works.
#[test]
fn memory_runs_out() {
    let host = Host::default();
    let group = MemoryGroup::new();
    let command = group.command();
    let through = command.each_ref().map(|word| &**word);
    let start = |toml: &str| {
        host.configure(toml);
        host.spawn(&through)
    };
    // Not enough for the program and its maps.
    group.limit(3 << 20).unwrap();
    let mut agent = start("");
    let status = agent.wait();
    println!("a start within 3 MiB: {status}, {}", agent.log());
    assert!(!status.success());
    drop(agent);
    assert!(host.is_bare());

    group.limit(512 << 20).unwrap();
    let mut agent = start("refuse_at = \"rcpt\"").serving();
    host.serves();
    let used = group.usage();
    // A list of domains is read into memory.
    let domains: String = (0..400_000).map(|n| format!("d{n}.example\n")).collect();
    host.files.write("domains", domains);
    let pid = agent.pid();
    host.configure(&format!(
        "refuse_at = \"rcpt\"\n[relay]\ndomain_files = [{}]",
        host.files.quoted("domains")
    ));
    let resident: u64 = agent.process("VmRSS").parse().unwrap();
    // What else is in use is the files' that were read, and can be taken back.
    let mut bound = used.max(resident << 10) + (1 << 20);
    while group.limit(bound).is_err() {
        bound += 1 << 20;
    }
    kill(pid, Signal::SIGHUP).unwrap();
    let status = agent.wait();
    println!(
        "{} KiB were used, of {} KiB: {status}",
        used >> 10,
        bound >> 10
    );
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{}", agent.log());
    drop(agent);
    until("the kernel removes the rest", || {
        host.is_bare().then_some(())
    });

    group.limit(512 << 20).unwrap();
    let agent = start("refuse_at = \"rcpt\"").serving();
    host.serves();
    adds_up(&agent);
    agent.stop();
}

fn times(log: &str, part: &str) -> usize {
    log.matches(part).count()
}

/// The memory of `auto` on a disk that is full, or that cannot be written: it is
/// told, the file stays as it was, and nobody is served worse.
#[test]
fn the_disk_of_the_state_is_full_or_read_only() {
    const CANNOT: &str = "what nomail remembers of senders and domains cannot be written to";
    let host = Host::default();
    let disk = Mount::new("tmpfs", &host.files.path("disk"), "size=1m,mode=755");
    let state = host.files.path("disk/state");
    let file = state.join("senders");
    host.configure("");
    let text = fs::read_to_string(host.files.path("nomail.toml")).unwrap();
    let text = text.replace(&host.files.quoted("state"), &format!("{state:?}"));
    host.files.write("nomail.toml", text);
    let greeted_by = |agent: &Agent, from: &str| {
        let from: IpAddr = from.parse().unwrap();
        let plan = Plan {
            from: vec![from],
            ..honest(1)
        };
        let served = host.lab.client.within(|| plan.run()).served;
        assert_eq!(served, 1, "{}", agent.log());
    };
    let agent = host.spawn(&[]).serving();
    greeted_by(&agent, CLIENT);
    agent.stop();
    let remembered = || {
        let kept = fs::read(&file).unwrap();
        (
            Senders::restore(&kept, unix_now(), 3600).unwrap().len(),
            kept,
        )
    };
    let (networks, kept) = remembered();
    assert_eq!(networks, 1);

    let filling = disk.fill();
    for read_only in [false, true] {
        if read_only {
            fs::remove_file(&filling).unwrap();
            disk.set_read_only(true);
        }
        let agent = host.spawn(&[]).serving();
        assert!(
            agent.log().contains("1 networks remembered"),
            "{}",
            agent.log()
        );
        greeted_by(&agent, CLIENT);
        host.serves();
        until("it is told", || agent.log().contains(CANNOT).then_some(()));
        let mut agent = agent;
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success(), "{}", agent.log());
        assert_eq!(times(&agent.log(), CANNOT), 1, "{}", agent.log());
        assert!(remembered().1 == kept, "as it was");
        assert!(!state.join("senders.new").exists());
    }
    disk.set_read_only(false);
    let agent = host.spawn(&[]).serving();
    greeted_by(&agent, CLIENT);
    agent.stop();
    assert_eq!(remembered().0, 1);
}

/// Where the control socket cannot be made, nothing is begun; where it cannot be
/// removed, the next agent replaces it.
#[test]
fn the_disk_of_the_control_socket_is_full_or_read_only() {
    let host = Host::default();
    // Room for the directory itself and one file.
    let disk = Mount::new("tmpfs", &host.files.path("disk"), "nr_inodes=2,mode=1777");
    host.configure("");
    let spawn = || {
        let control = host.files.path("disk/control.sock");
        host.spawn_with(&[], &["--control", control.to_str().unwrap()])
    };
    host.files.write("disk/file", "");
    for (read_only, said) in [
        (false, "No space left on device"),
        (true, "Read-only file system"),
    ] {
        if read_only {
            fs::remove_file(host.files.path("disk/file")).unwrap();
            disk.set_read_only(true);
        }
        let mut agent = spawn();
        let status = agent.wait();
        let log = agent.log();
        assert!(!status.success(), "{log}");
        assert!(
            log.contains(said) && log.contains("disk/control.sock"),
            "{log}"
        );
        assert!(host.is_bare());
    }
    disk.set_read_only(false);
    let mut agent = spawn().serving();
    disk.set_read_only(true);
    host.serves();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success(), "{}", agent.log());
    drop(agent);
    assert!(
        host.files.path("disk/control.sock").exists(),
        "it could not be removed"
    );
    disk.set_read_only(false);
    let agent = spawn().serving();
    host.serves();
    agent.stop();
    assert!(!host.files.path("disk/control.sock").exists());
}

/// Where nothing can be pinned, an agent that is to keep its guard does not start,
/// and attaches nothing.
#[test]
fn the_pins_cannot_be_written() {
    let host = Host::default();
    let bpf = Mount::new("bpf", &host.files.path("bpf"), "mode=0700");
    let pins = format!("on_exit = \"keep\"\npin_dir = {:?}", bpf.0.join("nomail"));
    bpf.set_read_only(true);
    host.configure(&pins);
    let mut agent = host.spawn(&[]);
    let status = agent.wait();
    let log = agent.log();
    assert!(!status.success(), "{log}");
    assert!(
        log.contains("Read-only file system") && log.contains("bpf/nomail"),
        "{log}"
    );
    drop(agent);
    assert!(host.is_bare());

    bpf.set_read_only(false);
    let agent = host.start(&pins);
    // What is pinned while it runs is not written any more.
    bpf.set_read_only(true);
    host.serves();
    agent.stop();
    assert!(
        host.lab.host.has_xdp(HOST_INTERFACE),
        "kept, as was asked for"
    );
    bpf.set_read_only(false);
    let agent = host.start(&pins);
    assert!(agent.log().contains("taken over"), "{}", agent.log());
    host.serves();
    agent.stop();
    host.configure(&pins.replace("keep", "detach"));
    host.spawn(&[]).serving().stop();
    assert!(host.is_bare());
}

/// A log that cannot be written, because its disk is full or nobody reads it any
/// more, stops nobody.
#[test]
fn the_log_cannot_be_written() {
    let host = Host::default();
    let disk = Mount::new("tmpfs", &host.files.path("disk"), "size=64k,mode=755");
    disk.fill();
    host.configure("refuse_at = \"rcpt\"");
    let full = format!(
        "exec \"$@\" 2>> {}",
        host.files.path("disk/filling").display()
    );
    for redirect in [&*full, "exec \"$@\" 2> /dev/full", "exec \"$@\" 2>&-"] {
        let agent = host.spawn(&["sh", "-c", redirect, "sh"]);
        until("it serves", || {
            let answers = agent.control().exists() && UnixStream::connect(agent.control()).is_ok();
            (answers && agent.status()["guarded"].to_string().contains(HOST_IPV4)).then_some(())
        });
        host.serves();
        // What it reloads is told as well.
        for toml in ["refuse_at = \"rcpt\"", "refuse_at = \"nowhere\""] {
            host.configure(toml);
            agent.signal(Signal::SIGHUP);
        }
        host.configure("refuse_at = \"rcpt\"");
        host.serves();
        adds_up(&agent);
        agent.stop();
        assert!(host.is_bare());
    }
}

/// Adds this many addresses and removes them, one in 20 on the guarded interface.
fn storm(host: &Host, spare: &str, changes: u32) {
    let mut text = String::new();
    for n in 0..changes {
        let interface = if n % 20 == 0 { HOST_INTERFACE } else { spare };
        let address = format!("198.18.{}.{}/32", n >> 8 & 255, n & 255);
        for change in ["add", "del"] {
            text += &format!("address {change} {address} dev {interface}\n");
        }
    }
    let file = host.files.path("batch");
    fs::write(&file, text).unwrap();
    let name = host.lab.host.name().to_owned();
    run(&["ip", "-n", &name, "-batch", file.to_str().unwrap()]);
}

/// An agent that is stopped again and again during a storm, so that the buffer of its socket
/// is full at any of its steps: no answer of the kernel is lost among notices.
#[test]
fn no_answer_of_the_kernel_is_lost_among_notices() {
    let host = Host::default();
    let agent = host.start("refuse_at = \"greeting\"");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut pauses = [20, 20, 20, 200].into_iter().cycle();
            while !over.load(Ordering::Relaxed) {
                agent.signal(Signal::SIGSTOP);
                sleep(Duration::from_millis(pauses.next().unwrap_or_default()));
                agent.signal(Signal::SIGCONT);
                sleep(Duration::from_millis(1));
            }
        });
        let begun = Instant::now();
        let is_full = || agent.log().contains("netlink socket buffer full");
        while begun.elapsed() < Duration::from_secs(5)
            || !is_full() && begun.elapsed() < longest(DEADLINE)
        {
            storm(&host, HOST_INTERFACE, 2000);
        }
        over.store(true, Ordering::Relaxed);
        assert!(is_full(), "{}", agent.log());
    });
    host.lab.host.ip("address add 192.0.2.50/24 dev host0");
    until("the last change is followed", || {
        let guarded = agent.status()["guarded"].to_string();
        guarded.contains("192.0.2.50:25").then_some(())
    });
    adds_up(&agent);
    agent.stop();
}

/// A host with so many addresses of its own that the kernel takes long to list them, which
/// the agent asks for after each change: status is answered meanwhile.
#[test]
fn a_long_answer_of_the_kernel_delays_no_other() {
    const OWN: u32 = 40_000;
    let host = Host::default();
    let routes: String = (0..OWN)
        .map(|n| {
            format!(
                "route add local 10.{}.{}.{}/32 dev lo\n",
                n >> 16,
                n >> 8 & 255,
                n & 255
            )
        })
        .collect();
    let file = host.files.path("routes");
    fs::write(&file, routes).unwrap();
    let name = host.lab.host.name();
    run(&["ip", "-n", name, "-batch", file.to_str().unwrap()]);
    let agent = host.start("refuse_at = \"greeting\"");
    let (mut followed, mut longest) = (Duration::ZERO, Duration::ZERO);
    for verb in ["add", "del"].repeat(4) {
        host.lab
            .host
            .ip(&format!("address {verb} 192.0.2.50/24 dev host0"));
        let (changed, mut longest_now) = (Instant::now(), Duration::ZERO);
        until("the change is followed", || {
            let asked = Instant::now();
            let guarded = agent.status()["guarded"].to_string();
            longest_now = longest_now.max(asked.elapsed());
            (guarded.contains("192.0.2.50:25") == (verb == "add")).then_some(())
        });
        followed += changed.elapsed();
        longest += longest_now;
    }
    println!("{OWN} addresses: 8 changes followed in {followed:?}, longest answers {longest:?}");
    assert!(longest < followed / 2, "{longest:?} of {followed:?}");
    agent.stop();
}

/// Thousands of changes of addresses, of the guarded interface and of others: all
/// honest are served, and the last change is followed.
#[test]
fn a_storm_of_netlink_is_weathered() {
    const CHANGES: u32 = 20_000;
    let host = Host::default();
    host.lab
        .host
        .ip("link add spare0 type veth peer name spare1");
    host.lab.host.ip("link set spare0 up");
    let agent = host.start("refuse_at = \"greeting\"");
    let batch = |changes| storm(&host, "spare0", changes);
    // Once, for what it needs at most.
    batch(CHANGES / 4);
    let resident = || agent.process("VmRSS").parse::<u64>().unwrap();
    let (before, storming) = (resident(), AtomicBool::new(true));
    let (outcome, storms) = thread::scope(|scope| {
        let honest = scope.spawn(|| host.lab.client.within(|| honest(60).run()));
        let mut storms = 0;
        while storming.load(Ordering::Relaxed) {
            batch(CHANGES / 4);
            storms += 1;
            storming.store(!honest.is_finished(), Ordering::Relaxed);
        }
        (honest.join().unwrap(), storms)
    });
    println!(
        "{storms} storms of {} changes: {} of {} served, {before} KiB, then {} KiB",
        CHANGES / 2,
        outcome.served,
        outcome.begun,
        resident()
    );
    assert_eq!(outcome.served, outcome.begun, "{outcome:?}");
    host.lab.host.ip("address add 192.0.2.50/24 dev host0");
    until("the last change is followed", || {
        let guarded = agent.status()["guarded"].to_string();
        (guarded.contains("192.0.2.50:25") && !guarded.contains("198.18.")).then_some(())
    });
    let after = resident();
    assert!(
        after < before + (16 << 10),
        "{before} KiB, then {after} KiB"
    );
    assert!(!agent.log().contains("netlink ended"), "{}", agent.log());
    adds_up(&agent);
    agent.stop();
}

/// An interface that is deleted while it is flooded: the agent lives, and guards it
/// again when it is back, though it is flooded from the first moment.
#[test]
fn an_interface_is_deleted_under_a_flood() {
    let host = Host::default();
    let agent = host.start("refuse_at = \"greeting\"");
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        /// The flood ends also when the test fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        scope.spawn(|| {
            host.lab.client.within(|| {
                let mut n = 0u32;
                while !over.load(Ordering::Relaxed) {
                    let Ok(sender) = FrameSender::try_open(CLIENT_INTERFACE) else {
                        sleep(Duration::from_millis(1));
                        continue;
                    };
                    loop {
                        n = n.wrapping_add(1);
                        let from =
                            format!("10.{}.{}.1:{}", n >> 8 & 255, n & 255, 1024 + n % 50_000);
                        let frame = Segment::syn(&from, "192.0.2.1:25").frame();
                        let is_sent = sender.try_send(&frame).is_ok();
                        sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
                        if !is_sent || over.load(Ordering::Relaxed) {
                            break;
                        }
                        if n.is_multiple_of(16) {
                            sleep(Duration::from_millis(1));
                        }
                    }
                }
            });
        });
        for round in 1..=3 {
            let before = agent.count("/syn/total");
            until("it is flooded", || {
                (agent.count("/syn/total") > before + 500).then_some(())
            });
            host.lab.host.ip("link del host0");
            until("that is told", || {
                let told = times(&agent.log(), "host0 is gone");
                (told == round).then_some(())
            });
            host.lab.lay_wire();
            until("it is guarded again", || {
                let mode = &agent.status()["interfaces"][0]["xdp_mode"];
                (mode != "off").then_some(())
            });
        }
        let before = agent.count("/syn/total");
        until("what comes is counted", || {
            (agent.count("/syn/total") > before + 500).then_some(())
        });
        over.store(true, Ordering::Relaxed);
    });
    host.serves();
    let counted = adds_up(&agent);
    let sent = sent.load(Ordering::Relaxed);
    println!("{sent} SYNs sent, {counted} counted while the interface came and went");
    // The honest are counted, too.
    assert!(counted <= sent + 100, "{counted} of {sent}");
    agent.stop();
    assert!(host.is_bare());
}

/// Clients of the control socket that say nothing, half of it, too much, nonsense,
/// or never read: they have their places for two seconds each, and no more.
#[test]
fn hostile_clients_of_the_control_socket_take_no_more_than_their_places() {
    let host = Host::default();
    let agent = host.start("refuse_at = \"greeting\"");
    host.serves();
    let before = descriptors(&agent);
    let resident = || agent.process("VmRSS").parse::<u64>().unwrap();
    let memory = resident();
    let long = vec![b'x'; 1 << 16];
    let requests: [&[u8]; 8] = [
        b"",
        b"stat",
        b"status ",
        b"status 65536\n",
        b"status 99999999999999999999999999999999999\n",
        b"\x00\xff\n\x1b[31m",
        b"detach\nstatus 1\n",
        &long,
    ];
    let clients: Vec<_> = (0..48)
        .map(|n| {
            let mut stream = UnixStream::connect(agent.control()).unwrap();
            stream.set_nonblocking(true).unwrap();
            // It may have been shown out already, or take no more.
            let _ = stream.write(requests[n % requests.len()]);
            if n % 3 == 0 {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            stream
        })
        .collect();
    host.serves();
    // In its turn, behind them: `status` itself waits for a shorter time than that.
    until("who asks properly is answered", || {
        let mut command = Command::new(agent::binary());
        command.args(["status", "--json", "--control"]);
        let asked = command.arg(agent.control()).process_group(0).output();
        asked.unwrap().status.success().then_some(())
    });
    drop(clients);
    until("all are shown out", || {
        (descriptors(&agent) <= before).then_some(())
    });
    let after = resident();
    assert!(
        after < memory + (16 << 10),
        "{memory} KiB, then {after} KiB"
    );
    assert!(host.lab.host.has_xdp(HOST_INTERFACE), "it only tells");
    assert!(!agent.log().contains('\u{1b}'));
    host.serves();
    adds_up(&agent);
    agent.stop();
}
