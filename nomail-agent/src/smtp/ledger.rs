//! What the responder has seen: counts, sources, and the activity since the
//! last report. Everything is bounded; the serving thread writes, others read.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroUsize,
    ops::AddAssign,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lru::LruCache;
use nomail_common::{counted, counted::Counted as _, guard::source::Source};
use serde::{Deserialize, Serialize};

use super::{
    command::{Talker, Verb},
    dialog::{Outcome, Refusal, Said},
    foreign::ForeignDomains,
    senders::Senders,
};
use crate::counts::Counts;

/// How many sources are remembered; the one not seen for longest goes first.
pub const SOURCES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// How many sources the activity between two reports tells apart.
pub const ACTIVITY_SOURCES_MAX: usize = 4096;

/// Bounds between which [`Durations`] tells apart: from a client next door, by
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
    /// What is counted of connections beside how they ended.
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
    /// Those that were refused; once for each connection.
    #[serde(flatten)]
    pub refused: Counts<Refusal>,
    /// Those of `closed` that did not speak SMTP.
    #[serde(flatten)]
    pub talkers: Counts<Talker>,
    /// What else is counted.
    #[serde(flatten)]
    pub counters: Counts<Counter>,
    /// Networks in the memory of `refuse_at = "auto"`.
    pub senders: u64,
    /// Connections that linger now and have no place: shed ones, and those that made room.
    #[serde(skip)]
    pub shed_lingering: u64,
    /// Sources in the history.
    #[serde(skip)]
    pub sources_tracked: u64,
    /// Commands by their verb.
    #[serde(skip)]
    pub commands: Commands,
    /// How long connections lasted that ended, shed ones left out.
    #[serde(skip)]
    pub durations: Durations,
}

/// Counts of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// In the order of [`Verb::ALL`].
    known: [u64; Verb::ALL.len()],
    other: u64,
}

impl Commands {
    const fn count(&mut self, Said(verb): Said) {
        match verb {
            Some(verb) => self.known[verb as usize] += 1,
            None => self.other += 1,
        }
    }

    /// All verbs with their counts; of what is no verb, `None`.
    pub fn iter(&self) -> impl Iterator<Item = (Option<Verb>, u64)> {
        let known = Verb::ALL.into_iter().map(Some).zip(self.known);
        known.chain([(None, self.other)])
    }
}

/// How long connections lasted, from accept to close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Within each of [`DURATION_BOUNDS`], and not within the one before.
    within: [u64; DURATION_BOUNDS.len()],
    /// All together.
    pub total: Duration,
}

impl Durations {
    fn count(&mut self, lasted: Duration) {
        self.total += lasted;
        if let Some(bound) = DURATION_BOUNDS.iter().position(|bound| lasted <= *bound) {
            self.within[bound] += 1;
        }
    }

    /// The bounds, and how many connections lasted not longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let sums = self.within.into_iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        DURATION_BOUNDS.into_iter().zip(sums)
    }
}

/// What is remembered of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceHistory {
    /// The IPv4 address, or the first address of the IPv6 /64.
    pub source: IpAddr,
    /// Connections accepted since the source entered the history.
    pub connections: u64,
    /// Seconds since the last of them.
    pub last_seen_secs: u64,
}

/// What connections did between two reports: those accepted, and how those
/// ended that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted.
    pub connections: u64,
    /// Those that ended, and did not speak another protocol.
    pub ended: Counts<Outcome>,
    /// Those that did.
    pub talkers: Counts<Talker>,
}

impl Tally {
    /// Connections that have ended, of whatever time.
    pub fn ended_total(&self) -> u64 {
        self.ended.sum() + self.talkers.sum()
    }

    fn end(&mut self, ended: Ended) {
        match ended {
            Ended::Talker(talker) => self.talkers[talker] += 1,
            other => self.ended[other.outcome()] += 1,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.ended += other.ended;
        self.talkers += other.talkers;
    }
}

/// The activity between two reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Sources by what they did; at most [`ACTIVITY_SOURCES_MAX`].
    pub of_source: HashMap<Source, Tally>,
    /// All that was done by sources beyond these.
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

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// There was no room for it.
    Shed,
    /// It made room for another.
    Evicted,
    /// It did not speak SMTP, and was closed.
    Talker(Talker),
    /// Any other session.
    Session(Outcome),
}

impl Ended {
    const fn outcome(self) -> Outcome {
        match self {
            Self::Shed => Outcome::Shed,
            Self::Evicted | Self::Talker(_) => Outcome::Closed,
            Self::Session(outcome) => outcome,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Evicted => "made room for another",
            Self::Talker(talker) => talker.label(),
            Self::Shed | Self::Session(_) => self.outcome().label(),
        }
    }
}

/// What the serving thread shares with the rest of the agent.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<Page>);

#[derive(Debug)]
pub(super) struct Page {
    pub(super) counts: Connections,
    pub(super) senders: Senders,
    pub(super) foreign: ForeignDomains,
    history: LruCache<Source, Seen>,
    activity: Activity,
}

#[derive(Debug)]
struct Seen {
    connections: u64,
    last: Instant,
}

impl Ledger {
    pub(super) fn new(senders: Senders) -> Self {
        Self(Mutex::new(Page {
            counts: Connections::default(),
            senders,
            foreign: ForeignDomains::default(),
            history: LruCache::new(SOURCES_MAX),
            activity: Activity::default(),
        }))
    }

