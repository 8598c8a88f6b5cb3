//! The account of the agent, and paths.

use std::path::PathBuf;

use super::{
    error::{ValueError, quoted, wrong},
    layer::Value,
};

/// The state directory by default.
const DEFAULT_STATE_DIR: &str = "/var/lib/nomail";
/// Longest path of a Unix socket, sun_path without the final NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Longest user name of useradd(8).
const USER_NAME_MAX: usize = 32;
/// Most files that one key names.
const LIST_FILES_MAX: usize = 64;

/// The account that the agent runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// A name or a numeric uid.
    pub value: String,
    /// Whether the operator named no account.
    pub is_default: bool,
}

impl Default for User {
    fn default() -> Self {
        Self {
            value: "nomail".to_owned(),
            is_default: true,
        }
    }
}

/// A user by name or number.
pub(super) fn user(value: &Value) -> Result<User, ValueError> {
    let give = "give the name or the uid of an account without privileges";
    let name = match value {
        Value::Integer(uid) => uid.to_string(),
        _ => value.text()?.to_owned(),
    };
    let shown = quoted(&name);
    let numeric = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if name == "root" || (numeric && name.bytes().all(|byte| byte == b'0')) {
        return wrong(format!("{shown} is root: {give}"));
    }
    // The largest uid means "no change" to the kernel.
    if numeric && name.parse::<u32>().is_ok_and(|uid| uid != u32::MAX) {
        return Ok(User {
            value: name,
            is_default: false,
        });
    }
    let portable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let stem = name.strip_suffix('$').unwrap_or(&name);
    if numeric
        || stem.is_empty()
        || name.len() > USER_NAME_MAX
        || name.starts_with('-')
        || !stem.bytes().all(portable)
    {
        return wrong(format!("{shown} is neither a user name nor a uid: {give}"));
    }
    Ok(User {
        value: name,
        is_default: false,
    })
}

/// The directory for what a restart must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// The directory; absolute.
    pub path: PathBuf,
    /// Whether the operator named no directory.
    pub is_default: bool,
}

impl Default for StateDir {
    fn default() -> Self {
        Self {
            path: PathBuf::from(DEFAULT_STATE_DIR),
            is_default: true,
        }
    }
}

/// The absolute path of a directory for the agent alone.
pub(super) fn state_dir(value: &Value) -> Result<StateDir, ValueError> {
    Ok(StateDir {
        path: absolute_path(value.text()?, "directory")?,
        is_default: false,
    })
}

/// The absolute path of a Unix socket.
pub(super) fn socket_path(value: &Value) -> Result<PathBuf, ValueError> {
    let text = value.text()?;
    let shown = quoted(text);
    if text.chars().any(char::is_control) {
        return wrong(format!("{shown} has control characters: give a plain path"));
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.file_name().is_none() {
        return wrong(format!(
            "{shown} is not the absolute path of a file: give one"
        ));
    }
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return wrong(format!(
            "{shown} is longer than the {SOCKET_PATH_MAX} bytes of a socket's path: give a \
             shorter one"
        ));
    }
    Ok(path)
}

/// The absolute path of a directory in a BPF file system, where names have no dots.
pub(super) fn pin_dir(value: &Value) -> Result<PathBuf, ValueError> {
    let path = absolute_path(value.text()?, "directory")?;
    let has_dot = |name: &std::ffi::OsStr| name.as_encoded_bytes().contains(&b'.');
    if path.file_name().is_some_and(has_dot) {
        return wrong(format!(
            "{} ends in a name with a dot, which a BPF file system does not take: leave it out",
            quoted(value.text()?)
        ));
    }
    Ok(path)
}

/// A file with one entry a line, after those `before` it.
pub(super) fn list_file(text: &str, before: &[PathBuf]) -> Result<PathBuf, ValueError> {
    let path = absolute_path(text, "file")?;
    if before.contains(&path) {
        return wrong(format!("{} is named twice: leave one out", quoted(text)));
    }
    if before.len() >= LIST_FILES_MAX {
        return wrong(format!(
            "{} is one more than the {LIST_FILES_MAX} files that are read: put some together",
            quoted(text)
        ));
    }
    Ok(path)
}

/// An absolute path that ends in a name.
pub(super) fn absolute_path(text: &str, what: &str) -> Result<PathBuf, ValueError> {
    let shown = quoted(text);
    if text.chars().any(char::is_control) {
        return wrong(format!("{shown} has control characters: give a plain path"));
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.file_name().is_none() {
        return wrong(format!(
            "{shown} is not the absolute path of a {what}: give one"
        ));
    }
    Ok(path)
}
