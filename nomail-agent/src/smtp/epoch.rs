//! Times that outlive the process: seconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time.
pub fn unix_now() -> u32 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
    })
}

/// Whether `then` is less than `age` seconds away from `now`, on either side, so that times
/// in the future expire too after the clock was set back.
pub(super) const fn is_recent(age: u32, then: u32, now: u32) -> bool {
    now.abs_diff(then) < age
}
