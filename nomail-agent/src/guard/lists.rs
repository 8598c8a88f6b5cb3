//! The allow and deny lists in the kernel: two sets of maps, of which the configuration
//! chooses one, so that no packet is judged by half a list. Bans beside them are added and
//! removed prefix by prefix in the set in use.

use std::{collections::HashSet, sync::Arc};

use aya::{
    Ebpf,
    maps::{
        MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
    sys::SyscallError,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nomail_common::abi::{self, CONFIGS, MAX_LIST_PREFIXES};

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
    held: Option<Held>,
}

/// One list in the kernel.
struct Pair {
    ipv4: LpmTrie<MapData, [u8; 4], u32>,
    ipv6: LpmTrie<MapData, [u8; 16], u32>,
}

#[derive(Default)]
struct Held {
    lists: Arc<Lists>,
    banned: HashSet<IpNet>,
}

impl Held {
    fn has_allowed(&self, prefix: &IpNet) -> bool {
        self.lists.allow.binary_search(prefix).is_ok()
    }

    fn denied(&self) -> impl Iterator<Item = &IpNet> {
        self.lists.deny.iter().chain(&self.banned)
    }

    fn has_denied(&self, prefix: &IpNet) -> bool {
        self.lists.deny.binary_search(prefix).is_ok() || self.banned.contains(prefix)
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
                held: None,
            })
        };
        Ok(Self([set(0)?, set(1)?]))
    }

    /// Replaces a set that is not in use by `lists` and `banned`. Returns
    /// [`abi::Config::lists`].
    pub(super) fn write(
        &mut self,
        set: u32,
        lists: &Arc<Lists>,
        banned: &HashSet<IpNet>,
    ) -> Result<u32, BpfError> {
        for list in [&lists.allow, &lists.deny] {
            if list.len() > MAX_LIST_PREFIXES as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
        }
        debug_assert!(lists.allow.is_sorted() && lists.deny.is_sorted());
        let set = &mut self.0[set as usize];
        let wanted = Held {
            lists: Arc::clone(lists),
            banned: banned.clone(),
        };
        let held = match set.held.take() {
            Some(held) => held,
            None => {
                set.allow.clear()?;
                set.deny.clear()?;
                Held::default()
            }
        };
        // Removals first, which make room.
        for prefix in held.lists.allow.iter() {
            if !wanted.has_allowed(prefix) {
                set.allow.remove(prefix)?;
            }
        }
        for prefix in held.denied() {
            if !wanted.has_denied(prefix) {
                set.deny.remove(prefix)?;
            }
        }
        let mut bits = 0;
        for prefix in lists.allow.iter() {
            bits |= allow_bit(prefix);
            if !held.has_allowed(prefix) {
                set.allow.insert(prefix)?;
            }
        }
        for prefix in wanted.denied() {
            bits |= deny_bit(prefix);
            if !held.has_denied(prefix) {
                set.deny.insert(prefix)?;
            }
        }
        set.held = Some(wanted);
        Ok(bits)
    }

    /// Denies more prefixes in a set that is in use. Returns the bits of
    /// [`abi::Config::lists`] that this needs.
    pub(super) fn ban<'a>(
        &mut self,
        set: u32,
        prefixes: impl IntoIterator<Item = &'a IpNet>,
    ) -> Result<u32, BpfError> {
        let set = &mut self.0[set as usize];
        let mut bits = 0;
        for prefix in prefixes {
            // Before the insertion, which may fail: removing a missing prefix is harmless.
            if let Some(held) = &mut set.held {
                held.banned.insert(*prefix);
            }
            set.deny.insert(prefix)?;
            bits |= deny_bit(prefix);
        }
        Ok(bits)
    }

    /// Undoes [`Self::ban`], except for prefixes that are also `listed`.
    pub(super) fn unban(
        &mut self,
        set: u32,
        prefixes: &[IpNet],
        listed: &[IpNet],
    ) -> Result<(), BpfError> {
        let set = &mut self.0[set as usize];
        for prefix in prefixes {
            if listed.binary_search(prefix).is_err() {
                set.deny.remove(prefix)?;
            }
            if let Some(held) = &mut set.held {
                held.banned.remove(prefix);
            }
        }
        Ok(())
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
