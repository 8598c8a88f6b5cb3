//! What both halves are built from: the maps with their names, keys and values, and the
//! bounds. [`ABI_VERSION`] changes with every layout or meaning in here.

pub use crate::{
    bounds::*,
    stateless::texts::{Text, Texts},
};
use crate::{
    counted::Counted as _,
    guard::{
        events::Event,
        limiter::Limit,
        probing::{self, PROBES, TableEntry, first_slot},
        tickets::ResetLimits,
    },
    siphash::Key,
    verdict::{Answer, Verdict},
    wire::packet::Address,
};

/// Version of the layouts and their meaning.
pub const ABI_VERSION: u32 = 10;

/// Name of the XDP program, also in the kernel's list of programs.
pub const PROGRAM: &str = "nomail";
/// Name of the program that refuses without a socket, see [`crate::stateless`].
pub const RESPONDER_PROGRAM: &str = "nomail_responder";
/// Name of the program that only returns the clock, see [`crate::guard::limiter`].
pub const CLOCK_PROGRAM: &str = "nomail_clock";

/// `Array<Config>` with [`CONFIGS`] entries.
pub const CONFIG_MAP: &str = "CONFIG";
/// `Array<u32>` with one entry, an [`Active`]: an aligned word, so that XDP sees a reload as
/// a whole or not at all.
pub const ACTIVE_MAP: &str = "ACTIVE";
/// `Array<u32>` with one entry: the end of the lease, see [`crate::guard::lease`].
pub const LEASE_MAP: &str = "LEASE";
/// `PerCpuArray<Counters>`: entry 0 is for an interface that is not in
/// [`Config::interfaces`], the others are 1 above the index there.
pub const COUNTERS_MAP: &str = "COUNTERS";
/// `Array<`[`Line`]`>`, mapped page-aligned so that a line is a cache line.
pub const SOURCES_MAP: &str = "SOURCES";
/// `Array<[u8; LINES]>` with one entry: the [`crate::guard::sources::epoch`] in which a source
/// of each line of [`SOURCES_MAP`] was last charged.
pub const RECENT_MAP: &str = "RECENT";
/// Like [`SOURCES_MAP`], with [`PROVEN_LINES`] lines: the buckets of sources for SYNs whose
/// tuple is proven. Forged SYNs do not empty these.
pub const PROVEN_MAP: &str = "PROVEN";
/// Like [`SOURCES_MAP`], with [`PREFIX_LINES`] lines: the buckets of prefixes.
pub const PREFIXES_MAP: &str = "PREFIXES";
/// `Array<`[`TicketLine`]`>`, see [`crate::guard::tickets`].
pub const TICKETS_MAP: &str = "TICKETS";
/// `Array<`[`SharedLine`]`>` of the buckets that all CPUs share: [`CAP`] and following.
pub const SHARED_MAP: &str = "SHARED";
/// `Array<u64>`, indexed by [`Guarded::number`]: the jiffies at which the queue of the
/// pair's listener was last seen full.
pub const QUEUES_MAP: &str = "QUEUES";
/// `Array<u64>` with one entry: the jiffies at which the last proof ends. After that no
/// tuple is proven, and no ticket is looked up.
pub const PROOFS_MAP: &str = "PROOFS";
/// `ArrayOfMaps` with [`CONFIGS`] entries, indexed by [`Config::list_set`]: an
/// `Array<`[`Page`](crate::guard::lists::Page)`>` with [`LIST_FLAGS`], see
/// [`crate::guard::lists`]. None, or one without a meaning, where [`Config::lists`] is 0.
pub const LISTS_MAP: &str = "LISTS";
/// `BPF_F_INNER_MAP`: the maps need not have the same number of entries.
pub const LIST_FLAGS: u32 = 1 << 12;
/// `Array<[SourceCarry; CARRIES_PER_VALUE]>`: one carry for each slot of [`SOURCES_MAP`].
pub const CARRIES_MAP: &str = "CARRIES";
/// `RingBuf` of [`Event`], read by the agent once a second.
pub const EVENTS_MAP: &str = "EVENTS";
/// `Array<`[`ReportedLine`]`>`: the sources that were reported, see [`crate::guard::events`].
pub const TOLD_MAP: &str = "TOLD";

