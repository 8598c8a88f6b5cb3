//! From root to an account that can do little: done once, when all that needs
//! root is done, and while the process has a single thread.

pub mod dynamic;
mod syscalls;

use std::{
    fs, io,
    path::{self, Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use log::{debug, info};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, setegid, seteuid, setgroups, setresgid, setresuid};

pub use self::syscalls::{Thread, die_of_faults, restrict_syscalls};
use crate::{config, walk};

/// Whom the agent becomes, and who may ask it for its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub uid: Uid,
    /// The user's group.
    pub gid: Gid,
}

/// Landlock's version that this was written for; older kernels restrict less.
const LANDLOCK_ABI: ABI = ABI::V5;

impl Account {
    /// Looks up a user name or a numeric uid. Where the configuration does not name
    /// it, which `default` says, and it does not exist, the account is one that nothing
    /// else uses: see [`dynamic`]. Without root it is the process' own.
    pub fn resolve(user: &str, default: bool, state_dir: &Path) -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self {
                uid: Uid::effective(),
                gid: Gid::effective(),
            });
        }
        if let Ok(uid) = user.parse::<u32>() {
            if uid == 0 {
                bail!("user = 0 is root: name an account without privileges");
            }
            let known = found(User::from_uid(Uid::from_raw(uid)))
                .context("the user cannot be looked up")?;
            return Ok(Self {
                uid: Uid::from_raw(uid),
                gid: known.map_or(Gid::from_raw(uid), |user| user.gid),
            });
        }
        match found(User::from_name(user)).context("the user cannot be looked up")? {
            Some(found) if found.uid.is_root() => {
                bail!("user = {user:?} is root: name an account without privileges")
            }
            Some(found) => Ok(Self {
                uid: found.uid,
                gid: found.gid,
            }),
            None if default => {
                let account = dynamic::account(state_dir)?;
                info!(
                    "there is no user {user:?} on this host: running as uid {}, which nothing \
                     else uses",
                    account.uid
                );
                dynamic::adopt(state_dir, account);
                Ok(account)
            }
            None => bail!(
                "there is no user {user:?}: create it with `useradd --system {user}`, \
                 or set user to one that exists"
            ),
        }
    }

    /// The group whose members may ask for the status: `nomail` if it exists.
    pub fn control_group() -> Option<Gid> {
        let group = Group::from_name("nomail").ok().flatten();
        group.map(|group| group.gid)
    }
}

/// What a look-up of an account found. "Not found" is an error of its own in some C
/// libraries and name services, by a number of getpwnam(3)'s list: without any file below
/// /etc it is ENOENT.
fn found<T>(asked: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match asked {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        asked => asked,
    }
}

/// What stays reachable on disk.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Files of the kernel that may be read.
    pub read: Vec<PathBuf>,
    /// The configuration, which a reload reads with its drop-ins.
    pub config: Option<PathBuf>,
    /// The other files that a reload reads.
    pub lists: Vec<PathBuf>,
    /// Directory of the control socket, which is removed at the end.
    pub remove_in: Option<PathBuf>,
    /// Directory in which files are replaced.
    pub write_in: Option<PathBuf>,
}

impl Paths {
    /// What may be done beneath which path.
    fn rules(&self) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
        let read: BitFlags<_> = AccessFs::ReadFile.into();
        let mut rules: Vec<_> = self.read.iter().map(|path| (path.clone(), read)).collect();
        // The directory as well, because an editor replaces the file in it. Only that of
        // the configuration is listed: its drop-ins may come later.
        for file in &self.lists {
            rules.extend(reloaded(file).into_iter().map(|path| (path, read)));
        }
        if let Some(file) = &self.config {
            let list = read | AccessFs::ReadDir;
            rules.extend(reloaded(file).into_iter().map(|path| (path, list)));
            rules.push((config::drop_in_directory(file), list));
        }
        if let Some(directory) = &self.remove_in {
            rules.push((directory.clone(), AccessFs::RemoveFile.into()));
        }
        if let Some(directory) = &self.write_in {
            let write = AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::RemoveFile
                | AccessFs::ReadFile;
            rules.push((directory.clone(), write));
        }
        rules
    }
}

