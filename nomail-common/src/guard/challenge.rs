//! The challenge: a SYN-ACK that only a real client can answer, so that it proves its address
//! without any state here.
//!
//! Its acknowledgment number is wrong, but inside the client's window: the low 16 bits are the
//! *proof*, a keyed hash of the 4-tuple and the time slot; the rest is the client's own
//! sequence number. A TCP that waits for a SYN-ACK answers a wrong one with a RST that has
//! that number as its sequence number (RFC 9293 section 3.10.7.3), and sends its SYN again,
//! Linux within 11 ms. The RST proves the tuple, which gets a ticket ([`super::tickets`]), and
//! the next SYN goes to the network stack, with all its options.
//!
//! The tuple is proven together with the sequence number of its SYN: the RST of a victim
//! proves nothing for a forged SYN with another number.

use crate::{
    siphash::{Key, siphash_tail},
    wire::packet::Segment,
};

/// Time slots are at least this long, and less than twice. Longer than a proof holds, which
/// is checked against the numbers of two slots only.
pub const SLOT_SECS: u64 = 16;
/// How long a proof holds.
pub const PROOF_SECS: u64 = 10;

const _: () = assert!(SLOT_SECS > PROOF_SECS);

/// How far to shift jiffies right for slots of [`SLOT_SECS`].
pub const fn slot_shift(hz: u32) -> u32 {
    (hz as u64 * SLOT_SECS).next_power_of_two().ilog2()
}

/// The secret hash of a 4-tuple. Never sent, and of no use for another tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleHash(pub u64);

impl TupleHash {
    /// The hash of a segment's tuple.
    #[inline(always)]
    pub const fn of(segment: &Segment, key: Key) -> Self {
        let ports = (segment.peer_port as u32) << 16 | segment.port as u32;
        let Segment { peer, local, .. } = segment;
        Self(if segment.is_ipv6() {
            siphash_tail(key, [peer.high, peer.low, local.high, local.low], ports)
        } else {
            siphash_tail(key, [peer.low << 32 | local.low & 0xffff_ffff], ports)
        })
    }

    /// The acknowledgment number of the challenge to a SYN with `sequence`: at most 65,536
    /// before it, and never the right one, which is after it.
    #[inline(always)]
    pub const fn acknowledgment(self, sequence: u32, slot: u32, round: Round) -> u32 {
        let proof = round.proof(mix(self.0, !slot));
        sequence.wrapping_sub(sequence.wrapping_sub(proof) & 0xffff)
    }

    /// The challenge of this time slot, or of the one before, that a RST with `sequence`
    /// answers.
    #[inline(always)]
    pub const fn round_of(self, sequence: u32, slot: u32) -> Option<Round> {
        let proof = sequence & 0xffff;
        let (now, before) = (mix(self.0, !slot), mix(self.0, !slot.wrapping_sub(1)));
        if proof == Round::First.proof(now) || proof == Round::First.proof(before) {
            Some(Round::First)
        } else if proof == Round::Second.proof(now) || proof == Round::Second.proof(before) {
            Some(Round::Second)
        } else {
            None
        }
    }

    /// The slot and the tag of the tuple and a number of its own in a table of 65,536 slots.
    #[inline(always)]
    pub(crate) const fn slot(self, number: u32) -> (u32, u64) {
        let mixed = mix(self.0, number);
        (mixed as u32 & 0xffff, mixed >> 32)
    }
}

/// Which of the two numbers of a tuple and time slot a challenge has. The second is asked for
/// after the first, while wrong answers are too frequent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Asked of every client.
    First,
    /// Asked of a tuple that has answered the first.
    Second,
}

impl Round {
    /// Its 16 bits of a hash that is mixed with a time slot.
    #[inline(always)]
    const fn proof(self, mixed: u64) -> u32 {
        match self {
            Self::First => mixed as u32 >> 16,
            Self::Second => (mixed >> 48) as u32,
        }
    }
}

/// The finalizer of MurmurHash3. Its input is secret, and differs between tuples, so one
/// tuple's numbers say nothing about another's.
#[inline(always)]
const fn mix(hash: u64, salt: u32) -> u64 {
    let mut hash = hash ^ salt as u64;
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}
