//! Bounds the lines of the log that whoever sends packets can cause.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Most lines of a kind in one second; the rest is counted.
pub const LINES_PER_SECOND: u32 = 10;

/// Lets a bounded number of lines through in each second.
#[derive(Debug, Default)]
pub struct Sample {
    second: Option<Instant>,
    lines: u32,
    skipped: u64,
}

impl Sample {
    /// Whether to write a line, and how many were skipped before it.
    pub fn admit(&mut self, now: Instant) -> Option<Skipped> {
        let fresh = self
            .second
            .is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1));
        if fresh {
            self.second = Some(now);
            self.lines = 0;
        }
        if self.lines >= LINES_PER_SECOND {
            self.skipped += 1;
            return None;
        }
        self.lines += 1;
        Some(Skipped(std::mem::take(&mut self.skipped)))
    }
}

/// The end of a line before which others were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped(pub u64);

impl fmt::Display for Skipped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            skipped => write!(out, " ({skipped} more before this)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded_and_counts_the_rest() {
        let begin = Instant::now();
        let mut sample = Sample::default();
        let admitted = (0..100).filter(|_| sample.admit(begin).is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND as usize);
        let later = begin + Duration::from_secs(1);
        assert_eq!(sample.admit(later), Some(Skipped(90)));
        assert_eq!(sample.admit(later), Some(Skipped(0)));
    }
}
