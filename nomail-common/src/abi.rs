//! The maps: names, keys, values and bounds. Both halves are built from this
//! file; [`ABI_VERSION`] changes whenever a layout or a meaning here does.

use crate::{limiter::Limit, packet::Address, verdict::Verdict};

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 1;

/// Name of the XDP program, also in the kernel's list of programs.
pub const PROGRAM: &str = "nomail";
/// Name of the program that only returns the clock, see [`crate::limiter`].
pub const CLOCK_PROGRAM: &str = "nomail_clock";

/// `Array<Config>` with [`CONFIGS`] entries: one in use, one to be written next.
pub const CONFIG_MAP: &str = "CONFIG";
/// `Array<u32>` with one entry: the index of the [`CONFIG_MAP`] entry in use.
/// An aligned word, so that a reload is seen as a whole or not at all.
pub const ACTIVE_MAP: &str = "ACTIVE";
/// `PerCpuArray<Counters>`, indexed by the interface's place in
/// [`Config::interfaces`] plus one; entry 0 is for an interface not in there.
pub const COUNTERS_MAP: &str = "COUNTERS";
/// `Array<`[`Line`]`>`, mapped page-aligned so that a line is a cache line.
pub const SOURCES_MAP: &str = "SOURCES";
/// `Array<SourceCarry>`: one for each slot of [`SOURCES_MAP`].
pub const CARRIES_MAP: &str = "CARRIES";

/// Global of the program, patched before load: the guarded ports, in host
/// byte order, 0 where unused. A segment to any other port costs no look-up.
pub const PORTS_GLOBAL: &str = "PORTS";
/// Global of the program, patched before load: the secret of the hash that
/// chooses a source's line.
pub const SEED_GLOBAL: &str = "SEED";

/// Entries of [`CONFIG_MAP`].
pub const CONFIGS: u32 = 2;
/// Most interfaces that one agent guards.
pub const MAX_INTERFACES: usize = 16;
/// Most different ports that one agent listens on.
pub const MAX_PORTS: usize = 4;
/// Places in the table of guarded pairs, a power of two.
pub const GUARDED_PLACES: usize = 1024;
/// Most guarded (address, port) pairs: a quarter of the places, so that a seed
/// with which every pair is found in [`GUARDED_PROBES`] is soon found.
pub const MAX_GUARDED: usize = GUARDED_PLACES / 4;
/// Consecutive places that are looked at for a pair.
pub const GUARDED_PROBES: usize = 4;
/// Slots for sources in one [`Line`].
pub const SLOTS_PER_LINE: usize = 4;
/// Lines in [`SOURCES_MAP`], a power of two: 65,536 sources in 1 MiB, which
/// keeps the table within a second-level cache.
pub const LINES: usize = 16_384;

/// A place in the table of guarded pairs. `port` 0 means free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// The address.
    pub address: Address,
    /// The port, in host byte order.
    pub port: u64,
}

/// What the program is told by the agent. Written as a whole into the entry
/// that is not in use, then made the one in use.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bucket of each source.
    pub limit: Limit,
    /// Not 0: count every verdict, drop nothing.
    pub observe: u64,
    /// Odd multiplier of the hash into `guarded`, see [`guarded_place`].
    pub guarded_seed: u64,
    /// Interface indexes, 0 where unused.
    pub interfaces: [u32; MAX_INTERFACES],
    /// Open-addressed table of the guarded pairs.
    pub guarded: [Guarded; GUARDED_PLACES],
}

impl Config {
    /// A configuration that guards nothing.
    pub const EMPTY: Self = Self {
        limit: Limit::UNLIMITED,
        observe: 0,
        guarded_seed: 1,
        interfaces: [0; MAX_INTERFACES],
        guarded: [Guarded {
            address: Address { high: 0, low: 0 },
            port: 0,
        }; GUARDED_PLACES],
    };

    /// Puts `pairs` into the table, trying seeds from `seeds` until each pair
    /// is found within [`GUARDED_PROBES`] places. False, and the table
    /// unchanged, when there are more than [`MAX_GUARDED`] or no seed fits.
    pub fn set_guarded(
        &mut self,
        pairs: &[(Address, u16)],
        mut seeds: impl Iterator<Item = u64>,
    ) -> bool {
        if pairs.len() > MAX_GUARDED {
            return false;
        }
        seeds.any(|seed| {
            let seed = seed | 1;
            let mut table = Self::EMPTY.guarded;
            let all_placed = pairs.iter().all(|&(address, port)| {
                let first = guarded_place(seed, address, port);
                (0..GUARDED_PROBES).any(|probe| {
                    let place = &mut table[(first + probe) % GUARDED_PLACES];
                    let wanted = Guarded {
                        address,
                        port: u64::from(port),
                    };
                    let free = place.port == 0 || *place == wanted;
                    if free {
                        *place = wanted;
                    }
                    free
                })
            });
            if all_placed {
                self.guarded = table;
                self.guarded_seed = seed;
            }
            all_placed
        })
    }

