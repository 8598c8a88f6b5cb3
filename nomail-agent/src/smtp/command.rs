//! One SMTP command line, parsed without storing any of it (RFC 5321 section
//! 4.1), and the talkers that do not speak SMTP at all.
//!
//! The rules named in the tests (R7 to R22, S16 to S19) are those of RFC 5321.
//! Where it leaves a choice, the answer that lets a sender go on to RCPT is
//! taken: nothing is accepted here anyway.

#[cfg(test)]
mod oracle;

use std::str;

/// The longest local part, as written (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_PART_MAX: usize = 64;

/// The longest domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;

/// The longest path, with its angle brackets (RFC 5321 section 4.5.3.1.3).
pub const PATH_MAX: usize = 256;

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

/// A command whose arguments are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO and what the client calls itself.
    Helo(&'a [u8]),
    /// EHLO and what the client calls itself.
    Ehlo(&'a [u8]),
    /// MAIL, without parameters.
    Mail(ReversePath<'a>),
    /// RCPT, without parameters.
    Rcpt(Recipient<'a>),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, with or without an argument.
    Noop,
    /// VRFY of something.
    Vrfy,
    /// HELP, with or without an argument.
    Help,
    /// QUIT. With arguments too: RFC 5321 would have 501 for these, but the
    /// client wants to go and we want it gone.
    Quit,
    /// A verb that is known and not implemented, whatever follows it: 502
    /// (RFC 5321 section 4.2.4).
    Unimplemented,
}

/// The sender of MAIL (RFC 5321 section 4.1.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath<'a> {
    /// `<>`: a bounce or another notice that must not be answered.
    Null,
    /// Anybody else.
    Mailbox(Mailbox<'a>),
}

/// The recipient of RCPT (RFC 5321 section 4.1.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// `<Postmaster>` in any case, without a domain.
    Postmaster,
    /// Anybody else, and the postmaster of a domain.
    Mailbox(Mailbox<'a>),
}

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// The whole path as written: with its source route, without its angle
    /// brackets. Text from the network: escape it before showing it.
    pub path: &'a [u8],
    /// The local part as written, with its quotes.
    pub local: &'a [u8],
    /// The domain as written: a name, perhaps with a final dot, in RCPT
    /// perhaps with U-labels in UTF-8, or an address literal in its brackets.
    pub domain: &'a [u8],
}

impl<'a> ReversePath<'a> {
    /// The path without its angle brackets, for an envelope log.
    pub const fn path(&self) -> &'a [u8] {
        match self {
            Self::Null => b"",
            Self::Mailbox(mailbox) => mailbox.path,
        }
    }
}

impl<'a> Recipient<'a> {
    /// The path without its angle brackets, for an envelope log.
    pub const fn path(&self) -> &'a [u8] {
        match self {
            Self::Postmaster => b"Postmaster",
            Self::Mailbox(mailbox) => mailbox.path,
        }
    }
}

/// What is wrong with a command, and the reply that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// 500 5.5.2: no verb that is known.
    Unknown,
    /// 500 5.5.2: an octet above 127 or a control where there is none in the
    /// grammar (RFC 5321 sections 2.4 and 4.1.2).
    EightBit,
    /// 501 5.5.4: an argument is missing or too much.
    Argument,
    /// 501 5.1.7: the path of MAIL is broken or too long.
    Sender,
    /// 501 5.1.3: the path of RCPT is broken or too long.
    Recipient,
    /// 555 5.5.4: a parameter of MAIL or RCPT; none was announced.
    Parameter,
}

