//! TCP stacks that are challenged: each gets through a flood.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{net::IpAddr, os::fd::OwnedFd, time::Duration};

use nomail_tests::{
    agent::{Agent, on_host},
    flood::{
        answerable, flooded, is_greeting, limit_backlog, quit, route_to_everybody, strangers,
        sysctl, talk, until_answered,
    },
    lab::{CLIENT_INTERFACE, HOST_IPV4, HOST_IPV6, Lab},
    poll::until,
    root::Root,
    stacks::{self, LWIP_IPV6, ROUTER_IPV4, STACK_IPV4, TAP, forward_to_tap, start_lwip},
};
use socket2::{Domain, Socket, Type};

const ARGUMENTS: &str = "--syn-rate 1000";
/// Of the host's listeners.
const BACKLOG: u64 = 16;
/// Longest that a client here waits for a connection.
const PATIENCE: Duration = Duration::from_secs(8);

/// A host that challenges nearly everybody once there is a flood.
fn host() -> (Lab, OwnedFd, Agent) {
    let lab = Lab::new();
    route_to_everybody(&lab);
    limit_backlog(&lab.host, BACKLOG);
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, &on_host(ARGUMENTS));
    (lab, program, agent)
}

/// A flood to the address for as long as `work` goes on, and how many tuples
/// were proven meanwhile.
fn under_flood<T>(lab: &Lab, agent: &Agent, to: IpAddr, work: impl FnOnce() -> T) -> (T, u64) {
    let to = std::net::SocketAddr::new(to, 25).to_string();
    let before = agent.count("/answers/proven");
    let done = flooded(&lab.client, CLIENT_INTERFACE, &strangers(&to), || {
        until_answered(agent);
        work()
    });
    (done, agent.count("/answers/proven") - before)
}

/// Median and maximum, in words.
fn times(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    format!(
        "{} connections, established after {median:.1?} (median), {last:.1?} (last)",
        times.len()
    )
}

#[test]
fn linux_is_through_within_milliseconds() {
    const HONEST: u64 = 100;
    let (lab, _program, agent) = host();
    for (from, to) in [("192.0.2.100", HOST_IPV4), ("2001:db8::100", HOST_IPV6)] {
        let (served, proven) = under_flood(&lab, &agent, to.parse().unwrap(), || {
            lab.client.within(|| {
                (0..HONEST)
                    .map(|_| talk(from, to, PATIENCE).unwrap())
                    .collect::<Vec<_>>()
            })
        });
        assert!(
            served
                .iter()
                .all(|served| served.heard.contains("\r\n221 "))
        );
        // The others are those that the cap had room for.
        assert!(proven >= HONEST * 3 / 4, "{proven} of them were challenged");
        let established = served.iter().map(|served| served.established).collect();
        println!(
            "Linux, to {to}: {}, {proven} challenged",
            times(established)
        );
    }
}

#[test]
fn smoltcp_is_through() {
    const HONEST: u64 = 4;
    let (lab, _program, agent) = host();
    forward_to_tap(&lab);
    for to in [HOST_IPV4, HOST_IPV6] {
        let to: IpAddr = to.parse().unwrap();
        let (served, proven) = under_flood(&lab, &agent, to, || {
            lab.client.within(|| {
                (0..HONEST)
                    .map(|_| stacks::smoltcp(to, PATIENCE))
                    .collect::<Vec<_>>()
            })
        });
        assert!(
            served.iter().all(|spoken| is_greeting(&spoken.heard)),
            "{served:?}"
        );
        assert!(proven + 1 >= HONEST, "{proven} of them were challenged");
        let established = served.iter().map(|served| served.established.unwrap());
        println!(
            "smoltcp, to {to}: {}, {proven} challenged",
            times(established.collect())
        );
    }
}

