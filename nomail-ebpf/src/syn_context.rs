//! The segment that is judged, with everything known about it.

use aya_ebpf::{helpers::generated::bpf_jiffies64, programs::XdpContext};
use nomail_common::{
    abi::{CAP, Config, Guarded, MAX_INTERFACES},
    guard::challenge::TupleHash,
    guard::limiter::{Bucket, Limit, SharedBucket as _, Time, try_charge_shared},
    guard::policy::{FloodAnswer, Server},
    guard::tickets::Ticket,
    source::Source,
    verifier::forget,
    wire::packet::{Address, Segment},
};

use crate::{
    buckets::over_shared,
    cookie,
    maps::{self, CpuCounters, SharedWord},
    trace::trace,
};

/// A SYN or RST for a guarded pair, and what is needed to judge it.
///
/// It lives in registers: no reference to it may reach a function that is not inlined.
pub(crate) struct SynContext<'a> {
    pub(crate) context: &'a XdpContext,
    pub(crate) segment: Segment,
    /// Its [`Kind`](nomail_common::wire::packet::Kind).
    pub(crate) kind: u64,
    pub(crate) config: &'a Config,
    pub(crate) guarded: &'a Guarded,
    /// The source that it is counted for.
    pub(crate) source: Source,
    /// See [`entry_of`].
    pub(crate) entry: u32,
    pub(crate) counters: CpuCounters,
    pub(crate) jiffies: u64,
    /// The bucket of all unproven SYNs, as it was read.
    cap: SharedWord,
    cap_word: Bucket,
    /// See [`EXHAUSTED`] and [`PROOFS`].
    state: u64,
    /// The hash of the tuple, once it was asked for, or 0.
    hash: u64,
    /// The ticket of the tuple, once it was asked for.
    pub(crate) ticket: Ticket,
    /// The SYN cookie, once it was asked for: 0 when there is none, else [`NOT_ASKED`].
    pub(crate) cookie: u64,
}

/// See [`SynContext::cookie`]; not a cookie, which has a maximum segment size above it.
const NOT_ASKED: u64 = u64::MAX;
/// Bit of [`SynContext::state`]: one more unproven SYN would be over the cap.
const EXHAUSTED: u64 = 1;
/// Bit of [`SynContext::state`]: a tuple may have a ticket, because a proof was given lately.
const PROOFS: u64 = 2;

