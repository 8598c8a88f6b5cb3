//! The report on connections: in each interval one line for each of the busiest sources, and
//! one for all the others. A source that never completed a handshake may be forged, and has no
//! line.

use std::fmt;

use log::{
    Level, Record,
    kv::{ToValue as _, Value},
};
use lru::LruCache;
use nomail_common::{counted::Counted as _, source::Source};

use crate::{
    smtp::{
        Activity, Tally,
        stats::{ACTIVITY_SOURCES_MAX, SOURCES_MAX},
    },
    text,
};

/// Turns activity into lines, from interval to interval.
#[derive(Debug)]
pub struct Reporter {
    /// SYNs over the limit of each source at its last line.
    limited: LruCache<Source, u64>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportLine {
    who: Who,
    tally: Tally,
    syn_limited: u64,
    secs: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Source(String),
    /// All others; or more than so many, when there were too many to be told apart.
    Others {
        sources: usize,
        or_more: bool,
    },
}

impl Default for Reporter {
    fn default() -> Self {
        Self {
            limited: LruCache::new(SOURCES_MAX),
        }
    }
}

impl Reporter {
    /// The lines for `activity` in `secs` seconds: at most `sources_max` sources and the
    /// others. `limited` returns the SYNs of a source over its limit so far.
    pub fn lines(
        &mut self,
        activity: Activity,
        limited: impl Fn(Source) -> u64,
        sources_max: usize,
        secs: u64,
    ) -> Vec<ReportLine> {
        let mut busiest: Vec<_> = activity.of_source.into_iter().collect();
        busiest.sort_unstable_by_key(|(source, tally)| {
            (
                std::cmp::Reverse(tally.connections.max(tally.ended_total())),
                *source,
            )
        });
        let mut lines = Vec::new();
        let mut others = activity.beyond;
        let mut others_limited = 0;
        let mut count = 0;
        for (source, tally) in busiest {
            let now = limited(source);
            let before = self.limited.put(source, now).unwrap_or(0);
            // Less than before: the source has entered the table again.
            let syn_limited = if now < before { now } else { now - before };
            if lines.len() < sources_max {
                lines.push(ReportLine {
                    who: Who::Source(text::source(source.address())),
                    tally,
                    syn_limited,
                    secs,
                });
            } else {
                others += tally;
                others_limited += syn_limited;
                count += 1;
            }
        }
        if others != Tally::default() {
            lines.push(ReportLine {
                who: Who::Others {
                    sources: count,
                    or_more: activity.beyond != Tally::default(),
                },
                tally: others,
                syn_limited: others_limited,
                secs,
            });
        }
        lines
    }
}

const _: () = assert!(SOURCES_MAX.get() >= ACTIVITY_SOURCES_MAX);

impl ReportLine {
    /// Logs it, as JSON with a key for each number.
    pub fn log(&self) {
        let Self {
            who,
            tally,
            syn_limited,
            secs,
        } = self;
        let (source, sources) = match who {
            Who::Source(source) => (Some(source.as_str()), 1),
            Who::Others { sources, .. } => (None, *sources),
        };
        let mut pairs = vec![
            ("event", Value::from("activity")),
            ("source", source.to_value()),
            ("sources", sources.to_value()),
            ("connections", Value::from(tally.connections)),
            ("syn_limited", Value::from(*syn_limited)),
        ];
        let ended = tally.ended.iter();
        pairs.extend(ended.map(|(outcome, count)| (outcome.name(), Value::from(count))));
        let protocols = tally.protocols.iter();
        pairs.extend(protocols.map(|(protocol, count)| (protocol.name(), Value::from(count))));
        pairs.push(("interval_secs", Value::from(*secs)));
        log::logger().log(
            &Record::builder()
                .level(Level::Info)
                .target(module_path!())
                .key_values(&pairs.as_slice())
                .args(format_args!("{self}"))
                .build(),
        );
    }
}

impl fmt::Display for ReportLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Source(source) => write!(out, "{source}: ")?,
            Who::Others { sources: 0, .. } => out.write_str("other sources: ")?,
            Who::Others { sources, or_more } => write!(
                out,
                "{sources} {}other sources: ",
                if *or_more { "or more " } else { "" }
            )?,
        }
        let Tally {
            connections,
            ended,
            protocols,
        } = self.tally;
        write!(
            out,
            "{connections} connection{}",
            if connections == 1 { "" } else { "s" }
        )?;
        let limited = [("SYNs limited", self.syn_limited)].into_iter();
        let ended = ended
            .iter()
            .map(|(outcome, count)| (outcome.label(), count));
        let protocols = protocols
            .iter()
            .map(|(protocol, count)| (protocol.label(), count));
        for (what, count) in limited.chain(ended).chain(protocols) {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        write!(out, " in {} s", self.secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counts::Counts, smtp::Outcome};

    fn tally(connections: u64, quit: u64) -> Tally {
        Tally {
            connections,
            ended: Counts::from_iter([(Outcome::Quit, quit)]),
            ..Tally::default()
        }
    }

    fn shown(lines: &[ReportLine]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_busiest_have_a_line_each_and_the_others_one() {
        let source = |last: u32| Source::from_ipv4(0xcb00_7100 + last);
        let mut activity = Activity::default();
        let mut busy = tally(41, 38);
        busy.ended[Outcome::TimedOut] = 3;
        activity.of_source.insert(source(9), busy);
        for last in 10..14 {
            activity
                .of_source
                .insert(source(last), tally(u64::from(last), 1));
        }
        let limited = |of: Source| if of == source(9) { 12 } else { 0 };
        let mut reporter = Reporter::default();
        assert_eq!(
            shown(&reporter.lines(activity.clone(), limited, 2, 60)),
            [
                "203.0.113.9: 41 connections, 12 SYNs limited, 38 quit, 3 timed out in 60 s",
                "203.0.113.13: 13 connections, 1 quit in 60 s",
                "3 other sources: 33 connections, 3 quit in 60 s",
            ]
        );
        activity.beyond = tally(5, 0);
        let again = reporter.lines(activity, limited, 0, 1);
        assert_eq!(
            shown(&again),
            ["5 or more other sources: 92 connections, 42 quit, 3 timed out in 1 s"]
        );
        assert!(
            reporter
                .lines(Activity::default(), limited, 20, 60)
                .is_empty()
        );
    }

    #[test]
    fn one_connection_is_one() {
        let activity = Activity {
            of_source: [(Source::from_ipv6(0x2001_0db8_0000_0000, 1), tally(1, 0))].into(),
            ..Activity::default()
        };
        let lines = Reporter::default().lines(activity, |_| 0, 20, 60);
        assert_eq!(shown(&lines), ["2001:db8::/64: 1 connection in 60 s"]);
    }

    #[test]
    fn limited_syns_are_those_of_the_interval() {
        let mut reporter = Reporter::default();
        let mut limited_with = |total| {
            let activity = Activity {
                of_source: [(Source::from_ipv4(1), tally(1, 1))].into(),
                ..Activity::default()
            };
            reporter.lines(activity, |_| total, 1, 60)[0].syn_limited
        };
        assert_eq!([5, 5, 9, 2].map(&mut limited_with), [5, 0, 4, 2]);
    }
}
