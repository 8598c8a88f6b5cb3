//! Checks of DNS: whether an MX record of a domain points to this host, which RFC 1846 section
//! 4.3 forbids, and what a domain without mail publishes.

use std::net::IpAddr;

use futures_util::{StreamExt as _, future::join_all, stream};

use super::{
    domain::{Domain, Exchange, Reason, Records, Resolver},
    finding::{Check, CheckResult, Finding},
    host::{Host, plain_domain},
};
use crate::config::Relay;

/// Addresses whose names are looked up.
const ADDRESSES_MAX: usize = 8;
/// Names that one address has.
const NAMES_MAX: usize = 4;
/// Domains beside those of `--domain`.
const DOMAINS_MAX: usize = 32;
/// Domains that mail has arrived for: those that matter most.
const ARRIVED_MAX: usize = 32;
/// Domains at a time.
const DOMAINS_AT_ONCE: usize = 8;

/// By which a mail exchanger is recognised as this host.
struct ThisHost<'a> {
    name: &'a str,
    addresses: &'a [IpAddr],
    relay: Option<&'a Relay>,
}

impl ThisHost<'_> {
    fn has(&self, addresses: &Records<IpAddr>) -> bool {
        let mut addresses = addresses.records().iter();
        addresses.any(|address| self.addresses.contains(address))
    }

    fn is(&self, exchange: &Exchange) -> bool {
        exchange.name.eq_ignore_ascii_case(self.name) || self.has(&exchange.addresses)
    }

    /// Whether `[relay]` lists the domain: its mail comes here on purpose, to be refused.
    fn relays(&self, domain: &str) -> bool {
        self.relay.is_some_and(|relay| {
            relay
                .domains
                .iter()
                .any(|of| match of.name.strip_prefix("*.") {
                    Some(of) => domain
                        .strip_suffix(of)
                        .is_some_and(|head| head.ends_with('.')),
                    None => of.name == domain,
                })
        })
    }
}

pub(super) async fn check(host: &Host, asked: &[String]) -> Vec<Finding> {
    let resolver = match Resolver::of_system() {
        Ok(resolver) => resolver,
        Err(error) => {
            let finding = Finding::unseen(
                Check::Mx,
                format!("/etc/resolv.conf names no usable name server: {error}"),
                "nameserver ADDRESS, in /etc/resolv.conf",
            );
            return vec![finding];
        }
    };
    let name = host.name.as_str().to_ascii_lowercase();
    let mut domains = wanted(&resolver, &name, &host.addresses, asked).await;
    domains.truncate(DOMAINS_MAX + asked.len());
    for (domain, reason) in arrived(host) {
        if !domains.iter().any(|(known, _)| *known == domain) {
            domains.push((domain, reason));
        }
    }
    let domains: Vec<Domain> = stream::iter(domains)
        .map(|(name, reason)| resolver.domain(name, reason))
        .buffered(DOMAINS_AT_ONCE)
        .collect()
        .await;
    let own = ThisHost {
        name: &name,
        addresses: &host.addresses,
        relay: host.config.relay.as_deref(),
    };
    let mut findings = Vec::new();
    let mut elsewhere = 0;
    for domain in &domains {
        let finding = mx(domain, &own);
        let arrived = matches!(domain.reason, Reason::Arrived(_));
        match arrived && finding.result == CheckResult::Ok {
            true => elsewhere += 1,
            false => findings.push(finding),
        }
    }
    if elsewhere > 0 {
        let found = format!("domains that mail arrived for and whose MX is not here: {elsewhere}");
        findings.push(Finding::ok(Check::Mx, found));
    }
    if findings.is_empty() {
        findings.push(Finding::skip(Check::Mx, "the host has no name to look up"));
    }
    let asked: Vec<_> = domains
        .iter()
        .filter(|domain| domain.reason == Reason::Asked)
        .collect();
    findings.extend(asked.iter().map(|domain| null_mx(domain, &own)));
    findings.extend(asked.iter().map(|domain| spf(domain, &own)));
    if asked.is_empty() {
        for check in [Check::NullMx, Check::Spf] {
            findings.push(Finding::skip(check, "checked with --domain NAME only"));
        }
    }
    findings
}

