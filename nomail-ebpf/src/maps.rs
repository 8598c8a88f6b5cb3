//! All maps and globals, and typed access to their values.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_RB_NO_WAKEUP},
    btf_maps::{self, ArrayOfMaps},
    macros::{btf_map, map},
    maps::{Array, PerCpuArray, ProgramArray, RingBuf, ring_buf::RingBufEntry},
    programs::XdpContext,
};
use nomail_common::{
    abi::{
        CARRIES_PER_VALUE, CONFIGS, Config, Counters, DIALOG_ENTRIES, EVENTS_LENGTH, GENERATIONS,
        LINES, Line, MAX_GUARDED, MAX_INTERFACES, MAX_PORTS, OWED_RING_LENGTH, PREFIX_LINES,
        PROVEN_LINES, REPORTED_LINES, ReportedLine, SHARED_BUCKETS, SLOTS_PER_LINE, SharedLine,
        SourceCarry, TICKET_LINES, TICKETS_PER_LINE, Texts, TicketLine, WINDOW,
    },
    guard::challenge::TupleHash,
    guard::events::{Entry, Event, ReportedSet},
    guard::lease,
    guard::limiter::{Bucket, CARRY, SharedBucket},
    guard::lists::Page,
    guard::sources::{self, SourceSet},
    guard::tickets::{self, Ticket, TicketSet},
    siphash::Key,
    source::Source,
    stateless::retransmit::Retransmission,
    verdict::{Answer, Verdict},
};

use crate::{atomic::Word, frame::TcpHeader, trace::trace};

/// The payload of a segment.
pub(crate) type Payload = [u8; WINDOW];

/// The arguments of the kernel's SYN cookie helpers, which are too large for the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) tcp: TcpHeader,
    /// An IPv4 or IPv6 header.
    pub(crate) ip: [u64; 5],
    /// `bpf_sock_tuple`.
    pub(crate) tuple: [u64; 5],
}

#[unsafe(no_mangle)]
pub(crate) static PORTS: Global<[u16; MAX_PORTS]> = Global::new([0; MAX_PORTS]);
#[unsafe(no_mangle)]
pub(crate) static SEED: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static RESPONDER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KEY: Global<[u64; 2]> = Global::new([0; 2]);

/// Whether a port is one of ours. The verifier knows which slots are in use, and removes the
/// others.
#[inline(always)]
pub(crate) fn is_ours(port: u16) -> bool {
    let ports = (&raw const PORTS).cast::<u16>();
    (0..MAX_PORTS).any(|slot| {
        // SAFETY: within the array. Volatile: its values are patched before the program is
        // loaded.
        let ours = unsafe { ports.add(slot).read_volatile() };
        ours != 0 && ours == port
    })
}

/// The secret of challenges and cookies.
#[inline(always)]
pub(crate) fn key() -> Key {
    let [first, second] = KEY.load();
    Key(first, second)
}

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(CONFIGS, 0);
#[map]
static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static LEASE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> =
    PerCpuArray::with_max_entries(MAX_INTERFACES as u32 + 1, 0);
/// Mappable, because the values of such an array begin on a page: in any other a [`Line`]
/// would span two cache lines.
#[map]
static SOURCES: Array<Line> = Array::with_max_entries(LINES as u32, BPF_F_MMAPABLE);
#[map]
static RECENT: Array<[u8; LINES]> = Array::with_max_entries(1, 0);
#[map]
static PROVEN: Array<Line> = Array::with_max_entries(PROVEN_LINES as u32, BPF_F_MMAPABLE);
#[map]
static PREFIXES: Array<Line> = Array::with_max_entries(PREFIX_LINES as u32, BPF_F_MMAPABLE);
#[map]
static TICKETS: Array<TicketLine> = Array::with_max_entries(TICKET_LINES as u32, BPF_F_MMAPABLE);
#[map]
static SHARED: Array<SharedLine> = Array::with_max_entries(SHARED_BUCKETS, BPF_F_MMAPABLE);
#[map]
static QUEUES: Array<u64> = Array::with_max_entries(MAX_GUARDED as u32, 0);
#[map]
static QUESTION: PerCpuArray<Question> = PerCpuArray::with_max_entries(1, 0);
#[map]
static PROOFS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static CARRIES: Array<[SourceCarry; CARRIES_PER_VALUE]> =
    Array::with_max_entries((LINES * SLOTS_PER_LINE / CARRIES_PER_VALUE) as u32, 0);
