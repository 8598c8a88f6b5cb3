//! The allow and deny lists as the XDP program reads them: tries in one array of words.
//!
//! A trie is level-compressed (Nilsson and Karlsson, 1999): a branch takes as many bits of the
//! address as its prefixes fill, and skips those that they share. A long list so has one wide
//! branch, most of whose slots are empty or have one prefix, and an address that is not listed
//! costs one line of memory. Prefixes within others are left out. A branch is on one half of the
//! address: where prefixes share the upper one, a gate leads to those on the lower one.
//!
//! Addresses are left-aligned: one of IPv4 is the upper 32 bits of 128.

use crate::wire::packet::Address;

/// The slots where the tries begin: the first words of the array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListRoot {
    /// Of the allow list, IPv4.
    AllowIpv4 = 0,
    /// Of the allow list, IPv6.
    AllowIpv6 = 1,
    /// Of the deny list, IPv4.
    DenyIpv4 = 2,
    /// Of the deny list, IPv6.
    DenyIpv6 = 3,
}

impl ListRoot {
    /// All roots, in order.
    pub const ALL: [Self; 4] = [
        Self::AllowIpv4,
        Self::AllowIpv6,
        Self::DenyIpv4,
        Self::DenyIpv6,
    ];

    /// Its bit of [`Config::lists`](crate::abi::Config::lists).
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Words in a value of a list's map. A packet needs a look-up for each, and a page of them is
/// written by one system call.
pub const PAGE_WORDS: usize = 512;
/// A value of a list's map.
pub type Page = [u64; PAGE_WORDS];

/// Bits of a half of the address that branches take, each and those above it, on average at
/// least.
pub const LEVEL_BITS: u32 = 5;
/// Most branches on a half of the address.
pub const LEVELS_MAX: u32 = u64::BITS.div_ceil(LEVEL_BITS);
/// Above the index of each prefix in the array, in pairs of words.
pub const PAIRS_MAX: u32 = 1 << PAIR_BITS;

/// The array: the map in the XDP program, a slice in tests.
pub trait Words {
    /// A word; none beyond the end.
    fn word(&self, index: u64) -> Option<u64>;

    /// What [`is_listed_behind`] does: a function apart in the XDP program, for the few that
    /// need it.
    fn is_listed_behind(&self, gate: u64, address: Address) -> bool {
        is_listed_behind(self, gate, address)
    }
}

impl Words for [u64] {
    fn word(&self, index: u64) -> Option<u64> {
        self.get(usize::try_from(index).ok()?).copied()
    }
}

/// What is below a part of all addresses.
///
/// Its highest bit is clear for a branch. That has, from the lowest bit on, how far to shift
/// the half of the address left (6 bits) and then right (6 bits), for the index of the next
/// slot behind its first (32 bits, from bit 31 on).
///
/// A leaf, which is one prefix: the number of bits of the half that it ends in that are not
/// its own (6 bits), whether that is the lower half, the pair of words that it is in (24 bits),
/// and the prefix folded to 32 bits. The pair is 0 where the fold is all of the prefix, as for
/// IPv4.
///
/// A gate to the branches on the lower half, whose first slot is in the place of the fold, is
/// in the lower half and has no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u64);

const SHIFT_BITS: u32 = 6;
const SHIFT: u64 = (1 << SHIFT_BITS) - 1;
const LOWER: u64 = 1 << SHIFT_BITS;
const PAIR_SHIFT: u32 = SHIFT_BITS + 1;
const PAIR_BITS: u32 = 24;
const PAIR: u64 = ((1 << PAIR_BITS) - 1) << PAIR_SHIFT;
const UPPER_SHIFT: u32 = PAIR_SHIFT + PAIR_BITS;
const END: u64 = 1 << 63;
const _: () = assert!(UPPER_SHIFT + u32::BITS == 63);

impl Slot {
    /// No prefix.
    pub const EMPTY: Self = Self(END);

