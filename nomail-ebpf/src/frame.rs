//! Packet memory: the only file that reads and writes it.

use core::hint::{assert_unchecked, black_box};

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    helpers::generated::{
        bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};
use nomail_common::{
    abi::{TEXT_MAX, Text, WINDOW},
    stateless::retransmit::FRAME_LENGTH,
    wire::frame::Frame,
    wire::packet::Segment,
};

/// Largest offset that is read: a bound for the verifier, far above any header that
/// [`nomail_common::wire::packet`] parses.
const OFFSET_MAX: usize = 0x3fff;

/// The linear part of a packet. It has the headers, also when the rest of a jumbo frame is in
/// fragments.
pub(crate) struct XdpFrame {
    data: usize,
    data_end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        let data = context.data();
        // SAFETY: the kernel's address of a packet. Else the compiler would ask.
        unsafe { assert_unchecked(data != 0) };
        Self {
            data,
            data_end: context.data_end(),
        }
    }
}

/// Most bytes that may follow an answer in its frame, as padding does (IEEE 802.3): cutting
/// them off would cost more than all the rest of the answer.
const PADDING_MAX: usize = 64;

/// Turns the frame into an answer and returns the action that sends it back. `turn` turns the
/// `N` bytes of its headers, from `network` on; the hardware addresses are swapped, VLAN tags
/// stay. Drops the frame where that is not possible.
#[inline(always)]
pub(crate) fn answer<const N: usize>(
    context: &XdpContext,
    network: usize,
    turn: impl FnOnce(&mut [u8; N]),
) -> u32 {
    // Of the whole frame: a long one ends in fragments, behind the linear part.
    // SAFETY: the context is this run's.
    let length = unsafe { bpf_xdp_get_buff_len(context.ctx) } as usize;
    let network = network & NETWORK_MASK;
    let wanted = network + N;
    // Never longer than the frame that arrived.
    if length < wanted {
        return XDP_DROP;
    }
    if length > wanted + PADDING_MAX {
        let shrink = wanted as i32 - length as i32;
        // SAFETY: the context is this run's.
        if unsafe { bpf_xdp_adjust_tail(context.ctx, shrink) } != 0 {
            return XDP_DROP;
        }
    }
    // Hidden from the compiler, which knows the length: the verifier has to see the check.
    let (data, data_end) = (context.data(), black_box(context.data_end()));
    if data + HARDWARE_LENGTH * 2 > data_end {
        return XDP_DROP;
    }
    // SAFETY: data..data_end is the packet, and the array of bytes is within it by the check
    // above. The verifier proves the bounds again at load.
    let addresses = unsafe { &mut *(data as *mut [u8; HARDWARE_LENGTH * 2]) };
    swap_halves(addresses);
    // Here, and not in one with the check above, which it implies: the verifier does not see
    // that.
    let start = data + network;
    if start + N > data_end {
        return XDP_DROP;
    }
    // SAFETY: as above.
    turn(unsafe { &mut *(start as *mut [u8; N]) });
    XDP_TX
}

/// Swaps the hardware addresses at the start of a frame.
#[inline(always)]
fn swap_halves(addresses: &mut [u8; HARDWARE_LENGTH * 2]) {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *addresses;
    // In words: byte by byte it would take three times as long.
    let [destination, source] = [[d0, d1, d2, d3], [s0, s1, s2, s3]].map(u32::from_ne_bytes);
    let [destination_rest, source_rest] = [[d4, d5], [s4, s5]].map(u16::from_ne_bytes);
    addresses[..4].copy_from_slice(&source.to_ne_bytes());
    addresses[4..6].copy_from_slice(&source_rest.to_ne_bytes());
    addresses[6..10].copy_from_slice(&destination.to_ne_bytes());
    addresses[10..].copy_from_slice(&destination_rest.to_ne_bytes());
}

/// An IP header begins behind at most two VLAN tags.
const NETWORK_MASK: usize = 31;

/// Bytes of an Ethernet header with one VLAN tag.
const LINK_LENGTH_MAX: usize = 18;

