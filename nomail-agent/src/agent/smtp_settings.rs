//! From the configuration to the settings of the responder.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::descriptors::ConnectionBudget;
use crate::{
    config::{self, Config},
    exit::{Exit, Failure},
    refusal::RefusalPoint,
    smtp::{RefusedDomains, Replies, Settings},
};

/// The settings for `config` with this host name, within `budget`.
pub(super) fn smtp_settings(
    config: &Config,
    hostname: &str,
    budget: ConnectionBudget,
) -> Result<Settings, Failure> {
    let relay = config.relay.as_deref().map(relay_of).map(Arc::new);
    let replies = Replies::new(hostname, relay)
        .with_context(|| format!("hostname = {hostname:?}"))
        .map_err(|error| Failure::new(Exit::Configuration, error))?;
    Ok(Settings {
        replies: Arc::new(replies),
        refuse_at: match config.refuse_at {
            config::RefuseAt::Greeting => Some(RefusalPoint::Greeting),
            config::RefuseAt::Ehlo => Some(RefusalPoint::Ehlo),
            config::RefuseAt::Mail => Some(RefusalPoint::Mail),
            config::RefuseAt::Rcpt => Some(RefusalPoint::Rcpt),
            config::RefuseAt::Auto => None,
        },
        after_greeting: config.after_greeting,
        connections_max: config.limits.connections.min(budget.connections) as usize,
        shed_max: budget.shed,
        connections_per_source_max: config.limits.connections_per_source as usize,
        idle_timeout: Duration::from_secs(config.limits.idle_timeout_secs),
        session_timeout: Duration::from_secs(config.limits.session_timeout_secs),
        sender_age_secs: config.limits.sender_age_secs,
        monitors: config.monitors.clone(),
        unlogged: config.log.ignore.clone(),
        log_envelope: config.log.envelope,
    })
}

fn relay_of(relay: &config::Relay) -> RefusedDomains {
    let domains = relay.domains.iter();
    RefusedDomains::new(
        relay.code,
        &relay.text,
        domains.map(|domain| (&domain.name, domain.text.clone())),
        relay.postmaster.as_deref(),
    )
}
