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
