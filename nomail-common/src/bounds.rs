//! The named bounds of everything that is shared: sizes of maps, of texts, of tables. Public
//! as part of [`crate::abi`].

/// Entries of [`CONFIG_MAP`](crate::abi::CONFIG_MAP), a power of two: one in use, one that
/// is written next.
pub const CONFIGS: u32 = 2;
/// Most interfaces that one agent guards.
pub const MAX_INTERFACES: usize = 16;
/// Most different ports that one agent listens on.
pub const MAX_PORTS: usize = 4;
/// Slots in the table of guarded pairs, a power of two.
pub const GUARDED_SLOTS: usize = 4096;
/// Most guarded (address, port) pairs: a quarter of the slots, so that a seed with which
/// every pair is found in [`PROBES`](crate::guard::probing::PROBES) is soon found.
pub const MAX_GUARDED: usize = GUARDED_SLOTS / 4;
/// Slots in the table of own addresses, a power of two.
pub const OWN_SLOTS: usize = 4096;
/// Most own addresses that XDP is given: a quarter of the slots, as above.
pub const MAX_OWN: usize = OWN_SLOTS / 4;
/// Most further hardware addresses, of all interfaces together.
pub const MAX_FURTHER_HARDWARE: usize = 32;

/// Slots for sources in one [`Line`](crate::abi::Line).
pub const SLOTS_PER_LINE: usize = 4;
/// Lines in [`SOURCES_MAP`](crate::abi::SOURCES_MAP), a power of two: 65,536 sources in
/// 1 MiB, which keeps the table within a second-level cache.
pub const LINES: usize = 16_384;
/// Lines in [`PROVEN_MAP`](crate::abi::PROVEN_MAP), a power of two: 16,384 sources.
pub const PROVEN_LINES: usize = 4096;
/// Lines in [`PREFIXES_MAP`](crate::abi::PREFIXES_MAP), a power of two: 16,384 prefixes.
pub const PREFIX_LINES: usize = 4096;
/// Carries in a value of [`CARRIES_MAP`](crate::abi::CARRIES_MAP): the time to read a map
/// depends on the number of its values more than on their length.
pub const CARRIES_PER_VALUE: usize = 32;
/// Tickets in one [`TicketLine`](crate::abi::TicketLine).
pub const TICKETS_PER_LINE: usize = 7;
/// Lines that hold the tickets of one source, a power of two: 1,792 tickets.
pub const LINES_OF_SOURCE: usize = 256;
/// Lines in [`TICKETS_MAP`](crate::abi::TICKETS_MAP), a power of two: 57,344 tickets.
pub const TICKET_LINES: usize = 8192;

/// Entries in one [`ReportedLine`](crate::abi::ReportedLine).
pub const REPORTED_PER_LINE: usize = 8;
/// Lines for proven tuples in [`TOLD_MAP`](crate::abi::TOLD_MAP), and for the others, a
/// power of two: 1,024 sources each, so at most as many events in
/// [`PAUSE_SECS`](crate::guard::events::PAUSE_SECS).
pub const REPORTED_LINES: usize = 128;
/// Bytes of [`EVENTS_MAP`](crate::abi::EVENTS_MAP), a power of two and of whole pages: room
/// for all events of [`PAUSE_SECS`](crate::guard::events::PAUSE_SECS).
pub const EVENTS_LENGTH: u32 = 128 * 1024;
/// Bytes of [`OWED_MAP`](crate::abi::OWED_MAP), a power of two and of whole pages: room for
/// 512 dialogs that begin within a second.
pub const OWED_RING_LENGTH: u32 = 64 * 1024;

/// Most prefixes in one list of one family.
pub const MAX_LIST_PREFIXES: u32 = 1 << 20;
/// Most prefixes denied beside the list, of both families together.
pub const MAX_BANS: u32 = 1 << 18;

/// Entries of [`TEXTS_MAP`](crate::abi::TEXTS_MAP), a power of two: the texts may change
/// one time fewer than this while a dialog goes on.
pub const GENERATIONS: u32 = 4;
/// Entries of [`DIALOGS_MAP`](crate::abi::DIALOGS_MAP), a power of two.
pub const DIALOG_ENTRIES: u32 = 65_536;
/// Most bytes of text in one packet of the stateless refusal.
pub const TEXT_MAX: usize = 128;
/// Most refusals in one packet: none is shorter than a quarter of [`TEXT_MAX`].
pub const REFUSALS_MAX: u32 = 4;
/// The window advertised to clients, and so the most bytes that are scanned of a segment: a
/// longest command line (RFC 5321 section 4.5.3.1.4).
pub const WINDOW: usize = 512;
/// Most commands of a dialog of the stateless refusal: the last one is answered, and the
/// connection closed.
pub const COMMANDS_MAX: u32 = 1000;
