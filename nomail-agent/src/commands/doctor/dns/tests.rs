use super::*;

const OWN: &str = "mailless.example.org";

fn own(relay: Option<&Relay>) -> ThisHost<'_> {
    const ADDRESSES: &[IpAddr] = &[IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];
    ThisHost {
        name: OWN,
        addresses: ADDRESSES,
        relay,
    }
}

fn address(text: &str) -> Records<IpAddr> {
    Records::Found(vec![text.parse().unwrap()])
}

fn exchange(name: &str, addresses: Records<IpAddr>) -> Exchange {
    Exchange {
        preference: 10,
        name: name.to_owned(),
        addresses,
    }
}

fn domain(reason: Reason, exchanges: Records<Exchange>) -> Domain {
    Domain {
        name: "example.org".to_owned(),
        reason,
        exchanges,
        addresses: Records::None,
        texts: Records::None,
    }
}

fn below() -> Reason {
    Reason::Parent(OWN.to_owned())
}

#[test]
fn parents_of_a_name() {
    let above: Vec<_> = parents("a.b.example.org").collect();
    assert_eq!(above, ["b.example.org", "example.org"]);
    assert_eq!(parents("example.org").count(), 0);
    assert_eq!(parents("org").count(), 0);
}

#[test]
fn an_mx_that_is_this_host_fails() {
    let result = |exchanges| mx(&domain(below(), exchanges), &own(None)).result;
    let by_name = exchange("Mailless.Example.org", Records::None);
    let by_address = exchange("mx.example.org", address("192.0.2.1"));
    let other = exchange("mx.example.org", address("192.0.2.9"));
    let unknown = exchange("mx.example.org", Records::Unknown("late".to_owned()));
    let null = exchange("", Records::None);
    assert_eq!(
        result(Records::Found(vec![other.clone(), by_name.clone()])),
        CheckResult::Fail
    );
    assert_eq!(result(Records::Found(vec![by_address])), CheckResult::Fail);
    assert_eq!(result(Records::Found(vec![other])), CheckResult::Ok);
    assert_eq!(result(Records::Found(vec![null])), CheckResult::Ok);
    assert_eq!(result(Records::Found(vec![unknown])), CheckResult::Skip);
    assert_eq!(result(Records::None), CheckResult::Ok);
    assert_eq!(
        result(Records::Unknown("late".to_owned())),
        CheckResult::Skip
    );
    let found = mx(&domain(below(), Records::Found(vec![by_name])), &own(None));
    assert!(
        found
            .found
            .contains("example.org, which mailless.example.org is below")
    );
    assert!(
        found
            .remedy
            .unwrap()
            .contains("[relay] domains = [\"example.org\"]")
    );
}

#[test]
fn a_relay_is_an_mx_on_purpose() {
    let mut relay = Relay {
        domains: Vec::new(),
        code: crate::config::RelayCode::default(),
        text: String::new(),
        postmaster: None,
        files: Vec::new(),
        written: Vec::new(),
    };
    let mine = || {
        let exchanges = Records::Found(vec![exchange(OWN, Records::None)]);
        domain(Reason::Asked, exchanges)
    };
    assert_eq!(mx(&mine(), &own(Some(&relay))).result, CheckResult::Fail);
    let mut listed = |name: &str| {
        relay.domains = vec![crate::config::RelayDomain {
            name: name.to_owned(),
            text: None,
        }];
        mx(&mine(), &own(Some(&relay))).result
    };
    assert_eq!(listed("example.org"), CheckResult::Ok);
    assert_eq!(listed("*.org"), CheckResult::Ok);
    assert_eq!(listed("*.example.org"), CheckResult::Fail);
    assert_eq!(listed("example.net"), CheckResult::Fail);
}

#[test]
fn without_an_mx_the_address_counts() {
    let result = |reason| {
        let domain = Domain {
            addresses: address("192.0.2.1"),
            ..domain(reason, Records::None)
        };
        mx(&domain, &own(None)).result
    };
    assert_eq!(result(Reason::Name), CheckResult::Ok);
    assert_eq!(
        result(Reason::Pointer("192.0.2.1".parse().unwrap())),
        CheckResult::Ok
    );
    assert_eq!(result(below()), CheckResult::Warn);
    assert_eq!(result(Reason::Arrived(2)), CheckResult::Warn);
    assert_eq!(result(Reason::Asked), CheckResult::Warn);
}

