//! Greetings that may be lost for good.
//!
//! A client whose SYN was answered by a bare SYN sends its SYN-ACK until it has the
//! greeting. One that was answered by a SYN-ACK ([`crate::stateless::dialog::BARE_SYNS`])
//! has nothing to send: if its last packet of the handshake is lost, or the
//! greeting, it waits in silence. XDP has no clock to wake it, so it tells the agent
//! of the first SYN-ACK of each such dialog, and the agent sends what is owed:
//! - the greeting, for as long as the table of dialogs says that the client has
//!   acknowledged our initial sequence number, and not the greeting;
//! - the SYN-ACK once more, while the client has not even acknowledged that. The SYN may be
//!   forged; but then more packets have come than were sent, because a RST that
//!   answered the challenge was not answered.
//!
//! A RST of the tuple ends both ([`crate::stateless::dialog::reset`]). A dialog that lost its
//! place in the table to another is forgotten, and so is what there is no room for in
//! the ring.

use crate::{
    abi::{Text, Texts},
    stateless::dialog::{Reply, Standing, TEXT_MAX},
    wire::packet::{self, IPV6_LENGTH, Segment, TCP_LENGTH_MIN},
    wire::reply,
};

/// Octets of a SYN that are kept: its Ethernet header with a tag, its IP header and its
/// TCP header without options are no longer.
pub const FRAME_LENGTH: usize = 96;
/// Octets of an [`Owed`].
pub const OWED_LENGTH: usize = 24 + FRAME_LENGTH;
/// Room for a frame that is sent: a tag, headers without options, a text.
pub const SENT_LENGTH_MAX: usize = 18 + IPV6_LENGTH + TCP_LENGTH_MIN + TEXT_MAX;

/// A dialog that was begun by a SYN-ACK, as it lies in [`crate::abi::OWED_MAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// What stood in the table of dialogs then.
    pub standing: u64,
    /// Where in the table.
    pub index: u32,
    /// Index of the interface that the SYN came in by.
    pub interface: u32,
    /// The number that acknowledges the SYN-ACK.
    pub acknowledgment: u32,
    /// Where in the frame its IP header begins.
    pub network: u32,
    /// The SYN.
    pub frame: [u8; FRAME_LENGTH],
}

const _: () = assert!(size_of::<Owed>() == OWED_LENGTH, "no padding");

impl Owed {
    /// From the octets in the ring.
    pub fn from_octets(octets: &[u8; OWED_LENGTH]) -> Self {
        fn at<const N: usize>(octets: &[u8], offset: usize) -> [u8; N] {
            core::array::from_fn(|index| octets[offset + index])
        }
        Self {
            standing: u64::from_ne_bytes(at(octets, 0)),
            index: u32::from_ne_bytes(at(octets, 8)),
            interface: u32::from_ne_bytes(at(octets, 12)),
            acknowledgment: u32::from_ne_bytes(at(octets, 16)),
            network: u32::from_ne_bytes(at(octets, 20)),
            frame: at(octets, 24),
        }
    }

    /// What the client has yet to get, by what stands in the table.
    pub const fn owes(&self, found: Standing) -> Owing {
        if !Standing(self.standing).is_of_same(found) {
            Owing::Nothing
        } else if found.is_acknowledged() {
            Owing::Greeting
        } else {
            Owing::SynAck
        }
    }

    /// Which generation of the texts the dialog is served from.
    pub const fn generation(&self) -> u32 {
        self.acknowledgment.wrapping_sub(1) >> 30
    }

    /// The frame with what is owed, and how long it is. None where nothing is, or where
    /// the SYN is none.
    pub fn frame(&self, owing: Owing, texts: &Texts) -> Option<([u8; SENT_LENGTH_MAX], usize)> {
        let segment = self.segment()?;
        let next = segment.sequence.wrapping_add(1);
        let (reply, text) = match owing {
            Owing::Nothing => return None,
            Owing::SynAck => {
                let sequence = self.acknowledgment.wrapping_sub(1);
                (Reply::syn_ack(sequence, next), &Text::EMPTY)
            }
            Owing::Greeting => {
                let reply = Reply::greet(texts, self.acknowledgment, next);
                (reply, &texts.greeting)
            }
        };
        let header = reply.header(texts);
        let mut sent = [0; SENT_LENGTH_MAX];
        let network = segment.network as usize;
        sent.get_mut(..network)?
            .copy_from_slice(self.frame.get(..network)?);
        sent[..6].copy_from_slice(&self.frame[6..12]);
        sent[6..12].copy_from_slice(&self.frame[..6]);
        let mut length = network;
        let mut add = |octets: &[u8]| {
            let room = sent.get_mut(length..length + octets.len())?;
            room.copy_from_slice(octets);
            length += octets.len();
            Some(())
        };
        if segment.is_ipv6() {
            for word in reply::ipv6(&segment, &header) {
                add(&word.to_ne_bytes())?;
            }
        } else {
            for word in reply::ipv4(&segment, &header) {
                add(&word.to_ne_bytes())?;
            }
        }
        add(text.octets.get(..text.length as usize)?)?;
        Some((sent, length))
    }

    fn segment(&self) -> Option<Segment> {
        let network = self.network as usize;
        let ipv6 = self.frame.get(network)? >> 4 == 6;
        let transport = network + if ipv6 { IPV6_LENGTH } else { 20 };
        let [high, low]: [u8; 2] = *self.frame.get(transport + 2..)?.first_chunk()?;
        let ports = [u16::from_be_bytes([high, low]), 0, 0, 0];
        packet::parse(&self.frame[..], &ports, false).filter(|found| found.network == self.network)
    }
}

/// What a client has yet to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owing {
    /// Nothing: it has the greeting, has reset the connection, or is forgotten.
    Nothing,
    /// The SYN-ACK, as far as is known.
    SynAck,
    /// The greeting.
    Greeting,
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{PacketHeaders, TransportHeader};

    use super::*;

    const GREETING: &[u8] = b"521 mailless.example.org does not accept mail\r\n";

    fn owed(network: u32, frame: &[u8]) -> Owed {
        let mut room = [0xaa; FRAME_LENGTH];
        room[..frame.len()].copy_from_slice(frame);
        Owed {
            standing: 0,
            index: 0,
            interface: 0,
            acknowledgment: 0x9234_5678,
            network,
            frame: room,
        }
    }

    /// A SYN of port 40,000 with sequence number 0xffff_ffff and 20 octets of options.
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
    fn what_is_owed_is_a_right_frame() {
        let texts = Texts::new(GREETING, b"", b"").unwrap();
        for (network, frame) in frames() {
            let owed = owed(network, &frame);
            assert_eq!(owed.generation(), 2);
            assert_eq!(owed.frame(Owing::Nothing, &texts), None);
            for (owing, sequence, text) in [
                (Owing::SynAck, 0x9234_5677, &b""[..]),
                (Owing::Greeting, 0x9234_5678, GREETING),
            ] {
                let (sent, length) = owed.frame(owing, &texts).unwrap();
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
            assert_eq!(owed(network, &[]).frame(Owing::Greeting, &texts), None);
        }
    }
}
