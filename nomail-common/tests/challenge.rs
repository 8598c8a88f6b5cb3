//! The challenge, as an independent decoder and as a TCP reads it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice};
use nomail_common::{
    guard::challenge::{PROOF_SECS, Round, SLOT_SECS, TupleHash, slot_shift},
    siphash::Key,
    wire::packet::{Address, IPV6, Kind, PLAIN, Segment},
    wire::reply::{self, Header, Numbers},
};
use proptest::prelude::*;

const KEY: Key = Key(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);

prop_compose! {
    fn segments()(
        ipv6: bool, peer: u128, local: u128, peer_port: u16, port: u16, sequence: u32,
    ) -> Segment {
        let address = |bits: u128| if ipv6 {
            Address { high: (bits >> 64) as u64, low: bits as u64 }
        } else {
            Address::from_ipv4(bits as u32)
        };
        Segment {
            peer: address(peer),
            peer_port,
            local: address(local),
            port,
            sequence,
            network: 14,
            vlan: 0,
            kind: Kind::Syn,
            flags: PLAIN | if ipv6 { IPV6 } else { 0 },
        }
    }
}

/// The TCP header, after everything about it was checked.
fn decoded(segment: &Segment, numbers: Numbers) -> etherparse::TcpHeader {
    let (header, checksum) = if segment.is_ipv6() {
        let packet = reply::ipv6(segment, &Header::syn_ack(numbers))
            .map(u32::to_ne_bytes)
            .concat();
        let ip = Ipv6HeaderSlice::from_slice(&packet).unwrap();
        let bits = |address: Address| u128::from(address.high) << 64 | u128::from(address.low);
        assert_eq!(ip.source_addr().to_bits(), bits(segment.local));
        assert_eq!(ip.destination_addr().to_bits(), bits(segment.peer));
        assert_eq!((ip.hop_limit(), ip.flow_label().value()), (64, 0));
        assert_eq!(usize::from(ip.payload_length()), packet.len() - 40);
        let tcp = TcpHeaderSlice::from_slice(&packet[40..]).unwrap();
        (tcp.to_header(), tcp.calc_checksum_ipv6(&ip, &[]).unwrap())
    } else {
        let packet = reply::ipv4(segment, &Header::syn_ack(numbers))
            .map(u32::to_ne_bytes)
            .concat();
        let ip = Ipv4HeaderSlice::from_slice(&packet).unwrap();
        assert_eq!(ip.source_addr().to_bits(), segment.local.low as u32);
        assert_eq!(ip.destination_addr().to_bits(), segment.peer.low as u32);
        assert_eq!(
            (ip.ttl(), ip.dont_fragment(), ip.dcp().value()),
            (64, true, 0)
        );
        assert_eq!(usize::from(ip.total_len()), packet.len());
        assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
        let tcp = TcpHeaderSlice::from_slice(&packet[20..]).unwrap();
        (tcp.to_header(), tcp.calc_checksum_ipv4(&ip, &[]).unwrap())
    };
    assert_eq!(header.checksum, checksum);
    assert_eq!(header.destination_port, segment.peer_port);
    assert_eq!(header.source_port, segment.port);
    assert!(header.syn && header.ack && !header.rst && !header.fin && !header.psh);
    header
}

proptest! {
    #[test]
    fn a_challenge_is_a_right_packet_with_a_wrong_number(segment in segments(), slot: u32, sequence: u32) {
        let hash = TupleHash::of(&segment, KEY);
        let number = hash.acknowledgment(segment.sequence, slot, Round::First);
        let header = decoded(&segment, Numbers { sequence, acknowledgment: number });
        prop_assert_eq!((header.sequence_number, header.acknowledgment_number), (sequence, number));
        // Inside the window behind the client's number, and not its number + 1.
        let behind = segment.sequence.wrapping_sub(number);
        prop_assert!(behind < 0x1_0000);
        prop_assert_ne!(number, segment.sequence.wrapping_add(1));
    }

    #[test]
    fn the_reset_answers_this_slot_and_the_next(segment in segments(), slot: u32, other: u32) {
        let hash = TupleHash::of(&segment, KEY);
        let number = |slot, round| hash.acknowledgment(segment.sequence, slot, round);
        let (first, second) = (number(slot, Round::First), number(slot, Round::Second));
        prop_assert_eq!(hash.round_of(first, slot), Some(Round::First));
        prop_assert_eq!(hash.round_of(first, slot.wrapping_add(1)), Some(Round::First));
        prop_assume!(first != second && first != number(slot.wrapping_sub(1), Round::First));
        if second != number(slot.wrapping_sub(1), Round::First) {
            prop_assert_eq!(hash.round_of(second, slot), Some(Round::Second));
        }
        let right = |round| [slot, slot.wrapping_sub(1)]
            .into_iter()
            .any(|slot| hash.acknowledgment(other, slot, round) & 0xffff == other & 0xffff);
        let expected = if right(Round::First) {
            Some(Round::First)
        } else if right(Round::Second) {
            Some(Round::Second)
        } else {
            None
        };
        prop_assert_eq!(hash.round_of(other, slot), expected);
    }

    #[test]
    fn another_tuple_or_key_has_another_hash(one in segments(), other in segments()) {
        prop_assume!((one.peer, one.peer_port, one.local, one.port) != (other.peer, other.peer_port, other.local, other.port));
        prop_assert_ne!(TupleHash::of(&one, KEY), TupleHash::of(&other, KEY));
        prop_assert_ne!(TupleHash::of(&one, KEY), TupleHash::of(&one, Key(KEY.1, KEY.0)));
    }
}

/// Or a SYN that comes late in the time of its proof would not find it.
#[test]
fn a_slot_is_longer_than_a_proof_holds() {
    for hz in [100, 250, 300, 1000] {
        let slot = 1u64 << slot_shift(hz);
        let secs = slot / u64::from(hz);
        assert!(slot > PROOF_SECS * u64::from(hz), "{hz} Hz: {secs} s");
        assert!(
            (SLOT_SECS..SLOT_SECS * 2).contains(&secs),
            "{hz} Hz: {secs} s"
        );
    }
}
