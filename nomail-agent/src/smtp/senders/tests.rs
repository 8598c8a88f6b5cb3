use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const AGE: u32 = 6 * 24 * 3600;
const NOW: u32 = 1_764_000_000;

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// One address in each of many networks.
fn nth(n: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from_bits(n << 8 | 7))
}

/// A memory that is full of networks seen at `NOW`.
fn full() -> Senders {
    static FULL: LazyLock<Senders> = LazyLock::new(|| {
        let mut senders = Senders::new(AGE);
        for n in 0..SENDERS_MAX as u32 {
            assert_eq!(senders.contact(nth(n), NOW), RefusalPoint::Greeting);
        }
        senders
    });
    FULL.clone()
}

const NEW: u32 = 0x0010_0000;

#[test]
fn the_first_contact_is_greeted_and_a_network_that_returns_is_refused_at_rcpt() {
    let mut senders = Senders::new(AGE);
    assert_eq!(
        senders.contact(ip("192.0.2.7"), NOW),
        RefusalPoint::Greeting
    );
    for later in [0, 1, 3600] {
        assert_eq!(
            senders.contact(ip("192.0.2.7"), NOW + later),
            RefusalPoint::Rcpt
        );
    }
    assert_eq!(
        senders.contact(ip("198.51.100.7"), NOW),
        RefusalPoint::Greeting
    );
}

#[test]
fn a_network_that_left_after_ehlo_gets_ehlo_once_and_then_rcpt() {
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    senders.contact(peer, NOW);
    for _ in 0..EHLO_REFUSALS_MAX {
        assert_eq!(senders.contact(peer, NOW), RefusalPoint::Rcpt);
        senders.left_after_ehlo(peer, NOW);
        assert_eq!(senders.contact(peer, NOW), RefusalPoint::Ehlo);
    }
    assert_eq!(senders.contact(peer, NOW), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(peer, NOW), RefusalPoint::Rcpt);
}

/// `option smtpchk` of HAProxy: EHLO and QUIT, every few seconds.
#[test]
fn a_health_checker_gets_one_steady_answer() {
    const WEEK: u32 = 7 * 24 * 3600;
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    let mut changes = 0;
    let mut last = senders.contact(peer, NOW);
    for later in (10..WEEK).step_by(10) {
        if last == RefusalPoint::Rcpt {
            senders.left_after_ehlo(peer, NOW + later - 9);
        }
        if later % 10_000 == 0 {
            // A restart, in the middle of it.
            let file = senders.save(NOW + later);
            senders = Senders::restore(file.as_bytes(), NOW + later, AGE).unwrap();
        }
        let point = senders.contact(peer, NOW + later);
        changes += u32::from(point != last);
        if changes > 2 * u32::from(EHLO_REFUSALS_MAX) {
            assert_eq!(point, RefusalPoint::Rcpt, "after {later} s");
        }
        last = point;
    }
    assert_eq!(changes, 2 * u32::from(EHLO_REFUSALS_MAX) + 1);
}

#[rstest]
#[case(STEADY_SECS - 1, RefusalPoint::Rcpt)]
#[case(STEADY_SECS, RefusalPoint::Ehlo)]
fn a_network_away_for_a_day_is_refused_at_ehlo_again(
    #[case] away: u32,
    #[case] expected: RefusalPoint,
) {
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    senders.contact(peer, NOW);
    for _ in 0..EHLO_REFUSALS_MAX {
        senders.left_after_ehlo(peer, NOW);
        assert_eq!(senders.contact(peer, NOW), RefusalPoint::Ehlo);
        assert_eq!(senders.contact(peer, NOW), RefusalPoint::Rcpt);
    }
    senders.left_after_ehlo(peer, NOW);
    assert_eq!(senders.contact(peer, NOW + away), RefusalPoint::Rcpt);
    senders.left_after_ehlo(peer, NOW + away);
    assert_eq!(senders.contact(peer, NOW + away), expected);
}

