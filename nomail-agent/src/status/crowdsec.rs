//! The decisions of CrowdSec, and the pulls that get them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    commands::crowdsec::{self, Pull},
    counts::Counts,
    text::{ascii, count, duration},
};

/// The decisions of CrowdSec, and the pulls that get them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrowdsecStatus {
    /// The local API; empty since a reload without `[crowdsec]`.
    pub url: String,
    /// Whether the last pull succeeded.
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
    /// Why the last pull failed; empty if it did not.
    pub error: String,
    /// Pulls since the start.
    #[serde(default)]
    pub pulls: Counts<Pull>,
}

impl From<crowdsec::Snapshot> for CrowdsecStatus {
    fn from(found: crowdsec::Snapshot) -> Self {
        Self {
            url: found.url.unwrap_or_default(),
            ok: found.pulled.is_some() && found.error.is_none(),
            decisions: found.decisions as u64,
            decisions_ipv6: found.decisions_ipv6 as u64,
            left_out: found.left_out as u64,
            last_pull_secs: found.pulled.map(|at| at.elapsed().as_secs()),
            last_pull_unix_secs: found.pulled_unix_secs,
            error: found.error.unwrap_or_default(),
            pulls: found.pulls,
        }
    }
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
