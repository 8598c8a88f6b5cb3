use super::*;

const fn hardware(last: u8) -> Hardware {
    [2, 0, 0, 0, 0, last]
}

const NONE: [Hardware; 0] = [];

/// Its address ends in its number.
fn link(index: u32) -> StackedLink {
    StackedLink {
        index,
        hardware: Some(hardware(index as u8)),
        ..StackedLink::default()
    }
}

#[test]
fn a_bond_has_the_addresses_of_its_ports_also_the_permanent_ones() {
    let port = |index, permanent| StackedLink {
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
    let stacked = |index, lower| StackedLink {
        lower: Some(lower),
        ..link(index)
    };
    let bridged = StackedLink {
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
    let around = |index, lower| StackedLink {
        lower: Some(lower),
        ..link(index)
    };
    let mut links = vec![around(1, 2), around(2, 1), around(3, 1), around(4, 1)];
    links[2].hardware = Some([0; 6]);
    links[3].hardware = Some([3, 0, 0, 0, 0, 4]);
    assert_eq!(further(&links, 1), [hardware(2)]);
}
