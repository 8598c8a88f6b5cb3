//! The token bucket of one source, as a pure step.
//!
//! It is the generic cell rate algorithm: instead of tokens, a bucket holds
//! the *theoretical arrival time*, the moment at which it will be full again.
//!
//! The clock is the kernel's `jiffies64`, which costs nothing to read, shifted
//! left by [`TICK_SHIFT`] so that an interval is a whole number of units even
//! at thousands of SYNs per second. A bucket keeps [`TIME_BITS`] of it: it
//! wraps after 2^32 jiffies (50 days at 1000 Hz, 198 at 250 Hz). A stored time
//! further ahead than the largest debt (and than CPUs are apart, [`LAG_TICKS`]) is
//! an old one: the bucket is full.

/// Units of time in one jiffy, as a power of two.
pub const TICK_SHIFT: u32 = 12;
/// Bits of a time in a [`Bucket`].
pub const TIME_BITS: u32 = 44;
/// Bits of each of the two counts in a [`Bucket`].
pub const COUNT_BITS: u32 = 10;
/// What a count in a bucket stands for when it runs over into
/// [`crate::abi::SourceCarry`].
pub const CARRY: u64 = 1 << COUNT_BITS;
/// Jiffies that one CPU may be behind another. Each reads the clock before it
/// looks at a bucket, and may be interrupted between, while another charges the
/// bucket at a later time. Without this the bucket of a source in full debt would
/// look like an old one, and be full again.
pub const LAG_TICKS: u64 = 256;
const LAG: u64 = LAG_TICKS << TICK_SHIFT;
/// See [`Step::tellable`]. A power of two, so that a count that ran over goes on.
pub const TELL_EVERY: u64 = 16;

const _: () = assert!(TELL_EVERY.is_power_of_two() && TELL_EVERY < CARRY);

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

    /// `rate` SYNs per second with bursts of `burst`, both at least 1, on a
    /// kernel with `hz` jiffies per second. Nothing when the rate is too fast
    /// for the clock or the burst too long for its wrap.
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

/// A bucket in one word, so that one compare-and-swap updates it: theoretical
/// arrival time, SYNs admitted, SYNs over, from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(pub u64);

/// What one SYN did to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The bucket afterwards.
    pub bucket: Bucket,
    /// The SYN is over the limit.
    pub over: bool,
    /// The count that `over` selects ran over: add [`CARRY`] to it elsewhere.
    pub carried: bool,
    /// Worth a look whether to tell of the source: the first SYN over the limit,
    /// and every [`TELL_EVERY`]th of them.
    pub tellable: bool,
}

impl Bucket {
    /// A full bucket that has seen nothing.
    #[inline(always)]
    pub const fn full(now: Time) -> Self {
        Self(now.0 << (64 - TIME_BITS))
    }

    /// This bucket, or a full one if it is the zero of a new map. As a time that zero lies
    /// ahead just before the clock wraps, which Linux lets it do five minutes after each
    /// boot: the bucket would look exhausted.
    #[inline(always)]
    pub const fn or_full(self, now: Time) -> Self {
        if self.0 == 0 { Self::full(now) } else { self }
    }

    /// When the bucket will be, or was, full.
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

    /// Units of time until the bucket is full; 0 when it is, however long.
    #[inline(always)]
    pub const fn debt(self, now: Time, limit: Limit) -> u64 {
        let ahead = self.full_at().since(now);
        if ahead > limit.debt_max() + LAG {
            0
        } else {
            ahead
        }
    }

    /// Whether one more SYN at `now` would be over. Changes nothing: a bucket that
    /// all CPUs share need not be written to say no.
    #[inline(always)]
    pub const fn is_over(self, now: Time, limit: Limit) -> bool {
        self.debt(now, limit) > limit.tolerance
    }

    /// Lower means replaced earlier: first the longest full, last the deepest
    /// in debt.
    #[inline(always)]
    pub const fn rank(self, now: Time, limit: Limit) -> u64 {
        self.full_at().since(now.plus(limit.debt_max() + LAG + 1))
    }

