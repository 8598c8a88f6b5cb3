//! Warnings of list files that are not, or not completely, in force.

use log::{error, warn};

use crate::config::{Config, ListFile};

/// Most warnings that one load of the configuration logs.
const LINES_MAX: usize = 100;

/// Logs what is wrong with the list files, which are in force without the wrong lines.
pub(super) fn warn_of(config: &Config) {
    let warnings = || config.list_files().flat_map(|file| &file.warnings);
    for line in warnings().take(LINES_MAX) {
        warn!(event = "list_line"; "{line}");
    }
    let more = warnings().count().saturating_sub(LINES_MAX);
    if more > 0 {
        warn!("{more} more warnings about list files: `nomail-agent check-config` prints all");
    }
    for file in config.list_files() {
        if file.unread.is_some() {
            error!(
                event = "list_unread", path:% = file.path.display(), key = file.key;
                "{} is not in force: nomail goes on without this file; correct it, and it is taken \
                 up within 10 s",
                file.path.display()
            );
        }
    }
    if config.lists.denies_nothing {
        error!(
            event = "denies_nothing";
            "nothing is denied, because a file of lists.allow_files is not known: what it allows \
             could be on a list of what to deny"
        );
    }
}

/// Logs the files that can no longer be read.
pub(super) fn warn_of_lost(lost: &[&ListFile]) {
    for file in lost {
        warn!(
            event = "list_lost", path:% = file.path.display(), key = file.key;
            "{}: {}; what all lists said before stays in force until this file is right",
            file.path.display(),
            file.unread.as_deref().unwrap_or_default()
        );
    }
}