/// Parses one command line: its octets without its CRLF, at most 510.
///
/// Takes time in proportion to the line, and allocates nothing.
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let verb = Verb::of(line).ok_or(CommandError::Unknown)?;
    let (_, argument) = split_word(line);
    match verb {
        Verb::Helo => words(argument).map(Command::Helo),
        Verb::Ehlo => words(argument).map(Command::Ehlo),
        Verb::Mail => mail(argument).map(Command::Mail),
        Verb::Rcpt => rcpt(argument).map(Command::Rcpt),
        Verb::Data => nothing(argument).map(|()| Command::Data),
        Verb::Rset => nothing(argument).map(|()| Command::Rset),
        Verb::Noop => Ok(Command::Noop),
        Verb::Vrfy => words(argument).map(|_| Command::Vrfy),
        Verb::Help => Ok(Command::Help),
        Verb::Quit => Ok(Command::Quit),
        Verb::Expn
        | Verb::StartTls
        | Verb::Auth
        | Verb::Bdat
        | Verb::Burl
        | Verb::Etrn
        | Verb::Atrn
        | Verb::Turn
        | Verb::Send
        | Verb::Soml
        | Verb::Saml => Ok(Command::Unimplemented),
    }
}

/// The first word of a line and what follows the white space after it. White
/// space at the end is no part of either (RFC 5321 section 4.1.1).
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let mut line = line;
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    let end = line.iter().position(|&octet| is_space(octet));
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, skip_space(rest))
}

/// A CR or LF alone is no white space: it is part of the line, and wrong in it
/// (RFC 5321 section 2.3.8).
const fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

fn skip_space(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

const fn is_printable(octet: u8) -> bool {
    matches!(octet, b' '..=b'~')
}

/// An argument that has to be there, of any printable form.
fn words(argument: &[u8]) -> Result<&[u8], CommandError> {
    if argument.is_empty() {
        Err(CommandError::Argument)
    } else if argument.iter().all(|&o| is_printable(o) || is_space(o)) {
        Ok(argument)
    } else {
        Err(CommandError::EightBit)
    }
}

const fn nothing(argument: &[u8]) -> Result<(), CommandError> {
    if argument.is_empty() {
        Ok(())
    } else {
        Err(CommandError::Argument)
    }
}

fn mail(argument: &[u8]) -> Result<ReversePath<'_>, CommandError> {
    let (path, after) = Direction::Reverse.split_path(argument, b"FROM:")?;
    let sender = match path {
        b"" => ReversePath::Null,
        _ => ReversePath::Mailbox(Direction::Reverse.mailbox(path)?),
    };
    no_parameter(after).map(|()| sender)
}

fn rcpt(argument: &[u8]) -> Result<Recipient<'_>, CommandError> {
    let (path, after) = Direction::Forward.split_path(argument, b"TO:")?;
    let recipient = if path.eq_ignore_ascii_case(b"Postmaster") {
        Recipient::Postmaster
    } else {
        Recipient::Mailbox(Direction::Forward.mailbox(path)?)
    };
    no_parameter(after).map(|()| recipient)
}

/// No parameter is announced, so none is known (RFC 5321 section 4.1.1.11).
fn no_parameter(after: &[u8]) -> Result<(), CommandError> {
    if skip_space(after).is_empty() {
        Ok(())
    } else {
        Err(CommandError::Parameter)
    }
}

/// Which path is parsed: the one of MAIL or the one of RCPT.
#[derive(Clone, Copy)]
enum Direction {
    Reverse,
    Forward,
}

impl Direction {
    const fn broken(self) -> CommandError {
        match self {
            Self::Reverse => CommandError::Sender,
            Self::Forward => CommandError::Recipient,
        }
    }

