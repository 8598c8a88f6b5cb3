//! The maps: names, keys, values and bounds. Both halves are built from this
//! file; [`ABI_VERSION`] changes whenever a layout or a meaning here does.

use crate::{
    counted::Counted as _,
    guard::events::Event,
    guard::limiter::Limit,
    guard::probing::{self, PROBES, Place, first_place},
    guard::tickets::ResetLimits,
    siphash::Key,
    stateless::dialog::{TEXT_MAX, WINDOW},
    verdict::{Answer, Verdict},
    wire::packet::Address,
};

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 8;

/// Name of the XDP program, also in the kernel's list of programs.
pub const PROGRAM: &str = "nomail";
/// Name of the program that answers without a listener, see [`crate::stateless::dialog`].
pub const RESPONDER_PROGRAM: &str = "nomail_responder";
/// Name of the program that only returns the clock, see [`crate::guard::limiter`].
pub const CLOCK_PROGRAM: &str = "nomail_clock";

/// `Array<Config>` with [`CONFIGS`] entries: one in use, one to be written next.
pub const CONFIG_MAP: &str = "CONFIG";
/// `Array<u32>` with one entry, an [`Active`]: an aligned word, so that a reload is seen
/// as a whole or not at all.
pub const ACTIVE_MAP: &str = "ACTIVE";
/// `Array<u32>` with one entry: until when the agent is known to be there, or its
/// listeners to take connections, see [`lease_holds`].
pub const LEASE_MAP: &str = "LEASE";
/// `PerCpuArray<Counters>`, indexed by the interface's place in
/// [`Config::interfaces`] plus one; entry 0 is for an interface not in there.
pub const COUNTERS_MAP: &str = "COUNTERS";
/// `Array<`[`Line`]`>`, mapped page-aligned so that a line is a cache line.
pub const SOURCES_MAP: &str = "SOURCES";
/// Like [`SOURCES_MAP`], with [`PROVEN_LINES`] lines: the buckets of sources for
/// SYNs whose tuple is proven. Who forges an address does not empty this one.
pub const PROVEN_MAP: &str = "PROVEN";
/// Like [`SOURCES_MAP`], with [`PREFIX_LINES`] lines: the buckets of prefixes.
pub const PREFIXES_MAP: &str = "PREFIXES";
/// `Array<`[`TicketLine`]`>`, see [`crate::guard::tickets`].
pub const TICKETS_MAP: &str = "TICKETS";
/// `Array<`[`SharedLine`]`>` of buckets that all CPUs share, by [`CAP`] and following.
pub const SHARED_MAP: &str = "SHARED";
/// `Array<u64>`, indexed by [`Guarded::number`]: the jiffies at which the queue of
/// the pair's listener was last seen to be full.
pub const QUEUES_MAP: &str = "QUEUES";
/// `Array<u64>` with one entry: the jiffies at which the last proof ends. After
/// that no tuple is proven, and none need be looked up.
pub const PROOFS_MAP: &str = "PROOFS";
/// `LpmTrie<[u8; 4], u32>` and `LpmTrie<[u8; 16], u32>`: the lists, of which
/// [`Config::list_set`] chooses one set.
pub const ALLOW_IPV4_MAPS: [&str; CONFIGS as usize] = ["ALLOW_IPV4_0", "ALLOW_IPV4_1"];
/// See [`ALLOW_IPV4_MAPS`].
pub const ALLOW_IPV6_MAPS: [&str; CONFIGS as usize] = ["ALLOW_IPV6_0", "ALLOW_IPV6_1"];
/// See [`ALLOW_IPV4_MAPS`].
pub const DENY_IPV4_MAPS: [&str; CONFIGS as usize] = ["DENY_IPV4_0", "DENY_IPV4_1"];
/// See [`ALLOW_IPV4_MAPS`].
pub const DENY_IPV6_MAPS: [&str; CONFIGS as usize] = ["DENY_IPV6_0", "DENY_IPV6_1"];
/// `Array<[SourceCarry; CARRIES_PER_VALUE]>`: one for each slot of [`SOURCES_MAP`].
pub const CARRIES_MAP: &str = "CARRIES";
/// Carries in a value of [`CARRIES_MAP`]: what a map takes to be read goes by its
/// values more than by their length.
pub const CARRIES_PER_VALUE: usize = 32;
/// `RingBuf` of [`crate::guard::events::Event`], read by the agent once a second.
pub const EVENTS_MAP: &str = "EVENTS";
/// `Array<`[`ToldLine`]`>`: which sources were told of, see [`crate::guard::events`].
pub const TOLD_MAP: &str = "TOLD";

