//! Single events worth a line of the log, each kind with a bound.

use std::{net::IpAddr, time::Instant};

use log::{debug, info};

use crate::sample::Sample;

/// Most octets of what a peer has sent that one line repeats.
const SHOWN_MAX: usize = 256;

/// What was told of late.
#[derive(Debug)]
pub(super) struct Notices {
    details: Sample,
    envelopes: Sample,
}

impl Notices {
    pub(super) fn new() -> Self {
        Self {
            details: Sample::default(),
            envelopes: Sample::default(),
        }
    }

    /// A line at `-v`.
    pub(super) fn detail(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if log::log_enabled!(log::Level::Debug)
            && let Some(skipped) = self.details.admit(now)
        {
            debug!("{}{skipped}", line());
        }
    }

    /// A line of the envelope, for whom asked for them.
    pub(super) fn envelope(&mut self, now: Instant, peer: IpAddr, command: &str, path: &[u8]) {
        if let Some(skipped) = self.envelopes.admit(now) {
            let shown = shown(path);
            info!(
                event = "envelope", source:% = peer, command, path = shown.as_str();
                "{peer}: {command}:<{shown}>{skipped}"
            );
        }
    }
}

/// Octets from the network as printable ASCII.
pub(super) fn shown(octets: &[u8]) -> String {
    let end = octets.len().min(SHOWN_MAX);
    octets[..end].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_send_is_escaped_and_cut() {
        assert_eq!(shown(b"a\r\n\x1b[31m\xff"), "a\\r\\n\\x1b[31m\\xff");
        assert_eq!(shown(&[b'a'; 1000]).len(), SHOWN_MAX);
    }
}
