//! The agent and its service manager: what it tells, what it takes, and whether
//! systemd likes its units.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr as UnixAddress, UnixDatagram},
        },
    },
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};
use nomail_tests::{
    agent::{self, Agent, GREETING},
    flood::answerable,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab, Namespace, auto_on_veth},
    poll::{DEADLINE, until},
    repository::repository,
    root::Root,
};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// systemd-analyze's scale is ten times finer: 2.1, of which packet sockets, by which the
/// greetings of XDP are sent again, are 0.2.
const EXPOSURE_MAX: &str = "21";
/// Half of it is between two proofs.
const WATCHDOG: Duration = Duration::from_millis(400);

/// A service manager, as far as the agent knows.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    /// Its socket is in a directory where only root may look.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, directory }
    }

    fn environment(&self) -> [String; 2] {
        let path = self.directory.path().join("notify");
        [
            format!("NOTIFY_SOCKET={}", path.display()),
            format!("WATCHDOG_USEC={}", WATCHDOG.as_micros()),
        ]
    }

    fn start(&self, lab: &Lab, arguments: &[&str]) -> Agent {
        let [notify, watchdog] = self.environment();
        let arguments = [&["--iface", HOST_INTERFACE], arguments].concat();
        Agent::spawn_through(&lab.host, &["env", &notify, &watchdog], &arguments)
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// The next message that is not of the watchdog.
    fn told(&self) -> String {
        loop {
            let message = self.hear();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    /// Waits until the watchdog is told.
    fn proven(&self) {
        while self.hear() != "WATCHDOG=1" {}
    }

    /// Whether the watchdog is told within a time.
    fn is_proven_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let heard = self.socket.recv(&mut buffer);
            self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
            match heard {
                Ok(count) if &buffer[..count] == b"WATCHDOG=1" => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Drops what has been told and not been heard.
    fn forget(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }
}

fn connect(namespace: &Namespace, to: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    namespace.within(|| {
        let stream = TcpStream::connect_timeout(&to, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(stream)
    })
}

/// What is said to a client that quits at once.
fn heard(mut stream: TcpStream) -> std::io::Result<String> {
    stream.write_all(b"QUIT\r\n")?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    Ok(heard)
}

fn config(directory: &TempDir, text: &str) -> String {
    let world = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), world).unwrap();
    let file = directory.path().join("nomail.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn monotonic_usec() -> u128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_micros()
}

#[test]
fn the_manager_is_told_what_happens_in_order() {
    let (lab, manager) = (Lab::new(), Manager::new());
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let directory = tempfile::tempdir().unwrap();
    let file = config(&directory, "hostname = \"mailless.example.org\"\n");
    let mut agent = manager.start(&lab, &["--config", &file]);
    // Ready, it is attached and listens: nothing is waited for.
    let mode = auto_on_veth();
    let nothing = format!("STATUS=guarding host0 ({mode}): 0 SYNs, 0 limited, 0 connections");
    assert_eq!(manager.hear(), format!("READY=1\n{nothing}"));
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    let stream = connect(&lab.client, "192.0.2.1:25").unwrap();
    // It is still open.
    let one = format!("STATUS=guarding host0 ({mode}): 1 SYNs, 0 limited, 1 connections");
    assert_eq!(manager.told(), one);
    drop(stream);

    let before = monotonic_usec();
    agent.signal(Signal::SIGHUP);
    let mut reloading = manager.told();
    while !reloading.starts_with("RELOADING=1") {
        // Figures that were due meanwhile.
        assert!(reloading.starts_with("STATUS="), "{reloading}");
        reloading = manager.told();
    }
    let lines: Vec<_> = reloading.lines().collect();
    let at = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    let at: u128 = at.parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&at), "{before} {at}");
    assert_eq!(lines[2..], ["STATUS=reloading the configuration"]);
    let ready = manager.told();
    assert!(ready.starts_with(&format!("READY=1\nSTATUS=guarding host0 ({mode}): 1 SYNs")));
    assert!(!ready.contains("failed"), "{ready}");

    config(&directory, "nonsense = 1\n");
    agent.signal(Signal::SIGHUP);
    while !manager.told().starts_with("RELOADING=1") {}
    let ready = manager.told();
    let failed = "; the last reload failed, see the log";
    assert!(
        ready.starts_with("READY=1\n") && ready.ends_with(failed),
        "{ready}"
    );

    agent.signal(Signal::SIGTERM);
    while manager.told() != "STOPPING=1\nSTATUS=stopping" {}
    assert!(agent.wait().success());
    manager.forget();
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
}

#[test]
fn the_name_of_its_socket_may_be_abstract() {
    let lab = Lab::new();
    let name = format!("nomail-tests-{}", std::process::id());
    // Abstract names belong to a network namespace, as systemd's does to the host's.
    let socket = lab.host.within(|| {
        let address = UnixAddress::from_abstract_name(&name).unwrap();
        UnixDatagram::bind_addr(&address).unwrap()
    });
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let environment = format!("NOTIFY_SOCKET=@{name}");
    let arguments = ["--iface", HOST_INTERFACE];
    let agent = Agent::spawn_through(&lab.host, &["env", &environment], &arguments);
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..count].starts_with(b"READY=1\n"));
    agent.signal(Signal::SIGTERM);
    // Without a watchdog nothing comes before it but figures.
    let count = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..count].starts_with(b"STOPPING=1\n"));
}

