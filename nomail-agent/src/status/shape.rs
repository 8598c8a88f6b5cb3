//! The state of an agent as `status --json` and `/status.json` have it. The keys are a
//! contract with dashboards and scripts: more may be added, none renamed.

use std::{collections::BTreeMap, fmt, marker::PhantomData, ops::AddAssign};

use nomail_common::{
    counted,
    counted::Counted,
    verdict::{Answer, Verdict},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    addresses::AddressStatus, crowdsec::CrowdsecStatus, domains::ForeignDomainStatus,
    lists::ListsStatus, reload::Reload,
};
use crate::{
    counts::Counts,
    smtp::{Connections, command::Verb},
};

/// The state of an agent, or of the guard that one has left pinned.
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
    /// Whether there is a flood, so that XDP challenges unproven SYNs.
    pub flood: bool,
    /// Whether verdicts are only counted.
    pub observe: bool,
    /// Whether an agent runs. If not, this was read from a pinned guard
    /// (`on_exit = "keep"`).
    #[serde(default = "always")]
    pub agent_running: bool,
    /// The guarded interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// The pairs of address and port that the responder listens on.
    pub guarded: Vec<String>,
    /// Which side refuses clients.
    #[serde(default)]
    pub responder: ResponderStatus,
    /// The last reload of the configuration.
    pub reload: ReloadStatus,
    /// [`crate::config::Config::hash`] of the configuration in effect, in 16
    /// hexadecimal digits: a JSON number would lose some of them.
    pub config_hash: String,
    /// Interfaces without a guard whose traffic reaches the responder.
    #[serde(default)]
    pub unguarded: Vec<String>,
    /// The socket for metrics.
    #[serde(default)]
    pub metrics: MetricsStatus,
    /// Addresses that are not guarded or served as the others are.
    #[serde(default)]
    pub addresses: AddressStatus,
    /// CrowdSec's decisions, if the agent was started with `[crowdsec]`.
    pub crowdsec: Option<CrowdsecStatus>,
    /// The lists in force.
    #[serde(default)]
    pub lists: ListsStatus,
    /// What the XDP program counted, on all interfaces together.
    #[serde(flatten)]
    pub counts: GuardCounts,
    /// The connections of the responder.
    pub connections: Connections,
    /// Other domains that mail has arrived for, those that matter most first.
    #[serde(default)]
    pub foreign_domains: Vec<ForeignDomainStatus>,
    /// The busiest sources.
    pub sources: Vec<SourceStatus>,
    /// Sources in the table of the XDP program.
    pub sources_tracked: u64,
    /// What was counted on interfaces that are not, or no longer, guarded: a part
    /// of [`Self::counts`].
    pub elsewhere: GuardCounts,
    /// Commands of the dialog.
    pub commands: Counts<Verb>,
    /// How long connections lasted.
    pub durations: DurationStatus,
}

/// For agents older than the key `agent_running`: only a running one could answer.
fn always() -> bool {
    true
}

counted! {
    /// The side that refuses clients.
    pub enum Speaker {
        /// Neither.
        None "none" "nothing";
        /// The agent, on listening sockets.
        Listener "listener" "listener";
        /// The XDP program.
        Xdp "xdp" "XDP";
    }
}

counted! {
    /// What is counted of the refusal by XDP.
    pub enum StatelessCounter {
        /// Times that XDP has taken over from listeners that did not accept
        /// (`fallback = "xdp"`).
        Takeovers "takeovers" "takeovers";
        /// Greetings that XDP sent again, to clients that needed an ordinary SYN-ACK and so do
        /// not ask for a lost one; also among `greeted`.
        Repeated "repeated" "greetings sent again";
    }
}

/// Which side refuses clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderStatus {
    /// The configured side.
    pub by: Speaker,
    /// The side that takes over while that one does not serve.
    pub fallback: Speaker,
    /// The side that serves now.
    pub serving: Speaker,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts<StatelessCounter>,
}

impl Default for ResponderStatus {
    fn default() -> Self {
        Self {
            by: Speaker::Listener,
            fallback: Speaker::None,
            serving: Speaker::Listener,
            counts: Counts::default(),
        }
    }
}

