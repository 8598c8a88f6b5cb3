//! The lists in the form in which the XDP program reads them, see
//! [`nomail_common::guard::lists`].

use std::{ops::Range, sync::Arc};

use ipnet::IpNet;
use nomail_common::{
    guard::lists::{LEVEL_BITS, ListRoot, PAGE_WORDS, PAIRS_MAX, Page, Slot},
    wire::packet::Address,
};

use super::{error::BpfError, policy::Lists};

/// Slots of a branch for each that is not empty, at most: more would leave the processor's
/// cache, fewer have most addresses meet a prefix that they are not in.
const SLOTS_PER_USED: usize = 2;
/// Prefixes below a branch for each of its slots, at least, if it has more of them: for lists
/// that share some first bits.
const PREFIXES_PER_SLOT: usize = 4;
/// Most prefixes that a slice of work places, unless one branch has more.
const SLICE: usize = 16_384;
const ROOTS: usize = ListRoot::ALL.len();

/// The words of lists, complete or in the making.
pub struct ListWords {
    lists: Arc<Lists>,
    words: Vec<u64>,
    /// [`Config::lists`](nomail_common::abi::Config::lists).
    filled: u32,
    /// The tries that are not begun yet.
    tries: std::array::IntoIter<ListRoot, ROOTS>,
    trie: Trie,
    /// Branches that are not placed yet.
    branches: Vec<Branch>,
}

/// The prefixes of a trie.
#[derive(Default)]
struct Trie {
    /// Sorted, and none within another.
    prefixes: Vec<Prefix>,
    /// In pairs of words, where the prefixes are. None: their leaves have all of them.
    pairs: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    /// Left-aligned, without host bits.
    address: Address,
    length: u32,
}

/// A branch that is to be placed.
struct Branch {
    /// The index of the word of its slot.
    slot: usize,
    /// Its prefixes, at least two.
    prefixes: Range<usize>,
    half: Half,
    /// Branches above it on its half of the address.
    level: u32,
}

/// A half of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Upper,
    Lower,
}

impl Half {
    /// Of the address, left-aligned.
    const fn of(self, address: Address) -> u64 {
        match self {
            Self::Upper => address.high,
            Self::Lower => address.low,
        }
    }

    /// The bits of an address before it.
    const fn position(self) -> u32 {
        match self {
            Self::Upper => 0,
            Self::Lower => 64,
        }
    }
}

impl ListWords {
    /// Begins. [`ListWords::work`] does the rest.
    pub(super) fn new(lists: Arc<Lists>) -> Self {
        Self {
            lists,
            words: vec![Slot::EMPTY.0; ROOTS],
            filled: 0,
            tries: ListRoot::ALL.into_iter(),
            trie: Trie::default(),
            branches: Vec::new(),
        }
    }

    /// The words of these lists.
    pub fn of(lists: Arc<Lists>) -> Result<Self, BpfError> {
        let mut words = Self::new(lists);
        while !words.work()? {}
        Ok(words)
    }

    /// Does a slice of the work; whether that was the last one.
    pub(super) fn work(&mut self) -> Result<bool, BpfError> {
        let mut placed = 0;
        while let Some(branch) = self.branches.pop() {
            placed += branch.prefixes.len();
            self.place(&branch)?;
            if placed >= SLICE {
                return Ok(false);
            }
        }
        let Some(root) = self.tries.next() else {
            self.trie = Trie::default();
            let pages = self.words.len().next_multiple_of(PAGE_WORDS);
            self.words.resize(pages, 0);
            return Ok(true);
        };
        self.begin(root)?;
        Ok(false)
    }

    /// The lists.
    pub(super) const fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// Which lists are not empty, as in [`Config::lists`](nomail_common::abi::Config::lists).
    pub const fn filled(&self) -> u32 {
        self.filled
    }

    /// The values of the map.
    pub fn pages(&self) -> &[Page] {
        self.words.as_chunks().0
    }

    /// Begins a trie.
    fn begin(&mut self, root: ListRoot) -> Result<(), BpfError> {
        let (list, ipv6) = match root {
            ListRoot::AllowIpv4 => (&self.lists.allow, false),
            ListRoot::AllowIpv6 => (&self.lists.allow, true),
            ListRoot::DenyIpv4 => (&self.lists.deny, false),
            ListRoot::DenyIpv6 => (&self.lists.deny, true),
        };
        let of_family = list
            .iter()
            .filter(|network| matches!(network, IpNet::V6(_)) == ipv6);
        self.trie.prefixes = disjoint(of_family);
        self.trie.pairs = None;
        let prefixes = &self.trie.prefixes;
        if prefixes.is_empty() {
            return Ok(());
        }
        self.filled |= root.bit();
        if ipv6 {
            self.words.resize(self.words.len().next_multiple_of(2), 0);
            let first = self.words.len() / 2;
            if first + prefixes.len() > PAIRS_MAX as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
            self.trie.pairs = Some(first as u32);
            let halves = prefixes.iter().map(|prefix| prefix.address);
            self.words
                .extend(halves.flat_map(|half| [half.high, half.low]));
        }
        let prefixes = 0..prefixes.len();
        self.fill(root as usize, prefixes, Half::Upper, 0);
        Ok(())
    }

