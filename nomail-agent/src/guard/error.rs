//! Errors of the XDP program and its maps.

use std::{fs, io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};
use caps::{CapSet, Capability};
use log::debug;
use nix::errno::Errno;
use nomail_common::abi::{MAX_GUARDED, MAX_INTERFACES, MAX_PORTS};
use thiserror::Error;

use super::{features::missing_features, mode::Mode};

/// Major and minor version of the first kernel with everything that the program needs: SYN
/// cookies for XDP came last.
pub const OLDEST_KERNEL: (u32, u32) = (6, 0);

/// An error of the guard.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The agent was built by plain cargo.
    #[error(
        "this nomail-agent was built without its XDP program: build it with `cargo xtask build`, \
         or run the responder alone with --xdp-mode off"
    )]
    NoObject,
    /// EPERM or EACCES, without the capabilities.
    #[error(
        "no permission to use BPF: start nomail-agent as root (sudo), or with CAP_BPF, \
         CAP_PERFMON and CAP_NET_ADMIN; --xdp-mode off runs the responder alone"
    )]
    Permission(#[source] io::Error),
    /// The kernel refused the program or its maps.
    #[error(
        "the kernel does not take the XDP program: Linux 6.0 or newer with CONFIG_BPF_SYSCALL, \
         CONFIG_BPF_JIT and CONFIG_SYN_COOKIES is needed; --xdp-mode off runs the responder alone, -v shows what \
         the verifier says"
    )]
    Load(#[source] io::Error),
    /// A kernel before [`OLDEST_KERNEL`] refused it.
    #[error(
        "this is Linux {0}, and the XDP program needs {major}.{minor} or newer; --xdp-mode off \
         runs the responder alone",
        major = OLDEST_KERNEL.0,
        minor = OLDEST_KERNEL.1
    )]
    OldKernel(String, #[source] io::Error),
    /// A kernel that lacks known features refused it.
    #[error(
        "this kernel, Linux {release}, lacks what the XDP program needs: {missing}; boot Linux \
         {major}.{minor} or newer with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and \
         CONFIG_SYN_COOKIES; --xdp-mode off runs the responder alone",
        major = OLDEST_KERNEL.0,
        minor = OLDEST_KERNEL.1
    )]
    Lacks {
        /// The release of the kernel.
        release: String,
        /// The missing features, with the versions that have them.
        missing: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// An XDP program is attached already.
    #[error("an XDP program is attached already")]
    Occupied,
    /// The interface cannot run it in this mode.
    #[error("the interface does not take XDP in {0} mode")]
    Attach(Mode, #[source] ProgramError),
    /// Only attachment without a BPF link is possible, which would outlive the agent.
    #[error("the interface does not take XDP in {0} mode by a BPF link (EINVAL)")]
    NoLink(Mode),
    /// The object does not match this agent.
    #[error("the XDP object has no {0}: build both with `cargo xtask build`")]
    Missing(&'static str),
    /// See [`MAX_PORTS`].
    #[error("{0} different ports to listen on, but at most {MAX_PORTS} can be guarded")]
    TooManyPorts(usize),
    /// See [`MAX_INTERFACES`].
    #[error("{0} interfaces, but at most {MAX_INTERFACES} can be guarded")]
    TooManyInterfaces(usize),
    /// See [`MAX_GUARDED`].
    #[error(
        "{0} addresses to listen on, but at most {MAX_GUARDED} can be guarded: \
         name the ones that matter with --listen"
    )]
    TooManyGuarded(usize),
    /// No seed of the hash gives each own address a slot.
    #[error("no hash seed places {0} own addresses in XDP's table: reload or restart the agent")]
    Own(usize),
    /// A list does not fit its map.
    #[error(
        "{0} prefixes in one list are more than the {max} that the guard can keep: leave some out",
        max = nomail_common::abi::MAX_LIST_PREFIXES
    )]
    TooManyPrefixes(usize),
    /// The kernel's clock cannot represent the limit.
    #[error(
        "a rate of {0} SYNs per second with bursts of {1} cannot be kept by this kernel's clock"
    )]
    Limit(u32, u32),
    /// Pins need a BPF file system.
    #[error(
        "pin_dir: {0} is not in a BPF file system, so nothing can be kept there: mount one \
         (`mount -t bpf bpf /sys/fs/bpf`), or leave out on_exit = \"keep\""
    )]
    NoBpfFileSystem(PathBuf),
    /// Others could put maps of their own there.
    #[error(
        "pin_dir: {0} is not a directory that only this user can write to, so what is pinned there \
         cannot be trusted: remove it, or name another"
    )]
    PinsNotOurs(PathBuf),
    /// An agent, or `detach`, holds the lock.
    #[error(
        "another nomail-agent uses the pins in {0}: stop it first, or give each agent its own \
         pin_dir"
    )]
    PinsInUse(PathBuf),
    /// The directory cannot be read or changed.
    #[error("{0} cannot be used for pins")]
    PinDirectory(PathBuf, #[source] io::Error),
    /// A link or a map could not be pinned.
    #[error("nothing can be pinned")]
    Pin(#[from] PinError),
    /// A link could not be used.
    #[error("a BPF link cannot be used")]
    Link(#[from] LinkError),
    /// The object cannot be read.
    #[error("the XDP object cannot be read")]
    Object(#[from] aya_obj::ParseError),
    /// A map could not be read or written.
    #[error("a BPF map cannot be used")]
    Map(#[from] MapError),
    /// A map could not be read as a whole.
    #[error("a BPF map cannot be read")]
    Table(#[source] io::Error),
    /// A program could not be used.
    #[error("the XDP program cannot be used")]
    Program(#[from] ProgramError),
    /// The clock could not be read.
    #[error("the kernel's clock cannot be read")]
    Clock(#[from] io::Error),
    /// No thread to read the pinned configuration with.
    #[error("cannot start the thread that reads the pinned configuration")]
    Thread(#[source] io::Error),
    /// The kernel returned no random numbers.
    #[error("the kernel gives no random numbers")]
    Random(#[source] io::Error),
}

impl BpfError {
    /// An error of loading: a missing permission, or anything else. The verifier's output, which
    /// fills pages, is logged with -v.
    pub(super) fn load(error: &EbpfError) -> Self {
        let mut text = error.to_string();
        let mut errno = None;
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            let io_error = inner.downcast_ref::<io::Error>();
            errno = errno.or(io_error.and_then(io::Error::raw_os_error));
            cause = inner.source();
        }
        debug!("{text}");
        let denied = matches!(
            errno.map(Errno::from_raw),
            Some(Errno::EPERM | Errno::EACCES)
        );
        let source = errno.map_or_else(
            || io::Error::other(text.lines().next().unwrap_or_default().to_owned()),
            io::Error::from_raw_os_error,
        );
        if denied && !may_use_bpf() {
            return Self::Permission(source);
        }
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::refused(release.trim().to_owned(), missing_features(), source)
    }

    /// Why a kernel of this release, with these features missing, refused the program.
    fn refused(release: String, missing: String, source: io::Error) -> Self {
        // The version last: distributions backport features.
        if !missing.is_empty() {
            Self::Lacks {
                release,
                missing,
                source,
            }
        } else if is_old(&release) {
            Self::OldKernel(release, source)
        } else {
            Self::Load(source)
        }
    }
}

/// Whether a kernel of this release is older than [`OLDEST_KERNEL`].
fn is_old(release: &str) -> bool {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    matches!(version, (Some(major), Some(minor)) if (major, minor) < OLDEST_KERNEL)
}

/// Whether this process may load XDP programs.
fn may_use_bpf() -> bool {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let needed = [
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_NET_ADMIN,
    ];
    has(Capability::CAP_NET_ADMIN) && has(Capability::CAP_SYS_ADMIN) || needed.into_iter().all(has)
}

#[cfg(test)]
mod tests;
