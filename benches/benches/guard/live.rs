//! Honest clients under floods on a wire, behind nomail and behind others.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    thread::sleep,
    time::{Duration, Instant},
};

use nomail_benches::guards::{self, Guard, on_host, set_up};
use nomail_tests::{
    firewall::{HOST_RULES, HostRules, Nft, conntrack_entries, netstat},
    foreign::Program,
    generator::{LISTENING_PORT, Syns, dropper, returner},
    honest::{Outcome, Plan},
    rig::{FLOOD_MAX, HONEST_COUNT, HONEST_FIRST, RECEIVING_CPU, Rig, Work, honest_addresses},
    root::Root,
};

use crate::{median, met};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Honest connections a second.
const HONEST_RATE: u32 = 400;
/// How long an honest connection may take. Senders wait far longer (Postfix 30 s to
/// connect, and 5 minutes for the greeting).
const PATIENCE: Duration = Duration::from_secs(5);
/// The share that was served so soon is shown as well: between the two is who lost
/// its first SYN, because Linux sends the next ones after 1 and 3 s.
const SOON: Duration = Duration::from_secs(2);
/// How long a flood lasts before anything is measured: buckets and queues are then
/// as they stay.
const SETTLED: Duration = Duration::from_millis(700);

/// Rounds, and honest connections in each.
const ROUNDS: usize = 3;
const COUNT: usize = 1700;
const QUICK_COUNT: usize = 250;
/// What a quick run measures: these floods, with these others in the first of them, and
/// these rules of the host.
const QUICK_SCENES: [&str; 4] = [STRANGERS.name, AT_MOST, BOTNET.name, PROVEN.name];
const QUICK_PEERS: [Guard; 2] = [Guard::Kernel, Guard::Hashlimit];
/// In the fastest flood.
const QUICK_RIVALS: [Guard; 2] = [Guard::XdpSynproxy, Guard::InC];
const QUICK_RULES: &str = "ct state";
const AT_MOST: &str = "spoofed strangers, at most";

/// A flood, and who is honest beside it.
#[derive(Clone, Copy, Debug)]
struct Scene<'a> {
    name: &'a str,
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
    /// Most nanoseconds for a frame over those of bare XDP_TX, at the highest rate.
    goal_over: Option<f64>,
    /// The host's own rules.
    rules: Option<&'static HostRules>,
}

const STRANGERS: Scene<'static> = Scene {
    name: "spoofed strangers, 1 Mpps",
    syns: Syns {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
        source_mask: 0x7f_ffff,
        port: 1024,
        port_mask: 0x3fff,
        repeated: false,
        destination: HOST,
    },
    rate: 1_000_000,
    loss: 0,
    one_address: false,
    timeout: PATIENCE,
    goal_served: 0.998,
    goal_over: None,
    rules: None,
};

/// Each from a /64 of its own.
const STRANGERS_IPV6: Scene<'static> = Scene {
    name: "spoofed strangers by IPv6, 1 Mpps",
    syns: Syns {
        source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1)),
        destination: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        ..STRANGERS.syns
    },
    ..STRANGERS
};

/// Above 2 Mpps, and below what one CPU can receive.
const STRANGERS_FAST: Scene<'static> = Scene {
    name: "spoofed strangers, 2.2 Mpps",
    rate: 2_200_000,
    ..STRANGERS
};

const BOTNET: Scene<'static> = Scene {
    name: "botnet of 256, unproven, 1 Mpps",
    syns: Syns {
        source: IpAddr::V4(Ipv4Addr::new(10, 200, 1, 0)),
        source_mask: 0xff,
        ..STRANGERS.syns
    },
    ..STRANGERS
};

/// Bots with a TCP of their own, which resets what it did not ask for; each
/// repeats one SYN. Their addresses are the client's.
const PROVEN: Scene<'static> = Scene {
    name: "botnet of 256, proven, 1 Mpps",
    syns: Syns {
        source: IpAddr::V4(Ipv4Addr::new(10, 200, 0, 0)),
        source_mask: 0xff,
        port: LISTENING_PORT + 1,
        port_mask: 0,
        repeated: true,
        destination: HOST,
    },
    ..STRANGERS
};

const OWN: Scene<'static> = Scene {
    name: "spoofed as the honest client's own address (`syn_rate` 1000), 1 Mpps",
    syns: Syns {
        source: IpAddr::V4(HONEST_FIRST),
        source_mask: 0,
        ..STRANGERS.syns
    },
    one_address: true,
    goal_served: 0.995,
    ..STRANGERS
};

