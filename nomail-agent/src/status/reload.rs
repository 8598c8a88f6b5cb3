//! The result of the last reload.

use std::time::Instant;

use crate::{config::Config, exit::Failure, smtp::unix_now};

/// The last reload, which `status`, metrics and the service manager report. The start counts
/// as one that succeeded.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When it ended.
    pub at: Instant,
    /// Why the configuration stayed as it was: the first error, on one line, and how many more
    /// there are. None: the new one is in effect.
    pub error: Option<String>,
    /// Keys of the file, such as `listen`, that differ from what is in effect and need a
    /// restart. Empty after an error.
    pub needs_restart: Vec<&'static str>,
    /// [`Config::hash`] of the configuration in effect.
    pub config_hash: u64,
    /// When that came into effect, in seconds since 1970.
    pub taken_over_unix_secs: u32,
}

impl Reload {
    /// `config` is in effect now, except for the keys that wait for a restart.
    pub fn succeeded(config: &Config, needs_restart: Vec<&'static str>) -> Self {
        Self {
            at: Instant::now(),
            error: None,
            needs_restart,
            config_hash: config.hash(),
            taken_over_unix_secs: unix_now(),
        }
    }

    /// Changed list files are in effect besides.
    pub fn lists_taken(&mut self, config: &Config) {
        self.config_hash = config.hash();
        self.taken_over_unix_secs = unix_now();
    }

    /// The reload failed, so the earlier configuration stays in effect.
    #[must_use]
    pub fn failed(&self, failure: &Failure) -> Self {
        let lines = failure.lines();
        let error = match &lines[..] {
            [first, _, ..] => format!("{first} (and {} more)", lines.len() - 1),
            [only] => only.clone(),
            [] => failure.to_string(),
        };
        Self {
            at: Instant::now(),
            error: Some(error),
            needs_restart: Vec::new(),
            config_hash: self.config_hash,
            taken_over_unix_secs: self.taken_over_unix_secs,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::config::{self, GivenBy, Overrides};

    #[test]
    fn an_error_leaves_in_effect_what_was() {
        let started = Reload::succeeded(&Config::default(), vec!["listen"]);
        assert_eq!(started.error, None);
        assert_eq!(started.config_hash, Config::default().hash());
        let failed = started.failed(&anyhow!("the map is full").into());
        assert_eq!(failed.error.as_deref(), Some("the map is full"));
        assert_eq!(failed.config_hash, started.config_hash);
        assert!(failed.needs_restart.is_empty());
        assert!(failed.at >= started.at);
    }

    #[test]
    fn of_many_errors_one_is_told() {
        let mut overrides = Overrides::of_file(Some("/dev/null".into()));
        for (key, flag) in [("limits.syn_rate", "--syn-rate"), ("observe", "--observe")] {
            overrides.set(key, GivenBy::Flag(flag), vec!["x".to_owned()]);
        }
        let failure = config::load(&overrides).unwrap_err().into();
        let failed = Reload::succeeded(&Config::default(), Vec::new()).failed(&failure);
        assert_eq!(
            failed.error.as_deref(),
            Some("--observe: \"x\" is neither true nor false (and 1 more)")
        );
    }
}
