//! A wire to measure floods on: the receiving end has a CPU of its own, and the kernel
//! shows how long it worked.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    generator::{Generator, Syns, Then, client_filter, client_loss},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, Lab, Namespace, run, succeeded},
    poll::until,
};

/// The CPU of the generator, the honest clients and their interface.
const SENDING_CPU: usize = 0;
/// The CPU that receives, and of the server.
pub const RECEIVING_CPU: usize = 1;
/// Niceness of the generator: before other work of the machine, but not real time, or the
/// timers of the honest clients on the same CPU would wait for it.
const GENERATOR_NICE: i32 = -10;
/// Longest flood.
pub const FLOOD_MAX: Duration = Duration::from_secs(10);
/// A wire on which nothing was received for so long is quiet: longer than the time
/// to the first repetition of a SYN.
const QUIET: Duration = Duration::from_millis(1200);
/// Frames of one system call without a rate limit: some hundredths of a second.
const FRAMES_AT_ONCE: u32 = 131_072;

/// The first of the addresses of honest clients.
pub const HONEST_FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Number of honest clients in each family.
pub const HONEST_COUNT: u8 = 128;

/// The addresses of honest clients, of the family of the host's.
pub fn honest_addresses(host: IpAddr) -> Vec<IpAddr> {
    let numbers = 0..HONEST_COUNT;
    let address = |number: u8| match host {
        IpAddr::V4(_) => Ipv4Addr::from_bits(HONEST_FIRST.to_bits() + u32::from(number)).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 1, number.into(), 0, 0, 0, 1).into(),
    };
    numbers.map(address).collect()
}

/// The two hosts and their measurements.
#[derive(Debug)]
pub struct Rig {
    /// The namespaces.
    pub lab: Lab,
    /// Threads of other rigs.
    others: HashSet<i32>,
    _attached: Vec<OwnedFd>,
}

/// What the receiving interface and its thread did.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    /// Frames received.
    frames: u64,
    octets: u64,
    /// Frames that found no room in the ring between the two ends.
    lost: u64,
    /// Frames sent back by XDP that found no room there.
    answers_lost: u64,
    worked: Duration,
}

/// Their work between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Seconds.
    pub seconds: f64,
    /// Frames received.
    pub frames: u64,
    /// Bytes received.
    pub octets: u64,
    /// Frames that were not received.
    pub lost: u64,
    /// Frames that XDP sent back and that were not received.
    pub answers_lost: u64,
    /// Nanoseconds of work.
    pub nanoseconds: f64,
}

impl Work {
    /// Nanoseconds for each frame.
    pub fn per_frame(&self) -> f64 {
        self.nanoseconds / self.frames.max(1) as f64
    }

    /// Frames a second.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Mean bytes of a frame.
    pub fn mean_length(&self) -> f64 {
        self.octets as f64 / self.frames.max(1) as f64
    }

    /// Adds the work of another interval.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.frames += other.frames;
        self.octets += other.octets;
        self.lost += other.lost;
        self.answers_lost += other.answers_lost;
        self.nanoseconds += other.nanoseconds;
    }
}

/// SYNs since the namespaces were created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynCount {
    /// Of floods, received by the host's interface.
    pub forged: u64,
    /// Sent by the client's TCP, again or for the first time.
    pub honest: u64,
    /// Frames of the client's stack, among them perhaps SYNs, that found no room in
    /// the ring between the two ends.
    pub lost: u64,
}

impl SynCount {
    /// The SYNs since an earlier count.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            forged: self.forged - before.forged,
            honest: self.honest - before.honest,
            lost: self.lost - before.lost,
        }
    }
}

