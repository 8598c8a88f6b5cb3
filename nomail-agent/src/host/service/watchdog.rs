//! When to notify the service manager's watchdog.

use std::{future::pending, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Interval, MissedTickBehavior, interval},
};

/// When to notify the watchdog: at half of its timeout, once the thread `smtp` has given a proof.
/// Each notification thus shows that both event loops run.
#[derive(Debug)]
pub struct Watchdog {
    interval: Option<Interval>,
    /// The proof that was asked for and has not arrived; never more than one.
    proof: Option<oneshot::Receiver<bool>>,
}

impl Watchdog {
    /// The watchdog that the service manager asks for, if it does.
    pub fn start() -> Self {
        let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
        Self::every(timeout.map(|timeout| timeout / 2))
    }

    /// A watchdog that asks for a proof once in a period, or never.
    pub fn every(period: Option<Duration>) -> Self {
        Self {
            interval: period.map(|period| {
                let mut interval = interval(period);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                interval
            }),
            proof: None,
        }
    }

    /// Asks for a proof by `prove` when it is time, and resolves to the proof when it arrives.
    /// Cancel safe.
    pub async fn proven(&mut self, prove: impl Fn() -> oneshot::Receiver<bool>) -> bool {
        let Some(interval) = &mut self.interval else {
            return pending().await;
        };
        loop {
            let proof = match &mut self.proof {
                Some(proof) => proof,
                None => {
                    interval.tick().await;
                    self.proof.insert(prove())
                }
            };
            let proven = proof.await;
            self.proof = None;
            if let Ok(serves) = proven {
                return serves;
            }
        }
    }
}

#[cfg(test)]
mod tests;