    /// Locked for a moment. No code panics while it holds it half-changed, so
    /// a poisoned lock is as good as any.
    pub(super) fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    pub(super) fn snapshot(&self) -> Connections {
        Connections {
            sources_tracked: self.history.len() as u64,
            senders: self.senders.len() as u64,
            ..self.counts
        }
    }

    /// The history, the source seen last first.
    pub(super) fn sources(&self) -> Vec<SourceHistory> {
        let entries = self.history.iter();
        entries
            .map(|(source, seen)| SourceHistory {
                source: source.address(),
                connections: seen.connections,
                last_seen_secs: seen.last.elapsed().as_secs(),
            })
            .collect()
    }

    pub(super) fn take_activity(&mut self) -> Activity {
        std::mem::take(&mut self.activity)
    }

    /// A connection was accepted. One that is `unlogged` is not part of the
    /// activity.
    pub(super) fn accept(&mut self, source: Source, unlogged: bool, now: Instant) {
        self.counts.accepted += 1;
        if !unlogged {
            self.activity.of(source).connections += 1;
        }
        if let Some(seen) = self.history.get_mut(&source) {
            seen.connections += 1;
            seen.last = now;
            return;
        }
        let seen = Seen {
            connections: 1,
            last: now,
        };
        let evicted = self.history.push(source, seen);
        self.counts.counters[Counter::SourcesForgotten] += u64::from(evicted.is_some());
    }

    pub(super) fn refuse(&mut self, at: Refusal) {
        self.counts.refused[at] += 1;
    }

    pub(super) const fn said(&mut self, said: Said) {
        self.counts.commands.count(said);
    }

    /// A connection that was not shed has ended, after so long.
    pub(super) fn lasted(&mut self, duration: Duration) {
        self.counts.durations.count(duration);
    }

    /// A connection has ended. If it was not shed, it was counted as active.
    pub(super) fn end(&mut self, source: Source, unlogged: bool, ended: Ended) {
        if !unlogged {
            self.activity.of(source).end(ended);
        }
        let counts = &mut self.counts;
        counts.ended[ended.outcome()] += 1;
        match ended {
            Ended::Shed => return,
            Ended::Evicted => counts.counters[Counter::Evicted] += 1,
            Ended::Talker(talker) => counts.talkers[talker] += 1,
            Ended::Session(_) => {}
        }
        counts.active -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_history_is_bounded_and_says_what_it_forgets() {
        let ledger = Ledger::new(Senders::new(1));
        let sources = SOURCES_MAX.get() as u32 + 10;
        for address in 0..sources {
            for _ in 0..2 {
                let source = Source::from_ipv4(address);
                ledger.page().accept(source, false, Instant::now());
            }
        }
        let counts = ledger.page().snapshot();
        assert_eq!(
            (
                counts.sources_tracked,
                counts.counters[Counter::SourcesForgotten]
            ),
            (SOURCES_MAX.get() as u64, 10)
        );
        let history = ledger.page().sources();
        assert_eq!(
            history[0].source,
            IpAddr::from(Ipv4Addr::from_bits(sources - 1))
        );
        assert!(history.iter().all(|seen| seen.connections == 2));
        let activity = ledger.page().take_activity();
        assert_eq!(activity.of_source.len(), ACTIVITY_SOURCES_MAX);
        assert_eq!(activity.beyond.connections, 20);
        assert_eq!(ledger.page().take_activity(), Activity::default());
    }

    #[test]
    fn durations_are_counted_once_and_told_as_sums() {
        let mut durations = Durations::default();
        for millis in [0, 10, 11, 1_000_000, 1_800_001] {
            durations.count(Duration::from_millis(millis));
        }
        let sums: Vec<_> = durations.cumulative().map(|(_, sum)| sum).collect();
        assert_eq!(sums, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(durations.total, Duration::from_millis(2_800_022));
    }

    #[test]
    fn verbs_are_counted_by_their_place() {
        let mut commands = Commands::default();
        for verb in Verb::ALL {
            commands.count(Said(Some(verb)));
        }
        commands.count(Said(None));
        assert!(commands.iter().all(|(_, count)| count == 1));
        assert_eq!(commands.iter().count(), Verb::ALL.len() + 1);
        let mut quit = Commands::default();
        quit.count(Said(Some(Verb::Quit)));
        assert!(
            quit.iter()
                .all(|(verb, count)| (verb == Some(Verb::Quit)) == (count == 1))
        );
    }

    #[test]
    fn what_is_unlogged_is_counted_but_no_activity() {
        let ledger = Ledger::new(Senders::new(1));
        let mut page = ledger.page();
        page.accept(Source::from_ipv4(1), true, Instant::now());
        page.counts.active += 1;
        page.end(Source::from_ipv4(1), true, Ended::Talker(Talker::Http));
        assert_eq!(page.take_activity(), Activity::default());
        let counts = page.snapshot();
        assert_eq!(
            (
                counts.accepted,
                counts.talkers[Talker::Http],
                counts.ended[Outcome::Closed]
            ),
            (1, 1, 1)
        );
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_networks() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_eq!(source("2001:db8::7"), source("2001:db8::8"));
        assert_ne!(source("2001:db8::7"), source("2001:db8:0:1::7"));
    }
}
