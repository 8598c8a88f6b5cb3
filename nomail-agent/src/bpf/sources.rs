//! The table of sources, as people want to see it.

use std::{net::IpAddr, time::Duration};

use aya::maps::{Array, MapData};
use nomail_common::{
    abi::{LINES, Line, SLOTS_PER_LINE, SourceCarry},
    limiter::{Bucket, Limit},
    source::Source,
    sources::{CLAIMED, EMPTY},
};

use super::{BpfError, Clock};

/// What a source did since it entered the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCount {
    /// Its address, the lowest of the /64 for IPv6.
    pub address: IpAddr,
    /// SYNs received.
    pub syn: u64,
    /// Those of them that were over its limit.
    pub limited: u64,
    /// Time since its last SYN, too long by at most burst / rate: what is
    /// stored is when its bucket is full again.
    pub last_seen: Duration,
}

pub(super) struct Sources {
    lines: Array<MapData, Line>,
    carries: Array<MapData, SourceCarry>,
}

impl Sources {
    pub(super) fn new(lines: Array<MapData, Line>, carries: Array<MapData, SourceCarry>) -> Self {
        Self { lines, carries }
    }

    pub(super) fn read(&self, clock: &Clock, limit: Limit) -> Result<Vec<SourceCount>, BpfError> {
        let now = clock.now()?;
        let mut sources = Vec::new();
        for index in 0..LINES {
            let line = self.lines.get(&(index as u32), 0)?;
            for slot in 0..SLOTS_PER_LINE {
                let key = line.keys[slot];
                if key == EMPTY || key == CLAIMED {
                    continue;
                }
                let bucket = Bucket(line.buckets[slot]);
                let carry = self
                    .carries
                    .get(&((index * SLOTS_PER_LINE + slot) as u32), 0)?;
                let (mut admitted, mut limited) = (bucket.admitted(), bucket.limited());
                if carry.key == key {
                    admitted += carry.admitted;
                    limited += carry.limited;
                }
                let quiet = if bucket.debt(now, limit) > 0 {
                    Duration::ZERO
                } else {
                    clock.duration(now.since(bucket.full_at()) + limit.interval)
                };
                sources.push(SourceCount {
                    address: Source(key).address(),
                    syn: admitted + limited,
                    limited,
                    last_seen: quiet,
                });
            }
        }
        Ok(sources)
    }
}
