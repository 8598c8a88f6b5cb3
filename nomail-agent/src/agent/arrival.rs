//! Whether what XDP sends leaves an interface, from two counters: the answers of the guard, and
//! the frames that the driver dropped instead of sending them.

/// Looks in a row that have to agree: the counters are read one after the other, and a ring
/// that is full for a moment is no driver that cannot send.
const LOOKS: u32 = 3;
/// Answers that such a row has at least.
const ANSWERS_MIN: u64 = 4;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct AnswersSeen {
    before: Option<(u64, u64)>,
    lost: bool,
    /// Looks in a row against `lost`, and their answers.
    looks: u32,
    answers: u64,
}

impl AnswersSeen {
    /// Takes the current counters and returns whether answers are lost: as before, if there
    /// was none.
    pub(super) fn look(&mut self, answers: u64, unsent: u64) -> bool {
        let Some((answered, dropped)) = self.before.replace((answers, unsent)) else {
            return self.lost;
        };
        let sent = answers.saturating_sub(answered);
        let dropped = unsent.saturating_sub(dropped);
        if sent == 0 {
            return self.lost;
        }
        // Nine tenths: what is on its way between the two counters is less than the rest.
        let lost = dropped >= sent.div_ceil(10) * 9 || dropped >= sent;
        let lost = lost && nomail_common::Mechanism::LostAnswers.is_on();
        if lost == self.lost {
            (self.looks, self.answers) = (0, 0);
        } else {
            self.looks += 1;
            self.answers += sent;
        }
        if self.looks >= LOOKS && self.answers >= ANSWERS_MIN {
            self.lost = lost;
            (self.looks, self.answers) = (0, 0);
        }
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at counters that grow by these steps.
    fn after(steps: &[(u64, u64)]) -> bool {
        let mut arrival = AnswersSeen::default();
        let (mut answers, mut unsent) = (1_000, 70);
        arrival.look(answers, unsent);
        let mut lost = false;
        for (sent, dropped) in steps {
            (answers, unsent) = (answers + sent, unsent + dropped);
            lost = arrival.look(answers, unsent);
        }
        lost
    }

    #[test]
    fn a_driver_that_sends_nothing_is_noticed() {
        assert!(after(&[(60_000, 60_000); 3]));
        assert!(after(&[
            (60_000, 59_000),
            (60_000, 61_000),
            (60_000, 60_000)
        ]));
        assert!(
            after(&[(2, 2), (0, 0), (1, 1), (0, 5), (1, 1)]),
            "a client or two"
        );
        assert!(!after(&[(60_000, 60_000); 2]), "not at once");
        assert!(!after(&[(1, 1); 3]), "nor of so few");
    }

    #[test]
    fn a_full_ring_is_no_such_driver() {
        assert!(!after(&[(60_000, 50_000); 100]));
        assert!(!after(
            &[(60_000, 60_000), (60_000, 60_000), (60_000, 1)].repeat(9)
        ));
        assert!(!after(&[(0, 60_000); 100]), "others' frames");
    }

    #[test]
    fn it_does_not_flap() {
        let mut steps = vec![(100, 100); 3];
        steps.extend([(100, 0), (100, 0), (100, 100), (100, 0), (0, 0)]);
        assert!(after(&steps));
        steps.extend([(100, 0); 2]);
        assert!(!after(&steps), "it sends again");
    }

    #[test]
    fn counters_that_begin_anew_are_no_loss() {
        let mut arrival = AnswersSeen::default();
        for (answers, unsent) in [(500, 500), (0, 0), (4, 0), (8, 0), (12, 0)] {
            assert!(!arrival.look(answers, unsent));
        }
    }
}
