use netlink_packet_route::route::RouteMessage;

use super::*;

fn notice(kind: RouteType, length: u8) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.kind = kind;
    route.header.destination_prefix_length = length;
    RouteNetlinkMessage::NewRoute(route)
}

#[test]
fn of_routes_only_those_to_this_host_and_the_default_ones_matter() {
    assert!(matters(&notice(RouteType::Local, 32)));
    assert!(matters(&notice(RouteType::Broadcast, 32)));
    assert!(matters(&notice(RouteType::Unicast, 0)));
    assert!(!matters(&notice(RouteType::Unicast, 24)));
    assert!(!matters(&notice(RouteType::Multicast, 8)));
    assert!(matters(&RouteNetlinkMessage::NewLink(Default::default())));
}
