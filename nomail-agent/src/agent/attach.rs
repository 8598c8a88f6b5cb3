//! Attaching the guard to an interface.

use std::{thread, time::Duration};

use crate::guard::BpfError;

/// The kernel detaches a little after the last reference is gone: how often, and how many
/// times, the attachment is tried meanwhile.
const DETACH_POLL: Duration = Duration::from_millis(10);
const DETACH_POLLS: u32 = 200;

/// Attaches; where another program was `released` before, tries again until the kernel has
/// detached it.
pub(super) fn attach_after_release<T>(
    released: bool,
    mut attach: impl FnMut() -> Result<T, BpfError>,
) -> Result<T, BpfError> {
    for _ in 0..if released { DETACH_POLLS } else { 0 } {
        match attach() {
            Err(BpfError::Occupied) => thread::sleep(DETACH_POLL),
            done => return done,
        }
    }
    attach()
}
