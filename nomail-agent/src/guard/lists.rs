//! The allow and deny lists in the kernel: two sets of maps, of which the configuration
//! chooses one, so that no packet is judged by half a list. The other is written in slices,
//! between which the caller does all else.

use std::{mem, sync::Arc};

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

/// Most maps' entries that a slice changes: a few milliseconds.
const SLICE: usize = 1024;

/// The maps of one set.
struct Set {
    allow: Pair,
    deny: Pair,
    content: Content,
}

/// The content of the maps, so that only differences are written: filling a map of 100,000
/// prefixes takes long.
enum Content {
    /// It may be an earlier agent's, or was not completed.
    Unknown,
    Complete(Arc<Lists>),
    Incomplete(Changes),
}

/// The changes from one content to another that are still to be made: removals first, which
/// make room.
struct Changes {
    lists: Arc<Lists>,
    allow: [Missing; 2],
    deny: [Missing; 2],
}

#[derive(Clone, Copy)]
enum Change {
    Remove(IpNet),
    Insert(IpNet),
}

/// One list in the kernel.
struct Pair {
    ipv4: LpmTrie<MapData, [u8; 4], u32>,
    ipv6: LpmTrie<MapData, [u8; 16], u32>,
}

/// The prefixes of `these` that `others` does not have. Both are sorted.
struct Missing {
    these: Arc<[IpNet]>,
    others: Arc<[IpNet]>,
    this: usize,
    other: usize,
}

impl Missing {
    fn new(these: &Arc<[IpNet]>, others: &Arc<[IpNet]>) -> Self {
        Self {
            these: Arc::clone(these),
            others: Arc::clone(others),
            this: 0,
            other: 0,
        }
    }
}

impl Iterator for Missing {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        loop {
            let this = *self.these.get(self.this)?;
            match self.others.get(self.other) {
                Some(other) if *other < this => self.other += 1,
                Some(other) if *other == this => self.this += 1,
                _ => {
                    self.this += 1;
                    return Some(this);
                }
            }
        }
    }
}

impl Changes {
    fn new(held: &Lists, lists: &Arc<Lists>) -> Self {
        let between = |held, wanted| [Missing::new(held, wanted), Missing::new(wanted, held)];
        Self {
            allow: between(&held.allow, &lists.allow),
            deny: between(&held.deny, &lists.deny),
            lists: Arc::clone(lists),
        }
    }

    fn of([removals, insertions]: &mut [Missing; 2]) -> Option<Change> {
        let removal = removals.next().map(Change::Remove);
        removal.or_else(|| insertions.next().map(Change::Insert))
    }
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
                content: Content::Unknown,
            })
        };
        Ok(Self([set(0)?, set(1)?]))
    }

    /// Replaces a set that is not in use by `lists`. Returns [`abi::Config::lists`].
    pub(super) fn write(&mut self, set: u32, lists: &Arc<Lists>) -> Result<u32, BpfError> {
        loop {
            if let Some(bits) = self.write_slice(set, lists)? {
                return Ok(bits);
            }
        }
    }

    /// Writes a slice of what [`ListMaps::write`] does; none until the last one.
    pub(super) fn write_slice(
        &mut self,
        set: u32,
        lists: &Arc<Lists>,
    ) -> Result<Option<u32>, BpfError> {
        for (list, max) in [
            (&lists.allow, MAX_LIST_PREFIXES),
            (&lists.deny, MAX_LIST_PREFIXES + MAX_BANS),
        ] {
            if list.len() > max as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
        }
        if !self.0[set as usize].write_slice(lists)? {
            return Ok(None);
        }
        let allowed = lists.allow.iter().map(allow_bit);
        let bits = allowed.chain(lists.deny.iter().map(deny_bit));
        Ok(Some(bits.fold(0, |bits, bit| bits | bit)))
    }
}

impl Set {
    /// Returns whether the set has all of `lists` and nothing else. After an error its content
    /// is unknown.
    fn write_slice(&mut self, lists: &Arc<Lists>) -> Result<bool, BpfError> {
        let mut changes = match mem::replace(&mut self.content, Content::Unknown) {
            Content::Incomplete(changes)
                if Arc::ptr_eq(&changes.lists, lists) || changes.lists == *lists =>
            {
                changes
            }
            Content::Complete(held) => Changes::new(&held, lists),
            // Also if it is a part of other lists.
            Content::Unknown | Content::Incomplete(_) => {
                if !self.allow.clear_slice()? || !self.deny.clear_slice()? {
                    return Ok(false);
                }
                Changes::new(&Lists::default(), lists)
            }
        };
        for _ in 0..SLICE {
            let (pair, change) = if let Some(change) = Changes::of(&mut changes.allow) {
                (&mut self.allow, change)
            } else if let Some(change) = Changes::of(&mut changes.deny) {
                (&mut self.deny, change)
            } else {
                self.content = Content::Complete(Arc::clone(lists));
                return Ok(true);
            };
            match change {
                Change::Remove(prefix) => pair.remove(&prefix)?,
                Change::Insert(prefix) => pair.insert(&prefix)?,
            }
        }
        self.content = Content::Incomplete(changes);
        Ok(false)
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

    /// Removes a slice of all prefixes; whether there are none left.
    fn clear_slice(&mut self) -> Result<bool, BpfError> {
        Ok(clear_slice(&mut self.ipv4)? && clear_slice(&mut self.ipv6)?)
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

fn clear_slice<K: aya::Pod>(trie: &mut LpmTrie<MapData, K, u32>) -> Result<bool, BpfError> {
    let keys = trie.keys().take(SLICE).collect::<Result<Vec<_>, _>>()?;
    for key in &keys {
        trie.remove(key)?;
    }
    Ok(keys.len() < SLICE)
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
            let prefixes = |numbers: &std::collections::BTreeSet<u32>| -> Arc<[IpNet]> {
                let addresses = numbers.iter().map(|number| std::net::Ipv4Addr::from(*number));
                addresses.map(|address| Ipv4Net::from(address).into()).collect()
            };
            let expected = &these - &others;
            let (these, others) = (prefixes(&these), prefixes(&others));
            let found: Arc<[_]> = Missing::new(&these, &others).collect();
            prop_assert_eq!(found, prefixes(&expected));
        }
    }
}
