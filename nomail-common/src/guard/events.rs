//! Events of single sources, from XDP to the agent: one is over its limit, the first time it
//! is, and then at most once in [`PAUSE_SECS`].
//!
//! Whether to report is checked only when the count of a bucket says so
//! ([`Step::reportable`](super::limiter::Step::reportable)), at one SYN over the limit in
//! [`REPORT_EVERY`](super::limiter::REPORT_EVERY): SYNs that pass do not pay for it, and a
//! flood next to nothing. The sources reported lately are in lines of [`REPORTED_PER_LINE`]
//! entries, each a tag and the end of its pause. An entry makes room only then: with more
//! sources than entries some are not reported, and no flood of sources makes more events than
//! there are entries. SYNs of proven tuples have lines of their own, which SYNs that answered
//! no challenge cannot fill.
//!
//! No event wakes the agent: it reads them once a second, when it is awake anyway.

use super::{limiter::LAG_TICKS, sources::hash_of};
use crate::source::Source;
use crate::{
    bounds::{REPORTED_LINES, REPORTED_PER_LINE},
    counted::Counted as _,
    verdict::Verdict,
};

/// How long a source is not reported again.
pub const PAUSE_SECS: u64 = 60;
/// Bytes of an [`Event`].
pub const EVENT_LENGTH: usize = 24;

/// One event, as it lies in [`EVENTS_MAP`](crate::abi::EVENTS_MAP). In host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The [`Source`], or its unproven [`Source::prefix`].
    pub source: u64,
    /// `jiffies64` at the SYN.
    pub jiffies: u64,
    /// Index of the interface that the SYN arrived at.
    pub interface: u32,
    /// The [`Verdict`].
    pub verdict: u16,
    /// 1 if its tuple was proven, else 0. It may be forged all the same
    /// ([`super::tickets`]).
    pub proven: u16,
}

const _: () = assert!(size_of::<Event>() == EVENT_LENGTH, "no padding");

impl Event {
    /// From the bytes in the ring.
    pub fn from_bytes(bytes: &[u8; EVENT_LENGTH]) -> Self {
        fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
            core::array::from_fn(|index| bytes[offset + index])
        }
        Self {
            source: u64::from_ne_bytes(at(bytes, 0)),
            jiffies: u64::from_ne_bytes(at(bytes, 8)),
            interface: u32::from_ne_bytes(at(bytes, 16)),
            verdict: u16::from_ne_bytes(at(bytes, 20)),
            proven: u16::from_ne_bytes(at(bytes, 22)),
        }
    }

    /// The verdict by name.
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::ALL.get(usize::from(self.verdict)).copied()
    }

    /// The line that remembers the event, and its tag in there, which differs between
    /// verdicts. The lower half of the lines is for unproven tuples.
    #[inline(always)]
    pub const fn line_and_tag(&self, seed: u64) -> (usize, u32) {
        let hash = hash_of(Source(self.source), seed);
        let within = (hash >> (64 - REPORTED_LINES.trailing_zeros())) as usize;
        let line = within | if self.proven == 0 { 0 } else { REPORTED_LINES };
        (line, (hash as u32).wrapping_add(self.verdict as u32))
    }
}

/// The tag of a reported source in the upper half, and in the lower the low 32 bits of the
/// jiffies at which its pause ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    #[inline(always)]
    const fn new(tag: u32, end: u32) -> Self {
        Self((tag as u64) << 32 | end as u64)
    }

    const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Jiffies that are left at `now` of `ticks`, 0 when the pause has ended. Jiffies wrap,
    /// so an entry that ended looks like one of the future, but further ahead than `ticks`
    /// and another CPU's clock can be.
    const fn left(self, now: u32, ticks: u32) -> u32 {
        let left = (self.0 as u32).wrapping_sub(now);
        if left > ticks + LAG_TICKS as u32 {
            0
        } else {
            left
        }
    }
}

/// The words of one line of reported sources.
pub trait ReportedSet {
    /// An entry.
    fn entry(&self, slot: usize) -> Entry;
    /// Swaps an entry if it still is `old`; true when it was.
    fn replace(&self, slot: usize, old: Entry, new: Entry) -> bool;
}

/// Whether to report `tag` at `now`, in jiffies. If so it is remembered for `pause_ticks`,
/// by one swap: of CPUs that ask at once, one gets true.
#[inline(always)]
pub fn is_due<S: ReportedSet>(line: &S, tag: u32, now: u32, pause_ticks: u32) -> bool {
    let mut free = REPORTED_PER_LINE;
    let mut old = Entry(0);
    for slot in 0..REPORTED_PER_LINE {
        let entry = line.entry(slot);
        // An entry never used would otherwise end when jiffies wrap, as they do
        // five minutes after the kernel's start.
        if entry == Entry(0) || entry.left(now, pause_ticks) == 0 {
            if free == REPORTED_PER_LINE {
                (free, old) = (slot, entry);
            }
        } else if entry.tag() == tag {
            return false;
        }
    }
    free < REPORTED_PER_LINE
        && line.replace(free, old, Entry::new(tag, now.wrapping_add(pause_ticks)))
}

#[cfg(test)]
mod tests;
