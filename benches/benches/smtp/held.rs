//! Connections that are held: what each costs, and whether others notice.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use nomail_benches::{
    crowd::{Counts, Crowd},
    load::{Load, Measured, exchange},
    peers::{self, Configuration, Limits, target},
};
use nomail_tests::{
    agent::Agent,
    lab::Lab,
    poll::{DEADLINE, until},
    processes::{Processes, pss_kib, raise_descriptors, ticks, ticks_per_second},
    vm,
};

use crate::{
    HELD, Scope,
    exchanges::Entry,
    figures::{quantile, verdict},
    say,
};

/// Descriptors of the agent for other purposes than these.
const DESCRIPTORS_SPARE: usize = 2000;
/// New clients a second, while all are held.
const PROBES_PER_SECOND: u32 = 100;
/// Caches of the kernel that a TCP connection takes something of.
const CACHES: [&str; 8] = [
    "TCP",
    "sock_inode_cache",
    "filp",
    "dentry",
    "eventpoll_epi",
    "eventpoll_pwq",
    "ep_head",
    "lsm_inode_cache",
];

/// All servers, with as many as most of them bear.
pub(crate) fn peers(entries: &mut [Entry<'_>], scope: &Scope) {
    let few = scope.few;
    println!(
        "\n## {few} connections held\n\n\
         | server | greeted | held | closed by the server | not greeted within 10 s | PSS before, \
         MiB | PSS with them, MiB | processes |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for entry in entries {
        let server = &entry.server;
        say(&format!("{few} held by {}", server.peer.name()));
        let before = Processes::of(&server.lab.host);
        let crowd = server.lab.client.within(|| Crowd::gather(target(), few));
        let with = Processes::of(&server.lab.host);
        let counts = crowd.counts();
        println!(
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {} |",
            server.peer.name(),
            counts.greeted(),
            counts.held,
            counts.hung_up,
            counts.waiting + counts.failed,
            before.pss_kib as f64 / 1024.0,
            with.pss_kib as f64 / 1024.0,
            with.count,
        );
    }
    println!(
        "\nA client that is not greeted has met a queue of the listening socket that was full, or \
         waits for its turn."
    );
}

/// The agent, with as many as the goal says, if not on this machine, then on one
/// in it.
pub(crate) fn agent(scope: &Scope) {
    let size = section(scope);
    if size == scope.held {
        return;
    }
    println!(
        "\n{} were wanted; this machine gives a process no more than {} descriptors (the hard \
         limit of RLIMIT_NOFILE, without CAP_SYS_RESOURCE). So once more in a virtual machine, by \
         emulation: its memory is like that of any machine, its times are not.",
        scope.held,
        size + DESCRIPTORS_SPARE
    );
    say("all of them, in a virtual machine");
    match vm::run(HELD) {
        Ok(said) => match said.find("\n## ") {
            Some(start) => println!("{}", said[start..].trim_end()),
            None => println!("\n–: it has no table: {said:?}"),
        },
        Err(reason) => println!("\n–: {reason}"),
    }
}

/// The agent with as many as the goal says, or this machine allows; how many.
pub(crate) fn section(scope: &Scope) -> usize {
    let size = raise_descriptors(scope.held + DESCRIPTORS_SPARE).saturating_sub(DESCRIPTORS_SPARE);
    println!("\n## The agent with {size} connections held\n");
    println!("| what | measured | goal | |");
    println!("|---|---|---|---|");
    let lab = peers::lab();
    let configuration = Configuration::new();
    configuration.write(Limits {
        connections: size + size / 10,
        connections_per_source: size,
    });
    let agent = peers::agent(&lab, &configuration, "off");
    let pid = agent.pid().as_raw() as u32;
    // Whatever the first clients bring into memory is not of those held.
    let alone = probe(&lab, scope.probes / 2);
    let (before, kernel_before) = (pss_kib(pid).unwrap(), Kernel::now());
    say(&format!("{size} held by the agent"));
    let crowd = lab.client.within(|| Crowd::gather(target(), size));
    let (with, kernel_with) = (pss_kib(pid).unwrap(), Kernel::now());
    let counts = crowd.counts();
    let row = |what: &str, measured: String, goal: &str, met: bool| {
        println!("| {what} | {measured} | {goal} | {} |", verdict(met));
    };
    let plain = |what: &str, measured: String| println!("| {what} | {measured} | | |");
    row(
        "greeted, and held",
        format!("{} of {size}", counts.held),
        "all",
        counts.held == size,
    );
    let octets = |kib: u64, since: u64| (kib - since.min(kib)) as f64 * 1024.0 / size as f64;
    let each = octets(with, before);
    row(
        "PSS of the agent, each",
        format!("{each:.0} octets ({before} to {with} KiB)"),
        "1024",
        each <= 1024.0,
    );
    plain(
        "kernel, both ends: socket buffers (`mem` of sockstat), each",
        format!(
            "{:.0} octets",
            octets(kernel_with.buffers_kib, kernel_before.buffers_kib)
        ),
    );
    plain(
        "kernel, both ends: slabs of TCP, sock_inode_cache, filp, dentry and epoll, each",
        match kernel_with.caches_kib.zip(kernel_before.caches_kib) {
            Some((with, before)) => format!("{:.0} octets", octets(with, before)),
            None => "– (/proc/slabinfo cannot be read)".to_owned(),
        },
    );
    plain(
        "kernel, both ends: all slabs, each",
        format!(
            "{:.0} octets",
            octets(kernel_with.slab_kib, kernel_before.slab_kib)
        ),
    );
    say("a new client meanwhile");
    let probes = probe(&lab, scope.probes);
    let p99 = quantile(&probes.greeting_micros, 0.99);
    row(
        "a new client is greeted meanwhile: p50, p99",
        greeting(&probes),
        "p99 5 ms",
        p99 <= 5.0 && probes.failed == 0 && probes.greeting_micros.len() >= scope.probes as usize,
    );
    plain("the same with none held", greeting(&alone));
    say("idle");
    let spent = || ticks(pid).unwrap().1;
    let before = spent();
    thread::sleep(scope.idle);
    let spent = (spent() - before) as f64 / ticks_per_second();
    let part = 100.0 * spent / scope.idle.as_secs_f64();
    row(
        "idle, time of one processor",
        format!("{part:.2} % ({spent:.2} s in {:?})", scope.idle),
        "below 1 %",
        part < 1.0,
    );
    if counts.held == size {
        one_more(&lab, &agent, &configuration, size);
    } else {
        println!("| one more than the limit | – (not all are held) | greeted, closed | |");
    }
    say("all say QUIT");
    let farewell = crowd.leave();
    row(
        "QUIT on each: 221, and closed",
        format!("{} of {size}", farewell.goodbye),
        "all",
        farewell
            == Counts {
                goodbye: size,
                ..Counts::default()
            },
    );
    size
}

/// At least so many new clients, one after the other unless one takes long.
fn probe(lab: &Lab, clients: u32) -> Measured {
    lab.client.within(|| {
        let load = Load::PerSecond(PROBES_PER_SECOND);
        // A second more than it takes: the last ones may be under way.
        let window = Duration::from_secs(u64::from(clients / PROBES_PER_SECOND + 1));
        exchange(target(), load, Duration::ZERO, window)
    })
}

fn greeting(probes: &Measured) -> String {
    format!(
        "{:.2} ms, {:.2} ms ({} clients, {PROBES_PER_SECOND}/s, {} failed)",
        quantile(&probes.greeting_micros, 0.50),
        quantile(&probes.greeting_micros, 0.99),
        probes.greeting_micros.len(),
        probes.failed
    )
}

/// With the limit at what is held, another client is greeted: it is closed then, or one
/// of the fullest network makes room.
fn one_more(lab: &Lab, agent: &Agent, configuration: &Configuration, size: usize) {
    let shed = || {
        let status = agent.status();
        ["shed", "evicted"]
            .map(|name| status["connections"][name].as_u64().unwrap())
            .iter()
            .sum::<u64>()
    };
    configuration.write(Limits {
        connections: size,
        connections_per_source: size,
    });
    let before = shed();
    agent.signal(Signal::SIGHUP);
    // It holds for connections that come after it, whenever that is.
    let (text, counted) = until("one more client is over the limit", || {
        let text = lab.client.within(greeted);
        let counted = shed() - before;
        (counted > 0).then_some((text, counted))
    });
    println!(
        "| one more, with limits.connections = {size} by a reload | {}; shed or made room: \
         {counted} | greeted, one | {} |",
        text.trim_end(),
        verdict(text.starts_with("521 ") && counted == 1)
    );
}

/// The server's first line.
fn greeted() -> String {
    let stream = TcpStream::connect(target()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// What the kernel has taken.
struct Kernel {
    buffers_kib: u64,
    caches_kib: Option<u64>,
    slab_kib: u64,
}

impl Kernel {
    fn now() -> Self {
        let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap();
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:"));
        let pages = tcp.unwrap().split(' ').skip_while(|word| *word != "mem");
        let pages: u64 = pages
            .skip(1)
            .map(|pages| pages.parse::<u64>().unwrap())
            .sum();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let slab = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"));
        let slab = slab.unwrap().trim().trim_end_matches(" kB");
        Self {
            buffers_kib: pages * page_kib(),
            caches_kib: caches_kib(),
            slab_kib: slab.parse().unwrap(),
        }
    }
}

/// Memory of the slabs of [`CACHES`].
fn caches_kib() -> Option<u64> {
    let mut kib = 0;
    for line in fs::read_to_string("/proc/slabinfo").ok()?.lines() {
        // name, active_objs, num_objs, objsize, objperslab, pagesperslab
        let words: Vec<_> = line.split_whitespace().collect();
        if words.first().is_some_and(|name| CACHES.contains(name)) {
            let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
            kib += number(2)? / number(4)?.max(1) * number(5)? * page_kib();
        }
    }
    Some(kib)
}

fn page_kib() -> u64 {
    // SAFETY: it takes no pointer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 / 1024 }
}
