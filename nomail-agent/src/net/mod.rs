//! Network interfaces and their addresses, asked and followed by netlink.

mod frames;
mod glance;
mod holder;
mod local;
mod nexthop;
mod stack;
mod vrf;
mod ways;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _, future::ready, stream::BoxStream,
};
use ipnet::IpNet;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressAttribute,
    link::{
        InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkXdp, Prop, XdpAttached,
    },
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use thiserror::Error;

pub use self::{
    frames::{FrameSocket, link_address},
    glance::{Drivers, Glance, XDP_BASIC, XDP_FRAGS, XDP_SENDS},
    holder::{holder_of, is_held},
    local::{LocalRoute, LocalRoutes},
    vrf::{own_vrf, sockets_are_in},
};

/// An interface as the kernel has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its other names.
    pub alternatives: Vec<String>,
    /// Its number; 0 for one that is not there yet.
    pub index: u32,
    /// Whether frames on it begin with an Ethernet header.
    pub ethernet: bool,
    /// Its hardware address, if it has one of six octets.
    pub hardware: Option<[u8; 6]>,
    /// Further ones that frames on it may be for: those of its ports, and of devices
    /// that are stacked on it.
    pub further_hardware: Vec<[u8; 6]>,
    /// The numbers of the devices stacked on it, which get its frames.
    pub stacked: Vec<u32>,
    /// Whether one of those is a VLAN.
    pub has_vlans: bool,
    /// The XDP program on it, by the kernel's number.
    pub xdp_program: Option<u32>,
    /// Whether that runs in the stack, not in the driver.
    pub xdp_generic: bool,
    /// The name of the VRF that it is in, if any.
    pub vrf: Option<String>,
}

impl Interface {
    /// One that is not there yet, known by its name only.
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            alternatives: Vec::new(),
            index: 0,
            ethernet: true,
            hardware: None,
            further_hardware: Vec::new(),
            stacked: Vec::new(),
            has_vlans: false,
            xdp_program: None,
            xdp_generic: false,
            vrf: None,
        }
    }

    /// Whether it is not there yet.
    pub fn is_absent(&self) -> bool {
        self.index == 0
    }

    /// Whether it has that name, also as one of the others.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|other| other == name)
    }
}

fn alternatives(properties: Vec<Prop>) -> Vec<String> {
    let names = properties
        .into_iter()
        .filter_map(|property| match property {
            Prop::AltIfName(name) => Some(name),
            _ => None,
        });
    names.collect()
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

/// An address of an interface, as it was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfiguredAddress {
    /// The address, and where it is.
    pub local: LocalAddress,
    /// The network that is on its link.
    pub network: IpNet,
    /// Whether another one of the same network came first, or it is a temporary one.
    pub secondary: bool,
}

/// In the kernel's header this is also IFA_F_TEMPORARY, of IPv6.
const IFA_F_SECONDARY: u32 = 1;

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
    /// One that the kernel checks strictly, and so answers with what is asked for only.
    routes: Handle,
    next_hops: rtnetlink::sys::Socket,
    notices: BoxStream<'static, ()>,
}

