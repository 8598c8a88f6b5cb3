//! The decisions of CrowdSec: a thread pulls the stream of its local API, and
//! tells which prefixes are to be denied and which are no longer.
//!
//! Nothing waits for the thread. It has its own event loop, so that neither an API
//! that hangs nor the reading of a long answer delays anybody else, and whoever
//! takes its changes gets them in pieces.

mod client;
mod decisions;
mod key;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    future::pending,
    io,
    mem::Discriminant,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use log::{debug, info, warn};
use nomail_common::{abi::MAX_BANS, counted};
use tokio::{
    runtime::Runtime,
    select,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

pub use self::key::{ApiKey, KeyError};
use self::{client::PullError, decisions::Decisions, stream::Answer};
use crate::{config, counts::Counts};

/// Most decisions that are in force.
pub const DECISIONS_MAX: usize = MAX_BANS as usize;

/// Most prefixes of one change: whoever writes them to the kernel does nothing else
/// for about a millisecond.
const CHANGE_MAX: usize = 256;
/// Changes that wait to be taken.
const CHANGES_WAITING: usize = 4;
/// Longest that it takes until an API that failed is asked again.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often the whole list is pulled, not only what has changed: a change is lost
/// when two agents have the same key, or when of two decisions on one address the
/// longer is deleted.
const RESYNC_INTERVAL: Duration = Duration::from_secs(3600);
/// How often decisions are looked through for those that are over.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5);

/// Whose decisions are pulled, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    url: config::ApiUrl,
    key: ApiKey,
    /// To tell which key is refused.
    key_file: String,
    interval: Duration,
}

impl Subscription {
    /// What the configuration says, with the key from its file.
    ///
    /// # Errors
    /// The file cannot be read, or has no key.
    pub fn new(crowdsec: &config::Crowdsec) -> Result<Self, KeyError> {
        Ok(Self {
            url: crowdsec.url,
            key: ApiKey::read(&crowdsec.api_key_file)?,
            key_file: crowdsec.api_key_file.display().to_string(),
            interval: Duration::from_secs(crowdsec.interval_secs),
        })
    }
}

/// What is to be denied, and what no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Networks without host bits.
    pub ban: Vec<IpNet>,
    /// None of them is in [`Self::ban`].
    pub unban: Vec<IpNet>,
}

impl Change {
    /// In pieces that are taken quickly; what makes room first.
    fn pieces(&self) -> impl Iterator<Item = Self> {
        let unban = self.unban.chunks(CHANGE_MAX).map(|unban| Self {
            unban: unban.to_vec(),
            ..Self::default()
        });
        let ban = self.ban.chunks(CHANGE_MAX).map(|ban| Self {
            ban: ban.to_vec(),
            ..Self::default()
        });
        unban.chain(ban)
    }
}

counted! {
    /// How a pull went.
    pub enum Pull {
        /// The decisions were taken over.
        Succeeded "succeeded" "succeeded";
        /// There was no answer, or none that could be read.
        Failed "failed" "failed";
    }
}

/// How the subscription is doing.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whose decisions are pulled. None: nobody's, since a reload.
    pub url: Option<String>,
    /// Decisions in force.
    pub decisions: usize,
    /// Those of them on IPv6.
    pub decisions_ipv6: usize,
    /// Decisions that there was no room for, [`DECISIONS_MAX`] being in force.
    pub left_out: usize,
    /// When the last pull went well.
    pub pulled: Option<std::time::Instant>,
    /// The same in seconds since 1970.
    pub pulled_unix_secs: u64,
    /// Pulls so far.
    pub pulls: Counts<Pull>,
    /// Why the last pull failed; none if it went well.
    pub error: Option<String>,
}

/// A look at how the subscription is doing, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Snapshot>>);

impl Watch {
    /// How it is doing now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, which ends with this.
#[derive(Debug)]
pub struct Crowdsec {
    orders: watch::Sender<Option<Subscription>>,
    changes: mpsc::Receiver<Change>,
    watch: Watch,
}

impl Crowdsec {
    /// Starts the thread, and waits until `prepare` has been run on it.
    ///
    /// # Errors
    /// There are no more threads or descriptors.
    pub fn start(
        subscription: Subscription,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        // Here: afterwards the system calls that make one may be forbidden.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, ordered) = watch::channel(Some(subscription));
        let (changes, taken) = mpsc::channel(CHANGES_WAITING);
        let watch = Watch::default();
        let puller = Puller {
            runtime,
            orders: ordered,
            changes,
            watch: watch.clone(),
            subscription: None,
            decisions: Decisions::new(DECISIONS_MAX),
            due: Instant::now(),
            resync: Instant::now(),
            failures: 0,
            told: HashSet::new(),
            greeted: false,
        };
        let (ready, prepared) = blocking::sync_channel(0);
        thread::Builder::new()
            .name("crowdsec".to_owned())
            .spawn(move || {
                prepare();
                // Whether the other side still waits does not matter.
                let _ = ready.send(());
                puller.run();
            })?;
        // An error means that `prepare` panicked; then there are no changes.
        let _ = prepared.recv();
        Ok(Self {
            orders,
            changes: taken,
            watch,
        })
    }

    /// Pulls from somebody else, or nobody, from now on. The decisions stay until
    /// the other has told his; nobody has none.
    pub fn subscribe(&self, subscription: Option<Subscription>) {
        self.orders.send_if_modified(|before| {
            let differs = *before != subscription;
            *before = subscription;
            differs
        });
    }

