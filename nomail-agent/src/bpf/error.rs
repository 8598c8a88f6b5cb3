//! What can go wrong between the agent and the kernel.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use nix::errno::Errno;
use nomail_common::abi::{MAX_GUARDED, MAX_INTERFACES, MAX_PORTS};
use thiserror::Error;

use super::Mode;

/// An error of the XDP half. Its sources are its cause chain.
#[derive(Debug, Error)]
pub enum BpfError {
    /// Built by plain cargo.
    #[error(
        "this nomail-agent was built without its XDP program: build it with `cargo xtask build`, \
         or run the responder alone with --xdp-mode off"
    )]
    NoObject,
    /// EPERM or EACCES.
    #[error(
        "no permission to use BPF: start nomail-agent as root (sudo), or with CAP_BPF and \
         CAP_NET_ADMIN; --xdp-mode off runs the responder alone"
    )]
    Permission(#[source] EbpfError),
    /// The kernel refused the program or its maps.
    #[error(
        "the kernel does not take the XDP program: Linux 5.18 or newer with CONFIG_BPF_SYSCALL \
         and CONFIG_BPF_JIT is needed; --xdp-mode off runs the responder alone"
    )]
    Load(#[source] EbpfError),
    /// Some XDP program is there already.
    #[error("an XDP program is attached already")]
    Occupied,
    /// The interface cannot run it in this mode.
    #[error("the interface does not take XDP in {0} mode")]
    Attach(Mode, #[source] ProgramError),
    /// Only the old attachment is possible, which would outlive the agent.
    #[error("the interface does not take XDP in {0} mode by a BPF link (EINVAL)")]
    NoLink(Mode),
    /// The object is not the one this agent was written for.
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
    /// No such bucket on this kernel's clock.
    #[error(
        "a rate of {0} SYNs per second with bursts of {1} cannot be kept by this kernel's clock"
    )]
    Limit(u32, u32),
    /// A map could not be read or written.
    #[error("a BPF map cannot be used")]
    Map(#[from] MapError),
    /// A program could not be used.
    #[error("the XDP program cannot be used")]
    Program(#[from] ProgramError),
    /// The clock could not be read.
    #[error("the kernel's clock cannot be read")]
    Clock(#[from] io::Error),
    /// No random numbers.
    #[error("the kernel gives no random numbers")]
    Random(#[source] io::Error),
    /// The program's log could not be opened.
    #[error("the log of the XDP program cannot be read")]
    Log(#[source] aya_log::Error),
}

impl BpfError {
    /// An error of loading: for want of permission, or of anything else.
    pub(super) fn load(error: EbpfError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            let errno = inner
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
                .map(Errno::from_raw);
            if matches!(errno, Some(Errno::EPERM | Errno::EACCES))
                && !nix::unistd::geteuid().is_root()
            {
                return Self::Permission(error);
            }
            cause = inner.source();
        }
        Self::Load(error)
    }
}
