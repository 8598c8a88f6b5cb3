//! Waiting for an effect, with a deadline and without guessing how long it takes.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::sleep,
    time::{Duration, Instant},
};

/// A variable that is set in a machine, for tests that need more time there.
pub const EMULATED: &str = "NOMAIL_EMULATED";
/// Longest that a test waits for an effect, except in an emulated machine ([`longest`]).
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The same time, but six times as long where the machine is emulated.
pub fn longest(time: Duration) -> Duration {
    time * if is_emulated() { 6 } else { 1 }
}

/// Whether the machine is emulated, where times and rates are not realistic.
pub fn is_emulated() -> bool {
    env::var_os(EMULATED).is_some()
}

/// Calls `ask` until it returns something.
///
/// # Panics
/// After [`longest`] of [`DEADLINE`], with `what` it waited for.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let (start, deadline) = (Instant::now(), longest(DEADLINE));
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain: {what}"
        );
        sleep(Duration::from_millis(20));
    }
}

/// Runs `attempt`. If it panics, the error is the panic's first line; all of it is on
/// standard error.
///
/// # Errors
/// When it panics.
pub fn tried<T>(attempt: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(attempt)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("it failed");
        text.lines().next().unwrap_or_default().to_owned()
    })
}
