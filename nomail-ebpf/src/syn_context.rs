//! The segment that is judged, with everything known about it.

use aya_ebpf::programs::XdpContext;
use nomail_common::{
    abi::{Config, Guarded, MAX_INTERFACES},
    guard::challenge::TupleHash,
    guard::limiter::{Limit, Time},
    guard::policy::FloodAnswer,
    wire::packet::Segment,
};

use crate::{
    buckets::over_shared,
    cookie,
    maps::{self, CpuCounters},
};

/// A SYN or RST for a guarded pair, and what is needed to judge it.
pub(crate) struct SynContext<'a> {
    pub(crate) context: &'a XdpContext,
    pub(crate) segment: &'a Segment,
    pub(crate) config: &'a Config,
    pub(crate) guarded: &'a Guarded,
    /// See [`entry_of`].
    pub(crate) entry: u32,
    pub(crate) counters: CpuCounters,
    pub(crate) jiffies: u64,
    /// The answer to unproven SYNs; none while nothing serves them.
    pub(crate) flood_answer: FloodAnswer,
    /// The hash of the tuple, once it was asked for.
    pub(crate) hash: Option<TupleHash>,
    /// The SYN cookie, once it was asked for: 0 when there is none.
    pub(crate) cookie: Option<u64>,
}

impl SynContext<'_> {
    #[inline(always)]
    pub(crate) const fn now(&self) -> Time {
        Time::from_jiffies(self.jiffies)
    }

    #[inline(always)]
    pub(crate) fn hash(&mut self) -> TupleHash {
        match self.hash {
            Some(hash) => hash,
            None => {
                let hash = TupleHash::of(self.segment, maps::key());
                self.hash = Some(hash);
                hash
            }
        }
    }

    /// The listener's SYN cookie; 0 when it needs none, or the SYN has IP options.
    #[inline(always)]
    pub(crate) fn cookie(&mut self) -> u64 {
        match self.cookie {
            Some(cookie) => cookie,
            None => {
                let cookie = if self.segment.is_plain() {
                    let number = self.guarded.number;
                    cookie::cookie(self.context.ctx, self.segment, number, self.jiffies)
                } else {
                    0
                };
                self.cookie = Some(cookie);
                cookie
            }
        }
    }

    /// Whether one more SYN is over a bucket that all share.
    #[inline(always)]
    pub(crate) fn is_over_shared(&self, bucket: u32, limit: Limit) -> bool {
        let Limit {
            interval,
            tolerance,
        } = limit;
        interval != 0 && over_shared(bucket, self.jiffies, interval, tolerance) != 0
    }
}

/// The entry of an interface in the counters: 1 above its index in the configuration, or 0.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn entry_of(config: *const Config, interface: u32) -> u32 {
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let Some(config) = (unsafe { config.as_ref() }) else {
        return 0;
    };
    let index = (0..MAX_INTERFACES).find(|&index| config.interfaces[index] == interface);
    index.map_or(0, |index| index as u32 + 1)
}
