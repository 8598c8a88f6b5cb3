//! The configuration in effect, key by key: what `check-config --show` prints,
//! and what [`Config::hash`] is made of.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use ipnet::IpNet;
use toml::Value as Toml;

use super::{
    AfterGreeting, Config, Crowdsec, FLOOD_ANSWERS, Fallback, Limits, Log, LogFormat, Metrics,
    OnExit, RefuseAt, Relay, RelayCode, Responder, XdpMode,
    error::{Origin, escaped},
    layer::{Chosen, Entry, Value},
};

/// The column that the origins begin in, where a line leaves room for it.
const ORIGIN_COLUMN: usize = 44;

/// What a key is set to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Setting {
    To(Toml),
    /// Nothing, which is no value that could be written: what it means.
    Unset(&'static str),
}

use Setting::{To, Unset};

/// Every key in the order of the file, section by section; those of `[relay]` and
/// `[crowdsec]` only if there is one.
///
/// Of lists that files add to it is not known any more what was written beside
/// them: they are empty here, or unset.
pub(super) fn settings(config: &Config) -> Vec<(&'static str, Setting)> {
    let Config {
        // Where it is written is no part of what it says.
        file: _,
        files: _,
        interfaces,
        listen,
        hostname,
        aliases,
        responder,
        fallback,
        refuse_at,
        after_greeting,
        monitors,
        xdp_mode,
        observe,
        on_exit,
        pin_dir,
        state_dir,
        user,
        control,
        limits,
        lists: _,
        relay,
        log,
        metrics: Metrics {
            listen: listen_metrics,
        },
        crowdsec,
    } = config;
    let mut settings = vec![
        ("interfaces", texts(interfaces)),
        (
            "listen",
            match listen[..] {
                [] => Unset("port 25 of every address of the interfaces"),
                _ => texts(listen),
            },
        ),
        (
            "hostname",
            match hostname {
                None => Unset("the host's FQDN, else an address literal"),
                Some(name) => text(name),
            },
        ),
        ("aliases", texts(aliases)),
        ("responder", named(Responder::CHOICES, *responder)),
        ("fallback", named(Fallback::CHOICES, *fallback)),
        ("refuse_at", named(RefuseAt::CHOICES, *refuse_at)),
        (
            "after_greeting",
            named(AfterGreeting::CHOICES, *after_greeting),
        ),
        ("monitors", texts(monitors)),
        ("xdp_mode", named(XdpMode::CHOICES, *xdp_mode)),
        ("observe", To((*observe).into())),
        ("on_exit", named(OnExit::CHOICES, *on_exit)),
        ("pin_dir", path(pin_dir)),
        (
            "state_dir",
            match state_dir.is_default {
                true => Unset("/var/lib/nomail, if it is there"),
                false => path(&state_dir.path),
            },
        ),
        (
            "user",
            match user.is_default {
                true => Unset("nomail, or a free uid from 61184 to 65519 if there is no such user"),
                false => text(&user.value),
            },
        ),
        ("control", path(control)),
    ];
    settings.extend(limits_of(limits));
    for key in [
        "lists.allow",
        "lists.deny",
        "lists.allow_files",
        "lists.deny_files",
    ] {
        settings.push((key, texts::<IpNet>(&[])));
    }
    if let Some(relay) = relay {
        settings.extend(relay_of(relay));
    }
    settings.extend(log_of(log));
    settings.push((
        "metrics.listen",
        listen_metrics.map_or_else(|| text("off"), |address| text(&address)),
    ));
    if let Some(crowdsec) = crowdsec {
        settings.extend(crowdsec_of(crowdsec));
    }
    settings
}

