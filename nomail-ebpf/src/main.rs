//! The kernel half of nomail: plumbing around `nomail-common`.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "BPF atomics exist only as intrinsics")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's entry points take the context so"
)]

mod atomic;
mod cookie;
mod frame;
mod maps;
mod stateless;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_jiffies64,
    macros::xdp,
    programs::XdpContext,
};
use nomail_common::{
    abi::{
        CAP, Config, Guarded, LINES, MAX_INTERFACES, PREFIX_LINES, PROVEN_LINES, RESETS,
        SLOTS_PER_LINE, UNANSWERED,
    },
    guard::challenge::TupleHash,
    guard::events::{self, Event},
    guard::limiter::{self, Limit, Time},
    guard::policy::{self, Action, Facts, FloodAnswer, Reach, Server},
    guard::source::Source,
    guard::sources::{self, Charge},
    guard::tickets::{self, Answered, Proof},
    verdict::{Answer, Verdict},
    wire::packet::{self, Kind, Segment},
    wire::reply::{self, Header, Numbers},
};

use crate::{frame::XdpFrame, maps::CpuCounters};

/// What [`judge`] returns for what the responder is to answer: no action of XDP.
const TO_RESPONDER: u32 = 16;

/// Judges a frame. Whatever is not a SYN or a RST for a guarded port, nor of a dialog
/// of the responder, passes without a look-up in any map.
#[xdp(frags)]
fn nomail(context: XdpContext) -> u32 {
    let frame = XdpFrame::new(&context);
    let dialogs = maps::may_respond();
    let Some(segment) = packet::parse(&frame, &maps::PORTS.load(), dialogs) else {
        return XDP_PASS;
    };
    let action = judge(context.ctx, &raw const segment);
    if action != TO_RESPONDER {
        return action;
    }
    maps::respond(&context);
    XDP_PASS
}

/// Judges a segment for a guarded port. A global function: the verifier looks at
/// it once, and not once for every way through the headers.
///
/// The packet passes when the agent has yet to write its maps.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(context: *mut xdp_md, segment: *const Segment) -> u32 {
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return XDP_PASS;
    };
    if segment.kind == Kind::Dialog {
        return TO_RESPONDER;
    }
    let context = XdpContext::new(context);
    judged(&context, segment).unwrap_or(XDP_PASS)
}

#[inline(always)]
fn judged(context: &XdpContext, segment: &Segment) -> Option<u32> {
    let config = maps::config()?;
    let any = nomail_common::Mechanism::GuardedAddresses
        .is_off()
        .then_some(&config.guarded[0]);
    let guarded = config.guarded(segment.local, segment.port).or(any)?;
    let entry = entry_of(config, context.ingress_ifindex() as u32);
    let counters = maps::counters(entry)?;
    // SAFETY: the helper takes nothing and returns a number.
    let jiffies = unsafe { bpf_jiffies64() };
    let server = server(config.responder, jiffies);
    let mut scene = Scene {
        context,
        segment,
        config,
        guarded,
        entry,
        counters,
        jiffies,
        flood_answer: server.flood_answer(config.flood_answer),
        hash: None,
        cookie: None,
    };
    if segment.kind == Kind::Reset {
        return Some(scene.reset());
    }
    let decision = policy::decide(&mut scene);
    scene.counters.count(decision.verdict);
    Some(
        match policy::action(decision, server, config.observe != 0) {
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Answer => scene.answer(decision.proof),
            Action::Respond => TO_RESPONDER,
        },
    )
}

/// Who serves. Where the responder never does, the verifier is to see none of it.
#[inline(always)]
fn server(responder: u32, jiffies: u64) -> Server {
    let holds = maps::lease_holds(jiffies);
    if maps::may_respond() {
        Server::of(responder, holds)
    } else if holds {
        Server::Listeners
    } else {
        Server::Nobody
    }
}

/// The entry of an interface in the counters: 1 above its place in the configuration, or 0.
/// A global function, whose result is any number to the verifier: it looks at what
/// follows once, and not once for each place.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn entry_of(config: *const Config, interface: u32) -> u32 {
    // SAFETY: as in `judge`.
    let Some(config) = (unsafe { config.as_ref() }) else {
        return 0;
    };
    let place = (0..MAX_INTERFACES).find(|&place| config.interfaces[place] == interface);
    place.map_or(0, |place| place as u32 + 1)
}

