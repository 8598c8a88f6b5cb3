//! What became of a SYN for a guarded pair.

/// Exactly one for each SYN. The discriminant is the index into
/// [`crate::abi::Counters::verdicts`].
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Given to the network stack.
    Passed = 0,
    /// Dropped: the stack would not take it as a SYN either, or it is the
    /// first fragment of one.
    Malformed = 1,
    /// Dropped: its source is on the deny list.
    Denied = 2,
    /// Its source is over its bucket: dropped if proven, else answered.
    LimitedSource = 3,
    /// Its prefix is over its bucket: dropped if proven, else answered.
    LimitedPrefix = 4,
    /// Not proven, and more than the listener can take: answered.
    Flood = 5,
    /// Dropped: the ticket of its tuple is used up ([`crate::tickets`]).
    Replayed = 6,
}

impl Verdict {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All, in the order of their index.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Passed,
        Self::Malformed,
        Self::Denied,
        Self::LimitedSource,
        Self::LimitedPrefix,
        Self::Flood,
        Self::Replayed,
    ];

    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Malformed => "malformed",
            Self::Denied => "denied",
            Self::LimitedSource => "limited_source",
            Self::LimitedPrefix => "limited_prefix",
            Self::Flood => "flood",
            Self::Replayed => "replayed",
        }
    }
}

/// What XDP said by itself, counted apart from verdicts. The discriminant is the
/// index into [`crate::abi::Counters::answers`].
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// A SYN was answered with a challenge.
    Challenge = 0,
    /// A RST has answered one: its tuple has a ticket.
    Proven = 1,
    /// A SYN that was to be answered could not be, and was given to the network stack.
    Unanswerable = 2,
    /// A SYN was answered with a SYN cookie.
    Cookie = 3,
    /// The responder sent a segment, of a handshake or of a dialog.
    Stateless = 4,
    /// One of these had a greeting in it.
    Greeting = 5,
    /// One of these had the reply to QUIT in it.
    Goodbye = 6,
    /// A SYN, or a segment of the responder's, that could not be answered was dropped.
    UnanswerableDropped = 7,
}

impl Answer {
    /// How many there are.
    pub const COUNT: usize = 8;
}
