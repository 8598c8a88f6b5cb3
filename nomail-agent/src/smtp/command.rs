//! SMTP command lines, parsed without storing any of them (RFC 5321 section 4.1).
//!
//! The rules named in the tests (R7 to R22, S16 to S19) are those of RFC 5321.
//! Nothing is accepted here anyway, so no path, parameter or order that RFC 5321 calls wrong
//! keeps a sender from RCPT, where it learns that there is no mail here. Only a line that
//! begins with no verb is no command.

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::str;

use nomail_common::{counted, counted::Counted as _};

/// The longest domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;

/// The longest label of a domain name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

counted! {
    /// The verbs of SMTP (RFC 5321) and its extensions, in alphabetical order.
    pub enum Verb {
        /// ATRN (RFC 2645).
        Atrn "atrn" "ATRN";
        /// AUTH (RFC 4954).
        Auth "auth" "AUTH";
        /// BDAT (RFC 3030).
        Bdat "bdat" "BDAT";
        /// BURL (RFC 4468).
        Burl "burl" "BURL";
        /// DATA.
        Data "data" "DATA";
        /// EHLO.
        Ehlo "ehlo" "EHLO";
        /// ETRN (RFC 1985).
        Etrn "etrn" "ETRN";
        /// EXPN.
        Expn "expn" "EXPN";
        /// HELO.
        Helo "helo" "HELO";
        /// HELP.
        Help "help" "HELP";
        /// MAIL.
        Mail "mail" "MAIL";
        /// NOOP.
        Noop "noop" "NOOP";
        /// No known verb.
        Other "other" "other";
        /// QUIT.
        Quit "quit" "QUIT";
        /// RCPT.
        Rcpt "rcpt" "RCPT";
        /// RSET.
        Rset "rset" "RSET";
        /// SAML (RFC 821).
        Saml "saml" "SAML";
        /// SEND (RFC 821).
        Send "send" "SEND";
        /// SOML (RFC 821).
        Soml "soml" "SOML";
        /// STARTTLS (RFC 3207).
        StartTls "starttls" "STARTTLS";
        /// TURN (RFC 821).
        Turn "turn" "TURN";
        /// VRFY.
        Vrfy "vrfy" "VRFY";
    }
}

