//! The paths: frames, and what has to be there before each. Every one is checked to be what
//! it is called, by its action and by what was counted.

use std::{
    collections::BTreeSet, fmt::Debug, mem::offset_of, net::IpAddr, slice, str::FromStr, sync::Arc,
};

use ipnet::{IpNet, Ipv6Net};
use nomail_agent::guard::{ListWords, Lists, Policy, Rate};
use nomail_common::{
    abi::{self, Active, Counters, MAX_PORTS, Texts},
    counted::Counted as _,
    guard::{policy::FloodAnswer, tickets::TICKET_SYNS},
    verdict::{
        Answer::{self, Challenge, Cookie, Goodbye, Greeting, Proven, Stateless},
        Verdict::{self, Denied, Flood, LimitedPrefix, LimitedSource, Malformed, Passed, Replayed},
    },
};
use nomail_tests::{
    agent::{GOODBYE, GREETING, REFUSAL},
    frames::{ACK, ETHERNET_LENGTH, FIN, PSH, RST, SYN, Segment},
    program::{self, TIGHT, WIDE, XDP_DROP, XDP_PASS, XDP_TX, from_port, reset_for, tcp},
    record::Row,
};

use crate::interpreter::{Interpreter, PathCost};

/// What Linux puts into a SYN: segment size, selective acknowledgments, time, window scale.
const OPTIONS: [u8; 20] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// The secrets of the program.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
/// The seed of the tables in the configuration.
const TABLE_SEED: u64 = 0xd1b5_4a32_d192_ed03;

/// The action for a frame, and what is counted.
pub(crate) type Outcome = (u32, Option<Verdict>, &'static [Answer]);

pub(crate) const UNTOUCHED: Outcome = (XDP_PASS, None, &[]);
pub(crate) const ADMITTED: Outcome = (XDP_PASS, Some(Passed), &[]);
pub(crate) const PROVEN: Outcome = (XDP_DROP, None, &[Proven]);

pub(crate) const fn dropped(verdict: Verdict) -> Outcome {
    (XDP_DROP, Some(verdict), &[])
}

pub(crate) const fn challenged(verdict: Verdict) -> Outcome {
    (XDP_TX, Some(verdict), &[Challenge])
}

const fn sent(answers: &'static [Answer]) -> Outcome {
    (XDP_TX, None, answers)
}

/// Under this cap the first SYN passes, and no other.
pub(crate) const FLOODED: Option<Rate> = Some(TIGHT);

/// A SYN of an IP family, and the rows.
pub(crate) struct Paths {
    pub(crate) family: &'static str,
    pub(crate) syn: Segment,
    /// A long deny list of both families.
    long: Arc<Lists>,
    object: Vec<u8>,
    rows: Vec<Row>,
}

/// A program with a policy in force, and the rows.
pub(crate) struct InterpretedGuard<'a> {
    interpreter: Interpreter,
    family: &'static str,
    rows: &'a mut Vec<Row>,
}

/// Runs all paths of both families.
pub(crate) fn measure(object: &[u8]) -> Vec<Row> {
    let measured = Paths::of_families(object)
        .into_iter()
        .flat_map(|mut paths| {
            paths.other_traffic();
            paths.lists();
            paths.limits();
            paths.challenges();
            paths.cookies();
            paths.stateless();
            paths.fallback();
            paths.rows
        });
    measured.collect()
}

impl Paths {
    /// Those of IPv4 and of IPv6, without rows yet.
    pub(crate) fn of_families(object: &[u8]) -> [Self; 2] {
        let long = long_lists();
        [("IPv4", program::ipv4()), ("IPv6", program::ipv6())].map(|(family, syn)| Self {
            family,
            syn,
            long: Arc::clone(&long),
            object: object.to_vec(),
            rows: Vec::new(),
        })
    }

    fn other_traffic(&mut self) {
        let (syn, ack) = (self.syn, flagged(self.syn, ACK));
        let (mut udp, mut port, mut address) = (syn.frame(), syn, syn);
        udp[ETHERNET_LENGTH + if syn.source.is_ipv4() { 9 } else { 6 }] = 17;
        port.destination.set_port(443);
        address.destination = self.pick("192.0.2.9:25", "[2001:db8::9]:25");
        let mut guard = self.guard(|_| {});
        guard.path("UDP", &udp, UNTOUCHED);
        guard.path("TCP ACK to 25", &ack.frame(), UNTOUCHED);
        guard.path(
            "TCP ACK behind two VLAN tags",
            &tagged(ack).frame(),
            UNTOUCHED,
        );
        guard.path("SYN to another port", &full(port), UNTOUCHED);
        guard.path("SYN to another address", &full(address), UNTOUCHED);
        let malformed = full(flagged(syn, SYN | FIN));
        guard.path("malformed SYN", &malformed, dropped(Malformed));
        let reset = flagged(syn, RST).frame();
        guard.path("RST that proves nothing", &reset, UNTOUCHED);
        guard.path("SYN passes, source new", &full(syn), ADMITTED);
        guard.path("SYN passes, source known", &full(syn), ADMITTED);
        guard.path(
            "SYN passes behind two VLAN tags",
            &full(tagged(syn)),
            ADMITTED,
        );
    }

