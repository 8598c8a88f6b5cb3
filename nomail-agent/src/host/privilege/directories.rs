//! Directories and sockets that are created as root and belong to the account.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown, lchown},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::unistd::{Gid, Uid, setegid, seteuid};

use super::{account::Account, capabilities::only_thread};
use crate::{config::DEFAULT_RUN_DIR, walk};

/// Creates a directory if it does not exist, and gives it to `account`, which has to remove or
/// replace files in it. An existing directory is given only if it is `ours` alone.
pub fn create_directory(directory: &Path, mode: u32, account: Account, ours: bool) -> Result<()> {
    if Uid::effective().is_root() {
        let above = directory.parent().unwrap_or(directory);
        walk::check_directory(above, account.uid.as_raw())?;
    }
    let created = match fs::DirBuilder::new().mode(mode).create(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error.into()),
    };
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    let given = fs::metadata(directory)?;
    // If the service manager has created it, CAP_CHOWN may be missing.
    if (created || ours) && (given.uid(), given.gid()) != (uid, gid) && Uid::effective().is_root() {
        chown(directory, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Creates the directory above `run_dir` if that is [`DEFAULT_RUN_DIR`]. It stays when
/// `run_dir` is made anew.
///
/// # Errors
/// It does not exist, and cannot be created.
pub fn create_above_run_dir(run_dir: &Path) -> Result<()> {
    if run_dir != Path::new(DEFAULT_RUN_DIR) {
        return Ok(());
    }
    let above = run_dir.parent().unwrap_or(run_dir);
    let creator = Account {
        uid: Uid::effective(),
        gid: Gid::effective(),
    };
    create_directory(above, 0o755, creator, false)
        .with_context(|| format!("{} cannot be created", above.display()))
}

/// Gives a socket to `account`, which is to remove it, if the directory's sticky bit requires
/// that. With that bit no other account can have replaced it.
pub fn give_in_shared(path: &Path, account: Account) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    let sticky = fs::metadata(directory)?.mode() & libc::S_ISVTX != 0;
    if sticky && Uid::effective().is_root() {
        lchown(path, Some(account.uid.as_raw()), None)?;
    }
    Ok(())
}

/// Runs `work` on `directory` as root, or, if the directory belongs to the account, as the
/// account with `group`: root would follow links of the account, and cannot write there without
/// CAP_DAC_OVERRIDE.
pub fn in_directory<T>(
    directory: &Path,
    account: Account,
    group: Option<Gid>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let of = fs::metadata(directory).with_context(|| directory.display().to_string())?;
    let (root, root_group) = (Uid::effective(), Gid::effective());
    if !root.is_root() || of.uid() != account.uid.as_raw() {
        return work();
    }
    only_thread()?;
    setegid(group.unwrap_or(account.gid)).context("cannot act as the account's group")?;
    seteuid(account.uid).context("cannot act as the account")?;
    let done = work();
    seteuid(root).context("cannot be root again")?;
    setegid(root_group).context("cannot be root again")?;
    done
}