/// A segment for a guarded pair, and what is to be known to judge it.
struct Scene<'a> {
    context: &'a XdpContext,
    segment: &'a Segment,
    config: &'a Config,
    guarded: &'a Guarded,
    /// See [`entry_of`].
    entry: u32,
    counters: CpuCounters,
    jiffies: u64,
    /// What the unproven get, while somebody is there for whom.
    flood_answer: FloodAnswer,
    /// Once it was asked for.
    hash: Option<TupleHash>,
    /// Once it was asked for: 0 when there is none.
    cookie: Option<u64>,
}

impl Facts for Scene<'_> {
    #[inline(always)]
    fn malformed(&mut self) -> bool {
        self.segment.kind == Kind::Malformed
    }

    #[inline(always)]
    fn allowed(&mut self) -> bool {
        maps::allowed(self.config, self.segment)
    }

    #[inline(always)]
    fn denied(&mut self) -> bool {
        maps::denied(self.config, self.segment)
    }

    #[inline(always)]
    fn proof(&mut self) -> Proof {
        // Without a flood there are no tickets, and nothing is hashed.
        let ends = maps::last_proof().map_or(0, |word| word.load());
        if self.flood_answer == FloodAnswer::Challenge && ends > self.jiffies {
            let hash = self.hash();
            let (source, sequence) = (self.segment.source(), self.segment.sequence);
            let ticks = self.config.proof_ticks;
            let proof = proof_of(source.0, hash.0, sequence, self.jiffies, ticks);
            Proof::from_value(proof)
        } else {
            Proof::None
        }
    }

    #[inline(always)]
    fn admit(&mut self) {
        let (source, hash) = (self.segment.source(), self.hash());
        admit(source.0, hash.0, self.jiffies, self.config.proof_ticks);
    }

    #[inline(always)]
    fn over_source(&mut self, proven: bool) -> bool {
        let store = if proven {
            Store::Proven
        } else if maps::cap_is_exhausted(self.now(), self.config.cap) {
            Store::KnownSources
        } else {
            Store::Sources
        };
        let charged = self.charge(store, self.segment.source(), self.config.limit);
        if charged & EVICTED != 0 {
            self.counters.count_eviction();
        }
        if charged & CONTENDED != 0 {
            self.counters.count_contended();
        }
        if charged & TELLABLE != 0 {
            self.tell(self.segment.source(), Verdict::LimitedSource, proven);
        }
        if nomail_common::Mechanism::SourceBucket.is_off() {
            return false;
        }
        charged & OVER != 0
    }

    #[inline(always)]
    fn over_prefix(&mut self, proven: bool) -> bool {
        let limit = self.config.prefix_limit;
        if limit.interval == 0 {
            return false;
        }
        let source = self.segment.source();
        let charged = self.charge(Store::Prefixes, source.prefix(proven), limit);
        if charged & TELLABLE != 0 {
            self.tell(source.prefix(false), Verdict::LimitedPrefix, proven);
        }
        if nomail_common::Mechanism::PrefixBucket.is_off() {
            return false;
        }
        charged & OVER != 0
    }

    #[inline(always)]
    fn over_cap(&mut self) -> bool {
        if self.flood_answer == FloodAnswer::Cookie && self.cookie() != 0 {
            return true;
        }
        self.is_over_shared(CAP, self.config.cap) && nomail_common::Mechanism::Cap.is_on()
    }
}

/// Which buckets are charged.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Store {
    Sources,
    /// The same while the cap is exhausted: strangers do not enter the table. They are
    /// answered in any case, and must neither cost that much nor replace anybody.
    KnownSources,
    Proven,
    Prefixes,
}

/// What [`charge`] returns.
const OVER: u32 = 1;
/// See [`OVER`].
const EVICTED: u32 = 2;
/// See [`OVER`].
const CONTENDED: u32 = 4;
/// See [`OVER`].
const TELLABLE: u32 = 8;

