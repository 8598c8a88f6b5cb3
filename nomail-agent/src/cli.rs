//! The command line and the variables beside it.
//!
//! Values of `run` are only collected here: [`crate::config::load`] checks them
//! as it checks those of the file.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    sync::LazyLock,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, error::ErrorKind, parser::ValueSource, value_parser};
use nomail_common::abi::ABI_VERSION;

use crate::config::{GivenBy, Overrides};

/// Exit code of a wrong command line, EX_USAGE of sysexits.h.
const EX_USAGE: u8 = 64;
/// Sources that `status` shows unless told otherwise.
const SOURCES_DEFAULT: &str = "20";
/// Most sources that `status` can be told to show.
const SOURCES_MAX: i64 = 65_536;
/// Sources in a frame of `top --batch`, and the most there can be.
const TOP_SOURCES_DEFAULT: usize = 20;
const TOP_SOURCES_MAX: i64 = 1000;
/// Seconds between two samples of `top`.
const INTERVAL_SECS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (ABI {ABI_VERSION})", env!("CARGO_PKG_VERSION")));

/// What the agent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Guard and refuse, until a signal ends it.
    Run(Run),
    /// Tell what a running agent does.
    Status(Status),
    /// Show what a running agent does, again and again.
    Top(Top),
    /// Tell whether a configuration is right.
    CheckConfig(CheckConfig),
    /// Look at everything around.
    Doctor(Doctor),
    /// Remove what an agent has left pinned.
    Detach(Detach),
    /// Pull CrowdSec's decisions for the agent.
    Crowdsec(Crowdsec),
}

/// `nomail-agent run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Flags and environment.
    pub overrides: Overrides,
    /// How often `--verbose` was given.
    pub verbose: u8,
}

/// `nomail-agent status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
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
pub struct Top {
    /// Between two samples.
    pub interval: Duration,
    /// Frames of plain text instead of a live view.
    pub batch: bool,
    /// Frames to print. None: no end.
    pub frames: Option<u64>,
    /// Most sources in a frame of text.
    pub sources: usize,
    /// As in [`Status`].
    pub control: Option<PathBuf>,
    /// As in [`Status`].
    pub config: Option<PathBuf>,
}

/// `nomail-agent check-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckConfig {
    /// The file, and flags; the environment only with [`Self::show`], because what
    /// is checked is to be the same in every shell.
    pub overrides: Overrides,
    /// Whether to print what is in effect.
    pub show: bool,
}

/// `nomail-agent doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doctor {
    /// The interfaces to look at. None: those that the agent guards.
    pub interfaces: Vec<String>,
    /// Domains without mail, as somebody wrote them.
    pub domains: Vec<String>,
    /// The file of the agent.
    pub config: Option<PathBuf>,
    /// The socket to ask. None: as the file says.
    pub control: Option<PathBuf>,
    /// As JSON instead of text.
    pub json: bool,
    /// Only what is not as it should be.
    pub quiet: bool,
}

/// `nomail-agent detach`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detach {
    /// The interface to detach from. None: all.
    pub interface: Option<String>,
    /// The file that names the directory of the pins.
    pub config: Option<PathBuf>,
}

/// `nomail-agent crowdsec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crowdsec {
    /// The file of the agent.
    pub config: Option<PathBuf>,
    /// How often `--verbose` was given.
    pub verbose: u8,
}

/// An option of `run`, and the key of the file that it overrides.
struct Setting {
    key: &'static str,
    flag: &'static str,
    variable: &'static str,
    value: &'static str,
    takes: Takes,
    help: &'static str,
}

/// How many values an option takes.
enum Takes {
    One,
    /// One, which is a path.
    Path,
    Many,
    /// One or none, which means true.
    Switch,
}

