//! The XDP program and its maps: load, attach, tell, ask. The only module that
//! knows aya.

mod attach;
mod clock;
mod error;
mod events;
mod features;
mod kept;
mod lists;
mod pins;
mod retransmit;
mod sources;
mod table;

use std::{
    collections::HashSet,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, ProgramArray},
    programs::{Xdp, links::FdLink, loaded_programs},
};
use log::{debug, warn};
use nomail_common::{
    abi::{
        self, Active, Config, Counters, FALLBACK_LEASE_MILLIS, FurtherHardware, GENERATIONS,
        Guarded, LEASE_SECS, MAX_GUARDED, MAX_INTERFACES, MAX_OWN, MAX_PORTS, RESPOND,
        RESPOND_FOR_LISTENERS, Texts, VLAN_NONE,
    },
    guard::challenge::{PROOF_SECS, slot_shift},
    guard::events::PAUSE_SECS,
    guard::limiter::Limit,
    guard::policy::FloodAnswer,
    guard::tickets::{ALL_RESETS_BURST, ALL_RESETS_RATE, RESETS_BURST, RESETS_RATE, ResetLimits},
    stateless::dialog,
};

use self::pins::Secrets;
pub use self::{
    attach::Mode,
    clock::Clock,
    error::{BpfError, OLDEST_KERNEL},
    events::Limited,
    features::missing_features,
    kept::KeptGuard,
    lists::Lists,
    pins::Pins,
    retransmit::OwedFrame,
    sources::SourceCount,
};

/// The object, aligned as the ELF reader wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nomail.o"));

/// SYNs per second, and SYNs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Per second.
    pub rate: u32,
    /// At once.
    pub burst: u32,
}

/// See [`nomail_common::guard::tickets`].
const RESETS: Rate = Rate {
    rate: RESETS_RATE,
    burst: RESETS_BURST,
};
/// See [`nomail_common::guard::tickets`].
const ALL_RESETS: Rate = Rate {
    rate: ALL_RESETS_RATE,
    burst: ALL_RESETS_BURST,
};

/// At least `least`, and at least twice the cap, each of whose SYNs may be reset by its
/// victim.
fn resets(least: Rate, cap: Option<Rate>) -> Rate {
    let cap = cap.unwrap_or(least);
    Rate {
        rate: least.rate.max(cap.rate.saturating_mul(2)),
        burst: least.burst.max(cap.burst.saturating_mul(2)),
    }
}

impl Rate {
    fn limit(self, hz: u32) -> Result<Limit, BpfError> {
        let Self { rate, burst } = self;
        Limit::new(rate, burst, hz).ok_or(BpfError::Limit(rate, burst))
    }
}

/// An interface that the program is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardedInterface {
    /// Its number.
    pub index: u32,
    /// Its hardware address; XDP answers only what is sent to it.
    pub hardware: [u8; 6],
    /// Further ones that frames on it may be for. Of all interfaces together the
    /// first [`abi::MAX_FURTHER_HARDWARE`] are used.
    pub further_hardware: Vec<[u8; 6]>,
}

/// What the program is to enforce. Replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What one source may send.
    pub source: Rate,
    /// What one prefix may send, IPv4 /24 or IPv6 /48; none: no such limit.
    pub prefix: Option<Rate>,
    /// What all unproven sources together may send to the listeners; none: no
    /// such limit.
    pub cap: Option<Rate>,
    /// What the unproven get that are over a limit.
    pub flood_answer: FloodAnswer,
    /// Count every verdict, neither drop nor answer anything.
    pub observe: bool,
    /// Counters are kept by place in here.
    pub interfaces: Vec<GuardedInterface>,
    /// The pairs that the responder listens on.
    pub guarded: HashSet<(IpAddr, u16)>,
    /// Addresses among them that live on one of the interfaces themselves, so
    /// that frames for them have no VLAN tag. For others XDP does not answer.
    pub answerable: HashSet<IpAddr>,
    /// Addresses that no client has, of which the first [`MAX_OWN`] count: see [`Config::own`].
    pub own: HashSet<IpAddr>,
    /// Who is let through, and who is not. The same again costs nothing.
    pub lists: Arc<Lists>,
    /// What XDP says where nobody listens; none: there are listeners.
    pub responder: Option<Texts>,
    /// There are listeners all the same, in whose place it is said while the lease is
    /// not renewed ([`Guard::renew_lease`]).
    pub fallback: bool,
}

