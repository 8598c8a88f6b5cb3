//! A build that leaves out a mechanism, for `cargo xtask test mechanisms`.

use log::warn;
use nomail_common::mechanisms::WITHOUT;

const _: () = assert!(
    WITHOUT.is_none() || cfg!(debug_assertions),
    "NOMAIL_WITHOUT is set, and a release build leaves nothing out: unset it"
);

/// Warns if this build leaves out a mechanism.
pub fn warn_if_one_is_off() {
    if let Some(mechanism) = WITHOUT {
        warn!(
            "this build is for tests alone: it is without {} (NOMAIL_WITHOUT)",
            mechanism.name()
        );
    }
}
