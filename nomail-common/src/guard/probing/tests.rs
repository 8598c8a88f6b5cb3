use super::*;

const SLOTS: usize = 4096;

/// Seeds that were needed to fill a quarter of the slots.
fn needed(address: impl Fn(u64) -> Address, first_seed: u64) -> usize {
    let entries: Vec<_> = (1..=SLOTS as u64 / 4).map(address).collect();
    let mut table = [Address::FREE; SLOTS];
    let mut seed = first_seed;
    let mut tried = 0;
    let seeds = std::iter::repeat_with(|| {
        tried += 1;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    });
    let seed = fill(&mut table, &entries, seeds.take(100)).expect("some seed fits");
    for entry in entries {
        let first = first_slot(seed, entry, 0, SLOTS);
        assert!((0..PROBES).any(|probe| table[(first + probe) % SLOTS] == entry));
    }
    tried
}

#[test]
fn a_quarter_of_the_slots_needs_few_seeds() {
    let ipv4 = |step: u32| move |n| Address::from_ipv4(0x0a00_0000 + n as u32 * step);
    let ipv6 = |step: u64| {
        move |n| Address {
            high: 0x2001_0db8_0000_0000 + n / 300,
            low: n * step,
        }
    };
    let most = (0..50u64).map(|stream| {
        let seed = stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let of = [
            needed(ipv4(1), seed),
            needed(ipv4(256), seed),
            needed(ipv4(65_537), seed),
            needed(ipv6(1), seed),
            needed(ipv6(1 << 40), seed),
        ];
        of.into_iter().max().unwrap_or_default()
    });
    let most = most.max().unwrap_or_default();
    assert!(most <= 10, "{most} seeds");
}

#[test]
fn what_does_not_fit_leaves_an_empty_table() {
    let mut table = [Address::FREE; 4];
    let address = |n: u32| Address::from_ipv4(n + 1);
    let four: Vec<_> = (0..4).map(address).collect();
    assert!(fill(&mut table, &four, 1..100).is_some());
    let five: Vec<_> = (0..5).map(address).collect();
    assert_eq!(fill(&mut table, &five, 1..100), None);
    assert_eq!(table, [Address::FREE; 4]);
}
