//! The allow and deny lists in the kernel: two sets of maps, of which the configuration
//! chooses one, so that no packet is judged by half a list.

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{
        MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
    sys::SyscallError,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nomail_common::abi::{self, CONFIGS, MAX_BANS, MAX_LIST_PREFIXES};

use super::{error::BpfError, object::take_map};

/// The allow and deny lists: networks without host bits, sorted, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Sources that are exempt from the deny list and from the buckets.
    pub allow: Arc<[IpNet]>,
    /// Sources whose SYNs are dropped.
    pub deny: Arc<[IpNet]>,
}

/// The maps of one set.
struct Set {
    allow: Pair,
    deny: Pair,
    /// The content of the maps, so that the next time only differences are written: filling a
    /// map of 100,000 prefixes takes long. None: not known, because the maps may be an earlier
    /// agent's, or after an error.
    held: Option<Arc<Lists>>,
}

/// One list in the kernel.
struct Pair {
    ipv4: LpmTrie<MapData, [u8; 4], u32>,
    ipv6: LpmTrie<MapData, [u8; 16], u32>,
}

/// The prefixes of `these` that `others` does not have. Both are sorted.
fn missing<'a>(these: &'a [IpNet], others: &'a [IpNet]) -> impl Iterator<Item = &'a IpNet> {
    let mut others = others.iter().peekable();
    these.iter().filter(move |prefix| {
        while others.next_if(|other| other < prefix).is_some() {}
        others.peek() != Some(prefix)
    })
}

pub(super) struct ListMaps([Set; CONFIGS as usize]);

impl ListMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let mut set = |index: usize| {
            Ok::<_, BpfError>(Set {
                allow: Pair {
                    ipv4: take_map(ebpf, abi::ALLOW_IPV4_MAPS[index])?.try_into()?,
                    ipv6: take_map(ebpf, abi::ALLOW_IPV6_MAPS[index])?.try_into()?,
                },
                deny: Pair {
                    ipv4: take_map(ebpf, abi::DENY_IPV4_MAPS[index])?.try_into()?,
                    ipv6: take_map(ebpf, abi::DENY_IPV6_MAPS[index])?.try_into()?,
                },
                held: None,
            })
        };
        Ok(Self([set(0)?, set(1)?]))
    }

    /// Replaces a set that is not in use by `lists`. Returns [`abi::Config::lists`].
    pub(super) fn write(&mut self, set: u32, lists: &Arc<Lists>) -> Result<u32, BpfError> {
        for (list, max) in [
            (&lists.allow, MAX_LIST_PREFIXES),
            (&lists.deny, MAX_LIST_PREFIXES + MAX_BANS),
        ] {
            if list.len() > max as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
        }
        debug_assert!(lists.allow.is_sorted() && lists.deny.is_sorted());
        let set = &mut self.0[set as usize];
        let held = match set.held.take() {
            Some(held) => held,
            None => {
                set.allow.clear()?;
                set.deny.clear()?;
                Arc::default()
            }
        };
        // Removals first, which make room.
        for prefix in missing(&held.allow, &lists.allow) {
            set.allow.remove(prefix)?;
        }
        for prefix in missing(&held.deny, &lists.deny) {
            set.deny.remove(prefix)?;
        }
        for prefix in missing(&lists.allow, &held.allow) {
            set.allow.insert(prefix)?;
        }
        for prefix in missing(&lists.deny, &held.deny) {
            set.deny.insert(prefix)?;
        }
        set.held = Some(Arc::clone(lists));
        let allowed = lists.allow.iter().map(allow_bit);
        let bits = allowed.chain(lists.deny.iter().map(deny_bit));
        Ok(bits.fold(0, |bits, bit| bits | bit))
    }
}

impl Pair {
    fn insert(&mut self, prefix: &IpNet) -> Result<(), MapError> {
        match prefix {
            IpNet::V4(network) => self.ipv4.insert(&key_of_ipv4(network), 0, 0),
            IpNet::V6(network) => self.ipv6.insert(&key_of_ipv6(network), 0, 0),
        }
    }

    /// Removes a prefix, if it is in the list.
    fn remove(&mut self, prefix: &IpNet) -> Result<(), MapError> {
        let removed = match prefix {
            IpNet::V4(network) => self.ipv4.remove(&key_of_ipv4(network)),
            IpNet::V6(network) => self.ipv6.remove(&key_of_ipv6(network)),
        };
        match removed {
            Err(MapError::SyscallError(SyscallError { io_error, .. }))
                if io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            removed => removed,
        }
    }

    fn clear(&mut self) -> Result<(), BpfError> {
        clear(&mut self.ipv4)?;
        clear(&mut self.ipv6)
    }
}

const fn allow_bit(prefix: &IpNet) -> u32 {
    match prefix {
        IpNet::V4(_) => abi::LIST_ALLOW_IPV4,
        IpNet::V6(_) => abi::LIST_ALLOW_IPV6,
    }
}

const fn deny_bit(prefix: &IpNet) -> u32 {
    match prefix {
        IpNet::V4(_) => abi::LIST_DENY_IPV4,
        IpNet::V6(_) => abi::LIST_DENY_IPV6,
    }
}

fn key_of_ipv4(network: &Ipv4Net) -> Key<[u8; 4]> {
    Key::new(u32::from(network.prefix_len()), network.network().octets())
}

fn key_of_ipv6(network: &Ipv6Net) -> Key<[u8; 16]> {
    Key::new(u32::from(network.prefix_len()), network.network().octets())
}

fn clear<K: aya::Pod>(trie: &mut LpmTrie<MapData, K, u32>) -> Result<(), BpfError> {
    let keys = trie.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        trie.remove(&key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn missing_is_the_difference_of_sets(
            these in prop::collection::btree_set(0..40u32, 0..20),
            others in prop::collection::btree_set(0..40u32, 0..20),
        ) {
            let prefixes = |numbers: &std::collections::BTreeSet<u32>| -> Vec<IpNet> {
                let addresses = numbers.iter().map(|number| std::net::Ipv4Addr::from(*number));
                addresses.map(|address| Ipv4Net::from(address).into()).collect()
            };
            let expected = &these - &others;
            let (these, others) = (prefixes(&these), prefixes(&others));
            let found: Vec<_> = missing(&these, &others).copied().collect();
            prop_assert_eq!(found, prefixes(&expected));
        }
    }
}
