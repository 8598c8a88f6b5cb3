//! The dialog of a host that accepts no mail, without input or output.
//!
//! A session is refused in the greeting (RFC 1846 section 4,
//! RFC 7504), or after 220 at EHLO, at MAIL or at RCPT. The rules named in the
//! tests (S1 to S26, R1 to R22) are those of RFC 1846, RFC 7504, RFC 5321,
//! RFC 2034 and RFC 2920.
//!
//! A sender learns that there is no mail here whatever it sends, in any
//! order: RCPT is refused also without MAIL or EHLO before it, where RFC 5321
//! has 503. Only a line that begins with no verb is answered 500.
//!
//! A [`Dialog`] returns one reply at a time, and the caller writes it before it
//! passes more input, so a client that never reads makes nothing grow. Only
//! an incomplete line is stored, up to [`LINE_MAX`]. No command
//! is ever answered 354: no message can be sent.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use nomail_common::counted;

use super::{
    command::{self, Command, Mailbox, Recipient, ReversePath, Verb},
    line::{Ending, LINE_DISCARD_MAX, LINE_MAX, LineBuffer, Piece},
    protocol::{PROXY_V2_EMPTY_LINES, Protocol},
    relay::RefusedDomains,
    replies::{Replies, Reply},
};
use crate::refusal::{AfterGreeting, RefusalPoint};

/// Commands of a session at most: the last one is answered, and the session closed
/// (RFC 5321 section 7.8).
pub const COMMANDS_MAX: u16 = 1000;

counted! {
    /// How a connection ended.
    pub enum Outcome {
        /// The client said QUIT.
        Quit "quit" "quit";
        /// A deadline passed.
        TimedOut "timed_out" "timed out";
        /// The client closed or reset the connection without QUIT.
        ClosedByPeer "closed_by_peer" "closed by client";
        /// nomail closed it: after the greeting, on another protocol, on input over a
        /// bound, on eviction, or on shutdown.
        Closed "closed" "closed by nomail";
        /// It was over a limit: refused at once and closed.
        Shed "shed" "shed";
    }
}

/// What the client says about itself or its mail. Bytes from the network: escape them
/// before showing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed<'a> {
    /// It does not speak SMTP.
    Protocol(Protocol),
    /// The sender of MAIL.
    Sender(ReversePath<'a>),
    /// The recipient of RCPT, which was refused.
    Recipient(Recipient<'a>),
}

/// What the caller is to do: write the line and, if `end` is set, close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialogAction<'a> {
    /// What to write, with its CRLF; for EHLO several lines.
    pub line: &'a [u8],
    /// Whether it may wait for the next reply, so that both leave in one packet
    /// (RFC 2920 section 3.2), but no longer than until the input is used up.
    pub may_wait: bool,
    /// How the session has ended, if it has.
    pub end: Option<Outcome>,
    /// Set when this is the first refusal of the session.
    pub refused: Option<RefusalPoint>,
    /// What is worth recording.
    pub observed: Option<Observed<'a>>,
    /// The verb of the command line that this answers, if it answers one.
    pub verb: Option<Verb>,
}

impl<'a> DialogAction<'a> {
    const fn say(line: &'a [u8]) -> Self {
        Self {
            line,
            may_wait: false,
            end: None,
            refused: None,
            observed: None,
            verb: None,
        }
    }

    const fn and_close(self, outcome: Outcome) -> Self {
        Self {
            end: Some(outcome),
            ..self
        }
    }

    const fn observed(self, observed: Observed<'a>) -> Self {
        Self {
            observed: Some(observed),
            ..self
        }
    }
}

/// Why a session is cut short from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The idle or the session deadline has passed.
    Deadline,
    /// Another connection takes its place.
    Eviction,
    /// The agent is stopping.
    Shutdown,
}

/// Returns the address of this host that the client has connected to. Called only
/// where it matters: a held session does not store it.
pub type AddressLookup<'f> = &'f dyn Fn() -> Option<IpAddr>;