    /// A branch on `bits` bits of a half of the address, from `position` in it on. Its slots
    /// begin at the word `first`.
    pub const fn branch(first: u32, position: u32, bits: u32) -> Self {
        let right = (64 - bits as u64) << SHIFT_BITS;
        Self((first as u64) << UPPER_SHIFT | right | position as u64)
    }

    /// A gate to the slot at the word `first`.
    pub const fn gate(first: u32) -> Self {
        Self(END | (first as u64) << UPPER_SHIFT | LOWER)
    }

    /// A leaf: a prefix of this length, from 1 on, without host bits. `pair` is the index of
    /// its two words, in pairs, below [`PAIRS_MAX`]; 0 for IPv4.
    pub const fn leaf(prefix: Address, length: u32, pair: u32) -> Self {
        let lower = if length > 64 { LOWER } else { 0 };
        let others = 63 - (length as u64 - 1) % 64;
        let place = (pair as u64) << PAIR_SHIFT | lower | others;
        Self(END | fold(prefix) << UPPER_SHIFT | place)
    }

    #[inline(always)]
    const fn is_branch(self) -> bool {
        self.0 & END == 0
    }

    #[inline(always)]
    const fn is_gate(self) -> bool {
        self.0 & (END | LOWER | PAIR) == END | LOWER
    }

    /// The index of the slot below a branch.
    #[inline(always)]
    const fn below(self, half: u64) -> u64 {
        let index = half << (self.0 & SHIFT) >> (self.0 >> SHIFT_BITS & SHIFT);
        (self.0 >> UPPER_SHIFT) + index
    }

    /// The first slot behind a gate, or the fold of a leaf.
    #[inline(always)]
    const fn upper(self) -> u64 {
        self.0 << 1 >> (UPPER_SHIFT + 1)
    }

    /// Whether the address is in the prefix of a leaf.
    #[inline(always)]
    fn has(self, words: &(impl Words + ?Sized), Address { high, low }: Address) -> bool {
        let others = self.0 & SHIFT;
        let start = if self.0 & LOWER != 0 {
            let low = low >> others << others;
            Address { high, low }
        } else {
            let high = high >> others << others;
            Address { high, low: 0 }
        };
        if self == Self::EMPTY || fold(start) != self.upper() {
            return false;
        }
        let first = (self.0 & PAIR) >> PAIR_SHIFT << 1;
        first == 0
            || (words.word(first) == Some(start.high) && words.word(first + 1) == Some(start.low))
    }
}

/// An address in 32 bits: exactly, if it is one of IPv4.
#[inline(always)]
const fn fold(address: Address) -> u64 {
    let both = address.high ^ address.low;
    both >> 32 ^ both & 0xffff_ffff
}

/// Whether the address is in a prefix of the trie that begins at the word `root`, see
/// [`ListRoot`].
#[inline(always)]
pub fn is_listed(words: &(impl Words + ?Sized), root: u64, address: Address) -> bool {
    match end_of_branches(words, root, address.high) {
        Some(end) if end.is_gate() => words.is_listed_behind(end.upper(), address),
        Some(end) => end.has(words, address),
        None => false,
    }
}

/// Whether the address, whose upper half is that of the prefixes, is in a prefix behind a gate
/// to the word `gate`.
#[inline(always)]
pub fn is_listed_behind(words: &(impl Words + ?Sized), gate: u64, address: Address) -> bool {
    end_of_branches(words, gate, address.low).is_some_and(|end| end.has(words, address))
}

/// The slot behind the branches on a half of the address.
#[inline(always)]
fn end_of_branches(words: &(impl Words + ?Sized), first: u64, half: u64) -> Option<Slot> {
    let mut index = first;
    for _ in 0..u64::from(LEVELS_MAX) + 1 {
        let slot = Slot(words.word(index)?);
        if !slot.is_branch() {
            return Some(slot);
        }
        index = slot.below(half);
    }
    None
}
