//! `[relay]`: the domains without mail that this host is MX for, written in the
//! configuration and in lists of one domain a line.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, hash_map},
    path::Path,
    sync::Arc,
};

use super::{
    error::{Origin, Position, Problem, ValueError, wrong},
    layer::{Layers, Value},
    lines::{BLANK, EntryError, Line, LineFile, List, ListFile, begin_of, without_comment},
    values,
};

/// Most domains, in all lists together.
const DOMAINS_MAX: usize = 1_000_000;
/// The text of a refusal where none is written.
const DEFAULT_TEXT: &str = "this domain does not accept mail";

/// `[relay]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The domains, each once, in the order they are written in. None only where
    /// their files have none, or could not be read.
    pub domains: Vec<RelayDomain>,
    /// The codes of the refusal.
    pub code: RelayCode,
    /// The text of the refusal for a domain without its own: printable ASCII.
    pub text: String,
    /// The mailbox that mail to postmaster is pointed to, in ASCII.
    pub postmaster: Option<String>,
    /// The files that a reload reads.
    pub files: Vec<ListFile>,
    /// [`Self::domains`] as the table has them, without those of files.
    pub written: Vec<String>,
}

impl Relay {
    /// The same relay, with its files as they are now. `file` is the configuration's.
    pub(super) fn read_again(&self, file: &Path) -> Self {
        let mut lists = Lists::new(&self.text, DOMAINS_MAX);
        for entry in &self.written {
            // It was right before.
            let _ = lists.add(entry, || Origin::whole_file(file));
        }
        let files = self.files.iter();
        let files = files
            .map(|file| lists.read(&LineFile::new(&file.path, List::Domains)))
            .collect();
        Self {
            domains: lists.into_domains(),
            files,
            ..self.clone()
        }
    }
}

/// A domain that takes no mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayDomain {
    /// `example.org`, or `*.example.org` for all names below it and not itself.
    /// In lower case, in A-labels, without a final dot.
    pub name: String,
    /// In place of [`Relay::text`]: printable ASCII.
    pub text: Option<Arc<str>>,
}

/// How a relay refuses a domain's mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayCode {
    /// 556 5.1.2: a list says that the domain takes no mail (RFC 7504 section 4).
    #[default]
    Listed,
    /// 556 5.1.10: the domain has a null MX (RFC 7505 section 4.1).
    NullMx,
    /// 521 5.3.2: to the letter of RFC 1846 section 3.
    Rfc1846,
}

impl RelayCode {
    /// The codes of `code = 556`.
    const OF_556: &[(&str, Self)] = &[("5.1.2", Self::Listed), ("5.1.10", Self::NullMx)];

    /// The reply code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Listed | Self::NullMx => 556,
            Self::Rfc1846 => 521,
        }
    }

    /// The enhanced code behind it.
    pub const fn enhanced_code(self) -> &'static str {
        match self {
            Self::Listed => "5.1.2",
            Self::NullMx => "5.1.10",
            Self::Rfc1846 => "5.3.2",
        }
    }
}

/// Reads the table and the files that it names. None: there is no such table.
pub(super) fn read(layers: &mut Layers) -> Option<Arc<Relay>> {
    let table = layers.section("relay");
    let listed = layers.has("relay.domains") || layers.has("relay.domain_files");
    let entries = layers
        .texts("relay.domains", "\"example.org\"")
        .unwrap_or_default();
    let files = layers
        .list(
            "relay.domain_files",
            "\"/etc/nomail/domains\"",
            values::list_file,
        )
        .unwrap_or_default();
    let code = read_code(layers);
    let text = layers
        .value("relay.text", |value| {
            values::reply_text(value.text()?).map(str::to_owned)
        })
        .unwrap_or_else(|| DEFAULT_TEXT.to_owned());
    let postmaster = layers.value("relay.postmaster", values::mailbox);
    let table = table?;
    if !listed {
        layers.problems.push(Problem {
            origin: table,
            text: "relay: names no domain: give domains = [\"example.org\"] or domain_files = \
                   [\"/etc/nomail/domains\"]"
                .to_owned(),
        });
    }
    let written = entries.iter().map(|(entry, _)| entry.clone()).collect();
    let mut lists = Lists::new(&text, DOMAINS_MAX);
    for (entry, origin) in entries {
        if let Err(wrong) = lists.add(&entry, || origin.clone()) {
            layers
                .problems
                .push(Problem::with_value(&origin, "relay.domains", &wrong.error));
        }
        if lists.overfull {
            break;
        }
    }
    let files = files
        .iter()
        .map(|path| lists.read(&LineFile::new(path, List::Domains)))
        .collect();
    Some(Arc::new(Relay {
        domains: lists.into_domains(),
        code,
        text,
        postmaster,
        files,
        written,
    }))
}

/// The keys `code` and `enhanced_code`.
fn read_code(layers: &mut Layers) -> RelayCode {
    let code = layers.value("relay.code", |value| match value {
        Value::Integer(556) => Ok(RelayCode::default()),
        Value::Integer(521) => Ok(RelayCode::Rfc1846),
        Value::Integer(other) => wrong(format!("{other} is unknown; use 556 or 521")),
        other => wrong(format!("{} is unknown; use 556 or 521", other.kind())),
    });
    let enhanced =
        layers.value_with_origin("relay.enhanced_code", values::choice(RelayCode::OF_556));
    match (code, enhanced) {
        (Some(RelayCode::Rfc1846), Some((_, origin))) => {
            let error = ValueError::Wrong(format!(
                "code = 521 has {} and nothing else: leave the key out, or write code = 556",
                RelayCode::Rfc1846.enhanced_code()
            ));
            layers
                .problems
                .push(Problem::with_value(&origin, "relay.enhanced_code", &error));
            RelayCode::Rfc1846
        }
        (_, Some((code, _))) => code,
        (code, None) => code.unwrap_or_default(),
    }
}

/// All lists, being put together.
struct Lists<'a> {
    /// The text of a domain without its own.
    default_text: &'a str,
    domains_max: usize,
    domains: HashMap<String, Listed>,
    /// Each text once: whole lists may have the same.
    texts: HashSet<Arc<str>>,
    /// There were more domains than may be.
    overfull: bool,
}

/// What is known of a domain, and from where.
struct Listed {
    /// Its place in the order.
    number: usize,
    text: Option<Arc<str>>,
    origin: Origin,
}

impl<'a> Lists<'a> {
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
        let name = values::domain(domain).map_err(|error| EntryError::new(begin, error))?;
        let text = match rest {
            "" => None,
            text => {
                // Trimmed behind only by what blanks end the entry.
                let at = entry.trim_end_matches(BLANK).len() - text.len();
                Some(values::reply_text(text).map_err(|error| EntryError::new(at, error))?)
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
                place.insert(Listed {
                    number,
                    text,
                    origin: origin(),
                });
            }
        }
        Ok(())
    }

    /// Adds what a file lists. One without a domain, as a download that failed leaves it,
    /// counts as one that could not be read.
    fn read(&mut self, file: &LineFile) -> ListFile {
        let mut read = file.read(|line, number| {
            let entry = without_comment(line);
            let begin = begin_of(entry);
            if begin == entry.len() {
                return Ok(Line::Nothing);
            }
            let position = Position {
                line: number,
                column: begin + 1,
            };
            self.add(entry, || file.origin(Some(position)))?;
            Ok(Line::Entry)
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
            .map(|(name, Listed { number, text, .. })| (number, RelayDomain { name, text }))
            .collect();
        domains.sort_unstable_by_key(|(number, _)| *number);
        domains.into_iter().map(|(_, domain)| domain).collect()
    }
}
