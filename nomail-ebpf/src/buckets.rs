//! Charging the buckets of sources and prefixes and those that all share, and reporting
//! sources over their limit.

use nomail_common::{
    abi::{LINES, PREFIX_LINES, PROVEN_LINES, SLOTS_PER_LINE},
    guard::events::{self, Event},
    guard::limiter::{self, ATTEMPTS, Limit, Time},
    guard::sources::{self, Charge, Tried},
    source::Source,
    verdict::Verdict,
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
    /// Those of prefixes for tuples that are proven.
    ProvenPrefixes,
}

/// Bits of the result of [`try_charge`].
pub(crate) const OVER: u32 = 1;
const EVICTED: u32 = 2;
const CONTENDED: u32 = 4;
const REPORTABLE: u32 = 8;
const CARRIED: u32 = 16;
/// Not [`Tried::Stranger`].
pub(crate) const CHARGED: u32 = 32;
const SLOT_SHIFT: u32 = 8;

/// Charges one SYN of a source, or of its prefix, in its line, as [`sources::charge`] does, and
/// does what follows. Returns [`OVER`] and [`CHARGED`]. `entry` is that of the counters.
/// Global: apart from the SYNs that pass in peace.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn charge(
    store: u32,
    source: u64,
    jiffies: u64,
    entry: u32,
    interface: u32,
) -> u32 {
    let (Some(config), Some(counters)) = (maps::config(), maps::counters(entry)) else {
        return 0;
    };
    let of_prefixes = store >= Store::Prefixes as u32;
    let proven = store == Store::Proven as u32 || store == Store::ProvenPrefixes as u32;
    let (key, reported, limit, verdict) = if of_prefixes {
        let of = |proven| Source(source).prefix(proven).0;
        let verdict = Verdict::LimitedPrefix as u32;
        (of(proven), of(false), config.prefix_limit, verdict)
    } else {
        let verdict = Verdict::LimitedSource as u32;
        (source, source, config.limit, verdict)
    };
    let Limit {
        interval,
        tolerance,
    } = limit;
    let mut charged = 0;
    for _ in 0..ATTEMPTS {
        charged = try_charge(store, key, jiffies, interval, tolerance);
        if charged & CONTENDED == 0 {
            break;
        }
    }
    if !of_prefixes {
        if charged & EVICTED != 0 {
            counters.count_eviction();
        }
        if charged & CONTENDED != 0 {
            counters.count_contended();
        }
        if charged & CARRIED != 0 && !proven {
            carry(source, charged >> SLOT_SHIFT, charged & OVER);
        }
    }
    if charged & REPORTABLE != 0 {
        let marks = verdict << 1 | u32::from(proven);
        report(reported, jiffies, interface, marks, config.pause_ticks);
    }
    charged & (OVER | CHARGED)
}

/// Tries it once; it was contended if another CPU changed a word first. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn try_charge(store: u32, key: u64, jiffies: u64, interval: u64, tolerance: u64) -> u32 {
    let (seed, source) = (maps::SEED.load(), Source(key));
    let line = if store == Store::Proven as u32 {
        maps::proven_line(sources::line_of(source, seed, PROVEN_LINES))
    } else if store >= Store::Prefixes as u32 {
        maps::prefix_line(sources::line_of(source, seed, PREFIX_LINES))
    } else {
        maps::source_line(sources::line_of(source, seed, LINES))
    };
    let Some(line) = line else {
        return 0;
    };
    let limit = Limit {
        interval,
        tolerance,
    };
    let now = Time::from_jiffies(jiffies);
    let may_enter = store != Store::KnownSources as u32;
    let charge = match sources::try_charge(&line, source, now, limit, may_enter) {
        Tried::Charged(charge) => charge,
        Tried::Stranger => return 0,
        Tried::Disturbed(over) => Charge {
            over,
            contended: true,
            ..Charge::NOTHING
        },
    };
    let flag = |is: bool, flag: u32| if is { flag } else { 0 };
    CHARGED
        | flag(charge.over, OVER)
        | flag(charge.evicted, EVICTED)
        | flag(charge.contended, CONTENDED)
        | flag(charge.reportable, REPORTABLE)
        | flag(charge.carried, CARRIED)
        | (charge.slot as u32) << SLOT_SHIFT
}

/// Adds the overflow of a bucket of a source to its carry. `over` is 1 for SYNs over the limit.
/// Global.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn carry(source: u64, slot: u32, over: u32) -> u32 {
    let source = Source(source);
    let index = sources::line_of(source, maps::SEED.load(), LINES);
    let slot = slot as usize % SLOTS_PER_LINE;
    maps::carry(index * SLOTS_PER_LINE + slot, source, over != 0);
    0
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

/// Whether one more SYN is over a bucket that all share; charges it if not. Global.
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
