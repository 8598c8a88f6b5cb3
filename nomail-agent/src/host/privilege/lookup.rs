//! Looking up users and groups.

use nix::errno::Errno;

/// The result of looking up an account. Some C libraries and name services report "not found"
/// as one of the errors that getpwnam(3) lists: without any file below /etc it is ENOENT.
pub(super) fn found<T>(asked: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match asked {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        asked => asked,
    }
}

#[cfg(test)]
mod tests;
