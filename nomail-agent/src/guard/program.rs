//! The loaded program with its maps and links.

use std::{
    collections::HashSet,
    mem,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, ProgramArray},
    programs::links::FdLink,
};
use log::warn;
use nomail_common::{
    abi::{self, Active, Config, Counters, GENERATIONS, Texts},
    guard::lease::{FALLBACK_LEASE_MILLIS, LEASE_SECS},
    guard::limiter::Limit,
    guard::policy::FloodAnswer,
};

use super::{
    attach,
    clock::Clock,
    error::BpfError,
    events::{Events, Limited},
    lease::Lease,
    lists::ListMaps,
    mode::Mode,
    object::{self, Loaded, program, take_map},
    pins::Pins,
    policy::{Lists, Policy},
    retransmit::{Retransmissions, RetransmitFrame},
    secrets::{Secrets, random_secrets},
    sources::{SourceCount, Sources},
    table::sum_of_cpus,
};

/// The loaded program with its maps. Dropping it detaches the program from every interface,
/// unless it is pinned: then it stays, and no longer counts on an agent.
pub struct Guard {
    pub(super) ebpf: Ebpf,
    /// By interface index.
    links: Vec<(u32, FdLink)>,
    /// Interfaces whose link is pinned.
    pinned: Vec<u32>,
    pins: Option<Pins>,
    /// Whether the pins stay when the agent exits.
    keep: bool,
    /// The policy in force; none once the agent has given up the guard.
    policy: Option<Policy>,
    lease: Lease,
    config: Array<MapData, Config>,
    active: Array<MapData, u32>,
    texts: Array<MapData, Texts>,
    /// The generation of the texts in use.
    generation: u32,
    retransmissions: Retransmissions,
    /// Held open, so that the program finds the stateless refusal in it.
    _responders: ProgramArray<MapData>,
    counters: PerCpuArray<MapData, Counters>,
    sources: Sources,
    events: Events,
    list_maps: ListMaps,
    clock: Clock,
    verified: Vec<(&'static str, u32)>,
    /// The entry of the configuration in use.
    in_use: u32,
    limit: Limit,
    /// The set of lists in use.
    list_set: u32,
    /// The lists in it. None: the maps may hold an earlier agent's.
    lists: Option<Arc<Lists>>,
    /// Which of them are not empty; all, where an earlier agent's may be there.
    list_bits: u32,
    #[cfg(feature = "trace")]
    pub(super) trace: Option<super::trace::Trace>,
}

impl Guard {
    /// Loads the program, without the stateless refusal. It guards nothing until
    /// [`Guard::configure`].
    pub fn load(ports: &HashSet<u16>) -> Result<Self, BpfError> {
        Self::load_with(ports, false, random_secrets()?, &[])
    }

    /// Loads the program with known secrets: the seed of its tables, and the key of its
    /// challenges. For tests that predict what it does.
    pub fn load_known(ports: &HashSet<u16>, secrets: [u64; 3]) -> Result<Self, BpfError> {
        Self::load_with(ports, false, secrets, &[])
    }

    /// Loads the program with the stateless refusal.
    pub fn load_responder(ports: &HashSet<u16>) -> Result<Self, BpfError> {
        Self::load_with(ports, true, random_secrets()?, &[])
    }

    /// Loads the program for these interfaces, in their order, with the maps that an earlier
    /// agent pinned, if they fit. With `keep` it is to be pinned itself.
    ///
    /// [`Guard::configure`] also configures the earlier program, which is still attached, if
    /// it has the same maps.
    pub fn load_pinned(
        ports: &HashSet<u16>,
        responder: bool,
        interfaces: &[u32],
        mut pins: Pins,
        keep: bool,
    ) -> Result<Self, BpfError> {
        let prepared = pins.prepare(object::object()?, interfaces, keep)?;
        let secrets = match prepared.secrets {
            Some(secrets) => secrets,
            None => random_secrets()?,
        };
        let mut guard = Self::load_with(ports, responder, secrets, &prepared.maps)?;
        if keep && prepared.secrets.is_none() {
            pins.pin_secrets(secrets)?;
        }
        if prepared.secrets.is_some() {
            // Until they are replaced.
            guard.list_bits = u32::MAX;
        }
        guard.keep = keep;
        guard.pins = Some(pins);
        // Also if it is not to stay: the agent may be killed while it is still pinned.
        guard.lease.renew(&guard.clock, LEASE_SECS * 1000)?;
        Ok(guard)
    }

