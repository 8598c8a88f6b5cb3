//! The only place that reads packet memory.

use aya_ebpf::programs::XdpContext;
use nomail_common::frame::Frame;

/// Largest offset that is read. Far above any header [`nomail_common::packet`]
/// looks through, and a bound the verifier needs for an offset it cannot know.
const OFFSET_MAX: usize = 0x3fff;

/// The linear part of a packet; the headers are in there, also when the rest
/// of a jumbo frame is in fragments.
pub(crate) struct XdpFrame {
    data: usize,
    data_end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self {
            data: context.data(),
            data_end: context.data_end(),
        }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = self.data + offset;
        if start + N > self.data_end {
            return None;
        }
        // SAFETY: data..data_end is the packet, start..start + N is within it,
        // and an array of bytes has no alignment and no invalid value. The
        // verifier proves the bounds again at load.
        Some(unsafe { (start as *const [u8; N]).read_unaligned() })
    }
}