impl Interfaces {
    /// Connects. Needs a tokio runtime, which keeps the connection going.
    pub fn connect() -> Result<Self, IfaceError> {
        let (connection, handle, notices) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        tokio::spawn(connection);
        // Kernels before 4.20 cannot: they answer with more, which is left out here.
        let (connection, routes, _) = rtnetlink::new_connection_with_strict_check()
            .or_else(|_| rtnetlink::new_connection())?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            routes,
            // Now: later no such socket may be opened.
            next_hops: nexthop::socket()?,
            notices: notices
                .filter(|(notice, _)| {
                    ready(match &notice.payload {
                        NetlinkPayload::InnerMessage(notice) => matters(notice),
                        // Some were lost.
                        _ => true,
                    })
                })
                .map(drop)
                .boxed(),
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
        let mut links = Vec::new();
        while let Some(message) = messages.try_next().await? {
            let mut interface = Interface {
                index: message.header.index,
                // Loopback frames carry an Ethernet header too.
                ethernet: matches!(
                    message.header.link_layer_type,
                    LinkLayerType::Ether | LinkLayerType::Loopback
                ),
                ..Interface::absent("")
            };
            let (mut controller, mut port_of_vrf) = (None, false);
            let (mut lower, mut elsewhere, mut permanent) = (None, false, None);
            let (mut stacked, mut vlan) = (false, false);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => interface.name = name,
                    LinkAttribute::PropList(properties) => {
                        interface.alternatives = alternatives(properties);
                    }
                    LinkAttribute::Controller(index) => controller = Some(index),
                    LinkAttribute::LinkInfo(infos) => {
                        port_of_vrf = infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf));
                        let is = |kind| infos.contains(&LinkInfo::Kind(kind));
                        vlan = is(InfoKind::Vlan);
                        stacked = vlan || is(InfoKind::MacVlan) || is(InfoKind::MacVtap);
                    }
                    LinkAttribute::Address(octets) => interface.hardware = octets.try_into().ok(),
                    LinkAttribute::PermAddress(octets) => permanent = octets.try_into().ok(),
                    // That of another namespace if LinkNetNsId is there.
                    LinkAttribute::Link(index) => lower = Some(index),
                    LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                    LinkAttribute::Xdp(xdp) => {
                        (interface.xdp_program, interface.xdp_generic) = xdp_of(&xdp);
                    }
                    _ => {}
                }
            }
            links.push(stack::Link {
                index: interface.index,
                hardware: interface.hardware,
                permanent,
                upper: controller.filter(|_| !port_of_vrf),
                lower: lower.filter(|_| stacked && !elsewhere),
                vlan,
            });
            if port_of_vrf && let Some(controller) = controller {
                in_vrf.push((interfaces.len(), controller));
            }
            interfaces.push(interface);
        }
        for (place, controller) in in_vrf {
            let vrf = interfaces.iter().find(|found| found.index == controller);
            interfaces[place].vrf = vrf.map(|vrf| vrf.name.clone());
        }
        for interface in &mut interfaces {
            interface.further_hardware = stack::further(&links, interface.index);
            (interface.stacked, interface.has_vlans) = stack::stacked_on(&links, interface.index);
        }
        Ok(interfaces)
    }

    /// The interface of that name, which may be one of its other names.
    pub async fn named(&self, name: &str) -> Result<Interface, IfaceError> {
        let interfaces = self.all().await?;
        let names: Vec<_> = interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect();
        interfaces
            .into_iter()
            .find(|interface| interface.is_called(name))
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
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            wanted.header.kind = RouteType::Unicast;
            let mut routes = self.routes.route().get(wanted).execute();
            while let Some(route) = routes.try_next().await? {
                let Some((metric, leads)) = default_route(&route) else {
                    continue;
                };
                let index = match leads {
                    Leads::To(index) => Some(index),
                    Leads::ByNextHop(id) => nexthop::interface_of(&self.next_hops, id)?,
                };
                if let Some(index) = index {
                    let route = (family == AddressFamily::Inet6, metric, index);
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

    /// The number of the interface over which packets to `address` leave; none: there is
    /// no route.
    pub async fn way_to(&self, address: IpAddr) -> Result<Option<u32>, IfaceError> {
        let message = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let mut routes = self.handle.route().get(message).execute();
        let route = match routes.try_next().await {
            // Unreachable, prohibited, and so on.
            Err(rtnetlink::Error::NetlinkError(_)) => None,
            route => route?,
        };
        let attributes = route.into_iter().flat_map(|route| route.attributes);
        let mut out = attributes.filter_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(index),
            _ => None,
        });
        Ok(out.next())
    }

    /// The addresses of all interfaces, in order.
    pub async fn addresses(&self) -> Result<BTreeSet<LocalAddress>, IfaceError> {
        let configured = self.configured_addresses().await?;
        Ok(configured.into_iter().map(|found| found.local).collect())
    }

    /// The same, with what else is known of them.
    pub async fn configured_addresses(&self) -> Result<BTreeSet<ConfiguredAddress>, IfaceError> {
        let mut messages = self.handle.address().get().execute();
        let mut addresses = BTreeSet::new();
        while let Some(message) = messages.try_next().await? {
            let (mut local, mut address) = (None, None);
            let flags = u32::from(message.header.flags.bits());
            for attribute in message.attributes {
                match attribute {
                    // On a point-to-point link the other one is the peer's.
                    AddressAttribute::Local(found) => local = Some(found),
                    AddressAttribute::Address(found) => address = Some(found),
                    _ => {}
                }
            }
            let own = local.or(address);
            let Some((own, on_link)) = own.zip(address.or(own)) else {
                continue;
            };
            let Ok(network) = IpNet::new(on_link, message.header.prefix_len) else {
                continue;
            };
            let local = LocalAddress {
                address: own,
                interface: message.header.index,
            };
            addresses.insert(ConfiguredAddress {
                local,
                network: network.trunc(),
                secondary: flags & IFA_F_SECONDARY != 0,
            });
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

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// To the interface of that number.
    To(u32),
    /// To where the next hop object of that number does (`ip nexthop`).
    ByNextHop(u32),
}

/// Metric and interface of a route, if it is a default route of the main table
/// that leads somewhere. Of several next hops the first counts.
fn default_route(route: &RouteMessage) -> Option<(u32, Leads)> {
    let (mut index, mut next_hop, mut metric) = (None, None, 0);
    let mut table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::MultiPath(hops) => {
                index = hops.first().map(|hop| hop.interface_index);
            }
            RouteAttribute::NhId(id) => next_hop = Some(*id),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let wanted = route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
        && table == u32::from(RouteHeader::RT_TABLE_MAIN);
    // With net.ipv4.nexthop_compat_mode, which is on by default, both are there.
    let leads = index.map(Leads::To).or(next_hop.map(Leads::ByNextHop));
    leads.filter(|_| wanted).map(|leads| (metric, leads))
}

/// Whether a notice is about something that the agent follows. Routes to elsewhere are
/// not: a router has a million, which come and go.
fn matters(notice: &RouteNetlinkMessage) -> bool {
    match notice {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            let everything = route.header.destination_prefix_length == 0;
            match route.header.kind {
                RouteType::Local | RouteType::Broadcast | RouteType::Anycast => true,
                RouteType::Unicast => everything,
                _ => false,
            }
        }
        _ => true,
    }
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
        assert_eq!(default_route(&route(|_| {})), Some((0, Leads::To(7))));
        let metric = route(|route| route.attributes.push(RouteAttribute::Priority(100)));
        assert_eq!(default_route(&metric), Some((100, Leads::To(7))));
        let hops = route(|route| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = 9;
            route.attributes = vec![RouteAttribute::MultiPath(vec![hop])];
        });
        assert_eq!(default_route(&hops), Some((0, Leads::To(9))));
        let by_next_hop = route(|route| route.attributes = vec![RouteAttribute::NhId(5)]);
        assert_eq!(default_route(&by_next_hop), Some((0, Leads::ByNextHop(5))));
        let both = route(|route| route.attributes.push(RouteAttribute::NhId(5)));
        assert_eq!(default_route(&both), Some((0, Leads::To(7))));
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

    #[test]
    fn of_routes_only_those_to_this_host_and_the_default_ones_matter() {
        let notice = |kind, length| {
            RouteNetlinkMessage::NewRoute(route(|route| {
                route.header.kind = kind;
                route.header.destination_prefix_length = length;
            }))
        };
        assert!(matters(&notice(RouteType::Local, 32)));
        assert!(matters(&notice(RouteType::Broadcast, 32)));
        assert!(matters(&notice(RouteType::Unicast, 0)));
        assert!(!matters(&notice(RouteType::Unicast, 24)));
        assert!(!matters(&notice(RouteType::Multicast, 8)));
        assert!(matters(&RouteNetlinkMessage::NewLink(Default::default())));
    }

    #[test]
    fn an_interface_is_called_by_each_of_its_names() {
        let mut interface = Interface::absent("eth0");
        let names = ["mail0", "a-name-longer-than-fifteen"];
        let properties = names.map(|name| Prop::AltIfName(name.to_owned()));
        interface.alternatives = alternatives(properties.into());
        for name in names.into_iter().chain(["eth0"]) {
            assert!(interface.is_called(name));
        }
        assert!(!interface.is_called("mail"));
    }
}
