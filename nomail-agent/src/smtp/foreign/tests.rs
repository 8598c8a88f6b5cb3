//! Which domains are kept, warned about and shown.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const NOW: u32 = 1_764_000_000;
const DAY: u32 = 24 * 3600;

/// An address of the `n`th network.
fn nth(n: u32) -> IpAddr {
    IpAddr::from(std::net::Ipv4Addr::from_bits(n << 8 | 7))
}

fn names(domains: &[ForeignDomain]) -> Vec<&str> {
    domains.iter().map(|domain| domain.name.as_str()).collect()
}

fn due(domains: &mut ForeignDomains, now: u32) -> Vec<String> {
    let due = domains.take_due(now).into_iter();
    due.map(|domain| domain.name).collect()
}

/// 40 invented domains on one connection.
#[test]
fn one_connection_does_not_switch_the_warning_off() {
    let mut domains = ForeignDomains::default();
    for number in 0..40 {
        domains.record(
            format!("invented-{number}.example").as_bytes(),
            nth(1),
            NOW,
            true,
        );
    }
    assert_eq!(domains.list(NOW).len(), OF_NETWORK_MAX);
    domains.record(b"example.org", nth(2), NOW + 1, true);
    assert_eq!(due(&mut domains, NOW + SETTLE_SECS + 1), ["example.org"]);
    let list = domains.list(NOW + 1);
    assert_eq!(list[0].name, "example.org");
    assert!(list[0].suspect && !list[1].suspect);
}

/// As many connections as there are places, each from a network of its own.
#[test]
fn what_several_networks_ask_for_is_not_displaced_by_what_one_does() {
    let mut domains = ForeignDomains::default();
    for network in [1, 2, 3] {
        domains.record(b"example.org", nth(network), NOW, true);
    }
    for number in 0..4 * DOMAINS_MAX as u32 {
        let name = format!("invented-{number}.example");
        domains.record(name.as_bytes(), nth(100 + number), NOW + number, true);
    }
    let now = NOW + 2000;
    let list = domains.list(now);
    assert_eq!(list.len(), DOMAINS_MAX);
    assert_eq!(
        (list[0].name.as_str(), list[0].networks),
        ("example.org", 3)
    );
    let warned = due(&mut domains, now);
    assert_eq!(warned[0], "example.org");
    assert_eq!(warned.len(), 1 + WARNINGS_MAX as usize);
    // Domains of single networks have used up their own warnings only.
    for network in [1, 2] {
        domains.record(b"other.example.org", nth(network), now, true);
    }
    assert_eq!(due(&mut domains, now), ["other.example.org"]);
}

/// Networks that confirm each other's inventions leave space for other domains.
#[test]
fn confirmed_inventions_leave_places_to_newcomers() {
    let mut domains = ForeignDomains::default();
    for number in 0..2 * DOMAINS_MAX as u32 {
        let name = format!("invented-{number}.example");
        for network in [1000 + number / 8, 5000 + number] {
            domains.record(name.as_bytes(), nth(network), NOW + number, true);
        }
    }
    for network in [1, 2, 3] {
        domains.record(b"example.org", nth(network), NOW + 1000, true);
    }
    let list = domains.list(NOW + 1000);
    assert_eq!(list.len(), DOMAINS_MAX);
    assert_eq!(list[0].name, "example.org");
}

#[test]
fn two_networks_are_warned_of_at_once_and_one_when_it_has_settled() {
    let mut domains = ForeignDomains::default();
    domains.record(b"one.example", nth(1), NOW, true);
    domains.record(b"Two.Example.", nth(1), NOW, true);
    domains.record(b"two.example", "2001:db8::1".parse().unwrap(), NOW, true);
    assert_eq!(due(&mut domains, NOW), ["two.example"]);
    assert!(due(&mut domains, NOW + SETTLE_SECS - 1).is_empty());
    assert_eq!(due(&mut domains, NOW + SETTLE_SECS), ["one.example"]);
    // Once a day, and only if it is asked for again.
    assert!(due(&mut domains, NOW + 2 * DAY).is_empty());
    domains.record(b"two.example", nth(3), NOW + 2 * DAY, true);
    assert_eq!(due(&mut domains, NOW + 2 * DAY), ["two.example"]);
    domains.record(b"two.example", nth(3), NOW + 2 * DAY + 1, true);
    assert!(due(&mut domains, NOW + 2 * DAY + 1).is_empty());
}

