//! The listening sockets, and the thread that serves them.

use std::{
    collections::{BTreeSet, HashMap},
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::anyhow;
use log::{error, warn};
use tokio::{
    select,
    sync::oneshot,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    failover::HEARTBEAT,
    plan::{ListenPlan, ListenSocket},
};
use crate::{
    config::{Config, Responder},
    exit::{Exit, Failure},
    host::service::{InheritedSockets, Watchdog},
    net::listening_process,
    smtp::{self, LISTEN_BACKLOG, ListenerId, SmtpThread},
};

/// How often a bind is tried again that another server was in the way of.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Longest that the end waits for open sessions, and for the thread after that.
const DRAIN_MAX: Duration = Duration::from_secs(3);
const END_MAX: Duration = Duration::from_millis(50);

/// The sockets.
pub(super) struct ListenSockets {
    inherited: InheritedSockets,
    /// XDP serves without sockets: it is only checked that no other process listens.
    stateless: bool,
    /// Where no other process does.
    free: BTreeSet<ListenSocket>,
    /// Bound, and not served yet.
    bound: Vec<(ListenSocket, TcpListener)>,
    serving: HashMap<ListenSocket, ListenerId>,
}

/// The sockets with the thread that serves them.
pub(super) struct Listeners {
    pub(super) responder: SmtpThread,
    /// Resolves when the thread has ended.
    ended: oneshot::Receiver<()>,
    sockets: ListenSockets,
    /// Sockets that could not be bound, which was logged.
    refused: BTreeSet<ListenSocket>,
    /// Asks for proofs that the thread serves, for the service manager.
    watchdog: Watchdog,
    /// The same for the lease of the listeners, with a fallback.
    heartbeat: Watchdog,
    retry: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenersEvent {
    /// The thread has ended.
    Ended,
    /// The thread serves: the service manager is to know.
    Alive,
    /// The thread serves, and whether there is room in the queue of every socket.
    Heartbeat(bool),
    /// Sockets that could not be bound are to be tried again.
    Retry,
}

impl ListenSockets {
    /// No socket yet but the inherited ones.
    pub(super) fn new(config: &Config, inherited: InheritedSockets) -> Result<Self, Failure> {
        let stateless = config.responder == Responder::Xdp;
        if stateless && !inherited.listen().is_empty() {
            return Err(no_socket_wanted());
        }
        Ok(Self {
            inherited,
            stateless,
            free: BTreeSet::new(),
            bound: Vec::new(),
            serving: HashMap::new(),
        })
    }

    /// Binds all sockets of the plan, or none.
    pub(super) fn bind_all(&mut self, plan: &ListenPlan) -> Result<(), Failure> {
        for socket in plan.sockets() {
            self.bind(socket, plan.is_absent(socket))?;
        }
        Ok(())
    }

    /// Binds a socket that is not bound yet, also to an address that does not exist yet if it
    /// is known to be `absent`.
    fn bind(&mut self, socket: ListenSocket, absent: bool) -> Result<(), Failure> {
        if self.serving.contains_key(&socket) || self.free.contains(&socket) {
            return Ok(());
        }
        let listener = match self.inherited.take(socket.address) {
            Some(inherited) => smtp::adopt(inherited, LISTEN_BACKLOG),
            None => smtp::bind(socket.address, LISTEN_BACKLOG, socket.found || absent),
        };
        let listener = listener.map_err(|error| cannot_listen(socket.address, error))?;
        if self.stateless {
            self.free.insert(socket);
        } else {
            self.bound.push((socket, listener));
        }
        Ok(())
    }

    /// Serves what was bound since, and closes all sockets that are not of the plan. Their
    /// open sessions go on.
    fn serve(&mut self, plan: &ListenPlan, responder: &SmtpThread) {
        for (socket, listener) in self.bound.drain(..) {
            self.serving.insert(socket, responder.listen(listener));
        }
        let sockets = plan.sockets();
        self.free.retain(|socket| sockets.contains(socket));
        self.serving.retain(|socket, id| {
            let wanted = sockets.contains(socket);
            if !wanted {
                responder.close(*id);
            }
            wanted
        });
    }
}

impl Listeners {
    /// Serves the sockets by a thread that has started, whose end `ended` tells.
    pub(super) fn new(
        sockets: ListenSockets,
        responder: SmtpThread,
        ended: oneshot::Receiver<()>,
        falls_back: bool,
    ) -> Self {
        let mut retry = interval(RETRY_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            responder,
            ended,
            sockets,
            refused: BTreeSet::new(),
            watchdog: Watchdog::start(),
            heartbeat: Watchdog::every(falls_back.then_some(HEARTBEAT)),
            retry,
        }
    }

    /// Waits for the next event. May be dropped and called again at any time, unless the
    /// thread has ended.
    pub(super) async fn event(&mut self) -> ListenersEvent {
        let prove = || self.responder.prove();
        let retry = async {
            match self.refused.is_empty() {
                true => pending().await,
                false => self.retry.tick().await,
            }
        };
        select! {
            _ = &mut self.ended => ListenersEvent::Ended,
            _ = self.watchdog.proven(prove) => ListenersEvent::Alive,
            room = self.heartbeat.proven(prove) => ListenersEvent::Heartbeat(room),
            _ = retry => ListenersEvent::Retry,
        }
    }

    /// Binds what is not bound yet of the plan, which is left without what cannot be bound.
    pub(super) fn bind(&mut self, plan: &mut ListenPlan) {
        let mut refused = BTreeSet::new();
        for socket in plan.sockets() {
            let absent = plan.is_absent(socket);
            if let Err(failure) = self.sockets.bind(socket, absent) {
                if !self.refused.contains(&socket) {
                    error!("{failure}");
                }
                refused.insert(socket);
            }
        }
        plan.leave_out(&refused);
        self.refused = refused;
    }

    /// Serves what was bound since, and closes all sockets that are not of the plan.
    pub(super) fn serve(&mut self, plan: &ListenPlan) {
        self.sockets.serve(plan, &self.responder);
    }

    /// Closes what was bound and is not served yet.
    pub(super) fn forget_bound(&mut self) {
        self.sockets.bound.clear();
    }

    /// Listens where the inherited sockets do, unless the configuration says where.
    pub(super) fn complete(&self, config: &mut Config) {
        listen_as_inherited(config, &self.sockets.inherited);
    }

    /// Ends the thread, and waits for open sessions.
    pub(super) async fn stop(&mut self) {
        self.responder.stop(DRAIN_MAX);
        // It may be the thread's end that is the reason.
        if !self.ended.is_terminated()
            && timeout(DRAIN_MAX + END_MAX, &mut self.ended).await.is_err()
        {
            warn!("sessions were still open after {DRAIN_MAX:?}");
        }
    }
}

/// Sets `listen` to the addresses of the inherited sockets, unless it is configured.
pub(super) fn listen_as_inherited(config: &mut Config, inherited: &InheritedSockets) {
    if config.listen.is_empty() {
        config.listen = inherited.listen().to_vec();
    }
}

fn no_socket_wanted() -> Failure {
    Failure::new(
        Exit::Configuration,
        anyhow!(
            "the service manager hands over listening sockets, and responder = \"xdp\" answers \
             without: disable nomail-agent.socket, or use \"listener\""
        ),
    )
}

fn cannot_listen(address: SocketAddr, error: io::Error) -> Failure {
    use io::ErrorKind;
    let (exit, remedy) = match error.kind() {
        ErrorKind::AddrInUse => {
            let process =
                listening_process(address).unwrap_or_else(|| "another process".to_owned());
            (
                Exit::Failed,
                format!("{process} listens there: stop it, or name other addresses with --listen"),
            )
        }
        ErrorKind::AddrNotAvailable => (
            Exit::Failed,
            "no interface has that address: `ip address` lists those that are there".to_owned(),
        ),
        ErrorKind::PermissionDenied => (
            Exit::Permission,
            "start nomail-agent as root (sudo), or with CAP_NET_BIND_SERVICE".to_owned(),
        ),
        _ => (Exit::Failed, "the kernel refuses".to_owned()),
    };
    Failure::new(
        exit,
        anyhow!(error).context(format!("cannot listen on {address}: {remedy}")),
    )
}
