//! Network namespaces, joined by veth pairs. All is removed on drop, also when
//! a test fails; names carry the process id, so that runs do not meet.

use std::{
    fs::File,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};
use nomail_agent::guard::{Guard, Mode};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, with its loopback interface up.
    pub fn new(role: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nomail-{}-{number}-{role}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGUMENTS` in it.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> String {
        let mut command = vec!["ip", "-n", &self.name];
        command.extend(arguments.split(' '));
        run(&command)
    }

    /// A command in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` on a thread in it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(&path).expect("the namespace is there");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Whether an XDP program is on the interface.
    pub fn has_xdp(&self, interface: &str) -> bool {
        self.ip(&format!("-d link show dev {interface}"))
            .contains("prog/xdp")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
        if !removed.is_ok_and(|output| output.status.success()) && !thread::panicking() {
            panic!("the namespace {} cannot be removed", self.name);
        }
    }
}

/// A host with nomail and a client, on one wire.
#[derive(Debug)]
pub struct Lab {
    /// The host: `host0`, 192.0.2.1/24 and 2001:db8::1/64.
    pub host: Namespace,
    /// The client: `client0`, 192.0.2.100/24, .101 and .102, 2001:db8::100/64
    /// and one more address outside of that /64.
    pub client: Namespace,
}

/// The host's IPv4 address.
pub const HOST_IPV4: &str = "192.0.2.1";
/// The host's IPv6 address.
pub const HOST_IPV6: &str = "2001:db8::1";
/// The host's interface.
pub const HOST_INTERFACE: &str = "host0";
/// The client's interface.
pub const CLIENT_INTERFACE: &str = "client0";

impl Lab {
    /// Attaches a program to the host's interface. For many test runs in a row: the
    /// kernel patches its XDP dispatcher before and after each of one that is
    /// attached nowhere, which takes many milliseconds.
    ///
    /// # Panics
    /// When it does not attach.
    pub fn attach(&self, guard: &mut Guard) {
        self.host.within(|| {
            let interface = if_nametoindex(HOST_INTERFACE).expect("the lab has it");
            guard
                .attach(interface, &[Mode::Native])
                .expect("nothing is attached to it");
        });
    }

    /// Creates it.
    pub fn new() -> Self {
        let lab = Self {
            host: Namespace::new("host"),
            client: Namespace::new("client"),
        };
        lab.lay_wire();
        lab.host.ip("address add 2001:db8::1/64 dev host0 nodad");
        lab.client
            .ip("address add 2001:db8::100/64 dev client0 nodad");
        lab
    }

    /// Creates the wire with its IPv4 addresses, also for a test that has deleted it.
    pub fn lay_wire(&self) {
        let (host, client) = (&self.host, &self.client);
        join((client, CLIENT_INTERFACE), (host, HOST_INTERFACE));
        host.ip("link set host0 address 02:00:00:00:00:02");
        host.ip("address add 192.0.2.1/24 dev host0");
        host.ip("link set host0 up");
        for address in [100, 101, 102] {
            client.ip(&format!("address add 192.0.2.{address}/24 dev client0"));
        }
        client.ip("link set client0 address 02:00:00:00:00:01");
        client.ip("link set client0 up");
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// A client that has a wire of its own to each of many hosts.
#[derive(Debug)]
pub struct Star {
    /// The client: 198.18.N.100/24 and 2001:db8:0:N::100/64 on the wire to
    /// host N.
    pub client: Namespace,
    /// The hosts: each has `host0`, 198.18.N.1/24 and 2001:db8:0:N::1/64.
    pub hosts: Vec<Namespace>,
}

impl Star {
    /// Creates that many hosts.
    pub fn new(hosts: usize) -> Self {
        let client = Namespace::new("client");
        let hosts = (0..hosts).map(|number| {
            let host = Namespace::new("host");
            let interface = format!("client{number}");
            join((&client, &interface), (&host, HOST_INTERFACE));
            for (namespace, interface, last) in
                [(&host, HOST_INTERFACE, 1), (&client, &interface, 100)]
            {
                namespace.ip(&format!(
                    "address add 198.18.{number}.{last}/24 dev {interface}"
                ));
                namespace.ip(&format!(
                    "address add 2001:db8:0:{number:x}::{last}/64 dev {interface} nodad"
                ));
                namespace.ip(&format!("link set {interface} up"));
            }
            host
        });
        Self {
            hosts: hosts.collect(),
            client,
        }
    }

    /// A host's IPv4 address.
    pub fn ipv4(number: usize) -> String {
        format!("198.18.{number}.1")
    }

    /// A host's IPv6 address.
    pub fn ipv6(number: usize) -> String {
        format!("2001:db8:0:{number:x}::1")
    }
}

/// Joins two namespaces by a veth pair.
pub fn join(one: (&Namespace, &str), other: (&Namespace, &str)) {
    let ((one, interface), (other, peer)) = (one, other);
    one.ip(&format!(
        "link add {interface} type veth peer name {peer} netns {}",
        other.name()
    ));
}

/// The mode that `xdp_mode = "auto"` gives an end of a veth pair whose other end takes
/// what native XDP sends. Before Linux 6.3 the kernel does not report that.
pub fn auto_on_veth() -> &'static str {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split('.')
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 3) => "generic",
        _ => "native",
    }
}

/// Runs a command and returns its output.
///
/// # Panics
/// When it fails, with what it said.
pub fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    succeeded(&command.join(" "), &output)
}

/// The standard output of a command that must have succeeded.
///
/// # Panics
/// When it failed, with what it said.
pub fn succeeded(command: &str, output: &Output) -> String {
    assert!(
        output.status.success(),
        "{command}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