/// `ProgramArray` with one entry: the program [`RESPONDER_PROGRAM`], or none.
pub const RESPONDERS_MAP: &str = "RESPONDERS";
/// `Array<`[`Texts`]`>` with [`GENERATIONS`] entries: what the responder says, of
/// which [`Config::generation`] is for new dialogs.
pub const TEXTS_MAP: &str = "TEXTS";
/// `Array<u64>` with [`DIALOG_PLACES`] entries of [`crate::stateless::dialog::Standing`].
pub const DIALOGS_MAP: &str = "DIALOGS";

/// `RingBuf` of [`crate::stateless::retransmit::Owed`], read by the agent once a second.
pub const OWED_MAP: &str = "OWED";

/// Global of the program, patched before load: not 0 when [`RESPONDER_PROGRAM`] may
/// have to answer. While it is 0, only SYNs and RSTs cost a look-up.
pub const RESPONDER_GLOBAL: &str = "RESPONDER";
/// Global of the program, patched before load: the guarded ports, in host
/// byte order, 0 where unused. A segment to any other port costs no look-up.
pub const PORTS_GLOBAL: &str = "PORTS";
/// Global of the program, patched before load: the secret of the hash that
/// chooses a source's line.
pub const SEED_GLOBAL: &str = "SEED";
/// Global of the program, patched before load: the [`Key`] of challenges, as two
/// words.
pub const KEY_GLOBAL: &str = "KEY";

/// Entries of [`CONFIG_MAP`].
pub const CONFIGS: u32 = 2;
/// How long a program that outlives its agent goes on challenging for it. Short
/// against what a client waits for, long against what a flood delays the agent.
pub const LEASE_SECS: u32 = 10;
/// The same where XDP takes over when the lease ends ([`RESPOND_FOR_LISTENERS`]): with
/// the time until the agent knows that its listeners no longer take connections, less
/// than a second.
pub const FALLBACK_LEASE_MILLIS: u32 = 600;
/// The longest lease in jiffies, of which there are at most 1000 in a second.
const LEASE_TICKS_MAX: u32 = LEASE_SECS * 1000;
/// Most interfaces that one agent guards.
pub const MAX_INTERFACES: usize = 16;
/// Most different ports that one agent listens on.
pub const MAX_PORTS: usize = 4;
/// Places in the table of guarded pairs, a power of two.
pub const GUARDED_PLACES: usize = 4096;
/// Most guarded (address, port) pairs: a quarter of the places, so that a seed
/// with which every pair is found in [`PROBES`] is soon found.
pub const MAX_GUARDED: usize = GUARDED_PLACES / 4;
/// Places in the table of own addresses, a power of two.
pub const OWN_PLACES: usize = 4096;
/// Most own addresses that XDP is given: a quarter of the places, as above.
pub const MAX_OWN: usize = OWN_PLACES / 4;
/// Most further hardware addresses, of all interfaces together.
pub const MAX_FURTHER_HARDWARE: usize = 32;
/// Slots for sources in one [`Line`].
pub const SLOTS_PER_LINE: usize = 4;
/// Lines in [`SOURCES_MAP`], a power of two: 65,536 sources in 1 MiB, which
/// keeps the table within a second-level cache.
pub const LINES: usize = 16_384;
/// Lines in [`PROVEN_MAP`], a power of two: 16,384 sources.
pub const PROVEN_LINES: usize = 4096;
/// Lines in [`PREFIXES_MAP`], a power of two: 16,384 prefixes.
pub const PREFIX_LINES: usize = 4096;
/// Tickets in one [`TicketLine`].
pub const TICKETS_PER_LINE: usize = 7;
/// Lines that the tickets of one source lie in, a power of two: 1,792 tickets.
pub const LINES_OF_SOURCE: usize = 256;
/// Lines in [`TICKETS_MAP`], a power of two: 57,344 tickets.
pub const TICKET_LINES: usize = 8192;
/// Entries in one [`ToldLine`].
pub const TOLD_PER_LINE: usize = 8;
/// Lines for the proven in [`TOLD_MAP`], and for the others, a power of two: 1,024
/// sources each, and so at most as many events in [`crate::guard::events::PAUSE_SECS`].
pub const TOLD_LINES: usize = 128;