    /// Charges one SYN at `now`.
    #[inline(always)]
    pub const fn step(self, now: Time, limit: Limit) -> Step {
        let debt = self.debt(now, limit);
        // One branch for all: BPF cannot select, and would branch again for each value.
        if debt > limit.tolerance {
            let count = (self.limited() + 1) & COUNT_MASK;
            Step {
                bucket: Self(self.0 & !COUNT_MASK | count),
                over: true,
                carried: count == 0,
                tellable: count % TELL_EVERY == 1,
            }
        } else {
            let count = (self.admitted() + 1) & COUNT_MASK;
            let full_at = now.plus(debt + limit.interval);
            Step {
                bucket: Self(full_at.0 << (64 - TIME_BITS) | count << COUNT_BITS | self.limited()),
                over: false,
                carried: count == 0,
                tellable: false,
            }
        }
    }
}

/// A bucket that all CPUs share, as a word that they compare and swap.
pub trait SharedBucket {
    /// The bucket as it is: 0 if it was never charged ([`Bucket::or_full`]).
    fn bucket(&self) -> Bucket;
    /// Swaps it if it still is `old`; true when it was.
    fn replace(&self, old: Bucket, new: Bucket) -> bool;
}

/// Times that a CPU starts over because others changed a word under it.
pub const ATTEMPTS: usize = 4;

