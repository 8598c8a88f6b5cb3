//! The store of proven tuples: lines of [`TUPLES_PER_LINE`] entries, each a tag
//! and the moment until which it holds.
//!
//! Entries are read and written as whole words by any CPU. Two that write one at
//! the same time lose one of two proofs, and that client is challenged again.

use crate::{abi::TUPLES_PER_LINE, limiter::LAG_TICKS};

/// An entry: the tag in the upper half, and in the lower the low 32 bits of the
/// jiffies at which it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// `tag`, until `end`.
    #[inline(always)]
    pub const fn new(tag: u32, end: u32) -> Self {
        Self((tag as u64) << 32 | end as u64)
    }

    pub(crate) const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Jiffies that are left at `now` of the `ticks` that it was to hold, 0 when it
    /// has ended.
    ///
    /// Jiffies wrap, and an entry that ended looks like one of the future; but it
    /// is told from one by being further ahead than `ticks`, and than another CPU's
    /// clock can be.
    pub(crate) const fn left(self, now: u32, ticks: u32) -> u32 {
        let left = (self.0 as u32).wrapping_sub(now);
        if left > ticks + LAG_TICKS as u32 {
            0
        } else {
            left
        }
    }
}

/// The words of one line.
pub trait TupleSet {
    /// An entry.
    fn entry(&self, place: usize) -> Entry;
    /// Writes an entry.
    fn write(&self, place: usize, entry: Entry);
    /// Swaps an entry if it still is `old`; true when it was.
    fn replace(&self, place: usize, old: Entry, new: Entry) -> bool;
}

/// Whether one of `tags` is remembered at `now`, in jiffies. `proof_ticks` is
/// how long a proof holds.
#[inline(always)]
pub fn is_proven<S: TupleSet>(line: &S, tags: [u32; 2], now: u32, proof_ticks: u32) -> bool {
    let mut proven = false;
    for place in 0..TUPLES_PER_LINE {
        let entry = line.entry(place);
        proven |= tags.contains(&entry.tag()) && entry.left(now, proof_ticks) > 0;
    }
    proven
}

/// Remembers `tag` from `now` on; the entry that ends first, or has ended, makes
/// room.
#[inline(always)]
pub fn remember<S: TupleSet>(line: &S, tag: u32, now: u32, proof_ticks: u32) {
    let mut place = 0;
    let mut least = u32::MAX;
    for candidate in 0..TUPLES_PER_LINE {
        let entry = line.entry(candidate);
        let left = if entry.tag() == tag {
            0
        } else {
            entry.left(now, proof_ticks)
        };
        if left < least {
            (place, least) = (candidate, left);
        }
    }
    line.write(place, Entry::new(tag, now.wrapping_add(proof_ticks)));
}