/// Place in [`SHARED_MAP`] of the bucket of all unproven SYNs.
pub const CAP: u32 = 0;
/// The same of all RSTs that answered no challenge.
pub const RESETS: u32 = 1;
/// The same of SYNs that cannot be answered for what they are, and pass.
pub const UNANSWERED: u32 = 2;
/// Entries of [`SHARED_MAP`].
pub const SHARED_BUCKETS: u32 = 3;
/// Octets of [`EVENTS_MAP`], a power of two and of whole pages: room for all that
/// may come in [`crate::guard::events::PAUSE_SECS`].
pub const EVENTS_LENGTH: u32 = 128 * 1024;
/// Octets of [`OWED_MAP`], as above: room for 512 dialogs that begin in a second.
pub const OWED_RING_LENGTH: u32 = 64 * 1024;
/// Most prefixes in one list of one family.
pub const MAX_LIST_PREFIXES: u32 = 1 << 20;
/// Most prefixes that are denied beside the list, of both families together.
pub const MAX_BANS: u32 = 1 << 18;

/// Entries of [`TEXTS_MAP`], a power of two: so many times less one the texts may
/// change while a dialog goes on.
pub const GENERATIONS: u32 = 4;
/// Entries of [`DIALOGS_MAP`], a power of two.
pub const DIALOG_PLACES: u32 = 65_536;

/// A place in the table of guarded pairs. `port` 0 means free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// The address.
    pub address: Address,
    /// The port, in host byte order.
    pub port: u16,
    /// The VLAN that frames for the address are tagged with, 0 for none, or
    /// [`VLAN_NONE`].
    pub vlan: u16,
    /// Its own number, below [`MAX_GUARDED`].
    pub number: u32,
}

/// A hardware address of an interface beside its own in [`Config::hardware`]: that of a
/// port of a bond, or of a device above it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FurtherHardware {
    /// The address, as in a frame.
    pub address: [u8; 6],
    /// The interface's place in [`Config::interfaces`] plus one; 0 where unused.
    pub entry: u16,
}

/// [`Guarded::vlan`] of an address that XDP never answers for, because it is not
/// known behind which tag it lives.
pub const VLAN_NONE: u16 = 0xfffe;

/// Which [`CONFIG_MAP`] entry is in use, and for the next agent what that names.
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
    /// As it lies in [`ACTIVE_MAP`].
    pub const fn word(self) -> u32 {
        self.config | self.list_set << 8 | self.generation << 16
    }

    /// From [`ACTIVE_MAP`].
    pub const fn from_word(word: u32) -> Self {
        Self {
            config: word % CONFIGS,
            list_set: (word >> 8) % CONFIGS,
            generation: (word >> 16) % GENERATIONS,
        }
    }
}