#[test]
fn a_network_that_names_many_once_looks_for_a_relay_and_one_that_returns_does_not() {
    let mut domains = ForeignDomains::default();
    for number in 0..=PROBE_DOMAINS {
        domains.record(format!("{number}.example").as_bytes(), nth(1), NOW, true);
    }
    assert!(due(&mut domains, NOW + SETTLE_SECS).is_empty());
    // Twice in a row is no return.
    domains.record(b"1.example", nth(1), NOW + 1, true);
    assert!(due(&mut domains, NOW + SETTLE_SECS).is_empty());
    domains.record(b"2.example", nth(1), NOW + REPEAT_SECS, true);
    assert_eq!(due(&mut domains, NOW + REPEAT_SECS), ["2.example"]);
    domains.record(b"3.example", nth(2), NOW + REPEAT_SECS, true);
    assert_eq!(due(&mut domains, NOW + REPEAT_SECS), ["3.example"]);
}

/// A day later it may name new ones, but those it named before remain probes.
#[test]
fn a_probe_that_returns_the_next_day_is_still_one() {
    let mut domains = ForeignDomains::default();
    for number in 0..40 {
        domains.record(format!("{number}.example").as_bytes(), nth(1), NOW, true);
    }
    domains.record(b"new.example", nth(1), NOW + DAY, true);
    assert!(due(&mut domains, NOW + DAY + SETTLE_SECS).is_empty());
    let list = domains.list(NOW + DAY);
    assert!(list.iter().all(|domain| !domain.suspect), "{list:?}");
}

#[rstest]
#[case::other(b"example.org", true)]
#[case::upper(b"WWW.Example.ORG.", true)]
#[case::below_the_name(b"a.own.example.net", true)]
#[case::underscore(b"_dmarc.example.org", true)]
#[case::u_label("b\u{fc}cher.example".as_bytes(), true)]
#[case::own(b"www.example.net", false)]
#[case::own_in_capitals(b"WWW.example.NET.", false)]
#[case::below_own(b"a.b.below.example.net", false)]
#[case::own_parent(b"below.example.net", true)]
#[case::literal(b"[192.0.2.1]", false)]
#[case::literal_ipv6(b"[IPv6:2001:db8::1]", false)]
#[case::address(b"192.0.2.1", false)]
#[case::single(b"localhost", false)]
#[case::local(b"a.localdomain", false)]
#[case::invalid(b"a.invalid", false)]
#[case::empty(b"", false)]
#[case::dot(b".", false)]
#[case::dots(b"a..example", false)]
#[case::escape(b"a\x1b[2J.example", false)]
#[case::not_utf8(b"b\xfccher.example", false)]
#[case::space(b"a b.example", false)]
fn names_that_may_have_real_mail(#[case] name: &[u8], #[case] expected: bool) {
    let mut domains = ForeignDomains::default();
    domains.set_own(["www.example.net", "*.below.example.net"]);
    assert_eq!(domains.record(name, nth(1), NOW, true), expected);
    assert_eq!(domains.list(NOW).len(), usize::from(expected));
}

#[test]
fn a_name_that_becomes_ours_is_forgotten_and_unlogged_peers_are_not_kept() {
    let mut domains = ForeignDomains::default();
    assert!(domains.record(b"example.org", nth(1), NOW, false));
    assert!(domains.list(NOW).is_empty());
    domains.record(b"example.org", nth(1), NOW, true);
    domains.record(b"other.example", nth(1), NOW, true);
    domains.set_own(["example.org"]);
    assert_eq!(names(&domains.list(NOW)), ["other.example"]);
    assert!(domains.list(NOW + AGE_SECS).is_empty());
}

