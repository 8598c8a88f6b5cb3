//! The files of an agent.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A directory that every account may enter, as the agent's has to; gone on drop.
#[derive(Debug)]
pub struct Files(TempDir);

impl Files {
    /// An empty one.
    ///
    /// # Panics
    /// Without room for it.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        Self(directory)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as TOML writes it.
    pub fn quoted(&self, name: &str) -> String {
        format!("{:?}", self.path(name))
    }

    /// Starts an agent on the lab's host with the file nomail.toml, without waiting, by a
    /// command that ends in becoming it.
    ///
    /// # Panics
    /// Writes a file.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("a file is written");
    }
}

/// Copies a program that is about to be run. A process of its own writes it: in this one,
/// what another thread forks meanwhile would hold the file open for writing, and execve(2)
/// of such a file fails (ETXTBSY).
///
/// # Panics
/// When that fails.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args([from, to])
        .status()
        .expect("cp runs");
    assert!(
        copied.success(),
        "{} is not copied to {}",
        from.display(),
        to.display()
    );
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}
