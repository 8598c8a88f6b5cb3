//! Network interfaces and their addresses, asked and followed by netlink.

mod glance;
mod holder;
mod vrf;
mod ways;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use netlink_packet_route::{
    address::AddressAttribute,
    link::{InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkXdp, XdpAttached},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use thiserror::Error;

pub use self::{
    glance::{Drivers, Glance, XDP_BASIC, XDP_FRAGS, XDP_SENDS},
    holder::{holder_of, is_held},
    vrf::{own_vrf, sockets_are_in},
};

/// An interface as the kernel has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Whether frames on it begin with an Ethernet header.
    pub ethernet: bool,
    /// Its hardware address, if it has one of six octets.
    pub hardware: Option<[u8; 6]>,
    /// The XDP program on it, by the kernel's number.
    pub xdp_program: Option<u32>,
    /// Whether that runs in the stack, not in the driver.
    pub xdp_generic: bool,
    /// The name of the VRF that it is in, if any.
    pub vrf: Option<String>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// The number of its interface.
    pub interface: u32,
}

impl LocalAddress {
    /// Whether it means something on its interface only.
    pub fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

/// What went wrong while asking the kernel.
#[derive(Debug, Error)]
pub enum IfaceError {
    /// No netlink socket.
    #[error("no netlink socket can be opened")]
    Socket(#[from] io::Error),
    /// The kernel's answer was an error.
    #[error("the kernel does not tell its network configuration")]
    Netlink(#[from] rtnetlink::Error),
    /// The interface is not there.
    #[error(
        "there is no interface {name}: `ip link` lists the interfaces; these are here: {known}"
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// Nothing leads to the rest of the world.
    #[error("there is no default route to take an interface from: name one with --iface")]
    NoDefaultRoute,
}

/// A connection to the kernel, and its notices of changes.
pub struct Interfaces {
    handle: Handle,
    notices: BoxStream<'static, ()>,
}

impl Interfaces {
    /// Connects. Needs a tokio runtime, which keeps the connection going.
    pub fn connect() -> Result<Self, IfaceError> {
        let (connection, handle, notices) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            notices: notices.map(drop).boxed(),
        })
    }

    /// Waits for the next change of a link or an address. What changed is to be
    /// asked anew: notices get lost when there are many. False when there will
    /// be no more.
    pub async fn changed(&mut self) -> bool {
        self.notices.next().await.is_some()
    }