/// What the program is told by the agent. Written as a whole into the entry
/// that is not in use, then made the one in use.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bucket of each source.
    pub limit: Limit,
    /// The bucket of each prefix; [`Limit::UNLIMITED`] when there is none.
    pub prefix_limit: Limit,
    /// The bucket of all unproven SYNs together; [`Limit::UNLIMITED`] when they
    /// all pass.
    pub cap: Limit,
    /// The buckets of RSTs that answer no challenge.
    pub resets: ResetLimits,
    /// Not 0: count every verdict, neither drop nor answer anything.
    pub observe: u32,
    /// What the unproven get that are over a limit: a
    /// [`crate::guard::policy::FloodAnswer`].
    pub flood_answer: u32,
    /// Jiffies shifted right by this are time slots of proofs.
    pub slot_shift: u32,
    /// How long a proof holds, in jiffies.
    pub proof_ticks: u32,
    /// How long nothing more is told of a source, in jiffies.
    pub pause_ticks: u32,
    /// When [`RESPONDER_PROGRAM`] answers: 0, never; [`RESPOND`], always;
    /// [`RESPOND_FOR_LISTENERS`], while the lease has ended.
    pub responder: u32,
    /// Which entry of [`TEXTS_MAP`] new dialogs are served from.
    pub generation: u32,
    /// Jiffies shifted right by this are time slots of the responder's cookies.
    pub cookie_shift: u32,
    /// Which set of lists is in use, below [`CONFIGS`].
    pub list_set: u32,
    /// Which lists are not empty: bits [`LIST_ALLOW_IPV4`] and following.
    pub lists: u32,
    /// Odd multiplier of the hash into `guarded`, see [`first_place`].
    pub guarded_seed: u64,
    /// The same for `own`.
    pub own_seed: u64,
    /// Interface indexes, 0 where unused.
    pub interfaces: [u32; MAX_INTERFACES],
    /// Their hardware addresses, as six octets of a frame and two of zero.
    pub hardware: [[u8; 8]; MAX_INTERFACES],
    /// Open-addressed table of the guarded pairs.
    pub guarded: [Guarded; GUARDED_PLACES],
    /// Further hardware addresses of the interfaces, those in use first.
    pub further_hardware: [FurtherHardware; MAX_FURTHER_HARDWARE],
    /// Open-addressed table of addresses that no client has: the host's own, guarded or
    /// not, and the first and the last of its networks. With port 0.
    pub own: [Address; OWN_PLACES],
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
        guarded: [Guarded::FREE; GUARDED_PLACES],
        further_hardware: [FurtherHardware {
            address: [0; 6],
            entry: 0,
        }; MAX_FURTHER_HARDWARE],
        own: [Address::FREE; OWN_PLACES],
    };

    /// Puts `pairs` into the table, trying seeds from `seeds` until each pair
    /// is found within [`PROBES`] places. False, and nothing is guarded, if no seed fits;
    /// false, and the table unchanged, if there are more than [`MAX_GUARDED`].
    pub fn set_guarded(&mut self, pairs: &[Guarded], seeds: impl Iterator<Item = u64>) -> bool {
        if pairs.len() > MAX_GUARDED {
            return false;
        }
        let seed = probing::fill(&mut self.guarded, pairs, seeds);
        self.guarded_seed = seed.unwrap_or(1);
        seed.is_some()
    }

    /// The same with own addresses, of which there are at most [`MAX_OWN`].
    pub fn set_own(&mut self, own: &[Address], seeds: impl Iterator<Item = u64>) -> bool {
        if own.len() > MAX_OWN {
            return false;
        }
        let seed = probing::fill(&mut self.own, own, seeds);
        self.own_seed = seed.unwrap_or(1);
        seed.is_some()
    }

    /// Whether it is one of [`Config::own`], so that it is never answered.
    #[inline(always)]
    pub fn is_own(&self, address: Address) -> bool {
        let first = first_place(self.own_seed, address, 0, OWN_PLACES);
        for probe in 0..PROBES {
            let own = &self.own[(first + probe) % OWN_PLACES];
            if own.high == address.high && own.low == address.low {
                return true;
            }
        }
        false
    }

    /// Whether frames to that hardware address are for the interface whose place in
    /// [`Config::interfaces`] is `entry` less one; with 0, for any of them. Its own in
    /// [`Config::hardware`] is not looked at.
    #[inline(always)]
    pub fn is_further_hardware(&self, entry: u32, destination: [u8; 6]) -> bool {
        self.further_hardware.iter().any(|further| {
            further.entry != 0
                && (entry == 0 || u32::from(further.entry) == entry)
                && further.address == destination
        })
    }

    /// The place of (address, port), if it is one of the pairs the agent listens
    /// on.
    #[inline(always)]
    pub fn guarded(&self, address: Address, port: u16) -> Option<&Guarded> {
        let first = first_place(self.guarded_seed, address, port, GUARDED_PLACES);
        for probe in 0..PROBES {
            let place = &self.guarded[(first + probe) % GUARDED_PLACES];
            if place.port == port
                && place.address.high == address.high
                && place.address.low == address.low
            {
                return Some(place);
            }
        }
        None
    }
}