impl<'a> SynContext<'a> {
    /// None when the segment is not for a guarded pair, or the agent has not written its maps
    /// yet.
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext, segment: Segment, kind: u64) -> Option<Self> {
        let config = maps::config()?;
        let any = nomail_common::Mechanism::GuardedAddresses
            .is_off()
            .then_some(&config.guarded[0]);
        let guarded = config.guarded(segment.local, segment.port).or(any)?;
        let interface = context.ingress_ifindex() as u32;
        let entry = if config.interfaces[0] == interface {
            forget(1, u64::from(interface)) as u32
        } else {
            entry_of(config, interface)
        };
        let counters = maps::counters(entry)?;
        let (last, cap) = (maps::last_proof()?, maps::shared(CAP)?);
        // SAFETY: the helper takes nothing and returns a number.
        let jiffies = unsafe { bpf_jiffies64() };
        let now = Time::from_jiffies(jiffies);
        let cap_word = cap.bucket();
        let limit = config.cap;
        let exhausted = limit.interval != 0 && cap_word.or_full(now).is_over(now, limit);
        let proofs = last.load() > jiffies;
        let state = if exhausted { EXHAUSTED } else { 0 } | if proofs { PROOFS } else { 0 };
        trace!(trace_state, state as u32);
        let syn = Self {
            context,
            segment,
            kind: forget(kind, jiffies),
            config,
            guarded,
            source: source_of(&segment, jiffies),
            entry,
            counters,
            jiffies,
            cap,
            cap_word: Bucket(forget(cap_word.0, jiffies)),
            state: forget(state, jiffies),
            hash: 0,
            ticket: Ticket(0),
            cookie: NOT_ASKED,
        };
        Some(syn)
    }

    /// The same while no proof is alive and the cap is not exhausted, if that is so. As
    /// constants, of which the compiler makes a copy of what follows.
    #[inline(always)]
    pub(crate) fn in_peace(&self) -> Option<Self> {
        (self.state == 0).then_some(Self {
            state: 0,
            hash: 0,
            ..*self
        })
    }

    /// Has the verifier forget how the decision was reached.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        self.hash = forget(self.hash, self.jiffies);
        self.cookie = forget(self.cookie, self.jiffies);
    }

    /// Whether it is [`Self::in_peace`].
    #[inline(always)]
    pub(crate) const fn is_peace(&self) -> bool {
        self.state == 0
    }

    /// Hashes the tuple if it is to be challenged, or may have been. In one place: the code is
    /// long.
    #[inline(always)]
    pub(crate) fn prepare_hash(&mut self) {
        if self.flood_answer() == FloodAnswer::Challenge {
            self.hash = TupleHash::of(&self.segment, maps::key()).0;
        }
        self.hash = forget(self.hash, self.jiffies);
    }

    /// Whether one more unproven SYN would be over the cap.
    #[inline(always)]
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.state & EXHAUSTED != 0
    }

    /// Whether a tuple may have a ticket.
    #[inline(always)]
    pub(crate) const fn may_be_proven(&self) -> bool {
        self.state & PROOFS != 0
    }

    #[inline(always)]
    pub(crate) const fn now(&self) -> Time {
        Time::from_jiffies(self.jiffies)
    }

    /// The time slot of proofs.
    #[inline(always)]
    pub(crate) const fn slot(&self) -> u32 {
        (self.jiffies >> (self.config.slot_shift & 63)) as u32
    }

    /// What serves SYNs that pass. Without a stateless refusal, the verifier sees nothing of
    /// it.
    #[inline(always)]
    pub(crate) fn server(&self) -> Server {
        let holds = maps::lease_holds(self.jiffies);
        if maps::may_respond() {
            Server::of(self.config.responder, holds)
        } else if holds {
            Server::Listeners
        } else {
            Server::None
        }
    }

    /// Whether the hash is known. Then, and only then, an unproven SYN is challenged, while
    /// there is no [`Self::is_peace`].
    #[inline(always)]
    pub(crate) const fn is_hashed(&self) -> bool {
        self.hash != 0
    }

    /// The answer to unproven SYNs; none while nothing serves them.
    #[inline(always)]
    pub(crate) fn flood_answer(&self) -> FloodAnswer {
        if self.is_hashed() {
            return FloodAnswer::Challenge;
        }
        self.server().flood_answer(self.config.flood_answer)
    }

    #[inline(always)]
    pub(crate) fn hash(&self) -> TupleHash {
        if self.is_hashed() {
            return TupleHash(self.hash);
        }
        let Segment { peer, local, .. } = self.segment;
        let ports = u64::from(self.segment.peer_port) << 16 | u64::from(self.segment.port);
        let rest = u64::from(self.segment.flags) << 32 | ports;
        TupleHash(hash_of(peer.high, peer.low, local.high, local.low, rest))
    }

    /// The listener's SYN cookie; 0 when it needs none, or the SYN has IP options.
    #[inline(always)]
    pub(crate) fn cookie(&mut self) -> u64 {
        if self.cookie == NOT_ASKED {
            self.cookie = if self.segment.is_plain() {
                // In memory only here.
                let segment = self.segment;
                let (number, jiffies) = (self.guarded.number, self.jiffies);
                cookie::cookie(self.context.ctx, &raw const segment, number, jiffies)
            } else {
                0
            };
        }
        self.cookie
    }

    /// Whether one more unproven SYN is over the cap; charges it if not.
    #[inline(always)]
    pub(crate) fn is_over_cap(&self) -> bool {
        let limit = self.config.cap;
        if limit.interval == 0 {
            return false;
        }
        match try_charge_shared(&self.cap, self.cap_word, self.now(), limit) {
            Some(is_over) => is_over,
            None => self.is_over_shared(CAP, limit),
        }
    }

    /// Whether one more SYN is over a bucket that all share; charges it if not.
    #[inline(always)]
    pub(crate) fn is_over_shared(&self, bucket: u32, limit: Limit) -> bool {
        let Limit {
            interval,
            tolerance,
        } = limit;
        interval != 0 && over_shared(bucket, self.jiffies, interval, tolerance) != 0
    }
}

/// The source of a segment. The verifier is to know neither what it is, since some addresses
/// have one source in common, nor what the address is.
#[inline(always)]
fn source_of(segment: &Segment, jiffies: u64) -> Source {
    if segment.is_ipv6() {
        let Address { high, low } = segment.peer;
        let [high, low] = [high, low].map(|half| forget(half, jiffies));
        Source(forget(Source::from_ipv6(high, low).0, jiffies))
    } else {
        segment.source()
    }
}

/// The hash of a tuple, for the few that need it while there is no flood. `rest` has the flags
/// of the segment, above both ports. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hash_of(
    peer_high: u64,
    peer_low: u64,
    local_high: u64,
    local_low: u64,
    rest: u64,
) -> u64 {
    let segment = Segment {
        peer: Address {
            high: peer_high,
            low: peer_low,
        },
        local: Address {
            high: local_high,
            low: local_low,
        },
        peer_port: (rest >> 16) as u16,
        port: rest as u16,
        flags: (rest >> 32) as u8,
        ..Segment::NONE
    };
    TupleHash::of(&segment, maps::key()).0
}

/// The entry of an interface in the counters: 1 above its index in the configuration, or 0.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn entry_of(config: *const Config, interface: u32) -> u32 {
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let Some(config) = (unsafe { config.as_ref() }) else {
        return 0;
    };
    let index = (0..MAX_INTERFACES).find(|&index| config.interfaces[index] == interface);
    index.map_or(0, |index| index as u32 + 1)
}
