use std::vec::Vec;

use etherparse::{PacketHeaders, TransportHeader};

use super::*;

const GREETING: &[u8] = b"521 mailless.example.org does not accept mail\r\n";

fn retransmission(network: u32, frame: &[u8]) -> Retransmission {
    let mut room = [0xaa; FRAME_LENGTH];
    room[..frame.len()].copy_from_slice(frame);
    Retransmission {
        state: 0,
        index: 0,
        interface: 0,
        acknowledgment: 0x9234_5678,
        network,
        frame: room,
    }
}

/// A SYN of port 40,000 with sequence number 0xffff_ffff and 20 bytes of options.
fn syn() -> [u8; 20] {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0, 25]);
    header[4..8].fill(0xff);
    header[12..14].copy_from_slice(&[0xa0, 0x02]);
    header
}

/// The frames of both families, tagged and not.
fn frames() -> [(u32, Vec<u8>); 2] {
    let tagged = [&[2; 6][..], &[4; 6], &[0x81, 0, 0, 7, 8, 0]].concat();
    let ipv4 = [
        &[0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0][..],
        &[192, 0, 2, 9, 192, 0, 2, 7],
    ]
    .concat();
    let untagged = [&[2; 6][..], &[4; 6], &[0x86, 0xdd]].concat();
    let ipv6 = [&[0x60, 0, 0, 0, 0, 40, 6, 64][..], &[0x20; 32]].concat();
    [(tagged, ipv4), (untagged, ipv6)]
        .map(|(link, ip)| (link.len() as u32, [&link[..], &ip, &syn()].concat()))
}

#[test]
fn what_is_missing_makes_a_right_frame() {
    let texts = Texts::new(GREETING, b"", b"").unwrap();
    for (network, frame) in frames() {
        let retransmission = retransmission(network, &frame);
        assert_eq!(retransmission.generation(), 2);
        assert_eq!(retransmission.frame(Missing::Nothing, &texts), None);
        for (missing, sequence, text) in [
            (Missing::SynAck, 0x9234_5677, &b""[..]),
            (Missing::Greeting, 0x9234_5678, GREETING),
        ] {
            let (sent, length) = retransmission.frame(missing, &texts).unwrap();
            assert_eq!((&sent[..6], &sent[6..12]), (&[4; 6][..], &[2; 6][..]));
            assert_eq!(
                sent[12..network as usize],
                frame[12..network as usize],
                "a tag stays"
            );
            let packet = PacketHeaders::from_ethernet_slice(&sent[..length]).unwrap();
            let Some(TransportHeader::Tcp(tcp)) = packet.transport else {
                panic!("no TCP");
            };
            assert_eq!(packet.payload.slice(), text);
            assert_eq!((tcp.source_port, tcp.destination_port), (25, 40_000));
            assert_eq!(
                (tcp.sequence_number, tcp.acknowledgment_number),
                (sequence, 0)
            );
            assert_eq!((tcp.syn, tcp.fin), (text.is_empty(), !text.is_empty()));
            assert!(tcp.ack && !tcp.rst);
            let checksum = match packet.net.unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => tcp.calc_checksum_ipv4(&ip, text),
                etherparse::NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, text),
                etherparse::NetHeaders::Arp(_) => panic!("an ARP"),
            };
            assert_eq!(tcp.checksum, checksum.unwrap());
        }
    }
}

#[test]
fn what_has_no_room_for_headers_is_none() {
    let texts = Texts::new(GREETING, b"", b"").unwrap();
    for network in [60, FRAME_LENGTH as u32, u32::MAX / 2] {
        assert_eq!(
            retransmission(network, &[]).frame(Missing::Greeting, &texts),
            None
        );
    }
}
