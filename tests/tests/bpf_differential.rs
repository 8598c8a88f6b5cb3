//! Differential test: random packets through the loaded program by
//! BPF_PROG_TEST_RUN, and through a model of the host. Action, verdict, answers,
//! evictions, each octet of what comes out, and the table of sources have to be the
//! same.
//!
//! The model is made of `nomail-common`'s own functions over memory of its own:
//! `packet::parse`, `policy::decide`, the stores. So what is compared is the plumbing
//! around them: what the compiler and the verifier made of them, maps, look-ups,
//! lists, the frame that is written. What is guarded, answerable and listed the model
//! knows in other ways (a set, a loop), and a frame that was left as it was built has
//! to be what etherparse says it is.
//!
//! Packets come in rounds, each with a policy and sources of its own. A round is over
//! before a bucket has got a SYN back, so that time plays no role; one that was not
//! is forgotten, and all begins anew.
//!
//! `NOMAIL_DIFFERENTIAL_PACKETS` says how many packets, `NOMAIL_DIFFERENTIAL_SEED`
//! which.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    env, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use etherparse::{
    NetSlice, PacketBuilder, PacketHeaders, SlicedPacket, TcpSlice, TransportHeader, TransportSlice,
};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use nomail_agent::guard::{Guard, GuardedInterface, Lists, Policy, Rate};
use nomail_common::{
    abi::{
        Counters, LINES, MAX_PORTS, PREFIX_LINES, PROVEN_LINES, SLOTS_PER_LINE, TICKET_LINES,
        TICKETS_PER_LINE,
    },
    counted::Counted as _,
    guard::challenge::{PROOF_SECS, TupleHash, slot_shift},
    guard::limiter::{Bucket, Limit, SharedBucket, Time, charge_shared},
    guard::policy::{self, Action, Facts, FloodAnswer, Server},
    guard::sources::{self, EMPTY, SourceSet},
    guard::tickets::{
        self, ALL_RESETS_BURST, ALL_RESETS_RATE, Answered, Proof, RESETS_BURST, RESETS_RATE,
        ResetLimits, Ticket, TicketSet,
    },
    siphash::Key,
    source::Source,
    verdict::{Answer, Verdict},
    wire::packet::{self, Address, Kind, Segment},
    wire::reply::{self, Header, Numbers},
};
use nomail_tests::{
    frames::{ACK, RST, SYN},
    lab::Lab,
    poll::{is_emulated, until},
    program::{
        self, CLIENT_HARDWARE, HOST_HARDWARE, LOOPBACK_INDEX, WIDE, XDP_DROP, XDP_PASS, XDP_TX,
        answers, run,
    },
    random::Random,
};

const SEED: u64 = 0x5851_f42d_4c95_7f2d;
const KEY: Key = Key(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);

/// Packets, unless the environment says how many.
const PACKETS: usize = 100_000;
/// Packets of a round.
const ROUND: usize = 4000;
/// A bucket gets a SYN back after a second; a round that took less than this is over
/// before that without a doubt.
const FRESH: Duration = Duration::from_millis(900);
/// A round that is too slow is run again, with all that came before forgotten.
const SLOW_MAX: usize = 50;
/// Rounds that have sources of their own.
const ROUNDS_MAX: u64 = 10_000;
/// IPv4 /24 and IPv6 /48 that a round has for itself.
const PREFIXES: u64 = 4;
/// Where nothing is answered, because a VLAN is before it.
const BEHIND_VLAN: [&str; 2] = ["192.0.2.8", "2001:db8::8"];
const ANSWERABLE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
/// Nobody listens there.
const UNGUARDED: [&str; 2] = ["192.0.2.9", "2001:db8::9"];
/// What may follow an answer.
const PADDING_MAX: usize = 64;
/// Of all guarded addresses, and of the answerable ones only.
const PORTS: [u16; 2] = [25, 2525];

/// A line of sources of the host's.
#[derive(Default)]
struct HostLine {
    keys: [Cell<u64>; SLOTS_PER_LINE],
    buckets: [Cell<u64>; SLOTS_PER_LINE],
}

fn replace(word: &Cell<u64>, old: u64, new: u64) -> bool {
    let is_old = word.get() == old;
    if is_old {
        word.set(new);
    }
    is_old
}

impl SourceSet for HostLine {
    fn key(&self, slot: usize) -> u64 {
        self.keys[slot].get()
    }
    fn replace_key(&self, slot: usize, old: u64, new: u64) -> bool {
        replace(&self.keys[slot], old, new)
    }
    fn bucket(&self, slot: usize) -> Bucket {
        Bucket(self.buckets[slot].get())
    }
    fn replace_bucket(&self, slot: usize, old: Bucket, new: Bucket) -> bool {
        replace(&self.buckets[slot], old.0, new.0)
    }
    fn fill(&self, slot: usize, bucket: Bucket) {
        self.buckets[slot].set(bucket.0);
    }
    fn publish(&self, slot: usize, key: u64) {
        self.keys[slot].set(key);
    }
}