    fn load_with(
        ports: &HashSet<u16>,
        responder: bool,
        secrets: Secrets,
        maps: &[(String, PathBuf)],
    ) -> Result<Self, BpfError> {
        let Loaded {
            mut ebpf,
            responders,
            verified,
        } = object::load(ports, responder, secrets, maps)?;
        let clock = Clock::take(program(&mut ebpf, abi::CLOCK_PROGRAM)?)?;
        let active: Array<_, u32> = take_map(&mut ebpf, abi::ACTIVE_MAP)?.try_into()?;
        // 0, unless the maps are an earlier agent's.
        let Active {
            config: in_use,
            list_set,
            generation,
        } = Active::from_word(active.get(&0, 0)?);
        Ok(Self {
            config: take_map(&mut ebpf, abi::CONFIG_MAP)?.try_into()?,
            active,
            texts: take_map(&mut ebpf, abi::TEXTS_MAP)?.try_into()?,
            generation,
            _responders: responders,
            counters: take_map(&mut ebpf, abi::COUNTERS_MAP)?.try_into()?,
            sources: Sources::new(
                take_map(&mut ebpf, abi::SOURCES_MAP)?,
                take_map(&mut ebpf, abi::CARRIES_MAP)?,
            )?,
            events: Events::new(take_map(&mut ebpf, abi::EVENTS_MAP)?.try_into()?),
            retransmissions: Retransmissions::new(
                take_map(&mut ebpf, abi::OWED_MAP)?.try_into()?,
                take_map(&mut ebpf, abi::DIALOGS_MAP)?.try_into()?,
            ),
            list_maps: ListMaps::take(&mut ebpf)?,
            lease: Lease::new(take_map(&mut ebpf, abi::LEASE_MAP)?.try_into()?),
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
            #[cfg(feature = "trace")]
            trace: super::trace::Trace::take(&mut ebpf),
            ebpf,
        })
    }

    /// Puts `policy` in force between two packets: no packet is judged by half of it. On an
    /// error the old one stays.
    pub fn configure(&mut self, policy: &Policy) -> Result<(), BpfError> {
        let mut config = policy.config(self.clock.hz())?;
        config.generation = self.generation_of(policy.responder.as_ref())?;
        let (list_set, list_bits) = if self.has(&policy.lists) {
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
        self.limit = config.limit;
        self.policy = Some(policy.clone());
        self.lists = Some(Arc::clone(&policy.lists));
        let (old_set, old_bits) = (self.list_set, self.list_bits);
        (self.list_set, self.list_bits) = (list_set, list_bits);
        // Packets that began under the old entry end within microseconds. The entry is not
        // written again before that, even if reloads follow each other at once.
        thread::sleep(Duration::from_millis(1));
        if old_set != list_set
            && let Err(error) = self.list_maps.settle((old_bits != 0).then_some(old_set))
        {
            warn!("the lists that were replaced stay in memory until the next ones: {error}");
        }
        Ok(())
    }

    /// Writes a slice of these lists where they are not in use yet; whether that was the last
    /// one. [`Guard::configure`] with other lists, or without this, writes all that is left.
    pub fn write_ahead(&mut self, lists: &Arc<Lists>) -> Result<bool, BpfError> {
        let unused = 1 - self.list_set;
        Ok(self.has(lists) || self.list_maps.write_slice(unused, lists)?.is_some())
    }

    /// Whether these lists are in use.
    fn has(&self, lists: &Arc<Lists>) -> bool {
        let ours = self.lists.as_ref();
        ours.is_some_and(|ours| Arc::ptr_eq(ours, lists) || ours == lists)
    }

    /// The generation of these texts: the one in use, or the next one, which no recent dialog
    /// uses.
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

    /// Attaches the program to an interface in the first of `modes` that works. Returns the
    /// mode, and the error of the mode before it.
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

    /// Takes over an earlier agent's link to the interface, without a moment in which no
    /// program is attached. False when there is no link.
    pub fn take_over(&mut self, interface: u32) -> Result<bool, BpfError> {
        let link = self.pins.as_mut().and_then(|pins| pins.take(interface));
        let Some(link) = link else {
            return Ok(false);
        };
        if nomail_common::Mechanism::ReplaceLink.is_off() {
            drop(link);
            self.release(interface)?;
            while let Err(error) = self.attach(interface, &[Mode::Native]) {
                if !matches!(error, BpfError::Occupied) {
                    return Err(error);
                }
            }
            return Ok(true);
        }
        let link = attach::replace(program(&mut self.ebpf, abi::PROGRAM)?, link)?;
        self.links.push((interface, link));
        Ok(true)
    }

    /// Removes an earlier agent's link to the interface. The kernel takes a moment to detach
    /// its program.
    pub fn release(&mut self, interface: u32) -> Result<(), BpfError> {
        match &mut self.pins {
            Some(pins) => pins.release(interface),
            None => Ok(()),
        }
    }

    /// Pins the links of the program if they are to stay, and removes all other pins.
    pub fn settle_pins(&mut self) -> Result<(), BpfError> {
        match self.pins.take() {
            None => {}
            Some(pins) if !self.keep => {
                pins.remove_all()?;
                self.lease.remove()?;
            }
            Some(mut pins) => {
                self.links = pins.settle(mem::take(&mut self.links))?;
                self.pinned = self.links.iter().map(|&(interface, _)| interface).collect();
                self.pins = Some(pins);
            }
        }
        Ok(())
    }

    /// Whether the program stays on this interface when the agent exits.
    pub fn is_pinned(&self, interface: u32) -> bool {
        self.pinned.contains(&interface)
    }

    /// Forgets an interface that is gone.
    pub fn forget(&mut self, interface: u32) {
        self.links.retain(|&(on, _)| on != interface);
        self.pinned.retain(|&on| on != interface);
    }

    /// Renews the lease of a program that may outlive the agent, or that takes the place of
    /// its listeners. To be called more often than once in [`LEASE_SECS`], or in
    /// [`FALLBACK_LEASE_MILLIS`].
    pub fn renew_lease(&mut self) -> Result<(), BpfError> {
        if self.is_fallback() {
            self.lease.renew(&self.clock, FALLBACK_LEASE_MILLIS)?;
        } else if self.keep {
            self.lease.renew(&self.clock, LEASE_SECS * 1000)?;
        }
        Ok(())
    }

    fn is_fallback(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.fallback)
    }

