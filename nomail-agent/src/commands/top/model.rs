//! What `top` knows: statuses become rates, histories and a table. Pure: no terminal, socket or
//! clock.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use nomail_common::{
    counted::Counted as _,
    verdict::{Answer, Verdict},
};

use crate::{
    status::{SourceStatus, Status},
    text::ascii,
};

/// Rates in a history: more than a terminal has columns.
const HISTORY_MAX: usize = 512;
/// Characters of a filter.
const FILTER_MAX: usize = 64;

/// A counter whose rate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Series {
    /// SYNs with a verdict.
    Syns(Verdict),
    /// Answers of XDP.
    Answers(Answer),
    /// Connections accepted.
    Connections,
}

impl Series {
    /// All, in the order on the screen.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let syns = Verdict::ALL.iter().copied().map(Self::Syns);
        let answers = [Answer::Challenge, Answer::Proven].map(Self::Answers);
        syns.chain(answers).chain([Self::Connections])
    }

    /// Its name, as in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Syns(verdict) => verdict.name(),
            Self::Answers(answer) => answer.name(),
            Self::Connections => "connections",
        }
    }

    /// Its count in a status.
    pub(super) fn total(self, status: &Status) -> u64 {
        match self {
            Self::Syns(verdict) => status.counts.syn[verdict],
            Self::Answers(answer) => status.counts.answers[answer],
            Self::Connections => status.connections.accepted,
        }
    }
}

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// SYNs a second.
    #[default]
    Syns,
    /// SYNs over the limit a second.
    Limited,
    /// Connections a second.
    Connections,
    /// The address.
    Address,
}

impl Sort {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Syns => "SYNs/s",
            Self::Limited => "limited/s",
            Self::Connections => "connections/s",
            Self::Address => "address",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Syns => Self::Limited,
            Self::Limited => Self::Connections,
            Self::Connections => Self::Address,
            Self::Address => Self::Syns,
        }
    }
}

/// A source with its rates.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Its counts since it entered the table.
    pub(super) source: SourceStatus,
    /// SYNs a second.
    pub(super) syns: f64,
    /// Those over the limit.
    pub(super) limited: f64,
    /// Connections a second.
    pub(super) connections: f64,
}

impl Row {
    /// What happened to its SYNs in the last interval.
    pub(super) fn verdict(&self) -> String {
        if self.limited > 0.0 {
            let share = 100.0 * self.limited / self.syns.max(self.limited);
            format!("limited {share:.0} %")
        } else if self.syns > 0.0 || self.connections > 0.0 {
            "passed".to_owned()
        } else {
            "quiet".to_owned()
        }
    }

    fn key(&self) -> (Option<IpAddr>, &str) {
        (address_of(&self.source.source), &self.source.source)
    }
}

/// A key that `top` reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyPress {
    /// A character.
    Character(char),
    /// Keeps the filter that is being typed.
    Enter,
    /// Drops it.
    Escape,
    /// Removes the last character.
    Backspace,
}

/// The state of `top`.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The last status, and when it was taken.
    last: Option<(Duration, Status)>,
    /// Seconds between the last two.
    elapsed_secs: f64,
    /// Rates so far, the latest last.
    histories: BTreeMap<Series, VecDeque<f64>>,
    rows: Vec<Row>,
    /// Sources that were asked for; a status with fewer has all of them.
    sources_asked: usize,
    trouble: Option<String>,
    restarts: u32,
    sort: Sort,
    filter: String,
    typing: bool,
    paused: bool,
    help: bool,
    done: bool,
}

impl Model {
    /// An empty model for statuses of at most this number of sources.
    pub(super) fn new(sources_asked: usize) -> Self {
        Self {
            sources_asked,
            ..Self::default()
        }
    }