/// A bucket of the host's.
#[derive(Default)]
struct HostBucket(Cell<u64>);

impl SharedBucket for &HostBucket {
    fn bucket(&self) -> Bucket {
        Bucket(self.0.get())
    }
    fn replace(&self, old: Bucket, new: Bucket) -> bool {
        replace(&self.0, old.0, new.0)
    }
}

/// A line of tickets of the host's.
#[derive(Default)]
struct HostTickets([Cell<u64>; TICKETS_PER_LINE], HostBucket);

impl TicketSet for HostTickets {
    fn ticket(&self, place: usize) -> Ticket {
        Ticket(self.0[place].get())
    }
    fn write(&self, place: usize, ticket: Ticket) {
        self.0[place].set(ticket.0);
    }
}

fn lines<T: Default>(count: usize) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

/// The limit of a rate. Of [`Policy`]'s, which the guard makes of them itself.
fn limit(rate: Option<Rate>, hz: u32) -> Limit {
    rate.map_or(Limit::UNLIMITED, |Rate { rate, burst }| {
        Limit::new(rate, burst, hz).unwrap()
    })
}

/// The host's idea of the guard.
struct Model {
    hz: u32,
    sources: Vec<HostLine>,
    proven: Vec<HostLine>,
    prefixes: Vec<HostLine>,
    tickets: Vec<HostTickets>,
    resets: HostBucket,
    cap: HostBucket,
    unanswered: HostBucket,
    policy: Policy,
    /// Of the whole round.
    jiffies: u64,
    guarded: HashSet<(Address, u16)>,
    answerable: HashSet<Address>,
    /// Of its interface, what was counted in this round.
    counters: Counters,
}

