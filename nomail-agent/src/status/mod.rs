//! What the agent tells about itself: the shape, and how people read it.

mod addresses;
pub mod client;
mod clients;
pub mod control;
mod crowdsec;
mod domains;
pub mod http;
mod lists;
pub mod reload;

use std::{collections::BTreeMap, net::IpAddr, ops::AddAssign};

use anstyle::AnsiColor;
use nomail_common::{
    counted::Counted,
    verdict::{Answer, Verdict},
};
use serde::{Deserialize, Serialize, Serializer};

pub use self::{
    addresses::{AddressStatus, NAMES_MAX, Named},
    crowdsec::{CrowdsecStatus, Pull},
    domains::{ForeignDomainStatus, foreign_domains, suspects},
    lists::{ListFileStatus, ListsStatus},
};
use crate::{counts::Counts, smtp::Connections, status::reload::Reload};

/// The state of a running agent. The keys are a contract with dashboards and
/// scripts: more may be added, none renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// The commit that it was built from, or `unknown`.
    pub commit: String,
    /// Version of the map layout.
    pub abi: u32,
    /// First word of the greeting.
    pub hostname: String,
    /// Seconds since start.
    pub uptime_secs: u64,
    /// Whether SYNs are being answered by XDP.
    pub flood: bool,
    /// Whether verdicts are only counted.
    pub observe: bool,
    /// Whether an agent told this. Else it was read from what an agent with
    /// `on_exit = "keep"` has left.
    #[serde(default = "told_by_agent")]
    pub agent_running: bool,
    /// The guarded interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// The pairs that the responder listens on.
    pub guarded: Vec<String>,
    /// Who says the refusal there.
    #[serde(default)]
    pub responder: ResponderStatus,
    /// The last reload of the configuration.
    pub reload: ReloadStatus,
    /// [`crate::config::Config::hash`] of the configuration in effect, in 16
    /// hexadecimal digits: a JSON number would lose some of them.
    pub config_hash: String,
    /// Interfaces that it is reached over without a guard on the way.
    #[serde(default)]
    pub unguarded: Vec<String>,
    /// The metrics' socket.
    #[serde(default)]
    pub metrics: MetricsStatus,
    /// Addresses that are not served as others are.
    #[serde(default)]
    pub addresses: AddressStatus,
    /// CrowdSec's decisions, if the agent was started to deny them.
    pub crowdsec: Option<CrowdsecStatus>,
    /// The lists in force, and what of their files is not.
    #[serde(default)]
    pub lists: ListsStatus,
    /// SYNs received for them, by verdict.
    #[serde(serialize_with = "with_total")]
    pub syn: Counts<Verdict>,
    /// What XDP answered.
    pub answers: Counts<Answer>,
    /// The connections of the responder.
    pub connections: Connections,
    /// Other domains that mail has arrived for, those that matter most first.
    #[serde(default)]
    pub foreign_domains: Vec<ForeignDomainStatus>,
    /// The busiest sources.
    pub sources: Vec<SourceStatus>,
    /// Sources in the table of the XDP program.
    pub sources_tracked: u64,
    /// Sources that lost their place in it to others.
    pub source_evictions: u64,
    /// SYNs that no bucket was charged for, because other CPUs were in the way.
    #[serde(default)]
    pub contended: u64,
    /// What was counted on interfaces that are not, or no longer, guarded: a part
    /// of the sums above.
    pub elsewhere: GuardCounts,
    /// Commands of the dialog by their verb, and `other`.
    pub commands: BTreeMap<String, u64>,
    /// How long connections lasted.
    pub durations: DurationStatus,
}

/// Who may say the refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// Nobody.
    None,
    /// The agent, on sockets that listen.
    #[default]
    Listener,
    /// The XDP program.
    Xdp,
}

impl Speaker {
    /// Its name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Listener => "listener",
            Self::Xdp => "xdp",
        }
    }
}

/// Who says the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderStatus {
    /// Whose place it is.
    pub by: Speaker,
    /// Who takes it while that one does not serve.
    pub fallback: Speaker,
    /// Who has it now.
    pub serving: Speaker,
    /// How often the fallback has taken it.
    pub takeovers: u64,
    /// Greetings of XDP that were sent again, because the client cannot ask for them.
    #[serde(default)]
    pub repeated: u64,
}

