//! The key under which a sender is counted: one IPv4 address, or one IPv6 /64. Behind
//! NAT64 each IPv4 address is one.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A source in 64 bits, exact.
///
/// IPv6: the upper 64 bits of the address. IPv4: the address, with
/// [`IPV4_MARK`] set. The two cannot meet, because all of `::/8`, where no
/// sender lives (RFC 4291 section 2.4), is the one source [`RESERVED`]. In there, an
/// IPv4 address behind NAT64 (`64:ff9b::/96`, RFC 6052 section 2.1) has it beside the
/// upper half of that prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub u64);

const IPV4_MARK: u64 = 1 << 32;
const RESERVED: u64 = 0x00ff_ffff_ffff_ffff;
/// The upper half of `64:ff9b::/96`.
const NAT64: u64 = 0x0064_ff9b_0000_0000;

impl Source {
    /// From an IPv4 address in host byte order.
    #[inline(always)]
    pub const fn from_ipv4(address: u32) -> Self {
        Self(IPV4_MARK | address as u64)
    }

    /// From the halves of an IPv6 address in host byte order.
    #[inline(always)]
    pub const fn from_ipv6(high: u64, low: u64) -> Self {
        if high >> 56 == 0 {
            if is_nat64(high, low) && crate::Mechanism::Nat64Sources.is_on() {
                Self(NAT64 | low)
            } else {
                Self(RESERVED)
            }
        } else {
            Self(high)
        }
    }

    /// The key of the IPv4 /24 or IPv6 /48 that the source is in. The bits below
    /// it are free: the lowest tells the buckets of proven tuples from others.
    #[inline(always)]
    pub const fn prefix(self, proven: bool) -> Self {
        let below = if self.0 >> 56 == 0 { 0xff } else { 0xffff };
        Self(self.0 & !below | proven as u64)
    }

    /// The lowest address of the source, as people write it.
    pub fn address(self) -> IpAddr {
        if self.0 >> 32 == 1 {
            IpAddr::V4(Ipv4Addr::from_bits(self.0 as u32))
        } else if self.0 == RESERVED {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else if self.0 >> 32 == NAT64 >> 32 {
            let low = self.0 & 0xffff_ffff;
            IpAddr::V6(Ipv6Addr::from_bits(
                u128::from(NAT64) << 64 | u128::from(low),
            ))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.0) << 64))
        }
    }
}

/// Whether an IPv6 address is an IPv4 address behind NAT64.
#[inline(always)]
pub(crate) const fn is_nat64(high: u64, low: u64) -> bool {
    high == NAT64 && low >> 32 == 0
}

impl From<IpAddr> for Source {
    /// An IPv4-mapped IPv6 address is the IPv4 source, as it is for a socket.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::from_ipv4(address.to_bits()),
            IpAddr::V6(address) => {
                Self::from_ipv6((address.to_bits() >> 64) as u64, address.to_bits() as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