#[test]
fn connections_that_leave_in_turn_do_not_pin_a_neighbour_to_ehlo() {
    let mut senders = Senders::new(AGE);
    let (prober, neighbour) = (ip("192.0.2.7"), ip("192.0.2.8"));
    for _ in 0..10 {
        senders.contact(prober, NOW);
    }
    for round in 0..4 {
        senders.left_after_ehlo(prober, NOW);
        let expected = if round < EHLO_REFUSALS_MAX {
            RefusalPoint::Ehlo
        } else {
            RefusalPoint::Rcpt
        };
        assert_eq!(senders.contact(neighbour, NOW), expected);
        senders.left_after_ehlo(prober, NOW);
        assert_eq!(senders.contact(neighbour, NOW), RefusalPoint::Rcpt);
    }
}

#[test]
fn a_shed_contact_is_remembered() {
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    senders.greeted(peer, NOW);
    assert_eq!(senders.contact(peer, NOW), RefusalPoint::Rcpt);
    senders.left_after_ehlo(peer, NOW);
    senders.greeted(peer, NOW);
    assert_eq!(senders.contact(peer, NOW), RefusalPoint::Ehlo);
}

#[rstest]
#[case("192.0.2.0", "192.0.2.255", true)]
#[case("192.0.2.0", "192.0.3.0", false)]
#[case("192.0.2.1", "::ffff:192.0.2.9", true)]
#[case("2001:db8:1::", "2001:db8:1:ffff::1", true)]
#[case("2001:db8:1::", "2001:db8:2::", false)]
#[case("0.0.0.7", "::7", false)]
#[case("::7", "::8", true)]
fn a_slash_24_or_48_counts_as_one(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
    let mut senders = Senders::new(AGE);
    senders.contact(ip(a), NOW);
    let expected = if same {
        RefusalPoint::Rcpt
    } else {
        RefusalPoint::Greeting
    };
    assert_eq!(senders.contact(ip(b), NOW), expected);
}

#[rstest]
#[case(AGE - 1, RefusalPoint::Rcpt)]
#[case(AGE, RefusalPoint::Greeting)]
fn a_network_not_seen_for_the_age_is_unknown(#[case] later: u32, #[case] expected: RefusalPoint) {
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    senders.contact(peer, NOW - 5);
    senders.greeted(peer, NOW);
    assert_eq!(senders.contact(peer, NOW + later), expected);
    assert_eq!(senders.contact(peer, NOW + later), RefusalPoint::Rcpt);
}

#[test]
fn a_new_age_is_for_all() {
    let mut senders = Senders::new(AGE);
    senders.contact(ip("192.0.2.7"), NOW);
    senders.set_age(60);
    assert_eq!(
        senders.contact(ip("192.0.2.7"), NOW + 60),
        RefusalPoint::Greeting
    );
}

#[test]
fn a_full_memory_answers_at_rcpt_and_forgets_no_network() {
    let mut senders = full();
    for n in 0..1000 {
        assert_eq!(senders.contact(nth(NEW + n), NOW + n), RefusalPoint::Rcpt);
        senders.greeted(nth(NEW + n), NOW + n);
        senders.left_after_ehlo(nth(NEW + n), NOW + n);
    }
    assert_eq!(senders.len(), SENDERS_MAX);
    for n in 0..SENDERS_MAX as u32 {
        assert_eq!(senders.contact(nth(n), NOW + 1000), RefusalPoint::Rcpt);
    }
}

#[test]
fn expired_networks_make_room_within_a_minute() {
    let mut senders = full();
    assert_eq!(senders.contact(nth(1), NOW + 10), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(NEW), NOW + AGE - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(NEW), NOW + AGE), RefusalPoint::Rcpt);
    let later = NOW + AGE - 1 + SWEEP_SECS;
    assert_eq!(senders.contact(nth(NEW), later), RefusalPoint::Greeting);
    assert_eq!(senders.len(), 1);
}

