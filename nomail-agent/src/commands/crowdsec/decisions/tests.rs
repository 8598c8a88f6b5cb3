//! Which prefixes are banned after each answer.

use std::time::Duration;

use rstest::rstest;

use super::{
    super::stream::{Ban, Bans, Scope},
    *,
};

const HOUR: Duration = Duration::from_secs(3600);

fn bans(list: &[(Scope, &str, Duration)]) -> Bans {
    let bans = list.iter().map(|&(scope, prefix, left)| Ban {
        key: StreamKey {
            scope,
            prefix: prefix.parse().unwrap(),
        },
        left,
    });
    Bans {
        bans: bans.collect(),
        beyond: 0,
    }
}

/// An answer of addresses and ranges for an hour each.
fn answer(new: &[(Scope, &str)], deleted: &[(Scope, &str)]) -> StreamAnswer {
    let hour = |list: &[(Scope, &str)], left| {
        let list = list.iter().map(|&(scope, prefix)| (scope, prefix, left));
        bans(&list.collect::<Vec<_>>())
    };
    StreamAnswer {
        new: hour(new, HOUR),
        deleted: hour(deleted, Duration::ZERO),
    }
}

#[track_caller]
fn banned(decisions: &Decisions, expected: &[&str]) {
    let found: Vec<_> = decisions.prefixes().iter().map(IpNet::to_string).collect();
    assert_eq!(found, expected);
}

const A: &str = "192.0.2.7/32";
const B: &str = "2001:db8::/32";
const C: &str = "198.51.100.0/24";
use Scope::{Ip, Range};

#[test]
fn decisions_come_and_go() {
    let now = Instant::now();
    let mut decisions = Decisions::new(10);
    decisions.update(answer(&[(Ip, A), (Range, B)], &[]), now);
    banned(&decisions, &[A, B]);
    decisions.update(answer(&[(Ip, A)], &[(Range, C)]), now);
    banned(&decisions, &[A, B]);
    // The API names the same deletion in two pulls.
    decisions.update(answer(&[], &[(Ip, A)]), now);
    banned(&decisions, &[B]);
    decisions.update(answer(&[], &[(Ip, A)]), now);
    banned(&decisions, &[B]);
    assert_eq!((decisions.len(), decisions.len_ipv6()), (1, 1));
}

#[test]
fn what_is_deleted_and_new_is_new() {
    let now = Instant::now();
    let mut decisions = Decisions::new(10);
    decisions.update(answer(&[(Ip, A)], &[(Ip, A)]), now);
    banned(&decisions, &[A]);
    decisions.update(answer(&[(Ip, A)], &[(Ip, A)]), now);
    banned(&decisions, &[A]);
    decisions.update(answer(&[(Range, A)], &[(Ip, A)]), now);
    banned(&decisions, &[A]);
    assert_eq!(decisions.len(), 1);
}

#[test]
fn a_prefix_of_two_scopes_is_free_when_both_are_over() {
    let now = Instant::now();
    let mut decisions = Decisions::new(10);
    decisions.update(answer(&[(Ip, A), (Range, A)], &[]), now);
    banned(&decisions, &[A]);
    decisions.update(answer(&[], &[(Ip, A)]), now);
    banned(&decisions, &[A]);
    decisions.update(answer(&[], &[(Range, A)]), now);
    banned(&decisions, &[]);
}

#[test]
fn a_whole_list_takes_the_place_of_the_last() {
    let now = Instant::now();
    let mut decisions = Decisions::new(10);
    decisions.update(answer(&[(Ip, A), (Range, B)], &[]), now);
    // The API names deletions in a whole list, too.
    decisions.replace(answer(&[(Range, B), (Range, C)], &[(Range, B)]), now);
    banned(&decisions, &[C, B]);
    decisions.replace(StreamAnswer::default(), now);
    banned(&decisions, &[]);
    assert_eq!(decisions.len(), 0);
}

#[test]
fn decisions_end_by_themselves() {
    let now = Instant::now();
    let mut decisions = Decisions::new(10);
    let new = bans(&[(Ip, A, HOUR), (Range, A, 2 * HOUR), (Range, B, HOUR)]);
    let whole = StreamAnswer {
        new,
        deleted: Bans::default(),
    };
    decisions.replace(whole, now);
    decisions.expire(now);
    banned(&decisions, &[A, B]);
    decisions.expire(now + HOUR);
    banned(&decisions, &[A]);
    // A renewed one ends later.
    decisions.update(answer(&[(Range, A)], &[]), now + 2 * HOUR);
    decisions.expire(now + 2 * HOUR);
    banned(&decisions, &[A]);
    decisions.expire(now + 3 * HOUR);
    banned(&decisions, &[]);
    // One that is over when it arrives is none.
    let over = StreamAnswer {
        new: bans(&[(Ip, A, Duration::ZERO)]),
        deleted: Bans::default(),
    };
    decisions.update(over, now);
    banned(&decisions, &[]);
    assert_eq!(decisions.len(), 0);
}

#[rstest]
fn there_is_a_bound(#[values(true, false)] whole: bool) {
    let now = Instant::now();
    let mut decisions = Decisions::new(2);
    let many = answer(&[(Ip, A), (Range, B), (Range, C)], &[]);
    if whole {
        decisions.replace(many, now);
    } else {
        decisions.update(many, now);
    }
    banned(&decisions, &[A, B]);
    assert_eq!((decisions.len(), decisions.left_out()), (2, 1));
    // What is in force can be renewed.
    decisions.update(answer(&[(Ip, A)], &[]), now);
    assert_eq!(decisions.left_out(), 1);
    decisions.replace(answer(&[(Ip, A)], &[]), now);
    assert_eq!(decisions.left_out(), 0);
}