/// The loaded program with its maps. Dropping it detaches the program from
/// every interface, unless it is kept: then the program goes on by itself, for
/// nobody.
pub struct Guard {
    ebpf: Ebpf,
    /// By the interface's number.
    links: Vec<(u32, FdLink)>,
    /// Interfaces whose link is pinned.
    pinned: Vec<u32>,
    pins: Option<Pins>,
    /// What is pinned stays when the agent goes.
    keep: bool,
    /// The last one that was put in force; none once it was left to itself.
    policy: Option<Policy>,
    lease: Array<MapData, u32>,
    config: Array<MapData, Config>,
    active: Array<MapData, u32>,
    texts: Array<MapData, Texts>,
    /// Which texts are in use.
    generation: u32,
    debts: retransmit::Debts,
    /// Open for as long as the program is to find the responder in it.
    _responders: ProgramArray<MapData>,
    counters: PerCpuArray<MapData, Counters>,
    sources: sources::Sources,
    events: events::Events,
    list_maps: lists::ListMaps,
    clock: Clock,
    verified: Vec<(&'static str, u32)>,
    in_use: u32,
    limit: Limit,
    /// The set of list maps in use, what is in it, and which are not empty.
    list_set: u32,
    /// None: the maps may hold an earlier agent's.
    lists: Option<Arc<Lists>>,
    list_bits: u32,
}

impl Guard {
    /// Loads the program. It guards nothing until [`Guard::configure`]. It cannot obey
    /// a [`Policy::responder`], and spends nothing on it.
    pub fn load(ports: &HashSet<u16>) -> Result<Self, BpfError> {
        Self::load_with(ports, false, random_secrets()?, &[])
    }

    /// Loads the program with secrets that somebody else knows, too: the seed of its
    /// tables, and the key of its challenges. For a test that predicts what it does.
    pub fn load_known(ports: &HashSet<u16>, secrets: [u64; 3]) -> Result<Self, BpfError> {
        Self::load_with(ports, false, secrets, &[])
    }

    /// Loads the program, and beside it the one that answers where nobody listens.
    pub fn load_responder(ports: &HashSet<u16>) -> Result<Self, BpfError> {
        Self::load_with(ports, true, random_secrets()?, &[])
    }

    /// Loads the program for these interfaces, in their order, to go on where an
    /// earlier agent's left off, if it fits what that has pinned. With `keep` it
    /// is to be pinned itself.
    ///
    /// Where they share their maps, the earlier program, which is attached until
    /// then, is told by [`Guard::configure`], too.
    pub fn load_pinned(
        ports: &HashSet<u16>,
        responder: bool,
        interfaces: &[u32],
        mut pins: Pins,
        keep: bool,
    ) -> Result<Self, BpfError> {
        if OBJECT.is_empty() {
            return Err(BpfError::NoObject);
        }
        let prepared = pins.prepare(OBJECT, interfaces, keep)?;
        let secrets = match prepared.secrets {
            Some(secrets) => secrets,
            None => random_secrets()?,
        };
        let mut guard = Self::load_with(ports, responder, secrets, &prepared.maps)?;
        if keep && prepared.secrets.is_none() {
            pins.pin_secrets(secrets)?;
        }
        guard.keep = keep;
        guard.pins = Some(pins);
        // Also if it is not to be kept: it may be killed while it is still pinned.
        guard.begin_lease()?;
        Ok(guard)
    }

