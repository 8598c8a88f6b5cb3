//! What `top` knows: samples become rates, histories and a table. Nothing here
//! touches a terminal, a socket or a clock.

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

use crate::status::{SourceStatus, Status, escaped};

/// Samples in a history: more than a terminal has columns.
const HISTORY_MAX: usize = 512;
/// Longest filter.
const FILTER_MAX: usize = 64;

/// A number whose rate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    /// SYNs with a verdict.
    Syns(Verdict),
    /// What XDP did about them.
    Answers(Answer),
    /// Connections accepted.
    Connections,
}

impl Series {
    /// All, as they are shown.
    pub fn all() -> impl Iterator<Item = Self> {
        let syns = Verdict::ALL.iter().copied().map(Self::Syns);
        let answers = [Answer::Challenge, Answer::Proven].map(Self::Answers);
        syns.chain(answers).chain([Self::Connections])
    }

    /// Its name, as in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syns(verdict) => verdict.name(),
            Self::Answers(answer) => answer.name(),
            Self::Connections => "connections",
        }
    }

    /// Its number in a status.
    pub fn total(self, status: &Status) -> u64 {
        match self {
            Self::Syns(verdict) => status.syn[verdict],
            Self::Answers(answer) => status.answers[answer],
            Self::Connections => status.connections.accepted,
        }
    }
}

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
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
    pub const fn name(self) -> &'static str {
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

/// A source with its rates, a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it did since it entered the table.
    pub source: SourceStatus,
    /// SYNs a second.
    pub syns: f64,
    /// Those over the limit.
    pub limited: f64,
    /// Connections a second.
    pub connections: f64,
}

impl Row {
    /// What became of its SYNs of the last interval.
    pub fn verdict(&self) -> String {
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

/// Keys of the keyboard that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Character(char),
    /// Ends what is being typed.
    Enter,
    /// Gives up what is being typed.
    Escape,
    /// Removes the last character.
    Backspace,
}

/// What is shown.
#[derive(Debug, Default)]
pub struct Model {
    /// The last status, and when it was told.
    last: Option<(Duration, Status)>,
    /// Seconds between the two last ones.
    elapsed_secs: f64,
    /// Rates so far, the latest last.
    histories: BTreeMap<Series, VecDeque<f64>>,
    rows: Vec<Row>,
    /// Sources that were asked for: with fewer of them, those are all there are.
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
    /// Empty; each sample will have at most so many sources.
    pub fn new(sources_asked: usize) -> Self {
        Self {
            sources_asked,
            ..Self::default()
        }
    }

