//! Honest clients under floods on a wire, behind nomail and behind others.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::sleep,
    time::Duration,
};

use nomail_tests::{
    agent::Agent,
    foreign::Program,
    generator::{LISTENING_PORT, SYN_LENGTH, Syns, dropper},
    honest::{Outcome, Plan},
    lab::HOST_INTERFACE,
    rig::{HONEST_COUNT, HONEST_FIRST, RECEIVING_CPU, Rig, Work},
    root::Root,
};
use tempfile::TempDir;

use crate::{median, met};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Honest connections a second.
const HONEST_RATE: u32 = 250;
/// How long a flood lasts before anything is measured: buckets and queues are then
/// as they stay.
const SETTLED: Duration = Duration::from_millis(700);

/// What stands before the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    Nomail,
    NomailDrop,
    Kernel,
    Pass,
    Nft,
    Hashlimit,
    Synproxy,
}

impl Guard {
    const fn name(self) -> &'static str {
        match self {
            Self::Nomail => "**nomail**",
            Self::NomailDrop => "nomail, `flood_answer = \"drop\"`",
            Self::Kernel => "kernel alone, `tcp_syncookies` 1",
            Self::Pass => "bare XDP_PASS, then the kernel alone",
            Self::Nft => "nft dynamic set at ingress",
            Self::Hashlimit => "iptables hashlimit",
            Self::Synproxy => "iptables SYNPROXY",
        }
    }

    const fn is_ours(self) -> bool {
        matches!(self, Self::Nomail | Self::NomailDrop)
    }

    /// What sets it up, with programs that the machine may not have. Limits are
    /// nomail's own by default: ten a second, twenty at once, 65,536 sources.
    const fn script(self) -> Option<&'static str> {
        match self {
            Self::Nft => Some(
                r#"nft -f - <<'END'
table netdev guard {
  set sources { type ipv4_addr; flags dynamic,timeout; timeout 60s; size 65536; }
  chain ingress {
    type filter hook ingress device "host0" priority 0; policy accept;
    tcp dport 25 tcp flags & (syn|ack) == syn update @sources { ip saddr limit rate over 10/second burst 20 packets } drop
  }
}
END
echo done > /done"#,
            ),
            Self::Hashlimit => Some(
                "iptables -t raw -A PREROUTING -p tcp --dport 25 --syn -m hashlimit \
                 --hashlimit-above 10/sec --hashlimit-burst 20 --hashlimit-mode srcip \
                 --hashlimit-name guard --hashlimit-htable-size 65536 \
                 --hashlimit-htable-max 65536 -j DROP; echo done > /done",
            ),
            Self::Synproxy => Some(
                "iptables -t raw -A PREROUTING -p tcp --dport 25 --syn -j CT --notrack; \
                 iptables -A INPUT -p tcp --dport 25 -m conntrack --ctstate INVALID,UNTRACKED \
                 -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460; \
                 iptables -A INPUT -m conntrack --ctstate INVALID -j DROP; \
                 echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose; echo done > /done",
            ),
            _ => None,
        }
    }
}

/// A flood, and who is honest beside it.
#[derive(Clone, Copy, Debug)]
struct Scene {
    name: &'static str,
    syns: Syns,
    /// Frames a second; 0: as many as there can be.
    rate: u32,
    /// Percent, each way.
    loss: u32,
    /// All honest connections come from one address.
    one_address: bool,
    timeout: Duration,
    /// Least share that is to be served.
    goal_served: f64,
    /// Most time for a frame, to bare XDP_DROP.
    goal_ratio: Option<f64>,
}

const STRANGERS: Scene = Scene {
    name: "spoofed strangers, 1 Mpps",
    syns: Syns {
        source: Ipv4Addr::new(10, 0, 0, 0),
        source_mask: 0x7f_ffff,
        port: 1024,
        port_mask: 0x3fff,
        repeated: false,
        destination: HOST,
    },
    rate: 1_000_000,
    loss: 0,
    one_address: false,
    timeout: Duration::from_secs(2),
    goal_served: 0.998,
    goal_ratio: Some(2.6),
};