/// What is to become of a frame.
#[derive(PartialEq, Eq)]
struct Outcome {
    action: u32,
    frame: Vec<u8>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "action {} and {}", self.action, hex(&self.frame))
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Model {
    fn new(hz: u32) -> Self {
        Self {
            hz,
            sources: lines(LINES),
            proven: lines(PROVEN_LINES),
            prefixes: lines(PREFIX_LINES),
            tickets: lines(TICKET_LINES),
            resets: HostBucket::default(),
            cap: HostBucket::default(),
            unanswered: HostBucket::default(),
            policy: policy(),
            jiffies: 0,
            guarded: HashSet::new(),
            answerable: HashSet::new(),
            counters: Counters::default(),
        }
    }

    fn configure(&mut self, policy: &Policy, jiffies: u64) {
        self.guarded = policy
            .guarded
            .iter()
            .map(|&(address, port)| (address.into(), port))
            .collect();
        self.answerable = policy.answerable.iter().map(|&own| own.into()).collect();
        self.policy = policy.clone();
        self.jiffies = jiffies;
        self.counters = Counters::default();
        // The guard's were left until they were full.
        for bucket in [&self.cap, &self.unanswered] {
            bucket.0.set(Bucket::full(Time::from_jiffies(jiffies)).0);
        }
    }

    fn slot(&self) -> u32 {
        (self.jiffies >> slot_shift(self.hz)) as u32
    }

    fn judge(&mut self, frame: &[u8], segment: Option<&Segment>) -> Outcome {
        let unchanged = |action| Outcome {
            action,
            frame: frame.to_vec(),
        };
        let Some(segment) = segment else {
            return unchanged(XDP_PASS);
        };
        if !self.guarded.contains(&(segment.local, segment.port)) {
            return unchanged(XDP_PASS);
        }
        let hash = TupleHash::of(segment, KEY);
        if segment.kind == Kind::Reset {
            return unchanged(self.reset(segment, hash));
        }
        let mut scene = Scene {
            model: self,
            segment,
            hash,
        };
        let decision = policy::decide(&mut scene);
        let round = decision.proof.round();
        self.counters.verdicts[decision.verdict as usize] += 1;
        let challenges = self.policy.flood_answer == FloodAnswer::Challenge;
        match policy::action(decision, Server::Listeners, self.policy.observe) {
            Action::Pass => return unchanged(XDP_PASS),
            Action::Answer if challenges => {}
            _ => return unchanged(XDP_DROP),
        }
        let comes_this_way = self.comes_this_way(frame, segment);
        if !comes_this_way || !self.is_a_clients(frame, segment) {
            let cap = limit(self.policy.cap, self.hz);
            let now = Time::from_jiffies(self.jiffies);
            let is_over = comes_this_way
                && cap.interval != 0
                && charge_shared(&&self.unanswered, now, policy::unanswered(cap));
            let (answer, action) = if is_over {
                (Answer::UnanswerableDropped, XDP_DROP)
            } else {
                (Answer::Unanswerable, XDP_PASS)
            };
            self.counters.answers[answer as usize] += 1;
            return unchanged(action);
        }
        self.counters.answers[Answer::Challenge as usize] += 1;
        let header = Header::syn_ack(Numbers {
            sequence: 0,
            acknowledgment: hash.acknowledgment(segment.sequence, self.slot(), round),
        });
        let network = segment.network as usize;
        let mut answer = [&frame[6..12], &frame[..6], &frame[12..network]].concat();
        if segment.is_ipv6() {
            let words = reply::ipv6(segment, &header);
            answer.extend(words.into_iter().flat_map(u32::to_ne_bytes));
        } else {
            let words = reply::ipv4(segment, &header);
            answer.extend(words.into_iter().flat_map(u32::to_ne_bytes));
        }
        // What is behind stays, unless it is long.
        if frame.len() <= answer.len() + PADDING_MAX {
            answer.extend(&frame[answer.len()..]);
        }
        Outcome {
            action: XDP_TX,
            frame: answer,
        }
    }

    fn proof_ticks(&self) -> u32 {
        self.hz * PROOF_SECS as u32
    }

    fn tickets_of(&self, segment: &Segment) -> &HostTickets {
        let hash = TupleHash::of(segment, KEY);
        &self.tickets[tickets::line_of(segment.source(), hash, SEED)]
    }

    fn resets_of(&self, segment: &Segment) -> &HostBucket {
        &self.tickets[tickets::bucket_of(segment.source(), SEED)].1
    }

    fn reset(&mut self, segment: &Segment, hash: TupleHash) -> u32 {
        let challenges = self.policy.flood_answer == FloodAnswer::Challenge;
        if !challenges || self.policy.observe || PORTS.contains(&segment.peer_port) {
            return XDP_PASS;
        }
        let limits = ResetLimits {
            of_source: Limit::new(RESETS_RATE, RESETS_BURST, self.hz).unwrap(),
            of_all: Limit::new(ALL_RESETS_RATE, ALL_RESETS_BURST, self.hz).unwrap(),
        };
        let buckets = [&self.resets_of(segment), &&self.resets];
        let time = Time::from_jiffies(self.jiffies);
        let answered = tickets::reset(
            self.tickets_of(segment),
            limits.is_strict(buckets, time),
            hash,
            segment.sequence,
            self.slot(),
            self.jiffies as u32,
            self.proof_ticks(),
        );
        if answered == Answered::Not {
            limits.charge(buckets, time);
        }
        self.counters.answers[Answer::Proven as usize] += u64::from(answered == Answered::Proven);
        if answered.is_right() {
            XDP_DROP
        } else {
            XDP_PASS
        }
    }

    /// The rule of DESIGN, said for addresses: for our hardware, behind no VLAN.
    fn comes_this_way(&self, frame: &[u8], segment: &Segment) -> bool {
        let mut hardware = self.policy.interfaces.iter();
        let is_own = hardware.any(|own| own.hardware == frame[..6]);
        is_own && segment.vlan == 0 && self.answerable.contains(&segment.local)
    }

    /// As a client's SYN is.
    fn is_a_clients(&self, frame: &[u8], segment: &Segment) -> bool {
        frame[6] & 1 == 0
            && segment.is_plain()
            && is_a_hosts(peer_of(segment))
            && !PORTS.contains(&segment.peer_port)
            && !self
                .policy
                .guarded
                .iter()
                .any(|(own, _)| *own == peer_of(segment))
            && !self.policy.own.contains(&peer_of(segment))
    }

    /// Every source in the table, and what was counted of it.
    fn table(&self) -> BTreeMap<IpAddr, (u64, u64)> {
        let slots = self.sources.iter().flat_map(|line| {
            let keys = line.keys.iter().zip(&line.buckets);
            keys.map(|(key, bucket)| (key.get(), Bucket(bucket.get())))
        });
        slots
            .filter(|&(key, _)| key != EMPTY)
            .map(|(key, bucket)| {
                let all = bucket.admitted() + bucket.limited();
                (Source(key).address(), (all, bucket.limited()))
            })
            .collect()
    }
}

/// Whom a segment claims to be from.
fn peer_of(segment: &Segment) -> IpAddr {
    let Address { high, low } = segment.peer;
    if segment.is_ipv6() {
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
    } else {
        Ipv4Addr::from_bits(low as u32).into()
    }
}

/// Whether a host elsewhere can have the address.
fn is_a_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let class_e = address.octets()[0] >= 240;
            let this_network = address.octets()[0] == 0;
            !(class_e || this_network || address.is_loopback() || address.is_multicast())
        }
        IpAddr::V6(address) => match address.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_a_hosts(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into())
            }
            [first, ..] => first > 0xff && !address.is_multicast(),
        },
    }
}

struct Scene<'a> {
    model: &'a mut Model,
    segment: &'a Segment,
    hash: TupleHash,
}

impl Scene<'_> {
    fn is_listed(&self, list: &[IpNet]) -> bool {
        let peer = peer_of(self.segment);
        list.iter().any(|network| network.contains(&peer))
    }

    fn now(&self) -> Time {
        Time::from_jiffies(self.model.jiffies)
    }

    fn cap(&self) -> Limit {
        limit(self.model.policy.cap, self.model.hz)
    }
}

