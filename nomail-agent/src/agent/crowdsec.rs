//! The decisions of CrowdSec, which a thread of its own pulls, and the guard denies.

use anyhow::Context as _;
use log::{error, warn};

use super::attach::AttachedGuard;
use crate::{
    commands::crowdsec::{Change, Crowdsec, Subscription, Watch, next_change},
    config::Config,
    exit::{Exit, Failure},
    host::privilege::{Confinement, Thread},
};

/// What is denied because CrowdSec says so.
#[derive(Default)]
pub(super) struct Bans {
    /// The thread, if the agent was started with `[crowdsec]`.
    crowdsec: Option<Crowdsec>,
    /// Decisions that the kernel did not take. Later ones wait for them.
    undenied: Option<Change>,
}

/// With the key, which a reload reads anew.
pub(super) fn subscription_of(config: &Config) -> Result<Option<Subscription>, Failure> {
    let subscription = config.crowdsec.as_ref().map(Subscription::new);
    subscription
        .transpose()
        .map_err(|error| Failure::new(Exit::Configuration, error))
}

impl Bans {
    /// Starts the thread.
    pub(super) fn start(
        subscription: Option<Subscription>,
        guarded: bool,
        denies_nothing: bool,
    ) -> Result<Self, Failure> {
        let Some(subscription) = subscription else {
            return Ok(Self::default());
        };
        if !guarded {
            warn!("[crowdsec] is of no effect with --xdp-mode off: nothing denies its decisions");
            return Ok(Self::default());
        }
        let confinement = Confinement::default();
        let of_thread = confinement.clone();
        let crowdsec = Crowdsec::start(subscription, move || of_thread.confine(Thread::Crowdsec))
            .context("the thread that pulls CrowdSec's decisions cannot be started")?;
        confinement
            .check()
            .map_err(|error| Failure::new(Exit::Permission, error))?;
        if denies_nothing {
            // Until a reload.
            crowdsec.subscribe(None);
        }
        Ok(Self {
            crowdsec: Some(crowdsec),
            undenied: None,
        })
    }

    pub(super) fn watch(&self) -> Option<Watch> {
        self.crowdsec.as_ref().map(Crowdsec::watch)
    }

    /// The next change; waits while an earlier one is not in force.
    pub(super) async fn next(&mut self) -> Option<Change> {
        match self.undenied {
            Some(_) => std::future::pending().await,
            None => next_change(self.crowdsec.as_mut()).await,
        }
    }

    /// Denies what is decided. None: the thread has ended.
    pub(super) fn follow(&mut self, change: Option<Change>, guard: &mut AttachedGuard) {
        match change {
            Some(change) => self.deny(change, guard, true),
            None => {
                error!("CrowdSec's decisions are no longer pulled: start nomail-agent again");
                self.crowdsec = None;
            }
        }
    }

    /// Tries again what the kernel did not take.
    pub(super) fn retry(&mut self, guard: &mut AttachedGuard) {
        if let Some(change) = self.undenied.take() {
            self.deny(change, guard, false);
        }
    }

    fn deny(&mut self, change: Change, guard: &mut AttachedGuard, log: bool) {
        if let Err(error) = guard.deny(&change.ban, &change.unban) {
            if log {
                error!(
                    "a decision of CrowdSec cannot be put in force, and is tried again: {error}"
                );
            }
            self.undenied = Some(change);
        }
    }

    /// Whether the new configuration begins to use CrowdSec, which needs a restart: nothing can
    /// be connected to any more.
    pub(super) fn needs_restart(&self, old: &Config, new: &Config) -> bool {
        self.crowdsec.is_none() && old.crowdsec.is_none() && new.crowdsec.is_some()
    }

    pub(super) fn subscribe(&self, subscription: Option<Subscription>, denies_nothing: bool) {
        if let Some(crowdsec) = &self.crowdsec {
            crowdsec.subscribe(subscription.filter(|_| !denies_nothing));
        }
    }
}
