//! The keeper of the guard: its settings, its lease, and what it reports.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use log::{error, info, warn};
use nomail_common::verdict::Verdict;
use tokio::{
    select,
    time::{Interval, interval},
};

use super::{
    attach::AttachedGuard,
    crowdsec::Bans,
    failover::Failover,
    floods::Floods,
    guard_settings::{GuardSettings, Targets, kernel_takes_syncookies},
    retransmit::Retransmitter,
};
use crate::{
    commands::crowdsec::Change,
    config::FloodAnswer,
    counts::Counts,
    guard::BpfError,
    logging::limited::LimitedLog,
    smtp::Responder,
    status::{
        ResponderStatus, Speaker, StatelessCounter,
        http::{Chart, History},
    },
};

/// How often the guard's counters and events are read, and its lease is renewed.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// The guard with what is done for it.
pub(super) struct Keeper {
    pub(super) guard: AttachedGuard,
    /// In force, as changed by [`Keeper::configure`].
    pub(super) settings: GuardSettings,
    targets: Targets,
    failover: Failover,
    retransmitter: Retransmitter,
    pub(super) floods: Floods,
    /// The rates of the last minutes.
    pub(super) history: History,
    limited: LimitedLog,
    /// The kernel was last seen to accept SYN cookies.
    syncookies: bool,
    pub(super) bans: Bans,
    tick: Interval,
}

pub(super) enum KeeperEvent {
    Tick,
    /// CrowdSec's decisions changed. None: there will be no more.
    Decisions(Option<Change>),
}

impl Keeper {
    /// Keeps a guard that has been attached with these settings.
    pub(super) fn new(
        guard: AttachedGuard,
        settings: GuardSettings,
        targets: Targets,
        retransmitter: Retransmitter,
    ) -> Self {
        // What was counted by an earlier agent is no flood of now.
        let counts = guard.counts().unwrap_or_default();
        Self {
            floods: Floods::from_count(counts.all.syn[Verdict::Flood]),
            guard,
            settings,
            targets,
            failover: Failover::default(),
            retransmitter,
            history: History::default(),
            limited: LimitedLog::default(),
            syncookies: true,
            bans: Bans::default(),
            tick: interval(TICK_INTERVAL),
        }
    }

    /// Waits for the next event. May be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> KeeperEvent {
        select! {
            _ = self.tick.tick() => KeeperEvent::Tick,
            change = self.bans.next() => KeeperEvent::Decisions(change),
        }
    }

    pub(super) fn handle(&mut self, event: KeeperEvent, responder: &Responder) {
        match event {
            KeeperEvent::Tick => self.tick(Instant::now(), responder),
            KeeperEvent::Decisions(change) => self.bans.follow(change, &mut self.guard),
        }
    }

    fn tick(&mut self, now: Instant, responder: &Responder) {
        if self.settings.falls_back() {
            self.watch_for_takeovers(now);
        } else {
            self.guard.renew_lease();
        }
        self.retransmitter.retransmit(&mut self.guard);
        self.watch_for_floods(now, responder.snapshot().accepted);
        self.watch_for_cookies();
        self.log_limited(now, responder);
        self.bans.retry(&mut self.guard);
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
    pub(super) fn log_limited(&mut self, now: Instant, responder: &Responder) {
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

    /// Puts new settings in force, or keeps the old ones.
    pub(super) fn configure(&mut self, settings: GuardSettings) -> Result<(), BpfError> {
        self.guard.configure(&settings.policy(&self.targets))?;
        self.settings = settings;
        Ok(())
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
