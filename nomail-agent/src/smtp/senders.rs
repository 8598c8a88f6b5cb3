//! The memory of `refuse_at = "auto"`: which networks have connected, without clock or
//! file.
//!
//! Not every sender returns the mail after a 521 greeting, but every one that
//! was tried does after a refusal at RCPT. So the first contact of a network
//! is greeted with 521, and a network that returns is refused at RCPT. One that
//! leaves after EHLO wants TLS: it is refused at EHLO at its next contact, which
//! makes some of these senders return the mail, and at RCPT after that. A refusal at RCPT is
//! never wrong, so it is the answer whenever the memory does not know the network, and the
//! steady answer to one that goes on to leave after EHLO, as health checkers do.
//!
//! Times are in seconds since the Unix epoch.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt::Write as _, net::IpAddr, str};

use super::{epoch::is_recent, network::SenderNetwork};
use crate::refusal::RefusalPoint;

/// Networks that are remembered at most.
pub const SENDERS_MAX: usize = 65_536;

/// Bytes of a saved memory at most: a larger file is refused unread.
pub const FILE_MAX: usize = HEADER.len() + (SENDERS_MAX + 2) * LINE_MAX;

/// Bytes of a line of a saved memory at most.
const LINE_MAX: usize = "ffff:ffff:ffff::/48 4294967295 steady\n".len();

/// The first line of a saved memory.
const HEADER: &str = "nomail senders 1";

/// A network is refused at EHLO this often, for as many messages of a sender that
/// insists on TLS. If it leaves after EHLO again it is steadily refused at RCPT.
const EHLO_REFUSALS_MAX: u8 = 2;

/// A network that stayed away this long is refused at EHLO again. Neither a health checker
/// nor a sender with mail in its queue does.
const STEADY_SECS: u32 = 24 * 60 * 60;

/// The least time between two searches of a full memory for expired networks.
const SWEEP_SECS: u32 = 60;

/// The networks that have connected, at most [`SENDERS_MAX`].
///
/// Every call takes constant time, except for at most one in a minute that
/// searches a full memory for expired networks.
#[derive(Clone, Debug)]
pub struct Senders {
    /// After this time without a contact a network expires.
    age: u32,
    networks: HashMap<SenderNetwork, SenderRecord>,
    /// When an earlier memory was lost, if one was.
    forgotten: Option<u32>,
    /// When expired networks were last searched for.
    swept: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct SenderRecord {
    /// The last contact.
    last: u32,
    next: NextRefusal,
    /// How often it was refused at EHLO, up to [`EHLO_REFUSALS_MAX`].
    ehlo_refusals: u8,
}

impl SenderRecord {
    const fn new(last: u32, next: NextRefusal) -> Self {
        Self {
            last,
            next,
            ehlo_refusals: 0,
        }
    }

    /// Records a contact.
    const fn seen(&mut self, now: u32) {
        if !is_recent(STEADY_SECS, self.last, now) {
            self.ehlo_refusals = 0;
        }
        self.last = now;
    }

    const fn is_steady(&self) -> bool {
        self.ehlo_refusals >= EHLO_REFUSALS_MAX && nomail_common::Mechanism::EhloRefusalsEnd.is_on()
    }
}

/// Where a known network is refused at its next contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextRefusal {
    /// At RCPT, and then at EHLO if it leaves after EHLO.
    Rcpt,
    /// At EHLO.
    Ehlo,
    /// At RCPT, because it was refused at EHLO last. A connection that leaves now began
    /// before that, and does not cause EHLO again: the two alternate.
    RcptAfterEhlo,
}

impl Senders {
    /// An empty memory. Networks expire after `age_secs`.
    pub fn new(age_secs: u32) -> Self {
        Self {
            age: age_secs,
            networks: HashMap::new(),
            forgotten: None,
            swept: None,
        }
    }

    /// A memory that was lost: any network may have connected before, so every unknown one
    /// is refused at RCPT until all of the lost ones would have expired.
    pub fn forgotten(age_secs: u32, now: u32) -> Self {
        Self {
            forgotten: Some(now),
            ..Self::new(age_secs)
        }
    }

