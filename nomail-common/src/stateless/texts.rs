//! The texts of the stateless refusal, with what a segment needs of them.

use crate::bounds::{REFUSALS_MAX, TEXT_MAX};

/// The shortest refusal: [`REFUSALS_MAX`] of them fill a packet.
const REFUSAL_MIN: usize = TEXT_MAX / REFUSALS_MAX as usize;

/// A text with its CRLF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, and zeros behind it.
    pub bytes: [u8; TEXT_MAX],
    /// Bytes of the text; 0 where there is none.
    pub length: u32,
    /// The sum of its 16-bit words in network byte order, the last one padded with zero
    /// (RFC 1071).
    pub sum: u32,
}

impl Text {
    /// No text.
    pub const EMPTY: Self = Self {
        bytes: [0; TEXT_MAX],
        length: 0,
        sum: 0,
    };

    /// None when it is longer than [`TEXT_MAX`].
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; TEXT_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let sum = bytes
            .chunks_exact(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        Some(Self {
            bytes,
            length: text.len() as u32,
            sum,
        })
    }
}

/// One generation of the texts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texts {
    /// Sent before any command.
    pub greeting: Text,
    /// The reply to every command except QUIT. Empty: the connection is closed after the
    /// greeting (RFC 1846 section 4.2 a).
    pub refusal: Text,
    /// The reply to QUIT.
    pub goodbye: Text,
}

impl Texts {
    /// A generation that was never in use.
    pub const EMPTY: Self = Self {
        greeting: Text::EMPTY,
        refusal: Text::EMPTY,
        goodbye: Text::EMPTY,
    };

    /// With a `refusal` and a `goodbye`, or with neither where the greeting is all. None
    /// when one of them is too long or too short, or their lengths are such that no
    /// acknowledgment number would tell them apart.
    pub fn new(greeting: &[u8], refusal: &[u8], goodbye: &[u8]) -> Option<Self> {
        let texts = Self {
            greeting: Text::new(greeting)?,
            refusal: Text::new(refusal)?,
            goodbye: Text::new(goodbye)?,
        };
        let closes = refusal.is_empty() && goodbye.is_empty();
        let distinct = refusal.len() >= REFUSAL_MIN
            && (2..=refusal.len()).contains(&goodbye.len())
            && !(goodbye.len() + 1).is_multiple_of(refusal.len());
        (!greeting.is_empty() && (closes || distinct)).then_some(texts)
    }

    /// Most replies to commands in one packet.
    #[inline(always)]
    pub(crate) const fn replies_max(&self) -> u32 {
        match self.refusal.length {
            0 => 0,
            length => TEXT_MAX as u32 / length,
        }
    }
}