#[test]
fn a_domain_that_mail_arrives_for_is_looked_at() {
    let result = |exchanges| mx(&domain(Reason::Arrived(3), exchanges), &own(None));
    let mine = result(Records::Found(vec![exchange(OWN, Records::None)]));
    assert_eq!(mine.result, CheckResult::Fail);
    let expected = "example.org, which mail arrived for, from 3 networks: MX 10 ";
    assert!(mine.found.starts_with(expected), "{}", mine.found);
    let other = exchange("mx.example.org", address("192.0.2.9"));
    assert_eq!(result(Records::Found(vec![other])).result, CheckResult::Ok);
}

#[test]
fn destinations() {
    let of = |exchanges, addresses| {
        let domain = Domain {
            addresses,
            ..domain(Reason::Asked, exchanges)
        };
        destination(&domain, &own(None))
    };
    let other = || exchange("mx.example.org", address("192.0.2.9"));
    let mine = || exchange(OWN, Records::None);
    let elsewhere = |name: &str| Destination::Elsewhere(name.to_owned());
    let late = || "late".to_owned();
    assert_eq!(
        of(Records::Found(vec![mine(), other()]), Records::None),
        elsewhere("mx.example.org")
    );
    assert_eq!(
        of(Records::Found(vec![mine()]), Records::None),
        Destination::Here
    );
    let null = Records::Found(vec![exchange("", Records::None)]);
    assert_eq!(of(null, address("192.0.2.1")), Destination::NullMx);
    assert_eq!(of(Records::None, address("192.0.2.1")), Destination::Here);
    assert_eq!(
        of(Records::None, address("192.0.2.9")),
        elsewhere("example.org")
    );
    assert_eq!(of(Records::None, Records::None), Destination::Nowhere);
    assert_eq!(
        of(Records::Unknown(late()), Records::None),
        Destination::Unknown(late())
    );
}

#[test]
fn null_mx_records() {
    let result = |exchanges| null_mx(&domain(Reason::Asked, exchanges), &own(None)).result;
    let null = || exchange("", Records::None);
    let other = || exchange("mx.example.org", address("192.0.2.9"));
    let mine = || exchange(OWN, Records::None);
    assert_eq!(result(Records::Found(vec![null()])), CheckResult::Ok);
    assert_eq!(
        result(Records::Found(vec![null(), other()])),
        CheckResult::Fail
    );
    assert_eq!(result(Records::Found(vec![other()])), CheckResult::Skip);
    assert_eq!(result(Records::Found(vec![mine()])), CheckResult::Warn);
    assert_eq!(result(Records::None), CheckResult::Warn);
    assert_eq!(
        result(Records::Unknown("late".to_owned())),
        CheckResult::Skip
    );
    let found = null_mx(&domain(Reason::Asked, Records::None), &own(None));
    assert_eq!(found.remedy.as_deref(), Some("example.org. IN MX 0 ."));
}

#[test]
fn spf_records() {
    let finding = |texts: &[&[u8]]| {
        let texts = texts.iter().map(|text| text.to_vec()).collect();
        let domain = Domain {
            texts: Records::Found(texts),
            ..domain(Reason::Asked, Records::None)
        };
        spf(&domain, &own(None))
    };
    assert_eq!(finding(&[b"hello", b"v=spf1 -all"]).result, CheckResult::Ok);
    assert_eq!(finding(&[b"V=SPF1 -ALL"]).result, CheckResult::Ok);
    assert_eq!(finding(&[b"v=spf10 -all"]).result, CheckResult::Warn);
    assert_eq!(
        finding(&[b"v=spf1 mx -all", b"v=spf1 -all"]).result,
        CheckResult::Fail
    );
    let found = finding(&[b"v=spf1 \x1b[31m\xff"]);
    assert_eq!(found.result, CheckResult::Warn);
    assert!(
        found.found.ends_with("\"v=spf1 \\x1b[31m\\xff\""),
        "{found:?}"
    );
    let domain = |texts, exchanges| Domain {
        texts,
        ..domain(Reason::Asked, exchanges)
    };
    let unknown = domain(Records::Unknown("late".to_owned()), Records::None);
    assert_eq!(spf(&unknown, &own(None)).result, CheckResult::Skip);
    let other = Records::Found(vec![exchange("mx.example.org", Records::None)]);
    assert_eq!(
        spf(&domain(Records::None, other), &own(None)).result,
        CheckResult::Skip
    );
    let none = spf(&domain(Records::None, Records::None), &own(None));
    assert_eq!(
        none.remedy.as_deref(),
        Some("example.org. IN TXT \"v=spf1 -all\"")
    );
}
