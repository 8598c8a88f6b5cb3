//! The rates of the last five minutes, so that a page opened after a flood shows it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use nomail_common::{
    counted,
    counted::Counted as _,
    verdict::{Answer, Verdict},
};
use serde::{Serialize, Serializer};

use crate::{counts::Counts, status::shape::GuardCounts};

/// Rates in a chart.
const LOOKS_MAX: usize = 300;
/// Totals that follow each other faster count as one: late ticks come in bunches.
const APART_MIN: Duration = Duration::from_millis(500);

counted! {
    /// A chart of the page.
    pub enum Chart {
        /// SYNs received.
        Syn "syn" "SYNs";
        /// SYNs that were not passed.
        Stopped "stopped" "SYNs not passed";
        /// Challenges sent.
        Challenges "challenges" "Challenges";
        /// Connections accepted.
        Connections "connections" "Connections";
    }
}

impl Chart {
    /// Counts since the start, of which a chart shows the rate.
    pub fn totals(guard: &GuardCounts, accepted: u64) -> Counts<Self> {
        let syn = guard.syn.sum();
        Counts::from_iter([
            (Self::Syn, syn),
            (Self::Stopped, syn - guard.syn[Verdict::Passed]),
            (Self::Challenges, guard.answers[Answer::Challenge]),
            (Self::Connections, accepted),
        ])
    }
}

/// Rates per second, the oldest first; five minutes of each chart.
#[derive(Clone, Debug, Default)]
pub struct History {
    last: Option<(Instant, Counts<Chart>)>,
    rates: [VecDeque<u64>; Chart::COUNT],
}

impl History {
    /// Adds the totals of now; to be called once a second. The first ones give no rate yet.
    pub fn add(&mut self, totals: Counts<Chart>, now: Instant) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, totals));
            return;
        };
        let elapsed = now.saturating_duration_since(then);
        if elapsed < APART_MIN {
            return;
        }
        self.last = Some((now, totals));
        for ((chart, total), rates) in totals.iter().zip(&mut self.rates) {
            if rates.len() >= LOOKS_MAX {
                rates.pop_front();
            }
            let more = total.saturating_sub(before[chart]);
            rates.push_back((more as f64 / elapsed.as_secs_f64()).round() as u64);
        }
    }
}

/// An array for each chart, by its key.
impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys = Chart::ALL.iter().map(|chart| chart.key());
        serializer.collect_map(keys.zip(&self.rates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_syn(syn: u64) -> Counts<Chart> {
        Counts::from_iter([(Chart::Syn, syn)])
    }

    #[test]
    fn rates_are_per_second_and_bounded() {
        let mut history = History::default();
        let rates = |history: &History| history.rates[Chart::Syn.index()].clone();
        let start = Instant::now();
        history.add(of_syn(1000), start);
        assert!(rates(&history).is_empty(), "a total is no rate");
        history.add(of_syn(1010), start + Duration::from_secs(2));
        // A late tick is left to the next one.
        history.add(of_syn(1014), start + Duration::from_millis(2010));
        history.add(of_syn(1020), start + Duration::from_secs(3));
        assert_eq!(rates(&history), [5, 10]);
        for second in 4..4 + LOOKS_MAX as u64 {
            history.add(of_syn(1020 + second), start + Duration::from_secs(second));
        }
        for (chart, rates) in Chart::ALL.iter().zip(&history.rates) {
            assert_eq!(rates.len(), LOOKS_MAX, "{chart:?}");
        }
        let json = serde_json::to_value(&history).unwrap();
        assert_eq!(json["connections"].as_array().unwrap().len(), LOOKS_MAX);
    }
}
