//! What name servers say of this host: whether any domain sends its mail here,
//! which RFC 1846 section 4.3 forbids, and what a domain without mail publishes.

use std::{
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::join_all, stream};
use hickory_resolver::{
    TokioResolver,
    config::ResolveHosts,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use tokio::time::timeout;

use super::{Check, Finding, Host, Outcome, plain_domain};
use crate::config::Relay;

/// Longest for an answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest for all of them together.
const ALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses whose names are looked up.
const ADDRESSES_MAX: usize = 8;
/// Names that one address has.
const NAMES_MAX: usize = 4;
/// Domains that are looked at without having been asked for.
const DOMAINS_MAX: usize = 32;
/// Domains that mail has arrived for: those that matter most.
const ARRIVED_MAX: usize = 32;
/// Domains at a time.
const DOMAINS_AT_ONCE: usize = 8;
/// Mail exchangers of a domain.
const EXCHANGES_MAX: usize = 16;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told<T> {
    /// There are such records.
    Some(Vec<T>),
    /// There are none, or no such name.
    None,
    /// Nobody knows, and why.
    Unknown(String),
}

impl<T> Told<T> {
    fn records(&self) -> &[T] {
        match self {
            Self::Some(records) => records,
            Self::None | Self::Unknown(_) => &[],
        }
    }
}

/// Why a domain is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// It is the name of the greeting.
    Name,
    /// That is below it.
    Parent(String),
    /// An address of the host has this name.
    Pointer(IpAddr),
    /// Mail for it has arrived, from so many networks.
    Arrived(u64),
    Asked,
}

/// A domain, in lower case and without a final dot, and what is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Domain {
    name: String,
    reason: Reason,
    exchanges: Told<Exchange>,
    /// Those of the domain itself, to which mail goes where there is no MX.
    addresses: Told<IpAddr>,
    /// Only of a domain that was asked for.
    texts: Told<Vec<u8>>,
}

/// An MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exchange {
    preference: u16,
    /// Without a final dot; the empty name is a null MX.
    name: String,
    addresses: Told<IpAddr>,
}

impl Exchange {
    fn is_null(&self) -> bool {
        self.name.is_empty()
    }
}

/// What tells that an exchange is this host.
struct Own<'a> {
    name: &'a str,
    addresses: &'a [IpAddr],
    relay: Option<&'a Relay>,
}

impl Own<'_> {
    fn has(&self, addresses: &Told<IpAddr>) -> bool {
        let mut addresses = addresses.records().iter();
        addresses.any(|address| self.addresses.contains(address))
    }

    fn is(&self, exchange: &Exchange) -> bool {
        exchange.name.eq_ignore_ascii_case(self.name) || self.has(&exchange.addresses)
    }

    /// Whether mail for the domain is to come here, to be refused.
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
    let own = Own {
        name: &name,
        addresses: &host.addresses,
        relay: host.config.relay.as_deref(),
    };
    let mut findings = Vec::new();
    let mut elsewhere = 0;
    for domain in &domains {
        let finding = mx(domain, &own);
        let arrived = matches!(domain.reason, Reason::Arrived(_));
        match arrived && finding.result == Outcome::Ok {
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
            findings.push(Finding::skip(check, "only looked at with --domain NAME"));
        }
    }
    findings
}

