//! The one truth table of verdicts, and what follows from a verdict.

use crate::{
    abi::{Config, Guarded, MAX_INTERFACES, MAX_PORTS, RESPOND, RESPOND_FOR_LISTENERS},
    guard::limiter::Limit,
    guard::tickets::Proof,
    verdict::Verdict,
    wire::packet::Segment,
};

/// What becomes of a SYN that has proven nothing, when there are too many of them.
/// The discriminant is [`crate::abi::Config::flood_answer`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloodAnswer {
    /// It is dropped.
    Drop = 0,
    /// Its source is made to prove that it is there.
    #[default]
    Challenge = 1,
    /// While the listener's queue is full it gets the kernel's own SYN cookie,
    /// computed for it by XDP; else it is dropped.
    Cookie = 2,
}

impl FloodAnswer {
    /// From a value of [`crate::abi::Config::flood_answer`].
    #[inline(always)]
    pub const fn from_value(value: u32) -> Self {
        match value {
            1 if crate::Mechanism::Challenge.is_on() => Self::Challenge,
            2 => Self::Cookie,
            _ => Self::Drop,
        }
    }
}

/// What is to be known of a SYN for a guarded pair. Each is asked at most once,
/// in the order of [`decide`], and only when the answer matters: a question may
/// charge a bucket.
pub trait Facts {
    /// The stack would not take it as a SYN either.
    fn malformed(&mut self) -> bool;
    /// Its source is on the allow list.
    fn allowed(&mut self) -> bool;
    /// Its source is on the deny list.
    fn denied(&mut self) -> bool;
    /// What its tuple has proven.
    fn proof(&mut self) -> Proof;
    /// It is admitted on the ticket of its tuple.
    fn admit(&mut self);
    /// Its source is over its bucket: the one for proven tuples, or the other.
    fn over_source(&mut self, proven: bool) -> bool;
    /// The same of its prefix.
    fn over_prefix(&mut self, proven: bool) -> bool;
    /// More unproven SYNs have come than the listener can take.
    fn over_cap(&mut self) -> bool;
}

/// A verdict, and what the tuple has proven as far as that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict, of which each SYN has exactly one.
    pub verdict: Verdict,
    /// What the tuple has proven.
    pub proof: Proof,
}

/// Decides about a SYN for a guarded pair.
///
/// A source on the allow list is exempt from the deny list and from the buckets,
/// and from nothing else. A ticket charges its source when it admits its first SYN: later
/// SYNs on it, and those beyond it, charge nothing. A SYN that is refused for its prefix has
/// charged its source all the same, and its ticket stays new.
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
    /// Whether the SYN is to be answered by XDP: it is not given to the stack, and
    /// its source address is no proof of who sent it.
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

/// Who serves the SYNs that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A client that was challenged would wait in vain.
    Nobody,
    /// The listeners of the agent.
    Listeners,
    /// The responder.
    Xdp,
}

impl Server {
    /// By [`Config::responder`], and whether the lease holds.
    #[inline(always)]
    pub const fn of(responder: u32, lease_holds: bool) -> Self {
        if responder == RESPOND {
            Self::Xdp
        } else if lease_holds {
            Self::Listeners
        } else if responder == RESPOND_FOR_LISTENERS && crate::Mechanism::Fallback.is_on() {
            Self::Xdp
        } else {
            Self::Nobody
        }
    }

    /// What the unproven get, of what is configured.
    #[inline(always)]
    pub const fn flood_answer(self, configured: u32) -> FloodAnswer {
        match self {
            Self::Nobody => FloodAnswer::Drop,
            Self::Listeners => FloodAnswer::from_value(configured),
            // Only the proven are served.
            Self::Xdp => FloodAnswer::Challenge,
        }
    }
}

/// What to do with a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is given to the network stack.
    Pass,
    /// It is dropped.
    Drop,
    /// It gets the flood answer, and where that cannot be given see [`Reach`].
    Answer,
    /// The responder answers it.
    Respond,
}

/// What follows from a decision.
#[inline(always)]
pub const fn action(decision: Decision, server: Server, observe: bool) -> Action {
    if observe {
        Action::Pass
    } else if matches!(decision.verdict, Verdict::Passed) {
        match server {
            Server::Xdp if decision.proof.is_proven() => Action::Respond,
            // Nobody else serves: a client has to prove itself first.
            Server::Xdp => Action::Answer,
            _ => Action::Pass,
        }
    } else if decision.wants_answer() {
        Action::Answer
    } else {
        Action::Drop
    }
}

/// Whether XDP can answer a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It can.
    Yes,
    /// Not by where it came in: behind another VLAN than its address, or for other
    /// hardware. Whatever comes that way is the kernel's.
    NotThisWay,
    /// Not by what it is, and no client's SYN is: options of IP, a source that no host
    /// elsewhere has, or one of our ports as its source port. Few are the kernel's
    /// ([`unanswered`]); a flood of them is dropped.
    NotThisPacket,
}

/// How many SYNs that are [`Reach::NotThisPacket`] are the kernel's, by the cap of all
/// unproven ones: a quarter, in rate and burst, so that both together do not fill the
/// listener's queue.
#[inline(always)]
pub const fn unanswered(cap: Limit) -> Limit {
    Limit {
        interval: cap.interval * 4,
        tolerance: cap.tolerance,
    }
}

