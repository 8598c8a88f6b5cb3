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
    for (bits, proof) in (0..1u32 << 7).flat_map(|bits| (0..5).map(move |proof| (bits, proof))) {
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
