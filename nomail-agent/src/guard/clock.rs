//! The clock of the buckets, read from user space.

use std::{io, time::Duration};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_getres, clock_gettime};
use nomail_common::guard::limiter::{TICK_SHIFT, Time};

use super::error::BpfError;

/// Least bytes that BPF_PROG_TEST_RUN accepts: an Ethernet header.
const TEST_RUN_LENGTH_MIN: usize = 14;

/// Jiffies against CLOCK_MONOTONIC. Both stop in suspend and are slewed alike, so one reading
/// of both is enough.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u32,
    jiffies: u64,
    at: Duration,
}

impl Clock {
    /// Reads the clock once, and unloads its program: a program that is not loaded cannot be
    /// attached to an interface.
    pub(super) fn take(program: &mut Xdp) -> Result<Self, BpfError> {
        let clock = Self::read(program)?;
        if nomail_common::Mechanism::ClockUnloaded.is_on() {
            program.unload()?;
        }
        Ok(clock)
    }

    fn read(program: &Xdp) -> Result<Self, BpfError> {
        // The resolution of the coarse clock is one jiffy.
        let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(io::Error::from)?;
        let tick = Duration::from(resolution);
        let hz = (Duration::from_secs(1).as_nanos() + tick.as_nanos() / 2)
            .checked_div(tick.as_nanos())
            .unwrap_or(0) as u32;
        let result = program.test_run(TestRunOptions {
            data_in: Some(&[0; TEST_RUN_LENGTH_MIN]),
            ..TestRunOptions::default()
        })?;
        Ok(Self {
            hz,
            jiffies: u64::from(result.return_value),
            at: monotonic()?,
        })
    }

    /// Jiffies per second.
    pub fn hz(&self) -> u32 {
        self.hz
    }

    /// The time now, to within two jiffies.
    pub(super) fn now(&self) -> Result<Time, BpfError> {
        Ok(Time::from_jiffies(self.jiffies()?))
    }

    /// Jiffies now, to within two. Only the low 32 bits are right.
    pub fn jiffies(&self) -> Result<u64, BpfError> {
        let elapsed = monotonic()?.saturating_sub(self.at);
        let jiffies = (elapsed.as_nanos() * u128::from(self.hz) / 1_000_000_000) as u64;
        Ok(self.jiffies + jiffies)
    }

    /// The duration of so many units of [`Time`].
    pub(super) fn duration(&self, units: u64) -> Duration {
        Duration::from_secs_f64(units as f64 / (f64::from(self.hz) * f64::from(1u32 << TICK_SHIFT)))
    }
}

fn monotonic() -> Result<Duration, BpfError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(io::Error::from)?;
    Ok(Duration::from(now))
}
