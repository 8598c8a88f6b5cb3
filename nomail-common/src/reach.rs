//! Whether XDP may answer a segment: it must not make a reply go astray, nor two hosts answer
//! each other for ever.

use crate::{
    abi::{Config, Guarded, hardware_word},
    bounds::{MAX_INTERFACES, MAX_PORTS},
    wire::packet::Segment,
};

/// Whether XDP may answer a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It may.
    Yes,
    /// No, for the way it arrived: with another VLAN tag than its address has, or for another
    /// hardware address. Everything that arrives this way passes.
    NotThisWay,
    /// No, for what it is, which no client's SYN is: it has IP options, a source that no
    /// host elsewhere has, or one of our ports as its source port. A few pass
    /// ([`unanswered`](crate::guard::policy::unanswered)); a flood of them is dropped.
    NotThisPacket,
}

impl Reach {
    /// Whether XDP may answer a segment for `guarded` with these hardware addresses
    /// (destination, source). It arrived at the interface with this `index` in `config`, or
    /// at another; `ports` are ours. `is_further` is [`Config::is_further_hardware`].
    #[inline(always)]
    pub fn of(
        segment: &Segment,
        guarded: &Guarded,
        config: &Config,
        index: Option<usize>,
        [destination, source]: [[u8; 6]; 2],
        ports: &[u16; MAX_PORTS],
        is_further: impl FnOnce(u32, [u8; 6]) -> bool,
    ) -> Self {
        let word = hardware_word(destination);
        let is_own = match index {
            // The only bound that the verifier sees.
            Some(index) => u64::from_ne_bytes(config.hardware[index % MAX_INTERFACES]) == word,
            None => false,
        };
        let entry = index.map_or(0, |index| index as u32 + 1);
        let is_own = is_own || is_further(entry, destination);
        if !is_own || segment.vlan != guarded.vlan {
            Self::NotThisWay
        } else if source[0] & 1 == 0
            && segment.is_plain()
            && segment.peer.is_answerable(segment.is_ipv6())
            // Two hosts with nomail would answer each other for ever.
            && (crate::Mechanism::OwnPortsUnanswered.is_off() || !ports.contains(&segment.peer_port))
            && !config.is_own(segment.peer)
        {
            Self::Yes
        } else {
            Self::NotThisPacket
        }
    }
}
