//! From files, environment and flags to a configuration.

use std::path::{Path, PathBuf};

use super::{
    effective,
    error::{ConfigError, Problem, SHOWN_MAX},
    file::ConfigFiles,
    keys::{
        Config, Crowdsec, DEFAULT_CONTROL, DEFAULT_PIN_DIR, Limits, ListKeys, Log, Metrics,
        RelayKeys, tables,
    },
    layer::{Layers, Value},
    lists,
    overrides::Overrides,
    relay,
    table::Values as _,
    together, values,
};

/// Read when no other file is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/nomail/nomail.toml";

/// Reads the file and its drop-ins, and checks everything.
///
/// # Errors
/// Every error there is. A caller that has a configuration keeps it.
pub fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
    load_layers(overrides).map(|(config, _)| config)
}

/// The configuration in effect as TOML, each value with its origin.
///
/// # Errors
/// Those of [`load`].
pub fn show(overrides: &Overrides) -> Result<String, ConfigError> {
    let (config, layers) = load_layers(overrides)?;
    Ok(effective::shown(&config, &layers))
}

/// Where `status` and `top` ask: the given socket, else that of the file, whatever
/// else the file says.
pub fn control_path(given: Option<PathBuf>, file: Option<&Path>) -> PathBuf {
    given.unwrap_or_else(|| control_of(file.unwrap_or(Path::new(DEFAULT_FILE))))
}

/// The socket of a file.
pub(super) fn control_of(file: &Path) -> PathBuf {
    Layers::new(ConfigFiles::read(file, false).layers, Vec::new())
        .value("control", values::socket_path)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_CONTROL))
}

/// The directory of pins of a file, whatever else the file says.
///
/// # Errors
/// The file was named and cannot be read, or the directory is wrong.
pub fn pin_dir(file: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let files = ConfigFiles::read(path, file.is_some());
    let mut layers = Layers::new(files.layers, files.problems);
    let found = layers.value("pin_dir", values::pin_dir);
    if layers.problems.is_empty() {
        Ok(found.unwrap_or_else(|| PathBuf::from(DEFAULT_PIN_DIR)))
    } else {
        Err(ConfigError::new(layers.problems))
    }
}

fn load_layers(overrides: &Overrides) -> Result<(Config, Layers), ConfigError> {
    match &overrides.file {
        Some(named) => load_layers_of(named, true, overrides),
        None => load_layers_of(Path::new(DEFAULT_FILE), false, overrides),
    }
}

/// Reads a file, which has to be there if it is `required`, and its drop-ins.
pub(super) fn load_layers_of(
    path: &Path,
    required: bool,
    overrides: &Overrides,
) -> Result<(Config, Layers), ConfigError> {
    let mut files = ConfigFiles::read(path, required);
    files.layers.push(overrides.layer());
    let mut layers = Layers::new(files.layers, files.problems);
    let mut config = read(&mut layers);
    reject_unknown(&mut layers);
    if !layers.problems.is_empty() {
        return Err(ConfigError::new(layers.problems));
    }
    config.file = Some(path.to_owned());
    config.files = files.paths;
    Ok((config, layers))
}

/// Reads every key. What is wrong goes to `layers.problems`.
pub(super) fn read(layers: &mut Layers) -> Config {
    let mut config = Config::read(layers);
    config.limits = Limits::read(layers);
    let keys = ListKeys::read(layers);
    config.lists = lists::resolve(keys, layers);
    let keys = RelayKeys::read(layers);
    config.relay = relay::resolve(keys, layers);
    config.log = Log::read(layers);
    config.metrics = Metrics::read(layers);
    config.crowdsec = Some(Crowdsec::read(layers));
    together::settle(&mut config, layers);
    config
}

/// Reports every key that is in no table.
pub(super) fn reject_unknown(layers: &mut Layers) {
    let tables = tables();
    let is_key = |key: &str| {
        tables
            .iter()
            .flat_map(|table| &table.keys)
            .any(|known| known.name == key)
    };
    let mut problems = Vec::new();
    for (key, entry) in layers.entries() {
        if is_key(key) || matches!(entry.written.value, Value::Table) {
            continue;
        }
        let is_table = |name: &str| {
            tables
                .iter()
                .any(|table| !name.is_empty() && table.name == name)
        };
        let text = if is_table(key) {
            let kind = entry.written.value.kind();
            format!("{key}: {kind} is not a table: write [{key}] and its keys below it")
        } else {
            // A quoted name may have a dot, and is in no table.
            let name = key.split_once('.').map(|(name, _)| name);
            let name = name.filter(|name| is_table(name));
            let what = name.map_or("this version".to_owned(), |name| format!("[{name}]"));
            // Names come from the file, and errors stay readable.
            let key: String = key.chars().take(SHOWN_MAX).collect();
            format!("{key}: unknown key; {what} knows {}", known_in(name))
        };
        problems.push(Problem {
            origin: entry.key.clone(),
            text,
        });
    }
    layers.problems.append(&mut problems);
}

/// The keys of a table, or those before the first table and the tables.
fn known_in(name: Option<&str>) -> String {
    let tables = tables();
    let keys = tables
        .iter()
        .filter(|table| table.name == name.unwrap_or_default())
        .flat_map(|table| &table.keys);
    let mut names: Vec<_> = keys.map(|key| key.last_name().to_owned()).collect();
    if name.is_none() {
        names.extend(tables[1..].iter().map(|table| format!("[{}]", table.name)));
    }
    names.join(", ")
}