    /// Changes the age, also for the networks that are remembered.
    pub fn set_age(&mut self, age_secs: u32) {
        self.age = age_secs;
    }

    /// Remembers a contact and returns where to refuse it: in the greeting, at EHLO or
    /// at RCPT.
    ///
    /// An unknown network that the memory has no space for is refused at RCPT.
    pub fn contact(&mut self, peer: IpAddr, now: u32) -> RefusalPoint {
        let network = SenderNetwork::from(peer);
        if let Some(entry) = self.known(network, now) {
            entry.seen(now);
            let (point, next) = match entry.next {
                NextRefusal::Ehlo => {
                    entry.ehlo_refusals += 1;
                    (RefusalPoint::Ehlo, NextRefusal::RcptAfterEhlo)
                }
                NextRefusal::Rcpt | NextRefusal::RcptAfterEhlo => {
                    (RefusalPoint::Rcpt, NextRefusal::Rcpt)
                }
            };
            entry.next = next;
            point
        } else if self.remember(network, NextRefusal::Rcpt, now) && !self.in_doubt(now) {
            RefusalPoint::Greeting
        } else {
            RefusalPoint::Rcpt
        }
    }

    /// Remembers a contact that was shed, and so greeted with 521. Where a known
    /// network is refused next stays as it is.
    pub fn greeted(&mut self, peer: IpAddr, now: u32) {
        let network = SenderNetwork::from(peer);
        if let Some(entry) = self.known(network, now) {
            entry.seen(now);
        } else {
            self.remember(network, NextRefusal::Rcpt, now);
        }
    }

    /// Remembers that a contact left after EHLO without MAIL:
    /// it wanted TLS, or it checks whether this host answers.
    ///
    /// Only for contacts to be refused at [`RefusalPoint::Rcpt`]: after a refused EHLO every
    /// client leaves.
    pub fn left_after_ehlo(&mut self, peer: IpAddr, now: u32) {
        let network = SenderNetwork::from(peer);
        if let Some(entry) = self.known(network, now) {
            entry.seen(now);
            if entry.next == NextRefusal::Rcpt && !entry.is_steady() {
                entry.next = NextRefusal::Ehlo;
            }
        } else {
            self.remember(network, NextRefusal::Ehlo, now);
        }
    }

    /// Returns the number of networks, with expired ones that were not removed yet.
    pub fn len(&self) -> usize {
        self.networks.len()
    }

    /// Whether there is no network.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Returns the memory as text for [`Senders::restore`], at most [`FILE_MAX`] bytes.
    ///
    /// A first line with the version, a line `forgotten TIME` while a lost
    /// memory matters, and one line such as `192.0.2.0/24 1764000000 rcpt` for
    /// each network, in order: its last contact and where it is refused next. That is
    /// `steady` for one that is steadily refused at RCPT.
    pub fn save(&self, now: u32) -> String {
        let mut lines: Vec<_> = self
            .networks
            .iter()
            .filter(|(_, entry)| is_recent(self.age, entry.last, now))
            .collect();
        lines.sort_unstable_by_key(|(network, _)| **network);
        let mut text = format!("{HEADER}\n");
        if let Some(at) = self.forgotten.filter(|_| self.in_doubt(now)) {
            text += &format!("forgotten {at}\n");
        }
        for (network, entry) in lines {
            let next = match entry.next {
                NextRefusal::Ehlo => "ehlo",
                // No connection outlives the agent, so none is left that began
                // before the EHLO.
                NextRefusal::Rcpt | NextRefusal::RcptAfterEhlo if entry.is_steady() => "steady",
                NextRefusal::Rcpt | NextRefusal::RcptAfterEhlo => "rcpt",
            };
            // Writing to a String does not fail.
            let _ = writeln!(text, "{network} {} {next}", entry.last);
        }
        text
    }

