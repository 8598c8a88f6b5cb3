//! What XDP tells the agent of single sources: that one is over its limit, the
//! first time it is, and then at most once in [`PAUSE_SECS`].
//!
//! It is looked at only when the count of a bucket says so
//! ([`crate::guard::limiter::Step::tellable`]), at one SYN over the limit in
//! [`crate::guard::limiter::TELL_EVERY`]: SYNs that pass do not pay for it, and a flood
//! next to nothing. Who was told of lately is in lines of [`TOLD_PER_LINE`]
//! entries, each a tag and the moment until which no more is told. An entry makes
//! room only when that has come: with more sources than places some are not told
//! of, and no flood of sources makes more events than there are places. SYNs of proven
//! tuples have lines of their own, which SYNs that answered no challenge cannot fill.
//!
//! No event wakes the agent: it reads them once a second, when it is awake anyway.

use crate::{
    abi::{TOLD_LINES, TOLD_PER_LINE},
    counted::Counted as _,
    guard::limiter::LAG_TICKS,
    guard::source::Source,
    guard::sources::hash_of,
    verdict::Verdict,
};

/// No more is told of a source for so long.
pub const PAUSE_SECS: u64 = 60;
/// Octets of an [`Event`].
pub const EVENT_LENGTH: usize = 24;

/// One event, as it lies in [`crate::abi::EVENTS_MAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The source, or the prefix as [`Source::prefix`] of no proven tuple.
    pub source: u64,
    /// `jiffies64` at the SYN.
    pub jiffies: u64,
    /// Index of the interface that it came in by.
    pub interface: u32,
    /// The [`Verdict`].
    pub verdict: u16,
    /// 1 if its tuple was proven. It may be forged all the same ([`crate::guard::tickets`]).
    pub proven: u16,
}

const _: () = assert!(size_of::<Event>() == EVENT_LENGTH, "no padding");

impl Event {
    /// From the octets in the ring.
    pub fn from_octets(octets: &[u8; EVENT_LENGTH]) -> Self {
        fn at<const N: usize>(octets: &[u8], offset: usize) -> [u8; N] {
            core::array::from_fn(|index| octets[offset + index])
        }
        Self {
            source: u64::from_ne_bytes(at(octets, 0)),
            jiffies: u64::from_ne_bytes(at(octets, 8)),
            interface: u32::from_ne_bytes(at(octets, 16)),
            verdict: u16::from_ne_bytes(at(octets, 20)),
            proven: u16::from_ne_bytes(at(octets, 22)),
        }
    }

    /// The verdict by name.
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::ALL.get(usize::from(self.verdict)).copied()
    }

    /// The line that remembers it, and the tag in there: another one for another
    /// verdict. The lower half of the lines is for the unproven.
    #[inline(always)]
    pub const fn place(&self, seed: u64) -> (usize, u32) {
        let hash = hash_of(Source(self.source), seed);
        let within = (hash >> (64 - TOLD_LINES.trailing_zeros())) as usize;
        let line = within | if self.proven == 0 { 0 } else { TOLD_LINES };
        (line, (hash as u32).wrapping_add(self.verdict as u32))
    }
}

/// An entry: the tag in the upper half, and in the lower the low 32 bits of the
/// jiffies until which no more is told.
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

    /// Jiffies that are left at `now` of `ticks`, 0 when it has ended. Jiffies wrap, and
    /// an entry that ended looks like one of the future, but further ahead than `ticks`,
    /// and than another CPU's clock can be.
    const fn left(self, now: u32, ticks: u32) -> u32 {
        let left = (self.0 as u32).wrapping_sub(now);
        if left > ticks + LAG_TICKS as u32 {
            0
        } else {
            left
        }
    }
}

/// The words of one line.
pub trait ToldSet {
    /// An entry.
    fn entry(&self, place: usize) -> Entry;
    /// Swaps an entry if it still is `old`; true when it was.
    fn replace(&self, place: usize, old: Entry, new: Entry) -> bool;
}

/// Whether to tell of `tag` at `now`, in jiffies. If so it is remembered for
/// `pause_ticks`, by one swap: of CPUs that ask at once, one is told yes.
#[inline(always)]
pub fn is_due<S: ToldSet>(line: &S, tag: u32, now: u32, pause_ticks: u32) -> bool {
    let mut free = TOLD_PER_LINE;
    let mut old = Entry(0);
    for place in 0..TOLD_PER_LINE {
        let entry = line.entry(place);
        // An entry never used would otherwise end when jiffies wrap, as they do
        // five minutes after the kernel's start.
        if entry == Entry(0) || entry.left(now, pause_ticks) == 0 {
            if free == TOLD_PER_LINE {
                (free, old) = (place, entry);
            }
        } else if entry.tag() == tag {
            return false;
        }
    }
    free < TOLD_PER_LINE && line.replace(free, old, Entry::new(tag, now.wrapping_add(pause_ticks)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct OneCpu([Cell<u64>; TOLD_PER_LINE]);

    impl ToldSet for OneCpu {
        fn entry(&self, place: usize) -> Entry {
            Entry(self.0[place].get())
        }
        fn replace(&self, place: usize, old: Entry, new: Entry) -> bool {
            let same = self.0[place].get() == old.0;
            if same {
                self.0[place].set(new.0);
            }
            same
        }
    }

    #[test]
    fn each_is_told_once_in_a_pause_and_no_more_than_there_are_places() {
        // Also where jiffies wrap: they begin five minutes before.
        for start in [0, 1000, u32::MAX - 5, u32::MAX - 75_000] {
            let line = OneCpu::default();
            let told = |now: u32| {
                (1..=100)
                    .filter(|&tag| is_due(&line, tag, now, 15_000))
                    .count()
            };
            assert_eq!(told(start), TOLD_PER_LINE);
            assert_eq!(told(start), 0);
            assert_eq!(told(start.wrapping_add(14_999)), 0);
            assert_eq!(told(start.wrapping_add(15_000)), TOLD_PER_LINE);
        }
    }

    #[test]
    fn octets_are_an_event() {
        let event = Event {
            source: Source::from_ipv4(0xc000_0209).0,
            jiffies: u64::MAX - 3,
            interface: 7,
            verdict: Verdict::LimitedPrefix as u16,
            proven: 1,
        };
        let mut octets = [0; EVENT_LENGTH];
        octets[..8].copy_from_slice(&event.source.to_ne_bytes());
        octets[8..16].copy_from_slice(&event.jiffies.to_ne_bytes());
        octets[16..20].copy_from_slice(&event.interface.to_ne_bytes());
        octets[20..22].copy_from_slice(&event.verdict.to_ne_bytes());
        octets[22..].copy_from_slice(&event.proven.to_ne_bytes());
        assert_eq!(Event::from_octets(&octets), event);
        assert_eq!(event.verdict(), Some(Verdict::LimitedPrefix));
        let forged = Event { proven: 0, ..event };
        assert_eq!(forged.place(9).0 + TOLD_LINES, event.place(9).0);
    }
}
