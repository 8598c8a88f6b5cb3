//! `[lists]`: the sources that are let through or turned away, written in the
//! configuration and in lists of one prefix a line.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    error::{Origin, Position, Problem, ValueError, quoted},
    layer::Layers,
    lines::{BLANK, EntryError, LineFile, List, begin_of},
    values,
};

/// Most prefixes of each of the two lists.
pub const LIST_PREFIXES_MAX: usize = 1 << 20;

/// An example of a prefix.
const EXAMPLE: &str = "\"192.0.2.0/24\"";

/// `[lists]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Networks without host bits, none of which is in [`Self::deny`], IPv4
    /// before IPv6. Sorted, each once.
    pub allow: Vec<IpNet>,
    /// Networks as in [`Self::allow`].
    pub deny: Vec<IpNet>,
    /// The files that a reload reads, absolute.
    pub files: Vec<PathBuf>,
}

/// Reads the table and the files that it names.
pub(super) fn read(layers: &mut Layers) -> Arc<Lists> {
    let allowed = layers.texts_or_empty("lists.allow", EXAMPLE);
    let denied = layers.texts_or_empty("lists.deny", EXAMPLE);
    let allow_files = layers
        .list_or_empty(
            "lists.allow_files",
            "\"/etc/nomail/allow\"",
            values::list_file,
        )
        .unwrap_or_default();
    let deny_files = layers
        .list_or_empty(
            "lists.deny_files",
            "\"/etc/nomail/deny\"",
            |text, before| {
                let path = values::list_file(text, before)?;
                if allow_files.contains(&path) {
                    return Err(ValueError::Wrong(format!(
                        "{} is in lists.allow_files too: leave it out of one of the two",
                        quoted(text)
                    )));
                }
                Ok(path)
            },
        )
        .unwrap_or_default();

    let problems = &mut layers.problems;
    let mut allow = Prefixes::new(LIST_PREFIXES_MAX, None);
    allow.add_all("lists.allow", allowed.unwrap_or_default(), problems);
    for (number, path) in allow_files.iter().enumerate() {
        allow.read(&LineFile::new(path, List::Allow, number), problems);
    }
    let mut deny = Prefixes::new(LIST_PREFIXES_MAX, Some(&allow));
    deny.add_all("lists.deny", denied.unwrap_or_default(), problems);
    for (number, path) in deny_files.iter().enumerate() {
        deny.read(&LineFile::new(path, List::Deny, number), problems);
    }
    let deny = deny.into_sorted();
    Arc::new(Lists {
        allow: allow.into_sorted(),
        deny,
        files: allow_files.into_iter().chain(deny_files).collect(),
    })
}

/// One list, being put together.
struct Prefixes<'a> {
    max: usize,
    /// The list that must have none of the same.
    other: Option<&'a Prefixes<'a>>,
    prefixes: HashMap<IpNet, Place>,
    sources: Vec<Source>,
    /// There were more prefixes than may be.
    overfull: bool,
}

/// Where prefixes are from.
enum Source {
    /// From the configuration: one.
    Entry(Origin),
    File(LineFile),
}

/// Where a prefix is written first. There may be a million of them, so that this
/// is smaller than an [`Origin`].
#[derive(Clone, Copy)]
struct Place {
    source: u32,
    line: u32,
    column: u32,
}

impl<'a> Prefixes<'a> {
    fn new(max: usize, other: Option<&'a Self>) -> Self {
        Self {
            max,
            other,
            prefixes: HashMap::new(),
            sources: Vec::new(),
            overfull: false,
        }
    }

    /// Adds what `key` of the configuration has.
    fn add_all(
        &mut self,
        key: &'static str,
        entries: Vec<(String, Origin)>,
        problems: &mut Vec<Problem>,
    ) {
        for (text, origin) in entries {
            if self.overfull {
                return;
            }
            let source = self.add_source(Source::Entry(origin.clone()));
            let place = Place {
                source,
                line: 0,
                column: 0,
            };
            let added = values::network(&text).and_then(|prefix| self.add(prefix, place));
            if let Err(error) = added {
                problems.push(Problem::with_value(&origin, key, &error));
            }
        }
    }

    /// Adds what a file lists, which may be nothing.
    fn read(&mut self, file: &LineFile, problems: &mut Vec<Problem>) {
        if self.overfull {
            return;
        }
        let source = self.add_source(Source::File(file.clone()));
        file.read(problems, |entry, Position { line, column }| {
            // A file is too short for numbers that do not fit.
            let place = Place {
                source,
                line: u32::try_from(line).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
            };
            let begin = begin_of(entry);
            let words = entry[begin..].trim_end_matches(BLANK);
            let (prefix, rest) = match words.split_once(BLANK) {
                Some((prefix, rest)) => (prefix, rest.trim_start_matches(BLANK)),
                None => (words, ""),
            };
            let wrong = |error| EntryError::new(begin, error);
            let network = values::network(prefix).map_err(wrong)?;
            if !rest.is_empty() {
                let text = format!(
                    "{} follows a prefix: write one a line, and \" #\" before a comment",
                    quoted(rest)
                );
                let at = begin + words.len() - rest.len();
                return Err(EntryError::new(at, ValueError::Wrong(text)));
            }
            self.add(network, place).map_err(|error| EntryError {
                is_last: self.overfull,
                ..wrong(error)
            })
        });
    }

    fn add_source(&mut self, source: Source) -> u32 {
        self.sources.push(source);
        u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
    }

    fn add(&mut self, prefix: IpNet, place: Place) -> Result<(), ValueError> {
        if let Some(origin) = self.other.and_then(|other| other.origin(&prefix)) {
            return Err(ValueError::Wrong(format!(
                "\"{}\" is allowed too, at {origin}: leave it out of one of the two lists",
                shown(prefix)
            )));
        }
        let number = self.prefixes.len();
        match self.prefixes.entry(prefix) {
            hash_map::Entry::Occupied(_) => {}
            hash_map::Entry::Vacant(_) if number >= self.max => {
                self.overfull = true;
                return Err(ValueError::Wrong(format!(
                    "\"{}\" is one more than the {} prefixes of a list: leave some out, or write \
                     the networks that they are in",
                    shown(prefix),
                    self.max
                )));
            }
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(place);
            }
        }
        Ok(())
    }

    /// Where `prefix` is, if it is here.
    fn origin(&self, prefix: &IpNet) -> Option<Origin> {
        let place = self.prefixes.get(prefix)?;
        Some(match self.sources.get(place.source as usize)? {
            Source::Entry(origin) => origin.clone(),
            Source::File(file) => file.origin(Some(Position {
                line: place.line as usize,
                column: place.column as usize,
            })),
        })
    }

    fn into_sorted(self) -> Vec<IpNet> {
        let mut prefixes: Vec<_> = self.prefixes.into_keys().collect();
        prefixes.sort_unstable();
        prefixes
    }
}

/// An address without its length, as most are written.
fn shown(prefix: IpNet) -> String {
    match prefix.prefix_len() == prefix.max_prefix_len() {
        true => prefix.addr().to_string(),
        false => prefix.to_string(),
    }
}