/// The domains to look at, each once: those asked for, the name of the greeting,
/// those of the addresses, and what these are below.
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
    for (address, told) in addresses.iter().zip(&pointers) {
        for name in told.records().iter().take(NAMES_MAX) {
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

/// The domains that mail has arrived for, as the running agent says.
fn arrived(host: &Host) -> Vec<(String, Reason)> {
    let domains = host
        .status
        .iter()
        .flat_map(|status| &status.foreign_domains);
    let named = domains.filter_map(|domain| {
        // What an agent says may be anything.
        let name = plain_domain(&domain.domain).ok()?;
        Some((name, Reason::Arrived(domain.networks)))
    });
    named.take(ARRIVED_MAX).collect()
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To this host of others.
    Elsewhere(String),
    /// Here.
    Here,
    /// It says that it takes none.
    NullMx,
    /// There is no such domain, or it has no address.
    Nowhere,
    /// Why that could not be found out.
    Unknown(String),
}

/// Asks where mail for a domain goes.
pub(super) async fn destination_of(host: &Host, domain: &str) -> Destination {
    let resolver = match Resolver::of_system() {
        Ok(resolver) => resolver,
        Err(error) => return Destination::Unknown(error.to_string()),
    };
    let name = host.name.as_str().to_ascii_lowercase();
    let own = Own {
        name: &name,
        addresses: &host.addresses,
        relay: None,
    };
    let domain = resolver.domain(domain.to_owned(), Reason::Arrived(0)).await;
    destination(&domain, &own)
}

fn destination(domain: &Domain, own: &Own<'_>) -> Destination {
    match (&domain.exchanges, &domain.addresses) {
        (Told::Unknown(error), _) | (Told::None, Told::Unknown(error)) => {
            Destination::Unknown(error.clone())
        }
        (Told::None, Told::None) => Destination::Nowhere,
        (Told::None, _) if own.has(&domain.addresses) || domain.name == own.name => {
            Destination::Here
        }
        (Told::None, Told::Some(_)) => Destination::Elsewhere(domain.name.clone()),
        (Told::Some(exchanges), _) => match elsewhere(domain, own) {
            Some(exchange) => Destination::Elsewhere(exchange.name.clone()),
            None if exchanges.iter().all(Exchange::is_null) => Destination::NullMx,
            None => Destination::Here,
        },
    }
}

/// The domains that a name is below, of two labels and more.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(name), |name| parent(name)).filter(|parent| parent.contains('.'))
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

fn mx(domain: &Domain, own: &Own<'_>) -> Finding {
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
        Told::Unknown(error) => {
            return Finding::unseen(
                check,
                format!("{name}, {why}: {error}"),
                format!("dig MX {name}"),
            );
        }
        Told::None if own.has(&domain.addresses) => return implicit(domain, &why, own),
        Told::None => return Finding::ok(check, format!("{name}, {why}: has no MX")),
        Told::Some(exchanges) => exchanges,
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
                Told::Unknown(error) => Some(format!("{}: {error}", exchange.name)),
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
fn implicit(domain: &Domain, why: &str, own: &Own<'_>) -> Finding {
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

/// Whether somebody else takes the domain's mail.
fn elsewhere<'a>(domain: &'a Domain, own: &Own<'_>) -> Option<&'a Exchange> {
    let mut exchanges = domain.exchanges.records().iter();
    exchanges.find(|exchange| !exchange.is_null() && !own.is(exchange))
}

fn null_mx(domain: &Domain, own: &Own<'_>) -> Finding {
    let check = Check::NullMx;
    let Domain { name, .. } = domain;
    let record = format!("{name}. IN MX 0 .");
    let exchanges = match &domain.exchanges {
        Told::Unknown(error) => {
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

fn spf(domain: &Domain, own: &Own<'_>) -> Finding {
    let check = Check::Spf;
    let Domain { name, .. } = domain;
    let record = format!("{name}. IN TXT \"v=spf1 -all\"");
    if let Told::Unknown(error) = &domain.texts {
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

/// The system's name servers, and until when they are asked.
struct Resolver {
    resolver: TokioResolver,
    deadline: Instant,
}

impl Resolver {
    fn of_system() -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 1;
        // What senders see, not what this host alone does.
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self {
            resolver: builder.build()?,
            deadline: Instant::now() + ALL_TIMEOUT,
        })
    }

    async fn domain(&self, name: String, reason: Reason) -> Domain {
        let exchanges = async {
            match self.ask(&name, RecordType::MX, exchange_of).await {
                Told::Some(mut exchanges) => {
                    exchanges.sort_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
                    exchanges.truncate(EXCHANGES_MAX);
                    let addresses = exchanges.iter().map(|exchange| async {
                        match exchange.is_null() {
                            true => Told::None,
                            false => self.addresses(&exchange.name).await,
                        }
                    });
                    let addresses = join_all(addresses).await;
                    for (exchange, addresses) in exchanges.iter_mut().zip(addresses) {
                        exchange.addresses = addresses;
                    }
                    Told::Some(exchanges)
                }
                none => none,
            }
        };
        let texts = async {
            match reason {
                Reason::Asked => self.ask(&name, RecordType::TXT, text_of).await,
                _ => Told::None,
            }
        };
        let (exchanges, addresses, texts) = tokio::join!(exchanges, self.addresses(&name), texts);
        Domain {
            exchanges,
            addresses,
            texts,
            name,
            reason,
        }
    }

    async fn addresses(&self, name: &str) -> Told<IpAddr> {
        let (ipv4, ipv6) = tokio::join!(
            self.ask(name, RecordType::A, address_of),
            self.ask(name, RecordType::AAAA, address_of)
        );
        match (ipv4, ipv6) {
            (Told::Some(mut addresses), other) => {
                addresses.extend_from_slice(other.records());
                Told::Some(addresses)
            }
            (Told::Unknown(error), Told::None) => Told::Unknown(error),
            (_, other) => other,
        }
    }

    async fn names(&self, address: IpAddr) -> Told<String> {
        let name = Name::from(address);
        self.bounded(self.look_up(name, RecordType::PTR, &|record| match record {
            RData::PTR(name) => Some(shown(&name.0)),
            _ => None,
        }))
        .await
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        of: impl Fn(&RData) -> Option<T>,
    ) -> Told<T> {
        match Name::from_ascii(format!("{name}.")) {
            Ok(name) => self.bounded(self.look_up(name, kind, &of)).await,
            Err(error) => Told::Unknown(error.to_string().escape_default().to_string()),
        }
    }

    /// The library has its own time-outs, which it may use more than once.
    async fn bounded<T>(&self, told: impl Future<Output = Told<T>>) -> Told<T> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match timeout(QUERY_TIMEOUT.min(left), told).await {
            Ok(told) => told,
            Err(_) => Told::Unknown("the name server does not answer in time".to_owned()),
        }
    }

    async fn look_up<T>(
        &self,
        name: Name,
        kind: RecordType,
        of: &impl Fn(&RData) -> Option<T>,
    ) -> Told<T> {
        match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                let records = found.answers().iter();
                let records: Vec<_> = records.filter_map(|record| of(&record.data)).collect();
                match records.is_empty() {
                    true => Told::None,
                    false => Told::Some(records),
                }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(
                    none.response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                Told::None
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Told::Unknown(format!("the name server answers {}", none.response_code))
            }
            // It may repeat what the name server said.
            Err(error) => Told::Unknown(format!(
                "the name server cannot be asked: {}",
                error.to_string().escape_default()
            )),
        }
    }
}

/// A name in ASCII, what is no letter escaped, without its final dot.
fn shown(name: &Name) -> String {
    let name = name.to_ascii().to_ascii_lowercase();
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

fn exchange_of(record: &RData) -> Option<Exchange> {
    match record {
        RData::MX(mx) => Some(Exchange {
            preference: mx.preference,
            name: shown(&mx.exchange),
            addresses: Told::None,
        }),
        _ => None,
    }
}

fn address_of(record: &RData) -> Option<IpAddr> {
    match record {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

fn text_of(record: &RData) -> Option<Vec<u8>> {
    match record {
        RData::TXT(text) => Some(text.txt_data.concat()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "mailless.example.org";

    fn own(relay: Option<&Relay>) -> Own<'_> {
        const ADDRESSES: &[IpAddr] = &[IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];
        Own {
            name: OWN,
            addresses: ADDRESSES,
            relay,
        }
    }

    fn address(text: &str) -> Told<IpAddr> {
        Told::Some(vec![text.parse().unwrap()])
    }

    fn exchange(name: &str, addresses: Told<IpAddr>) -> Exchange {
        Exchange {
            preference: 10,
            name: name.to_owned(),
            addresses,
        }
    }

    fn domain(reason: Reason, exchanges: Told<Exchange>) -> Domain {
        Domain {
            name: "example.org".to_owned(),
            reason,
            exchanges,
            addresses: Told::None,
            texts: Told::None,
        }
    }

    fn below() -> Reason {
        Reason::Parent(OWN.to_owned())
    }

    #[test]
    fn parents_of_a_name() {
        let above: Vec<_> = parents("a.b.example.org").collect();
        assert_eq!(above, ["b.example.org", "example.org"]);
        assert_eq!(parents("example.org").count(), 0);
        assert_eq!(parents("org").count(), 0);
    }

    #[test]
    fn an_mx_that_is_this_host_fails() {
        let result = |exchanges| mx(&domain(below(), exchanges), &own(None)).result;
        let by_name = exchange("Mailless.Example.org", Told::None);
        let by_address = exchange("mx.example.org", address("192.0.2.1"));
        let other = exchange("mx.example.org", address("192.0.2.9"));
        let unknown = exchange("mx.example.org", Told::Unknown("late".to_owned()));
        let null = exchange("", Told::None);
        assert_eq!(
            result(Told::Some(vec![other.clone(), by_name.clone()])),
            Outcome::Fail
        );
        assert_eq!(result(Told::Some(vec![by_address])), Outcome::Fail);
        assert_eq!(result(Told::Some(vec![other])), Outcome::Ok);
        assert_eq!(result(Told::Some(vec![null])), Outcome::Ok);
        assert_eq!(result(Told::Some(vec![unknown])), Outcome::Skip);
        assert_eq!(result(Told::None), Outcome::Ok);
        assert_eq!(result(Told::Unknown("late".to_owned())), Outcome::Skip);
        let found = mx(&domain(below(), Told::Some(vec![by_name])), &own(None));
        assert!(
            found
                .found
                .contains("example.org, which mailless.example.org is below")
        );
        assert!(
            found
                .remedy
                .unwrap()
                .contains("[relay] domains = [\"example.org\"]")
        );
    }

    #[test]
    fn a_relay_is_an_mx_on_purpose() {
        let mut relay = Relay {
            domains: Vec::new(),
            code: crate::config::RelayCode::default(),
            text: String::new(),
            postmaster: None,
            files: Vec::new(),
            written: Vec::new(),
        };
        let mine = || {
            let exchanges = Told::Some(vec![exchange(OWN, Told::None)]);
            domain(Reason::Asked, exchanges)
        };
        assert_eq!(mx(&mine(), &own(Some(&relay))).result, Outcome::Fail);
        let mut listed = |name: &str| {
            relay.domains = vec![crate::config::RelayDomain {
                name: name.to_owned(),
                text: None,
            }];
            mx(&mine(), &own(Some(&relay))).result
        };
        assert_eq!(listed("example.org"), Outcome::Ok);
        assert_eq!(listed("*.org"), Outcome::Ok);
        assert_eq!(listed("*.example.org"), Outcome::Fail);
        assert_eq!(listed("example.net"), Outcome::Fail);
    }

    #[test]
    fn without_an_mx_the_address_counts() {
        let result = |reason| {
            let domain = Domain {
                addresses: address("192.0.2.1"),
                ..domain(reason, Told::None)
            };
            mx(&domain, &own(None)).result
        };
        assert_eq!(result(Reason::Name), Outcome::Ok);
        assert_eq!(
            result(Reason::Pointer("192.0.2.1".parse().unwrap())),
            Outcome::Ok
        );
        assert_eq!(result(below()), Outcome::Warn);
        assert_eq!(result(Reason::Arrived(2)), Outcome::Warn);
        assert_eq!(result(Reason::Asked), Outcome::Warn);
    }

    #[test]
    fn a_domain_that_mail_arrives_for_is_looked_at() {
        let result = |exchanges| mx(&domain(Reason::Arrived(3), exchanges), &own(None));
        let mine = result(Told::Some(vec![exchange(OWN, Told::None)]));
        assert_eq!(mine.result, Outcome::Fail);
        let expected = "example.org, which mail arrived for, from 3 networks: MX 10 ";
        assert!(mine.found.starts_with(expected), "{}", mine.found);
        let other = exchange("mx.example.org", address("192.0.2.9"));
        assert_eq!(result(Told::Some(vec![other])).result, Outcome::Ok);
    }

    #[test]
    fn destinations() {
        let of = |exchanges, addresses| {
            let domain = Domain {
                addresses,
                ..domain(Reason::Asked, exchanges)
            };
            destination(&domain, &own(None))
        };
        let other = || exchange("mx.example.org", address("192.0.2.9"));
        let mine = || exchange(OWN, Told::None);
        let elsewhere = |name: &str| Destination::Elsewhere(name.to_owned());
        let late = || "late".to_owned();
        assert_eq!(
            of(Told::Some(vec![mine(), other()]), Told::None),
            elsewhere("mx.example.org")
        );
        assert_eq!(of(Told::Some(vec![mine()]), Told::None), Destination::Here);
        let null = Told::Some(vec![exchange("", Told::None)]);
        assert_eq!(of(null, address("192.0.2.1")), Destination::NullMx);
        assert_eq!(of(Told::None, address("192.0.2.1")), Destination::Here);
        assert_eq!(
            of(Told::None, address("192.0.2.9")),
            elsewhere("example.org")
        );
        assert_eq!(of(Told::None, Told::None), Destination::Nowhere);
        assert_eq!(
            of(Told::Unknown(late()), Told::None),
            Destination::Unknown(late())
        );
    }

    #[test]
    fn null_mx_records() {
        let result = |exchanges| null_mx(&domain(Reason::Asked, exchanges), &own(None)).result;
        let null = || exchange("", Told::None);
        let other = || exchange("mx.example.org", address("192.0.2.9"));
        let mine = || exchange(OWN, Told::None);
        assert_eq!(result(Told::Some(vec![null()])), Outcome::Ok);
        assert_eq!(result(Told::Some(vec![null(), other()])), Outcome::Fail);
        assert_eq!(result(Told::Some(vec![other()])), Outcome::Skip);
        assert_eq!(result(Told::Some(vec![mine()])), Outcome::Warn);
        assert_eq!(result(Told::None), Outcome::Warn);
        assert_eq!(result(Told::Unknown("late".to_owned())), Outcome::Skip);
        let found = null_mx(&domain(Reason::Asked, Told::None), &own(None));
        assert_eq!(found.remedy.as_deref(), Some("example.org. IN MX 0 ."));
    }

    #[test]
    fn spf_records() {
        let finding = |texts: &[&[u8]]| {
            let texts = texts.iter().map(|text| text.to_vec()).collect();
            let domain = Domain {
                texts: Told::Some(texts),
                ..domain(Reason::Asked, Told::None)
            };
            spf(&domain, &own(None))
        };
        assert_eq!(finding(&[b"hello", b"v=spf1 -all"]).result, Outcome::Ok);
        assert_eq!(finding(&[b"V=SPF1 -ALL"]).result, Outcome::Ok);
        assert_eq!(finding(&[b"v=spf10 -all"]).result, Outcome::Warn);
        assert_eq!(
            finding(&[b"v=spf1 mx -all", b"v=spf1 -all"]).result,
            Outcome::Fail
        );
        let found = finding(&[b"v=spf1 \x1b[31m\xff"]);
        assert_eq!(found.result, Outcome::Warn);
        assert!(
            found.found.ends_with("\"v=spf1 \\x1b[31m\\xff\""),
            "{found:?}"
        );
        let domain = |texts, exchanges| Domain {
            texts,
            ..domain(Reason::Asked, exchanges)
        };
        let unknown = domain(Told::Unknown("late".to_owned()), Told::None);
        assert_eq!(spf(&unknown, &own(None)).result, Outcome::Skip);
        let other = Told::Some(vec![exchange("mx.example.org", Told::None)]);
        assert_eq!(
            spf(&domain(Told::None, other), &own(None)).result,
            Outcome::Skip
        );
        let none = spf(&domain(Told::None, Told::None), &own(None));
        assert_eq!(
            none.remedy.as_deref(),
            Some("example.org. IN TXT \"v=spf1 -all\"")
        );
    }

    #[test]
    fn names_are_escaped() {
        let name = Name::from_labels([&b"a\x1b[31m\xff.b"[..], b"Example"]).unwrap();
        let shown = shown(&name);
        assert!(shown.is_ascii() && !shown.contains('\u{1b}'), "{shown}");
        assert_eq!(super::shown(&Name::root()), "");
    }
}
