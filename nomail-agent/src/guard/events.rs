//! The events that the program reports about single sources.

use std::{net::IpAddr, time::Duration};

use aya::maps::{MapData, RingBuf};
use nomail_common::{
    abi::{REPORTED_LINES, REPORTED_PER_LINE},
    guard::events::Event,
    guard::limiter::Time,
    source::Source,
    verdict::Verdict,
};

use super::{clock::Clock, error::BpfError};

/// Most events that are taken at once: all events of a minute.
const EVENTS_MAX: usize = 2 * REPORTED_LINES * REPORTED_PER_LINE;

/// A source or a prefix over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Its lowest address.
    pub address: IpAddr,
    /// [`Verdict::LimitedSource`] or [`Verdict::LimitedPrefix`].
    pub verdict: Verdict,
    /// Whether the tuple of the SYN was proven. It may be forged all the same.
    pub proven: bool,
    /// Index of the interface that the SYN arrived at.
    pub interface: u32,
    /// Time since the SYN.
    pub ago: Duration,
}

pub(super) struct Events(RingBuf<MapData>);

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    pub(super) fn take(&mut self, clock: &Clock) -> Result<Vec<Limited>, BpfError> {
        let mut taken = Vec::new();
        while taken.len() < EVENTS_MAX
            && let Some(item) = self.0.next()
        {
            let Ok(bytes) = <&[u8; _]>::try_from(&item[..]) else {
                continue;
            };
            let event = Event::from_bytes(bytes);
            let Some(verdict) = event.verdict() else {
                continue;
            };
            let now = clock.now()?;
            let at = Time::from_jiffies(event.jiffies);
            // The readings of the clock may be two jiffies apart.
            let before = at.since(now) < now.since(at);
            taken.push(Limited {
                address: Source(event.source).address(),
                verdict,
                proven: event.proven != 0,
                interface: event.interface,
                ago: if before {
                    Duration::ZERO
                } else {
                    clock.duration(now.since(at))
                },
            });
        }
        Ok(taken)
    }
}
