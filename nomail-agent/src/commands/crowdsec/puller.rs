//! The loop of the process: pull, write what is banned, wait.

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    mem::Discriminant,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use log::{debug, info, warn};
use tokio::{
    runtime::Runtime,
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    client::{self, PullError},
    decisions::Decisions,
    handover::Handover,
    subscription::Subscription,
};
use crate::status::{CrowdsecStatus, DECISIONS_MAX, Pull};

/// Longest time until an API that failed is asked again.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often the whole list is pulled, not only what has changed: a change is lost
/// when two processes have the same key, or when of two decisions on one address the
/// longer is deleted.
const RESYNC_INTERVAL: Duration = Duration::from_secs(3600);
/// How often decisions that are over are removed, and the figures written, by which the
/// agent knows that this process runs.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5);

/// Pulls from the API that it was told last. None ends it.
pub(super) struct Puller {
    runtime: Runtime,
    orders: watch::Receiver<Option<Subscription>>,
    handover: Handover,
    subscription: Option<Subscription>,
    decisions: Decisions,
    status: CrowdsecStatus,
    /// Whether a pull has ever succeeded, so that there is something to write.
    known: bool,
    /// When the next pull begins.
    due: Instant,
    /// From when on a pull is one of the whole list.
    resync: Instant,
    /// Pulls in a row that failed.
    failures: u32,
    /// The kinds of failures that were logged since the last pull that succeeded.
    logged: HashSet<Discriminant<PullError>>,
    /// The first pull from this API was logged.
    greeted: bool,
}

impl Puller {
    pub(super) fn new(
        runtime: Runtime,
        orders: watch::Receiver<Option<Subscription>>,
        handover: Handover,
    ) -> Self {
        let now = Instant::now();
        Self {
            runtime,
            orders,
            handover,
            subscription: None,
            decisions: Decisions::new(DECISIONS_MAX),
            status: CrowdsecStatus::default(),
            known: false,
            due: now,
            resync: now,
            failures: 0,
            logged: HashSet::new(),
            greeted: false,
        }
    }

    /// Runs until the order is to end. Then the files are gone.
    pub(super) fn run(mut self) {
        while self.step() {}
        self.handover.clear();
    }

    /// Whether it goes on.
    fn step(&mut self) -> bool {
        let Some(order) = self.orders.borrow_and_update().clone() else {
            return false;
        };
        if self.subscription.as_ref() != Some(&order) {
            self.follow(&order);
        }
        if Instant::now() >= self.due {
            self.pull(&order);
        }
        self.decisions.expire(Instant::now());
        self.hand_over();
        let wake = self.due.min(Instant::now() + EXPIRE_INTERVAL);
        let orders = &mut self.orders;
        self.runtime.block_on(async {
            select! {
                changed = orders.changed() => changed.is_ok(),
                () = sleep_until(wake) => true,
            }
        })
    }

    /// Another subscription, of which nothing is known yet. The decisions stay until it has
    /// answered.
    fn follow(&mut self, order: &Subscription) {
        let now = Instant::now();
        (self.due, self.resync) = (now, now);
        self.failures = 0;
        self.logged.clear();
        self.greeted = false;
        self.status = CrowdsecStatus {
            url: order.url.to_string(),
            running: true,
            ..CrowdsecStatus::default()
        };
        self.subscription = Some(order.clone());
        // An answer may take long.
        self.hand_over();
    }

    fn hand_over(&mut self) {
        self.status.decisions = self.decisions.len() as u64;
        self.status.decisions_ipv6 = self.decisions.len_ipv6() as u64;
        let banned = self.known.then(|| self.decisions.prefixes());
        self.handover.write(banned, &self.status);
    }

    fn pull(&mut self, subscription: &Subscription) {
        let begun = Instant::now();
        let startup = begun >= self.resync;
        let pulled = client::pull(&self.runtime, &mut self.orders, subscription, startup);
        let answer = match pulled {
            Ok(answer) => answer,
            // The next step looks at the order; what the answer says is lost.
            Err(PullError::Abandoned) => {
                self.resync = begun;
                return;
            }
            Err(error) => return self.failed(subscription, &error),
        };
        let now = Instant::now();
        self.due = begun + subscription.interval;
        let left_out = self.decisions.left_out();
        debug!(
            "CrowdSec: {} new, {} deleted{}",
            answer.new.len(),
            answer.deleted.len(),
            if startup { ", from the start" } else { "" }
        );
        let cut = answer.deleted.beyond > 0;
        if startup {
            self.resync = now + RESYNC_INTERVAL;
            self.decisions.replace(answer, now);
        } else {
            self.decisions.update(answer, now);
        }
        if cut {
            self.resync = now;
        }
        self.known = true;
        self.succeeded(subscription, left_out);
    }

    fn succeeded(&mut self, subscription: &Subscription, left_out_before: usize) {
        let (count, left_out) = (self.decisions.len(), self.decisions.left_out());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        self.status.left_out = left_out as u64;
        self.status.last_pull_unix_secs = since_1970.map_or(0, |since| since.as_secs());
        self.status.pulls[Pull::Succeeded] += 1;
        self.status.ok = true;
        self.status.error.clear();
        if !self.greeted {
            info!(
                event = "crowdsec_pulled", decisions = count;
                "CrowdSec's decisions are denied: {count}, pulled from {}", subscription.url
            );
        } else if self.failures > 0 {
            info!(
                event = "crowdsec_pulled", decisions = count;
                "CrowdSec answers again; its decisions are denied: {count}"
            );
        }
        if left_out > 0 && left_out_before == 0 {
            warn!(
                event = "crowdsec_left_out", left_out = left_out;
                "CrowdSec has {left_out} decisions more than the {DECISIONS_MAX} that nomail has \
                 room for: they are left out"
            );
        }
        self.greeted = true;
        self.failures = 0;
        self.logged.clear();
    }

    /// Logs each kind of failure once, and tries again later and later.
    fn failed(&mut self, subscription: &Subscription, error: &PullError) {
        self.failures = self.failures.saturating_add(1);
        self.due = Instant::now() + backoff(subscription.interval, self.failures, jitter());
        // What the answer would have said is lost.
        self.resync = self.due;
        let text = error.to_string();
        if self.logged.insert(std::mem::discriminant(error)) {
            warn!(
                event = "crowdsec_failed", decisions = self.decisions.len();
                "CrowdSec at {}: {text}{}; it is tried again, and what is denied stays so",
                subscription.url,
                error.remedy(&subscription.key_file)
            );
        } else {
            debug!("CrowdSec at {}: {text}", subscription.url);
        }
        self.status.pulls[Pull::Failed] += 1;
        self.status.ok = false;
        self.status.error = text;
    }
}

/// The time to the next try after `failures` in a row: twice as long each time, and
/// not the same for all hosts. `jitter` is from 0 to 1.
fn backoff(interval: Duration, failures: u32, jitter: f64) -> Duration {
    let most = BACKOFF_MAX.max(interval);
    let doubled = interval.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(most).mul_f64(0.5 + jitter / 2.0)
}

fn jitter() -> f64 {
    // Without random numbers all hosts try at the same time: no reason to fail.
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
