//! The watch over the guard: each second, and at each change of a link, it compares what an
//! interface has with what was attached there, and checks whether the guard sees the SYNs of
//! what connects, and whether what XDP sends leaves the host. A guard that is gone is attached
//! again unless another program is in its place; one that cannot see or answer in native mode
//! goes on in generic mode, if the mode is `auto`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use log::{error, info, warn};
use nomail_common::verdict::Answer;

use super::{
    arrival::AnswersSeen,
    attach::{AttachedGuard, mode_of},
    links::GuardedLinks,
    mode::{AttachMode, ONE_SIDED, ONE_SIDED_REMEDY},
    sight::Sight,
    survey::{Accepts, LinkSurvey, LinkSurveys},
};
use crate::{
    config::XdpMode,
    net::{Interface, LinkStatus},
    status::{GuardCounts, Trouble},
};

/// What the counters of a driver say.
const UNSENT: &str = "the driver drops what XDP sends";
/// What the counts of connections say.
const UNSEEN: &str = "connections arrive whose SYNs the XDP program did not see";
/// Between two attempts to attach again, at first and at most: another process may take the
/// program away each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What was seen of the guarded interfaces.
#[derive(Debug)]
pub(super) struct Watch {
    /// The number of the program; none without a guard. Known from the start, so that no
    /// system call that is refused later can end the watch.
    program: Option<u32>,
    /// By slot.
    watched: Vec<Watched>,
    /// That nothing can be seen was logged.
    blind: bool,
}

/// One interface.
#[derive(Debug)]
struct Watched {
    /// Its number; with another one all starts over.
    index: u32,
    arrival: AnswersSeen,
    sight: Sight,
    /// Why it went on in generic mode, which happens once; empty before.
    switched: &'static str,
    /// When the next attempt to attach again may be made, and the pause after it.
    next: Option<Instant>,
    pause: Duration,
    /// Why the last one failed.
    failed: String,
}

/// What there is to see at a look.
pub(super) struct Seen<'a> {
    pub(super) surveys: &'a LinkSurveys,
    /// The connections that arrived for guarded addresses since the last look, by the number
    /// of the interface.
    pub(super) connections: &'a HashMap<u32, u64>,
    /// Whether XDP sends anything at all.
    pub(super) sends_answers: bool,
}

/// What a look needs.
struct Look<'a> {
    seen: &'a Seen<'a>,
    links: &'a mut GuardedLinks,
    guard: &'a mut AttachedGuard,
}

impl Watch {
    /// Watches over what was attached.
    pub(super) fn over(guard: &AttachedGuard) -> Self {
        Self {
            program: guard.program(),
            watched: Vec::new(),
            blind: false,
        }
    }

    /// Compares every interface with what was attached there, and repairs what it can.
    /// Returns whether it tried to attach to one.
    pub(super) fn look(
        &mut self,
        seen: &Seen<'_>,
        links: &mut GuardedLinks,
        guard: &mut AttachedGuard,
    ) -> bool {
        let Some(program) = self.program else {
            return false;
        };
        let counts = guard.counts().unwrap_or_default().of_interfaces;
        let mut look = Look { seen, links, guard };
        let mut attempted = false;
        for slot in 0..look.links.interfaces.len() {
            if look.links.interfaces[slot].is_absent() {
                continue;
            }
            let Interface { index, name, .. } = look.links.interfaces[slot].clone();
            let survey = match seen.surveys.get(&index) {
                Some(Ok(survey)) => survey,
                // It is followed by its name.
                None => continue,
                Some(Err(error)) => {
                    if !std::mem::replace(&mut self.blind, true) {
                        error!("{name}: cannot see whether it is still guarded: {error}");
                    }
                    continue;
                }
            };
            self.blind = false;
            let glance = &survey.status;
            // Its number may be given to another one.
            if look.links.gone.contains(&slot) && glance.name != name {
                continue;
            }
            let watched = self.on(slot, index);
            match glance.xdp_program {
                Some(found) if found == program => {
                    look.is_attached(slot, glance, program);
                    let counts = counts.get(slot).copied().unwrap_or_default();
                    if !look.watch_sight(slot, glance, &counts, watched) {
                        look.watch_answers(slot, survey, &counts, watched);
                    }
                }
                Some(_) if nomail_common::Mechanism::ReplacedReported.is_off() => {}
                Some(found) => look.is_replaced(slot, glance, found),
                None if nomail_common::Mechanism::Reattach.is_off() => {}
                None => attempted |= look.attach_again(slot, survey, watched),
            }
        }
        attempted
    }

