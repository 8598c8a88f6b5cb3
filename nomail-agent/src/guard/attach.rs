//! Attaching to an interface, in native or generic mode, by a link that the kernel removes
//! when its descriptor is closed, also after SIGKILL, unless it is pinned.

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::FdLink,
    xdp::{XdpLink, XdpLinkId},
};
use nix::errno::Errno;

use super::{error::BpfError, mode::Mode};

/// Tries `modes` in turn. Returns the link, its mode, and the error of the mode before it.
///
/// # Errors
/// The error of the last mode, or one that no other mode would avoid.
pub(super) fn attach(
    program: &mut Xdp,
    interface: u32,
    modes: &[Mode],
) -> Result<(FdLink, Mode, Option<BpfError>), BpfError> {
    let mut refused = None;
    for &mode in modes {
        match attach_in(program, interface, mode) {
            Ok(link) => return Ok((link, mode, refused)),
            Err(error @ (BpfError::Occupied | BpfError::Permission(_))) => return Err(error),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or(BpfError::Missing("a mode to attach in")))
}

fn attach_in(program: &mut Xdp, interface: u32, mode: Mode) -> Result<FdLink, BpfError> {
    let xdp_mode = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program
        .attach_to_if_index(interface, xdp_mode)
        .map_err(|error| match errno_of(&error) {
            Some(Errno::EBUSY | Errno::EEXIST) => BpfError::Occupied,
            Some(errno @ (Errno::EPERM | Errno::EACCES)) => BpfError::Permission(errno.into()),
            _ => BpfError::Attach(mode, error),
        })?;
    // On EINVAL aya falls back to an attachment by netlink, which would outlive the process.
    // Dropping it detaches it.
    FdLink::try_from(program.take_link(id)?).map_err(|_| BpfError::NoLink(mode))
}

/// Replaces the program of a link by `program`, between two packets.
pub(super) fn replace(program: &mut Xdp, link: FdLink) -> Result<FdLink, BpfError> {
    let id: XdpLinkId = program.attach_to_link(XdpLink::try_from(link)?)?;
    Ok(FdLink::try_from(program.take_link(id)?)?)
}

fn errno_of(error: &ProgramError) -> Option<Errno> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}
