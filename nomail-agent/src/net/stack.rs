//! How links are stacked: the hardware addresses of frames on an interface, and the devices
//! that get its frames.

use std::collections::BTreeSet;

/// A hardware address, as in a frame.
pub(super) type Hardware = [u8; 6];

/// A link with its hardware addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct StackedLink {
    pub(super) index: u32,
    /// Its current address.
    pub(super) hardware: Option<Hardware>,
    /// The address that it was made with. A bond changes those of its ports.
    pub(super) permanent: Option<Hardware>,
    /// The bridge, bond or team that it is a port of.
    pub(super) upper: Option<u32>,
    /// The link in this namespace that it is a VLAN or a MACVLAN of.
    pub(super) lower: Option<u32>,
    /// Whether it is a VLAN.
    pub(super) vlan: bool,
}

/// The further unicast addresses of the link with this index: those of its ports, and of the
/// devices stacked on it in this namespace. In order, without its own.
pub(super) fn further(links: &[StackedLink], index: u32) -> Vec<Hardware> {
    let own = links.iter().find(|link| link.index == index);
    let Some(own) = own else {
        return Vec::new();
    };
    let ports = closure(links, own, |of, port| port.upper == Some(of.index));
    let ports = ports.into_iter();
    let ports = ports.flat_map(|port| [port.hardware, port.permanent]);
    let stacked = above(links, own).into_iter().map(|above| above.hardware);
    let found: BTreeSet<_> = ports.chain(stacked).flatten().collect();
    let unicast = |address: &Hardware| address[0] & 1 == 0 && *address != [0; 6];
    let found = found.into_iter().filter(unicast);
    found
        .filter(|address| Some(*address) != own.hardware)
        .collect()
}

/// The indexes of the devices in this namespace that get frames of the link with this index,
/// and whether one of them is a VLAN.
pub(super) fn stacked_on(links: &[StackedLink], index: u32) -> (Vec<u32>, bool) {
    let own = links.iter().find(|link| link.index == index);
    let above = own.map_or_else(Vec::new, |own| above(links, own));
    let vlan = above.iter().any(|link| link.vlan);
    (above.into_iter().map(|link| link.index).collect(), vlan)
}

fn above<'a>(links: &'a [StackedLink], own: &'a StackedLink) -> Vec<&'a StackedLink> {
    closure(links, own, |of, above| {
        above.lower == Some(of.index) || of.upper == Some(above.index)
    })
}

/// All links that are reachable from `from` by steps that `leads` allows, without itself.
fn closure<'a>(
    links: &'a [StackedLink],
    from: &'a StackedLink,
    leads: impl Fn(&StackedLink, &StackedLink) -> bool,
) -> Vec<&'a StackedLink> {
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(&link) = reached.get(next) {
        next += 1;
        for to in links {
            if leads(link, to) && reached.iter().all(|known| known.index != to.index) {
                reached.push(to);
            }
        }
    }
    reached.split_off(1)
}

#[cfg(test)]
mod tests;
