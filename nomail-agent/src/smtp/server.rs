//! The thread that speaks SMTP: it accepts, greets, converses and closes.
//!
//! One thread serves all listening sockets with one epoll instance: a held
//! connection is an entry in a slab, not a task, and nothing else that the agent
//! does can delay an answer. Every connection has an idle and a
//! session deadline, and is closed so that the peer can read the refusal:
//! shutdown of our direction, a bounded drain, close. (Closing with unread
//! input makes the kernel send RST, and the peer loses the text.)
//!
//! At [`Settings::connections_max`] a connection of the fullest network is *evicted* for a
//! newcomer from elsewhere: it gets 521 and is closed in order. A newcomer for which none
//! is evicted (see `eviction.rs`), or that is over
//! [`Settings::connections_per_source_max`], is *shed*: refused in the greeting
//! and closed at once, which is a complete dialog as well (RFC 1846 section 4.2 a). A
//! relay sends 421 instead.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Write as _},
    net::{IpAddr, Shutdown},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use log::error;
use mio::{
    Events, Interest, Poll, Token, Waker,
    event::Event,
    net::{TcpListener, TcpStream},
};
use nomail_common::source::Source;
use slab::Slab;
use tokio::sync::oneshot;

use super::{
    arrivals::{self, ArrivalSample},
    dialog::{Dialog, DialogAction, Interruption, Outcome},
    epoch::unix_now,
    eviction::EvictionOrder,
    network::SenderNetwork,
    notices::LineLimits,
    session::{LINGER_BYTES_MAX, LINGER_MAX, Progress, Session, SessionContext, SessionPhase},
    settings::Settings,
    socket::{LISTEN_BACKLOG, concerns_one_connection, queue_is_full},
    stats::{Counter, EndReason, Stats, StatsInner},
};
use crate::refusal::RefusalPoint;

/// A connection that was answered within this time is evicted only for a newcomer whose
/// network has far fewer.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(1);

/// The pause after an error of accept that the next accept would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one log line about such errors in this time.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Connections accepted from one socket before the next gets its turn.
const ACCEPT_BATCH: usize = 64;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// Wakes the thread for an [`Order`].
const WAKE: Token = Token(usize::MAX);
/// The bit that tokens of listening sockets have and those of connections have not.
const LISTENER: usize = 1 << (usize::BITS - 2);

/// A listening socket that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(super) usize);

/// What the handle asks of the thread.
#[derive(Debug)]
pub(super) enum Order {
    Listen(ListenerId, std::net::TcpListener),
    Close(ListenerId),
    Configure(Arc<Settings>),
    Prove(oneshot::Sender<bool>),
    Stop(Duration),
}

/// The state of the thread.
pub(super) struct SmtpServer {
    poll: Poll,
    stats: Arc<Stats>,
    orders: mpsc::Receiver<Order>,
    settings: Arc<Settings>,
    listeners: HashMap<ListenerId, TcpListener>,
    /// Sockets that may have more to accept: epoll reports it only once.
    acceptable: Vec<ListenerId>,
    /// Nothing is accepted before, because of an error.
    accept_after: Option<Instant>,
    accept_error_logged: Option<Instant>,
    /// Bounded by [`Settings::connections_max`] and [`Settings::shed_max`].
    sessions: Slab<Session>,
    /// The deadline of each session.
    deadlines: BTreeSet<(Instant, usize)>,
    /// Active connections by source.
    per_source: HashMap<Source, usize>,
    /// All active connections.
    active: EvictionOrder,
    notices: LineLimits,
    sample: ArrivalSample,
    /// When the thread ends at the latest.
    stopping: Option<Instant>,
}

