//! What the other traffic of a host keeps of its rate: bulk TCP and UDP to and from
//! other ports, over a veth pair with its offloads as they are by default.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use nomail_tests::{
    agent::Agent,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab, Namespace, succeeded},
    rig::pin,
};

use crate::median;

const PORT: u16 = 5001;
/// Octets of a datagram: a frame of the usual 1500.
const DATAGRAM: usize = 1472;
/// The mode of XDP; none for no agent at all.
const WAYS: [Option<&str>; 3] = [None, Some("native"), Some("generic")];

/// The rates of one round, in Gbit/s.
struct Rates([f64; KINDS.len()]);

const KINDS: [&str; 3] = ["TCP to the host", "TCP from the host", "UDP to the host"];

pub(crate) fn print(quick: bool) {
    let (rounds, length) = if quick {
        (2, Duration::from_millis(500))
    } else {
        (9, Duration::from_secs(1))
    };
    let mut rates: [Vec<Rates>; WAYS.len()] = Default::default();
    let mut gone: [BTreeSet<String>; WAYS.len()] = Default::default();
    for _ in 0..rounds {
        for (index, way) in WAYS.into_iter().enumerate() {
            let (measured, off) = round(way, length);
            rates[index].push(measured);
            gone[index].extend(off);
        }
    }
    println!("\n## Bulk traffic of others, over a veth pair with its default offloads\n");
    println!(
        "| traffic | agent absent, Gbit/s (least to most) | native | to absent | generic | to absent |"
    );
    println!("|---|---|---|---|---|---|");
    for (kind, name) in KINDS.into_iter().enumerate() {
        let [absent, native, generic] = [0, 1, 2].map(|way| {
            let mut all: Vec<f64> = rates[way].iter().map(|rates| rates.0[kind]).collect();
            let middle = median(&mut all);
            let shown = format!("{middle:.2} ({:.2} to {:.2})", all[0], all[all.len() - 1]);
            (middle, shown)
        });
        println!(
            "| {name} | {} | {} | {:.2} | {} | {:.2} |",
            absent.1,
            native.1,
            native.0 / absent.0,
            generic.1,
            generic.0 / absent.0
        );
    }
    println!(
        "\nMedian of {rounds} rounds of {:.1} s. Sender and receiver have a CPU each. UDP: what was \
         received, in datagrams of {DATAGRAM} octets; the sender sends as many as it can.\n",
        length.as_secs_f64()
    );
    for (way, gone) in WAYS.into_iter().zip(gone) {
        if let Some(mode) = way {
            let gone: Vec<String> = gone.into_iter().collect();
            let gone = if gone.is_empty() {
                "none".to_owned()
            } else {
                gone.join(", ")
            };
            println!(
                "- Offloads that attaching in {mode} mode switched off, at either end: {gone}."
            );
        }
    }
}

/// The rates, and the offloads that were switched off.
fn round(way: Option<&str>, length: Duration) -> (Rates, Vec<String>) {
    let lab = Lab::new();
    let before = offloads(&lab);
    let agent = way.map(|mode| {
        let arguments = [
            "--iface",
            HOST_INTERFACE,
            "--hostname",
            "mailless.example.org",
            "--xdp-mode",
            mode,
        ];
        Agent::start(&lab.host, &arguments)
    });
    let after = offloads(&lab);
    let rates = Rates([
        tcp(&lab, length, Direction::ToHost),
        tcp(&lab, length, Direction::FromHost),
        udp(&lab, length),
    ]);
    if let Some(agent) = agent {
        assert_eq!(agent.count("/syn/total"), 0, "none of it is ours");
        agent.stop();
    }
    (rates, before.difference(&after).cloned().collect())
}

/// The offloads that are on, with the interface that has them.
fn offloads(lab: &Lab) -> BTreeSet<String> {
    let ends = [(&lab.host, HOST_INTERFACE), (&lab.client, CLIENT_INTERFACE)];
    ends.into_iter()
        .flat_map(|(namespace, interface)| on(namespace, interface))
        .collect()
}

fn on(namespace: &Namespace, interface: &str) -> Vec<String> {
    let mut ethtool = namespace.command("ethtool");
    ethtool.args(["-k", interface]);
    let printed = succeeded("ethtool -k", &ethtool.output().unwrap());
    let lines = printed.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(": ")?;
        let is_on = value == "on" || value.starts_with("on ");
        is_on.then(|| format!("{name} ({interface})"))
    });
    lines.collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToHost,
    FromHost,
}

/// Gbit/s that the receiver read.
fn tcp(lab: &Lab, length: Duration, direction: Direction) -> f64 {
    let listener = lab
        .host
        .within(|| TcpListener::bind((HOST_IPV4, PORT)).unwrap());
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            pin(0, 1);
            let (stream, _) = listener.accept().unwrap();
            carry(stream, length, direction == Direction::FromHost)
        });
        let client = scope.spawn(|| {
            lab.client.within(|| {
                pin(0, 0);
                let stream = TcpStream::connect((HOST_IPV4, PORT)).unwrap();
                carry(stream, length, direction == Direction::ToHost)
            })
        });
        host.join().unwrap() + client.join().unwrap()
    })
}

/// Sends for that long, or receives until the other has done so: then the Gbit/s.
fn carry(mut stream: TcpStream, length: Duration, is_sender: bool) -> f64 {
    let mut room = vec![0; 128 * 1024];
    let start = Instant::now();
    if is_sender {
        while start.elapsed() < length {
            stream.write_all(&room).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        return 0.0;
    }
    let mut octets = 0;
    loop {
        match stream.read(&mut room).unwrap() {
            0 => return gigabits(octets, start.elapsed()),
            read => octets += read,
        }
    }
}

/// Gbit/s that the receiver got.
fn udp(lab: &Lab, length: Duration) -> f64 {
    let socket = lab
        .host
        .within(|| UdpSocket::bind((HOST_IPV4, PORT)).unwrap());
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            pin(0, 1);
            let mut room = [0; 2048];
            // From the first one on, until there are no more.
            let mut begun = None;
            let mut last = Instant::now();
            let mut octets = 0;
            loop {
                match socket.recv(&mut room) {
                    Ok(read) => {
                        last = Instant::now();
                        begun.get_or_insert(last);
                        octets += read;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => match begun {
                        Some(begun) => return gigabits(octets, last - begun),
                        None => continue,
                    },
                    Err(error) => panic!("{error}"),
                }
            }
        });
        lab.client.within(|| {
            pin(0, 0);
            let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
            sender.connect((HOST_IPV4, PORT)).unwrap();
            let start = Instant::now();
            while start.elapsed() < length {
                // A full queue is no error here.
                let _ = sender.send(&[0; DATAGRAM]);
            }
        });
        receiver.join().unwrap()
    })
}

fn gigabits(octets: usize, time: Duration) -> f64 {
    octets as f64 * 8.0 / 1e9 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}
