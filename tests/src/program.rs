//! The XDP program in test runs (BPF_PROG_TEST_RUN), and the policies of the tests.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use etherparse::{PacketHeaders, TcpHeader, TransportHeader};
use nomail_agent::guard::{Guard, GuardedInterface, Policy, Rate};
use nomail_common::{
    guard::policy::FloodAnswer,
    verdict::{Answer, Verdict},
};

use crate::frames::{RST, Segment};

/// The actions of an XDP program.
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_PASS: u32 = 2;
/// See [`XDP_DROP`].
pub const XDP_TX: u32 = 3;

/// The interface that a test run claims to come from.
pub const LOOPBACK_INDEX: u32 = 1;
/// Where the frames of [`Segment`] go.
pub const HOST_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Where they come from.
pub const CLIENT_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Under this rate, a bucket that was charged once is over for a second.
pub const TIGHT: Rate = Rate { rate: 1, burst: 1 };
/// Under this rate no bucket of a test is over, whatever a second's debt.
pub const WIDE: Rate = Rate {
    rate: 10_000,
    burst: 20_000,
};

/// A policy that guards port 25 of 192.0.2.7 and 2001:db8::7 and limits nothing.
pub fn policy() -> Policy {
    guarding(&["192.0.2.7:25", "[2001:db8::7]:25"])
}

/// A policy that guards these pairs, can answer for each, and limits nothing.
///
/// # Panics
/// When one is no address and port.
pub fn guarding(pairs: &[&str]) -> Policy {
    let pair = |pair: &&str| {
        let pair: SocketAddr = pair.parse().expect("an address and a port");
        (pair.ip(), pair.port())
    };
    let guarded: HashSet<(IpAddr, u16)> = pairs.iter().map(pair).collect();
    Policy {
        source: WIDE,
        prefix: None,
        cap: None,
        flood_answer: FloodAnswer::Challenge,
        answerable: guarded.iter().map(|(address, _)| *address).collect(),
        own: HashSet::new(),
        lists: Arc::default(),
        responder: None,
        fallback: false,
        observe: false,
        interfaces: vec![GuardedInterface {
            index: LOOPBACK_INDEX,
            hardware: HOST_HARDWARE,
            ..GuardedInterface::default()
        }],
        guarded,
    }
}

/// The program with a policy, attached nowhere; with the responder if the policy has one.
///
/// # Panics
/// When the kernel does not take it.
pub fn guard(policy: &Policy) -> Guard {
    #[cfg(feature = "trace")]
    show_trace();
    let ports = policy.guarded.iter().map(|(_, port)| *port).collect();
    let loaded = match policy.responder {
        Some(_) => Guard::load_responder(&ports),
        None => Guard::load(&ports),
    };
    let mut guard = loaded.expect("the kernel takes the program");
    guard.configure(policy).expect("a policy within the bounds");
    guard
}

/// Has tests print each step of their segments; not again, and not where the test has a log of
/// its own.
#[cfg(feature = "trace")]
fn show_trace() {
    use std::io::Write as _;
    let _ = env_logger::builder()
        .is_test(true)
        .filter_module("nomail_ebpf", log::LevelFilter::Trace)
        .format(|out, record| writeln!(out, "{}", record.args()))
        .try_init();
}

/// The action for one frame.
///
/// # Panics
/// When it cannot be run.
pub fn run(guard: &Guard, frame: &[u8]) -> u32 {
    guard.test_run(frame, 1).expect("a test run").0
}

/// How often a verdict was given.
///
/// # Panics
/// When the counters cannot be read.
pub fn verdicts(guard: &Guard, verdict: Verdict) -> u64 {
    guard.counters(Some(0)).expect("counters").verdicts[verdict as usize]
}

/// How often XDP answered so.
///
/// # Panics
/// When the counters cannot be read.
pub fn answers(guard: &Guard, answer: Answer) -> u64 {
    guard.counters(Some(0)).expect("counters").answers[answer as usize]
}

/// The TCP header of a frame.
///
/// # Panics
/// Without one.
pub fn tcp(frame: &[u8]) -> TcpHeader {
    let packet = PacketHeaders::from_ethernet_slice(frame).expect("an Ethernet frame");
    let Some(TransportHeader::Tcp(tcp)) = packet.transport else {
        panic!("no TCP in {frame:?}");
    };
    tcp
}

/// The RST with which the client answers a challenge: its acknowledgment becomes the
/// sequence.
pub fn reset_for(segment: Segment, challenge: &[u8]) -> Vec<u8> {
    let reset = Segment {
        flags: RST,
        sequence: tcp(challenge).acknowledgment_number,
        ..segment
    };
    reset.frame()
}

/// Proves the tuple of a SYN: it is challenged, and the client answers.
///
/// # Panics
/// When it is not challenged, or the answer is not taken.
#[track_caller]
pub fn prove(guard: &mut Guard, segment: Segment) {
    let (action, challenge) = guard.test_answer(&segment.frame()).expect("a test run");
    assert_eq!(action, XDP_TX, "{segment:?}");
    assert_eq!(run(guard, &reset_for(segment, &challenge)), XDP_DROP);
}

/// A SYN of an IPv4 client to [`policy`]'s host.
pub fn ipv4() -> Segment {
    Segment::syn("198.51.100.1:40000", "192.0.2.7:25")
}

/// A SYN of an IPv6 client to [`policy`]'s host.
pub fn ipv6() -> Segment {
    Segment::syn("[2001:db8:1::1]:40000", "[2001:db8::7]:25")
}

/// The segment from another port.
#[must_use]
pub fn from_port(mut segment: Segment, port: u16) -> Segment {
    segment.source.set_port(port);
    segment
}