impl Reach {
    /// Of a segment for `guarded`, with these hardware addresses (destination, source),
    /// that came in by the interface whose place in `config` is `place`, or by another,
    /// where `ports` are ours. `is_further` says whether the destination is
    /// [`Config::further_hardware`].
    #[inline(always)]
    pub fn of(
        segment: &Segment,
        guarded: &Guarded,
        config: &Config,
        place: Option<usize>,
        [destination, source]: [[u8; 6]; 2],
        ports: &[u16; MAX_PORTS],
        is_further: impl FnOnce(u32, [u8; 6]) -> bool,
    ) -> Self {
        let is = |own: &[u8; 8]| destination == [own[0], own[1], own[2], own[3], own[4], own[5]];
        let is_own = match place {
            // The verifier sees no bound but this one.
            Some(place) => is(&config.hardware[place % MAX_INTERFACES]),
            // A port of a bond, which natively runs the program of the bond, and whose
            // frames have the bond's address. None is all zeros.
            None => destination != [0; 6] && config.hardware.iter().any(is),
        };
        let entry = place.map_or(0, |place| place as u32 + 1);
        let is_own = is_own || is_further(entry, destination);
        if !is_own || segment.vlan != guarded.vlan {
            Self::NotThisWay
        } else if source[0] & 1 == 0
            && segment.is_plain()
            && segment.peer.is_answerable(segment.is_ipv6())
            // Two answer machines that face each other would never end.
            && (crate::Mechanism::OwnPortsUnanswered.is_off() || !ports.contains(&segment.peer_port))
            && !config.is_own(segment.peer)
        {
            Self::Yes
        } else {
            Self::NotThisPacket
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counted::Counted as _;

    /// Facts, one bit each, and which of them were asked.
    struct Bits {
        bits: u32,
        proof: usize,
        asked: Vec<&'static str>,
    }

    impl Bits {
        fn ask(&mut self, bit: u32, name: &'static str) -> bool {
            assert!(!self.asked.contains(&name), "{name} asked twice");
            self.asked.push(name);
            self.bits & 1 << bit != 0
        }
    }

    impl Facts for Bits {
        fn malformed(&mut self) -> bool {
            self.ask(0, "malformed")
        }
        fn allowed(&mut self) -> bool {
            self.ask(1, "allowed")
        }
        fn denied(&mut self) -> bool {
            self.ask(2, "denied")
        }
        fn proof(&mut self) -> Proof {
            let proofs = [
                Proof::None,
                Proof::Half,
                Proof::New,
                Proof::Used,
                Proof::Spent,
            ];
            self.ask(3, "proof");
            proofs[self.proof]
        }
        fn admit(&mut self) {
            self.ask(7, "admit");
        }
        fn over_source(&mut self, proven: bool) -> bool {
            assert_eq!(proven, self.proof == 2);
            self.ask(4, "over_source")
        }
        fn over_prefix(&mut self, proven: bool) -> bool {
            assert_eq!(proven, self.proof == 2);
            self.ask(5, "over_prefix")
        }
        fn over_cap(&mut self) -> bool {
            self.ask(6, "over_cap")
        }
    }

    /// The table, said in another way, over every combination of facts.
    #[test]
    fn truth_table() {
        for (bits, proof) in (0..1u32 << 7).flat_map(|bits| (0..5).map(move |proof| (bits, proof)))
        {
            let [malformed, allowed, denied, _, source, prefix, cap] =
                std::array::from_fn(|bit| bits & 1 << bit != 0);
            let (proven, used, spent) = (proof >= 2, proof == 3, proof == 4);
            let charged = !allowed && !used;
            let reasons = [
                (malformed, Verdict::Malformed),
                (denied && !allowed, Verdict::Denied),
                (spent, Verdict::Replayed),
                (source && charged, Verdict::LimitedSource),
                (prefix && charged, Verdict::LimitedPrefix),
                (cap && !proven, Verdict::Flood),
            ];
            let first = reasons.iter().find(|(holds, _)| *holds);
            let verdict = first.map_or(Verdict::Passed, |(_, verdict)| *verdict);
            let mut facts = Bits {
                bits,
                proof,
                asked: Vec::new(),
            };
            let decision = decide(&mut facts);
            assert_eq!(decision.verdict, verdict, "{bits:07b}");
            let asked = |name| facts.asked.contains(&name);
            let early = [Verdict::Malformed, Verdict::Denied, Verdict::Replayed];
            assert_eq!(asked("over_source"), charged && !early.contains(&verdict));
            assert_eq!(asked("admit"), proven && verdict == Verdict::Passed);
            assert!(
                !asked("over_cap") || !proven,
                "proven tuples are not under the cap"
            );
            let answered = decision.wants_answer();
            let limited = [
                Verdict::LimitedSource,
                Verdict::LimitedPrefix,
                Verdict::Flood,
            ];
            assert_eq!(answered, limited.contains(&verdict) && !proven);
        }
    }

    #[test]
    fn a_verdict_is_its_own_index() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
        }
    }
}