const SETTINGS: &[Setting] = &[
    Setting {
        key: "interfaces",
        flag: "--iface",
        variable: "NOMAIL_IFACE",
        value: "NAME",
        takes: Takes::Many,
        help: "Interface to guard; repeat it, or separate names by commas \
               [default: default-route, the interface of the default route]",
    },
    Setting {
        key: "listen",
        flag: "--listen",
        variable: "NOMAIL_LISTEN",
        value: "ADDR:PORT",
        takes: Takes::Many,
        help: "Where to listen, and exactly what to guard: 192.0.2.7:25, [2001:db8::1]:25, \
               [fe80::1%eth0]:25, or a wildcard, 0.0.0.0:25 or [::]:25; repeat it, or separate \
               them by commas [default: port 25 of every address of the interfaces]",
    },
    Setting {
        key: "hostname",
        flag: "--hostname",
        variable: "NOMAIL_HOSTNAME",
        value: "NAME",
        takes: Takes::One,
        help: "First word of the 521 greeting: a domain name, or an address literal like \
               [192.0.2.7] or [IPv6:2001:db8::1] [default: the host's FQDN, else an address \
               literal]",
    },
    Setting {
        key: "responder",
        flag: "--responder",
        variable: "NOMAIL_RESPONDER",
        value: "WHO",
        takes: Takes::One,
        help: "Who speaks the refusal: listener (sockets), or xdp (no socket; in the greeting \
               only, not beside [relay]) [default: listener]",
    },
    Setting {
        key: "refuse_at",
        flag: "--refuse-at",
        variable: "NOMAIL_REFUSE_AT",
        value: "WHERE",
        takes: Takes::One,
        help: "Where the refusal is spoken: greeting, ehlo, mail, rcpt, or auto (greeting when a \
               source comes first, rcpt when it comes back); beside [relay] only rcpt \
               [default: auto, with [relay] rcpt]",
    },
    Setting {
        key: "after_greeting",
        flag: "--after-greeting",
        variable: "NOMAIL_AFTER_GREETING",
        value: "WHAT",
        takes: Takes::One,
        help: "After the greeting: hold (answer 521 to everything but QUIT) or close \
               [default: hold]",
    },
    Setting {
        key: "xdp_mode",
        flag: "--xdp-mode",
        variable: "NOMAIL_XDP_MODE",
        value: "MODE",
        takes: Takes::One,
        help: "How XDP attaches: auto (native, else generic with a warning), native, generic, \
               or off (responder alone) [default: auto]",
    },
    Setting {
        key: "limits.syn_rate",
        flag: "--syn-rate",
        variable: "NOMAIL_SYN_RATE",
        value: "N",
        takes: Takes::One,
        help: "SYNs per second that one source (IPv4 address or IPv6 /64) may send, 1 to 10000 \
               [default: 10]",
    },
    Setting {
        key: "limits.syn_burst",
        flag: "--syn-burst",
        variable: "NOMAIL_SYN_BURST",
        value: "N",
        takes: Takes::One,
        help: "SYNs that one source may send at once, 1 to 10000 [default: 20]",
    },
    Setting {
        key: "observe",
        flag: "--observe",
        variable: "NOMAIL_OBSERVE",
        value: "true|false",
        takes: Takes::Switch,
        help: "Count and report every verdict, but drop nothing [default: false]",
    },
    Setting {
        key: "control",
        flag: "--control",
        variable: "NOMAIL_CONTROL",
        value: "PATH",
        takes: Takes::Path,
        help: "Unix socket on which the agent tells its status \
               [default: /run/nomail/control.sock]",
    },
    Setting {
        key: "metrics.listen",
        flag: "--metrics",
        variable: "NOMAIL_METRICS",
        value: "ADDR:PORT|off",
        takes: Takes::One,
        help: "Where the agent shows its figures by HTTP: /metrics for Prometheus, /healthz, and a \
               page for people at /; or off [default: 127.0.0.1:9521]",
    },
    Setting {
        key: "log.format",
        flag: "--log-format",
        variable: "NOMAIL_LOG_FORMAT",
        value: "FORMAT",
        takes: Takes::One,
        help: "Form of the log on stderr: text, or json, one object a line [default: text]",
    },
];

const RUN_NOTES: &str = "\
A value comes from the first of these that has it: flag, environment, drop-in of the file, file, \
default. A variable that is empty counts as not set. Drop-ins are the files *.toml in a directory \
beside the file, nomail.toml.d beside nomail.toml; of two that have a key, the last by name counts. \
SIGHUP reads all files again; if they are wrong, everything stays as it was.

Exit codes: 0 done, 1 failed at run time, 64 wrong usage, 69 the interface or the kernel cannot \
do it, 77 no permission, 78 bad configuration.";