const BOTNET: Scene = Scene {
    name: "botnet of 256, unproven, 1 Mpps",
    syns: Syns {
        source: Ipv4Addr::new(10, 200, 1, 0),
        source_mask: 0xff,
        ..STRANGERS.syns
    },
    ..STRANGERS
};

/// Bots with a TCP of their own, which resets what it did not ask for; each
/// repeats one SYN. Their addresses are the client's.
const PROVEN: Scene = Scene {
    name: "botnet of 256, proven, 1 Mpps",
    syns: Syns {
        source: Ipv4Addr::new(10, 200, 0, 0),
        source_mask: 0xff,
        port: LISTENING_PORT + 1,
        port_mask: 0,
        repeated: true,
        destination: HOST,
    },
    goal_ratio: Some(1.5),
    ..STRANGERS
};

const OWN: Scene = Scene {
    name: "spoofed as the honest client's own address (`syn_rate` 1000), 1 Mpps",
    syns: Syns {
        source: HONEST_FIRST,
        source_mask: 0,
        ..STRANGERS.syns
    },
    one_address: true,
    goal_served: 0.995,
    goal_ratio: None,
    ..STRANGERS
};

const NEIGHBOURS: Scene = Scene {
    name: "spoofed from the honest clients' /24, theirs too, 1 Mpps",
    syns: Syns {
        source: Ipv4Addr::new(192, 0, 2, 0),
        source_mask: 0xff,
        ..STRANGERS.syns
    },
    goal_served: 0.995,
    goal_ratio: None,
    ..STRANGERS
};

const LOSSY: Scene = Scene {
    name: "spoofed strangers, 1 Mpps, 5 % loss each way, 16 s",
    loss: 5,
    timeout: Duration::from_secs(16),
    goal_served: 0.999,
    goal_ratio: None,
    ..STRANGERS
};

/// What was measured behind one guard in one scene.
#[derive(Default)]
struct Cell {
    honest: Outcome,
    work: Work,
    bare: Work,
    /// Time per frame to bare XDP_DROP, for each round.
    ratios: Vec<f64>,
    /// SYNs that nomail counted for each frame received.
    counted: Option<f64>,
    /// Cookies that the kernel sent: its queue was full.
    cookies: u64,
    /// What else nomail said, of the last round.
    said: String,
}

