//! The keeper of the guard: its settings, its lease, and what it reports.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use log::{error, info, warn};
use nomail_common::verdict::Verdict;
use tokio::{
    select,
    task::yield_now,
    time::{Interval, interval},
};

use super::{
    attach::AttachedGuard,
    decisions::DecisionFiles,
    failover::Failover,
    floods::Floods,
    guard_settings::{GuardSettings, Targets, kernel_takes_syncookies},
    retransmit::Retransmitter,
};
use crate::{
    config::{Crowdsec, FloodAnswer},
    counts::Counts,
    guard::BpfError,
    logging::limited::LimitedLog,
    smtp::{self, SmtpThread},
    status::{
        CrowdsecStatus, ResponderStatus, Speaker, StatelessCounter,
        http::{Chart, History},
    },
};

/// How often the guard's counters and events are read, its lease is renewed, and CrowdSec's
/// decisions are looked at.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// The guard with what is done for it.
pub(super) struct Keeper {
    pub(super) guard: AttachedGuard,
    /// In force, as changed by [`Keeper::begin`].
    pub(super) settings: GuardSettings,
    /// To be in force once the guard has their lists.
    next: Option<GuardSettings>,
    targets: Targets,
    failover: Failover,
    retransmitter: Retransmitter,
    pub(super) floods: Floods,
    /// The rates of the last minutes.
    pub(super) history: History,
    limited: LimitedLog,
    /// The kernel was last seen to accept SYN cookies.
    syncookies: bool,
    /// The decisions of CrowdSec, if the agent was started with `[crowdsec]`.
    decisions: Option<DecisionFiles>,
    /// The kernel did not take the decisions.
    undenied: bool,
    /// The decisions have changed since the settings were begun.
    decided: bool,
    tick: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeeperEvent {
    /// A second has passed.
    Tick,
    /// A slice of lists is to be written to the guard.
    Slice,
}

impl Keeper {
    /// Keeps a guard that has been attached with these settings.
    pub(super) fn new(
        guard: AttachedGuard,
        settings: GuardSettings,
        targets: Targets,
        retransmitter: Retransmitter,
        decisions: Option<DecisionFiles>,
    ) -> Self {
        // What was counted by an earlier agent is no flood of now.
        let counts = guard.counts().unwrap_or_default();
        Self {
            floods: Floods::from_count(counts.all.syn[Verdict::Flood]),
            guard,
            settings,
            next: None,
            targets,
            failover: Failover::default(),
            retransmitter,
            history: History::default(),
            limited: LimitedLog::default(),
            syncookies: true,
            decisions,
            undenied: false,
            decided: false,
            tick: interval(TICK_INTERVAL),
        }
    }

    /// Waits for the next event. May be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> KeeperEvent {
        select! {
            _ = self.tick.tick() => KeeperEvent::Tick,
            // All else has its turn between two slices.
            () = yield_now(), if self.next.is_some() => KeeperEvent::Slice,
        }
    }

    /// Does what is due each second.
    pub(super) fn tick(&mut self, responder: &SmtpThread) {
        let now = Instant::now();
        if self.settings.falls_back() {
            self.watch_for_takeovers(now);
        } else {
            self.guard.renew_lease();
        }
        self.retransmitter.retransmit(&mut self.guard);
        self.watch_for_floods(now, responder.snapshot().accepted);
        self.watch_for_cookies();
        self.log_limited(now, responder);
        self.follow_decisions(now);
    }

    /// The listeners are served. While there is `room` in their queues they keep their place,
    /// or have it back.
    pub(super) fn heartbeat(&mut self, room: bool) {
        self.failover.queue_full = !room;
        let taken_over = self.watch_for_takeovers(Instant::now());
        if room {
            self.guard.renew_lease();
            if let Some(ago) = taken_over {
                self.failover.given_back(ago);
            }
        }
    }

    /// Logs when XDP has taken over. Returns for how long, if it has not given back.
    fn watch_for_takeovers(&mut self, now: Instant) -> Option<Duration> {
        let ago = self.guard.has_taken_over()?;
        self.failover.taken_over(ago, now);
        Some(ago)
    }

    /// Logs the start and the end of a flood, and records the rates.
    fn watch_for_floods(&mut self, now: Instant, connections: u64) {
        let Ok(counts) = self.guard.counts() else {
            return;
        };
        let totals = Chart::totals(&counts.all, connections);
        self.history.add(totals, now);
        self.floods.look(counts.all.syn[Verdict::Flood]);
    }

    /// Follows the sysctl without which there are no SYN cookies.
    fn watch_for_cookies(&mut self) {
        let wanted = self.settings.limits.flood_answer == FloodAnswer::Cookie;
        let syncookies = !wanted || kernel_takes_syncookies();
        if syncookies == std::mem::replace(&mut self.syncookies, syncookies) || !wanted {
            return;
        }
        if syncookies {
            info!("net.ipv4.tcp_syncookies is on again: floods are answered with SYN cookies");
        } else {
            warn!(
                "limits.flood_answer = \"cookie\", but net.ipv4.tcp_syncookies is 0: floods are \
                 answered with challenges until it is 1"
            );
        }
        let policy = self.settings.policy(&self.targets);
        if let Err(error) = self.guard.configure(&policy) {
            error!("the answer to floods cannot be changed: {error}");
        }
    }