fn limits_of(limits: &Limits) -> [(&'static str, Setting); 11] {
    let Limits {
        syn_rate,
        syn_burst,
        prefix_rate,
        prefix_burst,
        unproven_rate,
        flood_answer,
        connections,
        connections_per_source,
        idle_timeout_secs,
        session_timeout_secs,
        sender_age_secs,
    } = *limits;
    [
        ("limits.syn_rate", number(syn_rate)),
        ("limits.syn_burst", number(syn_burst)),
        ("limits.prefix_rate", number(prefix_rate)),
        (
            "limits.prefix_burst",
            match prefix_burst {
                0 => Unset("twice prefix_rate"),
                burst => number(burst),
            },
        ),
        ("limits.unproven_rate", number(unproven_rate)),
        ("limits.flood_answer", named(FLOOD_ANSWERS, flood_answer)),
        ("limits.connections", number(connections)),
        (
            "limits.connections_per_source",
            number(connections_per_source),
        ),
        ("limits.idle_timeout_secs", number(idle_timeout_secs)),
        ("limits.session_timeout_secs", number(session_timeout_secs)),
        ("limits.sender_age_secs", number(sender_age_secs)),
    ]
}

fn relay_of(relay: &Relay) -> [(&'static str, Setting); 6] {
    let Relay {
        domains: _,
        code,
        text: reply,
        postmaster,
        files: _,
        written: _,
    } = relay;
    [
        (
            "relay.domains",
            Unset("none beside those of relay.domain_files"),
        ),
        (
            "relay.domain_files",
            Unset("none beside those of relay.domains"),
        ),
        ("relay.code", number(code.code())),
        (
            "relay.enhanced_code",
            match code {
                RelayCode::Rfc1846 => Unset("5.3.2, which 521 always has"),
                RelayCode::Listed | RelayCode::NullMx => text(code.enhanced_code()),
            },
        ),
        ("relay.text", text(reply)),
        (
            "relay.postmaster",
            match postmaster {
                None => Unset("mail to postmaster is refused as other mail is"),
                Some(mailbox) => text(mailbox),
            },
        ),
    ]
}

fn log_of(log: &Log) -> [(&'static str, Setting); 5] {
    let Log {
        format,
        interval_secs,
        sources_max,
        ignore,
        envelope,
    } = log;
    [
        ("log.format", named(LogFormat::CHOICES, *format)),
        ("log.interval_secs", number(*interval_secs)),
        ("log.sources_max", number(*sources_max as u64)),
        ("log.ignore", texts(ignore)),
        ("log.envelope", To((*envelope).into())),
    ]
}

fn crowdsec_of(crowdsec: &Crowdsec) -> [(&'static str, Setting); 4] {
    let Crowdsec {
        url,
        api_key_file,
        interval_secs,
        run_dir,
    } = crowdsec;
    [
        ("crowdsec.url", text(url)),
        ("crowdsec.api_key_file", path(api_key_file)),
        ("crowdsec.interval_secs", number(*interval_secs)),
        ("crowdsec.run_dir", path(run_dir)),
    ]
}

fn text(value: &(impl ToString + ?Sized)) -> Setting {
    To(Toml::String(value.to_string()))
}

fn texts<T: ToString>(values: &[T]) -> Setting {
    let values = values.iter().map(|value| Toml::String(value.to_string()));
    To(Toml::Array(values.collect()))
}

/// A path without what makes no difference, such as a slash at its end. It was
/// read as text.
fn path(value: &Path) -> Setting {
    let plain = value.components().collect::<std::path::PathBuf>();
    text(&plain.display())
}

fn number(value: impl Into<u64>) -> Setting {
    // No key takes a number that would not fit.
    To(Toml::Integer(
        i64::try_from(value.into()).unwrap_or(i64::MAX),
    ))
}

fn named<T: PartialEq + Copy>(choices: &[(&str, T)], value: T) -> Setting {
    let name = choices.iter().find(|(_, choice)| *choice == value);
    text(name.map_or("", |(name, _)| name))
}

/// The configuration as TOML that says the same: a line for each key, and on it
/// where its value is from.
pub(super) fn shown(config: &Config, chosen: &Chosen) -> String {
    let mut lines = String::new();
    let mut last = "";
    for (key, setting) in settings(config) {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        if section != last {
            last = section;
            lines += "\n";
            add(&mut lines, &format!("[{section}]"), "");
        }
        let entry = chosen.get(key);
        let setting = entry
            .and_then(|entry| as_written(&entry.written.value))
            .map_or(setting, To);
        match (setting, entry) {
            (To(value), entry) => {
                let line = format!("{name} = {value}");
                add(&mut lines, &line, &origin_of(entry));
            }
            (Unset(means), _) => add(
                &mut lines,
                &format!("# {name} is not set"),
                &format!("default: {means}"),
            ),
        }
    }
    // TOML would take a header for the table.
    for (table, is_there, means) in [
        (
            "relay",
            config.relay.is_some(),
            "default: this host is no MX of other domains",
        ),
        (
            "crowdsec",
            config.crowdsec.is_some(),
            "default: no decisions of CrowdSec are denied",
        ),
    ] {
        if !is_there {
            lines += "\n";
            add(&mut lines, &format!("# [{table}] is not there"), means);
        }
    }
    lines
}

fn add(lines: &mut String, line: &str, origin: &str) {
    // Writing to a string cannot fail.
    let _ = match origin {
        "" => writeln!(lines, "{line}"),
        _ => writeln!(lines, "{line:<ORIGIN_COLUMN$}  # {origin}"),
    };
}

/// A value as a file has it. None: it is a word of the command line, whose type
/// only the configuration knows.
fn as_written(value: &Value) -> Option<Toml> {
    Some(match value {
        Value::Text(text) => Toml::String(text.clone()),
        Value::Integer(number) => Toml::Integer(i64::try_from(*number).ok()?),
        Value::Boolean(value) => Toml::Boolean(*value),
        Value::List(items) => {
            let items = items.iter().map(|item| as_written(&item.value));
            Toml::Array(items.collect::<Option<_>>()?)
        }
        Value::Word(_) | Value::Section | Value::Other(_) => return None,
    })
}

/// Where the line of a key is, as a comment can hold it.
fn origin_of(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else {
        return "default".to_owned();
    };
    match &entry.key {
        Origin::File { path, position } => {
            let path = escaped(&path.display().to_string());
            match position {
                Some(position) => format!("{path}:{}", position.line),
                None => path,
            }
        }
        Origin::Flag(name) => format!("flag {name}"),
        Origin::Environment(name) => format!("environment {name}"),
    }
}

impl Config {
    /// A hash of the values in effect: the same for the same values, in another
    /// process and on another host of the same version, too, however the files are
    /// laid out. Files that are named count by what they list. It finds changes; it
    /// does not stand against somebody who makes two configurations with one hash.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv1a::default();
        for (key, setting) in settings(self) {
            hash.add(key.as_bytes());
            match setting {
                To(value) => hash.add(value.to_string().as_bytes()),
                Unset(_) => hash.add(&[]),
            }
        }
        for list in [&self.lists.allow, &self.lists.deny] {
            hash.add(&(list.len() as u64).to_le_bytes());
            for prefix in list {
                match prefix.addr() {
                    IpAddr::V4(address) => hash.add(&address.octets()),
                    IpAddr::V6(address) => hash.add(&address.octets()),
                }
                hash.add(&[prefix.prefix_len()]);
            }
        }
        if let Some(relay) = &self.relay {
            let mut domains: Vec<_> = relay
                .domains
                .iter()
                .map(|domain| (&domain.name, domain.text.as_deref()))
                .collect();
            domains.sort_unstable();
            for (name, text) in domains {
                hash.add(name.as_bytes());
                hash.add(text.unwrap_or(&relay.text).as_bytes());
            }
        }
        hash.0
    }
}

/// FNV-1a of 64 bits, as its authors define it: the standard library promises no
/// hash that stays the same.
pub(super) struct Fnv1a(pub(super) u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    /// Adds a piece with its length, so that no two rows of pieces are one.
    fn add(&mut self, piece: &[u8]) {
        self.write(&(piece.len() as u64).to_le_bytes());
        self.write(piece);
    }

    pub(super) fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
