//! Log lines of single events, each kind with a rate limit.

use std::{net::IpAddr, time::Instant};

use log::{debug, info};

use crate::line_limit::LineLimiter;

/// Bytes from a peer that one line shows at most.
const SHOWN_MAX: usize = 256;

/// The limits of both kinds of line.
#[derive(Debug)]
pub(super) struct LineLimits {
    details: LineLimiter,
    envelopes: LineLimiter,
}

impl LineLimits {
    pub(super) fn new() -> Self {
        Self {
            details: LineLimiter::default(),
            envelopes: LineLimiter::default(),
        }
    }

    /// Logs a line at `-v`.
    pub(super) fn detail(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if log::log_enabled!(log::Level::Debug)
            && let Some(skipped) = self.details.admit(now)
        {
            debug!("{}{skipped}", line());
        }
    }

    /// Logs a sender or recipient, for `log.envelope`.
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

/// Returns bytes from the network as printable ASCII.
fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(SHOWN_MAX);
    bytes[..end].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_peers_are_escaped_and_cut() {
        assert_eq!(shown(b"a\r\n\x1b[31m\xff"), "a\\r\\n\\x1b[31m\\xff");
        assert_eq!(shown(&[b'a'; 1000]).len(), SHOWN_MAX);
    }
}