    /// How it is doing.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

/// The next change, of which there are none without a thread. None: it has ended.
pub async fn next_change(crowdsec: Option<&mut Crowdsec>) -> Option<Change> {
    match crowdsec {
        Some(crowdsec) => crowdsec.changes.recv().await,
        None => pending().await,
    }
}

/// What runs on the thread.
struct Puller {
    runtime: Runtime,
    orders: watch::Receiver<Option<Subscription>>,
    changes: mpsc::Sender<Change>,
    watch: Watch,
    subscription: Option<Subscription>,
    decisions: Decisions,
    /// When the next pull begins.
    due: Instant,
    /// From when on a pull is one of the whole list.
    resync: Instant,
    /// Pulls in a row that failed.
    failures: u32,
    /// The kinds of failures that were told since the last pull that went well.
    told: HashSet<Discriminant<PullError>>,
    /// The first pull was told.
    greeted: bool,
}

/// Nobody takes changes any more.
struct Gone;

impl Puller {
    fn run(mut self) {
        while self.step().is_ok() {}
    }

    fn step(&mut self) -> Result<(), Gone> {
        let order = self.orders.borrow_and_update().clone();
        if order != self.subscription {
            self.follow(order)?;
        }
        let over = self.decisions.expire(Instant::now());
        self.tell(&over)?;
        if let Some(subscription) = self.subscription.clone()
            && Instant::now() >= self.due
        {
            self.pull(&subscription)?;
        }
        let next = Instant::now() + EXPIRE_INTERVAL;
        let wake = match self.subscription {
            Some(_) => next.min(self.due),
            None => next,
        };
        let orders = &mut self.orders;
        self.runtime.block_on(async {
            select! {
                changed = orders.changed() => changed.map_err(|_| Gone),
                () = sleep_until(wake) => Ok(()),
            }
        })
    }

    /// Another subscription, of which nothing is known yet.
    fn follow(&mut self, order: Option<Subscription>) -> Result<(), Gone> {
        let now = Instant::now();
        (self.due, self.resync) = (now, now);
        self.failures = 0;
        self.told.clear();
        self.greeted = false;
        self.watch.lock().clone_from(&Snapshot {
            url: order.as_ref().map(|order| order.url.to_string()),
            decisions: self.decisions.len(),
            decisions_ipv6: self.decisions.len_ipv6(),
            ..Snapshot::default()
        });
        self.subscription = order;
        if self.subscription.is_none() {
            info!(event = "crowdsec_left"; "CrowdSec's decisions are no longer denied");
            let all = self.decisions.replace(Answer::default(), now);
            self.tell(&all)?;
        }
        Ok(())
    }

    fn pull(&mut self, subscription: &Subscription) -> Result<(), Gone> {
        let begun = Instant::now();
        let startup = begun >= self.resync;
        let pulled = client::pull(&self.runtime, &mut self.orders, subscription, startup);
        let answer = match pulled {
            Ok(answer) => answer,
            // What the order is, is looked at next; what the answer says is lost.
            Err(PullError::Abandoned) => {
                self.resync = begun;
                return Ok(());
            }
            Err(error) => {
                self.failed(subscription, &error);
                return Ok(());
            }
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
        let change = if startup {
            self.resync = now + RESYNC_INTERVAL;
            self.decisions.replace(answer, now)
        } else {
            self.decisions.update(answer, now)
        };
        if cut {
            self.resync = now;
        }
        self.tell(&change)?;
        self.succeeded(subscription, left_out);
        Ok(())
    }

    fn succeeded(&mut self, subscription: &Subscription, left_out_before: usize) {
        let (count, left_out) = (self.decisions.len(), self.decisions.left_out());
        {
            let mut told = self.watch.lock();
            told.left_out = left_out;
            told.pulled = Some(std::time::Instant::now());
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
            told.pulled_unix_secs = since_1970.map_or(0, |since| since.as_secs());
            told.pulls[Pull::Succeeded] += 1;
            told.error = None;
        }
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
        self.told.clear();
    }

    /// Tells each kind of failure once, and tries again later and later.
    fn failed(&mut self, subscription: &Subscription, error: &PullError) {
        self.failures = self.failures.saturating_add(1);
        self.due = Instant::now() + backoff(subscription.interval, self.failures, jitter());
        // What the answer would have said is lost.
        self.resync = self.due;
        let text = error.to_string();
        if self.told.insert(std::mem::discriminant(error)) {
            warn!(
                event = "crowdsec_failed", decisions = self.decisions.len();
                "CrowdSec at {}: {text}{}; it is tried again, and what is denied stays so",
                subscription.url,
                error.remedy(&subscription.key_file)
            );
        } else {
            debug!("CrowdSec at {}: {text}", subscription.url);
        }
        let mut told = self.watch.lock();
        told.pulls[Pull::Failed] += 1;
        told.error = Some(text);
    }

    fn tell(&mut self, change: &Change) -> Result<(), Gone> {
        {
            let mut told = self.watch.lock();
            told.decisions = self.decisions.len();
            told.decisions_ipv6 = self.decisions.len_ipv6();
        }
        for piece in change.pieces() {
            self.changes.blocking_send(piece).map_err(|_| Gone)?;
        }
        Ok(())
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
