//! Scanning a segment for command lines, byte by byte, in words that a BPF function takes.

use crate::bounds::WINDOW;

/// The command line that is arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CommandLine {
    /// Bytes so far, at most one more than [`WINDOW`].
    length: u32,
    /// How many letters of QUIT it has, or one of the values below.
    word: u32,
    /// The last byte was a CR.
    after_cr: bool,
}

/// [`CommandLine::word`]: all of QUIT.
const QUIT: u32 = 4;
/// [`CommandLine::word`]: QUIT and white space.
const QUIT_AND_MORE: u32 = 5;
/// [`CommandLine::word`]: anything else.
const OTHER: u32 = 6;
/// [`CommandLine::word`]: the first byte of a TLS handshake, and nothing more yet.
const HANDSHAKE: u32 = 7;
/// The record type of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Bits of a [`CommandLine`] in a word.
pub(super) const LINE_BITS: u32 = 14;
/// No byte of a line yet, as bits.
pub(super) const EMPTY_LINE: u32 = CommandLine::EMPTY.to_bits();
const LENGTH_MAX: u32 = WINDOW as u32 + 1;

const _: () = assert!(LENGTH_MAX < 1 << (LINE_BITS - 4));

/// What a byte completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completed {
    /// Nothing: the line goes on.
    Nothing,
    /// A command.
    Command,
    /// QUIT.
    Quit,
    /// Not text: TLS, or garbage.
    Garbage,
}

impl CommandLine {
    const EMPTY: Self = Self {
        length: 0,
        word: 0,
        after_cr: false,
    };

    const fn to_bits(self) -> u32 {
        self.length << 4 | self.word << 1 | self.after_cr as u32
    }

    const fn from_bits(bits: u32) -> Self {
        Self {
            length: bits >> 4 & 0x3ff,
            word: bits >> 1 & 7,
            after_cr: bits & 1 != 0,
        }
    }

    /// Only CR and LF end a line (RFC 5321 section 2.3.8). A line that is too long is not
    /// QUIT.
    #[inline(always)]
    const fn take(&mut self, byte: u8) -> Completed {
        let first = self.length == 0;
        if self.length < LENGTH_MAX {
            self.length += 1;
        }
        if byte == b'\n' && self.after_cr {
            let quit = self.word == QUIT || self.word == QUIT_AND_MORE;
            return if quit && self.length <= WINDOW as u32 {
                Completed::Quit
            } else {
                Completed::Command
            };
        }
        // A bare LF: its client would wait for a reply to a line that never ends.
        let bare = byte == b'\n';
        if bare || self.word == HANDSHAKE || first && byte >= 0x80 {
            return Completed::Garbage;
        }
        if first && byte == TLS_HANDSHAKE {
            self.word = HANDSHAKE;
            return Completed::Nothing;
        }
        let space = byte == b' ' || byte == b'\t';
        if (byte < b' ' && !matches!(byte, b'\r' | b'\t')) || byte == 0x7f {
            return Completed::Garbage;
        }
        if self.after_cr && self.word != QUIT_AND_MORE {
            // That CR was part of the first word.
            self.word = OTHER;
        }
        self.after_cr = byte == b'\r';
        if byte != b'\r' {
            let letter = byte | 0x20;
            self.word = match self.word {
                0 if letter == b'q' => 1,
                1 if letter == b'u' => 2,
                2 if letter == b'i' => 3,
                3 if letter == b't' => QUIT,
                QUIT if space => QUIT_AND_MORE,
                QUIT_AND_MORE => QUIT_AND_MORE,
                _ => OTHER,
            };
        }
        Completed::Nothing
    }
}

/// The state of a scan in one word, from the top: why it ended, how many more replies fit,
/// the refusals that are due, the bytes that are taken, the bytes that were scanned, and the
/// line that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineScan(pub u64);

/// The scan ended at QUIT.
pub(super) const QUIT_END: u64 = 1;
/// The scan ended at something that is not text; it was refused.
pub(super) const GARBAGE_END: u64 = 2;
/// The scan ended because no other reply fits. The client retransmits what is not taken.
const FULL_END: u64 = 3;
const END_SHIFT: u32 = 44;
const LEFT_SHIFT: u32 = 40;
const REFUSALS_SHIFT: u32 = 36;
const TAKEN_SHIFT: u32 = 25;
const SCANNED_SHIFT: u32 = 14;
const REPLY_MASK: u64 = 0xf;
const BYTES_MASK: u64 = 0x7ff;
const LINE_MASK: u64 = (1 << LINE_BITS) - 1;

const _: () = assert!(LINE_BITS == SCANNED_SHIFT && WINDOW as u64 <= BYTES_MASK);

impl LineScan {
    /// A scan from byte `from` of the payload on, in a line given as bits, for at most
    /// `replies_max` replies.
    #[inline(always)]
    pub(super) const fn new(from: u32, line: u32, replies_max: u32) -> Self {
        Self(
            (replies_max as u64) << LEFT_SHIFT
                | (from as u64) << TAKEN_SHIFT
                | (from as u64) << SCANNED_SHIFT
                | line as u64,
        )
    }

    /// Bytes that were scanned.
    #[inline(always)]
    pub const fn scanned(self) -> u32 {
        (self.0 >> SCANNED_SHIFT & BYTES_MASK) as u32
    }

    /// Whether no further byte is to be scanned.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        self.end() != 0
    }

    /// Why it ended: 0 while it goes on, [`QUIT_END`], [`GARBAGE_END`] or [`FULL_END`].
    pub(super) const fn end(self) -> u64 {
        self.0 >> END_SHIFT
    }

    /// Refusals that are due.
    pub(super) const fn refusals(self) -> u32 {
        (self.0 >> REFUSALS_SHIFT & REPLY_MASK) as u32
    }

    /// The scan with the next byte.
    #[inline(always)]
    pub const fn take(self, byte: u8) -> Self {
        let mut line = CommandLine::from_bits((self.0 & LINE_MASK) as u32);
        let completed = line.take(byte);
        let mut end = 0;
        let mut left = self.0 >> LEFT_SHIFT & REPLY_MASK;
        let mut refusals = self.0 >> REFUSALS_SHIFT & REPLY_MASK;
        let mut taken = self.0 >> TAKEN_SHIFT & BYTES_MASK;
        let scanned = (self.0 >> SCANNED_SHIFT & BYTES_MASK) + 1;
        if !matches!(completed, Completed::Nothing) {
            line = CommandLine::EMPTY;
            if left == 0 {
                end = FULL_END;
            } else {
                left -= 1;
                taken = scanned;
                match completed {
                    Completed::Quit => end = QUIT_END,
                    Completed::Garbage => {
                        refusals += 1;
                        end = GARBAGE_END;
                    }
                    Completed::Command | Completed::Nothing => refusals += 1,
                }
            }
        }
        Self(
            end << END_SHIFT
                | left << LEFT_SHIFT
                | refusals << REFUSALS_SHIFT
                | taken << TAKEN_SHIFT
                | scanned << SCANNED_SHIFT
                | line.to_bits() as u64,
        )
    }

    /// Bytes that are answered, or part of a line that goes on.
    pub(super) const fn taken(self) -> u32 {
        if self.end() == 0 {
            self.scanned()
        } else {
            (self.0 >> TAKEN_SHIFT & BYTES_MASK) as u32
        }
    }

    /// The line that goes on, as bits.
    pub(super) const fn line(self) -> u32 {
        (self.0 & LINE_MASK) as u32
    }
}