/// The domains to check, each once: those of `--domain`, the name of the greeting, the names
/// of the addresses, and the domains above these.
async fn wanted(
    resolver: &Resolver,
    name: &str,
    addresses: &[IpAddr],
    asked: &[String],
) -> Vec<(String, Reason)> {
    let mut wanted: Vec<(String, Reason)> = Vec::new();
    let mut add = |name: String, reason| {
        if !wanted.iter().any(|(known, _)| *known == name) {
            wanted.push((name, reason));
        }
    };
    for domain in asked {
        add(domain.clone(), Reason::Asked);
    }
    let mut names = Vec::new();
    if !name.starts_with('[') {
        names.push((name.to_owned(), Reason::Name));
    }
    let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
    let pointers = join_all(addresses.iter().map(|&address| resolver.names(address))).await;
    for (address, found) in addresses.iter().zip(&pointers) {
        for name in found.records().iter().take(NAMES_MAX) {
            names.push((name.clone(), Reason::Pointer(*address)));
        }
    }
    for (name, reason) in names {
        add(name.clone(), reason);
        for parent in parents(&name) {
            add(parent.to_owned(), Reason::Parent(name.clone()));
        }
    }
    wanted
}

/// The domains that mail has arrived for, from the running agent.
fn arrived(host: &Host) -> Vec<(String, Reason)> {
    let domains = host
        .status
        .iter()
        .flat_map(|status| &status.foreign_domains);
    let named = domains.filter_map(|domain| {
        // The name is from the network.
        let name = plain_domain(&domain.domain).ok()?;
        Some((name, Reason::Arrived(domain.networks)))
    });
    named.take(ARRIVED_MAX).collect()
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To this mail exchanger, another host.
    Elsewhere(String),
    /// To this host.
    Here,
    /// The domain has a null MX: it takes no mail.
    NullMx,
    /// The domain does not exist, or has no address.
    Nowhere,
    /// The name servers did not say, and why.
    Unknown(String),
}

/// Where mail for a domain goes.
pub(super) async fn destination_of(host: &Host, domain: &str) -> Destination {
    let resolver = match Resolver::of_system() {
        Ok(resolver) => resolver,
        Err(error) => return Destination::Unknown(error.to_string()),
    };
    let name = host.name.as_str().to_ascii_lowercase();
    let own = ThisHost {
        name: &name,
        addresses: &host.addresses,
        relay: None,
    };
    let domain = resolver.domain(domain.to_owned(), Reason::Arrived(0)).await;
    destination(&domain, &own)
}

fn destination(domain: &Domain, own: &ThisHost<'_>) -> Destination {
    match (&domain.exchanges, &domain.addresses) {
        (Records::Unknown(error), _) | (Records::None, Records::Unknown(error)) => {
            Destination::Unknown(error.clone())
        }
        (Records::None, Records::None) => Destination::Nowhere,
        (Records::None, _) if own.has(&domain.addresses) || domain.name == own.name => {
            Destination::Here
        }
        (Records::None, Records::Found(_)) => Destination::Elsewhere(domain.name.clone()),
        (Records::Found(exchanges), _) => match elsewhere(domain, own) {
            Some(exchange) => Destination::Elsewhere(exchange.name.clone()),
            None if exchanges.iter().all(Exchange::is_null) => Destination::NullMx,
            None => Destination::Here,
        },
    }
}

/// The domains above a name, of two labels or more.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(name), |name| parent(name)).filter(|parent| parent.contains('.'))
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

fn mx(domain: &Domain, own: &ThisHost<'_>) -> Finding {
    let check = Check::Mx;
    let Domain { name, .. } = domain;
    let why = match &domain.reason {
        Reason::Name => "the name of the greeting".to_owned(),
        Reason::Parent(of) => format!("which {of} is below"),
        Reason::Pointer(address) => format!("the name of {address}"),
        Reason::Arrived(1) => "which mail arrived for, from 1 network".to_owned(),
        Reason::Arrived(networks) => format!("which mail arrived for, from {networks} networks"),
        Reason::Asked => "asked for".to_owned(),
    };
    let exchanges = match &domain.exchanges {
        Records::Unknown(error) => {
            return Finding::unseen(
                check,
                format!("{name}, {why}: {error}"),
                format!("dig MX {name}"),
            );
        }
        Records::None if own.has(&domain.addresses) => return implicit(domain, &why, own),
        Records::None => return Finding::ok(check, format!("{name}, {why}: has no MX")),
        Records::Found(exchanges) => exchanges,
    };
    let mine: Vec<_> = exchanges
        .iter()
        .filter(|exchange| own.is(exchange))
        .map(|exchange| {
            let Exchange {
                preference, name, ..
            } = exchange;
            format!("MX {preference} {name}.")
        })
        .collect();
    if mine.is_empty() {
        let unknown = exchanges
            .iter()
            .find_map(|exchange| match &exchange.addresses {
                Records::Unknown(error) => Some(format!("{}: {error}", exchange.name)),
                _ => None,
            });
        return match unknown {
            Some(error) => Finding::unseen(
                check,
                format!("{name}, {why}: whether its MX is this host: {error}"),
                format!("dig MX {name}"),
            ),
            None if exchanges.iter().all(Exchange::is_null) => {
                Finding::ok(check, format!("{name}, {why}: has a null MX"))
            }
            None => Finding::ok(check, format!("{name}, {why}: its MX is another host")),
        };
    }
    let mine = mine.join(", ");
    if own.relays(name) {
        return Finding::ok(
            check,
            format!("{name}, {why}: {mine} is this host, as [relay] says"),
        );
    }
    Finding::fail(
        check,
        format!(
            "{name}, {why}: {mine} is this host, so that its mail is refused (RFC 1846 section 4.3)"
        ),
        format!("remove that record; or, if {name} takes no mail: [relay] domains = [\"{name}\"]"),
    )
}

