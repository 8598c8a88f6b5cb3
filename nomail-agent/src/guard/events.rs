//! What the program tells of single sources.

use std::{net::IpAddr, time::Duration};

use aya::maps::{MapData, RingBuf};
use nomail_common::{
    abi::{TOLD_LINES, TOLD_PER_LINE},
    guard::events::Event,
    guard::limiter::Time,
    guard::source::Source,
    verdict::Verdict,
};

use super::{BpfError, Clock};

/// Most events that are taken at once: all that come in a minute.
const EVENTS_MAX: usize = 2 * TOLD_LINES * TOLD_PER_LINE;

/// A source or a prefix is over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Its lowest address.
    pub address: IpAddr,
    /// Of a source, or of a prefix.
    pub verdict: Verdict,
    /// Its tuple was proven. It may be forged all the same.
    pub proven: bool,
    /// Index of the interface that the SYN came in by.
    pub interface: u32,
    /// Time since then.
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
            let Ok(octets) = <&[u8; _]>::try_from(&item[..]) else {
                continue;
            };
            let event = Event::from_octets(octets);
            let Some(verdict) = event.verdict() else {
                continue;
            };
            let now = clock.now()?;
            let at = Time::from_jiffies(event.jiffies);
            // Readings of the clock may be a jiffy or two apart.
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
