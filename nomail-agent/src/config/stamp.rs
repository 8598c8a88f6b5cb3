//! Notices that a file was replaced or changed, without reading it.

use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::walk::{self, WalkError};

/// Tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// The same of the inode: its owner, mode or name.
    pub(super) changed: (i64, i64),
}

impl Stamp {
    /// The stamp of an open file.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// The stamp of the file at `path`, which is opened as [`walk::open_file`] does.
    ///
    /// # Errors
    /// The file is not there, or must not be followed.
    pub fn at(path: &Path) -> io::Result<Self> {
        let file = walk::open_file(path).map_err(WalkError::into_io)?;
        Self::of(&file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_stamp_knows_a_file_that_was_replaced_or_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny");
        assert!(Stamp::at(&path).is_err());
        fs::write(&path, "192.0.2.1\n").unwrap();
        let first = Stamp::at(&path).unwrap();
        assert_eq!(Stamp::at(&path).unwrap(), first);
        let new = directory.path().join("new");
        fs::write(&new, "192.0.2.2\n").unwrap();
        fs::rename(&new, &path).unwrap();
        let replaced = Stamp::at(&path).unwrap();
        assert_ne!(replaced, first);
        fs::write(&path, "192.0.2.20\n").unwrap();
        assert_ne!(Stamp::at(&path).unwrap(), replaced);
    }
}