impl Verb {
    /// Returns the verb of a command line, whether or not its arguments are right.
    pub fn of(line: &[u8]) -> Self {
        let (word, _) = split_word(line);
        let mut known = Self::ALL.iter().filter(|verb| **verb != Self::Other);
        known
            .find(|verb| word.eq_ignore_ascii_case(verb.name().as_bytes()))
            .map_or(Self::Other, |verb| *verb)
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO and what the client calls itself, if anything.
    Helo(&'a [u8]),
    /// EHLO and what the client calls itself, if anything.
    Ehlo(&'a [u8]),
    /// MAIL, whatever its parameters are.
    Mail(ReversePath<'a>),
    /// RCPT, whatever its parameters are.
    Rcpt(Recipient<'a>),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT, also with arguments: RFC 5321 would have 501 for these, but the
    /// client wants to leave.
    Quit,
    /// AUTH.
    Auth,
    /// A verb that is known and not implemented: 502 (RFC 5321 section 4.2.4).
    Unimplemented,
}

/// The sender of MAIL (RFC 5321 section 4.1.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath<'a> {
    /// `<>`: a bounce or another notice that must not be answered. Also a missing path.
    Null,
    /// An address with a domain.
    Mailbox(Mailbox<'a>),
    /// Any other text.
    Other(&'a [u8]),
}

/// The recipient of RCPT (RFC 5321 section 4.1.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// `<Postmaster>` in any case, without a domain.
    Postmaster,
    /// An address with a domain, also the postmaster of a domain.
    Mailbox(Mailbox<'a>),
    /// Any other text: an account of this host such as `root`, an address
    /// with an invalid domain, or nothing at all.
    Other(&'a [u8]),
}

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// The whole path as written, with its source route, without its angle
    /// brackets. Bytes from the network: escape them before showing them.
    pub path: &'a [u8],
    /// The local part as written, with its quotes.
    pub local: &'a [u8],
    /// The domain as written: a name, perhaps with a final dot, perhaps with
    /// U-labels in UTF-8, or an address literal in its brackets.
    pub domain: &'a [u8],
}

impl<'a> ReversePath<'a> {
    /// Returns the path without its angle brackets, for an envelope log.
    pub const fn path(&self) -> &'a [u8] {
        match self {
            Self::Null => b"",
            Self::Mailbox(mailbox) => mailbox.path,
            Self::Other(path) => path,
        }
    }
}

impl<'a> Recipient<'a> {
    /// Returns the path without its angle brackets, for an envelope log.
    pub const fn path(&self) -> &'a [u8] {
        match self {
            Self::Postmaster => b"Postmaster",
            Self::Mailbox(mailbox) => mailbox.path,
            Self::Other(path) => path,
        }
    }
}

/// Parses one command line without its CRLF. Returns None if it begins
/// with no known verb.
///
/// No argument is ever wrong: a sender's mistake is not why its mail is
/// refused, and an error would hide the reason.
///
/// Takes time in proportion to the line, and allocates nothing.
pub fn parse(line: &[u8]) -> Option<Command<'_>> {
    let (_, argument) = split_word(line);
    Some(match Verb::of(line) {
        Verb::Other => return None,
        Verb::Helo => Command::Helo(argument),
        Verb::Ehlo => Command::Ehlo(argument),
        Verb::Mail => Command::Mail(match path(argument, b"FROM") {
            b"" => ReversePath::Null,
            path => mailbox(path).map_or(ReversePath::Other(path), ReversePath::Mailbox),
        }),
        Verb::Rcpt => Command::Rcpt(match path(argument, b"TO") {
            path if path.eq_ignore_ascii_case(b"Postmaster") => Recipient::Postmaster,
            path => mailbox(path).map_or(Recipient::Other(path), Recipient::Mailbox),
        }),
        Verb::Data => Command::Data,
        Verb::Rset => Command::Rset,
        Verb::Noop => Command::Noop,
        Verb::Vrfy => Command::Vrfy,
        Verb::Help => Command::Help,
        Verb::Quit => Command::Quit,
        Verb::Auth => Command::Auth,
        Verb::Expn
        | Verb::StartTls
        | Verb::Bdat
        | Verb::Burl
        | Verb::Etrn
        | Verb::Atrn
        | Verb::Turn
        | Verb::Send
        | Verb::Soml
        | Verb::Saml => Command::Unimplemented,
    })
}

/// Splits a line into its first word and what follows the white space after it. White
/// space at the end belongs to neither (RFC 5321 section 4.1.1).
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let line = trim_end(line);
    let end = line.iter().position(|&byte| is_space(byte));
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, skip_space(rest))
}

/// A CR or LF alone is no white space: it is an invalid part of the line
/// (RFC 5321 section 2.3.8).
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_end(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

fn trim_space(text: &[u8]) -> &[u8] {
    skip_space(trim_end(text))
}

fn skip_space(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

/// Returns the path in the argument of MAIL or RCPT, without its angle brackets, its
/// parameters and the white space around it.
///
/// By the RFC it is `FROM:<path>` or `TO:<path>`. Scripts leave out brackets,
/// colon or keyword, put white space between them or a name before them.
fn path<'a>(argument: &'a [u8], keyword: &[u8]) -> &'a [u8] {
    let text = after_keyword(argument, keyword).unwrap_or(argument);
    let text = match unquoted(text, b'<') {
        Some(open) => {
            let text = text.get(open + 1..).unwrap_or_default();
            // Quotes that are never closed hide nothing.
            let end = unquoted(text, b'>').or(text.iter().position(|&byte| byte == b'>'));
            text.get(..end.unwrap_or(text.len()))
        }
        None => {
            let space = unquoted(text, b' ')
                .into_iter()
                .chain(unquoted(text, b'\t'));
            text.get(..space.min().unwrap_or(text.len()))
        }
    };
    trim_space(text.unwrap_or_default())
}

/// Returns what follows the keyword and its colon, if the keyword is there.
fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    let text = skip_space(rest);
    let alone = text.len() < rest.len() || matches!(text, [] | [b':' | b'<', ..]);
    let found = word.eq_ignore_ascii_case(keyword) && alone;
    found.then(|| skip_space(text.strip_prefix(b":").unwrap_or(text)))
}

