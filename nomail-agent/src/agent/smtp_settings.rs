//! From the configuration to the settings of the responder.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::descriptors::ConnectionBudget;
use crate::{
    config::{self, Config, RelayCode},
    exit::{Exit, Failure},
    smtp::{self, Refuse, RefuseAt, Relay, Replies, Settings, relay},
};

/// The settings for `config` with this host name, within `budget`.
pub(super) fn smtp_settings(
    config: &Config,
    hostname: &str,
    budget: ConnectionBudget,
) -> Result<Settings, Failure> {
    let after_greeting = match config.after_greeting {
        config::AfterGreeting::Hold => smtp::AfterGreeting::Hold,
        config::AfterGreeting::Close => smtp::AfterGreeting::Close,
    };
    let relay = config.relay.as_deref().map(relay_of).map(Arc::new);
    let replies = Replies::new(hostname, relay)
        .with_context(|| format!("hostname = {hostname:?}"))
        .map_err(|error| Failure::new(Exit::Configuration, error))?;
    Ok(Settings {
        replies: Arc::new(replies),
        refuse: match config.refuse_at {
            config::RefuseAt::Greeting => Refuse::At(RefuseAt::Greeting(after_greeting)),
            config::RefuseAt::Ehlo => Refuse::At(RefuseAt::Ehlo),
            config::RefuseAt::Mail => Refuse::At(RefuseAt::Mail),
            config::RefuseAt::Rcpt => Refuse::At(RefuseAt::Rcpt),
            config::RefuseAt::Auto => Refuse::Auto(after_greeting),
        },
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

fn relay_of(relay: &config::Relay) -> Relay {
    let code = match relay.code {
        RelayCode::Listed => relay::Code::DoesNotAcceptMail,
        RelayCode::NullMx => relay::Code::NullMx,
        RelayCode::Rfc1846 => relay::Code::Host,
    };
    let domains = relay.domains.iter();
    Relay::new(
        code,
        &relay.text,
        domains.map(|domain| (&domain.name, domain.text.clone())),
        relay.postmaster.as_deref(),
    )
}