impl Facts for Scene<'_> {
    fn malformed(&mut self) -> bool {
        self.segment.kind == Kind::Malformed
    }
    fn allowed(&mut self) -> bool {
        self.is_listed(&self.model.policy.lists.allow)
    }
    fn denied(&mut self) -> bool {
        self.is_listed(&self.model.policy.lists.deny)
    }
    fn proof(&mut self) -> Proof {
        if self.model.policy.flood_answer == FloodAnswer::Challenge {
            tickets::proof_of(
                self.model.tickets_of(self.segment),
                self.hash,
                self.segment.sequence,
                self.model.jiffies as u32,
                self.model.proof_ticks(),
            )
        } else {
            Proof::None
        }
    }
    fn admit(&mut self) {
        let ticks = self.model.proof_ticks();
        let line = self.model.tickets_of(self.segment);
        tickets::admit(line, self.hash, self.model.jiffies as u32, ticks);
    }
    fn over_source(&mut self, proven: bool) -> bool {
        let cap = self.cap();
        let cap_is_exhausted = cap.interval != 0
            && (&self.model.cap)
                .bucket()
                .or_full(self.now())
                .is_over(self.now(), cap);
        let source = self.segment.source();
        let (store, may_enter) = if proven {
            (&self.model.proven, true)
        } else {
            (&self.model.sources, !cap_is_exhausted)
        };
        let line = &store[sources::line_of(source, SEED, store.len())];
        let limit = limit(Some(self.model.policy.source), self.model.hz);
        let charge = sources::charge(line, source, self.now(), limit, may_enter);
        self.model.counters.evictions += u64::from(charge.evicted);
        charge.over
    }
    fn over_prefix(&mut self, proven: bool) -> bool {
        let Some(rate) = self.model.policy.prefix else {
            return false;
        };
        let prefix = self.segment.source().prefix(proven);
        let store = &self.model.prefixes;
        let line = &store[sources::line_of(prefix, SEED, store.len())];
        let limit = limit(Some(rate), self.model.hz);
        sources::charge(line, prefix, self.now(), limit, true).over
    }
    fn over_cap(&mut self) -> bool {
        let (cap, now) = (self.cap(), self.now());
        cap.interval != 0 && charge_shared(&&self.model.cap, now, cap)
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What all rounds have in common.
fn policy() -> Policy {
    let all = ANSWERABLE.iter().chain(&BEHIND_VLAN);
    let mut guarded: HashSet<_> = all.map(|own| (address(own), PORTS[0])).collect();
    guarded.extend(ANSWERABLE.map(|own| (address(own), PORTS[1])));
    Policy {
        interfaces: Vec::new(),
        guarded,
        answerable: ANSWERABLE.map(address).into(),
        ..program::policy()
    }
}

/// A round: what is random in all of its packets.
struct Round {
    number: u64,
    policy: Policy,
    /// Whether its interface is in the configuration.
    known_interface: bool,
    /// Challenges that were given: whose, and the number that proves it.
    challenges: Vec<(Vec<u8>, Segment, u32)>,
}

impl Round {
    fn new(number: u64, random: &mut Random) -> Self {
        let mut tight = |percent: u64, most: u64| {
            random.percent(percent).then(|| Rate {
                rate: 1,
                burst: 1 + random.below(most) as u32,
            })
        };
        let source = tight(80, 40).unwrap_or(WIDE);
        let prefix = tight(60, 200);
        let cap = tight(60, 1500);
        let observe = random.percent(8);
        let flood_answer = if random.percent(80) {
            FloodAnswer::Challenge
        } else {
            FloodAnswer::Drop
        };
        let known_interface = random.percent(80);
        let own = if known_interface { LOOPBACK_INDEX } else { 77 };
        let interface = |index, last| GuardedInterface {
            index,
            hardware: [2, 0, 0, 0, 0, last],
            ..GuardedInterface::default()
        };
        let round = Self {
            number,
            known_interface,
            challenges: Vec::new(),
            policy: policy(),
        };
        let mut allow: Vec<IpNet> = vec!["::/8".parse().unwrap()];
        let owned = policy().guarded.into_iter().map(|(own, _)| own);
        let owned: HashSet<_> = owned.collect();
        allow.extend(owned.into_iter().map(IpNet::from));
        let mut deny = Vec::new();
        for list in [&mut allow, &mut deny] {
            for ipv6 in [false, true] {
                for _ in 0..random.below(4) {
                    let length = match (ipv6, random.below(3)) {
                        (false, 0) => 32,
                        (false, 1) => 28,
                        (false, _) => 24,
                        (true, 0) => 128,
                        (true, 1) => 64,
                        (true, _) => 48,
                    };
                    let network = IpNet::new(round.source(ipv6, random), length).unwrap();
                    list.push(network.trunc());
                }
            }
        }
        deny.retain(|network| !allow.contains(network));
        for list in [&mut allow, &mut deny] {
            list.sort_unstable();
            list.dedup();
        }
        Self {
            policy: Policy {
                source,
                prefix,
                cap,
                flood_answer,
                observe,
                interfaces: vec![interface(own, 2)],
                lists: Arc::new(Lists {
                    allow: allow.into(),
                    deny: deny.into(),
                }),
                ..round.policy
            },
            ..round
        }
    }

    /// A source that no other round has.
    fn source(&self, ipv6: bool, random: &mut Random) -> IpAddr {
        let prefix = random.below(PREFIXES);
        let host = random.below(10) + 1;
        if ipv6 {
            let first = if random.percent(3) { 0xff0e } else { 0x2001 };
            let high = first << 48 | self.number << 32 | prefix << 16 | host;
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(random.below(3))).into()
        } else {
            let first = if random.percent(4) {
                random.choose(&[0, 127, 224, 240])
            } else {
                10
            };
            let bits = first << 24 | (self.number * PREFIXES + prefix) << 8 | host;
            Ipv4Addr::from_bits(bits as u32).into()
        }
    }

    /// Whether nothing that happened before matters for the segment: its source is
    /// of this round, or has no bucket.
    fn is_own(&self, segment: &Segment) -> bool {
        let peer = peer_of(segment);
        let allow = &self.policy.lists.allow;
        if allow.iter().any(|network| network.contains(&peer)) {
            return true;
        }
        self.has_source(peer)
    }

    /// Whether [`Self::source`] could have given it.
    fn has_source(&self, peer: IpAddr) -> bool {
        match peer {
            IpAddr::V4(peer) => {
                let within = u64::from(peer.to_bits() >> 8 & 0xffff) / PREFIXES == self.number;
                within && [0, 10, 127, 224, 240].contains(&peer.octets()[0])
            }
            IpAddr::V6(peer) => {
                let [first, second, ..] = peer.segments();
                u64::from(second) == self.number && [0x2001, 0xff0e].contains(&first)
            }
        }
    }

    fn next_frame(&self, random: &mut Random) -> (Vec<u8>, Made) {
        if random.percent(2) {
            let length = 14 + random.below(120) as usize;
            return (noise(length, random), Made::Changed);
        }
        let challenged = (!self.challenges.is_empty() && random.percent(35)).then(|| {
            let at = random.below(self.challenges.len() as u64);
            &self.challenges[at as usize]
        });
        let mut frame = match challenged {
            // The SYN again, as who has proven himself does, and who has not.
            Some((frame, ..)) if random.percent(50) => frame.clone(),
            Some((_, segment, proof)) => {
                let right = random.percent(95);
                let number = if right { *proof } else { random.next() as u32 };
                answer_of(segment, number, random)
            }
            None => self.build(random),
        };
        let mut made = Made::Whole;
        if random.percent(8) {
            for _ in 0..=random.below(3) {
                // Most of it in the headers.
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.next() as u8;
            }
            made = Made::Changed;
        }
        if random.percent(4) {
            frame.truncate(14 + random.below(frame.len() as u64 - 13) as usize);
            made = Made::Changed;
        }
        if random.percent(10) {
            let padding = random.below(40) as usize;
            frame.extend(noise(padding, random));
        }
        (frame, made)
    }

    /// A frame, field by field.
    fn build(&self, random: &mut Random) -> Vec<u8> {
        let ipv6 = random.percent(45);
        let own = match random.below(20) {
            0 => UNGUARDED,
            1..=2 => BEHIND_VLAN,
            _ => ANSWERABLE,
        };
        let local = address(own[usize::from(ipv6)]);
        let peer = match random.below(60) {
            // The host's own, and IPv4 written as IPv6.
            0 => address(ANSWERABLE[usize::from(ipv6)]),
            1 if ipv6 => Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into(),
            _ => self.source(ipv6, random),
        };
        let local = match local {
            IpAddr::V6(_) if random.percent(1) => {
                Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into()
            }
            local => local,
        };
        let port = random.choose(&[25, 25, 25, 25, 25, 2525, 26, 0]);
        let peer_port = random.choose(&[1024, 40_000, 40_000, 65_535, 65_535, 25, 2525]);
        // Few wrong answers: how many there may be is a matter of ticks.
        let flags = match random.below(60) {
            0 => RST,
            1 => RST | ACK,
            2..=7 => ACK,
            8..=11 => SYN | ACK,
            // FIN or RST beside it.
            12..=14 => SYN | random.choose(&[1, 4, 5]),
            // ECN: ECE and CWR.
            15..=17 => SYN | 0xc0,
            18..=20 => random.next() as u8,
            _ => SYN,
        };
        let sequence = random.choose(&[7, 0x8000_0000, 0xffff_fff0]);
        let acknowledgment = random.choose(&[0, 1, 2, 0x1234_5678]);
        let mut tcp = [0u8; 60];
        tcp[..2].copy_from_slice(&u16::to_be_bytes(peer_port));
        tcp[2..4].copy_from_slice(&u16::to_be_bytes(port));
        tcp[4..8].copy_from_slice(&u32::to_be_bytes(sequence));
        tcp[8..12].copy_from_slice(&u32::to_be_bytes(acknowledgment));
        let words = 5 + if random.percent(40) {
            random.below(11)
        } else {
            0
        } as usize;
        tcp[12] = (words as u8) << 4;
        tcp[13] = flags;
        let mut segment = tcp[..words * 4].to_vec();
        if random.percent(4) {
            // More than there is, or less than there has to be.
            segment[12] = (random.below(16) as u8) << 4;
        }
        let packet = match (local, peer) {
            (IpAddr::V4(local), IpAddr::V4(peer)) => ipv4(local, peer, &segment, random),
            (IpAddr::V6(local), IpAddr::V6(peer)) => ipv6_packet(local, peer, &segment, random),
            _ => unreachable!("both are of one family"),
        };
        let mut frame = Vec::new();
        frame.extend(match random.below(25) {
            0 => [2, 0, 0, 0, 0, 9],
            1 => [0xff; 6],
            _ => HOST_HARDWARE,
        });
        frame.extend(if random.percent(3) {
            [3, 0, 0, 0, 0, 1]
        } else {
            CLIENT_HARDWARE
        });
        let tags = random.choose(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3]);
        for _ in 0..tags {
            let kind: u16 = random.choose(&[0x8100, 0x88a8]);
            frame.extend(kind.to_be_bytes());
            // The priority is no part of the number.
            let tag: u16 = random.choose(&[0, 0xe000, 100, 4094]);
            frame.extend(tag.to_be_bytes());
        }
        let ethertype: u16 = if ipv6 { 0x86dd } else { 0x0800 };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }
}

