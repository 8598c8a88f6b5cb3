//! Which greetings are to be sent again: the agent is the clock of [`nomail_common::stateless::retransmit`].

use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, RingBuf};
use nomail_common::{
    abi::Texts,
    stateless::dialog::Standing,
    stateless::retransmit::{Owed, Owing},
};

use super::BpfError;

/// Most dialogs that are waited for at once. More are not looked after.
const OWED_MAX: usize = 1024;
/// How long after the SYN-ACK, and after each frame that was sent again, the client is
/// waited for. Then it is given up.
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// A frame to be sent, from its hardware addresses on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedFrame {
    /// Index of the interface that it leaves by.
    pub interface: u32,
    /// The frame.
    pub bytes: Vec<u8>,
}

struct Waiting {
    owed: Owed,
    sent: usize,
    due: Instant,
    syn_ack_repeated: bool,
}

/// The dialogs whose greeting is owed.
pub(super) struct Debts {
    ring: RingBuf<MapData>,
    dialogs: Array<MapData, u64>,
    waiting: Vec<Waiting>,
}

impl Debts {
    pub(super) fn new(ring: RingBuf<MapData>, dialogs: Array<MapData, u64>) -> Self {
        Self {
            ring,
            dialogs,
            waiting: Vec::new(),
        }
    }

    /// The frames that are due at `now`. After an error the others are due the next time.
    pub(super) fn due(
        &mut self,
        texts: &Array<MapData, Texts>,
        now: Instant,
    ) -> Result<Vec<OwedFrame>, BpfError> {
        while let Some(item) = self.ring.next() {
            if let Ok(octets) = <&[u8; _]>::try_from(&item[..])
                && self.waiting.len() < OWED_MAX
            {
                self.waiting.push(Waiting {
                    owed: Owed::from_octets(octets),
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
            let found = Standing(self.dialogs.get(&waiting.owed.index, 0)?);
            let owing = waiting.owed.owes(found);
            let Some(wait) = WAITS.get(waiting.sent + 1) else {
                self.waiting.swap_remove(at);
                continue;
            };
            if owing == Owing::Nothing {
                self.waiting.swap_remove(at);
                continue;
            }
            waiting.sent += 1;
            waiting.due = now + *wait;
            at += 1;
            // Once only: the client has yet to show that it is there.
            if owing == Owing::SynAck && std::mem::replace(&mut waiting.syn_ack_repeated, true) {
                continue;
            }
            let texts = texts.get(&waiting.owed.generation(), 0)?;
            if let Some((frame, length)) = waiting.owed.frame(owing, &texts) {
                frames.push(OwedFrame {
                    interface: waiting.owed.interface,
                    bytes: frame[..length].to_vec(),
                });
            }
        }
        Ok(frames)
    }
}
