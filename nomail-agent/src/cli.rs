//! The command line and the variables of the environment.
//!
//! The options of `run` are those of the table of keys, and are only collected here:
//! [`config::load`] checks their values as it checks those of the file.

#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    sync::LazyLock,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, error::ErrorKind, parser::ValueSource, value_parser};
use nomail_common::abi::ABI_VERSION;

use crate::{
    config::{self, FileKey, GivenBy, Overrides, Setting, Takes},
    text,
};

/// Exit code for a wrong command line, EX_USAGE of sysexits.h.
const EX_USAGE: u8 = 64;
/// Sources that `status` shows by default.
const SOURCES_DEFAULT: &str = "20";
/// Most sources that `status` shows.
const SOURCES_MAX: i64 = 65_536;
/// Sources in a frame of `top --batch` by default, and at most.
const TOP_SOURCES_DEFAULT: usize = 20;
const TOP_SOURCES_MAX: i64 = 1000;
/// Seconds between two samples of `top`.
const INTERVAL_SECS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (ABI {ABI_VERSION})", env!("CARGO_PKG_VERSION")));

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commands {
    /// Guard and refuse, until a signal ends it.
    Run(RunArgs),
    /// Show what a running agent does.
    Status(StatusArgs),
    /// Show what a running agent does, live.
    Top(TopArgs),
    /// Validate a configuration.
    CheckConfig(CheckConfigArgs),
    /// Check everything nomail depends on.
    Doctor(DoctorArgs),
    /// Remove what an agent has left pinned.
    Detach(DetachArgs),
    /// Pull CrowdSec's decisions for the agent.
    Crowdsec(CrowdsecArgs),
}

/// `nomail-agent run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// Options and environment.
    pub overrides: Overrides,
    /// Number of `-v`.
    pub verbose: u8,
}

/// `nomail-agent status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusArgs {
    /// As JSON instead of text.
    pub json: bool,
    /// Most sources to show.
    pub sources: usize,
    /// The socket to ask. None: see [`crate::config::control_path`].
    pub control: Option<PathBuf>,
    /// The file that names the socket and the directory of the pins.
    pub config: Option<PathBuf>,
}

/// `nomail-agent top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopArgs {
    /// Between two samples.
    pub interval: Duration,
    /// Frames of plain text instead of a live view.
    pub batch: bool,
    /// Frames to print. None: no end.
    pub frames: Option<u64>,
    /// Most sources in a frame of text.
    pub sources: usize,
    /// As in [`StatusArgs`].
    pub control: Option<PathBuf>,
    /// As in [`StatusArgs`].
    pub config: Option<PathBuf>,
}

/// `nomail-agent check-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckConfigArgs {
    /// The file, and options; the environment only with [`Self::show`], so that a check has the
    /// same result in every shell.
    pub overrides: Overrides,
    /// Print the values in effect.
    pub show: bool,
}

/// `nomail-agent doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoctorArgs {
    /// The interfaces to check. None: those that the agent guards.
    pub interfaces: Vec<String>,
    /// Domains without mail, not checked yet.
    pub domains: Vec<String>,
    /// The file of the agent.
    pub config: Option<PathBuf>,
    /// The socket to ask. None: as the file says.
    pub control: Option<PathBuf>,
    /// As JSON instead of text.
    pub json: bool,
    /// Print only what is not ok.
    pub quiet: bool,
}

/// `nomail-agent detach`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetachArgs {
    /// The interface to detach from. None: all of them.
    pub interface: Option<String>,
    /// The file that names the directory of the pins.
    pub config: Option<PathBuf>,
}

/// `nomail-agent crowdsec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrowdsecArgs {
    /// The file of the agent.
    pub config: Option<PathBuf>,
    /// Number of `-v`.
    pub verbose: u8,
}

const RUN_NOTES: &str = "\
A value comes from the first of these that sets it: flag, environment, drop-in, file, default. An \
empty variable counts as not set. Drop-ins are the files *.toml in a directory beside the file, \
nomail.toml.d beside nomail.toml; of two that set a key, the later by name counts. SIGHUP reads all \
files again; if they are wrong, everything stays as it was.

