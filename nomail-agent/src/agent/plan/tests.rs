use super::*;
use crate::net::{LocalRoute, LocalRoutes};

#[test]
fn one_link_local_address_on_two_interfaces_is_two_sockets_and_one_pair() {
    let address: IpAddr = "fe80::1".parse().unwrap();
    let mut plan = ListenPlan::default();
    for scope in [2, 3] {
        add(&mut plan, address, scope);
    }
    assert_eq!(plan.sockets().len(), 2);
    let pair = HashSet::from([(address, 25)]);
    assert_eq!(plan.guarded(), pair);
    plan.leave_out(&[plan.sockets()[0]].into());
    assert_eq!(plan.guarded(), pair, "the other socket still answers");
}

#[test]
fn an_address_is_reached_over_every_interface_unless_it_is_local_to_one() {
    let mut plan = ListenPlan::default();
    for (address, scope) in [("fe80::1", 2), ("127.0.0.1", 0), ("::1", 0)] {
        let address: IpAddr = address.parse().unwrap();
        add(&mut plan, address, scope);
    }
    assert!(plan.is_reached_over(2));
    assert!(!plan.is_reached_over(3));
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    add(&mut plan, address, 0);
    assert!(plan.is_reached_over(3));
}

fn add(plan: &mut ListenPlan, address: IpAddr, scope: u32) {
    let socket = ListenSocket {
        address: socket_address(address, 25, scope),
        found: true,
    };
    plan.sockets.insert(socket, [address].into());
}

fn listen(texts: &[&str]) -> Vec<ListenAddress> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn on(interface: u32, address: &str, secondary: bool) -> ConfiguredAddress {
    let network: IpNet = address.parse().unwrap();
    ConfiguredAddress {
        local: LocalAddress {
            address: network.addr(),
            interface,
        },
        network: network.trunc(),
        secondary,
    }
}

fn interface(index: u32) -> Interface {
    Interface {
        index,
        ..Interface::absent("host0")
    }
}

fn find(listen: &[ListenAddress], guarded: &[Interface], local: &HostAddresses) -> ListenPlan {
    let scopes = BTreeMap::from([("host0", 2)]);
    ListenPlan::of(listen, &scopes, guarded, local, &HashSet::new())
}

fn routes(prefixes: &[&str]) -> LocalRoutes {
    let own = prefixes.iter().map(|prefix| LocalRoute {
        prefix: prefix.parse().unwrap(),
        interface: 2,
    });
    LocalRoutes {
        own: own.collect(),
        ..LocalRoutes::default()
    }
}

#[test]
fn too_many_addresses_cost_the_last_ones_and_no_served_one() {
    let secondary = (0..MAX_GUARDED + 20).map(|n| {
        let address = format!("10.0.{}.{}/16", n / 256, n % 256);
        on(2, &address, true)
    });
    let primary = on(2, "198.51.100.1/24", false);
    let local = HostAddresses {
        configured: secondary.chain([primary]).collect(),
        ..HostAddresses::default()
    };
    let guarded = [interface(2)];
    let plan = find(&[], &guarded, &local);
    assert_eq!(plan.guarded().len(), MAX_GUARDED);
    assert_eq!(plan.sockets().len(), MAX_GUARDED);
    assert!(plan.guarded().contains(&(primary.local.address, 25)));
    assert_eq!(plan.unguarded().len(), 21);
    assert_eq!(plan.unguarded()[0], "10.0.3.255:25");
    // What was guarded before is not given up for another one like it.
    let late: IpAddr = "10.0.4.19".parse().unwrap();
    let before = HashSet::from([(late, 25)]);
    let scopes = BTreeMap::new();
    let plan = ListenPlan::of(&[], &scopes, &guarded, &local, &before);
    assert!(plan.guarded().contains(&(late, 25)));
    assert_eq!(plan.unguarded().len(), 21);
    // A wildcard answers for the others as well.
    let plan = find(&listen(&["0.0.0.0:25"]), &guarded, &local);
    assert_eq!(plan.sockets().len(), 1);
    assert_eq!(plan.unguarded().len(), 21);
}

#[test]
fn a_wildcard_guards_what_is_routed_here_and_names_networks() {
    let local = HostAddresses {
        configured: [on(1, "127.0.0.1/8", false), on(2, "192.0.2.1/24", false)].into(),
        routes: routes(&[
            "127.0.0.0/8",
            "127.0.0.1/32",
            "192.0.2.1/32",
            "198.51.100.7/32",
            "203.0.113.0/24",
            "2001:db8:1::/64",
            "2001:db8::7/128",
        ]),
    };
    let guarded = [interface(2)];
    let plan = find(&listen(&["0.0.0.0:25", "[::]:26"]), &guarded, &local);
    let expected = [
        "127.0.0.1:25",
        "192.0.2.1:25",
        "198.51.100.7:25",
        "[2001:db8::7]:26",
    ];
    assert_eq!(plan.labels(&guarded), expected);
    assert_eq!(
        plan.unguarded(),
        ["203.0.113.0/24 port 25", "2001:db8:1::/64 port 26"]
    );
    assert!(plan.unchallenged().is_empty());
    let only_found = find(&[], &guarded, &local);
    assert_eq!(only_found.labels(&guarded), ["192.0.2.1:25"]);
    assert!(only_found.unguarded().is_empty());
}

#[test]
fn what_may_come_by_a_vlan_is_not_challenged() {
    let local = HostAddresses {
        configured: [
            on(1, "198.51.100.1/32", false),
            on(2, "192.0.2.1/24", false),
            on(3, "10.0.0.1/24", false),
        ]
        .into(),
        routes: routes(&["198.51.100.7/32", "203.0.113.0/24"]),
    };
    let on = listen(&["0.0.0.0:25", "203.0.113.9:25"]);
    let unchallenged = |guarded: Interface| {
        let plan = find(&on, &[guarded], &local);
        let shown = plan.unchallenged().into_iter();
        shown.map(|pair| pair.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(unchallenged(interface(2)), [""; 0]);
    let bridged = Interface {
        stacked: vec![3],
        ..interface(2)
    };
    assert_eq!(unchallenged(bridged.clone()), ["10.0.0.1:25"]);
    let vlan = Interface {
        has_vlans: true,
        ..bridged
    };
    let all = [
        "10.0.0.1:25",
        "198.51.100.1:25",
        "198.51.100.7:25",
        "203.0.113.9:25",
    ];
    assert_eq!(unchallenged(vlan), all);
}

#[test]
fn what_is_not_there_takes_nothing_else_down() {
    let local = HostAddresses {
        configured: [on(2, "192.0.2.1/24", false)].into(),
        ..HostAddresses::default()
    };
    let texts = [
        "192.0.2.1:25",
        "192.0.2.9:25",
        "[fe80::1%host0]:25",
        "[fe80::1%host9]:25",
    ];
    let plan = find(&listen(&texts), &[interface(2)], &local);
    let absent: Vec<_> = plan.absent().iter().collect();
    assert_eq!(
        absent,
        ["192.0.2.9:25", "[fe80::1%2]:25", "[fe80::1%host9]:25"]
    );
    let sockets = plan.sockets();
    let absent = sockets.iter().map(|socket| plan.is_absent(*socket));
    assert_eq!(absent.collect::<Vec<_>>(), [false, true, true]);
    assert!(plan.unchallenged().is_empty());
}
