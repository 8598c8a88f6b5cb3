//! The headers of XDP's answers, with checksums.
//!
//! They have no TCP options. Without a maximum segment size, the only option that a SYN cookie
//! could have, a client takes the default, 536 or 1220 bytes (RFC 9293 section 3.7.1): more
//! than a mail client sends before it reads.

use crate::wire::{
    frame::part,
    packet::{Address, Segment},
};

/// TTL and hop limit of answers.
const HOPS: u32 = 64;
const PROTOCOL_TCP: u32 = 6;
const SYN_ACK: u32 = 0x12;
/// Words of 32 bits of the headers.
const TCP_WORDS: usize = 5;
/// Words of 32 bits of both headers of IPv4.
pub const IPV4_WORDS: usize = 5 + TCP_WORDS;
/// Words of 32 bits of both headers of IPv6.
pub const IPV6_WORDS: usize = 10 + TCP_WORDS;

/// Bytes of both headers of IPv4.
pub const IPV4_LENGTH: usize = IPV4_WORDS * 4;
/// Bytes of both headers of IPv6.
pub const IPV6_LENGTH: usize = IPV6_WORDS * 4;

/// The numbers in a TCP header, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgment number.
    pub acknowledgment: u32,
}

/// The values of a TCP header that a reply chooses, in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgment number.
    pub acknowledgment: u32,
    /// The flags, above the 16 bits of the window.
    pub flags_and_window: u32,
    /// Bytes of text that follow.
    pub text_length: u32,
    /// The sum of the 16-bit words of the text.
    pub text_sum: u32,
}

impl Header {
    /// The header of a SYN-ACK with the largest window.
    #[inline(always)]
    pub const fn syn_ack(numbers: Numbers) -> Self {
        Self {
            sequence: numbers.sequence,
            acknowledgment: numbers.acknowledgment,
            flags_and_window: SYN_ACK << 16 | 0xffff,
            text_length: 0,
            text_sum: 0,
        }
    }
}

/// The headers of the IPv4 answer to a segment, from the IP header on, in words of network
/// byte order.
#[inline(always)]
pub fn ipv4(segment: &Segment, header: &Header) -> [u32; IPV4_WORDS] {
    let (local, peer) = (segment.local.low as u32, segment.peer.low as u32);
    let version_and_length = 0x4500_0000 | (IPV4_WORDS as u32 * 4 + header.text_length);
    let dont_fragment = 0x4000;
    let hops_and_protocol = HOPS << 24 | PROTOCOL_TCP << 16;
    let addresses = sum_of(local) + sum_of(peer);
    let sum = sum_of(version_and_length) + dont_fragment + sum_of(hops_and_protocol) + addresses;
    let [t0, t1, t2, t3, t4] = tcp(segment, header, addresses);
    [
        version_and_length,
        dont_fragment as u32,
        hops_and_protocol | fold(sum),
        local,
        peer,
        t0,
        t1,
        t2,
        t3,
        t4,
    ]
    .map(u32::to_be)
}

/// The headers of the IPv6 answer to a segment, as [`ipv4`].
#[inline(always)]
pub fn ipv6(segment: &Segment, header: &Header) -> [u32; IPV6_WORDS] {
    let Segment { peer, local, .. } = segment;
    let [l0, l1, l2, l3] = words_of(*local);
    let [p0, p1, p2, p3] = words_of(*peer);
    let addresses = [l0, l1, l2, l3, p0, p1, p2, p3].map(sum_of);
    let addresses = addresses.into_iter().sum();
    let [t0, t1, t2, t3, t4] = tcp(segment, header, addresses);
    let length = TCP_WORDS as u32 * 4 + header.text_length;
    let length_protocol_and_hops = length << 16 | PROTOCOL_TCP << 8 | HOPS;
    [
        0x6000_0000,
        length_protocol_and_hops,
        l0,
        l1,
        l2,
        l3,
        p0,
        p1,
        p2,
        p3,
        t0,
        t1,
        t2,
        t3,
        t4,
    ]
    .map(u32::to_be)
}

/// Turns the headers of a SYN of IPv4, from the IP header on, into those of the SYN-ACK with
/// these numbers: what [`ipv4`] builds, with less work. Sums are of words as they lie there: a
/// one's complement sum is the same in any byte order (RFC 1071).
#[inline(always)]
pub fn turn_ipv4(headers: &mut [u8; IPV4_LENGTH], numbers: Numbers) {
    const START: u64 = 0x4500_0000_0000_4000 | (IPV4_LENGTH as u64) << 32;
    const HOPS_AND_PROTOCOL: u16 = (HOPS << 8 | PROTOCOL_TCP) as u16;
    const SUM: u64 = halves_of(START) + HOPS_AND_PROTOCOL as u64;
    let addresses = u64::from_ne_bytes(*part(headers, 12));
    let sum = halves(addresses);
    let checksum = fold_any(sum + in_network_order(SUM));
    put(headers, 0, START.to_be_bytes());
    put(headers, 8, HOPS_AND_PROTOCOL.to_be_bytes());
    put(headers, 10, checksum.to_ne_bytes());
    put(headers, 12, addresses.rotate_left(32).to_ne_bytes());
    turn_tcp(headers, 20, sum, numbers);
}

