//! The configuration in effect, and its reload.

use log::{error, info, warn};

use super::{
    crowdsec::subscription_of, descriptors::ConnectionBudget, guard_settings::GuardSettings,
    journal::Journal, keeper::Keeper, list_files, listeners::Listeners, names::FoundNames,
    smtp_settings::smtp_settings,
};
use crate::{
    config::{self, Config, Overrides},
    exit::Failure,
    host::memory,
    status::reload::Reload,
};

/// The configuration in effect, and what a reload needs besides the files.
pub(super) struct Reloader {
    pub(super) config: Config,
    overrides: Overrides,
    names: FoundNames,
    budget: ConnectionBudget,
    /// The name in the greeting.
    pub(super) hostname: String,
    pub(super) last: Reload,
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
        if keeper.bans.needs_restart(&self.config, &new) {
            needs_restart.push("crowdsec");
            new.crowdsec = None;
        }
        let subscription = subscription_of(&new)?;
        let hostname = self.names.hostname(&new);
        let settings = smtp_settings(&new, &hostname, self.budget)?;
        keeper.configure(GuardSettings::of(&new, &settings.replies)?)?;
        let responder = &listeners.responder;
        responder.configure(settings);
        responder.with_foreign_domains(|domains| domains.set_own(self.names.aliases(&new)));
        keeper
            .bans
            .subscribe(subscription, new.lists.denies_nothing);
        self.config = new;
        self.hostname = hostname;
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
}
