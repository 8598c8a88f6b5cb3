//! The tickets of tuples: global functions around [`nomail_common::guard::tickets`].

use nomail_common::{
    abi::{Config, RESETS},
    guard::challenge::TupleHash,
    guard::limiter::Time,
    guard::tickets::{self, Answered, Proof},
    source::Source,
    verifier::forget,
};

use crate::maps;

/// What a tuple has proven with a SYN of this sequence number, as a [`Proof`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn proof_of(
    source: u64,
    hash: u64,
    sequence: u32,
    jiffies: u64,
    ticks: u32,
) -> u32 {
    let Some(line) = maps::ticket_line(Source(source), TupleHash(hash)) else {
        return Proof::None as u32;
    };
    tickets::proof_of(&line, TupleHash(hash), sequence, jiffies as u32, ticks) as u32
}

/// Takes a RST, and returns what it answered as [`Answered`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn reset(source: u64, hash: u64, sequence: u32, jiffies: u64) -> u32 {
    let (source, hash) = (Source(source), TupleHash(hash));
    let Some(config) = maps::config() else {
        return Answered::Not as u32;
    };
    let (Some(of_source), Some(of_all)) = (maps::resets_of(source), maps::shared(RESETS)) else {
        return Answered::Not as u32;
    };
    let strict = config
        .resets
        .is_strict([&of_source, &of_all], Time::from_jiffies(jiffies));
    let strict = forget(u64::from(strict), jiffies) != 0;
    let Some(line) = maps::ticket_line(source, hash) else {
        return Answered::Not as u32;
    };
    let (slot, ticks) = (slot_of(config, jiffies), config.proof_ticks);
    let answered = tickets::reset(&line, strict, hash, sequence, slot, jiffies as u32, ticks);
    let ends = jiffies + u64::from(ticks);
    // All CPUs read that line: it is written once in a jiffy.
    if answered.is_right()
        && let Some(last) = maps::last_proof()
        && last.load() != ends
    {
        last.store(ends);
    }
    answered as u32
}

/// Counts a RST that answers no challenge. Global, and apart from [`reset`] to spare stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn charge_reset(source: u64, jiffies: u64) -> u32 {
    if let (Some(config), Some(of_source), Some(of_all)) = (
        maps::config(),
        maps::resets_of(Source(source)),
        maps::shared(RESETS),
    ) {
        config
            .resets
            .charge([&of_source, &of_all], Time::from_jiffies(jiffies));
    }
    0
}

/// The time slot of proofs.
#[inline(always)]
const fn slot_of(config: &Config, jiffies: u64) -> u32 {
    (jiffies >> (config.slot_shift & 63)) as u32
}