/// Whether one more at `now` is over `limit`; charges it if not. A bucket that is
/// exhausted is not written. Where CPUs disturb each other [`ATTEMPTS`] times, it
/// is over.
#[inline(always)]
pub fn charge_shared(shared: &impl SharedBucket, now: Time, limit: Limit) -> bool {
    for _ in 0..ATTEMPTS {
        let word = shared.bucket();
        let bucket = word.or_full(now);
        if bucket.is_over(now, limit) {
            return true;
        }
        if shared.replace(word, bucket.step(now, limit).bucket) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn admitted_of(bucket: &mut Bucket, syns: u32, now: Time, limit: Limit) -> u32 {
        (0..syns)
            .map(|_| {
                let step = bucket.step(now, limit);
                *bucket = step.bucket;
                u32::from(!step.over)
            })
            .sum()
    }

    #[rstest]
    #[case::debian(250)]
    #[case::desktop(1000)]
    #[case::slow(100)]
    fn a_burst_then_the_rate(#[case] hz: u32) {
        let limit = Limit::new(10, 20, hz).unwrap();
        let start = 7_000_000;
        let mut bucket = Bucket::full(Time::from_jiffies(start));
        assert_eq!(
            admitted_of(&mut bucket, 1000, Time::from_jiffies(start), limit),
            20
        );
        let later = Time::from_jiffies(start + u64::from(hz));
        assert_eq!(admitted_of(&mut bucket, 1000, later, limit), 10);
        let rested = Time::from_jiffies(start + 10 * u64::from(hz));
        assert_eq!(admitted_of(&mut bucket, 1000, rested, limit), 20);
    }

    #[test]
    fn counts_run_over_into_a_carry() {
        let limit = Limit::new(1, 1, 250).unwrap();
        let now = Time::from_jiffies(0);
        let mut bucket = Bucket::full(now);
        let mut carries = 0;
        for _ in 0..3 * CARRY + 5 {
            let step = bucket.step(now, limit);
            carries += u64::from(step.carried);
            bucket = step.bucket;
        }
        assert_eq!(
            (bucket.admitted(), carries * CARRY + bucket.limited()),
            (1, 3 * CARRY + 4)
        );
    }

    struct Word(Cell<Bucket>);

    impl SharedBucket for Word {
        fn bucket(&self) -> Bucket {
            self.0.get()
        }
        fn replace(&self, old: Bucket, new: Bucket) -> bool {
            assert_eq!(self.0.replace(new), old);
            true
        }
    }

    /// Linux starts its clock five minutes before the wrap.
    #[test]
    fn a_bucket_that_was_never_charged_is_full_also_before_the_wrap() {
        let limit = Limit::new(1, 4, 250).unwrap();
        for jiffies in (u64::from(u32::MAX) - 75_000..=u64::from(u32::MAX)).step_by(50) {
            let (word, now) = (Word(Cell::new(Bucket(0))), Time::from_jiffies(jiffies));
            let admitted = (0..9).filter(|_| !charge_shared(&word, now, limit)).count();
            assert_eq!(admitted, 4, "at {jiffies}");
        }
    }

    #[rstest]
    #[case(0, 20, 250)]
    #[case(10, 0, 250)]
    #[case(u32::MAX, 1, 250)]
    #[case(1, u32::MAX, 1000)]
    fn impossible_limits_are_refused(#[case] rate: u32, #[case] burst: u32, #[case] hz: u32) {
        assert_eq!(Limit::new(rate, burst, hz), None);
    }

    proptest! {
        /// Whatever the moment, the wrap included: over any stretch of time a
        /// source gets at most its burst and its rate, and at least its rate.
        #[test]
        fn admits_the_exact_rate(
            start: u64,
            rate in 1u32..=10_000,
            burst in 1u32..=100,
            gaps in proptest::collection::vec(0u64..40, 1..400),
        ) {
            let limit = Limit::new(rate, burst, 250).unwrap();
            let mut jiffies = start;
            let mut bucket = Bucket::full(Time::from_jiffies(start));
            let mut admitted = 0u64;
            for gap in gaps {
                jiffies = jiffies.wrapping_add(gap);
                let step = bucket.step(Time::from_jiffies(jiffies), limit);
                admitted += u64::from(!step.over);
                bucket = step.bucket;
                let elapsed = jiffies.wrapping_sub(start) << TICK_SHIFT;
                prop_assert!(admitted <= u64::from(burst) + elapsed / limit.interval);
                if step.over {
                    prop_assert!(admitted >= u64::from(burst));
                }
            }
        }

        /// A CPU whose clock is behind takes a bucket in debt for nothing else.
        #[test]
        fn a_late_cpu_sees_the_debt(
            start: u64,
            burst in 1u32..=100,
            lag in 0u64..=200,
            syns in 0u32..1000,
        ) {
            let limit = Limit::new(10, burst, 250).unwrap();
            let mut bucket = Bucket::full(Time::from_jiffies(start));
            prop_assert_eq!(
                admitted_of(&mut bucket, burst + syns, Time::from_jiffies(start), limit),
                burst
            );
            let late = Time::from_jiffies(start.wrapping_sub(lag));
            prop_assert!(bucket.is_over(late, limit));
            let fresh = Bucket::full(Time::from_jiffies(start)).rank(late, limit);
            prop_assert!(fresh < bucket.rank(late, limit));
            prop_assert_eq!(admitted_of(&mut bucket, 1000, late, limit), 0);
        }

        /// A bucket that was left alone for any time up to the wrap less the
        /// largest debt is full.
        #[test]
        fn an_old_bucket_is_full(start: u64, idle in 0u64..=(1 << 31), spent in 0u32..30) {
            let limit = Limit::new(10, 20, 250).unwrap();
            let mut bucket = Bucket::full(Time::from_jiffies(start));
            admitted_of(&mut bucket, spent, Time::from_jiffies(start), limit);
            let settled = start.wrapping_add(500 + idle);
            prop_assert_eq!(
                admitted_of(&mut bucket, 100, Time::from_jiffies(settled), limit),
                20
            );
        }

        #[test]
        fn the_deeper_in_debt_the_later_replaced(start: u64, few in 0u32..20, more in 1u32..20, old in 1u64..(1 << 30)) {
            let limit = Limit::new(10, 40, 250).unwrap();
            let now = Time::from_jiffies(start);
            let mut shallow = Bucket::full(now);
            admitted_of(&mut shallow, few, now, limit);
            let mut deep = shallow;
            admitted_of(&mut deep, more, now, limit);
            prop_assert!(shallow.rank(now, limit) < deep.rank(now, limit));
            let stale = Bucket::full(Time::from_jiffies(start.wrapping_sub(old)));
            prop_assert!(stale.rank(now, limit) < shallow.rank(now, limit));
        }
    }
}