impl Rig {
    /// Creates it. `loss` percent of the frames to and from the honest clients are lost.
    ///
    /// # Panics
    /// Without root, ethtool, or a second CPU.
    pub fn new(loss: u32) -> Self {
        let others = [HOST_INTERFACE, CLIENT_INTERFACE];
        let others = others.into_iter().flat_map(threads_of).collect();
        let lab = Lab::new();
        for (namespace, interface) in [(&lab.host, HOST_INTERFACE), (&lab.client, CLIENT_INTERFACE)]
        {
            // GRO: else a veth end without a program has no NAPI, and XDP can send
            // nothing to it. The rest: frames as they are on a wire.
            let mut ethtool = namespace.command("ethtool");
            ethtool.args(["-K", interface]);
            ethtool.args("gro on tx off rx off tso off gso off".split(' '));
            succeeded("ethtool", &ethtool.output().expect("ethtool runs"));
        }
        let first = HONEST_FIRST.octets()[3];
        let mut host = String::new();
        let mut client = String::new();
        for last in first..first + HONEST_COUNT {
            if last > first + 2 {
                client += &format!("address add 192.0.2.{last}/24 dev {CLIENT_INTERFACE}\n");
            }
            // No ARP under a flood: it is not what is measured.
            host += &format!(
                "neighbour replace 192.0.2.{last} lladdr 02:00:00:00:00:01 dev {HOST_INTERFACE} \
                 nud permanent\n"
            );
        }
        // The clients of IPv6 each have a /64 of their own.
        for address in honest_addresses(Ipv6Addr::UNSPECIFIED.into()) {
            client += &format!("address add {address}/64 dev {CLIENT_INTERFACE} nodad\n");
        }
        host += &format!(
            "neighbour replace 2001:db8::100 lladdr 02:00:00:00:00:01 dev {HOST_INTERFACE} \
             nud permanent\n"
        );
        for address in ["192.0.2.1", "2001:db8::1"] {
            client += &format!(
                "neighbour replace {address} lladdr 02:00:00:00:00:02 dev {CLIENT_INTERFACE} \
                 nud permanent\n"
            );
        }
        // The addresses of bots that answer: the client's own.
        client += "route add local 10.200.0.0/24 dev lo\n";
        host += "route add default via 192.0.2.100\n";
        host += "route add default via 2001:db8::100\n";
        batch(lab.host.name(), &host);
        batch(lab.client.name(), &client);
        let mut attached = vec![
            lab.client
                .within(|| client_filter(loss).attach(CLIENT_INTERFACE)),
        ];
        if loss > 0 {
            let lossy = || client_loss(loss).attach_to_egress(CLIENT_INTERFACE);
            attached.push(lab.client.within(lossy));
        }
        for (namespace, interface) in [(&lab.host, HOST_INTERFACE), (&lab.client, CLIENT_INTERFACE)]
        {
            let threaded = format!("echo 1 > /sys/class/net/{interface}/threaded");
            let output = namespace.command("sh").args(["-c", &threaded]).output();
            succeeded("threaded", &output.expect("sh runs"));
        }
        let rig = Self {
            lab,
            others,
            _attached: attached,
        };
        rig.receiver();
        rig
    }

    /// The thread that receives, on its CPU and before everything else there.
    fn receiver(&self) -> i32 {
        let thread = until("the interface has a thread", || {
            threads_of(HOST_INTERFACE).find(|thread| !self.others.contains(thread))
        });
        pin(thread, RECEIVING_CPU);
        schedule(thread, libc::SCHED_FIFO, 50);
        for thread in threads_of(CLIENT_INTERFACE) {
            if !self.others.contains(&thread) {
                pin(thread, SENDING_CPU);
                schedule(thread, libc::SCHED_FIFO, 30);
            }
        }
        thread
    }

    /// The work of the receiving end so far.
    ///
    /// # Panics
    /// When the kernel does not show it.
    pub fn read(&self) -> Reading {
        let thread = self.receiver();
        // Starting a program takes time on a busy machine: the mean of two readings
        // stands for the moment between them.
        let worked = worked(thread);
        let link = self
            .lab
            .host
            .ip(&format!("-s -j link show dev {HOST_INTERFACE}"));
        let worked = (worked + self::worked(thread)) / 2;
        let at = Instant::now();
        let link: Value = serde_json::from_str(&link).expect("ip prints JSON");
        let number = |name: &str| {
            let number = link.pointer(&format!("/0/stats64/rx/{name}"));
            number.and_then(Value::as_u64).expect("a counter")
        };
        let client = (&self.lab.client, CLIENT_INTERFACE);
        let host = (&self.lab.host, HOST_INTERFACE);
        Reading {
            at,
            frames: number("packets"),
            octets: number("bytes"),
            lost: statistic(client, "tx_queue_0_xdp_xmit_errors:"),
            answers_lost: statistic(host, "rx_queue_0_xdp_tx_errors:"),
            worked: Duration::from_nanos(worked),
        }
    }

    /// Its work since a reading.
    pub fn since(&self, before: &Reading) -> Work {
        let now = self.read();
        Work {
            seconds: (now.at - before.at).as_secs_f64(),
            frames: now.frames - before.frames,
            octets: now.octets - before.octets,
            lost: now.lost - before.lost,
            answers_lost: now.answers_lost - before.answers_lost,
            nanoseconds: (now.worked - before.worked).as_nanos() as f64,
        }
    }

    /// The SYNs that have reached the host so far, as the kernel counts them, not the
    /// agent. They are consistent only while the wire is quiet.
    ///
    /// # Panics
    /// When the kernel does not show it.
    pub fn syns(&self) -> SynCount {
        let client = (&self.lab.client, CLIENT_INTERFACE);
        let link = self
            .lab
            .client
            .ip(&format!("-s -j link show dev {CLIENT_INTERFACE}"));
        let link: Value = serde_json::from_str(&link).expect("ip prints JSON");
        let dropped = link.pointer("/0/stats64/tx/dropped");
        let dropped = dropped.and_then(Value::as_u64).expect("a counter");
        let of_tcp = |file, group, name| self.lab.client.within(|| tcp_counter(file, group, name));
        SynCount {
            forged: statistic(client, "tx_queue_0_xdp_xmit:"),
            honest: of_tcp("snmp", "Tcp:", "ActiveOpens")
                + of_tcp("netstat", "TcpExt:", "TCPSynRetrans"),
            lost: dropped - statistic(client, "tx_queue_0_xdp_xmit_errors:"),
        }
    }

