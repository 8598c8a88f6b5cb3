//! Judging SYNs and RSTs: the facts for [`nomail_common::guard::policy`], and what its
//! decision does to the packet.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS},
        xdp_md,
    },
    helpers::generated::bpf_jiffies64,
    programs::XdpContext,
};
use nomail_common::{
    abi::CAP,
    guard::limiter::Limit,
    guard::policy::{self, Action, Facts, FloodAnswer, Server},
    guard::tickets::{Answered, Proof},
    source::Source,
    verdict::{Answer, Verdict},
    wire::packet::{Kind, Segment},
};

use crate::{
    answer::answer,
    buckets::{CONTENDED, EVICTED, OVER, REPORTABLE, Store, charge, report},
    maps,
    syn_context::{SynContext, entry_of},
    tickets::{admit, charge_reset, proof_of, reset},
};

/// Result of [`judge`] for a segment that the stateless refusal answers: not an XDP action.
pub(crate) const TO_STATELESS: u32 = 16;

/// Judges a segment for a guarded port. It passes before the agent has written its maps.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge(context: *mut xdp_md, segment: *const Segment) -> u32 {
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return XDP_PASS;
    };
    if segment.kind == Kind::Dialog {
        return TO_STATELESS;
    }
    let context = XdpContext::new(context);
    judge_inner(&context, segment).unwrap_or(XDP_PASS)
}

#[inline(always)]
fn judge_inner(context: &XdpContext, segment: &Segment) -> Option<u32> {
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
    let mut syn = SynContext {
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
        return Some(take_reset(&mut syn));
    }
    let decision = policy::decide(&mut syn);
    syn.counters.count(decision.verdict);
    Some(
        match policy::action(decision, server, config.observe != 0) {
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Answer => answer(&mut syn, decision.proof),
            Action::Respond => TO_STATELESS,
        },
    )
}

/// What serves SYNs that pass. Without a stateless refusal, the verifier sees nothing of it.
#[inline(always)]
fn server(responder: u32, jiffies: u64) -> Server {
    let holds = maps::lease_holds(jiffies);
    if maps::may_respond() {
        Server::of(responder, holds)
    } else if holds {
        Server::Listeners
    } else {
        Server::None
    }
}

/// Takes a RST. One that answers a challenge is dropped: the stack knows nothing of it. Any
/// other passes, by way of the stateless refusal, whose retransmission it ends.
#[inline(always)]
fn take_reset(syn: &mut SynContext<'_>) -> u32 {
    let passes = if maps::may_respond() {
        TO_STATELESS
    } else {
        XDP_PASS
    };
    if syn.flood_answer != FloodAnswer::Challenge
        || syn.config.observe != 0
        // Never challenged.
        || maps::PORTS.load().contains(&syn.segment.peer_port)
    {
        return passes;
    }
    let (source, hash) = (syn.segment.source(), syn.hash());
    let answered = reset(source.0, hash.0, syn.segment.sequence, syn.jiffies);
    if answered == Answered::Not as u32 {
        charge_reset(source.0, syn.jiffies);
        return passes;
    }
    if answered == Answered::Opened as u32 {
        return passes;
    }
    if answered == Answered::Proven as u32 {
        syn.counters.count_answer(Answer::Proven);
    }
    XDP_DROP
}

impl Facts for SynContext<'_> {
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
        if charged & REPORTABLE != 0 {
            self.report(self.segment.source(), Verdict::LimitedSource, proven);
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
        if charged & REPORTABLE != 0 {
            self.report(source.prefix(false), Verdict::LimitedPrefix, proven);
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

impl SynContext<'_> {
    #[inline(always)]
    fn charge(&self, store: Store, key: Source, limit: Limit) -> u32 {
        let Limit {
            interval,
            tolerance,
        } = limit;
        charge(store as u32, key.0, self.jiffies, interval, tolerance)
    }

    #[inline(always)]
    fn report(&self, source: Source, verdict: Verdict, proven: bool) {
        report(
            source.0,
            self.jiffies,
            self.context.ingress_ifindex() as u32,
            (verdict as u32) << 1 | u32::from(proven),
            self.config.pause_ticks,
        );
    }
}