impl Default for ResponderStatus {
    fn default() -> Self {
        Self {
            by: Speaker::Listener,
            fallback: Speaker::None,
            serving: Speaker::Listener,
            takeovers: 0,
            repeated: 0,
        }
    }
}

impl ResponderStatus {
    /// XDP serves in place of a listener that does not.
    pub fn is_taken_over(&self) -> bool {
        self.by == Speaker::Listener && self.serving == Speaker::Xdp
    }
}

/// How long connections lasted that ended, from accept to close, shed ones left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationStatus {
    /// How many there are.
    pub count: u64,
    /// All of them together.
    pub total_micros: u64,
    /// How many lasted not longer than so many milliseconds.
    pub within_millis: BTreeMap<u64, u64>,
}

/// Agents before this key was there told nothing else.
fn told_by_agent() -> bool {
    true
}

/// An interface that the XDP program is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native`, `generic` or `off`.
    pub xdp_mode: String,
    /// The kernel's number of the program, 0 when off.
    pub program_id: u32,
    /// Whether the program outlives the agent.
    pub pinned: bool,
    /// What is wrong with its guard; none if nothing is.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// More about the trouble, or why the mode is not the best one; else empty.
    #[serde(default)]
    pub reason: String,
    /// How often another process took the program away or replaced it.
    #[serde(default)]
    pub losses: u64,
    /// What was counted on it.
    #[serde(flatten)]
    pub counts: GuardCounts,
}

/// What is wrong with the guard of an interface that is to have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// The interface is not there.
    Gone,
    /// The interface is there, and the program is not on it.
    Detached,
    /// Another program is in its place.
    Replaced,
    /// The program is on it, and what it sends does not leave the host.
    AnswersLost,
}

impl Trouble {
    /// Each of them.
    pub const ALL: [Self; 4] = [
        Self::Gone,
        Self::Detached,
        Self::Replaced,
        Self::AnswersLost,
    ];

    /// Its name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Detached => "detached",
            Self::Replaced => "replaced",
            Self::AnswersLost => "answers-lost",
        }
    }

    /// Traffic arrives on the interface and is not judged.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Detached | Self::Replaced)
    }
}

/// What the XDP program counted on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardCounts {
    /// SYNs received, by verdict.
    #[serde(serialize_with = "with_total")]
    pub syn: Counts<Verdict>,
    /// What it answered.
    pub answers: Counts<Answer>,
    /// SYNs that no bucket was charged for, because other CPUs were in the way.
    pub contended: u64,
    /// Sources that lost their place in the table to others.
    pub source_evictions: u64,
}

impl AddAssign for GuardCounts {
    fn add_assign(&mut self, other: Self) {
        self.syn += other.syn;
        self.answers += other.answers;
        self.contended += other.contended;
        self.source_evictions += other.source_evictions;
    }
}

/// What became of the last reload. The start counts as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Whether it was taken over.
    pub ok: bool,
    /// Seconds since.
    pub age_secs: u64,
    /// When the configuration in effect was taken over, in seconds since 1970.
    pub taken_over_unix_secs: u32,
    /// Why it was not; empty if it was.
    pub error: String,
    /// Keys whose changes wait for a restart.
    pub needs_restart: Vec<String>,
}

impl From<Reload> for ReloadStatus {
    fn from(reload: Reload) -> Self {
        Self {
            ok: reload.error.is_none(),
            age_secs: reload.at.elapsed().as_secs(),
            taken_over_unix_secs: reload.taken_over_unix_secs,
            error: reload.error.unwrap_or_default(),
            needs_restart: reload
                .needs_restart
                .into_iter()
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// The object of verdicts, and their sum as `total`.
fn with_total<S: Serializer>(syn: &Counts<Verdict>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        total: u64,
        #[serde(flatten)]
        syn: &'a Counts<Verdict>,
    }
    let total = syn.sum();
    Shown { total, syn }.serialize(serializer)
}

/// A source in both halves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// An IPv4 address, or an IPv6 /64.
    pub source: String,
    /// SYNs since it entered the table.
    pub syn: u64,
    /// Those of them over its limit.
    pub limited: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Seconds since its last SYN or connection.
    pub last_seen_secs: u64,
}

/// The socket that shows metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsStatus {
    /// Where; empty: nowhere.
    pub listen: String,
    /// Why it is not bound, and what to do; empty: it is.
    pub error: String,
}

