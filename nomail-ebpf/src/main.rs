//! The kernel half of nomail: plumbing around `nomail-common`.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "BPF atomics exist only as intrinsics")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's entry points take the context so"
)]

mod atomic;
mod frame;
mod maps;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::generated::bpf_jiffies64,
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use nomail_common::{
    abi::{Config, SLOTS_PER_LINE},
    limiter::Time,
    packet::{self, Syn},
    policy,
    source::Source,
    sources::{self, Charge},
    verdict::Verdict,
};

use crate::{frame::XdpFrame, maps::CpuCounters};

/// Judges a frame. Whatever is not a SYN for a guarded pair passes without a
/// look-up in any map.
#[xdp(frags)]
fn nomail(context: XdpContext) -> u32 {
    let Some(syn) = packet::parse(&XdpFrame::new(&context), &maps::PORTS.load()) else {
        return XDP_PASS;
    };
    judge(&context, &syn).unwrap_or(XDP_PASS)
}

/// Nothing, so the packet passes, when the agent has yet to write its maps.
#[inline(always)]
fn judge(context: &XdpContext, syn: &Syn) -> Option<u32> {
    let config = maps::config()?;
    if !config.guards(syn.destination, syn.port) {
        return None;
    }
    let counters = maps::counters(config, context.ingress_ifindex() as u32)?;
    let verdict = policy::decide(syn.malformed, || {
        over_bucket(context, syn.source, config, &counters)
    });
    counters.count(verdict);
    Some(if verdict == Verdict::Passed || config.observe != 0 {
        XDP_PASS
    } else {
        XDP_DROP
    })
}

#[inline(always)]
fn over_bucket(
    context: &XdpContext,
    source: Source,
    config: &Config,
    counters: &CpuCounters,
) -> bool {
    let line_index = sources::line_of(source, maps::SEED.load());
    let Some(line) = maps::line(line_index) else {
        return false;
    };
    // SAFETY: the helper takes nothing and returns a number.
    let now = Time::from_jiffies(unsafe { bpf_jiffies64() });
    match sources::charge(&line, source, now, config.limit) {
        Charge::Charged {
            slot,
            over,
            carried,
            evicted,
        } => {
            if evicted {
                counters.count_eviction();
            }
            if carried {
                maps::carry(line_index * SLOTS_PER_LINE + slot, source, over);
                if over {
                    debug!(
                        context,
                        "source {:x}: another 1024 SYNs over its limit", source.0
                    );
                }
            }
            over
        }
        Charge::Contended => {
            counters.count_contended();
            false
        }
    }
}

/// The clock of [`Time`], for the agent: the low 32 bits of `jiffies64`.
#[xdp(frags)]
fn nomail_clock(_context: XdpContext) -> u32 {
    // SAFETY: the helper takes nothing and returns a number.
    (unsafe { bpf_jiffies64() }) as u32
}

/// What the kernel asks before it lends the helpers used here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