Exit codes: 0 done, 1 failed at run time, 64 wrong usage, 69 the interface or the kernel cannot \
do it, 77 no permission, 78 bad configuration.";

const KEPT_NOTES: &str = "\
When no agent answers and on_exit = \"keep\" has left its guard attached, root sees the counters of \
that; pin_dir of the configuration file says where it is.";

/// The whole command line, also for manual pages and completions.
pub fn command() -> clap::Command {
    clap::Command::new("nomail-agent")
        .version(VERSION.as_str())
        .about(
            "Says \"no mail here\": an XDP guard and a 521 responder for hosts that take no mail",
        )
        .after_help(RUN_NOTES)
        .args(run_args())
        .args_conflicts_with_subcommands(true)
        .subcommand(
            clap::Command::new("run")
                .about("Guard and refuse; the default command")
                .after_help(RUN_NOTES)
                .args(run_args()),
        )
        .subcommand(
            clap::Command::new("status")
                .about("Show what a running agent does")
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("As JSON instead of text"),
                )
                .arg(
                    Arg::new("sources")
                        .long("sources")
                        .value_name("N")
                        .value_parser(value_parser!(u32).range(0..=SOURCES_MAX))
                        .default_value(SOURCES_DEFAULT)
                        .help("Most sources to show, the busiest first, 0 to 65536"),
                )
                .args([control_arg(), config_arg()])
                .after_help(KEPT_NOTES),
        )
        .subcommand(
            clap::Command::new("top")
                .about("Show what a running agent does, live: rates, state, busiest sources")
                .arg(
                    Arg::new("interval")
                        .long("interval")
                        .value_name("SECS")
                        .value_parser(interval)
                        .default_value("1")
                        .help("Seconds between two samples, 0.1 to 3600"),
                )
                .arg(
                    Arg::new("batch")
                        .short('b')
                        .long("batch")
                        .action(ArgAction::SetTrue)
                        .help(
                            "Print frames of plain text, the first after one interval, whose rates \
                             it shows",
                        ),
                )
                .arg(
                    Arg::new("frames")
                        .short('n')
                        .value_name("N")
                        .value_parser(value_parser!(u64).range(1..))
                        .requires("batch")
                        .help("Frames to print with --batch [default: no end]"),
                )
                .arg(
                    Arg::new("sources")
                        .long("sources")
                        .value_name("N")
                        .value_parser(value_parser!(u32).range(0..=TOP_SOURCES_MAX))
                        .requires("batch")
                        .help("Most sources in a frame of --batch, 0 to 1000 [default: 20]"),
                )
                .args([control_arg(), config_arg()])
                .after_help(KEPT_NOTES),
        )
        .subcommand(
            clap::Command::new("check-config")
                .about("Validate the configuration and list every error")
                .after_help(
                    "The options of run are checked, too; the environment only with --show.\n\n\
                     Exit codes: 0 valid; 78 not valid.",
                )
                .arg(
                    Arg::new("show")
                        .long("show")
                        .action(ArgAction::SetTrue)
                        .help(
                            "Print the values in effect, and the origin of each, as a file with \
                             the same effect",
                        ),
                )
                .arg(config_arg())
                .args(key_args()),
        )
        .subcommand(doctor_command())
        .subcommand(
            clap::Command::new("detach")
                .about(
                    "Remove the guard that an agent with on_exit = \"keep\" has left: XDP \
                     programs, counters and pins",
                )
                .after_help(
                    "Running agents and other XDP programs stay untouched.\n\n\
                     Exit codes: 0 done, or nothing was there; 1 an agent runs; 69 no such \
                     interface; 77 not root; 78 bad configuration.",
                )
                .arg(
                    Arg::new("iface")
                        .long("iface")
                        .value_name("NAME")
                        .conflicts_with("all")
                        .help("Detach only from this interface"),
                )
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .help("Detach from all interfaces, every version [default]"),
                )
                .arg(config_arg()),
        )
        .subcommand(
            clap::Command::new("crowdsec")
                .about("Pull the decisions of CrowdSec's local API, for the agent to deny")
                .after_help(
                    "A process of its own beside the agent, as the unit nomail-crowdsec.service. \
                     It reads [crowdsec] of the agent's configuration, writes what is banned into \
                     crowdsec.run_dir, and ends at once where there is no such table. The agent \
                     follows that within seconds. When the process ends, the bans do. SIGHUP reads \
                     the configuration again.\n\n\
                     Exit codes: 0 done; 1 failed at run time; 77 no permission; 78 bad \
                     configuration, or no key.",
                )
                .args([config_arg(), verbose_arg()]),
        )
}

