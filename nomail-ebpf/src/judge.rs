//! Judging SYNs and RSTs: the facts for [`nomail_common::guard::policy`], and what its
//! decision does to the packet.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use nomail_common::{
    abi::{Config, LINES},
    guard::lists::ListRoot,
    guard::policy::{self, Action, Facts, FloodAnswer, Server},
    guard::sources::{self, Tried},
    guard::tickets::{self, Answered, Proof},
    verdict::{Answer, Verdict},
    verifier::{forget, opaque},
    wire::packet::{Kind, Segment},
};

use crate::{
    answer::answer,
    buckets::{CHARGED, OVER, Store, carry, charge, report},
    lists::is_listed,
    maps,
    syn_context::SynContext,
    tickets::{charge_reset, reset},
    trace::trace,
};

/// Result of [`judge`] for a segment that the stateless refusal answers: not an XDP action.
pub(crate) const TO_STATELESS: u32 = 16;

/// Judges a segment for a guarded port. It passes before the agent has written its maps.
#[inline(always)]
pub(crate) fn judge(context: &XdpContext, segment: Segment) -> u32 {
    // In one register: the compiler would make a variable of each comparison.
    let kind = opaque(segment.kind as u64);
    trace!(
        trace_segment,
        segment.peer.high,
        segment.peer.low,
        segment.local.high,
        segment.local.low,
        kind << 40
            | u64::from(segment.flags) << 32
            | u64::from(segment.peer_port) << 16
            | u64::from(segment.port)
    );
    if kind == Kind::Dialog as u64 {
        return TO_STATELESS;
    }
    let Some(mut syn) = SynContext::new(context, segment, kind) else {
        trace!(trace_guarded, 0);
        return XDP_PASS;
    };
    let is_reset = syn.kind == Kind::Reset as u64;
    let decision = match syn.in_peace() {
        Some(mut peace) if !is_reset => {
            let decision = policy::decide(&mut peace);
            syn.cookie = peace.cookie;
            decision
        }
        _ => {
            syn.prepare_hash();
            if is_reset {
                return take_reset(&mut syn);
            }
            policy::decide(&mut syn)
        }
    };
    syn.counters.count(decision.verdict);
    // Without a stateless refusal the network stack gets what passes, whatever the lease.
    let server = if matches!(decision.verdict, Verdict::Passed) && maps::may_respond() {
        syn.server()
    } else {
        Server::Listeners
    };
    match policy::action(decision, server, syn.config.observe != 0) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Answer => answer(&mut syn, decision.proof),
        Action::Respond => TO_STATELESS,
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
    if !syn.is_hashed()
        || syn.config.observe != 0
        // Never challenged.
        || maps::PORTS.load().contains(&syn.segment.peer_port)
    {
        return passes;
    }
    let (source, hash) = (syn.source, syn.hash());
    let answered = reset(source.0, hash.0, syn.segment.sequence, syn.jiffies);
    trace!(trace_reset, answered);
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
        self.kind == Kind::Malformed as u64
    }

    #[inline(always)]
    fn allowed(&mut self) -> bool {
        let is_listed =
            self.config.lists & (ListRoot::AllowIpv4.bit() | ListRoot::AllowIpv6.bit()) != 0;
        is_listed && self.is_listed(ListRoot::AllowIpv4)
    }

    #[inline(always)]
    fn denied(&mut self) -> bool {
        let is_listed =
            self.config.lists & (ListRoot::DenyIpv4.bit() | ListRoot::DenyIpv6.bit()) != 0;
        is_listed && self.is_listed(ListRoot::DenyIpv4)
    }

    #[inline(always)]
    fn proof(&mut self) -> Proof {
        // Without a flood there are no tickets, and nothing is hashed.
        if self.is_peace() || !self.may_be_proven() || !self.is_hashed() {
            return Proof::None;
        }
        let hash = self.hash();
        let Some(line) = maps::ticket_line(self.source, hash) else {
            return Proof::None;
        };
        let (now, ticks) = (self.jiffies as u32, self.config.proof_ticks);
        self.ticket = tickets::ticket_of(&line, hash, now, ticks);
        let proof = self.ticket.proof(self.segment.sequence);
        trace!(trace_ticket, proof as u32);
        Proof::from_value(forget(proof as u64, self.jiffies) as u32)
    }

    #[inline(always)]
    fn admit(&mut self) {
        let hash = self.hash();
        if let Some(line) = maps::ticket_line(self.source, hash) {
            tickets::use_ticket(&line, self.ticket);
        }
    }

    #[inline(always)]
    fn over_source(&mut self, proven: bool) -> bool {
        let over = if self.is_peace() {
            self.charge_here()
        } else if proven {
            self.charge(Store::Proven)
        } else {
            self.charge_if_known()
        };
        trace!(trace_source, over & OVER);
        over & OVER != 0 && nomail_common::Mechanism::SourceBucket.is_on()
    }

    #[inline(always)]
    fn over_prefix(&mut self, proven: bool) -> bool {
        if self.config.prefix_limit.interval == 0 {
            return false;
        }
        let over = self.charge(if proven {
            Store::ProvenPrefixes
        } else {
            Store::Prefixes
        });
        trace!(trace_prefix, over & OVER);
        over & OVER != 0 && nomail_common::Mechanism::PrefixBucket.is_on()
    }

    #[inline(always)]
    fn over_cap(&mut self) -> bool {
        if self.config.flood_answer == FloodAnswer::Cookie as u32
            && self.flood_answer() == FloodAnswer::Cookie
            && self.cookie() != 0
        {
            return true;
        }
        let is_over = self.is_over_cap();
        trace!(trace_cap, u32::from(is_over));
        is_over && nomail_common::Mechanism::Cap.is_on()
    }
}

