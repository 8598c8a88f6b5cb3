//! The configuration: what the operator wrote, checked, with every default
//! filled in.
//!
//! A value comes from the first of these that has it: a flag, a `NOMAIL_*`
//! variable of the environment, a drop-in of the file (the last one that has it),
//! the file, the default. Flags and environment are fixed for the life of the
//! agent, as [`Overrides`]; the files are read anew by each [`load`]. Everything
//! that is written has to be right, also what something else overrides, and all
//! that is wrong is told at once.

mod crowdsec;
mod effective;
mod error;
mod file;
mod fqdn;
mod layer;
mod lines;
mod lists;
mod prefixes;
mod relay;
#[cfg(test)]
mod tests;
mod values;
mod watch;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
pub use nomail_common::guard::policy::FloodAnswer;

pub use self::{
    crowdsec::{ApiUrl, Crowdsec, CrowdsecProcess, DEFAULT_RUN_DIR},
    error::{ConfigError, ValueError},
    file::drop_in_directory,
    fqdn::{host_aliases, host_fqdn},
    lines::ListFile,
    lists::{LIST_PREFIXES_MAX, Lists, read_prefixes},
    relay::{Relay, RelayCode, RelayDomain},
    values::{Hostname, ListenAddress, StateDir, User},
    watch::{Stamp, WatchedLists},
};
use self::{
    error::{Origin, Problem, ValueError::Wrong},
    file::Files,
    layer::{Chosen, Layers},
    values::{boolean, choice, number},
};

/// Read when no other file is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/nomail/nomail.toml";
/// Where the agent tells its status, by default.
pub const DEFAULT_CONTROL: &str = "/run/nomail/control.sock";
/// Where the agent keeps what a restart must not forget, by default.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/nomail";
/// Where what outlives the agent is pinned, by default.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/nomail";
/// Port of the metrics on the loopback address, by default.
const METRICS_PORT: u16 = 9521;
/// In place of an interface's name: the one that the default route leads through.
pub const DEFAULT_ROUTE: &str = "default-route";

/// Most connections at once that can be configured; with what else needs
/// descriptors it stays below fs.nr_open's default.
pub const CONNECTIONS_MAX: u32 = 1_000_000;

/// The tables of the file.
const SECTIONS: [&str; 6] = ["limits", "lists", "relay", "log", "metrics", "crowdsec"];
/// Highest rate of a source or a prefix. At 100 jiffies per second, which is the
/// fewest, [`nomail_common::guard::limiter::Limit`] keeps it within 1.3 %.
const RATE_MAX: u32 = 10_000;
/// Most unproven SYNs per second; beyond it the clock of 100 Hz rounds badly.
const UNPROVEN_RATE_MAX: u32 = 50_000;
/// Most SYNs of a prefix at once: the default of the highest rate.
const PREFIX_BURST_MAX: u32 = 2 * RATE_MAX;
/// Longest that a session may be allowed to last, and a source be remembered: a
/// year.
const YEAR_SECS: u32 = 31_536_000;

