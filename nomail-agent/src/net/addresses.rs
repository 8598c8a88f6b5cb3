//! The addresses of the interfaces, by netlink.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::{
    error::IfaceError,
    netlink::{Interfaces, read_all},
};

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// The index of its interface.
    pub interface: u32,
}

impl LocalAddress {
    /// Whether it is valid on its interface only.
    pub fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

/// An address of an interface with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfiguredAddress {
    /// The address and its interface.
    pub local: LocalAddress,
    /// The network that is on its link.
    pub network: IpNet,
    /// Whether it is not the first one of its network, or is a temporary one.
    pub secondary: bool,
}

/// The same bit as IFA_F_TEMPORARY of IPv6.
const IFA_F_SECONDARY: u32 = 1;

impl Interfaces {
    /// The addresses of all interfaces, in order.
    pub async fn addresses(&self) -> Result<BTreeSet<LocalAddress>, IfaceError> {
        let configured = self.configured_addresses().await?;
        Ok(configured.into_iter().map(|found| found.local).collect())
    }

    /// The addresses of all interfaces with their networks, in order.
    pub async fn configured_addresses(&self) -> Result<BTreeSet<ConfiguredAddress>, IfaceError> {
        let mut addresses = BTreeSet::new();
        let answer = self.handle.address().get().execute();
        read_all(answer, |message| addresses.extend(configured(message))).await?;
        Ok(addresses)
    }
}

/// The address of a message, if it has one.
fn configured(message: AddressMessage) -> Option<ConfiguredAddress> {
    let (mut local, mut address) = (None, None);
    let flags = u32::from(message.header.flags.bits());
    for attribute in message.attributes {
        match attribute {
            // On a point-to-point link, `Address` is the peer's.
            AddressAttribute::Local(found) => local = Some(found),
            AddressAttribute::Address(found) => address = Some(found),
            _ => {}
        }
    }
    let own = local.or(address)?;
    let network = IpNet::new(address.unwrap_or(own), message.header.prefix_len).ok()?;
    Some(ConfiguredAddress {
        local: LocalAddress {
            address: own,
            interface: message.header.index,
        },
        network: network.trunc(),
        secondary: flags & IFA_F_SECONDARY != 0,
    })
}
