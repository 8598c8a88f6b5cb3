//! What a reload changes, and what it must not lose.

use std::{path::Path, sync::Arc};

use super::{
    error::{ConfigError, Problem},
    keys::Config,
    lists,
    load::{DEFAULT_FILE, load},
    origin::Origin,
    overrides::Overrides,
    relay,
    resolved::ListFile,
    table::Values,
};

impl Config {
    /// The list files that it names.
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
            lists: Arc::new(lists::read_again(&self.lists, file)),
            relay: relay.map(|relay| Arc::new(relay::read_again(relay, file))),
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
        let crowdsec = self.crowdsec.as_ref().zip(new.crowdsec.as_ref());
        [
            Values::changes_that_need_restart(self, new),
            self.limits.changes_that_need_restart(&new.limits),
            self.log.changes_that_need_restart(&new.log),
            self.metrics.changes_that_need_restart(&new.metrics),
            crowdsec.map_or_else(Vec::new, |(old, new)| old.changes_that_need_restart(new)),
        ]
        .concat()
    }

    /// This configuration with what a reload cannot change as it is in `old`.
    #[must_use]
    pub fn with_fixed_from(mut self, old: &Self) -> Self {
        self.keep_from(old);
        self.limits.keep_from(&old.limits);
        self.log.keep_from(&old.log);
        self.metrics.keep_from(&old.metrics);
        if let (Some(new), Some(old)) = (&mut self.crowdsec, &old.crowdsec) {
            new.keep_from(old);
        }
        self
    }
}

impl Overrides {
    /// Those that a reload goes by: where a file was read, there has to be one. The
    /// defaults must not replace it while somebody edits it.
    #[must_use]
    pub fn after(&self, config: &Config) -> Self {
        let mut overrides = self.clone();
        if !config.files.is_empty() {
            overrides.file.clone_from(&config.file);
        }
        overrides
    }
}

/// As [`load`], for an agent that has `current` in effect. A list file that cannot be read is
/// an error here, unless it could not be read before either: a start goes without it, a reload
/// keeps what is in force.
///
/// # Errors
/// Every error there is.
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