/// Turns the frame, which has at most one VLAN tag, into an answer of another length: from
/// `network` on it is `packet`, and `text_length` bytes that are left to [`write_text`]; the
/// hardware addresses are swapped, a tag stays. False where that is not possible.
#[inline(always)]
pub(crate) fn begin_answer<const N: usize>(
    context: &XdpContext,
    network: usize,
    packet: [u32; N],
    text_length: u32,
) -> bool {
    // Without a tag, the last bytes belong to the IP header, which is overwritten below.
    let Some(link): Option<[u8; LINK_LENGTH_MAX]> = XdpFrame::new(context).read(0) else {
        return false;
    };
    if network > LINK_LENGTH_MAX {
        return false;
    }
    let wanted = network as i32 + size_of_val(&packet) as i32 + text_length as i32;
    // SAFETY: the context is this run's.
    let adjusted = unsafe {
        let more = wanted - bpf_xdp_get_buff_len(context.ctx) as i32;
        // There is always room in front of a frame, and not always behind it.
        if more > 0 {
            bpf_xdp_adjust_head(context.ctx, -more)
        } else {
            bpf_xdp_adjust_tail(context.ctx, more)
        }
    };
    let [
        d0,
        d1,
        d2,
        d3,
        d4,
        d5,
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
    ] = link;
    let link = [
        s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5, t0, t1, t2, t3, t4, t5,
    ];
    // By a helper: the verifier does not see that the packet was checked for this.
    // SAFETY: the context is this run's, and the helper only reads the array.
    let written = unsafe {
        let bytes = (&raw const link).cast_mut().cast();
        bpf_xdp_store_bytes(context.ctx, 0, bytes, LINK_LENGTH_MAX as u32)
    };
    let (data, data_end) = (context.data(), context.data_end());
    let start = data + network;
    if adjusted != 0 || written != 0 || start + size_of_val(&packet) > data_end {
        return false;
    }
    // SAFETY: as in `answer`.
    unsafe {
        (start as *mut [u32; N]).write_unaligned(packet);
    }
    true
}

/// Writes a text at an offset, and returns the offset behind it. None where it does not fit.
#[inline(always)]
pub(crate) fn write_text(context: &XdpContext, offset: u32, text: &Text) -> Option<u32> {
    let length = bounded(text.length, TEXT_MAX as u32)?;
    let bytes = (&raw const text.bytes).cast_mut().cast();
    // SAFETY: the context is this run's; the text has at least that many bytes, and the
    // helper only reads it.
    let written = unsafe { bpf_xdp_store_bytes(context.ctx, offset, bytes, length) };
    (written == 0).then_some(offset + length)
}

/// A length if it is from 1 to `max`, in a way that the verifier follows: Linux 6.1 learns
/// nothing from a comparison with 0, which the compiler makes of `length >= 1`.
#[inline(always)]
fn bounded(length: u32, max: u32) -> Option<u32> {
    let before_last = black_box(length.wrapping_sub(1));
    if before_last < max {
        Some(before_last + 1)
    } else {
        None
    }
}

/// Reads `length` bytes from `start` on. False when the frame ends before.
#[inline(always)]
pub(crate) fn read_payload(
    context: &XdpContext,
    start: u32,
    length: u32,
    payload: &mut [u8; WINDOW],
) -> bool {
    if length == 0 {
        return true;
    }
    let Some(length) = bounded(length, WINDOW as u32) else {
        return false;
    };
    let room = (&raw mut *payload).cast();
    // SAFETY: the context is this run's; there is room for that many bytes.
    unsafe { bpf_xdp_load_bytes(context.ctx, start, room, length) == 0 }
}

/// Reads a frame up to the options of its TCP header. False when the frame ends before.
#[inline(always)]
pub(crate) fn read_headers(
    context: &XdpContext,
    segment: &Segment,
    room: *mut [u8; FRAME_LENGTH],
) -> bool {
    let ip_length = if segment.is_ipv6() { 40 } else { 20 };
    let length = (segment.network & 31) + ip_length + 20;
    // SAFETY: the context is this run's; there is room for at most 31 + 40 + 20 bytes.
    unsafe { bpf_xdp_load_bytes(context.ctx, 0, room.cast(), length) == 0 }
}

/// The hardware addresses of a frame: destination, source.
#[inline(always)]
pub(crate) fn hardware(context: &XdpContext) -> Option<[[u8; HARDWARE_LENGTH]; 2]> {
    let frame = XdpFrame::new(context);
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *frame.start()?;
    Some([[d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]])
}

/// Room for the longest TCP header.
pub(crate) type TcpHeader = [u64; 8];

/// Reads the TCP header at `offset`, with its options, and returns its length in bytes. None
/// when the packet ends before.
#[inline(always)]
pub(crate) fn tcp_header(
    context: &XdpContext,
    offset: usize,
    header: &mut TcpHeader,
) -> Option<u32> {
    // Reads two bytes, because the verifier does not follow the check for one.
    let [data_offset, _] = XdpFrame::new(context).read(offset + 12)?;
    let length = u32::from(data_offset >> 4) * 4;
    if length < 20 {
        return None;
    }
    let start = (&raw mut *header).cast();
    // SAFETY: the context is this run's; length is at most 60 bytes, less than the array's 64.
    let loaded = unsafe { bpf_xdp_load_bytes(context.ctx, offset as u32, start, length) };
    (loaded == 0).then_some(length)
}

/// Bytes of a hardware address.
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

    #[inline(always)]
    fn start<const N: usize>(&self) -> Option<&[u8; N]> {
        if self.data + N > self.data_end {
            return None;
        }
        // SAFETY: as in `read`; nothing writes to the packet while the bytes are borrowed.
        Some(unsafe { &*(self.data as *const [u8; N]) })
    }
}
