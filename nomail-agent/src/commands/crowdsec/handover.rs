//! The files by which decisions reach the agent, each replaced as a whole.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use log::{info, warn};

use crate::status::{CrowdsecStatus, DENY_FILE, STATUS_FILE};

/// What the name of a file ends in until it is complete.
const NEW: &str = ".new";
/// Every account may read the files: the agent has another one than this process.
const MODE: u32 = 0o644;

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Handover {
    directory: PathBuf,
    /// The prefixes in the file. None: there is none, or an old one.
    written: Option<Vec<IpNet>>,
    /// A failure was logged, and is not logged again before a success.
    failing: bool,
}

impl Handover {
    /// Takes the directory over. What an earlier process left in it is removed: how long its
    /// decisions hold is not known.
    pub(super) fn new(directory: &Path) -> Self {
        let handover = Self {
            directory: directory.to_owned(),
            written: None,
            failing: false,
        };
        handover.clear();
        handover
    }

    /// Removes the files, so that the agent lifts all bans.
    pub(super) fn clear(&self) {
        for name in [DENY_FILE, STATUS_FILE] {
            let path = self.directory.join(name);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!("{}: cannot be removed: {error}", path.display());
            }
        }
    }

    /// Writes what is banned, if that has changed, and then the figures. What fails is tried
    /// again the next time.
    pub(super) fn write(&mut self, banned: Option<Vec<IpNet>>, status: &CrowdsecStatus) {
        match self.try_write(banned, status) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("decisions are written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        event = "crowdsec_unwritten";
                        "decisions cannot be written to {}, so that the agent keeps those of \
                         before: {error}",
                        self.directory.display()
                    );
                }
            }
        }
    }

    fn try_write(&mut self, banned: Option<Vec<IpNet>>, status: &CrowdsecStatus) -> io::Result<()> {
        if banned.is_some() && banned != self.written {
            replace(&self.directory, DENY_FILE, &lines(banned.iter().flatten()))?;
            self.written = banned;
        }
        let json = serde_json::to_string(status)?;
        replace(&self.directory, STATUS_FILE, &(json + "\n"))
    }
}

fn lines<'a>(prefixes: impl Iterator<Item = &'a IpNet>) -> String {
    let mut text = "# Decisions of CrowdSec, written by nomail-agent crowdsec.\n".to_owned();
    for prefix in prefixes {
        // A string takes all that is written to it.
        let _ = writeln!(text, "{prefix}");
    }
    text
}

/// Replaces a file as a whole: a reader finds the old one or the new one.
fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = directory.join(format!("{name}{NEW}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, directory.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn prefixes(list: &[&str]) -> Option<Vec<IpNet>> {
        Some(list.iter().map(|prefix| prefix.parse().unwrap()).collect())
    }

    #[test]
    fn files_are_replaced_and_the_list_only_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut handover = Handover::new(directory.path());
        let mut status = CrowdsecStatus::default();
        handover.write(None, &status);
        assert!(!path(DENY_FILE).exists() && path(STATUS_FILE).exists());

        handover.write(prefixes(&["192.0.2.7/32", "2001:db8::/32"]), &status);
        let text = fs::read_to_string(path(DENY_FILE)).unwrap();
        let listed: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(listed, ["192.0.2.7/32", "2001:db8::/32"]);
        let (banned, file) = crate::config::read_prefixes(&path(DENY_FILE), 10);
        assert_eq!(
            (Some(banned.to_vec()), file.unread),
            (prefixes(&listed), None)
        );
        let mode = fs::metadata(path(DENY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);

        let inode = || fs::metadata(path(DENY_FILE)).unwrap().ino();
        let first = fs::File::open(path(DENY_FILE)).unwrap();
        let before = inode();
        status.decisions = 2;
        handover.write(prefixes(&listed), &status);
        assert_eq!(inode(), before);
        let figures: CrowdsecStatus =
            serde_json::from_slice(&fs::read(path(STATUS_FILE)).unwrap()).unwrap();
        assert_eq!(figures, status);
        handover.write(prefixes(&[]), &status);
        assert_ne!(inode(), before);
        drop(first);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);

        // As at the start of the next process.
        Handover::new(directory.path());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let mut handover = Handover::new(&run);
        let status = CrowdsecStatus::default();
        handover.write(prefixes(&["192.0.2.7/32"]), &status);
        assert!(handover.failing);
        fs::create_dir(&run).unwrap();
        handover.write(prefixes(&["192.0.2.7/32"]), &status);
        assert!(!handover.failing && run.join(DENY_FILE).exists());
    }
}