    /// Fills a slot with its prefixes: a leaf, or a branch that is to be placed.
    fn fill(&mut self, slot: usize, prefixes: Range<usize>, half: Half, level: u32) {
        if prefixes.len() == 1 {
            self.words[slot] = self.leaf(prefixes.start).0;
            return;
        }
        self.branches.push(Branch {
            slot,
            prefixes,
            half,
            level,
        });
    }

    fn leaf(&self, index: usize) -> Slot {
        let Prefix { address, length } = self.trie.prefixes[index];
        let pair = self.trie.pairs.map_or(0, |first| first + index as u32);
        Slot::leaf(address, length, pair)
    }

    /// Places a branch, and fills its slots.
    fn place(&mut self, branch: &Branch) -> Result<(), BpfError> {
        let &Branch {
            slot,
            prefixes: Range { start, end },
            half,
            level,
        } = branch;
        let prefixes = &self.trie.prefixes[start..end];
        let common = prefixes[0].common(prefixes[prefixes.len() - 1].address);
        if half == Half::Upper && common >= Half::Lower.position() {
            let first = self.room(1)?;
            self.words[slot] = Slot::gate(first).0;
            self.fill(first as usize, start..end, Half::Lower, 0);
            return Ok(());
        }
        let position = common - half.position();
        let bits = bits(prefixes, common, position, level);
        let first = self.room(1 << bits)?;
        self.words[slot] = Slot::branch(first, position, bits).0;
        let below = common + bits;
        let mut next = start;
        while next < end {
            let begin = next;
            let Prefix { address, length } = self.trie.prefixes[begin];
            let index = half.of(address) << position >> (64 - bits);
            let slot = first as usize + index as usize;
            next += 1;
            if length < below {
                // It has some slots for itself.
                let leaf = self.leaf(begin).0;
                self.words[slot..slot + (1 << (below - length))].fill(leaf);
                continue;
            }
            while next < end && self.trie.prefixes[next].common(address) >= below {
                next += 1;
            }
            self.fill(slot, begin..next, half, level + 1);
        }
        Ok(())
    }

    /// The first word of new ones.
    fn room(&mut self, count: usize) -> Result<u32, BpfError> {
        let first = self.words.len();
        self.words.resize(first + count, Slot::EMPTY.0);
        // No map is so large.
        let fits = u32::try_from(self.words.len()).is_ok();
        fits.then_some(first as u32)
            .ok_or(BpfError::TooManyPrefixes(self.trie.prefixes.len()))
    }
}

impl Prefix {
    fn of(network: &IpNet) -> Self {
        let (bits, length) = match network {
            IpNet::V4(network) => (
                u128::from(network.network().to_bits()) << 96,
                network.prefix_len(),
            ),
            IpNet::V6(network) => (network.network().to_bits(), network.prefix_len()),
        };
        Self {
            address: address(bits),
            length: length.into(),
        }
    }

    /// The number of first bits that it has in common with an address.
    const fn common(self, other: Address) -> u32 {
        match self.address.high ^ other.high {
            0 => 64 + (self.address.low ^ other.low).leading_zeros(),
            upper => upper.leading_zeros(),
        }
    }
}

const fn address(bits: u128) -> Address {
    Address {
        high: (bits >> 64) as u64,
        low: bits as u64,
    }
}

/// The prefixes of a sorted list, without those within others. The network of all addresses is
/// two, because a leaf has at least one bit.
fn disjoint<'a>(list: impl Iterator<Item = &'a IpNet>) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for network in list {
        let prefix = Prefix::of(network);
        if prefix.length == 0 {
            let halves = [0, 1 << 127].map(|bits| Prefix {
                address: address(bits),
                length: 1,
            });
            return halves.to_vec();
        }
        let last = prefixes.last();
        if last.is_none_or(|last| last.common(prefix.address) < last.length) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// The number of bits for the branch of these prefixes, which have `common` bits in common,
/// `position` of them in its half of the address: as many as pay, and as many as it takes to
/// have no more than [`LEVELS_MAX`](nomail_common::guard::lists::LEVELS_MAX) levels.
fn bits(prefixes: &[Prefix], common: u32, position: u32, level: u32) -> u32 {
    // By the first bit in which two neighbours differ.
    let mut differ = [0; u128::BITS as usize];
    for pair in prefixes.windows(2) {
        differ[pair[0].common(pair[1].address) as usize] += 1;
    }
    let most = 64 - position;
    let (mut used, mut pays) = (1, 1);
    for (bits, &count) in (1..=most).zip(&differ[common as usize..]) {
        used += count;
        let worth = (used * SLOTS_PER_USED).max(prefixes.len() / PREFIXES_PER_SLOT);
        if count > 0
            && 1_usize
                .checked_shl(bits)
                .is_some_and(|slots| slots <= worth)
        {
            pays = bits;
        }
    }
    let due = (LEVEL_BITS * (level + 1)).saturating_sub(position);
    pays.max(due).min(most)
}

#[cfg(test)]
mod tests;