    fn load_with(
        ports: &HashSet<u16>,
        responder: bool,
        [seed, key @ ..]: Secrets,
        maps: &[(String, PathBuf)],
    ) -> Result<Self, BpfError> {
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
        let mut loader = EbpfLoader::new();
        for (name, path) in maps {
            loader.map_pin_path(name, path.as_path());
        }
        let mut ebpf = loader
            .override_global(abi::PORTS_GLOBAL, &port_places, true)
            .override_global(abi::RESPONDER_GLOBAL, &u32::from(responder), true)
            .override_global(abi::SEED_GLOBAL, &seed, true)
            .override_global(abi::KEY_GLOBAL, &key, true)
            .load(OBJECT)
            .map_err(|error| BpfError::load(&error))?;
        let mut responders: ProgramArray<_> = take(&mut ebpf, abi::RESPONDERS_MAP)?.try_into()?;
        for name in programs(responder) {
            program(&mut ebpf, name)?
                .load()
                .map_err(|error| BpfError::load(&error.into()))?;
        }
        if responder {
            let program = program(&mut ebpf, abi::RESPONDER_PROGRAM)?;
            responders.set(0, program.fd()?, 0)?;
        }
        let verified = verified_instructions(&mut ebpf, responder)?;
        let clock = Clock::take(program(&mut ebpf, abi::CLOCK_PROGRAM)?)?;
        let config: Array<_, Config> = take(&mut ebpf, abi::CONFIG_MAP)?.try_into()?;
        let active: Array<_, u32> = take(&mut ebpf, abi::ACTIVE_MAP)?.try_into()?;
        // 0, unless the maps are an earlier agent's.
        let Active {
            config: in_use,
            list_set,
            generation,
        } = Active::from_word(active.get(&0, 0)?);
        Ok(Self {
            config,
            active,
            texts: take(&mut ebpf, abi::TEXTS_MAP)?.try_into()?,
            generation,
            _responders: responders,
            counters: take(&mut ebpf, abi::COUNTERS_MAP)?.try_into()?,
            sources: sources::Sources::new(
                take(&mut ebpf, abi::SOURCES_MAP)?,
                take(&mut ebpf, abi::CARRIES_MAP)?,
            )?,
            events: events::Events::new(take(&mut ebpf, abi::EVENTS_MAP)?.try_into()?),
            debts: retransmit::Debts::new(
                take(&mut ebpf, abi::OWED_MAP)?.try_into()?,
                take(&mut ebpf, abi::DIALOGS_MAP)?.try_into()?,
            ),
            list_maps: lists::ListMaps::take(&mut ebpf)?,
            lease: take(&mut ebpf, abi::LEASE_MAP)?.try_into()?,
            links: Vec::new(),
            pinned: Vec::new(),
            pins: None,
            keep: false,
            policy: None,
            clock,
            verified,
            in_use,
            limit: Limit::UNLIMITED,
            list_set,
            lists: None,
            list_bits: 0,
            ebpf,
        })
    }

