use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn ipv4_and_ipv6_never_share_a_key(v4: u32, high: u64, low: u64, other: u64) {
        prop_assert_ne!(Source::from_ipv4(v4), Source::from_ipv6(high, low));
        prop_assert_ne!(Source::from_ipv6(high, low).0, 0);
        let nat64 = Source::from_ipv6(NAT64, v4.into());
        prop_assert_ne!(nat64, Source::from_ipv4(v4));
        prop_assert_ne!(nat64, Source::from_ipv6(high, low));
        prop_assert_ne!(nat64, Source::from_ipv6(NAT64, other | 1 << 32));
    }

    #[test]
    fn each_ipv4_address_behind_nat64_is_a_source(one: u32, other: u32) {
        let address = |v4: u32| IpAddr::V6(Ipv6Addr::from_bits(
            u128::from(NAT64) << 64 | u128::from(v4),
        ));
        let source = Source::from(address(one));
        prop_assert_eq!(source.address(), address(one));
        prop_assert_eq!(source == Source::from(address(other)), one == other);
        let prefix = Source::from(address(one & 0xffff_ff00));
        prop_assert_eq!(source.prefix(false), prefix);
    }

    #[test]
    fn the_address_names_the_source(v4: u32, v6: u128) {
        let source = Source::from_ipv4(v4);
        prop_assert_eq!(Source::from(source.address()), source);
        let source = Source::from(IpAddr::V6(Ipv6Addr::from_bits(v6 | (1 << 127))));
        prop_assert_eq!(Source::from(source.address()), source);
    }
}

#[test]
fn mapped_is_ipv4_and_reserved_is_one() {
    let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    assert_eq!(Source::from(mapped), Source::from_ipv4(0xc000_0207));
    assert_eq!(
        Source::from_ipv6(0, 1),
        Source::from_ipv6(1 << 32 | 0xc000_0207, 2)
    );
}
