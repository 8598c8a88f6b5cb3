//! The decisions in force, and what an answer changes in them.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use tokio::time::Instant;

use super::{
    Change,
    stream::{Answer, Key, Scope},
};

/// The decisions in force, each until its end.
pub(super) struct Decisions {
    until: HashMap<Key, Instant>,
    max: usize,
    left_out: usize,
}

impl Decisions {
    pub(super) fn new(max: usize) -> Self {
        Self {
            until: HashMap::new(),
            max,
            left_out: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }

    /// Those on IPv6.
    pub(super) fn len_ipv6(&self) -> usize {
        let prefixes = self.until.keys().map(|key| key.prefix);
        prefixes.filter(|prefix| prefix.addr().is_ipv6()).count()
    }

    /// Those that there was no room for, in the last whole list and since.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Takes an answer with all that is in force: what was before and is not in it
    /// is over. What it says of deletions is of no use then.
    pub(super) fn replace(&mut self, answer: Answer, now: Instant) -> Change {
        let before = std::mem::take(&mut self.until);
        self.left_out = answer.new.beyond;
        for ban in answer.new.bans {
            self.add(ban.key, now + ban.left, now);
        }
        Change {
            ban: missing(&self.until, &before),
            unban: missing(&before, &self.until),
        }
    }

    /// Takes an answer with what has changed. What is both deleted and new is new.
    pub(super) fn update(&mut self, answer: Answer, now: Instant) -> Change {
        let renewed: HashSet<_> = answer.new.bans.iter().map(|ban| ban.key).collect();
        let mut change = Change::default();
        for ban in answer.deleted.bans {
            if !renewed.contains(&ban.key)
                && self.until.remove(&ban.key).is_some()
                && !has(&self.until, ban.key.prefix)
            {
                change.unban.push(ban.key.prefix);
            }
        }
        self.left_out += answer.new.beyond;
        for ban in answer.new.bans {
            let had = has(&self.until, ban.key.prefix);
            if self.add(ban.key, now + ban.left, now) && !had {
                change.ban.push(ban.key.prefix);
            }
        }
        // A range that is deleted while the same address is new.
        let banned: HashSet<_> = change.ban.iter().copied().collect();
        change.unban.retain(|prefix| !banned.contains(prefix));
        change
    }

    /// Forgets those that are over. The API tells of their end as well, but may not
    /// be there to do so.
    pub(super) fn expire(&mut self, now: Instant) -> Change {
        let over: HashSet<_> = self
            .until
            .extract_if(|_, until| *until <= now)
            .map(|(key, _)| key.prefix)
            .collect();
        Change {
            ban: Vec::new(),
            unban: over
                .into_iter()
                .filter(|prefix| !has(&self.until, *prefix))
                .collect(),
        }
    }

    /// Whether there was room for it.
    fn add(&mut self, key: Key, until: Instant, now: Instant) -> bool {
        if until <= now {
            // It was over before it was heard of.
            return false;
        }
        if self.until.len() >= self.max && !self.until.contains_key(&key) {
            self.left_out += 1;
            return false;
        }
        self.until.insert(key, until);
        true
    }
}

/// Whether a prefix is banned, by a decision of either scope.
fn has(decisions: &HashMap<Key, Instant>, prefix: IpNet) -> bool {
    Scope::ALL
        .iter()
        .any(|&scope| decisions.contains_key(&Key { scope, prefix }))
}

/// The prefixes of `these` that `others` have not, each once.
fn missing(these: &HashMap<Key, Instant>, others: &HashMap<Key, Instant>) -> Vec<IpNet> {
    let prefixes: HashSet<_> = these.keys().map(|key| key.prefix).collect();
    prefixes
        .into_iter()
        .filter(|prefix| !has(others, *prefix))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::commands::crowdsec::stream::{Ban, Bans};

    const HOUR: Duration = Duration::from_secs(3600);

    fn bans(list: &[(Scope, &str, Duration)]) -> Bans {
        let bans = list.iter().map(|&(scope, prefix, left)| Ban {
            key: Key {
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
    fn answer(new: &[(Scope, &str)], deleted: &[(Scope, &str)]) -> Answer {
        let hour = |list: &[(Scope, &str)], left| {
            let list = list.iter().map(|&(scope, prefix)| (scope, prefix, left));
            bans(&list.collect::<Vec<_>>())
        };
        Answer {
            new: hour(new, HOUR),
            deleted: hour(deleted, Duration::ZERO),
        }
    }

    fn shown(change: &Change) -> (Vec<String>, Vec<String>) {
        let sorted = |list: &[IpNet]| {
            let mut list: Vec<_> = list.iter().map(ToString::to_string).collect();
            list.sort();
            list
        };
        (sorted(&change.ban), sorted(&change.unban))
    }

    fn texts(ban: &[&str], unban: &[&str]) -> (Vec<String>, Vec<String>) {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        (owned(ban), owned(unban))
    }

    const A: &str = "192.0.2.7/32";
    const B: &str = "2001:db8::/32";
    const C: &str = "198.51.100.0/24";
    use Scope::{Ip, Range};

    #[test]
    fn a_change_is_told_once() {
        let now = Instant::now();
        let mut decisions = Decisions::new(10);
        let change = decisions.update(answer(&[(Ip, A), (Range, B)], &[]), now);
        assert_eq!(shown(&change), texts(&[A, B], &[]));
        let change = decisions.update(answer(&[(Ip, A)], &[(Range, C)]), now);
        assert_eq!(shown(&change), texts(&[], &[]), "known, and unknown");
        // The API tells the same deletion in two pulls.
        let change = decisions.update(answer(&[], &[(Ip, A)]), now);
        assert_eq!(shown(&change), texts(&[], &[A]));
        let change = decisions.update(answer(&[], &[(Ip, A)]), now);
        assert_eq!(shown(&change), texts(&[], &[]));
        assert_eq!(decisions.len(), 1);
    }

    #[test]
    fn what_is_deleted_and_new_is_new() {
        let now = Instant::now();
        let mut decisions = Decisions::new(10);
        let change = decisions.update(answer(&[(Ip, A)], &[(Ip, A)]), now);
        assert_eq!(shown(&change), texts(&[A], &[]));
        let change = decisions.update(answer(&[(Ip, A)], &[(Ip, A)]), now);
        assert_eq!(shown(&change), texts(&[], &[]));
        let change = decisions.update(answer(&[(Range, A)], &[(Ip, A)]), now);
        assert_eq!(
            shown(&change),
            texts(&[A], &[]),
            "the same prefix, and no gap"
        );
        assert_eq!(decisions.len(), 1);
    }

    #[test]
    fn a_prefix_of_two_scopes_is_free_when_both_are_over() {
        let now = Instant::now();
        let mut decisions = Decisions::new(10);
        let change = decisions.update(answer(&[(Ip, A), (Range, A)], &[]), now);
        assert_eq!(shown(&change), texts(&[A], &[]));
        let change = decisions.update(answer(&[], &[(Ip, A)]), now);
        assert_eq!(shown(&change), texts(&[], &[]));
        let change = decisions.update(answer(&[], &[(Range, A)]), now);
        assert_eq!(shown(&change), texts(&[], &[A]));
    }

    #[test]
    fn a_whole_list_takes_the_place_of_the_last() {
        let now = Instant::now();
        let mut decisions = Decisions::new(10);
        decisions.update(answer(&[(Ip, A), (Range, B)], &[]), now);
        // The API tells deletions in a whole list, too.
        let change = decisions.replace(answer(&[(Range, B), (Range, C)], &[(Range, B)]), now);
        assert_eq!(shown(&change), texts(&[C], &[A]));
        let change = decisions.replace(Answer::default(), now);
        assert_eq!(shown(&change), texts(&[], &[C, B]));
        assert_eq!(decisions.len(), 0);
    }

    #[test]
    fn decisions_end_by_themselves() {
        let now = Instant::now();
        let mut decisions = Decisions::new(10);
        let list = [(Ip, A, HOUR), (Range, A, 2 * HOUR), (Range, B, HOUR)];
        let new = bans(&list);
        let whole = Answer {
            new,
            deleted: Bans::default(),
        };
        decisions.replace(whole, now);
        assert_eq!(decisions.expire(now), Change::default());
        let change = decisions.expire(now + HOUR);
        assert_eq!(shown(&change), texts(&[], &[B]));
        // A renewed one ends later.
        decisions.update(answer(&[(Range, A)], &[]), now + 2 * HOUR);
        assert_eq!(decisions.expire(now + 2 * HOUR), Change::default());
        let change = decisions.expire(now + 3 * HOUR);
        assert_eq!(shown(&change), texts(&[], &[A]));
        // One that is over when it comes is none.
        let new = bans(&[(Ip, A, Duration::ZERO)]);
        let over = Answer {
            new,
            deleted: Bans::default(),
        };
        assert_eq!(decisions.update(over, now), Change::default());
        assert_eq!(decisions.len(), 0);
    }

    #[rstest]
    fn there_is_a_bound(#[values(true, false)] whole: bool) {
        let now = Instant::now();
        let mut decisions = Decisions::new(2);
        let many = || answer(&[(Ip, A), (Range, B), (Range, C)], &[]);
        let change = if whole {
            decisions.replace(many(), now)
        } else {
            decisions.update(many(), now)
        };
        assert_eq!(
            (change.ban.len(), decisions.len(), decisions.left_out()),
            (2, 2, 1)
        );
        // What is in force can be renewed.
        decisions.update(answer(&[(Ip, A)], &[]), now);
        assert_eq!(decisions.left_out(), 1);
        decisions.replace(answer(&[(Ip, A)], &[]), now);
        assert_eq!(decisions.left_out(), 0);
    }
}