/// Whether a frame is as it was built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Whole,
    Changed,
}

fn noise(length: usize, random: &mut Random) -> Vec<u8> {
    (0..length).map(|_| random.next() as u8).collect()
}

/// The RST that a challenge is answered with.
fn answer_of(segment: &Segment, number: u32, random: &mut Random) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_HARDWARE, HOST_HARDWARE);
    let local = peer_of(&Segment {
        peer: segment.local,
        ..*segment
    });
    let builder = match (peer_of(segment), local) {
        (IpAddr::V4(peer), IpAddr::V4(local)) => builder.ipv4(peer.octets(), local.octets(), 64),
        (IpAddr::V6(peer), IpAddr::V6(local)) => builder.ipv6(peer.octets(), local.octets(), 64),
        _ => unreachable!("both are of one family"),
    };
    let builder = builder
        .tcp(segment.peer_port, segment.port, number, 0)
        .rst();
    let builder = match random.below(3) {
        0 => builder,
        // As lwIP does, and as nobody does.
        _ => builder.ack(random.choose(&[0, 1, 2])),
    };
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).unwrap();
    frame
}

fn ipv4(local: Ipv4Addr, peer: Ipv4Addr, segment: &[u8], random: &mut Random) -> Vec<u8> {
    let words = 5 + if random.percent(6) {
        random.below(4)
    } else {
        0
    } as usize;
    let mut packet = vec![0u8; words * 4];
    packet[0] = 0x40 | words as u8;
    let length = (words * 4 + segment.len()) as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let fragment: u16 = match random.below(40) {
        0 => 0x2000,
        1 => 0x2005,
        2 => 0x0005,
        _ => 0x4000,
    };
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8] = 64;
    packet[9] = if random.percent(2) { 17 } else { 6 };
    packet[12..16].copy_from_slice(&peer.octets());
    packet[16..20].copy_from_slice(&local.octets());
    packet.extend(segment);
    packet
}