    /// Whether (address, port) is one of the pairs the agent listens on.
    #[inline(always)]
    pub fn guards(&self, address: Address, port: u16) -> bool {
        let first = guarded_place(self.guarded_seed, address, port);
        for probe in 0..GUARDED_PROBES {
            let place = &self.guarded[(first + probe) % GUARDED_PLACES];
            if place.port == u64::from(port)
                && place.address.high == address.high
                && place.address.low == address.low
            {
                return true;
            }
        }
        false
    }
}

/// First place of a pair in [`Config::guarded`]: the top bits of a product.
#[inline(always)]
pub const fn guarded_place(seed: u64, address: Address, port: u16) -> usize {
    let mixed = (address.high ^ port as u64)
        .wrapping_mul(seed)
        .wrapping_add(address.low)
        .wrapping_mul(seed);
    (mixed >> (64 - GUARDED_PLACES.trailing_zeros())) as usize
}

/// What one CPU counted on one interface. Only ever incremented.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received SYNs by [`Verdict`]; their sum is every SYN received for a
    /// guarded pair.
    pub verdicts: [u64; Verdict::COUNT],
    /// Sources that lost their slot to another.
    pub evictions: u64,
    /// SYNs that passed without a bucket, because other CPUs kept changing
    /// their line; see [`crate::sources`].
    pub contended: u64,
}

/// One set of the store of sources: a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// [`crate::source::Source`] of each slot, or a mark of [`crate::sources`].
    pub keys: [u64; SLOTS_PER_LINE],
    /// [`crate::limiter::Bucket`] of each slot.
    pub buckets: [u64; SLOTS_PER_LINE],
}

/// Counts that ran over in a [`crate::limiter::Bucket`]. They belong to the
/// source named here, which may no longer be the one in the slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCarry {
    /// The source, as in [`Line::keys`].
    pub key: u64,
    /// SYNs admitted.
    pub admitted: u64,
    /// SYNs over the limit.
    pub limited: u64,
}

const _: () = {
    assert!(size_of::<Guarded>() == 24);
    assert!(size_of::<Config>() == 16 + 8 + 8 + 4 * MAX_INTERFACES + 24 * GUARDED_PLACES);
    assert!(align_of::<Config>() == 8);
    assert!(size_of::<Counters>() == 8 * (Verdict::COUNT + 2));
    assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);
    assert!(size_of::<SourceCarry>() == 24);
    assert!(GUARDED_PLACES.is_power_of_two() && LINES.is_power_of_two());
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), integers only, no padding (asserted above by size).
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Line {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SourceCarry {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeds() -> impl Iterator<Item = u64> {
        (1u64..200).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn the_most_pairs_are_guarded_and_no_other() {
        let pairs: Vec<_> = (0..MAX_GUARDED as u32)
            .map(|n| (Address::from_ipv4(0xc000_0200 + n), 25))
            .collect();
        let mut config = Config::EMPTY;
        assert!(config.set_guarded(&pairs, seeds()));
        for &(address, port) in &pairs {
            assert!(config.guards(address, port));
            assert!(!config.guards(address, 26));
        }
        assert!(!config.guards(Address::from_ipv4(0xc000_0200 + 256), 25));
        let one_more: Vec<_> = (0..=MAX_GUARDED as u32)
            .map(|n| (Address::from_ipv4(n + 1), 25))
            .collect();
        assert!(!config.set_guarded(&one_more, seeds()));
        assert!(config.guards(pairs[0].0, 25), "a refusal changes nothing");
    }

    proptest! {
        #[test]
        fn guards_exactly_the_pairs(
            inside in proptest::collection::hash_set((any::<u64>(), any::<u64>(), 1u16..), 0..40),
            outside in (any::<u64>(), any::<u64>(), 1u16..),
        ) {
            let pairs: Vec<_> =
                inside.iter().map(|&(high, low, port)| (Address { high, low }, port)).collect();
            let mut config = Config::EMPTY;
            prop_assert!(config.set_guarded(&pairs, seeds()));
            for &(address, port) in &pairs {
                prop_assert!(config.guards(address, port));
            }
            let (high, low, port) = outside;
            prop_assert_eq!(
                config.guards(Address { high, low }, port),
                inside.contains(&outside)
            );
        }
    }
}
