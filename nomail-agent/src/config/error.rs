//! What is wrong with a configuration: all of it, each with its place.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::text::escaped;

/// Most characters of a value or a key that an error repeats.
pub(super) const SHOWN_MAX: usize = 64;

/// Everything that is wrong with a configuration.
///
/// Displayed as one line for each problem, without a line feed at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The problems: those of the file first and in its order, then those of its
    /// drop-ins, whose paths sort behind its own.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_cached_key(|problem| match &problem.origin {
            Origin::File { path, position } => (0, Some(Arc::clone(path)), *position),
            Origin::Flag(_) => (1, None, None),
            Origin::Environment(_) => (2, None, None),
        });
        Self { problems }
    }

    /// Each problem on a line of its own, for a log that writes single lines.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(ToString::to_string)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                out.write_str("\n")?;
            }
            problem.fmt(out)?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// One thing that is wrong. Displayed as a single line without control
/// characters, whatever the input was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) origin: Origin,
    pub(super) text: String,
}

impl Problem {
    /// `key` has a bad value. A file's line names the key; flags and variables
    /// have their own names.
    pub(super) fn with_value(origin: &Origin, key: &str, error: &ValueError) -> Self {
        let ValueError::Wrong(text) = error;
        let text = match origin {
            Origin::File { .. } => format!("{key}: {text}"),
            _ => text.clone(),
        };
        Self {
            origin: origin.clone(),
            text,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&escaped(&format!("{}: {}", self.origin, self.text)))
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a file, or in one that it names.
    File {
        path: Arc<Path>,
        position: Option<Position>,
    },
    /// On the command line, in this option.
    Flag(&'static str),
    /// In this variable of the environment.
    Environment(&'static str),
}

impl Origin {
    /// The file as a whole.
    pub(super) fn whole_file(path: &Path) -> Self {
        Self::File {
            path: PathBuf::from(path).into(),
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

/// What is wrong with a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// No version takes it.
    #[error("{0}")]
    Wrong(String),
}

/// A [`ValueError::Wrong`], ready to be returned.
pub(super) fn wrong<T>(text: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError::Wrong(text.into()))
}

/// A value as errors repeat it: in quotes, escaped, and not longer than a line.
pub(super) fn quoted(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &value[..end]),
        None => format!("{value:?}"),
    }
}
