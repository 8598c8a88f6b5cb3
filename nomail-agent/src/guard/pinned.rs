//! A pinned guard without an agent: its counters, read from its pins. Nothing is changed or
//! locked, so an agent may start at any time.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use aya::maps::{Map, MapData, PerCpuArray};
use nomail_common::abi::{self, Config, Counters, MAX_INTERFACES};

use super::{
    clock::Clock,
    error::BpfError,
    object::{self, load_clock, program},
    pins,
    sources::{SourceCount, Sources},
    table::sum_of_cpus,
};

/// What an agent of this version has left pinned, read-only.
pub struct PinnedGuard {
    links: Vec<(u32, u32)>,
    config: Box<Config>,
    counters: PerCpuArray<MapData, Counters>,
    sources: Sources,
    clock: Clock,
}

impl PinnedGuard {
    /// Opens what is pinned in the directory; none if there is no guard.
    pub fn open(directory: &Path) -> Result<Option<Self>, BpfError> {
        let Some(version) = pins::version_to_read(directory, object::object()?)? else {
            return Ok(None);
        };
        let links = pins::links_of(&version)?;
        if links.is_empty() {
            return Ok(None);
        }
        let map = |name: &str| -> Result<Map, BpfError> {
            Ok(Map::from_map_data(MapData::from_pin(version.join(name))?)?)
        };
        Ok(Some(Self {
            links,
            config: pins::config_in(&version)?,
            counters: map(abi::COUNTERS_MAP)?.try_into()?,
            sources: Sources::new(map(abi::SOURCES_MAP)?, map(abi::CARRIES_MAP)?)?,
            // Of a program that uses none of the guard's maps.
            clock: Clock::take(program(&mut load_clock()?, abi::CLOCK_PROGRAM)?)?,
        }))
    }

    /// The interfaces that it is attached to, and the id of its program there.
    pub fn links(&self) -> &[(u32, u32)] {
        &self.links
    }

    /// Whether it only counts verdicts.
    pub fn observe(&self) -> bool {
        self.config.observe != 0
    }

    /// When it refuses without a socket, see [`Config::responder`].
    pub fn responder(&self) -> u32 {
        self.config.responder
    }

    /// The pairs of address and port that the agent listened on, in order.
    pub fn guarded(&self) -> Vec<(IpAddr, u16)> {
        let used = self.config.guarded.iter().filter(|pair| pair.port != 0);
        let mut pairs: Vec<_> = used
            .map(|pair| {
                let bits = u128::from(pair.address.high) << 64 | u128::from(pair.address.low);
                (Ipv6Addr::from_bits(bits).to_canonical(), pair.port)
            })
            .collect();
        pairs.sort_unstable();
        pairs
    }

    /// The counters of the interfaces, after those of all others.
    pub fn counters(&self) -> Result<Vec<Counters>, BpfError> {
        let entries = 0..=MAX_INTERFACES as u32;
        entries
            .map(|entry| sum_of_cpus(&self.counters, entry))
            .collect()
    }

    /// Every source in the table.
    pub fn sources(&self) -> Result<Vec<SourceCount>, BpfError> {
        self.sources.read(&self.clock, self.config.limit)
    }
}
