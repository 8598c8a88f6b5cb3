//! The allow and deny lists in the kernel: two sets, of which the configuration
//! chooses one, so that no packet is judged by half a list. And what is denied
//! beside them, which comes and goes prefix by prefix in the set in use.

use std::collections::HashSet;

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

use super::{BpfError, take};

/// Who is let through, and who is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Exempt from the deny list and from the buckets.
    pub allow: Vec<IpNet>,
    /// Dropped. Sorted.
    pub deny: Vec<IpNet>,
}

/// The maps of one set.
struct Set {
    allow_ipv4: LpmTrie<MapData, [u8; 4], u32>,
    allow_ipv6: LpmTrie<MapData, [u8; 16], u32>,
    deny_ipv4: LpmTrie<MapData, [u8; 4], u32>,
    deny_ipv6: LpmTrie<MapData, [u8; 16], u32>,
}

pub(super) struct ListMaps([Set; CONFIGS as usize]);

impl ListMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        let mut set = |index: usize| {
            Ok::<_, BpfError>(Set {
                allow_ipv4: take(ebpf, abi::ALLOW_IPV4_MAPS[index])?.try_into()?,
                allow_ipv6: take(ebpf, abi::ALLOW_IPV6_MAPS[index])?.try_into()?,
                deny_ipv4: take(ebpf, abi::DENY_IPV4_MAPS[index])?.try_into()?,
                deny_ipv6: take(ebpf, abi::DENY_IPV6_MAPS[index])?.try_into()?,
            })
        };
        Ok(Self([set(0)?, set(1)?]))
    }

    /// Replaces a set that is not in use by `lists` and what else is denied. Gives
    /// [`abi::Config::lists`].
    pub(super) fn write(
        &mut self,
        set: u32,
        lists: &Lists,
        banned: &HashSet<IpNet>,
    ) -> Result<u32, BpfError> {
        for list in [&lists.allow, &lists.deny] {
            if list.len() > MAX_LIST_PREFIXES as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
        }
        let maps = &mut self.0[set as usize];
        let mut bits = 0;
        for (list, ipv4, ipv6, bit_ipv4, bit_ipv6) in [
            (
                &lists.allow,
                &mut maps.allow_ipv4,
                &mut maps.allow_ipv6,
                abi::LIST_ALLOW_IPV4,
                abi::LIST_ALLOW_IPV6,
            ),
            (
                &lists.deny,
                &mut maps.deny_ipv4,
                &mut maps.deny_ipv6,
                abi::LIST_DENY_IPV4,
                abi::LIST_DENY_IPV6,
            ),
        ] {
            clear(ipv4)?;
            clear(ipv6)?;
            for network in list {
                match network {
                    IpNet::V4(network) => {
                        ipv4.insert(&key_of_ipv4(network), 0, 0)?;
                        bits |= bit_ipv4;
                    }
                    IpNet::V6(network) => {
                        ipv6.insert(&key_of_ipv6(network), 0, 0)?;
                        bits |= bit_ipv6;
                    }
                }
            }
        }
        Ok(bits | self.ban(set, banned)?)
    }

    /// Denies more in a set that is in use. Gives the bits of [`abi::Config::lists`]
    /// that it takes.
    pub(super) fn ban<'a>(
        &mut self,
        set: u32,
        prefixes: impl IntoIterator<Item = &'a IpNet>,
    ) -> Result<u32, BpfError> {
        let set = &mut self.0[set as usize];
        let mut bits = 0;
        for prefix in prefixes {
            match prefix {
                IpNet::V4(network) => {
                    set.deny_ipv4.insert(&key_of_ipv4(network), 0, 0)?;
                    bits |= abi::LIST_DENY_IPV4;
                }
                IpNet::V6(network) => {
                    set.deny_ipv6.insert(&key_of_ipv6(network), 0, 0)?;
                    bits |= abi::LIST_DENY_IPV6;
                }
            }
        }
        Ok(bits)
    }

    /// Takes back what [`Self::ban`] denied, but for what is `listed`, too.
    pub(super) fn unban(
        &mut self,
        set: u32,
        prefixes: &[IpNet],
        listed: &[IpNet],
    ) -> Result<(), BpfError> {
        let set = &mut self.0[set as usize];
        for prefix in prefixes {
            if listed.binary_search(prefix).is_ok() {
                continue;
            }
            let removed = match prefix {
                IpNet::V4(network) => set.deny_ipv4.remove(&key_of_ipv4(network)),
                IpNet::V6(network) => set.deny_ipv6.remove(&key_of_ipv6(network)),
            };
            match removed {
                Err(MapError::SyscallError(SyscallError { io_error, .. }))
                    if io_error.raw_os_error() == Some(libc::ENOENT) => {}
                removed => removed?,
            }
        }
        Ok(())
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