/// `ProgramArray` with one entry: the program [`RESPONDER_PROGRAM`], or none.
pub const RESPONDERS_MAP: &str = "RESPONDERS";
/// `Array<`[`Texts`]`>` with [`GENERATIONS`] entries: [`Config::generation`] is the one for
/// new dialogs.
pub const TEXTS_MAP: &str = "TEXTS";
/// `Array<u64>` with [`DIALOG_ENTRIES`] entries, see [`crate::stateless::dialog_state`].
pub const DIALOGS_MAP: &str = "DIALOGS";
/// `RingBuf` of [`crate::stateless::retransmit::Retransmission`], read by the agent once a
/// second.
pub const OWED_MAP: &str = "OWED";

/// Global of the program, patched before it is loaded: not 0 where [`RESPONDER_PROGRAM`] may
/// have to answer. While it is 0, only SYNs and RSTs cost a look-up.
pub const RESPONDER_GLOBAL: &str = "RESPONDER";
/// Global of the program, patched before it is loaded: the guarded ports, in host byte
/// order, 0 where unused. A segment to any other port costs no look-up.
pub const PORTS_GLOBAL: &str = "PORTS";
/// Global of the program, patched before it is loaded: the secret of the hash that chooses a
/// source's line.
pub const SEED_GLOBAL: &str = "SEED";
/// Global of the program, patched before it is loaded: the [`Key`] of challenges and
/// cookies, as two words.
pub const KEY_GLOBAL: &str = "KEY";

/// Index in [`SHARED_MAP`] of the bucket of all unproven SYNs.
pub const CAP: u32 = 0;
/// Index in [`SHARED_MAP`] of the bucket of all RSTs that answer no challenge.
pub const RESETS: u32 = 1;
/// Index in [`SHARED_MAP`] of the bucket of SYNs that XDP cannot answer for what they are,
/// and passes.
pub const UNANSWERED: u32 = 2;
/// Entries of [`SHARED_MAP`].
pub const SHARED_BUCKETS: u32 = 3;

/// A slot in the table of guarded pairs. `port` 0 means free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// The address.
    pub address: Address,
    /// The port, in host byte order.
    pub port: u16,
    /// The VLAN tag of frames for the address: 0 for none, or [`VLAN_NONE`].
    pub vlan: u16,
    /// The number of the pair, below [`MAX_GUARDED`].
    pub number: u32,
}

impl TableEntry for Guarded {
    const FREE: Self = Self {
        address: Address { high: 0, low: 0 },
        port: 0,
        vlan: 0,
        number: 0,
    };

    fn key(&self) -> (Address, u16) {
        (self.address, self.port)
    }
}

/// A hardware address that frames on an interface may have beside [`Config::hardware`]: that
/// of a port of a bond, or of a device stacked on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FurtherHardware {
    /// The address, as in a frame.
    pub address: [u8; 6],
    /// 1 above the interface's index in [`Config::interfaces`]; 0 where unused.
    pub entry: u16,
}

/// [`Guarded::vlan`] of an address that XDP never answers for, because the tag of its frames
/// is not known.
pub const VLAN_NONE: u16 = 0xfffe;

/// Which [`CONFIG_MAP`] entry is in use, and what it names, for the next agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// The entry, below [`CONFIGS`]: the low bits of the word.
    pub config: u32,
    /// Its [`Config::list_set`].
    pub list_set: u32,
    /// Its [`Config::generation`].
    pub generation: u32,
}

