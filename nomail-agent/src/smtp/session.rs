//! One connection: what is read from it and written to it.

use std::{
    io::{self, Read as _, Write as _},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::net::TcpStream;

use super::{
    command::Recipient,
    dialog::{Dialog, DialogAction, Observed, Outcome},
    epoch::unix_now,
    notices::LineLimits,
    settings::Settings,
    stats::{Counter, EndReason, Stats},
};

/// How long a closed connection waits for the peer to close its side.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(2);

/// How many bytes of input a closed connection discards before it is dropped.
pub(super) const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Input is read in pieces of this size.
const READ_BYTES: usize = 1024;

/// Replies that may leave together are gathered up to this size.
const WRITE_BYTES: usize = 1024;

/// One connection.
pub(super) struct Session {
    pub(super) stream: TcpStream,
    pub(super) dialog: Dialog,
    pub(super) settings: Arc<Settings>,
    pub(super) begun: Instant,
    /// When it is looked at next, whatever happens.
    pub(super) deadline: Instant,
    pub(super) peer: IpAddr,
    pub(super) unlogged: bool,
    /// `auto` refuses it at RCPT because its network has returned.
    pub(super) on_return: bool,
    pub(super) phase: SessionPhase,
    /// It is one of [`Settings::connections_max`]: neither shed nor evicted.
    pub(super) is_active: bool,
    /// How it ended, or how it would end if the peer were gone now.
    pub(super) ended: EndReason,
}

pub(super) enum SessionPhase {
    /// In conversation, perhaps with replies that the peer has not read.
    Talking(Option<Box<Backlog>>),
    /// Everything is said. This many bytes may still arrive.
    Lingering(usize),
}

/// What waits for space in the send buffer: at most [`WRITE_BYTES`] of replies, or
/// one reply, and [`READ_BYTES`] of input behind them.
pub(super) struct Backlog {
    unsent: Vec<u8>,
    input: Vec<u8>,
    end: Option<Outcome>,
}

/// What to do with a session next.
pub(super) enum Progress {
    Wait,
    /// It was answered, and the next command has its own time.
    WaitUntil(Instant),
    /// Until the peer reads.
    WaitUntilWritable,
    /// It is over. `drained`: there is nothing to read now.
    Close {
        outcome: Outcome,
        drained: bool,
    },
    /// The connection is gone.
    Gone,
}

/// What one step of a session needs besides the session.
pub(super) struct SessionContext<'a> {
    pub(super) stats: &'a Stats,
    pub(super) notices: &'a mut LineLimits,
    pub(super) now: Instant,
}

impl SessionContext<'_> {
    /// Counts and logs what an action says about the client.
    fn record(
        &mut self,
        action: &DialogAction<'_>,
        peer: IpAddr,
        unlogged: bool,
        settings: &Settings,
    ) {
        let log_envelope = settings.log_envelope && !unlogged;
        if action.verb.is_some() || action.refused.is_some() {
            let mut stats = self.stats.lock();
            if let Some(verb) = action.verb {
                stats.counts.commands[verb] += 1;
            }
            if let Some(at) = action.refused {
                stats.counts.refused[at] += 1;
            }
        }
        match action.observed {
            Some(Observed::Sender(sender)) if log_envelope => {
                let path = sender.path();
                self.notices.envelope(self.now, peer, "MAIL FROM", path);
            }
            Some(Observed::Recipient(recipient)) => {
                if log_envelope {
                    let path = recipient.path();
                    self.notices.envelope(self.now, peer, "RCPT TO", path);
                }
                if let Recipient::Mailbox(mailbox) = recipient
                    && settings.replies.relay().is_none()
                    && !settings.replies.is_own(mailbox.domain)
                    && !settings.is_monitor(peer)
                {
                    let mut stats = self.stats.lock();
                    let now = unix_now();
                    if stats.foreign.record(mailbox.domain, peer, now, !unlogged) {
                        stats.counts.counters[Counter::RecipientsElsewhere] += 1;
                    }
                }
            }
            Some(Observed::Sender(_) | Observed::Protocol(_)) | None => {}
        }
    }
}

impl Session {
    /// Reads and replies as far as the kernel allows.
    pub(super) fn advance(
        &mut self,
        read_closed: bool,
        context: &mut SessionContext<'_>,
    ) -> Progress {
        let backlog = match &mut self.phase {
            SessionPhase::Talking(backlog) => backlog.take(),
            SessionPhase::Lingering(_) => {
                return if self.drain() {
                    Progress::Gone
                } else {
                    Progress::Wait
                };
            }
        };
        match self.converse(backlog, read_closed, context) {
            Err(progress) => progress,
            Ok(false) => Progress::Wait,
            Ok(true) => {
                let idle = context.now + self.settings.idle_timeout;
                Progress::WaitUntil(idle.min(self.begun + self.settings.session_timeout))
            }
        }
    }