    /// Makes `policy` the one in force, between two packets: no packet is
    /// judged by half of it. On an error the old one stays.
    pub fn configure(&mut self, policy: &Policy) -> Result<(), BpfError> {
        let hz = self.clock.hz();
        let limit = policy.source.limit(hz)?;
        let optional =
            |rate: Option<Rate>| rate.map_or(Ok(Limit::UNLIMITED), |rate| rate.limit(hz));
        if policy.interfaces.len() > MAX_INTERFACES {
            return Err(BpfError::TooManyInterfaces(policy.interfaces.len()));
        }
        let mut config = zeroed_config();
        config.limit = limit;
        config.prefix_limit = optional(policy.prefix)?;
        config.cap = optional(policy.cap)?;
        config.resets = ResetLimits {
            of_source: resets(RESETS, policy.cap).limit(hz)?,
            of_all: resets(ALL_RESETS, policy.cap).limit(hz)?,
        };
        config.observe = u32::from(policy.observe);
        config.flood_answer = policy.flood_answer as u32;
        config.slot_shift = slot_shift(hz);
        config.proof_ticks = hz * PROOF_SECS as u32;
        config.pause_ticks = hz * PAUSE_SECS as u32;
        config.responder = match policy.responder {
            None => 0,
            Some(_) if policy.fallback => RESPOND_FOR_LISTENERS,
            Some(_) => RESPOND,
        };
        config.generation = self.generation_of(policy.responder.as_ref())?;
        config.cookie_shift = dialog::slot_shift(hz);
        for (place, interface) in policy.interfaces.iter().enumerate() {
            config.interfaces[place] = interface.index;
            config.hardware[place][..6].copy_from_slice(&interface.hardware);
        }
        let further = policy.interfaces.iter().zip(1..).flat_map(|(of, entry)| {
            let addresses = of.further_hardware.iter();
            addresses.map(move |&address| FurtherHardware { address, entry })
        });
        for (place, further) in config.further_hardware.iter_mut().zip(further) {
            *place = further;
        }
        let pairs: Vec<_> = policy
            .guarded
            .iter()
            .zip(0..)
            .map(|(&(address, port), number)| {
                let untagged = policy.answerable.contains(&address);
                Guarded {
                    address: address.to_canonical().into(),
                    port,
                    vlan: if untagged { 0 } else { VLAN_NONE },
                    number,
                }
            })
            .collect();
        let mut seed = random()?;
        let mut seeds = std::iter::repeat_with(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        if !config.set_guarded(&pairs, seeds.by_ref().take(SEEDS_MAX)) {
            return Err(BpfError::TooManyGuarded(pairs.len()));
        }
        // Those first that XDP speaks for, and others as long as there is room.
        let guarded: HashSet<_> = policy.guarded.iter().map(|(address, _)| address).collect();
        let others = policy.own.iter().filter(|own| !guarded.contains(own));
        let own: Vec<_> = guarded
            .iter()
            .copied()
            .chain(others)
            .take(MAX_OWN)
            .map(|own| own.to_canonical().into())
            .collect();
        if !config.set_own(&own, seeds.take(SEEDS_MAX)) {
            return Err(BpfError::Own(own.len()));
        }
        let same_lists = self
            .lists
            .as_ref()
            .is_some_and(|lists| Arc::ptr_eq(lists, &policy.lists) || *lists == policy.lists);
        let (list_set, list_bits) = if same_lists {
            (self.list_set, self.list_bits)
        } else {
            let unused = 1 - self.list_set;
            let bits = self.list_maps.write(unused, &policy.lists)?;
            (unused, bits)
        };
        (config.list_set, config.lists) = (list_set, list_bits);
        let next = 1 - self.in_use;
        let written: &Config = &config;
        self.config.set(next, written, 0)?;
        let active = Active {
            config: next,
            list_set,
            generation: config.generation,
        };
        self.active.set(0, active.word(), 0)?;
        self.in_use = next;
        self.generation = config.generation;
        self.limit = limit;
        self.policy = Some(policy.clone());
        self.lists = Some(Arc::clone(&policy.lists));
        (self.list_set, self.list_bits) = (list_set, list_bits);
        // A packet that began under the old entry ends within microseconds; the
        // entry is not written again before that, even if reloads come in a row.
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    /// The generation of these texts: the one in use, or the next one, which no dialog
    /// that began lately is served from.
    fn generation_of(&mut self, texts: Option<&Texts>) -> Result<u32, BpfError> {
        let Some(texts) = texts else {
            return Ok(self.generation);
        };
        if self.texts.get(&self.generation, 0)? == *texts {
            return Ok(self.generation);
        }
        let next = (self.generation + 1) % GENERATIONS;
        self.texts.set(next, *texts, 0)?;
        Ok(next)
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
        self.links.push((interface, link));
        Ok((mode, refused))
    }

    /// Takes over an earlier agent's link to the interface: not one packet meets
    /// no program. False when there is none.
    pub fn take_over(&mut self, interface: u32) -> Result<bool, BpfError> {
        let link = self.pins.as_mut().and_then(|pins| pins.take(interface));
        let Some(link) = link else {
            return Ok(false);
        };
        let link = attach::replace(program(&mut self.ebpf, abi::PROGRAM)?, link)?;
        self.links.push((interface, link));
        Ok(true)
    }

    /// Removes an earlier agent's link to the interface. The kernel takes a moment
    /// to detach its program.
    pub fn release(&mut self, interface: u32) -> Result<(), BpfError> {
        match &mut self.pins {
            Some(pins) => pins.release(interface),
            None => Ok(()),
        }
    }

    /// Pins the program to what it is attached to, if it is to be kept; and
    /// removes what else there is of pins.
    pub fn settle_pins(&mut self) -> Result<(), BpfError> {
        match self.pins.take() {
            None => {}
            Some(pins) if !self.keep => {
                pins.remove_all()?;
                self.lease.set(0, 0, 0)?;
            }
            Some(mut pins) => {
                self.links = pins.keep(std::mem::take(&mut self.links))?;
                self.pinned = self.links.iter().map(|&(interface, _)| interface).collect();
                self.pins = Some(pins);
            }
        }
        Ok(())
    }

    /// Whether the program stays on this interface without the agent.
    pub fn is_pinned(&self, interface: u32) -> bool {
        self.pinned.contains(&interface)
    }

    /// Forgets an interface that is gone.
    pub fn forget(&mut self, interface: u32) {
        self.links.retain(|&(on, _)| on != interface);
        self.pinned.retain(|&on| on != interface);
    }

    /// Tells a program that may outlive the agent that it is there, and one that takes
    /// the place of the listeners that they take connections. To be called more often
    /// than once in [`LEASE_SECS`], or in [`FALLBACK_LEASE_MILLIS`].
    pub fn renew_lease(&mut self) -> Result<(), BpfError> {
        if self.is_fallback() {
            self.lease_for(FALLBACK_LEASE_MILLIS)?;
        } else if self.keep {
            self.begin_lease()?;
        }
        Ok(())
    }

    fn begin_lease(&mut self) -> Result<(), BpfError> {
        self.lease_for(LEASE_SECS * 1000)
    }

    fn lease_for(&mut self, millis: u32) -> Result<(), BpfError> {
        let ticks = u64::from(self.clock.hz()) * u64::from(millis) / 1000;
        let ends = self.clock.jiffies()? + ticks;
        // Not 0, which means that none is needed.
        Ok(self.lease.set(0, ends as u32 | 1, 0)?)
    }

    fn is_fallback(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.fallback)
    }

    fn takes_over(&self) -> bool {
        let says = |policy: &Policy| policy.responder.is_some();
        self.is_fallback() && self.policy.as_ref().is_some_and(says)
    }

    /// For how long the program has answered in place of the listeners, if it does.
    pub fn has_taken_over(&self) -> Result<Option<Duration>, BpfError> {
        if !self.takes_over() {
            return Ok(None);
        }
        let (until, now) = (self.lease.get(&0, 0)?, self.clock.jiffies()? as u32);
        let ended = !abi::lease_holds(until, now);
        let ago = Duration::from_secs(now.wrapping_sub(until).into()) / self.clock.hz();
        Ok(ended.then_some(ago))
    }

    /// Takes the program off every interface, or leaves it to itself if it is
    /// kept. Its counters stay readable.
    pub fn leave(&mut self) -> Result<(), BpfError> {
        if self.keep {
            self.leave_to_itself()
        } else {
            self.links.clear();
            Ok(())
        }
    }

    /// Nobody listens: nobody is answered, and there is no queue to protect.
    /// What is denied or over its bucket is dropped, all else gets the kernel's
    /// answer. The responder needs nobody: it goes on, or takes over.
    fn leave_to_itself(&mut self) -> Result<(), BpfError> {
        if self.takes_over() {
            self.lease
                .set(0, (self.clock.jiffies()? as u32).wrapping_sub(2) | 1, 0)?;
            self.policy = None;
            return Ok(());
        }
        let Some(policy) = self.policy.take_if(|policy| policy.responder.is_none()) else {
            return Ok(());
        };
        self.configure(&Policy {
            flood_answer: FloodAnswer::Drop,
            cap: None,
            ..policy
        })?;
        self.policy = None;
        Ok(())
    }

    /// The kernel's number of the program.
    pub fn program_id(&mut self) -> Result<u32, BpfError> {
        Ok(program(&mut self.ebpf, abi::PROGRAM)?.info()?.id())
    }

    /// Instructions that the verifier walked through, of each program. Nothing on
    /// kernels that do not tell.
    pub fn verified_instructions(&self) -> &[(&'static str, u32)] {
        &self.verified
    }

    /// The clock that the program reads.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The counters of the interface at `place` of [`Policy::interfaces`], or
    /// for `None` of an interface that was not in there.
    pub fn counters(&self, place: Option<usize>) -> Result<Counters, BpfError> {
        let entry = place.map_or(0, |place| place as u32 + 1);
        sum_of_cpus(&self.counters, entry)
    }

    /// Every source in the table.
    pub fn sources(&self) -> Result<Vec<SourceCount>, BpfError> {
        self.sources.read(&self.clock, self.limit)
    }

    /// Takes what the program has told of sources since the last time.
    pub fn take_events(&mut self) -> Result<Vec<Limited>, BpfError> {
        self.events.take(&self.clock)
    }

    /// What is owed to clients of the responder, see [`nomail_common::stateless::retransmit`], and to be sent
    /// now. To be called once a second.
    pub fn owed_frames(&mut self) -> Result<Vec<OwedFrame>, BpfError> {
        match &self.policy {
            Some(policy) if policy.responder.is_some() && !policy.observe => {
                self.debts.due(&self.texts, Instant::now())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Runs the program on a frame, as `BPF_PROG_TEST_RUN` does: its action,
    /// and the mean time of `repeat` runs in nanoseconds.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(u32, u128), BpfError> {
        use aya::programs::{TestRun as _, TestRunOptions};
        let program = self.ebpf.program(abi::PROGRAM);
        let program: &Xdp = program.ok_or(BpfError::Missing(abi::PROGRAM))?.try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        })?;
        Ok((result.return_value, result.duration.as_nanos()))
    }

    /// Runs the program once on a frame that goes on from there: what it passes comes in
    /// at the interface as if the wire had brought it.
    pub fn let_in(&self, interface: u32, frame: &[u8]) -> Result<(), BpfError> {
        use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions};
        let program = self.ebpf.program(abi::PROGRAM);
        let program: &Xdp = program.ok_or(BpfError::Missing(abi::PROGRAM))?.try_into()?;
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&live_context(frame.len(), interface)),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        })?;
        Ok(())
    }

    /// Runs the program once on a frame: its action, and the frame afterwards.
    pub fn test_answer(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), BpfError> {
        use aya::programs::{TestRun as _, TestRunOptions};
        // The responder may have more to say.
        let mut out = vec![0; frame.len() + dialog::TEXT_MAX];
        let result = program(&mut self.ebpf, abi::PROGRAM)?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: 1,
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.keep
            && let Err(error) = self.leave_to_itself()
        {
            warn!(
                "cannot update the pinned guard: it may challenge clients for up to 10 s: {error}"
            );
        }
    }
}

