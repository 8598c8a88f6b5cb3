//! The XDP program and its maps: load, attach, tell, ask. The only module that
//! knows aya.

mod attach;
mod clock;
mod error;
mod sources;

use std::{collections::HashSet, net::IpAddr};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray},
    programs::{Xdp, links::FdLink, loaded_programs},
};
use log::debug;
use nomail_common::{
    abi::{self, Config, Counters, MAX_GUARDED, MAX_INTERFACES, MAX_PORTS},
    limiter::Limit,
    verdict::Verdict,
};

pub use self::{attach::Mode, clock::Clock, error::BpfError, sources::SourceCount};

/// The object, aligned as the ELF reader wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nomail.o"));

/// What the program is to enforce. Replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// SYNs per second that one source may send.
    pub syn_rate: u32,
    /// SYNs that one source may send at once.
    pub syn_burst: u32,
    /// Count every verdict, drop nothing.
    pub observe: bool,
    /// Indexes of the guarded interfaces; counters are kept by place in here.
    pub interfaces: Vec<u32>,
    /// The pairs that the responder listens on.
    pub guarded: HashSet<(IpAddr, u16)>,
}

/// The loaded program with its maps. Dropping it detaches the program from
/// every interface.
pub struct Guard {
    ebpf: Ebpf,
    links: Vec<FdLink>,
    config: Array<MapData, Config>,
    active: Array<MapData, u32>,
    counters: PerCpuArray<MapData, Counters>,
    sources: sources::Sources,
    clock: Clock,
    in_use: u32,
    limit: Limit,
}

