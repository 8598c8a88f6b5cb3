//! The allow and deny lists in the kernel: two sets, of which the configuration
//! chooses one, so that no packet is judged by half a list.

use aya::{
    Ebpf,
    maps::{
        MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::IpNet;
use nomail_common::abi::{self, CONFIGS, MAX_LIST_PREFIXES};

use super::{BpfError, take};

/// Who is let through, and who is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Exempt from the deny list and from the buckets.
    pub allow: Vec<IpNet>,
    /// Dropped.
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

    /// Replaces a set that is not in use. Gives [`abi::Config::lists`].
    pub(super) fn write(&mut self, set: u32, lists: &Lists) -> Result<u32, BpfError> {
        for list in [&lists.allow, &lists.deny] {
            if list.len() > MAX_LIST_PREFIXES as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
        }
        let set = &mut self.0[set as usize];
        let mut bits = 0;
        for (list, ipv4, ipv6, bit_ipv4, bit_ipv6) in [
            (
                &lists.allow,
                &mut set.allow_ipv4,
                &mut set.allow_ipv6,
                abi::LIST_ALLOW_IPV4,
                abi::LIST_ALLOW_IPV6,
            ),
            (
                &lists.deny,
                &mut set.deny_ipv4,
                &mut set.deny_ipv6,
                abi::LIST_DENY_IPV4,
                abi::LIST_DENY_IPV6,
            ),
        ] {
            clear(ipv4)?;
            clear(ipv6)?;
            for network in list {
                match network {
                    IpNet::V4(network) => {
                        let octets = network.network().octets();
                        let key = Key::new(u32::from(network.prefix_len()), octets);
                        ipv4.insert(&key, 0, 0)?;
                        bits |= bit_ipv4;
                    }
                    IpNet::V6(network) => {
                        let octets = network.network().octets();
                        let key = Key::new(u32::from(network.prefix_len()), octets);
                        ipv6.insert(&key, 0, 0)?;
                        bits |= bit_ipv6;
                    }
                }
            }
        }
        Ok(bits)
    }
}

fn clear<K: aya::Pod>(trie: &mut LpmTrie<MapData, K, u32>) -> Result<(), BpfError> {
    let keys = trie.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        trie.remove(&key)?;
    }
    Ok(())
}
