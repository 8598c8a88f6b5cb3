//! Log lines for SYNs over the limit, for each source at most once a minute. Any SYN may be
//! forged, even one whose tuple has a ticket, so no line accuses a host. Lines that name a
//! source without a connection need `-v`: forged packets must not write addresses into the
//! log.

use std::{fmt, net::IpAddr, time::Instant};

use log::{Level, log_enabled};
use nomail_common::{counted::Counted as _, verdict::Verdict};

use crate::{
    guard::Limited,
    line_limit::{LineLimiter, Skipped},
    text,
};

/// Logs the lines; the rate of each kind is bounded on its own.
#[derive(Debug, Default)]
pub struct LimitedLog {
    connected: LineLimiter,
    others: LineLimiter,
}

impl LimitedLog {
    /// Logs one event unless there are too many. `rate` is the exceeded limit in SYNs per
    /// second, `interface` the name of the event's interface, `connections` how many the source
    /// has completed recently.
    pub fn log(
        &mut self,
        event: &Limited,
        rate: u32,
        interface: Option<&str>,
        connections: u64,
        now: Instant,
    ) {
        let (level, limiter) = if connections > 0 {
            (Level::Info, &mut self.connected)
        } else {
            (Level::Debug, &mut self.others)
        };
        if !log_enabled!(level) {
            return;
        }
        let Some(skipped) = limiter.admit(now) else {
            return;
        };
        let source = shown(event);
        let line = LimitedLine {
            source: &source,
            rate,
            connections,
            skipped,
        };
        log::log!(
            level,
            event = "limited",
            source = source.as_str(),
            verdict = event.verdict.name(),
            connections = connections,
            interface = interface,
            ago_ms = event.ago.as_millis() as u64,
            skipped = skipped.0;
            "{line}"
        );
    }
}

struct LimitedLine<'a> {
    source: &'a str,
    rate: u32,
    connections: u64,
    skipped: Skipped,
}

impl fmt::Display for LimitedLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            rate,
            connections,
            skipped,
        } = self;
        write!(
            out,
            "{source}: SYNs over the limit of {rate} per second, perhaps forged; \
             {connections} connection{} from there{skipped}",
            if *connections == 1 { "" } else { "s" }
        )
    }
}

fn shown(event: &Limited) -> String {
    match (event.verdict, event.address) {
        (Verdict::LimitedPrefix, IpAddr::V4(address)) => format!("{address}/24"),
        (Verdict::LimitedPrefix, IpAddr::V6(address)) => format!("{address}/48"),
        (_, address) => text::source(address),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(address: &str, verdict: Verdict, connections: u64, skipped: u64) -> String {
        let event = Limited {
            address: address.parse().unwrap(),
            verdict,
            proven: true,
            interface: 1,
            ago: Duration::ZERO,
        };
        LimitedLine {
            source: &shown(&event),
            rate: 10,
            connections,
            skipped: Skipped(skipped),
        }
        .to_string()
    }

    #[test]
    fn a_line_speaks_of_syns_and_counts_connections() {
        assert_eq!(
            line("192.0.2.9", Verdict::LimitedSource, 1, 0),
            "192.0.2.9: SYNs over the limit of 10 per second, perhaps forged; 1 connection from \
             there"
        );
        assert_eq!(
            line("2001:db8::", Verdict::LimitedSource, 0, 3),
            "2001:db8::/64: SYNs over the limit of 10 per second, perhaps forged; 0 connections \
             from there (3 more before this)"
        );
        assert!(line("192.0.2.0", Verdict::LimitedPrefix, 0, 0).starts_with("192.0.2.0/24: "));
        assert!(line("2001:db8::", Verdict::LimitedPrefix, 0, 0).starts_with("2001:db8::/48: "));
    }
}
