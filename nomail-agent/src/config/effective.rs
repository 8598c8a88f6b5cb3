//! The configuration in effect, key by key: what `check-config --show` prints, and what
//! [`Config::hash`] is made of.

use std::{fmt::Write as _, net::IpAddr};

use toml::Value as Toml;

use super::{
    choices::RelayCode,
    keys::{Config, Crowdsec, ListKeys, RelayKeys},
    kinds::Setting::{self, To, Unset},
    layer::{LayerEntry, Layers, Value},
    origin::Origin,
    resolved::Relay,
    table::Values,
};
use crate::text::escaped;

/// Column of the origins, unless a line is longer.
const ORIGIN_COLUMN: usize = 44;

/// Each key with its value, in the order of the file; those of `[relay]` and `[crowdsec]`
/// only if there is one.
///
/// Lists that files add to are empty or unset: what the configuration itself had is not
/// known any more.
pub(super) fn settings(config: &Config) -> Vec<(&'static str, Setting)> {
    let relay = config.relay.as_deref().map(keys_of);
    [
        config.settings(),
        config.limits.settings(),
        ListKeys::default().settings(),
        relay.map_or_else(Vec::new, |relay| relay.settings()),
        config.log.settings(),
        config.metrics.settings(),
        config
            .crowdsec
            .as_ref()
            .map_or_else(Vec::new, Values::settings),
    ]
    .concat()
}

fn keys_of(relay: &Relay) -> RelayKeys {
    let enhanced_code = match relay.code {
        RelayCode::Rfc1846 => None,
        code @ (RelayCode::Listed | RelayCode::NullMx) => Some(code),
    };
    RelayKeys {
        domains: Vec::new(),
        domain_files: Vec::new(),
        code: relay.code.code(),
        enhanced_code,
        text: relay.text.clone(),
        postmaster: relay.postmaster.clone(),
    }
}

/// The configuration as TOML with the same effect: a line for each key, with the origin of
/// its value.
pub(super) fn shown(config: &Config, layers: &Layers) -> String {
    let mut lines = String::new();
    let mut last = "";
    for (key, setting) in settings(config) {
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        if table != last {
            last = table;
            lines += "\n";
            add(&mut lines, &format!("[{table}]"), "");
        }
        let entry = layers.chosen(key);
        let setting = entry
            .and_then(|entry| as_written(&entry.written.value))
            .map_or(setting, To);
        match setting {
            To(value) => add(&mut lines, &format!("{name} = {value}"), &origin_of(entry)),
            Unset(means) => add(
                &mut lines,
                &format!("# {name} is not set"),
                &format!("default: {means}"),
            ),
        }
    }
    // A header alone would be a table.
    for (table, is_there) in [
        (RelayKeys::table(), config.relay.is_some()),
        (Crowdsec::table(), config.crowdsec.is_some()),
    ] {
        if !is_there {
            lines += "\n";
            let means = table.without.unwrap_or_default();
            add(
                &mut lines,
                &format!("# [{}] is not there", table.name),
                &format!("default: {means}"),
            );
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

/// A value as a file has it. None: it is a word of the command line, whose type only its
/// key knows.
fn as_written(value: &Value) -> Option<Toml> {
    Some(match value {
        Value::Text(text) => Toml::String(text.clone()),
        Value::Integer(number) => Toml::Integer(i64::try_from(*number).ok()?),
        Value::Boolean(value) => Toml::Boolean(*value),
        Value::List(items) => {
            let items = items.iter().map(|item| as_written(&item.value));
            Toml::Array(items.collect::<Option<_>>()?)
        }
        Value::Word(_) | Value::Table | Value::Other(_) => return None,
    })
}

/// Where a key is, as text of a comment.
fn origin_of(entry: Option<&LayerEntry>) -> String {
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
    /// A hash of the values in effect, the same in every process and on every host of this
    /// version, however the files are laid out. List files count by what they list. Not
    /// cryptographic.
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
            for prefix in list.iter() {
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

/// FNV-1a of 64 bits: the standard library has no hash that stays the same in its next
/// version.
pub(super) struct Fnv1a(pub(super) u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    /// Adds a piece with its length, so that other pieces have another hash.
    fn add(&mut self, piece: &[u8]) {
        self.write(&(piece.len() as u64).to_le_bytes());
        self.write(piece);
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
