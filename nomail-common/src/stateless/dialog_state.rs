//! Where a client is in its own stream: a word of the table of dialogs.

use super::line_scan::{EMPTY_LINE, LINE_BITS};
use crate::{bounds::DIALOG_ENTRIES, guard::challenge::TupleHash};

/// Where the client is in its stream once it has our replies up to some number, from the
/// top: a tag of the tuple and that number, the line that goes on, and the sequence number
/// of the first byte that is not answered. The number is part of the key, so that a
/// retransmission is judged as it was the first time.
///
/// The state under our own initial sequence number has the count of answered SYNs instead of the
/// line, and the sequence number of the SYN instead of that of the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialogState(pub u64);

/// A state is believed for segments within so many bytes of it.
const REACH: i32 = 1 << 20;
/// Bit of the line under our initial sequence number: the client has acknowledged that.
const ACKNOWLEDGED: u32 = 1 << (LINE_BITS - 1);
/// The bits below it: SYNs that were answered.
pub(super) const SYNS_MASK: u32 = ACKNOWLEDGED - 1;

impl DialogState {
    /// The index and the tag of the state of a tuple that has `acknowledged` our replies.
    #[inline(always)]
    pub(super) const fn key(hash: TupleHash, acknowledged: u32) -> (u32, u64) {
        let (index, tag) = hash.slot(acknowledged);
        (index & (DIALOG_ENTRIES - 1), tag << (32 + LINE_BITS))
    }

    /// `next` is the first byte that is not answered, and `line` the line that it is in.
    #[inline(always)]
    pub(super) const fn new(tag: u64, next: u32, line: u32) -> Self {
        Self(tag | (line as u64) << 32 | next as u64)
    }

    /// The next byte and the line, if the state has this tag and is near a segment that
    /// begins at `sequence`.
    #[inline(always)]
    pub(super) const fn of(self, tag: u64, sequence: u32) -> Option<(u32, u32)> {
        let next = self.0 as u32;
        let apart = next.wrapping_sub(sequence) as i32;
        if self.has_tag(tag) && apart < REACH && apart > -REACH {
            Some((next, (self.0 >> 32) as u32 & ((1 << LINE_BITS) - 1)))
        } else {
            None
        }
    }

    /// The sequence number of the SYN, of a state under our initial sequence number.
    #[inline(always)]
    pub(super) const fn syn_sequence(self) -> u32 {
        self.0 as u32
    }

    /// How many SYNs were answered, of a state under our initial sequence number, whatever
    /// its tag.
    #[inline(always)]
    pub(super) const fn syns(self) -> u32 {
        (self.0 >> 32) as u32 & SYNS_MASK
    }

    /// How many SYNs with this sequence number were answered.
    #[inline(always)]
    pub(super) const fn syns_of(self, tag: u64, sequence: u32) -> u32 {
        match self.of(tag, sequence) {
            Some((next, line)) if next == sequence => line & SYNS_MASK,
            _ => 0,
        }
    }

    /// The state after `syns` SYNs were answered.
    #[inline(always)]
    pub(super) const fn with_syns(tag: u64, sequence: u32, syns: u32) -> Self {
        Self::new(
            tag,
            sequence,
            if syns < SYNS_MASK { syns } else { SYNS_MASK },
        )
    }

    /// The state once the client has acknowledged our initial sequence number.
    #[inline(always)]
    pub(super) const fn acknowledged(self) -> Self {
        Self(self.0 | (ACKNOWLEDGED as u64) << 32)
    }

    /// Whether the client has acknowledged our initial sequence number.
    pub(super) const fn is_acknowledged(self) -> bool {
        self.0 & (ACKNOWLEDGED as u64) << 32 != 0
    }

    /// Whether the state has this tag.
    #[inline(always)]
    pub(super) const fn has_tag(self, tag: u64) -> bool {
        self.0 >> (32 + LINE_BITS) == tag >> (32 + LINE_BITS)
    }

    /// Whether both have the same tag and sequence number.
    pub(super) const fn is_of_same(self, other: Self) -> bool {
        let line = ((1 << LINE_BITS) - 1) << 32;
        (self.0 ^ other.0) & !line == 0
    }

    /// The state of a client that has sent nothing but its SYN.
    #[inline(always)]
    pub(super) const fn silent(tag: u64, syn_sequence: u32) -> Self {
        Self::new(tag, syn_sequence.wrapping_add(1), EMPTY_LINE)
    }
}
