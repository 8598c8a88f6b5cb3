//! An address and port that the agent listens on.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::net::LocalAddress;

/// An address and port to listen on, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListenPair {
    pub(super) address: SocketAddr,
    pub(super) shown: String,
}

impl ListenPair {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            shown: address.to_string(),
        }
    }

    /// Of the text in a status, which may have a scope: `[fe80::1%eth0]:25`.
    pub(super) fn parse(shown: &str) -> Option<Self> {
        let address = match shown.split_once('%') {
            None => shown.parse().ok()?,
            Some((address, rest)) => {
                let (interface, port) = rest.split_once("]:")?;
                let address = address.strip_prefix('[')?.parse().ok()?;
                let scope = if_nametoindex(interface).ok()?;
                SocketAddrV6::new(address, port.parse().ok()?, 0, scope).into()
            }
        };
        Some(Self {
            address,
            shown: shown.to_owned(),
        })
    }

    /// With the scope that a link-local address needs: an agent that listens on the wildcard
    /// reports it without.
    pub(super) fn scoped(self, local: &BTreeSet<LocalAddress>) -> Self {
        let SocketAddr::V6(address) = self.address else {
            return self;
        };
        let of_link = |found: &&LocalAddress| {
            found.is_link_local() && found.address == IpAddr::V6(*address.ip())
        };
        let Some(found) = local
            .iter()
            .find(of_link)
            .filter(|_| address.scope_id() == 0)
        else {
            return self;
        };
        let scope = match if_indextoname(found.interface) {
            Ok(name) => name.to_string_lossy().into_owned(),
            Err(_) => found.interface.to_string(),
        };
        let (ip, port) = (address.ip(), address.port());
        Self {
            address: SocketAddrV6::new(*ip, port, 0, found.interface).into(),
            shown: format!("[{ip}%{scope}]:{port}"),
        }
    }
}