/// The state of one session, in a few bytes.
#[derive(Debug)]
pub struct Dialog {
    line: LineBuffer,
    state: SessionState,
}

impl Dialog {
    /// Begins a session that is refused at `point`, and returns the greeting.
    pub fn open(
        point: RefusalPoint,
        after_greeting: AfterGreeting,
        replies: &Replies,
    ) -> (Self, DialogAction<'_>) {
        let mut dialog = Self::with(point);
        if point != RefusalPoint::Greeting {
            return (dialog, DialogAction::say(replies.line(Reply::Welcome)));
        }
        dialog.state.over = after_greeting == AfterGreeting::Close;
        let action = DialogAction {
            end: dialog.state.over.then_some(Outcome::Closed),
            refused: dialog.state.refuse(point),
            ..DialogAction::say(replies.line(Reply::Greeting))
        };
        (dialog, action)
    }

    /// Begins and ends a session that is over a limit: refused in the greeting whatever is
    /// configured, or deferred if the host is a relay.
    pub fn shed(replies: &Replies) -> (Self, DialogAction<'_>) {
        if replies.relay().is_none() {
            return Self::open(RefusalPoint::Greeting, AfterGreeting::Close, replies);
        }
        let mut dialog = Self::with(RefusalPoint::Rcpt);
        dialog.state.over = true;
        let action = DialogAction::say(replies.line(Reply::Overloaded)).and_close(Outcome::Closed);
        (dialog, action)
    }

    const fn with(point: RefusalPoint) -> Self {
        Self {
            line: LineBuffer::new(),
            state: SessionState {
                point,
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

    /// As [`Self::receive_at`], at an unknown address.
    pub fn receive<'a>(
        &'a mut self,
        replies: &'a Replies,
        input: &'a [u8],
    ) -> (usize, Option<DialogAction<'a>>) {
        self.receive_at(replies, input, &|| None)
    }

    /// Takes bytes up to the end of one command.
    ///
    /// Returns how many were taken, and what to do now. Pass the rest
    /// only after that is done. Without an action all bytes were taken. When
    /// the session is over, input is discarded.
    pub fn receive_at<'a>(
        &'a mut self,
        replies: &'a Replies,
        input: &'a [u8],
        local: AddressLookup<'_>,
    ) -> (usize, Option<DialogAction<'a>>) {
        if self.state.over {
            return (input.len(), None);
        }
        let (taken, piece) = self.line.take(input);
        let action = self.state.answer(piece, replies, local);
        self.state.over = action.is_some_and(|action| action.end.is_some());
        (taken, action)
    }

    /// Ends the session from outside, and returns its last reply, unless it is over already.
    pub fn interrupt<'a>(
        &mut self,
        replies: &'a Replies,
        why: Interruption,
    ) -> Option<DialogAction<'a>> {
        if self.state.over {
            return None;
        }
        self.state.over = true;
        let (reply, outcome) = match why {
            Interruption::Deadline => (Reply::TimedOut, Outcome::TimedOut),
            // Except for a relay, a later attempt would be refused as well.
            Interruption::Eviction if replies.relay().is_none() => {
                (Reply::Refusal, Outcome::Closed)
            }
            Interruption::Eviction => (Reply::Evicted, Outcome::Closed),
            Interruption::Shutdown => (Reply::ShuttingDown, Outcome::Closed),
        };
        Some(DialogAction::say(replies.line(reply)).and_close(outcome))
    }

    /// Returns the number of commands so far.
    pub const fn commands(&self) -> u16 {
        self.state.commands
    }

    /// Returns how many bytes it holds in memory besides itself, for a line that arrives
    /// in pieces: at most twice [`LINE_MAX`].
    pub const fn held(&self) -> usize {
        self.line.held()
    }

    /// Whether the client said EHLO but never MAIL: it may have wanted an
    /// extension that was not offered, as a sender that insists on TLS does.
    pub const fn left_after_ehlo(&self) -> bool {
        self.state.ehlo && !self.state.mail
    }
}