    /// Takes a status, or why there is none, at a time since the start.
    pub(super) fn take(&mut self, at: Duration, status: Result<Status, String>) {
        if self.paused {
            return;
        }
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                self.trouble = Some(ascii(&error));
                for series in Series::all() {
                    self.remember(series, 0.0);
                }
                return;
            }
        };
        let Some((before_at, before)) = self.last.take() else {
            self.trouble = None;
            self.rows = rows_of(&status, None, 1.0);
            self.last = Some((at, status));
            return;
        };
        let elapsed = at.saturating_sub(before_at).as_secs_f64();
        let secs = if elapsed > 0.0 { elapsed } else { 1.0 };
        let again = status.agent_running
            && (!before.agent_running || status.uptime_secs < before.uptime_secs);
        self.restarts += u32::from(again);
        self.trouble = None;
        for series in Series::all() {
            let rate = since(series.total(&before), series.total(&status)) as f64 / secs;
            self.remember(series, rate);
        }
        let complete = before.sources.len() < self.sources_asked;
        self.rows = rows_of(&status, Some((&before, complete)), secs);
        self.elapsed_secs = secs;
        self.last = Some((at, status));
    }

    fn remember(&mut self, series: Series, rate: f64) {
        let history = self.histories.entry(series).or_default();
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(rate);
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyPress) {
        if self.typing {
            match key {
                KeyPress::Enter => self.typing = false,
                KeyPress::Escape => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyPress::Backspace => {
                    self.filter.pop();
                }
                KeyPress::Character(character @ ' '..='~') if self.filter.len() < FILTER_MAX => {
                    self.filter.push(character);
                }
                KeyPress::Character(_) => {}
            }
            return;
        }
        match key {
            KeyPress::Character('q') => self.done = true,
            KeyPress::Character('s') => self.sort = self.sort.next(),
            KeyPress::Character('p') => self.paused = !self.paused,
            KeyPress::Character('?' | 'h') => self.help = !self.help,
            KeyPress::Character('/') => self.typing = true,
            KeyPress::Escape if self.help => self.help = false,
            KeyPress::Escape => self.filter.clear(),
            _ => {}
        }
    }

    /// The last status.
    pub(super) fn status(&self) -> Option<&Status> {
        self.last.as_ref().map(|(_, status)| status)
    }

    /// Seconds that the rates cover; 0 before there are any.
    pub(super) fn elapsed_secs(&self) -> f64 {
        self.elapsed_secs
    }

    /// The latest rate per second.
    pub(super) fn rate(&self, series: Series) -> f64 {
        self.history(series).next_back().unwrap_or(0.0)
    }

    /// The rates so far, the latest last.
    pub(super) fn history(&self, series: Series) -> impl DoubleEndedIterator<Item = f64> {
        self.histories.get(&series).into_iter().flatten().copied()
    }

    /// The sources that match the filter, in order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let filter = Filter::from(self.filter.as_str());
        let left = self.rows.iter().filter(|row| filter.takes(&row.source));
        let mut rows: Vec<_> = left.collect();
        rows.sort_by(|a, b| {
            let rates = match self.sort {
                Sort::Address => return a.key().cmp(&b.key()),
                Sort::Syns => (b.syns.total_cmp(&a.syns), b.source.syn.cmp(&a.source.syn)),
                Sort::Limited => (
                    b.limited.total_cmp(&a.limited),
                    b.source.limited.cmp(&a.source.limited),
                ),
                Sort::Connections => (
                    b.connections.total_cmp(&a.connections),
                    b.source.connections.cmp(&a.source.connections),
                ),
            };
            rates.0.then(rates.1).then_with(|| a.key().cmp(&b.key()))
        });
        rows
    }

    /// Number of sources in the last status.
    pub(super) fn rows_total(&self) -> usize {
        self.rows.len()
    }

    /// Why there was no status the last time.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Times that the agent has restarted.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What the table is sorted by.
    pub(super) fn sort(&self) -> Sort {
        self.sort
    }

    /// The filter, and whether it is being typed.
    pub(super) fn filter(&self) -> (&str, bool) {
        (&self.filter, self.typing)
    }

    /// Whether statuses are ignored.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the help is shown.
    pub(super) fn shows_help(&self) -> bool {
        self.help
    }

    /// Whether to end.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

/// The rise of a counter; one that fell has restarted from 0.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// `before` says whether it has all sources: one that is missing there has then
/// begun since. Of others it is not known when they came.
fn rows_of(status: &Status, before: Option<(&Status, bool)>, secs: f64) -> Vec<Row> {
    let known: HashMap<_, _> = before
        .iter()
        .flat_map(|(before, _)| &before.sources)
        .map(|source| (source.source.as_str(), source))
        .collect();
    let new = SourceStatus::default();
    let complete = before.is_some_and(|(_, complete)| complete);
    let rows = status.sources.iter().map(|source| {
        let before = match known.get(source.source.as_str()) {
            Some(before) => before,
            None if complete => &new,
            None => source,
        };
        let rate = |before, now| since(before, now) as f64 / secs;
        Row {
            syns: rate(before.syn, source.syn),
            limited: rate(before.limited, source.limited),
            connections: rate(before.connections, source.connections),
            source: source.clone(),
        }
    });
    rows.collect()
}

fn address_of(source: &str) -> Option<IpAddr> {
    source.split('/').next()?.parse().ok()
}

/// What is typed after `/`: a network or an address, else a part of the text.
enum Filter {
    Network(IpNet),
    Text(String),
}

impl From<&str> for Filter {
    fn from(text: &str) -> Self {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse().ok().or_else(address) {
            Some(network) => Self::Network(network),
            None => Self::Text(text.to_ascii_lowercase()),
        }
    }
}

impl Filter {
    fn takes(&self, source: &SourceStatus) -> bool {
        let whole = source.source.parse::<IpNet>().ok();
        let of = whole.or_else(|| address_of(&source.source).map(IpNet::from));
        match (self, of) {
            // An address within a source's /64 means that source.
            (Self::Network(network), Some(of)) => network.contains(&of) || of.contains(network),
            (Self::Network(_), None) => false,
            (Self::Text(text), _) => source.source.to_ascii_lowercase().contains(text),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
