//! The dialog of a host that takes no mail, without input or output.
//!
//! [`RefuseAt`] says where it refuses: in the greeting (RFC 1846 section 4,
//! RFC 7504), or after 220 at EHLO, at MAIL or at RCPT. The rules named in the
//! tests (S1 to S26, R1 to R22) are those of RFC 1846, RFC 7504, RFC 5321,
//! RFC 2034 and RFC 2920.
//!
//! A sender learns that there is no mail here whatever it says and in whatever
//! order: RCPT is refused also without MAIL or EHLO before it, where RFC 5321
//! has 503. Only what begins with no verb is answered 500.
//!
//! A [`Dialog`] gives one reply at a time: the caller writes it before it
//! hands over more input, so a client that never reads makes nothing grow. Only
//! a line that has not arrived whole is stored, up to [`LINE_MAX`]. No command
//! is ever answered 354: no message can be sent.

use std::net::IpAddr;

use nomail_common::counted;

use super::{
    command::{self, Command, Mailbox, PROXY_V2_EMPTY_LINES, Recipient, ReversePath, Talker, Verb},
    relay::Relay,
    replies::{Replies, Reply},
};

/// The longest command line with its CRLF (RFC 5321 section 4.5.3.1.4).
/// What follows in a longer one is discarded up to its CRLF. It is answered once.
pub const LINE_MAX: u32 = 512;

/// After so many octets without CRLF the session is refused and closed.
pub const LINE_DISCARD_MAX: u32 = 65_536;

/// The last command a session may send; answered, and the session is closed
/// (RFC 5321 section 7.8).
pub const COMMANDS_MAX: u16 = 1000;

/// The two ways of RFC 1846 section 4.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterGreeting {
    /// (b): answer 521 to everything but QUIT.
    #[default]
    Hold,
    /// (a): close.
    Close,
}

/// Where a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseAt {
    /// In the greeting, 521.
    Greeting(AfterGreeting),
    /// 220, then 521 to EHLO and to HELO.
    Ehlo,
    /// 220, 250, then 521 at MAIL.
    Mail,
    /// 220, 250, 250, then 521 at RCPT; or what the relay says there.
    Rcpt,
}

counted! {
    /// Where a session was refused first.
    pub enum Refusal "refused_" {
        /// In the greeting.
        Greeting "greeting" "in the greeting";
        /// At EHLO or HELO.
        Ehlo "ehlo" "at EHLO";
        /// At MAIL.
        Mail "mail" "at MAIL";
        /// At RCPT.
        Rcpt "rcpt" "at RCPT";
    }
}

counted! {
    /// How a connection ended.
    pub enum Outcome {
        /// The client said QUIT.
        Quit "quit" "quit";
        /// A deadline passed.
        TimedOut "timed_out" "timed out";
        /// The client closed or reset the connection without QUIT.
        ClosedByPeer "closed_by_peer" "closed by client";
        /// We closed: after the greeting, on what is not mail, on input over a
        /// bound, or on shutdown.
        Closed "closed" "closed by nomail";
        /// It was over a limit: refused at once and closed. No dialog ends so.
        Shed "shed" "shed";
    }
}

/// What the client has told about itself or its mail. Octets from the network:
/// to be escaped wherever they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// It does not speak SMTP.
    Talker(Talker),
    /// The sender of MAIL.
    Sender(ReversePath<'a>),
    /// The recipient of RCPT, which was refused.
    Recipient(Recipient<'a>),
}

/// One thing to do: write the line and, if `end` says so, close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// What to write, with its CRLF; of EHLO several lines.
    pub line: &'a [u8],
    /// Whether it may wait for the next reply, so that both leave in one packet
    /// (RFC 2920 section 3.2). Not longer than until the input is used up.
    pub may_wait: bool,
    /// How the session has ended, if it has.
    pub end: Option<Outcome>,
    /// Set when this is the first refusal of the session.
    pub refused: Option<Refusal>,
    /// What is worth telling.
    pub heard: Option<Heard<'a>>,
    /// The command that this answers, if it answers one.
    pub said: Option<Said>,
}

/// A command line: its verb, or none that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said(pub Option<Verb>);

impl<'a> Action<'a> {
    const fn say(line: &'a [u8]) -> Self {
        Self {
            line,
            may_wait: false,
            end: None,
            refused: None,
            heard: None,
            said: None,
        }
    }

    const fn and_close(self, outcome: Outcome) -> Self {
        Self {
            end: Some(outcome),
            ..self
        }
    }

    const fn heard(self, heard: Heard<'a>) -> Self {
        Self {
            heard: Some(heard),
            ..self
        }
    }
}

/// Why a session is cut short from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The idle or the session deadline has passed.
    Deadline,
    /// Another connection needs its place.
    NoRoom,
    /// The agent is stopping.
    Shutdown,
}

/// Finds out the address of this host that the client has connected to. Asked only
/// where it matters: a held session does not keep it.
pub type LocalAddress<'f> = &'f dyn Fn() -> Option<IpAddr>;

/// The state of one session, in a few octets.
#[derive(Debug)]
pub struct Dialog {
    line: Line,
    state: State,
}

impl Dialog {
    /// A new session, and the first thing to do in it.
    pub fn open(refuse_at: RefuseAt, replies: &Replies) -> (Self, Action<'_>) {
        let mut dialog = Self::with(refuse_at);
        let action = match refuse_at {
            RefuseAt::Greeting(after) => {
                dialog.state.over = after == AfterGreeting::Close;
                let end = dialog.state.over.then_some(Outcome::Closed);
                Action {
                    end,
                    refused: dialog.state.refuse(Refusal::Greeting),
                    ..Action::say(replies.line(Reply::Greeting))
                }
            }
            RefuseAt::Ehlo | RefuseAt::Mail | RefuseAt::Rcpt => {
                Action::say(replies.line(Reply::Welcome))
            }
        };
        (dialog, action)
    }

    /// A session that there is no room for: refused in the greeting whatever is
    /// configured, or put off if the host is a relay, and closed.
    pub fn shed(replies: &Replies) -> (Self, Action<'_>) {
        if replies.relay().is_none() {
            return Self::open(RefuseAt::Greeting(AfterGreeting::Close), replies);
        }
        let mut dialog = Self::with(RefuseAt::Rcpt);
        dialog.state.over = true;
        let action = Action::say(replies.line(Reply::Overloaded)).and_close(Outcome::Closed);
        (dialog, action)
    }

    const fn with(refuse_at: RefuseAt) -> Self {
        Self {
            line: Line::new(),
            state: State {
                refuse_at,
                commands: 0,
                empty_lines: 0,
                ehlo: false,
                mail: false,
                transaction: false,
                refused: false,
                over: false,
            },
        }
    }

