//! Greetings that may be lost for good.
//!
//! A client whose SYN was answered by a bare SYN sends its SYN-ACK until it has the
//! greeting. One that was answered by a SYN-ACK ([`crate::responder::BARE_SYNS`])
//! has nothing to send: if its last packet of the handshake is lost, or the
//! greeting, it waits in silence. XDP has no clock to wake it, so it tells the agent
//! of the first SYN-ACK of each such dialog. The agent sends that last packet for
//! the client, to the program and not over the wire, and the program answers as
//! ever, until the table of dialogs says that the client has the greeting. A dialog
//! that lost its place there to another is forgotten, and so is what there is no
//! room for in the ring.

use crate::{
    packet::{IPV6_LENGTH, TCP_ACK, TCP_LENGTH_MIN},
    responder::Standing,
};

/// Octets of a SYN that are kept: its Ethernet header with a tag, its IP header and its
/// TCP header without options are no longer.
pub const FRAME_LENGTH: usize = 96;
/// Octets of an [`Owed`].
pub const OWED_LENGTH: usize = 24 + FRAME_LENGTH;
/// Octets of the shortest frame of an Ethernet.
const FRAME_LENGTH_MIN: usize = 60;

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

    /// Whether the client has yet to acknowledge the greeting, by what stands in the table.
    pub const fn is_owed(&self, found: Standing) -> bool {
        Standing(self.standing).is_of_same(found)
    }

    /// The last packet of its handshake, and how long it is. Its checksums are of the SYN,
    /// and nobody looks at them. None where the frame is none.
    pub fn last_of_handshake(&self) -> Option<([u8; FRAME_LENGTH], usize)> {
        let mut frame = self.frame;
        let network = self.network as usize;
        let (transport, length_at, length) = if frame.get(network)? >> 4 == 6 {
            (network + IPV6_LENGTH, network + 4, TCP_LENGTH_MIN)
        } else {
            (network + 20, network + 2, 20 + TCP_LENGTH_MIN)
        };
        let [high, low] = (length as u16).to_be_bytes();
        frame
            .get_mut(length_at..)?
            .first_chunk_mut()
            .map(|at| *at = [high, low])?;
        let tcp: &mut [u8; TCP_LENGTH_MIN] = frame.get_mut(transport..)?.first_chunk_mut()?;
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        tcp[4..8].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        tcp[12] = (TCP_LENGTH_MIN as u8 / 4) << 4;
        tcp[13] = TCP_ACK;
        Some((frame, (transport + TCP_LENGTH_MIN).max(FRAME_LENGTH_MIN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        packet::{Kind, parse},
        responder::Received,
    };

    const PORTS: [u16; 4] = [25, 0, 0, 0];

    fn owed(network: u32, frame: &[u8]) -> Owed {
        let mut room = [0xaa; FRAME_LENGTH];
        room[..frame.len()].copy_from_slice(frame);
        Owed {
            standing: 0,
            index: 0,
            interface: 0,
            acknowledgment: 0x1234_5678,
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

    #[test]
    fn a_syn_becomes_the_last_packet_of_its_handshake() {
        let tagged = [&[2; 12][..], &[0x81, 0, 0, 0, 8, 0]].concat();
        let ipv4 = [
            &[0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0][..],
            &[192, 0, 2, 9, 192, 0, 2, 7],
        ]
        .concat();
        let untagged = [&[2; 12][..], &[0x86, 0xdd]].concat();
        let ipv6 = [&[0x60, 0, 0, 0, 0, 40, 6, 64][..], &[0x20; 32]].concat();
        for (link, ip) in [(tagged, ipv4), (untagged, ipv6)] {
            let frame = [&link[..], &ip, &syn()].concat();
            let owed = owed(link.len() as u32, &frame);
            let (frame, length) = owed.last_of_handshake().unwrap();
            assert!(length >= FRAME_LENGTH_MIN);
            let segment = parse(&frame[..length], &PORTS, true).unwrap();
            assert_eq!((segment.kind, segment.sequence), (Kind::Dialog, 0));
            assert_eq!((segment.peer_port, segment.port), (40_000, 25));
            let received = Received::of(&frame[..length], &segment).unwrap();
            assert_eq!((received.acknowledgment, received.length), (0x1234_5678, 0));
            assert_eq!(received.flags, u32::from(TCP_ACK));
        }
    }

    #[test]
    fn what_has_no_room_for_headers_is_none() {
        for network in [60, FRAME_LENGTH as u32, u32::MAX / 2] {
            assert_eq!(owed(network, &[]).last_of_handshake(), None);
        }
    }
}
