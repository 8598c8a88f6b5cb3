//! The store of sources: lines of [`SLOTS_PER_LINE`] slots, in which any CPU charges a source
//! and replaces one source by another without a lock.
//!
//! # Replacement protocol: claim, look, fill, publish
//!
//! 1. *Claim* the slot of the lowest rank by swapping its key for [`CLAIMED`].
//! 2. *Look* at the other slots. If one of them is claimed, or has the new source by now,
//!    another CPU is entering one: put the old key back, and start again. Of two CPUs that
//!    enter a source at once, the one that claims later sees the other's slot, so a source
//!    never has two.
//! 3. *Fill* the bucket with one SYN charged. A CPU that found the old source before the
//!    claim may still have charged its bucket: that SYN was judged by the bucket it belonged
//!    to, and is forgotten with it.
//! 4. *Publish* the new key. From here on others find it.
//!
//! A source in its slot is charged by comparing and swapping its bucket. A source is
//! therefore admitted exactly what its bucket allows, and the SYNs that were
//! [`Charge::contended`] while it was not over. All steps are sequentially consistent except
//! the filling, which is between two that are full barriers. `tests/replacement.rs` goes
//! through all interleavings of two CPUs.
//!
//! One race remains: where the old and the new bucket are the same word, because both sources
//! sent their first SYN in the same jiffy, a charge of the old one that is under way goes to
//! the new one.

use super::limiter::{ATTEMPTS, Bucket, Limit, Step, Time};
use crate::bounds::SLOTS_PER_LINE;
use crate::source::Source;
use crate::verifier::forget;

/// Key of a slot that holds no source.
pub const EMPTY: u64 = 0;
/// Key of a slot that is between two sources. Not a source: `ffff::/16` is multicast.
pub const CLAIMED: u64 = u64::MAX;

/// The words of one [`Line`](crate::abi::Line), sequentially consistent.
pub trait SourceSet {
    /// Key of a slot.
    fn key(&self, slot: usize) -> u64;
    /// Swaps a key if it still is `old`; true when it was.
    fn replace_key(&self, slot: usize, old: u64, new: u64) -> bool;
    /// Bucket of a slot.
    fn bucket(&self, slot: usize) -> Bucket;
    /// Swaps a bucket if it still is `old`; true when it was.
    fn replace_bucket(&self, slot: usize, old: Bucket, new: Bucket) -> bool;
    /// Writes a bucket, before the key that comes with it. Other CPUs may see it late, but
    /// not after that key: between the claim and the key a plain store suffices.
    fn fill(&self, slot: usize, bucket: Bucket);
    /// Writes a key, after the bucket that comes with it.
    fn publish(&self, slot: usize, key: u64);
}

/// What charging a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The slot of the source in its line, below [`SLOTS_PER_LINE`].
    pub slot: usize,
    /// The SYN is over the limit.
    pub over: bool,
    /// See [`Step::carried`].
    pub carried: bool,
    /// See [`Step::reportable`].
    pub reportable: bool,
    /// Another source lost the slot.
    pub evicted: bool,
    /// [`ATTEMPTS`] were not enough: nothing was charged. The SYN passes, unless its bucket
    /// was over the limit.
    pub contended: bool,
}

/// A hash of a source with a secret, so that an attacker cannot aim at a line: the finalizer
/// of MurmurHash3.
#[inline(always)]
pub const fn hash_of(source: Source, seed: u64) -> u64 {
    let mut hash = source.0 ^ seed;
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

/// Index of the line of a source among `lines`, a power of two.
#[inline(always)]
pub const fn line_of(source: Source, seed: u64, lines: usize) -> usize {
    (hash_of(source, seed) >> (64 - lines.trailing_zeros())) as usize
}

/// Charges one SYN of `source` in its line. A source that is not in the line enters it if it
/// `may_enter`; else nothing is charged, and the SYN is not over the limit.
#[inline(always)]
pub fn charge<S: SourceSet>(
    line: &S,
    source: Source,
    now: Time,
    limit: Limit,
    may_enter: bool,
) -> Charge {
    let mut over = false;
    for _ in 0..ATTEMPTS {
        match try_charge(line, source, now, limit, may_enter) {
            Tried::Charged(charge) => return charge,
            Tried::Stranger => return Charge::NOTHING,
            Tried::Disturbed(was_over) => over = was_over,
        }
    }
    Charge {
        over,
        contended: true,
        ..Charge::NOTHING
    }
}

/// What one try of [`charge`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The source was charged.
    Charged(Charge),
    /// The source is not in the line, and may not enter it.
    Stranger,
    /// Another CPU changed a word first. The bucket that could not be charged was over the
    /// limit, or not.
    Disturbed(bool),
}