/// What a session remembers between two lines.
#[derive(Debug)]
struct SessionState {
    point: RefusalPoint,
    /// Commands so far.
    commands: u16,
    /// Empty lines at the start of the session, up to [`PROXY_V2_EMPTY_LINES`].
    empty_lines: u8,
    /// EHLO was said.
    ehlo: bool,
    /// MAIL was said.
    mail: bool,
    /// MAIL was accepted, and RCPT may follow.
    transaction: bool,
    /// A refusal was sent.
    refused: bool,
    /// The last action was returned.
    over: bool,
}

impl SessionState {
    fn answer<'a>(
        &mut self,
        piece: Piece<'a>,
        replies: &'a Replies,
        local: AddressLookup<'_>,
    ) -> Option<DialogAction<'a>> {
        let say = |reply| DialogAction::say(replies.line(reply));
        if let Some(protocol) = Protocol::recognise(piece.bytes, piece.seen) {
            let after_proxy = self.empty_lines == PROXY_V2_EMPTY_LINES
                && self.commands == u16::from(self.empty_lines)
                && piece.bytes.starts_with(b"\0");
            let protocol = if after_proxy {
                Protocol::Proxy
            } else {
                protocol
            };
            let refusal = say(Reply::Refusal).and_close(Outcome::Closed);
            return Some(refusal.observed(Observed::Protocol(protocol)));
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
        let line = piece.bytes.strip_suffix(b"\r\n").unwrap_or(piece.bytes);
        let verb = Some(match command {
            Some(_) => Verb::of(line),
            None => Verb::Other,
        });
        let greeted = self.point == RefusalPoint::Greeting;
        let action = match command {
            Some(Command::Quit) => {
                return Some(DialogAction {
                    verb,
                    ..say(Reply::Goodbye).and_close(Outcome::Quit)
                });
            }
            _ if self.is_start_of_proxy(&piece) || greeted => say(Reply::Refusal),
            Some(command) => self.execute(command, replies, local),
            None if piece.length > LINE_MAX => say(Reply::TooLong),
            None => say(Reply::Unknown),
        };
        let action = DialogAction { verb, ..action };
        self.commands += 1;
        Some(if self.commands >= COMMANDS_MAX {
            action.and_close(Outcome::Closed)
        } else {
            action
        })
    }

    /// Whether it is an empty line at the start of the session, as in a header of PROXY
    /// protocol version 2. The first reply to the client behind the proxy then answers
    /// its first command.
    fn is_start_of_proxy(&mut self, piece: &Piece<'_>) -> bool {
        let found = piece.bytes == b"\r\n"
            && self.commands == u16::from(self.empty_lines)
            && self.empty_lines < PROXY_V2_EMPTY_LINES;
        self.empty_lines += u8::from(found);
        found
    }

    /// Answers a command after a 220 greeting.
    fn execute<'a>(
        &mut self,
        command: Command<'a>,
        replies: &'a Replies,
        local: AddressLookup<'_>,
    ) -> DialogAction<'a> {
        let say = |reply| DialogAction::say(replies.line(reply));
        match command {
            Command::Ehlo(_) | Command::Helo(_) => {
                let ehlo = matches!(command, Command::Ehlo(_));
                self.ehlo |= ehlo;
                self.transaction = false;
                match self.point {
                    RefusalPoint::Ehlo => DialogAction {
                        refused: self.refuse(RefusalPoint::Ehlo),
                        ..say(Reply::HeloRefusal)
                    },
                    _ if ehlo => say(Reply::Ehlo),
                    _ => say(Reply::Helo),
                }
            }
            Command::Mail(sender) => {
                self.mail = true;
                self.mail(replies).observed(Observed::Sender(sender))
            }
            Command::Rcpt(recipient) => self.rcpt(recipient, replies, local),
            Command::Data => say(match self.point {
                RefusalPoint::Ehlo => Reply::Refusal,
                // No recipient was ever accepted (RFC 5321 section 3.3).
                _ if self.transaction => Reply::NoRecipients,
                _ => Reply::BadSequence,
            }),
            Command::Rset => {
                self.transaction = false;
                DialogAction {
                    may_wait: true,
                    ..say(Reply::Done)
                }
            }
            Command::Noop => say(Reply::Done),
            Command::Vrfy => say(Reply::NoMailbox),
            Command::Help => say(Reply::Help),
            Command::Quit => say(Reply::Goodbye).and_close(Outcome::Quit),
            // A client that insists on AUTH goes no further, so it gets the refusal here. A
            // relay has another one for each domain.
            Command::Auth if replies.relay().is_none() => say(Reply::Refusal),
            Command::Auth | Command::Unimplemented => say(Reply::Unimplemented),
        }
    }

    fn mail<'a>(&mut self, replies: &'a Replies) -> DialogAction<'a> {
        let (reply, refused) = match self.point {
            RefusalPoint::Rcpt => {
                self.transaction = true;
                (Reply::SenderOk, None)
            }
            RefusalPoint::Mail | RefusalPoint::Ehlo | RefusalPoint::Greeting => {
                (Reply::Refusal, self.refuse(RefusalPoint::Mail))
            }
        };
        DialogAction {
            may_wait: true,
            refused,
            ..DialogAction::say(replies.line(reply))
        }
    }

    fn rcpt<'a>(
        &mut self,
        recipient: Recipient<'a>,
        replies: &'a Replies,
        local: AddressLookup<'_>,
    ) -> DialogAction<'a> {
        let line = match replies.relay() {
            None => replies.line(Reply::Refusal),
            Some(relay) => relay_reply(relay, recipient, replies, local),
        };
        DialogAction {
            may_wait: true,
            refused: self.refuse(RefusalPoint::Rcpt),
            observed: Some(Observed::Recipient(recipient)),
            ..DialogAction::say(line)
        }
    }

    /// Returns `at`, unless the session was refused before.
    const fn refuse(&mut self, at: RefusalPoint) -> Option<RefusalPoint> {
        if self.refused {
            return None;
        }
        self.refused = true;
        Some(at)
    }
}

