//! Warnings of mail that arrives for domains of other hosts.

use log::warn;

use crate::smtp::{ForeignDomain, SmtpThread, unix_now};

/// Logs the warnings that are due.
pub(super) fn warn_of_due(responder: &SmtpThread) {
    let now = unix_now();
    for domain in responder.with_foreign_domains(|domains| domains.take_due(now)) {
        warn_of(&domain);
    }
}

fn warn_of(domain: &ForeignDomain) {
    let ForeignDomain { name, networks, .. } = domain;
    let source = domain.peer.map(|peer| peer.to_string());
    let from = match (&source, networks) {
        (Some(peer), 1) => format!("from {peer}"),
        (Some(peer), _) => format!("from {networks} networks, last from {peer}"),
        (None, _) => format!("from {networks} networks"),
    };
    warn!(
        event = "foreign_domain", domain = name.as_str(), networks = *networks,
        recipients = domain.recipients, source = source.as_deref();
        "mail for {name} arrives here ({from}): is this host its MX? Then take it out of the \
         domain's MX records, or mail for it is lost (RFC 1846 section 4.3); `nomail-agent doctor` \
         looks"
    );
}
