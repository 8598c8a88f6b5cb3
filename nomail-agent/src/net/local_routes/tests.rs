use super::*;

fn route(kind: RouteType, prefix: &str) -> RouteMessage {
    let prefix: IpNet = prefix.parse().unwrap();
    let mut route = RouteMessage::default();
    route.header.kind = kind;
    route.header.destination_prefix_length = prefix.prefix_len();
    route.header.address_family = match prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    route.attributes.push(RouteAttribute::Oif(7));
    if prefix.prefix_len() > 0 {
        let destination = RouteAddress::from(prefix.addr());
        route
            .attributes
            .push(RouteAttribute::Destination(destination));
    }
    route
}

fn found(routes: &[RouteMessage]) -> (Vec<String>, Vec<String>) {
    let mut local = LocalRoutes::default();
    for route in routes {
        local.add(route);
    }
    assert!(local.own.iter().all(|route| route.interface == 7));
    let own = local.own.iter().map(|route| route.prefix.to_string());
    let shared = local.shared.iter().map(ToString::to_string);
    (own.collect(), shared.collect())
}

#[test]
fn addresses_and_prefixes_are_own_and_broadcast_is_of_all() {
    let (own, shared) = found(&[
        route(RouteType::Local, "198.51.100.7/32"),
        route(RouteType::Local, "198.51.100.128/25"),
        route(RouteType::Local, "0.0.0.0/0"),
        route(RouteType::Local, "2001:db8::7/128"),
        route(RouteType::Local, "::/0"),
        route(RouteType::Broadcast, "192.0.2.255/32"),
        route(RouteType::Anycast, "2001:db8::/128"),
        route(RouteType::Unicast, "203.0.113.1/32"),
        route(RouteType::Multicast, "ff00::/8"),
    ]);
    let expected = [
        "0.0.0.0/0",
        "198.51.100.7/32",
        "198.51.100.128/25",
        "::/0",
        "2001:db8::7/128",
    ];
    assert_eq!(own, expected);
    assert_eq!(shared, ["192.0.2.255", "2001:db8::"]);
}

#[test]
fn a_route_that_names_no_destination_is_one_to_everything_or_nothing() {
    let mut nameless = route(RouteType::Local, "0.0.0.0/0");
    nameless.header.destination_prefix_length = 24;
    assert_eq!(found(&[nameless]), Default::default());
}

#[tokio::test]
async fn the_kernel_reports_its_own_addresses() {
    let kernel = Interfaces::connect().unwrap();
    let local = kernel.local_routes().await.unwrap();
    let loopback: IpNet = "127.0.0.1/32".parse().unwrap();
    assert!(local.own.iter().any(|route| route.prefix == loopback));
    for configured in kernel.configured_addresses().await.unwrap() {
        let own = configured.local.address;
        let mut routes = local.own.iter();
        assert!(
            routes.any(|route| route.prefix.contains(&own)),
            "{configured:?}"
        );
    }
}
