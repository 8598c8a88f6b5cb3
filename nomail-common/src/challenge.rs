//! The challenge: a SYN-ACK that only a real client can answer, so that it
//! proves its address without any state here.
//!
//! Its acknowledgment number lies inside the client's window, but is wrong: the
//! low 16 bits are the *proof*, a keyed hash of the 4-tuple and the time slot;
//! the rest is the client's own sequence number. A TCP that is waiting for a
//! SYN-ACK answers a wrong one with RST and that number as its sequence (RFC
//! 9293 section 3.10.7.3), and sends its SYN again, Linux within 11 ms. The RST
//! proves the tuple; [`crate::tuples`] remembers it for a moment, and the next
//! SYN goes to the network stack: with all options, and with the kernel's own
//! retransmission.
//!
//! The tuple is proven together with the sequence number of its SYN. A forged
//! SYN with another one is not spoken for by the RST of its victim.

use crate::{
    packet::{Address, Segment},
    siphash::{Key, siphash},
};

/// Time slots are at least that long, and less than twice. Longer than a proof
/// holds: it is looked for with the numbers of two slots only.
pub const SLOT_SECS: u64 = 16;
/// How long a proof holds.
pub const PROOF_SECS: u64 = 10;

/// TTL and hop limit of what is sent.
const HOPS: u8 = 64;
/// Octets of an IPv4 and an IPv6 challenge, from the IP header on.
pub const IPV4_LENGTH: usize = 20 + TCP_LENGTH;
/// See [`IPV4_LENGTH`].
pub const IPV6_LENGTH: usize = 40 + TCP_LENGTH;
/// No options: the client is not to take it for the real one.
const TCP_LENGTH: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const SYN_ACK: u8 = 0x12;

const _: () = assert!(SLOT_SECS > PROOF_SECS);

/// How far to shift jiffies for slots of [`SLOT_SECS`].
pub const fn slot_shift(hz: u32) -> u32 {
    (hz as u64 * SLOT_SECS).next_power_of_two().ilog2()
}

/// The secret hash of a 4-tuple. Never sent, and of no use for another tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleHash(pub u64);

impl TupleHash {
    /// Of the tuple of a segment.
    #[inline(always)]
    pub fn of(segment: &Segment, key: Key) -> Self {
        let ports = u64::from(segment.peer_port) << 16 | u64::from(segment.port);
        let Segment { peer, local, .. } = segment;
        Self(if segment.is_ipv6() {
            siphash(key, [peer.high, peer.low, local.high, local.low, ports])
        } else {
            siphash(key, [peer.low << 32 | local.low & 0xffff_ffff, ports])
        })
    }

    /// The acknowledgment number of the challenge to a SYN with `sequence`:
    /// at most 65,536 before it, and never the right one, which is after it.
    #[inline(always)]
    pub const fn acknowledgment(self, sequence: u32, slot: u32) -> u32 {
        let number = sequence & 0xffff_0000 | self.proof(slot);
        if number.wrapping_sub(sequence) as i32 > 0 {
            number.wrapping_sub(0x1_0000)
        } else {
            number
        }
    }

    /// Whether a RST with `sequence` answers a challenge of this slot or the one
    /// before.
    #[inline(always)]
    pub const fn is_proof(self, sequence: u32, slot: u32) -> bool {
        let proof = sequence & 0xffff;
        proof == self.proof(slot) || proof == self.proof(slot.wrapping_sub(1))
    }

    /// What a proven tuple is remembered by: the hash and the number that was
    /// proven, so that it holds for SYNs of one sequence number only.
    #[inline(always)]
    pub const fn tag(self, acknowledgment: u32) -> u32 {
        (mix(self.0, acknowledgment) >> 32) as u32
    }

    #[inline(always)]
    const fn proof(self, slot: u32) -> u32 {
        mix(self.0, !slot) as u32 >> 16
    }
}