#[test]
fn lwip_is_through() {
    const HONEST: u64 = 4;
    let root = Root::install("lwip", &["liblwip-dev"]);
    let (lab, _program, agent) = host();
    let more = format!(
        "export PRECONFIGURED_TAPIF={TAP}
        # The flood has its time: it says when.
        until ip address show dev lo | grep -q 127.0.0.4; do sleep 0.02; done
        ./lwip {STACK_IPV4} {ROUTER_IPV4} {HOST_IPV4} {HONEST} > ipv4
        until ip address show dev lo | grep -q 127.0.0.6; do sleep 0.02; done
        ./lwip {LWIP_IPV6} - {HOST_IPV6} {HONEST} > ipv6
        "
    );
    let mut lwip = start_lwip(&root, &lab, &more);
    for (to, name, signal) in [
        (HOST_IPV4, "ipv4", "127.0.0.4"),
        (HOST_IPV6, "ipv6", "127.0.0.6"),
    ] {
        let file = format!("/root/lwip/{name}");
        let ((), proven) = under_flood(&lab, &agent, to.parse().unwrap(), || {
            lab.client.ip(&format!("address add {signal}/8 dev lo"));
            lwip.line(&file, &["done"]);
        });
        let text = lwip.read(&file);
        let established: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("established after "))
            .map(|line| {
                let (ms, heard) = line.split_once(" ms: ").unwrap();
                assert!(is_greeting(heard), "{text}");
                Duration::from_secs_f64(ms.parse::<f64>().unwrap() / 1e3)
            })
            .collect();
        assert_eq!(established.len() as u64, HONEST, "{text}");
        assert!(proven >= HONEST * 3 / 4, "{proven} of them were challenged");
        println!("lwIP, to {to}: {}, {proven} challenged", times(established));
    }
}

/// A SYN may carry data (RFC 7413). The challenge leaves it out, and so does the
/// next SYN of Linux.
#[test]
fn linux_with_data_in_its_syn_is_through() {
    const HONEST: u64 = 20;
    /// Send data in a SYN also without a cookie.
    const CLIENT_WITHOUT_COOKIE: &str = "5";
    let (lab, _program, agent) = host();
    sysctl(&lab.client, "net/ipv4/tcp_fastopen", CLIENT_WITHOUT_COOKIE);
    let to = std::net::SocketAddr::new(HOST_IPV4.parse().unwrap(), 25);
    let (heard, proven) = under_flood(&lab, &agent, to.ip(), || {
        lab.client.within(|| {
            (0..HONEST)
                .map(|_| {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    let sent = socket
                        .send_to_with_flags(b"NOOP\r\n", &to.into(), libc::MSG_FASTOPEN)
                        .unwrap();
                    assert_eq!(sent, 6);
                    quit(socket).unwrap()
                })
                .collect::<Vec<_>>()
        })
    });
    println!(
        "Linux with data in its SYN: {} connections, {proven} challenged",
        heard.len()
    );
    for heard in &heard {
        assert!(is_greeting(heard) && heard.contains("\r\n221 "), "{heard}");
    }
    assert!(proven >= HONEST * 3 / 4, "{proven} of them were challenged");
}

