//! Files of one entry a line, in UTF-8. A `#` at the beginning of a word begins
//! a comment.

#[cfg(test)]
mod tests;

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use super::error::{Origin, Position, Problem, ValueError};
use crate::walk;

/// Longest file that is read.
const FILE_MAX: u64 = 64 << 20;
/// Most problems of one file that are told one by one.
const PROBLEMS_MAX: usize = 10;
/// What separates the words of a line.
pub(super) const BLANK: [char; 2] = [' ', '\t'];

/// What files add to, in the order in which their problems are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    Allow,
    Deny,
    Domains,
}

impl List {
    /// The key that names the files.
    const fn key(self) -> &'static str {
        match self {
            Self::Allow => "lists.allow_files",
            Self::Deny => "lists.deny_files",
            Self::Domains => "relay.domain_files",
        }
    }

    /// What an entry is.
    const fn entry(self) -> &'static str {
        match self {
            Self::Allow | Self::Deny => "prefix",
            Self::Domains => "domain",
        }
    }
}

/// An entry that is wrong.
#[derive(Debug)]
pub(super) struct EntryError {
    /// The octet of the entry at which it is wrong.
    pub(super) at: usize,
    pub(super) error: ValueError,
    /// Whether reading on is of no use.
    pub(super) is_last: bool,
}

impl EntryError {
    /// One that does not end the reading.
    pub(super) const fn new(at: usize, error: ValueError) -> Self {
        Self {
            at,
            error,
            is_last: false,
        }
    }
}

/// A file, the `number`th of its list.
#[derive(Clone, Debug)]
pub(super) struct LineFile {
    path: Arc<Path>,
    list: List,
    number: usize,
}

impl LineFile {
    pub(super) fn new(path: &Path, list: List, number: usize) -> Self {
        Self {
            path: path.into(),
            list,
            number,
        }
    }

    /// A place in the file. None: the file as a whole.
    pub(super) fn origin(&self, position: Option<Position>) -> Origin {
        Origin::LineFile {
            path: Arc::clone(&self.path),
            list: self.list,
            number: self.number,
            position,
        }
    }

    /// Gives `add` each line that has an entry, without its comment, and where
    /// the entry begins. Returns whether there was none, as far as is known.
    pub(super) fn read(
        &self,
        problems: &mut Vec<Problem>,
        mut add: impl FnMut(&str, Position) -> Result<(), EntryError>,
    ) -> bool {
        let problem = |position, text| Problem {
            origin: self.origin(position),
            text,
        };
        let octets = match self.octets(FILE_MAX) {
            Ok(octets) => octets,
            Err(text) => {
                problems.push(problem(None, text));
                return false;
            }
        };
        let text = match str::from_utf8(&octets) {
            Ok(text) => text,
            Err(error) => {
                let valid = octets.get(..error.valid_up_to()).unwrap_or_default();
                let valid = String::from_utf8_lossy(valid);
                let last = valid.rsplit('\n').next().unwrap_or_default();
                let position = Position {
                    line: valid.bytes().filter(|&octet| octet == b'\n').count() + 1,
                    column: last.chars().count() + 1,
                };
                let text = "not UTF-8: write the file in UTF-8".to_owned();
                problems.push(problem(Some(position), text));
                return false;
            }
        };
        // What some editors put first.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut is_empty = true;
        let mut wrong = 0_usize;
        for (line_number, line) in text.lines().enumerate() {
            let entry = without_comment(line);
            let begin = begin_of(entry);
            if begin == entry.len() {
                continue;
            }
            is_empty = false;
            let position = |octet: usize| Position {
                line: line_number + 1,
                column: line.get(..octet).unwrap_or(line).chars().count() + 1,
            };
            if let Err(error) = add(entry, position(begin)) {
                wrong += 1;
                if wrong <= PROBLEMS_MAX || error.is_last {
                    let position = position(error.at);
                    problems.push(problem(Some(position), error.error.to_string()));
                }
                if error.is_last {
                    return false;
                }
            }
        }
        if wrong > PROBLEMS_MAX {
            let text = format!("and {} more problems", wrong - PROBLEMS_MAX);
            problems.push(problem(None, text));
        }
        is_empty
    }

    /// All of the file, or what is wrong with it.
    fn octets(&self, max: u64) -> Result<Vec<u8>, String> {
        let (key, entry) = (self.list.key(), self.list.entry());
        let cannot = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no such file: create it, or leave it out of {key}")
            }
            io::ErrorKind::PermissionDenied => format!(
                "cannot be read: {error}: let the agent's user read it; a directory that the \
                 agent did not know at its start needs a restart"
            ),
            _ => format!("cannot be read: {error}"),
        };
        let file = walk::open_file(&self.path).map_err(|error| cannot(error.into_io()))?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(format!("is not a file: name one with a {entry} a line"));
        }
        let mut octets = Vec::new();
        file.take(max + 1)
            .read_to_end(&mut octets)
            .map_err(cannot)?;
        if octets.len() as u64 > max {
            return Err(format!("is longer than {max} octets: split it"));
        }
        Ok(octets)
    }
}

/// The octet at which the first word of `entry` begins.
pub(super) fn begin_of(entry: &str) -> usize {
    entry.len() - entry.trim_start_matches(BLANK).len()
}

/// `line` up to the first `#` that begins a word.
fn without_comment(line: &str) -> &str {
    line.match_indices('#')
        .map(|(begin, _)| &line[..begin])
        .find(|before| before.is_empty() || before.ends_with(BLANK))
        .unwrap_or(line)
}