    /// Restores the memory that [`Senders::save`] wrote, without expired networks.
    /// Times in the future, from a clock that was wrong, become `now`.
    ///
    /// # Errors
    /// Anything that is not exactly as written. [`Senders::forgotten`] is the remedy.
    pub fn restore(file: &[u8], now: u32, age_secs: u32) -> Result<Self, StateError> {
        if file.len() > FILE_MAX {
            return Err(StateError::TooLarge);
        }
        let mut senders = Self::new(age_secs);
        // The last line feed ends the file, unless its last line was cut.
        let (text, cut) = match file {
            [text @ .., b'\n'] => (text, false),
            text => (text, true),
        };
        let mut line = 0;
        for text in text.split(|&byte| byte == b'\n') {
            line += 1;
            senders
                .restore_line(line, text, now)
                .map_err(|reason| StateError::Line { line, reason })?;
        }
        if cut {
            let reason = "cut off: there is no line feed at its end";
            return Err(StateError::Line { line, reason });
        }
        Ok(senders)
    }

    fn restore_line(&mut self, line: usize, text: &[u8], now: u32) -> Result<(), &'static str> {
        let text = str::from_utf8(text).map_err(|_| "not text")?;
        if line == 1 {
            return (text == HEADER)
                .then_some(())
                .ok_or("not \"nomail senders 1\"");
        }
        let seconds = |text: &str| {
            let seconds = text.parse::<u32>().ok();
            let seconds = seconds.filter(|seconds| seconds.to_string() == text);
            seconds
                .map(|seconds| seconds.min(now))
                .ok_or("not a time in seconds")
        };
        if line == 2
            && let Some(at) = text.strip_prefix("forgotten ")
        {
            let at = seconds(at)?;
            self.forgotten = Some(at).filter(|&at| is_recent(self.age, at, now));
            return Ok(());
        }
        let mut words = text.split(' ');
        let (Some(network), Some(last), Some(next), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("not a network, a time and a refusal point");
        };
        let network = SenderNetwork::parse(network).ok_or("not an IPv4 /24 or IPv6 /48")?;
        let last = seconds(last)?;
        let (next, ehlo_refusals) = match next {
            "rcpt" => (NextRefusal::Rcpt, 0),
            "ehlo" => (NextRefusal::Ehlo, 0),
            "steady" => (NextRefusal::Rcpt, EHLO_REFUSALS_MAX),
            _ => return Err("neither rcpt nor ehlo nor steady"),
        };
        if is_recent(self.age, last, now) {
            if self.len() >= SENDERS_MAX {
                return Err("more networks than can be remembered");
            }
            let entry = SenderRecord {
                ehlo_refusals,
                ..SenderRecord::new(last, next)
            };
            if self.networks.insert(network, entry).is_some() {
                return Err("a network for the second time");
            }
        }
        Ok(())
    }

    /// Returns the record of a network that has not expired.
    fn known(&mut self, network: SenderNetwork, now: u32) -> Option<&mut SenderRecord> {
        self.networks
            .get_mut(&network)
            .filter(|entry| is_recent(self.age, entry.last, now))
    }

    /// Remembers an unknown network, and returns whether there was space for it. Only expired
    /// networks are removed for it: a flood of new networks must not turn a network that
    /// returns into a first contact.
    fn remember(&mut self, network: SenderNetwork, next: NextRefusal, now: u32) -> bool {
        if self.len() >= SENDERS_MAX && !self.networks.contains_key(&network) {
            self.sweep(now);
            if self.len() >= SENDERS_MAX {
                return false;
            }
        }
        self.networks.insert(network, SenderRecord::new(now, next));
        true
    }

    /// Removes expired networks, unless that was done in the last minute.
    fn sweep(&mut self, now: u32) {
        if self.swept.is_none_or(|at| !is_recent(SWEEP_SECS, at, now)) {
            self.swept = Some(now);
            let age = self.age;
            self.networks
                .retain(|_, entry| is_recent(age, entry.last, now));
        }
    }

    /// Whether an unknown network may have connected before all the same.
    fn in_doubt(&self, now: u32) -> bool {
        self.forgotten
            .is_some_and(|at| is_recent(self.age, at, now))
    }
}

/// Why a saved memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is longer than any that is written.
    #[error("larger than {FILE_MAX} bytes")]
    TooLarge,
    /// A line is not as written.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}