    fn lists(&mut self) {
        let syn = full(self.syn);
        let listed: IpNet = self.pick("198.51.100.0/24", "2001:db8:1::/48");
        let other: IpNet = self.pick("203.0.113.0/24", "2001:db8:3::/48");
        let with = |allow: IpNet, deny: IpNet| {
            let (allow, deny) = (Arc::from([allow]), Arc::from([deny]));
            move |policy: &mut Policy| policy.lists = Arc::new(Lists { allow, deny })
        };
        let mut guard = self.guard(with(other, listed));
        guard.path("SYN denied by list", &syn, dropped(Denied));
        let mut guard = self.guard(with(listed, other));
        guard.path("SYN allowed by list", &syn, ADMITTED);
        let mut guard = self.guard(with(other, other));
        guard.admit(&syn);
        guard.path("SYN passes, on no list", &syn, ADMITTED);
        let long = Arc::clone(&self.long);
        let mut guard = self.guard(|policy| policy.lists = long);
        guard.admit(&syn);
        let name = "SYN passes, deny list of 100,000";
        guard.path(name, &syn, ADMITTED);
    }

    fn limits(&mut self) {
        let syn = full(self.syn);
        let mut guard = self.guard(|policy| policy.source = TIGHT);
        guard.admit(&syn);
        guard.path("SYN over its bucket", &syn, challenged(LimitedSource));
        let mut guard = self.guard(|policy| policy.prefix = Some(Rate { rate: 1, burst: 2 }));
        guard.admit(&syn);
        guard.path("SYN passes, prefix limited", &syn, ADMITTED);
        guard.path(
            "SYN over its prefix's bucket",
            &syn,
            challenged(LimitedPrefix),
        );
        let mut guard = self.guard(|policy| {
            policy.cap = FLOODED;
            policy.flood_answer = FloodAnswer::Drop;
        });
        guard.admit(&syn);
        guard.path("SYN over the cap, dropped", &syn, dropped(Flood));
        let mut guard = self.guard(|policy| {
            policy.cap = FLOODED;
            policy.observe = true;
        });
        guard.admit(&syn);
        let counted = (XDP_PASS, Some(Flood), &[] as &[_]);
        guard.path("SYN over the cap, observed", &syn, counted);
    }

    fn challenges(&mut self) {
        let (syn, other) = (self.syn, from_port(self.syn, 40_001));
        let (frame, other_frame) = (full(syn), full(other));
        let mut guard = self.guard(|policy| policy.cap = FLOODED);
        guard.admit(&other_frame);
        let name = "SYN challenged, no proof alive";
        let challenge = guard.path(name, &frame, challenged(Flood));
        guard.path("RST that proves", &reset_for(syn, &challenge), PROVEN);
        guard.path(
            "SYN challenged, proofs alive",
            &other_frame,
            challenged(Flood),
        );
        guard.path("SYN proven", &frame, ADMITTED);
        guard.path("SYN proven, repeated", &frame, ADMITTED);
        for _ in 2..TICKET_SYNS {
            guard.admit(&frame);
        }
        guard.path("SYN proven, ticket spent", &frame, dropped(Replayed));
        let mut guard = self.guard(|policy| (policy.cap, policy.source) = (FLOODED, TIGHT));
        guard.admit(&other_frame);
        guard.prove(syn, LimitedSource);
        guard.admit(&frame);
        guard.prove(other, LimitedSource);
        let name = "SYN proven, over its bucket";
        guard.path(name, &other_frame, dropped(LimitedSource));
    }

    fn cookies(&mut self) {
        let syn = full(self.syn);
        let mut guard = self.guard(|policy| policy.flood_answer = FloodAnswer::Cookie);
        let cookie = (XDP_TX, Some(Flood), &[Cookie] as &[_]);
        guard.path("SYN cookie, first of a jiffy", &syn, cookie);
        guard.path("SYN cookie", &syn, cookie);
    }

