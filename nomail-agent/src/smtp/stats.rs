//! Statistics of the responder: counts, sources, and the activity since the
//! last report. All are bounded. The thread that speaks SMTP writes, others read.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroUsize,
    ops::AddAssign,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lru::LruCache;
use nomail_common::{counted, counted::Counted as _, source::Source};
use serde::{Deserialize, Serialize};

use super::{
    arrivals::Arrival, command::Verb, dialog::Outcome, foreign::ForeignDomains, protocol::Protocol,
    senders::Senders,
};
use crate::{counts::Counts, refusal::RefusalPoint};

/// Sources that are remembered. The one not seen for longest is forgotten first.
pub const SOURCES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Sources that the activity between two reports tells apart.
pub const ACTIVITY_SOURCES_MAX: usize = 4096;

/// Bounds of the buckets of [`Durations`]: from a nearby client, by
/// way of one that waits for a greeting, to the longest session by default.
pub const DURATION_BOUNDS: [Duration; 12] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
];

counted! {
    /// Counters of connections besides how they ended.
    pub enum Counter {
        /// Connections that made room for others because limits.connections was reached; also
        /// among those that were closed.
        Evicted "evicted" "made room for others";
        /// Refused recipients of other domains than this host's names: is it their MX?
        RecipientsElsewhere "recipients_elsewhere" "recipients of other domains";
        /// Connections that were shed and closed without waiting for the client to read the
        /// refusal, because too many were waited for; also among those that were shed.
        ShedWithoutLinger "shed_without_linger" "shed without waiting";
        /// Sources whose connections are no longer remembered, because others came since.
        SourcesForgotten "sources_forgotten" "sources forgotten";
    }
}

/// Counts of connections.
///
/// Always `accepted = active + ended.sum()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Accepted from a listening socket.
    pub accepted: u64,
    /// Open now, lingering included, shed ones not.
    pub active: u64,
    /// Those that ended.
    #[serde(flatten)]
    pub ended: Counts<Outcome>,
    /// Connections by where they were refused first.
    #[serde(flatten)]
    pub refused: Counts<RefusalPoint>,
    /// Those of `closed` that did not speak SMTP.
    #[serde(flatten)]
    pub protocols: Counts<Protocol>,
    /// Other counters.
    #[serde(flatten)]
    pub counters: Counts<Counter>,
    /// Networks in the memory of `refuse_at = "auto"`.
    pub senders: u64,
    /// Shed and evicted connections that linger now.
    #[serde(skip)]
    pub shed_lingering: u64,
    /// Sources that are remembered now.
    #[serde(skip)]
    pub sources_tracked: u64,
    /// Commands.
    #[serde(skip)]
    pub commands: Counts<Verb>,
    /// How long connections lasted that ended, without shed ones.
    #[serde(skip)]
    pub durations: Durations,
}

/// How long connections lasted, from accept to close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Within each of [`DURATION_BOUNDS`], and not within the one before.
    within: [u64; DURATION_BOUNDS.len()],
    /// The sum of all.
    pub total: Duration,
}

impl Durations {
    pub(super) fn count(&mut self, lasted: Duration) {
        self.total += lasted;
        if let Some(bound) = DURATION_BOUNDS.iter().position(|bound| lasted <= *bound) {
            self.within[bound] += 1;
        }
    }

    /// Returns each bound with the number of connections that lasted no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let sums = self.within.into_iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        DURATION_BOUNDS.into_iter().zip(sums)
    }
}

/// The connections of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceHistory {
    /// The IPv4 address, or the first address of the IPv6 /64.
    pub source: IpAddr,
    /// Connections accepted since the source is remembered.
    pub connections: u64,
    /// Seconds since the last of them.
    pub last_seen_secs: u64,
}

/// Connections accepted, and connections ended, between two reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted.
    pub connections: u64,
    /// Ended, without those of `protocols`.
    pub ended: Counts<Outcome>,
    /// Ended because the client did not speak SMTP.
    pub protocols: Counts<Protocol>,
}

impl Tally {
    /// Returns the number of connections that ended, whenever they were accepted.
    pub fn ended_total(&self) -> u64 {
        self.ended.sum() + self.protocols.sum()
    }

