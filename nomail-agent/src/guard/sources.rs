//! The table of sources.

use std::{net::IpAddr, time::Duration};

use aya::maps::Map;
use nomail_common::{
    abi::{self, CARRIES_PER_VALUE, Line, SLOTS_PER_LINE, SourceCarry},
    guard::limiter::{Bucket, Limit},
    guard::sources::{CLAIMED, EMPTY},
    source::Source,
};

use super::{clock::Clock, error::BpfError, table::Table};

/// What a source did since it entered the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCount {
    /// Its address, the lowest of the /64 for IPv6.
    pub address: IpAddr,
    /// SYNs received.
    pub syn: u64,
    /// SYNs that were over its limit.
    pub limited: u64,
    /// Time since its last SYN, too long by at most burst / rate seconds: its bucket stores
    /// when it is full again.
    pub last_seen: Duration,
}

pub(super) struct Sources {
    lines: Table<Line>,
    carries: Table<[SourceCarry; CARRIES_PER_VALUE]>,
}

impl Sources {
    pub(super) fn new(lines: Map, carries: Map) -> Result<Self, BpfError> {
        Ok(Self {
            lines: Table::new(lines, abi::SOURCES_MAP)?,
            carries: Table::new(carries, abi::CARRIES_MAP)?,
        })
    }

    pub(super) fn read(&self, clock: &Clock, limit: Limit) -> Result<Vec<SourceCount>, BpfError> {
        let now = clock.now()?;
        let lines = self.lines.read()?;
        let carries = self.carries.read()?;
        let mut sources = Vec::new();
        let carries = carries.as_flattened().chunks(SLOTS_PER_LINE);
        for (line, carries) in lines.iter().zip(carries) {
            for ((&key, &bucket), carry) in line.keys.iter().zip(&line.buckets).zip(carries) {
                if key == EMPTY || key == CLAIMED {
                    continue;
                }
                let bucket = Bucket(bucket);
                let (mut admitted, mut limited) = (bucket.admitted(), bucket.limited());
                if carry.key == key {
                    admitted += carry.admitted;
                    limited += carry.limited;
                }
                let last_seen = if bucket.debt(now, limit) > 0 {
                    Duration::ZERO
                } else {
                    clock.duration(now.since(bucket.full_at()) + limit.interval)
                };
                sources.push(SourceCount {
                    address: Source(key).address(),
                    syn: admitted + limited,
                    limited,
                    last_seen,
                });
            }
        }
        Ok(sources)
    }
}
