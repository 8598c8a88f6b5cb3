//! What the kernel says of interfaces and addresses, and what follows from it: the plan of
//! sockets and the interfaces to guard.

use std::{future::pending, time::Duration};

use log::{error, info};
use tokio::{
    select,
    time::{Instant, Interval, interval, sleep_until},
};

use super::{
    addresses, guard_settings::Targets, keeper::Keeper, links::GuardedLinks, listeners::Listeners,
    plan::ListenPlan, watch::Watch,
};
use crate::{config::ListenAddress, exit::Failure, net::Interfaces, status::AddressStatus};

/// Changes of addresses come in bursts, which are followed at once.
const SETTLE: Duration = Duration::from_millis(50);
/// How often the guarded interfaces are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses in one line of the log.
const SHOWN_MAX: usize = 16;

/// The connection to the kernel, and what it said last.
pub(super) struct Network {
    kernel: Interfaces,
    /// Where to listen, as configured.
    listen: Vec<ListenAddress>,
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
    look: Interval,
    notices: NoticeState,
}

/// The kernel's notices of changes.
enum NoticeState {
    /// None has arrived.
    Quiet,
    /// Some have arrived, and are followed then.
    Settling(Instant),
    /// There will be none.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetworkEvent {
    /// Links, addresses or routes have changed.
    Changed,
    /// There will be no more notices of changes.
    Ended,
    /// The interfaces are to be checked.
    Look,
}

impl Network {
    /// Follows the network from `plan` on, of which everything is bound and guarded.
    pub(super) fn new(
        kernel: Interfaces,
        listen: Vec<ListenAddress>,
        links: GuardedLinks,
        plan: ListenPlan,
        keeper: &Keeper,
    ) -> Self {
        let addresses = addresses::status_of(&keeper.settings, &links, &plan);
        addresses::log(&AddressStatus::default(), &addresses);
        Self {
            kernel,
            listen,
            watch: Watch::over(&keeper.guard),
            links,
            plan,
            addresses,
            unguarded: Vec::new(),
            stale: false,
            failure: String::new(),
            look: interval(LOOK_INTERVAL),
            notices: NoticeState::Quiet,
        }
    }

    /// Waits for the next event. May be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> NetworkEvent {
        select! {
            _ = self.look.tick() => NetworkEvent::Look,
            event = self.notices.next(&mut self.kernel) => event,
        }
    }

    pub(super) async fn handle(
        &mut self,
        event: NetworkEvent,
        keeper: &mut Keeper,
        listeners: &mut Listeners,
    ) -> Result<(), Failure> {
        match event {
            NetworkEvent::Look => self.look(keeper).await,
            NetworkEvent::Changed => {
                let attached = self.links.follow(&self.kernel, &mut keeper.guard).await?;
                self.stale |= attached;
                self.look(keeper).await;
                self.follow_addresses(keeper, listeners).await;
            }
            NetworkEvent::Ended => {
                error!("netlink ended: changes of addresses are no longer followed");
            }
        }
        Ok(())
    }

    async fn look(&mut self, keeper: &mut Keeper) {
        let sends_answers = keeper.settings.sends_answers();
        let guard = &mut keeper.guard;
        let links = &mut self.links;
        if self
            .watch
            .look(&self.kernel, links, guard, sends_answers)
            .await
        {
            self.find_unguarded(keeper).await;
        }
    }

    /// Listens on and guards the addresses that there are now. Logs a failure once, not at
    /// every change while it lasts.
    pub(super) async fn follow_addresses(
        &mut self,
        keeper: &mut Keeper,
        listeners: &mut Listeners,
    ) {
        let failure = match self.try_follow(keeper, listeners).await {
            Ok(()) => String::new(),
            Err(failure) => failure.to_string(),
        };
        if !failure.is_empty() && failure != self.failure {
            error!("a change of addresses cannot be followed: {failure}");
        }
        self.failure = failure;
        self.find_unguarded(keeper).await;
    }

    /// A socket is bound before its address is guarded, and unguarded before it is closed.
    /// An error leaves all as it was.
    async fn try_follow(
        &mut self,
        keeper: &mut Keeper,
        listeners: &mut Listeners,
    ) -> Result<(), Failure> {
        let before = self.plan.guarded();
        let interfaces = self.links.current(&self.kernel).await?;
        let mut plan = ListenPlan::find(&self.kernel, &self.listen, &interfaces, &before).await?;
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
    pub(super) async fn find_unguarded(&mut self, keeper: &Keeper) {
        let guarded = keeper.guard.guarded(&self.links.interfaces);
        let Ok(links) = self.kernel.unguarded(&guarded).await else {
            return;
        };
        let reached = links
            .into_iter()
            .filter(|(index, _)| self.plan.is_reached_over(*index));
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

impl NoticeState {
    async fn next(&mut self, kernel: &mut Interfaces) -> NetworkEvent {
        if matches!(self, Self::Quiet) {
            let more = match nomail_common::Mechanism::Netlink.is_on() {
                true => kernel.changed().await,
                false => pending().await,
            };
            if !more {
                *self = Self::Ended;
                return NetworkEvent::Ended;
            }
            *self = Self::Settling(Instant::now() + SETTLE);
        }
        let Self::Settling(until) = self else {
            return pending().await;
        };
        sleep_until(*until).await;
        kernel.settle();
        *self = Self::Quiet;
        NetworkEvent::Changed
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
        let mut kernel = Interfaces::connect().unwrap();
        let mut notices = NoticeState::Settling(Instant::now() + SETTLE);
        let early = timeout(SETTLE / 10, notices.next(&mut kernel)).await;
        assert!(early.is_err(), "before it has settled");
        let event = timeout(SETTLE * 20, notices.next(&mut kernel)).await;
        assert_eq!(event, Ok(NetworkEvent::Changed));
        assert!(matches!(notices, NoticeState::Quiet));
    }
}