    /// Waits until the wire is quiet.
    ///
    /// # Panics
    /// When it does not become quiet.
    pub fn until_quiet(&self) {
        let frames = || self.read().frames;
        let mut before = frames();
        until("the wire is quiet", || {
            sleep(QUIET);
            let now = frames();
            (std::mem::replace(&mut before, now) == now).then_some(())
        });
    }

    /// Runs `work` under a flood of `rate` frames a second, or as many as there can
    /// be if that is 0.
    pub fn flooded<T>(&self, syns: &Syns, rate: u32, work: impl FnOnce() -> T) -> T {
        let flooding = AtomicBool::new(true);
        let begun = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.lab.client.within(|| {
                    pin(0, SENDING_CPU);
                    nice(GENERATOR_NICE);
                    let interface = if_nametoindex(CLIENT_INTERFACE).expect("it is there");
                    let generator = Generator::load(syns, &Then::Send { interface, rate });
                    // To an interface that carries nothing: the kernel patches its XDP
                    // dispatcher for each run of a program that is attached nowhere.
                    let _attached = generator.program().attach("lo");
                    let count = if rate == 0 {
                        FRAMES_AT_ONCE
                    } else {
                        (rate / 20).max(1)
                    };
                    begun.store(true, Ordering::Relaxed);
                    let start = Instant::now();
                    while flooding.load(Ordering::Relaxed) && start.elapsed() < FLOOD_MAX {
                        generator.send(count);
                    }
                });
            });
            // The flood ends also when the work panics.
            let _stop = Stop(&flooding);
            until("the flood begins", || {
                begun.load(Ordering::Relaxed).then_some(())
            });
            work()
        })
    }

    /// Runs `work` as an honest client does.
    pub fn honest<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.lab.client.within(|| {
            pin(0, SENDING_CPU);
            schedule(0, libc::SCHED_FIFO, 40);
            work()
        })
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn batch(namespace: &str, commands: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(commands.as_bytes())
        .expect("a temporary file takes it");
    let path = file.path().to_str().expect("a plain path");
    run(&["ip", "-n", namespace, "-batch", path]);
}

/// The threads that receive on interfaces of that name, in all namespaces.
fn threads_of(interface: &str) -> impl Iterator<Item = i32> {
    let name = format!("napi/{interface}-");
    let processes = fs::read_dir("/proc").expect("there is a /proc");
    processes.filter_map(move |process| {
        let process = process.ok()?;
        let id = process.file_name().to_str()?.parse().ok()?;
        let is_one = fs::read_to_string(process.path().join("comm")).ok()?;
        is_one.starts_with(&name).then_some(id)
    })
}

/// A counter of an interface; 0 where the driver has none of that name.
fn statistic((namespace, interface): (&Namespace, &str), name: &str) -> u64 {
    let mut ethtool = namespace.command("ethtool");
    ethtool.args(["-S", interface]);
    let printed = succeeded("ethtool -S", &ethtool.output().expect("ethtool runs"));
    let found = printed.lines().find_map(|line| {
        let number = line.trim().strip_prefix(name)?;
        number.trim().parse().ok()
    });
    found.unwrap_or(0)
}

/// A counter of TCP in the namespace of this thread: the line of names in
/// /proc/net/`file` that begins with `group`, and the line of numbers below it.
///
/// # Panics
/// When the kernel has no such counter.
pub fn tcp_counter(file: &str, group: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let text = text.expect("the kernel counts");
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, numbers) = (lines.next(), lines.next());
    let mut pairs = names
        .unwrap_or_default()
        .split(' ')
        .zip(numbers.unwrap_or_default().split(' '));
    let found = pairs.find(|(found, _)| *found == name);
    let number = found.and_then(|(_, number)| number.parse().ok());
    number.unwrap_or_else(|| panic!("the kernel has no counter {group} {name}"))
}

/// Nanoseconds that a thread has run.
///
/// # Panics
/// When there is no such thread.
pub fn worked(thread: i32) -> u64 {
    let schedstat = fs::read_to_string(format!("/proc/{thread}/schedstat"));
    let worked = schedstat.ok().and_then(|text| {
        let first = text.split(' ').next()?;
        first.parse().ok()
    });
    worked.expect("the kernel counts the time of threads")
}

/// Keeps a thread, or with 0 this one, on one CPU.
///
/// # Panics
/// When there is no such CPU.
pub fn pin(thread: i32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a small number");
    sched_setaffinity(Pid::from_raw(thread), &set).expect("a flood is measured on two CPUs");
}

fn schedule(thread: i32, policy: i32, priority: i32) {
    // SAFETY: all zeros is a valid value of this structure of integers.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the pointer is to the parameters, which outlive the call.
    let result = unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) };
    assert_eq!(result, 0, "root may choose how a thread is scheduled");
}

fn nice(by: i32) {
    // SAFETY: no pointer is involved. It holds for this thread alone, on Linux.
    unsafe { libc::nice(by) };
}
