//! The configuration in effect, and its reload.

use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::{
    descriptors::ConnectionBudget, guard_settings::GuardSettings, journal::Journal, keeper::Keeper,
    list_files, listeners::Listeners, names::FoundNames, smtp_settings::smtp_settings,
};
use crate::{
    config::{self, Config, Overrides, WatchedLists},
    exit::Failure,
    guard::BpfError,
    host::memory,
    smtp,
    status::{ListsStatus, reload::Reload},
};

/// How often list files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// When list files are read again that could not be taken over.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

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
    /// When list files are to be looked at.
    look: Instant,
    /// When they are to be read although they are the same, because they could not be taken
    /// over.
    retry: Option<Instant>,
    /// Why not, which was logged; else empty.
    failure: String,
    /// What is in force once the guard is.
    next: Option<Next>,
}

/// A configuration that is to be in force.
struct Next {
    config: Config,
    hostname: String,
    smtp: smtp::Settings,
    /// The keys whose changes need a restart. None: list files were replaced, without a reload.
    needs_restart: Option<Vec<&'static str>>,
}

impl Reloader {
    /// Starts with a configuration that has been loaded.
    pub(super) fn new(
        config: Config,
        overrides: Overrides,
        names: FoundNames,
        budget: ConnectionBudget,
    ) -> Self {
        Self {
            lists: ListsStatus::from(&config),
            watched: WatchedLists::new(&config),
            look: Instant::now(),
            retry: None,
            failure: String::new(),
            next: None,
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

    /// Begins to take over a changed configuration. Returns whether it is correct; else the
    /// old one stays as it is.
    pub(super) fn reload(&mut self, keeper: &mut Keeper, listeners: &Listeners) -> bool {
        info!("reloading the configuration");
        let begun = self.try_reload(keeper, listeners);
        begun
            .map_err(|failure| self.refuse(&failure, keeper))
            .is_ok()
    }

    fn try_reload(&mut self, keeper: &mut Keeper, listeners: &Listeners) -> Result<(), Failure> {
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
        self.begin(new, Some(needs_restart), keeper)
    }

    fn refuse(&mut self, failure: &Failure, keeper: &mut Keeper) {
        for line in failure.lines() {
            error!("{line}");
        }
        error!("the configuration stays as it was");
        self.last = self.last.failed(failure);
        // Nor does one that was begun before come into force and hide the failure.
        self.next = None;
        keeper.abandon();
        // Its list files, if they have changed, are read again.
        self.watched = WatchedLists::new(&self.config);
        // Of long lists.
        memory::give_back();
    }

    /// Begins to put a configuration in force, in place of one that was begun before.
    fn begin(
        &mut self,
        config: Config,
        needs_restart: Option<Vec<&'static str>>,
        keeper: &mut Keeper,
    ) -> Result<(), Failure> {
        let hostname = self.names.hostname(&config);
        let smtp = smtp_settings(&config, &hostname, self.budget)?;
        keeper.begin(GuardSettings::of(&config, &smtp.replies)?);
        // The files of the one before, if it was for them, are in this one.
        self.watched = WatchedLists::new(&config);
        self.next = Some(Next {
            config,
            hostname,
            smtp,
            needs_restart,
        });
        Ok(())
    }

    /// Takes over what was begun, now that the guard is configured, or could not be. Returns
    /// whether a reload succeeded, if that was one.
    pub(super) fn finish(
        &mut self,
        configured: Result<(), BpfError>,
        keeper: &mut Keeper,
        listeners: &Listeners,
        journal: &mut Journal,
    ) -> Option<bool> {
        // None: it was for CrowdSec's decisions.
        let next = self.next.take()?;
        let succeeded = configured.is_ok();
        match configured {
            Ok(()) => {
                let responder = &listeners.responder;
                responder.configure(next.smtp);
                let aliases = self.names.aliases(&next.config);
                responder.with_foreign_domains(|domains| domains.set_own(aliases));
                self.lists = ListsStatus::from(&next.config);
                self.config = next.config;
                self.hostname = next.hostname;
                (self.retry, self.failure) = (None, String::new());
                match &next.needs_restart {
                    Some(keys) => self.reloaded(keys, keeper, journal),
                    None => {
                        info!("changed list files are in force");
                        self.last.lists_taken(&self.config);
                    }
                }
            }
            Err(error) if next.needs_restart.is_some() => self.refuse(&error.into(), keeper),
            Err(error) => self.retry_later(&error.into()),
        }
        // Of long lists, those before them.
        memory::give_back();
        next.needs_restart.map(|_| succeeded)
    }

    fn reloaded(
        &mut self,
        needs_restart: &[&'static str],
        keeper: &mut Keeper,
        journal: &mut Journal,
    ) {
        keeper.follow_crowdsec(self.config.crowdsec.as_ref());
        journal.configure(&self.config.log);
        self.last = Reload::succeeded(&self.config, needs_restart.to_vec());
        if needs_restart.is_empty() {
            info!("the configuration was reloaded");
        } else {
            warn!(
                "the configuration was reloaded, but a change of {} needs a restart",
                needs_restart.join(", ")
            );
        }
    }

    /// Takes over list files that changed, unless one can no longer be read. To be called
    /// each second.
    pub(super) fn look(&mut self, keeper: &mut Keeper, now: Instant) {
        if now < self.look {
            return;
        }
        self.look = now + LOOK_INTERVAL;
        // What was begun ends first: files may change more often than long lists take.
        if self.next.is_some() {
            return;
        }
        let retries = self.retry.take_if(|retry| now >= *retry).is_some();
        if !self.watched.look() && !retries {
            return;
        }
        let new = self.config.with_lists_read_again();
        let lost: Vec<_> = new.lost_since(&self.config).collect();
        if !lost.is_empty() {
            list_files::warn_of_lost(&lost);
            self.lists.keep(&lost);
            return;
        }
        if !retries {
            list_files::warn_of(&new);
        }
        if let Err(failure) = self.begin(new, None, keeper) {
            self.retry_later(&failure);
        }
    }

    /// Has the list files taken over later, and logs why, once.
    fn retry_later(&mut self, failure: &Failure) {
        self.retry = Some(Instant::now() + RETRY_INTERVAL);
        let failure = failure.to_string();
        if failure != self.failure {
            error!(
                "changed list files cannot be put in force, which is tried again every \
                 {RETRY_INTERVAL:?}: {failure}"
            );
        }
        self.failure = failure;
    }
}
