//! Tickets: what a right answer to a challenge earns.
//!
//! A ticket admits [`TICKET_SYNS`] SYNs of one tuple and sequence number, the first one and its
//! retransmissions, for [`PROOF_SECS`](super::challenge::PROOF_SECS). It proves nothing about
//! a host: a SYN may be forged, and its victim's RST answers the challenge. Hence:
//! - SYNs beyond the ticket are dropped, and charge no bucket;
//! - the tickets of a source are in [`LINES_OF_SOURCE`] lines of [`TICKETS_PER_LINE`] slots,
//!   chosen by its keyed hash, so that no source can replace all tickets. So many lines,
//!   because forged SYNs make tickets of its address as well, and the source's own must last
//!   until its next SYN: 11 ms for Linux, a second for others;
//! - a proof is 16 bits, and RSTs cost nothing: a RST that answers no challenge is charged to
//!   a bucket that few sources share and to one that all do. While one of them is exhausted,
//!   a ticket takes two right answers, and a wrong answer takes the first back;
//! - the victim also resets what its forged SYN opened: that spends the ticket, so that the
//!   same SYN is not challenged, proven and charged again.
//!
//! Any CPU reads and writes tickets as whole words. When two write one at the same time, one
//! of them is lost, and its client is challenged again.

use super::{
    challenge::{Round, TupleHash},
    limiter::{LAG_TICKS, Limit, SharedBucket, Time, charge_shared},
    sources,
};
use crate::bounds::{LINES_OF_SOURCE, TICKET_LINES, TICKETS_PER_LINE};
use crate::source::Source;
use crate::verifier::forget;

/// SYNs that one ticket admits: a client of Linux 6.5 or later sends seven within
/// [`PROOF_SECS`](super::challenge::PROOF_SECS) when nothing answers.
pub const TICKET_SYNS: u32 = 8;
/// RSTs per second that answer no challenge, from the sources of one bucket, before a ticket
/// takes two answers. The agent raises this and the three below to twice the cap, because the
/// victim of each forged SYN that the kernel answers resets that.
pub const RESETS_RATE: u32 = 512;
/// Burst of [`RESETS_RATE`].
pub const RESETS_BURST: u32 = 1024;
/// RSTs per second that answer no challenge, from all sources, before a ticket takes two
/// answers.
pub const ALL_RESETS_RATE: u32 = 1024;
/// Burst of [`ALL_RESETS_RATE`].
pub const ALL_RESETS_BURST: u32 = 4096;

const TAG_SHIFT: u32 = 42;
const HIGH_SHIFT: u32 = 26;
const STATE_SHIFT: u32 = 22;
const HIGH_MASK: u64 = 0xffff;
const STATE_MASK: u64 = 0xf;
const END_MASK: u32 = (1 << STATE_SHIFT) - 1;
/// State of a ticket that lacks the second answer. Smaller values are SYNs admitted.
const HALF: u64 = STATE_MASK;

const _: () = assert!((TICKET_SYNS as u64) < HALF);

/// A ticket in one word, from the top: 22 bits of the hash of its tuple, the upper 16 bits of
/// the number that was proven, its state, and the low 22 bits of the jiffies at which it ends.
/// 0 is no ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What the tuple of a SYN has proven.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    None = 0,
    /// One answer of two: the next challenge has the second number.
    Half = 1,
    /// A ticket that has admitted no SYN yet.
    New = 2,
    /// A ticket that has admitted a SYN, and admits more.
    Used = 3,
    /// A ticket that admits no more.
    Spent = 4,
}

impl Proof {
    /// From its discriminant, as a BPF function returns it.
    #[inline(always)]
    pub const fn from_value(value: u32) -> Self {
        match value {
            1 => Self::Half,
            2 => Self::New,
            3 => Self::Used,
            4 => Self::Spent,
            _ => Self::None,
        }
    }

    /// Whether the tuple has a ticket.
    #[inline(always)]
    pub const fn is_proven(self) -> bool {
        matches!(self, Self::New | Self::Used | Self::Spent)
    }

    /// The number of the tuple's next challenge.
    #[inline(always)]
    pub const fn round(self) -> Round {
        match self {
            Self::Half => Round::Second,
            _ => Round::First,
        }
    }
}

/// What a RST answered.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// No challenge, unless it is a wrong guess: it passes, and [`ResetLimits::charge`]
    /// counts it.
    Not = 0,
    /// A challenge, but it changed nothing, or was the first answer of two.
    Again = 1,
    /// A challenge: the tuple has a ticket.
    Proven = 2,
    /// What a ticket has opened: it passes, and is no guess.
    Opened = 3,
}

impl Answered {
    /// Whether it answers a challenge, of which the network stack knows nothing.
    #[inline(always)]
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Again | Self::Proven)
    }
}

impl Ticket {
    #[inline(always)]
    const fn new(hash: TupleHash, number: u32, state: u64, now: u32, ticks: u32) -> Self {
        let high = (number >> 16) as u64;
        let end = (now.wrapping_add(ticks) & END_MASK) as u64;
        Self(tag_of(hash) << TAG_SHIFT | high << HIGH_SHIFT | state << STATE_SHIFT | end)
    }