const KEPT_NOTES: &str = "\
When no agent answers and on_exit = \"keep\" has left its guard attached, root is told what that \
counts; pin_dir of the configuration file says where it is.";

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
                .about("Tell what a running agent does")
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
                        .help("Seconds between two looks, 0.1 to 3600"),
                )
                .arg(
                    Arg::new("batch")
                        .short('b')
                        .long("batch")
                        .action(ArgAction::SetTrue)
                        .help(
                            "Print frames of plain text, the first after one interval: its rates \
                             are of that",
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
                .about("Tell whether a configuration file is right, or all that is wrong with it")
                .after_help(
                    "The options of run are checked, too. With --show the environment counts as \
                     well, as it does for run.\n\n\
                     Exit codes: 0 it is right; 78 it is not.",
                )
                .arg(
                    Arg::new("show")
                        .long("show")
                        .action(ArgAction::SetTrue)
                        .help(
                            "Print the configuration in effect, as a file that says the same, \
                             each value with where it is from",
                        ),
                )
                .arg(config_arg())
                .args(setting_args()),
        )
        .subcommand(doctor_command())
        .subcommand(
            clap::Command::new("detach")
                .about(
                    "Remove what an agent with on_exit = \"keep\" has left: XDP programs, \
                     counters and pins",
                )
                .after_help(
                    "It touches nothing of a running agent, and nobody else's program.\n\n\
                     Exit codes: 0 done, or nothing was there; 1 an agent runs; 69 no such \
                     interface; 77 not root; 78 bad configuration.",
                )
                .arg(
                    Arg::new("iface")
                        .long("iface")
                        .value_name("NAME")
                        .conflicts_with("all")
                        .help("Only from this interface"),
                )
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .help("From all interfaces, and of all versions [default]"),
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
            "Before an agent runs or while it does. No setting is changed. Without root it tells \
             what it could not see. docs/doctor.md explains each check, and lists what is sent.\n\n\
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
                    "Interface to look at; repeat it, or separate names by commas [default: those \
                     of the running agent, else of the configuration]",
                ),
        )
        .arg(
            Arg::new("domain")
                .long("domain")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help(
                    "A domain without mail: look at its MX, null MX and SPF records; repeat it, or \
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

fn setting_args() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(|setting| {
        let arg = Arg::new(setting.key)
            .long(setting.flag.trim_start_matches('-'))
            .env(setting.variable)
            .hide_env_values(true)
            .value_name(setting.value)
            .help(setting.help);
        match setting.takes {
            Takes::One | Takes::Path => arg,
            Takes::Many => arg.action(ArgAction::Append).value_delimiter(','),
            Takes::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    })
}

fn run_args() -> impl Iterator<Item = Arg> {
    std::iter::once(config_arg())
        .chain(setting_args())
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

/// Reads a command line, whose first word is the program's name, and the
/// environment.
///
/// # Errors
/// A wrong command line, or a wish for help or version; see [`report`].
pub fn parse(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    Ok(match matches.subcommand() {
        Some(("status", matches)) => Command::Status(Status {
            json: matches.get_flag("json"),
            sources: matches
                .get_one::<u32>("sources")
                .map_or(0, |&sources| sources as usize),
            control: path(matches, "control"),
            config: path(matches, "config"),
        }),
        Some(("top", matches)) => Command::Top(Top {
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
            Command::CheckConfig(CheckConfig {
                overrides: overrides(matches, path(matches, "config"), show),
                show,
            })
        }
        Some(("doctor", matches)) => Command::Doctor(Doctor {
            interfaces: values(matches, "iface"),
            domains: values(matches, "domain"),
            config: path(matches, "config"),
            control: path(matches, "control"),
            json: matches.get_flag("json"),
            quiet: matches.get_flag("quiet"),
        }),
        Some(("detach", matches)) => Command::Detach(Detach {
            interface: matches.get_one("iface").cloned(),
            config: path(matches, "config"),
        }),
        Some(("crowdsec", matches)) => Command::Crowdsec(Crowdsec {
            config: path(matches, "config").map(absolute),
            verbose: matches.get_count("verbose"),
        }),
        Some((_, matches)) => Command::Run(run(matches)),
        None => Command::Run(run(&matches)),
    })
}

fn run(matches: &ArgMatches) -> Run {
    Run {
        overrides: overrides(matches, path(matches, "config").map(absolute), true),
        verbose: matches.get_count("verbose"),
    }
}

/// Made absolute now: once the privileges are dropped, nobody tells the directory
/// any more that a path is relative to.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// What the command line says, and the `environment` if that counts.
fn overrides(matches: &ArgMatches, file: Option<PathBuf>, environment: bool) -> Overrides {
    let mut overrides = Overrides::of_file(file);
    for setting in SETTINGS {
        let mut values: Vec<String> = matches
            .get_many(setting.key)
            .map(|values| values.cloned().collect())
            .unwrap_or_default();
        let by = match matches.value_source(setting.key) {
            Some(ValueSource::CommandLine) => GivenBy::Flag(setting.flag),
            Some(ValueSource::EnvVariable) if environment && values != [""] => {
                GivenBy::Environment(setting.variable)
            }
            _ => continue,
        };
        if matches!(setting.takes, Takes::Path) {
            for value in &mut values {
                *value = absolute(PathBuf::from(&*value))
                    .to_string_lossy()
                    .into_owned();
            }
        }
        overrides.set(setting.key, by, values);
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
    // There is nothing to do when even this cannot be written.
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

/// A usage error repeats the words of the command line: nothing in them may
/// reach the terminal as a command.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use rstest::rstest;

    use super::*;

    fn words(line: &str) -> Vec<&str> {
        std::iter::once("nomail-agent")
            .chain(line.split_whitespace())
            .collect()
    }

    fn overrides(file: Option<&str>, given: &[(&'static str, &'static str, &[&str])]) -> Overrides {
        let mut overrides = Overrides::of_file(file.map(PathBuf::from));
        for (key, flag, values) in given {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            overrides.set(key, GivenBy::Flag(flag), values);
        }
        overrides
    }

    #[test]
    fn definition_is_sound() {
        command().debug_assert();
    }

    #[rstest]
    #[case::nothing("", overrides(None, &[]), 0)]
    #[case::run("run", overrides(None, &[]), 0)]
    #[case::default_command(
        "--iface eth0 -v",
        overrides(None, &[("interfaces", "--iface", &["eth0"])]),
        1
    )]
    #[case::named_command(
        "run --iface eth0 --iface=eth1,eth2 -vv",
        overrides(None, &[("interfaces", "--iface", &["eth0", "eth1", "eth2"])]),
        2
    )]
    #[case::switch("--observe", overrides(None, &[("observe", "--observe", &["true"])]), 0)]
    #[case::switch_off(
        "--observe=false --config /a.toml",
        overrides(Some("/a.toml"), &[("observe", "--observe", &["false"])]),
        0
    )]
    #[case::everything(
        "--listen 192.0.2.7:25 --listen [::1]:25 --hostname a.example --refuse-at rcpt \
         --responder listener --after-greeting close --xdp-mode off --syn-rate 1 --syn-burst 2 --control /c \
         --metrics off --log-format json",
        overrides(
            None,
            &[
                ("listen", "--listen", &["192.0.2.7:25", "[::1]:25"]),
                ("hostname", "--hostname", &["a.example"]),
                ("refuse_at", "--refuse-at", &["rcpt"]),
                ("responder", "--responder", &["listener"]),
                ("after_greeting", "--after-greeting", &["close"]),
                ("xdp_mode", "--xdp-mode", &["off"]),
                ("limits.syn_rate", "--syn-rate", &["1"]),
                ("limits.syn_burst", "--syn-burst", &["2"]),
                ("control", "--control", &["/c"]),
                ("metrics.listen", "--metrics", &["off"]),
                ("log.format", "--log-format", &["json"]),
            ]
        ),
        0
    )]
    fn run_options(#[case] line: &str, #[case] overrides: Overrides, #[case] verbose: u8) {
        let command = parse(words(line)).unwrap();
        assert_eq!(command, Command::Run(Run { overrides, verbose }));
    }

    #[rstest]
    #[case("status", false, 20, None)]
    #[case("status --json --sources 0 --control /c", true, 0, Some("/c"))]
    fn status_options(
        #[case] line: &str,
        #[case] json: bool,
        #[case] sources: usize,
        #[case] control: Option<&str>,
    ) {
        let status = Status {
            json,
            sources,
            control: control.map(PathBuf::from),
            config: None,
        };
        assert_eq!(parse(words(line)).unwrap(), Command::Status(status));
    }

    #[rstest]
    #[case("top", 1000, false, None, 20)]
    #[case("top --interval 0.5", 500, false, None, 20)]
    #[case("top -b -n 1 --sources 3 --interval 3600", 3_600_000, true, Some(1), 3)]
    fn top_options(
        #[case] line: &str,
        #[case] interval_ms: u64,
        #[case] batch: bool,
        #[case] frames: Option<u64>,
        #[case] sources: usize,
    ) {
        let top = Top {
            interval: Duration::from_millis(interval_ms),
            batch,
            frames,
            sources,
            control: None,
            config: None,
        };
        assert_eq!(parse(words(line)).unwrap(), Command::Top(top));
    }

    #[rstest]
    #[case("check-config", None, &[], false)]
    #[case("check-config --config a.toml", Some("a.toml"), &[], false)]
    #[case("check-config --show", None, &[], true)]
    #[case(
        "check-config --observe --config a.toml --show",
        Some("a.toml"),
        &[("observe", "--observe", &["true"][..])],
        true
    )]
    fn check_config_options(
        #[case] line: &str,
        #[case] file: Option<&str>,
        #[case] given: &[(&'static str, &'static str, &[&str])],
        #[case] show: bool,
    ) {
        let given: Vec<_> = given
            .iter()
            .map(|(key, flag, values)| (*key, *flag, *values))
            .collect();
        let check = CheckConfig {
            overrides: overrides(file, &given),
            show,
        };
        assert_eq!(parse(words(line)).unwrap(), Command::CheckConfig(check));
    }

    #[rstest]
    #[case("doctor", &[], &[], None, false)]
    #[case(
        "doctor --iface eth0 --iface eth1,eth2 --domain a.example --config /a.toml --json --quiet \
         --control /c",
        &["eth0", "eth1", "eth2"],
        &["a.example"],
        Some("/a.toml"),
        true
    )]
    fn doctor_options(
        #[case] line: &str,
        #[case] interfaces: &[&str],
        #[case] domains: &[&str],
        #[case] config: Option<&str>,
        #[case] json: bool,
    ) {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let doctor = Doctor {
            interfaces: owned(interfaces),
            domains: owned(domains),
            config: config.map(PathBuf::from),
            control: json.then(|| PathBuf::from("/c")),
            json,
            quiet: json,
        };
        assert_eq!(parse(words(line)).unwrap(), Command::Doctor(doctor));
    }

    #[rstest]
    #[case("detach", None, None)]
    #[case("detach --all --config /a.toml", None, Some("/a.toml"))]
    #[case("detach --iface eth0", Some("eth0"), None)]
    fn detach_options(
        #[case] line: &str,
        #[case] interface: Option<&str>,
        #[case] config: Option<&str>,
    ) {
        let detach = Detach {
            interface: interface.map(str::to_owned),
            config: config.map(PathBuf::from),
        };
        assert_eq!(parse(words(line)).unwrap(), Command::Detach(detach));
    }

    #[rstest]
    #[case("crowdsec", None, 0)]
    #[case("crowdsec -vv --config /a.toml", Some("/a.toml"), 2)]
    fn crowdsec_options(#[case] line: &str, #[case] config: Option<&str>, #[case] verbose: u8) {
        let crowdsec = Crowdsec {
            config: config.map(PathBuf::from),
            verbose,
        };
        assert_eq!(parse(words(line)).unwrap(), Command::Crowdsec(crowdsec));
    }

    #[rstest]
    #[case("--help", 0)]
    #[case("run --help", 0)]
    #[case("--version", 0)]
    #[case("--metrics", EX_USAGE)]
    #[case("--iface", EX_USAGE)]
    #[case("--hostname a --hostname b", EX_USAGE)]
    #[case("--iface eth0 status", EX_USAGE)]
    #[case("top -n 1", EX_USAGE)]
    #[case("top --batch -n 0", EX_USAGE)]
    #[case("top --sources 1", EX_USAGE)]
    #[case("top --interval 0.09", EX_USAGE)]
    #[case("top --interval 3601", EX_USAGE)]
    #[case("top --interval NaN", EX_USAGE)]
    #[case("detach --iface eth0 --all", EX_USAGE)]
    #[case("detach --iface", EX_USAGE)]
    #[case("status --sources 65537", EX_USAGE)]
    #[case("status --iface eth0", EX_USAGE)]
    #[case("check-config --json", EX_USAGE)]
    #[case("check-config -v", EX_USAGE)]
    fn exit_codes(#[case] line: &str, #[case] code: u8) {
        assert_eq!(exit_code(&parse(words(line)).unwrap_err()), code);
    }

    #[test]
    fn relative_paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        let Command::Run(run) = parse(words("--config a.toml --control b.sock")).unwrap() else {
            panic!("not run");
        };
        assert_eq!(run.overrides.file, Some(here.join("a.toml")));
        let mut expected = Overrides::of_file(Some(here.join("a.toml")));
        let control = here.join("b.sock").to_str().unwrap().to_owned();
        expected.set("control", GivenBy::Flag("--control"), vec![control]);
        assert_eq!(run.overrides, expected);
    }

    /// The test calls itself in a process with these variables.
    #[test]
    fn environment_is_read() {
        const CHILD: &str = "ENVIRONMENT_IS_READ_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .arg("environment_is_read")
                .env(CHILD, "1")
                .env("NOMAIL_IFACE", "eth0,eth1")
                .env("NOMAIL_LISTEN", "192.0.2.7:25,[::1]:25")
                .env("NOMAIL_CONFIG", "/a.toml")
                .env("NOMAIL_HOSTNAME", "")
                .env("NOMAIL_SYN_RATE", "0")
                .env("NOMAIL_SYN_BURST", "7")
                .env("NOMAIL_OBSERVE", "false")
                .env("NOMAIL_CONTROL", "/c")
                .env("NOMAIL_METRICS", "[::1]:9521")
                .env("NOMAIL_VERBOSE", "2")
                .output()
                .unwrap();
            assert!(
                child.status.success(),
                "{}",
                String::from_utf8_lossy(&child.stdout)
            );
            return;
        }
        let mut expected = Overrides::of_file(Some("/a.toml".into()));
        let mut set = |key, variable, values: &[&str]| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            expected.set(key, GivenBy::Environment(variable), values);
        };
        set("interfaces", "NOMAIL_IFACE", &["eth0", "eth1"]);
        set("listen", "NOMAIL_LISTEN", &["192.0.2.7:25", "[::1]:25"]);
        set("limits.syn_rate", "NOMAIL_SYN_RATE", &["0"]);
        set("observe", "NOMAIL_OBSERVE", &["false"]);
        set("control", "NOMAIL_CONTROL", &["/c"]);
        set("metrics.listen", "NOMAIL_METRICS", &["[::1]:9521"]);
        let burst = vec!["8".to_owned()];
        expected.set("limits.syn_burst", GivenBy::Flag("--syn-burst"), burst);
        for line in ["--syn-burst 8", "run --syn-burst 8"] {
            let run = Run {
                overrides: expected.clone(),
                verbose: 2,
            };
            assert_eq!(parse(words(line)).unwrap(), Command::Run(run));
        }
        let shown = expected;
        let status = parse(words("status --sources 1")).unwrap();
        let expected = Status {
            json: false,
            sources: 1,
            control: Some("/c".into()),
            config: Some("/a.toml".into()),
        };
        assert_eq!(status, Command::Status(expected));
        let Command::CheckConfig(check) = parse(words("check-config")).unwrap() else {
            panic!("not check-config");
        };
        assert_eq!(check.overrides, Overrides::of_file(Some("/a.toml".into())));
        let check = parse(words("check-config --show --syn-burst 8")).unwrap();
        let expected = CheckConfig {
            overrides: shown,
            show: true,
        };
        assert_eq!(check, Command::CheckConfig(expected));
    }

    #[test]
    fn version_names_the_abi() {
        let error = parse(words("--version")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
        let expected = format!(
            "nomail-agent {} (ABI {ABI_VERSION})\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn every_option_names_its_variable_and_default() {
        let help = command().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in SETTINGS {
            assert!(
                help.contains(&format!("[env: {}]", setting.variable)),
                "{help}"
            );
            assert!(setting.help.contains("[default: "), "{}", setting.flag);
        }
    }

    #[test]
    fn usage_errors_are_escaped() {
        assert_eq!(escaped("a\u{1b}[31m\r\n"), "a\\u{1b}[31m\\r\n");
    }
}
