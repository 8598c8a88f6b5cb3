//! The files and directories that the agent uses after root's rights are given up.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use log::warn;

use super::{guard_settings::SYNCOOKIES, root::Root};
use crate::{
    config::{self, Config},
    exit::Failure,
    host::{
        privilege::{self, Account, Paths},
        state::SavedState,
    },
};

/// Read at each look at a per-CPU map.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// Opens the state directory. The default one is used if it exists; one that is configured
/// is created.
pub(super) fn prepare_state(
    _: &Root,
    config: &Config,
    account: Account,
) -> Result<Option<SavedState>, Failure> {
    let directory = &config.state_dir.path;
    if !config.state_dir.is_default {
        privilege::create_directory(directory, 0o750, account, false)
            .with_context(|| format!("state_dir = {directory:?} cannot be created"))?;
    }
    Ok(SavedState::new(directory))
}

/// Creates the directory above CrowdSec's decisions, which the sandbox has to reach.
pub(super) fn prepare_decisions(_: &Root, config: &Config) {
    if let Some(crowdsec) = &config.crowdsec
        && let Err(error) = privilege::create_above_run_dir(&crowdsec.run_dir)
    {
        warn!("CrowdSec's decisions may be out of reach: {error:#}");
    }
}

/// The paths that a reload reads, that hold the control socket, and that `state` is written
/// to.
pub(super) fn reachable_paths(config: &Config, state: bool) -> Paths {
    Paths {
        read: vec![POSSIBLE_CPUS.into(), SYNCOOKIES.into()],
        config: config.file.clone(),
        lists: list_files(config).cloned().collect(),
        remove_in: config.control.parent().map(Path::to_owned),
        write_in: state.then(|| config.state_dir.path.clone()),
    }
}

/// Warns of files that `account` may not read: they were read at the start, as root, and a
/// reload cannot.
pub(super) fn warn_of_unreadable(config: &Config, account: Account) {
    let drop_ins = config.file.as_deref().map(config::drop_in_directory);
    let files = config.files.iter().chain(&drop_ins);
    for file in files.chain(list_files(config)) {
        if let Err(error) = File::open(file)
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            warn!(
                "{}: a reload will fail, because uid {} may not read it: give it to a group of \
                 that user with mode 0640, a directory with 0750",
                file.display(),
                account.uid
            );
        }
    }
}

/// Warns of files in a directory that holds more than nomail's: landlock lets a reload read
/// the files that were there at the start, and none that replaces them.
pub(super) fn warn_of_shared_directories(config: &Config) {
    for file in config.file.iter().chain(list_files(config)) {
        if privilege::is_in_shared_directory(file) {
            warn!(
                "{}: once another file takes its place, a reload fails until nomail-agent is \
                 restarted, because its directory holds more than nomail's files: move it to one \
                 of its own, such as /etc/nomail",
                file.display()
            );
        }
    }
}

/// What is read again besides the configuration. Of CrowdSec's decisions the whole directory
/// may be replaced, as a list file may.
fn list_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let decisions = config.crowdsec.iter().map(|crowdsec| &crowdsec.run_dir);
    config.list_files().map(|file| &file.path).chain(decisions)
}