    /// [`Self::receive_at`] an address that is not known.
    pub fn receive<'a>(
        &'a mut self,
        replies: &'a Replies,
        input: &'a [u8],
    ) -> (usize, Option<Action<'a>>) {
        self.receive_at(replies, input, &|| None)
    }

    /// Takes octets up to the end of one command.
    ///
    /// Returns how many were taken, and what to do now. Hand over the rest
    /// only after that is done. Without an action all octets were taken. When
    /// the session is over, input is swallowed.
    pub fn receive_at<'a>(
        &'a mut self,
        replies: &'a Replies,
        input: &'a [u8],
        local: LocalAddress<'_>,
    ) -> (usize, Option<Action<'a>>) {
        if self.state.over {
            return (input.len(), None);
        }
        let (taken, piece) = self.line.take(input);
        let action = self.state.answer(piece, replies, local);
        self.state.over = action.is_some_and(|action| action.end.is_some());
        (taken, action)
    }

    /// Ends the session from outside, with the words that go with it.
    /// Nothing is left to say when it is over already.
    pub fn interrupt<'a>(&mut self, replies: &'a Replies, why: Interruption) -> Option<Action<'a>> {
        if self.state.over {
            return None;
        }
        self.state.over = true;
        let (reply, outcome) = match why {
            Interruption::Deadline => (Reply::TimedOut, Outcome::TimedOut),
            // A host has nothing better to say later.
            Interruption::NoRoom if replies.relay().is_none() => (Reply::Refusal, Outcome::Closed),
            Interruption::NoRoom => (Reply::MakingRoom, Outcome::Closed),
            Interruption::Shutdown => (Reply::ShuttingDown, Outcome::Closed),
        };
        Some(Action::say(replies.line(reply)).and_close(outcome))
    }

    /// Commands so far.
    pub const fn commands(&self) -> u16 {
        self.state.commands
    }

    /// How many octets it holds in memory beside itself, for a line that arrives
    /// in pieces: at most twice [`LINE_MAX`].
    pub const fn held(&self) -> usize {
        self.line.partial.capacity()
    }

    /// Whether the client said EHLO but never MAIL: it may have wanted an
    /// extension that was not offered, as senders do that insist on TLS.
    pub const fn left_after_ehlo(&self) -> bool {
        self.state.ehlo && !self.state.mail
    }
}

/// The line that is arriving.
#[derive(Debug)]
struct Line {
    /// Its first octets, unless all are in one piece of input.
    partial: Vec<u8>,
    /// How many octets it has so far.
    length: u32,
    /// The last octet was a CR.
    after_cr: bool,
    /// The stored line was handed out.
    spent: bool,
}

/// What a piece of input has made of the line.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// The line's octets so far, with its CRLF; not more than [`LINE_MAX`].
    octets: &'a [u8],
    /// How many of these were known before.
    seen: usize,
    /// How many there are in truth.
    length: u32,
    ending: Ending,
}

/// How a line ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It has not ended yet.
    None,
    /// With CRLF.
    CrLf,
    /// With LF alone, which ends no line (RFC 5321 section 2.3.8): a client that
    /// sends it waits for an answer, and one that hides commands behind it
    /// must not find a server that takes it for an end.
    Lf,
}

impl Line {
    /// Takes octets up to the end of the line, or to an LF alone. Only CR directly
    /// followed by LF ends it (RFC 5321 section 2.3.8), whether or not they
    /// arrive together; a CR alone is part of the line.
    fn take<'a>(&'a mut self, input: &'a [u8]) -> (usize, Piece<'a>) {
        if self.spent {
            // A held session does not keep what it has done with.
            *self = Self::new();
        }
        let room = (LINE_DISCARD_MAX - self.length) as usize;
        let input = &input[..input.len().min(room)];
        let lf = input.iter().position(|&octet| octet == b'\n');
        let after_cr = match lf {
            Some(0) => self.after_cr,
            Some(at) => input[at - 1] == b'\r',
            None => false,
        };
        let ending = match lf {
            None => Ending::None,
            Some(_) if after_cr => Ending::CrLf,
            Some(_) => Ending::Lf,
        };
        let complete = ending != Ending::None;
        let taken = lf.map_or(input.len(), |at| at + 1);
        let seen = self.partial.len();
        let fresh = &input[..taken.min(LINE_MAX as usize - seen)];
        let whole = complete && self.length == 0;
        self.length += taken as u32;
        self.after_cr = input.last().map_or(self.after_cr, |last| *last == b'\r');
        self.spent = complete;
        let octets = if whole {
            fresh
        } else {
            self.partial.extend_from_slice(fresh);
            &self.partial
        };
        let piece = Piece {
            octets,
            seen,
            length: self.length,
            ending,
        };
        (taken, piece)
    }

    const fn new() -> Self {
        Self {
            partial: Vec::new(),
            length: 0,
            after_cr: false,
            spent: false,
        }
    }
}

/// What the session has come to.
#[derive(Debug)]
struct State {
    refuse_at: RefuseAt,
    /// Commands so far.
    commands: u16,
    /// So many lines, and all so far, were empty: up to [`PROXY_V2_EMPTY_LINES`].
    empty_lines: u8,
    /// EHLO was said.
    ehlo: bool,
    /// MAIL was said.
    mail: bool,
    /// MAIL was accepted, and RCPT may follow.
    transaction: bool,
    /// The client has been told that there is no mail here.
    refused: bool,
    /// The last action has been given.
    over: bool,
}