/// [`Config::responder`]: nobody listens.
pub const RESPOND: u32 = 1;
/// [`Config::responder`]: there are listeners, whose place is taken while they do not
/// serve. What has begun with one of both ends with it.
pub const RESPOND_FOR_LISTENERS: u32 = 2;

/// Whether there are listeners that serve, for whom XDP may challenge. `until` is the
/// word of [`LEASE_MAP`], 0 where the program ends with its agent anyway; both are the
/// low 32 bits of jiffies. An old lease looks like a new one again for
/// [`LEASE_SECS`] in 2^32 jiffies, 50 days at 1000 Hz.
#[inline(always)]
pub const fn lease_holds(until: u32, now: u32) -> bool {
    until == 0 || until.wrapping_sub(now) <= LEASE_TICKS_MAX || crate::Mechanism::Lease.is_off()
}

/// Bit of [`Config::lists`].
pub const LIST_ALLOW_IPV4: u32 = 1;
/// Bit of [`Config::lists`].
pub const LIST_ALLOW_IPV6: u32 = 2;
/// Bit of [`Config::lists`].
pub const LIST_DENY_IPV4: u32 = 4;
/// Bit of [`Config::lists`].
pub const LIST_DENY_IPV6: u32 = 8;

/// What one CPU counted on one interface. Only ever incremented.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received SYNs by [`Verdict`]; their sum is every SYN received for a
    /// guarded pair.
    pub verdicts: [u64; Verdict::COUNT],
    /// What XDP did by itself, by [`Answer`].
    pub answers: [u64; Answer::COUNT],
    /// Sources that lost their slot to another.
    pub evictions: u64,
    /// SYNs that passed without a bucket, because other CPUs kept changing
    /// their line; see [`crate::guard::sources`].
    pub contended: u64,
}

/// One set of the store of sources: a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// [`crate::guard::source::Source`] of each slot, or a mark of [`crate::guard::sources`].
    pub keys: [u64; SLOTS_PER_LINE],
    /// [`crate::guard::limiter::Bucket`] of each slot.
    pub buckets: [u64; SLOTS_PER_LINE],
}

/// Tickets, and a bucket of RSTs: a cache line. See [`crate::guard::tickets`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TicketLine {
    /// [`crate::guard::tickets::Ticket`] of each place.
    pub tickets: [u64; TICKETS_PER_LINE],
    /// [`crate::guard::limiter::Bucket`] of the RSTs that answered no challenge, of the sources
    /// whose hash chooses this line.
    pub resets: u64,
}

/// A [`crate::guard::limiter::Bucket`] with a cache line for itself.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedLine {
    /// The bucket.
    pub bucket: u64,
}

