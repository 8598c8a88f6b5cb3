//! The networks that peers are grouped by.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An IPv4 /24 or an IPv6 /48: wider than the source of a limit, so that the hosts of one
/// sender count as one.
///
/// The upper 48 bits of an IPv6 address, or the upper 24 of an IPv4 address
/// and [`IPV4_MARK`], which no IPv6 network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SenderNetwork(u64);

const IPV4_MARK: u64 = 1 << 48;

impl SenderNetwork {
    /// Parses a network written exactly as it is displayed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, _) = text.split_once('/')?;
        let network = Self::from(address.parse::<IpAddr>().ok()?);
        (network.to_string() == text).then_some(network)
    }
}

impl From<IpAddr> for SenderNetwork {
    /// An IPv4-mapped IPv6 address counts as the IPv4 address.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4_MARK | u64::from(address.to_bits() >> 8)),
            IpAddr::V6(address) => Self((address.to_bits() >> 80) as u64),
        }
    }
}

impl fmt::Display for SenderNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 & IPV4_MARK == 0 {
            write!(f, "{}/48", Ipv6Addr::from_bits(u128::from(self.0) << 80))
        } else {
            write!(f, "{}/24", Ipv4Addr::from_bits((self.0 as u32) << 8))
        }
    }
}
