//! Open-addressed tables of addresses: written by the agent, looked up by XDP with a
//! fixed number of probes.

use crate::{abi::Guarded, wire::packet::Address};

/// Consecutive places where an entry may be.
pub const PROBES: usize = 4;

/// An entry of a table.
pub trait Place: Copy + PartialEq {
    /// A free place.
    const FREE: Self;
    /// What it is found by.
    fn key(&self) -> (Address, u16);
}

impl Place for Guarded {
    const FREE: Self = Self {
        address: Address { high: 0, low: 0 },
        port: 0,
        vlan: 0,
        number: 0,
    };

    fn key(&self) -> (Address, u16) {
        (self.address, self.port)
    }
}

/// An own address. All zeros, which is `::`, means free.
impl Place for Address {
    const FREE: Self = Self { high: 0, low: 0 };

    fn key(&self) -> (Address, u16) {
        (*self, 0)
    }
}

/// The first place of a key in a table of `places`, a power of two: the top bits of a
/// product with an odd `seed`.
#[inline(always)]
pub const fn first_place(seed: u64, address: Address, port: u16, places: usize) -> usize {
    let mixed = (address.high ^ port as u64)
        .wrapping_mul(seed)
        .wrapping_add(address.low)
        .wrapping_mul(seed);
    (mixed >> (64 - places.trailing_zeros())) as usize
}

/// Fills a table, trying seeds until each entry is found within [`PROBES`] places; the
/// seed, or nothing and an empty table if no seed fits.
///
/// An entry that is further from its first place than another one takes that one's
/// place (Robin Hood hashing). That keeps the longest distance as short as any order
/// does, and so needs few seeds.
pub fn fill<P: Place>(
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

fn insert<P: Place>(table: &mut [P], seed: u64, mut entry: P) -> bool {
    let places = table.len();
    let first = |entry: &P| {
        let (address, port) = entry.key();
        first_place(seed, address, port, places)
    };
    let mut at = first(&entry);
    let mut distance = 0;
    while distance < PROBES {
        let place = &mut table[at % places];
        if *place == P::FREE || *place == entry {
            *place = entry;
            return true;
        }
        let theirs = (at + places - first(place)) % places;
        if theirs < distance {
            core::mem::swap(place, &mut entry);
            distance = theirs;
        }
        at = (at + 1) % places;
        distance += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 4096;

    /// Seeds that were needed to fill a quarter of the places.
    fn needed(address: impl Fn(u64) -> Address, first_seed: u64) -> usize {
        let entries: Vec<_> = (1..=PLACES as u64 / 4).map(address).collect();
        let mut table = [Address::FREE; PLACES];
        let mut seed = first_seed;
        let mut tried = 0;
        let seeds = std::iter::repeat_with(|| {
            tried += 1;
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        let seed = fill(&mut table, &entries, seeds.take(100)).expect("some seed fits");
        for entry in entries {
            let first = first_place(seed, entry, 0, PLACES);
            assert!((0..PROBES).any(|probe| table[(first + probe) % PLACES] == entry));
        }
        tried
    }

    #[test]
    fn a_quarter_of_the_places_needs_few_seeds() {
        let ipv4 = |step: u32| move |n| Address::from_ipv4(0x0a00_0000 + n as u32 * step);
        let ipv6 = |step: u64| {
            move |n| Address {
                high: 0x2001_0db8_0000_0000 + n / 300,
                low: n * step,
            }
        };
        let most = (0..50u64).map(|stream| {
            let seed = stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let of = [
                needed(ipv4(1), seed),
                needed(ipv4(256), seed),
                needed(ipv4(65_537), seed),
                needed(ipv6(1), seed),
                needed(ipv6(1 << 40), seed),
            ];
            of.into_iter().max().unwrap_or_default()
        });
        let most = most.max().unwrap_or_default();
        assert!(most <= 10, "{most} seeds");
    }

    #[test]
    fn what_does_not_fit_leaves_an_empty_table() {
        let mut table = [Address::FREE; 4];
        let address = |n: u32| Address::from_ipv4(n + 1);
        let four: Vec<_> = (0..4).map(address).collect();
        assert!(fill(&mut table, &four, 1..100).is_some());
        let five: Vec<_> = (0..5).map(address).collect();
        assert_eq!(fill(&mut table, &five, 1..100), None);
        assert_eq!(table, [Address::FREE; 4]);
    }
}