const NEIGHBOURS: Scene<'static> = Scene {
    name: "spoofed from the honest clients' /24, theirs too, 1 Mpps",
    syns: Syns {
        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)),
        source_mask: 0xff,
        ..STRANGERS.syns
    },
    goal_served: 0.995,
    ..STRANGERS
};

const LOSSY: Scene<'static> = Scene {
    name: "spoofed strangers, 1 Mpps, 5 % loss each way, 16 s",
    loss: 5,
    timeout: Duration::from_secs(16),
    goal_served: 0.999,
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
    /// Nanoseconds for a frame over those of bare XDP_TX, for each round at the highest rate.
    over: Vec<f64>,
    /// SYNs that nomail counted for each frame received.
    counted: Option<f64>,
    /// Cookies that the kernel sent: its queue was full.
    cookies: u64,
    /// What else nomail said, of the last round.
    said: String,
    /// Connections that the host tracked more, and how many could be expected:
    /// the honest ones, and those that the cap let through.
    tracked: u64,
    trackable: u64,
}

pub(crate) fn print(quick: bool) {
    println!("\n## Floods on a veth pair\n");
    println!(
        "| flood | guard | honest connections served (95 %) | greeted within 2 s | greeted after, ms | offered, Mpps | \
         received | octets | ns per frame | bare XDP_DROP, ns | ratio | over bare XDP_TX, ns | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let root = guards::install();
    let at_most = |scene: Scene<'static>, name, goal_over| Scene {
        name,
        rate: 0,
        goal_over,
        ..scene
    };
    let rivals = [
        Guard::Kernel,
        Guard::Nft,
        Guard::Hashlimit,
        Guard::Synproxy,
        Guard::XdpSynproxy,
    ];
    let all = [
        &[
            Guard::NomailCookie,
            Guard::NomailDrop,
            Guard::InC,
            Guard::Return,
            Guard::Pass,
        ][..],
        &rivals,
    ]
    .concat();
    let scenes: [(Scene<'_>, &[Guard]); 10] = [
        (STRANGERS, &all),
        (STRANGERS_FAST, &[Guard::NomailCookie, Guard::Return]),
        (
            at_most(STRANGERS, AT_MOST, Some(60.0)),
            &[
                Guard::NomailCookie,
                Guard::Return,
                Guard::XdpSynproxy,
                Guard::InC,
            ],
        ),
        (STRANGERS_IPV6, &[Guard::NomailCookie, Guard::Return]),
        (BOTNET, &rivals),
        (PROVEN, &[]),
        (at_most(PROVEN, "botnet of 256, proven, at most", None), &[]),
        (OWN, &[Guard::NomailDrop]),
        (NEIGHBOURS, &[Guard::NomailDrop]),
        (LOSSY, &[Guard::NomailCookie, Guard::Kernel]),
    ];
    let wanted = std::env::var("SCENE").unwrap_or_default();
    let mut notes = Vec::new();
    for (scene, peers) in scenes {
        if !scene.name.contains(&wanted) || quick && !QUICK_SCENES.contains(&scene.name) {
            continue;
        }
        let peers: &[Guard] = match quick {
            false => peers,
            true if scene.name == STRANGERS.name => &QUICK_PEERS,
            true if scene.name == AT_MOST => &QUICK_RIVALS,
            true => &[],
        };
        let ours = measure(&scene, Guard::Nomail, &root, quick);
        report(&scene, Guard::Nomail, &ours, &mut notes);
        let mut others = Vec::new();
        for &guard in peers {
            let cell = measure(&scene, guard, &root, quick);
            report(&scene, guard, &cell, &mut notes);
            let is_rival = !guard.is_ours() && ![Guard::Return, Guard::InC].contains(&guard);
            others.extend(cell.ok().filter(|_| is_rival));
        }
        if let Ok(ours) = &ours
            && peers.contains(&Guard::Synproxy)
        {
            beside(&scene, ours, &others);
        }
    }
    behind_rules(&wanted, &root, quick, &mut notes);
    println!(
        "\nEach round: a fresh pair of namespaces, bare XDP_DROP under the flood, then the guard \
         under the same; at most: bare XDP_TX between them. The receiving thread has CPU {RECEIVING_CPU} before everything else there; \
         the generator, the honest clients ({HONEST_RATE} connections a second, {HONEST_COUNT} \
         addresses) and their interface have the other. Served: greeted, QUIT answered, closed, \
         within 5 s (16 s in the row that says so). A frame is whole with {} octets, {} by IPv6; honest ones are \
         shorter. Answers to forged sources end at the client's interface.\n",
        STRANGERS.syns.length(),
        STRANGERS_IPV6.syns.length()
    );
    if quick {
        println!(
            "- --quick: one round of {QUICK_COUNT} connections instead of {ROUNDS} of {COUNT}; \
             only the floods above, few others than nomail, and one kind of rules of the host."
        );
    }
    for note in notes {
        println!("- {note}");
    }
}

/// Strangers, at a host that has rules of its own.
fn behind_rules(wanted: &str, root: &Result<Root, String>, quick: bool, notes: &mut Vec<String>) {
    let names = HOST_RULES.map(|rules| format!("spoofed strangers, 1 Mpps, host: {}", rules.name));
    let mut rows = Vec::new();
    for (rules, name) in HOST_RULES.iter().zip(&names) {
        let scene = Scene {
            name,
            goal_served: 0.995,
            rules: Some(rules),
            ..STRANGERS
        };
        if !name.contains(wanted) || quick && rules.name != QUICK_RULES {
            continue;
        }
        // For the others, one kind of rules says enough.
        let peers: &[Guard] = if rules.name == QUICK_RULES && !quick {
            &[Guard::Nomail, Guard::NomailCookie, Guard::Kernel]
        } else {
            &[Guard::Nomail]
        };
        for &guard in peers {
            let cell = measure(&scene, guard, root, quick);
            report(&scene, guard, &cell, notes);
            if let Ok(cell) = cell {
                rows.push((name, guard, cell));
            }
        }
    }
    println!("\n## Connections that the host tracks after them\n");
    println!("| flood | guard | tracked, most of a round | goal | |");
    println!("|---|---|---|---|---|");
    for (name, guard, cell) in rows {
        let (goal, said) = if guard == Guard::Nomail {
            (
                format!("{}: the honest and the cap", cell.trackable),
                met(cell.tracked <= cell.trackable),
            )
        } else {
            (String::new(), "")
        };
        println!(
            "| {name} | {} | {} | {goal} | {said} |",
            guard.name(),
            cell.tracked
        );
    }
}

fn measure(
    scene: &Scene<'_>,
    guard: Guard,
    root: &Result<Root, String>,
    quick: bool,
) -> Result<Cell, String> {
    let (rounds, count) = match quick {
        true => (1, QUICK_COUNT),
        false => (ROUNDS, COUNT),
    };
    let mut cell = Cell::default();
    for _ in 0..rounds {
        catch_unwind(AssertUnwindSafe(|| {
            round(scene, guard, root.as_ref(), count, &mut cell);
        }))
        .map_err(|panic| guards::reason(&*panic))?;
    }
    Ok(cell)
}

fn round(
    scene: &Scene<'_>,
    guard: Guard,
    root: Result<&Root, &String>,
    count: usize,
    cell: &mut Cell,
) {
    let rig = Rig::new(scene.loss);
    let bare_of = |program: &Program| {
        let _attached = on_host(&rig, program);
        rig.flooded(&scene.syns, scene.rate, || {
            sleep(SETTLED / 2);
            let before = rig.read();
            sleep(SETTLED);
            rig.since(&before)
        })
    };
    let bare = bare_of(&dropper());
    // At a lower rate the wake-ups of the receiver hide the difference.
    let returned = (scene.rate == 0).then(|| bare_of(&returner()));
    let _set = set_up(&rig, guard, root);
    if let Some(rules) = scene.rules {
        rules.load(&Nft::install(), &rig.lab.host);
    }
    let tracked = scene.rules.map(|_| conntrack_entries(&rig.lab.host));
    let limit = if scene.one_address {
        (1000, 2000)
    } else {
        guards::LIMIT
    };
    let listen = scene.rules.and_then(|rules| rules.listen);
    let agent = guards::serve(&rig, guard, limit, listen);
    let host = scene.syns.destination;
    let mut from = honest_addresses(host);
    if scene.one_address {
        from.truncate(1);
    }
    let plan = Plan {
        from,
        to: SocketAddr::new(host, 25),
        count,
        rate: HONEST_RATE,
        timeout: scene.timeout,
    };
    let begun = Instant::now();
    let (honest, work) = rig.flooded(&scene.syns, scene.rate, || {
        sleep(SETTLED);
        let before = rig.read();
        let counted = guard.is_ours().then(|| agent.count("/syn/total"));
        let honest = if guard == Guard::Return {
            sleep(SETTLED);
            Outcome::default()
        } else {
            rig.honest(|| plan.run())
        };
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
    cell.cookies += netstat(&rig.lab.host, "SyncookiesSent");
    if let Some(before) = tracked {
        cell.tracked = cell
            .tracked
            .max(conntrack_entries(&rig.lab.host).saturating_sub(before));
        cell.trackable = cell
            .trackable
            .max(trackable(&rig, &honest, begun.elapsed()));
    }
    agent.stop();
    cell.ratios.push(work.per_frame() / bare.per_frame());
    let over = returned.map(|returned| work.per_frame() - returned.per_frame());
    cell.over.extend(over);
    cell.honest.add(&honest);
    cell.work.add(&work);
    cell.bare.add(&bare);
}

/// The honest connections, and what the cap may have let through meanwhile: a quarter
/// of the listener's queue at once, a sixteenth of it each second.
fn trackable(rig: &Rig, honest: &Outcome, meanwhile: Duration) -> u64 {
    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    let backlog = rig
        .lab
        .host
        .within(|| fs::read_to_string(SOMAXCONN).unwrap());
    let backlog: u64 = backlog.trim().parse().unwrap();
    honest.begun as u64 + backlog / 4 + backlog / 16 * (meanwhile.as_secs() + 1)
}

fn report(scene: &Scene<'_>, guard: Guard, cell: &Result<Cell, String>, notes: &mut Vec<String>) {
    let is_judged = guard == Guard::Nomail;
    let goal = if is_judged {
        let served = format!("{:.1} %", scene.goal_served * 100.0);
        let over = scene.goal_over.map(|over| format!("; {over} ns"));
        served + &over.unwrap_or_default()
    } else {
        String::new()
    };
    let cell = match cell {
        Ok(cell) => cell,
        Err(reason) => {
            println!(
                "| {} | {} | not measured: {reason} | | | | | | | | | | {goal} | |",
                scene.name,
                guard.name()
            );
            return;
        }
    };
    let (share, least, most) = cell.honest.share();
    let served = if cell.honest.begun == 0 {
        "none tried".to_owned()
    } else {
        format!(
            "{:.2} % ({:.2} to {:.2}) of {}",
            share * 100.0,
            least * 100.0,
            most * 100.0,
            cell.honest.begun
        )
    };
    let soon = if cell.honest.begun == 0 {
        "-".to_owned()
    } else {
        let soon = cell.honest.greeted.partition_point(|time| *time <= SOON);
        format!("{:.2} %", 100.0 * soon as f64 / cell.honest.begun as f64)
    };
    let ratio = median(&mut cell.ratios.clone());
    let over = (!cell.over.is_empty()).then(|| median(&mut cell.over.clone()));
    // The honest may take longer than a flood may last.
    let flooded = (FLOOD_MAX - SETTLED).as_secs_f64() * cell.ratios.len() as f64;
    let seconds = cell.work.seconds.min(flooded);
    let offered = (cell.work.frames + cell.work.lost) as f64 / seconds / 1e6;
    let said = if is_judged && offered * 1e6 < f64::from(scene.rate) * 0.9 {
        "not judged: the machine was too busy to offer that many"
    } else if is_judged {
        let in_time = scene
            .goal_over
            .is_none_or(|goal| over.is_some_and(|over| over <= goal));
        met(share >= scene.goal_served && in_time)
    } else {
        ""
    };
    println!(
        "| {} | {} | {served} | {soon} | {} | {offered:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {ratio:.2} | {} | {goal} | {said} |",
        scene.name,
        guard.name(),
        cell.honest.median().map_or("-".to_owned(), |time| format!(
            "{:.1}",
            time.as_secs_f64() * 1000.0
        )),
        cell.work.frames as f64 / seconds / 1e6,
        cell.work.mean_length(),
        cell.work.per_frame(),
        cell.bare.per_frame(),
        over.map_or("-".to_owned(), |over| format!("{over:.0}")),
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
fn beside(scene: &Scene<'_>, ours: &Cell, others: &[Cell]) {
    let best = others.iter().map(|cell| cell.work.per_frame());
    let best = best.fold(f64::INFINITY, f64::min);
    let served = others
        .iter()
        .map(|cell| cell.honest.share().0)
        .fold(0.0, f64::max);
    let share = ours.work.per_frame() / best;
    println!(
        "| {} | nomail to the best of the others | {:.2} % to {:.2} % | | | | | | | | {share:.2} | | above all | {} |",
        scene.name,
        ours.honest.share().0 * 100.0,
        served * 100.0,
        met(ours.honest.share().0 >= served)
    );
}
