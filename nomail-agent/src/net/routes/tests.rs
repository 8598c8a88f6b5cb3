use netlink_packet_route::route::RouteNextHop;

use super::*;

fn route(change: impl FnOnce(&mut RouteMessage)) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.kind = RouteType::Unicast;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.attributes.push(RouteAttribute::Oif(7));
    change(&mut route);
    route
}

#[test]
fn a_default_route_of_the_main_table_that_leads_somewhere() {
    assert_eq!(default_route(&route(|_| {})), Some((0, Leads::To(7))));
    let metric = route(|route| route.attributes.push(RouteAttribute::Priority(100)));
    assert_eq!(default_route(&metric), Some((100, Leads::To(7))));
    let hops = route(|route| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = 9;
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop])];
    });
    assert_eq!(default_route(&hops), Some((0, Leads::To(9))));
    let by_next_hop = route(|route| route.attributes = vec![RouteAttribute::NhId(5)]);
    assert_eq!(default_route(&by_next_hop), Some((0, Leads::ByNextHop(5))));
    let both = route(|route| route.attributes.push(RouteAttribute::NhId(5)));
    assert_eq!(default_route(&both), Some((0, Leads::To(7))));
    let elsewhere = [
        route(|route| route.header.destination_prefix_length = 8),
        route(|route| route.header.kind = RouteType::Unreachable),
        route(|route| route.header.table = 100),
        route(|route| route.attributes.push(RouteAttribute::Table(51_820))),
        route(|route| route.attributes.clear()),
    ];
    for route in elsewhere {
        assert_eq!(default_route(&route), None, "{route:?}");
    }
}