#[test]
fn an_expired_network_has_its_own_room() {
    let mut senders = full();
    assert_eq!(senders.contact(nth(NEW), NOW + AGE - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(5), NOW + AGE), RefusalPoint::Greeting);
    assert_eq!(senders.len(), SENDERS_MAX);
}

#[test]
fn after_a_lost_memory_all_get_rcpt_until_the_age_has_passed() {
    let mut senders = Senders::forgotten(AGE, NOW);
    assert_eq!(senders.contact(nth(1), NOW), RefusalPoint::Rcpt);
    senders.left_after_ehlo(nth(1), NOW);
    assert_eq!(senders.contact(nth(1), NOW), RefusalPoint::Ehlo);
    assert_eq!(senders.contact(nth(2), NOW + AGE - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(3), NOW + AGE), RefusalPoint::Greeting);
    assert_eq!(senders.contact(nth(2), NOW + AGE), RefusalPoint::Rcpt);
}

#[test]
fn that_a_memory_was_lost_outlives_a_restart() {
    let saved = Senders::forgotten(AGE, NOW).save(NOW + 5);
    assert_eq!(saved, format!("nomail senders 1\nforgotten {NOW}\n"));
    let mut senders = Senders::restore(saved.as_bytes(), NOW + 10, AGE).unwrap();
    assert_eq!(senders.contact(nth(1), NOW + AGE - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(2), NOW + AGE), RefusalPoint::Greeting);
    assert_eq!(
        Senders::forgotten(AGE, NOW).save(NOW + AGE),
        "nomail senders 1\n"
    );
}

#[test]
fn no_network_is_remembered_for_ever_when_the_clock_steps() {
    let mut senders = Senders::new(AGE);
    senders.contact(nth(1), u32::MAX);
    senders.contact(nth(2), NOW + 60);
    assert_eq!(senders.contact(nth(2), NOW), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(1), NOW), RefusalPoint::Greeting);
    assert_eq!(senders.contact(nth(1), NOW + AGE), RefusalPoint::Greeting);

    let mut senders = full();
    assert_eq!(senders.contact(nth(NEW), NOW - AGE), RefusalPoint::Greeting);
    assert_eq!(senders.len(), 1);
}

#[test]
fn the_file_is_one_line_for_each_network() {
    let mut senders = Senders::new(AGE);
    senders.contact(ip("192.0.2.7"), NOW);
    senders.contact(ip("2001:db8:1:2::3"), NOW + 1);
    senders.left_after_ehlo(ip("2001:db8:1:2::3"), NOW + 2);
    senders.contact(ip("198.51.100.7"), NOW - AGE);
    for _ in 0..EHLO_REFUSALS_MAX {
        senders.contact(ip("203.0.113.7"), NOW);
        senders.left_after_ehlo(ip("203.0.113.7"), NOW);
        senders.contact(ip("203.0.113.7"), NOW);
    }
    assert_eq!(
        senders.save(NOW + 2),
        "nomail senders 1\n\
         2001:db8:1::/48 1764000002 ehlo\n\
         192.0.2.0/24 1764000000 rcpt\n\
         203.0.113.0/24 1764000000 steady\n"
    );
}

