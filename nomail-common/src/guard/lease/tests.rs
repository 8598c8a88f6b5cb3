use super::*;

#[test]
fn a_lease_ends_and_does_not_start_again_at_the_wrap() {
    for now in [0, 1, 1000, u32::MAX - 3, u32::MAX] {
        assert!(lease_holds(0, now), "none is needed");
        assert!(lease_holds(
            now.wrapping_add(LEASE_TICKS_MAX) | 1,
            now.wrapping_add(1)
        ));
        let until = now.wrapping_add(2500) | 1;
        assert!(lease_holds(until, now) && lease_holds(until, until));
        assert!(!lease_holds(until, until.wrapping_add(1)));
        assert!(!lease_holds(until, until.wrapping_add(1 << 31)));
    }
}
