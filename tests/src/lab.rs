//! Network namespaces, joined by veth pairs. All is removed on drop, also when
//! a test fails; names carry the process id, so that runs do not meet.

use std::{
    fs::File,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

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

    /// A command to be run in it.
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
    /// Lays it out.
    pub fn new() -> Self {
        let host = Namespace::new("host");
        let client = Namespace::new("client");
        run(&[
            "ip",
            "link",
            "add",
            CLIENT_INTERFACE,
            "netns",
            client.name(),
            "type",
            "veth",
            "peer",
            "name",
            HOST_INTERFACE,
            "netns",
            host.name(),
        ]);
        host.ip("address add 192.0.2.1/24 dev host0");
        host.ip("address add 2001:db8::1/64 dev host0 nodad");
        host.ip("link set host0 address 02:00:00:00:00:02");
        host.ip("link set host0 up");
        for address in [100, 101, 102] {
            client.ip(&format!("address add 192.0.2.{address}/24 dev client0"));
        }
        client.ip("address add 2001:db8::100/64 dev client0 nodad");
        client.ip("link set client0 address 02:00:00:00:00:01");
        client.ip("link set client0 up");
        Self { host, client }
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a command and gives its output.
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