    fn on(&mut self, slot: usize, index: u32) -> &mut Watched {
        if self.watched.len() <= slot {
            self.watched.resize_with(slot + 1, || Watched::new(0));
        }
        let watched = &mut self.watched[slot];
        if watched.index != index {
            *watched = Watched::new(index);
        }
        watched
    }
}

impl Watched {
    fn new(index: u32) -> Self {
        Self {
            index,
            arrival: AnswersSeen::default(),
            sight: Sight::new(Instant::now()),
            switched: "",
            next: None,
            pause: Duration::ZERO,
            failed: String::new(),
        }
    }

    /// The program was attached anew: what was seen before tells nothing.
    fn start_over(&mut self) {
        self.arrival = AnswersSeen::default();
        self.sight = Sight::new(Instant::now());
    }

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

impl Look<'_> {
    /// The program is there, perhaps attached again by another process.
    fn is_attached(&mut self, slot: usize, glance: &LinkStatus, program: u32) {
        self.links.gone.remove(&slot);
        let returned = self.guard.update(slot, |status| {
            let returned = status.trouble.is_some_and(Trouble::is_loss);
            if returned {
                status.trouble = None;
                status.reason.clear();
                status.program_id = program;
                status.xdp_mode = mode_of(glance.xdp_generic).to_string();
            }
            returned
        });
        if returned {
            info!("{}: the XDP program is back", glance.name);
        }
    }