impl SmtpServer {
    /// Returns a server that listens nowhere yet, and what wakes it after an order.
    pub(super) fn new(
        settings: Settings,
        stats: Arc<Stats>,
        orders: mpsc::Receiver<Order>,
    ) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let server = Self {
            poll,
            stats,
            orders,
            settings: Arc::new(settings),
            listeners: HashMap::new(),
            acceptable: Vec::new(),
            accept_after: None,
            accept_error_logged: None,
            sessions: Slab::new(),
            deadlines: BTreeSet::new(),
            per_source: HashMap::new(),
            active: EvictionOrder::new(),
            notices: LineLimits::new(),
            sample: ArrivalSample::new(Instant::now()),
            stopping: None,
        };
        Ok((server, waker))
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let now = Instant::now();
            self.take_orders(now);
            for event in &events {
                match event.token() {
                    WAKE => {}
                    Token(token) if token & LISTENER != 0 => {
                        let id = ListenerId(token & !LISTENER);
                        if !self.acceptable.contains(&id) {
                            self.acceptable.push(id);
                        }
                    }
                    Token(key) => self.advance(key, event, now),
                }
            }
            // After the sessions, whose places new connections may take.
            self.accept(now);
            self.expire(now);
            if let Some(end) = self.stopping
                && (self.sessions.is_empty() || now >= end)
            {
                return Ok(());
            }
        }
    }

    /// Returns how long nothing happens unless the kernel reports an event.
    fn timeout(&self) -> Option<Duration> {
        let accept = (!self.acceptable.is_empty()).then_some(self.accept_after);
        let next = [
            self.deadlines.first().map(|(deadline, _)| *deadline),
            self.stopping,
            accept.flatten(),
        ];
        if matches!(accept, Some(None)) {
            return Some(Duration::ZERO);
        }
        let next = next.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn take_orders(&mut self, now: Instant) {
        while let Ok(order) = self.orders.try_recv() {
            self.carry_out(order, now);
        }
    }

    fn carry_out(&mut self, order: Order, now: Instant) {
        match order {
            Order::Listen(id, listener) => {
                let mut listener = TcpListener::from_std(listener);
                let token = Token(id.0 | LISTENER);
                let registry = self.poll.registry();
                match registry.register(&mut listener, token, Interest::READABLE) {
                    Ok(()) => drop(self.listeners.insert(id, listener)),
                    Err(error) => error!("a listening socket cannot be served: {error}"),
                }
            }
            Order::Close(id) => self.close_listener(id, now),
            Order::Configure(settings) => {
                let mut stats = self.stats.lock();
                stats.senders.set_age(settings.sender_age_secs);
                drop(stats);
                self.settings = settings;
            }
            Order::Prove(proof) => {
                let has_space = !self.listeners.values().any(queue_is_full);
                // Whether the other side still waits does not matter.
                let _ = proof.send(has_space);
            }
            Order::Stop(within) => {
                self.stopping = Some(now + within);
                let ids: Vec<_> = self.listeners.keys().copied().collect();
                for id in ids {
                    self.close_listener(id, now);
                }
                let keys: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.interrupt(key, Interruption::Shutdown, now);
                }
            }
        }
    }

    /// Closes a listening socket. Connections in its queue are shed instead of reset.
    fn close_listener(&mut self, id: ListenerId, now: Instant) {
        let Some(listener) = self.listeners.remove(&id) else {
            return;
        };
        self.acceptable.retain(|acceptable| *acceptable != id);
        for _ in 0..LISTEN_BACKLOG {
            let Ok((stream, peer)) = listener.accept() else {
                return;
            };
            self.greet(stream, peer.ip(), false, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        for id in std::mem::take(&mut self.acceptable) {
            if self.accept_from(id, now) {
                self.acceptable.push(id);
            }
        }
    }

    /// Accepts a batch. Returns whether there may be more.
    fn accept_from(&mut self, id: ListenerId, now: Instant) -> bool {
        for _ in 0..ACCEPT_BATCH {
            let Some(listener) = self.listeners.get(&id) else {
                return false;
            };
            match listener.accept() {
                Ok((stream, peer)) => {
                    // An order takes effect for every connection that comes after it.
                    self.take_orders(now);
                    self.greet(stream, peer.ip(), self.stopping.is_none(), now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    let logged = &mut self.accept_error_logged;
                    if logged.is_none_or(|last| now - last >= ACCEPT_LOG_INTERVAL) {
                        *logged = Some(now);
                        error!("cannot accept connections, trying again: {error}");
                    }
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    return true;
                }
            }
        }
        true
    }

    /// Greets a connection and keeps it, or sheds it. Never waits: the
    /// greeting fits the empty send buffer of a new socket.
    fn greet(&mut self, mut stream: TcpStream, peer: IpAddr, admit: bool, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let source = Source::from(peer);
        let unlogged = settings.is_unlogged(peer);
        let of_source = self.per_source.get(&source).copied().unwrap_or(0);
        let admit = admit
            && of_source < settings.connections_per_source_max
            && (self.active.len() < settings.connections_max
                || self.evict(peer, settings.connections_max, now));
        let (mut on_return, mut lingers) = (false, true);
        let (dialog, action) = {
            let mut stats = self.stats.lock();
            stats.accept(source, unlogged, now);
            if admit {
                let point = refusal_point(&mut stats, &settings, peer);
                on_return = settings.is_auto(peer) && point == RefusalPoint::Rcpt;
                stats.counts.active += 1;
                Dialog::open(point, settings.after_greeting, &settings.replies)
            } else {
                lingers = count_shed(&mut stats, &settings, peer);
                stats.end(source, unlogged, EndReason::Shed);
                Dialog::shed(&settings.replies)
            }
        };
        let DialogAction {
            line, end, refused, ..
        } = action;
        let greeted = stream.write(line).is_ok_and(|count| count == line.len());
        if let Some(arrival) = self.sample.look(&stream, peer, now) {
            arrivals::keep(&mut self.stats.lock().arrivals, arrival);
        }
        if let Some(at) = refused.filter(|_| greeted) {
            self.stats.lock().counts.refused[at] += 1;
        }
        if !lingers {
            // An error means that the peer has gone already.
            let _ = stream.shutdown(Shutdown::Write);
            return;
        }
        let entry = self.sessions.vacant_entry();
        let key = entry.key();
        let registry = self.poll.registry();
        let registered = registry.register(&mut stream, Token(key), Interest::READABLE);
        let deadline = now + settings.idle_timeout.min(settings.session_timeout);
        entry.insert(Session {
            stream,
            dialog,
            begun: now,
            settings,
            deadline,
            peer,
            unlogged,
            on_return,
            phase: SessionPhase::Talking(None),
            is_active: admit,
            ended: if admit {
                EndReason::Session(Outcome::ClosedByPeer)
            } else {
                EndReason::Shed
            },
        });
        self.deadlines.insert((deadline, key));
        if admit {
            *self.per_source.entry(source).or_default() += 1;
            self.active.add(SenderNetwork::from(peer), key);
        }
        if !greeted || registered.is_err() {
            self.remove(key, now);
        } else if let Some(outcome) = end {
            self.linger(key, outcome, false, now);
        }
    }

    /// Acts on an event of a connection.
    fn advance(&mut self, key: usize, event: &Event, now: Instant) {
        // An earlier event of the same batch may have ended it.
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut context = SessionContext {
            stats: &self.stats,
            notices: &mut self.notices,
            now,
        };
        match session.advance(event.is_read_closed(), &mut context) {
            Progress::Wait => {}
            Progress::WaitUntil(deadline) => {
                let network = SenderNetwork::from(session.peer);
                self.active.touch(network, key);
                self.reschedule(key, deadline);
            }
            Progress::WaitUntilWritable => {
                let interest = Interest::READABLE | Interest::WRITABLE;
                let registry = self.poll.registry();
                // If this fails the deadline ends the session.
                let _ = registry.reregister(&mut session.stream, Token(key), interest);
            }
            Progress::Close { outcome, drained } => self.linger(key, outcome, drained, now),
            Progress::Gone => self.remove(key, now),
        }
    }

    /// Ends our direction, then discards what the peer still sends until it
    /// ends its own, within [`LINGER_MAX`] and [`LINGER_BYTES_MAX`]. `drained`: there is
    /// nothing to read now.
    fn linger(&mut self, key: usize, outcome: Outcome, drained: bool, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.end(outcome);
        session.phase = SessionPhase::Lingering(LINGER_BYTES_MAX);
        let gone = session.stream.shutdown(Shutdown::Write).is_err();
        if gone || (!drained && session.drain()) {
            self.remove(key, now);
        } else {
            self.reschedule(key, now + LINGER_MAX);
        }
    }

    fn reschedule(&mut self, key: usize, deadline: Instant) {
        let session = &mut self.sessions[key];
        self.deadlines.remove(&(session.deadline, key));
        self.deadlines.insert((deadline, key));
        session.deadline = deadline;
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, key)) = self.deadlines.first()
            && deadline <= now
        {
            self.interrupt(key, Interruption::Deadline, now);
        }
    }

    /// Ends a session, with its last reply if the send buffer has space.
    fn interrupt(&mut self, key: usize, why: Interruption, now: Instant) {
        let session = &mut self.sessions[key];
        let outcome = match why {
            Interruption::Deadline => Outcome::TimedOut,
            Interruption::Eviction | Interruption::Shutdown => Outcome::Closed,
        };
        match &session.phase {
            // Part of a line is out: nothing can follow it.
            SessionPhase::Talking(Some(_)) => {
                session.end(outcome);
                self.remove(key, now);
            }
            SessionPhase::Talking(None) => {
                let Session {
                    dialog,
                    settings,
                    stream,
                    ..
                } = session;
                if let Some(action) = dialog.interrupt(&settings.replies, why) {
                    // Without space the reply is left out.
                    let _ = stream.write(action.line);
                }
                self.linger(key, outcome, false, now);
            }
            SessionPhase::Lingering(_) if why == Interruption::Shutdown => {}
            SessionPhase::Lingering(_) => self.remove(key, now),
        }
    }

    /// Ends a connection for a newcomer. Returns whether there was one to end.
    fn evict(&mut self, newcomer: IpAddr, connections_max: usize, now: Instant) -> bool {
        let victim = self.active.victim(
            SenderNetwork::from(newcomer),
            connections_max,
            |key| SenderNetwork::from(self.sessions[key].peer),
            |key| now.saturating_duration_since(self.sessions[key].answered()) >= IDLE_MIN,
        );
        let Some(key) = victim.filter(|_| nomail_common::Mechanism::MakeRoom.is_on()) else {
            return false;
        };
        let session = &mut self.sessions[key];
        if matches!(session.phase, SessionPhase::Talking(_)) {
            session.ended = EndReason::Evicted;
        }
        if matches!(session.phase, SessionPhase::Talking(None)) {
            self.deactivate(key, now);
            let shed_max = self.sessions[key].settings.shed_max as u64;
            let lingers = {
                let counts = &mut self.stats.lock().counts;
                counts.shed_lingering += 1;
                counts.shed_lingering <= shed_max
            };
            self.interrupt(key, Interruption::Eviction, now);
            if !lingers && self.sessions.contains(key) {
                // Closed without waiting for the peer, as one that is shed.
                self.remove(key, now);
            }
        } else {
            self.remove(key, now);
        }
        true
    }

    /// Counts how a connection ended, and frees its place.
    fn deactivate(&mut self, key: usize, now: Instant) {
        let session = &mut self.sessions[key];
        session.is_active = false;
        self.active.remove(SenderNetwork::from(session.peer), key);
        let source = Source::from(session.peer);
        if let Some(count) = self.per_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&source);
            }
        }
        let mut stats = self.stats.lock();
        stats
            .counts
            .durations
            .count(now.saturating_duration_since(session.begun));
        stats.end(source, session.unlogged, session.ended);
    }

    /// Closes a connection, counts how it ended, and frees its place.
    fn remove(&mut self, key: usize, now: Instant) {
        if self.sessions[key].is_active {
            self.deactivate(key, now);
        } else {
            self.stats.lock().counts.shed_lingering -= 1;
        }
        let session = self.sessions.remove(key);
        self.deadlines.remove(&(session.deadline, key));
        if session.left_after_ehlo() {
            let mut stats = self.stats.lock();
            stats.senders.left_after_ehlo(session.peer, unix_now());
        }
        if !session.unlogged {
            self.notices.detail(now, || session.summary(now));
        }
    }
}

/// Returns where an admitted connection is refused.
fn refusal_point(stats: &mut StatsInner, settings: &Settings, peer: IpAddr) -> RefusalPoint {
    match settings.refuse_at {
        _ if settings.is_monitor(peer) => RefusalPoint::Rcpt,
        Some(point) => point,
        None => stats.senders.contact(peer, unix_now()),
    }
}

/// Counts a shed connection. Returns whether it may linger.
fn count_shed(stats: &mut StatsInner, settings: &Settings, peer: IpAddr) -> bool {
    if settings.is_auto(peer) {
        stats.senders.greeted(peer, unix_now());
    }
    let lingers = stats.counts.shed_lingering < settings.shed_max as u64;
    if lingers {
        stats.counts.shed_lingering += 1;
    } else {
        stats.counts.counters[Counter::ShedWithoutLinger] += 1;
    }
    lingers
}
