//! How links are stacked: which hardware addresses frames on an interface may be for, and
//! which devices get its frames.

use std::collections::BTreeSet;

/// A hardware address, as in a frame.
pub(super) type Hardware = [u8; 6];

/// A link, as far as hardware addresses go.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    /// What it has now.
    pub(super) hardware: Option<Hardware>,
    /// What it was made with. A bond hands those of its ports around.
    pub(super) permanent: Option<Hardware>,
    /// The bridge, bond or team that it is a port of.
    pub(super) upper: Option<u32>,
    /// The link in this namespace that it is a VLAN or a MACVLAN of.
    pub(super) lower: Option<u32>,
    /// Whether it is a VLAN.
    pub(super) vlan: bool,
}

/// The further unicast addresses of the link with that number: those of its ports, and of
/// what is stacked on it in this namespace. In order, without its own.
pub(super) fn further(links: &[Link], index: u32) -> Vec<Hardware> {
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

/// The numbers of the devices in this namespace that get frames of the link with that
/// number, and whether one of them is a VLAN.
pub(super) fn stacked_on(links: &[Link], index: u32) -> (Vec<u32>, bool) {
    let own = links.iter().find(|link| link.index == index);
    let above = own.map_or_else(Vec::new, |own| above(links, own));
    let vlan = above.iter().any(|link| link.vlan);
    (above.into_iter().map(|link| link.index).collect(), vlan)
}

fn above<'a>(links: &'a [Link], own: &'a Link) -> Vec<&'a Link> {
    closure(links, own, |of, above| {
        above.lower == Some(of.index) || of.upper == Some(above.index)
    })
}

/// All links that are reached from `from` by steps that `leads` allows, without itself.
fn closure<'a>(
    links: &'a [Link],
    from: &'a Link,
    leads: impl Fn(&Link, &Link) -> bool,
) -> Vec<&'a Link> {
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
mod tests {
    use super::*;

    const fn hardware(last: u8) -> Hardware {
        [2, 0, 0, 0, 0, last]
    }

    const NONE: [Hardware; 0] = [];

    /// Its address ends in its number.
    fn link(index: u32) -> Link {
        Link {
            index,
            hardware: Some(hardware(index as u8)),
            ..Link::default()
        }
    }

    #[test]
    fn a_bond_has_the_addresses_of_its_ports_also_the_permanent_ones() {
        let port = |index, permanent| Link {
            permanent: Some(hardware(permanent)),
            upper: Some(1),
            ..link(index)
        };
        // The first port has the bond's address.
        let mut links = vec![link(1), port(2, 12), port(3, 13), link(4)];
        links[1].hardware = links[0].hardware;
        assert_eq!(further(&links, 1), [3, 12, 13].map(hardware));
        assert_eq!(further(&links, 2), NONE, "the bond has its own");
        assert_eq!(further(&links, 3), [hardware(1)]);
        assert_eq!(further(&links, 4), NONE);
        assert_eq!(further(&links, 5), NONE);
    }

    #[test]
    fn what_is_stacked_on_it_has_addresses_too() {
        let stacked = |index, lower| Link {
            lower: Some(lower),
            ..link(index)
        };
        let bridged = Link {
            upper: Some(4),
            ..link(1)
        };
        let mut links = [
            bridged,
            stacked(2, 1),
            stacked(3, 2),
            link(4),
            stacked(5, 4),
        ];
        assert_eq!(further(&links, 1), [2, 3, 4, 5].map(hardware));
        assert_eq!(further(&links, 2), [hardware(3)]);
        assert_eq!(further(&links, 4), [1, 5].map(hardware));
        assert_eq!(stacked_on(&links, 1), (vec![2, 4, 3, 5], false));
        assert_eq!(stacked_on(&links, 5), (vec![], false));
        links[2].vlan = true;
        assert!(stacked_on(&links, 1).1 && stacked_on(&links, 2).1);
        assert!(!stacked_on(&links, 3).1 && !stacked_on(&links, 4).1);
    }

    #[test]
    fn neither_a_circle_nor_an_address_of_no_host_matters() {
        let around = |index, lower| Link {
            lower: Some(lower),
            ..link(index)
        };
        let mut links = vec![around(1, 2), around(2, 1), around(3, 1), around(4, 1)];
        links[2].hardware = Some([0; 6]);
        links[3].hardware = Some([3, 0, 0, 0, 0, 4]);
        assert_eq!(further(&links, 1), [hardware(2)]);
    }
}