impl State {
    fn answer<'a>(
        &mut self,
        piece: Piece<'a>,
        replies: &'a Replies,
        local: LocalAddress<'_>,
    ) -> Option<Action<'a>> {
        let say = |reply| Action::say(replies.line(reply));
        if let Some(talker) = Talker::recognise(piece.octets, piece.seen) {
            let after_proxy = self.empty_lines == PROXY_V2_EMPTY_LINES
                && self.commands == u16::from(self.empty_lines)
                && piece.octets.starts_with(b"\0");
            let talker = if after_proxy { Talker::Proxy } else { talker };
            let refusal = say(Reply::Refusal).and_close(Outcome::Closed);
            return Some(refusal.heard(Heard::Talker(talker)));
        }
        match piece.ending {
            Ending::CrLf => {}
            Ending::Lf if nomail_common::Mechanism::BareLf.is_off() => return None,
            Ending::Lf => return Some(say(Reply::BareLf).and_close(Outcome::Closed)),
            Ending::None if piece.length >= LINE_DISCARD_MAX => {
                return Some(say(Reply::Refusal).and_close(Outcome::Closed));
            }
            Ending::None => return None,
        }
        let command = command(&piece);
        let line = piece.octets.strip_suffix(b"\r\n").unwrap_or(piece.octets);
        let said = Some(Said(command.as_ref().and_then(|_| Verb::of(line))));
        let greeted = matches!(self.refuse_at, RefuseAt::Greeting(_));
        let action = match command {
            // Also with arguments: RFC 5321 would have 501 for these, but the
            // client wants to go and we want it gone.
            Some(Command::Quit) => {
                return Some(Action {
                    said,
                    ..say(Reply::Goodbye).and_close(Outcome::Quit)
                });
            }
            _ if self.is_start_of_proxy(&piece) || greeted => say(Reply::Refusal),
            Some(command) => self.obey(command, replies, local),
            None if piece.length > LINE_MAX => say(Reply::TooLong),
            None => say(Reply::Unknown),
        };
        let action = Action { said, ..action };
        self.commands += 1;
        Some(if self.commands >= COMMANDS_MAX {
            action.and_close(Outcome::Closed)
        } else {
            action
        })
    }

    /// Whether it is one of the empty lines with which a session begins, as the
    /// PROXY protocol does in its version 2. What the client behind the proxy
    /// hears first answers what it says first.
    fn is_start_of_proxy(&mut self, piece: &Piece<'_>) -> bool {
        let found = piece.octets == b"\r\n"
            && self.commands == u16::from(self.empty_lines)
            && self.empty_lines < PROXY_V2_EMPTY_LINES;
        self.empty_lines += u8::from(found);
        found
    }

    /// A command where the greeting was 220.
    fn obey<'a>(
        &mut self,
        command: Command<'a>,
        replies: &'a Replies,
        local: LocalAddress<'_>,
    ) -> Action<'a> {
        let say = |reply| Action::say(replies.line(reply));
        match command {
            Command::Ehlo(_) | Command::Helo(_) => {
                let ehlo = matches!(command, Command::Ehlo(_));
                self.ehlo |= ehlo;
                self.transaction = false;
                match self.refuse_at {
                    RefuseAt::Ehlo => Action {
                        refused: self.refuse(Refusal::Ehlo),
                        ..say(Reply::HeloRefusal)
                    },
                    _ if ehlo => say(Reply::Ehlo),
                    _ => say(Reply::Helo),
                }
            }
            Command::Mail(sender) => {
                self.mail = true;
                self.mail(replies).heard(Heard::Sender(sender))
            }
            Command::Rcpt(recipient) => self.rcpt(recipient, replies, local),
            Command::Data => say(match self.refuse_at {
                RefuseAt::Ehlo => Reply::Refusal,
                // No recipient was ever accepted (RFC 5321 section 3.3).
                _ if self.transaction => Reply::NoRecipients,
                _ => Reply::BadSequence,
            }),
            Command::Rset => {
                self.transaction = false;
                Action {
                    may_wait: true,
                    ..say(Reply::Done)
                }
            }
            Command::Noop => say(Reply::Done),
            Command::Vrfy => say(Reply::NoMailbox),
            Command::Help => say(Reply::Help),
            Command::Quit => say(Reply::Goodbye).and_close(Outcome::Quit),
            // One that insists on it goes no further: here is the reason. A relay
            // has another one for each domain.
            Command::Auth if replies.relay().is_none() => say(Reply::Refusal),
            Command::Auth | Command::Unimplemented => say(Reply::Unimplemented),
        }
    }

    fn mail<'a>(&mut self, replies: &'a Replies) -> Action<'a> {
        let (reply, refused) = match self.refuse_at {
            RefuseAt::Rcpt => {
                self.transaction = true;
                (Reply::SenderOk, None)
            }
            RefuseAt::Mail | RefuseAt::Ehlo | RefuseAt::Greeting(_) => {
                (Reply::Refusal, self.refuse(Refusal::Mail))
            }
        };
        Action {
            may_wait: true,
            refused,
            ..Action::say(replies.line(reply))
        }
    }

    fn rcpt<'a>(
        &mut self,
        recipient: Recipient<'a>,
        replies: &'a Replies,
        local: LocalAddress<'_>,
    ) -> Action<'a> {
        let line = match replies.relay() {
            None => replies.line(Reply::Refusal),
            Some(relay) => relay_reply(relay, recipient, replies, local),
        };
        Action {
            may_wait: true,
            refused: self.refuse(Refusal::Rcpt),
            heard: Some(Heard::Recipient(recipient)),
            ..Action::say(line)
        }
    }

    /// `at`, if the session was not refused before.
    const fn refuse(&mut self, at: Refusal) -> Option<Refusal> {
        if self.refused {
            return None;
        }
        self.refused = true;
        Some(at)
    }
}

/// The command in a complete line. Of one that is too long its beginning is
/// known, which suffices for those with a long argument; a path that is cut is no
/// address.
fn command<'a>(piece: &Piece<'a>) -> Option<Command<'a>> {
    let Some(cut) = piece.octets.get(..LINE_MAX as usize - 2) else {
        return command::parse(piece.octets.strip_suffix(b"\r\n")?);
    };
    if piece.length <= LINE_MAX {
        return command::parse(cut);
    }
    match command::parse(cut)? {
        Command::Mail(sender) if cut.ends_with(sender.path()) => {
            Some(Command::Mail(ReversePath::Other(sender.path())))
        }
        Command::Rcpt(recipient) if cut.ends_with(recipient.path()) => {
            Some(Command::Rcpt(Recipient::Other(recipient.path())))
        }
        command @ (Command::Helo(_) | Command::Ehlo(_) | Command::Mail(_) | Command::Rcpt(_)) => {
            Some(command)
        }
        _ => None,
    }
}

/// What a relay says of a recipient. The postmaster is that of this host and of
/// the domains in the list. Mail for the host itself is refused as by a host that
/// is no relay: that is the case of RFC 1846.
fn relay_reply<'a>(
    relay: &'a Relay,
    recipient: Recipient<'_>,
    replies: &'a Replies,
    local: LocalAddress<'_>,
) -> &'a [u8] {
    let (listed, own, postmaster) = match recipient {
        Recipient::Postmaster => (None, true, true),
        // Without a domain it is for this very host.
        Recipient::Other(_) => (None, true, false),
        Recipient::Mailbox(Mailbox {
            local: to, domain, ..
        }) => {
            let own = replies.is_name(domain) || is_literal_of(domain, local);
            let postmaster = to.eq_ignore_ascii_case(b"postmaster");
            (relay.refusal(domain), own, postmaster)
        }
    };
    let here = listed.is_some() || own;
    let instead = relay.postmaster().filter(|_| postmaster && here);
    let host = own.then(|| replies.line(Reply::Refusal));
    let other = replies.line(Reply::OtherDomain);
    instead.or(listed).or(host).unwrap_or(other)
}

/// Whether a domain is the literal of the address that the client has connected to
/// (RFC 5321 section 4.1.3).
fn is_literal_of(domain: &[u8], local: LocalAddress<'_>) -> bool {
    let Some(literal) = literal(domain) else {
        return false;
    };
    local().is_some_and(|local| local.to_canonical() == literal.to_canonical())
}