#[map]
static TOLD: Array<ReportedLine> =
    Array::with_max_entries(2 * REPORTED_LINES as u32, BPF_F_MMAPABLE);
#[map]
static RESPONDERS: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static TEXTS: Array<Texts> = Array::with_max_entries(GENERATIONS, 0);
#[map]
static DIALOGS: Array<u64> = Array::with_max_entries(DIALOG_ENTRIES, 0);
#[map]
static PAYLOAD: PerCpuArray<Payload> = PerCpuArray::with_max_entries(1, 0);
/// A map of the lists' words, of as many values as they take.
pub(crate) type WordPages = btf_maps::Array<Page, 1, { BPF_F_INNER_MAP as usize }>;
#[btf_map]
static LISTS: ArrayOfMaps<WordPages, { CONFIGS as usize }> = ArrayOfMaps::new();
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_LENGTH, 0);
#[map]
static OWED: RingBuf = RingBuf::with_byte_size(OWED_RING_LENGTH, 0);

/// The configuration in use.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    let active = CONFIG_INDEX_MASK & *ACTIVE.get(0)?;
    CONFIG.get(active)
}

const CONFIG_INDEX_MASK: u32 = CONFIGS - 1;

/// Whether the lease holds, see [`lease`].
#[inline(always)]
pub(crate) fn lease_holds(jiffies: u64) -> bool {
    LEASE
        .get(0)
        .is_some_and(|&until| lease::lease_holds(until, jiffies as u32))
}

/// Whether the stateless refusal is loaded. The verifier knows it, and removes what is for it
/// where it is not.
#[inline(always)]
pub(crate) fn may_respond() -> bool {
    RESPONDER.load() != 0
}

/// Continues in the program of the stateless refusal; returns only if there is none. To be
/// called by an entry point only: the kernel halves the stack of callers of a function with a
/// tail call.
#[inline(always)]
pub(crate) fn call_responder(context: &XdpContext) {
    // SAFETY: nothing here needs to be dropped.
    unsafe { RESPONDERS.tail_call(context, 0) }
}

/// The texts of a generation.
#[inline(always)]
pub(crate) fn texts(generation: u32) -> Option<&'static Texts> {
    TEXTS.get(generation & (GENERATIONS - 1))
}

/// A word of the table of dialogs.
#[inline(always)]
pub(crate) fn dialog(index: u32) -> Option<Word> {
    // SAFETY: as in `last_proof`.
    DIALOGS
        .get_ptr_mut(index)
        .map(|word| unsafe { Word::new(word) })
}

/// This CPU's room for the payload of a segment.
#[inline(always)]
pub(crate) fn payload() -> Option<&'static mut Payload> {
    // SAFETY: a value of a per-CPU map, of bytes, and a program runs to its end before
    // another runs on the same CPU; asked for once in a run.
    PAYLOAD.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// This CPU's counters of an interface, by its entry.
#[inline(always)]
pub(crate) fn counters(entry: u32) -> Option<CpuCounters> {
    COUNTERS.get_ptr_mut(entry).map(CpuCounters)
}

/// Counters that only this CPU writes.
#[derive(Clone, Copy)]
pub(crate) struct CpuCounters(*mut Counters);

impl CpuCounters {
    #[inline(always)]
    pub(crate) fn count(&self, verdict: Verdict) {
        trace!(trace_verdict, verdict as u32);
        // SAFETY: a value of a per-CPU map, and a program runs to its end
        // before another runs on the same CPU.
        unsafe { (*self.0).verdicts[verdict as usize] += 1 };
    }