fn control_arg() -> Arg {
    Arg::new("control")
        .long("control")
        .value_name("PATH")
        .value_parser(value_parser!(OsString))
        .env("NOMAIL_CONTROL")
        .hide_env_values(true)
        .help(
            "The agent's control socket [default: that of the configuration file, else \
             /run/nomail/control.sock]",
        )
}

fn interval(text: &str) -> Result<Duration, String> {
    let secs = text
        .parse()
        .ok()
        .filter(|secs| INTERVAL_SECS.contains(secs));
    let secs = secs.ok_or("not a number of seconds from 0.1 to 3600")?;
    Ok(Duration::from_secs_f64(secs))
}

fn doctor_command() -> clap::Command {
    clap::Command::new("doctor")
        .about("Check everything nomail depends on, and print the fix for whatever is wrong")
        .after_help(
            "Works before an agent runs and while it does, and changes no setting. Without root it \
             names what it could not check. /usr/share/doc/nomail-agent/doctor.md explains each \
             check, and lists what is sent.\n\n\
             Exit codes: 0 nothing failed; 1 something failed; 64 wrong usage; 78 a domain that is \
             none.",
        )
        .arg(
            Arg::new("iface")
                .long("iface")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help(
                    "Interface to check; repeat it, or separate names by commas [default: those of \
                     the running agent, else of the configuration]",
                ),
        )
        .arg(
            Arg::new("domain")
                .long("domain")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help(
                    "A domain without mail: check its MX, null MX and SPF records; repeat it, or \
                     separate names by commas",
                ),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("As JSON instead of text"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .action(ArgAction::SetTrue)
                .help("Print only what is not ok"),
        )
        .arg(control_arg())
        .arg(config_arg())
}

fn config_arg() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(OsString))
        .env("NOMAIL_CONFIG")
        .hide_env_values(true)
        .help("Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]")
}

fn key_args() -> impl Iterator<Item = Arg> {
    let keys = config::tables().into_iter().flat_map(|table| table.keys);
    keys.filter_map(|key| {
        let flag = key.flag?;
        let arg = Arg::new(key.name)
            .long(flag.option.trim_start_matches('-'))
            .env(flag.variable)
            .hide_env_values(true)
            .value_name(flag.value)
            .help(help_of(&key));
        Some(match key.takes {
            Takes::One | Takes::Path => arg,
            Takes::Many => arg.action(ArgAction::Append).value_delimiter(','),
            Takes::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        })
    })
}

/// The first paragraph of a key's description, and its default.
fn help_of(key: &FileKey) -> String {
    let summary = key.summary();
    let summary = summary.trim_end_matches('.');
    let repeat = match key.takes {
        Takes::Many => "; repeat it, or separate values by commas",
        Takes::One | Takes::Path | Takes::Switch => "",
    };
    let default = match &key.default {
        Setting::To(value) => shown(value),
        Setting::Unset(means) => (*means).to_owned(),
    };
    format!("{summary}{repeat} [default: {default}]")
}

/// A value as the command line takes it.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

fn run_args() -> impl Iterator<Item = Arg> {
    std::iter::once(config_arg())
        .chain(key_args())
        .chain([verbose_arg()])
}

fn verbose_arg() -> Arg {
    Arg::new("verbose")
        .short('v')
        .long("verbose")
        .action(ArgAction::Count)
        .value_parser(|text: &str| match text {
            "" => Ok(0),
            _ => text.parse::<u8>(),
        })
        .env("NOMAIL_VERBOSE")
        .hide_env_values(true)
        .help("Log more: -v for debugging, -vv for everything")
}

