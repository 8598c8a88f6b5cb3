//! CrowdSec's decisions, as `nomail-agent crowdsec` hands them over.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use log::{info, warn};

use crate::{
    config::{self, Config, Crowdsec, Stamp},
    status::{CrowdsecStatus, DECISIONS_MAX, DENY_FILE, STATUS_FILE},
    walk::{self, WalkError},
};

/// A process that has not written its figures for so long does not run, or hangs, so that no
/// ban ends: it writes them every 5 s, or once a pull has ended after at most 15 s.
const STALE: Duration = Duration::from_secs(60);
/// Most bytes of the figures.
const STATUS_MAX: u64 = 64 << 10;
const NOT_RUNNING: &str =
    "nomail-agent crowdsec does not run: `systemctl status nomail-crowdsec` says why";

/// What the directory of decisions held at the last look.
#[derive(Debug, Default)]
pub(super) struct DecisionFiles {
    directory: PathBuf,
    /// The API. None: there is no `[crowdsec]` since a reload.
    url: Option<String>,
    /// Of the file of what is banned. None: it was not there.
    taken: Option<Stamp>,
    banned: Arc<[IpNet]>,
    /// Why the file of what is banned is not in force.
    unread: Option<String>,
    figures: CrowdsecStatus,
    /// The stamp of the figures, and since when it has been so.
    figures_since: Option<(Stamp, Instant)>,
    /// It was logged that the process does not run.
    logged: bool,
}

impl DecisionFiles {
    /// None: the configuration asks for none, or there is no guard to deny them.
    pub(super) fn of(config: &Config, guarded: bool) -> Option<Self> {
        let crowdsec = config.crowdsec.as_ref()?;
        if !guarded {
            warn!("[crowdsec] is of no effect with --xdp-mode off: nothing denies its decisions");
            return None;
        }
        Some(Self::new(crowdsec))
    }

    fn new(crowdsec: &Crowdsec) -> Self {
        Self {
            directory: crowdsec.run_dir.clone(),
            url: Some(crowdsec.url.to_string()),
            ..Self::default()
        }
    }

    /// Another table, or none since a reload. The directory stays, because the sandbox does.
    /// What was read stays until the next look.
    pub(super) fn follow(&mut self, crowdsec: Option<&Crowdsec>) {
        self.url = crowdsec.map(|found| found.url.to_string());
    }

    /// What is banned: sorted, each prefix once.
    pub(super) fn banned(&self) -> &[IpNet] {
        &self.banned
    }

    /// Looks at the directory, and reads what has changed; whether other prefixes are banned.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if self.url.is_none() {
            self.figures = CrowdsecStatus::default();
            self.figures_since = None;
            return self.lift();
        }
        self.look_at_figures(&self.directory.join(STATUS_FILE), now);
        if self.figures.running {
            self.logged = false;
            return self.look_at_banned(&self.directory.join(DENY_FILE));
        }
        if !std::mem::replace(&mut self.logged, true) {
            warn!(
                event = "crowdsec_absent";
                "nothing is denied for CrowdSec: {NOT_RUNNING}"
            );
        }
        self.lift()
    }

    /// Ends all bans; whether there were any.
    fn lift(&mut self) -> bool {
        if nomail_common::Mechanism::BansEnd.is_off() {
            return false;
        }
        self.taken = None;
        self.unread = None;
        !std::mem::take(&mut self.banned).is_empty()
    }

    fn look_at_banned(&mut self, path: &Path) -> bool {
        let found = match Stamp::at(path) {
            Ok(stamp) => Some(stamp),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.refuse(path, &error.to_string());
                return false;
            }
        };
        if found == self.taken && self.unread.is_none() {
            return false;
        }
        let banned = match found {
            None => Arc::default(),
            Some(_) => {
                let (banned, file) = config::read_prefixes(path, DECISIONS_MAX);
                if let Some(error) = file.unread {
                    self.refuse(path, &error);
                    return false;
                }
                banned
            }
        };
        self.taken = found;
        self.unread = None;
        let before = std::mem::replace(&mut self.banned, banned);
        if before.is_empty() != self.banned.is_empty() {
            info!(
                event = "crowdsec_denied", prefixes = self.banned.len();
                "prefixes that are denied for CrowdSec's decisions: {}", self.banned.len()
            );
        }
        before != self.banned
    }

    /// The file of what is banned cannot be used: what was read before stays.
    fn refuse(&mut self, path: &Path, error: &str) {
        let text = format!(
            "{}: {error}; the decisions of before stay denied",
            path.display()
        );
        if self.unread.as_ref() != Some(&text) {
            warn!(event = "crowdsec_unread"; "{text}");
            self.unread = Some(text);
        }
    }

    fn look_at_figures(&mut self, path: &Path, now: Instant) {
        let stamp = Stamp::at(path).ok();
        match (stamp, self.figures_since) {
            (Some(found), Some((known, since))) if found == known => {
                self.figures.running = now.duration_since(since) < STALE;
            }
            (Some(found), _) => match read_figures(path) {
                Ok(figures) => {
                    self.figures = CrowdsecStatus {
                        running: true,
                        ..figures
                    };
                    self.figures_since = Some((found, now));
                }
                // It is replaced as a whole: the next one may be right.
                Err(_) => self.figures.running = false,
            },
            (None, _) => {
                self.figures = CrowdsecStatus::default();
                self.figures_since = None;
            }
        }
    }

    /// The figures, for the API that is configured.
    pub(super) fn status(&self, unix_now: u64) -> CrowdsecStatus {
        let Some(url) = &self.url else {
            return CrowdsecStatus::default();
        };
        let mut status = CrowdsecStatus {
            url: url.clone(),
            ..self.figures.clone()
        };
        if !status.running {
            status.error = NOT_RUNNING.to_owned();
            (status.decisions, status.decisions_ipv6) = (0, 0);
        } else if let Some(unread) = &self.unread {
            status.error.clone_from(unread);
        }
        status.ok &= status.error.is_empty();
        let pulled = status.last_pull_unix_secs;
        status.last_pull_secs = (pulled > 0).then(|| unix_now.saturating_sub(pulled));
        status
    }
}

fn read_figures(path: &Path) -> io::Result<CrowdsecStatus> {
    let file: File = walk::open_file(path).map_err(WalkError::into_io)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(STATUS_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
