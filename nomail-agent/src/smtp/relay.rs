//! The domains that a relay refuses: those for which this host is the mail
//! exchanger, and which accept no mail (RFC 1846 section 3, RFC 7504 section 4,
//! RFC 7505 section 4.1).

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use idna::AsciiDenyList;

use super::command::DOMAIN_MAX;
use crate::refusal::RelayCode;

/// The longest reply line with its CRLF (RFC 5321 section 4.5.3.1.5).
pub const REPLY_MAX: usize = 512;

/// The mailless domains of a relay and the replies for them.
///
/// Built once for a configuration and never changed. Finding a domain takes time in
/// proportion to its own length, however many there are.
#[derive(Debug)]
pub struct RefusedDomains {
    /// Every distinct reply line, with its CRLF.
    lines: Vec<Box<[u8]>>,
    /// Indices of `lines` by name.
    exact: HashMap<Box<[u8]>, usize>,
    /// Indices of `lines` by what follows `*.`.
    wildcards: HashMap<Box<[u8]>, usize>,
    postmaster: Option<Box<[u8]>>,
}

impl RefusedDomains {
    /// Renders the replies for `domains`: names or wildcards such as `*.example.org`,
    /// each as [`to_ascii`] writes it, and its text unless that is
    /// `default_text`. Of a name that occurs twice the last counts.
    ///
    /// A wildcard covers every name below it, at any depth, and not the name
    /// itself. A name has the text of its own entry, or else of the longest wildcard.
    ///
    /// `postmaster` is the address that replies for the postmaster point to.
    ///
    /// Texts are cut where a reply line has to end, and characters that are not allowed in
    /// one become question marks: the configuration checks texts before.
    pub fn new<N: AsRef<str>>(
        code: RelayCode,
        default_text: &str,
        domains: impl IntoIterator<Item = (N, Option<Arc<str>>)>,
        postmaster: Option<&str>,
    ) -> Self {
        let codes = format!("{} {}", code.code(), code.enhanced_code());
        let mut lines = vec![reply(&codes, default_text)];
        let mut known: HashMap<Arc<str>, usize> = HashMap::new();
        let mut exact = HashMap::new();
        let mut wildcards = HashMap::new();
        for (name, text) in domains {
            let line = match text {
                None => 0,
                Some(text) => *known.entry(text).or_insert_with_key(|text| {
                    lines.push(reply(&codes, text));
                    lines.len() - 1
                }),
            };
            let (names, name) = match name.as_ref().strip_prefix("*.") {
                Some(parent) => (&mut wildcards, parent),
                None => (&mut exact, name.as_ref()),
            };
            names.insert(name.as_bytes().into(), line);
        }
        Self {
            lines,
            exact,
            wildcards,
            postmaster: postmaster.map(|address| {
                reply(
                    "551 5.1.6",
                    &format!("User not local; please try <{address}>"),
                )
            }),
        }
    }

    /// Returns the reply line for a recipient's domain, if it is refused.
    ///
    /// Case and a final dot do not matter; U-labels, in UTF-8, mean their
    /// A-labels (RFC 5890). Looking up a domain in ASCII allocates nothing.
    pub fn refusal(&self, domain: &[u8]) -> Option<&[u8]> {
        let mut buffer = [0; DOMAIN_MAX];
        let line = if domain.is_ascii() {
            let name = buffer.get_mut(..domain.len())?;
            name.copy_from_slice(domain);
            name.make_ascii_lowercase();
            self.find(name.strip_suffix(b".").unwrap_or(name))
        } else if domain.len() <= DOMAIN_MAX {
            self.find(to_ascii(domain)?.as_bytes())
        } else {
            None
        };
        self.lines.get(line?).map(AsRef::as_ref)
    }

    /// Returns the reply line for the postmaster, if there is an address for it:
    /// 551, another mailbox to try (RFC 5321 section 3.4).
    pub fn postmaster(&self) -> Option<&[u8]> {
        self.postmaster.as_deref()
    }

    /// Returns the number of names and wildcards.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Whether there is neither name nor wildcard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks up the name itself, then what follows each of its dots: the longest
    /// wildcard first.
    fn find(&self, name: &[u8]) -> Option<usize> {
        let mut line = self.exact.get(name);
        let mut rest = name;
        while line.is_none() {
            let dot = rest.iter().position(|&byte| byte == b'.')?;
            rest = rest.get(dot + 1..)?;
            line = self.wildcards.get(rest);
        }
        line.copied()
    }
}

/// Returns a domain name in lower case and A-labels, without a final dot: the form
/// in which names are compared (UTS #46). None if it has no such form.
///
/// A leading `*.` stays. Whether labels are valid in a host name is not checked.
pub fn to_ascii(domain: &[u8]) -> Option<String> {
    let mut name = idna::domain_to_ascii_cow(domain, AsciiDenyList::URL)
        .ok()?
        .into_owned();
    if name.ends_with('.') {
        name.pop();
    }
    Some(name)
}

/// Renders one reply line: printable ASCII (RFC 5321 section 4.2), at most [`REPLY_MAX`] bytes.
fn reply(codes: &str, text: &str) -> Box<[u8]> {
    let mut line = format!("{codes} ").into_bytes();
    let byte = |letter: char| match letter {
        ' '..='~' => letter as u8,
        _ => b'?',
    };
    line.extend(text.chars().map(byte));
    line.truncate(REPLY_MAX - b"\r\n".len());
    line.extend(b"\r\n");
    line.into_boxed_slice()
}