    /// What is between the angle brackets after the keyword, and what follows
    /// them: nothing, or white space and more.
    ///
    /// White space after the colon is in no grammar, but many
    /// senders write it.
    fn split_path<'a>(
        self,
        argument: &'a [u8],
        keyword: &[u8],
    ) -> Result<(&'a [u8], &'a [u8]), CommandError> {
        let text = match argument.split_at_checked(keyword.len()) {
            Some((word, text)) if word.eq_ignore_ascii_case(keyword) => skip_space(text),
            _ => return Err(CommandError::Argument),
        };
        if text.is_empty() {
            return Err(CommandError::Argument);
        }
        let text = text.strip_prefix(b"<").ok_or(self.broken())?;
        let end = unquoted_end(text).ok_or(self.broken())?;
        let (path, after) = text.split_at(end);
        match after {
            [b'>'] => Ok((path, b"")),
            [b'>', space, ..] if is_space(*space) => Ok((path, after.get(1..).unwrap_or_default())),
            _ => Err(self.broken()),
        }
    }

    /// `Mailbox` of RFC 5321 section 4.1.2, after a source route that is
    /// recognised and otherwise ignored (section 4.1.1.3, appendix C).
    fn mailbox(self, path: &[u8]) -> Result<Mailbox<'_>, CommandError> {
        if path.len() + b"<>".len() > PATH_MAX {
            return Err(self.broken());
        }
        let address = match path {
            [b'@', ..] => self.skip_source_route(path)?,
            _ => path,
        };
        let (local, domain) = match address.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted_end(quoted).ok_or(self.broken())?;
                address.split_at(end + b"\"\"".len())
            }
            None => {
                let at = address.iter().rposition(|&octet| octet == b'@');
                address.split_at(at.ok_or(self.broken())?)
            }
        };
        let domain = domain.strip_prefix(b"@").ok_or(self.broken())?;
        self.check_local_part(local)?;
        self.check_domain(domain)?;
        Ok(Mailbox {
            path,
            local,
            domain,
        })
    }

    /// `@a,@b:` and then the address.
    fn skip_source_route(self, path: &[u8]) -> Result<&[u8], CommandError> {
        let mut rest = path;
        loop {
            rest = rest.strip_prefix(b"@").ok_or(self.broken())?;
            // An address literal has colons of its own.
            let end = if rest.starts_with(b"[") {
                rest.iter()
                    .position(|&octet| octet == b']')
                    .map(|at| at + 1)
            } else {
                rest.iter().position(|octet| b",:".contains(octet))
            };
            let (domain, after) = rest.split_at(end.ok_or(self.broken())?);
            self.check_domain(domain)?;
            match after {
                [b',', next @ ..] => rest = next,
                [b':', address @ ..] => return Ok(address),
                _ => return Err(self.broken()),
            }
        }
    }

    /// `Dot-string`, with its dots anywhere because there are such mailboxes,
    /// or `Quoted-string`.
    fn check_local_part(self, local: &[u8]) -> Result<(), CommandError> {
        if !local.iter().copied().all(is_printable) {
            return Err(CommandError::EightBit);
        }
        let valid = local.starts_with(b"\"")
            || (!local.is_empty() && local.iter().all(|&octet| octet == b'.' || is_atext(octet)));
        if valid && local.len() <= LOCAL_PART_MAX {
            Ok(())
        } else {
            Err(self.broken())
        }
    }

    /// `Domain` or `address-literal`. An underscore and a final dot are in no
    /// grammar, but in use.
    fn check_domain(self, domain: &[u8]) -> Result<(), CommandError> {
        if domain.len() > DOMAIN_MAX {
            return Err(self.broken());
        }
        let text = match self {
            Self::Reverse => domain.iter().copied().all(is_printable),
            Self::Forward => is_utf8_text(domain),
        };
        if !text {
            return Err(CommandError::EightBit);
        }
        let valid = match domain {
            [b'[', literal @ .., b']'] => {
                !literal.is_empty() && literal.iter().all(|&octet| is_dtext(octet))
            }
            [name @ .., b'.'] | name => name.split(|&octet| octet == b'.').all(is_label),
        };
        if valid { Ok(()) } else { Err(self.broken()) }
    }
}

