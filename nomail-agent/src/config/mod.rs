//! The configuration: what the operator wrote, checked, with every default
//! filled in.
//!
//! A value comes from the first of these that has it: a flag, a `NOMAIL_*`
//! variable of the environment, the file, the default. Flags and environment
//! are fixed for the life of the agent, as [`Overrides`]; the file is read
//! anew by each [`load`]. Everything that is written has to be right, also what
//! something else overrides, and all that is wrong is told at once.

mod error;
mod file;
mod fqdn;
mod layer;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use self::{
    error::{ConfigError, ValueError},
    fqdn::host_fqdn,
    values::{Hostname, ListenAddress, User},
};
use self::{
    error::{Origin, Problem},
    layer::{Layer, Layers},
    values::{boolean, choice, number},
};

/// Read when no other file is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/nomail/nomail.toml";
/// Where the agent tells its status, by default.
pub const DEFAULT_CONTROL: &str = "/run/nomail/control.sock";
/// In place of an interface's name: the one that the default route leads through.
pub const DEFAULT_ROUTE: &str = "default-route";

/// Most connections at once that can be configured; with what else needs
/// descriptors it stays below fs.nr_open's default.
pub const CONNECTIONS_MAX: u32 = 1_000_000;

/// The tables of the file.
const SECTIONS: [&str; 2] = ["limits", "log"];
/// Longest that a session may be allowed to last: a year.
const SESSION_TIMEOUT_MAX: u64 = 31_536_000;

/// The configuration in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, or would have been: where a reload looks.
    /// `None` only in [`Config::default`].
    pub file: Option<PathBuf>,
    /// Names of interfaces, or [`DEFAULT_ROUTE`]; at least one.
    pub interfaces: Vec<String>,
    /// Where to listen. None: port 25 of every address of the interfaces.
    pub listen: Vec<ListenAddress>,
    /// The first word of the greeting. None: see [`host_fqdn`].
    pub hostname: Option<Hostname>,
    /// Where the refusal is spoken.
    pub refuse_at: RefuseAt,
    /// What follows the greeting.
    pub after_greeting: AfterGreeting,
    /// How XDP attaches.
    pub xdp_mode: XdpMode,
    /// Verdicts are counted, and not acted upon.
    pub observe: bool,
    /// Who the agent is after its start.
    pub user: User,
    /// Path of the control socket; absolute.
    pub control: PathBuf,
    /// What one source, and all together, may take.
    pub limits: Limits,
    /// How the log is written.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            interfaces: vec![DEFAULT_ROUTE.to_owned()],
            listen: Vec::new(),
            hostname: None,
            refuse_at: RefuseAt::default(),
            after_greeting: AfterGreeting::default(),
            xdp_mode: XdpMode::default(),
            observe: false,
            user: User::default(),
            control: PathBuf::from(DEFAULT_CONTROL),
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// SYNs per second of one source.
    pub syn_rate: u32,
    /// SYNs that one source may send at once.
    pub syn_burst: u32,
    /// Connections at once.
    pub connections: u32,
    /// Connections at once of one source.
    pub connections_per_source: u32,
    /// Seconds that a session may wait for the next command.
    pub idle_timeout_secs: u64,
    /// Seconds that a session may last.
    pub session_timeout_secs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            syn_rate: 10,
            syn_burst: 20,
            connections: 10_000,
            connections_per_source: 100,
            idle_timeout_secs: 300,
            session_timeout_secs: 1800,
        }
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
}

/// Where the refusal is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefuseAt {
    /// In the greeting (RFC 1846 section 4).
    #[default]
    Greeting,
}

impl RefuseAt {
    const CHOICES: &[(&str, Self)] = &[("greeting", Self::Greeting)];
    const LATER: &[&str] = &["ehlo", "mail", "rcpt", "auto"];
}

/// What follows the greeting (RFC 1846 section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterGreeting {
    /// Option b: answer 521 to everything but QUIT.
    #[default]
    Hold,
    /// Option a: close.
    Close,
}

impl AfterGreeting {
    const CHOICES: &[(&str, Self)] = &[("hold", Self::Hold), ("close", Self::Close)];
}

/// How XDP attaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, or generic where the driver has no native.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// Not at all.
    Off,
}

impl XdpMode {
    const CHOICES: &[(&str, Self)] = &[
        ("auto", Self::Auto),
        ("native", Self::Native),
        ("generic", Self::Generic),
        ("off", Self::Off),
    ];
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    #[default]
    Text,
}

impl LogFormat {
    const CHOICES: &[(&str, Self)] = &[("text", Self::Text)];
    const LATER: &[&str] = &["json"];
}

impl Config {
    /// The keys that differ in `new` and that a reload cannot change: their
    /// resources are made at the start, with privileges that are gone.
    pub fn changes_that_need_restart(&self, new: &Self) -> Vec<&'static str> {
        [
            ("interfaces", self.interfaces != new.interfaces),
            ("listen", self.listen != new.listen),
            ("xdp_mode", self.xdp_mode != new.xdp_mode),
            ("control", self.control != new.control),
            ("user", self.user.value != new.user.value),
            ("log.format", self.log.format != new.log.format),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }

    /// This configuration with what a reload cannot change as it is in `old`.
    pub fn with_fixed_from(self, old: &Self) -> Self {
        Self {
            interfaces: old.interfaces.clone(),
            listen: old.listen.clone(),
            xdp_mode: old.xdp_mode,
            control: old.control.clone(),
            user: old.user.clone(),
            log: Log {
                format: old.log.format,
            },
            ..self
        }
    }
}

/// What flags and environment say. They win over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The file to read. None: [`DEFAULT_FILE`], if it is there.
    pub file: Option<PathBuf>,
    given: BTreeMap<&'static str, Given>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    by: GivenBy,
    values: Vec<String>,
}

/// Who gave a value, and how errors call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenBy {
    /// An option of the command line: `--syn-rate`.
    Flag(&'static str),
    /// A variable: `NOMAIL_SYN_RATE`.
    Environment(&'static str),
}

impl Overrides {
    /// Nothing but the file to read. None: [`DEFAULT_FILE`], if it is there.
    pub fn of_file(file: Option<PathBuf>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// Gives `key`, as the file calls it (`limits.syn_rate`), these values. They
    /// are checked by [`load`].
    pub fn set(&mut self, key: &'static str, by: GivenBy, values: Vec<String>) {
        self.given.insert(key, Given { by, values });
    }
}

/// Reads the file and checks everything.
///
/// # Errors
/// All that is wrong. A caller that has a configuration keeps it.
pub fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
    match &overrides.file {
        Some(named) => load_from(named, true, overrides),
        None => load_from(Path::new(DEFAULT_FILE), false, overrides),
    }
}

/// Where `status` asks: the socket that it was told, else that of the file.
pub fn control_path(told: Option<PathBuf>) -> PathBuf {
    told.unwrap_or_else(|| {
        let config = load(&Overrides::default()).unwrap_or_default();
        config.control
    })
}

fn load_from(path: &Path, required: bool, overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let file = match file::read(path) {
        Ok(Some(layer)) => layer,
        Ok(None) => {
            if required {
                problems.push(Problem {
                    origin: Origin::whole_file(path),
                    text: "there is no such file: create it, or name another with --config"
                        .to_owned(),
                });
            }
            Layer::new()
        }
        Err(problem) => {
            problems.push(problem);
            Layer::new()
        }
    };
    let mut layers = Layers::new(vec![file, layer::layer_of(overrides)]);
    layers.problems = problems;
    let mut config = read(&mut layers);
    layers.refuse_unknown();
    if !layers.problems.is_empty() {
        return Err(ConfigError::new(layers.problems));
    }
    config.file = Some(path.to_owned());
    Ok(config)
}

/// Every key there is. What is wrong goes to `layers.problems`.
fn read(layers: &mut Layers) -> Config {
    let default = Config::default();
    let limits = default.limits;
    Config {
        file: None,
        interfaces: layers
            .list("interfaces", "\"eth0\"", values::interface)
            .unwrap_or(default.interfaces),
        listen: layers
            .list("listen", "\"192.0.2.7:25\"", values::listen_address)
            .unwrap_or(default.listen),
        hostname: layers.value("hostname", |value| value.text()?.parse()),
        refuse_at: layers
            .value("refuse_at", choice(RefuseAt::CHOICES, RefuseAt::LATER))
            .unwrap_or(default.refuse_at),
        after_greeting: layers
            .value("after_greeting", choice(AfterGreeting::CHOICES, &[]))
            .unwrap_or(default.after_greeting),
        xdp_mode: layers
            .value("xdp_mode", choice(XdpMode::CHOICES, &[]))
            .unwrap_or(default.xdp_mode),
        observe: layers.value("observe", boolean).unwrap_or(default.observe),
        user: layers.value("user", values::user).unwrap_or(default.user),
        control: layers
            .value("control", values::socket_path)
            .unwrap_or(default.control),
        limits: Limits {
            syn_rate: layers
                .value(
                    "limits.syn_rate",
                    number(
                        1..=10_000,
                        "give the SYNs per second that one source may send",
                    ),
                )
                .unwrap_or(limits.syn_rate),
            syn_burst: layers
                .value(
                    "limits.syn_burst",
                    number(1..=10_000, "give the SYNs that one source may send at once"),
                )
                .unwrap_or(limits.syn_burst),
            connections: layers
                .value(
                    "limits.connections",
                    number(
                        1..=CONNECTIONS_MAX,
                        "give the connections that may be open at once",
                    ),
                )
                .unwrap_or(limits.connections),
            connections_per_source: layers
                .value(
                    "limits.connections_per_source",
                    number(
                        1..=CONNECTIONS_MAX,
                        "give the connections that one source may have open at once",
                    ),
                )
                .unwrap_or(limits.connections_per_source),
            idle_timeout_secs: layers
                .value(
                    "limits.idle_timeout_secs",
                    number(1..=86_400, "give the seconds to wait for the next command"),
                )
                .unwrap_or(limits.idle_timeout_secs),
            session_timeout_secs: layers
                .value(
                    "limits.session_timeout_secs",
                    number(
                        1..=SESSION_TIMEOUT_MAX,
                        "give the seconds that a session may last",
                    ),
                )
                .unwrap_or(limits.session_timeout_secs),
        },
        log: Log {
            format: layers
                .value("log.format", choice(LogFormat::CHOICES, LogFormat::LATER))
                .unwrap_or(default.log.format),
        },
    }
}