fn ipv6_packet(local: Ipv6Addr, peer: Ipv6Addr, segment: &[u8], random: &mut Random) -> Vec<u8> {
    let chain = if random.percent(15) {
        random.below(8)
    } else {
        0
    };
    let mut next = if random.percent(2) { 17 } else { 6u8 };
    let mut extensions = Vec::new();
    for _ in 0..chain {
        let kind = random.choose(&[0, 43, 44, 51, 60]);
        let mut header = vec![0u8; 8];
        header[0] = next;
        match kind {
            // With a segment left, or none.
            43 => header[3] = u8::from(random.percent(20)),
            44 => header[3] = random.choose(&[0, 0, 1, 8]),
            51 => {
                header[1] = 1;
                header.extend([0; 4]);
            }
            _ if random.percent(20) => {
                header[1] = 1;
                header.extend([0; 8]);
            }
            _ => {}
        }
        header.extend(extensions);
        extensions = header;
        next = kind;
    }
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    let length = (extensions.len() + segment.len()) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet[6] = next;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&peer.octets());
    packet[24..40].copy_from_slice(&local.octets());
    packet.extend(extensions);
    packet.extend(segment);
    packet
}

/// What etherparse makes of a frame that it likes as a whole: from whom, to whom, to
/// which port, with which flags. Fragments and what is not TCP are nothing.
fn by_etherparse(frame: &[u8]) -> Option<(IpAddr, IpAddr, u16, u8, u32)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (peer, local): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        NetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else {
        return None;
    };
    let port = tcp.destination_port();
    Some((peer, local, port, flags_of(tcp), tcp.sequence_number()))
}

fn flags_of(tcp: &TcpSlice<'_>) -> u8 {
    tcp.header_slice()[13]
}