/// Charges one SYN of a source or prefix. A global function, whose arguments are
/// plain numbers: the verifier looks at it once, and not once for every way to
/// each of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge(store: u32, key: u64, jiffies: u64, interval: u64, tolerance: u64) -> u32 {
    let seed = maps::SEED.load();
    let source = Source(key);
    let of_sources = store == Store::Sources as u32 || store == Store::KnownSources as u32;
    let (index, line) = if of_sources {
        let index = sources::line_of(source, seed, LINES);
        (index, maps::source_line(index))
    } else if store == Store::Proven as u32 {
        (
            0,
            maps::proven_line(sources::line_of(source, seed, PROVEN_LINES)),
        )
    } else {
        (
            0,
            maps::prefix_line(sources::line_of(source, seed, PREFIX_LINES)),
        )
    };
    let Some(line) = line else {
        return 0;
    };
    let limit = Limit {
        interval,
        tolerance,
    };
    let Charge {
        slot,
        over,
        carried,
        tellable,
        evicted,
        contended,
    } = sources::charge(
        &line,
        source,
        Time::from_jiffies(jiffies),
        limit,
        store != Store::KnownSources as u32,
    );
    if carried && of_sources {
        maps::carry(index * SLOTS_PER_LINE + slot, source, over);
    }
    let flag = |is: bool, flag: u32| if is { flag } else { 0 };
    flag(over, OVER)
        | flag(tellable, TELLABLE)
        | flag(evicted, EVICTED)
        | flag(contended, CONTENDED)
}

/// Tells the agent of a source or prefix that is over its limit, unless it was
/// told of lately. A global function for the verifier's sake, and to keep it out of
/// the way of all the SYNs that nothing is told of.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(source: u64, jiffies: u64, interface: u32, marks: u32, pause_ticks: u32) -> u32 {
    let event = Event {
        source,
        jiffies,
        interface,
        verdict: (marks >> 1) as u16,
        proven: (marks & 1) as u16,
    };
    let (line, tag) = event.place(maps::SEED.load());
    if let Some(line) = maps::told_line(line)
        && events::is_due(&line, tag, jiffies as u32, pause_ticks)
    {
        maps::tell(&event);
    }
    0
}

