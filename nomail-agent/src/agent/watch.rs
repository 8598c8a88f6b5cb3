//! The watch over the guard: each second, and at each change of a link, what an
//! interface has is compared with what was attached there, and whether what XDP sends
//! leaves it. A guard that is gone is attached again where nobody else's program is; one
//! that cannot answer in native mode goes on in generic mode, if the mode is `auto`.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{debug, error, info, warn};

use super::{Agent, Shared, arrival::Arrival, mode_of, pinned};
use nomail_common::verdict::Answer;

use crate::{
    config::{Config, Fallback, FloodAnswer, Responder, XdpMode},
    exit::Failure,
    guard::Mode,
    net::{Drivers, Glance, Interface, Interfaces, XDP_SENDS},
    status::{GuardCounts, InterfaceStatus, Trouble},
};

/// Why native mode cannot answer on an end of a veth pair.
const ONE_SIDED: &str = "the other end of the veth pair drops what native XDP sends";
/// Why native mode is not tried there before Linux 6.3.
const UNTOLD: &str =
    "the kernel does not tell whether the other end of the veth pair takes what native XDP sends";
const UNTOLD_REMEDY: &str = "Linux 6.3 and newer do; if that end has GRO or an XDP program, set \
                             xdp_mode = \"native\"";
/// What can be done about [`ONE_SIDED`].
const ONE_SIDED_REMEDY: &str =
    "it has neither GRO nor an XDP program: `ethtool -K PEER gro on` there makes it take them";
/// What the counters of a driver say.
const UNSENT: &str = "the driver drops what XDP sends";
/// Between two attempts to attach again, to begin with and at most: another process may
/// take the program away each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is watched, and by what.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// None: the kernel does not tell what drivers can do.
    drivers: Option<Drivers>,
    /// The number of the program; none without a guard. Known from the start, so that no
    /// system call that is refused later can end the watch.
    program: Option<u32>,
    /// By the place of the interface.
    on: Vec<Watched>,
    /// That nothing can be seen was told.
    blind: bool,
}

/// One interface.
#[derive(Debug, Default)]
struct Watched {
    /// Its number; under another one all starts over.
    index: u32,
    arrival: Arrival,
    /// It went on in generic mode; not more than once.
    switched: bool,
    /// When the next attempt may be made to attach again, and what comes after it.
    next: Option<Instant>,
    pause: Duration,
    /// Why the last one failed.
    failed: String,
}

/// The mode to attach in, and why if it is not the one that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mode: XdpMode,
    pub(super) reason: &'static str,
}

/// What the other end of an interface takes from native XDP: that of a veth pair nothing,
/// unless it has GRO or an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    All,
    Nothing,
    /// The kernel does not tell, as before Linux 6.3.
    Untold,
}

impl Watch {
    /// Opens what it needs; to be called with root's rights.
    pub(super) fn open() -> Self {
        let drivers = Drivers::connect();
        if let Err(error) = &drivers {
            debug!("no generic netlink: {error}");
        }
        Self {
            drivers: drivers.ok(),
            ..Self::default()
        }
    }

    /// Watches for what was attached to these interfaces.
    pub(super) fn begin(&mut self, told: &[InterfaceStatus]) {
        let mut programs = told.iter().map(|on| on.program_id);
        self.program = programs.find(|&program| program != 0);
    }

    /// Where native XDP cannot answer, or may not be able to, `auto` is generic mode.
    pub(super) async fn plan(&self, kernel: &Interfaces, wanted: XdpMode, index: u32) -> Plan {
        let native = Plan {
            mode: wanted,
            reason: "",
        };
        if wanted != XdpMode::Auto {
            return native;
        }
        let Ok(Some(glance)) = kernel.glance(index).await else {
            return native;
        };
        let (reason, remedy, then) = match self.takes(&glance, index).await {
            Takes::All => return native,
            Takes::Nothing => (
                ONE_SIDED,
                ONE_SIDED_REMEDY,
                ", and a restart of the agent then uses native mode",
            ),
            Takes::Untold => (UNTOLD, UNTOLD_REMEDY, ""),
        };
        warn!(
            "{}: generic XDP, which costs more: {reason}; {remedy}{then}",
            glance.name
        );
        Plan {
            mode: XdpMode::Generic,
            reason,
        }
    }

