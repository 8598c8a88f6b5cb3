//! Finding a segment in a frame whose headers are not where they usually are.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use nomail_common::wire::packet::{self, Extension, Segment};

use crate::{frame::XdpFrame, maps};

/// Parses a segment for one of our ports, wherever its headers are; returns 0 if there is none.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find(context: *mut xdp_md, segment: *mut Segment, dialogs: u32) -> u32 {
    let frame = XdpFrame::new(&XdpContext::new(context));
    let (ports, dialogs) = (maps::PORTS.load(), dialogs != 0);
    let found = packet::parse_with(&frame, &ports, dialogs, |offset, kind| {
        Extension(read_extension(context, offset as u32, u32::from(kind)))
    });
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let room = unsafe { segment.as_mut() };
    if let (Some(room), Some(found)) = (room, found) {
        *room = found;
        return 1;
    }
    0
}

/// [`Extension::read`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_extension(context: *mut xdp_md, offset: u32, kind: u32) -> u64 {
    let frame = XdpFrame::new(&XdpContext::new(context));
    Extension::read(&frame, offset as usize, kind as u8).0
}
