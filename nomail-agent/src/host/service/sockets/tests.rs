use std::net::Ipv4Addr;

use rstest::rstest;
use socket2::Domain;

use super::*;

#[test]
fn only_a_listening_tcp_socket_has_an_address() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let clone = || Socket::from(listener.try_clone().unwrap());
    assert_eq!(listening_address(&clone()), Some(address));
    assert!(!takes_both_families(&clone(), address));
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    assert_eq!(listening_address(&bound), None);
    let datagram = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    assert_eq!(listening_address(&datagram), None);
    let local = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    assert_eq!(listening_address(&local), None);
}

#[rstest]
#[case(true)]
#[case(false)]
fn a_wildcard_for_both_families_is_seen(#[case] only_v6: bool) {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(only_v6).unwrap();
    let wildcard: SocketAddr = "[::]:0".parse().unwrap();
    socket.bind(&wildcard.into()).unwrap();
    socket.listen(1).unwrap();
    let address = listening_address(&socket).unwrap();
    assert_eq!(takes_both_families(&socket, address), !only_v6);
}

#[test]
fn sockets_are_known_by_their_address_and_all_must_be_wanted() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut inherited = InheritedSockets {
        sockets: [(address, listener)].into(),
        listen: vec![to_listen_address(address)],
    };
    let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    inherited.check(|wanted| wanted == address).unwrap();
    let error = inherited.check(|wanted| wanted == other).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(inherited.take(other).is_none());
    let taken = inherited.take(address).unwrap();
    assert_eq!(taken.local_addr().unwrap(), address);
    assert!(inherited.take(address).is_none());
    assert_eq!(inherited.listen()[0].to_string(), address.to_string());
}

#[test]
fn the_scope_of_an_address_has_a_name() {
    let address: SocketAddr = "[fe80::1%1]:25".parse().unwrap();
    let shown = to_listen_address(address).to_string();
    assert_eq!(shown, "[fe80::1%lo]:25");
}
