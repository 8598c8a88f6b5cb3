use super::{super::finding::CheckResult, *};
use crate::{
    config::Hostname,
    status::{ResponderStatus, Speaker},
};

fn pair(text: &str) -> ListenPair {
    ListenPair::parse(text).unwrap()
}

#[test]
fn pairs_of_the_status() {
    let index = if_nametoindex("lo").unwrap();
    let SocketAddr::V6(scoped) = pair("[fe80::1%lo]:25").address else {
        panic!("IPv6");
    };
    assert_eq!((scoped.scope_id(), scoped.port()), (index, 25));
    assert_eq!(pair("[2001:db8::1]:25").address.port(), 25);
    for wrong in [
        "",
        "x",
        "[fe80::1%nothing]:25",
        "fe80::1%lo:25",
        "[x%lo]:25",
    ] {
        assert_eq!(ListenPair::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn pairs_of_interfaces() {
    let found = |address: &str, interface| LocalAddress {
        address: address.parse().unwrap(),
        interface,
    };
    let local = [
        found("192.0.2.1", 2),
        found("fe80::1", 2),
        found("192.0.2.2", 3),
    ]
    .into();
    let eth0 = [(2, "eth0".to_owned())];
    let pairs = pairs(&Config::default(), None, &local, &eth0);
    let shown: Vec<_> = pairs.iter().map(|pair| pair.shown.as_str()).collect();
    assert_eq!(shown, ["192.0.2.1:25", "[fe80::1%eth0]:25"]);
}

#[test]
fn holders() {
    let pair = pair("192.0.2.7:25");
    let exim = || Some("exim4 (pid 7)".to_owned());
    let held = port(&pair, exim(), false);
    assert_eq!(held.result, CheckResult::Fail);
    assert!(held.found.contains("exim4 (pid 7)"));
    assert_eq!(port(&pair, None, false).result, CheckResult::Skip);
    assert_eq!(port(&pair, None, true).result, CheckResult::Fail);
}

#[test]
fn ports_of_a_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held = listener.local_addr().unwrap();
    let mut host = Host {
        root: true,
        config: Config::default(),
        status: None,
        addresses: Vec::new(),
        pairs: Vec::new(),
        name: Hostname::from_address(held.ip()),
    };
    let results = |host: &Host| {
        let findings = ports(host).into_iter();
        findings.map(|found| found.result).collect::<Vec<_>>()
    };
    assert_eq!(results(&host), [CheckResult::Fail]);
    host.pairs = vec![ListenPair::new(held), pair("192.0.2.7:25")];
    assert_eq!(results(&host), [CheckResult::Ok, CheckResult::Fail]);
    host.status = Some(Status::default());
    assert_eq!(results(&host), [CheckResult::Ok]);
    assert!(ports(&host)[0].found.contains("nomail-agent listens"));
    host.status = Some(Status {
        responder: ResponderStatus {
            by: Speaker::Xdp,
            serving: Speaker::Xdp,
            ..ResponderStatus::default()
        },
        ..Status::default()
    });
    assert_eq!(results(&host), [CheckResult::Ok]);
    assert!(ports(&host)[0].found.contains("without a socket"));
}

#[test]
fn a_link_local_address_of_a_wildcard_has_its_link() {
    let lo = if_nametoindex("lo").unwrap();
    let local = [LocalAddress {
        address: "fe80::1".parse().unwrap(),
        interface: lo,
    }]
    .into();
    let scoped = pair("[fe80::1]:25").scoped(&local);
    assert_eq!(scoped, pair("[fe80::1%lo]:25"));
    for same in [
        "[fe80::2]:25",
        "[2001:db8::1]:25",
        "192.0.2.1:25",
        "[fe80::1%lo]:25",
    ] {
        assert_eq!(pair(same).scoped(&local), pair(same));
    }
}

#[test]
fn a_host_that_may_not_connect_is_no_fault() {
    let pair = pair("192.0.2.7:25");
    let result = |heard, reached| {
        let findings = greetings(&[(&pair, heard)], "mailless.example.org", |_| reached);
        findings[0].result
    };
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    assert_eq!(
        result(Greeted::Unconnected(late()), Some(true)),
        CheckResult::Skip
    );
    assert_eq!(
        result(Greeted::Unconnected(late()), None),
        CheckResult::Skip
    );
    assert_eq!(
        result(Greeted::Unconnected(late()), Some(false)),
        CheckResult::Fail
    );
    assert_eq!(
        result(Greeted::Broken(late()), Some(true)),
        CheckResult::Fail
    );
}

#[test]
fn what_is_heard() {
    let pair = pair("192.0.2.7:25");
    let result = |heard: io::Result<&[u8]>| {
        let heard = match heard {
            Ok(line) => Greeted::Line(line.to_vec()),
            Err(error) => Greeted::Broken(error),
        };
        let heard = [(&pair, heard)];
        let findings = greetings(&heard, "mailless.example.org", |_| None);
        assert_eq!(findings.len(), 1);
        assert!(!findings[0].found.contains('\u{1b}'));
        findings[0].result
    };
    let good: &[u8] = b"521 mailless.example.org does not accept mail\r\n";
    assert_eq!(result(Ok(good)), CheckResult::Ok);
    assert_eq!(
        result(Ok(b"220 mailless.example.org ESMTP nomail\r\n")),
        CheckResult::Ok
    );
    assert_eq!(
        result(Ok(b"421 mailless.example.org full\r\n")),
        CheckResult::Warn
    );
    assert_eq!(
        result(Ok(b"521 other.example.org does not\r\n")),
        CheckResult::Fail
    );
    assert_eq!(
        result(Ok(b"220 mailless.example.organ\r\n")),
        CheckResult::Fail
    );
    assert_eq!(result(Ok(b"\x1b[31m\xff\r\n")), CheckResult::Fail);
    assert_eq!(result(Ok(b"")), CheckResult::Fail);
    assert_eq!(
        result(Err(io::ErrorKind::TimedOut.into())),
        CheckResult::Fail
    );
}
