//! The kernel's own SYN cookies, for a SYN that the kernel never sees.
//!
//! The kernel accepts the acknowledgment of a cookie only while it has seen the listener's
//! queue full lately, which `bpf_tcp_gen_syncookie` checks and notes (`tcp_get_syncookie_mss`
//! of Linux). Once per jiffy suffices: for the rest of it the same cookie comes from a helper
//! that looks up no socket.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_tcp_raw_gen_syncookie_ipv4,
        bpf_tcp_raw_gen_syncookie_ipv6,
    },
    programs::XdpContext,
};
use nomail_common::wire::packet::Segment;

use crate::{
    frame,
    maps::{self, Question},
};

/// `BPF_TCP_LISTEN` of the kernel.
const LISTEN: u32 = 10;
/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// Bytes of the IP headers, and of the variants of `bpf_sock_tuple`.
const IPV4_LENGTH: u32 = 20;
const IPV6_LENGTH: u32 = 40;
const IPV4_TUPLE_LENGTH: u32 = 12;
const IPV6_TUPLE_LENGTH: u32 = 36;

/// The SYN cookie for a SYN without IP options, in the lower half of the result; 0 when its
/// listener has room in its queue, or there is none. `number` is that of the guarded pair.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cookie(
    context: *mut xdp_md,
    segment: *const Segment,
    number: u32,
    jiffies: u64,
) -> u64 {
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return 0;
    };
    // The upper half is a maximum segment size, which is not 0.
    let found = ask(&XdpContext::new(context), segment, number, jiffies).unwrap_or(0);
    u64::try_from(found).unwrap_or(0)
}

#[inline(always)]
fn ask(context: &XdpContext, segment: &Segment, number: u32, jiffies: u64) -> Option<i64> {
    let Question { tcp, ip, tuple } = maps::question()?;
    let Segment { peer, local, .. } = segment;
    // The kernel reads only the version and the addresses of the IP header.
    let (ip_length, tuple_length) = if segment.is_ipv6() {
        let [p0, p1, l0, l1] = [peer.high, peer.low, local.high, local.low].map(u64::to_be);
        *ip = [words(0x6000_0000, 0), p0, p1, l0, l1];
        *tuple = [p0, p1, l0, l1, words(ports(segment), 0)];
        (IPV6_LENGTH, IPV6_TUPLE_LENGTH)
    } else {
        let (peer, local) = (peer.low as u32, local.low as u32);
        [ip[0], ip[1], ip[2]] = [words(0x4500_0000, 0), words(0, peer), words(local, 0)];
        [tuple[0], tuple[1]] = [words(peer, local), words(ports(segment), 0)];
        (IPV4_LENGTH, IPV4_TUPLE_LENGTH)
    };
    let offset = segment.network as usize + ip_length as usize;
    let tcp_length = frame::tcp_header(context, offset, tcp)?;
    let (ip, tcp, tuple) = (&raw mut *ip, &raw mut *tcp, &raw mut *tuple);
    let queue = maps::queue(number)?;
    if queue.load() == jiffies {
        // SAFETY: both headers are valid, and as long as the arguments say.
        return Some(unsafe {
            if segment.is_ipv6() {
                bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), tcp.cast(), tcp_length)
            } else {
                bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), tcp.cast(), tcp_length)
            }
        });
    }
    // SAFETY: the tuple is as long as the argument says.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            context.ctx.cast(),
            tuple.cast(),
            tuple_length,
            CURRENT_NETNS,
            0,
        )
    };
    if socket.is_null() {
        return None;
    }
    // SAFETY: not null, and held until it is released; the headers as above.
    let found = unsafe {
        let listens = (&raw const (*socket).state).read_volatile() == LISTEN;
        let found = if listens {
            bpf_tcp_gen_syncookie(socket.cast(), ip.cast(), ip_length, tcp.cast(), tcp_length)
        } else {
            0
        };
        bpf_sk_release(socket.cast());
        found
    };
    if found > 0 {
        queue.store(jiffies);
    }
    Some(found)
}

/// Two words of a packet, in network byte order.
#[inline(always)]
fn words(first: u32, second: u32) -> u64 {
    (u64::from(first) << 32 | u64::from(second)).to_be()
}

/// Both ports, the peer's first.
#[inline(always)]
fn ports(segment: &Segment) -> u32 {
    u32::from(segment.peer_port) << 16 | u32::from(segment.port)
}
