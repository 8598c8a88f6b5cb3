//! The files in `state_dir`, each replaced as a whole: the memory of `refuse_at = "auto"`, and
//! the domains that mail arrives for.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use log::{info, warn};

use crate::smtp::{ForeignDomains, Senders, foreign, senders, unix_now};

/// The file of the memory of `auto`.
pub(crate) const FILE: &str = "senders";
/// The file of the domains that mail arrives for.
pub(crate) const DOMAINS_FILE: &str = "domains";
/// Suffix of a file that is to replace one of these.
const NEW: &str = ".new";

/// The state directory.
#[derive(Debug)]
pub struct SavedState {
    directory: PathBuf,
    /// The last write failed, which was logged.
    failing: bool,
    /// Hashes of the contents last written, by file: the same content is not written again.
    written: BTreeMap<&'static str, u64>,
}

impl SavedState {
    /// The directory, if it exists.
    pub fn new(directory: &Path) -> Option<Self> {
        directory.is_dir().then(|| Self {
            directory: directory.to_owned(),
            failing: false,
            written: BTreeMap::new(),
        })
    }

    /// Loads what an earlier agent remembered. If that cannot be read, every network is
    /// treated as one that was here before.
    pub fn load(&self, age_secs: u32) -> Senders {
        let path = self.directory.join(FILE);
        let restored = read(&path, senders::FILE_LEN).and_then(|bytes| {
            let restore = |bytes: Vec<u8>| Senders::restore(&bytes, unix_now(), age_secs);
            Ok(bytes.map(restore).transpose()?)
        });
        match restored {
            Ok(None) => Senders::new(age_secs),
            Ok(Some(senders)) => {
                info!("{}: {} networks remembered", path.display(), senders.len());
                senders
            }
            Err(error) => {
                warn!(
                    "{}: cannot be used, so that all mail is refused at RCPT until networks are \
                     known again: {error:#}",
                    path.display()
                );
                Senders::forgotten(age_secs, unix_now())
            }
        }
    }

    /// Loads the domains that mail has arrived for. If they cannot be read, the list starts
    /// empty.
    pub fn load_domains(&self) -> ForeignDomains {
        let path = self.directory.join(DOMAINS_FILE);
        let domains = match read(&path, foreign::FILE_MAX) {
            Ok(None) => return ForeignDomains::default(),
            Ok(Some(bytes)) => ForeignDomains::restore(&bytes, unix_now())
                .ok_or_else(|| anyhow!("is not what nomail wrote")),
            Err(error) => Err(error),
        };
        domains.unwrap_or_else(|error| {
            warn!(
                "{}: cannot be used, so that the list of domains that mail arrives for starts \
                 empty: {error:#}",
                path.display()
            );
            ForeignDomains::default()
        })
    }

    /// Saves what has changed of both. Returns whether that succeeded.
    pub fn save_all(&mut self, senders: &Senders, domains: &ForeignDomains) -> bool {
        let text = domains.save(unix_now());
        self.save(senders) && self.write(DOMAINS_FILE, text.as_bytes())
    }

    /// Saves the memory of `auto`. Returns whether that succeeded: a failure leaves the file as
    /// it was.
    pub fn save(&mut self, senders: &Senders) -> bool {
        self.write(FILE, &senders.save())
    }

    fn write(&mut self, name: &'static str, bytes: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        if self.written.get(name) == Some(&hash) {
            return true;
        }
        match write(&self.directory, name, bytes) {
            Ok(()) => {
                self.failing = false;
                self.written.insert(name, hash);
                return true;
            }
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(
                    "what nomail remembers of senders and domains cannot be written to {}, and will \
                     be lost with the process: {error:#}",
                    self.directory.display()
                );
            }
            Err(_) => {}
        }
        false
    }
}

/// Reads the file, if it exists, up to one byte more than `max`.
fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let new = directory.join(format!("{name}{NEW}"));
    let written = || -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&new)?;
        // Without fsync(2), which would stall the loop for as long as the disk takes: a file
        // that a power failure has cut off is recognised, and then `auto` refuses at RCPT.
        file.write_all(bytes)
    }();
    if let Err(error) = written {
        // There may be nothing to remove.
        let _ = fs::remove_file(&new);
        return Err(error).with_context(|| new.display().to_string());
    }
    let path = directory.join(name);
    fs::rename(&new, &path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::refusal::RefusalPoint;

    const AGE: u32 = 3600;
    const NEW_FILE: &str = "senders.new";
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn what_was_saved_is_loaded_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SavedState::new(directory.path()).unwrap();
        let mut senders = state.load(AGE);
        assert_eq!(senders.contact(PEER, unix_now()), RefusalPoint::Greeting);
        assert!(state.save(&senders));
        let mode = fs::metadata(directory.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            state.load(AGE).contact(PEER, unix_now()),
            RefusalPoint::Rcpt
        );
        assert!(!directory.path().join(NEW_FILE).exists());
    }

    #[test]
    fn a_file_that_cannot_be_read_means_rcpt_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let state = SavedState::new(directory.path()).unwrap();
        let cut = b"nomail senders 1\n192.0.2.0/24 17640";
        let zeros = [&b"nomail senders 1\n"[..], &[0; 32]].concat();
        for content in [&b"nonsense"[..], b"\xff\xfe", b"", cut, &zeros] {
            fs::write(directory.path().join(FILE), content).unwrap();
            assert_eq!(
                state.load(AGE).contact(PEER, unix_now()),
                RefusalPoint::Rcpt
            );
        }
    }

    #[test]
    fn domains_are_kept_over_a_restart_and_nonsense_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SavedState::new(directory.path()).unwrap();
        let mut domains = state.load_domains();
        assert!(domains.list(unix_now()).is_empty());
        domains.record(b"example.org", PEER, unix_now(), true);
        assert!(state.save_all(&Senders::new(AGE), &domains));
        let kept = state.load_domains().list(unix_now());
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].name, "example.org");
        let file = directory.path().join(DOMAINS_FILE);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for content in [&b"nonsense"[..], b"\xff\xfe", b"", b"nomail domains 1\nx\n"] {
            fs::write(&file, content).unwrap();
            assert!(state.load_domains().list(unix_now()).is_empty());
        }
    }

    #[test]
    fn a_warning_is_remembered_and_what_is_the_same_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = SavedState::new(directory.path()).unwrap();
        let (senders, mut domains) = (Senders::new(AGE), ForeignDomains::default());
        for last in [1, 200] {
            let peer = IpAddr::from([192, 0, last, 7]);
            domains.record(b"example.org", peer, unix_now(), true);
        }
        assert!(state.save_all(&senders, &domains));
        // Nothing else has happened since.
        assert_eq!(domains.take_due(unix_now()).len(), 1);
        assert!(state.save_all(&senders, &domains));
        assert!(state.load_domains().take_due(unix_now()).is_empty());

        let file = directory.path().join(DOMAINS_FILE);
        fs::write(&file, "of another").unwrap();
        assert!(state.save_all(&senders, &domains));
        assert_eq!(fs::read_to_string(&file).unwrap(), "of another");
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, directory.path().join(NEW_FILE)).unwrap();
        let mut state = SavedState::new(directory.path()).unwrap();
        assert!(!state.save(&Senders::new(AGE)));
        assert!(state.failing);
        assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
    }

    #[test]
    fn without_the_directory_nothing_is_kept() {
        assert!(SavedState::new(Path::new("/nonexistent/nomail")).is_none());
    }
}
