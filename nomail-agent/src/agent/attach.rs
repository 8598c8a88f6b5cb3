//! The guard and the interfaces that it is attached to.

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use anyhow::anyhow;
use log::{info, warn};
use nomail_common::{abi, source::Source};

use super::{counters::counts_of, mode::AttachMode, pinned, root::Root};
use crate::{
    config::{Config, OnExit, XdpMode},
    exit::{Exit, Failure},
    guard::{
        self, BpfError, Guard, Limited, Lists, Mode, Pins, Policy, RetransmitFrame, SourceCount,
    },
    net::Interface,
    status::{GuardCounts, InterfaceStatus, Trouble},
};

/// The kernel detaches a little after the last reference is gone: how often, and how many
/// times, the attachment is tried meanwhile.
const DETACH_POLL: Duration = Duration::from_millis(10);
const DETACH_POLLS: u32 = 200;

/// The guard with the status of each guarded interface, by its slot: its index among all of
/// them. With `xdp_mode = "off"` there is no guard: then its methods do nothing.
pub(super) struct AttachedGuard {
    guard: Option<Guard>,
    statuses: Vec<InterfaceStatus>,
}

/// What the guard counted in all, and where.
#[derive(Default)]
pub(super) struct GuardTotals {
    pub(super) all: GuardCounts,
    /// By slot.
    pub(super) of_interfaces: Vec<GuardCounts>,
    /// On other interfaces.
    pub(super) elsewhere: GuardCounts,
}

impl AttachedGuard {
    /// Loads the guard with `policy`, and attaches it to each interface in its mode. It takes
    /// over the guard of an earlier agent from `pins`.
    pub(super) fn attach_all(
        _: &Root,
        config: &Config,
        on: &[(&Interface, AttachMode)],
        policy: &Policy,
        pins: Option<Pins>,
    ) -> Result<Self, Failure> {
        if config.xdp_mode == XdpMode::Off {
            warn!("--xdp-mode off: no SYN is counted or limited");
            return Ok(Self {
                guard: None,
                statuses: on.iter().map(|(on, _)| without_guard(on)).collect(),
            });
        }
        let mut guard = load(config, on, policy, pins)?;
        guard.configure(policy)?;
        let mut statuses = Vec::new();
        for (interface, chosen) in on {
            if interface.is_absent() {
                statuses.push(without_guard(interface));
                continue;
            }
            let mode = attach_to(&mut guard, chosen.mode, interface)?;
            statuses.push(InterfaceStatus {
                name: interface.name.clone(),
                xdp_mode: mode.to_string(),
                program_id: guard.program_id()?,
                reason: chosen.reason.to_owned(),
                ..InterfaceStatus::default()
            });
        }
        Ok(Self {
            guard: Some(guard),
            statuses,
        })
    }

    /// Pins what is to outlive the agent, and removes all other pins.
    pub(super) fn settle_pins(
        &mut self,
        _: &Root,
        interfaces: &[Interface],
    ) -> Result<(), Failure> {
        let Some(guard) = &mut self.guard else {
            return Ok(());
        };
        guard.settle_pins()?;
        for (status, interface) in self.statuses.iter_mut().zip(interfaces) {
            status.pinned = guard.is_pinned(interface.index);
        }
        Ok(())
    }

    /// Logs each step of a segment from now on.
    #[cfg(feature = "trace")]
    pub(super) fn follow_trace(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.follow_trace();
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.guard.is_some()
    }

    /// The number of its program, if it is attached anywhere.
    pub(super) fn program(&self) -> Option<u32> {
        let mut programs = self.statuses.iter().map(|on| on.program_id);
        programs.find(|&program| program != 0)
    }

    pub(super) fn statuses(&self) -> &[InterfaceStatus] {
        &self.statuses
    }

    /// The numbers of those `interfaces` that the guard is on.
    pub(super) fn guarded(&self, interfaces: &[Interface]) -> Vec<u32> {
        let on = self.statuses.iter().zip(interfaces);
        on.filter(|(status, _)| status.xdp_mode != "off")
            .map(|(_, interface)| interface.index)
            .collect()
    }

    /// Takes over the names that the interfaces have now.
    pub(super) fn rename(&mut self, interfaces: &[Interface]) {
        for (status, interface) in self.statuses.iter_mut().zip(interfaces) {
            status.name.clone_from(&interface.name);
        }
    }

