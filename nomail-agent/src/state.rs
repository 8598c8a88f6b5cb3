//! What outlives the process: the memory of `refuse_at = "auto"`, one file in
//! `state_dir`, replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use log::{info, warn};

use crate::smtp::{Senders, senders::FILE_MAX, unix_now};

/// The file in the directory, and the one that becomes it.
pub(crate) const FILE: &str = "senders";
const NEW_FILE: &str = "senders.new";

/// Where the memory is kept.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// A failure was told, and will not be again until it is over.
    failing: bool,
}

impl State {
    /// The directory, if it is there.
    pub fn new(directory: &Path) -> Option<Self> {
        directory.is_dir().then(|| Self {
            directory: directory.to_owned(),
            failing: false,
        })
    }

    /// What an earlier agent remembered. Where that cannot be read nobody knows
    /// who was here, so everybody is answered as if he had been.
    pub fn load(&self, age_secs: u32) -> Senders {
        let path = self.directory.join(FILE);
        match read(&path, age_secs) {
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

    /// Writes the memory down; whether that could be done. A failure leaves the
    /// file as it was.
    pub fn save(&mut self, senders: &Senders) -> bool {
        match write(&self.directory, &senders.save(unix_now())) {
            Ok(()) => {
                self.failing = false;
                return true;
            }
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(
                    "the memory of refuse_at = \"auto\" cannot be written to {}, and will be lost \
                     with the process: {error:#}",
                    self.directory.display()
                );
            }
            Err(_) => {}
        }
        false
    }
}

fn read(path: &Path, age_secs: u32) -> Result<Option<Senders>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut octets = Vec::new();
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut octets)?;
    Ok(Some(Senders::restore(&octets, unix_now(), age_secs)?))
}

fn write(directory: &Path, text: &str) -> Result<()> {
    let new = directory.join(NEW_FILE);
    let written = || -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }();
    if let Err(error) = written {
        // There may be nothing to remove.
        let _ = fs::remove_file(&new);
        return Err(error).with_context(|| new.display().to_string());
    }
    let path = directory.join(FILE);
    fs::rename(&new, &path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::smtp::senders::Rung;

    const AGE: u32 = 3600;
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn what_was_saved_is_loaded_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = State::new(directory.path()).unwrap();
        let mut senders = state.load(AGE);
        assert_eq!(senders.contact(PEER, unix_now()), Rung::Greeting);
        assert!(state.save(&senders));
        let mode = fs::metadata(directory.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(state.load(AGE).contact(PEER, unix_now()), Rung::Rcpt);
        assert!(!directory.path().join(NEW_FILE).exists());
    }

    #[test]
    fn a_file_that_cannot_be_read_means_rcpt_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::new(directory.path()).unwrap();
        for content in [&b"nonsense"[..], b"\xff\xfe", b""] {
            fs::write(directory.path().join(FILE), content).unwrap();
            assert_eq!(state.load(AGE).contact(PEER, unix_now()), Rung::Rcpt);
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, directory.path().join(NEW_FILE)).unwrap();
        let mut state = State::new(directory.path()).unwrap();
        assert!(!state.save(&Senders::new(AGE)));
        assert!(state.failing);
        assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
    }

    #[test]
    fn without_the_directory_nothing_is_kept() {
        assert!(State::new(Path::new("/nonexistent/nomail")).is_none());
    }
}