/// The address in an address literal.
fn literal(domain: &[u8]) -> Option<IpAddr> {
    let text = domain.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let text = str::from_utf8(text).ok()?;
    match text.split_at_checked("IPv6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse().ok().map(IpAddr::V6)
        }
        // By the book an IPv6 address has its tag.
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::smtp::relay::Code;

    const HOST: &str = "mailless.example.org";
    const GREETING: RefuseAt = RefuseAt::Greeting(AfterGreeting::Hold);
    const POINTS: [RefuseAt; 4] = [GREETING, RefuseAt::Ehlo, RefuseAt::Mail, RefuseAt::Rcpt];
    const LIMIT: usize = COMMANDS_MAX as usize;

    fn replies() -> Replies {
        Replies::new(HOST, None).unwrap()
    }

    fn relay() -> Replies {
        let domains = [
            ("example.com", None),
            ("*.example.com", Some(Arc::from("write to example.net"))),
            ("xn--bcher-kva.example", None),
        ];
        let relay = Relay::new(
            Code::DoesNotAcceptMail,
            "this domain does not accept mail",
            domains,
            Some("postmaster@example.net"),
        );
        Replies::new(HOST, Some(Arc::new(relay))).unwrap()
    }

    /// What one command was answered, without the borrows of an [`Action`].
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Answer {
        text: String,
        may_wait: bool,
        end: Option<Outcome>,
        refused: Option<Refusal>,
    }

    impl From<Action<'_>> for Answer {
        fn from(action: Action<'_>) -> Self {
            Self {
                text: String::from_utf8(action.line.to_vec()).unwrap(),
                may_wait: action.may_wait,
                end: action.end,
                refused: action.refused,
            }
        }
    }

    /// All answers to `input`, handed over in pieces of the given sizes, and the
    /// dialog after them.
    fn talk(
        refuse_at: RefuseAt,
        replies: &Replies,
        input: &[u8],
        sizes: impl IntoIterator<Item = usize>,
    ) -> (Dialog, Vec<Answer>) {
        let mut dialog = Dialog::open(refuse_at, replies).0;
        let mut answers = Vec::new();
        let mut rest = input;
        let mut sizes = sizes.into_iter();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
            let (mut piece, after) = rest.split_at(size);
            while !piece.is_empty() {
                let (taken, action) = dialog.receive(replies, piece);
                assert!(taken > 0 && (action.is_some() || taken == piece.len()));
                answers.extend(action.map(Answer::from));
                piece = &piece[taken..];
                assert!(dialog.held() <= 2 * LINE_MAX as usize);
            }
            rest = after;
        }
        (dialog, answers)
    }

    fn answers(refuse_at: RefuseAt, input: &[u8]) -> Vec<Answer> {
        talk(refuse_at, &replies(), input, []).1
    }

    /// The codes of the answers: `250` or `521 5.3.2`.
    fn codes(refuse_at: RefuseAt, input: &str) -> Vec<String> {
        codes_of(&answers(refuse_at, input.as_bytes()))
    }

    fn codes_of(answers: &[Answer]) -> Vec<String> {
        let code = |answer: &Answer| {
            let mut words = answer.text[4..].split_whitespace();
            let enhanced = words.next().filter(|word| {
                word.split('.').count() == 3 && word.split('.').all(|n| n.parse::<u16>().is_ok())
            });
            let code = &answer.text[..3];
            enhanced.map_or(code.to_owned(), |enhanced| format!("{code} {enhanced}"))
        };
        answers.iter().map(code).collect()
    }

    // RFC 1846 section 4: the host that greets with 521.

    #[test]
    fn s1_the_greeting_is_521() {
        let replies = replies();
        for after in [AfterGreeting::Hold, AfterGreeting::Close] {
            let (_, action) = Dialog::open(RefuseAt::Greeting(after), &replies);
            assert_eq!(
                action.line,
                b"521 mailless.example.org does not accept mail\r\n"
            );
            assert_eq!(action.refused, Some(Refusal::Greeting));
        }
        for refuse_at in [RefuseAt::Ehlo, RefuseAt::Mail, RefuseAt::Rcpt] {
            let (_, action) = Dialog::open(refuse_at, &replies);
            assert!(action.line.starts_with(b"220 mailless.example.org "));
            assert_eq!((action.refused, action.end), (None, None));
        }
    }

    #[test]
    fn s3a_close_after_the_greeting() {
        let replies = replies();
        let (mut dialog, action) = Dialog::open(RefuseAt::Greeting(AfterGreeting::Close), &replies);
        assert_eq!(action.end, Some(Outcome::Closed));
        assert_eq!(dialog.receive(&replies, b"QUIT\r\nNOOP\r\n"), (12, None));
        assert_eq!(dialog.interrupt(&replies, Interruption::Deadline), None);
    }

    #[rstest]
    fn s3b_and_s7_everything_but_quit_is_answered_521(
        #[values(
            "EHLO a",
            "HELO a",
            "MAIL FROM:<>",
            "RCPT TO:<a@b>",
            "DATA",
            "RSET",
            "NOOP",
            "VRFY a",
            "HELP",
            "EXPN a",
            "STARTTLS",
            "AUTH PLAIN",
            "get / http/1.1",
            "",
            " ",
            ".",
            "QUI",
            "QUITX",
            " QUIT",
            "QUIT\r",
            "a\u{fc}"
        )]
        command: &str,
    ) {
        let answers = answers(GREETING, format!("{command}\r\n").as_bytes());
        assert_eq!(codes_of(&answers), ["521 5.3.2"]);
        assert_eq!((answers[0].end, answers[0].refused), (None, None));
    }

    #[rstest]
    fn s4_a_time_out_closes(#[values(0, 1, 2, 3)] point: usize) {
        let replies = replies();
        let (mut dialog, _) = talk(POINTS[point], &replies, b"EHLO a\r\nhalf", []);
        let action = dialog.interrupt(&replies, Interruption::Deadline).unwrap();
        assert!(action.line.starts_with(b"421 4.4.2 "));
        assert_eq!(action.end, Some(Outcome::TimedOut));
        assert_eq!(dialog.interrupt(&replies, Interruption::Deadline), None);
        assert_eq!(dialog.receive(&replies, b"NOOP\r\n"), (6, None));
    }

    // S5 and S6 tell the operator when to use 521: nothing here chooses by
    // peer or by recipient. S26 is for hosts that greet with 554.

    #[rstest]
    fn s8_quit_is_answered_221(
        #[values(0, 1, 2, 3)] point: usize,
        // S17, S18, S19: white space, case, arguments.
        #[values("QUIT", "QUIT ", "QUIT\t", "QUIT  \t ", "quit", "qUIT", "QUIT now")] line: &str,
    ) {
        let answers = answers(POINTS[point], format!("{line}\r\n").as_bytes());
        assert_eq!(codes_of(&answers), ["221 2.0.0"]);
        assert_eq!(answers[0].end, Some(Outcome::Quit));
    }

    #[rstest]
    fn s9_r11_without_quit_the_session_stays_open(#[values(0, 1, 2, 3)] point: usize) {
        let answers = answers(POINTS[point], &b"RSET\r\n".repeat(LIMIT - 1));
        assert_eq!(answers.len(), LIMIT - 1);
        assert!(answers.iter().all(|answer| answer.end.is_none()));
    }

    #[rstest]
    fn s10_one_reply_for_one_command(#[values(0, 1, 2, 3)] point: usize) {
        let point = POINTS[point];
        assert_eq!(answers(point, b"EHLO a\r\n\r\nNOOP\r\n").len(), 3);
        assert_eq!(answers(point, b"EHLO a\r").len(), 0);
        assert_eq!(answers(point, b"QUIT\r\nQUIT\r\nNOOP\r\n").len(), 1);
    }

    #[rstest]
    #[case(512, "221 2.0.0", "221 2.0.0")]
    // Those that may be this long are read all the same, see below.
    #[case(513, "521 5.3.2", "500 5.5.6")]
    #[case(LINE_DISCARD_MAX, "521 5.3.2", "500 5.5.6")]
    #[case(LINE_DISCARD_MAX + 1, "521 5.3.2", "521 5.3.2")]
    fn s15_r18_lines_of_512_octets_are_commands(
        #[case] length: u32,
        #[case] greeted: &str,
        #[case] later: &str,
    ) {
        let padding = " ".repeat(length as usize - 6);
        let line = format!("QUIT{padding}\r\n");
        assert_eq!(codes(GREETING, &line), [greeted]);
        assert_eq!(codes(RefuseAt::Rcpt, &line), [later]);
        let answer = &answers(GREETING, line.as_bytes())[0];
        assert_eq!(
            answer.end.is_some(),
            length == 512 || length > LINE_DISCARD_MAX
        );
    }

    #[test]
    fn s15_after_a_long_line_the_next_is_a_command() {
        let input = format!("{}\r\nQUIT\r\n", "a".repeat(2000));
        assert_eq!(codes(GREETING, &input), ["521 5.3.2", "221 2.0.0"]);
        assert_eq!(codes(RefuseAt::Rcpt, &input), ["500 5.5.6", "221 2.0.0"]);
    }

    #[rstest]
    #[case("QUIT\r", 0)]
    #[case("NOOP\rQUIT\r\n", 1)]
    #[case("NOOP\r\r\nNOOP\r\n", 2)]
    fn s16_only_crlf_ends_a_line(#[case] input: &str, #[case] lines: usize) {
        for refuse_at in POINTS {
            let whole = answers(refuse_at, input.as_bytes());
            assert_eq!(whole.len(), lines);
            assert_eq!(
                whole,
                talk(refuse_at, &replies(), input.as_bytes(), [1; 32]).1
            );
        }
    }

    /// It is no end of a line, and no client waits for an answer in vain.
    #[rstest]
    #[case("QUIT\n", 0)]
    #[case("\n", 0)]
    #[case("NOOP\nQUIT\n\r\n", 0)]
    #[case("NOOP\r\nEHLO a\nQUIT\r\n", 1)]
    #[case("RCPT TO:<a@b>\r\n\nMAIL FROM:<>\r\n", 1)]
    fn s16_a_bare_lf_is_told_so_and_closed(#[case] input: &str, #[case] lines: usize) {
        for replies in [replies(), relay()] {
            for refuse_at in POINTS {
                for sizes in [vec![], vec![1; input.len()]] {
                    let (_, answers) = talk(refuse_at, &replies, input.as_bytes(), sizes);
                    assert_eq!(answers.len(), lines + 1);
                    let last = answers.last().unwrap();
                    let wanted = "521 5.5.2 mailless.example.org does not accept mail, and lines \
                                  end with CR LF\r\n";
                    assert_eq!(last.text, wanted);
                    assert_eq!(last.end, Some(Outcome::Closed));
                }
            }
        }
    }

    #[test]
    fn s20_a_shutdown_is_announced_with_421() {
        let replies = replies();
        let mut dialog = Dialog::open(GREETING, &replies).0;
        let action = dialog.interrupt(&replies, Interruption::Shutdown).unwrap();
        assert!(action.line.starts_with(b"421 4.3.2 "));
        assert_eq!(action.end, Some(Outcome::Closed));
    }

    #[test]
    fn s20_who_makes_room_is_refused_or_put_off() {
        for (replies, refuse_at, expected) in [
            (replies(), GREETING, "521 5.3.2 "),
            (replies(), RefuseAt::Rcpt, "521 5.3.2 "),
            (relay(), RefuseAt::Rcpt, "421 4.3.2 "),
        ] {
            let mut dialog = Dialog::open(refuse_at, &replies).0;
            let action = dialog.interrupt(&replies, Interruption::NoRoom).unwrap();
            assert!(action.line.starts_with(expected.as_bytes()));
            assert_eq!(action.end, Some(Outcome::Closed));
            assert_eq!(dialog.receive(&replies, b"QUIT\r\n"), (6, None));
        }
    }

    #[test]
    fn s21_postmaster_is_no_exception() {
        assert_eq!(codes(GREETING, "RCPT TO:<postmaster>\r\n"), ["521 5.3.2"]);
    }

    #[test]
    fn s24_pipelined_commands_are_answered_in_order_one_by_one() {
        let replies = replies();
        let mut dialog = Dialog::open(GREETING, &replies).0;
        let (taken, action) = dialog.receive(&replies, b"NOOP\r\nQUIT\r\n");
        assert_eq!((taken, action.unwrap().end), (6, None));
        let (taken, action) = dialog.receive(&replies, b"QUIT\r\n");
        assert_eq!((taken, action.unwrap().end), (6, Some(Outcome::Quit)));
    }

    #[rstest]
    fn s25_a_session_that_goes_on_for_ever_is_closed(#[values(0, 1, 2, 3)] point: usize) {
        let answers = answers(POINTS[point], &b"NOOP\r\n".repeat(LIMIT + 5));
        assert_eq!(answers.len(), LIMIT);
        assert_eq!(answers.last().unwrap().end, Some(Outcome::Closed));
    }

    // The dialogs that refuse later.

    #[test]
    fn ehlo_and_helo_are_refused_and_the_session_is_held() {
        let answers = answers(
            RefuseAt::Ehlo,
            b"EHLO a\r\nHELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nQUIT\r\n",
        );
        // RFC 2034 has no enhanced code in what answers EHLO and HELO.
        let refused = ["521", "521", "521 5.3.2", "521 5.3.2", "521 5.3.2"];
        assert_eq!(codes_of(&answers), [&refused[..], &["221 2.0.0"]].concat());
        assert!(answers[0].text.starts_with("521 mailless.example.org "));
        let points: Vec<_> = answers.iter().filter_map(|answer| answer.refused).collect();
        assert_eq!(points, [Refusal::Ehlo]);
        assert!(answers[..5].iter().all(|answer| answer.end.is_none()));
    }

    #[test]
    fn mail_is_refused_at_mail() {
        let input = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<>\r\n";
        let answers = answers(RefuseAt::Mail, input);
        let wanted = ["250", "521 5.3.2", "521 5.3.2", "503 5.5.1", "521 5.3.2"];
        assert_eq!(codes_of(&answers), wanted);
        assert_eq!(answers[1].refused, Some(Refusal::Mail));
        assert_eq!(answers[4].refused, None);
    }

    #[test]
    fn mail_is_refused_at_rcpt() {
        let input =
            b"HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nRCPT TO:<postmaster>\r\nDATA\r\n";
        let answers = answers(RefuseAt::Rcpt, input);
        let wanted = ["250", "250 2.1.0", "521 5.3.2", "521 5.3.2", "554 5.5.1"];
        assert_eq!(codes_of(&answers), wanted);
        assert_eq!(answers[2].refused, Some(Refusal::Rcpt));
    }

    /// R10, R11, R12, R13, R15, R16, R19: what is said before, between and
    /// after, where mail is refused at RCPT. Where RFC 5321 has 501, 503 or 555
    /// for MAIL and RCPT, the sender goes on to its 521.
    #[rstest]
    #[case("MAIL FROM:<a@b>|RCPT TO:<a@b>", "250 2.1.0|521 5.3.2")]
    #[case("RCPT TO:<a@b>", "521 5.3.2")]
    #[case("RCPT TO:<a@b>|DATA", "521 5.3.2|503 5.5.1")]
    #[case("DATA", "503 5.5.1")]
    #[case("EHLO a|RCPT TO:<a@b>", "250|521 5.3.2")]
    #[case("EHLO a|DATA", "250|503 5.5.1")]
    #[case("EHLO a|MAIL FROM:<>|MAIL FROM:<>", "250|250 2.1.0|250 2.1.0")]
    #[case("EHLO a|MAIL FROM:<>|DATA", "250|250 2.1.0|554 5.5.1")]
    #[case(
        "EHLO a|MAIL FROM:<>|EHLO a|RCPT TO:<a@b>|DATA",
        "250|250 2.1.0|250|521 5.3.2|503 5.5.1"
    )]
    #[case(
        "EHLO a|MAIL FROM:<>|RSET|RCPT TO:<a@b>|DATA",
        "250|250 2.1.0|250 2.0.0|521 5.3.2|503 5.5.1"
    )]
    #[case(
        "EHLO a|RSET|MAIL FROM:<>|RCPT TO:<a@b>",
        "250|250 2.0.0|250 2.1.0|521 5.3.2"
    )]
    #[case(
        "EHLO a|MAIL FROM:<>|NOOP x|RCPT TO:<a@b>",
        "250|250 2.1.0|250 2.0.0|521 5.3.2"
    )]
    #[case(
        "EHLO a|MAIL FROM:<>|VRFY a|HELP|RCPT TO:<a@b>",
        "250|250 2.1.0|550 5.1.1|214 2.0.0|521 5.3.2"
    )]
    #[case("NOOP|RSET|VRFY a|HELP", "250 2.0.0|250 2.0.0|550 5.1.1|214 2.0.0")]
    #[case("EHLO|HELO|EHLO \u{fc}|helo", "250|250|250|250")]
    #[case("RSET now|VRFY|DATA now", "250 2.0.0|550 5.1.1|503 5.5.1")]
    #[case("EHLO a|MAIL FROM:a@b|MAIL FROM:<a@b", "250|250 2.1.0|250 2.1.0")]
    #[case("MAIL FROM:<>|RCPT TO:<root>|RCPT", "250 2.1.0|521 5.3.2|521 5.3.2")]
    #[case("EHLO a|MAIL FROM:<a@b> SIZE=1 RET=HDRS ENVID=x", "250|250 2.1.0")]
    #[case("MAIL FROM:<>|RCPT TO:<a@b> NOTIFY=NEVER", "250 2.1.0|521 5.3.2")]
    #[case("EHLO a|MAIL FROM:<\u{fc}@b> SMTPUTF8", "250|250 2.1.0")]
    #[case("STARTTLS|EXPN a|BDAT 1", "502 5.5.1|502 5.5.1|502 5.5.1")]
    #[case("AUTH PLAIN|RCPT TO:<a@b>", "521 5.3.2|521 5.3.2")]
    #[case("NOSUCH|.", "500 5.5.1|500 5.5.1")]
    #[case("EHLO a||.", "250|500 5.5.1|500 5.5.1")]
    fn r10_to_r19_in_any_order(#[case] lines: &str, #[case] wanted: &str) {
        let input = lines.replace('|', "\r\n") + "\r\n";
        let wanted: Vec<_> = wanted.split('|').collect();
        assert_eq!(codes(RefuseAt::Rcpt, &input), wanted);
    }

    #[test]
    fn r12_no_354_whatever_is_said() {
        let all = [
            "EHLO a",
            "HELO a",
            "MAIL FROM:<a@b>",
            "RCPT TO:<a@b>",
            "DATA",
            "RSET",
            "NOOP",
        ];
        for first in all {
            for second in all {
                for third in all {
                    for last in all {
                        let input = [first, second, third, last, ""].join("\r\n");
                        for refuse_at in POINTS {
                            let codes = codes(refuse_at, &input);
                            assert_eq!(codes.len(), 4);
                            assert!(codes.iter().all(|code| !code.starts_with('3')));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn r14_source_routes_and_relayed_domains() {
        let replies = relay();
        let told = |recipient: &str| {
            let input = format!("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\n");
            let (_, answers) = talk(RefuseAt::Rcpt, &replies, input.as_bytes(), []);
            answers[2].text.trim_end().to_owned()
        };
        let refused = "556 5.1.2 this domain does not accept mail";
        for recipient in [
            "a@example.com",
            "a@EXAMPLE.Com",
            "a@example.com.",
            "\"a b\"@example.com",
            "@other.example,@another.example:a@example.com",
            "a@b\u{fc}cher.example",
            "a@xn--BCHER-kva.example",
        ] {
            assert_eq!(told(recipient), refused, "{recipient}");
        }
        assert_eq!(told("a@b.c.example.com"), "556 5.1.2 write to example.net");
        let postmaster = "551 5.1.6 User not local; please try <postmaster@example.net>";
        for recipient in [
            "Postmaster",
            "postmaster",
            "postmaster@example.com",
            "POSTMASTER@mailless.example.org",
        ] {
            assert_eq!(told(recipient), postmaster, "{recipient}");
        }
        for recipient in [
            "a@mailless.example.org",
            "@example.com:a@Mailless.Example.ORG.",
            "root",
            "",
            "a@",
            "a@-b",
        ] {
            let host = "521 5.3.2 mailless.example.org does not accept mail";
            assert_eq!(told(recipient), host, "{recipient}");
        }
        for recipient in [
            "a@example.org",
            "postmaster@example.org",
            "a@sub.mailless.example.org",
            "@example.com:a@example.org",
            "a@[192.0.2.1]",
        ] {
            let other = "550 5.7.1 mailless.example.org does not relay to this domain";
            assert_eq!(told(recipient), other, "{recipient}");
        }
    }

    /// RFC 1846 section 3: a host that is named in the recipient and takes no mail.
    #[rstest]
    #[case("a@[192.0.2.7]", Some("192.0.2.7"), "521 5.3.2")]
    #[case("a@[192.0.2.7]", Some("::ffff:192.0.2.7"), "521 5.3.2")]
    #[case("a@[IPv6:2001:DB8::7]", Some("2001:db8::7"), "521 5.3.2")]
    #[case("a@[2001:db8::7]", Some("2001:db8::7"), "521 5.3.2")]
    #[case("@example.com:a@[192.0.2.7]", Some("192.0.2.7"), "521 5.3.2")]
    #[case("postmaster@[192.0.2.7]", Some("192.0.2.7"), "551 5.1.6")]
    #[case("a@[192.0.2.8]", Some("192.0.2.7"), "550 5.7.1")]
    #[case("postmaster@[192.0.2.8]", Some("192.0.2.7"), "550 5.7.1")]
    #[case("a@[192.0.2.7]", None, "550 5.7.1")]
    #[case("a@[IPv6:192.0.2.7]", Some("192.0.2.7"), "550 5.7.1")]
    #[case("a@[smtp:192.0.2.7]", Some("192.0.2.7"), "550 5.7.1")]
    #[case("a@example.com", Some("192.0.2.7"), "556 5.1.2")]
    #[case("a@mailless.example.org", None, "521 5.3.2")]
    fn a_relay_refuses_mail_for_itself_as_a_host(
        #[case] recipient: &str,
        #[case] local: Option<&str>,
        #[case] code: &str,
    ) {
        let replies = relay();
        let mut dialog = Dialog::open(RefuseAt::Rcpt, &replies).0;
        let local = || local.map(|address| address.parse().unwrap());
        let line = format!("RCPT TO:<{recipient}>\r\n");
        let (_, action) = dialog.receive_at(&replies, line.as_bytes(), &local);
        assert_eq!(codes_of(&[action.unwrap().into()]), [code]);
    }

    #[test]
    fn r20_only_what_rfc_2920_allows_may_wait() {
        let input =
            b"EHLO a\r\nNOOP\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRSET\r\nDATA\r\nVRFY a\r\n\
            NOSUCH\r\nHELP\r\nQUIT\r\n";
        for refuse_at in [RefuseAt::Ehlo, RefuseAt::Mail, RefuseAt::Rcpt] {
            let answers = answers(refuse_at, input);
            let waiting: Vec<_> = answers.iter().map(|answer| answer.may_wait).collect();
            let f = false;
            assert_eq!(waiting, [f, f, true, true, true, f, f, f, f, f]);
        }
    }

    #[test]
    fn over_its_bounds_a_host_refuses_and_a_relay_puts_off() {
        let replies = replies();
        let (_, action) = Dialog::shed(&replies);
        assert!(action.line.starts_with(b"521 mailless.example.org "));
        assert_eq!(action.end, Some(Outcome::Closed));
        let relay = relay();
        let (mut dialog, action) = Dialog::shed(&relay);
        assert!(action.line.starts_with(b"421 mailless.example.org "));
        assert_eq!((action.end, action.refused), (Some(Outcome::Closed), None));
        assert_eq!(dialog.receive(&relay, b"QUIT\r\n"), (6, None));
    }

    #[rstest]
    #[case(b"GET / HTTP/1.1\r\n", Talker::Http)]
    #[case(b"CONNECT a:25 HTTP/1.1\r\n\r\n", Talker::Http)]
    #[case(b"\x16\x03\x01\x02", Talker::Tls)]
    #[case(b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 25\r\n", Talker::Proxy)]
    #[case(b"NOOP\0\r\nNOOP\r\n", Talker::Garbage)]
    #[case(b"\0\r\nQUIT\r\n", Talker::Garbage)]
    #[case(b"\xff\xfb\x1f", Talker::Garbage)]
    fn what_is_not_mail_is_told_once_and_closed(#[case] input: &[u8], #[case] kind: Talker) {
        let replies = replies();
        for refuse_at in POINTS {
            for sizes in [vec![], vec![1; input.len()]] {
                let (_, answers) = talk(refuse_at, &replies, input, sizes);
                assert_eq!(codes_of(&answers), ["521 5.3.2"]);
                assert_eq!(answers[0].end, Some(Outcome::Closed));
            }
            let mut dialog = Dialog::open(refuse_at, &replies).0;
            let (_, action) = dialog.receive(&replies, input);
            assert_eq!(action.unwrap().heard, Some(Heard::Talker(kind)));
        }
    }

    /// The signature begins with two empty lines, which wait for no NUL: each has
    /// its answer, and it is 521.
    #[rstest]
    #[case(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Talker::Proxy)]
    #[case(b"\r\n\0\r\nQUIT\n", Talker::Garbage)]
    #[case(b"\r\n\r\n\x01\r\nQUIT\n", Talker::Garbage)]
    fn the_proxy_protocol_is_refused_from_its_first_line(
        #[case] input: &[u8],
        #[case] kind: Talker,
    ) {
        for replies in [replies(), relay()] {
            for refuse_at in POINTS {
                let whole = talk(refuse_at, &replies, input, []).1;
                assert!(codes_of(&whole).iter().all(|code| code == "521 5.3.2"));
                assert_eq!(whole.last().unwrap().end, Some(Outcome::Closed));
                let split = talk(refuse_at, &replies, input, vec![1; input.len()]).1;
                assert_eq!(whole, split);
                let mut dialog = Dialog::open(refuse_at, &replies).0;
                let mut rest = input;
                let heard = loop {
                    let (taken, action) = dialog.receive(&replies, rest);
                    match action.unwrap().heard {
                        None => rest = &rest[taken..],
                        heard => break heard,
                    }
                };
                assert_eq!(heard, Some(Heard::Talker(kind)));
            }
        }
    }

    /// The argument may be longer than a line: the verb says enough.
    #[rstest]
    #[case("EHLO ", "a", "250")]
    #[case("MAIL FROM:<a@b> X=", "a", "250 2.1.0")]
    #[case("RCPT TO:<a@example.com> ORCPT=", "a", "521 5.3.2|556 5.1.2")]
    // The domain of a path that is cut is not known.
    #[case("RCPT TO:<a@", "b.", "521 5.3.2|521 5.3.2")]
    #[case("RCPT TO:", "a", "521 5.3.2|521 5.3.2")]
    #[case("NOOP ", "a", "500 5.5.6")]
    fn r18_a_long_line_is_known_by_its_verb(
        #[case] start: &str,
        #[case] filling: &str,
        #[case] wanted: &str,
    ) {
        for length in [513, 600, 5000] {
            let line = format!("{start}{}\r\n", filling.repeat(length - start.len()));
            let mut wanted = wanted.split('|').cycle();
            for replies in [replies(), relay()] {
                let (_, answers) = talk(RefuseAt::Rcpt, &replies, line.as_bytes(), []);
                assert_eq!(codes_of(&answers), [wanted.next().unwrap()]);
            }
        }
    }

    /// What mail servers, libraries, printers and scripts say before RCPT and in
    /// it, each of which keeps some server from its answer.
    #[rstest]
    #[case::nothing("")]
    #[case::helo_alone("HELO")]
    #[case::lower_case("ehlo a|mail from:<a@b>")]
    #[case::utf8("EHLO b\u{fc}ro-pc|MAIL FROM:<j\u{f6}rg@b\u{fc}cher.example> SMTPUTF8")]
    #[case::address("EHLO 192.168.1.20|MAIL FROM:<scanner@[192.168.1.20]>")]
    #[case::underscore("EHLO my_printer._local|MAIL FROM:scanner@my_printer")]
    #[case::twice("EHLO a|EHLO a|HELO a|MAIL FROM:<>|MAIL FROM:<>")]
    #[case::starttls("EHLO a|STARTTLS|EHLO a|MAIL FROM:<a@b>")]
    #[case::auth("EHLO a|AUTH LOGIN|MAIL FROM:<a@b> AUTH=<>")]
    #[case::verp("MAIL FROM:<bounces+0123456789012345678901234567890123456789012345=b.example@a>")]
    #[case::srs(
        "MAIL FROM:<SRS1=abcd=a.example==efgh=XY=example.org=a-very-long-local-part-indeed@b>"
    )]
    #[case::parameters(
        "EHLO a|MAIL FROM:<a@b> BODY=8BITMIME SIZE=10 RET=HDRS ENVID=QQ314159 X-A=B"
    )]
    #[case::local("HELO localhost|MAIL FROM:<root>")]
    #[case::spaces("HELO a |MAIL FROM: <a@b> ")]
    #[case::name("MAIL FROM:Printer <a@b>")]
    #[case::no_colon("MAIL FROM <a@b>")]
    #[case::route("MAIL FROM:<@a,@[192.0.2.1]:a@b>")]
    #[case::quoted("MAIL FROM:<\"a b>\"@c>")]
    #[case::xclient("XCLIENT NAME=a|MAIL FROM:<a@b>")]
    #[case::data("MAIL FROM:<a@b>|DATA")]
    #[case::rset("MAIL FROM:<a@b>|RSET|VRFY a|EXPN b|NOOP|HELP")]
    fn every_sender_gets_to_its_refusal(#[case] before: &str) {
        let relayed = [
            ("TO:<a@example.com>", "556 5.1.2"),
            ("TO: a@example.com", "556 5.1.2"),
            (
                "TO:<a@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b",
                "556 5.1.2",
            ),
            ("TO:<\"a b\"@EXAMPLE.com.>", "556 5.1.2"),
            ("TO:<@x,@y:a@example.com>", "556 5.1.2"),
            ("TO:<a@b\u{fc}cher.example>", "556 5.1.2"),
            ("TO:<a@other.example>", "550 5.7.1"),
            ("TO:<root>", "521 5.3.2"),
            ("TO:", "521 5.3.2"),
            ("", "521 5.3.2"),
        ];
        for (recipient, relayed) in relayed {
            let lines = [before, "|RCPT ", recipient, "|"].concat();
            let input = lines.trim_start_matches('|').replace('|', "\r\n");
            for refuse_at in POINTS {
                let answer = answers(refuse_at, input.as_bytes()).pop().unwrap();
                assert_eq!(codes_of(&[answer]), ["521 5.3.2"], "{input}");
            }
            let (_, mut answers) = talk(RefuseAt::Rcpt, &relay(), input.as_bytes(), []);
            assert_eq!(codes_of(&[answers.pop().unwrap()]), [relayed], "{input}");
        }
    }

    #[rstest]
    #[case("", false)]
    #[case("EHLO a\r\n", true)]
    #[case("EHLO a\r\nSTARTTLS\r\n", true)]
    #[case("HELO a\r\n", false)]
    #[case("EHLO a\r\nMAIL FROM:<>\r\n", false)]
    fn who_leaves_after_ehlo_is_known(#[case] input: &str, #[case] left: bool) {
        let (dialog, _) = talk(RefuseAt::Rcpt, &replies(), input.as_bytes(), []);
        assert_eq!(dialog.left_after_ehlo(), left);
    }

    #[test]
    fn the_state_is_small() {
        assert!(size_of::<Dialog>() <= 56, "{}", size_of::<Dialog>());
    }

    fn input() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            12 => prop::sample::select(vec![
                &b"\r\n"[..], b"\r", b"\n", b"QUIT", b" ", b"\t", b"X", b"EHLO a\r\n", b"HELO a\r\n",
                b"NOOP\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@example.com>\r\n", b"DATA\r\n",
                b"RSET\r\n", b"VRFY a\r\n", b"HELP\r\n", b"\r\n\r\n\0\r\nQUIT\n", b"GET / HTTP/1.1\r\n", b"\x16\x03", b".\r\n",
            ]).prop_map(<[u8]>::to_vec),
            2 => prop::collection::vec(any::<u8>(), 0..8),
            1 => (500usize..520).prop_map(|length| vec![b' '; length]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// The lines of `input`.
    fn lines(input: &[u8]) -> usize {
        input.windows(2).filter(|pair| pair == b"\r\n").count()
    }

    /// A line that begins with a verb, in any case and with any text behind it.
    fn command() -> impl Strategy<Value = (Verb, Vec<u8>)> {
        let text = any::<u8>().prop_filter("no text", |o| !o.is_ascii_control() || *o == b'\t');
        let argument = prop_oneof![
            1 => Just(Vec::new()),
            2 => prop::sample::select(vec![
                &b" FROM:<>"[..], b" FROM:<a@b> SIZE=1", b" from: a@b", b" TO:<a@b>", b" to:root",
                b" TO:<@a,@b:c@example.com>", b" TO:<\"a b\"@c> NOTIFY=NEVER", b" TO:<a@b\xfc>",
            ]).prop_map(<[u8]>::to_vec),
            2 => prop::collection::vec(text.clone(), 0..30).prop_map(|text| [b" ", &text[..]].concat()),
            1 => prop::collection::vec(text, 400..700).prop_map(|text| [b" TO:<", &text[..]].concat()),
        ];
        (
            prop::sample::select(Verb::ALL.to_vec()),
            argument,
            any::<bool>(),
        )
            .prop_map(|(verb, argument, upper)| {
                let name = verb.name().to_owned();
                let name = if upper {
                    name
                } else {
                    name.to_ascii_lowercase()
                };
                (verb, [name.as_bytes(), &argument, b"\r\n"].concat())
            })
    }

    proptest! {
        #[test]
        fn any_octets_in_any_split_give_the_same_replies(
            input in input(),
            point in 0usize..4,
            sizes in prop::collection::vec(1usize..20, 0..200),
        ) {
            for replies in [replies(), relay()] {
                let whole = talk(POINTS[point], &replies, &input, []).1;
                prop_assert_eq!(&whole, &talk(POINTS[point], &replies, &input, sizes.clone()).1);
                let single = vec![1; input.len()];
                prop_assert_eq!(&whole, &talk(POINTS[point], &replies, &input, single).1);
            }
        }

        #[test]
        fn rcpt_is_refused_whatever_was_said_before(
            commands in prop::collection::vec(command(), 0..30),
            point in 0usize..4,
        ) {
            let input: Vec<u8> = commands.iter().flat_map(|(_, line)| line.clone()).collect();
            let host = talk(POINTS[point], &replies(), &input, []).1;
            let relayed = talk(RefuseAt::Rcpt, &relay(), &input, []).1;
            for ((verb, line), (host, relayed)) in commands.iter().zip(host.iter().zip(&relayed)) {
                let line = line.escape_ascii();
                if *verb == Verb::Rcpt {
                    prop_assert_eq!(&host.text, "521 5.3.2 mailless.example.org does not accept mail\r\n");
                    let code = relayed.text.split(' ').next().unwrap();
                    prop_assert!(["521", "550", "551", "556"].contains(&code), "{} {}", line, code);
                } else if *verb == Verb::Mail || verb.is_helo() {
                    let code = &host.text[..3];
                    prop_assert!(["250", "521"].contains(&code), "{} {}", line, code);
                    prop_assert!(relayed.text.starts_with("250"));
                }
            }
        }

        #[test]
        fn replies_are_well_formed_and_one_for_a_command(
            input in prop_oneof![input(), prop::collection::vec(any::<u8>(), 0..2048)],
            point in 0usize..4,
        ) {
            let answers = talk(POINTS[point], &relay(), &input, []).1;
            let ended = answers.last().and_then(|answer| answer.end);
            prop_assert!(answers.iter().rev().skip(1).all(|answer| answer.end.is_none()));
            // One more only for what is cut off before its line ends.
            let lines = lines(&input);
            prop_assert!(answers.len() <= lines + usize::from(ended == Some(Outcome::Closed)));
            if ended.is_none() {
                prop_assert_eq!(answers.len(), lines);
            }
            let out: usize = answers.iter().map(|answer| answer.text.len()).sum();
            // At worst an empty line, two octets, is answered with one reply.
            prop_assert!(out <= 100 * input.len());
            for answer in &answers {
                prop_assert!(answer.text.ends_with("\r\n") && answer.text.is_ascii());
                for line in answer.text.split_terminator("\r\n") {
                    prop_assert!(line.len() <= 510 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit));
                    prop_assert!(!line.starts_with('3'));
                }
            }
            let refused = answers.iter().filter(|answer| answer.refused.is_some()).count();
            prop_assert!(refused <= 1);
        }
    }
}