impl Scene<'_> {
    #[inline(always)]
    fn charge(&self, store: Store, key: Source, limit: Limit) -> u32 {
        let Limit {
            interval,
            tolerance,
        } = limit;
        charge(store as u32, key.0, self.jiffies, interval, tolerance)
    }

    #[inline(always)]
    fn tell(&self, source: Source, verdict: Verdict, proven: bool) {
        tell(
            source.0,
            self.jiffies,
            self.context.ingress_ifindex() as u32,
            (verdict as u32) << 1 | u32::from(proven),
            self.config.pause_ticks,
        );
    }

    #[inline(always)]
    const fn now(&self) -> Time {
        Time::from_jiffies(self.jiffies)
    }

    #[inline(always)]
    fn slot(&self) -> u32 {
        slot_of(self.config, self.jiffies)
    }

    #[inline(always)]
    fn hash(&mut self) -> TupleHash {
        match self.hash {
            Some(hash) => hash,
            None => {
                let hash = TupleHash::of(self.segment, maps::key());
                self.hash = Some(hash);
                hash
            }
        }
    }

    /// A RST that answers a challenge is nothing for the stack. Any other RST is, and
    /// ends what the responder owes.
    #[inline(always)]
    fn reset(&mut self) -> u32 {
        let foreign = if maps::may_respond() {
            TO_RESPONDER
        } else {
            XDP_PASS
        };
        if self.flood_answer != FloodAnswer::Challenge
            || self.config.observe != 0
            // Never challenged.
            || maps::PORTS.load().contains(&self.segment.peer_port)
        {
            return foreign;
        }
        let (source, hash) = (self.segment.source(), self.hash());
        let answered = reset(source.0, hash.0, self.segment.sequence, self.jiffies);
        if answered == Answered::Not as u32 {
            charge_reset(source.0, self.jiffies);
            return foreign;
        }
        if answered == Answered::Opened as u32 {
            return foreign;
        }
        if answered == Answered::Proven as u32 {
            self.counters.count_answer(Answer::Proven);
        }
        XDP_DROP
    }

    /// Answers a SYN with what is configured, where that is right, and leaves it to the
    /// kernel where it is not.
    #[inline(always)]
    fn answer(&mut self, proof: Proof) -> u32 {
        if self.flood_answer == FloodAnswer::Drop {
            return XDP_DROP;
        }
        let passes = match self.reach() {
            _ if nomail_common::Mechanism::ReachBeforeCookie.is_off()
                && self.flood_answer == FloodAnswer::Cookie
                && self.cookie() == 0 =>
            {
                return XDP_DROP;
            }
            Reach::Yes => return self.reply(proof),
            Reach::NotThisWay => nomail_common::Mechanism::OtherWayPasses.is_on(),
            Reach::NotThisPacket => {
                !self.is_over_shared(UNANSWERED, policy::unanswered(self.config.cap))
            }
        };
        let (answer, action) = if passes {
            (Answer::Unanswerable, XDP_PASS)
        } else {
            (Answer::UnanswerableDropped, XDP_DROP)
        };
        self.counters.count_answer(answer);
        action
    }

    #[inline(always)]
    fn reply(&mut self, proof: Proof) -> u32 {
        let sequence = self.segment.sequence;
        let (answer, numbers) = if self.flood_answer == FloodAnswer::Cookie {
            let cookie = self.cookie() as u32;
            // The kernel would refuse what comes of any other.
            if cookie == 0 {
                return XDP_DROP;
            }
            let numbers = Numbers {
                sequence: cookie,
                acknowledgment: sequence.wrapping_add(1),
            };
            (Answer::Cookie, numbers)
        } else {
            let slot = self.slot();
            let numbers = Numbers {
                sequence: 0,
                acknowledgment: self.hash().acknowledgment(sequence, slot, proof.round()),
            };
            (Answer::Challenge, numbers)
        };
        let action = reply(self.context.ctx, self.segment, numbers.into());
        let is_sent = action == XDP_TX;
        let answer = if is_sent {
            answer
        } else {
            Answer::UnanswerableDropped
        };
        self.counters.count_answer(answer);
        action
    }

    /// Whether one more SYN is over a bucket that all share.
    #[inline(always)]
    fn is_over_shared(&self, bucket: u32, limit: Limit) -> bool {
        let Limit {
            interval,
            tolerance,
        } = limit;
        interval != 0 && over_shared(bucket, self.jiffies, interval, tolerance) != 0
    }

    /// The listener's SYN cookie, 0 when it needs none or the SYN has IP options.
    #[inline(always)]
    fn cookie(&mut self) -> u64 {
        match self.cookie {
            Some(cookie) => cookie,
            None => {
                let cookie = if self.segment.is_plain() {
                    let number = self.guarded.number;
                    cookie::cookie(self.context.ctx, self.segment, number, self.jiffies)
                } else {
                    0
                };
                self.cookie = Some(cookie);
                cookie
            }
        }
    }

    #[inline(always)]
    fn reach(&self) -> Reach {
        let Self {
            context,
            segment,
            config,
            guarded,
            ..
        } = self;
        reach(context, segment, config, guarded, self.entry)
    }
}

/// Whether it is right to answer a segment, see [`Reach::of`].
#[inline(always)]
fn reach(
    context: &XdpContext,
    segment: &Segment,
    config: &Config,
    guarded: &Guarded,
    entry: u32,
) -> Reach {
    let Some(hardware) = frame::hardware(context) else {
        return Reach::NotThisWay;
    };
    let place = entry.checked_sub(1).map(|place| place as usize);
    Reach::of(
        segment,
        guarded,
        config,
        place,
        hardware,
        &maps::PORTS.load(),
        |entry, [d0, d1, d2, d3, d4, d5]| {
            let destination = u64::from_be_bytes([0, 0, d0, d1, d2, d3, d4, d5]);
            is_further_hardware(entry, destination) != 0
        },
    )
}

/// Whether frames to a hardware address, in the lower 48 bits, are for the interface of
/// this entry. Global for the same reason as [`charge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_further_hardware(entry: u32, destination: u64) -> u32 {
    let [_, _, destination @ ..] = destination.to_be_bytes();
    let is = maps::config().is_some_and(|config| config.is_further_hardware(entry, destination));
    u32::from(is)
}