/// Turns the headers of a SYN of IPv6, as [`turn_ipv4`].
#[inline(always)]
pub fn turn_ipv6(headers: &mut [u8; IPV6_LENGTH], numbers: Numbers) {
    const START: u64 =
        0x6000_0000_0000_0000 | (TCP_WORDS as u64 * 4) << 16 | (PROTOCOL_TCP << 8 | HOPS) as u64;
    let [p0, p1, l0, l1] = [8, 16, 24, 32].map(|at| u64::from_ne_bytes(*part(headers, at)));
    put(headers, 0, START.to_be_bytes());
    put(headers, 8, l0.to_ne_bytes());
    put(headers, 16, l1.to_ne_bytes());
    put(headers, 24, p0.to_ne_bytes());
    put(headers, 32, p1.to_ne_bytes());
    let sum = halves(p0) + halves(p1) + halves(l0) + halves(l1);
    turn_tcp(headers, 40, sum, numbers);
}

/// Turns the TCP header at `at`; `addresses` is the sum of both.
#[inline(always)]
fn turn_tcp<const N: usize>(headers: &mut [u8; N], at: usize, addresses: u64, numbers: Numbers) {
    const FLAGS: u32 = (TCP_WORDS as u32) << 28 | SYN_ACK << 16 | 0xffff;
    const REST: u64 = PROTOCOL_TCP as u64 + TCP_WORDS as u64 * 4;
    let ports = u32::from_ne_bytes(*part(headers, at)).rotate_left(16);
    let sequence = numbers.sequence.to_be();
    let acknowledgment = numbers.acknowledgment.to_be();
    let flags = FLAGS.to_be();
    let words = [ports, sequence, acknowledgment, flags].map(u64::from);
    let sum = addresses + words.iter().sum::<u64>() + in_network_order(REST);
    let [c0, c1] = fold_any(sum).to_ne_bytes();
    put(headers, at, ports.to_ne_bytes());
    put(headers, at + 4, sequence.to_ne_bytes());
    put(headers, at + 8, acknowledgment.to_ne_bytes());
    put(headers, at + 12, flags.to_ne_bytes());
    put(headers, at + 16, [c0, c1, 0, 0]);
}

#[inline(always)]
fn put<const N: usize, const M: usize>(headers: &mut [u8; N], at: usize, bytes: [u8; M]) {
    headers[at..at + M].copy_from_slice(&bytes);
}

/// The sum of both halves of a word.
#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}

/// The sum of the 16-bit words of a word.
const fn halves_of(word: u64) -> u64 {
    sum_of((word >> 32) as u32) + sum_of(word as u32)
}

/// A sum of words in host byte order, below 2^16, as one of words in network byte order.
#[inline(always)]
const fn in_network_order(sum: u64) -> u64 {
    (sum as u16).to_be() as u64
}

/// The complement of a one's complement sum below 2^48.
#[inline(always)]
const fn fold_any(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

/// The TCP header, in host byte order; `addresses` is the sum of the words of both addresses.
#[inline(always)]
const fn tcp(segment: &Segment, header: &Header, addresses: u64) -> [u32; TCP_WORDS] {
    let Header {
        sequence,
        acknowledgment,
        flags_and_window,
        text_length,
        text_sum,
    } = *header;
    let ports = (segment.port as u32) << 16 | segment.peer_port as u32;
    let flags_and_window = (TCP_WORDS as u32) << 28 | flags_and_window;
    let sum = sum_of(ports) + sum_of(sequence) + sum_of(acknowledgment) + sum_of(flags_and_window);
    let rest = PROTOCOL_TCP as u64 + TCP_WORDS as u64 * 4 + text_length as u64 + text_sum as u64;
    let checksum = fold(addresses + sum + rest) << 16;
    [ports, sequence, acknowledgment, flags_and_window, checksum]
}

#[inline(always)]
const fn words_of(address: Address) -> [u32; 4] {
    let Address { high, low } = address;
    [
        (high >> 32) as u32,
        high as u32,
        (low >> 32) as u32,
        low as u32,
    ]
}

/// The two 16-bit words of a value, added (RFC 1071).
#[inline(always)]
const fn sum_of(value: u32) -> u64 {
    (value >> 16) as u64 + (value & 0xffff) as u64
}

/// The complement of the one's complement sum.
#[inline(always)]
const fn fold(sum: u64) -> u32 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16) as u32
}

#[cfg(test)]
mod tests;