/// Returns the address of a path, after a source route that is recognised and otherwise
/// ignored (RFC 5321 section 4.1.1.3, appendix C). None if it has no domain.
fn mailbox(path: &[u8]) -> Option<Mailbox<'_>> {
    let address = skip_source_route(path);
    let at = if address.starts_with(b"\"") {
        unquoted(address, b'@')
    } else {
        address.iter().rposition(|&byte| byte == b'@')
    };
    let (local, domain) = address.split_at(at?);
    let domain = domain.strip_prefix(b"@")?;
    let valid = is_domain(domain) && !local.iter().any(u8::is_ascii_control);
    valid.then_some(Mailbox {
        path,
        local,
        domain,
    })
}

/// Returns what follows `@a,@b:`.
fn skip_source_route(path: &[u8]) -> &[u8] {
    let mut rest = path;
    while let [b'@', host @ ..] = rest {
        // An address literal has colons of its own.
        let literal = host.iter().position(|&byte| byte == b']');
        let from = literal.filter(|_| host.starts_with(b"[")).unwrap_or(0);
        let end = host.iter().skip(from).position(|byte| b",:".contains(byte));
        let Some((separator, after)) = end
            .and_then(|end| host.get(from + end..))
            .and_then(<[u8]>::split_first)
        else {
            return path;
        };
        rest = after;
        if *separator == b':' {
            return rest;
        }
    }
    path
}

/// Whether it is `Domain` or `address-literal` of RFC 5321 section 4.1.2. An
/// underscore and a final dot are in no grammar, but in use.
fn is_domain(domain: &[u8]) -> bool {
    domain.len() <= DOMAIN_MAX
        && is_utf8_text(domain)
        && match domain {
            [b'[', literal @ .., b']'] => {
                !literal.is_empty() && literal.iter().all(|&byte| is_dtext(byte))
            }
            [name @ .., b'.'] | name => name.split(|&byte| byte == b'.').all(is_label),
        }
}

/// Returns the index of `wanted` outside of quotes.
fn unquoted(text: &[u8], wanted: u8) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = rest
            .iter()
            .position(|&byte| byte == wanted || byte == b'"')?;
        let (_, found) = rest.split_at(at);
        match found {
            [b'"', quoted @ ..] => from += at + quoted_end(quoted)? + b"\"\"".len(),
            _ => return Some(from + at),
        }
    }
}

/// Returns the index of the `"` that ends a quoted string; `text` begins after the one
/// that opens it. A backslash escapes the next byte.
fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

/// `dcontent` of RFC 5321 section 4.1.3.
const fn is_dtext(byte: u8) -> bool {
    matches!(byte, b'!'..=b'Z' | b'^'..=b'~')
}

/// Letters, digits, hyphens within, underscores, and the bytes of U-labels,
/// whose length is that of their A-labels.
fn is_label(label: &[u8]) -> bool {
    let allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || byte > 127;
    !label.is_empty()
        && label.iter().all(allowed)
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
        && (label.len() <= LABEL_MAX || !label.is_ascii())
}

fn is_utf8_text(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok_and(|text| !text.contains(char::is_control))
}
