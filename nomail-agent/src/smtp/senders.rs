//! The memory of `refuse_at = "auto"`: which networks have connected, without clock or
//! file.
//!
//! Not every sender returns the mail after a 521 greeting, but every one that
//! was tried does after a refusal at RCPT. So an unknown network
//! is greeted with 521, and a network that returns is refused at RCPT. One that
//! leaves after EHLO wants TLS: it is refused at EHLO at its next contact, which
//! makes some of these senders return the mail, and at RCPT after that.
//!
//! Large senders retry from another network each time. Therefore a network here is wide, an
//! IPv4 /16 or an IPv6 /32; and for [`PAUSE_SECS`] after a greeting unknown networks are
//! refused at RCPT as well: the next one may be the same sender.
//!
//! A refusal at RCPT is never wrong, so it is the answer in every doubt, and the
//! steady answer to one that goes on to leave after EHLO, as health checkers do.
//!
//! Times are in seconds since the Unix epoch.

mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use self::table::{EHLO_REFUSALS_MAX, NetworkTable, NextRefusal, Record};
use super::epoch::is_recent;
use crate::refusal::RefusalPoint;

/// Bytes of a saved memory.
pub const FILE_LEN: usize = HEADER.len() + 4 + 4 + NetworkTable::SAVED_LEN + END.len();

/// What a saved memory begins with.
const HEADER: &[u8] = b"nomail senders 2\n";

/// What it ends with. The blocks of a file that a power failure has cut off may be zeros, which
/// would be networks that never connected.
const END: &[u8] = b"end\n";

/// For this long after a greeting no unknown network is greeted. As a rule a sender has
/// returned by then: the first retry comes after minutes, or an hour at most.
pub const PAUSE_SECS: u32 = 2 * 60 * 60;

/// A network that stayed away this long is refused at EHLO again. Neither a health checker
/// nor a sender with mail in its queue does.
const STEADY_SECS: u32 = 24 * 60 * 60;

/// The networks that have connected. Every call takes constant time.
#[derive(Clone, Debug)]
pub struct Senders {
    /// After this time without a contact a network expires.
    age: u32,
    table: NetworkTable,
    /// When an earlier memory was lost; 0 if none was.
    forgotten: u32,
    /// When one was greeted last; 0 if none was.
    greeted: u32,
}

impl Senders {
    /// An empty memory. Networks expire after `age_secs`.
    pub fn new(age_secs: u32) -> Self {
        Self {
            age: age_secs,
            table: NetworkTable::default(),
            forgotten: 0,
            greeted: 0,
        }
    }

    /// A memory that was lost: any network may have connected before, so every unknown one
    /// is refused at RCPT until all of the lost ones would have expired.
    pub fn forgotten(age_secs: u32, now: u32) -> Self {
        Self {
            forgotten: now,
            ..Self::new(age_secs)
        }
    }

    /// Changes the age, also for the networks that are remembered.
    pub fn set_age(&mut self, age_secs: u32) {
        self.age = age_secs;
    }

    /// Remembers a contact and returns where to refuse it: in the greeting, at EHLO or
    /// at RCPT.
    pub fn contact(&mut self, peer: IpAddr, now: u32) -> RefusalPoint {
        let known = self.known(peer, now);
        let mut record = self.seen(known, now);
        let next = record.next;
        record.next = match next {
            NextRefusal::Ehlo => NextRefusal::RcptAfterEhlo,
            NextRefusal::Rcpt | NextRefusal::RcptAfterEhlo => NextRefusal::Rcpt,
        };
        if next == NextRefusal::Ehlo {
            record.ehlo_refusals += 1;
        }
        self.table.set(peer, record, now, self.age);
        if next == NextRefusal::Ehlo {
            return RefusalPoint::Ehlo;
        }
        if known.is_some() || self.in_doubt(now) {
            return RefusalPoint::Rcpt;
        }
        self.greeted = now;
        RefusalPoint::Greeting
    }