/// The finalizer of MurmurHash3. What goes in is secret, and different for every
/// tuple, so nobody learns from one tuple's what another's gives.
#[inline(always)]
const fn mix(hash: u64, salt: u32) -> u64 {
    let mut hash = hash ^ salt as u64;
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// The IPv4 challenge to a SYN, from its IP header on.
#[inline(always)]
pub fn ipv4(segment: &Segment, acknowledgment: u32) -> [u8; IPV4_LENGTH] {
    let mut packet = [0; IPV4_LENGTH];
    packet[0] = 0x45;
    packet[3] = IPV4_LENGTH as u8;
    packet[6] = 0x40; // don't fragment
    packet[8] = HOPS;
    packet[9] = PROTOCOL_TCP;
    let local = segment.local.low as u32;
    let peer = segment.peer.low as u32;
    copy(&mut packet, 12, local.to_be_bytes());
    copy(&mut packet, 16, peer.to_be_bytes());
    let constant = sum_of(0x4500_0028) + sum_of(0x4000) + sum_of(0x4006);
    copy(
        &mut packet,
        10,
        fold(constant + sum_of(local) + sum_of(peer)),
    );
    let pseudo = sum_of(local) + sum_of(peer);
    copy(&mut packet, 20, tcp(segment, acknowledgment, pseudo));
    packet
}

/// The IPv6 challenge to a SYN, from its IP header on.
#[inline(always)]
pub fn ipv6(segment: &Segment, acknowledgment: u32) -> [u8; IPV6_LENGTH] {
    let mut packet = [0; IPV6_LENGTH];
    packet[0] = 0x60;
    packet[5] = TCP_LENGTH as u8;
    packet[6] = PROTOCOL_TCP;
    packet[7] = HOPS;
    let Segment { peer, local, .. } = segment;
    copy(&mut packet, 8, local.high.to_be_bytes());
    copy(&mut packet, 16, local.low.to_be_bytes());
    copy(&mut packet, 24, peer.high.to_be_bytes());
    copy(&mut packet, 32, peer.low.to_be_bytes());
    let pseudo = sum_of_address(*local) + sum_of_address(*peer);
    copy(&mut packet, 40, tcp(segment, acknowledgment, pseudo));
    packet
}

/// The TCP header; `pseudo` is the sum of both addresses.
#[inline(always)]
fn tcp(segment: &Segment, acknowledgment: u32, pseudo: u64) -> [u8; TCP_LENGTH] {
    let ports = u32::from(segment.port) << 16 | u32::from(segment.peer_port);
    // Data offset 5, SYN and ACK, a full window.
    let flags = 0x5000_ffff | u32::from(SYN_ACK) << 16;
    let mut header = [0; TCP_LENGTH];
    copy(&mut header, 0, ports.to_be_bytes());
    copy(&mut header, 8, acknowledgment.to_be_bytes());
    copy(&mut header, 12, flags.to_be_bytes());
    let sum = sum_of(ports) + sum_of(acknowledgment) + sum_of(flags);
    let rest = u64::from(PROTOCOL_TCP) + TCP_LENGTH as u64;
    copy(&mut header, 16, fold(pseudo + sum + rest));
    header
}

#[inline(always)]
fn copy<const N: usize>(packet: &mut [u8], at: usize, octets: [u8; N]) {
    for (index, octet) in octets.into_iter().enumerate() {
        packet[at + index] = octet;
    }
}

/// The two 16-bit words of a value, added (RFC 1071).
#[inline(always)]
const fn sum_of(value: u32) -> u64 {
    (value >> 16) as u64 + (value & 0xffff) as u64
}

#[inline(always)]
const fn sum_of_address(address: Address) -> u64 {
    let Address { high, low } = address;
    sum_of((high >> 32) as u32)
        + sum_of(high as u32)
        + sum_of((low >> 32) as u32)
        + sum_of(low as u32)
}

/// The complement of the one's complement sum.
#[inline(always)]
const fn fold(sum: u64) -> [u8; 2] {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (!(sum as u16)).to_be_bytes()
}