/// A source as people write it: an IPv4 address, or the /64 that an IPv6 source
/// is.
pub fn shown_source(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

/// What matters most of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// SYNs are judged.
    Guarding,
    /// SYNs are judged, and none is dropped.
    Observing,
    /// More come than the listeners can take.
    Flood,
    /// The guard was taken off an interface, or replaced.
    Lost,
    /// What XDP sends does not leave the host.
    AnswersLost,
    /// The responder runs without a guard.
    Unguarded,
    /// The guard goes on without its agent: nobody answers.
    Alone,
}

impl State {
    /// What it means.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Guarding => "guarding",
            Self::Observing => "observing: SYNs are judged, none is dropped",
            Self::Flood => "FLOOD: more SYNs than the listeners can take",
            Self::Lost => "GUARD LOST: SYNs on an interface are not counted or limited",
            Self::AnswersLost => "ANSWERS LOST: what XDP sends does not leave the host",
            Self::Unguarded => "NOT GUARDING: the responder runs alone",
            Self::Alone => "agent not running; the guard stays attached",
        }
    }

    /// Its colour on a terminal.
    pub const fn colour(self) -> AnsiColor {
        match self {
            Self::Guarding => AnsiColor::Green,
            Self::Observing | Self::Alone => AnsiColor::Yellow,
            Self::Lost | Self::AnswersLost | Self::Flood | Self::Unguarded => AnsiColor::Red,
        }
    }
}

impl InterfaceStatus {
    /// What to know about it, beside its name.
    pub fn about(&self) -> String {
        let mode = match self.xdp_mode.as_str() {
            "off" => "no guard".to_owned(),
            mode => escaped(mode),
        };
        let pinned = if self.pinned { ", kept" } else { "" };
        let mut about = format!("{mode}{pinned}");
        if self.trouble == Some(Trouble::AnswersLost) {
            about += ", ANSWERS LOST";
        }
        if !self.reason.is_empty() {
            about += &format!(": {}", escaped(&self.reason));
        }
        if self.losses > 0 {
            about += &format!(" (lost {} times)", count(self.losses));
        }
        about
    }

    /// Whether it has no guard, or one that cannot answer.
    pub fn is_bad(&self) -> bool {
        self.xdp_mode == "off" || self.trouble.is_some()
    }
}

impl Status {
    /// What matters most. Observing comes before a flood, because then nobody is
    /// asked for a proof.
    pub fn state(&self) -> State {
        let guards = |interface: &InterfaceStatus| interface.xdp_mode != "off";
        let has = |trouble: fn(Trouble) -> bool| {
            let mut troubles = self.interfaces.iter().filter_map(|one| one.trouble);
            troubles.any(trouble)
        };
        if !self.agent_running {
            State::Alone
        } else if has(Trouble::is_loss) {
            State::Lost
        } else if has(|trouble| trouble == Trouble::AnswersLost) {
            State::AnswersLost
        } else if !self.interfaces.iter().any(guards) {
            State::Unguarded
        } else if self.observe {
            State::Observing
        } else if self.flood {
            State::Flood
        } else {
            State::Guarding
        }
    }

    /// Why this host is not to be called healthy, if it is not: the guard was taken off
    /// an interface, or what answers clients cannot send. An interface that is gone is
    /// no reason: nothing arrives there.
    pub fn unhealthy(&self) -> Option<String> {
        if self.guarded.is_empty() {
            return Some("It listens on no address.".to_owned());
        }
        let answers = self.responder.serving == Speaker::Xdp;
        let bad = self.interfaces.iter().find(|one| match one.trouble {
            Some(Trouble::AnswersLost) => answers,
            Some(trouble) => trouble.is_loss(),
            None => false,
        })?;
        let name = escaped(&bad.name);
        let reason = escaped(&bad.reason);
        Some(match bad.trouble {
            Some(Trouble::AnswersLost) => {
                format!("Clients on {name} get no answer: {reason}.")
            }
            _ => format!("{name} is not guarded: {reason}."),
        })
    }

