//! Greetings that are sent again: the agent is the clock of [`nomail_common::owed`].

use std::time::{Duration, Instant};

use aya::{
    maps::{Array, MapData, RingBuf},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use nomail_common::{owed::Owed, responder::Standing};

use super::BpfError;

/// Most dialogs that are waited for at once. More are not looked after.
const OWED_MAX: usize = 1024;
/// How long after the SYN-ACK, and after each greeting that was sent again, the client is
/// waited for. Then it is given up.
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

struct Waiting {
    owed: Owed,
    sent: usize,
    due: Instant,
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

    /// Has `responder` send the greetings again that are due, and gives how many. After an
    /// error the others are sent the next time.
    pub(super) fn pay(&mut self, responder: &Xdp, now: Instant) -> Result<u64, BpfError> {
        while let Some(item) = self.ring.next() {
            if let Ok(octets) = <&[u8; _]>::try_from(&item[..])
                && self.waiting.len() < OWED_MAX
            {
                self.waiting.push(Waiting {
                    owed: Owed::from_octets(octets),
                    sent: 0,
                    due: now + WAITS[0],
                });
            }
        }
        let mut sent = 0;
        let mut at = 0;
        while let Some(waiting) = self.waiting.get_mut(at) {
            if waiting.due > now {
                at += 1;
                continue;
            }
            let found = Standing(self.dialogs.get(&waiting.owed.index, 0)?);
            let wait = WAITS.get(waiting.sent + 1);
            if let Some(wait) = wait.filter(|_| waiting.owed.is_owed(found)) {
                waiting.sent += 1;
                waiting.due = now + *wait;
                at += 1;
                send(responder, &self.waiting[at - 1].owed)?;
                sent += 1;
            } else {
                self.waiting.swap_remove(at);
            }
        }
        Ok(sent)
    }
}

/// The context of a program that is run (`xdp_md` of the kernel): data, its end, metadata,
/// ingress interface, queue, egress interface.
pub(super) fn context(length: usize, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (place, word) in context
        .chunks_exact_mut(4)
        .zip([0, length as u32, 0, interface])
    {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    context
}

/// Runs the program as if the client's packet had come over its interface: what it answers
/// leaves by that.
fn send(responder: &Xdp, owed: &Owed) -> Result<(), BpfError> {
    let Some((frame, length)) = owed.last_of_handshake() else {
        return Ok(());
    };
    responder.test_run(TestRunOptions {
        data_in: Some(&frame[..length]),
        ctx_in: Some(&context(length, owed.interface)),
        attrs: TestRunAttrs::new().xdp_live_frames(1),
        ..TestRunOptions::default()
    })?;
    Ok(())
}