    /// Returns whether anything was answered, if the conversation goes on.
    fn converse(
        &mut self,
        backlog: Option<Box<Backlog>>,
        read_closed: bool,
        context: &mut SessionContext<'_>,
    ) -> Result<bool, Progress> {
        let mut answered = backlog.is_some();
        if let Some(backlog) = backlog {
            self.send(&backlog.unsent, &backlog.input, backlog.end)?;
            self.answer(&backlog.input, context)?;
        }
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Progress::Gone),
                Ok(count) => {
                    // A short read leaves nothing behind, and the kernel reports
                    // what arrives after it.
                    let last = count < READ_BYTES && !read_closed;
                    match self.answer(&buffer[..count], context) {
                        Ok(more) => answered |= more,
                        Err(Progress::Close { outcome, .. }) => {
                            return Err(Progress::Close {
                                outcome,
                                drained: last,
                            });
                        }
                        Err(progress) => return Err(progress),
                    }
                    if last {
                        return Ok(answered);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answered),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Progress::Gone),
            }
        }
    }

    /// Answers input. Returns whether there was anything to answer. A reply is with the
    /// kernel before any input after it is parsed, except for replies that may leave
    /// together.
    fn answer(
        &mut self,
        mut input: &[u8],
        context: &mut SessionContext<'_>,
    ) -> Result<bool, Progress> {
        let mut out = Vec::new();
        let mut answered = false;
        while !input.is_empty() {
            let local = || self.stream.local_addr().ok().map(|address| address.ip());
            let replies = &self.settings.replies;
            let (taken, action) = self.dialog.receive_at(replies, input, &local);
            let Some(action) = action else { break };
            context.record(&action, self.peer, self.unlogged, &self.settings);
            if let Some(Observed::Protocol(protocol)) = action.observed {
                self.ended = EndReason::Protocol(protocol);
            }
            out.extend_from_slice(action.line);
            let (may_wait, end) = (action.may_wait, action.end);
            input = &input[taken..];
            answered = true;
            if !may_wait || end.is_some() || out.len() >= WRITE_BYTES {
                self.send(&out, input, end)?;
                out.clear();
            }
        }
        if !out.is_empty() {
            self.send(&out, &[], None)?;
        }
        Ok(answered)
    }

    /// Writes replies. What the peer does not take now waits, with the input behind it.
    fn send(&mut self, out: &[u8], input: &[u8], end: Option<Outcome>) -> Result<(), Progress> {
        let sent = match self.stream.write(out) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                // Many clients leave after QUIT without waiting for 221.
                self.end(end.unwrap_or(Outcome::ClosedByPeer));
                return Err(Progress::Gone);
            }
        };
        if sent < out.len() {
            self.phase = SessionPhase::Talking(Some(Box::new(Backlog {
                unsent: out[sent..].to_vec(),
                input: input.to_vec(),
                end,
            })));
            return Err(Progress::WaitUntilWritable);
        }
        match end {
            Some(outcome) => Err(Progress::Close {
                outcome,
                drained: false,
            }),
            None => Ok(()),
        }
    }

    /// Discards what the peer still sends. Returns whether the connection is done.
    pub(super) fn drain(&mut self) -> bool {
        let SessionPhase::Lingering(left) = &mut self.phase else {
            return false;
        };
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 && count < *left => *left -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return true,
            }
        }
    }

    /// When it was answered last, or slightly earlier near the end of the session timeout.
    pub(super) fn answered(&self) -> Instant {
        let wait = match self.phase {
            SessionPhase::Talking(_) => self.settings.idle_timeout,
            SessionPhase::Lingering(_) => LINGER_MAX,
        };
        let answered = self.deadline.checked_sub(wait);
        answered.map_or(self.begun, |answered| answered.max(self.begun))
    }

    /// Records the outcome, unless another reason for the end is known.
    pub(super) const fn end(&mut self, outcome: Outcome) {
        if let EndReason::Session(ended) = &mut self.ended {
            *ended = outcome;
        }
    }

    /// Whether the client left of its own accord, after EHLO and without MAIL, where
    /// `auto` would have refused it at RCPT.
    pub(super) const fn left_after_ehlo(&self) -> bool {
        let client_left = matches!(
            self.ended,
            EndReason::Session(Outcome::Quit | Outcome::ClosedByPeer)
        );
        self.on_return && client_left && self.dialog.left_after_ehlo()
    }

    /// One log line about the whole session.
    pub(super) fn summary(&self, now: Instant) -> String {
        format!(
            "{}: {} after {} commands and {:.1} s",
            self.peer,
            self.ended.label(),
            self.dialog.commands(),
            (now - self.begun).as_secs_f64()
        )
    }
}