impl ResponderStatus {
    /// Whether XDP serves in place of the listener.
    pub fn is_taken_over(&self) -> bool {
        self.by == Speaker::Listener && self.serving == Speaker::Xdp
    }
}

/// How long connections lasted, from accept to close; without shed ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationStatus {
    /// Number of connections.
    pub count: u64,
    /// Sum of their durations, in microseconds.
    pub total_micros: u64,
    /// Number of connections that lasted no longer than each of these milliseconds.
    pub within_millis: BTreeMap<u64, u64>,
}

/// The modes of an interface's guard, as [`InterfaceStatus::xdp_mode`] has them.
pub(super) const XDP_MODES: [&str; 3] = ["native", "generic", "off"];

/// A guarded interface.
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
    /// What is wrong with its guard, if anything is.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// The cause of the trouble, or why the mode is not the best one; else empty.
    #[serde(default)]
    pub reason: String,
    /// Times that another process detached the program or replaced it.
    #[serde(default)]
    pub losses: u64,
    /// What was counted on it.
    #[serde(flatten)]
    pub counts: GuardCounts,
}

impl InterfaceStatus {
    /// Whether an XDP program is on it.
    pub fn is_guarded(&self) -> bool {
        self.xdp_mode != "off"
    }

    /// Whether it has no guard, or one in trouble.
    pub fn is_bad(&self) -> bool {
        !self.is_guarded() || self.trouble.is_some()
    }
}

counted! {
    /// What is wrong with the guard of an interface.
    pub enum Trouble {
        /// The interface does not exist.
        Gone "gone" "interface gone";
        /// Another process detached the XDP program.
        Detached "detached" "guard detached";
        /// Another process put its own XDP program in place of nomail's.
        Replaced "replaced" "guard replaced";
        /// Connections arrive whose SYNs the XDP program did not see.
        Blind "blind" "guard blind";
        /// What the XDP program sends does not leave the host.
        AnswersLost "answers-lost" "answers lost";
    }
}

impl Trouble {
    /// Whether traffic arrives on the interface unfiltered.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Detached | Self::Replaced)
    }
}

counted! {
    /// What is counted of the table of sources.
    pub enum TableCounter {
        /// SYNs that were charged to no source, because several CPUs changed the same entry.
        Contended "contended" "SYNs charged to no source";
        /// Sources that lost their place in the table to others; usual when it is full.
        SourceEvictions "source_evictions" "sources lost their place to others";
    }
}

/// What the XDP program counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardCounts {
    /// SYNs received for guarded addresses, by verdict.
    #[serde(serialize_with = "with_total")]
    pub syn: Counts<Verdict>,
    /// What XDP answered.
    pub answers: Counts<Answer>,
    /// What befell the table of sources.
    #[serde(flatten)]
    pub table: Counts<TableCounter>,
}

impl AddAssign for GuardCounts {
    fn add_assign(&mut self, other: Self) {
        self.syn += other.syn;
        self.answers += other.answers;
        self.table += other.table;
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

/// The last reload. The start counts as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Whether it succeeded.
    pub ok: bool,
    /// Seconds since.
    pub age_secs: u64,
    /// When the configuration in effect was taken over, in seconds since 1970.
    pub taken_over_unix_secs: u32,
    /// Why it failed; empty if it did not.
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

/// A source, as the XDP program and the responder know it.
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

/// The socket for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsStatus {
    /// Its address and port; empty if there is none.
    pub listen: String,
    /// Why it is not bound, and what to do; empty if it is.
    pub error: String,
}

/// JSON of words: their names as strings.
macro_rules! named_in_json {
    ($($word:ty),+) => {$(
        impl Serialize for $word {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $word {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(ByName(PhantomData))
            }
        }
    )+};
}

named_in_json!(Speaker, Trouble);

struct ByName<T>(PhantomData<T>);

impl<T: Counted> de::Visitor<'_> for ByName<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = T::ALL.iter().map(|word| word.name()).collect();
        write!(out, "one of {}", names.join(", "))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<T, E> {
        let found = T::ALL.iter().find(|word| word.name() == name);
        found
            .copied()
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
    }
}

#[cfg(test)]
mod tests;
