//! Sends greetings of XDP again that their clients have not acknowledged: XDP has no timer.

use anyhow::anyhow;
use log::{info, warn};

use super::{attach::AttachedGuard, root::Root};
use crate::net::FrameSocket;

/// The socket to retransmit with, where XDP serves.
#[derive(Debug, Default)]
pub(super) struct Retransmitter {
    socket: Option<FrameSocket>,
    sent: u64,
    /// The last try failed, which was logged.
    failing: bool,
}

impl Retransmitter {
    /// Opens the socket, which needs root. Without it XDP serves all the same.
    pub(super) fn open(_: &Root) -> Self {
        let opened = FrameSocket::open().inspect_err(|error| {
            warn!(
                "greetings of XDP that are lost will not be sent again: no packet socket: {error}"
            );
        });
        Self {
            socket: opened.ok(),
            ..Self::default()
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what is due. To be called once a second.
    pub(super) fn retransmit(&mut self, guard: &mut AttachedGuard) {
        let Some(socket) = &self.socket else {
            return;
        };
        let (before, mut failure) = (self.sent, None);
        match guard.retransmissions() {
            Ok(frames) => {
                for frame in frames {
                    match socket.send(frame.interface, &frame.bytes) {
                        Ok(()) => self.sent += 1,
                        Err(error) => failure = Some(anyhow!(error)),
                    }
                }
            }
            Err(error) => failure = Some(error.into()),
        }
        match failure {
            Some(error) if !std::mem::replace(&mut self.failing, true) => warn!(
                "cannot retransmit greetings that XDP sent: {error:#}; clients that lost one wait \
                 in vain"
            ),
            None if self.sent > before && std::mem::take(&mut self.failing) => {
                info!("greetings that XDP sent are retransmitted again");
            }
            _ => {}
        }
    }
}
