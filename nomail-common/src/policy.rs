//! The one truth table of verdicts.

use crate::verdict::Verdict;

/// Decides about a SYN for a guarded pair.
///
/// `over_bucket` is asked only when the answer matters: a malformed SYN must
/// not charge the source it claims.
#[inline(always)]
pub fn decide(malformed: bool, over_bucket: impl FnOnce() -> bool) -> Verdict {
    if malformed {
        Verdict::Malformed
    } else if over_bucket() {
        Verdict::LimitedSource
    } else {
        Verdict::Passed
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(false, false, Verdict::Passed, true)]
    #[case(false, true, Verdict::LimitedSource, true)]
    #[case(true, false, Verdict::Malformed, false)]
    #[case(true, true, Verdict::Malformed, false)]
    fn truth_table(
        #[case] malformed: bool,
        #[case] over: bool,
        #[case] verdict: Verdict,
        #[case] charged: bool,
    ) {
        let mut asked = false;
        let decided = decide(malformed, || {
            asked = true;
            over
        });
        assert_eq!((decided, asked), (verdict, charged));
    }

    #[test]
    fn a_verdict_is_its_own_index() {
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
    }
}
