//! Every map and global, and typed access to their values.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{
        Array, LpmTrie, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key as LpmKey,
        ring_buf::RingBufEntry,
    },
    programs::XdpContext,
};
use nomail_common::{
    abi::{
        self, CARRIES_PER_VALUE, CONFIGS, Config, Counters, DIALOG_PLACES, EVENTS_LENGTH,
        GENERATIONS, LINES, Line, MAX_BANS, MAX_GUARDED, MAX_INTERFACES, MAX_LIST_PREFIXES,
        MAX_PORTS, OWED_RING_LENGTH, PREFIX_LINES, PROVEN_LINES, Payload, SHARED_BUCKETS,
        SLOTS_PER_LINE, SharedLine, SourceCarry, TICKET_LINES, TICKETS_PER_LINE, TOLD_LINES, Texts,
        TicketLine, ToldLine,
    },
    guard::challenge::TupleHash,
    guard::events::{Entry, Event, ToldSet},
    guard::limiter::{Bucket, CARRY, Limit, SharedBucket, Time},
    guard::source::Source,
    guard::sources::SourceSet,
    guard::tickets::{self, Ticket, TicketSet},
    siphash::Key,
    stateless::retransmit::Owed,
    verdict::{Answer, Verdict},
    wire::packet::{Address, Segment},
};

use crate::{atomic::Word, cookie::Question};

#[unsafe(no_mangle)]
pub(crate) static PORTS: Global<[u16; MAX_PORTS]> = Global::new([0; MAX_PORTS]);
#[unsafe(no_mangle)]
pub(crate) static SEED: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static RESPONDER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KEY: Global<[u64; 2]> = Global::new([0; 2]);

/// The secret of challenges.
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
/// Mappable, because the values of such an array begin on a page: elsewhere a
/// [`Line`] would lie across two cache lines.
#[map]
static SOURCES: Array<Line> = Array::with_max_entries(LINES as u32, BPF_F_MMAPABLE);
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
static TOLD: Array<ToldLine> = Array::with_max_entries(2 * TOLD_LINES as u32, BPF_F_MMAPABLE);
#[map]
static RESPONDERS: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static TEXTS: Array<Texts> = Array::with_max_entries(GENERATIONS, 0);
#[map]
static DIALOGS: Array<u64> = Array::with_max_entries(DIALOG_PLACES, 0);
#[map]
static PAYLOAD: PerCpuArray<Payload> = PerCpuArray::with_max_entries(1, 0);
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
const _: () = assert!(abi::CONFIGS.is_power_of_two());

/// Whether the agent is known to be there, or its listeners to take connections.
#[inline(always)]
pub(crate) fn lease_holds(jiffies: u64) -> bool {
    LEASE
        .get(0)
        .is_some_and(|&until| abi::lease_holds(until, jiffies as u32))
}

/// Whether the responder may ever have to answer. Known when the program is loaded:
/// where it may not, all that is for it costs nothing.
#[inline(always)]
pub(crate) fn may_respond() -> bool {
    RESPONDER.load() != 0
}

