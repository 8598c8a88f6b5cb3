//! The XDP programs of nomail: entry points, and access to packets and maps for
//! `nomail-common`.
//!
//! Many functions are *global* (`no_mangle`, `inline(never)`): the verifier checks such a
//! function once, for all arguments, and continues after a call with any result, instead of
//! once for every path that leads to it. Its stack counts only while it runs. Arguments are at
//! most five integers or pointers, and each returns an integer, used or not.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "BPF atomics exist only as intrinsics")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's entry points take the context so"
)]

mod answer;
mod atomic;
mod buckets;
mod cookie;
mod find;
mod frame;
mod judge;
mod lists;
mod maps;
mod stateless;
mod syn_context;
mod tickets;
mod trace;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_jiffies64, macros::xdp,
    programs::XdpContext,
};
use nomail_common::{
    verifier::forget,
    wire::{
        glance::{Glance, glance},
        packet::Segment,
    },
};

use crate::{
    find::find,
    frame::XdpFrame,
    judge::{TO_STATELESS, judge},
    trace::trace,
};

/// Judges a frame. A frame that is not a SYN or a RST for a guarded port, nor a segment of a
/// stateless dialog, passes without a look-up in any map.
#[xdp(frags)]
#[inline(always)]
fn nomail(context: XdpContext) -> u32 {
    let action = match glance(&XdpFrame::new(&context), maps::is_ours, maps::may_respond) {
        Glance::Nothing => return XDP_PASS,
        // The same code twice: here the compiler leaves of it what plain IPv4 needs.
        Glance::Ipv4(segment) => judge(&context, segment),
        found => match segment_of(&context, found) {
            Some(segment) => judge(&context, segment),
            None => return XDP_PASS,
        },
    };
    if action != TO_STATELESS {
        trace!(trace_action, action);
        return action;
    }
    trace!(trace_program, 0);
    maps::call_responder(&context);
    XDP_PASS
}

#[inline(always)]
fn segment_of(context: &XdpContext, found: Glance) -> Option<Segment> {
    if let Glance::Ipv6(mut segment) = found {
        // To the verifier it is any segment, as the one below.
        let unknown = u64::from(segment.sequence);
        segment.network = forget(u64::from(segment.network), unknown) as u32;
        segment.flags = forget(u64::from(segment.flags), unknown) as u8;
        return Some(segment);
    }
    let mut segment = Segment::NONE;
    let dialogs = u32::from(maps::may_respond());
    (find(context.ctx, &raw mut segment, dialogs) != 0).then_some(segment)
}

/// Answers the SYN of a proven tuple, and segments of its dialogs, without a socket. Anything
/// else passes: the stack resets it.
#[xdp(frags)]
fn nomail_responder(context: XdpContext) -> u32 {
    let action = stateless::refuse(&context);
    trace!(trace_action, action);
    action
}

/// The clock of the buckets, for the agent: the low 32 bits of `jiffies64`.
#[xdp(frags)]
fn nomail_clock(_context: XdpContext) -> u32 {
    // SAFETY: the helper takes nothing and returns a number.
    (unsafe { bpf_jiffies64() }) as u32
}

/// The licence, which the kernel requires for the helpers used here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