/// The configuration in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, or would have been: where a reload looks.
    /// `None` only in [`Config::default`].
    pub file: Option<PathBuf>,
    /// The files that were read: that one, if it was there, and its drop-ins.
    pub files: Vec<PathBuf>,
    /// Names of interfaces, or [`DEFAULT_ROUTE`]; at least one.
    pub interfaces: Vec<String>,
    /// Where to listen. None: port 25 of every address of the interfaces.
    pub listen: Vec<ListenAddress>,
    /// The first word of the greeting. None: see [`host_fqdn`].
    pub hostname: Option<Hostname>,
    /// Other names of this host, and `*.example.org` for all below `example.org`: mail for
    /// them is no news.
    pub aliases: Vec<String>,
    /// Who speaks the refusal.
    pub responder: Responder,
    /// Who speaks it while that one cannot.
    pub fallback: Fallback,
    /// Where the refusal is spoken. With [`Self::relay`]: at RCPT.
    pub refuse_at: RefuseAt,
    /// What follows the greeting.
    pub after_greeting: AfterGreeting,
    /// Health checkers, which are always refused at RCPT and leave no trace: networks
    /// without host bits.
    pub monitors: Vec<IpNet>,
    /// How XDP attaches.
    pub xdp_mode: XdpMode,
    /// Verdicts are counted, and not acted upon.
    pub observe: bool,
    /// What becomes of the guard when the agent ends.
    pub on_exit: OnExit,
    /// Where it is pinned when it stays: a directory in a BPF file system.
    pub pin_dir: PathBuf,
    /// Where is kept what a restart must not forget.
    pub state_dir: StateDir,
    /// Who the agent is after its start.
    pub user: User,
    /// Path of the control socket; absolute.
    pub control: PathBuf,
    /// What one source, and all together, may take.
    pub limits: Limits,
    /// The sources that are let through or turned away.
    pub lists: Arc<Lists>,
    /// The domains without mail that this host is MX for. None: it is no MX.
    pub relay: Option<Arc<Relay>>,
    /// How the log is written, and what of.
    pub log: Log,
    /// Where figures are shown.
    pub metrics: Metrics,
    /// Whose decisions are denied, too. None: nobody's.
    pub crowdsec: Option<Crowdsec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            files: Vec::new(),
            interfaces: vec![DEFAULT_ROUTE.to_owned()],
            listen: Vec::new(),
            hostname: None,
            aliases: Vec::new(),
            responder: Responder::default(),
            fallback: Fallback::default(),
            refuse_at: RefuseAt::default(),
            after_greeting: AfterGreeting::default(),
            monitors: Vec::new(),
            xdp_mode: XdpMode::default(),
            observe: false,
            on_exit: OnExit::default(),
            pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
            state_dir: StateDir::default(),
            user: User::default(),
            control: PathBuf::from(DEFAULT_CONTROL),
            limits: Limits::default(),
            lists: Arc::default(),
            relay: None,
            log: Log::default(),
            metrics: Metrics::default(),
            crowdsec: None,
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
    /// SYNs per second of one prefix (IPv4 /24, IPv6 /48). 0: no limit.
    pub prefix_rate: u32,
    /// SYNs that one prefix may send at once; not 0 where there is a rate.
    pub prefix_burst: u32,
    /// SYNs per second of all that have not proven their address, before they
    /// are asked to, four seconds' worth of them at once. 0: what the listener's
    /// queue can absorb.
    pub unproven_rate: u32,
    /// What becomes of SYNs in a flood.
    pub flood_answer: FloodAnswer,
    /// Connections at once.
    pub connections: u32,
    /// Connections at once of one source.
    pub connections_per_source: u32,
    /// Seconds that a session may wait for the next command.
    pub idle_timeout_secs: u64,
    /// Seconds that a session may last.
    pub session_timeout_secs: u64,
    /// Seconds that [`RefuseAt::Auto`] remembers a source's network.
    pub sender_age_secs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            syn_rate: 10,
            syn_burst: 20,
            prefix_rate: 0,
            prefix_burst: 0,
            unproven_rate: 0,
            flood_answer: FloodAnswer::default(),
            connections: 10_000,
            connections_per_source: 100,
            idle_timeout_secs: 300,
            session_timeout_secs: 1800,
            sender_age_secs: 518_400,
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// Seconds between two reports of the busiest sources.
    pub interval_secs: u64,
    /// Most sources that a report names, each on a line.
    pub sources_max: usize,
    /// Health checkers, which no report names: networks without host bits.
    pub ignore: Vec<IpNet>,
    /// Whether addresses of envelopes are logged.
    pub envelope: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            interval_secs: 60,
            sources_max: 20,
            ignore: Vec::new(),
            envelope: false,
        }
    }
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where the figures are served by HTTP. None: nowhere.
    pub listen: Option<SocketAddr>,
}

impl Default for Metrics {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
        Self {
            listen: Some(listen),
        }
    }
}

/// Who speaks the refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Responder {
    /// Sockets that listen.
    #[default]
    Listener,
    /// XDP, without a socket; in the greeting only.
    Xdp,
}

impl Responder {
    const CHOICES: &[(&str, Self)] = &[("listener", Self::Listener), ("xdp", Self::Xdp)];
}

/// Who speaks the refusal while the listener does not take connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Nobody.
    #[default]
    None,
    /// XDP, as with [`Responder::Xdp`].
    Xdp,
}

impl Fallback {
    const CHOICES: &[(&str, Self)] = &[("none", Self::None), ("xdp", Self::Xdp)];
}