    /// Another program is there.
    fn is_replaced(&mut self, slot: usize, glance: &LinkStatus, found: u32) {
        let reason = format!(
            "the XDP program {found} of another process is in its place, and nomail never \
             replaces another program"
        );
        let known = self.guard.update(slot, |status| {
            let known = status.reason == reason;
            if !known {
                status.lose(Trouble::Replaced, &reason);
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
    /// Returns whether attaching was due.
    fn attach_again(&mut self, slot: usize, survey: &LinkSurvey, watched: &mut Watched) -> bool {
        let glance = &survey.status;
        let interface = Interface {
            name: glance.name.clone(),
            xdp_program: None,
            xdp_generic: false,
            ..self.links.interfaces[slot].clone()
        };
        let index = interface.index;
        let (is_new, was_pinned) = self.guard.update(slot, |status| {
            let before = (status.trouble != Some(Trouble::Detached), status.pinned);
            let returned = status.trouble == Some(Trouble::Gone);
            if before.0 {
                status.lose(Trouble::Detached, "the XDP program was detached");
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
        self.guard.forget(index);
        if !watched.is_due(Instant::now()) {
            return false;
        }
        let mode = match watched.switched {
            "" => AttachMode::choose(self.links.mode, Some(survey)),
            reason => AttachMode {
                mode: XdpMode::Generic,
                reason,
            },
        };
        match self.guard.attach(slot, &mode, &interface) {
            Ok(()) => {
                self.links.gone.remove(&slot);
                watched.failed.clear();
                watched.start_over();
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
                self.guard.update(slot, |status| status.reason = reason);
            }
        }
        true
    }

    /// Checks whether the guard sees the SYNs of what connects. If it has never seen one,
    /// switches to generic mode where that is possible. Returns whether it is blind.
    fn watch_sight(
        &mut self,
        slot: usize,
        glance: &LinkStatus,
        counts: &GuardCounts,
        watched: &mut Watched,
    ) -> bool {
        let index = self.links.interfaces[slot].index;
        let connections = self.seen.connections.get(&index).copied().unwrap_or(0);
        let blind = watched
            .sight
            .look(Instant::now(), counts.syn.sum(), connections);
        let name = &glance.name;
        let told = self.guard.has(slot, Trouble::Blind);
        if !blind {
            if told {
                self.guard.clear_trouble(slot);
                info!("{name}: the XDP program sees the SYNs of what connects again");
            }
            return false;
        }
        if !glance.xdp_generic
            && !watched.sight.has_seen()
            && let Some(switched) = self.switch_to_generic(slot, name, watched, "blind", UNSEEN)
        {
            return switched;
        }
        if !told {
            self.guard.trouble(slot, Trouble::Blind, UNSEEN);
            error!(
                event = "blind", interface = name.as_str();
                "{name}: {UNSEEN}: they are not counted, limited or challenged; {}",
                match (glance.xdp_generic, watched.sight.has_seen()) {
                    (false, false) => "set xdp_mode = \"auto\" or \"generic\", and restart the agent",
                    _ => "do they come through a tunnel, IPsec, or a rule that redirects them?",
                }
            );
        }
        true
    }

    /// Goes on in generic mode if the mode is `auto`, unless that was done before. Returns
    /// whether attaching failed; none if it is not tried.
    fn switch_to_generic(
        &mut self,
        slot: usize,
        name: &str,
        watched: &mut Watched,
        event: &str,
        reason: &'static str,
    ) -> Option<bool> {
        if self.links.mode != XdpMode::Auto || !watched.switched.is_empty() {
            return None;
        }
        watched.switched = reason;
        match self.guard.switch_to_generic(slot, watched.index, reason) {
            Ok(true) => {
                watched.start_over();
                warn!(
                    event = event, interface = name;
                    "{name}: generic XDP from now on, which costs more: {reason}"
                );
                Some(false)
            }
            // It is pinned.
            Ok(false) => None,
            Err(failure) => {
                error!("{name}: generic XDP cannot be used in place of native: {failure}");
                Some(true)
            }
        }
    }

    /// Checks whether what XDP sends leaves the interface. If it does not, switches to generic
    /// mode where that is possible, or reports it.
    fn watch_answers(
        &mut self,
        slot: usize,
        survey: &LinkSurvey,
        counts: &GuardCounts,
        watched: &mut Watched,
    ) {
        let glance = &survey.status;
        let native = !glance.xdp_generic;
        let one_sided = native && survey.accepts == Accepts::Nothing;
        let answers = &counts.answers;
        let sent =
            answers[Answer::Challenge] + answers[Answer::Cookie] + answers[Answer::Stateless];
        let unsent = watched.arrival.look(sent, glance.unsent);
        let (reason, remedy) = match (one_sided, unsent) {
            _ if !self.seen.sends_answers => ("", ""),
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
            if self.guard.has(slot, Trouble::AnswersLost) {
                self.guard.clear_trouble(slot);
                info!("{name}: what XDP sends leaves the host again");
            }
            return;
        }
        if native
            && self
                .switch_to_generic(slot, name, watched, "answers_lost", reason)
                .is_some()
        {
            return;
        }
        if !self.guard.has(slot, Trouble::AnswersLost) {
            self.guard.trouble(slot, Trouble::AnswersLost, reason);
            error!(
                event = "answers_lost", interface = name.as_str();
                "{name}: {reason}: clients that XDP has to answer, as in a flood, get no answer; \
                 {remedy}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_start_over() {
        let begun = Instant::now();
        let mut watched = Watched::new(1);
        let attempts = (0..600)
            .filter(|&secs| watched.is_due(begun + Duration::from_secs(secs)))
            .collect::<Vec<_>>();
        assert_eq!(attempts[..7], [0, 1, 3, 7, 15, 31, 63]);
        assert!(attempts.len() < 18, "{attempts:?}");
        let calm = begun + Duration::from_secs(600) + 3 * PAUSE_MAX;
        assert!(watched.is_due(calm) && !watched.is_due(calm));
        assert!(watched.is_due(calm + PAUSE_MIN), "{watched:?}");
    }
}