impl SynContext<'_> {
    #[inline(always)]
    fn is_listed(&self, list: ListRoot) -> bool {
        let Segment { peer, flags, .. } = self.segment;
        let Config {
            lists, list_set, ..
        } = *self.config;
        is_listed(peer, flags, list, lists, list_set)
    }

    /// Charges the source in peace: the first try is here, what is rare is apart.
    #[inline(always)]
    fn charge_here(&self) -> u32 {
        let (source, jiffies) = (self.source, self.jiffies);
        let index = sources::line_of(source, maps::SEED.load(), LINES);
        let (Some(recent), Some(line)) = (maps::recent(index), maps::source_line(index)) else {
            return 0;
        };
        recent.note(self.epoch());
        let limit = self.config.limit;
        let charge = match sources::try_charge(&line, source, self.now(), limit, true) {
            Tried::Charged(charge) => charge,
            Tried::Stranger => return 0,
            Tried::Disturbed(_) => return self.charge(Store::Sources),
        };
        if charge.evicted {
            self.counters.count_eviction();
        }
        if charge.carried {
            carry(source.0, charge.slot as u32, u32::from(charge.over));
        }
        if charge.reportable {
            let marks = (Verdict::LimitedSource as u32) << 1;
            let interface = self.context.ingress_ifindex() as u32;
            report(source.0, jiffies, interface, marks, self.config.pause_ticks);
        }
        forget(u64::from(charge.over), jiffies) as u32
    }

    /// Charges the source. While the cap is exhausted only if it is in its line.
    #[inline(always)]
    fn charge_if_known(&self) -> u32 {
        let index = sources::line_of(self.source, maps::SEED.load(), LINES);
        let Some(recent) = maps::recent(index) else {
            return 0;
        };
        let epoch = self.epoch();
        let store = if !self.is_exhausted() {
            Store::Sources
        } else if recent.is_in(epoch) {
            Store::KnownSources
        } else {
            // In a flood nearly all end here.
            return 0;
        };
        let charged = self.charge(store);
        if charged & CHARGED != 0 {
            recent.note(epoch);
        }
        charged
    }

    #[inline(always)]
    fn charge(&self, store: Store) -> u32 {
        let interface = self.context.ingress_ifindex() as u32;
        charge(
            store as u32,
            self.source.0,
            self.jiffies,
            self.entry,
            interface,
        )
    }

    #[inline(always)]
    const fn epoch(&self) -> u8 {
        sources::epoch(self.jiffies, self.config.slot_shift)
    }
}
