use super::*;

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        open: true,
        ..Link::default()
    }
}

fn names(links: &[Link], guarded: &[u32]) -> Vec<String> {
    let found = unguarded(links, guarded).into_iter();
    found.map(|(_, name)| name).collect()
}

#[test]
fn a_second_interface_is_unguarded_and_a_closed_one_is_not() {
    let closed = Link {
        open: false,
        ..link(3, "eth2")
    };
    let links = [link(1, "eth0"), link(2, "eth1"), closed];
    assert_eq!(names(&links, &[1]), ["eth1"]);
    assert_eq!(names(&links, &[]), ["eth0", "eth1"]);
}

#[test]
fn a_vlan_is_guarded_by_what_it_is_on() {
    let vlan = Link {
        lower: Some(1),
        ..link(3, "eth0.5")
    };
    let links = [link(1, "eth0"), link(2, "eth1"), vlan];
    assert_eq!(names(&links, &[1]), ["eth1"]);
    assert_eq!(names(&links, &[2]), ["eth0", "eth0.5"]);
}

#[test]
fn a_bridge_is_guarded_by_itself_or_by_all_its_ports() {
    let bridge = Link {
        has_ports: true,
        ..link(1, "br0")
    };
    let port = |index, name| Link {
        upper: Some(1),
        ..link(index, name)
    };
    let links = [bridge, port(2, "eth0"), port(3, "eth1")];
    assert_eq!(names(&links, &[1]), [""; 0]);
    assert_eq!(names(&links, &[2, 3]), [""; 0]);
    assert_eq!(names(&links, &[2]), ["br0"]);
    assert_eq!(names(&links[..1], &[]), [""; 0], "nothing comes in");
}

#[test]
fn a_circle_ends() {
    let around = |index, lower| Link {
        lower: Some(lower),
        ..link(index, "loop")
    };
    assert_eq!(names(&[around(1, 2), around(2, 1)], &[]).len(), 2);
}