    #[inline(always)]
    pub(crate) fn count_answer(&self, answer: Answer) {
        trace!(trace_answer, answer as u32);
        // SAFETY: as in `count`.
        unsafe { (*self.0).answers[answer as usize] += 1 };
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

/// The lists of a set, see [`nomail_common::guard::lists`].
#[inline(always)]
pub(crate) fn lists(set: u32) -> Option<&'static WordPages> {
    LISTS.get(set & (CONFIGS - 1))
}

/// Line `index` of the buckets of sources for unproven SYNs.
#[inline(always)]
pub(crate) fn source_line(index: usize) -> Option<SourceLine> {
    SOURCES.get_ptr_mut(index as u32).map(SourceLine)
}

/// The byte of line `index` of the buckets of sources, see [`sources::epoch`].
#[inline(always)]
pub(crate) fn recent(index: usize) -> Option<Recent> {
    let first = RECENT.get_ptr_mut(0)?.cast::<u8>();
    // SAFETY: there are as many bytes as lines, a power of two.
    Some(Recent(unsafe { first.add(index & (LINES - 1)) }))
}

/// See [`recent`].
pub(crate) struct Recent(*mut u8);

impl Recent {
    /// Whether a source of the line may have been charged lately.
    #[inline(always)]
    pub(crate) fn is_in(&self, epoch: u8) -> bool {
        // SAFETY: within the value of an array map; a byte is written as a whole.
        sources::is_recent(unsafe { self.0.read_volatile() }, epoch)
    }

    /// Notes that a source of the line is charged. Writes once in an epoch: all CPUs read
    /// the byte.
    #[inline(always)]
    pub(crate) fn note(&self, epoch: u8) {
        // SAFETY: as in `is_in`.
        unsafe {
            if self.0.read_volatile() != epoch {
                self.0.write_volatile(epoch);
            }
        }
    }
}

/// Line `index` of the buckets of sources for SYNs whose tuple is proven.
#[inline(always)]
pub(crate) fn proven_line(index: usize) -> Option<SourceLine> {
    PROVEN.get_ptr_mut(index as u32).map(SourceLine)
}

/// Line `index` of the buckets of prefixes.
#[inline(always)]
pub(crate) fn prefix_line(index: usize) -> Option<SourceLine> {
    PREFIXES.get_ptr_mut(index as u32).map(SourceLine)
}

/// The line of the ticket of a tuple.
#[inline(always)]
pub(crate) fn ticket_line(source: Source, hash: TupleHash) -> Option<Tickets> {
    let index = tickets::line_of(source, hash, SEED.load());
    TICKETS.get_ptr_mut(index as u32).map(Tickets)
}

/// The bucket of RSTs of a source.
#[inline(always)]
pub(crate) fn resets_of(source: Source) -> Option<SharedWord> {
    let index = tickets::bucket_of(source, SEED.load());
    let line = TICKETS.get_ptr_mut(index as u32)?;
    // SAFETY: as in `last_proof`.
    Some(SharedWord(unsafe { Word::new(&raw mut (*line).resets) }))
}

/// The jiffies at which the last proof ends.
#[inline(always)]
pub(crate) fn last_proof() -> Option<Word> {
    // SAFETY: the value of an array map, aligned to 8, whose memory is never
    // freed while a program uses the map.
    PROOFS.get_ptr_mut(0).map(|word| unsafe { Word::new(word) })
}

/// The jiffies at which the queue of a pair's listener was last seen full.
#[inline(always)]
pub(crate) fn queue(number: u32) -> Option<Word> {
    // SAFETY: as in `last_proof`.
    QUEUES
        .get_ptr_mut(number)
        .map(|word| unsafe { Word::new(word) })
}

/// This CPU's room to ask the kernel for a SYN cookie.
#[inline(always)]
pub(crate) fn question() -> Option<&'static mut Question> {
    // SAFETY: a value of a per-CPU map, of integers, and a program runs to its end
    // before another runs on the same CPU; asked for once in a run.
    QUESTION.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// Line `index` of the sources that were reported.
#[inline(always)]
pub(crate) fn reported_line(index: usize) -> Option<Reported> {
    TOLD.get_ptr_mut(index as u32).map(Reported)
}

/// Puts an event into the ring, without waking the agent. There is room for all events while
/// the agent reads; when it does not, they are lost.
#[inline(always)]
pub(crate) fn send_event(event: &Event) {
    let _ = EVENTS.output::<Event>(event, u64::from(BPF_RB_NO_WAKEUP));
}

/// Room in the ring for a dialog whose greeting may have to be retransmitted, to be written
/// and handed to [`send_retransmission`]. None when the agent does not read.
#[inline(always)]
pub(crate) fn reserve_retransmission() -> Option<RingBufEntry<Retransmission>> {
    OWED.reserve(0)
}

/// Hands it to the agent, without waking it, or discards it if it could not be written.
#[inline(always)]
pub(crate) fn send_retransmission(entry: RingBufEntry<Retransmission>, written: bool) {
    if written {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    } else {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
    }
}

/// A line of tickets that other CPUs read and write.
pub(crate) struct Tickets(*mut TicketLine);

impl TicketSet for Tickets {
    #[inline(always)]
    fn ticket(&self, slot: usize) -> Ticket {
        // SAFETY: the value of an array map, whose memory is never freed while
        // a program uses the map; slot is below TICKETS_PER_LINE.
        Ticket(unsafe { Word::new(&raw mut (*self.0).tickets[slot]) }.load())
    }

