//! A guard whose agent is gone: what it counts, read from its pins. Nothing is
//! changed and nothing is locked, so that an agent may start at any time.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use aya::{
    EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
};
use nomail_common::abi::{self, Config, Counters, MAX_INTERFACES};

use super::{BpfError, Clock, OBJECT, SourceCount, pins, program, sources::Sources, sum_of_cpus};

/// What an agent of this version has left pinned, to be read.
pub struct KeptGuard {
    links: Vec<(u32, u32)>,
    config: Box<Config>,
    counters: PerCpuArray<MapData, Counters>,
    sources: Sources,
    clock: Clock,
}

impl KeptGuard {
    /// What is pinned in the directory; none if no guard is.
    pub fn open(directory: &Path) -> Result<Option<Self>, BpfError> {
        if OBJECT.is_empty() {
            return Err(BpfError::NoObject);
        }
        let Some(version) = pins::version_to_read(directory, OBJECT)? else {
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
            clock: clock()?,
        }))
    }

    /// The interfaces that it is on, and the program that it has there.
    pub fn links(&self) -> &[(u32, u32)] {
        &self.links
    }

    /// Whether it only counts.
    pub fn observe(&self) -> bool {
        self.config.observe != 0
    }

    /// When it says the refusal: see [`Config::responder`].
    pub fn responder(&self) -> u32 {
        self.config.responder
    }

    /// The pairs that the agent listened on, in order.
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

    /// The counters of each interface, and first of those that are none of them.
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

/// The clock needs a program, which needs no map of the guard's.
fn clock() -> Result<Clock, BpfError> {
    let mut ebpf = EbpfLoader::new()
        .load(OBJECT)
        .map_err(|error| BpfError::load(&error))?;
    let program = program(&mut ebpf, abi::CLOCK_PROGRAM)?;
    program
        .load()
        .map_err(|error| BpfError::load(&error.into()))?;
    Clock::take(program)
}
