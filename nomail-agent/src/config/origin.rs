//! Where a value was written.

use std::{fmt, path::Path, sync::Arc};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A configuration file, or a list file that it names.
    File {
        path: Arc<Path>,
        position: Option<Position>,
    },
    /// An option of the command line: `--syn-rate`.
    Flag(&'static str),
    /// A variable of the environment: `NOMAIL_SYN_RATE`.
    Environment(&'static str),
}

impl Origin {
    /// The file as a whole.
    pub(super) fn whole_file(path: &Path) -> Self {
        Self::File {
            path: path.into(),
            position: None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position } => {
                path.display().fmt(out)?;
                match position {
                    Some(Position { line, column }) => write!(out, ":{line}:{column}"),
                    None => Ok(()),
                }
            }
            Self::Flag(name) | Self::Environment(name) => out.write_str(name),
        }
    }
}

/// A place in a text, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}