    /// Plans for all interfaces.
    pub(super) async fn plans(
        &self,
        kernel: &Interfaces,
        wanted: XdpMode,
        interfaces: &[Interface],
    ) -> Vec<Plan> {
        let mut plans = Vec::new();
        for interface in interfaces {
            plans.push(self.plan(kernel, wanted, interface.index).await);
        }
        plans
    }

    /// What the other end of an interface takes from native XDP.
    async fn takes(&self, glance: &Glance, index: u32) -> Takes {
        if !glance.veth {
            return Takes::All;
        }
        let features = match &self.drivers {
            Some(drivers) => drivers.xdp_features(index).await,
            None => None,
        };
        match features {
            None => Takes::Untold,
            Some(_) if nomail_common::Mechanism::PeerFeatures.is_off() => Takes::All,
            // Without any, native mode is refused.
            Some(bits) if bits != 0 && bits & XDP_SENDS == 0 => Takes::Nothing,
            Some(_) => Takes::All,
        }
    }

    fn on(&mut self, place: usize, index: u32) -> &mut Watched {
        if self.on.len() <= place {
            self.on.resize_with(place + 1, Watched::default);
        }
        let watched = &mut self.on[place];
        if watched.index != index {
            *watched = Watched {
                index,
                ..Watched::default()
            };
        }
        watched
    }
}

