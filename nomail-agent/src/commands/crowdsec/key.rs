//! The key of the API: read from a file, sent to the API, and shown nowhere.

use std::{
    fmt,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use hyper::header::HeaderValue;
use log::warn;
use thiserror::Error;

use crate::walk::{self, WalkError};

/// Longest file that is read; a key has 32 or 43 bytes.
const FILE_MAX: u64 = 1024;

/// The key of an API. It cannot be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(HeaderValue);

/// Why there is no key. Displayed as one line that names the file and the remedy.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("crowdsec.api_key_file: {}: cannot be read: {error}: {}", path.display(), remedy(error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is something else in it.
    #[error(
        "crowdsec.api_key_file: {}: has no key in it: write what `cscli bouncers add nomail -o \
         raw` prints, and nothing else",
        .0.display()
    )]
    NoKey(PathBuf),
}

impl KeyError {
    /// Whether the file is there, and this account may not read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. }
            if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "write into it what `cscli bouncers add nomail -o raw` prints",
        io::ErrorKind::PermissionDenied => {
            "give it to the group nomail with mode 0640; another directory than at the start needs \
             a restart of nomail-crowdsec"
        }
        _ => "name a file with the key",
    }
}

impl ApiKey {
    /// Reads the file, and warns if every account of the host can.
    ///
    /// # Errors
    /// It cannot be read, or has something else in it than a key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let (text, mode) = read(path).map_err(|error| KeyError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        let key = text
            .and_then(|text| Self::parse(&text))
            .ok_or_else(|| KeyError::NoKey(path.to_owned()))?;
        if mode & 0o004 != 0 {
            warn!(
                "{}: every account of this host can read the key of CrowdSec's API: `chmod o= {}`",
                path.display(),
                path.display()
            );
        }
        Ok(key)
    }

    fn parse(text: &str) -> Option<Self> {
        let word = text.trim_ascii();
        let is_key = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = HeaderValue::from_str(word).ok().filter(|_| is_key)?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// The value of the request's header.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ApiKey")
    }
}

/// What is in the file, if that is a short text, and its mode.
fn read(path: &Path) -> io::Result<(Option<String>, u32)> {
    let file = walk::open_file(path).map_err(WalkError::into_io)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).ok();
    let text = text.filter(|text| text.len() as u64 <= FILE_MAX);
    Ok((text, metadata.permissions().mode()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_one_word_and_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let missing = ApiKey::read(&file).unwrap_err().to_string();
        assert!(
            missing.contains("`cscli bouncers add nomail -o raw`"),
            "{missing}"
        );
        fs::write(&file, "\n 0123456789abcdef+/= \n").unwrap();
        let key = ApiKey::read(&file).unwrap();
        assert_eq!(key.header(), "0123456789abcdef+/=");
        assert_eq!(format!("{key:?} {:?}", key.header()), "ApiKey Sensitive");
        for wrong in ["", " \n", "a b", "a\nb", "a\u{1b}b", "ü", &"a".repeat(1025)] {
            fs::write(&file, wrong).unwrap();
            let error = ApiKey::read(&file).unwrap_err();
            assert!(matches!(error, KeyError::NoKey(_)), "{wrong:?}: {error}");
            assert!(wrong.len() < 3 || !error.to_string().contains(wrong));
        }
        fs::write(&file, b"\xff\xfe").unwrap();
        assert!(ApiKey::read(&file).is_err());
        let error = ApiKey::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("it is not a file"), "{error}");
    }
}
