//! Retransmission of greetings that the client would not ask for again.
//!
//! A client whose SYN was answered by a bare SYN sends its SYN-ACK until it has the greeting.
//! One that was answered by a SYN-ACK ([`BARE_SYNS`](super::dialog::BARE_SYNS)) has nothing
//! to send: if its last packet of the handshake is lost, or the greeting, it waits in
//! silence. XDP has no timer, so it reports the first SYN-ACK of each such dialog to the
//! agent, which sends what is missing:
//! - the greeting, for as long as the table of dialogs says that the client has acknowledged
//!   our initial sequence number, and not the greeting;
//! - the SYN-ACK once more, while the client has not even acknowledged that. The SYN may be
//!   forged; but then more packets have arrived than were sent, because the RST that
//!   answered the challenge was not answered.
//!
//! A RST of the tuple ends both ([`super::dialog::reset`]). A dialog whose entry in the table
//! was overwritten is forgotten, and so is one that finds no room in the ring.

use super::{
    cookie,
    dialog::ReplySegment,
    dialog_state::DialogState,
    texts::{Text, Texts},
};
use crate::{
    bounds::TEXT_MAX,
    wire::packet::{self, IPV6_LENGTH, Segment, TCP_LENGTH_MIN},
    wire::reply,
};

/// Bytes of a SYN that are kept: room for its Ethernet header with a tag, its IP header and
/// its TCP header without options.
pub const FRAME_LENGTH: usize = 96;
/// Bytes of a [`Retransmission`].
pub const RETRANSMISSION_LENGTH: usize = 24 + FRAME_LENGTH;
/// Most bytes of a frame that is sent: a tag, headers without options, a text.
pub const SENT_LENGTH_MAX: usize = 18 + IPV6_LENGTH + TCP_LENGTH_MIN + TEXT_MAX;

/// A dialog that began with a SYN-ACK, as it lies in [`OWED_MAP`](crate::abi::OWED_MAP). In
/// host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmission {
    /// The [`DialogState`] at that time.
    pub state: u64,
    /// Its index in the table of dialogs.
    pub index: u32,
    /// Index of the interface that the SYN arrived at.
    pub interface: u32,
    /// The acknowledgment number that acknowledges the SYN-ACK.
    pub acknowledgment: u32,
    /// Where in the frame its IP header begins.
    pub network: u32,
    /// The SYN.
    pub frame: [u8; FRAME_LENGTH],
}

const _: () = assert!(
    size_of::<Retransmission>() == RETRANSMISSION_LENGTH,
    "no padding"
);

impl Retransmission {
    /// From the bytes in the ring.
    pub fn from_bytes(bytes: &[u8; RETRANSMISSION_LENGTH]) -> Self {
        fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
            core::array::from_fn(|index| bytes[offset + index])
        }
        Self {
            state: u64::from_ne_bytes(at(bytes, 0)),
            index: u32::from_ne_bytes(at(bytes, 8)),
            interface: u32::from_ne_bytes(at(bytes, 12)),
            acknowledgment: u32::from_ne_bytes(at(bytes, 16)),
            network: u32::from_ne_bytes(at(bytes, 20)),
            frame: at(bytes, 24),
        }
    }

    /// What the client lacks, by the state that is in the table now.
    pub const fn missing(&self, found: DialogState) -> Missing {
        if !DialogState(self.state).is_of_same(found) {
            Missing::Nothing
        } else if found.is_acknowledged() {
            Missing::Greeting
        } else {
            Missing::SynAck
        }
    }

    /// The generation of the dialog's texts.
    pub const fn generation(&self) -> u32 {
        cookie::generation_of(self.acknowledgment)
    }

    /// The frame with what is missing, and its length in bytes. None where nothing is, or
    /// where the SYN cannot be parsed.
    pub fn frame(&self, missing: Missing, texts: &Texts) -> Option<([u8; SENT_LENGTH_MAX], usize)> {
        let segment = self.segment()?;
        let next = segment.sequence.wrapping_add(1);
        let (reply, text) = match missing {
            Missing::Nothing => return None,
            Missing::SynAck => {
                let sequence = self.acknowledgment.wrapping_sub(1);
                (ReplySegment::syn_ack(sequence, next), &Text::EMPTY)
            }
            Missing::Greeting => {
                let reply = ReplySegment::greet(texts, self.acknowledgment, next);
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
        let mut add = |bytes: &[u8]| {
            let room = sent.get_mut(length..length + bytes.len())?;
            room.copy_from_slice(bytes);
            length += bytes.len();
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
        add(text.bytes.get(..text.length as usize)?)?;
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

/// What a client lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: it has the greeting, has reset the connection, or is forgotten.
    Nothing,
    /// The SYN-ACK, as far as XDP knows.
    SynAck,
    /// The greeting.
    Greeting,
}

#[cfg(test)]
mod tests;
