//! `[lists]`: sources that are let through or denied, of the configuration and of files
//! with one prefix a line.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    addresses,
    error::{Problem, ValueError, quoted},
    keys::ListKeys,
    layer::{LayerEntry, Layers, Written},
    lines::{EntryError, LineFile, List, ListLine, begin_of},
    origin::{Origin, Position},
    prefixes::{Listed, listed},
    resolved::{ListFile, ListSources, WrittenLists},
};

/// Most prefixes of each of the two lists.
pub const LIST_PREFIXES_MAX: usize = 1 << 20;

/// Most warnings of one file.
const WARNINGS_MAX: usize = 32;

/// Puts the lists together, of the configuration and of the files that it names.
pub(super) fn resolve(keys: ListKeys, layers: &mut Layers) -> Arc<ListSources> {
    reject_files_of_both(&keys.allow_files, layers);
    let ListKeys {
        allow,
        deny,
        allow_files,
        deny_files,
    } = keys;
    let texts =
        |entries: &[(String, Origin)]| entries.iter().map(|(text, _)| text.clone()).collect();
    let written = WrittenLists {
        allow: texts(&allow),
        deny: texts(&deny),
        allow_files,
        deny_files,
    };
    Arc::new(build(allow, deny, written, &mut layers.problems))
}

/// The same lists, with their files as they are now. `file` is the configuration's.
pub(super) fn read_again(lists: &ListSources, file: &Path) -> ListSources {
    let entries = |texts: &[String]| {
        let texts = texts.iter().cloned();
        texts
            .map(|text| (text, Origin::whole_file(file)))
            .collect::<Vec<_>>()
    };
    let written = &lists.written;
    let (allowed, denied) = (entries(&written.allow), entries(&written.deny));
    // What is written was right before.
    build(allowed, denied, written.clone(), &mut Vec::new())
}

/// Reads at most `max` prefixes of a file that no key names.
pub fn read_prefixes(path: &Path, max: usize) -> (Arc<[IpNet]>, ListFile) {
    let mut prefixes = PrefixList::new(max, None);
    let file = prefixes.read(&LineFile::new(path, List::Deny), 0);
    (prefixes.into_sorted(), file)
}

/// Puts the lists together, of the entries that are written and of the files.
fn build(
    allowed: Vec<(String, Origin)>,
    denied: Vec<(String, Origin)>,
    written: WrittenLists,
    problems: &mut Vec<Problem>,
) -> ListSources {
    let mut files = Vec::new();
    let mut allow = PrefixList::new(LIST_PREFIXES_MAX, None);
    allow.add_all("lists.allow", allowed, problems, &mut files);
    for path in &written.allow_files {
        let file = LineFile::new(path, List::Allow);
        files.push(allow.read(&file, files.len()));
    }
    // A source in that file must not be denied because the file is missing.
    let denies_nothing = nomail_common::Mechanism::AllowMissing.is_on()
        && files.iter().any(|file| file.unread.is_some());
    let mut deny = PrefixList::new(LIST_PREFIXES_MAX, Some(&allow));
    deny.add_all("lists.deny", denied, problems, &mut files);
    for path in &written.deny_files {
        let file = LineFile::new(path, List::Deny);
        files.push(deny.read(&file, files.len()));
    }
    let deny = match denies_nothing {
        true => Arc::default(),
        false => deny.into_sorted(),
    };
    ListSources {
        allow: allow.into_sorted(),
        deny,
        denies_nothing,
        files,
        written,
    }
}

fn reject_files_of_both(allowed: &[PathBuf], layers: &mut Layers) {
    let key = "lists.deny_files";
    let mut problems = Vec::new();
    for Written { origin, value } in layers.chosen(key).map_or(&[][..], LayerEntry::items) {
        if let Ok(text) = value.text()
            && allowed.iter().any(|path| path == Path::new(text))
        {
            let error = ValueError::Wrong(format!(
                "{} is in lists.allow_files too: leave it out of one of the two",
                quoted(text)
            ));
            problems.push(Problem::with_value(origin, key, &error));
        }
    }
    layers.problems.append(&mut problems);
}