/// Seeds that are tried before a table is called too full. Full to a quarter, as
/// [`MAX_GUARDED`] and [`MAX_OWN`] are, it needs one, seldom a second.
const SEEDS_MAX: usize = 1000;
const _: () = assert!(
    MAX_GUARDED * 4 <= abi::GUARDED_PLACES && MAX_OWN * 4 <= abi::OWN_PLACES,
    "measure again how many seeds it takes"
);

/// The context of a program that is run (`xdp_md` of the kernel): data, its end, metadata,
/// ingress interface, queue, egress interface.
fn live_context(length: usize, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (place, word) in context
        .chunks_exact_mut(4)
        .zip([0, length as u32, 0, interface])
    {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    context
}

/// A configuration with no limit that guards nothing: too large for the stack.
fn zeroed_config() -> Box<Config> {
    // SAFETY: of integers only, for which all zeros is a value.
    unsafe { Box::<Config>::new_zeroed().assume_init() }
}

/// The programs that are loaded.
fn programs(responder: bool) -> impl Iterator<Item = &'static str> {
    let responder = responder.then_some(abi::RESPONDER_PROGRAM);
    [abi::PROGRAM, abi::CLOCK_PROGRAM]
        .into_iter()
        .chain(responder)
}

fn verified_instructions(
    ebpf: &mut Ebpf,
    responder: bool,
) -> Result<Vec<(&'static str, u32)>, BpfError> {
    let mut counts = Vec::new();
    for name in programs(responder) {
        let count = program(ebpf, name)?.info()?.verified_instruction_count();
        counts.extend(count.map(|count| (name, count)));
    }
    Ok(counts)
}

/// The name of a loaded program, to tell whose it is.
pub fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id);
    let name = found.as_ref().and_then(|info| info.name_as_str());
    debug!("program {id} is {name:?}");
    name.map(str::to_owned)
}

/// What all CPUs counted in an entry of the counters.
fn sum_of_cpus(
    counters: &PerCpuArray<MapData, Counters>,
    entry: u32,
) -> Result<Counters, BpfError> {
    let mut sum = Counters::default();
    for cpu in counters.get(&entry, 0)?.iter() {
        for (sum, cpu) in sum.verdicts.iter_mut().zip(cpu.verdicts) {
            *sum += cpu;
        }
        for (sum, cpu) in sum.answers.iter_mut().zip(cpu.answers) {
            *sum += cpu;
        }
        sum.evictions += cpu.evictions;
        sum.contended += cpu.contended;
    }
    Ok(sum)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, BpfError> {
    let program = ebpf.program_mut(name).ok_or(BpfError::Missing(name))?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}

fn random_secrets() -> Result<Secrets, BpfError> {
    Ok([random()?, random()?, random()?])
}

fn random() -> Result<u64, BpfError> {
    getrandom::u64().map_err(|error| BpfError::Random(error.into()))
}
