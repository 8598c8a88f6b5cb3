//! The signals that the agent obeys.

use anyhow::{Context as _, Result};
use tokio::{
    select,
    signal::unix::{Signal as Stream, SignalKind, signal},
};

/// The signals, caught.
pub(super) struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

impl Signals {
    /// Catches the signals, from now on.
    pub(super) fn catch() -> Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup()).context("SIGHUP")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
        })
    }

    /// Waits for the next one. May be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> Signal {
        select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
        }
    }
}
