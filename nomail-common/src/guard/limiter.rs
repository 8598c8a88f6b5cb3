//! The token bucket of one source, as a pure step.
//!
//! The generic cell rate algorithm: instead of tokens, a bucket holds the *theoretical
//! arrival time*, the moment at which it will be full again.
//!
//! The clock is the kernel's `jiffies64`, which costs nothing to read, shifted
//! left by [`TICK_SHIFT`] so that an interval is a whole number of units even
//! at thousands of SYNs per second. A bucket keeps [`TIME_BITS`] of it: it
//! wraps after 2^32 jiffies (50 days at 1000 Hz, 198 at 250 Hz). A stored time that is
//! further ahead than the largest debt and the lag between CPUs ([`LAG_TICKS`]) is an old
//! one: the bucket is full.

/// Units of time in one jiffy, as a power of two.
pub const TICK_SHIFT: u32 = 12;
/// Bits of a time in a [`Bucket`].
pub const TIME_BITS: u32 = 44;
/// Bits of each of the two counts in a [`Bucket`].
pub const COUNT_BITS: u32 = 10;
/// What one overflow of a count in a bucket adds to its
/// [`SourceCarry`](crate::abi::SourceCarry).
pub const CARRY: u64 = 1 << COUNT_BITS;
/// Jiffies that one CPU may be behind another. Each reads the clock before the bucket, and
/// may be interrupted between, while another charges the bucket at a later time. Without
/// this the bucket of a source in full debt would look like an old one, and be full again.
pub const LAG_TICKS: u64 = 256;
const LAG: u64 = LAG_TICKS << TICK_SHIFT;
/// See [`Step::reportable`]. A power of two, so that the rhythm survives an overflow.
pub const REPORT_EVERY: u64 = 16;

const _: () = assert!(REPORT_EVERY.is_power_of_two() && REPORT_EVERY < CARRY);

