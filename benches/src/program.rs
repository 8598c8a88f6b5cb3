//! What the benchmarks of the XDP program have in common.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nomail_agent::guard::{Lists, Policy, Rate};
use nomail_tests::program::guarding;

/// More than a benchmark sends.
pub const NO_BOUND: Rate = Rate {
    rate: 1_000_000,
    burst: 100_000_000,
};

/// A policy for port 25 of 192.0.2.1 and 2001:db8:f::1, with this cap.
pub fn policy(cap: Rate) -> Policy {
    Policy {
        cap: Some(cap),
        ..guarding(&["192.0.2.1:25", "[2001:db8:f::1]:25"])
    }
}

/// A deny list of random addresses of 10.0.0.0/8, or of /64s of 2001:db8::/40.
///
/// # Panics
/// Never.
pub fn deny(count: usize, ipv6: bool) -> Arc<Lists> {
    let mut state = 1u32;
    let mut deny = BTreeSet::new();
    while deny.len() < count {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = state >> 8;
        deny.insert(if ipv6 {
            let address = 0x2001_0db8_0000_0000 | u128::from(number);
            IpNet::V6(Ipv6Net::new_assert((address << 64).into(), 64))
        } else {
            IpNet::V4(Ipv4Net::new_assert((0x0a00_0000 | number).into(), 32))
        });
    }
    Arc::new(Lists {
        deny: deny.into_iter().collect(),
        ..Lists::default()
    })
}