    /// What to know about who serves, where it is not simply a listener.
    pub fn about_responder(&self) -> Option<String> {
        let ResponderStatus {
            by,
            fallback,
            takeovers,
            ..
        } = self.responder;
        let who = if by == Speaker::Xdp {
            "XDP, without a socket".to_owned()
        } else if self.responder.is_taken_over() {
            "XDP, IN PLACE OF THE LISTENER".to_owned()
        } else if fallback == Speaker::Xdp {
            format!("listener; XDP has taken over {} times", count(takeovers))
        } else {
            return None;
        };
        let said = named(
            [
                (self.answers[Answer::Greeting], "greetings by XDP"),
                (self.answers[Answer::Goodbye], "ended by QUIT"),
            ]
            .into_iter(),
        );
        Some(match said.as_str() {
            "" => who,
            _ => format!("{who}; {said}"),
        })
    }

    /// What to know about the interfaces without a guard, if there are any.
    pub fn about_unguarded(&self) -> Option<String> {
        let names: Vec<_> = self.unguarded.iter().map(|name| escaped(name)).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{}: traffic arriving there is answered but not filtered",
                names.join(", ")
            )
        })
    }

    /// As people read it. `colour` makes it stand out on a terminal.
    pub fn text(&self, colour: bool) -> String {
        let paint = |text: &str, colour_of: Option<AnsiColor>| match colour_of {
            Some(of) if colour => format!("{0}{text}{0:#}", of.on_default()),
            _ => text.to_owned(),
        };
        let mut out = String::new();
        let state = self.state();
        out += &format!(
            "{} {}\n",
            labelled("state"),
            paint(state.text(), Some(state.colour()))
        );
        if self.flood && state == State::Observing {
            out += &format!(
                "{} {}\n",
                labelled(""),
                paint("a flood comes in", Some(AnsiColor::Red))
            );
        }
        if self.agent_running {
            out += &format!(
                "{} {} does not accept mail (nomail {}, up {})\n",
                labelled("host"),
                escaped(&self.hostname),
                escaped(&self.version),
                duration(self.uptime_secs)
            );
        }
        let mut label = "interfaces";
        for interface in &self.interfaces {
            let bad = interface.is_bad();
            out += &format!(
                "{} {:<16} {}\n",
                labelled(label),
                escaped(&interface.name),
                paint(&interface.about(), bad.then_some(AnsiColor::Red))
            );
            label = "";
        }
        if let Some(unguarded) = self.about_unguarded() {
            out += &format!(
                "{} {}\n",
                labelled("not guarded"),
                paint(&unguarded, Some(AnsiColor::Red))
            );
        }
        for (label, what) in self.addresses.lines() {
            out += &format!(
                "{} {}\n",
                labelled(label),
                paint(&what, Some(AnsiColor::Yellow))
            );
        }
        let listens = self.agent_running && self.responder.by == Speaker::Listener;
        let listening = match listens {
            true => "listening",
            false => "guarded",
        };
        let pairs: Vec<_> = self.guarded.iter().map(|pair| escaped(pair)).collect();
        out += &format!("{} {}\n", labelled(listening), pairs.join(", "));
        if let Some(responder) = self.about_responder() {
            let taken_over = self.responder.is_taken_over();
            let colour = taken_over.then_some(AnsiColor::Yellow);
            out += &format!("{} {}\n", labelled("responder"), paint(&responder, colour));
        }
        out += "\n";
        self.write_counts(&mut out);
        self.write_notes(&mut out, &paint);
        self.write_sources(&mut out, &paint);
        out
    }

    /// The counters, side by side.
    fn write_counts(&self, out: &mut String) {
        let connections = &self.connections;
        let heading = |label: &str, number| (label.to_owned(), number);
        let part = |label: &str, number| (format!("  {label}"), number);
        let mut syns = vec![heading("SYNS", self.syn.sum())];
        syns.extend(
            self.syn
                .iter()
                .map(|(verdict, number)| part(verdict.label(), number)),
        );
        let mut columns = vec![(21, 13, syns)];
        if self.agent_running {
            let mut ends = vec![
                heading("CONNECTIONS", connections.accepted),
                part("active", connections.active),
            ];
            let ended = connections.ended.iter();
            ends.extend(ended.map(|(outcome, number)| part(outcome.label(), number)));
            columns.push((18, 11, ends));
            let answers = self.answers.iter();
            let answers = answers.map(|(answer, number)| (answer.label().to_uppercase(), number));
            columns.push((19, 12, answers.collect()));
        }
        let rows = columns.iter().map(|(.., rows)| rows.len()).max();
        for row in 0..rows.unwrap_or(0) {
            let cells = columns
                .iter()
                .map(|&(labels, numbers, ref rows)| match rows.get(row) {
                    Some((label, number)) => {
                        format!("{label:<labels$}{:>numbers$}", count(*number))
                    }
                    None => " ".repeat(labels + numbers),
                });
            *out += cells.collect::<Vec<_>>().join("   ").trim_end();
            *out += "\n";
        }
    }

    /// What is worth a line, and only then.
    fn write_notes(&self, out: &mut String, paint: &impl Fn(&str, Option<AnsiColor>) -> String) {
        let connections = &self.connections;
        let mut notes = Vec::new();
        let refused = labelled_counts(&connections.refused);
        if !refused.is_empty() {
            notes.push(("refused", refused, None));
        }
        let talkers = labelled_counts(&connections.talkers);
        if !talkers.is_empty() {
            notes.push(("not SMTP", talkers, None));
        }
        let also = labelled_counts(&connections.counters);
        if !also.is_empty() {
            notes.push(("connections", also, None));
        }
        let mut label = "mail for";
        for line in domains::about(&self.foreign_domains) {
            notes.push((label, line, Some(AnsiColor::Red)));
            label = "";
        }
        let mut tracked = format!("{} tracked", count(self.sources_tracked));
        if self.source_evictions > 0 {
            tracked += &format!(
                ", {} lost their place to others",
                count(self.source_evictions)
            );
        }
        notes.push(("sources", tracked, None));
        for line in self.lists.about() {
            notes.push(("lists", line, Some(AnsiColor::Red)));
        }
        if let Some(crowdsec) = &self.crowdsec {
            let failing = !crowdsec.error.is_empty() || crowdsec.left_out > 0;
            let colour = failing.then_some(AnsiColor::Red);
            notes.push(("crowdsec", crowdsec.to_string(), colour));
        }
        if !self.metrics.error.is_empty() {
            let MetricsStatus { listen, error } = &self.metrics;
            let text = format!("NOT SHOWN on {}: {}", escaped(listen), escaped(error));
            notes.push(("metrics", text, Some(AnsiColor::Red)));
        }
        let reload = &self.reload;
        if !reload.ok && !reload.error.is_empty() {
            let text = format!(
                "failed {} ago: {}",
                duration(reload.age_secs),
                escaped(&reload.error)
            );
            notes.push(("reload", text, Some(AnsiColor::Red)));
        } else if !reload.needs_restart.is_empty() {
            let keys = reload.needs_restart.join(", ");
            let text = format!("a change of {} needs a restart", escaped(&keys));
            notes.push(("reload", text, Some(AnsiColor::Yellow)));
        }
        if self.contended > 0 {
            let text = format!(
                "{} SYNs charged to no source, because CPUs were in each other's way",
                count(self.contended)
            );
            notes.push(("contended", text, None));
        }
        *out += "\n";
        for (label, text, colour) in notes {
            *out += &format!("{} {}\n", labelled(label), paint(&text, colour));
        }
    }

    fn write_sources(&self, out: &mut String, paint: &impl Fn(&str, Option<AnsiColor>) -> String) {
        if self.sources.is_empty() {
            return;
        }
        *out += &format!(
            "\n{:<24} {:>13} {:>13} {:>13} {:>10}\n",
            "BUSIEST SOURCES", "SYNS", "LIMITED", "CONNECTIONS", "LAST SEEN"
        );
        for source in &self.sources {
            let limited = format!("{:>13}", count(source.limited));
            let colour = (source.limited > 0).then_some(AnsiColor::Yellow);
            *out += &format!(
                "{:<24} {:>13} {} {:>13} {:>10}\n",
                escaped(&source.source),
                count(source.syn),
                paint(&limited, colour),
                count(source.connections),
                duration(source.last_seen_secs)
            );
        }
    }
}