    /// Remembers a contact that was shed, and so greeted with 521. Where a known
    /// network is refused next stays as it is.
    pub fn greeted(&mut self, peer: IpAddr, now: u32) {
        let record = self.seen(self.known(peer, now), now);
        self.table.set(peer, record, now, self.age);
        self.greeted = now;
    }

    /// Remembers that a contact left after EHLO without MAIL:
    /// it wanted TLS, or it checks whether this host answers.
    ///
    /// Only for contacts to be refused at [`RefusalPoint::Rcpt`]: after a refused EHLO every
    /// client leaves.
    pub fn left_after_ehlo(&mut self, peer: IpAddr, now: u32) {
        let mut record = self.seen(self.known(peer, now), now);
        if record.next == NextRefusal::Rcpt && !is_steady(record) {
            record.next = NextRefusal::Ehlo;
        }
        self.table.set(peer, record, now, self.age);
    }

    /// Returns the number of networks, with expired ones whose place nobody took.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no network.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the memory for [`Senders::restore`], [`FILE_LEN`] bytes: a line with the
    /// version, two times, and the table as it is. Numbers are little-endian.
    pub fn save(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(FILE_LEN);
        file.extend(HEADER);
        file.extend(self.forgotten.to_le_bytes());
        file.extend(self.greeted.to_le_bytes());
        self.table.save(&mut file);
        file.extend(END);
        file
    }

    /// Restores the memory that [`Senders::save`] wrote, without expired networks.
    /// Times in the future, from a clock that was wrong, become `now`.
    ///
    /// # Errors
    /// Anything that is not as written. [`Senders::forgotten`] is the remedy.
    pub fn restore(file: &[u8], now: u32, age_secs: u32) -> Result<Self, StateError> {
        let rest = file.strip_prefix(HEADER).ok_or(StateError::Header)?;
        let length = StateError::Length(file.len());
        let (forgotten, rest) = rest.split_first_chunk().ok_or(length.clone())?;
        let (greeted, rest) = rest.split_first_chunk().ok_or(length.clone())?;
        if rest.len() != NetworkTable::SAVED_LEN + END.len() {
            return Err(length);
        }
        let rest = rest.strip_suffix(END).ok_or(StateError::Entry)?;
        let time = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes).min(now);
        Ok(Self {
            age: age_secs,
            table: NetworkTable::restore(rest, now, age_secs).ok_or(StateError::Entry)?,
            forgotten: time(forgotten),
            greeted: time(greeted),
        })
    }

    /// Returns the record of a network that has not expired.
    fn known(&self, peer: IpAddr, now: u32) -> Option<Record> {
        let record = self.table.get(peer);
        record.filter(|record| is_recent(self.age, record.last(), now))
    }

    /// The record of a network with a contact now.
    fn seen(&self, known: Option<Record>, now: u32) -> Record {
        let Some(record) = known else {
            return Record::new(now, NextRefusal::Rcpt);
        };
        let mut seen = Record::new(now, record.next);
        if is_recent(STEADY_SECS, record.last(), now) {
            seen.ehlo_refusals = record.ehlo_refusals;
        }
        seen
    }

    /// Whether an unknown network may have connected before all the same, or may be a sender
    /// that was greeted from another one.
    fn in_doubt(&self, now: u32) -> bool {
        let pause = match nomail_common::Mechanism::GreetingPause.is_on() {
            true => PAUSE_SECS,
            false => 0,
        };
        is_recent(pause, self.greeted, now) || is_recent(self.age, self.forgotten, now)
    }
}

fn is_steady(record: Record) -> bool {
    record.ehlo_refusals >= EHLO_REFUSALS_MAX && nomail_common::Mechanism::EhloRefusalsEnd.is_on()
}

/// Why a saved memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It does not begin as one does, or is of another version.
    #[error("not a memory of this version of nomail")]
    Header,
    /// It is longer or shorter than any that is written.
    #[error("{0} bytes, and not {FILE_LEN}")]
    Length(usize),
    /// An entry is none that is written.
    #[error("an entry that nomail does not write")]
    Entry,
}