pub(crate) fn print(quick: bool) {
    println!("\n## Floods on a veth pair\n");
    println!(
        "| flood | guard | honest connections served (95 %) | greeted after, ms | offered, Mpps | \
         received | octets | ns per frame | bare XDP_DROP, ns | ratio | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let root = catch_unwind(|| Root::install("guards", &["iptables", "nftables"]))
        .map_err(|panic| reason(&*panic));
    let at_most = |scene: Scene, name, goal| Scene {
        name,
        rate: 0,
        goal_ratio: Some(goal),
        ..scene
    };
    let peers = [
        Guard::NomailDrop,
        Guard::Kernel,
        Guard::Pass,
        Guard::Nft,
        Guard::Hashlimit,
        Guard::Synproxy,
    ];
    let scenes: [(Scene, &[Guard]); 8] = [
        (STRANGERS, &peers),
        (
            at_most(STRANGERS, "spoofed strangers, at most", 2.6),
            &[Guard::Hashlimit],
        ),
        (BOTNET, &peers),
        (PROVEN, &[]),
        (at_most(PROVEN, "botnet of 256, proven, at most", 1.2), &[]),
        (OWN, &[Guard::NomailDrop, Guard::Hashlimit]),
        (NEIGHBOURS, &[Guard::NomailDrop, Guard::Hashlimit]),
        (LOSSY, &[Guard::Kernel]),
    ];
    let wanted = std::env::var("SCENE").unwrap_or_default();
    let mut notes = Vec::new();
    for (scene, peers) in scenes {
        if !scene.name.contains(&wanted) {
            continue;
        }
        let ours = measure(&scene, Guard::Nomail, &root, quick);
        report(&scene, Guard::Nomail, &ours, &mut notes);
        let mut others = Vec::new();
        for &guard in peers {
            let cell = measure(&scene, guard, &root, quick);
            report(&scene, guard, &cell, &mut notes);
            others.extend(cell.ok().filter(|_| !guard.is_ours()));
        }
        if let Ok(ours) = &ours
            && peers.contains(&Guard::Synproxy)
        {
            beside(&scene, ours, &others);
        }
    }
    println!(
        "\nEach round: a fresh pair of namespaces, bare XDP_DROP under the flood, then the guard \
         under the same. The receiving thread has CPU {RECEIVING_CPU} before everything else there; \
         the generator, the honest clients ({HONEST_RATE} connections a second, {HONEST_COUNT} \
         addresses) and their interface have the other. Served: greeted, QUIT answered, closed, \
         within the time-out (2 s). A frame is whole with {SYN_LENGTH} octets; honest ones are \
         shorter. Answers to forged sources end at the client's interface.\n"
    );
    for note in notes {
        println!("- {note}");
    }
}

fn measure(
    scene: &Scene,
    guard: Guard,
    root: &Result<Root, String>,
    quick: bool,
) -> Result<Cell, String> {
    let (rounds, count) = match (quick, scene.loss > 0) {
        (true, false) => (2, 250),
        (true, true) => (1, 600),
        (false, false) => (4, 1250),
        (false, true) => (6, 850),
    };
    let mut cell = Cell::default();
    for _ in 0..rounds {
        catch_unwind(AssertUnwindSafe(|| {
            round(scene, guard, root.as_ref(), count, &mut cell);
        }))
        .map_err(|panic| reason(&*panic))?;
    }
    Ok(cell)
}

fn round(scene: &Scene, guard: Guard, root: Result<&Root, &String>, count: usize, cell: &mut Cell) {
    let rig = Rig::new(scene.loss);
    let bare = {
        let _dropper = on_host(&rig, &dropper());
        rig.flooded(&scene.syns, scene.rate, || {
            sleep(SETTLED / 2);
            let before = rig.read();
            sleep(SETTLED);
            rig.since(&before)
        })
    };
    let _set = set_up(&rig, guard, root);
    let directory = tempfile::tempdir().unwrap();
    let agent = serve(&rig, guard, scene, &directory);
    let addresses = if scene.one_address { 1 } else { HONEST_COUNT };
    let first = HONEST_FIRST.to_bits();
    let plan = Plan {
        from: (0..u32::from(addresses))
            .map(|n| Ipv4Addr::from_bits(first + n))
            .collect(),
        to: SocketAddr::new(IpAddr::V4(HOST), 25),
        count,
        rate: HONEST_RATE,
        timeout: scene.timeout,
    };
    let (honest, work) = rig.flooded(&scene.syns, scene.rate, || {
        sleep(SETTLED);
        let before = rig.read();
        let counted = guard.is_ours().then(|| agent.count("/syn/total"));
        let honest = rig.honest(|| plan.run());
        let work = rig.since(&before);
        if let Some(counted) = counted {
            let more = agent.count("/syn/total") - counted;
            cell.counted = Some(more as f64 / work.frames.max(1) as f64);
        }
        (honest, work)
    });
    if guard.is_ours() {
        let status = agent.status();
        cell.said = format!("; the last round: {} {}", status["syn"], status["answers"]);
    }
    cell.cookies += rig.lab.host.within(cookies_sent);
    agent.stop();
    cell.ratios.push(work.per_frame() / bare.per_frame());
    cell.honest.add(&honest);
    cell.work.add(&work);
    cell.bare.add(&bare);
}

/// `SyncookiesSent` of the namespace.
fn cookies_sent() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    let found = pairs.find(|(name, _)| *name == "SyncookiesSent");
    found.unwrap().1.parse().unwrap()
}

fn on_host(rig: &Rig, program: &Program) -> OwnedFd {
    rig.lab.host.within(|| program.attach(HOST_INTERFACE))
}

fn set_up(rig: &Rig, guard: Guard, root: Result<&Root, &String>) -> Option<OwnedFd> {
    if let Some(script) = guard.script() {
        let root = root.unwrap_or_else(|error| panic!("{error}"));
        let mut instance = root.start(&rig.lab.host, script);
        instance.line("/done", &["done"]);
    }
    (guard == Guard::Pass).then(|| on_host(rig, &Program::load("pass")))
}

