//! Reloads while a flood is held off: nobody honest notices, and no SYN is left
//! without its verdict. `cargo xtask bench reload` has the figures.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{net::if_::if_nametoindex, sys::signal::Signal};
use nomail_tests::{
    agent::Agent,
    flood::{answerable, limit_backlog, talk},
    generator::{Generator, Syns, Then},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, until},
    rig::tcp_counter,
};
use serde_json::Value;

const RELOADS: usize = 10;
/// Forged SYNs a second: far from what fills the ring of a veth pair.
const FLOOD_RATE: u32 = 4000;
/// Of one call of the generator.
const FRAMES: u32 = 200;
const CLIENTS: [&str; 3] = ["192.0.2.100", "192.0.2.101", "192.0.2.102"];

/// A configuration with other limits, another deny list, and another greeting for
/// each number.
fn configuration(number: usize) -> String {
    format!(
        "hostname = \"mailless-{number}.example.org\"\n\
         limits.syn_rate = {}\nlimits.syn_burst = {}\n\
         lists.deny = [\"198.51.100.{number}\", \"10.{number}.0.0/16\"]\n",
        1000 + number,
        2000 + number
    )
}

/// What the kernel counts of an interface.
fn statistic(lab: &Lab, pointer: &str) -> u64 {
    let link = lab
        .client
        .ip(&format!("-s -j link show dev {CLIENT_INTERFACE}"));
    let link: Value = serde_json::from_str(&link).unwrap();
    link.pointer(pointer).and_then(Value::as_u64).unwrap()
}

/// SYNs that the client's TCP has sent.
fn syns_of_tcp(lab: &Lab) -> u64 {
    lab.client.within(|| {
        tcp_counter("snmp", "Tcp:", "ActiveOpens")
            + tcp_counter("netstat", "TcpExt:", "TCPSynRetrans")
    })
}

/// Frames that the flood has put into the host's ring, and those that were lost.
fn forged(lab: &Lab) -> (u64, u64) {
    let output = lab.client.command("ethtool");
    let mut ethtool = output;
    ethtool.args(["-S", CLIENT_INTERFACE]);
    let printed = ethtool.output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let of = |name: &str| {
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    (
        of("tx_queue_0_xdp_xmit:"),
        of("tx_queue_0_xdp_xmit_errors:"),
    )
}

/// Total, and the sum of the verdicts.
fn verdicts(agent: &Agent) -> (u64, u64) {
    let status = agent.status();
    let syn = status["syn"].as_object().unwrap();
    let of = |name: &String| syn[name].as_u64().unwrap();
    let sum = syn.keys().filter(|name| *name != "total").map(of).sum();
    (of(&"total".to_owned()), sum)
}

#[test]
fn ten_reloads_under_a_flood_lose_nothing() {
    let lab = Lab::new();
    // Few SYNs of strangers may pass, so that the flood is one.
    limit_backlog(&lab.host, 256);
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let native = ["--iface", HOST_INTERFACE, "--xdp-mode", "native"];
    let agent = Agent::configured(&lab.host, &configuration(0), &native);
    let syns = Syns {
        source: [10, 0, 0, 0].into(),
        source_mask: 0x7f_ffff,
        port: 1024,
        port_mask: 0x3fff,
        repeated: false,
        destination: HOST_IPV4.parse().unwrap(),
    };
    let over = AtomicBool::new(false);
    let served: usize = thread::scope(|scope| {
        /// The flood ends also when the test fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        scope.spawn(|| {
            lab.client.within(|| {
                let interface = if_nametoindex(CLIENT_INTERFACE).unwrap();
                let rate = FLOOD_RATE;
                let generator = Generator::load(&syns, &Then::Send { interface, rate });
                let _attached = generator.program().attach("lo");
                while !over.load(Ordering::Relaxed) {
                    generator.send(FRAMES);
                }
            });
        });
        until("the flood is held off", || {
            (agent.count("/syn/flood") > 100).then_some(())
        });
        let clients = CLIENTS.map(|from| {
            let (over, namespace) = (&over, &lab.client);
            let client = move || {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    let heard = talk(from, HOST_IPV4, DEADLINE).unwrap().heard;
                    // One name from the first line to the last.
                    let word = |line: &str| line.split(' ').nth(1).map(str::to_owned);
                    let greeting = word(heard.lines().next().unwrap()).unwrap();
                    let farewell = heard.lines().last().unwrap();
                    assert!(greeting.starts_with("mailless-"), "{heard}");
                    assert!(
                        farewell.starts_with("221 ") && farewell.contains(&greeting),
                        "{heard}"
                    );
                    served += 1;
                }
                served
            };
            scope.spawn(move || namespace.within(client))
        });
        for number in 1..=RELOADS {
            agent.configure(&configuration(number));
            agent.signal(Signal::SIGHUP);
            let name = format!("mailless-{number}.example.org");
            until("the configuration is reloaded", || {
                (agent.status()["hostname"] == name).then_some(())
            });
            // Some are served by each of them.
            let quits = agent.count("/connections/quit");
            until("clients are served", || {
                (agent.count("/connections/quit") >= quits + 3).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap()).iter().sum()
    });
    assert!(served >= 3 * RELOADS, "{served}");

    // All that was sent has come: each SYN has one verdict.
    let lost = statistic(&lab, "/0/stats64/tx/dropped");
    let (forged, forged_lost) = forged(&lab);
    let sent = forged + syns_of_tcp(&lab);
    // What of the client's own frames found no room on the wire may have been a SYN.
    let possible = sent - (lost - forged_lost)..=sent;
    let (total, sum) = until("what was sent is counted", || {
        let counted = verdicts(&agent);
        possible.contains(&counted.0).then_some(counted)
    });
    println!("{sent} SYNs, {forged} of them forged: {total} counted; {served} clients served");
    assert_eq!(total, sum, "one verdict for each SYN");
    assert!(
        agent.count("/syn/denied") > 0,
        "of the lists that came and went"
    );
    assert_eq!(verdicts(&agent), (total, sum), "nothing more comes");
    agent.stop();
}