/// A label of the column on the left.
fn labelled(label: &str) -> String {
    format!("{label:<12}")
}

/// Those numbers that are not 0, with their names.
fn named<'a>(numbers: impl Iterator<Item = (u64, &'a str)>) -> String {
    let there = numbers.filter(|(number, _)| *number > 0);
    let there: Vec<_> = there
        .map(|(number, name)| format!("{} {name}", count(number)))
        .collect();
    there.join(", ")
}

/// The same of all words of a vocabulary.
fn labelled_counts<T: Counted>(counts: &Counts<T>) -> String {
    named(counts.iter().map(|(word, number)| (number, word.label())))
}

/// A number in groups of three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Text that came through a socket: nothing in it reaches a terminal as a command,
/// and each character is one column wide.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_default()),
        }
    }
    shown
}

/// The two largest units of a number of seconds.
pub fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::smtp::{Counter, command::Talker, dialog::Refusal};

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let status = Status {
            interfaces: vec![InterfaceStatus::default()],
            sources: vec![SourceStatus::default()],
            ..Status::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        let contract = [
            (
                "",
                "version abi hostname uptime_secs flood observe interfaces guarded reload config_hash syn answers connections sources",
            ),
            ("/reload", "ok age_secs error needs_restart"),
            ("/interfaces/0", "name xdp_mode program_id pinned"),
            (
                "/syn",
                "total passed limited_source limited_prefix denied flood malformed",
            ),
            ("/answers", "cookie challenge proven stateless"),
            (
                "/connections",
                "accepted active refused_greeting refused_ehlo refused_mail refused_rcpt quit timed_out shed",
            ),
            (
                "/sources/0",
                "source syn limited connections last_seen_secs",
            ),
        ];
        for (path, keys) in contract {
            let object = json.pointer(path).unwrap();
            for key in keys.split(' ') {
                assert!(object.get(key).is_some(), "{path}/{key}");
            }
        }
    }

    fn sample() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            hostname: "mailless.example.org".to_owned(),
            uptime_secs: 61,
            agent_running: true,
            interfaces: vec![InterfaceStatus {
                name: "eth0".to_owned(),
                xdp_mode: "native".to_owned(),
                ..InterfaceStatus::default()
            }],
            guarded: vec!["192.0.2.7:25".to_owned()],
            syn: Counts::from_iter([(Verdict::Passed, 1_234_567), (Verdict::LimitedSource, 40)]),
            sources: vec![SourceStatus {
                source: "192.0.2.9".to_owned(),
                syn: 60,
                limited: 40,
                ..SourceStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn the_state_comes_first() {
        let mut status = sample();
        let first = |status: &Status| status.text(false).lines().next().map(str::to_owned);
        assert_eq!(first(&status).unwrap(), "state        guarding");
        status.flood = true;
        assert!(first(&status).unwrap().contains("FLOOD"));
        status.observe = true;
        assert!(first(&status).unwrap().contains("observing"));
        assert!(status.text(false).contains("a flood comes in"));
        status.interfaces[0].xdp_mode = "off".to_owned();
        assert!(first(&status).unwrap().contains("NOT GUARDING"));
        status.agent_running = false;
        assert!(first(&status).unwrap().contains("agent not running"));
        assert!(!status.text(false).contains("closed by client"));
    }

    #[test]
    fn a_guard_that_is_lost_or_mute_is_told_before_all_else() {
        let mut status = sample();
        assert_eq!(
            (status.state(), status.unhealthy()),
            (State::Guarding, None)
        );
        status.flood = true;
        status.observe = true;
        let on = &mut status.interfaces[0];
        on.reason = "another process detached the XDP program".to_owned();
        (on.trouble, on.xdp_mode, on.losses) = (Some(Trouble::Detached), "off".to_owned(), 1);
        let text = status.text(false);
        assert!(text.starts_with("state        GUARD LOST"), "{text}");
        assert!(text.contains("no guard: another process detached the XDP program (lost 1 times)"));
        let why = "eth0 is not guarded: another process detached the XDP program.";
        assert_eq!(status.unhealthy().unwrap(), why);
        status.interfaces[0].trouble = Some(Trouble::Replaced);
        assert_eq!(status.state(), State::Lost);
        assert!(status.unhealthy().is_some());
        status.interfaces[0].xdp_mode = "native".to_owned();
        status.interfaces[0].trouble = Some(Trouble::AnswersLost);
        assert_eq!(status.state(), State::AnswersLost);
        assert!(status.text(false).contains("native, ANSWERS LOST: "));
        assert_eq!(status.unhealthy(), None, "the listener serves");
        status.responder.serving = Speaker::Xdp;
        assert!(status.unhealthy().is_some());
        status.interfaces[0].trouble = Some(Trouble::Gone);
        assert_eq!(status.unhealthy(), None);
        status.guarded.clear();
        assert!(status.unhealthy().is_some());
        let json = serde_json::to_value(Trouble::AnswersLost).unwrap();
        assert_eq!(json, Trouble::AnswersLost.name());
    }

    #[test]
    fn who_serves_is_told_where_xdp_may() {
        let told = |status: &Status| {
            let text = status.text(false);
            let line = text.lines().find(|line| line.starts_with("responder"));
            line.map(|line| line["responder".len()..].trim().to_owned())
        };
        let mut status = sample();
        assert_eq!(told(&status), None);
        status.responder.fallback = Speaker::Xdp;
        status.responder.takeovers = 1200;
        let expected = "listener; XDP has taken over 1,200 times";
        assert_eq!(told(&status).unwrap(), expected);
        status.responder.serving = Speaker::Xdp;
        status.answers[Answer::Greeting] = 7;
        let expected = "XDP, IN PLACE OF THE LISTENER; 7 greetings by XDP";
        assert_eq!(told(&status).unwrap(), expected);
        assert!(status.text(false).contains("\nlistening "));
        status.responder.by = Speaker::Xdp;
        status.answers[Answer::Goodbye] = 2;
        let expected = "XDP, without a socket; 7 greetings by XDP, 2 ended by QUIT";
        assert_eq!(told(&status).unwrap(), expected);
        assert!(!status.text(false).contains("\nlistening "));
    }

    #[test]
    fn what_is_0_and_rare_is_left_out() {
        let mut status = sample();
        let rare = ["not guarded", "contended", "lost their place", "mail for"];
        let text = status.text(false);
        for word in rare {
            assert!(!text.contains(word), "{word} in {text}");
        }
        status.unguarded = vec!["wg0".to_owned()];
        status.contended = 7;
        status.source_evictions = 8000;
        status.foreign_domains = vec![ForeignDomainStatus {
            suspect: true,
            ..ForeignDomainStatus::default()
        }];
        let text = status.text(false);
        for word in rare {
            assert!(text.contains(word), "{word} not in {text}");
        }
        assert!(text.contains("not guarded  wg0: ") && text.contains("8,000 lost"));
    }

    #[test]
    fn what_is_counted_is_shown_by_its_label_once_there_is_any() {
        let mut status = sample();
        let connections = &mut status.connections;
        connections.refused[Refusal::Rcpt] = 4000;
        connections.talkers[Talker::Tls] = 2;
        for (number, counter) in (1..).zip(Counter::ALL) {
            connections.counters[*counter] = number;
        }
        status.crowdsec = Some(CrowdsecStatus {
            url: "http://127.0.0.1:8080/".to_owned(),
            pulls: Counts::from_iter([(Pull::Succeeded, 8), (Pull::Failed, 1)]),
            ..CrowdsecStatus::default()
        });
        let text = status.text(false);
        for line in [
            "refused      4,000 at RCPT",
            "not SMTP     2 began with TLS",
            "connections  1 made room for others, 2 recipients of other domains, \
             3 shed without waiting, 4 sources forgotten",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains(":8080/, 1 of 9 pulls failed\n"), "{text}");
    }

    #[test]
    fn columns_are_aligned_and_numbers_grouped() {
        let text = sample().text(false);
        let syns = text.lines().find(|line| line.starts_with("SYNS")).unwrap();
        let passed = text.lines().find(|line| line.contains("  passed")).unwrap();
        assert_eq!(syns.find("1,234,607"), passed.find("1,234,567"), "{text}");
        for line in text.lines() {
            assert!(line.len() <= 100 && line.trim_end() == line, "{line:?}");
        }
    }

    #[test]
    fn colour_changes_nothing_else_and_what_was_told_is_escaped() {
        let mut status = sample();
        assert!(!status.text(false).contains('\u{1b}'));
        let mut plain = String::new();
        let mut coloured = status.text(true);
        assert!(coloured.contains('\u{1b}'));
        while let Some(at) = coloured.find('\u{1b}') {
            plain += &coloured[..at];
            let end = at + coloured[at..].find('m').unwrap();
            coloured.drain(..=end);
        }
        plain += &coloured;
        assert_eq!(plain, status.text(false));
        let evil = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\n";
        status.hostname = evil.to_owned();
        status.version = evil.to_owned();
        status.guarded[0] = evil.to_owned();
        status.interfaces[0].name = evil.to_owned();
        status.interfaces[0].xdp_mode = evil.to_owned();
        status.interfaces[0].reason = evil.to_owned();
        status.sources[0].source = evil.to_owned();
        status.unguarded = vec!["\u{1b}[2J".to_owned()];
        let text = status.text(false);
        assert!(
            text.chars().all(|c| c == '\n' || matches!(c, ' '..='~')),
            "{text:?}"
        );
        assert!(text.contains("\\u{1b}]0;x\\u{7}"));
    }

    #[test]
    fn an_agent_without_the_new_keys_is_understood() {
        let mut told = serde_json::to_value(sample()).unwrap();
        let keys = told.as_object_mut().unwrap();
        for key in [
            "agent_running",
            "unguarded",
            "addresses",
            "contended",
            "responder",
        ] {
            keys.remove(key).unwrap();
        }
        assert_eq!(serde_json::from_value::<Status>(told).unwrap(), sample());
    }

    #[rstest]
    #[case(0, "0")]
    #[case(999, "999")]
    #[case(1000, "1,000")]
    #[case(1_234_567, "1,234,567")]
    fn numbers_are_grouped(#[case] number: u64, #[case] text: &str) {
        assert_eq!(count(number), text);
    }

    #[rstest]
    #[case::well(true, "", &[], None)]
    #[case::failed(false, "a.toml:1:1: wrong", &[], Some("failed 1m01s ago: a.toml:1:1: wrong"))]
    #[case::waiting(
        true,
        "",
        &["listen", "user"],
        Some("a change of listen, user needs a restart")
    )]
    fn a_reload_is_told_where_there_is_something_to_do(
        #[case] ok: bool,
        #[case] error: &str,
        #[case] needs_restart: &[&str],
        #[case] expected: Option<&str>,
    ) {
        let status = Status {
            reload: ReloadStatus {
                ok,
                taken_over_unix_secs: 0,
                age_secs: 61,
                error: error.to_owned(),
                needs_restart: needs_restart.iter().map(ToString::to_string).collect(),
            },
            ..Status::default()
        };
        let text = status.text(false);
        let told = text
            .lines()
            .find_map(|line| line.strip_prefix("reload       "));
        assert_eq!(told, expected);
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(61, "1m01s")]
    #[case(7_260, "2h01m")]
    #[case(90_000, "1d01h")]
    fn durations_read_well(#[case] secs: u64, #[case] text: &str) {
        assert_eq!(duration(secs), text);
    }
}