    /// Changes the status in `slot`; the default where there is none.
    pub(super) fn update<T: Default>(
        &mut self,
        slot: usize,
        change: impl FnOnce(&mut InterfaceStatus) -> T,
    ) -> T {
        self.statuses.get_mut(slot).map(change).unwrap_or_default()
    }

    /// Whether the interface in `slot` has this trouble.
    pub(super) fn has(&self, slot: usize, trouble: Trouble) -> bool {
        let status = self.statuses.get(slot);
        status.is_some_and(|status| status.trouble == Some(trouble))
    }

    /// The guard on the interface in `slot` is there, and in trouble.
    pub(super) fn trouble(&mut self, slot: usize, trouble: Trouble, reason: &str) {
        self.update(slot, |status| {
            status.trouble = Some(trouble);
            reason.clone_into(&mut status.reason);
        });
    }

    /// The trouble of the interface in `slot` is over.
    pub(super) fn clear_trouble(&mut self, slot: usize) {
        self.update(slot, |status| {
            status.trouble = None;
            status.reason.clear();
        });
    }

    /// The interface in `slot`, which had this number, is gone.
    pub(super) fn lose_interface(&mut self, slot: usize, index: u32) {
        if self.exists() {
            self.forget(index);
            self.update(slot, |status| {
                status.take_off(Trouble::Gone, "the interface is gone");
            });
        }
    }

    /// The interface in `slot` is back, and cannot be guarded.
    pub(super) fn refuse(&mut self, slot: usize, failure: &Failure) {
        self.update(slot, |status| {
            status.trouble = Some(Trouble::Detached);
            status.reason = failure.to_string();
        });
    }

    /// Attaches to the interface that is now the one in `slot`.
    pub(super) fn attach(
        &mut self,
        slot: usize,
        chosen: &AttachMode,
        interface: &Interface,
    ) -> Result<(), Failure> {
        let Some(guard) = &mut self.guard else {
            return Ok(());
        };
        if !interface.ethernet {
            return Err(not_ethernet(&interface.name));
        }
        let program_id = guard.program_id()?;
        let mode = match interface.xdp_program {
            // A pin has kept it there while the interface was away.
            Some(program) if program == program_id => mode_of(interface.xdp_generic),
            Some(program) => return Err(occupied(&interface.name, Some(program))),
            None => attach_to(guard, chosen.mode, interface)?,
        };
        self.update(slot, |status| {
            status.xdp_mode = mode.to_string();
            status.program_id = program_id;
            status.trouble = None;
            chosen.reason.clone_into(&mut status.reason);
        });
        Ok(())
    }

    /// Forgets the link to an interface that has no program any more, by its number.
    pub(super) fn forget(&mut self, index: u32) {
        if let Some(guard) = &mut self.guard {
            guard.forget(index);
        }
    }

    /// Attaches in generic mode in place of native mode. Returns false, and does nothing, if
    /// the link is pinned, which only root can change.
    pub(super) fn switch_to_generic(
        &mut self,
        slot: usize,
        index: u32,
        reason: &str,
    ) -> Result<bool, Failure> {
        let Some(guard) = self.guard.as_mut().filter(|guard| !guard.is_pinned(index)) else {
            return Ok(false);
        };
        guard.forget(index);
        let attached =
            attach_after_release(true, || guard.attach(index, &[Mode::Generic]).map(drop));
        self.update(slot, |status| match &attached {
            Ok(()) => {
                status.xdp_mode = Mode::Generic.to_string();
                status.trouble = None;
                reason.clone_into(&mut status.reason);
            }
            Err(error) => {
                let reason = format!("generic XDP cannot be used: {error}");
                status.take_off(Trouble::Detached, &reason);
            }
        });
        attached.map_err(|error| {
            let mut failure = Failure::from(error);
            failure.error = failure.error.context(anyhow!("it is tried again"));
            failure
        })?;
        Ok(true)
    }

    pub(super) fn configure(&mut self, policy: &Policy) -> Result<(), BpfError> {
        self.guard
            .as_mut()
            .map_or(Ok(()), |guard| guard.configure(policy))
    }