/// Where the `>` is that is not within quotes.
fn unquoted_end(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = rest.iter().position(|octet| b"\">".contains(octet))?;
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

/// `atext` of RFC 5322 section 3.2.3.
const fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(
            octet,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'/' | b'=' | b'?' | b'^'..=b'`' | b'{'..=b'~'
        )
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

/// One that talks, but not SMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Talker {
    /// A HTTP request.
    Http,
    /// A TLS ClientHello: no STARTTLS was said.
    Tls,
    /// Anything else with octets that are in no text.
    Garbage,
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

    fn from<'a>(
        path: &'a str,
        local: &'a str,
        domain: &'a str,
    ) -> Result<Command<'a>, CommandError> {
        Ok(Command::Mail(ReversePath::Mailbox(mailbox(
            path, local, domain,
        ))))
    }

    fn to<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Result<Command<'a>, CommandError> {
        Ok(Command::Rcpt(Recipient::Mailbox(mailbox(
            path, local, domain,
        ))))
    }

    #[rstest]
    #[case("HELO a.example", Ok(Command::Helo(b"a.example")))]
    #[case("EHLO [IPv6:2001:db8::7]", Ok(Command::Ehlo(b"[IPv6:2001:db8::7]")))]
    #[case("EHLO my_host, or so", Ok(Command::Ehlo(b"my_host, or so")))]
    #[case("HELO", Err(CommandError::Argument))]
    #[case("EHLO  \t ", Err(CommandError::Argument))]
    #[case("EHLO b\u{fc}cher.example", Err(CommandError::EightBit))]
    #[case("EHLO a\rb", Err(CommandError::EightBit))]
    #[case("DATA", Ok(Command::Data))]
    #[case("DATA now", Err(CommandError::Argument))]
    #[case("RSET", Ok(Command::Rset))]
    #[case("RSET all", Err(CommandError::Argument))]
    #[case("NOOP", Ok(Command::Noop))]
    #[case("NOOP any \u{fc} thing", Ok(Command::Noop))]
    #[case("VRFY", Err(CommandError::Argument))]
    #[case("VRFY somebody", Ok(Command::Vrfy))]
    #[case("VRFY \u{fc}", Err(CommandError::EightBit))]
    #[case("HELP", Ok(Command::Help))]
    #[case("HELP me", Ok(Command::Help))]
    #[case("QUIT", Ok(Command::Quit))]
    #[case("QUIT now", Ok(Command::Quit))]
    fn r7_the_required_commands_and_their_arguments(
        #[case] line: &str,
        #[case] expected: Result<Command<'_>, CommandError>,
    ) {
        assert_eq!(parse(line.as_bytes()), expected);
    }

    #[rstest]
    fn r19_a_known_verb_without_its_command_is_not_an_unknown_one(
        #[values(
            "EXPN list",
            "STARTTLS",
            "AUTH PLAIN AHgAeQ==",
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
        assert_eq!(parse(line.as_bytes()), Ok(Command::Unimplemented));
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
        assert_eq!(parse(line.as_bytes()), Err(CommandError::Unknown));
    }

    #[rstest]
    #[case("MAIL FROM:<>", Ok(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM: <>", Ok(Command::Mail(ReversePath::Null)))]
    #[case("MAIL FROM:<a@b.example>", from("a@b.example", "a", "b.example"))]
    #[case(
        "MAIL\tFROM:  \t<A.b@B.Example>",
        from("A.b@B.Example", "A.b", "B.Example")
    )]
    #[case("MAIL FROM:<@x,@y.z:a@b>", from("@x,@y.z:a@b", "a", "b"))]
    #[case("MAIL", Err(CommandError::Argument))]
    #[case("MAIL FROM", Err(CommandError::Argument))]
    #[case("MAIL FROM:", Err(CommandError::Argument))]
    #[case("MAIL FROM :<a@b>", Err(CommandError::Argument))]
    #[case("MAIL TO:<a@b>", Err(CommandError::Argument))]
    #[case("MAIL <a@b>", Err(CommandError::Argument))]
    #[case("MAIL FROM:a@b", Err(CommandError::Sender))]
    #[case("MAIL FROM:<a@b", Err(CommandError::Sender))]
    #[case("MAIL FROM:<a>", Err(CommandError::Sender))]
    #[case("MAIL FROM:<postmaster>", Err(CommandError::Sender))]
    #[case("MAIL FROM:< >", Err(CommandError::Sender))]
    #[case("MAIL FROM:<>x", Err(CommandError::Sender))]
    #[case("MAIL FROM:<\u{fc}@b>", Err(CommandError::EightBit))]
    #[case("MAIL FROM:<a@b\u{fc}cher.example>", Err(CommandError::EightBit))]
    #[case("MAIL FROM:<> SIZE=5", Err(CommandError::Parameter))]
    #[case("MAIL FROM:<a@b> BODY=8BITMIME", Err(CommandError::Parameter))]
    #[case("MAIL FROM:<a@-> BODY=8BITMIME", Err(CommandError::Sender))]
    fn r10_r14_r15_r22_the_sender_of_mail(
        #[case] line: &str,
        #[case] expected: Result<Command<'_>, CommandError>,
    ) {
        assert_eq!(parse(line.as_bytes()), expected);
    }

    #[rstest]
    #[case("<Postmaster>", Ok(Command::Rcpt(Recipient::Postmaster)))]
    #[case("<POSTMASTER>", Ok(Command::Rcpt(Recipient::Postmaster)))]
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
    #[case(r#"<"a@b\"c"@d>"#, to(r#""a@b\"c"@d"#, r#""a@b\"c""#, "d"))]
    #[case(r#"<"\\"@d>"#, to(r#""\\"@d"#, r#""\\""#, "d"))]
    #[case(
        "<a@b\u{fc}cher.example>",
        to("a@b\u{fc}cher.example", "a", "b\u{fc}cher.example")
    )]
    #[case("<>", Err(CommandError::Recipient))]
    #[case("postmaster", Err(CommandError::Recipient))]
    #[case("<@a:postmaster>", Err(CommandError::Recipient))]
    #[case("<a>", Err(CommandError::Recipient))]
    #[case("<@b>", Err(CommandError::Recipient))]
    #[case("<a@>", Err(CommandError::Recipient))]
    #[case("<a@.>", Err(CommandError::Recipient))]
    #[case("<a@b..c>", Err(CommandError::Recipient))]
    #[case("<a@b..>", Err(CommandError::Recipient))]
    #[case("<a@.b>", Err(CommandError::Recipient))]
    #[case("<a@-b>", Err(CommandError::Recipient))]
    #[case("<a@b->", Err(CommandError::Recipient))]
    #[case("<a@b c>", Err(CommandError::Recipient))]
    #[case("<a@[]>", Err(CommandError::Recipient))]
    #[case("<a@[192.0.2.7>", Err(CommandError::Recipient))]
    #[case("<a@[a b]>", Err(CommandError::Recipient))]
    #[case("<a b@c>", Err(CommandError::Recipient))]
    #[case("<a@b@c>", Err(CommandError::Recipient))]
    #[case("<a\\@b@c>", Err(CommandError::Recipient))]
    #[case("<\"a\"b@c>", Err(CommandError::Recipient))]
    #[case("<b\"a\"@c>", Err(CommandError::Recipient))]
    #[case("<\"a@c>", Err(CommandError::Recipient))]
    #[case("<\"a\\\"@c>", Err(CommandError::Recipient))]
    #[case("<@a a@c>", Err(CommandError::Recipient))]
    #[case("<@a,b:a@c>", Err(CommandError::Recipient))]
    #[case("<@a,@:a@c>", Err(CommandError::Recipient))]
    #[case("<@a:@b:a@c>", Err(CommandError::Recipient))]
    #[case("<@[::1:a@c>", Err(CommandError::Recipient))]
    #[case("<a@b>>", Err(CommandError::Recipient))]
    #[case("<a@b>NOTIFY=NEVER", Err(CommandError::Recipient))]
    #[case("<a@b> NOTIFY=NEVER", Err(CommandError::Parameter))]
    #[case("<postmaster> x", Err(CommandError::Parameter))]
    #[case("<\u{fc}@b>", Err(CommandError::EightBit))]
    #[case("<a\0@b>", Err(CommandError::EightBit))]
    #[case("<\"a\tb\"@b>", Err(CommandError::EightBit))]
    #[case("<a@b\0>", Err(CommandError::EightBit))]
    #[case("<a@b\u{85}>", Err(CommandError::EightBit))]
    fn r14_r15_r16_the_recipient_of_rcpt(
        #[case] path: &str,
        #[case] expected: Result<Command<'_>, CommandError>,
    ) {
        for line in [format!("RCPT TO:{path}"), format!("rcpt to: {path} ")] {
            assert_eq!(
                format!("{:?}", parse(line.as_bytes())),
                format!("{expected:?}")
            );
        }
    }

    #[test]
    fn r16_a_domain_that_is_not_utf8_is_wrong() {
        assert_eq!(
            parse(b"RCPT TO:<a@b\xfc.example>"),
            Err(CommandError::EightBit)
        );
    }

    #[rstest]
    #[case(64, 5, 0, true)]
    #[case(65, 5, 0, false)]
    #[case(1, 252, 0, true)]
    #[case(1, 253, 0, false)]
    #[case(1, 255, 0, false)]
    #[case(64, 189, 0, true)]
    #[case(64, 190, 0, false)]
    #[case(1, 5, 247, true)]
    #[case(1, 5, 248, false)]
    fn r18_the_limits_of_local_part_domain_and_path(
        #[case] local: usize,
        #[case] domain: usize,
        #[case] route: usize,
        #[case] valid: bool,
    ) {
        let name = |length: usize| {
            let label = "a".repeat(40) + ".";
            let name = label.repeat(7)[..length].to_owned();
            name.strip_suffix('.')
                .map_or(name.clone(), |name| format!("{name}a"))
        };
        let route = match route {
            0 => String::new(),
            _ => format!("@{}:", name(route - 2)),
        };
        let path = format!("{route}{}@{}", "a".repeat(local), name(domain));
        assert_eq!(path.len() <= 254 && local <= 64, valid);
        for (line, error) in [
            (format!("MAIL FROM:<{path}>"), CommandError::Sender),
            (format!("RCPT TO:<{path}>"), CommandError::Recipient),
        ] {
            assert_eq!(parse(line.as_bytes()).err(), (!valid).then_some(error));
        }
    }

    #[rstest]
    #[case(63, true)]
    #[case(64, false)]
    fn r18_a_label_has_at_most_63_octets(#[case] length: usize, #[case] valid: bool) {
        let line = format!("RCPT TO:<a@{}.example>", "a".repeat(length));
        assert_eq!(parse(line.as_bytes()).is_ok(), valid);
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
            assert!(parse(padded.as_bytes()).is_ok());
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
        fn any_octets_parse_or_do_not_and_never_panic(line in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&line);
            for line in [[&b"MAIL FROM:"[..], &line].concat(), [&b"RCPT TO:<"[..], &line].concat()] {
                let _ = parse(&line);
            }
        }

        #[test]
        fn any_special_octets_parse_or_do_not_and_never_panic(path in r#"[<>@,:.\\"\[\]a \u{fc}\x00-]{0,30}"#) {
            if let Ok(Command::Rcpt(Recipient::Mailbox(mailbox))) = parse(format!("RCPT TO:<{path}>").as_bytes()) {
                let address = [mailbox.local, b"@", mailbox.domain].concat();
                prop_assert!(mailbox.path.ends_with(&address));
            }
        }

        #[test]
        fn s18_verbs_and_keywords_are_case_insensitive(line in line()) {
            let kind = |line: String| (Verb::of(line.as_bytes()), parse(line.as_bytes()).err());
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
            prop_assume!(path.len() <= 254 && local.len() <= 64);
            let mail = format!("MAIL FROM:{space}<{path}>{space}");
            prop_assert_eq!(parse(mail.as_bytes()), from(&path, &local, &domain));
            let rcpt = format!("RCPT TO:{space}<{path}>{space}");
            prop_assert_eq!(parse(rcpt.as_bytes()), to(&path, &local, &domain));
            let mail = format!("MAIL FROM:<{path}> SIZE=1");
            prop_assert_eq!(parse(mail.as_bytes()), Err(CommandError::Parameter));
        }

        #[test]
        fn a_talker_is_the_same_in_any_split(
            start in prop::sample::select(vec![&b""[..], b"GET ", b"GE", b"\x16", b"\x16\x03", b"\x16\x03\x01", b"EHLO a", b"\r\n", b"PR"]),
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
