//! One SMTP command line, parsed without storing any of it (RFC 5321 section
//! 4.1), and the talkers that do not speak SMTP at all.
//!
//! The rules named in the tests (R7 to R22, S16 to S19) are those of RFC 5321.
//! Nothing is accepted here anyway, so nothing keeps a sender from going on to
//! RCPT, where it learns that there is no mail here: neither a path nor a
//! parameter nor an order that RFC 5321 calls wrong. Only a line that begins
//! with no verb is no command.

#[cfg(test)]
mod oracle;

use std::str;

use nomail_common::counted;

/// The longest domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;

/// The longest label of a domain name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// The verbs of SMTP and its extensions: what is done for them, if anything,
/// is in [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    Expn,
    StartTls,
    Auth,
    Bdat,
    Burl,
    Etrn,
    Atrn,
    Turn,
    Send,
    Soml,
    Saml,
}

impl Verb {
    /// Every verb there is.
    pub const ALL: [Self; 21] = [
        Self::Helo,
        Self::Ehlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Rset,
        Self::Noop,
        Self::Vrfy,
        Self::Help,
        Self::Quit,
        Self::Expn,
        Self::StartTls,
        Self::Auth,
        Self::Bdat,
        Self::Burl,
        Self::Etrn,
        Self::Atrn,
        Self::Turn,
        Self::Send,
        Self::Soml,
        Self::Saml,
    ];

    /// The verb as it is written, in upper case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Helo => "HELO",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Help => "HELP",
            Self::Quit => "QUIT",
            Self::Expn => "EXPN",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Bdat => "BDAT",
            Self::Burl => "BURL",
            Self::Etrn => "ETRN",
            Self::Atrn => "ATRN",
            Self::Turn => "TURN",
            Self::Send => "SEND",
            Self::Soml => "SOML",
            Self::Saml => "SAML",
        }
    }

    /// Whether it is one of the two that introduce the client.
    pub const fn is_helo(self) -> bool {
        matches!(self, Self::Helo | Self::Ehlo)
    }

    /// The verb of a command line, whether or not its arguments are right.
    pub fn of(line: &[u8]) -> Option<Self> {
        let (word, _) = split_word(line);
        Self::ALL
            .into_iter()
            .find(|verb| word.eq_ignore_ascii_case(verb.name().as_bytes()))
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO and what the client calls itself, if it says.
    Helo(&'a [u8]),
    /// EHLO and what the client calls itself, if it says.
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
    /// QUIT. With arguments too: RFC 5321 would have 501 for these, but the
    /// client wants to go and we want it gone.
    Quit,
    /// AUTH: no account is of use where no mail is taken.
    Auth,
    /// A verb that is known and not implemented: 502 (RFC 5321 section 4.2.4).
    Unimplemented,
}

/// The sender of MAIL (RFC 5321 section 4.1.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath<'a> {
    /// `<>`: a bounce or another notice that must not be answered. Also a path
    /// that is missing.
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
    /// An address with a domain, and the postmaster of a domain.
    Mailbox(Mailbox<'a>),
    /// Any other text: an account of this host such as `root`, an address
    /// whose domain is none, or nothing at all.
    Other(&'a [u8]),
}

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// The whole path as written: with its source route, without its angle
    /// brackets. Text from the network: escape it before showing it.
    pub path: &'a [u8],
    /// The local part as written, with its quotes.
    pub local: &'a [u8],
    /// The domain as written: a name, perhaps with a final dot, perhaps with
    /// U-labels in UTF-8, or an address literal in its brackets.
    pub domain: &'a [u8],
}

impl<'a> ReversePath<'a> {
    /// The path without its angle brackets, for an envelope log.
    pub const fn path(&self) -> &'a [u8] {
        match self {
            Self::Null => b"",
            Self::Mailbox(mailbox) => mailbox.path,
            Self::Other(path) => path,
        }
    }
}