/// Whether etherparse and our parser agree, where etherparse has an opinion.
fn agrees(frame: &[u8], segment: Option<&Segment>) -> bool {
    let Some((peer, local, port, flags, sequence)) = by_etherparse(frame) else {
        return true;
    };
    let is_syn = flags & (SYN | ACK) == SYN;
    let Some(segment) = segment else {
        // What it looks through is bounded, and some of it passes on purpose.
        return !(is_syn && PORTS.contains(&port))
            || is_mapped(local)
            || is_beyond_the_bounds(frame);
    };
    let expected = match (is_syn, flags & 5 != 0) {
        (true, true) => Kind::Malformed,
        (true, false) => Kind::Syn,
        (false, _) => Kind::Reset,
    };
    segment.kind == expected
        && peer_of(segment) == peer
        && segment.local == Address::from(local)
        && segment.port == port
        && segment.sequence == sequence
}

fn is_mapped(local: IpAddr) -> bool {
    matches!(local, IpAddr::V6(local) if local.to_ipv4_mapped().is_some())
}

/// More tags or extension headers than are looked through, or a source route.
fn is_beyond_the_bounds(frame: &[u8]) -> bool {
    let is_tag = |at: usize| [[0x81, 0], [0x88, 0xa8]].contains(&[frame[at], frame[at + 1]]);
    let tags = (0..3).take_while(|tag| is_tag(12 + 4 * tag)).count();
    let network = 14 + 4 * tags;
    let has_extensions = frame[network] >> 4 == 6 && frame[network + 6] != 6;
    tags > packet::MAX_VLAN_TAGS || has_extensions
}

/// The guard, and the model beside it.
struct Pair {
    guard: Guard,
    model: Model,
    ports: [u16; MAX_PORTS],
    _lab: Lab,
}

/// A round that took so long that time has played a role.
struct TooSlow;

impl Pair {
    fn new() -> Self {
        let mut guard = Guard::load_known(&HashSet::from(PORTS), [SEED, KEY.0, KEY.1]).unwrap();
        let lab = Lab::new();
        lab.attach(&mut guard);
        let [first, second] = PORTS;
        Self {
            model: Model::new(guard.clock().hz()),
            guard,
            ports: [first, second, 0, 0],
            _lab: lab,
        }
    }

    /// All 64 bits of jiffies.
    fn jiffies(&self) -> u64 {
        let low = self.guard.clock().jiffies().unwrap() as u32;
        let uptime = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        // They begin 5 minutes before the lower half of them wraps.
        let about = (1 << 32) + (uptime.as_secs() * u64::from(self.model.hz))
            - u64::from(300 * self.model.hz);
        let ahead = low.wrapping_sub(about as u32) as i32;
        about.wrapping_add_signed(ahead.into())
    }

    /// Waits until the cap's bucket is full, and the slot of proofs has some time.
    fn settle(&mut self) {
        let allowed = segment_of("192.0.2.77:1", "192.0.2.7:25");
        let cap = Some(Rate {
            rate: 10_000,
            burst: 1,
        });
        let allow = vec!["192.0.2.77/32".parse().unwrap()];
        let lists = Arc::new(Lists {
            allow: allow.into(),
            deny: Arc::default(),
        });
        let settling = Policy {
            cap,
            lists,
            interfaces: program::policy().interfaces,
            ..policy()
        };
        self.guard.configure(&settling).unwrap();
        // A debt that such a cap cannot have is none, see `limiter`; and a SYN that cannot be
        // answered charges a bucket of the same size.
        until("the cap is full", || {
            (run(&self.guard, &allowed) == XDP_PASS).then_some(())
        });
        let unanswerable = segment_of("192.0.2.77:25", "192.0.2.7:25");
        until("the bucket of what cannot be answered is full", || {
            let before = answers(&self.guard, Answer::Unanswerable);
            self.guard.test_run(&unanswerable, 2).unwrap();
            (answers(&self.guard, Answer::Unanswerable) > before).then_some(())
        });
        let slot = 1 << slot_shift(self.model.hz);
        let begun = self.jiffies();
        until(
            "a slot of proofs begins, and some ticks have passed",
            || {
                let now = self.jiffies();
                let left = slot - now % slot;
                (now > begun + 3 && left > u64::from(2 * self.model.hz)).then_some(())
            },
        );
    }

