//! The interfaces on which packets reach the host without passing a guard.

use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

/// Deepest stack of interfaces that is followed.
const STACKED_MAX: usize = 8;

/// An interface, and where its packets come from and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    index: u32,
    name: String,
    /// Whether packets of other hosts arrive on it.
    open: bool,
    /// The interface below it on this host, whose packets it gets, as a VLAN does.
    lower: Option<u32>,
    /// The bridge or bond that it is a port of, which gets its packets.
    upper: Option<u32>,
    /// Whether it is a bridge or a bond.
    has_ports: bool,
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            open: flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let (mut below, mut elsewhere, mut kind, mut port) = (None, false, None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Link(index) => below = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Controller(index) => link.upper = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(found) => kind = Some(found),
                            LinkInfo::PortKind(found) => port = Some(found),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        // A member of a VRF is no port: its packets are its own.
        if port == Some(&InfoPortKind::Vrf) {
            link.upper = None;
        }
        match kind {
            Some(InfoKind::Bridge | InfoKind::Bond | InfoKind::Team) => link.has_ports = true,
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan)
                if !elsewhere =>
            {
                link.lower = below;
            }
            Some(InfoKind::Dummy | InfoKind::Vrf) => link.open = false,
            _ => {}
        }
        link
    }
}

/// See [`super::links::Links::unguarded`].
pub(super) fn unguarded(links: &[Link], guarded: &[u32]) -> Vec<(u32, String)> {
    let open = links
        .iter()
        .filter(|link| link.open && link.upper.is_none());
    open.filter(|link| !is_judged(link, links, guarded, STACKED_MAX))
        .map(|link| (link.index, link.name.clone()))
        .collect()
}

/// Whether all packets of the interface have passed a guard.
fn is_judged(link: &Link, links: &[Link], guarded: &[u32], stacked_max: usize) -> bool {
    if guarded.contains(&link.index) {
        return true;
    }
    let Some(left) = stacked_max.checked_sub(1) else {
        return false;
    };
    let judged = |below: &Link| is_judged(below, links, guarded, left);
    if link.has_ports {
        let mut ports = links.iter().filter(|port| port.upper == Some(link.index));
        return ports.all(|port| !port.open || judged(port));
    }
    link.lower
        .and_then(|lower| links.iter().find(|below| below.index == lower))
        .is_some_and(judged)
}

#[cfg(test)]
mod tests;
