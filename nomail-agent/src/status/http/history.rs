//! What happened in the last minutes, a second at a time, so that a page that is
//! opened after a flood shows it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::Serialize;

/// So many looks back.
const LOOKS_MAX: usize = 300;
/// Looks that follow each other faster are one: late ticks come in bunches.
const APART_MIN: Duration = Duration::from_millis(500);

/// Counts since the start, of what the history tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// SYNs received.
    pub syn: u64,
    /// Those that were not passed.
    pub stopped: u64,
    /// Challenges sent.
    pub challenges: u64,
    /// Connections accepted.
    pub connections: u64,
}

/// Rates per second, the oldest first; five minutes of each.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    #[serde(skip)]
    last: Option<(Instant, Totals)>,
    syn: VecDeque<u64>,
    stopped: VecDeque<u64>,
    challenges: VecDeque<u64>,
    connections: VecDeque<u64>,
}

impl History {
    /// To be called once a second. The first look only begins it.
    pub fn look(&mut self, totals: Totals, now: Instant) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, totals));
            return;
        };
        let elapsed = now.saturating_duration_since(then);
        if elapsed < APART_MIN {
            return;
        }
        self.last = Some((now, totals));
        for (rates, is, was) in [
            (&mut self.syn, totals.syn, before.syn),
            (&mut self.stopped, totals.stopped, before.stopped),
            (&mut self.challenges, totals.challenges, before.challenges),
            (
                &mut self.connections,
                totals.connections,
                before.connections,
            ),
        ] {
            if rates.len() >= LOOKS_MAX {
                rates.pop_front();
            }
            let rate = is.saturating_sub(was) as f64 / elapsed.as_secs_f64();
            rates.push_back(rate.round() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_syn(syn: u64) -> Totals {
        Totals {
            syn,
            ..Totals::default()
        }
    }

    #[test]
    fn rates_are_per_second_and_bounded() {
        let mut history = History::default();
        let start = Instant::now();
        history.look(of_syn(1000), start);
        assert!(history.syn.is_empty(), "what was before is no rate");
        history.look(of_syn(1010), start + Duration::from_secs(2));
        // A tick that comes in a bunch is left to the next one.
        history.look(of_syn(1014), start + Duration::from_millis(2010));
        history.look(of_syn(1020), start + Duration::from_secs(3));
        assert_eq!(history.syn, [5, 10]);
        for second in 4..4 + LOOKS_MAX as u64 {
            history.look(of_syn(1020 + second), start + Duration::from_secs(second));
        }
        assert_eq!(history.syn.len(), LOOKS_MAX);
        assert_eq!(history.connections.len(), LOOKS_MAX);
    }
}