/// SYNs with more than there has to be, or in pieces, as a flood: how the frames
/// are changed, and what becomes of all but a few.
const ODD: &[(&str, bool, Odd, Fate)] = &[
    (
        "IPv4, 64 octets of data",
        false,
        Odd::Data,
        Fate::Challenged,
    ),
    ("IPv6, 64 octets of data", true, Odd::Data, Fate::Challenged),
    (
        "IPv4, first fragment",
        false,
        Odd::FirstFragment,
        Fate::Malformed,
    ),
    (
        "IPv6, first fragment",
        true,
        Odd::FirstFragment,
        Fate::Malformed,
    ),
    (
        "IPv4, later fragment",
        false,
        Odd::LaterFragment,
        Fate::Unjudged,
    ),
    (
        "IPv6, later fragment",
        true,
        Odd::LaterFragment,
        Fate::Unjudged,
    ),
    (
        "IPv4, an option",
        false,
        Odd::Options(1),
        Fate::Unanswerable,
    ),
    (
        "IPv6, a header of options",
        true,
        Odd::Options(1),
        Fate::Unanswerable,
    ),
    (
        "IPv6, six headers of options",
        true,
        Odd::Options(6),
        Fate::Unanswerable,
    ),
    // More than are looked through: a known way around the guard.
    (
        "IPv6, seven headers of options",
        true,
        Odd::Options(7),
        Fate::Unjudged,
    ),
    (
        "IPv6, a fragment of one",
        true,
        Odd::AtomicFragment,
        Fate::Unanswerable,
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    Data,
    FirstFragment,
    LaterFragment,
    AtomicFragment,
    Options(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Challenged,
    /// Over the cap, and not to be answered: few are the kernel's, the rest is dropped.
    Unanswerable,
    Malformed,
    /// Given to the network stack.
    Unjudged,
}

impl Odd {
    fn apply(self, mut frame: Vec<u8>, ipv6: bool) -> Vec<u8> {
        const IPV4_OPTION_END: [u8; 4] = [1, 1, 1, 0];
        const IPV6_PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];
        const DESTINATION_OPTIONS: u8 = 60;
        const FRAGMENT: u8 = 44;
        const MORE: u8 = 1;
        const DATA: [u8; 64] = [b'x'; 64];
        let ip = 14;
        let transport = ip + if ipv6 { 40 } else { 20 };
        if self == Self::Data {
            frame.extend(DATA);
            // TCP's checksum is also of the data and their length.
            let checksum = [frame[transport + 16], frame[transport + 17]];
            let was = !u16::from_be_bytes(checksum);
            let is = !sum_of(&[&was.to_be_bytes()[..], &[0, DATA.len() as u8], &DATA].concat());
            frame[transport + 16..transport + 18].copy_from_slice(&is.to_be_bytes());
        }
        if ipv6 {
            let mut headers: Vec<u8> = Vec::new();
            let mut prepend = |kind: u8, rest: [u8; 6]| {
                let next = std::mem::replace(&mut frame[ip + 6], kind);
                headers.splice(0..0, [&[next, 0][..], &rest].concat());
            };
            match self {
                Self::Options(number) => {
                    (0..number).for_each(|_| prepend(DESTINATION_OPTIONS, IPV6_PADDING));
                }
                Self::FirstFragment => prepend(FRAGMENT, [0, MORE, 1, 2, 3, 4]),
                Self::LaterFragment => prepend(FRAGMENT, [1, MORE, 1, 2, 3, 4]),
                Self::AtomicFragment => prepend(FRAGMENT, [0, 0, 1, 2, 3, 4]),
                Self::Data => {}
            }
            frame.splice(transport..transport, headers);
            let length = (frame.len() - ip - 40) as u16;
            frame[ip + 4..ip + 6].copy_from_slice(&length.to_be_bytes());
        } else {
            match self {
                Self::Options(_) => {
                    frame.splice(transport..transport, IPV4_OPTION_END);
                    frame[ip] = 0x46;
                }
                Self::FirstFragment => frame[ip + 6..ip + 8].copy_from_slice(&[0x20, 0]),
                Self::LaterFragment => frame[ip + 6..ip + 8].copy_from_slice(&[0x20, 100]),
                Self::Data | Self::AtomicFragment => {}
            }
            let length = (frame.len() - ip) as u16;
            frame[ip + 2..ip + 4].copy_from_slice(&length.to_be_bytes());
            let end = ip + usize::from(frame[ip] & 0x0f) * 4;
            frame[ip + 10..ip + 12].fill(0);
            let sum = sum_of(&frame[ip..end]);
            frame[ip + 10..ip + 12].copy_from_slice(&(!sum).to_be_bytes());
        }
        frame
    }
}

/// The one's complement sum (RFC 1071).
fn sum_of(octets: &[u8]) -> u16 {
    let words = octets.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Counters that the rows of [`ODD`] tell apart.
#[derive(Clone, Copy, Debug)]
struct Counts {
    total: u64,
    passed: u64,
    malformed: u64,
    flood: u64,
    challenge: u64,
    unanswerable: u64,
    dropped: u64,
}

impl Counts {
    fn of(agent: &Agent) -> Self {
        let status = agent.status();
        let count = |pointer: &str| status.pointer(pointer).unwrap().as_u64().unwrap();
        Self {
            total: count("/syn/total"),
            passed: count("/syn/passed"),
            malformed: count("/syn/malformed"),
            flood: count("/syn/flood"),
            challenge: count("/answers/challenge"),
            unanswerable: count("/answers/unanswerable"),
            dropped: count("/answers/unanswerable_dropped"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            total: self.total - before.total,
            passed: self.passed - before.passed,
            malformed: self.malformed - before.malformed,
            flood: self.flood - before.flood,
            challenge: self.challenge - before.challenge,
            unanswerable: self.unanswerable - before.unanswerable,
            dropped: self.dropped - before.dropped,
        }
    }
}

#[test]
fn odd_syns_have_their_verdicts_and_the_honest_are_through() {
    const HONEST: u64 = 20;
    /// SYNs that the honest may have sent: each is challenged once or twice.
    const HONEST_SYNS: u64 = HONEST * 4;
    const MANY: u64 = 1000;
    let (lab, _program, agent) = host();
    // All of them share one small bucket.
    let mut left_to_kernel = 0;
    for &(name, ipv6, odd, fate) in ODD {
        let (from, to, target) = if ipv6 {
            ("2001:db8::100", HOST_IPV6, "[2001:db8::1]:25")
        } else {
            ("192.0.2.100", HOST_IPV4, "192.0.2.1:25")
        };
        let frames: Vec<_> = strangers(target)
            .into_iter()
            .map(|frame| odd.apply(frame, ipv6))
            .collect();
        let before = Counts::of(&agent);
        let begun = std::time::Instant::now();
        let served = flooded(&lab.client, CLIENT_INTERFACE, &frames, || {
            until("the flood is judged", || {
                let counts = Counts::of(&agent).since(before);
                let enough = counts.total > MANY || fate == Fate::Unjudged;
                enough.then_some(())
            });
            lab.client.within(|| {
                (0..HONEST)
                    .filter(|_| talk(from, to, PATIENCE).is_ok_and(|talk| is_greeting(&talk.heard)))
                    .count()
            })
        });
        let counts = Counts::of(&agent).since(before);
        println!("{name}: {served} of {HONEST} served, {counts:?}");
        assert_eq!(served as u64, HONEST, "{name}");
        let cap = BACKLOG / 2 + BACKLOG / 8 * (begun.elapsed().as_secs() + 1);
        assert!(counts.passed <= cap + HONEST_SYNS, "{name}");
        let [challenge, unanswerable, malformed] =
            [counts.challenge, counts.unanswerable, counts.malformed];
        match fate {
            Fate::Challenged => {
                assert!(challenge > MANY, "{name}");
                assert_eq!((unanswerable, malformed), (0, 0), "{name}");
                assert_eq!(challenge, counts.flood, "{name}");
            }
            Fate::Unanswerable => {
                assert!(counts.dropped > MANY / 2, "{name}");
                assert!(unanswerable <= cap, "{name}");
                left_to_kernel += unanswerable;
                assert!(challenge <= HONEST_SYNS && malformed == 0, "{name}");
            }
            Fate::Malformed => {
                assert!(malformed > MANY, "{name}");
                assert!(challenge <= HONEST_SYNS && unanswerable == 0, "{name}");
            }
            Fate::Unjudged => assert!(counts.total <= HONEST_SYNS, "{name}"),
        }
    }
    assert!(left_to_kernel > 0);
}
