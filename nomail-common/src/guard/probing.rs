//! Open-addressed tables of addresses: written by the agent, looked up by XDP with a
//! fixed number of probes.

use crate::wire::packet::Address;

/// Consecutive slots where an entry may be.
pub const PROBES: usize = 4;

/// An entry of a table.
pub trait TableEntry: Copy + PartialEq {
    /// A free slot.
    const FREE: Self;
    /// The key that it is found by.
    fn key(&self) -> (Address, u16);
}

/// An own address, with port 0. All zeros, which is `::`, means free.
impl TableEntry for Address {
    const FREE: Self = Self { high: 0, low: 0 };

    fn key(&self) -> (Address, u16) {
        (*self, 0)
    }
}

/// The first slot of a key in a table of `slots`, a power of two: the top bits of a product
/// with an odd `seed`.
#[inline(always)]
pub const fn first_slot(seed: u64, address: Address, port: u16, slots: usize) -> usize {
    let mixed = (address.high ^ port as u64)
        .wrapping_mul(seed)
        .wrapping_add(address.low)
        .wrapping_mul(seed);
    (mixed >> (64 - slots.trailing_zeros())) as usize
}

/// Fills a table, trying seeds until each entry is found within [`PROBES`] slots. Returns the
/// seed, or none, and an empty table, if no seed fits.
///
/// An entry that is further from its first slot than another one takes that one's slot
/// (Robin Hood hashing). That keeps the longest distance as short as any order does, and so
/// needs few seeds.
pub fn fill<P: TableEntry>(
    table: &mut [P],
    entries: &[P],
    seeds: impl Iterator<Item = u64>,
) -> Option<u64> {
    for seed in seeds {
        let seed = seed | 1;
        table.fill(P::FREE);
        if entries.iter().all(|entry| insert(table, seed, *entry)) {
            return Some(seed);
        }
    }
    table.fill(P::FREE);
    None
}

fn insert<P: TableEntry>(table: &mut [P], seed: u64, mut entry: P) -> bool {
    let slots = table.len();
    let first = |entry: &P| {
        let (address, port) = entry.key();
        first_slot(seed, address, port, slots)
    };
    let mut at = first(&entry);
    let mut distance = 0;
    while distance < PROBES {
        let slot = &mut table[at % slots];
        if *slot == P::FREE || *slot == entry {
            *slot = entry;
            return true;
        }
        let other = (at + slots - first(slot)) % slots;
        if other < distance {
            core::mem::swap(slot, &mut entry);
            distance = other;
        }
        at = (at + 1) % slots;
        distance += 1;
    }
    false
}

#[cfg(test)]
mod tests;