    /// Takes what was told at a moment, or why nothing was.
    pub fn take(&mut self, at: Duration, told: Result<Status, String>) {
        if self.paused {
            return;
        }
        let status = match told {
            Ok(status) => status,
            Err(error) => {
                self.trouble = Some(escaped(&error));
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
    pub fn press(&mut self, key: Key) {
        if self.typing {
            match key {
                Key::Enter => self.typing = false,
                Key::Escape => {
                    self.typing = false;
                    self.filter.clear();
                }
                Key::Backspace => {
                    self.filter.pop();
                }
                Key::Character(character @ ' '..='~') if self.filter.len() < FILTER_MAX => {
                    self.filter.push(character);
                }
                Key::Character(_) => {}
            }
            return;
        }
        match key {
            Key::Character('q') => self.done = true,
            Key::Character('s') => self.sort = self.sort.next(),
            Key::Character('p') => self.paused = !self.paused,
            Key::Character('?' | 'h') => self.help = !self.help,
            Key::Character('/') => self.typing = true,
            Key::Escape if self.help => self.help = false,
            Key::Escape => self.filter.clear(),
            _ => {}
        }
    }

    /// The last status.
    pub fn status(&self) -> Option<&Status> {
        self.last.as_ref().map(|(_, status)| status)
    }

    /// Seconds that the rates are of; 0 before there are any.
    pub fn elapsed_secs(&self) -> f64 {
        self.elapsed_secs
    }

    /// The latest rate, a second.
    pub fn rate(&self, series: Series) -> f64 {
        self.history(series).next_back().unwrap_or(0.0)
    }

    /// The rates so far, the latest last.
    pub fn history(&self, series: Series) -> impl DoubleEndedIterator<Item = f64> {
        self.histories.get(&series).into_iter().flatten().copied()
    }

    /// The sources that the filter leaves, in order.
    pub fn rows(&self) -> Vec<&Row> {
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

    /// All sources that were told of.
    pub fn rows_total(&self) -> usize {
        self.rows.len()
    }

    /// Why nothing was told the last time.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// How often the agent began anew.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What the table is sorted by.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// The filter, and whether it is being typed.
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.typing)
    }

    /// Whether samples are left out.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the keys are explained.
    pub fn shows_help(&self) -> bool {
        self.help
    }

    /// Whether it is to end.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// Counters only rise: one that fell has begun anew.
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
pub(super) mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::{counts::Counts, status::InterfaceStatus};

    const PASSED: Series = Series::Syns(Verdict::Passed);

    pub(in crate::commands::top) fn source(name: &str, syn: u64, limited: u64) -> SourceStatus {
        SourceStatus {
            source: name.to_owned(),
            syn,
            limited,
            ..SourceStatus::default()
        }
    }

    pub(in crate::commands::top) fn status(
        passed: u64,
        limited: u64,
        sources: &[SourceStatus],
    ) -> Status {
        Status {
            agent_running: true,
            hostname: "mailless.example.org".to_owned(),
            interfaces: vec![InterfaceStatus {
                name: "eth0".to_owned(),
                xdp_mode: "native".to_owned(),
                ..InterfaceStatus::default()
            }],
            syn: Counts::from_iter([(Verdict::Passed, passed), (Verdict::LimitedSource, limited)]),
            sources: sources.to_vec(),
            ..Status::default()
        }
    }

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    fn type_in(model: &mut Model, text: &str) {
        for character in text.chars() {
            model.press(Key::Character(character));
        }
    }

    fn shown(model: &Model) -> Vec<&str> {
        let rows = model.rows().into_iter();
        rows.map(|row| row.source.source.as_str()).collect()
    }

    #[test]
    fn rates_are_of_the_time_that_has_passed() {
        let mut model = Model::new(100);
        model.take(secs(10.0), Ok(status(100, 0, &[source("192.0.2.1", 7, 0)])));
        assert_eq!(model.rate(PASSED), 0.0, "one sample has no rate");
        assert_eq!(model.rows()[0].verdict(), "quiet");
        let sources = [source("192.0.2.1", 27, 15), source("192.0.2.2", 4, 0)];
        model.take(secs(12.0), Ok(status(110, 40, &sources)));
        assert_eq!(model.rate(PASSED), 5.0);
        assert_eq!(model.rate(Series::Syns(Verdict::LimitedSource)), 20.0);
        let rows = model.rows();
        assert_eq!((rows[0].syns, rows[0].limited), (10.0, 7.5));
        assert_eq!(rows[0].verdict(), "limited 75 %");
        assert_eq!((rows[1].syns, rows[1].verdict().as_str()), (2.0, "passed"));
        assert_eq!(model.elapsed_secs(), 2.0);
    }

    #[test]
    fn a_source_that_may_have_been_left_out_before_has_no_rate_yet() {
        let mut model = Model::new(1);
        model.take(secs(0.0), Ok(status(0, 0, &[source("192.0.2.1", 70, 0)])));
        model.take(secs(1.0), Ok(status(0, 0, &[source("192.0.2.2", 71, 0)])));
        assert_eq!(model.rows()[0].syns, 0.0);
    }

    #[test]
    fn an_agent_that_is_gone_is_told_and_one_that_comes_back_counts_anew() {
        let mut model = Model::new(100);
        let mut first = status(1000, 0, &[]);
        first.uptime_secs = 60;
        model.take(secs(0.0), Ok(first));
        model.take(secs(1.0), Err("gone\u{1b}[2J".to_owned()));
        assert_eq!(model.trouble(), Some("gone\\u{1b}[2J"));
        assert_eq!(model.rate(PASSED), 0.0);
        assert!(model.status().is_some(), "what was known stays in sight");
        model.take(secs(2.0), Ok(status(30, 0, &[])));
        assert_eq!((model.trouble(), model.restarts()), (None, 1));
        assert_eq!(model.rate(PASSED), 15.0);
        assert!(model.history(PASSED).eq([0.0, 15.0]));
    }

    #[test]
    fn what_is_paused_over_becomes_one_rate() {
        let mut model = Model::new(100);
        model.take(secs(0.0), Ok(status(0, 0, &[])));
        model.press(Key::Character('p'));
        model.take(secs(1.0), Ok(status(10, 0, &[])));
        assert_eq!(model.status().unwrap().syn[Verdict::Passed], 0);
        model.press(Key::Character('p'));
        model.take(secs(4.0), Ok(status(20, 0, &[])));
        assert_eq!(model.rate(PASSED), 5.0);
    }

    #[test]
    fn s_goes_through_all_orders() {
        let sources = |scale: u64| {
            let mut sources = [
                source("192.0.2.3", 30 * scale, 0),
                source("2001:db8::/64", 20 * scale, 5 * scale),
                source("192.0.2.20", 10 * scale, 9 * scale),
            ];
            sources[0].connections = scale;
            sources[2].connections = 2 * scale;
            status(0, 0, &sources)
        };
        let mut model = Model::new(100);
        model.take(secs(0.0), Ok(sources(1)));
        model.take(secs(1.0), Ok(sources(2)));
        let orders = [
            ["192.0.2.3", "2001:db8::/64", "192.0.2.20"],
            ["192.0.2.20", "2001:db8::/64", "192.0.2.3"],
            ["192.0.2.20", "192.0.2.3", "2001:db8::/64"],
            ["192.0.2.3", "192.0.2.20", "2001:db8::/64"],
            ["192.0.2.3", "2001:db8::/64", "192.0.2.20"],
        ];
        for order in orders {
            assert_eq!(shown(&model), order, "by {}", model.sort().name());
            model.press(Key::Character('s'));
        }
    }

    #[rstest]
    #[case("192.0.2.0/24", &["192.0.2.1", "192.0.2.11"])]
    #[case("192.0.2.1", &["192.0.2.1"])]
    #[case("2001:db8::/32", &["2001:db8::/64"])]
    #[case("2001:db8::77", &["2001:db8::/64"])]
    #[case(".2.1", &["192.0.2.1", "192.0.2.11"])]
    #[case("DB8", &["2001:db8::/64"])]
    #[case("nobody", &[])]
    fn filters(#[case] filter: &str, #[case] left: &[&str]) {
        let sources = ["192.0.2.1", "192.0.2.11", "198.51.100.1", "2001:db8::/64"];
        let sources = sources.map(|name| source(name, 1, 0));
        let mut model = Model::new(100);
        model.take(secs(0.0), Ok(status(0, 0, &sources)));
        model.press(Key::Character('/'));
        type_in(&mut model, filter);
        assert_eq!(model.filter(), (filter, true));
        assert_eq!(shown(&model), left);
        model.press(Key::Enter);
        assert_eq!(shown(&model), left);
        model.press(Key::Escape);
        assert_eq!(shown(&model).len(), 4);
    }

    #[test]
    fn letters_are_no_commands_while_a_filter_is_typed() {
        let mut model = Model::new(100);
        model.press(Key::Character('/'));
        type_in(&mut model, "qsp?\u{1b}ü");
        model.press(Key::Backspace);
        assert_eq!(model.filter(), ("qsp", true));
        assert!(!model.is_done() && !model.is_paused() && !model.shows_help());
        type_in(&mut model, &"x".repeat(1000));
        assert_eq!(model.filter().0.len(), FILTER_MAX);
        model.press(Key::Enter);
        model.press(Key::Character('q'));
        assert!(model.is_done());
    }

    proptest! {
        /// Whatever is told in whatever order: no panic, no bound exceeded, no rate
        /// that is not a number.
        #[test]
        fn anything_may_be_told(
            samples in proptest::collection::vec(
                (any::<u64>(), proptest::option::of((any::<u32>(), any::<u32>(), ".{0,9}"))), 0..40
            ),
        ) {
            let mut model = Model::new(2);
            for (at, told) in samples {
                let told = told.ok_or_else(|| "gone".to_owned()).map(|(a, b, name)| {
                    status(a.into(), b.into(), &[source(&name, a.into(), b.into())])
                });
                model.take(Duration::from_millis(at), told);
                for series in Series::all() {
                    prop_assert!(model.rate(series).is_finite() && model.rate(series) >= 0.0);
                    prop_assert!(model.history(series).count() <= HISTORY_MAX);
                }
                prop_assert!(model.rows().iter().all(|row| row.syns.is_finite()));
            }
        }
    }
}
