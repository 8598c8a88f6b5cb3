//! What the benchmarks of the XDP program have in common.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};
use nomail_agent::guard::{Lists, Policy, Rate};
use nomail_tests::program::guarding;

/// More than a benchmark sends.
pub const NO_BOUND: Rate = Rate {
    rate: 1_000_000,
    burst: 100_000_000,
};

/// A policy for 192.0.2.1:25 with this cap.
pub fn policy(cap: Rate) -> Policy {
    Policy {
        cap: Some(cap),
        ..guarding(&["192.0.2.1:25"])
    }
}

/// A deny list of random addresses of 10.0.0.0/8.
///
/// # Panics
/// Never.
pub fn deny(count: usize) -> Arc<Lists> {
    let mut state = 1u32;
    let mut deny = BTreeSet::new();
    while deny.len() < count {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let address = Ipv4Addr::from_bits(0x0a00_0000 | state >> 8);
        deny.insert(IpNet::V4(Ipv4Net::new(address, 32).expect("a length")));
    }
    Arc::new(Lists {
        deny: deny.into_iter().collect(),
        ..Lists::default()
    })
}