/// One set of the sources that were told of: a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToldLine {
    /// [`crate::guard::events::Entry`] of each place.
    pub entries: [u64; TOLD_PER_LINE],
}

/// Counts that ran over in a [`crate::guard::limiter::Bucket`]. They belong to the
/// source named here, which may no longer be the one in the slot.
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

/// One text that the responder says, with its CRLF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, and zeros behind it.
    pub octets: [u8; TEXT_MAX],
    /// How many octets it has; 0 where there is none.
    pub length: u32,
    /// The sum of its 16-bit words, the last one filled up with zero (RFC 1071).
    pub sum: u32,
}

impl Text {
    /// No text.
    pub const EMPTY: Self = Self {
        octets: [0; TEXT_MAX],
        length: 0,
        sum: 0,
    };
}

/// What the responder says: one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texts {
    /// Before anything was asked.
    pub greeting: Text,
    /// To every command but QUIT. Empty: it closes after the greeting (RFC 1846
    /// section 4.2 a).
    pub refusal: Text,
    /// To QUIT.
    pub goodbye: Text,
}

impl Texts {
    /// None: a generation that was never in use.
    pub const EMPTY: Self = Self {
        greeting: Text::EMPTY,
        refusal: Text::EMPTY,
        goodbye: Text::EMPTY,
    };
}

/// Room for what a segment carries.
pub type Payload = [u8; WINDOW];

