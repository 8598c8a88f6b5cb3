//! The ways into the host on which no guard is.

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{IfaceError, Interfaces};

/// Interfaces that are stacked on others; deeper than this nobody stacks them.
const STACKED_MAX: usize = 8;

/// An interface, as packets go through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Way {
    index: u32,
    name: String,
    /// Whether packets of others come in at all.
    open: bool,
    /// The one below it on this host, whose packets it gets: a VLAN's.
    lower: Option<u32>,
    /// The one that gets its packets: the bridge or bond that it is a port of.
    upper: Option<u32>,
    /// Whether it is a bridge or a bond.
    has_ports: bool,
}

impl Interfaces {
    /// The interfaces, by number and name, through which packets get into the host
    /// without passing one of `guarded`. Loopback is none: who sends there is on the
    /// host already.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn unguarded(&self, guarded: &[u32]) -> Result<Vec<(u32, String)>, IfaceError> {
        let mut messages = self.handle.link().get().execute();
        let mut ways = Vec::new();
        while let Some(message) = messages.try_next().await? {
            ways.push(Way::from(message));
        }
        Ok(unguarded(&ways, guarded))
    }
}

impl From<LinkMessage> for Way {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut way = Self {
            index: message.header.index,
            open: flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let (mut link, mut elsewhere, mut kind, mut port) = (None, false, None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => way.name = name,
                LinkAttribute::Link(index) => link = Some(index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Controller(index) => way.upper = Some(index),
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
        // What a VRF has are no ports: packets come in there, and stay there.
        if port == Some(InfoPortKind::Vrf) {
            way.upper = None;
        }
        match kind {
            Some(InfoKind::Bridge | InfoKind::Bond | InfoKind::Team) => way.has_ports = true,
            Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan)
                if !elsewhere =>
            {
                way.lower = link;
            }
            Some(InfoKind::Dummy | InfoKind::Vrf) => way.open = false,
            _ => {}
        }
        way
    }
}

fn unguarded(ways: &[Way], guarded: &[u32]) -> Vec<(u32, String)> {
    let open = ways.iter().filter(|way| way.open && way.upper.is_none());
    open.filter(|way| !is_judged(way, ways, guarded, STACKED_MAX))
        .map(|way| (way.index, way.name.clone()))
        .collect()
}

/// Whether all that comes in through it has passed a guard.
fn is_judged(way: &Way, ways: &[Way], guarded: &[u32], stacked_max: usize) -> bool {
    if guarded.contains(&way.index) {
        return true;
    }
    let Some(left) = stacked_max.checked_sub(1) else {
        return false;
    };
    let judged = |below: &Way| is_judged(below, ways, guarded, left);
    if way.has_ports {
        let mut ports = ways.iter().filter(|port| port.upper == Some(way.index));
        return ports.all(|port| !port.open || judged(port));
    }
    way.lower
        .and_then(|lower| ways.iter().find(|below| below.index == lower))
        .is_some_and(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(index: u32, name: &str) -> Way {
        Way {
            index,
            name: name.to_owned(),
            open: true,
            ..Way::default()
        }
    }

    fn names(ways: &[Way], guarded: &[u32]) -> Vec<String> {
        let found = unguarded(ways, guarded).into_iter();
        found.map(|(_, name)| name).collect()
    }

    #[test]
    fn a_second_interface_is_a_way_without_guard_and_a_closed_one_is_none() {
        let closed = Way {
            open: false,
            ..way(3, "eth2")
        };
        let ways = [way(1, "eth0"), way(2, "eth1"), closed];
        assert_eq!(names(&ways, &[1]), ["eth1"]);
        assert_eq!(names(&ways, &[]), ["eth0", "eth1"]);
    }

    #[test]
    fn a_vlan_is_guarded_by_what_it_is_on() {
        let vlan = Way {
            lower: Some(1),
            ..way(3, "eth0.5")
        };
        let ways = [way(1, "eth0"), way(2, "eth1"), vlan];
        assert_eq!(names(&ways, &[1]), ["eth1"]);
        assert_eq!(names(&ways, &[2]), ["eth0", "eth0.5"]);
    }

    #[test]
    fn a_bridge_is_guarded_by_itself_or_by_all_its_ports() {
        let bridge = Way {
            has_ports: true,
            ..way(1, "br0")
        };
        let port = |index, name| Way {
            upper: Some(1),
            ..way(index, name)
        };
        let ways = [bridge, port(2, "eth0"), port(3, "eth1")];
        assert_eq!(names(&ways, &[1]), [""; 0]);
        assert_eq!(names(&ways, &[2, 3]), [""; 0]);
        assert_eq!(names(&ways, &[2]), ["br0"]);
        assert_eq!(names(&ways[..1], &[]), [""; 0], "nothing comes in");
    }

    #[test]
    fn a_circle_ends() {
        let around = |index, lower| Way {
            lower: Some(lower),
            ..way(index, "loop")
        };
        assert_eq!(names(&[around(1, 2), around(2, 1)], &[]).len(), 2);
    }
}