#[rstest]
#[case("", "line 1: not \"nomail senders 1\"")]
#[case("nomail senders 2\n", "line 1: not \"nomail senders 1\"")]
#[case("nomail senders 1\r\n", "line 1: not \"nomail senders 1\"")]
#[case(
    "nomail senders 1",
    "line 1: cut off: there is no line feed at its end"
)]
#[case(
    "nomail senders 1\n\n",
    "line 2: not a network, a time and a refusal point"
)]
#[case("nomail senders 1\nforgotten x\n", "line 2: not a time in seconds")]
#[case(
    "nomail senders 1\n192.0.2.0/24 1 rcpt\nforgotten 1\n",
    "line 3: not a network, a time and a refusal point"
)]
#[case(
    "nomail senders 1\n192.0.2.0/24 1 rcpt \n",
    "line 2: not a network, a time and a refusal point"
)]
#[case(
    "nomail senders 1\n192.0.2.1/24 1 rcpt\n",
    "line 2: not an IPv4 /24 or IPv6 /48"
)]
#[case(
    "nomail senders 1\n192.0.2.0/25 1 rcpt\n",
    "line 2: not an IPv4 /24 or IPv6 /48"
)]
#[case(
    "nomail senders 1\n::ffff:0:0/48 1 rcpt\n",
    "line 2: not an IPv4 /24 or IPv6 /48"
)]
#[case(
    "nomail senders 1\n2001:DB8::/48 1 rcpt\n",
    "line 2: not an IPv4 /24 or IPv6 /48"
)]
#[case("nomail senders 1\n::/48 +1 rcpt\n", "line 2: not a time in seconds")]
#[case(
    "nomail senders 1\n::/48 4294967296 rcpt\n",
    "line 2: not a time in seconds"
)]
#[case(
    "nomail senders 1\n::/48 1 greeting\n",
    "line 2: neither rcpt nor ehlo nor steady"
)]
#[case(
    "nomail senders 1\n::/48 1764000000 rcpt\n::/48 1764000000 ehlo\n",
    "line 3: a network for the second time"
)]
#[case(
    "nomail senders 1\n192.0.2.0/24 1764000000 rcpt\n192.0.3.0/24 17",
    "line 3: not a network, a time and a refusal point"
)]
#[case(
    "nomail senders 1\n192.0.2.0/24 1764000000 rcpt",
    "line 2: cut off: there is no line feed at its end"
)]
fn a_file_that_is_not_as_written_is_an_error(#[case] file: &str, #[case] expected: &str) {
    let error = Senders::restore(file.as_bytes(), NOW, AGE).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_is_bounded() {
    assert!(full().save(NOW).len() <= FILE_MAX);
    let file = vec![b'\n'; FILE_MAX + 1];
    assert_eq!(
        Senders::restore(&file, NOW, AGE).unwrap_err(),
        StateError::TooLarge
    );
    let more = full().save(NOW) + "255.255.255.0/24 1764000000 rcpt\n";
    let error = Senders::restore(more.as_bytes(), NOW, AGE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 65538: more networks than can be remembered"
    );
}

#[test]
fn restoring_drops_the_old_and_clamps_the_future() {
    let file = format!(
        "nomail senders 1\n192.0.2.0/24 {} rcpt\n192.0.3.0/24 {} ehlo\n192.0.4.0/24 {} ehlo\n",
        NOW - AGE,
        NOW - AGE + 1,
        u32::MAX
    );
    let senders = Senders::restore(file.as_bytes(), NOW, AGE).unwrap();
    let expected = format!(
        "nomail senders 1\n192.0.3.0/24 {} ehlo\n192.0.4.0/24 {NOW} ehlo\n",
        NOW - AGE + 1
    );
    assert_eq!(senders.save(NOW), expected);
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Contact,
    Greeted,
    LeftAfterEhlo,
}

/// What happens, from which of a few peers, how long after the last.
fn calls() -> impl Strategy<Value = Vec<(Call, IpAddr, u32)>> {
    let call = prop::sample::select(vec![
        Call::Contact,
        Call::Contact,
        Call::Greeted,
        Call::LeftAfterEhlo,
    ]);
    let peer = prop_oneof![
        (0u32..4).prop_map(nth),
        (0u128..4).prop_map(|n| IpAddr::from(Ipv6Addr::from_bits(n << 80 | n))),
    ];
    prop::collection::vec((call, peer, prop_oneof![0u32..50, 0u32..200]), 0..100)
}

/// The history of one network, as the rules tell it.
#[derive(Clone, Copy, Default)]
struct Model {
    last: Option<u32>,
    ehlo_next: bool,
    had_ehlo: bool,
    refusals: u8,
}

impl Model {
    fn call(&mut self, call: Call, now: u32, age: u32) -> Option<RefusalPoint> {
        if self.last.is_some_and(|last| now - last >= age) {
            *self = Self::default();
        }
        let known = self.last.replace(now).is_some();
        match call {
            Call::Greeted => None,
            Call::LeftAfterEhlo => {
                self.ehlo_next |= !self.had_ehlo && self.refusals < EHLO_REFUSALS_MAX;
                None
            }
            Call::Contact if !known => Some(RefusalPoint::Greeting),
            Call::Contact => {
                self.had_ehlo = std::mem::take(&mut self.ehlo_next);
                self.refusals += u8::from(self.had_ehlo);
                Some(if self.had_ehlo {
                    RefusalPoint::Ehlo
                } else {
                    RefusalPoint::Rcpt
                })
            }
        }
    }
}

fn apply(senders: &mut Senders, call: Call, peer: IpAddr, now: u32) -> Option<RefusalPoint> {
    match call {
        Call::Contact => return Some(senders.contact(peer, now)),
        Call::Greeted => senders.greeted(peer, now),
        Call::LeftAfterEhlo => senders.left_after_ehlo(peer, now),
    }
    None
}

proptest! {
    #[test]
    fn the_refusal_points_are_those_of_the_rules(calls in calls()) {
        let age = 100;
        let mut now = NOW;
        let mut senders = Senders::new(age);
        let mut models = HashMap::<String, Model>::new();
        for (call, peer, wait) in calls {
            now += wait;
            let model = models.entry(SenderNetwork::from(peer).to_string()).or_default();
            let expected = model.call(call, now, age);
            prop_assert_eq!(apply(&mut senders, call, peer, now), expected);
        }
        prop_assert!(senders.len() <= models.len());
    }

    #[test]
    fn no_peers_and_no_clock_break_a_bound(
        calls in prop::collection::vec((any::<IpAddr>(), any::<u32>(), 0usize..3), 0..50),
    ) {
        let mut senders = full();
        for (peer, now, call) in calls {
            let call = [Call::Contact, Call::Greeted, Call::LeftAfterEhlo][call];
            apply(&mut senders, call, peer, now);
            prop_assert!(senders.len() <= SENDERS_MAX);
        }
    }

    #[test]
    fn what_was_saved_is_what_is_restored(calls in calls(), lost: bool) {
        let mut now = NOW;
        let mut senders = if lost { Senders::forgotten(AGE, now) } else { Senders::new(AGE) };
        for &(call, peer, wait) in &calls {
            now += wait;
            apply(&mut senders, call, peer, now);
        }
        let saved = senders.save(now);
        let mut restored = Senders::restore(saved.as_bytes(), now, AGE).unwrap();
        prop_assert_eq!(restored.save(now), saved);
        prop_assert_eq!(restored.len(), senders.len());
        for (_, peer, _) in calls {
            prop_assert_eq!(restored.contact(peer, now), senders.contact(peer, now));
        }
        prop_assert_eq!(restored.contact(nth(NEW), now), senders.contact(nth(NEW), now));
    }

    #[test]
    fn every_network_is_read_as_it_is_written(peer: IpAddr) {
        let network = SenderNetwork::from(peer);
        prop_assert_eq!(SenderNetwork::parse(&network.to_string()), Some(network));
    }

    #[test]
    fn any_bytes_as_a_file_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "([0-9a-f:./]{0,12}[ \n](rcpt|ehlo|[0-9]{0,11})[ \n]?){0,8}",
        now: u32,
        age: u32,
    ) {
        let _ = Senders::restore(&bytes, now, age);
        let file = [HEADER.as_bytes(), b"\n", text.as_bytes()].concat();
        let _ = Senders::restore(&file, now, age);
        let file = [HEADER.as_bytes(), b"\n", &bytes].concat();
        let _ = Senders::restore(&file, now, age);
    }
}