#[test]
fn saved_and_restored() {
    let mut domains = ForeignDomains::default();
    for number in 0..=PROBE_DOMAINS {
        domains.record(format!("{number}.example").as_bytes(), nth(9), NOW, true);
    }
    for network in [1, 2] {
        domains.record(b"example.org", nth(network), NOW, true);
    }
    assert_eq!(due(&mut domains, NOW), ["example.org"]);
    let text = domains.save(NOW + 1);
    assert!(
        text.contains(
            "\nexample.org 1764000000 1764000000 1764000000 2 once 0.0.1.0/24 0.0.2.0/24\n"
        )
    );
    let mut again = ForeignDomains::restore(text.as_bytes(), NOW + 1).unwrap();
    assert_eq!(again.save(NOW + 1), text);
    assert_eq!(names(&again.list(NOW)), names(&domains.list(NOW)));
    // One was warned about, and the probe is still one.
    assert!(due(&mut again, NOW + SETTLE_SECS).is_empty());
    let later = ForeignDomains::restore(text.as_bytes(), NOW + AGE_SECS).unwrap();
    assert!(later.list(NOW + AGE_SECS).is_empty());
}

#[rstest]
#[case::empty("")]
#[case::other("nomail senders 1\n")]
#[case::cut("nomail domains 1\na.example 1 1 0 1 once 192.0.2.0/24")]
#[case::no_network("nomail domains 1\na.example 1 1 0 1 once\n")]
#[case::network("nomail domains 1\na.example 1 1 0 1 once 192.0.2.1/24\n")]
#[case::name("nomail domains 1\nA.example 1 1 0 1 once 192.0.2.0/24\n")]
#[case::mark("nomail domains 1\na.example 1 1 0 1 twice 192.0.2.0/24\n")]
#[case::twice("nomail domains 1\na.b 1 1 0 1 once 192.0.2.0/24\na.b 1 1 0 1 once 192.0.2.0/24\n")]
fn nonsense_is_not_restored(#[case] text: &str) {
    assert!(ForeignDomains::restore(text.as_bytes(), NOW).is_none());
}

#[test]
fn the_longest_file_is_within_its_bound() {
    let mut domains = ForeignDomains::default();
    for number in 0..DOMAINS_MAX as u32 {
        let label = "a".repeat(62);
        let name = format!("{number:03}.{label}.{label}.{label}.{}", "b".repeat(60));
        for network in 0..NETWORKS_MAX as u32 {
            let address = format!("ffff:{number:x}:ff{network:02x}::1")
                .parse()
                .unwrap();
            domains.record(name.as_bytes(), address, NOW, true);
        }
    }
    let text = domains.save(NOW);
    assert_eq!(text.lines().count(), 1 + DOMAINS_MAX);
    assert!(text.len() <= FILE_MAX, "{}", text.len());
    assert!(ForeignDomains::restore(text.as_bytes(), NOW).is_some());
}

proptest! {
    /// With any names from any networks the bounds hold and the file can be read.
    #[test]
    fn bounds_hold(asked in prop::collection::vec((0..40u32, 0..400u32, 0..5000u32), 0..1500)) {
        let mut domains = ForeignDomains::default();
        let mut now = NOW;
        for (network, name, wait) in asked {
            now += wait;
            domains.record(format!("{name}.example").as_bytes(), nth(network), now, true);
            prop_assert!(domains.domains.len() <= DOMAINS_MAX);
        }
        let mut named: HashMap<SenderNetwork, usize> = HashMap::new();
        for entry in domains.domains.values() {
            *named.entry(entry.networks[0]).or_default() += 1;
        }
        prop_assert!(named.values().all(|count| *count <= OF_NETWORK_MAX));
        prop_assert!(domains.take_due(now).len() <= 2 * WARNINGS_MAX as usize);
        let restored = ForeignDomains::restore(domains.save(now).as_bytes(), now).unwrap();
        prop_assert_eq!(restored.save(now), domains.save(now));
    }
}
