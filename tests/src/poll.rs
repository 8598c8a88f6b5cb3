//! Waiting for an effect, with a deadline and without guessing how long it takes.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest that a test waits for an effect.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks again and again until `ask` gives something.
///
/// # Panics
/// When [`DEADLINE`] has passed, with `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "waited {DEADLINE:?} in vain: {what}"
        );
        sleep(Duration::from_millis(20));
    }
}