/// Returns the command in a complete line. Only the beginning of an overlong line is
/// known, which suffices for commands with a long argument; a path that is cut off is no
/// address.
fn command<'a>(piece: &Piece<'a>) -> Option<Command<'a>> {
    let Some(cut) = piece.bytes.get(..LINE_MAX as usize - 2) else {
        return command::parse(piece.bytes.strip_suffix(b"\r\n")?);
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

/// Returns the reply of a relay to a recipient. The postmaster is that of this host and of
/// the domains in the list. Mail for the host itself is refused as by a host that
/// is no relay: that is the case of RFC 1846.
fn relay_reply<'a>(
    relay: &'a RefusedDomains,
    recipient: Recipient<'_>,
    replies: &'a Replies,
    local: AddressLookup<'_>,
) -> &'a [u8] {
    let (listed, own, postmaster) = match recipient {
        Recipient::Postmaster => (None, true, true),
        // Without a domain it is for this host.
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
fn is_literal_of(domain: &[u8], local: AddressLookup<'_>) -> bool {
    let Some(literal) = literal(domain) else {
        return false;
    };
    local().is_some_and(|local| local.to_canonical() == literal.to_canonical())
}

/// Returns the address in an address literal.
fn literal(domain: &[u8]) -> Option<IpAddr> {
    let text = domain.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let text = str::from_utf8(text).ok()?;
    match text.split_at_checked("IPv6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse().ok().map(IpAddr::V6)
        }
        // By the RFC an IPv6 address has its tag.
        _ => text.parse().ok(),
    }
}