/// Turns a SYN into the SYN-ACK with these [`Numbers`] and sends it back; what became
/// of it. Global for the same reason as [`charge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reply(context: *mut xdp_md, segment: *const Segment, numbers: u64) -> u32 {
    // SAFETY: as in `judge`.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return XDP_DROP;
    };
    let context = XdpContext::new(context);
    let (network, numbers) = (segment.network as usize, Numbers::from(numbers));
    if segment.is_ipv6() {
        frame::answer(
            &context,
            network,
            reply::ipv6(segment, &Header::syn_ack(numbers)),
        )
    } else {
        frame::answer(
            &context,
            network,
            reply::ipv4(segment, &Header::syn_ack(numbers)),
        )
    }
}

/// What a tuple has proven with a SYN of this sequence number, as [`Proof`]. Global for
/// the same reason as [`charge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn proof_of(source: u64, hash: u64, sequence: u32, jiffies: u64, ticks: u32) -> u32 {
    let Some(line) = maps::ticket_line(Source(source), TupleHash(hash)) else {
        return Proof::None as u32;
    };
    tickets::proof_of(&line, TupleHash(hash), sequence, jiffies as u32, ticks) as u32
}

/// A SYN is admitted on the ticket of its tuple. Global for the same reason as
/// [`charge`]; returns nothing of interest.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit(source: u64, hash: u64, jiffies: u64, ticks: u32) -> u32 {
    if let Some(line) = maps::ticket_line(Source(source), TupleHash(hash)) {
        tickets::admit(&line, TupleHash(hash), jiffies as u32, ticks);
    }
    0
}

/// Takes a RST, and says what it was as [`Answered`]. Global for the same reason as
/// [`charge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reset(source: u64, hash: u64, sequence: u32, jiffies: u64) -> u32 {
    let (source, hash) = (Source(source), TupleHash(hash));
    let Some(config) = maps::config() else {
        return Answered::Not as u32;
    };
    let (Some(of_source), Some(of_all)) = (maps::resets_of(source), maps::shared(RESETS)) else {
        return Answered::Not as u32;
    };
    let strict = config
        .resets
        .is_strict([&of_source, &of_all], Time::from_jiffies(jiffies));
    let Some(line) = maps::ticket_line(source, hash) else {
        return Answered::Not as u32;
    };
    let (slot, ticks) = (slot_of(config, jiffies), config.proof_ticks);
    let answered = tickets::reset(&line, strict, hash, sequence, slot, jiffies as u32, ticks);
    if answered.is_right()
        && let Some(last) = maps::last_proof()
    {
        last.store(jiffies + u64::from(ticks));
    }
    answered as u32
}

/// Counts a RST that answers no challenge. Apart from [`reset`] to spare stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_reset(source: u64, jiffies: u64) -> u32 {
    if let (Some(config), Some(of_source), Some(of_all)) = (
        maps::config(),
        maps::resets_of(Source(source)),
        maps::shared(RESETS),
    ) {
        config
            .resets
            .charge([&of_source, &of_all], Time::from_jiffies(jiffies));
    }
    0
}

/// The time slot of proofs.
#[inline(always)]
const fn slot_of(config: &Config, jiffies: u64) -> u32 {
    (jiffies >> (config.slot_shift & 63)) as u32
}

/// Whether one more SYN is over a bucket that all share; charges it if not. A global
/// function, so that its stack is not part of [`judge`]'s: Linux 6.1 rounds each function
/// up to 32 bytes and allows 512 for a chain, of which `nomail` takes 192 and [`reply`] 96.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn over_shared(bucket: u32, jiffies: u64, interval: u64, tolerance: u64) -> u32 {
    let limit = Limit {
        interval,
        tolerance,
    };
    let now = Time::from_jiffies(jiffies);
    let is_over =
        maps::shared(bucket).is_some_and(|shared| limiter::charge_shared(&shared, now, limit));
    u32::from(is_over)
}

/// The clock of [`Time`], for the agent: the low 32 bits of `jiffies64`.
#[xdp(frags)]
fn nomail_clock(_context: XdpContext) -> u32 {
    // SAFETY: the helper takes nothing and returns a number.
    (unsafe { bpf_jiffies64() }) as u32
}

/// What the kernel asks before it lends the helpers used here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
