//! Finding a segment in a frame whose headers are not where they usually are.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use nomail_common::wire::packet::{self, Segment};

use crate::{frame::XdpFrame, maps};

/// Parses a segment for one of our ports, wherever its headers are; returns 0 if there is none.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find(context: *mut xdp_md, segment: *mut Segment, dialogs: u32) -> u32 {
    let frame = XdpFrame::new(&XdpContext::new(context));
    let found = packet::parse(&frame, &maps::PORTS.load(), dialogs != 0);
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let room = unsafe { segment.as_mut() };
    if let (Some(room), Some(found)) = (room, found) {
        *room = found;
        return 1;
    }
    0
}