impl<'a> Recipient<'a> {
    /// The path without its angle brackets, for an envelope log.
    pub const fn path(&self) -> &'a [u8] {
        match self {
            Self::Postmaster => b"Postmaster",
            Self::Mailbox(mailbox) => mailbox.path,
            Self::Other(path) => path,
        }
    }
}

/// Parses one command line: its bytes without its CRLF. None when it begins
/// with no verb that is known.
///
/// No argument is ever wrong: what a sender gets wrong is not why its mail is
/// refused, and an error would hide the reason that is.
///
/// Takes time in proportion to the line, and allocates nothing.
pub fn parse(line: &[u8]) -> Option<Command<'_>> {
    let verb = Verb::of(line)?;
    let (_, argument) = split_word(line);
    Some(match verb {
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

/// The first word of a line and what follows the white space after it. White
/// space at the end is no part of either (RFC 5321 section 4.1.1).
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let line = trim_end(line);
    let end = line.iter().position(|&octet| is_space(octet));
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, skip_space(rest))
}

/// A CR or LF alone is no white space: it is part of the line, and wrong in it
/// (RFC 5321 section 2.3.8).
const fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
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

/// The path in the argument of MAIL or RCPT, without its angle brackets, its
/// parameters and the white space around it.
///
/// By the book it is `FROM:<path>` or `TO:<path>`. Scripts leave out brackets,
/// colon or keyword, put white space between them or a name before them.
fn path<'a>(argument: &'a [u8], keyword: &[u8]) -> &'a [u8] {
    let text = after_keyword(argument, keyword).unwrap_or(argument);
    let text = match unquoted(text, b'<') {
        Some(open) => {
            let text = text.get(open + 1..).unwrap_or_default();
            // Quotes that are never closed hide nothing.
            let end = unquoted(text, b'>').or(text.iter().position(|&octet| octet == b'>'));
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

/// What follows the keyword and its colon, if it is there with either of these.
fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    let text = skip_space(rest);
    let alone = text.len() < rest.len() || matches!(text, [] | [b':' | b'<', ..]);
    let found = word.eq_ignore_ascii_case(keyword) && alone;
    found.then(|| skip_space(text.strip_prefix(b":").unwrap_or(text)))
}

/// The address of a path, after a source route that is recognised and otherwise
/// ignored (RFC 5321 section 4.1.1.3, appendix C). None when it has no domain.
fn mailbox(path: &[u8]) -> Option<Mailbox<'_>> {
    let address = skip_source_route(path);
    let at = if address.starts_with(b"\"") {
        unquoted(address, b'@')
    } else {
        address.iter().rposition(|&octet| octet == b'@')
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

/// What follows `@a,@b:`.
fn skip_source_route(path: &[u8]) -> &[u8] {
    let mut rest = path;
    while let [b'@', host @ ..] = rest {
        // An address literal has colons of its own.
        let literal = host.iter().position(|&octet| octet == b']');
        let from = literal.filter(|_| host.starts_with(b"[")).unwrap_or(0);
        let end = host.iter().skip(from).position(|o| b",:".contains(o));
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
                !literal.is_empty() && literal.iter().all(|&octet| is_dtext(octet))
            }
            [name @ .., b'.'] | name => name.split(|&octet| octet == b'.').all(is_label),
        }
}

/// Where `wanted` is that is not within quotes.
fn unquoted(text: &[u8], wanted: u8) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = rest.iter().position(|&o| o == wanted || o == b'"')?;
        let (_, found) = rest.split_at(at);
        match found {
            [b'"', quoted @ ..] => from += at + quoted_end(quoted)? + b"\"\"".len(),
            _ => return Some(from + at),
        }
    }
}

/// Where the `"` is that ends a quoted string; `text` begins after the one
/// that opens it. A backslash takes the next octet with it.
fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&octet| {
        let end = octet == b'"' && !escaped;
        escaped = octet == b'\\' && !escaped;
        end
    })
}