    fn round(
        &mut self,
        round: &mut Round,
        packets: usize,
        random: &mut Random,
        seen: &mut Seen,
    ) -> Result<(), TooSlow> {
        self.settle();
        let place = round.known_interface.then_some(0);
        let before = self.guard.counters(place).unwrap();
        let begun = Instant::now();
        self.guard.configure(&round.policy).unwrap();
        let jiffies = self.jiffies();
        self.model.configure(&round.policy, jiffies);
        let mut actions = [0; 4];
        let mut packet = 0;
        while packet < packets {
            let (frame, made) = round.next_frame(random);
            let segment = packet::parse(&frame[..], &self.ports, false);
            if segment.is_some_and(|segment| !round.is_own(&segment)) {
                continue;
            }
            packet += 1;
            let number = round.number;
            let told = || {
                format!(
                    "packet {packet} of round {number}, {}, {segment:?}",
                    hex(&frame)
                )
            };
            if made == Made::Whole {
                assert!(agrees(&frame, segment.as_ref()), "etherparse: {}", told());
            }
            let expected = self.model.judge(&frame, segment.as_ref());
            let (action, after) = self.guard.test_answer(&frame).unwrap();
            let counters = self.guard.counters(place).unwrap();
            let counted = since(&counters, &before);
            let outcome = Outcome {
                action,
                frame: after,
            };
            if outcome != expected || counted != self.model.counters {
                if begun.elapsed() > FRESH {
                    return Err(TooSlow);
                }
                panic!(
                    "{}: {outcome:?} and {counted:?}, but by the model {expected:?} and \
                     {:?}; {:?}",
                    told(),
                    self.model.counters,
                    round.policy
                );
            }
            actions[action as usize] += 1;
            if action == XDP_TX {
                let answer = PacketHeaders::from_ethernet_slice(&expected.frame).unwrap();
                let (Some(TransportHeader::Tcp(tcp)), Some(segment)) = (answer.transport, segment)
                else {
                    panic!("no TCP: {}", told());
                };
                let proof = tcp.acknowledgment_number;
                round.challenges.push((frame, segment, proof));
            }
        }
        let sources = self.guard.sources().unwrap();
        let mut table: BTreeMap<_, _> = sources
            .into_iter()
            .map(|source| (source.address, (source.syn, source.limited)))
            .collect();
        let mut expected = self.model.table();
        let mut as_expected = table.len() == expected.len();
        // Which of an earlier round made room is a matter of ticks.
        for table in [&mut table, &mut expected] {
            table.retain(|&source, _| round.has_source(source));
        }
        as_expected &= table == expected;
        if begun.elapsed() > FRESH {
            return Err(TooSlow);
        }
        assert!(as_expected, "the table of round {}", round.number);
        seen.add(packets, actions, &self.model.counters);
        Ok(())
    }
}

fn segment_of(source: &str, destination: &str) -> Vec<u8> {
    nomail_tests::frames::Segment::syn(source, destination).frame()
}

fn since(counters: &Counters, before: &Counters) -> Counters {
    Counters {
        verdicts: std::array::from_fn(|at| counters.verdicts[at] - before.verdicts[at]),
        answers: std::array::from_fn(|at| counters.answers[at] - before.answers[at]),
        evictions: counters.evictions - before.evictions,
        contended: counters.contended - before.contended,
    }
}

/// What there was of everything.
#[derive(Debug, Default)]
struct Seen {
    packets: usize,
    actions: [u64; 4],
    verdicts: [u64; Verdict::COUNT],
    answers: [u64; Answer::COUNT],
    evictions: u64,
}

impl Seen {
    fn add(&mut self, packets: usize, actions: [u64; 4], counters: &Counters) {
        self.packets += packets;
        let add = |sums: &mut [u64], more: &[u64]| {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += more;
            }
        };
        add(&mut self.actions, &actions);
        add(&mut self.verdicts, &counters.verdicts);
        add(&mut self.answers, &counters.answers);
        self.evictions += counters.evictions;
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn the_kernel_does_what_the_model_says() {
    let (default, per_round) = if is_emulated() {
        (PACKETS / 20, ROUND / 10)
    } else {
        (PACKETS, ROUND)
    };
    let packets =
        setting("NOMAIL_DIFFERENTIAL_PACKETS").map_or(default, |packets| packets as usize);
    let seed = setting("NOMAIL_DIFFERENTIAL_SEED").unwrap_or(1);
    println!("NOMAIL_DIFFERENTIAL_PACKETS={packets} NOMAIL_DIFFERENTIAL_SEED={seed}");
    let begun = Instant::now();
    let mut random = Random(seed);
    let mut pair = Pair::new();
    let (mut seen, mut slow) = (Seen::default(), 0);
    for number in 0.. {
        let left = packets - seen.packets;
        if left == 0 {
            break;
        }
        assert!(number < ROUNDS_MAX, "at most {ROUNDS_MAX} rounds");
        let mut round = Round::new(number, &mut random);
        let run = pair.round(&mut round, left.min(per_round), &mut random, &mut seen);
        if let Err(TooSlow) = run {
            slow += 1;
            assert!(slow < SLOW_MAX, "too slow a machine");
            pair = Pair::new();
        }
    }
    let took = begun.elapsed();
    println!("{seen:?} in {took:.1?}; {slow} rounds too slow");
    if packets >= PACKETS {
        assert!(seen.verdicts.iter().all(|&count| count > 0), "{seen:?}");
        let answers = [
            Answer::Challenge,
            Answer::Proven,
            Answer::Unanswerable,
            Answer::UnanswerableDropped,
        ];
        let all = answers
            .iter()
            .all(|&answer| seen.answers[answer as usize] > 0);
        assert!(
            all && seen.actions[1..].iter().all(|&count| count > 0),
            "{seen:?}"
        );
    }
}