    /// All interfaces.
    pub async fn all(&self) -> Result<Vec<Interface>, IfaceError> {
        let mut messages = self.handle.link().get().execute();
        let mut interfaces = Vec::new();
        // Who is in the VRF of which number.
        let mut in_vrf = Vec::new();
        while let Some(message) = messages.try_next().await? {
            let mut interface = Interface {
                name: String::new(),
                index: message.header.index,
                // Loopback frames carry an Ethernet header too.
                ethernet: matches!(
                    message.header.link_layer_type,
                    LinkLayerType::Ether | LinkLayerType::Loopback
                ),
                hardware: None,
                xdp_program: None,
                xdp_generic: false,
                vrf: None,
            };
            let (mut controller, mut port_of_vrf) = (None, false);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => interface.name = name,
                    LinkAttribute::Controller(index) => controller = Some(index),
                    LinkAttribute::LinkInfo(infos) => {
                        port_of_vrf = infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf));
                    }
                    LinkAttribute::Address(octets) => interface.hardware = octets.try_into().ok(),
                    LinkAttribute::Xdp(xdp) => {
                        (interface.xdp_program, interface.xdp_generic) = xdp_of(&xdp);
                    }
                    _ => {}
                }
            }
            if port_of_vrf && let Some(controller) = controller {
                in_vrf.push((interfaces.len(), controller));
            }
            interfaces.push(interface);
        }
        for (place, controller) in in_vrf {
            let vrf = interfaces.iter().find(|found| found.index == controller);
            interfaces[place].vrf = vrf.map(|vrf| vrf.name.clone());
        }
        Ok(interfaces)
    }

    /// The interface of that name.
    pub async fn named(&self, name: &str) -> Result<Interface, IfaceError> {
        let interfaces = self.all().await?;
        let names: Vec<_> = interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect();
        interfaces
            .into_iter()
            .find(|interface| interface.name == name)
            .ok_or_else(|| IfaceError::Unknown {
                name: name.to_owned(),
                known: names.join(", "),
            })
    }

    /// Takes what other changes were told meanwhile.
    pub fn settle(&mut self) {
        while let Some(Some(())) = self.notices.next().now_or_never() {}
    }

    /// The interface that the default route of the main table leads through,
    /// IPv4's before IPv6's.
    pub async fn of_default_route(&self) -> Result<Interface, IfaceError> {
        let mut best: Option<(bool, u32, u32)> = None;
        for ipv6 in [false, true] {
            let message = if ipv6 {
                RouteMessageBuilder::<Ipv6Addr>::new().build()
            } else {
                RouteMessageBuilder::<Ipv4Addr>::new().build()
            };
            let mut routes = self.handle.route().get(message).execute();
            while let Some(route) = routes.try_next().await? {
                if let Some((metric, index)) = default_route(&route) {
                    let route = (ipv6, metric, index);
                    best = Some(best.map_or(route, |best| best.min(route)));
                }
            }
        }
        let (_, _, index) = best.ok_or(IfaceError::NoDefaultRoute)?;
        self.all()
            .await?
            .into_iter()
            .find(|interface| interface.index == index)
            .ok_or(IfaceError::NoDefaultRoute)
    }

    /// The addresses of all interfaces, in order.
    pub async fn addresses(&self) -> Result<BTreeSet<LocalAddress>, IfaceError> {
        let mut messages = self.handle.address().get().execute();
        let mut addresses = BTreeSet::new();
        while let Some(message) = messages.try_next().await? {
            let (mut local, mut address) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    // On a point-to-point link the other one is the peer's.
                    AddressAttribute::Local(found) => local = Some(found),
                    AddressAttribute::Address(found) => address = Some(found),
                    _ => {}
                }
            }
            if let Some(address) = local.or(address) {
                addresses.insert(LocalAddress {
                    address,
                    interface: message.header.index,
                });
            }
        }
        Ok(addresses)
    }
}

/// The number of the program, and whether it runs in the stack.
fn xdp_of(xdp: &[LinkXdp]) -> (Option<u32>, bool) {
    let program = xdp.iter().find_map(|part| match part {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    let generic = xdp.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
    (program, generic)
}

/// Metric and interface of a route, if it is a default route of the main table
/// that leads somewhere. Of several next hops the first counts.
fn default_route(route: &RouteMessage) -> Option<(u32, u32)> {
    let (mut index, mut metric) = (None, 0);
    let mut table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::MultiPath(hops) => {
                index = hops.first().map(|hop| hop.interface_index);
            }
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let wanted = route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
        && table == u32::from(RouteHeader::RT_TABLE_MAIN);
    index.filter(|_| wanted).map(|index| (metric, index))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn route(change: impl FnOnce(&mut RouteMessage)) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.attributes.push(RouteAttribute::Oif(7));
        change(&mut route);
        route
    }

    #[test]
    fn a_default_route_of_the_main_table_that_leads_somewhere() {
        assert_eq!(default_route(&route(|_| {})), Some((0, 7)));
        let metric = route(|route| route.attributes.push(RouteAttribute::Priority(100)));
        assert_eq!(default_route(&metric), Some((100, 7)));
        let hops = route(|route| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = 9;
            route.attributes = vec![RouteAttribute::MultiPath(vec![hop])];
        });
        assert_eq!(default_route(&hops), Some((0, 9)));
        let elsewhere = [
            route(|route| route.header.destination_prefix_length = 8),
            route(|route| route.header.kind = RouteType::Unreachable),
            route(|route| route.header.table = 100),
            route(|route| route.attributes.push(RouteAttribute::Table(51_820))),
            route(|route| route.attributes.clear()),
        ];
        for route in elsewhere {
            assert_eq!(default_route(&route), None, "{route:?}");
        }
    }
}
