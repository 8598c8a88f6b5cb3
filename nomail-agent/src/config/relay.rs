//! `[relay]`: the domains without mail that this host is MX for, of the configuration and
//! of files with one domain a line.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, hash_map},
    path::Path,
    sync::Arc,
};

use super::{
    choices::RelayCode,
    error::{Problem, ValueError},
    keys::RelayKeys,
    layer::Layers,
    lines::{BLANK, EntryError, LineFile, List, ListLine, begin_of, without_comment},
    names,
    origin::{Origin, Position},
    resolved::{ListFile, Relay, RelayDomain},
};

/// Most domains, in all lists together.
const DOMAINS_MAX: usize = 1_000_000;

/// Puts `[relay]` together, of the configuration and of the files that it names. None: there
/// is no such table.
pub(super) fn resolve(keys: RelayKeys, layers: &mut Layers) -> Option<Arc<Relay>> {
    let code = code_of(&keys, layers);
    let RelayKeys {
        domains: entries,
        domain_files,
        code: _,
        enhanced_code: _,
        text,
        postmaster,
    } = keys;
    let table = layers.table("relay")?;
    if !layers.has("relay.domains") && !layers.has("relay.domain_files") {
        layers.problems.push(Problem {
            origin: table,
            text: "relay: names no domain: give domains = [\"example.org\"] or domain_files = \
                   [\"/etc/nomail/domains\"]"
                .to_owned(),
        });
    }
    let written = entries.iter().map(|(entry, _)| entry.clone()).collect();
    let mut list = DomainList::new(&text, DOMAINS_MAX);
    for (entry, origin) in entries {
        if let Err(wrong) = list.add(&entry, || origin.clone()) {
            layers
                .problems
                .push(Problem::with_value(&origin, "relay.domains", &wrong.error));
        }
        if list.overfull {
            break;
        }
    }
    let files = domain_files
        .iter()
        .map(|path| list.read(&LineFile::new(path, List::Domains)))
        .collect();
    Some(Arc::new(Relay {
        domains: list.into_domains(),
        code,
        text,
        postmaster,
        files,
        written,
    }))
}

/// The same relay, with its files as they are now. `file` is the configuration's.
pub(super) fn read_again(relay: &Relay, file: &Path) -> Relay {
    let mut list = DomainList::new(&relay.text, DOMAINS_MAX);
    for entry in &relay.written {
        // It was right before.
        let _ = list.add(entry, || Origin::whole_file(file));
    }
    let files = relay.files.iter();
    let files = files
        .map(|file| list.read(&LineFile::new(&file.path, List::Domains)))
        .collect();
    Relay {
        domains: list.into_domains(),
        files,
        ..relay.clone()
    }
}

/// What `code` and `enhanced_code` say together.
fn code_of(keys: &RelayKeys, layers: &mut Layers) -> RelayCode {
    let rfc1846 = RelayCode::Rfc1846;
    if keys.code == rfc1846.code() {
        layers.reject(
            "relay.enhanced_code",
            format!(
                "code = 521 has {} and nothing else: leave the key out, or write code = 556",
                rfc1846.enhanced_code()
            ),
        );
        return rfc1846;
    }
    keys.enhanced_code.unwrap_or_default()
}

/// The domains of all lists under construction.
struct DomainList<'a> {
    /// The text of a domain without its own.
    default_text: &'a str,
    domains_max: usize,
    domains: HashMap<String, DomainEntry>,
    /// Each text once: all domains of a list may have the same.
    texts: HashSet<Arc<str>>,
    /// The bound of domains was reached.
    overfull: bool,
}

/// A domain, and where it is written first.
struct DomainEntry {
    /// Its index in the order of domains.
    number: usize,
    text: Option<Arc<str>>,
    origin: Origin,
}

impl<'a> DomainList<'a> {
    fn new(default_text: &'a str, domains_max: usize) -> Self {
        Self {
            default_text,
            domains_max,
            domains: HashMap::new(),
            texts: HashSet::new(),
            overfull: false,
        }
    }

    /// Adds `DOMAIN` or `DOMAIN TEXT`.
    fn add(&mut self, entry: &str, origin: impl FnOnce() -> Origin) -> Result<(), EntryError> {
        let begin = begin_of(entry);
        let (domain, rest) = match entry[begin..].split_once(BLANK) {
            Some((domain, rest)) => (domain, rest.trim_matches(BLANK)),
            None => (&entry[begin..], ""),
        };
        let name = names::domain(domain).map_err(|error| EntryError::new(begin, error))?;
        let text = match rest {
            "" => None,
            text => {
                // The text is trimmed at its end by no more than the entry.
                let at = entry.trim_end_matches(BLANK).len() - text.len();
                Some(names::reply_text(text).map_err(|error| EntryError::new(at, error))?)
            }
        };
        let number = self.domains.len();
        let default = self.default_text;
        match self.domains.entry(name) {
            hash_map::Entry::Occupied(known) => {
                let other = known.get();
                if other.text.as_deref().unwrap_or(default) != text.unwrap_or(default) {
                    let text = format!(
                        "\"{}\" has another text at {}: write the same, or leave one out",
                        known.key(),
                        other.origin
                    );
                    return Err(EntryError::new(begin, ValueError::Wrong(text)));
                }
            }
            hash_map::Entry::Vacant(_) if number >= self.domains_max => {
                self.overfull = true;
                let text = format!(
                    "is one more than the {} domains of a relay: leave some out, or write \
                     *.example.org for all below example.org",
                    self.domains_max
                );
                return Err(EntryError::new(begin, ValueError::Wrong(text)));
            }
            hash_map::Entry::Vacant(place) => {
                let text = text.map(|text| match self.texts.get(text) {
                    Some(known) => Arc::clone(known),
                    None => {
                        let text = Arc::from(text);
                        self.texts.insert(Arc::clone(&text));
                        text
                    }
                });
                place.insert(DomainEntry {
                    number,
                    text,
                    origin: origin(),
                });
            }
        }
        Ok(())
    }

    /// Adds the domains of a file. One without a domain, as a failed download leaves it,
    /// counts as unreadable.
    fn read(&mut self, file: &LineFile) -> ListFile {
        let mut read = file.read(|line, number| {
            let entry = without_comment(line);
            let begin = begin_of(entry);
            if begin == entry.len() {
                return Ok(ListLine::Nothing);
            }
            let position = Position {
                line: number,
                column: begin + 1,
            };
            self.add(entry, || file.origin(Some(position)))?;
            Ok(ListLine::Entry)
        });
        if read.entries == 0 && read.unread.is_none() {
            let text = "lists no domain: write one a line, or leave the file out of \
                        relay.domain_files";
            read.warnings.push(file.warning(None, text.to_owned()));
            read.unread = Some(text.to_owned());
        }
        read
    }

    fn into_domains(self) -> Vec<RelayDomain> {
        let mut domains: Vec<_> = self
            .domains
            .into_iter()
            .map(|(name, DomainEntry { number, text, .. })| (number, RelayDomain { name, text }))
            .collect();
        domains.sort_unstable_by_key(|(number, _)| *number);
        domains.into_iter().map(|(_, domain)| domain).collect()
    }
}