    fn stateless(&mut self) {
        let (syn, ehlo, quit) = (self.syn, "EHLO client.example.org\r\n", "QUIT\r\n");
        let segment = |flags, behind: usize, acknowledgment, text: &str| {
            let mut segment = flagged(syn, flags);
            segment.sequence = syn.sequence.wrapping_add(behind as u32);
            segment.frame_with(acknowledgment, &[], text.as_bytes())
        };
        let mut guard = self.guard(|policy| policy.responder = texts());
        guard.path("stateless: foreign ACK", &segment(ACK, 1, 1, ""), UNTOUCHED);
        guard.prove(syn, Passed);
        let opened = (XDP_TX, Some(Passed), &[Stateless] as &[_]);
        let answer = guard.path("stateless: SYN proven", &full(syn), opened);
        let here = tcp(&answer).sequence_number.wrapping_add(1);
        let frame = segment(SYN | ACK, 0, here, "");
        let name = "stateless: ACK of the handshake, greeted";
        guard.path(name, &frame, sent(&[Stateless, Greeting]));
        let there = here.wrapping_add(GREETING.len() as u32);
        let (frame, silent) = (segment(ACK, 1, there, ""), (XDP_DROP, None, &[] as &[_]));
        guard.path("stateless: ACK of the greeting", &frame, silent);
        let frame = segment(ACK | PSH, 1, there, ehlo);
        guard.path("stateless: EHLO, refused", &frame, sent(&[Stateless]));
        let (at, then) = (1 + ehlo.len(), there.wrapping_add(REFUSAL.len() as u32));
        let frame = segment(ACK | PSH, at, then, quit);
        let name = "stateless: QUIT, closed";
        guard.path(name, &frame, sent(&[Stateless, Goodbye]));
        let over = then.wrapping_add(GOODBYE.len() as u32 + 1);
        let frame = segment(ACK | FIN, at + quit.len(), over, "");
        guard.path("stateless: FIN", &frame, sent(&[Stateless]));
    }

    /// While listeners serve whose place the stateless refusal would take.
    fn fallback(&mut self) {
        let (syn, ack) = (full(self.syn), flagged(self.syn, ACK).frame());
        let mut guard = self.guard(|policy| {
            policy.responder = texts();
            policy.fallback = true;
        });
        let memory = &mut guard.interpreter.memory;
        let lease = memory.jiffies as u32 + memory.hz;
        memory.write(abi::LEASE_MAP, 0, bytes_of(&lease));
        guard.path("fallback: TCP ACK to 25", &ack, UNTOUCHED);
        guard.admit(&syn);
        guard.path("fallback: SYN passes", &syn, ADMITTED);
    }

    /// One of two values, by family.
    fn pick<T: FromStr<Err: Debug>>(&self, ipv4: &str, ipv6: &str) -> T {
        let text = if self.syn.source.is_ipv4() {
            ipv4
        } else {
            ipv6
        };
        text.parse().unwrap()
    }

    /// The program with a policy, its maps as the agent writes them. Bucket, cap and
    /// challenge are in use, if `change` leaves them.
    pub(crate) fn guard(&mut self, change: impl FnOnce(&mut Policy)) -> InterpretedGuard<'_> {
        let mut policy = program::policy();
        policy.cap = Some(WIDE);
        change(&mut policy);
        let mut ports = [0_u16; MAX_PORTS];
        ports[0] = self.syn.destination.port();
        let responder = u32::from(policy.responder.is_some());
        let globals = [
            (abi::PORTS_GLOBAL, bytes_of(&ports)),
            (abi::SEED_GLOBAL, bytes_of(&SEED)),
            (abi::KEY_GLOBAL, bytes_of(&KEY)),
            (abi::RESPONDER_GLOBAL, bytes_of(&responder)),
        ];
        let mut interpreter = Interpreter::new(&self.object, &globals);
        let memory = &mut interpreter.memory;
        let mut config = policy.config(memory.hz).unwrap();
        // The agent takes the pairs in any order, and a seed at random.
        let mut pairs = config.guarded.to_vec();
        pairs.retain(|pair| pair.port != 0);
        pairs.sort_by_key(|pair| pair.address.high);
        let own: Vec<_> = pairs.iter().map(|pair| pair.address).collect();
        assert!(config.set_guarded(&pairs, [TABLE_SEED].into_iter()));
        assert!(config.set_own(&own, [TABLE_SEED].into_iter()));
        let words = ListWords::of(Arc::clone(&policy.lists)).unwrap();
        config.lists = words.filled();
        memory.set_map(abi::LISTS_MAP, 0, words.pages());
        memory.write(abi::CONFIG_MAP, 0, bytes_of(&*config));
        let active = Active::from_word(0);
        memory.write(abi::ACTIVE_MAP, 0, bytes_of(&active.word()));
        if let Some(texts) = &policy.responder {
            memory.write(abi::TEXTS_MAP, 0, bytes_of(texts));
            memory.set_program(abi::RESPONDERS_MAP, 0, abi::RESPONDER_PROGRAM);
        }
        InterpretedGuard {
            interpreter,
            family: self.family,
            rows: &mut self.rows,
        }
    }
}