    /// Writes a slice of these lists ahead of [`AttachedGuard::configure`]; whether that was
    /// the last one.
    pub(super) fn write_ahead(&mut self, lists: &Arc<Lists>) -> Result<bool, BpfError> {
        let guard = self.guard.as_mut();
        guard.map_or(Ok(true), |guard| guard.write_ahead(lists))
    }

    /// Renews the lease. Without it, nothing is challenged, or XDP is in the listeners' place.
    pub(super) fn renew_lease(&mut self) {
        if let Some(guard) = &mut self.guard
            && let Err(error) = guard.renew_lease()
        {
            warn!("cannot renew the guard's lease: {error}");
        }
    }

    /// For how long XDP has been in the listeners' place, if it is.
    pub(super) fn has_taken_over(&self) -> Option<Duration> {
        self.guard.as_ref()?.has_taken_over().ok().flatten()
    }

    /// The greetings of XDP to retransmit now.
    pub(super) fn retransmissions(&mut self) -> Result<Vec<RetransmitFrame>, BpfError> {
        match &mut self.guard {
            Some(guard) => guard.retransmissions(),
            None => Ok(Vec::new()),
        }
    }

    /// The SYNs over a limit that XDP has reported since the last call.
    pub(super) fn take_limited(&mut self) -> Vec<Limited> {
        match &mut self.guard {
            Some(guard) => guard.take_events().unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// What the guard counted so far.
    pub(super) fn counts(&self) -> Result<GuardTotals, BpfError> {
        let Some(guard) = &self.guard else {
            return Ok(GuardTotals::default());
        };
        let elsewhere = counts_of(&guard.counters(None)?);
        let mut counts = GuardTotals {
            all: elsewhere,
            of_interfaces: Vec::new(),
            elsewhere,
        };
        for slot in 0..self.statuses.len() {
            let here = counts_of(&guard.counters(Some(slot))?);
            counts.all += here;
            counts.of_interfaces.push(here);
        }
        Ok(counts)
    }

    pub(super) fn sources(&self) -> Result<Vec<SourceCount>, BpfError> {
        match &self.guard {
            Some(guard) => guard.sources(),
            None => Ok(Vec::new()),
        }
    }

    /// SYNs over the limit by source, since each entered the table.
    pub(super) fn limited_syns(&self) -> HashMap<Source, u64> {
        let sources = self.sources().unwrap_or_else(|error| {
            warn!("the table of sources cannot be read: {error}");
            Vec::new()
        });
        let sources = sources.into_iter();
        sources
            .map(|count| (Source::from(count.address), count.limited))
            .collect()
    }

    /// Detaches, so that no SYN is judged for a listener that is gone; or has a pinned guard
    /// go on without listeners.
    pub(super) fn leave(&mut self) -> Result<(), BpfError> {
        self.guard.as_mut().map_or(Ok(()), Guard::stop)
    }
}

impl InterfaceStatus {
    /// Another process took its guard away.
    pub(super) fn lose(&mut self, trouble: Trouble, reason: &str) {
        let known = |trouble: Trouble| trouble.is_loss() || trouble == Trouble::Gone;
        self.losses += u64::from(!self.trouble.is_some_and(known));
        self.take_off(trouble, reason);
    }

    /// It has no guard any more.
    pub(super) fn take_off(&mut self, trouble: Trouble, reason: &str) {
        self.trouble = Some(trouble);
        reason.clone_into(&mut self.reason);
        "off".clone_into(&mut self.xdp_mode);
        self.program_id = 0;
        self.pinned = false;
    }
}

fn without_guard(interface: &Interface) -> InterfaceStatus {
    InterfaceStatus {
        name: interface.name.clone(),
        xdp_mode: "off".to_owned(),
        ..InterfaceStatus::default()
    }
}

fn load(
    config: &Config,
    on: &[(&Interface, AttachMode)],
    policy: &Policy,
    pins: Option<Pins>,
) -> Result<Guard, Failure> {
    let ports = policy.guarded.iter().map(|&(_, port)| port);
    let ports = ports
        .chain(config.listen.iter().map(|listen| listen.port))
        .collect();
    let responds = policy.responder.is_some();
    let keep = config.on_exit == OnExit::Keep;
    // Without keep, only what is on these interfaces is taken over.
    let pins = pins.filter(|pins| {
        let held = |interface| pinned::holds(Some(pins), interface);
        keep || on.iter().any(|(interface, _)| held(interface))
    });
    Ok(match pins {
        Some(pins) => {
            let there = on.iter().filter(|(interface, _)| !interface.is_absent());
            let numbers: Vec<_> = there.map(|(interface, _)| interface.index).collect();
            Guard::load_pinned(&ports, responds, &numbers, pins, keep)?
        }
        None if responds => Guard::load_responder(&ports)?,
        None => Guard::load(&ports)?,
    })
}

/// Attaches to the interface, by the link that is there already if that is possible.
fn attach_to(guard: &mut Guard, wanted: XdpMode, interface: &Interface) -> Result<Mode, Failure> {
    let name = &interface.name;
    let modes: &[Mode] = match wanted {
        XdpMode::Auto => &[Mode::Native, Mode::Generic],
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Off => &[],
    };
    let now = mode_of(interface.xdp_generic);
    if interface.xdp_program.is_some() {
        if modes.contains(&now) && guard.take_over(interface.index)? {
            info!("{name}: guarded in {now} mode, taken over from an earlier agent");
            return Ok(now);
        }
        warn!("{name}: the guard was in {now} mode: for a moment there is none");
        guard.release(interface.index)?;
    }
    let attached = attach_after_release(interface.xdp_program.is_some(), || {
        guard.attach(interface.index, modes)
    });
    let (mode, refused) = match attached {
        Ok(attached) => attached,
        Err(BpfError::Occupied) => return Err(occupied(name, None)),
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.error = failure.error.context(format!(
                "the guard cannot be attached to {name}: --xdp-mode off runs the responder alone"
            ));
            return Err(failure);
        }
    };
    if let Some(refused) = refused {
        warn!(
            "{name}: {mode} XDP, which costs more: {:#}",
            anyhow!(refused)
        );
    }
    info!("{name}: guarded in {mode} mode");
    Ok(mode)
}

/// Attaches; where another program was `released` before, tries again until the kernel has
/// detached it.
fn attach_after_release<T>(
    released: bool,
    mut attach: impl FnMut() -> Result<T, BpfError>,
) -> Result<T, BpfError> {
    for _ in 0..if released { DETACH_POLLS } else { 0 } {
        match attach() {
            Err(BpfError::Occupied) => thread::sleep(DETACH_POLL),
            done => return done,
        }
    }
    attach()
}

/// The mode of the program that is on an interface.
pub(super) const fn mode_of(generic: bool) -> Mode {
    match generic {
        true => Mode::Generic,
        false => Mode::Native,
    }
}

/// The failure of an interface that has no XDP.
pub(super) fn not_ethernet(interface: &str) -> Failure {
    Failure::new(
        Exit::Unavailable,
        anyhow!(
            "{interface} is not an Ethernet interface, so there is no XDP for it: name the \
             interface below it, or run the responder alone with --xdp-mode off"
        ),
    )
}

/// The failure of an interface that has another XDP program, which nomail never replaces.
pub(super) fn occupied(interface: &str, program: Option<u32>) -> Failure {
    let name = program.and_then(guard::program_name);
    let error = match (name.as_deref(), program) {
        (Some(abi::PROGRAM), Some(id)) => anyhow!(
            "another nomail-agent guards {interface} (XDP program {id}): stop it first, or give \
             both interfaces to one agent"
        ),
        (name, Some(id)) => anyhow!(
            "the XDP program {:?} (id {id}) is attached to {interface}, and nomail never \
             replaces another program: detach it with `ip link set dev {interface} xdp off`, or run the \
             responder alone with --xdp-mode off",
            name.unwrap_or("unknown")
        ),
        (_, None) => anyhow!(
            "another XDP program is attached to {interface}: `ip -d link show dev {interface}` \
             shows it"
        ),
    };
    Failure::new(Exit::Unavailable, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_counted_once() {
        let mut status = InterfaceStatus {
            pinned: true,
            program_id: 7,
            ..InterfaceStatus::default()
        };
        status.lose(Trouble::Detached, "a");
        status.lose(Trouble::Replaced, "b");
        assert_eq!((status.losses, status.reason.as_str()), (1, "b"));
        assert_eq!((status.program_id, status.pinned), (0, false));
        status.trouble = None;
        status.lose(Trouble::Replaced, "c");
        assert_eq!(status.losses, 2);
    }
}
