//! Looking up the allow and deny lists, out of the way where there are none.

use nomail_common::{
    guard::lists::{self, ListRoot, PAGE_WORDS, Words},
    verifier::{forget, opaque},
    wire::packet::{Address, IPV6},
};

use crate::{
    maps::{self, WordPages},
    trace::trace,
};

const SET_SHIFT: u32 = 8;
const FLAGS_SHIFT: u32 = 16;

/// Whether a peer is on a list. `list` is its root for IPv4, `flags` are those of the segment,
/// `filled` and `set` are [`Config::lists`](nomail_common::abi::Config::lists) and
/// [`Config::list_set`](nomail_common::abi::Config::list_set).
#[inline(always)]
pub(crate) fn is_listed(peer: Address, flags: u8, list: ListRoot, filled: u32, set: u32) -> bool {
    let which = u32::from(flags) << FLAGS_SHIFT | set << SET_SHIFT | list as u32;
    listed(peer.high, peer.low, filled, which) != 0
}

/// See [`is_listed`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn listed(high: u64, low: u64, filled: u32, which: u32) -> u32 {
    let ipv6 = u64::from(which >> FLAGS_SHIFT & u32::from(IPV6) != 0);
    let root = u64::from(which & ListRoot::DenyIpv4 as u32) | ipv6;
    if filled >> root & 1 == 0 {
        return 0;
    }
    let Some(words) = SetWords::of(which >> SET_SHIFT) else {
        return 0;
    };
    // Without a branch, which would double the verifier's ways.
    let all = opaque(ipv6.wrapping_neg());
    let address = Address {
        high: high & all | low << 32 & !all,
        low: low & all,
    };
    let is_listed = u32::from(lists::is_listed(&words, forget(root, low), address));
    trace!(trace_list, which & ListRoot::DenyIpv4 as u32 | is_listed);
    is_listed
}

/// See [`lists::is_listed_behind`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn listed_behind(high: u64, low: u64, gate: u64, set: u32) -> u32 {
    let Some(words) = SetWords::of(set) else {
        return 0;
    };
    let address = Address { high, low };
    u32::from(lists::is_listed_behind(&words, gate, address))
}

/// The words of a set of lists.
struct SetWords {
    list: &'static WordPages,
    set: u32,
}

impl SetWords {
    #[inline(always)]
    fn of(set: u32) -> Option<Self> {
        maps::lists(set).map(|list| Self { list, set })
    }
}

impl Words for SetWords {
    #[inline(always)]
    fn word(&self, index: u64) -> Option<u64> {
        let page = self.list.get((index / PAGE_WORDS as u64) as u32)?;
        Some(page[index as usize % PAGE_WORDS])
    }

    #[inline(always)]
    fn is_listed_behind(&self, gate: u64, Address { high, low }: Address) -> bool {
        listed_behind(high, low, gate, self.set) != 0
    }
}
