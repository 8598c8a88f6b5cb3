//! An account of the agent's own where none was created: a uid that nothing else uses,
//! from the range that systemd takes for DynamicUser=. `nobody` would be shared with
//! others, who could signal the agent and write its files.

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

use super::{Account, found};
use crate::host::state;

/// UIDs and GIDs of systemd's dynamic users (DYNAMIC_UID_MIN and DYNAMIC_UID_MAX).
pub const RANGE: std::ops::RangeInclusive<u32> = 61_184..=65_519;
/// What earlier versions ran as.
const NOBODY: u32 = 65_534;

/// Whether what belongs to `owner` was left by an earlier account of an agent's.
pub fn is_adopted(owner: u32) -> bool {
    owner == NOBODY || RANGE.contains(&owner)
}

/// The account: the one that `state_dir` belongs to, if that is free, or another one.
pub(super) fn account(state_dir: &Path) -> Result<Account> {
    let running = running_uids("/proc").context("the accounts in use cannot be looked up")?;
    let owner = fs::symlink_metadata(state_dir)
        .ok()
        .map(|found| found.uid());
    let is_free = |uid: u32| Ok::<_, anyhow::Error>(!running.contains(&uid) && is_unknown(uid)?);
    for uid in candidates(owner, state_dir) {
        if is_free(uid)? {
            return Ok(Account {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(uid),
            });
        }
    }
    bail!(
        "all uids from {} to {} are in use: set user",
        RANGE.start(),
        RANGE.end()
    )
}

/// The owner first if it is one of the range, then all in order, each once, from one on
/// that depends on the directory: most often the next start takes the same, and another
/// agent another one.
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

/// Whether neither a user nor a group has the number.
fn is_unknown(uid: u32) -> Result<bool> {
    let user =
        found(User::from_uid(Uid::from_raw(uid))).context("the users cannot be looked up")?;
    let group =
        found(Group::from_gid(Gid::from_raw(uid))).context("the groups cannot be looked up")?;
    Ok(user.is_none() && group.is_none())
}

/// The users of all processes, whichever of a process' four it is.
fn running_uids(proc: &str) -> io::Result<HashSet<u32>> {
    let mut uids = HashSet::new();
    for entry in fs::read_dir(proc)? {
        // It may end meanwhile.
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

/// Gives `account` what an earlier one has left in `state_dir`: a dynamic account, or
/// `nobody`, which earlier versions ran as.
pub(super) fn adopt(state_dir: &Path, account: Account) {
    match try_adopt(state_dir, account) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => debug!("{}: cannot be given away: {error}", state_dir.display()),
    }
}

fn try_adopt(state_dir: &Path, account: Account) -> Result<(), Errno> {
    let no_link = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let directory = open(state_dir, OFlag::O_DIRECTORY | no_link, Mode::empty())?;
    let owner = fstat(&directory)?.st_uid;
    if owner == account.uid.as_raw() || !is_adopted(owner) {
        return Ok(());
    }
    fchown(&directory, Some(account.uid), Some(account.gid))?;
    // Nothing else is read there. From now on only root and the account can replace them.
    for name in [state::FILE, state::DOMAINS_FILE] {
        let file = match openat(&directory, name, no_link, Mode::empty()) {
            Err(Errno::ENOENT) => continue,
            opened => opened?,
        };
        let found = fstat(&file)?;
        if found.st_uid == owner && found.st_nlink == 1 {
            fchown(&file, Some(account.uid), Some(account.gid))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_the_state_comes_first_and_each_is_tried_once() {
        let state_dir = Path::new("/var/lib/nomail");
        let first = candidates(None, state_dir).next().unwrap();
        let all: Vec<_> = candidates(Some(62_000), state_dir).collect();
        assert_eq!(all[..2], [62_000, first]);
        assert_eq!(all.len(), RANGE.clone().count());
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        for other in [0, 1000, NOBODY] {
            assert_eq!(candidates(Some(other), state_dir).next(), Some(first));
        }
        assert_ne!(
            candidates(None, Path::new("/var/lib/other")).next(),
            Some(first)
        );
    }

    #[test]
    fn the_state_of_earlier_accounts_is_taken_over_and_no_others() {
        use std::os::unix::fs::chown;
        if !Uid::effective().is_root() {
            return;
        }
        let account = Account {
            uid: Uid::from_raw(62_001),
            gid: Gid::from_raw(62_001),
        };
        for (owner, taken) in [(NOBODY, true), (62_000, true), (0, false), (1000, false)] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join(state::FILE);
            fs::write(&file, "").unwrap();
            for path in [&file, directory.path()] {
                chown(path, Some(owner), Some(owner)).unwrap();
            }
            adopt(directory.path(), account);
            let expected = if taken { 62_001 } else { owner };
            for path in [&file, directory.path()] {
                assert_eq!(fs::metadata(path).unwrap().uid(), expected, "{owner}");
            }
        }
    }

    #[test]
    fn an_account_in_use_is_no_candidate() {
        let own = Uid::effective().as_raw();
        assert!(running_uids("/proc").unwrap().contains(&own));
        assert!(!is_unknown(0).unwrap());
        let account = account(Path::new("/nonexistent")).unwrap();
        let uid = account.uid.as_raw();
        assert!(RANGE.contains(&uid) && uid == account.gid.as_raw());
        assert!(!running_uids("/proc").unwrap().contains(&uid));
    }
}
