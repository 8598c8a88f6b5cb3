//! Whether there is a flood of SYNs.

use log::{info, warn};

/// Seconds without a SYN of a flood after which it is over.
const QUIET_SECS: u32 = 5;

/// A count that is looked at once a second, and the flood that it shows.
#[derive(Debug, Default)]
pub(super) struct Floods {
    syns: u64,
    /// Seconds that are left before it is over.
    left_secs: u32,
}

impl Floods {
    /// Looks from this count on, which may be an earlier agent's.
    pub(super) fn from_count(syns: u64) -> Self {
        Self { syns, left_secs: 0 }
    }

    /// Whether there is one.
    pub(super) fn is_on(&self) -> bool {
        self.left_secs > 0
    }

    /// Takes the SYNs over the cap so far, once a second. Logs the start and the end of a
    /// flood.
    pub(super) fn look(&mut self, syns: u64) {
        let was_on = self.is_on();
        self.left_secs = match syns > self.syns {
            true => QUIET_SECS,
            false => self.left_secs.saturating_sub(1),
        };
        self.syns = syns;
        match (was_on, self.is_on()) {
            (false, true) => warn!(
                event = "flood_began";
                "a flood of SYNs: more than the listeners can take"
            ),
            (true, false) => info!(event = "flood_over"; "the flood of SYNs is over"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_over_after_five_quiet_seconds() {
        let mut floods = Floods::from_count(100);
        floods.look(100);
        assert!(!floods.is_on(), "an earlier agent's");
        floods.look(101);
        for _ in 1..QUIET_SECS {
            floods.look(101);
            assert!(floods.is_on());
        }
        floods.look(101);
        assert!(!floods.is_on());
    }
}