    #[inline(always)]
    fn write(&self, slot: usize, ticket: Ticket) {
        // Always true, but the compiler does not see it, and would add a panic.
        if slot < TICKETS_PER_LINE {
            // SAFETY: as in `ticket`.
            unsafe { Word::new(&raw mut (*self.0).tickets[slot]) }.store(ticket.0);
        }
    }
}

/// A line of sources that were reported, which other CPUs read and write.
pub(crate) struct Reported(*mut ReportedLine);

impl Reported {
    #[inline(always)]
    fn word(&self, slot: usize) -> Word {
        // SAFETY: the value of an array map, whose memory is never freed while
        // a program uses the map; slot is below REPORTED_PER_LINE.
        unsafe { Word::new(&raw mut (*self.0).entries[slot]) }
    }
}

impl ReportedSet for Reported {
    #[inline(always)]
    fn entry(&self, slot: usize) -> Entry {
        Entry(self.word(slot).load())
    }

    #[inline(always)]
    fn replace(&self, slot: usize, old: Entry, new: Entry) -> bool {
        self.word(slot).replace(old.0, new.0)
    }
}

/// A bucket that all CPUs share.
#[inline(always)]
pub(crate) fn shared(bucket: u32) -> Option<SharedWord> {
    let line = SHARED.get_ptr_mut(bucket)?;
    // SAFETY: as in `last_proof`.
    Some(SharedWord(unsafe { Word::new(&raw mut (*line).bucket) }))
}

/// A bucket that other CPUs read and write.
#[derive(Clone, Copy)]
pub(crate) struct SharedWord(Word);

impl SharedBucket for SharedWord {
    #[inline(always)]
    fn bucket(&self) -> Bucket {
        Bucket(self.0.load())
    }

    #[inline(always)]
    fn replace(&self, old: Bucket, new: Bucket) -> bool {
        self.0.replace(old.0, new.0)
    }
}

/// A line that other CPUs read and write.
pub(crate) struct SourceLine(*mut Line);

impl SourceLine {
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

impl SourceSet for SourceLine {
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
        if nomail_common::Mechanism::ExactBucket.is_off() {
            self.bucket_word(slot).prepare(new.0);
            return old.0 != new.0;
        }
        self.bucket_word(slot).replace(old.0, new.0)
    }

    #[inline(always)]
    fn fill(&self, slot: usize, bucket: Bucket) {
        self.bucket_word(slot).prepare(bucket.0);
    }

    #[inline(always)]
    fn publish(&self, slot: usize, key: u64) {
        self.key_word(slot).store(key);
    }
}

/// Adds the overflow of a bucket to the carry of its slot. A carry of the source that had the
/// slot before starts again at 0; two CPUs that do so at once may lose one carry of a count
/// that is only shown.
#[inline(always)]
pub(crate) fn carry(slot: usize, source: Source, over: bool) {
    let Some(carries) = CARRIES.get_ptr_mut((slot / CARRIES_PER_VALUE) as u32) else {
        return;
    };
    // SAFETY: within the value.
    let carry = unsafe { carries.cast::<SourceCarry>().add(slot % CARRIES_PER_VALUE) };
    // SAFETY: a part of a value of an array map, aligned to 8.
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
