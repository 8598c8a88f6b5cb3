//! The one truth table of verdicts, and what follows from a verdict.

use crate::verdict::Verdict;

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
            1 => Self::Challenge,
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
    /// Its tuple has proven itself a moment ago.
    fn proven(&mut self) -> bool;
    /// Its source is over its bucket: the one for proven tuples, or the other.
    fn over_source(&mut self, proven: bool) -> bool;
    /// The same of its prefix.
    fn over_prefix(&mut self, proven: bool) -> bool;
    /// More unproven SYNs have come than the listener can take.
    fn over_cap(&mut self) -> bool;
}

/// A verdict, and whether the tuple is proven as far as that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict, of which each SYN has exactly one.
    pub verdict: Verdict,
    /// Whether the tuple is proven.
    pub proven: bool,
}

/// Decides about a SYN for a guarded pair.
///
/// Who is on the allow list is exempt from the deny list and from the buckets,
/// and from nothing else.
#[inline(always)]
pub fn decide(facts: &mut impl Facts) -> Decision {
    let unproven = |verdict| Decision {
        verdict,
        proven: false,
    };
    if facts.malformed() {
        return unproven(Verdict::Malformed);
    }
    let allowed = facts.allowed();
    if !allowed && facts.denied() {
        return unproven(Verdict::Denied);
    }
    let proven = facts.proven();
    let verdict = if !allowed && facts.over_source(proven) {
        Verdict::LimitedSource
    } else if !allowed && facts.over_prefix(proven) {
        Verdict::LimitedPrefix
    } else if !proven && facts.over_cap() {
        Verdict::Flood
    } else {
        Verdict::Passed
    };
    Decision { verdict, proven }
}

impl Decision {
    /// Whether the SYN is to be answered by XDP: it is not given to the stack, and
    /// its source address is no proof of who sent it.
    #[inline(always)]
    pub const fn wants_answer(self) -> bool {
        !self.proven
            && matches!(
                self.verdict,
                Verdict::LimitedSource | Verdict::LimitedPrefix | Verdict::Flood
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts, one bit each, and which of them were asked.
    struct Bits {
        bits: u32,
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
        fn proven(&mut self) -> bool {
            self.ask(3, "proven")
        }
        fn over_source(&mut self, proven: bool) -> bool {
            assert_eq!(proven, self.bits & 1 << 3 != 0);
            self.ask(4, "over_source")
        }
        fn over_prefix(&mut self, proven: bool) -> bool {
            assert_eq!(proven, self.bits & 1 << 3 != 0);
            self.ask(5, "over_prefix")
        }
        fn over_cap(&mut self) -> bool {
            self.ask(6, "over_cap")
        }
    }

    /// The table, said in another way, over every combination of facts.
    #[test]
    fn truth_table() {
        for bits in 0..1u32 << 7 {
            let [malformed, allowed, denied, proven, source, prefix, cap] =
                std::array::from_fn(|bit| bits & 1 << bit != 0);
            let reasons = [
                (malformed, Verdict::Malformed),
                (denied && !allowed, Verdict::Denied),
                (source && !allowed, Verdict::LimitedSource),
                (prefix && !allowed, Verdict::LimitedPrefix),
                (cap && !proven, Verdict::Flood),
            ];
            let first = reasons.iter().find(|(holds, _)| *holds);
            let verdict = first.map_or(Verdict::Passed, |(_, verdict)| *verdict);
            let mut facts = Bits {
                bits,
                asked: Vec::new(),
            };
            let decision = decide(&mut facts);
            assert_eq!(decision.verdict, verdict, "{bits:07b}");
            let asked = |name| facts.asked.contains(&name);
            assert_eq!(
                asked("over_source"),
                !allowed && verdict != Verdict::Malformed && verdict != Verdict::Denied
            );
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
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
    }
}
