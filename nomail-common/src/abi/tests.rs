use proptest::prelude::*;

use super::*;

fn pair(address: Address, port: u16) -> Guarded {
    Guarded {
        address,
        port,
        ..Guarded::default()
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    (1u64..200).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn the_most_pairs_are_guarded_and_no_other() {
    let pairs: Vec<_> = (0..MAX_GUARDED as u32)
        .map(|n| pair(Address::from_ipv4(0xc000_0200 + n), 25))
        .collect();
    let mut config = Config::EMPTY;
    assert!(config.set_guarded(&pairs, seeds()));
    for &Guarded { address, port, .. } in &pairs {
        assert!(config.guarded(address, port).is_some());
        assert!(config.guarded(address, 26).is_none());
    }
    let other = Address::from_ipv4(0xc000_0200 + MAX_GUARDED as u32);
    assert!(config.guarded(other, 25).is_none());
    let one_more: Vec<_> = (0..=MAX_GUARDED as u32)
        .map(|n| pair(Address::from_ipv4(n + 1), 25))
        .collect();
    assert!(!config.set_guarded(&one_more, seeds()));
    let kept = config.guarded(pairs[0].address, 25);
    assert!(kept.is_some(), "a refusal changes nothing");
}

#[test]
fn own_addresses_are_found_and_no_other() {
    let ipv6 = Address {
        high: 0x2001_0db8_0000_0000,
        low: 1,
    };
    let own: Vec<_> = (1..MAX_OWN as u32)
        .map(|n| Address::from_ipv4(0xc633_6400 + n))
        .chain([ipv6])
        .collect();
    let mut config = Config::EMPTY;
    assert!(!config.is_own(ipv6));
    assert!(config.set_own(&own, seeds()));
    assert!(own.iter().all(|own| config.is_own(*own)));
    for other in [0, 0xc633_6400, 0xc633_6400 + MAX_OWN as u32] {
        assert!(!config.is_own(Address::from_ipv4(other)));
    }
    let most = [ipv6; MAX_OWN + 1];
    assert!(!config.set_own(&most, seeds()));
    assert!(config.is_own(ipv6), "a refusal changes nothing");
    assert!(config.set_own(&[], seeds()));
    assert!(!config.is_own(ipv6));
}

#[test]
fn a_further_hardware_address_is_of_its_interface() {
    let address = [2, 0, 0, 0, 0, 7];
    let mut config = Config::EMPTY;
    assert!(!config.is_further_hardware(0, [0; 6]), "none is all zeros");
    config.further_hardware[0] = FurtherHardware { address, entry: 2 };
    assert!(config.is_further_hardware(2, address));
    assert!(config.is_further_hardware(0, address), "on a port");
    assert!(!config.is_further_hardware(1, address));
    assert!(!config.is_further_hardware(2, [2, 0, 0, 0, 0, 8]));
}

proptest! {
    #[test]
    fn guards_exactly_the_pairs(
        inside in proptest::collection::hash_set((any::<u64>(), any::<u64>(), 1u16..), 0..40),
        outside in (any::<u64>(), any::<u64>(), 1u16..),
    ) {
        let pairs: Vec<_> =
            inside.iter().map(|&(high, low, port)| pair(Address { high, low }, port)).collect();
        let mut config = Config::EMPTY;
        prop_assert!(config.set_guarded(&pairs, seeds()));
        for wanted in &pairs {
            prop_assert_eq!(config.guarded(wanted.address, wanted.port), Some(wanted));
        }
        let (high, low, port) = outside;
        prop_assert_eq!(
            config.guarded(Address { high, low }, port).is_some(),
            inside.contains(&outside)
        );
    }
}