/// The same server for all of them.
fn serve(rig: &Rig, guard: Guard, scene: &Scene, directory: &TempDir) -> Agent {
    let file = directory.path().join("nomail.toml");
    let answer = if guard == Guard::NomailDrop {
        "drop"
    } else {
        "challenge"
    };
    let rate = if scene.one_address {
        (1000, 2000)
    } else {
        (10, 20)
    };
    let text = format!(
        "[limits]\nflood_answer = \"{answer}\"\nsyn_rate = {}\nsyn_burst = {}\n",
        rate.0, rate.1
    );
    fs::write(&file, text).unwrap();
    let mode = if guard.is_ours() { "native" } else { "off" };
    let cpu = RECEIVING_CPU.to_string();
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--hostname",
        "mailless.example.org",
        "--xdp-mode",
        mode,
        "--config",
        file.to_str().unwrap(),
    ];
    Agent::spawn_through(&rig.lab.host, &["taskset", "-c", &cpu], &arguments).serving()
}

fn report(scene: &Scene, guard: Guard, cell: &Result<Cell, String>, notes: &mut Vec<String>) {
    let is_judged = guard == Guard::Nomail;
    let goal = if is_judged {
        let served = format!("{:.1} %", scene.goal_served * 100.0);
        let ratio = scene.goal_ratio.map(|ratio| format!("; {ratio}"));
        served + &ratio.unwrap_or_default()
    } else {
        String::new()
    };
    let cell = match cell {
        Ok(cell) => cell,
        Err(reason) => {
            println!(
                "| {} | {} | not measured: {reason} | | | | | | | | {goal} | |",
                scene.name,
                guard.name()
            );
            return;
        }
    };
    let (share, least, most) = cell.honest.share();
    let ratio = median(&mut cell.ratios.clone());
    let offered = (cell.work.frames + cell.work.lost) as f64 / cell.work.seconds / 1e6;
    let said = if is_judged && offered * 1e6 < f64::from(scene.rate) * 0.9 {
        "not judged: the machine was too busy to offer that many"
    } else if is_judged {
        let in_time = scene.goal_ratio.is_none_or(|goal| ratio <= goal + 0.005);
        met(share >= scene.goal_served && in_time)
    } else {
        ""
    };
    println!(
        "| {} | {} | {:.2} % ({:.2} to {:.2}) of {} | {} | {offered:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {ratio:.2} | {goal} | {said} |",
        scene.name,
        guard.name(),
        share * 100.0,
        least * 100.0,
        most * 100.0,
        cell.honest.begun,
        cell.honest.median().map_or("-".to_owned(), |time| format!(
            "{:.1}",
            time.as_secs_f64() * 1000.0
        )),
        cell.work.rate() / 1e6,
        cell.work.mean_length(),
        cell.work.per_frame(),
        cell.bare.per_frame(),
    );
    let counted = cell.counted.map_or(String::new(), |counted| {
        format!(
            "; counted as SYNs {:.1} % of the frames received; {:.1} % of the frames and {} answers \
             found no room in the ring",
            counted * 100.0,
            100.0 * cell.work.lost as f64 / (cell.work.lost + cell.work.frames).max(1) as f64,
            cell.work.answers_lost
        )
    });
    notes.push(format!(
        "{}, {}: {} refused, {} timed out after a greeting; the kernel sent {} cookies{counted}{}",
        scene.name,
        guard.name(),
        cell.honest.refused,
        cell.honest
            .greeted
            .len()
            .saturating_sub(cell.honest.served + cell.honest.refused),
        cell.cookies,
        cell.said
    ));
}

/// nomail against the best of the others in the same scene.
fn beside(scene: &Scene, ours: &Cell, others: &[Cell]) {
    let best = others.iter().map(|cell| cell.work.per_frame());
    let best = best.fold(f64::INFINITY, f64::min);
    let served = others
        .iter()
        .map(|cell| cell.honest.share().0)
        .fold(0.0, f64::max);
    let share = ours.work.per_frame() / best;
    println!(
        "| {} | nomail to the best of the others | {:.2} % to {:.2} % | | | | | | | {share:.2} | 0.33; above all | {} |",
        scene.name,
        ours.honest.share().0 * 100.0,
        served * 100.0,
        met(share <= 1.0 / 3.0 && ours.honest.share().0 >= served)
    );
}

/// What a panic said, in one line.
fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it failed").replace(['\n', '|'], " ")
}