/// Hands the frame over to the responder, and comes back only if there is none. To be
/// called by an entry point: of what calls a function that does this, the kernel
/// halves the stack.
#[inline(always)]
pub(crate) fn respond(context: &XdpContext) {
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

/// Room of this CPU for what a segment carries.
#[inline(always)]
pub(crate) fn payload() -> Option<&'static mut Payload> {
    // SAFETY: a value of a per-CPU map, of octets, and a program runs to its end
    // before another runs on the same CPU; asked for once in a run.
    PAYLOAD.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// The counters of this CPU for an interface, by the number of its entry.
#[inline(always)]
pub(crate) fn counters(entry: u32) -> Option<CpuCounters> {
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
    pub(crate) fn count_answer(&self, answer: Answer) {
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

/// Prefixes in network byte order, in words: the verifier wants the stack aligned.
macro_rules! lists {
    ($($name:ident: $words:literal;)*) => {
        $(
            #[map]
            static $name: LpmTrie<[u32; $words], u32> =
                LpmTrie::with_max_entries(MAX_LIST_PREFIXES + MAX_BANS, BPF_F_NO_PREALLOC);
        )*
    };
}

lists! {
    ALLOW_IPV4_0: 1;
    ALLOW_IPV4_1: 1;
    ALLOW_IPV6_0: 4;
    ALLOW_IPV6_1: 4;
    DENY_IPV4_0: 1;
    DENY_IPV4_1: 1;
    DENY_IPV6_0: 4;
    DENY_IPV6_1: 4;
}

/// Whether the peer of a segment is on the allow list.
#[inline(always)]
pub(crate) fn allowed(config: &Config, segment: &Segment) -> bool {
    if segment.is_ipv6() {
        config.lists & abi::LIST_ALLOW_IPV6 != 0
            && contains_ipv6(config, &ALLOW_IPV6_0, &ALLOW_IPV6_1, segment.peer)
    } else {
        config.lists & abi::LIST_ALLOW_IPV4 != 0
            && contains_ipv4(config, &ALLOW_IPV4_0, &ALLOW_IPV4_1, segment.peer)
    }
}

/// Whether the peer of a segment is on the deny list.
#[inline(always)]
pub(crate) fn denied(config: &Config, segment: &Segment) -> bool {
    if segment.is_ipv6() {
        config.lists & abi::LIST_DENY_IPV6 != 0
            && contains_ipv6(config, &DENY_IPV6_0, &DENY_IPV6_1, segment.peer)
    } else {
        config.lists & abi::LIST_DENY_IPV4 != 0
            && contains_ipv4(config, &DENY_IPV4_0, &DENY_IPV4_1, segment.peer)
    }
}

#[inline(always)]
fn contains_ipv4(
    config: &Config,
    first: &LpmTrie<[u32; 1], u32>,
    second: &LpmTrie<[u32; 1], u32>,
    peer: Address,
) -> bool {
    let key = LpmKey::new(32, [(peer.low as u32).to_be()]);
    let list = if config.list_set == 0 { first } else { second };
    list.get(key).is_some()
}

#[inline(always)]
fn contains_ipv6(
    config: &Config,
    first: &LpmTrie<[u32; 4], u32>,
    second: &LpmTrie<[u32; 4], u32>,
    peer: Address,
) -> bool {
    let Address { high, low } = peer;
    let words = [
        (high >> 32) as u32,
        high as u32,
        (low >> 32) as u32,
        low as u32,
    ];
    let key = LpmKey::new(128, words.map(u32::to_be));
    let list = if config.list_set == 0 { first } else { second };
    list.get(key).is_some()
}

/// Line `index` of the buckets of sources for SYNs that prove nothing.
#[inline(always)]
pub(crate) fn source_line(index: usize) -> Option<SourceLine> {
    SOURCES.get_ptr_mut(index as u32).map(SourceLine)
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

/// The jiffies at which the queue of a pair's listener was last seen to be full.
#[inline(always)]
pub(crate) fn queue(number: u32) -> Option<Word> {
    // SAFETY: as in `last_proof`.
    QUEUES
        .get_ptr_mut(number)
        .map(|word| unsafe { Word::new(word) })
}

/// Room of this CPU to ask the kernel for a cookie.
#[inline(always)]
pub(crate) fn question() -> Option<&'static mut Question> {
    // SAFETY: a value of a per-CPU map, of integers, and a program runs to its end
    // before another runs on the same CPU; asked for once in a run.
    QUESTION.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// Line `index` of who was told of.
#[inline(always)]
pub(crate) fn told_line(index: usize) -> Option<Told> {
    TOLD.get_ptr_mut(index as u32).map(Told)
}

/// Puts an event into the ring, and wakes nobody. There is room for all that can
/// come while the agent reads; when it does not, it is lost.
#[inline(always)]
pub(crate) fn tell(event: &Event) {
    let _ = EVENTS.output::<Event>(event, u64::from(BPF_RB_NO_WAKEUP));
}

/// Room in the ring for a greeting that is owed, to be written and handed to
/// [`tell_owed`]. None when the agent does not read: then it may be lost.
#[inline(always)]
pub(crate) fn room_for_owed() -> Option<RingBufEntry<Owed>> {
    OWED.reserve(0)
}

/// Tells the agent of it, without waking it, or nobody if it could not be written.
#[inline(always)]
pub(crate) fn tell_owed(entry: RingBufEntry<Owed>, written: bool) {
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
    fn ticket(&self, place: usize) -> Ticket {
        // SAFETY: the value of an array map, whose memory is never freed while
        // a program uses the map; place is below TICKETS_PER_LINE.
        Ticket(unsafe { Word::new(&raw mut (*self.0).tickets[place]) }.load())
    }

    #[inline(always)]
    fn write(&self, place: usize, ticket: Ticket) {
        // It always is below that, but the compiler does not see it, and would panic.
        if place < TICKETS_PER_LINE {
            // SAFETY: as in `ticket`.
            unsafe { Word::new(&raw mut (*self.0).tickets[place]) }.store(ticket.0);
        }
    }
}

/// A line of sources that were told of, which other CPUs read and write.
pub(crate) struct Told(*mut ToldLine);

impl Told {
    #[inline(always)]
    fn word(&self, place: usize) -> Word {
        // SAFETY: the value of an array map, whose memory is never freed while
        // a program uses the map; place is below TOLD_PER_LINE.
        unsafe { Word::new(&raw mut (*self.0).entries[place]) }
    }
}

impl ToldSet for Told {
    #[inline(always)]
    fn entry(&self, place: usize) -> Entry {
        Entry(self.word(place).load())
    }

    #[inline(always)]
    fn replace(&self, place: usize, old: Entry, new: Entry) -> bool {
        self.word(place).replace(old.0, new.0)
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

/// Whether one more unproven SYN would be over the cap of all.
#[inline(always)]
pub(crate) fn cap_is_exhausted(now: Time, limit: Limit) -> bool {
    limit.interval != 0
        && shared(abi::CAP).is_some_and(|cap| cap.bucket().or_full(now).is_over(now, limit))
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

/// Adds what ran over in a bucket to the carry of its slot. A carry of another
/// source, one that had the slot before, is begun anew; two CPUs that do so at
/// once may lose one carry of a count that is only shown.
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
