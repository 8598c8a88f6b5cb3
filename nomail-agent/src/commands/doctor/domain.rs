//! Domains, and what name servers say of them.

use std::{
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
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

/// Longest wait for one answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for all answers together.
const ALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Mail exchangers of a domain.
const EXCHANGES_MAX: usize = 16;

/// The records of one kind that a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Records<T> {
    /// There are such records.
    Found(Vec<T>),
    /// There are none, or no such name.
    None,
    /// Why the name servers did not say.
    Unknown(String),
}

impl<T> Records<T> {
    pub(super) fn records(&self) -> &[T] {
        match self {
            Self::Found(records) => records,
            Self::None | Self::Unknown(_) => &[],
        }
    }
}

/// Why a domain is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The first word of the greeting.
    Name,
    /// A domain that this name is below.
    Parent(String),
    /// The name of this address of the host.
    Pointer(IpAddr),
    /// Mail for it has arrived, from this number of networks.
    Arrived(u64),
    /// `--domain` names it.
    Asked,
}

/// A domain and its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    /// In lower case, without a final dot.
    pub(super) name: String,
    pub(super) reason: Reason,
    pub(super) exchanges: Records<Exchange>,
    /// Those of the domain itself, which get its mail if there is no MX.
    pub(super) addresses: Records<IpAddr>,
    /// Only of [`Reason::Asked`].
    pub(super) texts: Records<Vec<u8>>,
}

/// An MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) preference: u16,
    /// Without a final dot; the empty name is a null MX.
    pub(super) name: String,
    pub(super) addresses: Records<IpAddr>,
}

impl Exchange {
    pub(super) fn is_null(&self) -> bool {
        self.name.is_empty()
    }
}

/// The system's name servers, and when to stop asking them.
pub(super) struct Resolver {
    resolver: TokioResolver,
    deadline: Instant,
}

impl Resolver {
    pub(super) fn of_system() -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 1;
        // Senders do not see this host's file.
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self {
            resolver: builder.build()?,
            deadline: Instant::now() + ALL_TIMEOUT,
        })
    }

    pub(super) async fn domain(&self, name: String, reason: Reason) -> Domain {
        let exchanges = async {
            match self.ask(&name, RecordType::MX, exchange_of).await {
                Records::Found(mut exchanges) => {
                    exchanges.sort_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
                    exchanges.truncate(EXCHANGES_MAX);
                    let addresses = exchanges.iter().map(|exchange| async {
                        match exchange.is_null() {
                            true => Records::None,
                            false => self.addresses(&exchange.name).await,
                        }
                    });
                    let addresses = join_all(addresses).await;
                    for (exchange, addresses) in exchanges.iter_mut().zip(addresses) {
                        exchange.addresses = addresses;
                    }
                    Records::Found(exchanges)
                }
                none => none,
            }
        };
        let texts = async {
            match reason {
                Reason::Asked => self.ask(&name, RecordType::TXT, text_of).await,
                _ => Records::None,
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

    async fn addresses(&self, name: &str) -> Records<IpAddr> {
        let (ipv4, ipv6) = tokio::join!(
            self.ask(name, RecordType::A, address_of),
            self.ask(name, RecordType::AAAA, address_of)
        );
        match (ipv4, ipv6) {
            (Records::Found(mut addresses), other) => {
                addresses.extend_from_slice(other.records());
                Records::Found(addresses)
            }
            (Records::Unknown(error), Records::None) => Records::Unknown(error),
            (_, other) => other,
        }
    }

    pub(super) async fn names(&self, address: IpAddr) -> Records<String> {
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
    ) -> Records<T> {
        match Name::from_ascii(format!("{name}.")) {
            Ok(name) => self.bounded(self.look_up(name, kind, &of)).await,
            Err(error) => Records::Unknown(error.to_string()),
        }
    }

    /// The library may use its own time-out more than once.
    async fn bounded<T>(&self, records: impl Future<Output = Records<T>>) -> Records<T> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match timeout(QUERY_TIMEOUT.min(left), records).await {
            Ok(records) => records,
            Err(_) => Records::Unknown("the name server does not answer in time".to_owned()),
        }
    }

    async fn look_up<T>(
        &self,
        name: Name,
        kind: RecordType,
        of: &impl Fn(&RData) -> Option<T>,
    ) -> Records<T> {
        match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                let records = found.answers().iter();
                let records: Vec<_> = records.filter_map(|record| of(&record.data)).collect();
                match records.is_empty() {
                    true => Records::None,
                    false => Records::Found(records),
                }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(
                    none.response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                Records::None
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Records::Unknown(format!("the name server answers {}", none.response_code))
            }
            Err(error) => Records::Unknown(format!("the name server cannot be asked: {error}")),
        }
    }
}

/// A name in lower case and ASCII, ascii, without its final dot.
fn shown(name: &Name) -> String {
    let name = name.to_ascii().to_ascii_lowercase();
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

fn exchange_of(record: &RData) -> Option<Exchange> {
    match record {
        RData::MX(mx) => Some(Exchange {
            preference: mx.preference,
            name: shown(&mx.exchange),
            addresses: Records::None,
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
mod tests;