    /// Logs the sources that were limited since the last time.
    pub(super) fn log_limited(&mut self, now: Instant, responder: &SmtpThread) {
        let events = self.guard.take_limited();
        if events.is_empty() {
            return;
        }
        let limits = &self.settings.limits;
        let sources = responder.sources().into_iter();
        let connections: HashMap<_, _> = sources
            .map(|source| (source.source, source.connections))
            .collect();
        for event in events {
            let is_prefix = event.verdict == Verdict::LimitedPrefix;
            let (rate, connections) = match is_prefix {
                true => (limits.prefix_rate, 0),
                false => (
                    limits.syn_rate,
                    connections.get(&event.address).copied().unwrap_or(0),
                ),
            };
            let mut on = self.targets.interfaces.iter().zip(self.guard.statuses());
            let interface = on.find(|(interface, _)| interface.index == event.interface);
            let name = interface.map(|(_, status)| status.name.as_str());
            self.limited.log(&event, rate, name, connections, now);
        }
    }

    /// Denies what CrowdSec's decisions say. What the kernel refuses is tried again.
    fn follow_decisions(&mut self, now: Instant) {
        let Some(decisions) = &mut self.decisions else {
            return;
        };
        self.decided |= decisions.look(now);
        // What was begun ends first: decisions may change more often than long lists take.
        if (self.decided || self.undenied) && self.next.is_none() {
            self.begin(self.settings.clone());
        }
    }

    /// Follows another `[crowdsec]`, or none since a reload.
    pub(super) fn follow_crowdsec(&mut self, crowdsec: Option<&Crowdsec>) {
        if let Some(decisions) = &mut self.decisions {
            decisions.follow(crowdsec);
        }
        self.follow_decisions(Instant::now());
    }

    /// Whether the agent was started with `[crowdsec]`, and has a guard to deny its decisions.
    pub(super) fn follows_decisions(&self) -> bool {
        self.decisions.is_some()
    }

    /// The decisions, if the agent was started with `[crowdsec]`.
    pub(super) fn crowdsec_status(&self) -> Option<CrowdsecStatus> {
        let decisions = self.decisions.as_ref()?;
        Some(decisions.status(u64::from(smtp::unix_now())))
    }

    fn banned(&self) -> &[IpNet] {
        self.decisions.as_ref().map_or(&[], DecisionFiles::banned)
    }

    /// Begins to put new settings in force, besides what is banned, in place of those that
    /// were begun before.
    pub(super) fn begin(&mut self, settings: GuardSettings) {
        self.next = Some(settings.banning(self.banned()));
        self.decided = false;
    }

    /// Gives up what was begun, except for decisions.
    pub(super) fn abandon(&mut self) {
        self.decided |= self.next.take().is_some() && self.decisions.is_some();
    }

    /// Writes a slice of the lists of the settings that were begun. Returns how it ended when
    /// it was the last one: they are in force, or the old ones stay.
    pub(super) fn write_slice(&mut self) -> Option<Result<(), BpfError>> {
        let next = self.next.take()?;
        let written = match self.guard.write_ahead(next.lists()) {
            Ok(false) => {
                self.next = Some(next);
                return None;
            }
            written => written,
        };
        let configured = written.and_then(|_| self.guard.configure(&next.policy(&self.targets)));
        match &configured {
            Ok(()) => self.settings = next,
            Err(error) if self.decisions.is_some() && !self.undenied => {
                error!("CrowdSec's decisions cannot be put in force; this is tried again: {error}");
            }
            Err(_) => {}
        }
        self.undenied = configured.is_err() && self.decisions.is_some();
        Some(configured)
    }

    /// Guards other interfaces or addresses, or keeps the old ones.
    pub(super) fn retarget(&mut self, targets: Targets) -> Result<(), BpfError> {
        self.guard.configure(&self.settings.policy(&targets))?;
        self.targets = targets;
        Ok(())
    }

    /// Detaches the guard, or has a pinned one go on without listeners.
    pub(super) fn leave(&mut self) {
        if let Err(error) = self.guard.leave() {
            error!(
                "cannot update the pinned guard: it may challenge clients for up to 10 s: {error}"
            );
        }
    }

    /// Who serves.
    pub(super) fn responder_status(&self) -> ResponderStatus {
        let (by, fallback) = self.settings.speakers();
        ResponderStatus {
            by,
            fallback,
            serving: match self.guard.has_taken_over() {
                Some(_) => Speaker::Xdp,
                None => by,
            },
            counts: Counts::from_iter([
                (StatelessCounter::Takeovers, self.failover.takeovers()),
                (StatelessCounter::Repeated, self.retransmitter.sent()),
            ]),
        }
    }
}
