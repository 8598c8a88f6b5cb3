//! Assembles a status from the parts of the agent.

use std::time::Instant;

use anyhow::Result;
use nomail_common::{abi, counted::Counted as _, verdict::Verdict};

use super::{counters::busiest, keeper::Keeper, network::Network, reload::Reloader};
use crate::{
    host::service::Figures,
    smtp::{self, SmtpThread},
    status::{
        DurationStatus, MetricsStatus, Status, foreign_domains,
        http::{SOURCES_SHOWN, View},
    },
};

/// The parts that a status is assembled from.
pub(super) struct StatusInputs<'a> {
    pub(super) reloader: &'a Reloader,
    pub(super) keeper: &'a Keeper,
    pub(super) network: &'a Network,
    pub(super) responder: &'a SmtpThread,
}

impl StatusInputs<'_> {
    /// The status, with at most `sources_max` sources.
    pub(super) fn assemble(
        &self,
        started: Instant,
        metrics: MetricsStatus,
        sources_max: usize,
    ) -> Result<Status> {
        let connections = self.responder.snapshot();
        let config = &self.reloader.config;
        let reload = &self.reloader.last;
        let guard = &self.keeper.guard;
        let counts = guard.counts()?;
        let table = guard.sources()?;
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("NOMAIL_COMMIT").to_owned(),
            abi: abi::ABI_VERSION,
            hostname: self.reloader.hostname.clone(),
            uptime_secs: started.elapsed().as_secs(),
            flood: self.keeper.floods.is_on(),
            observe: config.observe,
            agent_running: true,
            guarded: self.network.guarded_pairs(),
            responder: self.keeper.responder_status(),
            config_hash: format!("{:016x}", reload.config_hash),
            reload: reload.clone().into(),
            unguarded: self.network.unguarded.clone(),
            lists: self.reloader.lists.clone(),
            metrics,
            addresses: self.network.addresses.clone(),
            counts: counts.all,
            elsewhere: counts.elsewhere,
            commands: connections.commands,
            durations: durations_of(&connections),
            interfaces: guard.statuses().to_vec(),
            crowdsec: self.keeper.crowdsec_status(),
            foreign_domains: self
                .responder
                .with_foreign_domains(|domains| foreign_domains(domains, smtp::unix_now())),
            connections,
            sources_tracked: table.len() as u64,
            sources: busiest(&table, self.responder.sources(), sources_max),
        };
        for (interface, counts) in status.interfaces.iter_mut().zip(counts.of_interfaces) {
            interface.counts = counts;
        }
        Ok(status)
    }

    /// What is shown by HTTP.
    pub(super) fn view(&self, started: Instant, metrics: MetricsStatus) -> Result<View> {
        let status = self.assemble(started, metrics, SOURCES_SHOWN)?;
        Ok(View::new(status, self.keeper.history.clone()))
    }

    /// What the service manager shows. Counters that cannot be read are 0.
    pub(super) fn figures(&self) -> Figures {
        let guard = &self.keeper.guard;
        let syn = guard.counts().unwrap_or_default().all.syn;
        let interfaces = guard.statuses().iter();
        Figures {
            interfaces: interfaces
                .map(|interface| {
                    let mode = match interface.trouble {
                        Some(trouble) => trouble.name().to_owned(),
                        None => interface.xdp_mode.clone(),
                    };
                    (interface.name.clone(), mode)
                })
                .collect(),
            observe: self.reloader.config.observe,
            flood: self.keeper.floods.is_on(),
            syns: syn.sum(),
            limited: syn[Verdict::LimitedSource] + syn[Verdict::LimitedPrefix],
            connections: self.responder.snapshot().active,
        }
    }
}

fn durations_of(connections: &smtp::Connections) -> DurationStatus {
    let durations = connections.durations.cumulative();
    DurationStatus {
        count: connections.ended.sum() - connections.ended[smtp::Outcome::Shed],
        total_micros: connections.durations.total.as_micros() as u64,
        within_millis: durations
            .map(|(bound, count)| (bound.as_millis() as u64, count))
            .collect(),
    }
}
