//! Every map and global, and typed access to their values.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray},
};
use nomail_common::{
    abi::{
        self, CONFIGS, Config, Counters, LINES, Line, MAX_INTERFACES, MAX_PORTS, SLOTS_PER_LINE,
        SourceCarry,
    },
    limiter::{Bucket, CARRY},
    source::Source,
    sources::SourceSet,
    verdict::Verdict,
};

use crate::atomic::Word;

#[unsafe(no_mangle)]
pub(crate) static PORTS: Global<[u16; MAX_PORTS]> = Global::new([0; MAX_PORTS]);
#[unsafe(no_mangle)]
pub(crate) static SEED: Global<u64> = Global::new(0);

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(CONFIGS, 0);
#[map]
static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> =
    PerCpuArray::with_max_entries(MAX_INTERFACES as u32 + 1, 0);
/// Mappable, because the values of such an array begin on a page: elsewhere a
/// [`Line`] would lie across two cache lines.
#[map]
static SOURCES: Array<Line> = Array::with_max_entries(LINES as u32, BPF_F_MMAPABLE);
#[map]
static CARRIES: Array<SourceCarry> = Array::with_max_entries((LINES * SLOTS_PER_LINE) as u32, 0);

/// The configuration in use.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    let active = CONFIG_INDEX_MASK & *ACTIVE.get(0)?;
    CONFIG.get(active)
}

const CONFIG_INDEX_MASK: u32 = CONFIGS - 1;
const _: () = assert!(abi::CONFIGS.is_power_of_two());

/// The counters of this CPU for an interface.
#[inline(always)]
pub(crate) fn counters(config: &Config, interface: u32) -> Option<CpuCounters> {
    let mut entry = 0;
    for place in 0..MAX_INTERFACES {
        if config.interfaces[place] == interface {
            entry = place as u32 + 1;
            break;
        }
    }
    COUNTERS.get_ptr_mut(entry).map(CpuCounters)
}

/// Counters that only this CPU writes.
pub(crate) struct CpuCounters(*mut Counters);

impl CpuCounters {
    #[inline(always)]
    pub(crate) fn count(&self, verdict: Verdict) {
        // SAFETY: a value of a per-CPU map, and a program runs to its end
        // before another runs on the same CPU.
        unsafe { (*self.0).verdicts[verdict as usize] += 1 };
    }

    #[inline(always)]
    pub(crate) fn count_eviction(&self) {
        // SAFETY: as in `count`.
        unsafe { (*self.0).evictions += 1 };
    }

    #[inline(always)]
    pub(crate) fn count_contended(&self) {
        // SAFETY: as in `count`.
        unsafe { (*self.0).contended += 1 };
    }
}

/// Line `index` of the store of sources.
#[inline(always)]
pub(crate) fn line(index: usize) -> Option<SharedLine> {
    SOURCES.get_ptr_mut(index as u32).map(SharedLine)
}

/// A line that other CPUs read and write.
pub(crate) struct SharedLine(*mut Line);

impl SharedLine {
    #[inline(always)]
    fn key_word(&self, slot: usize) -> Word {
        // SAFETY: the value of an array map, whose memory is never freed while
        // a program uses the map; slot is below SLOTS_PER_LINE.
        unsafe { Word::new(&raw mut (*self.0).keys[slot]) }
    }

    #[inline(always)]
    fn bucket_word(&self, slot: usize) -> Word {
        // SAFETY: as in `key_word`.
        unsafe { Word::new(&raw mut (*self.0).buckets[slot]) }
    }
}

impl SourceSet for SharedLine {
    #[inline(always)]
    fn key(&self, slot: usize) -> u64 {
        self.key_word(slot).load()
    }

    #[inline(always)]
    fn replace_key(&self, slot: usize, old: u64, new: u64) -> bool {
        self.key_word(slot).replace(old, new)
    }

    #[inline(always)]
    fn bucket(&self, slot: usize) -> Bucket {
        Bucket(self.bucket_word(slot).load())
    }

    #[inline(always)]
    fn replace_bucket(&self, slot: usize, old: Bucket, new: Bucket) -> bool {
        self.bucket_word(slot).replace(old.0, new.0)
    }

    #[inline(always)]
    fn fill(&self, slot: usize, bucket: Bucket) {
        self.bucket_word(slot).store(bucket.0);
    }

    #[inline(always)]
    fn publish(&self, slot: usize, key: u64) {
        self.key_word(slot).store(key);
    }
}

/// Adds what ran over in a bucket to the carry of its slot. A carry of another
/// source, one that had the slot before, is begun anew; two CPUs that do so at
/// once may lose one carry of a count that is only shown.
#[inline(always)]
pub(crate) fn carry(slot: usize, source: Source, over: bool) {
    let Some(carry) = CARRIES.get_ptr_mut(slot as u32) else {
        return;
    };
    // SAFETY: a value of an array map, aligned to 8.
    let (key, admitted, limited) = unsafe {
        (
            Word::new(&raw mut (*carry).key),
            Word::new(&raw mut (*carry).admitted),
            Word::new(&raw mut (*carry).limited),
        )
    };
    if key.load() != source.0 {
        admitted.store(0);
        limited.store(0);
        key.store(source.0);
    }
    if over {
        limited.add(CARRY);
    } else {
        admitted.add(CARRY);
    }
}