/// What a reload opens for a file: its directory, and that of what a link leads to.
fn reloaded(file: &Path) -> Vec<PathBuf> {
    let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let target = fs::canonicalize(&file).ok();
    let mut paths = Vec::new();
    for file in std::iter::once(file).chain(target) {
        let path = match file.parent() {
            Some(directory) if !is_shared(directory) => directory.to_owned(),
            _ => file,
        };
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Whether everything else of the host is beneath a directory: `/`, and those in it,
/// such as `/etc`.
fn is_shared(directory: &Path) -> bool {
    let above = directory.parent();
    above.is_none_or(|above| above.parent().is_none())
}

/// Whether only the file itself stays reachable, not its directory; or what it, a
/// link, leads to.
pub fn is_in_shared_directory(file: &Path) -> bool {
    let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let Ok(target) = fs::canonicalize(&file) else {
        return false;
    };
    [file, target]
        .iter()
        .any(|file| file.parent().is_none_or(is_shared))
}

/// Gives up everything but `keep`. Afterwards no file but `paths` can be
/// opened, and no privilege regained; [`restrict_syscalls`] is to follow.
pub fn drop_privileges(account: Account, keep: &[Capability], paths: &Paths) -> Result<()> {
    only_thread()?;
    let keep: CapsHashSet = keep.iter().copied().collect();
    if Uid::effective().is_root() {
        for capability in caps::read(None, CapSet::Bounding)? {
            caps::drop(None, CapSet::Bounding, capability)
                .with_context(|| format!("{capability} cannot be given up"))?;
        }
        nix::sys::prctl::set_keepcaps(true).context("PR_SET_KEEPCAPS")?;
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
    nix::sys::prctl::set_no_new_privs().context("PR_SET_NO_NEW_PRIVS")?;
    restrict_files(paths)?;
    debug!("running as uid {} with {keep:?}", Uid::effective());
    Ok(())
}

/// A thread without capabilities, and with its own list of system calls: whether
/// it has become that.
#[derive(Clone, Debug, Default)]
pub struct Confinement(Arc<OnceLock<Result<()>>>);

impl Confinement {
    /// Confines the calling thread alone, which is `thread`.
    pub fn confine(&self, thread: Thread) {
        // Asked for once.
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

/// Capabilities and landlock hold for the calling thread and its children only.
fn only_thread() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task")
        .context("/proc/self/task")?
        .count();
    if threads != 1 {
        bail!("{threads} threads run: privileges can only be dropped with one");
    }
    Ok(())
}

fn restrict_files(paths: &Paths) -> Result<()> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .create()?;
    for (path, access) in paths.rules() {
        match PathFd::new(&path) {
            Ok(descriptor) => {
                let access = if path.is_dir() {
                    access
                } else {
                    access & AccessFs::from_file(LANDLOCK_ABI)
                };
                ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access))?;
            }
            // A file that is not there cannot be read later either.
            Err(error) => debug!("landlock: {}: {error}", path.display()),
        }
    }
    let status = ruleset.restrict_self().context("landlock")?;
    if status.ruleset == RulesetStatus::NotEnforced {
        info!("this kernel has no landlock: files stay protected by their permissions alone");
    }
    Ok(())
}

/// Creates a directory if it is not there, and gives it to `account`, which has
/// to remove or replace files in it. One that is there already is given only if
/// it is `ours` alone.
pub fn create_directory(directory: &Path, mode: u32, account: Account, ours: bool) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
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
    // Where the service manager has made it, there is no capability to give it.
    if (created || ours) && (given.uid(), given.gid()) != (uid, gid) && Uid::effective().is_root() {
        chown(directory, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Gives a socket to `account`, which is to remove it, where the directory's sticky bit
/// lets nobody else do that. There it cannot have been replaced, either.
pub fn give_in_shared(path: &Path, account: Account) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    let directory = path.parent().unwrap_or(path);
    let sticky = fs::metadata(directory)?.mode() & libc::S_ISVTX != 0;
    if sticky && Uid::effective().is_root() {
        lchown(path, Some(account.uid.as_raw()), None)?;
    }
    Ok(())
}

/// Does `work` in `directory`: as root, or, if it is the account's, as that with
/// `group`. There root would follow links that the account has put there, and
/// without CAP_DAC_OVERRIDE may not write at all.
pub fn in_directory<T>(
    directory: &Path,
    account: Account,
    group: Option<Gid>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    use std::os::unix::fs::MetadataExt as _;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_found_has_many_numbers() {
        for number in [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM] {
            assert_eq!(found::<()>(Err(number)), Ok(None), "{number}");
        }
        // These are failures: whether there is such an account is not known.
        for number in [Errno::EIO, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert_eq!(found::<()>(Err(number)), Err(number));
        }
        assert_eq!(found(Ok(Some(7))), Ok(Some(7)));
        assert_eq!(found::<()>(Ok(None)), Ok(None));
    }

    #[test]
    fn a_reload_reaches_the_directory_of_a_file_unless_it_is_the_hosts() {
        let paths = |file: &str| reloaded(Path::new(file));
        assert_eq!(paths("/etc/nomail/deny"), [Path::new("/etc/nomail")]);
        assert_eq!(paths("/etc/deny"), [Path::new("/etc/deny")]);
        assert_eq!(paths("/deny"), [Path::new("/deny")]);
    }

    #[test]
    fn a_reload_reaches_what_a_link_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap();
        for name in ["etc", "lists"] {
            fs::create_dir(real.join(name)).unwrap();
        }
        fs::write(real.join("lists/deny"), "").unwrap();
        std::os::unix::fs::symlink("../lists/deny", real.join("etc/deny")).unwrap();
        let reached = reloaded(&real.join("etc/deny"));
        assert_eq!(reached, [real.join("etc"), real.join("lists")]);
    }

    #[test]
    fn a_file_that_is_not_there_is_in_no_shared_directory() {
        assert!(!is_in_shared_directory(Path::new(
            "/nonexistent/nomail.toml"
        )));
        assert!(!is_in_shared_directory(Path::new("/etc/nonexistent")));
        assert!(is_in_shared_directory(Path::new("/etc/passwd")));
    }

    #[test]
    fn only_the_configurations_directory_is_listed() {
        let paths = Paths {
            config: Some("/etc/nomail/nomail.toml".into()),
            lists: vec!["/srv/nomail/lists/deny".into()],
            ..Paths::default()
        };
        let listed = |path: &str| {
            let rules = paths.rules();
            let of_path = rules.iter().find(|(other, _)| other == Path::new(path));
            of_path.map(|(_, access)| access.contains(AccessFs::ReadDir))
        };
        assert_eq!(listed("/etc/nomail"), Some(true));
        assert_eq!(listed("/srv/nomail/lists"), Some(false));
    }
}