/// One list under construction.
struct PrefixList<'a> {
    max: usize,
    /// The list that must not have the same prefixes.
    other: Option<&'a PrefixList<'a>>,
    prefixes: HashMap<IpNet, Place>,
    sources: Vec<PrefixSource>,
}

/// An entry or a file that prefixes are from.
enum PrefixSource {
    /// An entry of the configuration.
    Entry(Origin),
    /// A file, and its index among all.
    File(LineFile, usize),
}

/// Where a prefix is written first: smaller than an [`Origin`], because there may be a
/// million of them.
#[derive(Clone, Copy)]
struct Place {
    source: u32,
    line: u32,
    column: u32,
}

impl<'a> PrefixList<'a> {
    fn new(max: usize, other: Option<&'a Self>) -> Self {
        Self {
            max,
            other,
            prefixes: HashMap::new(),
            sources: Vec::new(),
        }
    }

    /// Adds the entries of `key`. A prefix that the configuration has in the other list too is
    /// an error; one that a file has put there is a warning about that file.
    fn add_all(
        &mut self,
        key: &'static str,
        entries: Vec<(String, Origin)>,
        problems: &mut Vec<Problem>,
        files: &mut [ListFile],
    ) {
        for (text, origin) in entries {
            let source = self.add_source(PrefixSource::Entry(origin.clone()));
            let place = Place {
                source,
                line: 0,
                column: 0,
            };
            let prefix = match addresses::network(&text) {
                Ok(prefix) => prefix,
                Err(error) => {
                    problems.push(Problem::with_value(&origin, key, &error));
                    continue;
                }
            };
            match self.other.and_then(|other| other.place(&prefix)) {
                None => {}
                Some((PrefixSource::Entry(other), _)) => {
                    let error = ValueError::Wrong(format!(
                        "\"{}\" is allowed too, at {other}: leave it out of one of the two lists",
                        shown(prefix)
                    ));
                    problems.push(Problem::with_value(&origin, key, &error));
                    continue;
                }
                Some((PrefixSource::File(file, index), position)) => {
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

    /// Adds the prefixes of a file, except those in the other list.
    fn read(&mut self, file: &LineFile, index: usize) -> ListFile {
        let source = self.add_source(PrefixSource::File(file.clone(), index));
        file.read(|line, number| {
            let (network, taken) = match listed(line)? {
                Listed::Nothing => return Ok(ListLine::Nothing),
                Listed::Network { network, corrected } => match corrected {
                    true => (network, ListLine::Corrected),
                    false => (network, ListLine::Entry),
                },
            };
            let begin = begin_of(line);
            let is_allowed = self.other.is_some_and(|other| other.has(&network));
            if !is_allowed {
                // No file is long enough for numbers that do not fit.
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

    fn add_source(&mut self, source: PrefixSource) -> u32 {
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

    /// Where `prefix` is written, if it is in the list.
    fn place(&self, prefix: &IpNet) -> Option<(&PrefixSource, Position)> {
        let place = self.prefixes.get(prefix)?;
        let position = Position {
            line: place.line as usize,
            column: place.column as usize,
        };
        Some((self.sources.get(place.source as usize)?, position))
    }

    fn into_sorted(self) -> Arc<[IpNet]> {
        let mut prefixes: Vec<_> = self.prefixes.into_keys().collect();
        prefixes.sort_unstable();
        prefixes.into()
    }
}

/// A prefix as it is written: a single address without its length.
fn shown(prefix: IpNet) -> String {
    match prefix.prefix_len() == prefix.max_prefix_len() {
        true => prefix.addr().to_string(),
        false => prefix.to_string(),
    }
}
