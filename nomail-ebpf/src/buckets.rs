//! Charging the buckets of sources and prefixes and those that all share, and reporting
//! sources over their limit.

use nomail_common::{
    abi::{LINES, PREFIX_LINES, PROVEN_LINES, SLOTS_PER_LINE},
    guard::events::{self, Event},
    guard::limiter::{self, Limit, Time},
    guard::sources::{self, Charge},
    source::Source,
};

use crate::maps;

/// The buckets to charge.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Store {
    /// Those of sources.
    Sources,
    /// Those of sources that are in the table. New ones do not enter it while the cap is
    /// exhausted: they are answered in any case, must cost little and replace no other.
    KnownSources,
    /// Those of sources whose tuple is proven.
    Proven,
    /// Those of prefixes.
    Prefixes,
}

/// Bit of the result of [`charge`]: the SYN is over the limit.
pub(crate) const OVER: u32 = 1;
/// Bit of the result of [`charge`]: another source lost its slot.
pub(crate) const EVICTED: u32 = 2;
/// Bit of the result of [`charge`]: nothing was charged, see [`Charge::contended`].
pub(crate) const CONTENDED: u32 = 4;
/// Bit of the result of [`charge`]: see [`Charge::reportable`].
pub(crate) const REPORTABLE: u32 = 8;

/// Charges one SYN of a source or prefix. Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn charge(
    store: u32,
    key: u64,
    jiffies: u64,
    interval: u64,
    tolerance: u64,
) -> u32 {
    let seed = maps::SEED.load();
    let source = Source(key);
    let of_sources = store == Store::Sources as u32 || store == Store::KnownSources as u32;
    let (index, line) = if of_sources {
        let index = sources::line_of(source, seed, LINES);
        (index, maps::source_line(index))
    } else if store == Store::Proven as u32 {
        (
            0,
            maps::proven_line(sources::line_of(source, seed, PROVEN_LINES)),
        )
    } else {
        (
            0,
            maps::prefix_line(sources::line_of(source, seed, PREFIX_LINES)),
        )
    };
    let Some(line) = line else {
        return 0;
    };
    let limit = Limit {
        interval,
        tolerance,
    };
    let Charge {
        slot,
        over,
        carried,
        reportable,
        evicted,
        contended,
    } = sources::charge(
        &line,
        source,
        Time::from_jiffies(jiffies),
        limit,
        store != Store::KnownSources as u32,
    );
    if carried && of_sources {
        maps::carry(index * SLOTS_PER_LINE + slot, source, over);
    }
    let flag = |is: bool, flag: u32| if is { flag } else { 0 };
    flag(over, OVER)
        | flag(reportable, REPORTABLE)
        | flag(evicted, EVICTED)
        | flag(contended, CONTENDED)
}

/// Reports a source or prefix over its limit, unless it was reported lately. `marks` is the
/// verdict, shifted left by one, and whether the tuple is proven. Global, also to keep it out
/// of the way of the SYNs that are not reported.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report(
    source: u64,
    jiffies: u64,
    interface: u32,
    marks: u32,
    pause_ticks: u32,
) -> u32 {
    let event = Event {
        source,
        jiffies,
        interface,
        verdict: (marks >> 1) as u16,
        proven: (marks & 1) as u16,
    };
    let (line, tag) = event.line_and_tag(maps::SEED.load());
    if let Some(line) = maps::reported_line(line)
        && events::is_due(&line, tag, jiffies as u32, pause_ticks)
    {
        maps::send_event(&event);
    }
    0
}

/// Whether one more SYN is over a bucket that all share; charges it if not. Global, so that
/// its stack is not part of that of `judge`: Linux 6.1 rounds each function up to 32 bytes and
/// allows 512 for a chain, of which `nomail` takes 192, `judge` 192 and `reply` 96.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn over_shared(
    bucket: u32,
    jiffies: u64,
    interval: u64,
    tolerance: u64,
) -> u32 {
    let limit = Limit {
        interval,
        tolerance,
    };
    let now = Time::from_jiffies(jiffies);
    let is_over =
        maps::shared(bucket).is_some_and(|shared| limiter::charge_shared(&shared, now, limit));
    u32::from(is_over)
}
