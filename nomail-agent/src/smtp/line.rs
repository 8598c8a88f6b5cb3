//! Command lines as they arrive, in pieces of any size.

/// The longest command line with its CRLF (RFC 5321 section 4.5.3.1.4).
/// The rest of a longer one is discarded up to its CRLF, and it is answered once.
pub const LINE_MAX: u32 = 512;

/// After this many bytes without CRLF the session is refused and closed.
pub const LINE_DISCARD_MAX: u32 = 65_536;

/// The line that is arriving.
#[derive(Debug)]
pub(super) struct LineBuffer {
    /// Its first bytes, unless all are in one piece of input.
    partial: Vec<u8>,
    /// How many bytes it has so far.
    length: u32,
    /// The last byte was a CR.
    after_cr: bool,
    /// The stored line was returned.
    spent: bool,
}

/// The line after a piece of input.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    /// The line's bytes so far, with its CRLF; at most [`LINE_MAX`].
    pub(super) bytes: &'a [u8],
    /// How many of these were in earlier pieces.
    pub(super) seen: usize,
    /// How many bytes the line really has.
    pub(super) length: u32,
    pub(super) ending: Ending,
}

/// How a line ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not yet.
    None,
    /// With CRLF.
    CrLf,
    /// With LF alone, which ends no line (RFC 5321 section 2.3.8). A client that
    /// sends it waits for an answer, and one that hides commands behind it
    /// must not find a server that takes it for an end.
    Lf,
}

impl LineBuffer {
    pub(super) const fn new() -> Self {
        Self {
            partial: Vec::new(),
            length: 0,
            after_cr: false,
            spent: false,
        }
    }

    /// Takes bytes up to the end of the line, or to an LF alone, and returns how many. Only CR
    /// directly followed by LF ends a line (RFC 5321 section 2.3.8), whether or not they
    /// arrive together; a CR alone is part of the line.
    pub(super) fn take<'a>(&'a mut self, input: &'a [u8]) -> (usize, Piece<'a>) {
        if self.spent {
            // A held session keeps no memory of an answered line.
            *self = Self::new();
        }
        let left = (LINE_DISCARD_MAX - self.length) as usize;
        let input = &input[..input.len().min(left)];
        let lf = input.iter().position(|&byte| byte == b'\n');
        let after_cr = match lf {
            Some(0) => self.after_cr,
            Some(at) => input[at - 1] == b'\r',
            None => false,
        };
        let ending = match lf {
            None => Ending::None,
            Some(_) if after_cr => Ending::CrLf,
            Some(_) => Ending::Lf,
        };
        let complete = ending != Ending::None;
        let taken = lf.map_or(input.len(), |at| at + 1);
        let seen = self.partial.len();
        let fresh = &input[..taken.min(LINE_MAX as usize - seen)];
        let whole = complete && self.length == 0;
        self.length += taken as u32;
        self.after_cr = input.last().map_or(self.after_cr, |last| *last == b'\r');
        self.spent = complete;
        let bytes = if whole {
            fresh
        } else {
            self.partial.extend_from_slice(fresh);
            &self.partial
        };
        let piece = Piece {
            bytes,
            seen,
            length: self.length,
            ending,
        };
        (taken, piece)
    }

    /// Returns how many bytes it holds in memory besides itself.
    pub(super) const fn held(&self) -> usize {
        self.partial.capacity()
    }
}
