//! List files that are replaced or changed while the agent runs.

use std::path::PathBuf;

use super::{keys::Config, stamp::Stamp};

/// Looks in a row that must find a changed file as the one before did, so that a file
/// that is written in place is not read half-written.
const SETTLED_LOOKS: u32 = 2;

/// The list files of a configuration, each with the stamp that it was read with.
#[derive(Debug, Default)]
pub struct WatchedLists(Vec<(PathBuf, WatchedFile)>);

impl WatchedLists {
    /// The files of `config`, which has just been read.
    pub fn new(config: &Config) -> Self {
        let files = config.list_files();
        Self(
            files
                .map(|file| (file.path.clone(), WatchedFile::new(file.stamp)))
                .collect(),
        )
    }

    /// Whether a file differs from what was read, and is no longer being written. Each
    /// change is reported once.
    pub fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, watched) in &mut self.0 {
            changed |= watched.look(Stamp::at(path).ok());
        }
        changed
    }
}

/// A file, by its stamps; without one it cannot be opened.
#[derive(Debug)]
struct WatchedFile {
    taken: Option<Stamp>,
    last: Option<Stamp>,
    /// Looks in a row that found it like `last`.
    same: u32,
}

impl WatchedFile {
    const fn new(taken: Option<Stamp>) -> Self {
        Self {
            taken,
            last: taken,
            same: 0,
        }
    }

    /// Whether it has settled as something else than was taken; then that is taken.
    fn look(&mut self, now: Option<Stamp>) -> bool {
        self.same = match now == self.last {
            true => self.same.saturating_add(1),
            false => 0,
        };
        self.last = now;
        let changed = nomail_common::Mechanism::ListsWatched.is_on()
            && now != self.taken
            && self.same >= SETTLED_LOOKS;
        if changed {
            self.taken = now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stamp(size: u64) -> Option<Stamp> {
        Some(Stamp {
            device: 1,
            inode: 2,
            size,
            modified: (3, 4),
            changed: (5, 6),
        })
    }

    fn looks(watched: &mut WatchedFile, found: &[Option<Stamp>]) -> Vec<bool> {
        found.iter().map(|found| watched.look(*found)).collect()
    }

    #[test]
    fn a_change_is_reported_once_and_when_it_has_settled() {
        let mut watched = WatchedFile::new(stamp(1));
        let growing = [stamp(1), stamp(2), stamp(3), stamp(3), stamp(3), stamp(3)];
        assert_eq!(
            looks(&mut watched, &growing),
            [false, false, false, false, true, false]
        );
        // Back before it settled: what was taken is still true.
        let back = [stamp(4), stamp(3), stamp(3), stamp(3), stamp(3)];
        assert_eq!(looks(&mut watched, &back), [false; 5]);
    }

    #[test]
    fn a_file_that_goes_and_comes_is_two_changes() {
        let mut watched = WatchedFile::new(stamp(1));
        let gone = [None, None, None, None];
        assert_eq!(looks(&mut watched, &gone), [false, false, true, false]);
        let back = [stamp(1), stamp(1), stamp(1), stamp(1)];
        assert_eq!(looks(&mut watched, &back), [false, false, true, false]);
        // Replaced by rename within one look after the other.
        let replaced = [None, stamp(2), stamp(2), stamp(2)];
        assert_eq!(looks(&mut watched, &replaced), [false, false, false, true]);
    }
}