const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A moment in units of 2^-[`TICK_SHIFT`] jiffies, modulo 2^[`TIME_BITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(u64);

impl Time {
    /// From `jiffies64`.
    #[inline(always)]
    pub const fn from_jiffies(jiffies: u64) -> Self {
        Self((jiffies << TICK_SHIFT) & TIME_MASK)
    }

    /// Units since `earlier`, modulo the wrap.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0) & TIME_MASK
    }

    #[inline(always)]
    const fn plus(self, units: u64) -> Self {
        Self(self.0.wrapping_add(units) & TIME_MASK)
    }
}

/// The rate and the burst of a bucket, in units of [`Time`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Units that one SYN costs; 0 for no limit.
    pub interval: u64,
    /// Largest debt with which a SYN is still admitted: burst - 1 intervals.
    pub tolerance: u64,
}

impl Limit {
    /// Admits everything.
    pub const UNLIMITED: Self = Self {
        interval: 0,
        tolerance: 0,
    };

    /// `rate` SYNs per second with bursts of `burst` SYNs, both at least 1, on a kernel with
    /// `hz` jiffies per second. None when the rate is too fast for the clock, or the burst
    /// too long for its wrap.
    pub const fn new(rate: u32, burst: u32, hz: u32) -> Option<Self> {
        if rate == 0 || burst == 0 {
            return None;
        }
        let second = (hz as u64) << TICK_SHIFT;
        let interval = (second + rate as u64 / 2) / rate as u64;
        let tolerance = interval * (burst as u64 - 1);
        // A quarter of the wrap leaves idle buckets most of it to be old in.
        if interval == 0 || tolerance + interval > TIME_MASK / 4 {
            return None;
        }
        Some(Self {
            interval,
            tolerance,
        })
    }

    /// The debt right after a SYN was admitted at the last possible moment.
    #[inline(always)]
    pub const fn debt_max(self) -> u64 {
        self.tolerance + self.interval
    }
}

/// A bucket in one word, so that one compare-and-swap updates it, from the top: theoretical
/// arrival time, SYNs admitted, SYNs over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(pub u64);

/// What one SYN did to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The bucket afterwards.
    pub bucket: Bucket,
    /// The SYN is over the limit.
    pub over: bool,
    /// The count that `over` selects overflowed: [`CARRY`] is to be added elsewhere.
    pub carried: bool,
    /// The source may be reported: the first SYN over the limit, and every
    /// [`REPORT_EVERY`]th of them.
    pub reportable: bool,
}

impl Bucket {
    /// A full bucket that has seen nothing.
    #[inline(always)]
    pub const fn full(now: Time) -> Self {
        Self(now.0 << (64 - TIME_BITS))
    }

    /// This bucket, or a full one if it is the zero of a new map. As a time that zero lies
    /// ahead just before the clock wraps, which on Linux is five minutes after each boot:
    /// the bucket would look exhausted.
    #[inline(always)]
    pub const fn or_full(self, now: Time) -> Self {
        if self.0 == 0 { Self::full(now) } else { self }
    }

    /// The moment at which the bucket will be, or was, full.
    #[inline(always)]
    pub const fn full_at(self) -> Time {
        Time(self.0 >> (64 - TIME_BITS))
    }

    /// SYNs admitted, modulo [`CARRY`].
    #[inline(always)]
    pub const fn admitted(self) -> u64 {
        self.0 >> COUNT_BITS & COUNT_MASK
    }

    /// SYNs over the limit, modulo [`CARRY`].
    #[inline(always)]
    pub const fn limited(self) -> u64 {
        self.0 & COUNT_MASK
    }

    /// Units of time until the bucket is full; 0 when it is.
    #[inline(always)]
    pub const fn debt(self, now: Time, limit: Limit) -> u64 {
        let ahead = self.full_at().since(now);
        if ahead > limit.debt_max() + LAG {
            0
        } else {
            ahead
        }
    }

    /// Whether one more SYN at `now` would be over the limit. Nothing is charged: saying no
    /// does not write to a bucket that all CPUs share.
    #[inline(always)]
    pub const fn is_over(self, now: Time, limit: Limit) -> bool {
        self.debt(now, limit) > limit.tolerance
    }

    /// The order of replacement: the lowest is the longest full, the highest the deepest in
    /// debt.
    #[inline(always)]
    pub const fn rank(self, now: Time, limit: Limit) -> u64 {
        self.full_at().since(now.plus(limit.debt_max() + LAG + 1))
    }

    /// Charges one SYN at `now`.
    #[inline(always)]
    pub const fn step(self, now: Time, limit: Limit) -> Step {
        let debt = self.debt(now, limit);
        // One branch for all values: BPF has no select, and would branch for each.
        if debt > limit.tolerance {
            let bucket = Self(self.0 & !COUNT_MASK | (self.0 + 1) & COUNT_MASK);
            Step {
                bucket,
                over: true,
                carried: bucket.limited() == 0,
                reportable: bucket.0 % REPORT_EVERY == 1,
            }
        } else {
            const ADMITTED: u64 = COUNT_MASK << COUNT_BITS;
            let full_at = now.plus(debt + limit.interval).0 << (64 - TIME_BITS);
            let admitted = (self.0 + (1 << COUNT_BITS)) & ADMITTED;
            let bucket = Self(full_at | admitted | self.limited());
            Step {
                bucket,
                over: false,
                carried: admitted == 0,
                reportable: false,
            }
        }
    }
}

/// A bucket that all CPUs share, as a word that they compare and swap.
pub trait SharedBucket {
    /// The bucket; 0 if it was never charged ([`Bucket::or_full`]).
    fn bucket(&self) -> Bucket;
    /// Swaps it if it still is `old`; true when it was.
    fn replace(&self, old: Bucket, new: Bucket) -> bool;
}

/// How often a CPU tries to change a word that others change at the same time.
pub const ATTEMPTS: usize = 4;

/// Whether one more SYN at `now` is over `limit`; charges it if not. An exhausted bucket is
/// not written. After [`ATTEMPTS`] that other CPUs disturbed, the SYN is over.
#[inline(always)]
pub fn charge_shared(shared: &impl SharedBucket, now: Time, limit: Limit) -> bool {
    for _ in 0..ATTEMPTS {
        if let Some(is_over) = try_charge_shared(shared, shared.bucket(), now, limit) {
            return is_over;
        }
    }
    true
}

/// One try of [`charge_shared`] with the `word` that was last read from the bucket; none if
/// another CPU has changed it since.
#[inline(always)]
pub fn try_charge_shared(
    shared: &impl SharedBucket,
    word: Bucket,
    now: Time,
    limit: Limit,
) -> Option<bool> {
    let step = word.or_full(now).step(now, limit);
    if step.over {
        Some(true)
    } else {
        shared.replace(word, step.bucket).then_some(false)
    }
}

#[cfg(test)]
mod tests;