impl Guard {
    /// Loads the program. It guards nothing until [`Guard::configure`].
    /// `verbose` lets it log the sources that stay over their limit.
    pub fn load(ports: &HashSet<u16>, verbose: bool) -> Result<Self, BpfError> {
        if OBJECT.is_empty() {
            return Err(BpfError::NoObject);
        }
        let mut port_places = [0; MAX_PORTS];
        if ports.len() > MAX_PORTS {
            return Err(BpfError::TooManyPorts(ports.len()));
        }
        for (place, port) in port_places.iter_mut().zip(ports) {
            *place = *port;
        }
        let log_level: u8 = if verbose {
            aya_log::Level::Debug as u8
        } else {
            0
        };
        let seed = random()?;
        let mut ebpf = EbpfLoader::new()
            .override_global(abi::PORTS_GLOBAL, &port_places, true)
            .override_global(abi::SEED_GLOBAL, &seed, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(OBJECT)
            .map_err(|error| BpfError::load(&error))?;
        for name in [abi::PROGRAM, abi::CLOCK_PROGRAM] {
            program(&mut ebpf, name)?
                .load()
                .map_err(|error| BpfError::load(&error.into()))?;
        }
        let clock = Clock::read(program(&mut ebpf, abi::CLOCK_PROGRAM)?)?;
        Ok(Self {
            config: take(&mut ebpf, abi::CONFIG_MAP)?.try_into()?,
            active: take(&mut ebpf, abi::ACTIVE_MAP)?.try_into()?,
            counters: take(&mut ebpf, abi::COUNTERS_MAP)?.try_into()?,
            sources: sources::Sources::new(
                take(&mut ebpf, abi::SOURCES_MAP)?.try_into()?,
                take(&mut ebpf, abi::CARRIES_MAP)?.try_into()?,
            ),
            links: Vec::new(),
            clock,
            in_use: 0,
            limit: Limit::UNLIMITED,
            ebpf,
        })
    }

    /// Makes `policy` the one in force, between two packets: no packet is
    /// judged by half of it. On an error the old one stays.
    pub fn configure(&mut self, policy: &Policy) -> Result<(), BpfError> {
        let hz = self.clock.hz();
        let limit = Limit::new(policy.syn_rate, policy.syn_burst, hz)
            .ok_or(BpfError::Limit(policy.syn_rate, policy.syn_burst))?;
        if policy.interfaces.len() > MAX_INTERFACES {
            return Err(BpfError::TooManyInterfaces(policy.interfaces.len()));
        }
        let mut config = Box::new(Config {
            limit,
            observe: u64::from(policy.observe),
            ..Config::EMPTY
        });
        for (place, index) in config.interfaces.iter_mut().zip(&policy.interfaces) {
            *place = *index;
        }
        let pairs: Vec<_> = policy
            .guarded
            .iter()
            .map(|&(address, port)| (address.to_canonical().into(), port))
            .collect();
        let mut seed = random()?;
        let seeds = std::iter::repeat_with(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        if !config.set_guarded(&pairs, seeds.take(GUARDED_SEEDS_MAX)) {
            return Err(BpfError::TooManyGuarded(pairs.len()));
        }
        let next = 1 - self.in_use;
        self.config.set(next, *config, 0)?;
        self.active.set(0, next, 0)?;
        self.in_use = next;
        self.limit = limit;
        // A packet that began under the old entry ends within microseconds; the
        // entry is not written again before that, even if reloads come in a row.
        std::thread::sleep(std::time::Duration::from_millis(1));
        Ok(())
    }

    /// Attaches the program to an interface in the given or, failing that,
    /// the next best mode; says which it was, and why not a better one.
    pub fn attach(
        &mut self,
        interface: u32,
        modes: &[Mode],
    ) -> Result<(Mode, Option<BpfError>), BpfError> {
        let (link, mode, refused) =
            attach::attach(program(&mut self.ebpf, abi::PROGRAM)?, interface, modes)?;
        self.links.push(link);
        Ok((mode, refused))
    }

    /// Takes the program off every interface. Its counters stay readable.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// The kernel's number of the program.
    pub fn program_id(&mut self) -> Result<u32, BpfError> {
        Ok(program(&mut self.ebpf, abi::PROGRAM)?.info()?.id())
    }

    /// The counters of the interface at `place` of [`Policy::interfaces`], or
    /// for `None` of an interface that was not in there.
    pub fn counters(&self, place: Option<usize>) -> Result<Counters, BpfError> {
        let entry = place.map_or(0, |place| place as u32 + 1);
        let mut sum = Counters::default();
        for cpu in self.counters.get(&entry, 0)?.iter() {
            for verdict in Verdict::ALL {
                sum.verdicts[verdict as usize] += cpu.verdicts[verdict as usize];
            }
            sum.evictions += cpu.evictions;
            sum.contended += cpu.contended;
        }
        Ok(sum)
    }

    /// Every source in the table.
    pub fn sources(&self) -> Result<Vec<SourceCount>, BpfError> {
        self.sources.read(&self.clock, self.limit)
    }

    /// Reads what the program logs, if it was loaded to.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, BpfError> {
        aya_log::EbpfLogger::init(&mut self.ebpf).map_err(BpfError::Log)
    }

    /// Runs the program on a frame, as `BPF_PROG_TEST_RUN` does: its action,
    /// and the mean time of `repeat` runs in nanoseconds.
    pub fn test_run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, u128), BpfError> {
        use aya::programs::{TestRun as _, TestRunOptions};
        let result = program(&mut self.ebpf, abi::PROGRAM)?.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        })?;
        Ok((result.return_value, result.duration.as_nanos()))
    }
}

/// Seeds that are tried before a set of guarded pairs is called too large. At
/// [`MAX_GUARDED`] pairs a few dozen are needed.
const GUARDED_SEEDS_MAX: usize = 10_000;
const _: () = assert!(MAX_GUARDED <= 256, "measure again how many seeds it takes");

/// The name of a loaded program, to tell whose it is.
pub fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id);
    let name = found.as_ref().and_then(|info| info.name_as_str());
    debug!("program {id} is {name:?}");
    name.map(str::to_owned)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, BpfError> {
    let program = ebpf.program_mut(name).ok_or(BpfError::Missing(name))?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}

fn random() -> Result<u64, BpfError> {
    getrandom::u64().map_err(|error| BpfError::Random(error.into()))
}