    #[inline(always)]
    const fn state(self) -> u64 {
        self.0 >> STATE_SHIFT & STATE_MASK
    }

    #[inline(always)]
    const fn with_state(self, state: u64) -> Self {
        Self(self.0 & !(STATE_MASK << STATE_SHIFT) | state << STATE_SHIFT)
    }

    #[inline(always)]
    const fn with_number(self, number: u32) -> Self {
        Self(self.0 & !(HIGH_MASK << HIGH_SHIFT) | ((number >> 16) as u64) << HIGH_SHIFT)
    }

    /// What the ticket of a tuple proves for a SYN with `sequence`.
    #[inline(always)]
    pub const fn proof(self, sequence: u32) -> Proof {
        if self.0 == 0 || !self.fits(sequence) {
            return Proof::None;
        }
        match self.state() {
            HALF => Proof::Half,
            0 => Proof::New,
            admitted if admitted < TICKET_SYNS as u64 => Proof::Used,
            _ if crate::Mechanism::TicketSyns.is_off() => Proof::Used,
            _ => Proof::Spent,
        }
    }

    /// Jiffies that are left at `now` of `ticks`; 0 when the ticket has ended. An old ticket
    /// looks like a new one again for `ticks` in 2^22 jiffies, to its own tuple only.
    #[inline(always)]
    const fn left(self, now: u32, ticks: u32) -> u32 {
        let left = (self.0 as u32).wrapping_sub(now) & END_MASK;
        if self.0 == 0 || left > ticks + LAG_TICKS as u32 {
            0
        } else {
            left
        }
    }

    /// Whether anything is [`Self::left`].
    #[inline(always)]
    const fn is_alive(self, now: u32, ticks: u32) -> bool {
        let left = (self.0 as u32).wrapping_sub(now) & END_MASK;
        self.0 != 0 && left.wrapping_sub(1) < ticks + LAG_TICKS as u32
    }

    /// Whether the ticket is for a SYN with `sequence`: the number that was proven has its
    /// upper half, or that less one ([`TupleHash::acknowledgment`]).
    #[inline(always)]
    const fn fits(self, sequence: u32) -> bool {
        let high = (self.0 >> HIGH_SHIFT & HIGH_MASK) as u32;
        (sequence >> 16).wrapping_sub(high) & HIGH_MASK as u32 <= 1
            || crate::Mechanism::TicketSequence.is_off()
    }

    /// Whether `number` and the one that was proven may come from one SYN.
    #[inline(always)]
    const fn is_near(self, number: u32) -> bool {
        let high = (self.0 >> HIGH_SHIFT & HIGH_MASK) as u32;
        (number >> 16).wrapping_sub(high).wrapping_add(1) & HIGH_MASK as u32 <= 2
    }
}

#[inline(always)]
const fn tag_of(hash: TupleHash) -> u64 {
    hash.0 >> TAG_SHIFT
}

/// The words of one line of tickets.
pub trait TicketSet {
    /// A ticket.
    fn ticket(&self, slot: usize) -> Ticket;
    /// Writes a ticket.
    fn write(&self, slot: usize, ticket: Ticket);
}

/// Index in [`TICKETS_MAP`](crate::abi::TICKETS_MAP) of the line of a tuple of `source`.
#[inline(always)]
pub const fn line_of(source: Source, hash: TupleHash, seed: u64) -> usize {
    bucket_of(source, seed) ^ (hash.0 as usize & (LINES_OF_SOURCE - 1))
}

/// Index in [`TICKETS_MAP`](crate::abi::TICKETS_MAP) of the line with the bucket of RSTs of
/// `source`.
#[inline(always)]
pub const fn bucket_of(source: Source, seed: u64) -> usize {
    sources::line_of(source, seed, TICKET_LINES)
}

/// The live ticket of a tuple, and its slot in the line.
#[inline(always)]
fn find<S: TicketSet>(line: &S, hash: TupleHash, now: u32, ticks: u32) -> Option<(usize, Ticket)> {
    for slot in 0..TICKETS_PER_LINE {
        let ticket = line.ticket(slot);
        if ticket.0 >> TAG_SHIFT == tag_of(hash) && ticket.is_alive(now, ticks) {
            let slot = forget(slot as u64, ticket.0) as usize % 8;
            return Some((slot, ticket));
        }
    }
    None
}

/// What the tuple of a SYN with `sequence` has proven at `now`. A ticket holds for `ticks`;
/// both are in jiffies.
#[inline(always)]
pub fn proof_of<S: TicketSet>(
    line: &S,
    hash: TupleHash,
    sequence: u32,
    now: u32,
    ticks: u32,
) -> Proof {
    ticket_of(line, hash, now, ticks).proof(sequence)
}