/// Where the refusal is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefuseAt {
    /// In the greeting (RFC 1846 section 4).
    Greeting,
    /// At EHLO and HELO.
    Ehlo,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// In the greeting when a source comes first, at RCPT when it comes back.
    #[default]
    Auto,
}

impl RefuseAt {
    const CHOICES: &[(&str, Self)] = &[
        ("greeting", Self::Greeting),
        ("ehlo", Self::Ehlo),
        ("mail", Self::Mail),
        ("rcpt", Self::Rcpt),
        ("auto", Self::Auto),
    ];
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

/// What becomes of the guard when the agent ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// It is gone.
    #[default]
    Detach,
    /// It stays, and the next agent takes it over.
    Keep,
}

impl OnExit {
    const CHOICES: &[(&str, Self)] = &[("detach", Self::Detach), ("keep", Self::Keep)];
}

/// Names of [`FloodAnswer`].
const FLOOD_ANSWERS: &[(&str, FloodAnswer)] = &[
    ("challenge", FloodAnswer::Challenge),
    ("cookie", FloodAnswer::Cookie),
    ("drop", FloodAnswer::Drop),
];

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl LogFormat {
    const CHOICES: &[(&str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Config {
    /// The list files that it names, and what became of each.
    pub fn list_files(&self) -> impl Iterator<Item = &ListFile> {
        let relay = self.relay.iter().flat_map(|relay| &relay.files);
        self.lists.files.iter().chain(relay)
    }

    /// The same configuration, with its list files as they are now.
    #[must_use]
    pub fn with_lists_read_again(&self) -> Self {
        let file = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let relay = self.relay.as_ref();
        Self {
            lists: Arc::new(self.lists.read_again(file)),
            relay: relay.map(|relay| Arc::new(relay.read_again(file))),
            ..self.clone()
        }
    }

    /// The list files that cannot be read, and could be in `before`.
    pub fn lost_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ListFile> {
        let was_unread = |path: &Path| {
            let mut files = before.list_files();
            files.any(|file| file.unread.is_some() && file.path == path)
        };
        self.list_files()
            .filter(move |file| file.unread.is_some() && !was_unread(&file.path))
    }

    /// The keys that differ in `new` and that a reload cannot change: their
    /// resources are made at the start, with privileges that are gone.
    pub fn changes_that_need_restart(&self, new: &Self) -> Vec<&'static str> {
        [
            ("interfaces", self.interfaces != new.interfaces),
            ("listen", self.listen != new.listen),
            ("responder", self.responder != new.responder),
            ("fallback", self.fallback != new.fallback),
            ("xdp_mode", self.xdp_mode != new.xdp_mode),
            ("on_exit", self.on_exit != new.on_exit),
            ("pin_dir", self.pin_dir != new.pin_dir),
            ("state_dir", self.state_dir.path != new.state_dir.path),
            ("control", self.control != new.control),
            ("user", self.user.value != new.user.value),
            ("log.format", self.log.format != new.log.format),
            ("metrics.listen", self.metrics != new.metrics),
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
            responder: old.responder,
            fallback: old.fallback,
            xdp_mode: old.xdp_mode,
            on_exit: old.on_exit,
            pin_dir: old.pin_dir.clone(),
            state_dir: old.state_dir.clone(),
            control: old.control.clone(),
            user: old.user.clone(),
            metrics: old.metrics,
            log: Log {
                format: old.log.format,
                ..self.log
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

    /// Those that a reload goes by: where a file was read, there has to be one. The
    /// defaults must not take its place because somebody is just replacing it.
    #[must_use]
    pub fn after(&self, config: &Config) -> Self {
        let mut overrides = self.clone();
        if !config.files.is_empty() {
            overrides.file.clone_from(&config.file);
        }
        overrides
    }

    /// Gives `key`, as the file calls it (`limits.syn_rate`), these values. They
    /// are checked by [`load`].
    pub fn set(&mut self, key: &'static str, by: GivenBy, values: Vec<String>) {
        self.given.insert(key, Given { by, values });
    }
}

/// Reads the file and its drop-ins, and checks everything.
///
/// # Errors
/// All that is wrong. A caller that has a configuration keeps it.
pub fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
    let (path, required) = file_of(overrides);
    load_from(path, required, overrides)
}

/// As [`load`], for an agent that has `current` in effect. What a start would go without
/// is no reason to give up what is in force: a list file that cannot be read is an error
/// here, unless it could not be read before either.
///
/// # Errors
/// All that is wrong.
pub fn reload(overrides: &Overrides, current: &Config) -> Result<Config, ConfigError> {
    let new = load(&overrides.after(current))?;
    let problems: Vec<_> = new
        .lost_since(current)
        .filter_map(|file| {
            Some(Problem {
                origin: Origin::whole_file(&file.path),
                text: file.unread.clone()?,
            })
        })
        .collect();
    match problems.is_empty() {
        true => Ok(new),
        false => Err(ConfigError::new(problems)),
    }
}

/// The configuration in effect as TOML, each value with where it is from.
///
/// # Errors
/// Those of [`load`].
pub fn show(overrides: &Overrides) -> Result<String, ConfigError> {
    let (path, required) = file_of(overrides);
    let (config, chosen) = load_with_origins(path, required, overrides)?;
    Ok(effective::shown(&config, &chosen))
}

/// The file to read, and whether it has to be there.
fn file_of(overrides: &Overrides) -> (&Path, bool) {
    match &overrides.file {
        Some(named) => (named, true),
        None => (Path::new(DEFAULT_FILE), false),
    }
}

/// Where `status` and `top` ask: the socket that they were told, else that of the
/// file, whatever else the file says.
pub fn control_path(told: Option<PathBuf>, file: Option<&Path>) -> PathBuf {
    told.unwrap_or_else(|| control_of(file.unwrap_or(Path::new(DEFAULT_FILE))))
}

/// Where an agent pins what outlives it: as the file says, whatever else it
/// says.
///
/// # Errors
/// The file was named and cannot be read, or what it says of this is wrong.
pub fn pin_dir(file: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let files = Files::read(path, file.is_some());
    let mut layers = Layers::new(files.layers);
    layers.problems = files.problems;
    let found = layers.value("pin_dir", values::pin_dir);
    if layers.problems.is_empty() {
        Ok(found.unwrap_or_else(|| PathBuf::from(DEFAULT_PIN_DIR)))
    } else {
        Err(ConfigError::new(layers.problems))
    }
}

fn control_of(file: &Path) -> PathBuf {
    Layers::new(Files::read(file, false).layers)
        .value("control", values::socket_path)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_CONTROL))
}

fn load_from(path: &Path, required: bool, overrides: &Overrides) -> Result<Config, ConfigError> {
    load_with_origins(path, required, overrides).map(|(config, _)| config)
}

fn load_with_origins(
    path: &Path,
    required: bool,
    overrides: &Overrides,
) -> Result<(Config, Chosen), ConfigError> {
    let mut files = Files::read(path, required);
    files.layers.push(layer::layer_of(overrides));
    let mut layers = Layers::new(files.layers);
    layers.problems = files.problems;
    let mut config = read(&mut layers);
    layers.refuse_unknown();
    if !layers.problems.is_empty() {
        return Err(ConfigError::new(layers.problems));
    }
    config.file = Some(path.to_owned());
    config.files = files.paths;
    Ok((config, layers.chosen))
}

/// Every key there is. What is wrong goes to `layers.problems`.
fn read(layers: &mut Layers) -> Config {
    let default = Config::default();
    let relayed = layers.section("relay").is_some();
    let (mut responder_at, mut fallback_at) = (None, None);
    let config = Config {
        file: None,
        files: Vec::new(),
        interfaces: layers
            .list("interfaces", "\"eth0\"", values::interface)
            .unwrap_or(default.interfaces),
        listen: layers
            .list("listen", "\"192.0.2.7:25\"", values::listen_address)
            .unwrap_or(default.listen),
        hostname: layers.value("hostname", |value| value.text()?.parse()),
        aliases: layers
            .list_or_empty("aliases", "\"www.example.org\"", values::alias)
            .unwrap_or(default.aliases),
        responder: layers
            .value_with_origin("responder", choice(Responder::CHOICES))
            .map_or(default.responder, |(chosen, origin)| {
                responder_at = Some(origin);
                chosen
            }),
        fallback: layers
            .value_with_origin("fallback", choice(Fallback::CHOICES))
            .map_or(default.fallback, |(chosen, origin)| {
                fallback_at = Some(origin);
                chosen
            }),
        refuse_at: read_refuse_at(layers, relayed),
        after_greeting: read_after_greeting(layers, relayed),
        monitors: layers
            .list_or_empty("monitors", "\"192.0.2.7\"", values::ignored)
            .unwrap_or(default.monitors),
        xdp_mode: layers
            .value("xdp_mode", choice(XdpMode::CHOICES))
            .unwrap_or(default.xdp_mode),
        observe: layers.value("observe", boolean).unwrap_or(default.observe),
        on_exit: layers
            .value("on_exit", choice(OnExit::CHOICES))
            .unwrap_or(default.on_exit),
        pin_dir: layers
            .value("pin_dir", values::pin_dir)
            .unwrap_or(default.pin_dir),
        state_dir: layers
            .value("state_dir", values::state_dir)
            .unwrap_or(default.state_dir),
        user: layers.value("user", values::user).unwrap_or(default.user),
        control: layers
            .value("control", values::socket_path)
            .unwrap_or(default.control),
        limits: read_limits(layers, default.limits),
        lists: lists::read(layers),
        relay: relay::read(layers),
        log: read_log(layers, default.log),
        metrics: Metrics {
            listen: layers
                .value("metrics.listen", values::metrics_address)
                .unwrap_or(default.metrics.listen),
        },
        crowdsec: crowdsec::read(layers),
    };
    let responder = responder_at.filter(|_| config.responder == Responder::Xdp);
    let fallback = fallback_at.filter(|_| config.fallback == Fallback::Xdp);
    for (key, instead, origin) in [
        ("responder", "listener", responder),
        ("fallback", "none", fallback),
    ] {
        if let Some(origin) = origin
            && let Some(what) = wrong_beside_xdp(&config, relayed, key)
        {
            let error = Wrong(format!(
                "\"xdp\" does not go with {what}; leave that out, or use \"{instead}\""
            ));
            let problem = Problem::with_value(&origin, key, &error);
            layers.problems.push(problem);
        }
    }
    config
}

/// What is in effect, and can only be done by a listener.
fn wrong_beside_xdp(config: &Config, relayed: bool, key: &str) -> Option<&'static str> {
    Some(if key == "fallback" && config.responder == Responder::Xdp {
        "responder = \"xdp\", which needs nobody in its place"
    } else if relayed {
        "[relay], which refuses at RCPT"
    } else if !matches!(config.refuse_at, RefuseAt::Auto | RefuseAt::Greeting) {
        "a refuse_at other than \"greeting\" (or \"auto\", which then means the same)"
    } else if key == "responder" && !config.monitors.is_empty() {
        "monitors, which are refused at RCPT"
    } else if config.xdp_mode == XdpMode::Off {
        "xdp_mode = \"off\""
    } else if config.limits.flood_answer != FloodAnswer::Challenge {
        "a limits.flood_answer other than \"challenge\""
    } else {
        return None;
    })
}

/// What a drop-in overrides may not go with the [relay] of another: only the
/// value in effect counts.
fn read_refuse_at(layers: &mut Layers, relayed: bool) -> RefuseAt {
    let written = layers.value_with_origin("refuse_at", |value| {
        let chosen = choice(RefuseAt::CHOICES)(value)?;
        Ok((chosen, error::quoted(value.text()?)))
    });
    match written {
        Some(((chosen, shown), origin)) if relayed && chosen != RefuseAt::Rcpt => {
            let error = Wrong(format!(
                "{shown} does not go with [relay], which refuses at RCPT and never greets with \
                 521; use \"rcpt\", or leave it out"
            ));
            let problem = Problem::with_value(&origin, "refuse_at", &error);
            layers.problems.push(problem);
            RefuseAt::Rcpt
        }
        Some(((chosen, _), _)) => chosen,
        None if relayed => RefuseAt::Rcpt,
        None => RefuseAt::default(),
    }
}

/// As [`read_refuse_at`].
fn read_after_greeting(layers: &mut Layers, relayed: bool) -> AfterGreeting {
    let written = layers.value_with_origin("after_greeting", choice(AfterGreeting::CHOICES));
    match written {
        Some((AfterGreeting::Close, origin)) if relayed => {
            let error = Wrong(
                "\"close\" does not go with [relay], which never greets with 521; use \"hold\", \
                 or leave it out"
                    .to_owned(),
            );
            let problem = Problem::with_value(&origin, "after_greeting", &error);
            layers.problems.push(problem);
            AfterGreeting::Hold
        }
        Some((chosen, _)) => chosen,
        None => AfterGreeting::default(),
    }
}

fn read_limits(layers: &mut Layers, default: Limits) -> Limits {
    let syn_rate = layers
        .value(
            "limits.syn_rate",
            number(
                1..=RATE_MAX,
                "give the SYNs per second that one source may send",
            ),
        )
        .unwrap_or(default.syn_rate);
    let syn_burst = layers
        .value(
            "limits.syn_burst",
            number(1..=10_000, "give the SYNs that one source may send at once"),
        )
        .unwrap_or(default.syn_burst);
    let (prefix_rate, prefix_burst) = read_prefix(layers, default);
    Limits {
        syn_rate,
        syn_burst,
        prefix_rate,
        prefix_burst,
        unproven_rate: layers
            .value(
                "limits.unproven_rate",
                number(
                    0..=UNPROVEN_RATE_MAX,
                    "give the SYNs per second that may pass without a proof of their address, or \
                     0 for what the listener's queue can absorb",
                ),
            )
            .unwrap_or(default.unproven_rate),
        flood_answer: layers
            .value("limits.flood_answer", choice(FLOOD_ANSWERS))
            .unwrap_or(default.flood_answer),
        connections: layers
            .value(
                "limits.connections",
                number(
                    1..=CONNECTIONS_MAX,
                    "give the connections that may be open at once",
                ),
            )
            .unwrap_or(default.connections),
        connections_per_source: layers
            .value(
                "limits.connections_per_source",
                number(
                    1..=CONNECTIONS_MAX,
                    "give the connections that one source may have open at once",
                ),
            )
            .unwrap_or(default.connections_per_source),
        idle_timeout_secs: layers
            .value(
                "limits.idle_timeout_secs",
                number(1..=86_400, "give the seconds to wait for the next command"),
            )
            .unwrap_or(default.idle_timeout_secs),
        session_timeout_secs: layers
            .value(
                "limits.session_timeout_secs",
                number(
                    1..=u64::from(YEAR_SECS),
                    "give the seconds that a session may last",
                ),
            )
            .unwrap_or(default.session_timeout_secs),
        sender_age_secs: layers
            .value(
                "limits.sender_age_secs",
                number(
                    3600..=YEAR_SECS,
                    "give the seconds that a source's network is remembered",
                ),
            )
            .unwrap_or(default.sender_age_secs),
    }
}

/// The rate and the burst of a prefix.
fn read_prefix(layers: &mut Layers, default: Limits) -> (u32, u32) {
    // Also one that is wrong, which is told once.
    let has_rate = layers.has("limits.prefix_rate");
    let rate = layers
        .value(
            "limits.prefix_rate",
            number(
                0..=RATE_MAX,
                "give the SYNs per second that one prefix may send, or 0 for no limit",
            ),
        )
        .unwrap_or(default.prefix_rate);
    let burst = layers.value("limits.prefix_burst", |value| {
        let burst = number(
            1..=PREFIX_BURST_MAX,
            "give the SYNs that one prefix may send at once",
        )(value)?;
        if !has_rate {
            return Err(Wrong(
                "is of no effect without prefix_rate: give that too, or leave this out".to_owned(),
            ));
        }
        Ok(burst)
    });
    (rate, burst.unwrap_or(2 * rate))
}

fn read_log(layers: &mut Layers, default: Log) -> Log {
    Log {
        format: layers
            .value("log.format", choice(LogFormat::CHOICES))
            .unwrap_or(default.format),
        interval_secs: layers
            .value(
                "log.interval_secs",
                number(1..=86_400, "give the seconds between two reports"),
            )
            .unwrap_or(default.interval_secs),
        sources_max: layers
            .value(
                "log.sources_max",
                number(0..=1000, "give the sources that a report names"),
            )
            .unwrap_or(default.sources_max),
        ignore: layers
            .list_or_empty("log.ignore", "\"192.0.2.7\"", values::ignored)
            .unwrap_or(default.ignore),
        envelope: layers
            .value("log.envelope", boolean)
            .unwrap_or(default.envelope),
    }
}