#[test]
fn a_manager_that_is_gone_stops_nobody() {
    let lab = Lab::new();
    let through = [
        "env",
        "NOTIFY_SOCKET=/nonexistent/notify",
        "WATCHDOG_USEC=100000",
    ];
    let agent = Agent::spawn_through(&lab.host, &through, &["--iface", HOST_INTERFACE]);
    let agent = agent.serving();
    let warning = "cannot notify the service manager (NOTIFY_SOCKET=\"/nonexistent/notify\")";
    assert!(agent.log().contains(warning), "{}", agent.log());
    agent.stop();

    let manager = Manager::new();
    let agent = manager.start(&lab, &[]).serving();
    manager.proven();
    drop(manager);
    until("it is told once", || {
        let warnings = agent
            .log()
            .matches("cannot notify the service manager:")
            .count();
        (warnings == 1).then_some(())
    });
    let stream = connect(&lab.client, "192.0.2.1:25").unwrap();
    assert!(!heard(stream).unwrap().is_empty());
    agent.stop();
}

/// With either of its threads standing still, in whatever it waits for, the
/// manager hears nothing, and would end it.
#[test]
fn a_thread_that_hangs_proves_nothing() {
    let (lab, manager) = (Lab::new(), Manager::new());
    let agent = manager.start(&lab, &[]).serving();
    // The main thread has the name of the file.
    let binary = agent::binary();
    let main = binary.file_name().unwrap().to_str().unwrap();
    for thread in ["smtp", main] {
        for _ in 0..3 {
            manager.proven();
        }
        let held = agent.hold_thread(thread);
        // A proof may be on its way.
        manager.forget();
        let proven = manager.is_proven_within(WATCHDOG * 4);
        assert!(!proven, "{thread} stands still");
        drop(held);
    }
    manager.proven();
    agent.stop();
}

/// A listening socket as systemd makes it.
fn listening(namespace: &Namespace, address: &str, only_v6: bool) -> TcpListener {
    let address: SocketAddr = address.parse().unwrap();
    namespace.within(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(only_v6).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(3).unwrap();
        socket.into()
    })
}

const HANDED: &[&str] = &[
    "--iface",
    HOST_INTERFACE,
    "--hostname",
    "mailless.example.org",
    "--refuse-at",
    "greeting",
    "--syn-rate",
    "10000",
    "--syn-burst",
    "10000",
];

#[test]
fn with_sockets_of_the_manager_a_restart_refuses_nobody() {
    let lab = Lab::new();
    let sockets = ["0.0.0.0:25", "[::]:25"].map(|address| listening(&lab.host, address, true));
    let start = || {
        let handed = sockets.each_ref().map(|socket| socket.try_clone().unwrap());
        Agent::spawn_handed(&lab.host, handed, &[], HANDED)
    };
    let mut agent = start().serving();
    let guarded = agent.status()["guarded"].to_string();
    for address in ["192.0.2.1:25", "[2001:db8::1]:25", "127.0.0.1:25"] {
        assert!(guarded.contains(address), "{guarded}");
    }
    let queues = lab.host.command("ss").arg("-Hltn").output().unwrap();
    let queues = String::from_utf8(queues.stdout).unwrap();
    let long = queues
        .lines()
        .filter(|line| line.split_whitespace().nth(2) == Some("4096"));
    assert_eq!(long.count(), 2, "not the manager's 3: {queues}");

    let (ended, connects) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let stream = connect(&lab.client, "192.0.2.1:25")?;
                connects.fetch_add(1, Ordering::Relaxed);
                let heard = heard(stream)?;
                assert!(heard.starts_with(GREETING), "{heard:?}");
                // Below the cap of unproven SYNs.
                thread::sleep(Duration::from_millis(5));
            }
            std::io::Result::Ok(())
        });
        let more = || {
            let before = connects.load(Ordering::Relaxed);
            until("the client goes on", || {
                let gone_on = connects.load(Ordering::Relaxed) > before + 10;
                (gone_on || client.is_finished()).then_some(())
            });
        };
        for _ in 0..3 {
            more();
            agent.signal(Signal::SIGTERM);
            assert!(agent.wait().success());
            // Nobody is there: it waits in the queue.
            let waiting = ["192.0.2.1:25", "[2001:db8::1]:25"]
                .map(|to| connect(&lab.client, to).expect("it is not refused"));
            agent = start().serving();
            for stream in waiting {
                assert!(heard(stream).unwrap().starts_with(GREETING));
            }
        }
        more();
        ended.store(true, Ordering::Relaxed);
        client
            .join()
            .unwrap()
            .expect("no connection is refused or reset");
    });
    agent.signal(Signal::SIGHUP);
    until("a reload leaves it so", || {
        agent
            .log()
            .contains("the configuration was reloaded")
            .then_some(())
    });
    assert!(!agent.log().contains("needs a restart"), "{}", agent.log());
    agent.stop();
}

