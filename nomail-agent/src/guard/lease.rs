//! The lease of a program that may outlive its agent or take the place of its listeners, see
//! [`nomail_common::guard::lease`].

use std::time::Duration;

use aya::maps::{Array, MapData};
use nomail_common::guard::lease::lease_holds;

use super::{clock::Clock, error::BpfError};

/// The word of the map `LEASE`.
pub(super) struct Lease(Array<MapData, u32>);

impl Lease {
    pub(super) fn new(map: Array<MapData, u32>) -> Self {
        Self(map)
    }

    /// Renews the lease for so many milliseconds from now.
    pub(super) fn renew(&mut self, clock: &Clock, millis: u32) -> Result<(), BpfError> {
        let ticks = u64::from(clock.hz()) * u64::from(millis) / 1000;
        // Never 0, which means that none is needed.
        Ok(self.0.set(0, (clock.jiffies()? + ticks) as u32 | 1, 0)?)
    }

    /// Ends the lease now.
    pub(super) fn end(&mut self, clock: &Clock) -> Result<(), BpfError> {
        let ended = (clock.jiffies()? as u32).wrapping_sub(2) | 1;
        Ok(self.0.set(0, ended, 0)?)
    }

    /// For a program that ends with its agent: it needs no lease.
    pub(super) fn remove(&mut self) -> Result<(), BpfError> {
        Ok(self.0.set(0, 0, 0)?)
    }

    /// Time since the lease ended; none while it holds.
    pub(super) fn ended_for(&self, clock: &Clock) -> Result<Option<Duration>, BpfError> {
        let (until, now) = (self.0.get(&0, 0)?, clock.jiffies()? as u32);
        let ago = Duration::from_secs(now.wrapping_sub(until).into()) / clock.hz();
        Ok((!lease_holds(until, now)).then_some(ago))
    }
}
