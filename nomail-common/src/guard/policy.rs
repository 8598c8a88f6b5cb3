//! The truth table of verdicts, and the action that follows from a verdict.

use super::{limiter::Limit, tickets::Proof};
use crate::verdict::Verdict;

/// [`Config::responder`](crate::abi::Config::responder): there are no listeners.
pub const RESPOND: u32 = 1;
/// [`Config::responder`](crate::abi::Config::responder): XDP takes the place of the listeners
/// while they do not serve. A connection ends with the side that it began with.
pub const RESPOND_FOR_LISTENERS: u32 = 2;

/// The answer to an unproven SYN when there are too many of them. The discriminant is
/// [`Config::flood_answer`](crate::abi::Config::flood_answer).
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloodAnswer {
    /// None: the SYN is dropped.
    Drop = 0,
    /// A challenge, which makes the client prove its address.
    #[default]
    Challenge = 1,
    /// The kernel's own SYN cookie, sent by XDP, while the listener's queue is full; else
    /// the SYN is dropped.
    Cookie = 2,
}

impl FloodAnswer {
    /// From a value of [`Config::flood_answer`](crate::abi::Config::flood_answer).
    #[inline(always)]
    pub const fn from_value(value: u32) -> Self {
        match value {
            1 if crate::Mechanism::Challenge.is_on() => Self::Challenge,
            2 => Self::Cookie,
            _ => Self::Drop,
        }
    }
}

/// The facts about a SYN for a guarded pair. Each is asked at most once, in the order of
/// [`decide`], and only when it matters: asking may charge a bucket.
pub trait Facts {
    /// Whether the network stack would not accept it as a SYN either.
    fn malformed(&mut self) -> bool;
    /// Whether its source is on the allow list.
    fn allowed(&mut self) -> bool;
    /// Whether its source is on the deny list.
    fn denied(&mut self) -> bool;
    /// What its tuple has proven.
    fn proof(&mut self) -> Proof;
    /// Admits it on the ticket of its tuple.
    fn admit(&mut self);
    /// Whether its source is over its bucket: the one for proven tuples, or the other.
    fn over_source(&mut self, proven: bool) -> bool;
    /// Whether its prefix is over its bucket.
    fn over_prefix(&mut self, proven: bool) -> bool;
    /// Whether more unproven SYNs arrived than the listener can take.
    fn over_cap(&mut self) -> bool;
}

/// A verdict, and the proof of the tuple as far as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// What the tuple has proven.
    pub proof: Proof,
}

/// Decides about a SYN for a guarded pair.
///
/// A source on the allow list is exempt from the deny list and from the buckets, and from
/// nothing else. The first SYN that a ticket admits charges its source: later SYNs on the
/// ticket, and those beyond it, charge nothing. A SYN over the limit of its prefix has charged
/// its source all the same, and its ticket stays new.
#[inline(always)]
pub fn decide(facts: &mut impl Facts) -> Decision {
    let unproven = |verdict| Decision {
        verdict,
        proof: Proof::None,
    };
    let last = crate::Mechanism::MalformedFirst.is_off() && facts.denied() && !facts.allowed();
    if !last && facts.malformed() {
        return unproven(Verdict::Malformed);
    }
    let allowed = facts.allowed();
    if !allowed && facts.denied() {
        return unproven(Verdict::Denied);
    }
    let proof = facts.proof();
    if proof == Proof::Spent {
        let verdict = Verdict::Replayed;
        return Decision { verdict, proof };
    }
    let proven = proof.is_proven();
    let charged = !allowed && proof != Proof::Used;
    let proven_buckets = crate::Mechanism::ProvenBuckets.is_on() && proven;
    let cap_last = crate::Mechanism::BucketsBeforeCap.is_on();
    let verdict = if !cap_last && !proven && facts.over_cap() {
        Verdict::Flood
    } else if charged && facts.over_source(proven_buckets) {
        Verdict::LimitedSource
    } else if charged && facts.over_prefix(proven_buckets) {
        Verdict::LimitedPrefix
    } else if cap_last && !proven && facts.over_cap() {
        Verdict::Flood
    } else {
        if proven {
            facts.admit();
        }
        Verdict::Passed
    };
    Decision { verdict, proof }
}

impl Decision {
    /// Whether XDP answers the SYN: it does not pass, and its source address may be forged.
    #[inline(always)]
    pub const fn wants_answer(self) -> bool {
        !self.proof.is_proven()
            && matches!(
                self.verdict,
                Verdict::LimitedSource | Verdict::LimitedPrefix | Verdict::Flood
            )
            && (crate::Mechanism::ChallengeOverBucket.is_on()
                || matches!(self.verdict, Verdict::Flood))
    }
}

/// What serves the SYNs that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Nothing: a client that was challenged would wait in vain.
    None,
    /// The listeners of the agent.
    Listeners,
    /// XDP, without a socket.
    Xdp,
}

impl Server {
    /// By [`Config::responder`](crate::abi::Config::responder), and whether the lease holds.
    #[inline(always)]
    pub const fn of(responder: u32, lease_holds: bool) -> Self {
        if responder == RESPOND {
            Self::Xdp
        } else if lease_holds {
            Self::Listeners
        } else if responder == RESPOND_FOR_LISTENERS && crate::Mechanism::Fallback.is_on() {
            Self::Xdp
        } else {
            Self::None
        }
    }

    /// The answer to unproven SYNs, of the one that is `configured`.
    #[inline(always)]
    pub const fn flood_answer(self, configured: u32) -> FloodAnswer {
        match self {
            Self::None => FloodAnswer::Drop,
            Self::Listeners => FloodAnswer::from_value(configured),
            // Only proven tuples are served.
            Self::Xdp => FloodAnswer::Challenge,
        }
    }
}

/// What to do with a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give it to the network stack.
    Pass,
    /// Drop it.
    Drop,
    /// Send the flood answer, if [`Reach`](crate::reach::Reach) allows it.
    Answer,
    /// Hand it to the stateless refusal.
    Respond,
}

/// The action that follows from a decision.
#[inline(always)]
pub const fn action(decision: Decision, server: Server, observe: bool) -> Action {
    if observe {
        Action::Pass
    } else if matches!(decision.verdict, Verdict::Passed) {
        match server {
            Server::Xdp if decision.proof.is_proven() => Action::Respond,
            // Nothing else serves: a client has to prove itself first.
            Server::Xdp => Action::Answer,
            _ => Action::Pass,
        }
    } else if decision.wants_answer() {
        Action::Answer
    } else {
        Action::Drop
    }
}

/// The limit of SYNs that pass because they are
/// [`Reach::NotThisPacket`](crate::reach::Reach::NotThisPacket): a quarter, in
/// rate and burst, of the cap of unproven SYNs, so that both together do not fill the
/// listener's queue.
#[inline(always)]
pub const fn unanswered(cap: Limit) -> Limit {
    Limit {
        interval: cap.interval * 4,
        tolerance: cap.tolerance,
    }
}

#[cfg(test)]
mod tests;
