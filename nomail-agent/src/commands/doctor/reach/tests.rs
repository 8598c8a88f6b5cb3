use super::{super::finding::CheckResult, *};

fn local(addresses: &[&str]) -> BTreeSet<LocalAddress> {
    let of = |address: &&str| LocalAddress {
        address: address.parse().unwrap(),
        interface: 2,
    };
    addresses.iter().map(of).collect()
}

#[test]
fn strangers_are_nobodys() {
    let own = local(&["198.51.100.1", "2001:db8:6e6f:6d61::1"]);
    for random in [0, 1, 0xff00, u64::MAX, 221, 222] {
        for number in [0, ATTEMPTS_MAX as u8 - 1] {
            let v4 = stranger("198.51.100.1".parse().unwrap(), random, number, &own);
            assert!(v4.to_string().starts_with("203.0.113."), "{v4}");
            let IpAddr::V4(address) = v4.ip() else {
                panic!("IPv4");
            };
            assert!(!matches!(address.octets()[3], 0 | 255), "{v4}");
            let v6 = stranger("::1".parse().unwrap(), random, number, &own);
            assert!(v6.to_string().starts_with("[3fff:6e6f:6d61:696c::"), "{v6}");
            assert!(v4.port() >= STRANGER_PORTS);
        }
    }
    let v4 = stranger("192.0.2.1".parse().unwrap(), 7, 0, &local(&["192.0.2.1"]));
    assert!(v4.to_string().starts_with("198.51.100."), "{v4}");
}

fn results(fate: Fate) -> Vec<CheckResult> {
    let tried = TriedSyn {
        interface: "eth0".to_owned(),
        from: "198.51.100.7".parse().unwrap(),
        to: "192.0.2.1:25".parse().unwrap(),
        fate,
    };
    let listening = ["192.0.2.1:25", "192.0.2.1:2525", "[::]:26"];
    let listening = listening.map(|on| on.parse().unwrap());
    judged(&[tried], &listening)
        .into_iter()
        .map(|finding| finding.result)
        .collect()
}

#[test]
fn fates() {
    let by = |by: &str| Fate::Reached(by.parse().unwrap());
    assert_eq!(results(by("192.0.2.1:25")), [CheckResult::Ok]);
    assert_eq!(results(by("192.0.2.1:2525")), [CheckResult::Ok]);
    assert_eq!(results(by("192.0.2.1:26")), [CheckResult::Fail]);
    assert_eq!(results(by("[2001:db8::1]:26")), [CheckResult::Ok]);
    assert_eq!(results(Fate::Lost), [CheckResult::Fail]);
    assert_eq!(results(Fate::Cookies), [CheckResult::Skip]);
    assert_eq!(results(Fate::NoWayBack), [CheckResult::Skip]);
}

#[test]
fn cookies_are_counted() {
    let netstat = "TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 7 3\nIpExt: A\nIpExt: 9\n";
    assert_eq!(counter(netstat, "SyncookiesSent"), Some(7));
    assert_eq!(counter(netstat, "SyncookiesRecv"), Some(3));
    assert_eq!(counter(netstat, "A"), None);
    assert_eq!(counter("TcpExt: A", "A"), None);
    assert!(cookies_sent().is_some());
}

#[test]
fn many_syns_and_no_connection_are_told() {
    let status = |passed, accepted| {
        let mut status = Status::default();
        (
            status.counts.syn[Verdict::Passed],
            status.connections.accepted,
        ) = (passed, accepted);
        status
    };
    assert_eq!(counted(&status(PASSED_MIN - 1, 0)), None);
    assert_eq!(counted(&status(1000, 1)), None);
    let found = counted(&status(PASSED_MIN, 0)).unwrap();
    assert_eq!(found.result, CheckResult::Warn);
}

#[test]
fn a_listener_is_reached_or_not() {
    let tried = |to: &str, fate| TriedSyn {
        interface: "eth0".to_owned(),
        from: "198.51.100.7".parse().unwrap(),
        to: to.parse().unwrap(),
        fate,
    };
    let to = "192.0.2.1:25".parse().unwrap();
    let reach = ReachTest {
        tried: Ok(vec![
            tried("192.0.2.1:25", Fate::Reached(to)),
            tried("192.0.2.2:25", Fate::Lost),
            tried("192.0.2.3:25", Fate::NoWayBack),
        ]),
        left_out: 0,
    };
    let of = |listener: &str| reach.of(listener.parse().unwrap());
    assert_eq!(of("192.0.2.1:25"), Some(true));
    assert_eq!(of("192.0.2.2:25"), Some(false));
    assert_eq!(of("192.0.2.3:25"), None);
    assert_eq!(of("192.0.2.1:26"), None);
}
