//! What the kernel says of interfaces and addresses, and what follows from it: the plan of
//! sockets and the interfaces to guard.

use std::{future::pending, time::Duration};

use futures_util::{FutureExt as _, future::LocalBoxFuture};
use log::{error, info};
use tokio::{
    select,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    addresses,
    guard_settings::Targets,
    keeper::Keeper,
    links::GuardedLinks,
    listeners::Listeners,
    plan::ListenPlan,
    survey::{HostSurvey, Survey, Surveyor},
    watch::{Seen, Watch},
};
use crate::{
    config::ListenAddress,
    exit::Failure,
    net::{Links, Notices},
    status::AddressStatus,
};

/// Changes of addresses come in bursts, which are followed at once.
const SETTLE: Duration = Duration::from_millis(50);
/// How often the guarded interfaces are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses in one line of the log.
const SHOWN_MAX: usize = 16;

/// What the kernel said last of the network, and what was made of it.
pub(super) struct Network {
    surveyor: Surveyor,
    /// The survey that is being made, which goes on however often [`Network::event`] is
    /// dropped.
    survey: Option<LocalBoxFuture<'static, Survey>>,
    changes: Changes,
    look: Interval,
    /// Where to listen, as configured.
    listen: Vec<ListenAddress>,
    /// All links of the host, as they were last seen.
    all: Links,
    links: GuardedLinks,
    watch: Watch,
    /// What is bound and guarded.
    plan: ListenPlan,
    pub(super) addresses: AddressStatus,
    /// Interfaces over which the listeners are reached past the guard.
    pub(super) unguarded: Vec<String>,
    /// The guard has yet to be configured for the interfaces that there are.
    stale: bool,
    /// Why the last change could not be followed, which was logged; else empty.
    failure: String,
}

/// Changes of links, addresses or routes.
struct Changes {
    /// None once there will be no more.
    notices: Option<Notices>,
    /// When they are to be followed.
    due: Option<Instant>,
}

impl Network {
    /// Follows the network from `plan` on, of which everything is bound and guarded.
    pub(super) fn new(
        surveyor: Surveyor,
        notices: Notices,
        all: Links,
        listen: Vec<ListenAddress>,
        links: GuardedLinks,
        plan: ListenPlan,
        keeper: &Keeper,
    ) -> Self {
        let addresses = addresses::status_of(&keeper.settings, &links, &plan);
        addresses::log(&AddressStatus::default(), &addresses);
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut network = Self {
            surveyor,
            survey: None,
            changes: Changes {
                notices: Some(notices),
                due: None,
            },
            look,
            listen,
            all,
            watch: Watch::over(&keeper.guard),
            links,
            plan,
            addresses,
            unguarded: Vec::new(),
            stale: false,
            failure: String::new(),
        };
        network.find_unguarded(keeper);
        network
    }

    /// Waits for the next survey: each second, and after each change. May be dropped and called
    /// again at any time.
    pub(super) async fn event(&mut self) -> Survey {
        if self.survey.is_none() {
            let whole = select! {
                _ = self.look.tick() => false,
                () = self.changes.next() => true,
            };
            let guarded = self.links.interfaces.clone();
            let survey = self.surveyor.clone().survey(guarded, whole);
            self.survey = Some(survey.boxed_local());
        }
        let survey = match &mut self.survey {
            Some(survey) => survey.await,
            None => pending().await,
        };
        self.survey = None;
        survey
    }

    /// Repairs the guard, and follows changes, as the survey says.
    pub(super) fn handle(
        &mut self,
        survey: Survey,
        keeper: &mut Keeper,
        listeners: &mut Listeners,
    ) -> Result<(), Failure> {
        // Before interfaces that came back are attached to: the survey has them without.
        let seen = Seen {
            surveys: &survey.links,
            connections: &self.plan.connections(&listeners.responder.take_arrivals()),
            sends_answers: keeper.settings.sends_answers(),
        };
        let (links, guard) = (&mut self.links, &mut keeper.guard);
        let attempted = self.watch.look(&seen, links, guard);
        match survey.host {
            None if attempted => self.find_unguarded(keeper),
            None => {}
            Some(Ok(host)) => {
                self.stale |= links.follow(&host, &survey.links, guard)?;
                let followed = self.follow_addresses(&host, keeper, listeners);
                self.note(followed);
                self.all = host.links;
                self.find_unguarded(keeper);
            }
            Some(Err(error)) => {
                self.changes.follow_at(Instant::now() + LOOK_INTERVAL);
                self.note(Err(error.into()));
            }
        }
        Ok(())
    }

