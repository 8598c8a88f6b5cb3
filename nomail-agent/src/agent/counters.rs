//! From the counters of the guard and the responder to those of a status.

use std::{cmp::Ordering, collections::HashMap, net::IpAddr};

use nomail_common::{abi::Counters, source::Source};

use crate::{
    counts::Counts,
    guard::SourceCount,
    smtp::SourceHistory,
    status::{GuardCounts, SourceStatus, TableCounter},
    text,
};

/// The counters of an interface, or of all interfaces that are not guarded.
pub(super) fn counts_of(counters: &Counters) -> GuardCounts {
    GuardCounts {
        syn: Counts::new(counters.verdicts),
        answers: Counts::new(counters.answers),
        table: Counts::from_iter([
            (TableCounter::Contended, counters.contended),
            (TableCounter::SourceEvictions, counters.evictions),
        ]),
    }
}

/// A source as the guard and the responder know it. It has no text yet: of 65,536 few are
/// shown.
struct Busy {
    address: IpAddr,
    syn: u64,
    limited: u64,
    connections: u64,
    last_seen_secs: u64,
}

impl Busy {
    /// The busiest first.
    fn order(&self, other: &Self) -> Ordering {
        let work = |seen: &Self| seen.syn.max(seen.connections);
        let by_work = work(other).cmp(&work(self));
        by_work.then_with(|| self.address.cmp(&other.address))
    }
}

/// At most `max` of the sources in the guard's table or the responder's history, the busiest
/// first.
pub(super) fn busiest(
    table: &[SourceCount],
    history: Vec<SourceHistory>,
    max: usize,
) -> Vec<SourceStatus> {
    let mut connected: HashMap<_, _> = history
        .into_iter()
        .map(|seen| (Source::from(seen.source), seen))
        .collect();
    let mut sources: Vec<_> = table
        .iter()
        .map(|count| {
            let connected = connected.remove(&Source::from(count.address));
            let quiet_secs = count.last_seen.as_secs();
            Busy {
                address: count.address,
                syn: count.syn,
                limited: count.limited,
                connections: connected.as_ref().map_or(0, |seen| seen.connections),
                last_seen_secs: connected
                    .map_or(quiet_secs, |seen| seen.last_seen_secs.min(quiet_secs)),
            }
        })
        .collect();
    sources.extend(connected.into_values().map(|seen| Busy {
        address: seen.source,
        syn: 0,
        limited: 0,
        connections: seen.connections,
        last_seen_secs: seen.last_seen_secs,
    }));
    if max < sources.len() {
        sources.select_nth_unstable_by(max, Busy::order);
        sources.truncate(max);
    }
    sources.sort_unstable_by(Busy::order);
    sources
        .into_iter()
        .map(|seen| SourceStatus {
            source: text::source(seen.address),
            syn: seen.syn,
            limited: seen.limited,
            connections: seen.connections,
            last_seen_secs: seen.last_seen_secs,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_busiest_of_both_halves_come_first() {
        let count = |address: &str, syn| SourceCount {
            address: address.parse().unwrap(),
            syn,
            limited: 1,
            last_seen: Duration::from_secs(7),
        };
        let history = |source: &str, connections, last_seen_secs| SourceHistory {
            source: source.parse().unwrap(),
            connections,
            last_seen_secs,
        };
        let table = [
            count("192.0.2.10", 3),
            count("192.0.2.9", 3),
            count("2001:db8::", 9),
            count("192.0.2.8", 1),
        ];
        let shown = |max| {
            let responder = vec![
                history("192.0.2.8", 5, 2),
                history("198.51.100.1", 4, 1),
                history("2001:db8::", 1, 8),
            ];
            let shown = busiest(&table, responder, max).into_iter();
            let short =
                |s: SourceStatus| (s.source, s.syn, s.limited, s.connections, s.last_seen_secs);
            shown.map(short).collect::<Vec<_>>()
        };
        let all = [
            ("2001:db8::/64", 9, 1, 1, 7),
            ("192.0.2.8", 1, 1, 5, 2),
            ("198.51.100.1", 0, 0, 4, 1),
            ("192.0.2.9", 3, 1, 0, 7),
            ("192.0.2.10", 3, 1, 0, 7),
        ]
        .map(|(source, syn, limited, connections, secs)| {
            (source.to_owned(), syn, limited, connections, secs)
        });
        for max in 0..=all.len() {
            assert_eq!(shown(max), all[..max]);
        }
        assert_eq!(shown(65_536), all);
    }
}