#[test]
fn sockets_that_cannot_be_used_are_told() {
    let lab = Lab::new();
    let refused = |addresses: [&str; 2], only_v6: bool, more: &[&str]| {
        let sockets = addresses.map(|address| listening(&lab.host, address, only_v6));
        let arguments = [HANDED, more].concat();
        let mut agent = Agent::spawn_handed(&lab.host, sockets, &[], &arguments);
        let code = agent.wait().code();
        assert_eq!(code, Some(78), "{}", agent.log());
        assert!(!lab.host.has_xdp(HOST_INTERFACE));
        agent.log()
    };
    let log = refused(["127.0.0.1:2525", "[::]:25"], false, &[]);
    assert!(
        log.contains("[::]:25") && log.contains("BindIPv6Only"),
        "{log}"
    );
    let log = refused(
        ["192.0.2.1:25", "[::1]:2525"],
        true,
        &["--listen", "192.0.2.1:25"],
    );
    assert!(
        log.contains("[::1]:2525") && log.contains("`listen`"),
        "{log}"
    );
}

#[test]
fn what_is_configured_and_not_handed_over_is_bound() {
    let lab = Lab::new();
    let sockets = ["192.0.2.1:25", "[2001:db8::1]:25"];
    let sockets = sockets.map(|address| listening(&lab.host, address, true));
    let listen = "192.0.2.1:25,[2001:db8::1]:25,127.0.0.1:25";
    let arguments = [HANDED, &["--listen", listen]].concat();
    let agent = Agent::spawn_handed(&lab.host, sockets, &[], &arguments).serving();
    for (from, to) in [
        (&lab.client, "192.0.2.1:25"),
        (&lab.client, "[2001:db8::1]:25"),
        (&lab.host, "127.0.0.1:25"),
    ] {
        let heard = heard(connect(from, to).unwrap()).unwrap();
        assert!(heard.starts_with(GREETING), "{to}: {heard:?}");
    }
    agent.stop();
}

/// Variables that a parent was given and did not take away.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let lab = Lab::new();
    let sockets = ["127.0.0.1:2525", "[::1]:2525"];
    let sockets = sockets.map(|address| listening(&lab.host, address, true));
    let through = ["env", "LISTEN_PID=1"];
    let agent = Agent::spawn_handed(&lab.host, sockets, &through, HANDED).serving();
    assert!(!agent.status()["guarded"].to_string().contains("2525"));
    let heard = heard(connect(&lab.client, &format!("{HOST_IPV4}:25")).unwrap());
    assert!(heard.unwrap().starts_with(GREETING));
    agent.stop();
}

/// What Debian's systemd says of the shipped files, each at its place.
#[test]
fn systemd_likes_the_units() {
    const SCRIPT: &str = r#"
        exec > /var/tmp/said 2>&1
        systemd-sysusers nomail.conf
        getent passwd nomail
        systemd-tmpfiles --create nomail.conf
        stat -c '%n %U %G %a' /var/lib/nomail
        cd /usr/lib/systemd/system
        echo verify
        systemd-analyze verify --man=no nomail-agent.service nomail-agent.socket
        echo security
        systemd-analyze security --offline=true --no-pager --threshold="$MAX" \
            ./nomail-agent.service
        echo good
    "#;
    let root = Root::install("systemd", &["systemd"]);
    let namespace = Namespace::new("units");
    let packaging = repository().join("packaging/systemd");
    let places = [
        (
            "nomail-agent.service",
            "usr/lib/systemd/system/nomail-agent.service",
        ),
        (
            "nomail-agent.socket",
            "usr/lib/systemd/system/nomail-agent.socket",
        ),
        ("sysusers.conf", "usr/lib/sysusers.d/nomail.conf"),
        ("tmpfiles.conf", "usr/lib/tmpfiles.d/nomail.conf"),
    ];
    let paths = places.map(|(name, place)| (packaging.join(name), place));
    let binary = agent::binary();
    let mut files = vec![(binary.as_path(), "usr/sbin/nomail-agent")];
    files.extend(paths.iter().map(|(path, place)| (path.as_path(), *place)));
    let script = SCRIPT.replace("$MAX", EXPOSURE_MAX);
    let mut instance = root.start_with(&namespace, &script, &files);
    instance.line("/var/tmp/said", &["good"]);
    let said = instance.read("/var/tmp/said");
    assert!(
        said.contains("nomail:x:") && said.contains("nologin"),
        "{said}"
    );
    assert!(said.contains("/var/lib/nomail nomail nomail 750"), "{said}");
    // A warning does not make it fail.
    assert!(said.contains("\nverify\nsecurity\n"), "{said}");
    let exposure = said
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    println!("{}", exposure.unwrap());
}
