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
    /// Dropped: its source is over its bucket.
    LimitedSource = 2,
}

impl Verdict {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All, in the order of their index.
    pub const ALL: [Self; Self::COUNT] = [Self::Passed, Self::Malformed, Self::LimitedSource];

    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Malformed => "malformed",
            Self::LimitedSource => "limited_source",
        }
    }
}
