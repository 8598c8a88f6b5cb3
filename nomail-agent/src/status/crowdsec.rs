//! What `nomail-agent crowdsec` hands over to the agent in `crowdsec.run_dir`.

use std::fmt;

use nomail_common::{abi::MAX_BANS, counted};
use serde::{Deserialize, Serialize};

use crate::{
    counts::Counts,
    text::{ascii, count, duration},
};

/// The file of banned prefixes, one a line. It is missing before the first pull.
pub const DENY_FILE: &str = "deny";
/// The file of figures: a [`CrowdsecStatus`] as JSON.
pub const STATUS_FILE: &str = "status.json";
/// Most decisions in force.
pub const DECISIONS_MAX: usize = MAX_BANS as usize;

counted! {
    /// How a pull went.
    pub enum Pull {
        /// The decisions were taken over.
        Succeeded "succeeded" "succeeded";
        /// There was no answer, or none that could be read.
        Failed "failed" "failed";
    }
}

/// The decisions of CrowdSec, and the pulls that get them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrowdsecStatus {
    /// The local API; empty since a reload without `[crowdsec]`.
    pub url: String,
    /// Whether `nomail-agent crowdsec` runs. If not, the other figures are its last ones.
    #[serde(default)]
    pub running: bool,
    /// Whether the last pull succeeded, and the process that made it runs.
    pub ok: bool,
    /// Decisions in force.
    pub decisions: u64,
    /// Those of them on IPv6.
    pub decisions_ipv6: u64,
    /// Decisions without room.
    pub left_out: u64,
    /// Seconds since the last pull that succeeded, if one has.
    pub last_pull_secs: Option<u64>,
    /// When that was, in seconds since 1970; 0 if none has.
    pub last_pull_unix_secs: u64,
    /// Why the last pull failed, or its result is not in force; empty if neither.
    pub error: String,
    /// Pulls since the start of the process.
    #[serde(default)]
    pub pulls: Counts<Pull>,
}

impl fmt::Display for CrowdsecStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.url.is_empty() {
            return out.write_str("off since a reload");
        }
        if !self.error.is_empty() {
            write!(out, "FAILING, {}; ", ascii(&self.error))?;
        }
        write!(out, "{} in force", count(self.decisions))?;
        if self.left_out > 0 {
            write!(out, ", {} LEFT OUT", count(self.left_out))?;
        }
        match self.last_pull_secs {
            Some(secs) => write!(out, ", pulled {} ago", duration(secs))?,
            None => out.write_str(", not pulled yet")?,
        }
        write!(out, " from {}", ascii(&self.url))?;
        if self.pulls[Pull::Failed] > 0 {
            let (failed, all) = (self.pulls[Pull::Failed], self.pulls.sum());
            write!(out, ", {} of {} pulls failed", count(failed), count(all))?;
        }
        Ok(())
    }
}
