//! The configuration in effect, and its reload.

use std::time::Duration;

use log::{error, info, warn};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    descriptors::ConnectionBudget, guard_settings::GuardSettings, journal::Journal, keeper::Keeper,
    list_files, listeners::Listeners, names::FoundNames, smtp_settings::smtp_settings,
};
use crate::{
    config::{self, Config, Overrides, WatchedLists},
    exit::Failure,
    host::memory,
    status::{ListsStatus, reload::Reload},
};

/// How often list files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The configuration in effect, and what a reload needs besides the files.
pub(super) struct Reloader {
    pub(super) config: Config,
    overrides: Overrides,
    names: FoundNames,
    budget: ConnectionBudget,
    /// The name in the greeting.
    pub(super) hostname: String,
    pub(super) last: Reload,
    /// The lists in force.
    pub(super) lists: ListsStatus,
    watched: WatchedLists,
    looks: Interval,
}

impl Reloader {
    /// Starts with a configuration that has been loaded.
    pub(super) fn new(
        config: Config,
        overrides: Overrides,
        names: FoundNames,
        budget: ConnectionBudget,
    ) -> Self {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            lists: ListsStatus::from(&config),
            watched: WatchedLists::new(&config),
            looks,
            hostname: names.hostname(&config),
            last: Reload::succeeded(&config, Vec::new()),
            config,
            overrides,
            names,
            budget,
        }
    }

    pub(super) fn aliases(&self) -> Vec<String> {
        self.names.aliases(&self.config)
    }

    /// Takes over a changed configuration, or keeps the old one as it is. Returns whether it
    /// was taken over.
    pub(super) fn reload(
        &mut self,
        keeper: &mut Keeper,
        listeners: &Listeners,
        journal: &mut Journal,
    ) -> bool {
        info!("reloading the configuration");
        let (last, succeeded) = match self.try_reload(keeper, listeners) {
            Ok(needs_restart) => {
                journal.configure(&self.config.log);
                (Reload::succeeded(&self.config, needs_restart), true)
            }
            Err(failure) => {
                for line in failure.lines() {
                    error!("{line}");
                }
                error!("the configuration stays as it was");
                (self.last.failed(&failure), false)
            }
        };
        self.last = last;
        // Of long lists, those before them.
        memory::give_back();
        succeeded
    }

    /// Returns the keys whose changes need a restart.
    fn try_reload(
        &mut self,
        keeper: &mut Keeper,
        listeners: &Listeners,
    ) -> Result<Vec<&'static str>, Failure> {
        let mut new = config::reload(&self.overrides, &self.config)?;
        list_files::warn_of(&new);
        listeners.complete(&mut new);
        let mut needs_restart = self.config.changes_that_need_restart(&new);
        let mut new = new.with_fixed_from(&self.config);
        let begins = self.config.crowdsec.is_none() && new.crowdsec.is_some();
        if begins && !keeper.follows_decisions() {
            // The sandbox does not reach the decisions.
            needs_restart.push("crowdsec");
            new.crowdsec = None;
        }
        self.take(new, keeper, listeners)?;
        keeper.follow_crowdsec(self.config.crowdsec.as_ref());
        if needs_restart.is_empty() {
            info!("the configuration was reloaded");
        } else {
            warn!(
                "the configuration was reloaded, but a change of {} needs a restart",
                needs_restart.join(", ")
            );
        }
        Ok(needs_restart)
    }

    /// Puts a configuration in force, or leaves everything as it was.
    fn take(
        &mut self,
        new: Config,
        keeper: &mut Keeper,
        listeners: &Listeners,
    ) -> Result<(), Failure> {
        let hostname = self.names.hostname(&new);
        let settings = smtp_settings(&new, &hostname, self.budget)?;
        keeper.configure(GuardSettings::of(&new, &settings.replies)?)?;
        let responder = &listeners.responder;
        responder.configure(settings);
        responder.with_foreign_domains(|domains| domains.set_own(self.names.aliases(&new)));
        self.watched = WatchedLists::new(&new);
        self.lists = ListsStatus::from(&new);
        self.config = new;
        self.hostname = hostname;
        Ok(())
    }

    /// Waits until the list files are to be looked at. May be dropped and called again at any
    /// time.
    pub(super) async fn event(&mut self) {
        self.looks.tick().await;
    }

    /// Takes over list files that changed, unless one can no longer be read.
    pub(super) fn handle(&mut self, keeper: &mut Keeper, listeners: &Listeners) {
        if !self.watched.look() {
            return;
        }
        let new = self.config.with_lists_read_again();
        let lost: Vec<_> = new.lost_since(&self.config).collect();
        if !lost.is_empty() {
            list_files::warn_of_lost(&lost);
            self.lists.keep(&lost);
            return;
        }
        list_files::warn_of(&new);
        match self.take(new, keeper, listeners) {
            Ok(()) => {
                info!("changed list files are in force");
                self.last.lists_taken(&self.config);
            }
            Err(failure) => error!("changed list files cannot be put in force: {failure}"),
        }
        // Of long lists, those before them.
        memory::give_back();
    }
}
