//! What the log says of sources that are over their limit, one line for each at
//! most once a minute. Who has not proven its address may be forged, so that
//! whoever sends packets could write any address into the log: its lines are for
//! `-v` alone.

use std::{fmt, net::IpAddr, time::Instant};

use log::{Level, log_enabled};
use nomail_common::verdict::Verdict;

use crate::{
    bpf::Limited,
    sample::{Sample, Skipped},
    status::shown_source,
};

/// Writes the lines, and bounds both kinds each for itself.
#[derive(Debug, Default)]
pub struct LimitedLog {
    proven: Sample,
    unproven: Sample,
}

impl LimitedLog {
    /// Writes the line of one event, if there is room for it. `rate` is the limit
    /// that it is over, in SYNs per second; `interface` the name of the event's.
    pub fn tell(&mut self, event: &Limited, rate: u32, interface: Option<&str>, now: Instant) {
        let (level, sample) = if event.proven {
            (Level::Info, &mut self.proven)
        } else {
            (Level::Debug, &mut self.unproven)
        };
        if !log_enabled!(level) {
            return;
        }
        let Some(skipped) = sample.admit(now) else {
            return;
        };
        let source = shown(event);
        let line = Line {
            source: &source,
            rate,
            proven: event.proven,
            skipped,
        };
        log::log!(
            level,
            event = "limited",
            source = source.as_str(),
            verdict = event.verdict.name(),
            proven = event.proven,
            interface = interface,
            ago_ms = event.ago.as_millis() as u64,
            skipped = skipped.0;
            "{line}"
        );
    }
}

struct Line<'a> {
    source: &'a str,
    rate: u32,
    proven: bool,
    skipped: Skipped,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            rate,
            proven,
            skipped,
        } = self;
        let plural = if *rate == 1 { "" } else { "s" };
        let forged = if *proven { "" } else { " (perhaps forged)" };
        write!(
            out,
            "{source}: over its limit of {rate} SYN{plural} per second{forged}{skipped}"
        )
    }
}

fn shown(event: &Limited) -> String {
    match (event.verdict, event.address) {
        (Verdict::LimitedPrefix, IpAddr::V4(address)) => format!("{address}/24"),
        (Verdict::LimitedPrefix, IpAddr::V6(address)) => format!("{address}/48"),
        (_, address) => shown_source(address),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(address: &str, verdict: Verdict, proven: bool, skipped: u64) -> String {
        let event = Limited {
            address: address.parse().unwrap(),
            verdict,
            proven,
            interface: 1,
            ago: Duration::ZERO,
        };
        Line {
            source: &shown(&event),
            rate: 10,
            proven,
            skipped: Skipped(skipped),
        }
        .to_string()
    }

    #[test]
    fn a_line_says_who_and_whether_that_is_certain() {
        assert_eq!(
            line("192.0.2.9", Verdict::LimitedSource, true, 0),
            "192.0.2.9: over its limit of 10 SYNs per second"
        );
        assert_eq!(
            line("2001:db8::", Verdict::LimitedSource, false, 3),
            "2001:db8::/64: over its limit of 10 SYNs per second (perhaps forged) \
             (3 more before this)"
        );
        assert_eq!(
            line("192.0.2.0", Verdict::LimitedPrefix, true, 0),
            "192.0.2.0/24: over its limit of 10 SYNs per second"
        );
        assert_eq!(
            line("2001:db8::", Verdict::LimitedPrefix, true, 0),
            "2001:db8::/48: over its limit of 10 SYNs per second"
        );
    }
}
