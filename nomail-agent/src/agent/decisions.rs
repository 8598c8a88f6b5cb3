//! CrowdSec's decisions, as `nomail-agent crowdsec` hands them over.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use log::{info, warn};

use crate::{
    commands::crowdsec::{DECISIONS_MAX, DENY_FILE, STATUS_FILE},
    config::{self, Crowdsec, Stamp},
    status::CrowdsecStatus,
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
pub(super) struct Decisions {
    directory: PathBuf,
    /// The API. None: there is no `[crowdsec]` since a reload.
    url: Option<String>,
    /// Of the file of what is banned. None: it was not there.
    taken: Option<Stamp>,
    banned: Vec<IpNet>,
    /// Why the file of what is banned is not in force.
    unread: Option<String>,
    figures: CrowdsecStatus,
    /// The stamp of the figures, and since when it has been so.
    figures_since: Option<(Stamp, Instant)>,
    /// It was logged that the process does not run.
    logged: bool,
}

impl Decisions {
    pub(super) fn new(crowdsec: &Crowdsec) -> Self {
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
            None => Vec::new(),
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

/// A deny list and decisions together: sorted, each prefix once.
pub(super) fn denied(deny: &[IpNet], banned: &[IpNet]) -> Vec<IpNet> {
    let mut all = [deny, banned].concat();
    // Two sorted runs: quick for a stable sort.
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::status::Pull;

    const URL: &str = "http://127.0.0.1:8080";

    struct Run(tempfile::TempDir);

    impl Run {
        fn new() -> (Self, Decisions) {
            let directory = tempfile::tempdir().unwrap();
            let crowdsec = Crowdsec {
                url: URL.parse().unwrap(),
                api_key_file: "/k".into(),
                interval_secs: 5,
                run_dir: directory.path().to_owned(),
            };
            (Self(directory), Decisions::new(&crowdsec))
        }

        fn write(&self, name: &str, text: &str) {
            let new = self.0.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, self.0.path().join(name)).unwrap();
        }

        fn figures(&self, decisions: u64, error: &str) {
            let mut status = CrowdsecStatus {
                url: "http://192.0.2.1:1".to_owned(),
                running: true,
                ok: error.is_empty(),
                decisions,
                last_pull_unix_secs: 1000,
                error: error.to_owned(),
                ..CrowdsecStatus::default()
            };
            status.pulls[Pull::Succeeded] = 7;
            self.write(STATUS_FILE, &serde_json::to_string(&status).unwrap());
        }
    }

    fn texts(prefixes: &[IpNet]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_handed_over_is_read_once_and_ends_with_the_file() {
        let (run, mut decisions) = Run::new();
        let now = Instant::now();
        assert!(!decisions.look(now));
        let status = decisions.status(1010);
        assert_eq!(
            (status.url.as_str(), status.running, status.ok),
            (URL, false, false)
        );
        assert!(status.error.contains("does not run"), "{status:?}");

        run.write(DENY_FILE, "# decisions\n192.0.2.7\n2001:db8::/32\n");
        run.figures(2, "");
        assert!(decisions.look(now));
        assert!(!decisions.look(now));
        assert_eq!(texts(decisions.banned()), ["192.0.2.7/32", "2001:db8::/32"]);
        let status = decisions.status(1010);
        assert_eq!(
            (status.url.as_str(), status.running, status.ok),
            (URL, true, true)
        );
        assert_eq!((status.decisions, status.last_pull_secs), (2, Some(10)));
        assert_eq!(status.pulls[Pull::Succeeded], 7);

        run.figures(2, "cannot be reached");
        assert!(!decisions.look(now));
        let status = decisions.status(900);
        assert_eq!((status.ok, status.running), (false, true));
        assert_eq!(
            (&*status.error, status.last_pull_secs),
            ("cannot be reached", Some(0))
        );

        // Figures that nothing renews are those of a process that is gone: no ban would end.
        assert!(decisions.look(now + STALE));
        let status = decisions.status(1010);
        assert_eq!(
            (status.running, status.ok, status.decisions),
            (false, false, 0)
        );
        assert_eq!(status.pulls[Pull::Succeeded], 7);
        assert_eq!(decisions.banned().len(), 0);

        run.figures(2, "");
        assert!(decisions.look(now + STALE));
        assert!(decisions.status(1010).ok);
        assert_eq!(decisions.banned().len(), 2);
        for name in [DENY_FILE, STATUS_FILE] {
            fs::remove_file(run.0.path().join(name)).unwrap();
        }
        assert!(decisions.look(now + STALE));
        assert_eq!(texts(decisions.banned()), [""; 0]);
        let status = decisions.status(1010);
        assert_eq!((status.running, status.decisions), (false, 0));
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_what_was_denied() {
        let (run, mut decisions) = Run::new();
        let now = Instant::now();
        run.figures(1, "");
        run.write(DENY_FILE, "192.0.2.7\n");
        assert!(decisions.look(now));
        for wrong in ["<html>\n", "nonsense\nmore\n"] {
            run.write(DENY_FILE, wrong);
            assert!(!decisions.look(now));
            let status = decisions.status(1010);
            assert!(
                !status.ok && status.error.contains("stay denied"),
                "{status:?}"
            );
            assert_eq!(texts(decisions.banned()), ["192.0.2.7/32"]);
        }
        let path = run.0.path().join(DENY_FILE);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!decisions.look(now));
        assert!(!decisions.status(1010).ok);
        fs::remove_dir(&path).unwrap();
        run.write(DENY_FILE, "192.0.2.7\n");
        assert!(!decisions.look(now));
        assert!(decisions.status(1010).ok);
        // Figures that are none are those of nothing that runs.
        run.write(STATUS_FILE, "{\"url\":7}");
        decisions.look(now);
        assert!(!decisions.status(1010).running);
    }

    #[test]
    fn without_the_table_nothing_is_banned() {
        let (run, mut decisions) = Run::new();
        run.figures(1, "");
        run.write(DENY_FILE, "192.0.2.7\n");
        assert!(decisions.look(Instant::now()));
        decisions.follow(None);
        assert!(decisions.look(Instant::now()));
        assert_eq!(decisions.banned(), []);
        assert_eq!(decisions.status(1010), CrowdsecStatus::default());
    }

    #[test]
    fn bans_are_beside_the_list() {
        let prefixes = |list: &[&str]| -> Vec<IpNet> {
            list.iter().map(|prefix| prefix.parse().unwrap()).collect()
        };
        let deny = prefixes(&["192.0.2.7/32", "2001:db8::/32"]);
        let banned = prefixes(&["192.0.2.1/32", "192.0.2.7/32"]);
        let all = ["192.0.2.1/32", "192.0.2.7/32", "2001:db8::/32"];
        assert_eq!(denied(&deny, &banned), prefixes(&all));
        assert_eq!(denied(&deny, &[]), deny);
    }
}
