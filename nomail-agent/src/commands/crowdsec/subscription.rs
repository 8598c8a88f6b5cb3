//! Where decisions are pulled from.

use std::time::Duration;

use super::key::{ApiKey, KeyError};
use crate::config;

/// An API, its key, and how often it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) url: config::ApiUrl,
    pub(super) key: ApiKey,
    /// The file with the key, for messages.
    pub(super) key_file: String,
    pub(super) interval: Duration,
}

impl Subscription {
    /// The subscription of the configuration, with the key from its file.
    ///
    /// # Errors
    /// The file cannot be read, or has no key.
    pub(super) fn new(crowdsec: &config::Crowdsec) -> Result<Self, KeyError> {
        Ok(Self {
            url: crowdsec.url,
            key: ApiKey::read(&crowdsec.api_key_file)?,
            key_file: crowdsec.api_key_file.display().to_string(),
            interval: Duration::from_secs(crowdsec.interval_secs),
        })
    }
}