impl Active {
    /// The word in [`ACTIVE_MAP`].
    pub const fn word(self) -> u32 {
        self.config | self.list_set << 8 | self.generation << 16
    }

    /// From the word in [`ACTIVE_MAP`].
    pub const fn from_word(word: u32) -> Self {
        Self {
            config: word % CONFIGS,
            list_set: (word >> 8) % CONFIGS,
            generation: (word >> 16) % GENERATIONS,
        }
    }
}

/// What the program enforces. The agent writes it as a whole into the entry that is not in
/// use, then makes that the one in use.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bucket of each source.
    pub limit: Limit,
    /// The bucket of each prefix; [`Limit::UNLIMITED`] when there is none.
    pub prefix_limit: Limit,
    /// The bucket of all unproven SYNs together; [`Limit::UNLIMITED`] when all pass.
    pub cap: Limit,
    /// The buckets of RSTs that answer no challenge.
    pub resets: ResetLimits,
    /// Not 0: count every verdict, neither drop nor answer anything.
    pub observe: u32,
    /// The answer to unproven SYNs over a limit: a [`crate::guard::policy::FloodAnswer`].
    pub flood_answer: u32,
    /// Jiffies shifted right by this are time slots of proofs.
    pub slot_shift: u32,
    /// How long a proof holds, in jiffies.
    pub proof_ticks: u32,
    /// How long a source is not reported again, in jiffies.
    pub pause_ticks: u32,
    /// When [`RESPONDER_PROGRAM`] answers: 0, never;
    /// [`RESPOND`](crate::guard::policy::RESPOND), always;
    /// [`RESPOND_FOR_LISTENERS`](crate::guard::policy::RESPOND_FOR_LISTENERS), while the
    /// lease has ended.
    pub responder: u32,
    /// The entry of [`TEXTS_MAP`] for new dialogs.
    pub generation: u32,
    /// Jiffies shifted right by this are time slots of the cookies of [`crate::stateless`].
    pub cookie_shift: u32,
    /// Which set of lists is in use, below [`CONFIGS`].
    pub list_set: u32,
    /// Which lists are not empty, see [`ListRoot::bit`](crate::guard::lists::ListRoot::bit).
    pub lists: u32,
    /// Odd multiplier of the hash into `guarded`, see [`first_slot`].
    pub guarded_seed: u64,
    /// Odd multiplier of the hash into `own`.
    pub own_seed: u64,
    /// Interface indexes, 0 where unused.
    pub interfaces: [u32; MAX_INTERFACES],
    /// Their hardware addresses: six bytes as in a frame, and two of zero.
    pub hardware: [[u8; 8]; MAX_INTERFACES],
    /// Open-addressed table of the guarded pairs.
    pub guarded: [Guarded; GUARDED_SLOTS],
    /// Further hardware addresses of the interfaces, those in use first.
    pub further_hardware: [FurtherHardware; MAX_FURTHER_HARDWARE],
    /// Open-addressed table of addresses that no client has: the host's own, guarded or
    /// not, and the first and the last of its networks.
    pub own: [Address; OWN_SLOTS],
}

impl Config {
    /// A configuration that guards nothing.
    pub const EMPTY: Self = Self {
        limit: Limit::UNLIMITED,
        prefix_limit: Limit::UNLIMITED,
        cap: Limit::UNLIMITED,
        resets: ResetLimits::UNLIMITED,
        observe: 0,
        flood_answer: 0,
        slot_shift: 0,
        proof_ticks: 0,
        pause_ticks: 0,
        responder: 0,
        generation: 0,
        cookie_shift: 0,
        list_set: 0,
        lists: 0,
        guarded_seed: 1,
        own_seed: 1,
        interfaces: [0; MAX_INTERFACES],
        hardware: [[0; 8]; MAX_INTERFACES],
        guarded: [Guarded::FREE; GUARDED_SLOTS],
        further_hardware: [FurtherHardware {
            address: [0; 6],
            entry: 0,
        }; MAX_FURTHER_HARDWARE],
        own: [Address::FREE; OWN_SLOTS],
    };