const _: () = {
    assert!(GENERATIONS.is_power_of_two() && DIALOG_PLACES.is_power_of_two());
    assert!(size_of::<Texts>() == 3 * (TEXT_MAX + 8));
    assert!(size_of::<Guarded>() == 24);
    let tables = 24 * GUARDED_PLACES + 16 * OWN_PLACES + 8 * MAX_FURTHER_HARDWARE;
    assert!(size_of::<Config>() == 5 * 16 + 10 * 4 + 2 * 8 + 12 * MAX_INTERFACES + tables);
    assert!(size_of::<FurtherHardware>() == 8 && OWN_PLACES.is_power_of_two());
    assert!(MAX_INTERFACES < u16::MAX as usize);
    assert!(align_of::<Config>() == 8);
    assert!(size_of::<Counters>() == 8 * (Verdict::COUNT + Answer::COUNT + 2));
    assert!(size_of::<TicketLine>() == 64 && TICKET_LINES.is_power_of_two());
    assert!(LINES_OF_SOURCE.is_power_of_two() && LINES_OF_SOURCE <= TICKET_LINES);
    assert!(size_of::<ToldLine>() == 64 && size_of::<SharedLine>() == 64);
    assert!(PROVEN_LINES.is_power_of_two() && PREFIX_LINES.is_power_of_two());
    assert!(size_of::<Key>() == 16);
    assert!(TOLD_LINES.is_power_of_two() && EVENTS_LENGTH.is_power_of_two());
    // The kernel puts 8 octets before each, and leaves one octet free.
    assert!(2 * TOLD_LINES * TOLD_PER_LINE * (size_of::<Event>() + 8) < EVENTS_LENGTH as usize);
    assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);
    assert!(size_of::<SourceCarry>() == 24);
    assert!((LINES * SLOTS_PER_LINE).is_multiple_of(CARRIES_PER_VALUE));
    assert!(GUARDED_PLACES.is_power_of_two() && LINES.is_power_of_two());
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(address: Address, port: u16) -> Guarded {
        Guarded {
            address,
            port,
            ..Guarded::default()
        }
    }

    fn seeds() -> impl Iterator<Item = u64> {
        (1u64..200).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn a_lease_ends_and_does_not_begin_anew_at_the_wrap() {
        for now in [0, 1, 1000, u32::MAX - 3, u32::MAX] {
            assert!(lease_holds(0, now), "none is needed");
            assert!(lease_holds(
                now.wrapping_add(LEASE_TICKS_MAX) | 1,
                now.wrapping_add(1)
            ));
            let until = now.wrapping_add(2500) | 1;
            assert!(lease_holds(until, now) && lease_holds(until, until));
            assert!(!lease_holds(until, until.wrapping_add(1)));
            assert!(!lease_holds(until, until.wrapping_add(1 << 31)));
        }
    }

    #[test]
    fn the_most_pairs_are_guarded_and_no_other() {
        let pairs: Vec<_> = (0..MAX_GUARDED as u32)
            .map(|n| pair(Address::from_ipv4(0xc000_0200 + n), 25))
            .collect();
        let mut config = Config::EMPTY;
        assert!(config.set_guarded(&pairs, seeds()));
        for &Guarded { address, port, .. } in &pairs {
            assert!(config.guarded(address, port).is_some());
            assert!(config.guarded(address, 26).is_none());
        }
        let other = Address::from_ipv4(0xc000_0200 + MAX_GUARDED as u32);
        assert!(config.guarded(other, 25).is_none());
        let one_more: Vec<_> = (0..=MAX_GUARDED as u32)
            .map(|n| pair(Address::from_ipv4(n + 1), 25))
            .collect();
        assert!(!config.set_guarded(&one_more, seeds()));
        let kept = config.guarded(pairs[0].address, 25);
        assert!(kept.is_some(), "a refusal changes nothing");
    }

    #[test]
    fn own_addresses_are_found_and_no_other() {
        let ipv6 = Address {
            high: 0x2001_0db8_0000_0000,
            low: 1,
        };
        let own: Vec<_> = (1..MAX_OWN as u32)
            .map(|n| Address::from_ipv4(0xc633_6400 + n))
            .chain([ipv6])
            .collect();
        let mut config = Config::EMPTY;
        assert!(!config.is_own(ipv6));
        assert!(config.set_own(&own, seeds()));
        assert!(own.iter().all(|own| config.is_own(*own)));
        for other in [0, 0xc633_6400, 0xc633_6400 + MAX_OWN as u32] {
            assert!(!config.is_own(Address::from_ipv4(other)));
        }
        let most = [ipv6; MAX_OWN + 1];
        assert!(!config.set_own(&most, seeds()));
        assert!(config.is_own(ipv6), "a refusal changes nothing");
        assert!(config.set_own(&[], seeds()));
        assert!(!config.is_own(ipv6));
    }

    #[test]
    fn a_further_hardware_address_is_of_its_interface() {
        let address = [2, 0, 0, 0, 0, 7];
        let mut config = Config::EMPTY;
        assert!(!config.is_further_hardware(0, [0; 6]), "none is all zeros");
        config.further_hardware[0] = FurtherHardware { address, entry: 2 };
        assert!(config.is_further_hardware(2, address));
        assert!(config.is_further_hardware(0, address), "on a port");
        assert!(!config.is_further_hardware(1, address));
        assert!(!config.is_further_hardware(2, [2, 0, 0, 0, 0, 8]));
    }

    proptest! {
        #[test]
        fn guards_exactly_the_pairs(
            inside in proptest::collection::hash_set((any::<u64>(), any::<u64>(), 1u16..), 0..40),
            outside in (any::<u64>(), any::<u64>(), 1u16..),
        ) {
            let pairs: Vec<_> =
                inside.iter().map(|&(high, low, port)| pair(Address { high, low }, port)).collect();
            let mut config = Config::EMPTY;
            prop_assert!(config.set_guarded(&pairs, seeds()));
            for wanted in &pairs {
                prop_assert_eq!(config.guarded(wanted.address, wanted.port), Some(wanted));
            }
            let (high, low, port) = outside;
            prop_assert_eq!(
                config.guarded(Address { high, low }, port).is_some(),
                inside.contains(&outside)
            );
        }
    }
}
