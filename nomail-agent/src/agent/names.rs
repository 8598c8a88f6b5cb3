//! The names of this host, as found at the start: the files that they are found in may not
//! be readable later.

use std::net::Ipv4Addr;

use super::plan::ListenPlan;
use crate::config::{self, Config, Hostname};

/// The names that the configuration need not give.
#[derive(Debug)]
pub(super) struct FoundNames {
    /// The name to greet with where none is configured.
    hostname: Hostname,
    /// Other names of the guarded addresses in /etc/hosts.
    aliases: Vec<String>,
}

impl FoundNames {
    /// The host's name, or one of its addresses, and its aliases.
    pub(super) fn find(plan: &ListenPlan) -> Self {
        Self {
            hostname: config::host_fqdn().unwrap_or_else(|| address_of(plan)),
            aliases: config::host_aliases(plan.guarded().iter().map(|pair| pair.0)),
        }
    }

    /// The name to greet with.
    pub(super) fn hostname(&self, config: &Config) -> String {
        config
            .hostname
            .as_ref()
            .unwrap_or(&self.hostname)
            .to_string()
    }

    /// All other names of this host.
    pub(super) fn aliases(&self, config: &Config) -> Vec<String> {
        config
            .aliases
            .iter()
            .chain(&self.aliases)
            .cloned()
            .collect()
    }
}

/// The first global address as an address literal.
fn address_of(plan: &ListenPlan) -> Hostname {
    let mut addresses: Vec<_> = plan
        .guarded()
        .into_iter()
        .map(|(address, _)| address)
        .collect();
    addresses.sort_unstable();
    let global = addresses.iter().find(|address| !address.is_loopback());
    let address = global.or(addresses.first());
    Hostname::from_address(address.copied().unwrap_or(Ipv4Addr::LOCALHOST.into()))
}