    /// Puts `pairs` into the table, trying `seeds` until each pair is found within
    /// [`PROBES`] slots. False, and nothing is guarded, if no seed fits; false, and the
    /// table unchanged, if there are more than [`MAX_GUARDED`].
    pub fn set_guarded(&mut self, pairs: &[Guarded], seeds: impl Iterator<Item = u64>) -> bool {
        if pairs.len() > MAX_GUARDED {
            return false;
        }
        let seed = probing::fill(&mut self.guarded, pairs, seeds);
        self.guarded_seed = seed.unwrap_or(1);
        seed.is_some()
    }

    /// Puts `own` into its table in the same way, at most [`MAX_OWN`].
    pub fn set_own(&mut self, own: &[Address], seeds: impl Iterator<Item = u64>) -> bool {
        if own.len() > MAX_OWN {
            return false;
        }
        let seed = probing::fill(&mut self.own, own, seeds);
        self.own_seed = seed.unwrap_or(1);
        seed.is_some()
    }

    /// Whether the address is one of [`Config::own`], so that it is never answered.
    #[inline(always)]
    pub fn is_own(&self, address: Address) -> bool {
        let first = first_slot(self.own_seed, address, 0, OWN_SLOTS);
        for probe in 0..PROBES {
            let own = &self.own[(first + probe) % OWN_SLOTS];
            if (own.high ^ address.high) | (own.low ^ address.low) == 0 {
                return true;
            }
            // An entry is before the first free slot.
            if own.high | own.low == 0 {
                return false;
            }
        }
        false
    }

    /// Whether the address is a further one of the interface whose index in
    /// [`Config::interfaces`] is 1 below `entry`; with 0, any address of any interface: a port
    /// of a bond, in native mode, runs the program of the bond, and its frames have the bond's
    /// address.
    #[inline(always)]
    pub fn is_further_hardware(&self, entry: u32, destination: [u8; 6]) -> bool {
        // Unused ones are all zeros.
        if entry == 0 && destination != [0; 6] {
            let own = hardware_word(destination);
            if self
                .hardware
                .iter()
                .any(|hardware| u64::from_ne_bytes(*hardware) == own)
            {
                return true;
            }
        }
        // Both in one word, from which 0 takes the entry.
        let word = |address, entry| hardware_word(address) | entry << 48;
        let mask = if entry == 0 { u64::MAX >> 16 } else { u64::MAX };
        let wanted = word(destination, u64::from(entry));
        for further in &self.further_hardware {
            if further.entry == 0 {
                return false;
            }
            if word(further.address, u64::from(further.entry)) & mask == wanted {
                return true;
            }
        }
        false
    }

    /// The slot of (address, port), if it is one of the guarded pairs.
    #[inline(always)]
    pub fn guarded(&self, address: Address, port: u16) -> Option<&Guarded> {
        let first = first_slot(self.guarded_seed, address, port, GUARDED_SLOTS);
        for probe in 0..PROBES {
            let slot = &self.guarded[(first + probe) % GUARDED_SLOTS];
            if slot.port == port
                && slot.address.high == address.high
                && slot.address.low == address.low
            {
                return Some(slot);
            }
            // A pair is before the first free slot.
            if slot.port == 0 {
                return None;
            }
        }
        None
    }
}

/// A hardware address as one word, to be compared: its bytes in a frame, and two of zero.
#[inline(always)]
pub const fn hardware_word(address: [u8; 6]) -> u64 {
    let [a0, a1, a2, a3, a4, a5] = address;
    u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, 0, 0])
}

