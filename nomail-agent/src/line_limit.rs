//! Rate limits for log lines that anyone on the network can cause.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Lines of one kind per second.
pub const LINES_PER_SECOND: u32 = 10;

/// Admits at most [`LINES_PER_SECOND`] lines and counts those it skips.
#[derive(Debug, Default)]
pub struct LineLimiter {
    second: Option<Instant>,
    lines: u32,
    skipped: u64,
}

impl LineLimiter {
    /// Returns how many lines were skipped before this one, or None to skip this one.
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

/// The number of lines skipped before one, displayed as the end of that line.
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
    fn lines_are_limited_and_skipped_ones_counted() {
        let begin = Instant::now();
        let mut limiter = LineLimiter::default();
        let admitted = (0..100).filter(|_| limiter.admit(begin).is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND as usize);
        let later = begin + Duration::from_secs(1);
        assert_eq!(limiter.admit(later), Some(Skipped(90)));
        assert_eq!(limiter.admit(later), Some(Skipped(0)));
    }
}
