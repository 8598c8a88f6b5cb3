//! What leaves the host: two of ours that face each other come to rest, and a third party
//! whose address was forged gets no more packets than came.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{thread, time::Duration};

use nomail_tests::{
    agent::Agent,
    flood::answerable,
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, Lab, Namespace},
    poll::until,
};

const HOSTS: [&str; 2] = ["192.0.2.1", "192.0.2.100"];
const HOSTS_IPV6: [&str; 2] = ["2001:db8::1", "2001:db8::100"];

/// An agent whose refusals XDP says, on this port.
fn responder(namespace: &Namespace, interface: &str, port: u16) -> Agent {
    let file = format!(
        "hostname = \"mailless.example.org\"\nresponder = \"xdp\"\n\
         listen = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n"
    );
    Agent::configured(namespace, &file, &["--iface", interface])
}

/// Packets that an interface has received.
fn received(namespace: &Namespace, interface: &str) -> u64 {
    let path = format!("/sys/class/net/{interface}/statistics/rx_packets");
    let read = namespace.command("cat").arg(path).output().unwrap();
    String::from_utf8(read.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// Sends forged SYNs between two hosts, as often as each number says, and has them come to
/// rest: no more than a few packets in half a second.
fn comes_to_rest(lab: &Lab, ports: [u16; 2], sequences: &[u32]) {
    for hosts in [HOSTS, HOSTS_IPV6] {
        let address = |host: usize| match hosts[host].contains(':') {
            true => format!("[{}]:{}", hosts[host], ports[host]),
            false => format!("{}:{}", hosts[host], ports[host]),
        };
        let mut to_host = Segment::syn(&address(1), &address(0));
        for &sequence in sequences {
            to_host.sequence = sequence;
            // As from the other one's wire: the hardware addresses are those of the lab.
            lab.client
                .within(|| FrameSender::open(CLIENT_INTERFACE).send(&to_host.frame()));
            thread::sleep(Duration::from_millis(20));
        }
        let look = || received(&lab.host, HOST_INTERFACE) + received(&lab.client, CLIENT_INTERFACE);
        until("both come to rest", || {
            let before = look();
            thread::sleep(Duration::from_millis(500));
            let packets = look() - before;
            println!("{hosts:?} {ports:?}: {packets} packets in half a second");
            (packets < 50).then_some(())
        });
    }
}

#[test]
fn two_hosts_that_face_each_other_come_to_rest() {
    let lab = Lab::new();
    // The attack of five SYNs, and others.
    let attacks: [&[u32]; 4] = [
        &[7 << 20, 7 << 20, 7 << 20, 9 << 20, 9 << 20],
        &[7 << 20, 9 << 20, 7 << 20, 9 << 20, 7 << 20, 9 << 20],
        &[7 << 20; 6],
        &[1 << 20, 1 << 20, 2 << 20, 2 << 20, 3 << 20, 3 << 20],
    ];
    for ports in [[25, 25], [25, 2525]] {
        let host = responder(&lab.host, HOST_INTERFACE, ports[0]);
        let client = responder(&lab.client, CLIENT_INTERFACE, ports[1]);
        for attack in attacks {
            comes_to_rest(&lab, ports, attack);
        }
        // Something was there to be answered, where the source port is not guarded.
        let challenges = host.count("/answers/challenge");
        assert_eq!(challenges > 0, ports[0] != ports[1]);
        host.stop();
        client.stop();
    }
}

/// The victim's kernel resets what it did not ask for. No greeting, and no packet more.
#[test]
fn a_victim_gets_no_more_packets_than_came() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = responder(&lab.host, HOST_INTERFACE, 25);
    for (from, to) in [
        ("192.0.2.100:40000", "192.0.2.1:25"),
        ("[2001:db8::100]:40000", "[2001:db8::1]:25"),
    ] {
        let sent = || agent.count("/answers/challenge") + agent.count("/answers/stateless");
        // Its reset spends the ticket.
        let seen = || sent() + agent.count("/syn/replayed");
        let (before, seen_before) = (sent(), seen());
        let greeted = agent.count("/answers/greeted");
        let repeated = agent.count("/responder/repeated");
        let frame = Segment::syn(from, to).frame();
        for came in 1..=6 {
            lab.client
                .within(|| FrameSender::open(CLIENT_INTERFACE).send(&frame));
            until("it is judged", || {
                (seen() >= seen_before + came).then_some(())
            });
            // Its reset is on its way.
            thread::sleep(Duration::from_millis(20));
        }
        // What is owed would be sent after 1, 3 and 7 s.
        thread::sleep(Duration::from_secs(4));
        assert!(sent() <= before + 6);
        assert_eq!(agent.count("/answers/greeted"), greeted);
        assert_eq!(agent.count("/responder/repeated"), repeated);
    }
    agent.stop();
}
