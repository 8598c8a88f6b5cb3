//! The only place that reads and writes packet memory.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    helpers::generated::{bpf_xdp_adjust_tail, bpf_xdp_load_bytes},
    programs::XdpContext,
};
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

/// Turns the frame into an answer and sends it back: from `network` on it is
/// `packet`, and nothing after that; the hardware addresses change places, VLAN
/// tags stay. Dropped where that cannot be done.
#[inline(always)]
pub(crate) fn answer<const N: usize>(
    context: &XdpContext,
    network: usize,
    packet: [u32; N],
) -> u32 {
    let length = context.data_end() - context.data();
    let wanted = network + size_of_val(&packet);
    // Only ever shorter: never more out than came in.
    if wanted > OFFSET_MAX || length < wanted {
        return XDP_DROP;
    }
    let shrink = wanted as i32 - length as i32;
    // SAFETY: the context is this run's.
    if shrink != 0 && unsafe { bpf_xdp_adjust_tail(context.ctx, shrink) } != 0 {
        return XDP_DROP;
    }
    let (data, data_end) = (context.data(), context.data_end());
    if data + HARDWARE_LENGTH * 2 > data_end {
        return XDP_DROP;
    }
    let start = data + network;
    if network > OFFSET_MAX || start + size_of_val(&packet) > data_end {
        return XDP_DROP;
    }
    // SAFETY: data..data_end is the packet, and what is written is within it by
    // the checks above; no pointer is taken to be aligned. The verifier proves
    // the bounds again at load.
    unsafe {
        let addresses = data as *mut [[u8; HARDWARE_LENGTH]; 2];
        let [destination, source] = addresses.read_unaligned();
        addresses.write_unaligned([source, destination]);
        (start as *mut [u32; N]).write_unaligned(packet);
    }
    XDP_TX
}

/// The hardware addresses of a frame: its destination, its source.
#[inline(always)]
pub(crate) fn hardware(context: &XdpContext) -> Option<[[u8; HARDWARE_LENGTH]; 2]> {
    let frame = XdpFrame::new(context);
    Some([frame.read(0)?, frame.read(HARDWARE_LENGTH)?])
}

/// Room for the longest TCP header.
pub(crate) type TcpHeader = [u64; 8];

/// Reads the TCP header that begins at `offset`, with its options, and gives its
/// length in octets. None when the packet ends before it does.
#[inline(always)]
pub(crate) fn tcp_header(
    context: &XdpContext,
    offset: usize,
    header: &mut TcpHeader,
) -> Option<u32> {
    // Of two octets, because the verifier does not follow the check for one.
    let [data_offset, _] = XdpFrame::new(context).read(offset + 12)?;
    let length = u32::from(data_offset >> 4) * 4;
    if length < 20 {
        return None;
    }
    let start = (&raw mut *header).cast();
    // SAFETY: the context is this run's; length is at most 60 octets, less than the array's 64.
    let loaded = unsafe { bpf_xdp_load_bytes(context.ctx, offset as u32, start, length) };
    (loaded == 0).then_some(length)
}

/// Octets of a hardware address.
pub(crate) const HARDWARE_LENGTH: usize = 6;

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
