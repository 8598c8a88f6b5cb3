//! What the agent writes down: the report on connections, warnings of mail for other domains,
//! and the files of the state directory.

use std::time::{Duration, Instant};

use tokio::{
    select,
    time::{self, Interval, interval, interval_at},
};

use super::{attach::AttachedGuard, foreign};
use crate::{
    config,
    host::state::SavedState,
    logging::report::Reporter,
    smtp::{Activity, SmtpThread},
};

/// How often the state is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);
/// How often warnings of mail for other domains are due.
const DOMAINS_INTERVAL: Duration = Duration::from_secs(1);

/// The report and the state.
pub(super) struct Journal {
    reporter: Reporter,
    state: Option<SavedState>,
    sources_max: usize,
    interval_secs: u64,
    /// When the last report was due.
    reported: Instant,
    report: Interval,
    save: Interval,
    domains: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JournalEvent {
    Report,
    Save,
    /// Warnings of mail for other domains are due.
    Domains,
}

impl Journal {
    /// Reports as `log` says, and saves to `state` if there is a directory.
    pub(super) fn new(log: &config::Log, state: Option<SavedState>) -> Self {
        Self {
            reporter: Reporter::default(),
            state,
            sources_max: log.sources_max,
            interval_secs: log.interval_secs,
            reported: Instant::now(),
            report: report_interval(log.interval_secs),
            save: interval(SAVE_INTERVAL),
            domains: interval(DOMAINS_INTERVAL),
        }
    }

    /// Takes over a changed configuration.
    pub(super) fn configure(&mut self, log: &config::Log) {
        self.sources_max = log.sources_max;
        if self.interval_secs != log.interval_secs {
            self.interval_secs = log.interval_secs;
            self.report = report_interval(log.interval_secs);
        }
    }

    /// Waits for the next event. May be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> JournalEvent {
        select! {
            _ = self.report.tick() => JournalEvent::Report,
            _ = self.save.tick() => JournalEvent::Save,
            _ = self.domains.tick() => JournalEvent::Domains,
        }
    }

    pub(super) fn handle(
        &mut self,
        event: JournalEvent,
        responder: &SmtpThread,
        guard: &AttachedGuard,
    ) {
        match event {
            JournalEvent::Report => self.report(responder, guard),
            JournalEvent::Save => self.save(responder),
            JournalEvent::Domains => foreign::warn_of_due(responder),
        }
    }

    /// Logs what connections did since the last report.
    pub(super) fn report(&mut self, responder: &SmtpThread, guard: &AttachedGuard) {
        // The last report is early, others may be late.
        let elapsed = self.reported.elapsed() + Duration::from_millis(500);
        self.reported = Instant::now();
        let activity = responder.take_activity();
        if activity == Activity::default() {
            return;
        }
        let limited = guard.limited_syns();
        let lines = self.reporter.lines(
            activity,
            |source| limited.get(&source).copied().unwrap_or(0),
            self.sources_max,
            elapsed.as_secs().max(1),
        );
        for line in lines {
            line.log();
        }
    }

    /// Saves the memory of `auto`, and the domains that mail arrived for.
    pub(super) fn save(&mut self, responder: &SmtpThread) {
        if let Some(state) = &mut self.state {
            state.save_all(&responder.senders(), &responder.foreign_domains());
        }
    }
}

fn report_interval(secs: u64) -> Interval {
    let period = Duration::from_secs(secs);
    interval_at(time::Instant::now() + period, period)
}
