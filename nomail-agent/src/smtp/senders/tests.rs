use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const AGE: u32 = 6 * 24 * 3600;
/// A multiple of the 64 seconds that times are exact to.
const NOW: u32 = 1_764_000_000;

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// One address in each of many networks.
fn nth(n: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from_bits(n << 16 | 7))
}

fn nth_ipv6(n: u32) -> IpAddr {
    IpAddr::from(Ipv6Addr::from_bits(u128::from(n) << 96 | 7))
}

#[test]
fn the_first_contact_is_greeted_and_a_network_that_returns_is_refused_at_rcpt() {
    let mut senders = Senders::new(AGE);
    assert_eq!(
        senders.contact(ip("192.0.2.7"), NOW),
        RefusalPoint::Greeting
    );
    for later in [0, 1, 3600, PAUSE_SECS + 1] {
        assert_eq!(
            senders.contact(ip("192.0.2.7"), NOW + later),
            RefusalPoint::Rcpt
        );
    }
    assert_eq!(
        senders.contact(ip("198.51.100.7"), NOW + PAUSE_SECS),
        RefusalPoint::Greeting
    );
}

#[test]
fn a_sender_that_returns_from_another_network_is_refused_at_rcpt() {
    let mut senders = Senders::new(AGE);
    assert_eq!(senders.contact(nth(1), NOW), RefusalPoint::Greeting);
    assert_eq!(senders.contact(nth(2), NOW + 60), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth_ipv6(3), NOW + 120), RefusalPoint::Rcpt);
    // What was refused at RCPT returns its mail, and begins no other pause.
    let later = NOW + PAUSE_SECS;
    assert_eq!(senders.contact(nth(4), later - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(5), later), RefusalPoint::Greeting);
    // One that was shed was greeted.
    senders.greeted(nth(6), later + 60);
    let later = later + 60 + PAUSE_SECS;
    assert_eq!(senders.contact(nth(7), later - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(8), later), RefusalPoint::Greeting);
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
        if later % 100_000 == 0 {
            // A restart, in the middle of it.
            senders = Senders::restore(&senders.save(), NOW + later, AGE).unwrap();
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
    let (prober, neighbour) = (ip("192.0.2.7"), ip("192.0.200.8"));
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
#[case("192.0.2.0", "192.0.255.255", true)]
#[case("192.0.2.0", "192.1.2.0", false)]
#[case("192.0.2.1", "::ffff:192.0.9.9", true)]
#[case("2001:db8:1::", "2001:db8:ffff::1", true)]
#[case("2001:db8:1::", "2001:db9:1::", false)]
#[case("0.0.0.7", "::7", false)]
#[case("::7", "::8", true)]
fn a_slash_16_or_32_counts_as_one(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
    let mut senders = Senders::new(AGE);
    senders.contact(ip(a), NOW);
    let expected = if same {
        RefusalPoint::Rcpt
    } else {
        RefusalPoint::Greeting
    };
    assert_eq!(senders.contact(ip(b), NOW + PAUSE_SECS), expected);
}

#[rstest]
#[case(AGE - 1, RefusalPoint::Rcpt)]
#[case(AGE, RefusalPoint::Greeting)]
fn a_network_not_seen_for_the_age_is_unknown(#[case] later: u32, #[case] expected: RefusalPoint) {
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    senders.contact(peer, NOW - 64);
    senders.greeted(peer, NOW);
    assert_eq!(senders.contact(peer, NOW + later), expected);
    assert_eq!(senders.contact(peer, NOW + later), RefusalPoint::Rcpt);
}

#[test]
fn a_new_age_is_for_all() {
    let mut senders = Senders::new(AGE);
    let peer = ip("192.0.2.7");
    senders.contact(peer, NOW);
    senders.set_age(PAUSE_SECS);
    assert_eq!(
        senders.contact(peer, NOW + PAUSE_SECS),
        RefusalPoint::Greeting
    );
}

#[test]
fn every_ipv4_network_has_a_place() {
    let mut senders = Senders::new(AGE);
    for n in 0..1 << 16 {
        senders.contact(nth(n), NOW);
    }
    assert_eq!(senders.len(), 1 << 16);
    for n in 0..1 << 16 {
        assert_eq!(senders.contact(nth(n), NOW + AGE - 1), RefusalPoint::Rcpt);
    }
    assert_eq!(senders.len(), 1 << 16);
}

#[test]
fn an_ipv6_network_takes_the_place_of_the_oldest_and_of_an_expired_one_first() {
    const FLOOD: u32 = 100_000;
    let mut senders = Senders::new(AGE);
    // Nothing that returns is forgotten, as long as it comes often enough.
    for n in 0..FLOOD {
        senders.contact(nth_ipv6(n.wrapping_mul(0x0101_0107)), NOW + 64 * n);
        if n % 64 == 0 {
            senders.contact(ip("2001:db8::1"), NOW + 64 * n);
        }
    }
    let now = NOW + 64 * FLOOD;
    assert!(senders.len() <= 1 << 14, "{}", senders.len());
    assert_eq!(senders.contact(ip("2001:db8::1"), now), RefusalPoint::Rcpt);
    // Those that came last are known, the first ones are not.
    let known = |senders: &Senders, n: u32| {
        senders
            .known(nth_ipv6(n.wrapping_mul(0x0101_0107)), now)
            .is_some()
    };
    assert!((FLOOD - 500..FLOOD).all(|n| known(&senders, n)));
    assert!(!(0..500).any(|n| known(&senders, n)));
}

#[test]
fn after_a_lost_memory_all_get_rcpt_until_the_age_has_passed() {
    let mut senders = Senders::forgotten(AGE, NOW);
    assert_eq!(senders.contact(nth(1), NOW), RefusalPoint::Rcpt);
    senders.left_after_ehlo(nth(1), NOW);
    assert_eq!(senders.contact(nth(1), NOW), RefusalPoint::Ehlo);
    assert_eq!(senders.contact(nth(2), NOW + AGE - 64), RefusalPoint::Rcpt);
    let mut senders = Senders::restore(&senders.save(), NOW + 10, AGE).unwrap();
    assert_eq!(senders.contact(nth(3), NOW + AGE - 1), RefusalPoint::Rcpt);
    assert_eq!(senders.contact(nth(4), NOW + AGE), RefusalPoint::Greeting);
    assert_eq!(senders.contact(nth(2), NOW + AGE), RefusalPoint::Rcpt);
}

#[test]
fn no_network_is_remembered_for_ever_when_the_clock_steps() {
    let mut senders = Senders::new(AGE);
    senders.contact(nth(1), u32::MAX);
    senders.contact(nth(2), NOW + 60);
    assert_eq!(senders.contact(nth(2), NOW), RefusalPoint::Rcpt);
    let later = NOW + 60 + PAUSE_SECS;
    assert_eq!(senders.contact(nth(1), later), RefusalPoint::Greeting);
    assert_eq!(senders.contact(nth(1), later + AGE), RefusalPoint::Greeting);
}

#[test]
fn a_pause_outlives_a_restart() {
    let mut senders = Senders::new(AGE);
    senders.contact(nth(1), NOW);
    let mut senders = Senders::restore(&senders.save(), NOW + 5, AGE).unwrap();
    assert_eq!(senders.contact(nth(2), NOW + 10), RefusalPoint::Rcpt);
    assert_eq!(
        senders.contact(nth(3), NOW + PAUSE_SECS),
        RefusalPoint::Greeting
    );
}

/// A saved memory with a word of it changed.
fn saved_with(offset: usize, word: u32) -> Vec<u8> {
    let mut file = Senders::new(AGE).save();
    let at = HEADER.len() + 8 + offset;
    file[at..at + 4].copy_from_slice(&word.to_le_bytes());
    file
}

#[rstest]
#[case(Vec::new(), "not a memory of this version of nomail")]
#[case(b"nomail senders 1\n192.0.2.0/24 1764000000 rcpt\n".to_vec(), "not a memory of this version of nomail")]
#[case(HEADER.to_vec(), "17 bytes, and not 393245")]
#[case([Senders::new(AGE).save(), vec![0]].concat(), "393246 bytes, and not 393245")]
#[case(saved_with(0, 4), "an entry that nomail does not write")]
#[case(saved_with(0, NOW >> 6 << 4 | 3 << 2 | 1), "an entry that nomail does not write")]
#[case(saved_with(4, u32::MAX), "an entry that nomail does not write")]
#[case::zeros_at_the_end({
    let mut file = Senders::new(AGE).save();
    file[4096..].fill(0);
    file
}, "an entry that nomail does not write")]
#[case::wrong_set(saved_with(4 * 65536 + 68, NOW >> 6 << 4 | 1), "an entry that nomail does not write")]
fn a_file_that_is_not_as_written_is_an_error(#[case] file: Vec<u8>, #[case] expected: &str) {
    let error = Senders::restore(&file, NOW, AGE).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn restoring_drops_the_old_and_clamps_the_future() {
    let word = |time: u32| time >> 6 << 4 | 1;
    for (time, kept) in [
        (NOW - AGE, false),
        (NOW - AGE + 64, true),
        (NOW + 6400, true),
    ] {
        let senders = Senders::restore(&saved_with(4 * 7, word(time)), NOW, AGE).unwrap();
        assert_eq!(senders.len(), usize::from(kept), "{time}");
        if kept {
            let last = senders.known(nth(7), NOW).unwrap().last();
            assert_eq!(last, time.min(NOW));
        }
    }
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
    let peer = prop_oneof![(0u32..4).prop_map(nth), (0u32..4).prop_map(nth_ipv6)];
    prop::collection::vec((call, peer, prop_oneof![0u32..3200, 0u32..12_800]), 0..100)
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
    fn call(&mut self, call: Call, now: u32, age: u32, greeted: &mut u32) -> Option<RefusalPoint> {
        if self.last.is_some_and(|last| now - last >= age) {
            *self = Self::default();
        }
        // Times are exact to 64 seconds.
        let known = self.last.replace(now & !63).is_some();
        match call {
            Call::Greeted => {
                *greeted = now;
                None
            }
            Call::LeftAfterEhlo => {
                self.ehlo_next |= !self.had_ehlo && self.refusals < EHLO_REFUSALS_MAX;
                None
            }
            Call::Contact if !known => {
                if now - *greeted < PAUSE_SECS {
                    return Some(RefusalPoint::Rcpt);
                }
                *greeted = now;
                Some(RefusalPoint::Greeting)
            }
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
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_refusal_points_are_those_of_the_rules(calls in calls()) {
        let age = 6400;
        let (mut now, mut greeted) = (NOW, 0);
        let mut senders = Senders::new(age);
        let mut models = HashMap::<IpAddr, Model>::new();
        for (call, peer, wait) in calls {
            now += wait;
            let model = models.entry(peer).or_default();
            let expected = model.call(call, now, age, &mut greeted);
            prop_assert_eq!(apply(&mut senders, call, peer, now), expected);
        }
        prop_assert!(senders.len() <= models.len());
    }

    #[test]
    fn no_peers_and_no_clock_break_a_bound(
        calls in prop::collection::vec((any::<IpAddr>(), any::<u32>(), 0usize..3), 0..50),
    ) {
        let mut senders = Senders::new(AGE);
        for (peer, now, call) in calls {
            let call = [Call::Contact, Call::Greeted, Call::LeftAfterEhlo][call];
            apply(&mut senders, call, peer, now);
        }
        prop_assert_eq!(senders.save().len(), FILE_LEN);
    }

    #[test]
    fn what_was_saved_is_what_is_restored(calls in calls(), lost: bool) {
        let mut now = NOW;
        let mut senders = if lost { Senders::forgotten(AGE, now) } else { Senders::new(AGE) };
        for &(call, peer, wait) in &calls {
            now += wait;
            apply(&mut senders, call, peer, now);
        }
        let saved = senders.save();
        let mut restored = Senders::restore(&saved, now, AGE).unwrap();
        prop_assert_eq!(restored.save(), saved);
        prop_assert_eq!(restored.len(), senders.len());
        for (_, peer, _) in calls {
            prop_assert_eq!(restored.contact(peer, now), senders.contact(peer, now));
        }
        prop_assert_eq!(restored.contact(nth(99), now), senders.contact(nth(99), now));
    }

    #[test]
    fn any_bytes_as_a_file_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        words in prop::collection::vec((0usize..98_304, any::<u32>()), 0..20),
        now: u32,
        age: u32,
    ) {
        let _ = Senders::restore(&bytes, now, age);
        let _ = Senders::restore(&[HEADER, &bytes].concat(), now, age);
        let mut file = Senders::new(AGE).save();
        for (place, word) in words {
            let at = HEADER.len() + 8 + 4 * place;
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        if let Ok(senders) = Senders::restore(&file, now, age) {
            prop_assert!(senders.len() <= 20);
        }
    }
}
