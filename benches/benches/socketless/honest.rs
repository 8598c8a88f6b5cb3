//! Honest exchanges under a spoofed flood, with loss, and both.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread::sleep,
    time::Duration,
};

use nomail_tests::{
    generator::{Syns, dropper},
    honest::Outcome,
    lab::HOST_INTERFACE,
    rig::{FLOOD_MAX, Rig, Work},
};

use crate::{HOST, House, XDP, median, met, plan, served, spread, waits};

/// Honest exchanges a second.
const HONEST_RATE: u32 = 400;
/// How long one may take where nothing is lost but by the flood.
const PATIENCE: Duration = Duration::from_secs(5);
/// And where packets are lost on purpose.
const PATIENCE_LOSS: Duration = Duration::from_secs(16);
/// How long a flood lasts before anything is measured.
const SETTLED: Duration = Duration::from_millis(700);
/// Forged SYNs a second.
const FLOOD_RATE: u32 = 1_000_000;
/// Less than this part of them offered, and nothing is judged.
const OFFERED_MIN: f64 = 0.9;

/// Each from an address of its own.
const STRANGERS: Syns = Syns {
    source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
    source_mask: 0x7f_ffff,
    port: 1024,
    port_mask: 0x3fff,
    repeated: false,
    destination: HOST,
};

/// Each from a /64 of its own.
const STRANGERS_IPV6: Syns = Syns {
    source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1)),
    destination: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ..STRANGERS
};

struct Scene {
    name: &'static str,
    syns: Option<Syns>,
    host: IpAddr,
    /// Percent, each way.
    loss: u32,
    /// Least share that is to be served, where that is a goal.
    goal_served: Option<f64>,
    /// Most time for a frame, to bare XDP_DROP.
    goal_ratio: Option<f64>,
}

const SCENES: [Scene; 4] = [
    Scene {
        name: "spoofed strangers, 1 Mpps",
        syns: Some(STRANGERS),
        host: HOST,
        loss: 0,
        goal_served: Some(0.998),
        goal_ratio: Some(3.3),
    },
    Scene {
        name: "spoofed strangers by IPv6, 1 Mpps",
        syns: Some(STRANGERS_IPV6),
        host: STRANGERS_IPV6.destination,
        loss: 0,
        goal_served: None,
        goal_ratio: None,
    },
    Scene {
        name: "no flood, 5 % loss each way, 16 s",
        syns: None,
        host: HOST,
        loss: 5,
        goal_served: Some(0.999),
        goal_ratio: None,
    },
    Scene {
        name: "spoofed strangers, 1 Mpps, 5 % loss each way, 16 s",
        syns: Some(STRANGERS),
        host: HOST,
        loss: 5,
        goal_served: Some(0.999),
        goal_ratio: None,
    },
];

#[derive(Default)]
struct Cell {
    honest: Outcome,
    work: Work,
    bare: Work,
    /// Time for a frame to bare XDP_DROP, for each round.
    ratios: Vec<f64>,
    /// Seconds of floods that were measured.
    flooded: f64,
    /// What the agent counted of the segments that XDP sent.
    stateless: u64,
}

pub(crate) fn print(quick: bool) {
    let (rounds, count) = if quick { (1, 600) } else { (3, 1700) };
    println!("## Who is served, {rounds} rounds of {count} exchanges\n");
    println!(
        "| flood and loss | honest, served to the end (95 %) | refused; timed out | greeted after ms, \
         median; 99 %; most | offered, Mpps | received | ns per frame | bare XDP_DROP, ns | ratio | \
         goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for scene in &SCENES {
        let mut cell = Cell::default();
        for _ in 0..rounds {
            round(scene, count, &mut cell);
        }
        report(scene, &cell);
    }
    println!(
        "\nEach round: a fresh pair of namespaces and `responder = \"xdp\"`; with a flood, bare \
         XDP_DROP under the same before it. Honest: {HONEST_RATE} connections a second from 128 \
         addresses, served when greeted, QUIT answered and closed within 5 s, or 16 s. Loss is of the \
         honest clients' packets, before the wire and behind it. A flood lasts at most {} s: an \
         exchange that takes longer ends after it.\n",
        FLOOD_MAX.as_secs()
    );
}

fn round(scene: &Scene, count: usize, cell: &mut Cell) {
    let rig = Rig::new(scene.loss);
    let bare = scene.syns.map(|syns| {
        let _dropper = rig.lab.host.within(|| dropper().attach(HOST_INTERFACE));
        rig.flooded(&syns, FLOOD_RATE, || {
            sleep(SETTLED / 2);
            let before = rig.read();
            sleep(SETTLED);
            rig.since(&before)
        })
    });
    let house = House::new(rig, XDP, "");
    let patience = if scene.loss > 0 {
        PATIENCE_LOSS
    } else {
        PATIENCE
    };
    let plan = plan(scene.host, count, HONEST_RATE, patience);
    let honest = || {
        let before = house.rig.read();
        let honest = house.rig.honest(|| plan.run());
        (honest, house.rig.since(&before))
    };
    let (honest, work) = match &scene.syns {
        Some(syns) => house.rig.flooded(syns, FLOOD_RATE, || {
            sleep(SETTLED);
            honest()
        }),
        None => honest(),
    };
    cell.stateless += house.agent.count("/answers/stateless");
    house.agent.stop();
    if let Some(bare) = bare {
        cell.ratios.push(work.per_frame() / bare.per_frame());
        cell.bare.add(&bare);
        // The honest may take longer than a flood may last.
        cell.flooded += work.seconds.min((FLOOD_MAX - SETTLED).as_secs_f64());
    }
    cell.honest.add(&honest);
    cell.work.add(&work);
}

fn report(scene: &Scene, cell: &Cell) {
    let (share, ..) = cell.honest.share();
    let mut goals = Vec::new();
    goals.extend(
        scene
            .goal_served
            .map(|goal| format!("{:.1} %", goal * 100.0)),
    );
    goals.extend(scene.goal_ratio.map(|goal| goal.to_string()));
    let mut offered = 0.0;
    let wire = if scene.syns.is_some() {
        offered = (cell.work.frames + cell.work.lost) as f64 / cell.flooded;
        format!(
            "{:.2} | {:.2} | {:.0} | {:.0} | {}",
            offered / 1e6,
            cell.work.frames as f64 / cell.flooded / 1e6,
            cell.work.per_frame(),
            cell.bare.per_frame(),
            spread(&cell.ratios, 2)
        )
    } else {
        "- | - | - | - | -".to_owned()
    };
    let said = if goals.is_empty() {
        ""
    } else if scene.syns.is_some() && offered < f64::from(FLOOD_RATE) * OFFERED_MIN {
        "not judged: the machine was too busy to offer that many"
    } else {
        let in_time = scene
            .goal_ratio
            .is_none_or(|goal| median(&cell.ratios) <= goal);
        met(in_time && scene.goal_served.is_none_or(|goal| share >= goal))
    };
    assert!(
        cell.stateless as usize >= cell.honest.served,
        "XDP has answered"
    );
    println!(
        "| {} | {} | {}; {} | {} | {wire} | {} | {said} |",
        scene.name,
        served(&cell.honest),
        cell.honest.refused,
        cell.honest.failed() - cell.honest.refused,
        waits(&cell.honest),
        goals.join("; "),
    );
}
