//! What the operator can set for the responder.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::replies::Replies;
use crate::refusal::{AfterGreeting, RefusalPoint};

/// Shed and evicted connections that may linger at once, where descriptors suffice. Beyond
/// it they are closed without waiting for the peer, which may lose the text.
pub const SHED_MAX: usize = 1024;

/// Texts, refusal point and limits.
///
/// A change applies to connections accepted after it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The texts.
    pub replies: Arc<Replies>,
    /// Where connections are refused. None for `auto`: as
    /// [`Senders`](super::senders::Senders) says.
    pub refuse_at: Option<RefusalPoint>,
    /// What follows a 521 greeting.
    pub after_greeting: AfterGreeting,
    /// Connections at once, of all sources. File descriptors must suffice for
    /// these, [`Self::shed_max`] and a few more.
    pub connections_max: usize,
    /// Shed and evicted connections that may linger at once; [`SHED_MAX`] or less.
    pub shed_max: usize,
    /// Connections at once of one source.
    pub connections_per_source_max: usize,
    /// How long after a reply the next command must be complete.
    pub idle_timeout: Duration,
    /// The longest duration of a session.
    pub session_timeout: Duration,
    /// How long `auto` remembers a network.
    pub sender_age_secs: u32,
    /// Health checkers: always refused at RCPT, unknown to `auto`, and left out of the
    /// log and of the count of mail for other domains.
    pub monitors: Vec<IpNet>,
    /// Peers that are left out of the log.
    pub unlogged: Vec<IpNet>,
    /// Whether envelope addresses are logged.
    pub log_envelope: bool,
}

impl Settings {
    pub(super) fn is_monitor(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.monitors.iter().any(|net| net.contains(&peer))
    }

    /// Whether `auto` decides where the peer is refused.
    pub(super) fn is_auto(&self, peer: IpAddr) -> bool {
        self.refuse_at.is_none() && !self.is_monitor(peer)
    }

    pub(super) fn is_unlogged(&self, peer: IpAddr) -> bool {
        self.is_monitor(peer) || self.unlogged.iter().any(|net| net.contains(&peer))
    }
}