/// Without an MX, mail goes to the domain's own address (RFC 5321 section 5.1).
fn implicit(domain: &Domain, why: &str, own: &ThisHost<'_>) -> Finding {
    let Domain { name, .. } = domain;
    let found = format!("{name}, {why}: has no MX, and this address: its mail is refused here");
    let hosts = matches!(domain.reason, Reason::Name | Reason::Pointer(_));
    let remedy = format!("if it takes no mail: {name}. IN MX 0 .; else its real MX");
    match domain.reason {
        _ if hosts || own.relays(name) => Finding::ok(Check::Mx, found),
        Reason::Arrived(_) => Finding::warn(
            Check::Mx,
            found,
            format!("{remedy}; if it is another name of this host: aliases = [\"{name}\"]"),
        ),
        _ => Finding::warn(Check::Mx, found, remedy),
    }
}

/// A mail exchanger of the domain that is another host.
fn elsewhere<'a>(domain: &'a Domain, own: &ThisHost<'_>) -> Option<&'a Exchange> {
    let mut exchanges = domain.exchanges.records().iter();
    exchanges.find(|exchange| !exchange.is_null() && !own.is(exchange))
}

fn null_mx(domain: &Domain, own: &ThisHost<'_>) -> Finding {
    let check = Check::NullMx;
    let Domain { name, .. } = domain;
    let record = format!("{name}. IN MX 0 .");
    let exchanges = match &domain.exchanges {
        Records::Unknown(error) => {
            return Finding::unseen(check, format!("{name}: {error}"), format!("dig MX {name}"));
        }
        known => known.records(),
    };
    let null = exchanges.iter().any(Exchange::is_null);
    if null && exchanges.iter().all(Exchange::is_null) {
        return Finding::ok(check, format!("{name} has a null MX"));
    }
    if null {
        return Finding::fail(
            check,
            format!("{name} has a null MX beside others (RFC 7505 section 3)"),
            format!("keep only one kind; for a domain without mail: {record}"),
        );
    }
    if let Some(exchange) = elsewhere(domain, own) {
        return Finding::skip(
            check,
            format!("{name} has its mail taken by {}", exchange.name),
        );
    }
    Finding::warn(
        check,
        format!("{name} does not say that it takes no mail (RFC 7505)"),
        record,
    )
}

fn spf(domain: &Domain, own: &ThisHost<'_>) -> Finding {
    let check = Check::Spf;
    let Domain { name, .. } = domain;
    let record = format!("{name}. IN TXT \"v=spf1 -all\"");
    if let Records::Unknown(error) = &domain.texts {
        return Finding::unseen(check, format!("{name}: {error}"), format!("dig TXT {name}"));
    }
    if let Some(exchange) = elsewhere(domain, own) {
        return Finding::skip(
            check,
            format!("{name} has its mail taken by {}", exchange.name),
        );
    }
    let is_spf = |text: &&Vec<u8>| {
        let text = text.to_ascii_lowercase();
        text == b"v=spf1" || text.starts_with(b"v=spf1 ")
    };
    let records: Vec<_> = domain.texts.records().iter().filter(is_spf).collect();
    match records[..] {
        [] => Finding::warn(
            check,
            format!("{name} does not say that it sends no mail"),
            record,
        ),
        [only] if only.eq_ignore_ascii_case(b"v=spf1 -all") => {
            Finding::ok(check, format!("{name} says that it sends no mail"))
        }
        [other] => Finding::warn(
            check,
            format!(
                "{name} says that some may send mail: \"{}\"",
                other.escape_ascii()
            ),
            format!("if it sends none: {record}"),
        ),
        _ => Finding::fail(
            check,
            format!(
                "{name} has {} SPF records, which counts as none",
                records.len()
            ),
            format!("only one of them: {record}"),
        ),
    }
}

#[cfg(test)]
mod tests;
