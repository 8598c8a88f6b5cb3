//! `[lists]`: the sources that are let through or turned away, written in the
//! configuration and in lists of one prefix a line.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    error::{Origin, Position, Problem, ValueError, quoted},
    layer::Layers,
    lines::{EntryError, Line, LineFile, List, ListFile, begin_of},
    prefixes::{Listed, listed},
    values,
};

/// Most prefixes of each of the two lists.
pub const LIST_PREFIXES_MAX: usize = 1 << 20;

/// Most warnings of one file.
const WARNINGS_MAX: usize = 32;
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
    /// Nothing is denied, because a file of allowed sources is not known.
    pub denies_nothing: bool,
    /// The files that a reload reads, those of allowed sources first.
    pub files: Vec<ListFile>,
    /// What they are read again from.
    pub(super) written: Written,
}

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) allow_files: Vec<PathBuf>,
    pub(super) deny_files: Vec<PathBuf>,
}

impl Lists {
    /// The same lists, with their files as they are now. `file` is the configuration's.
    pub(super) fn read_again(&self, file: &Path) -> Self {
        let entries = |texts: &[String]| {
            let texts = texts.iter().cloned();
            texts
                .map(|text| (text, Origin::whole_file(file)))
                .collect::<Vec<_>>()
        };
        let (allowed, denied) = (entries(&self.written.allow), entries(&self.written.deny));
        // What is written was right before.
        build(allowed, denied, self.written.clone(), &mut Vec::new())
    }
}

/// Reads the prefixes of a file that no key names, at most `max`.
pub fn read_prefixes(path: &Path, max: usize) -> (Vec<IpNet>, ListFile) {
    let mut prefixes = Prefixes::new(max, None);
    let file = prefixes.read(&LineFile::new(path, List::Deny), 0);
    (prefixes.into_sorted(), file)
}

/// Reads the table and the files that it names.
pub(super) fn read(layers: &mut Layers) -> Arc<Lists> {
    let allowed = layers.texts_or_empty("lists.allow", EXAMPLE);
    let denied = layers.texts_or_empty("lists.deny", EXAMPLE);
    let (allowed, denied) = (allowed.unwrap_or_default(), denied.unwrap_or_default());
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
    let texts =
        |entries: &[(String, Origin)]| entries.iter().map(|(text, _)| text.clone()).collect();
    let written = Written {
        allow: texts(&allowed),
        deny: texts(&denied),
        allow_files,
        deny_files,
    };
    Arc::new(build(allowed, denied, written, &mut layers.problems))
}

/// Puts the lists together from the entries of the table and the files that it names.
fn build(
    allowed: Vec<(String, Origin)>,
    denied: Vec<(String, Origin)>,
    written: Written,
    problems: &mut Vec<Problem>,
) -> Lists {
    let mut files = Vec::new();
    let mut allow = Prefixes::new(LIST_PREFIXES_MAX, None);
    allow.add_all("lists.allow", allowed, problems, &mut files);
    for path in &written.allow_files {
        let file = LineFile::new(path, List::Allow);
        files.push(allow.read(&file, files.len()));
    }
    // Whoever is on it must not be denied for want of the file.
    let denies_nothing = files.iter().any(|file| file.unread.is_some());
    let mut deny = Prefixes::new(LIST_PREFIXES_MAX, Some(&allow));
    deny.add_all("lists.deny", denied, problems, &mut files);
    for path in &written.deny_files {
        let file = LineFile::new(path, List::Deny);
        files.push(deny.read(&file, files.len()));
    }
    let deny = match denies_nothing {
        true => Vec::new(),
        false => deny.into_sorted(),
    };
    Lists {
        allow: allow.into_sorted(),
        deny,
        denies_nothing,
        files,
        written,
    }
}

/// One list, being put together.
struct Prefixes<'a> {
    max: usize,
    /// The list that must have none of the same.
    other: Option<&'a Prefixes<'a>>,
    prefixes: HashMap<IpNet, Place>,
    sources: Vec<Source>,
}

/// Where prefixes are from.
enum Source {
    /// From the configuration: one.
    Entry(Origin),
    /// A file, and its index among all.
    File(LineFile, usize),
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
        }
    }

    /// Adds what `key` of the configuration has. What is in the other list too is an
    /// error; where a file has put it there it is allowed, with a warning of that file.
    fn add_all(
        &mut self,
        key: &'static str,
        entries: Vec<(String, Origin)>,
        problems: &mut Vec<Problem>,
        files: &mut [ListFile],
    ) {
        for (text, origin) in entries {
            let source = self.add_source(Source::Entry(origin.clone()));
            let place = Place {
                source,
                line: 0,
                column: 0,
            };
            let prefix = match values::network(&text) {
                Ok(prefix) => prefix,
                Err(error) => {
                    problems.push(Problem::with_value(&origin, key, &error));
                    continue;
                }
            };
            match self.other.and_then(|other| other.place(&prefix)) {
                None => {}
                Some((Source::Entry(other), _)) => {
                    let error = ValueError::Wrong(format!(
                        "\"{}\" is allowed too, at {other}: leave it out of one of the two lists",
                        shown(prefix)
                    ));
                    problems.push(Problem::with_value(&origin, key, &error));
                    continue;
                }
                Some((Source::File(file, index), position)) => {
                    let text = format!(
                        "\"{}\" is allowed, though {key} has it too, at {origin}",
                        shown(prefix)
                    );
                    if let Some(of) = files.get_mut(*index)
                        && of.warnings.len() < WARNINGS_MAX
                    {
                        of.warnings.push(file.warning(Some(position), text));
                    }
                    continue;
                }
            }
            if let Err(error) = self.add(prefix, place) {
                problems.push(Problem::with_value(&origin, key, &error));
                return;
            }
        }
    }

    /// Adds what a file lists, which may be nothing. What is allowed is not denied,
    /// and no reason to say so: that is what the list of allowed sources is for.
    fn read(&mut self, file: &LineFile, index: usize) -> ListFile {
        let source = self.add_source(Source::File(file.clone(), index));
        file.read(|line, number| {
            let (network, taken) = match listed(line)? {
                Listed::Nothing => return Ok(Line::Nothing),
                Listed::Network { network, corrected } => match corrected {
                    true => (network, Line::Corrected),
                    false => (network, Line::Entry),
                },
            };
            let begin = begin_of(line);
            let is_allowed = self.other.is_some_and(|other| other.has(&network));
            if !is_allowed {
                // A file is too short for numbers that do not fit.
                let place = Place {
                    source,
                    line: u32::try_from(number).unwrap_or(u32::MAX),
                    column: u32::try_from(begin + 1).unwrap_or(u32::MAX),
                };
                let added = self.add(network, place);
                added.map_err(|error| EntryError::new(begin, error))?;
            }
            Ok(taken)
        })
    }

    fn add_source(&mut self, source: Source) -> u32 {
        self.sources.push(source);
        u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
    }

    fn add(&mut self, prefix: IpNet, place: Place) -> Result<(), ValueError> {
        let number = self.prefixes.len();
        match self.prefixes.entry(prefix) {
            hash_map::Entry::Occupied(_) => {}
            hash_map::Entry::Vacant(_) if number >= self.max => {
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

    fn has(&self, prefix: &IpNet) -> bool {
        self.prefixes.contains_key(prefix)
    }

    /// Where `prefix` is, if it is here.
    fn place(&self, prefix: &IpNet) -> Option<(&Source, Position)> {
        let place = self.prefixes.get(prefix)?;
        let position = Position {
            line: place.line as usize,
            column: place.column as usize,
        };
        Some((self.sources.get(place.source as usize)?, position))
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
