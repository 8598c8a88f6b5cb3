//! `fallback = "xdp"`: counts and logs when XDP takes the place of the listeners, and when it
//! gives it back.
//!
//! XDP decides by itself: it takes over when the lease ends, which is renewed while the
//! listeners prove, again and again, that they accept connections. So it does not matter what
//! keeps them from that, nor whether the agent can log it: an agent that was stalled does so
//! when it goes on.

use std::time::{Duration, Instant};

use log::{info, warn};

/// How often the listeners are asked for a proof.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(150);
/// Of the takeovers in this time, only the first is logged, and one that outlasts it. All are
/// counted.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The takeovers that were seen.
#[derive(Debug, Default)]
pub(super) struct Failover {
    takeovers: u64,
    /// XDP has taken over; whether that was logged.
    taken_over: Option<bool>,
    logged: Option<Instant>,
    /// The last proof said that a queue is full.
    pub(super) queue_full: bool,
}

impl Failover {
    /// How often XDP has taken over.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers
    }

    /// XDP has taken over, so long ago.
    pub(super) fn taken_over(&mut self, ago: Duration, now: Instant) {
        match self.taken_over {
            Some(true) => return,
            Some(false) => {}
            None => self.takeovers += 1,
        }
        let recent = |logged| now.duration_since(logged) < LOG_INTERVAL;
        let log = !self.logged.is_some_and(recent);
        self.taken_over = Some(log);
        if log {
            self.logged = Some(now);
            let why = match self.queue_full {
                true => "the queue of a listener stays full",
                false => "the listeners take no connections",
            };
            warn!(
                event = "takeover", takeovers = self.takeovers;
                "{why}: XDP took over {:.1} s ago (takeover {})", ago.as_secs_f64(), self.takeovers
            );
        }
    }

    /// The lease, which had ended so long ago, is renewed.
    pub(super) fn given_back(&mut self, ago: Duration) {
        if self.taken_over.take() == Some(true) {
            info!(
                event = "given_back", takeovers = self.takeovers;
                "the listeners take connections again: XDP was in their place for {:.1} s",
                ago.as_secs_f64()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takeover_is_counted_once_and_few_are_logged() {
        let start = Instant::now();
        let mut failover = Failover::default();
        let mut logged = 0;
        for takeover in 0..30 {
            let now = start + Duration::from_secs(takeover);
            for millis in [0, 200, 400] {
                let ago = Duration::from_millis(millis);
                failover.taken_over(ago, now + ago);
            }
            logged += u32::from(failover.taken_over == Some(true));
            failover.given_back(Duration::from_millis(500));
            assert_eq!(failover.taken_over, None);
        }
        assert_eq!((failover.takeovers(), logged), (30, 3));
    }

    #[test]
    fn a_takeover_that_lasts_is_logged_however_soon_it_came() {
        let start = Instant::now();
        let mut failover = Failover::default();
        failover.taken_over(Duration::ZERO, start);
        failover.given_back(Duration::ZERO);
        for (secs, logged) in [(1, false), (9, false), (10, true)] {
            let ago = Duration::from_secs(secs - 1);
            failover.taken_over(ago, start + Duration::from_secs(secs));
            assert_eq!(failover.taken_over, Some(logged));
        }
        assert_eq!(failover.takeovers(), 2);
    }
}
