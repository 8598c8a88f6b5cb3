//! The decisions in force, and what an answer changes in them.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ipnet::IpNet;
use tokio::time::Instant;

use super::stream::{StreamAnswer, StreamKey};

/// The decisions in force, each until its end.
pub(super) struct Decisions {
    until: HashMap<StreamKey, Instant>,
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

    /// What is banned, by a decision of either scope: sorted, each prefix once.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        let mut prefixes: Vec<_> = self.until.keys().map(|key| key.prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    /// Takes an answer with all that is in force: what is not in it is over, and what it
    /// says of deletions is of no use.
    pub(super) fn replace(&mut self, answer: StreamAnswer, now: Instant) {
        self.until.clear();
        self.left_out = 0;
        self.add_all(answer, now);
    }

    /// Takes an answer with what has changed. What is both deleted and new is new.
    pub(super) fn update(&mut self, answer: StreamAnswer, now: Instant) {
        for ban in &answer.deleted.bans {
            self.until.remove(&ban.key);
        }
        self.add_all(answer, now);
    }

    /// Removes those that are over. The API reports their end as well, but may not be there
    /// to do so.
    pub(super) fn expire(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
    }

    fn add_all(&mut self, answer: StreamAnswer, now: Instant) {
        self.left_out += answer.new.beyond;
        for ban in answer.new.bans {
            // Else it was over before it arrived.
            if !ban.left.is_zero() {
                self.add(ban.key, now + ban.left);
            }
        }
    }

    fn add(&mut self, key: StreamKey, until: Instant) {
        if self.until.len() >= self.max && !self.until.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        self.until.insert(key, until);
    }
}