impl Watched {
    /// Whether to try to attach again now.
    fn is_due(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        // What stayed for long starts over.
        let calm = self.next.is_none_or(|next| now > next + PAUSE_MAX);
        if calm {
            self.pause = PAUSE_MIN;
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

impl Agent {
    /// Compares every interface with what was attached there, and does what is to be done.
    pub(super) async fn watch_guard(&mut self) {
        let Some(program) = self.watch.program else {
            return;
        };
        let counts = self.shared.counts().unwrap_or_default().of_interfaces;
        for place in 0..self.interfaces.len() {
            if self.interfaces[place].is_absent() {
                continue;
            }
            let Interface { index, name, .. } = self.interfaces[place].clone();
            let glance = match self.kernel.glance(index).await {
                Ok(Some(glance)) => glance,
                // It is followed by its name.
                Ok(None) => continue,
                Err(error) => {
                    if !std::mem::replace(&mut self.watch.blind, true) {
                        error!("{name}: cannot see whether it is still guarded: {error}");
                    }
                    continue;
                }
            };
            self.watch.blind = false;
            // Its number may be given to another one.
            if self.gone.contains(&place) && glance.name != name {
                continue;
            }
            match glance.xdp_program {
                Some(found) if found == program => {
                    self.is_attached(place, &glance, program);
                    let counts = counts.get(place).copied().unwrap_or_default();
                    self.watch_answers(place, &glance, &counts).await;
                }
                Some(_) if nomail_common::Mechanism::ReplacedReported.is_off() => {}
                Some(found) => self.tell_replaced(place, &glance, found),
                None if nomail_common::Mechanism::Reattach.is_off() => {}
                None => self.attach_again(place, &glance).await,
            }
        }
    }

    /// The program is there; perhaps again, by another process.
    fn is_attached(&mut self, place: usize, glance: &Glance, program: u32) {
        self.gone.remove(&place);
        let returned = self.shared.tell_of(place, |told| {
            let returned = told.trouble.is_some_and(Trouble::is_loss);
            if returned {
                told.trouble = None;
                told.reason.clear();
                told.program_id = program;
                told.xdp_mode = mode_of(glance.xdp_generic).to_string();
            }
            returned
        });
        if returned {
            info!("{}: the XDP program is back", glance.name);
        }
    }

    /// Another program is there.
    fn tell_replaced(&self, place: usize, glance: &Glance, found: u32) {
        let reason = format!(
            "the XDP program {found} of another process is in its place, and nomail replaces \
             nobody's program"
        );
        let known = self.shared.tell_of(place, |told| {
            let known = told.reason == reason;
            if !known {
                told.lose(Trouble::Replaced, &reason);
            }
            known
        });
        if !known {
            error!(
                event = "guard_lost", interface = glance.name.as_str();
                "{}: SYNs are not counted or limited: {reason}: detach it with `ip link set dev {} \
                 xdp off`, or end what attached it (`bpftool link` names it); then the guard is \
                 attached again",
                glance.name, glance.name
            );
        }
    }

    /// No program is there: the interface came back, or another process detached it.
    async fn attach_again(&mut self, place: usize, glance: &Glance) {
        let interface = Interface {
            name: glance.name.clone(),
            xdp_program: None,
            xdp_generic: false,
            ..self.interfaces[place].clone()
        };
        let index = interface.index;
        let (is_new, was_pinned) = self.shared.tell_of(place, |told| {
            let before = (told.trouble != Some(Trouble::Detached), told.pinned);
            let returned = told.trouble == Some(Trouble::Gone);
            if before.0 {
                told.lose(Trouble::Detached, "the XDP program was detached");
            }
            (before.0 && !returned, before.1)
        });
        if is_new {
            error!(
                event = "guard_lost", interface = glance.name.as_str();
                "{}: another process detached the XDP program: SYNs are not counted or limited \
                 until it is attached again",
                glance.name
            );
        }
        self.shared.forget(index);
        if !self.watch.on(place, index).is_due(Instant::now()) {
            return;
        }
        let plan = if self.watch.on(place, index).switched {
            Plan {
                mode: XdpMode::Generic,
                reason: UNSENT,
            }
        } else {
            self.watch
                .plan(&self.kernel, self.config.xdp_mode, index)
                .await
        };
        let attached = self.shared.attach(place, &plan, &interface);
        let watched = self.watch.on(place, index);
        match attached {
            Ok(()) => {
                self.gone.remove(&place);
                watched.failed.clear();
                watched.arrival = Arrival::default();
                warn!("{}: the XDP program is attached again", glance.name);
                if was_pinned {
                    warn!(
                        "{}: it is no longer kept when the agent ends (on_exit = \"keep\"): \
                         restart the agent to have it pinned",
                        glance.name
                    );
                }
            }
            Err(failure) => {
                let reason = format!("the XDP program cannot be attached again: {failure}");
                if watched.failed != reason {
                    error!("{}: {reason}", glance.name);
                    watched.failed.clone_from(&reason);
                }
                self.shared.tell_of(place, |told| told.reason = reason);
            }
        }
        self.tell_unguarded().await;
    }

    /// Whether what XDP sends leaves the interface, and what to do if it does not.
    async fn watch_answers(&mut self, place: usize, glance: &Glance, counts: &GuardCounts) {
        let index = self.interfaces[place].index;
        let native = !glance.xdp_generic;
        let matters = answers_matter(&self.config);
        let one_sided =
            matters && native && self.watch.takes(glance, index).await == Takes::Nothing;
        let answers = &counts.answers;
        let sent =
            answers[Answer::Challenge] + answers[Answer::Cookie] + answers[Answer::Stateless];
        let watched = self.watch.on(place, index);
        let unsent = watched.arrival.look(sent, glance.unsent);
        let (reason, remedy) = match (one_sided, unsent) {
            _ if !matters => ("", ""),
            (true, _) => (ONE_SIDED, ONE_SIDED_REMEDY),
            (false, true) if native => (
                UNSENT,
                "set xdp_mode = \"generic\", which may help, and restart the agent",
            ),
            (false, true) => (UNSENT, "`ip -s link` and `ethtool -S` show its counters"),
            (false, false) => ("", ""),
        };
        let name = &glance.name;
        if reason.is_empty() {
            if self.shared.are_answers_lost(place) {
                self.shared.tell_of(place, |told| {
                    told.trouble = None;
                    told.reason.clear();
                });
                info!("{name}: what XDP sends leaves the host again");
            }
            return;
        }
        if native && self.config.xdp_mode == XdpMode::Auto && !watched.switched {
            watched.switched = true;
            match self.shared.switch_to_generic(place, index, reason) {
                Ok(true) => {
                    watched.arrival = Arrival::default();
                    warn!(
                        event = "answers_lost", interface = name.as_str();
                        "{name}: generic XDP from now on, which costs more: {reason}"
                    );
                    return;
                }
                // It is pinned.
                Ok(false) => {}
                Err(failure) => {
                    error!("{name}: generic XDP cannot be used in place of native: {failure}");
                    return;
                }
            }
        }
        if !self.shared.are_answers_lost(place) {
            self.shared.tell_of(place, |told| {
                told.trouble = Some(Trouble::AnswersLost);
                reason.clone_into(&mut told.reason);
            });
            error!(
                event = "answers_lost", interface = name.as_str();
                "{name}: {reason}: clients that XDP has to answer, as in a flood, get no answer; \
                 {remedy}"
            );
        }
    }
}

impl Shared {
    /// Changes what is told of an interface.
    pub(super) fn tell_of<T: Default>(
        &self,
        place: usize,
        change: impl FnOnce(&mut InterfaceStatus) -> T,
    ) -> T {
        let mut told = self.told();
        told.interfaces
            .get_mut(place)
            .map(change)
            .unwrap_or_default()
    }

    /// The interface at `place` is back, and cannot be guarded.
    pub(super) fn refuse(&self, place: usize, failure: &Failure) {
        self.tell_of(place, |told| {
            told.trouble = Some(Trouble::Detached);
            told.reason = failure.to_string();
        });
    }

    fn are_answers_lost(&self, place: usize) -> bool {
        self.tell_of(place, |told| told.trouble == Some(Trouble::AnswersLost))
    }

    pub(super) fn forget(&self, interface: u32) {
        if let Some(guard) = &self.guard {
            let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
            guard.forget(interface);
        }
    }

    /// Attaches in generic mode in place of native. False, and nothing is done: the link
    /// is pinned, which only root can change.
    fn switch_to_generic(
        &self,
        place: usize,
        interface: u32,
        reason: &str,
    ) -> Result<bool, Failure> {
        let Some(guard) = &self.guard else {
            return Ok(false);
        };
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_pinned(interface) {
            return Ok(false);
        }
        guard.forget(interface);
        let attached = pinned::attach_after_release(true, || {
            guard.attach(interface, &[Mode::Generic]).map(drop)
        });
        self.tell_of(place, |told| match &attached {
            Ok(()) => {
                told.xdp_mode = Mode::Generic.to_string();
                told.trouble = None;
                reason.clone_into(&mut told.reason);
            }
            Err(error) => {
                let reason = format!("generic XDP cannot be used: {error}");
                told.take_off(Trouble::Detached, &reason);
            }
        });
        attached.map_err(|error| {
            let mut failure = Failure::from(error);
            failure.error = failure.error.context(anyhow!("it is tried again"));
            failure
        })?;
        Ok(true)
    }
}

impl InterfaceStatus {
    /// Another process took its guard away.
    fn lose(&mut self, trouble: Trouble, reason: &str) {
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

/// Whether XDP is to send anything at all.
fn answers_matter(config: &Config) -> bool {
    let answers_floods = config.limits.flood_answer != FloodAnswer::Drop;
    let serves = config.responder == Responder::Xdp || config.fallback == Fallback::Xdp;
    !config.observe && (answers_floods || serves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_start_over() {
        let begun = Instant::now();
        let mut watched = Watched::default();
        let attempts = (0..600)
            .filter(|&secs| watched.is_due(begun + Duration::from_secs(secs)))
            .collect::<Vec<_>>();
        assert_eq!(attempts[..7], [0, 1, 3, 7, 15, 31, 63]);
        assert!(attempts.len() < 18, "{attempts:?}");
        let calm = begun + Duration::from_secs(600) + 3 * PAUSE_MAX;
        assert!(watched.is_due(calm) && !watched.is_due(calm));
        assert!(watched.is_due(calm + PAUSE_MIN), "{watched:?}");
    }

    #[test]
    fn a_loss_is_counted_once() {
        let mut told = InterfaceStatus {
            pinned: true,
            program_id: 7,
            ..InterfaceStatus::default()
        };
        told.lose(Trouble::Detached, "a");
        told.lose(Trouble::Replaced, "b");
        assert_eq!((told.losses, told.reason.as_str()), (1, "b"));
        assert_eq!((told.program_id, told.pinned), (0, false));
        told.trouble = None;
        told.lose(Trouble::Replaced, "c");
        assert_eq!(told.losses, 2);
    }

    #[test]
    fn answers_matter_where_xdp_sends_some() {
        let mut config = Config::default();
        assert!(answers_matter(&config));
        config.limits.flood_answer = FloodAnswer::Drop;
        assert!(!answers_matter(&config));
        config.responder = Responder::Xdp;
        assert!(answers_matter(&config));
        config.observe = true;
        assert!(!answers_matter(&config));
    }
}