impl InterpretedGuard<'_> {
    /// Runs a path, and adds its row. Returns the frame afterwards.
    #[track_caller]
    fn path(&mut self, name: &str, frame: &[u8], outcome: Outcome) -> Vec<u8> {
        let name = format!("{} {name}", self.family);
        let (after, cost) = self.run(&name, frame, outcome);
        let lines = cost.shared_lines.len() as u64;
        let [instructions, calls] = [cost.instructions, cost.calls];
        let figures = vec![instructions, calls, cost.helpers, cost.atomics, lines];
        self.rows.push((name, figures));
        after
    }

    /// Runs the program on a frame, and checks what comes of it. Returns the frame
    /// afterwards, and the cost.
    #[track_caller]
    pub(crate) fn run(
        &mut self,
        name: &str,
        frame: &[u8],
        outcome: Outcome,
    ) -> (Vec<u8>, PathCost) {
        let (expected_action, verdict, answers) = outcome;
        let before = self.counters();
        let (action, after, cost) = self.interpreter.run(abi::PROGRAM, frame);
        let added = self.counters().into_iter().zip(before);
        let added: Vec<_> = added.map(|(after, before)| after - before).collect();
        let mut expected = vec![0; added.len()];
        if let Some(verdict) = verdict {
            expected[verdict as usize] += 1;
        }
        for &answer in answers {
            expected[Verdict::COUNT + answer as usize] += 1;
        }
        assert_eq!((action, added), (expected_action, expected), "{name}");
        (after, cost)
    }

    /// Lines by the names of their maps.
    pub(crate) fn named(&self, lines: &BTreeSet<(u64, u64)>) -> BTreeSet<(String, u64)> {
        let name = |region| self.interpreter.memory.map_of(region).to_owned();
        lines
            .iter()
            .map(|&(region, line)| (name(region), line))
            .collect()
    }

    /// Verdicts and answers of the first interface.
    fn counters(&mut self) -> Vec<u64> {
        const { assert!(offset_of!(Counters, answers) == 8 * Verdict::COUNT) };
        let counters = self.interpreter.memory.read(abi::COUNTERS_MAP, 1);
        let words = counters.as_chunks().0.iter();
        let words = words.map(|&word| u64::from_ne_bytes(word));
        words.take(Verdict::COUNT + Answer::COUNT).collect()
    }

    #[track_caller]
    pub(crate) fn admit(&mut self, syn: &[u8]) {
        self.run("a SYN before", syn, ADMITTED);
    }

    /// Has the tuple of a SYN challenged, with this verdict, and answers.
    #[track_caller]
    pub(crate) fn prove(&mut self, syn: Segment, verdict: Verdict) {
        let (challenge, _) = self.run("a challenge before", &full(syn), challenged(verdict));
        self.run("a proof before", &reset_for(syn, &challenge), PROVEN);
    }
}

/// Denies 100,000 addresses of IPv4 and as many /64s of `2000::/3`, which look random.
fn long_lists() -> Arc<Lists> {
    let mut deny = BTreeSet::new();
    for number in 1..=100_000_u64 {
        let bits = number.wrapping_mul(SEED);
        deny.insert(IpNet::from(IpAddr::V4(((bits >> 32) as u32).into())));
        let upper = 1 << 61 | bits >> 3;
        let address = (u128::from(upper) << 64).into();
        deny.insert(IpNet::V6(Ipv6Net::new_assert(address, 64)));
    }
    Arc::new(Lists {
        deny: deny.into_iter().collect(),
        ..Lists::default()
    })
}

fn texts() -> Option<Texts> {
    let [greeting, refusal, goodbye] = [GREETING, REFUSAL, GOODBYE].map(str::as_bytes);
    Texts::new(greeting, refusal, goodbye)
}

pub(crate) fn flagged(segment: Segment, flags: u8) -> Segment {
    Segment { flags, ..segment }
}

fn tagged(mut segment: Segment) -> Segment {
    segment.vlan_tags = 2;
    segment
}

/// The frame of a SYN with the options that clients send.
pub(crate) fn full(syn: Segment) -> Vec<u8> {
    syn.frame_with(0, &OPTIONS, &[])
}

/// The bytes of a value as a map holds it.
fn bytes_of<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: `Pod` has no padding, and the slice borrows the value.
    unsafe { slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
