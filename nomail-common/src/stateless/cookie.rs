//! The arithmetic of sequence numbers: the cookie that a dialog begins with, and how far an
//! acknowledgment number is beyond it.

use super::texts::Texts;
use crate::{
    bounds::COMMANDS_MAX,
    siphash::{Key, siphash},
    wire::packet::Segment,
};

/// Time slots of cookies are at least this long, and less than twice. A cookie is good for
/// one or two of them, so a client may be idle for the 5 minutes of RFC 5321 section 4.5.3.2.
const SLOT_SECS: u64 = 360;
/// Bits of a number for its position: how far it is beyond the cookie. More than the bytes
/// of any dialog.
const POSITION_MASK: u32 = 0x3fff_ffff;
/// The bits above are the generation of the texts.
const GENERATION_SHIFT: u32 = 30;
/// Cookies and challenges use one key, and never hash the same words.
const COOKIE_DOMAIN: u64 = 0x636f_6f6b_6965_0000;

/// How far to shift jiffies right for slots of [`SLOT_SECS`].
pub const fn slot_shift(hz: u32) -> u32 {
    (hz as u64 * SLOT_SECS).next_power_of_two().ilog2()
}

/// The generation of the texts in an acknowledgment number, whatever the position.
pub(crate) const fn generation_of(acknowledgment: u32) -> u32 {
    acknowledgment.wrapping_sub(1) >> GENERATION_SHIFT
}

/// The cookie of a tuple in a time slot: 30 bits, to which the generation of the texts is
/// added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(u32);

impl Cookie {
    /// The cookie of a segment's tuple.
    #[inline(always)]
    pub fn of(segment: &Segment, key: Key, slot: u32) -> Self {
        let Segment { peer, local, .. } = segment;
        let ports = u64::from(segment.peer_port) << 16 | u64::from(segment.port);
        let slot = COOKIE_DOMAIN ^ u64::from(slot);
        let hash = if segment.is_ipv6() {
            siphash(
                key,
                [peer.high, peer.low, local.high, local.low, ports, slot],
            )
        } else {
            siphash(key, [peer.low << 32 | local.low & 0xffff_ffff, ports, slot])
        };
        Self(hash as u32 & POSITION_MASK)
    }

    /// Our initial sequence number.
    #[inline(always)]
    pub const fn sequence(self, generation: u32) -> u32 {
        self.0 | generation << GENERATION_SHIFT
    }

    /// The generation in an acknowledgment number, and how many bytes of our text it
    /// acknowledges if it belongs to this cookie.
    #[inline(always)]
    pub const fn position(self, acknowledgment: u32) -> (u32, u32) {
        let beyond = acknowledgment.wrapping_sub(1).wrapping_sub(self.0);
        (beyond >> GENERATION_SHIFT, beyond & POSITION_MASK)
    }
}

/// How far a dialog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The client does not have the greeting yet.
    Greeting,
    /// So many of its commands were refused.
    Open(u32),
    /// It has our FIN.
    Over,
}

impl Phase {
    /// The phase at a position; none when no dialog has this position.
    #[inline(always)]
    pub const fn of(texts: &Texts, position: u32) -> Option<Self> {
        let (greeting, refusal) = (texts.greeting.length, texts.refusal.length);
        if greeting == 0 {
            return None;
        }
        if position < greeting {
            return Some(Self::Greeting);
        }
        let replied = position - greeting;
        if refusal == 0 {
            return match replied {
                1 => Some(Self::Over),
                _ => None,
            };
        }
        let (commands, beyond) = (replied / refusal, replied % refusal);
        if commands > COMMANDS_MAX + 1 {
            None
        } else if beyond == 0 {
            Some(Self::Open(commands))
        } else if beyond == 1 || beyond == (texts.goodbye.length + 1) % refusal {
            Some(Self::Over)
        } else {
            None
        }
    }
}
