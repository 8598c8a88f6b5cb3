//! From root to an account that can do little: done once, when all that needs
//! root is done, and while the process has a single thread.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use log::{debug, info, warn};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, setegid, seteuid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Whom the agent becomes, and who may ask it for its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub uid: Uid,
    /// The user's group.
    pub gid: Gid,
}

/// Used when the default user does not exist: a trial without an installation.
const NOBODY: Account = Account {
    uid: Uid::from_raw(65_534),
    gid: Gid::from_raw(65_534),
};

/// Landlock's version that this was written for; older kernels restrict less.
const LANDLOCK_ABI: ABI = ABI::V5;

impl Account {
    /// Looks up a user name or a numeric uid. Where nobody asked for it, which
    /// `default` says, and it does not exist, the account is nobody's.
    /// Without root nobody else can be become.
    pub fn resolve(user: &str, default: bool) -> Result<Self> {
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
                info!(
                    "there is no user {user:?} on this host: running as uid {} instead",
                    NOBODY.uid
                );
                Ok(NOBODY)
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
    /// May be read: what a reload reads.
    pub read: Vec<PathBuf>,
    /// Directory of the control socket, which is removed at the end.
    pub remove_in: Option<PathBuf>,
    /// Directory in which files are replaced.
    pub write_in: Option<PathBuf>,
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

/// Gives up the capabilities of the calling thread alone.
pub fn drop_capabilities() -> Result<()> {
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
    let read = AccessFs::from_read(LANDLOCK_ABI) & !AccessFs::Execute;
    let mut rules: Vec<(&Path, _)> = paths
        .read
        .iter()
        .map(|path| (path.as_path(), read))
        .collect();
    if let Some(directory) = &paths.remove_in {
        rules.push((directory, AccessFs::RemoveFile.into()));
    }
    if let Some(directory) = &paths.write_in {
        let write = AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::RemoveFile
            | AccessFs::ReadFile;
        rules.push((directory, write));
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .create()?;
    for (path, access) in rules {
        match PathFd::new(path) {
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

/// Allows all threads only what the agent calls once it serves: no program can
/// be run, no thread started. Anything else fails with EPERM, as under systemd's
/// SystemCallErrorNumber=EPERM. Nothing can be connected to, unless `connect` says
/// so.
pub fn restrict_syscalls(connect: bool) -> Result<()> {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        warn!("no seccomp filter for {}", std::env::consts::ARCH);
        return Ok(());
    };
    // Of ioctl only what makes an accepted socket non-blocking.
    let nonblocking =
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::FIONBIO)
            .and_then(|is_fionbio| SeccompRule::new(vec![is_fionbio]))
            .context("seccomp")?;
    let mut rules: BTreeMap<_, _> = ALLOWED_SYSCALLS
        .iter()
        .map(|&call| (call, Vec::new()))
        .collect();
    rules.insert(libc::SYS_ioctl, vec![nonblocking]);
    if connect {
        rules.insert(libc::SYS_connect, Vec::new());
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        architecture,
    )
    .context("seccomp")?;
    let program: BpfProgram = filter.try_into().context("seccomp")?;
    seccompiler::apply_filter_all_threads(&program).context("seccomp")
}

const ALLOWED_SYSCALLS: &[libc::c_long] = &[
    // sockets: clients, control, netlink
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
    // the event loop
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // descriptors and the files of a reload
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_write,
    libc::SYS_writev,
    // maps
    libc::SYS_bpf,
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // the process itself
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_uname,
];

/// Creates a directory if it is not there, and gives it to `account`, which has
/// to remove or replace files in it. One that is there already is given only if
/// it is `ours` alone.
pub fn create_directory(
    directory: &Path,
    mode: u32,
    account: Account,
    ours: bool,
) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
    let created = match fs::DirBuilder::new().mode(mode).create(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    let given = fs::metadata(directory)?;
    // Where the service manager has made it, there is no capability to give it.
    if (created || ours) && (given.uid(), given.gid()) != (uid, gid) && Uid::effective().is_root() {
        chown(directory, Some(uid), Some(gid))?;
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
}