/// What one CPU counted on one interface. Only ever incremented.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// SYNs received for a guarded pair, by [`Verdict`], of which each has one.
    pub verdicts: [u64; Verdict::COUNT],
    /// What XDP did beyond the verdict, by [`Answer`].
    pub answers: [u64; Answer::COUNT],
    /// Sources that lost their slot to another.
    pub evictions: u64,
    /// SYNs that passed uncharged because other CPUs kept changing their line, see
    /// [`crate::guard::sources`].
    pub contended: u64,
}

/// One set of a store of sources: a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// [`crate::source::Source`] of each slot, or a mark of
    /// [`crate::guard::sources`].
    pub keys: [u64; SLOTS_PER_LINE],
    /// [`crate::guard::limiter::Bucket`] of each slot.
    pub buckets: [u64; SLOTS_PER_LINE],
}

/// Tickets, and a bucket of RSTs: a cache line. See [`crate::guard::tickets`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TicketLine {
    /// [`crate::guard::tickets::Ticket`] of each slot.
    pub tickets: [u64; TICKETS_PER_LINE],
    /// [`crate::guard::limiter::Bucket`] of the RSTs that answered no challenge, of the
    /// sources whose hash chooses this line.
    pub resets: u64,
}

/// A [`crate::guard::limiter::Bucket`] with a cache line for itself.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedLine {
    /// The bucket.
    pub bucket: u64,
}

/// One set of the sources that were reported: a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportedLine {
    /// [`crate::guard::events::Entry`] of each slot.
    pub entries: [u64; REPORTED_PER_LINE],
}

/// Counts that overflowed in a [`crate::guard::limiter::Bucket`]. They belong to the source
/// named here, which may no longer be the one in the slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCarry {
    /// The source, as in [`Line::keys`].
    pub key: u64,
    /// SYNs admitted.
    pub admitted: u64,
    /// SYNs over the limit.
    pub limited: u64,
}

const _: () = {
    assert!(CONFIGS.is_power_of_two() && GENERATIONS.is_power_of_two());
    assert!(DIALOG_ENTRIES.is_power_of_two());
    assert!(size_of::<Texts>() == 3 * (TEXT_MAX + 8));
    assert!(size_of::<Guarded>() == 24);
    let tables = 24 * GUARDED_SLOTS + 16 * OWN_SLOTS + 8 * MAX_FURTHER_HARDWARE;
    assert!(size_of::<Config>() == 5 * 16 + 10 * 4 + 2 * 8 + 12 * MAX_INTERFACES + tables);
    assert!(size_of::<FurtherHardware>() == 8 && OWN_SLOTS.is_power_of_two());
    assert!(MAX_INTERFACES < u16::MAX as usize);
    assert!(align_of::<Config>() == 8);
    assert!(size_of::<Counters>() == 8 * (Verdict::COUNT + Answer::COUNT + 2));
    assert!(size_of::<TicketLine>() == 64 && TICKET_LINES.is_power_of_two());
    assert!(LINES_OF_SOURCE.is_power_of_two() && LINES_OF_SOURCE <= TICKET_LINES);
    assert!(size_of::<ReportedLine>() == 64 && size_of::<SharedLine>() == 64);
    assert!(PROVEN_LINES.is_power_of_two() && PREFIX_LINES.is_power_of_two());
    assert!(size_of::<Key>() == 16);
    assert!(REPORTED_LINES.is_power_of_two() && EVENTS_LENGTH.is_power_of_two());
    // The kernel puts 8 bytes before each, and leaves one byte free.
    assert!(
        2 * REPORTED_LINES * REPORTED_PER_LINE * (size_of::<Event>() + 8) < EVENTS_LENGTH as usize
    );
    assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);
    assert!(size_of::<SourceCarry>() == 24);
    assert!((LINES * SLOTS_PER_LINE).is_multiple_of(CARRIES_PER_VALUE));
    assert!(GUARDED_SLOTS.is_power_of_two() && LINES.is_power_of_two());
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), integers only, no padding (asserted above by size).
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Line {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SourceCarry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Texts {}
}

#[cfg(test)]
mod tests;
