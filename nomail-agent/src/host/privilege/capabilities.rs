//! Giving up uid and capabilities.

use std::{
    fs,
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use log::debug;
use nix::{
    sys::prctl,
    unistd::{Uid, setgroups, setresgid, setresuid},
};

use super::{
    account::Account,
    files::{Paths, restrict_files},
    syscalls::{Thread, restrict_syscalls},
};

/// Gives up all privileges except `keep`. Afterwards only `paths` can be opened, and no
/// privilege regained; [`restrict_syscalls`] is to follow.
pub fn drop_privileges(account: Account, keep: &[Capability], paths: &Paths) -> Result<()> {
    only_thread()?;
    let keep: CapsHashSet = keep.iter().copied().collect();
    if Uid::effective().is_root() {
        for capability in caps::read(None, CapSet::Bounding)? {
            caps::drop(None, CapSet::Bounding, capability)
                .with_context(|| format!("{capability} cannot be given up"))?;
        }
        prctl::set_keepcaps(true).context("PR_SET_KEEPCAPS")?;
        setgroups(&[]).context("the supplementary groups cannot be given up")?;
        setresgid(account.gid, account.gid, account.gid)
            .with_context(|| format!("cannot become gid {}", account.gid))?;
        setresuid(account.uid, account.uid, account.uid)
            .with_context(|| format!("cannot become uid {}", account.uid))?;
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet = keep.intersection(&permitted).copied().collect();
    caps::clear(None, CapSet::Ambient).context("the ambient capabilities cannot be given up")?;
    caps::set(None, CapSet::Effective, &keep).context("capabilities cannot be given up")?;
    caps::set(None, CapSet::Permitted, &keep).context("capabilities cannot be given up")?;
    caps::clear(None, CapSet::Inheritable).context("capabilities cannot be given up")?;
    prctl::set_no_new_privs().context("PR_SET_NO_NEW_PRIVS")?;
    restrict_files(paths)?;
    debug!("running as uid {} with {keep:?}", Uid::effective());
    Ok(())
}

/// Whether a thread has given up its capabilities and confined itself to its own system
/// calls.
#[derive(Clone, Debug, Default)]
pub struct Confinement(Arc<OnceLock<Result<()>>>);

impl Confinement {
    /// Confines the calling thread, which is `thread`.
    pub fn confine(&self, thread: Thread) {
        // Called once.
        let _ = self
            .0
            .set(drop_capabilities().and_then(|()| restrict_syscalls(thread)));
    }

    /// An error unless the thread is confined.
    pub fn check(&self) -> Result<()> {
        match self.0.get() {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => bail!("a thread cannot be confined: {error:#}"),
            None => bail!("a thread has not been confined"),
        }
    }
}

/// Gives up the capabilities of the calling thread alone.
fn drop_capabilities() -> Result<()> {
    caps::clear(None, CapSet::Effective).context("capabilities cannot be given up")?;
    caps::clear(None, CapSet::Permitted).context("capabilities cannot be given up")
}

/// An error if there is another thread: capabilities and landlock apply to the calling thread
/// and its children only.
pub(super) fn only_thread() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task")
        .context("/proc/self/task")?
        .count();
    if threads != 1 {
        bail!("{threads} threads run: privileges can only be dropped with one");
    }
    Ok(())
}