    /// Surveys the host although nothing has changed.
    pub(super) fn survey_again(&mut self) {
        self.changes.follow_at(Instant::now());
    }

    /// Logs a failure to follow a change once, not at every change while it lasts.
    fn note(&mut self, followed: Result<(), Failure>) {
        let failure = followed.map_or_else(|failure| failure.to_string(), |()| String::new());
        if !failure.is_empty() && failure != self.failure {
            error!("a change of addresses cannot be followed: {failure}");
        }
        self.failure = failure;
    }

    /// Listens on and guards the addresses that there are now. A socket is bound before its
    /// address is guarded, and unguarded before it is closed. An error leaves all as it was.
    fn follow_addresses(
        &mut self,
        host: &HostSurvey,
        keeper: &mut Keeper,
        listeners: &mut Listeners,
    ) -> Result<(), Failure> {
        let before = self.plan.guarded();
        let interfaces = self.links.current(host);
        let mut plan = ListenPlan::find(host, &self.listen, &interfaces, &before);
        listeners.bind(&mut plan);
        if plan == self.plan && interfaces == self.links.interfaces && !self.stale {
            return Ok(());
        }
        if let Err(error) = keeper.retarget(Targets::of(&interfaces, &plan)) {
            listeners.forget_bound();
            return Err(error.into());
        }
        self.stale = false;
        listeners.serve(&plan);
        keeper.guard.rename(&interfaces);
        self.links.interfaces = interfaces;
        let addresses = addresses::status_of(&keeper.settings, &self.links, &plan);
        addresses::log(&self.addresses, &addresses);
        self.addresses = addresses;
        if plan.sockets() != self.plan.sockets() {
            let labels = plan.labels(&self.links.interfaces);
            info!("addresses changed: listening on {}", first_of(&labels));
        }
        self.plan = plan;
        Ok(())
    }

    /// Finds the interfaces over which the listeners are reached past the guard.
    fn find_unguarded(&mut self, keeper: &Keeper) {
        let guarded = keeper.guard.guarded(&self.links.interfaces);
        let links = self.all.unguarded(&guarded).into_iter();
        let reached = links.filter(|(index, _)| self.plan.is_reached_over(*index));
        self.unguarded = reached.map(|(_, name)| name).collect();
    }

    /// The guarded pairs of address and port, as text.
    pub(super) fn guarded_pairs(&self) -> Vec<String> {
        self.plan.labels(&self.links.interfaces)
    }

    /// The first of the guarded pairs, for a line of the log.
    pub(super) fn shown_pairs(&self) -> String {
        first_of(&self.guarded_pairs())
    }
}

impl Changes {
    /// Waits until changes are to be followed. May be dropped and called again at any time.
    async fn next(&mut self) {
        while self.due.is_none() {
            let notices = self.notices.as_mut();
            let Some(notices) = notices.filter(|_| nomail_common::Mechanism::Netlink.is_on())
            else {
                return pending().await;
            };
            if notices.changed().await {
                self.follow_at(Instant::now() + SETTLE);
            } else {
                error!("netlink ended: changes of addresses are no longer followed");
                self.notices = None;
            }
        }
        if let Some(due) = self.due {
            sleep_until(due).await;
        }
        if let Some(notices) = &mut self.notices {
            notices.settle();
        }
        self.due = None;
    }

    /// Has the changes followed then, or earlier.
    fn follow_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

fn first_of(pairs: &[String]) -> String {
    match pairs.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => pairs.join(", "),
        Some(more) => format!("{} and {more} more", pairs[..SHOWN_MAX].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_long_list_of_pairs_is_cut() {
        let pairs: Vec<_> = (0..SHOWN_MAX + 2)
            .map(|host| format!("192.0.2.{host}:25"))
            .collect();
        assert_eq!(first_of(&pairs[..2]), "192.0.2.0:25, 192.0.2.1:25");
        assert!(first_of(&pairs).ends_with("192.0.2.15:25 and 2 more"));
    }

    #[tokio::test]
    async fn a_change_is_not_lost_with_the_one_who_waits_for_it() {
        let mut changes = Changes {
            notices: Some(Notices::connect().unwrap()),
            due: None,
        };
        changes.follow_at(Instant::now() + SETTLE);
        let early = timeout(SETTLE / 10, changes.next()).await;
        assert!(early.is_err(), "before it has settled");
        assert_eq!(timeout(SETTLE * 20, changes.next()).await, Ok(()));
        assert_eq!(changes.due, None);
    }
}