    fn end(&mut self, ended: EndReason) {
        match ended {
            EndReason::Protocol(protocol) => self.protocols[protocol] += 1,
            other => self.ended[other.outcome()] += 1,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.ended += other.ended;
        self.protocols += other.protocols;
    }
}

/// The activity between two reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// By source; at most [`ACTIVITY_SOURCES_MAX`].
    pub of_source: HashMap<Source, Tally>,
    /// Of all sources beyond these.
    pub beyond: Tally,
}

impl Activity {
    fn of(&mut self, source: Source) -> &mut Tally {
        if self.of_source.len() >= ACTIVITY_SOURCES_MAX && !self.of_source.contains_key(&source) {
            return &mut self.beyond;
        }
        self.of_source.entry(source).or_default()
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    /// It was over a limit.
    Shed,
    /// It made room for another.
    Evicted,
    /// It did not speak SMTP.
    Protocol(Protocol),
    /// Its session ended.
    Session(Outcome),
}

impl EndReason {
    const fn outcome(self) -> Outcome {
        match self {
            Self::Shed => Outcome::Shed,
            Self::Evicted | Self::Protocol(_) => Outcome::Closed,
            Self::Session(outcome) => outcome,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Evicted => "made room for another",
            Self::Protocol(protocol) => protocol.label(),
            Self::Shed | Self::Session(_) => self.outcome().label(),
        }
    }
}

/// Statistics that the thread shares with the rest of the agent.
#[derive(Debug)]
pub(super) struct Stats(Mutex<StatsInner>);

#[derive(Debug)]
pub(super) struct StatsInner {
    pub(super) counts: Connections,
    pub(super) senders: Senders,
    pub(super) foreign: ForeignDomains,
    pub(super) arrivals: Vec<Arrival>,
    history: LruCache<Source, SourceRecord>,
    activity: Activity,
}

#[derive(Debug)]
struct SourceRecord {
    connections: u64,
    last: Instant,
}

impl Stats {
    pub(super) fn new(senders: Senders) -> Self {
        Self(Mutex::new(StatsInner {
            counts: Connections::default(),
            senders,
            foreign: ForeignDomains::default(),
            arrivals: Vec::new(),
            history: LruCache::new(SOURCES_MAX),
            activity: Activity::default(),
        }))
    }

    /// Locks the statistics, for a moment only. No code panics while they are half-changed,
    /// so a poisoned lock is as good as any.
    pub(super) fn lock(&self) -> MutexGuard<'_, StatsInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatsInner {
    pub(super) fn snapshot(&self) -> Connections {
        Connections {
            sources_tracked: self.history.len() as u64,
            senders: self.senders.len() as u64,
            ..self.counts
        }
    }

    /// Returns the sources, the one seen last first.
    pub(super) fn sources(&self) -> Vec<SourceHistory> {
        let entries = self.history.iter();
        entries
            .map(|(source, record)| SourceHistory {
                source: source.address(),
                connections: record.connections,
                last_seen_secs: record.last.elapsed().as_secs(),
            })
            .collect()
    }

    pub(super) fn take_activity(&mut self) -> Activity {
        std::mem::take(&mut self.activity)
    }

    /// Counts an accepted connection. An `unlogged` one is not part of the activity.
    pub(super) fn accept(&mut self, source: Source, unlogged: bool, now: Instant) {
        self.counts.accepted += 1;
        if !unlogged {
            self.activity.of(source).connections += 1;
        }
        if let Some(record) = self.history.get_mut(&source) {
            record.connections += 1;
            record.last = now;
            return;
        }
        let record = SourceRecord {
            connections: 1,
            last: now,
        };
        let forgotten = self.history.push(source, record);
        self.counts.counters[Counter::SourcesForgotten] += u64::from(forgotten.is_some());
    }

    /// Counts the end of a connection, which was counted as active unless it was shed.
    pub(super) fn end(&mut self, source: Source, unlogged: bool, ended: EndReason) {
        if !unlogged {
            self.activity.of(source).end(ended);
        }
        let counts = &mut self.counts;
        counts.ended[ended.outcome()] += 1;
        match ended {
            EndReason::Shed => return,
            EndReason::Evicted => counts.counters[Counter::Evicted] += 1,
            EndReason::Protocol(protocol) => counts.protocols[protocol] += 1,
            EndReason::Session(_) => {}
        }
        counts.active -= 1;
    }
}
