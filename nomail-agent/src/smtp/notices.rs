//! Single events worth a line of the log, each kind with a bound.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use log::{debug, info, warn};
use lru::LruCache;

use crate::sample::Sample;

/// A domain is warned of again after this time.
const DOMAIN_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most domains that are warned of in that time.
const DOMAINS_MAX: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Most octets of what a peer has sent that one line repeats.
const SHOWN_MAX: usize = 256;

/// What was told of late.
#[derive(Debug)]
pub(super) struct Notices {
    /// Domains that mail has come for, and when that was told.
    domains: LruCache<Box<[u8]>, Instant>,
    details: Sample,
    envelopes: Sample,
}

impl Notices {
    pub(super) fn new() -> Self {
        Self {
            domains: LruCache::new(DOMAINS_MAX),
            details: Sample::default(),
            envelopes: Sample::default(),
        }
    }

    /// Mail for somebody else's domain has come: once a day for each, and not
    /// for more than [`DOMAINS_MAX`] of them, because who looks for an open
    /// relay makes up as many as he likes.
    pub(super) fn domain(&mut self, domain: &[u8], peer: IpAddr, now: Instant) {
        let domain = domain.strip_suffix(b".").unwrap_or(domain);
        let domain = domain.to_ascii_lowercase().into_boxed_slice();
        let due = |told: &Instant| now.duration_since(*told) >= DOMAIN_PAUSE;
        match self.domains.get(&domain) {
            Some(told) if !due(told) => return,
            Some(_) => {}
            None => {
                let oldest = self.domains.peek_lru().map(|(_, told)| *told);
                let full = self.domains.len() == DOMAINS_MAX.get();
                if full && !oldest.is_some_and(|told| due(&told)) {
                    return;
                }
            }
        }
        let shown = shown(&domain);
        warn!(
            event = "foreign_domain", domain = shown.as_str(), source:% = peer;
            "mail for {shown} arrives here (from {peer}): is this host its MX? Then take it out of \
             the domain's MX records, or mail for it is lost (RFC 1846 section 4.3)"
        );
        self.domains.push(domain, now);
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
    fn domains_are_told_once_a_day_and_not_without_end() {
        let peer = IpAddr::from([192, 0, 2, 1]);
        let begin = Instant::now();
        let mut notices = Notices::new();
        for number in 0..100 {
            for _ in 0..2 {
                notices.domain(format!("{number}.example").as_bytes(), peer, begin);
            }
        }
        assert_eq!(notices.domains.len(), DOMAINS_MAX.get());
        assert!(notices.domains.contains(&b"0.example"[..]));
        let tomorrow = begin + DOMAIN_PAUSE;
        notices.domain(b"new.EXAMPLE", peer, tomorrow);
        assert_eq!(notices.domains.peek(&b"new.example"[..]), Some(&tomorrow));
        assert_eq!(notices.domains.len(), DOMAINS_MAX.get());
    }

    #[test]
    fn what_peers_send_is_escaped_and_cut() {
        assert_eq!(shown(b"a\r\n\x1b[31m\xff"), "a\\r\\n\\x1b[31m\\xff");
        assert_eq!(shown(&[b'a'; 1000]).len(), SHOWN_MAX);
    }
}