/// The live ticket of a tuple, or none.
#[inline(always)]
pub fn ticket_of<S: TicketSet>(line: &S, hash: TupleHash, now: u32, ticks: u32) -> Ticket {
    find(line, hash, now, ticks).map_or(Ticket(0), |(_, ticket)| ticket)
}

/// Admits a SYN of the tuple on its ticket.
#[inline(always)]
pub fn admit<S: TicketSet>(line: &S, hash: TupleHash, now: u32, ticks: u32) {
    use_ticket(line, ticket_of(line, hash, now, ticks));
}

/// Admits a SYN on a ticket, unless it has changed since.
#[inline(always)]
pub fn use_ticket<S: TicketSet>(line: &S, ticket: Ticket) {
    if ticket.0 == 0 || ticket.state() >= u64::from(TICKET_SYNS) {
        return;
    }
    for slot in 0..TICKETS_PER_LINE {
        if line.ticket(slot).0 == ticket.0 {
            line.write(slot, ticket.with_state(ticket.state() + 1));
            return;
        }
    }
}

/// The limits of RSTs that answer no challenge.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetLimits {
    /// The limit of the sources that share a bucket.
    pub of_source: Limit,
    /// The limit of all sources.
    pub of_all: Limit,
}

impl ResetLimits {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        of_source: Limit::UNLIMITED,
        of_all: Limit::UNLIMITED,
    };

    /// Whether a ticket takes two answers at `now`.
    #[inline(always)]
    pub fn is_strict(self, [of_source, of_all]: [&impl SharedBucket; 2], now: Time) -> bool {
        of_source.bucket().or_full(now).is_over(now, self.of_source)
            || of_all.bucket().or_full(now).is_over(now, self.of_all)
    }

    /// Counts a RST that answers no challenge.
    #[inline(always)]
    pub fn charge(self, [of_source, of_all]: [&impl SharedBucket; 2], now: Time) {
        // One source alone must not exhaust the bucket of all.
        if !charge_shared(of_source, now, self.of_source) {
            charge_shared(of_all, now, self.of_all);
        }
    }
}

/// Takes a RST with `sequence`, in the time slot `slot`. A right answer gives the tuple a
/// ticket, or the first half of one where two answers are needed (`strict`). The reset of what
/// a ticket has opened spends it. A wrong answer takes back a half ticket; one that fits, or
/// whose sequence is 0, also takes back a ticket that has opened nothing. A ticket holds for
/// `ticks`; that and `now` are in jiffies.
#[inline(always)]
pub fn reset<S: TicketSet>(
    line: &S,
    strict: bool,
    hash: TupleHash,
    sequence: u32,
    slot: u32,
    now: u32,
    ticks: u32,
) -> Answered {
    let own = find(line, hash, now, ticks);
    match hash.round_of(sequence, slot) {
        Some(Round::First) => {
            let index = own.map_or_else(|| ends_first(line, now, ticks), |(index, _)| index);
            let (ticket, answered) = match own {
                // SYNs that were admitted stay counted, and a first answer given twice is
                // still one answer.
                Some((_, ticket)) if ticket.is_near(sequence) => {
                    (ticket.with_number(sequence), Answered::Again)
                }
                _ if strict && crate::Mechanism::WrongAnswers.is_on() => (
                    Ticket::new(hash, sequence, HALF, now, ticks),
                    Answered::Again,
                ),
                _ => (Ticket::new(hash, sequence, 0, now, ticks), Answered::Proven),
            };
            line.write(index, ticket);
            answered
        }
        Some(Round::Second)
            if let Some((index, ticket)) = own
                && ticket.is_near(sequence) =>
        {
            if ticket.state() != HALF {
                return Answered::Again;
            }
            line.write(index, Ticket::new(hash, sequence, 0, now, ticks));
            Answered::Proven
        }
        _ => {
            let mut answered = Answered::Not;
            // The host that resets what was opened did not ask for it, or no longer wants it:
            // the same SYN, which anyone can send again, opens and charges no more. A RST in
            // reply to a segment without ACK has sequence 0 (RFC 9293 section 3.10.7.1).
            if let Some((index, ticket)) = own {
                let admitted = !matches!(ticket.state(), 0 | HALF);
                let fits = ticket.fits(sequence);
                if admitted && fits {
                    answered = Answered::Opened;
                }
                if fits || !admitted && (ticket.state() == HALF || sequence == 0) {
                    let spent = ticket.with_state(u64::from(TICKET_SYNS));
                    line.write(index, if admitted { spent } else { Ticket(0) });
                }
            }
            answered
        }
    }
}

/// The slot whose ticket has ended, or ends first.
#[inline(always)]
fn ends_first<S: TicketSet>(line: &S, now: u32, ticks: u32) -> usize {
    // In one word, as in `sources::enter`.
    let mut least = u64::MAX;
    for slot in 0..TICKETS_PER_LINE {
        let left = u64::from(line.ticket(slot).left(now, ticks));
        let candidate = left << 3 | slot as u64;
        if candidate < least {
            least = candidate;
        }
    }
    (least & 7) as usize
}
