//! Files with one entry a line. A `#` or a `;` begins a comment.
//!
//! Such files are written by other programs, downloaded, and sometimes cut off: a wrong line
//! is left out and reported, and never keeps the agent from starting.

#[cfg(test)]
mod tests;

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use super::{
    error::{Problem, ValueError},
    origin::{Origin, Position},
    resolved::ListFile,
    stamp::Stamp,
};
use crate::walk;

/// Most bytes of a file that are read.
const FILE_MAX: u64 = 64 << 20;
/// Most lines of one file that are reported singly.
const REPORTED_MAX: usize = 10;
/// Characters between the words of a line.
pub(super) const BLANK: [char; 2] = [' ', '\t'];
/// Characters that begin a comment.
pub(super) const COMMENT: [char; 2] = ['#', ';'];

/// The list that a file adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Allow,
    Deny,
    Domains,
}

impl List {
    /// The key that names the files.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Allow => "lists.allow_files",
            Self::Deny => "lists.deny_files",
            Self::Domains => "relay.domain_files",
        }
    }

    /// The word for an entry.
    const fn entry(self) -> &'static str {
        match self {
            Self::Allow | Self::Deny => "prefix",
            Self::Domains => "domain",
        }
    }
}

/// The content of a correct line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListLine {
    /// An entry.
    Entry,
    /// An entry that was corrected: a network with host bits.
    Corrected,
    /// No entry: a comment, a heading.
    Nothing,
}

/// The error of a line.
#[derive(Debug)]
pub(super) struct EntryError {
    /// The byte of the line that is wrong.
    pub(super) at: usize,
    pub(super) error: ValueError,
}

impl EntryError {
    pub(super) const fn new(at: usize, error: ValueError) -> Self {
        Self { at, error }
    }
}

/// A file with one entry a line.
#[derive(Clone, Debug)]
pub(super) struct LineFile {
    path: Arc<Path>,
    list: List,
}

impl LineFile {
    pub(super) fn new(path: &Path, list: List) -> Self {
        Self {
            path: path.into(),
            list,
        }
    }

    /// A place in the file. None: the file as a whole.
    pub(super) fn origin(&self, position: Option<Position>) -> Origin {
        Origin::File {
            path: Arc::clone(&self.path),
            position,
        }
    }

    /// A line of the log about a place in the file.
    pub(super) fn warning(&self, position: Option<Position>, text: String) -> String {
        Problem {
            origin: self.origin(position),
            text,
        }
        .to_string()
    }

    /// Calls `add` with each line and its number. Bytes that are not UTF-8 are replaced: a
    /// comment may have them, an entry is wrong then.
    pub(super) fn read(
        &self,
        add: impl FnMut(&str, usize) -> Result<ListLine, EntryError>,
    ) -> ListFile {
        self.read_at_most(FILE_MAX, add)
    }

    fn read_at_most(
        &self,
        max: u64,
        mut add: impl FnMut(&str, usize) -> Result<ListLine, EntryError>,
    ) -> ListFile {
        let mut file = ListFile {
            path: self.path.to_path_buf(),
            key: self.list.key(),
            ..ListFile::default()
        };
        let mut bytes = match self.bytes(max, &mut file.stamp) {
            Ok(bytes) => bytes,
            Err(text) => {
                file.warnings.push(self.warning(None, text.clone()));
                file.unread = Some(text);
                return file;
            }
        };
        let is_cut = bytes.len() as u64 > max;
        if is_cut {
            // The last line is incomplete.
            let end = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
            bytes.truncate(end);
        }
        // The byte order mark of some editors.
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let (mut corrected, mut first_corrected) = (0_usize, None);
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line);
            match add(&line, index + 1) {
                Ok(ListLine::Nothing) => {}
                Ok(ListLine::Entry) => file.entries += 1,
                Ok(ListLine::Corrected) => {
                    file.entries += 1;
                    corrected += 1;
                    first_corrected.get_or_insert(Position {
                        line: index + 1,
                        column: 1,
                    });
                }
                Err(EntryError { at, error }) => {
                    file.left_out += 1;
                    if file.left_out <= REPORTED_MAX {
                        let before = line.get(..at).unwrap_or(&line);
                        let position = Position {
                            line: index + 1,
                            column: before.chars().count() + 1,
                        };
                        let text = format!("left out: {error}");
                        file.warnings.push(self.warning(Some(position), text));
                    }
                }
            }
        }
        if file.left_out > REPORTED_MAX {
            let text = format!("{} more lines are left out", file.left_out - REPORTED_MAX);
            file.warnings.push(self.warning(None, text));
        }
        if is_cut {
            file.left_out += 1;
            let text =
                format!("is longer than {max} bytes: all that follows is left out; split it");
            file.warnings.push(self.warning(None, text));
        }
        if corrected > 0 {
            let text = format!(
                "is a network with bits set behind its length, or IPv4 written as IPv6: read as \
                 the network that it is in; lines like this: {corrected}"
            );
            file.warnings.push(self.warning(first_corrected, text));
        }
        // As when a server has answered the download with an HTML page.
        let none = file.entries == 0 || nomail_common::Mechanism::WrongLineSkipped.is_off();
        if none && file.left_out > 0 {
            let entry = self.list.entry();
            let text = format!("has no line that is a {entry}: is it the file it should be?");
            file.warnings.push(self.warning(None, text.clone()));
            file.unread = Some(text);
        }
        file
    }

    /// The bytes of the file, at most one more than `max`, or why it cannot be read. Its
    /// `stamp` is taken first, so that a later change is noticed.
    fn bytes(&self, max: u64, stamp: &mut Option<Stamp>) -> Result<Vec<u8>, String> {
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
        *stamp = Some(Stamp::of(&file).map_err(cannot)?);
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(format!("is not a file: name one with a {entry} a line"));
        }
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(cannot)?;
        Ok(bytes)
    }
}

/// The byte at which the first word of `line` begins.
pub(super) fn begin_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(BLANK).len()
}

/// `line` up to the first `#` or `;` that begins a word.
pub(super) fn without_comment(line: &str) -> &str {
    line.match_indices(COMMENT)
        .map(|(begin, _)| &line[..begin])
        .find(|before| before.is_empty() || before.ends_with(BLANK))
        .unwrap_or(line)
}