/// `dcontent` of RFC 5321 section 4.1.3.
const fn is_dtext(octet: u8) -> bool {
    matches!(octet, b'!'..=b'Z' | b'^'..=b'~')
}

/// Letters, digits, hyphens within, underscores, and the octets of U-labels,
/// whose length only their A-labels tell.
fn is_label(label: &[u8]) -> bool {
    let allowed =
        |&octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet) || octet > 127;
    !label.is_empty()
        && label.iter().all(allowed)
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
        && (label.len() <= LABEL_MAX || !label.is_ascii())
}

fn is_utf8_text(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok_and(|text| !text.contains(char::is_control))
}

counted! {
    /// A protocol that a client speaks instead of SMTP.
    pub enum Talker {
        /// A HTTP request.
        Http "http" "spoke HTTP";
        /// A TLS ClientHello: no STARTTLS was said.
        Tls "tls" "began with TLS";
        /// The PROXY protocol, version 1 or 2: a proxy in front of this host was
        /// told to send it.
        Proxy "proxy" "sent a PROXY header";
        /// Anything else with octets that are in no text.
        Garbage "garbage" "sent garbage";
    }
}

/// HTTP methods, and the preface of HTTP/2 (RFC 9110 section 9, RFC 5789,
/// RFC 9113 section 3.4). No verb of SMTP is among them.
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
];

/// How the PROXY protocol begins in its version 1.
const PROXY_V1: &[u8] = b"PROXY ";

/// The first lines of the signature of the PROXY protocol in its version 2. A
/// NUL follows them.
pub const PROXY_V2_EMPTY_LINES: u8 = 2;

/// The record type of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The major version of every TLS record.
const TLS_MAJOR: u8 = 0x03;

impl Talker {
    /// Looks at a line that may not be complete yet, as soon as its octets
    /// decide. CR, LF and tabs are no sign of garbage.
    ///
    /// `line` is the line so far, of which the first `seen` octets were handed
    /// over before, without a talker in them. Only the rest is searched, so
    /// all calls for a line together take time in proportion to its length
    /// and to their number. How a line is split never changes the answer.
    pub fn recognise(line: &[u8], seen: usize) -> Option<Self> {
        match line {
            [] | [TLS_HANDSHAKE] => None,
            [TLS_HANDSHAKE, TLS_MAJOR, ..] => Some(Self::Tls),
            [TLS_HANDSHAKE | 0x80.., ..] => Some(Self::Garbage),
            _ if line.starts_with(PROXY_V1) => Some(Self::Proxy),
            _ if HTTP_METHODS.iter().any(|method| line.starts_with(method)) => Some(Self::Http),
            _ => {
                let fresh = line.get(seen..).unwrap_or_default();
                let control = |o: &u8| o.is_ascii_control() && !matches!(o, b'\r' | b'\n' | b'\t');
                fresh.iter().any(control).then_some(Self::Garbage)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn mailbox<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Mailbox<'a> {
        Mailbox {
            path: path.as_bytes(),
            local: local.as_bytes(),
            domain: domain.as_bytes(),
        }
    }

    fn from<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Option<Command<'a>> {
        Some(Command::Mail(ReversePath::Mailbox(mailbox(
            path, local, domain,
        ))))
    }

    fn to<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Option<Command<'a>> {
        Some(Command::Rcpt(Recipient::Mailbox(mailbox(
            path, local, domain,
        ))))
    }

