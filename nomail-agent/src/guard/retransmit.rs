//! When greetings are retransmitted: the agent is the timer of
//! [`nomail_common::stateless::retransmit`].

use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, RingBuf};
use nomail_common::{
    abi::Texts,
    stateless::dialog_state::DialogState,
    stateless::retransmit::{Missing, Retransmission},
};

use super::error::BpfError;

/// Most dialogs that wait at once. Further ones are not retransmitted.
const WAITING_MAX: usize = 1024;
/// The waits after the SYN-ACK and after each retransmission. After the last one the client
/// is given up.
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetransmitFrame {
    /// Index of the interface to send it on.
    pub interface: u32,
    /// The frame, from its Ethernet header on.
    pub bytes: Vec<u8>,
}

struct Waiting {
    dialog: Retransmission,
    sent: usize,
    due: Instant,
    syn_ack_repeated: bool,
}

/// The dialogs whose greeting may have to be retransmitted.
pub(super) struct Retransmissions {
    ring: RingBuf<MapData>,
    dialogs: Array<MapData, u64>,
    waiting: Vec<Waiting>,
}

impl Retransmissions {
    pub(super) fn new(ring: RingBuf<MapData>, dialogs: Array<MapData, u64>) -> Self {
        Self {
            ring,
            dialogs,
            waiting: Vec::new(),
        }
    }

    /// The frames that are due at `now`. After an error the others are due at the next call.
    pub(super) fn due(
        &mut self,
        texts: &Array<MapData, Texts>,
        now: Instant,
    ) -> Result<Vec<RetransmitFrame>, BpfError> {
        while let Some(item) = self.ring.next() {
            if let Ok(bytes) = <&[u8; _]>::try_from(&item[..])
                && self.waiting.len() < WAITING_MAX
            {
                self.waiting.push(Waiting {
                    dialog: Retransmission::from_bytes(bytes),
                    sent: 0,
                    due: now + WAITS[0],
                    syn_ack_repeated: false,
                });
            }
        }
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(waiting) = self.waiting.get_mut(at) {
            if waiting.due > now {
                at += 1;
                continue;
            }
            let found = DialogState(self.dialogs.get(&waiting.dialog.index, 0)?);
            let missing = waiting.dialog.missing(found);
            let Some(wait) = WAITS.get(waiting.sent + 1) else {
                self.waiting.swap_remove(at);
                continue;
            };
            if missing == Missing::Nothing {
                self.waiting.swap_remove(at);
                continue;
            }
            waiting.sent += 1;
            waiting.due = now + *wait;
            at += 1;
            // Only once: the SYN may be forged.
            if missing == Missing::SynAck && std::mem::replace(&mut waiting.syn_ack_repeated, true)
            {
                continue;
            }
            let texts = texts.get(&waiting.dialog.generation(), 0)?;
            if let Some((frame, length)) = waiting.dialog.frame(missing, &texts) {
                frames.push(RetransmitFrame {
                    interface: waiting.dialog.interface,
                    bytes: frame[..length].to_vec(),
                });
            }
        }
        Ok(frames)
    }
}
