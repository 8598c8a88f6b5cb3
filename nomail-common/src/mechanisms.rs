//! Mechanisms that a debug build can leave out, one at a time: `NOMAIL_WITHOUT=SourceBucket`.
//!
//! `cargo xtask test mechanisms` builds without each of them and checks that the tests
//! about it fail. With the variable unset, [`Mechanism::is_on`] is the constant `true`, and
//! the XDP program is the same, instruction by instruction, as without the question.

macro_rules! mechanisms {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        /// One mechanism. Each has one site in the sources that asks
        /// [`is_on`](Self::is_on) or [`is_off`](Self::is_off), or a few that belong together.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mechanism {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mechanism {
            /// All mechanisms.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name of the variant.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

mechanisms! {
    // Verdicts.
    /// A malformed SYN is malformed even if its source is denied.
    MalformedFirst;
    /// A SYN over a bucket does not count against the cap.
    BucketsBeforeCap;
    /// A source has a rate limit.
    SourceBucket;
    /// A prefix has a rate limit.
    PrefixBucket;
    /// All SYNs without a proof share a cap.
    Cap;
    /// Proven tuples have buckets of their own.
    ProvenBuckets;
    /// A bucket is charged by compare-and-swap.
    ExactBucket;
    /// Clients behind NAT64 are told apart.
    Nat64Sources;

    // Parsing.
    /// Data and ECN bits do not make a SYN malformed.
    DataAndEcnAccepted;
    /// A first fragment for a guarded pair is malformed.
    FirstFragments;
    /// IPv6 is parsed.
    Ipv6;
    /// Only listening addresses are guarded, not each address with that port.
    GuardedAddresses;

    // Challenges and tickets.
    /// A flood is challenged, not dropped.
    Challenge;
    /// A SYN over a bucket is challenged, not dropped.
    ChallengeOverBucket;
    /// A ticket is for one sequence number.
    TicketSequence;
    /// A ticket holds for its whole time, not a twentieth of it.
    TicketTime;
    /// A ticket admits few SYNs.
    TicketSyns;
    /// After too many wrong answers, a ticket takes two.
    WrongAnswers;
    /// No cookie is made for a SYN that cannot be answered.
    ReachBeforeCookie;
    /// A SYN that came another way is given to the kernel.
    OtherWayPasses;
    /// Segments from a guarded port are not answered.
    OwnPortsUnanswered;
    /// A program without a lease does not challenge.
    Lease;

    // The refusal from XDP.
    /// XDP answers when the listeners' lease has ended.
    Fallback;
    /// A client that talks first is not greeted.
    SilenceBeforeGreeting;
    /// A reset ends the retransmission of a greeting.
    ResetEndsGreeting;

    // The thread that speaks SMTP.
    /// A connection ends to make room for another network's.
    MakeRoom;
    /// A steady sender is no longer refused at EHLO.
    EhloRefusalsEnd;
    /// A line that ends with a bare LF is refused.
    BareLf;
    /// A network names only so many foreign domains.
    DomainsOfNetwork;

    // Configuration.
    /// A list file with a wrong line is still used.
    WrongLineSkipped;
    /// While a file of the allowed is missing, nothing is denied.
    AllowMissing;
    /// A list file that changes is taken over without a signal.
    ListsWatched;

    // The agent and its guard.
    /// Changes of interfaces and addresses are followed.
    Netlink;
    /// An upgrade replaces the program without a gap.
    ReplaceLink;
    /// A metrics port that is taken is tried again.
    MetricsRetry;
    /// A detached program is attached again.
    Reattach;
    /// A foreign program in place of the guard is reported.
    ReplacedReported;
    /// The kernel is asked whether the other end of a veth pair takes answers.
    PeerFeatures;
    /// The driver's counters are checked for lost answers.
    LostAnswers;
    /// After a greeting unknown networks are refused at RCPT for a while.
    GreetingPause;
    /// Connections are compared with SYNs: a guard that sees nothing is reported.
    Sight;
    /// CrowdSec's bans end with the process that pulls its decisions.
    BansEnd;

    // Confinement.
    /// The thread that speaks SMTP may make only its own system calls.
    SmtpSyscalls;
    /// Memory cannot be made executable.
    NoExecutableMemory;
    /// The packet socket drops all frames it receives.
    FrameFilter;
    /// The filter of the packet socket cannot be removed.
    FrameFilterLock;
    /// The program that reads the clock is unloaded.
    ClockUnloaded;
    /// A link of another account is not followed.
    ForeignLinks;
}

/// The mechanism that this build is without: what `NOMAIL_WITHOUT` names. Another name does
/// not compile.
pub const WITHOUT: Option<Mechanism> = match option_env!("NOMAIL_WITHOUT") {
    None => None,
    Some(name) => named(name.as_bytes()),
};

impl Mechanism {
    /// Whether this build has it.
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        !self.is_off()
    }

    /// Whether this build is without it.
    #[inline(always)]
    pub const fn is_off(self) -> bool {
        matches!(WITHOUT, Some(without) if without as u8 == self as u8)
    }
}

const fn named(name: &[u8]) -> Option<Mechanism> {
    if name.is_empty() {
        return None;
    }
    let mut at = 0;
    while at < Mechanism::ALL.len() {
        if same(name, Mechanism::ALL[at].name().as_bytes()) {
            return Some(Mechanism::ALL[at]);
        }
        at += 1;
    }
    panic!("NOMAIL_WITHOUT names no mechanism of nomail-common/src/mechanisms.rs")
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mechanism_is_known_by_its_whole_name() {
        for &mechanism in Mechanism::ALL {
            assert_eq!(named(mechanism.name().as_bytes()), Some(mechanism));
        }
        assert_eq!(named(b""), None);
        assert!(!same(b"Cap", b"Ca") && !same(b"Ca", b"Cap") && !same(b"Cap", b"Cat"));
    }
}