    const fn from_other(path: &str) -> Option<Command<'_>> {
        Some(Command::Mail(ReversePath::Other(path.as_bytes())))
    }

    const fn to_other(path: &str) -> Option<Command<'_>> {
        Some(Command::Rcpt(Recipient::Other(path.as_bytes())))
    }

    #[rstest]
    #[case("HELO a.example", Command::Helo(b"a.example"))]
    #[case("EHLO [IPv6:2001:db8::7]", Command::Ehlo(b"[IPv6:2001:db8::7]"))]
    #[case("EHLO my_host, or so", Command::Ehlo(b"my_host, or so"))]
    #[case("HELO", Command::Helo(b""))]
    #[case("EHLO  \t ", Command::Ehlo(b""))]
    #[case("EHLO b\u{fc}cher", Command::Ehlo(b"b\xc3\xbccher"))]
    #[case("EHLO a\rb", Command::Ehlo(b"a\rb"))]
    #[case("DATA", Command::Data)]
    #[case("DATA now", Command::Data)]
    #[case("RSET", Command::Rset)]
    #[case("RSET all", Command::Rset)]
    #[case("NOOP", Command::Noop)]
    #[case("NOOP any \u{fc} thing", Command::Noop)]
    #[case("VRFY", Command::Vrfy)]
    #[case("VRFY \u{fc}", Command::Vrfy)]
    #[case("HELP", Command::Help)]
    #[case("HELP me", Command::Help)]
    #[case("AUTH PLAIN AHgAeQ==", Command::Auth)]
    #[case("QUIT", Command::Quit)]
    #[case("QUIT now", Command::Quit)]
    fn r7_the_required_commands_and_their_arguments(
        #[case] line: &str,
        #[case] expected: Command<'_>,
    ) {
        assert_eq!(parse(line.as_bytes()), Some(expected));
    }

    #[rstest]
    fn r19_a_known_verb_without_its_command_is_not_an_unknown_one(
        #[values(
            "EXPN list",
            "STARTTLS",
            "BDAT 5 LAST",
            "BURL x LAST",
            "ETRN a",
            "ATRN a",
            "TURN",
            "SEND FROM:<a@b>",
            "SOML FROM:<a@b>",
            "SAML FROM:<a@b>",
            "starttls \u{fc}"
        )]
        line: &str,
    ) {
        assert_eq!(parse(line.as_bytes()), Some(Command::Unimplemented));
    }

    #[rstest]
    fn r19_anything_else_is_unknown(
        #[values(
            "",
            " ",
            "X",
            "QUITX",
            "QUI",
            " QUIT",
            "MAIL:",
            "LHLO a",
            "XCLIENT NAME=a",
            "DATA\r",
            "RSET\n",
            "Subject: a",
            "\u{fc}",
            "QUIT\0",
            "HELO\u{b}a"
        )]
        line: &str,
    ) {
        assert_eq!(parse(line.as_bytes()), None);
    }

    /// R10, R14, R15, R16, R22, and what RFC 5321 has no grammar for.
    #[rstest]
    #[case("MAIL FROM:<>", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM: <>", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM:<a@b.example>", from("a@b.example", "a", "b.example"))]
    #[case(
        "MAIL\tFROM:  \t<A.b@B.Example>",
        from("A.b@B.Example", "A.b", "B.Example")
    )]
    #[case("MAIL FROM:<@x,@y.z:a@b>", from("@x,@y.z:a@b", "a", "b"))]
    #[case("MAIL", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM:", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM :<a@b>", from("a@b", "a", "b"))]
    #[case("MAIL FROM<a@b>", from("a@b", "a", "b"))]
    #[case("MAIL FROM <a@b>", from("a@b", "a", "b"))]
    #[case("MAIL TO:<a@b>", from("a@b", "a", "b"))]
    #[case("MAIL <a@b>", from("a@b", "a", "b"))]
    #[case("MAIL a@b SIZE=1", from("a@b", "a", "b"))]
    #[case("MAIL FROM:a@b", from("a@b", "a", "b"))]
    #[case("MAIL FROM: a@b  SIZE=1", from("a@b", "a", "b"))]
    #[case("MAIL FROM:from@b", from("from@b", "from", "b"))]
    #[case("MAIL from@b", from("from@b", "from", "b"))]
    #[case("MAIL FROM:A <a@b>", from("a@b", "a", "b"))]
    #[case("MAIL FROM:\"A <x\" <a@b>", from("a@b", "a", "b"))]
    #[case("MAIL FROM:<a@b", from("a@b", "a", "b"))]
    #[case("MAIL FROM:< a@b >", from("a@b", "a", "b"))]
    #[case("MAIL FROM:<a>", from_other("a"))]
    #[case("MAIL FROM:<postmaster>", from_other("postmaster"))]
    #[case("MAIL FROM:< >", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM:<>x", Some(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM:<\u{fc}@b>", from("\u{fc}@b", "\u{fc}", "b"))]
    #[case(
        "MAIL FROM:<a@b\u{fc}.example>",
        from("a@b\u{fc}.example", "a", "b\u{fc}.example")
    )]
    #[case("MAIL FROM:<> SIZE=5", Some(Command::Mail(ReversePath::Null)))]
    #[case(
        "MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8 AUTH=<>",
        from("a@b", "a", "b")
    )]
    #[case("MAIL FROM:<a@-> BODY=8BITMIME", from_other("a@-"))]
    fn any_sender_of_mail_is_read(#[case] line: &str, #[case] expected: Option<Command<'_>>) {
        assert_eq!(parse(line.as_bytes()), expected);
    }

    /// R14, R15, R16, and what RFC 5321 has no grammar for.
    #[rstest]
    #[case("<Postmaster>", Some(Command::Rcpt(Recipient::Postmaster)))]
    #[case("<POSTMASTER>", Some(Command::Rcpt(Recipient::Postmaster)))]
    #[case("postmaster", Some(Command::Rcpt(Recipient::Postmaster)))]
    #[case("<postmaster> x", Some(Command::Rcpt(Recipient::Postmaster)))]
    #[case("<postmaster@b>", to("postmaster@b", "postmaster", "b"))]
    #[case("<a@b.example.>", to("a@b.example.", "a", "b.example."))]
    #[case("<a..b.@b>", to("a..b.@b", "a..b.", "b"))]
    #[case(
        "<!#$%&'*+-/=?^_`{|}~@b>",
        to("!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b")
    )]
    #[case("<a@_x.b_c>", to("a@_x.b_c", "a", "_x.b_c"))]
    #[case("<a@[192.0.2.7]>", to("a@[192.0.2.7]", "a", "[192.0.2.7]"))]
    #[case(
        "<@[IPv6:::1],@c:a@[IPv6:::1]>",
        to("@[IPv6:::1],@c:a@[IPv6:::1]", "a", "[IPv6:::1]")
    )]
    #[case("<\"\"@b>", to("\"\"@b", "\"\"", "b"))]
    #[case("<\"a@b > c\"@d>", to("\"a@b > c\"@d", "\"a@b > c\"", "d"))]
    #[case("\"a b\"@d NOTIFY=NEVER", to("\"a b\"@d", "\"a b\"", "d"))]
    #[case(r#"<"a@b\"c"@d>"#, to(r#""a@b\"c"@d"#, r#""a@b\"c""#, "d"))]
    #[case(r#"<"\\"@d>"#, to(r#""\\"@d"#, r#""\\""#, "d"))]
    #[case(
        "<a@b\u{fc}cher.example>",
        to("a@b\u{fc}cher.example", "a", "b\u{fc}cher.example")
    )]
    #[case("a@b", to("a@b", "a", "b"))]
    #[case("A <a@b>", to("a@b", "a", "b"))]
    #[case("<a@b", to("a@b", "a", "b"))]
    #[case("< a@b > x", to("a@b", "a", "b"))]
    #[case("<a@b>>", to("a@b", "a", "b"))]
    #[case("<a@b>NOTIFY=NEVER", to("a@b", "a", "b"))]
    #[case("<a@b> NOTIFY=NEVER ORCPT=rfc822;a@c", to("a@b", "a", "b"))]
    #[case("<a b@c>", to("a b@c", "a b", "c"))]
    #[case("<a@b@c>", to("a@b@c", "a@b", "c"))]
    #[case("<a\\@b@c>", to("a\\@b@c", "a\\@b", "c"))]
    #[case("<\"a\"b@c>", to("\"a\"b@c", "\"a\"b", "c"))]
    #[case("<b\"a\"@c>", to("b\"a\"@c", "b\"a\"", "c"))]
    #[case("<@b>", to("@b", "", "b"))]
    #[case("<@a,b:a@c>", to("@a,b:a@c", "@a,b:a", "c"))]
    #[case("<@[::1:a@c>", to("@[::1:a@c", ":1:a", "c"))]
    #[case("<\u{fc}@b>", to("\u{fc}@b", "\u{fc}", "b"))]
    #[case("", to_other(""))]
    #[case("<>", to_other(""))]
    #[case("<root>", to_other("root"))]
    #[case("root", to_other("root"))]
    #[case("<@a:postmaster>", to_other("@a:postmaster"))]
    #[case("<a@>", to_other("a@"))]
    #[case("<a@.>", to_other("a@."))]
    #[case("<a@b..c>", to_other("a@b..c"))]
    #[case("<a@-b>", to_other("a@-b"))]
    #[case("<a@b c>", to_other("a@b c"))]
    #[case("<a@[]>", to_other("a@[]"))]
    #[case("<a@[192.0.2.7>", to_other("a@[192.0.2.7"))]
    #[case("<\"a@c>", to_other("\"a@c"))]
    #[case("<a\0@b>", to_other("a\0@b"))]
    #[case("<\"a\tb\"@b>", to_other("\"a\tb\"@b"))]
    #[case("<a@b\0>", to_other("a@b\0"))]
    #[case("<a@b\u{85}>", to_other("a@b\u{85}"))]
    fn any_recipient_of_rcpt_is_read(#[case] path: &str, #[case] expected: Option<Command<'_>>) {
        for line in [
            format!("RCPT TO:{path}"),
            format!("rcpt to: {path} "),
            format!("Rcpt To :\t{path}"),
        ] {
            let (ours, expected) = (parse(line.as_bytes()), format!("{expected:?}"));
            assert_eq!(format!("{ours:?}"), expected, "{line}");
        }
    }

    #[test]
    fn r16_a_domain_that_is_not_utf8_is_none() {
        assert_eq!(
            parse(b"RCPT TO:<a@b\xfc.example>"),
            Some(Command::Rcpt(Recipient::Other(b"a@b\xfc.example")))
        );
    }

    /// Only a domain has a limit: VERP and SRS write long local parts, and
    /// routes are long anyway.
    #[rstest]
    #[case(64, 5, 0, true)]
    #[case(450, 5, 0, true)]
    #[case(1, 255, 0, true)]
    #[case(1, 256, 0, false)]
    #[case(64, 255, 0, true)]
    #[case(1, 5, 400, true)]
    fn r18_the_limits_of_local_part_domain_and_path(
        #[case] local: usize,
        #[case] domain: usize,
        #[case] route: usize,
        #[case] valid: bool,
    ) {
        let name = |length: usize| {
            let label = "a".repeat(40) + ".";
            let name = label.repeat(11)[..length].to_owned();
            name.strip_suffix('.')
                .map_or(name.clone(), |name| format!("{name}a"))
        };
        let route = match route {
            0 => String::new(),
            _ => format!("@{}:", name(route - 2)),
        };
        let (local, domain) = ("a".repeat(local), name(domain));
        let path = format!("{route}{local}@{domain}");
        for (line, good, other) in [
            (
                format!("MAIL FROM:<{path}>"),
                from(&path, &local, &domain),
                from_other(&path),
            ),
            (
                format!("RCPT TO:<{path}>"),
                to(&path, &local, &domain),
                to_other(&path),
            ),
        ] {
            let expected = if valid { good } else { other };
            assert_eq!(parse(line.as_bytes()), expected);
        }
    }

    #[rstest]
    #[case(63, true)]
    #[case(64, false)]
    fn r18_a_label_has_at_most_63_octets(#[case] length: usize, #[case] valid: bool) {
        let path = format!("a@{}.example", "a".repeat(length));
        let line = format!("RCPT TO:<{path}>");
        let other = parse(line.as_bytes()) == to_other(&path);
        assert_eq!(other, !valid);
    }

    #[rstest]
    fn s17_trailing_white_space_is_tolerated(
        #[values(
            "HELO a",
            "MAIL FROM:<>",
            "RCPT TO:<a@b>",
            "DATA",
            "RSET",
            "QUIT",
            "VRFY a"
        )]
        line: &str,
    ) {
        for space in [" ", "\t", " \t  "] {
            let padded = format!("{line}{space}");
            assert_eq!(parse(padded.as_bytes()), parse(line.as_bytes()));
            assert!(parse(padded.as_bytes()).is_some());
        }
    }

    #[test]
    fn every_verb_is_found_by_its_name() {
        for verb in Verb::ALL {
            assert_eq!(Verb::of(verb.name().as_bytes()), Some(verb));
        }
    }

    #[rstest]
    #[case(b"GET / HTTP/1.1\r\n", Some(Talker::Http))]
    #[case(b"PRI * HTTP/2.0\r\n", Some(Talker::Http))]
    #[case(b"OPTIONS ", Some(Talker::Http))]
    #[case(b"GET \0", Some(Talker::Http))]
    #[case(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n", Some(Talker::Proxy))]
    #[case(b"PROXY UNKNOWN\r\n", Some(Talker::Proxy))]
    #[case(b"PROXY", None)]
    #[case(b"proxy a", None)]
    #[case(b"GET", None)]
    #[case(b"GETS /", None)]
    #[case(b"get / HTTP/1.1", None)]
    #[case(b" GET / HTTP/1.1", None)]
    #[case(b"\x16", None)]
    #[case(b"\x16\x03", Some(Talker::Tls))]
    #[case(b"\x16\x03\x01\x02\0\x01", Some(Talker::Tls))]
    #[case(b"\x16\x02", Some(Talker::Garbage))]
    #[case(b"\x16\r\n", Some(Talker::Garbage))]
    #[case(b"\x80\x2e\x01", Some(Talker::Garbage))]
    #[case(b"\xc3\xbc", Some(Talker::Garbage))]
    #[case(b"EHLO a\0", Some(Talker::Garbage))]
    #[case(b"EHLO \x7f", Some(Talker::Garbage))]
    #[case(b"EHLO \xc3\xbc", None)]
    #[case(b"\x03", Some(Talker::Garbage))]
    #[case(b"", None)]
    #[case(b"EHLO a\r\n", None)]
    #[case(b"\r\n\t", None)]
    fn talkers_that_are_not_mail(#[case] line: &[u8], #[case] expected: Option<Talker>) {
        assert_eq!(Talker::recognise(line, 0), expected);
    }

    /// A line with a verb, or with something like one, and arguments.
    fn line() -> impl Strategy<Value = String> {
        let verbs = Verb::ALL.map(Verb::name).to_vec();
        let word = prop_oneof![
            4 => prop::sample::select(verbs.clone()).prop_map(str::to_owned),
            1 => (prop::sample::select(verbs), 0usize..9, "[A-Za-z0-9]?").prop_map(
                |(verb, keep, more)| format!("{}{more}", &verb[..keep.min(verb.len())])
            ),
            1 => "[!-~]{1,10}",
        ];
        let cased = (word, any::<u64>()).prop_map(|(word, mask)| {
            let flip = |(at, letter): (usize, char)| match mask >> at & 1 {
                1 => letter.to_ascii_lowercase(),
                _ => letter,
            };
            word.chars().enumerate().map(flip).collect::<String>()
        });
        let argument = prop_oneof![
            Just(String::new()),
            Just(" ".to_owned()),
            "[ \t](FROM|TO|from): ?<[a-z]{0,3}@?[a-z.]{0,5}>",
            "[ \t][!-~ ]{0,20}",
        ];
        (cased, argument).prop_map(|(word, argument)| word + &argument)
    }

    fn label() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9])?"
    }

    fn domain() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join(".")),
            1 => prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join(".") + "."),
            1 => any::<std::net::Ipv4Addr>().prop_map(|address| format!("[{address}]")),
            1 => any::<std::net::Ipv6Addr>().prop_map(|address| format!("[IPv6:{address}]")),
        ]
    }

    fn local() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.-]{1,20}",
            r#""([ !#-\[\]-~]|\\[ -~]){0,20}""#,
        ]
    }

    proptest! {
        #[test]
        fn any_octets_parse_and_never_panic(line in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(parse(&line).is_some(), Verb::of(&line).is_some());
            let mail = [&b"MAIL FROM:"[..], &line].concat();
            prop_assert!(matches!(parse(&mail), Some(Command::Mail(_))));
            let rcpt = [&b"RCPT TO:<"[..], &line].concat();
            prop_assert!(matches!(parse(&rcpt), Some(Command::Rcpt(_))));
        }

        #[test]
        fn any_special_octets_parse_and_never_panic(path in r#"[<>@,:.\\"\[\]a \u{fc}\x00-]{0,30}"#) {
            if let Some(Command::Rcpt(Recipient::Mailbox(mailbox))) = parse(format!("RCPT TO:<{path}>").as_bytes()) {
                let address = [mailbox.local, b"@", mailbox.domain].concat();
                prop_assert!(mailbox.path.ends_with(&address));
            }
        }

        #[test]
        fn s18_verbs_and_keywords_are_case_insensitive(line in line()) {
            let kind = |line: String| (Verb::of(line.as_bytes()), parse(line.as_bytes()).is_none());
            prop_assert_eq!(kind(line.to_ascii_uppercase()), kind(line.to_ascii_lowercase()));
        }

        #[test]
        fn smtp_proto_sees_the_same_verbs(line in line()) {
            let (ours, theirs) = oracle::verbs(&line);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn r14_what_was_written_is_what_is_read(
            route in prop::collection::vec(domain(), 0..3),
            local in local(),
            domain in domain(),
            space in "[ \t]{0,2}",
        ) {
            let hosts: Vec<_> = route.iter().map(|host| format!("@{host}")).collect();
            let route = if hosts.is_empty() { String::new() } else { hosts.join(",") + ":" };
            let path = format!("{route}{local}@{domain}");
            let mail = format!("MAIL FROM:{space}<{path}>{space}");
            prop_assert_eq!(parse(mail.as_bytes()), from(&path, &local, &domain));
            let rcpt = format!("RCPT TO:{space}<{path}>{space}");
            prop_assert_eq!(parse(rcpt.as_bytes()), to(&path, &local, &domain));
            let mail = format!("MAIL FROM:<{path}> SIZE=1");
            prop_assert_eq!(parse(mail.as_bytes()), from(&path, &local, &domain));
            let bare = format!("RCPT TO:{space}{path} NOTIFY=NEVER");
            prop_assert_eq!(parse(bare.as_bytes()), to(&path, &local, &domain));
        }

        #[test]
        fn a_talker_is_the_same_in_any_split(
            start in prop::sample::select(vec![&b""[..], b"GET ", b"GE", b"PROXY ", b"PROX", b"\x16", b"\x16\x03", b"\x16\x03\x01", b"EHLO a", b"\r\n", b"PR"]),
            rest in prop::collection::vec(prop_oneof![Just(b' '), Just(b'A'), any::<u8>()], 0..20),
            sizes in prop::collection::vec(1usize..5, 0..30),
        ) {
            let line = [start, &rest].concat();
            let mut seen = 0;
            let mut found = None;
            for size in sizes.into_iter().chain([line.len()]) {
                let end = (seen + size).min(line.len());
                found = Talker::recognise(&line[..end], seen);
                seen = end;
                if found.is_some() {
                    break;
                }
            }
            prop_assert_eq!(found, Talker::recognise(&line, 0));
        }
    }
}