/// One try of [`charge`].
#[inline(always)]
pub fn try_charge<S: SourceSet>(
    line: &S,
    source: Source,
    now: Time,
    limit: Limit,
    may_enter: bool,
) -> Tried {
    let charged = match find(line, source.0) {
        Some(slot) => charge_slot(line, slot, source.0, now, limit),
        None if may_enter => enter(line, source.0, now, limit),
        None => return Tried::Stranger,
    };
    match charged {
        Ok(charge) => Tried::Charged(charge),
        Err(Disturbed { was_over }) => Tried::Disturbed(was_over),
    }
}

/// Another CPU changed a word first.
struct Disturbed {
    /// The bucket that could not be charged was over the limit.
    was_over: bool,
}

#[inline(always)]
fn find<S: SourceSet>(line: &S, key: u64) -> Option<usize> {
    let slot = (0..SLOTS_PER_LINE).find(|&slot| line.key(slot) == key)?;
    Some(forget(slot as u64, key) as usize % SLOTS_PER_LINE)
}

#[inline(always)]
fn charge_slot<S: SourceSet>(
    line: &S,
    slot: usize,
    key: u64,
    now: Time,
    limit: Limit,
) -> Result<Charge, Disturbed> {
    let bucket = line.bucket(slot);
    // The bucket read may already be that of the next source.
    if line.key(slot) != key {
        return Err(Disturbed { was_over: false });
    }
    let step = bucket.step(now, limit);
    if !line.replace_bucket(slot, bucket, step.bucket) {
        return Err(Disturbed {
            was_over: step.over,
        });
    }
    Ok(Charge::of(slot, step))
}

#[inline(always)]
fn enter<S: SourceSet>(line: &S, key: u64, now: Time, limit: Limit) -> Result<Charge, Disturbed> {
    const DISTURBED: Disturbed = Disturbed { was_over: false };
    // The rank and the slot in one word: with a variable for the slot the verifier would go
    // through the rest once for each.
    let mut least = u64::MAX;
    let mut victim_key = CLAIMED;
    for slot in 0..SLOTS_PER_LINE {
        let key = line.key(slot);
        // Empty slots first; a real rank has TIME_BITS bits.
        let rank = match key {
            CLAIMED => return Err(DISTURBED),
            EMPTY => 0,
            _ => line.bucket(slot).rank(now, limit) + 1,
        };
        let candidate = rank * SLOTS_PER_LINE as u64 + slot as u64;
        if candidate < least {
            (least, victim_key) = (candidate, key);
        }
    }
    let victim = least as usize % SLOTS_PER_LINE;
    if !line.replace_key(victim, victim_key, CLAIMED) {
        return Err(DISTURBED);
    }
    for slot in 0..SLOTS_PER_LINE {
        let other = line.key(slot);
        if slot != victim && (other == CLAIMED || other == key) {
            line.publish(victim, victim_key);
            return Err(DISTURBED);
        }
    }
    let step = Bucket::full(now).step(now, limit);
    line.fill(victim, step.bucket);
    line.publish(victim, key);
    Ok(Charge {
        evicted: victim_key != EMPTY,
        ..Charge::of(victim, step)
    })
}

impl Charge {
    /// Nothing was charged.
    pub const NOTHING: Self = Self {
        slot: 0,
        over: false,
        carried: false,
        reportable: false,
        evicted: false,
        contended: false,
    };

    #[inline(always)]
    const fn of(slot: usize, step: Step) -> Self {
        let Step {
            bucket: _,
            over,
            carried,
            reportable,
        } = step;
        Self {
            slot,
            over,
            carried,
            reportable,
            ..Self::NOTHING
        }
    }
}

/// The epoch of a moment, of 2 to 4 seconds: an eighth of a time slot of proofs. It wraps;
/// what is old then looks recent for two epochs.
///
/// While the cap is exhausted a source that is not in its line is not entered there, and most
/// are not: the random line would be read for nothing. So there is a byte for each line beside
/// it, close at hand: the epoch in which a source of the line was last charged.
#[inline(always)]
pub const fn epoch(jiffies: u64, slot_shift: u32) -> u8 {
    (jiffies >> (slot_shift.wrapping_sub(3) & 63)) as u8
}

/// Whether a source of the line with this byte may have been charged in this epoch or the one
/// before. A source that was idle for longer is not charged while the cap is exhausted.
#[inline(always)]
pub const fn is_recent(byte: u8, epoch: u8) -> bool {
    epoch.wrapping_sub(byte) <= 1
}

#[cfg(test)]
mod tests;
