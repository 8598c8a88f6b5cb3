//! What a development object logs: each step of a segment, by aya-log.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::{Ebpf, EbpfLoader};
use aya_log::{EbpfLogger, LEVEL};
use log::{Level, Log, info, log_enabled, warn};
use tokio::time::interval;

/// The target of its lines.
const TARGET: &str = "nomail_ebpf";

/// How late a line may be.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// The lines of a loaded object that nobody has seen yet.
pub(super) struct Trace(Mutex<EbpfLogger<&'static dyn Log>>);

impl Trace {
    /// Has the program log only what the log shows.
    pub(super) fn set_level(loader: &mut EbpfLoader<'_>) {
        let level = match log_enabled!(target: TARGET, Level::Trace) {
            true => &(Level::Trace as u8),
            false => &0,
        };
        loader.override_global(LEVEL, level, false);
    }

    /// None where the object does not log.
    pub(super) fn take(ebpf: &mut Ebpf) -> Option<Self> {
        let logger = EbpfLogger::init(ebpf);
        let logger = logger.inspect_err(|error| warn!("the XDP program logs nothing: {error}"));
        Some(Self(Mutex::new(logger.ok()?)))
    }

    /// Logs them.
    pub(super) fn flush(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush();
    }

    /// Logs them, and all that follow, in a task of its own.
    pub(super) fn follow(self) {
        info!("a build for development: -vvv shows each step of a segment");
        tokio::spawn(async move {
            let mut turns = interval(FLUSH_INTERVAL);
            loop {
                turns.tick().await;
                self.flush();
            }
        });
    }
}
