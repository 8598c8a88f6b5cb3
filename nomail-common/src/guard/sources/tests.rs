use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use proptest::prelude::*;

use super::*;
use crate::guard::limiter::TICK_SHIFT;

#[derive(Default)]
struct Shared {
    keys: [AtomicU64; SLOTS_PER_LINE],
    buckets: [AtomicU64; SLOTS_PER_LINE],
}

impl SourceSet for Shared {
    fn key(&self, slot: usize) -> u64 {
        self.keys[slot].load(SeqCst)
    }
    fn replace_key(&self, slot: usize, old: u64, new: u64) -> bool {
        self.keys[slot]
            .compare_exchange(old, new, SeqCst, SeqCst)
            .is_ok()
    }
    fn bucket(&self, slot: usize) -> Bucket {
        Bucket(self.buckets[slot].load(SeqCst))
    }
    fn replace_bucket(&self, slot: usize, old: Bucket, new: Bucket) -> bool {
        self.buckets[slot]
            .compare_exchange(old.0, new.0, SeqCst, SeqCst)
            .is_ok()
    }
    fn fill(&self, slot: usize, bucket: Bucket) {
        self.buckets[slot].store(bucket.0, SeqCst);
    }
    fn publish(&self, slot: usize, key: u64) {
        self.keys[slot].store(key, SeqCst);
    }
}

fn limit() -> Limit {
    Limit::new(10, 20, 250).unwrap()
}

fn over(charge: Charge) -> bool {
    charge.over
}

#[test]
fn an_attacker_stays_while_strangers_replace_each_other() {
    let line = Shared::default();
    let now = Time::from_jiffies(1000);
    let attacker = Source::from_ipv4(1);
    for _ in 0..30 {
        charge(&line, attacker, now, limit(), true);
    }
    for stranger in 100..200 {
        assert!(!over(charge(
            &line,
            Source::from_ipv4(stranger),
            now,
            limit(),
            true
        )));
        assert!(over(charge(&line, attacker, now, limit(), true)));
    }
}

#[test]
fn the_longest_quiet_source_goes_first() {
    let line = Shared::default();
    for n in 0..4u32 {
        let now = Time::from_jiffies(1000 - u64::from(n));
        charge(&line, Source::from_ipv4(n), now, limit(), true);
    }
    let charged = charge(
        &line,
        Source::from_ipv4(9),
        Time::from_jiffies(9000),
        limit(),
        true,
    );
    assert_eq!((charged.slot, charged.evicted), (3, true));
}

/// As in a flood: known sources stay limited, new ones leave no trace.
#[test]
fn a_source_that_may_not_enter_is_not_over_and_replaces_none() {
    let line = Shared::default();
    let now = Time::from_jiffies(1000);
    let known = Source::from_ipv4(1);
    charge(&line, known, now, limit(), true);
    for stranger in 100..200 {
        let charged = charge(&line, Source::from_ipv4(stranger), now, limit(), false);
        assert_eq!(charged, Charge::NOTHING);
    }
    assert_eq!([1, 2, 3].map(|slot| line.key(slot)), [EMPTY; 3]);
    let of_known = (0..25).map(|_| over(charge(&line, known, now, limit(), false)));
    assert_eq!(of_known.filter(|over| *over).count(), 6);
}

/// Real threads on one line: a source has one slot, and is admitted exactly what
/// the bucket allows.
#[test]
fn threads_share_a_line() {
    const THREADS: u64 = 4;
    for round in 0..200u64 {
        let line = Shared::default();
        let now = Time::from_jiffies(round << TICK_SHIFT);
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let charge = charge(&line, Source::from_ipv4(7), now, limit(), true);
                        if !charge.over && !charge.contended {
                            admitted.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        });
        let copies = (0..SLOTS_PER_LINE)
            .filter(|&slot| line.key(slot) == Source::from_ipv4(7).0)
            .count();
        assert_eq!(copies, 1);
        let admitted = admitted.load(SeqCst);
        assert_eq!(admitted, 20);
    }
}

proptest! {
    /// One CPU, any order of sources: a line never holds a source twice,
    /// and a source that was never replaced is limited exactly.
    #[test]
    fn one_copy_of_a_source(order in proptest::collection::vec(0u32..8, 1..300)) {
        let line = Shared::default();
        let now = Time::from_jiffies(5);
        for source in order {
            charge(&line, Source::from_ipv4(source), now, limit(), true);
            let mut keys: Vec<_> = (0..SLOTS_PER_LINE)
                .map(|slot| line.key(slot))
                .filter(|&key| key != EMPTY)
                .collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), all);
        }
    }
}

/// On every kernel, and when the byte wraps.
#[test]
fn a_line_is_recent_for_two_to_eight_seconds() {
    for hz in [100, 250, 300, 1000] {
        let shift = crate::guard::challenge::slot_shift(hz);
        let seconds = |seconds: u64| seconds * u64::from(hz);
        for charged in [0, seconds(1), seconds(1023), 1 << 40] {
            let byte = epoch(charged, shift);
            let is_recent = |after: u64| is_recent(byte, epoch(charged + after, shift));
            assert!(is_recent(0) && is_recent(seconds(2)), "{hz} {charged}");
            assert!(!is_recent(seconds(8)), "{hz} {charged}");
        }
    }
}
