//! An account for the agent where none was created: a uid that nothing else uses, from the range
//! of systemd's DynamicUser=. `nobody` would be shared with other programs, which could signal
//! the agent and write its files.

use std::{
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use log::debug;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, fstat},
    unistd::{Gid, Group, Uid, User, fchown},
};

use super::lookup::found;
use crate::host::state;

/// UIDs and GIDs of systemd's dynamic users (DYNAMIC_UID_MIN and DYNAMIC_UID_MAX).
pub const RANGE: std::ops::RangeInclusive<u32> = 61_184..=65_519;
/// The account of earlier versions.
const NOBODY: u32 = 65_534;

/// Whether `owner` may be the account of an earlier agent.
pub fn is_adopted(owner: u32) -> bool {
    owner == NOBODY || RANGE.contains(&owner)
}

/// A uid that nothing uses, as user or group: the owner of `state_dir` if that is free, or
/// another one.
pub(super) fn free_uid(state_dir: &Path) -> Result<u32> {
    let running = running_uids("/proc").context("the accounts in use cannot be looked up")?;
    let owner = fs::symlink_metadata(state_dir)
        .ok()
        .map(|found| found.uid());
    let is_free = |uid: u32| Ok::<_, anyhow::Error>(!running.contains(&uid) && is_unknown(uid)?);
    for uid in candidates(owner, state_dir) {
        if is_free(uid)? {
            return Ok(uid);
        }
    }
    bail!(
        "all uids from {} to {} are in use: set user",
        RANGE.start(),
        RANGE.end()
    )
}

/// The owner first if it is in the range, then all uids in order, each once, from one on that
/// depends on the directory: the next start usually takes the same, and another agent another
/// one.
fn candidates(owner: Option<u32>, state_dir: &Path) -> impl Iterator<Item = u32> {
    let owner = owner.filter(|owner| RANGE.contains(owner));
    let mut hasher = DefaultHasher::new();
    state_dir.hash(&mut hasher);
    let skipped = hasher.finish() % u64::from(RANGE.end() - RANGE.start() + 1);
    let first = RANGE.start() + skipped as u32;
    let order = (first..=*RANGE.end()).chain(*RANGE.start()..first);
    owner
        .into_iter()
        .chain(order.filter(move |uid| Some(*uid) != owner))
}

/// Whether neither a user nor a group has this id.
fn is_unknown(uid: u32) -> Result<bool> {
    let user =
        found(User::from_uid(Uid::from_raw(uid))).context("the users cannot be looked up")?;
    let group =
        found(Group::from_gid(Gid::from_raw(uid))).context("the groups cannot be looked up")?;
    Ok(user.is_none() && group.is_none())
}

/// The users of all processes: real, effective, saved and file system uid.
fn running_uids(proc: &str) -> io::Result<HashSet<u32>> {
    let mut uids = HashSet::new();
    for entry in fs::read_dir(proc)? {
        // The process may have ended.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else {
            continue;
        };
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        uids.extend(
            line.into_iter()
                .flat_map(str::split_whitespace)
                .flat_map(str::parse::<u32>),
        );
    }
    Ok(uids)
}

/// Gives `state_dir` and the files in it to `uid`, if they belong to the account of an earlier
/// agent.
pub(super) fn adopt(state_dir: &Path, uid: u32) {
    match try_adopt(state_dir, uid) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => debug!("{}: cannot change its owner: {error}", state_dir.display()),
    }
}

fn try_adopt(state_dir: &Path, uid: u32) -> Result<(), Errno> {
    let no_link = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let directory = open(state_dir, OFlag::O_DIRECTORY | no_link, Mode::empty())?;
    let owner = fstat(&directory)?.st_uid;
    if owner == uid || !is_adopted(owner) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    fchown(&directory, uid, gid)?;
    // The only files that are read there. From now on only root and the account can replace
    // them.
    for name in [state::FILE, state::DOMAINS_FILE] {
        let file = match openat(&directory, name, no_link, Mode::empty()) {
            Err(Errno::ENOENT) => continue,
            opened => opened?,
        };
        let found = fstat(&file)?;
        if found.st_uid == owner && found.st_nlink == 1 {
            fchown(&file, uid, gid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
