//! Other domains that mail arrives for.

use serde::{Deserialize, Serialize};

use crate::{
    smtp::{ForeignDomain, ForeignDomains},
    text::{ascii, duration, plural},
};

/// Domains in a status: those that matter most.
const DOMAINS_MAX: usize = 128;
/// Domains in the text.
const SHOWN_MAX: usize = 5;
/// Mail arrives now for a domain whose last recipient is not older than this.
const NOW_SECS: u64 = 24 * 3600;

/// A domain other than this host's names that mail has arrived for. If an MX record of it
/// points here, its mail is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignDomainStatus {
    /// Its name, in A-labels.
    pub domain: String,
    /// Networks (/24, /48) that sent to it; 8 means 8 or more.
    pub networks: u64,
    /// Recipients that were refused.
    pub recipients: u64,
    /// Seconds since its first recipient.
    pub first_seen_secs: u64,
    /// Seconds since its last recipient.
    pub last_seen_secs: u64,
    /// Whether this is mail, not a test for an open relay.
    pub suspect: bool,
}

/// The domains, those that matter most first.
pub fn foreign_domains(domains: &ForeignDomains, now: u32) -> Vec<ForeignDomainStatus> {
    let list = domains.list(now).into_iter().take(DOMAINS_MAX);
    let since = |time: u32| u64::from(now.saturating_sub(time));
    list.map(|domain| {
        let ForeignDomain {
            name,
            networks,
            recipients,
            first,
            last,
            suspect,
            peer: _,
        } = domain;
        ForeignDomainStatus {
            domain: name,
            networks: networks as u64,
            recipients,
            first_seen_secs: since(first),
            last_seen_secs: since(last),
            suspect,
        }
    })
    .collect()
}

/// Number of domains that mail arrives for now, without tests for an open relay.
pub fn suspects(domains: &[ForeignDomainStatus]) -> usize {
    let now = |domain: &&ForeignDomainStatus| domain.suspect && domain.last_seen_secs < NOW_SECS;
    domains.iter().filter(now).count()
}

/// A line for each of the first suspects, and what to do; empty if there are none.
pub(super) fn about(domains: &[ForeignDomainStatus]) -> Vec<String> {
    let suspects: Vec<_> = domains.iter().filter(|domain| domain.suspect).collect();
    let mut lines: Vec<_> = suspects
        .iter()
        .take(SHOWN_MAX)
        .map(|domain| {
            format!(
                "{}: {} from {}, last {} ago",
                ascii(&domain.domain),
                plural(domain.recipients, "recipient"),
                plural(domain.networks, "network"),
                duration(domain.last_seen_secs)
            )
        })
        .collect();
    if suspects.len() > SHOWN_MAX {
        lines.push(format!(
            "and {} more: status --json has them",
            suspects.len() - SHOWN_MAX
        ));
    }
    if !lines.is_empty() {
        lines.push("is this host their MX? nomail-agent doctor checks that".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_are_shown_and_probes_are_not() {
        let domain = |name: &str, networks, suspect| ForeignDomainStatus {
            domain: name.to_owned(),
            networks,
            recipients: 1200,
            first_seen_secs: 2 * NOW_SECS,
            last_seen_secs: 61,
            suspect,
        };
        assert!(about(&[domain("probe.example", 1, false)]).is_empty());
        let mut domains = vec![domain("a.example", 3, true), domain("p.example", 1, false)];
        assert_eq!(
            about(&domains),
            [
                "a.example: 1,200 recipients from 3 networks, last 1m01s ago",
                "is this host their MX? nomail-agent doctor checks that",
            ]
        );
        assert_eq!(suspects(&domains), 1);
        domains[0].last_seen_secs = NOW_SECS;
        assert_eq!(suspects(&domains), 0);
        domains.extend((0..7).map(|_| domain("\u{1b}.example", 1, true)));
        let lines = about(&domains);
        assert_eq!(lines.len(), SHOWN_MAX + 2);
        assert_eq!(lines[SHOWN_MAX], "and 3 more: status --json has them");
        assert!(lines[1].starts_with("\\u{1b}.example: 1,200 recipients from 1 network,"));
    }

    #[test]
    fn a_status_is_bounded() {
        let mut domains = ForeignDomains::default();
        for number in 0..200_u32 {
            let peer = std::net::Ipv4Addr::from_bits(number << 8).into();
            domains.record(format!("{number}.example").as_bytes(), peer, 1000, true);
        }
        let shown = foreign_domains(&domains, 1010);
        assert_eq!(shown.len(), DOMAINS_MAX);
        assert_eq!(
            (shown[0].first_seen_secs, shown[0].last_seen_secs),
            (10, 10)
        );
    }
}