/// Parses a command line, whose first word is the program's name, and the environment.
///
/// # Errors
/// A wrong command line, or a request for help or version; see [`report`].
pub fn parse(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Commands, clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    Ok(match matches.subcommand() {
        Some(("status", matches)) => Commands::Status(StatusArgs {
            json: matches.get_flag("json"),
            sources: matches
                .get_one::<u32>("sources")
                .map_or(0, |&sources| sources as usize),
            control: path(matches, "control"),
            config: path(matches, "config"),
        }),
        Some(("top", matches)) => Commands::Top(TopArgs {
            // It has a default.
            interval: matches
                .get_one("interval")
                .copied()
                .unwrap_or(Duration::from_secs(1)),
            batch: matches.get_flag("batch"),
            frames: matches.get_one("frames").copied(),
            sources: matches
                .get_one::<u32>("sources")
                .map_or(TOP_SOURCES_DEFAULT, |&sources| sources as usize),
            control: path(matches, "control"),
            config: path(matches, "config"),
        }),
        Some(("check-config", matches)) => {
            let show = matches.get_flag("show");
            Commands::CheckConfig(CheckConfigArgs {
                overrides: overrides(matches, path(matches, "config"), show),
                show,
            })
        }
        Some(("doctor", matches)) => Commands::Doctor(DoctorArgs {
            interfaces: values(matches, "iface"),
            domains: values(matches, "domain"),
            config: path(matches, "config"),
            control: path(matches, "control"),
            json: matches.get_flag("json"),
            quiet: matches.get_flag("quiet"),
        }),
        Some(("detach", matches)) => Commands::Detach(DetachArgs {
            interface: matches.get_one("iface").cloned(),
            config: path(matches, "config"),
        }),
        Some(("crowdsec", matches)) => Commands::Crowdsec(CrowdsecArgs {
            config: path(matches, "config").map(absolute),
            verbose: matches.get_count("verbose"),
        }),
        Some((_, matches)) => Commands::Run(run(matches)),
        None => Commands::Run(run(&matches)),
    })
}

fn run(matches: &ArgMatches) -> RunArgs {
    RunArgs {
        overrides: overrides(matches, path(matches, "config").map(absolute), true),
        verbose: matches.get_count("verbose"),
    }
}

/// Made absolute at the start: after the privileges are dropped, the working directory may be out
/// of reach.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// What the command line says, and with `environment` what that says.
fn overrides(matches: &ArgMatches, file: Option<PathBuf>, environment: bool) -> Overrides {
    let mut overrides = Overrides::of_file(file);
    for key in config::tables().into_iter().flat_map(|table| table.keys) {
        let Some(flag) = key.flag else {
            continue;
        };
        let mut values = values(matches, key.name);
        let by = match matches.value_source(key.name) {
            Some(ValueSource::CommandLine) => GivenBy::Flag(flag.option),
            Some(ValueSource::EnvVariable) if environment && values != [""] => {
                GivenBy::Environment(flag.variable)
            }
            _ => continue,
        };
        if key.takes == Takes::Path {
            for value in &mut values {
                *value = absolute(PathBuf::from(&*value))
                    .to_string_lossy()
                    .into_owned();
            }
        }
        overrides.set(key.name, by, values);
    }
    overrides
}

/// All words of an option.
fn values(matches: &ArgMatches, id: &str) -> Vec<String> {
    let values = matches.get_many(id);
    values.map_or_else(Vec::new, |values| values.cloned().collect())
}

/// The path in an option; an empty variable counts as not set.
fn path(matches: &ArgMatches, id: &str) -> Option<PathBuf> {
    let value = matches.get_one::<OsString>(id)?;
    let unset = value.is_empty() && matches.value_source(id) == Some(ValueSource::EnvVariable);
    (!unset).then(|| PathBuf::from(value))
}

/// Prints what [`parse`] returned instead of a command, and returns the code to
/// exit with.
pub fn report(error: &clap::Error) -> u8 {
    let code = exit_code(error);
    // An error of writing an error has no reader.
    let _ = match code {
        0 => error.print(),
        _ => io::stderr().write_all(escaped(&error.render().to_string()).as_bytes()),
    };
    code
}

/// 0 for help and version, else 64.
fn exit_code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => EX_USAGE,
    }
}

/// A usage error, which repeats words of the command line, with these escaped.
fn escaped(error: &str) -> String {
    let lines: Vec<_> = error.split('\n').map(text::escaped).collect();
    lines.join("\n")
}
