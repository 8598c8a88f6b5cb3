//! The default route, and the route to an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::RouteMessageBuilder;

use super::{
    error::IfaceError,
    links::{Interface, Links},
    netlink::Interfaces,
    next_hop,
};

impl Interfaces {
    /// The interface, among `links`, of the default route of the main table, IPv4's before
    /// IPv6's.
    ///
    /// # Errors
    /// When netlink fails, or there is none.
    pub async fn of_default_route<'a>(
        &self,
        links: &'a Links,
    ) -> Result<&'a Interface, IfaceError> {
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
                    Leads::ByNextHop(id) => next_hop::interface_of(&self.next_hops, id)?,
                };
                if let Some(index) = index {
                    let route = (family == AddressFamily::Inet6, metric, index);
                    best = Some(best.map_or(route, |best| best.min(route)));
                }
            }
        }
        let (_, _, index) = best.ok_or(IfaceError::NoDefaultRoute)?;
        links.with_index(index).ok_or(IfaceError::NoDefaultRoute)
    }

    /// The index of the interface on which packets to `address` leave; none if there is no
    /// route.
    pub async fn interface_to(&self, address: IpAddr) -> Result<Option<u32>, IfaceError> {
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
}

/// The target of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// The interface with this index.
    To(u32),
    /// The next hop object with this id (`ip nexthop`).
    ByNextHop(u32),
}

/// Metric and target of a route, if it is a default route of the main table that has one. Of
/// several next hops the first counts.
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
    // With net.ipv4.nexthop_compat_mode, which is on by default, a route has both.
    let leads = index.map(Leads::To).or(next_hop.map(Leads::ByNextHop));
    leads.filter(|_| wanted).map(|leads| (metric, leads))
}

#[cfg(test)]
mod tests;