    fn takes_over(&self) -> bool {
        let policy = self.policy.as_ref();
        policy.is_some_and(|policy| policy.fallback && policy.responder.is_some())
    }

    /// For how long the program has answered in place of the listeners; none while they serve.
    pub fn has_taken_over(&self) -> Result<Option<Duration>, BpfError> {
        if !self.takes_over() {
            return Ok(None);
        }
        self.lease.ended_for(&self.clock)
    }

    /// Detaches the program from every interface, or gives it up where it is pinned. Its
    /// counters stay readable.
    pub fn stop(&mut self) -> Result<(), BpfError> {
        if self.keep {
            self.give_up()
        } else {
            self.links.clear();
            Ok(())
        }
    }

    /// Configures a pinned program for the time without an agent. There is no listener to
    /// protect and nothing to challenge for: denied SYNs and those over their bucket are
    /// dropped, all others pass. A stateless refusal goes on, or takes over.
    fn give_up(&mut self) -> Result<(), BpfError> {
        if self.takes_over() {
            self.lease.end(&self.clock)?;
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

    /// The kernel's id of the program.
    pub fn program_id(&mut self) -> Result<u32, BpfError> {
        Ok(program(&mut self.ebpf, abi::PROGRAM)?.info()?.id())
    }

    /// Instructions that the verifier processed, by program. Empty on kernels that do not
    /// report them.
    pub fn verified_instructions(&self) -> &[(&'static str, u32)] {
        &self.verified
    }

    /// The clock that the program reads.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The counters of the interface at `index` of [`Policy::interfaces`]; with none, of all
    /// interfaces that are not in there.
    pub fn counters(&self, index: Option<usize>) -> Result<Counters, BpfError> {
        let entry = index.map_or(0, |index| index as u32 + 1);
        sum_of_cpus(&self.counters, entry)
    }

    /// Logs each step of a segment from now on, in a task of its own.
    #[cfg(feature = "trace")]
    pub fn follow_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            trace.follow();
        }
    }

    /// Every source in the table.
    pub fn sources(&self) -> Result<Vec<SourceCount>, BpfError> {
        self.sources.read(&self.clock, self.limit)
    }

    /// Takes the sources that were reported since the last call.
    pub fn take_events(&mut self) -> Result<Vec<Limited>, BpfError> {
        self.events.take(&self.clock)
    }

    /// The frames to retransmit now, see [`nomail_common::stateless::retransmit`]. To be
    /// called once a second.
    pub fn retransmissions(&mut self) -> Result<Vec<RetransmitFrame>, BpfError> {
        match &self.policy {
            Some(policy) if policy.responder.is_some() && !policy.observe => {
                self.retransmissions.due(&self.texts, Instant::now())
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.keep
            && let Err(error) = self.give_up()
        {
            warn!(
                "cannot update the pinned guard: it may challenge clients for up to 10 s: {error}"
            );
        }
    }
}
