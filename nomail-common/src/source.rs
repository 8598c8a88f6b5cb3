//! The key under which a sender is counted: one IPv4 address, also behind NAT64, or one IPv6
//! /64.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A source in 64 bits, exact.
///
/// IPv6: the upper 64 bits of the address. IPv4: the address, with [`IPV4_MARK`] set. The two
/// cannot meet, because all of `::/8`, which has no senders (RFC 4291 section 2.4), is the one
/// source [`RESERVED`]. The exception is an IPv4 address behind NAT64 (`64:ff9b::/96`, RFC 6052
/// section 2.1): the upper half of that prefix, with the IPv4 address in the lower 32 bits.
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

    /// The key of the IPv4 /24 or IPv6 /48 that the source is in. The lowest bit, which is
    /// free, separates the buckets of proven tuples from the others.
    #[inline(always)]
    pub const fn prefix(self, proven: bool) -> Self {
        let below = if self.0 >> 56 == 0 { 0xff } else { 0xffff };
        Self(self.0 & !below | proven as u64)
    }

    /// The lowest address of the source.
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
mod tests;
