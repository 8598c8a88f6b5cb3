//! The key under which a sender is counted: one IPv4 address, or one IPv6 /64.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A source in 64 bits, exact.
///
/// IPv6: the upper 64 bits of the address. IPv4: the address, with
/// [`IPV4_MARK`] set. The two cannot meet, because all of `::/8`, where no
/// sender lives (RFC 4291 section 2.4), is the one source [`RESERVED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub u64);

const IPV4_MARK: u64 = 1 << 32;
const RESERVED: u64 = 0x00ff_ffff_ffff_ffff;

impl Source {
    /// From an IPv4 address in host byte order.
    #[inline(always)]
    pub const fn from_ipv4(address: u32) -> Self {
        Self(IPV4_MARK | address as u64)
    }

    /// From the upper half of an IPv6 address in host byte order.
    #[inline(always)]
    pub const fn from_ipv6(high: u64) -> Self {
        if high >> 56 == 0 {
            Self(RESERVED)
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
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.0) << 64))
        }
    }
}

impl From<IpAddr> for Source {
    /// An IPv4-mapped IPv6 address is the IPv4 source, as it is for a socket.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::from_ipv4(address.to_bits()),
            IpAddr::V6(address) => Self::from_ipv6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ipv4_and_ipv6_never_share_a_key(v4: u32, high: u64) {
            prop_assert_ne!(Source::from_ipv4(v4), Source::from_ipv6(high));
            prop_assert_ne!(Source::from_ipv6(high).0, 0);
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
            Source::from_ipv6(0),
            Source::from_ipv6(1 << 32 | 0xc000_0207)
        );
    }
}
