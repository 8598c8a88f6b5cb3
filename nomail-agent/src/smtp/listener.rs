//! The sockets of the responder: accept, greet, converse, close.
//!
//! One thread serves all listening sockets with one epoll instance: a held
//! connection is a place in a slab, not a task, and nothing else that the agent
//! does can delay an answer. [`Responder`] is the handle that the rest of the
//! agent holds. A connection is written to and read from under an idle and a
//! session deadline, and closed so that the peer can read what it was told:
//! shutdown of our direction, a bounded drain, close. (Closing with unread
//! input makes the kernel send RST, and the peer loses the text.)
//!
//! When [`Settings::connections_max`] is reached, a connection of the fullest
//! prefix makes room for a newcomer from elsewhere: it is told 521 and closed in
//! order. A newcomer for which none makes room (see `prefixes.rs`), or that is
//! over [`Settings::connections_per_source_max`], is *shed*: refused in the greeting
//! and closed at once. That too is a complete dialog (RFC 1846 section 4.2 a). A
//! relay says 421 instead.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use log::error;
use mio::{
    Events, Interest, Poll, Token, Waker,
    event::Event,
    net::{TcpListener, TcpStream},
};
use nix::{getsockopt_impl, sockopt_impl, sys::socket::getsockopt};
use nomail_common::guard::source::Source;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use super::{
    command::Recipient,
    dialog::{Action, AfterGreeting, Dialog, Heard, Interruption, Outcome, RefuseAt},
    foreign::ForeignDomains,
    ledger::{Activity, Connections, Counter, Ended, Ledger, SourceHistory},
    notices::Notices,
    prefixes::Prefixes,
    replies::Replies,
    senders::{Network, Rung, Senders},
};

/// The default backlog of a listening socket.
pub const LISTEN_BACKLOG: u32 = 4096;

/// How long a closed connection waits for the peer to close its side.
pub const LINGER_MAX: Duration = Duration::from_secs(2);

/// How much input a closed connection swallows before it is dropped.
pub const LINGER_OCTETS_MAX: usize = 256 * 1024;

/// How many shed connections, and such that made room for others, may linger at once,
/// where descriptors suffice. One more is told and dropped without waiting for the peer, which may lose the
/// text.
pub const SHED_MAX: usize = 1024;

/// A connection that was answered within this time makes room only for a prefix that
/// has far less than its own.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// How long the kernel goes on with what a peer does not acknowledge, also
/// after the connection was closed (TCP_USER_TIMEOUT, tcp(7)).
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// The kernel's buffers of a connection, as setsockopt(2) takes them; it doubles
/// them for its own bookkeeping. A client that never reads, or floods, fills
/// these and no more.
const RECEIVE_BUFFER: usize = 8 * 1024;
/// See [`RECEIVE_BUFFER`].
const SEND_BUFFER: usize = 8 * 1024;

/// The rest after an error of accept that the next accept would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one log line about such errors in this time.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Connections accepted from a socket before others get their turn.
const ACCEPT_BATCH: usize = 64;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// Input is read in pieces of this size.
const READ_OCTETS: usize = 1024;

/// Replies that may leave together are gathered up to this size.
const WRITE_OCTETS: usize = 1024;

/// Wakes the thread for an [`Order`].
const WAKE: Token = Token(usize::MAX);
/// What the tokens of listening sockets have and those of connections have not.
const LISTENER: usize = 1 << (usize::BITS - 2);

/// Where connections are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// All at the same point.
    At(RefuseAt),
    /// In the greeting on a network's first contact, at RCPT when it comes
    /// back; see [`super::senders`].
    Auto(AfterGreeting),
}

/// What the responder says and how much it bears.
///
/// A change holds for connections that are accepted after it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The texts.
    pub replies: Arc<Replies>,
    /// Where connections are refused.
    pub refuse: Refuse,
    /// Connections at once, of all sources. File descriptors must suffice for
    /// these, [`Self::shed_max`] and a few more.
    pub connections_max: usize,
    /// Shed connections that may linger at once; [`SHED_MAX`] or less.
    pub shed_max: usize,
    /// Connections at once of one source.
    pub connections_per_source_max: usize,
    /// How long after a reply the next command must be complete.
    pub idle_timeout: Duration,
    /// How long a session may last in all.
    pub session_timeout: Duration,
    /// How long `auto` remembers a network.
    pub sender_age_secs: u32,
    /// Health checkers: always refused at RCPT, unknown to `auto`, and left out of the
    /// log and of what is counted as mail for others.
    pub monitors: Vec<IpNet>,
    /// Peers that are left out of the log.
    pub unlogged: Vec<IpNet>,
    /// Whether envelope addresses are logged.
    pub log_envelope: bool,
}

impl Settings {
    fn is_monitor(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.monitors.iter().any(|net| net.contains(&peer))
    }
}

/// A listening socket, non-blocking and ready for [`Responder::listen`].
///
/// An IPv6 socket takes IPv6 only. The scope of a link-local `address` counts.
/// With `freebind` the address need not exist yet.
pub fn bind(
    address: SocketAddr,
    backlog: u32,
    freebind: bool,
) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(freebind)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(freebind)?;
        }
    }
    socket.bind(&address.into())?;
    prepare(socket, backlog)
}

/// As [`bind`], for a socket that somebody else has bound, and may listen already.
pub fn adopt(listener: std::net::TcpListener, backlog: u32) -> io::Result<std::net::TcpListener> {
    listener.set_nonblocking(true)?;
    prepare(listener.into(), backlog)
}

fn prepare(socket: Socket, backlog: u32) -> io::Result<std::net::TcpListener> {
    // Inherited by the accepted sockets. Replies to pipelined commands are
    // small writes, which must not wait for each other's acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A listening socket that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(usize);

/// The handle of the serving thread.
#[derive(Debug)]
pub struct Responder {
    ledger: Arc<Ledger>,
    orders: mpsc::Sender<Order>,
    waker: Arc<Waker>,
    next: AtomicUsize,
}

/// What the handle asks of the thread.
#[derive(Debug)]
enum Order {
    Listen(ListenerId, std::net::TcpListener),
    Close(ListenerId),
    Configure(Arc<Settings>),
    Prove(oneshot::Sender<bool>),
    Stop(Duration),
}

impl Responder {
    /// Starts the thread, which runs `prepare` first. The receiver resolves when
    /// the thread has ended: to `Ok` after [`Self::stop`], else to an error.
    ///
    /// # Errors
    /// When there is no thread or no epoll instance to be had.
    pub fn start(
        settings: Settings,
        senders: Senders,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let ledger = Arc::new(Ledger::new(senders));
        let (orders, received) = mpsc::channel();
        let server = Server {
            poll,
            ledger: Arc::clone(&ledger),
            orders: received,
            settings: Arc::new(settings),
            listeners: HashMap::new(),
            waiting: Vec::new(),
            accept_after: None,
            accept_error_logged: None,
            sessions: Slab::new(),
            deadlines: BTreeSet::new(),
            of_source: HashMap::new(),
            prefixes: Prefixes::new(),
            notices: Notices::new(),
            stopping: None,
        };
        let (ready, prepared) = mpsc::sync_channel(0);
        let (ended, end) = oneshot::channel();
        thread::Builder::new()
            .name("smtp".to_owned())
            .spawn(move || {
                prepare();
                // Whether the other side still waits does not matter.
                let _ = ready.send(());
                match server.run() {
                    Ok(()) => drop(ended.send(())),
                    Err(error) => error!("port 25 is no longer served: {error}"),
                }
            })?;
        // An error means that `prepare` panicked, which `end` tells.
        let _ = prepared.recv();
        let responder = Self {
            ledger,
            orders,
            waker,
            next: AtomicUsize::new(0),
        };
        Ok((responder, end))
    }

    /// Serves a bound socket.
    pub fn listen(&self, listener: std::net::TcpListener) -> ListenerId {
        let id = ListenerId(self.next.fetch_add(1, Ordering::Relaxed));
        self.order(Order::Listen(id, listener));
        id
    }

    /// Closes a listening socket. Who waits in its queue is told so; open
    /// sessions go on.
    pub fn close(&self, listener: ListenerId) {
        self.order(Order::Close(listener));
    }

    /// Changes the settings, for connections accepted from now on.
    pub fn configure(&self, settings: Settings) {
        self.order(Order::Configure(Arc::new(settings)));
    }

    /// Tells all sessions 421, closes everything, and ends the thread, which
    /// takes `within` at most.
    pub fn stop(&self, within: Duration) {
        self.order(Order::Stop(within));
    }

    /// Resolves to `Ok` when the thread has begun another turn of its loop: to whether
    /// there is room in the queue of every socket.
    pub fn prove(&self) -> oneshot::Receiver<bool> {
        let (proof, proven) = oneshot::channel();
        self.order(Order::Prove(proof));
        proven
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Connections {
        self.ledger.page().snapshot()
    }

    /// The history, the source seen last first.
    pub fn sources(&self) -> Vec<SourceHistory> {
        self.ledger.page().sources()
    }

    /// What happened since this was last asked.
    pub fn take_activity(&self) -> Activity {
        self.ledger.page().take_activity()
    }

    /// The memory of `auto`, as it is now.
    pub fn senders(&self) -> Senders {
        self.ledger.page().senders.clone()
    }

    /// Other domains that mail arrives for, as they are now.
    pub fn foreign_domains(&self) -> ForeignDomains {
        self.ledger.page().foreign.clone()
    }

    /// Changes what is known of them, or takes what is due of it.
    pub fn with_foreign_domains<T>(&self, change: impl FnOnce(&mut ForeignDomains) -> T) -> T {
        change(&mut self.ledger.page().foreign)
    }

    fn order(&self, order: Order) {
        // The thread has ended only when the agent is ending, too.
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// How the kernel's `struct tcp_info` (tcp(7)) begins. It grows from one kernel to the
/// next, and nix wants as many octets as were asked for: of these, every kernel has all.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueueInfo {
    _states: [u8; 8],
    _times_and_sizes: [u32; 4],
    /// Of a listening socket, the length of its queue (`tcp_get_info` of Linux).
    unacked: u32,
    /// And its backlog.
    sacked: u32,
}

sockopt_impl!(
    /// The queue of a listening socket.
    TcpQueue,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    QueueInfo
);

/// Whether the kernel drops what else comes for the socket.
fn queue_is_full(listener: &TcpListener) -> bool {
    // The queue may be longer than the backlog by one (`sk_acceptq_is_full`).
    getsockopt(listener, TcpQueue).is_ok_and(|info| info.unacked > info.sacked)
}

/// Seconds since 1970, for what outlives the process.
pub fn unix_now() -> u32 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
    })
}

/// The serving thread.
struct Server {
    poll: Poll,
    ledger: Arc<Ledger>,
    orders: mpsc::Receiver<Order>,
    settings: Arc<Settings>,
    listeners: HashMap<ListenerId, TcpListener>,
    /// Sockets that may have more to accept: epoll tells only once.
    waiting: Vec<ListenerId>,
    /// Nothing is accepted before, because of an error.
    accept_after: Option<Instant>,
    accept_error_logged: Option<Instant>,
    /// Bounded by [`Settings::connections_max`] and [`Settings::shed_max`].
    sessions: Slab<Session>,
    /// When which session is to be looked at, one for each.
    deadlines: BTreeSet<(Instant, usize)>,
    /// Active connections by source.
    of_source: HashMap<Source, usize>,
    /// Active connections by prefix.
    prefixes: Prefixes,
    notices: Notices,
    /// When the thread ends at the latest.
    stopping: Option<Instant>,
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let now = Instant::now();
            self.obey_all(now);
            for event in &events {
                match event.token() {
                    WAKE => {}
                    Token(token) if token & LISTENER != 0 => {
                        let id = ListenerId(token & !LISTENER);
                        if !self.waiting.contains(&id) {
                            self.waiting.push(id);
                        }
                    }
                    Token(key) => self.ready(key, event, now),
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

    /// How long nothing happens unless the kernel says so.
    fn timeout(&self) -> Option<Duration> {
        let accept = (!self.waiting.is_empty()).then_some(self.accept_after);
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

    fn obey_all(&mut self, now: Instant) {
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order, now);
        }
    }

    fn obey(&mut self, order: Order, now: Instant) {
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
                let mut page = self.ledger.page();
                page.senders.set_age(settings.sender_age_secs);
                drop(page);
                self.settings = settings;
            }
            // Whether it is still waited for does not matter.
            Order::Prove(proof) => {
                let room = !self.listeners.values().any(queue_is_full);
                let _ = proof.send(room);
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

    /// Whoever is in the queue already is shed instead of reset.
    fn close_listener(&mut self, id: ListenerId, now: Instant) {
        let Some(listener) = self.listeners.remove(&id) else {
            return;
        };
        self.waiting.retain(|waiting| *waiting != id);
        for _ in 0..LISTEN_BACKLOG {
            let Ok((stream, peer)) = listener.accept() else {
                return;
            };
            self.welcome(stream, peer.ip(), false, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        for id in std::mem::take(&mut self.waiting) {
            if self.accept_from(id, now) {
                self.waiting.push(id);
            }
        }
    }

    /// Whether there may be more.
    fn accept_from(&mut self, id: ListenerId, now: Instant) -> bool {
        for _ in 0..ACCEPT_BATCH {
            let Some(listener) = self.listeners.get(&id) else {
                return false;
            };
            match listener.accept() {
                Ok((stream, peer)) => {
                    // A connection that came after an order is served by it.
                    self.obey_all(now);
                    self.welcome(stream, peer.ip(), self.stopping.is_none(), now);
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

    /// Greets a connection and takes it in, or sheds it. Never waits: the
    /// greeting fits the empty send buffer of a new socket.
    fn welcome(&mut self, mut stream: TcpStream, peer: IpAddr, room: bool, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let source = Source::from(peer);
        let is_monitor = settings.is_monitor(peer);
        let unlogged = is_monitor || settings.unlogged.iter().any(|net| net.contains(&peer));
        let of_source = self.of_source.get(&source).copied().unwrap_or(0);
        let mut on_return = false;
        let room = room
            && of_source < settings.connections_per_source_max
            && (self.active() < settings.connections_max
                || self.make_room(peer, settings.connections_max, now));
        let mut lingers = true;
        let (dialog, action) = {
            let mut page = self.ledger.page();
            page.accept(source, unlogged, now);
            if room {
                page.counts.active += 1;
                let refuse_at = match settings.refuse {
                    _ if is_monitor => RefuseAt::Rcpt,
                    Refuse::At(refuse_at) => refuse_at,
                    Refuse::Auto(after) => match page.senders.contact(peer, unix_now()) {
                        Rung::Greeting => RefuseAt::Greeting(after),
                        Rung::Ehlo => RefuseAt::Ehlo,
                        Rung::Rcpt => {
                            on_return = true;
                            RefuseAt::Rcpt
                        }
                    },
                };
                Dialog::open(refuse_at, &settings.replies)
            } else {
                lingers = page.counts.shed_lingering < settings.shed_max as u64;
                if lingers {
                    page.counts.shed_lingering += 1;
                } else {
                    page.counts.counters[Counter::ShedWithoutLinger] += 1;
                }
                if matches!(settings.refuse, Refuse::Auto(_)) && !is_monitor {
                    page.senders.greeted(peer, unix_now());
                }
                page.end(source, unlogged, Ended::Shed);
                Dialog::shed(&settings.replies)
            }
        };
        let Action {
            line, end, refused, ..
        } = action;
        let greeted = stream.write(line).is_ok_and(|count| count == line.len());
        if let Some(at) = refused.filter(|_| greeted) {
            self.ledger.page().refuse(at);
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
            phase: Phase::Talking(None),
            has_place: room,
            ended: if room {
                Ended::Session(Outcome::ClosedByPeer)
            } else {
                Ended::Shed
            },
        });
        self.deadlines.insert((deadline, key));
        if room {
            *self.of_source.entry(source).or_default() += 1;
            self.prefixes.add(Network::from(peer), key);
        }
        if !greeted || registered.is_err() {
            self.forget(key, now);
        } else if let Some(outcome) = end {
            self.linger(key, outcome, false, now);
        }
    }

    /// The kernel has something to tell of a connection.
    fn ready(&mut self, key: usize, event: &Event, now: Instant) {
        // An earlier event of the same batch may have ended it.
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut scene = Scene {
            ledger: &self.ledger,
            notices: &mut self.notices,
            now,
        };
        match session.go_on(event.is_read_closed(), &mut scene) {
            Next::Wait => {}
            Next::WaitUntil(deadline) => {
                let network = Network::from(session.peer);
                self.prefixes.touch(network, key);
                self.reschedule(key, deadline);
            }
            Next::WaitForRoom => {
                let interest = Interest::READABLE | Interest::WRITABLE;
                let registry = self.poll.registry();
                // Without it the deadline ends the session.
                let _ = registry.reregister(&mut session.stream, Token(key), interest);
            }
            Next::Close { outcome, drained } => self.linger(key, outcome, drained, now),
            Next::Gone => self.forget(key, now),
        }
    }

    /// Ends our direction, then swallows what the peer still sends until it
    /// ends its own, within [`LINGER_MAX`] and [`LINGER_OCTETS_MAX`]. `drained`
    /// says that there is nothing to be read now.
    fn linger(&mut self, key: usize, outcome: Outcome, drained: bool, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.end(outcome);
        session.phase = Phase::Lingering(LINGER_OCTETS_MAX);
        let gone = session.stream.shutdown(Shutdown::Write).is_err();
        if gone || (!drained && session.drain()) {
            self.forget(key, now);
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

    /// Says why the session is over, if there is room in the send buffer.
    fn interrupt(&mut self, key: usize, why: Interruption, now: Instant) {
        let session = &mut self.sessions[key];
        let outcome = match why {
            Interruption::Deadline => Outcome::TimedOut,
            Interruption::NoRoom | Interruption::Shutdown => Outcome::Closed,
        };
        match &session.phase {
            // Part of a line is out: nothing can follow it.
            Phase::Talking(Some(_)) => {
                session.end(outcome);
                self.forget(key, now);
            }
            Phase::Talking(None) => {
                let Session {
                    dialog,
                    settings,
                    stream,
                    ..
                } = session;
                if let Some(action) = dialog.interrupt(&settings.replies, why) {
                    // No room, no last words.
                    let _ = stream.write(action.line);
                }
                self.linger(key, outcome, false, now);
            }
            Phase::Lingering(_) if why == Interruption::Shutdown => {}
            Phase::Lingering(_) => self.forget(key, now),
        }
    }

    /// Connections that have a place.
    fn active(&self) -> usize {
        self.prefixes.len()
    }

    /// Ends a connection for a newcomer, if one is to make room for it.
    fn make_room(&mut self, newcomer: IpAddr, places_max: usize, now: Instant) -> bool {
        let victim = self.prefixes.victim(
            Network::from(newcomer),
            places_max,
            |key| Network::from(self.sessions[key].peer),
            |key| now.saturating_duration_since(self.sessions[key].answered()) >= IDLE_MIN,
        );
        let Some(key) = victim.filter(|_| nomail_common::Mechanism::MakeRoom.is_on()) else {
            return false;
        };
        let session = &mut self.sessions[key];
        if matches!(session.phase, Phase::Talking(_)) {
            session.ended = Ended::Evicted;
        }
        if matches!(session.phase, Phase::Talking(None)) {
            self.give_up_place(key, now);
            let shed_max = self.sessions[key].settings.shed_max as u64;
            let lingers = {
                let counts = &mut self.ledger.page().counts;
                counts.shed_lingering += 1;
                counts.shed_lingering <= shed_max
            };
            self.interrupt(key, Interruption::NoRoom, now);
            if !lingers && self.sessions.contains(key) {
                // As one that is shed: told, and dropped without waiting for the peer.
                self.forget(key, now);
            }
        } else {
            self.forget(key, now);
        }
        true
    }

    /// Counts how a connection ended, whose place another may have now.
    fn give_up_place(&mut self, key: usize, now: Instant) {
        let session = &mut self.sessions[key];
        session.has_place = false;
        self.prefixes.remove(Network::from(session.peer), key);
        let source = Source::from(session.peer);
        if let Some(count) = self.of_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.of_source.remove(&source);
            }
        }
        let mut page = self.ledger.page();
        page.lasted(now.saturating_duration_since(session.begun));
        page.end(source, session.unlogged, session.ended);
    }

    /// Closes the connection, counts how it ended, and gives up its place.
    fn forget(&mut self, key: usize, now: Instant) {
        if self.sessions[key].has_place {
            self.give_up_place(key, now);
        } else {
            self.ledger.page().counts.shed_lingering -= 1;
        }
        let session = self.sessions.remove(key);
        self.deadlines.remove(&(session.deadline, key));
        let mut page = self.ledger.page();
        if session.on_return && session.dialog.left_after_ehlo() && session.left_by_itself() {
            page.senders.left_after_ehlo(session.peer, unix_now());
        }
        drop(page);
        if !session.unlogged {
            self.notices.detail(now, || session.story(now));
        }
    }
}

/// One connection.
struct Session {
    stream: TcpStream,
    dialog: Dialog,
    settings: Arc<Settings>,
    begun: Instant,
    /// When it is looked at next, whatever happens.
    deadline: Instant,
    peer: IpAddr,
    unlogged: bool,
    /// `auto` refuses it at RCPT, because its network comes back.
    on_return: bool,
    phase: Phase,
    /// It is one of [`Settings::connections_max`]; else it was shed, or made room.
    has_place: bool,
    /// How it has ended, or would if the peer were gone now.
    ended: Ended,
}

enum Phase {
    /// In conversation; with replies that the peer has not taken, if there are.
    Talking(Option<Box<Stuck>>),
    /// All is said. So many octets may still come.
    Lingering(usize),
}

/// What waits for room in the send buffer: at most [`WRITE_OCTETS`] to say, or
/// one reply, and [`READ_OCTETS`] to hear.
struct Stuck {
    unsent: Vec<u8>,
    unheard: Vec<u8>,
    end: Option<Outcome>,
}

/// What becomes of a session now.
enum Next {
    Wait,
    /// It has been answered, and the next command has its own time.
    WaitUntil(Instant),
    /// Until the peer reads.
    WaitForRoom,
    /// It is over. `drained` says that there is nothing to be read now.
    Close {
        outcome: Outcome,
        drained: bool,
    },
    /// So is the connection.
    Gone,
}

/// What a session acts upon while it is served.
struct Scene<'a> {
    ledger: &'a Ledger,
    notices: &'a mut Notices,
    now: Instant,
}

impl Scene<'_> {
    fn note(&mut self, action: &Action<'_>, peer: IpAddr, unlogged: bool, settings: &Settings) {
        let log_envelope = settings.log_envelope && !unlogged;
        if action.said.is_some() || action.refused.is_some() {
            let mut page = self.ledger.page();
            if let Some(said) = action.said {
                page.said(said);
            }
            if let Some(at) = action.refused {
                page.refuse(at);
            }
        }
        match action.heard {
            Some(Heard::Sender(sender)) if log_envelope => {
                let path = sender.path();
                self.notices.envelope(self.now, peer, "MAIL FROM", path);
            }
            Some(Heard::Recipient(recipient)) => {
                if log_envelope {
                    let path = recipient.path();
                    self.notices.envelope(self.now, peer, "RCPT TO", path);
                }
                if let Recipient::Mailbox(mailbox) = recipient
                    && settings.replies.relay().is_none()
                    && !settings.replies.is_own(mailbox.domain)
                    && !settings.is_monitor(peer)
                {
                    let mut page = self.ledger.page();
                    let now = unix_now();
                    if page.foreign.asked(mailbox.domain, peer, now, !unlogged) {
                        page.counts.counters[Counter::RecipientsElsewhere] += 1;
                    }
                }
            }
            Some(Heard::Sender(_) | Heard::Talker(_)) | None => {}
        }
    }
}

impl Session {
    /// Reads and replies as far as the kernel lets it.
    fn go_on(&mut self, read_closed: bool, scene: &mut Scene<'_>) -> Next {
        let stuck = match &mut self.phase {
            Phase::Talking(stuck) => stuck.take(),
            Phase::Lingering(_) => return if self.drain() { Next::Gone } else { Next::Wait },
        };
        match self.converse(stuck, read_closed, scene) {
            Err(next) => next,
            Ok(false) => Next::Wait,
            Ok(true) => {
                let idle = scene.now + self.settings.idle_timeout;
                Next::WaitUntil(idle.min(self.begun + self.settings.session_timeout))
            }
        }
    }

    /// Whether anything was answered, if the conversation goes on.
    fn converse(
        &mut self,
        stuck: Option<Box<Stuck>>,
        read_closed: bool,
        scene: &mut Scene<'_>,
    ) -> Result<bool, Next> {
        let mut answered = stuck.is_some();
        if let Some(stuck) = stuck {
            self.say(&stuck.unsent, &stuck.unheard, stuck.end)?;
            self.hear(&stuck.unheard, scene)?;
        }
        let mut buffer = [0; READ_OCTETS];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Next::Gone),
                Ok(count) => {
                    // A short read leaves nothing behind, and the kernel tells
                    // what comes after it.
                    let last = count < READ_OCTETS && !read_closed;
                    match self.hear(&buffer[..count], scene) {
                        Ok(more) => answered |= more,
                        Err(Next::Close { outcome, .. }) => {
                            return Err(Next::Close {
                                outcome,
                                drained: last,
                            });
                        }
                        Err(next) => return Err(next),
                    }
                    if last {
                        return Ok(answered);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answered),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Next::Gone),
            }
        }
    }

    /// Answers what has arrived; whether there was anything to answer. A reply
    /// is with the kernel before any input after it is looked at, but for those
    /// that may leave together.
    fn hear(&mut self, mut input: &[u8], scene: &mut Scene<'_>) -> Result<bool, Next> {
        let mut out = Vec::new();
        let mut answered = false;
        while !input.is_empty() {
            let local = || self.stream.local_addr().ok().map(|address| address.ip());
            let replies = &self.settings.replies;
            let (taken, action) = self.dialog.receive_at(replies, input, &local);
            let Some(action) = action else { break };
            scene.note(&action, self.peer, self.unlogged, &self.settings);
            if let Some(Heard::Talker(talker)) = action.heard {
                self.ended = Ended::Talker(talker);
            }
            out.extend_from_slice(action.line);
            let (may_wait, end) = (action.may_wait, action.end);
            input = &input[taken..];
            answered = true;
            if !may_wait || end.is_some() || out.len() >= WRITE_OCTETS {
                self.say(&out, input, end)?;
                out.clear();
            }
        }
        if !out.is_empty() {
            self.say(&out, &[], None)?;
        }
        Ok(answered)
    }

    /// Writes `line`. What the peer does not take now waits, and with it the
    /// input behind it.
    fn say(&mut self, line: &[u8], unheard: &[u8], end: Option<Outcome>) -> Result<(), Next> {
        let sent = match self.stream.write(line) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                // Many clients leave after QUIT without waiting for 221.
                self.end(end.unwrap_or(Outcome::ClosedByPeer));
                return Err(Next::Gone);
            }
        };
        if sent < line.len() {
            self.phase = Phase::Talking(Some(Box::new(Stuck {
                unsent: line[sent..].to_vec(),
                unheard: unheard.to_vec(),
                end,
            })));
            return Err(Next::WaitForRoom);
        }
        match end {
            Some(outcome) => Err(Next::Close {
                outcome,
                drained: false,
            }),
            None => Ok(()),
        }
    }

    /// Swallows what the peer still sends; whether it is done with.
    fn drain(&mut self) -> bool {
        let Phase::Lingering(left) = &mut self.phase else {
            return false;
        };
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 && count < *left => *left -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return true,
            }
        }
    }

    /// When it was answered last, or a little earlier near the end of its time.
    fn answered(&self) -> Instant {
        let wait = match self.phase {
            Phase::Talking(_) => self.settings.idle_timeout,
            Phase::Lingering(_) => LINGER_MAX,
        };
        let answered = self.deadline.checked_sub(wait);
        answered.map_or(self.begun, |answered| answered.max(self.begun))
    }

    const fn end(&mut self, outcome: Outcome) {
        if let Ended::Session(ended) = &mut self.ended {
            *ended = outcome;
        }
    }

    /// Whether the client has gone of its own will.
    const fn left_by_itself(&self) -> bool {
        matches!(
            self.ended,
            Ended::Session(Outcome::Quit | Outcome::ClosedByPeer)
        )
    }

    /// One line on how it went.
    fn story(&self, now: Instant) -> String {
        format!(
            "{}: {} after {} commands and {:.1} s",
            self.peer,
            self.ended.label(),
            self.dialog.commands(),
            (now - self.begun).as_secs_f64()
        )
    }
}

/// Whether an error of accept belongs to the connection that was to be
/// accepted: accept(2) hands on what has happened to it in the queue. All
/// others would meet the next accept as well: too many files, no memory.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ETIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rstest::rstest;
    use socket2::SockRef;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::smtp::{
        dialog::Refusal,
        relay::{Code, Relay},
    };

    const HOST: &str = "mailless.example.org";
    const GREETING: &str = "521 mailless.example.org does not accept mail\r\n";
    const REFUSAL: &str = "521 5.3.2 mailless.example.org does not accept mail\r\n";
    const GOODBYE: &str = "221 2.0.0 mailless.example.org closing connection\r\n";
    const TIMED_OUT: &str = "421 4.4.2 mailless.example.org timed out, closing connection\r\n";
    const SHUTTING_DOWN: &str =
        "421 4.3.2 mailless.example.org shutting down, closing connection\r\n";

    /// The longest that anything in these tests may take.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn settings() -> Settings {
        Settings {
            replies: Arc::new(Replies::new(HOST, None).unwrap()),
            refuse: Refuse::At(RefuseAt::Greeting(AfterGreeting::Hold)),
            connections_max: 10_000,
            shed_max: SHED_MAX,
            connections_per_source_max: 10_000,
            idle_timeout: PATIENCE,
            session_timeout: PATIENCE,
            sender_age_secs: 3600,
            monitors: Vec::new(),
            unlogged: Vec::new(),
            log_envelope: false,
        }
    }

    /// A responder on a port of 127.0.0.1.
    struct House {
        responder: Responder,
        listener: ListenerId,
        address: SocketAddr,
        ended: Option<oneshot::Receiver<()>>,
    }

    impl Drop for House {
        fn drop(&mut self) {
            self.responder.stop(Duration::ZERO);
        }
    }

    impl House {
        fn open(settings: Settings) -> Self {
            let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), LISTEN_BACKLOG, false).unwrap();
            Self::on(listener, settings)
        }

        fn on(listener: std::net::TcpListener, settings: Settings) -> Self {
            let address = listener.local_addr().unwrap();
            let senders = Senders::new(settings.sender_age_secs);
            let (responder, ended) = Responder::start(settings, senders, || {}).unwrap();
            let listener = responder.listen(listener);
            Self {
                responder,
                listener,
                address,
                ended: Some(ended),
            }
        }

        async fn visit(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// The counts once no connection is left.
        async fn drained(&self) -> Connections {
            self.until(|counts| counts.active == 0 && counts.shed_lingering == 0)
                .await
        }

        /// Waits until the counts are as wanted.
        async fn until(&self, wanted: impl Fn(&Connections) -> bool) -> Connections {
            let poll = async {
                loop {
                    let counts = self.responder.snapshot();
                    check_sum(&counts);
                    if wanted(&counts) {
                        return counts;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(PATIENCE, poll).await.unwrap()
        }

        /// What a client is told that sends all at once and then reads on.
        async fn told(&self, input: &[u8]) -> String {
            let mut client = self.visit().await;
            client.write_all(input).await.unwrap();
            read_all(&mut client).await
        }
    }

    fn check_sum(counts: &Connections) {
        assert_eq!(counts.accepted, counts.active + counts.ended.sum());
    }

    async fn read_all(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .unwrap();
        read.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text
    }

    async fn expect(stream: &mut TcpStream, line: &str) {
        let mut text = vec![0; line.len()];
        let read = timeout(PATIENCE, stream.read_exact(&mut text))
            .await
            .unwrap();
        read.unwrap_or_else(|error| panic!("{error} instead of {line:?}"));
        assert_eq!(str::from_utf8(&text), Ok(line));
    }

    #[tokio::test]
    async fn greets_and_answers_quit() {
        let house = House::open(settings());
        let mut client = house.visit().await;
        expect(&mut client, GREETING).await;
        client.write_all(b"EHLO a\r\n").await.unwrap();
        expect(&mut client, REFUSAL).await;
        client.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, GOODBYE);
        drop(client);
        let counts = house.drained().await;
        assert_eq!(
            (
                counts.accepted,
                counts.ended[Outcome::Quit],
                counts.refused[Refusal::Greeting]
            ),
            (1, 1, 1)
        );
    }

    #[tokio::test]
    async fn pipelined_commands_are_answered_in_order() {
        let house = House::open(settings());
        let mut client = house.visit().await;
        client
            .write_all(&[b"NOOP\r\n".repeat(50), b"QUIT\r\nNOOP\r\n".to_vec()].concat())
            .await
            .unwrap();
        let expected = [GREETING, &REFUSAL.repeat(50), GOODBYE].concat();
        assert_eq!(read_all(&mut client).await, expected);
    }

    #[tokio::test]
    async fn a_reset_after_quit_is_a_quit() {
        let house = House::open(settings());
        for _ in 0..20 {
            let mut client = house.visit().await;
            expect(&mut client, GREETING).await;
            client.write_all(b"QUIT\r\n").await.unwrap();
            SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client);
        }
        house.until(|counts| counts.accepted == 20).await;
        let counts = house.drained().await;
        // The reset may overtake the reading of QUIT, and is no error either.
        assert_eq!(
            counts.ended[Outcome::Quit] + counts.ended[Outcome::ClosedByPeer],
            20
        );
    }

    #[rstest]
    #[case::hold(AfterGreeting::Hold)]
    #[case::close(AfterGreeting::Close)]
    #[tokio::test]
    async fn an_early_talker_reads_the_greeting(#[case] after_greeting: AfterGreeting) {
        const TIMES: u64 = 1000;
        let house = House::open(Settings {
            refuse: Refuse::At(RefuseAt::Greeting(after_greeting)),
            ..settings()
        });
        for _ in 0..TIMES {
            let mut client = house.visit().await;
            client.write_all(&[b'x'; 4096]).await.unwrap();
            if after_greeting == AfterGreeting::Hold {
                expect(&mut client, GREETING).await;
                client.write_all(b"\r\nQUIT\r\n").await.unwrap();
                assert_eq!(read_all(&mut client).await, [REFUSAL, GOODBYE].concat());
            } else {
                // Still talking when it has been told is no error either.
                expect(&mut client, GREETING).await;
                client.write_all(&[b'x'; 4096]).await.unwrap();
                tokio::task::yield_now().await;
                client.write_all(b"QUIT\r\n").await.unwrap();
                assert_eq!(read_all(&mut client).await, "");
            }
        }
        let counts = house.drained().await;
        let ended = if after_greeting == AfterGreeting::Hold {
            counts.ended[Outcome::Quit]
        } else {
            counts.ended[Outcome::Closed]
        };
        assert_eq!((counts.accepted, ended), (TIMES, TIMES));
    }

    #[tokio::test]
    async fn an_early_talker_reads_what_follows_too_much_input() {
        let house = House::open(settings());
        let mut client = house.visit().await;
        client.write_all(&[b'x'; 200_000]).await.unwrap();
        assert_eq!(read_all(&mut client).await, [GREETING, REFUSAL].concat());
        drop(client);
        assert_eq!(house.drained().await.ended[Outcome::Closed], 1);
    }

    #[rstest]
    #[case::idle(Duration::from_millis(50), PATIENCE)]
    #[case::session(PATIENCE, Duration::from_millis(50))]
    #[tokio::test]
    async fn a_time_out_is_said(#[case] idle_timeout: Duration, #[case] session_timeout: Duration) {
        let house = House::open(Settings {
            idle_timeout,
            session_timeout,
            ..settings()
        });
        let mut client = house.visit().await;
        assert_eq!(read_all(&mut client).await, [GREETING, TIMED_OUT].concat());
        drop(client);
        assert_eq!(house.drained().await.ended[Outcome::TimedOut], 1);
    }

    #[tokio::test]
    async fn dripping_octets_do_not_extend_the_idle_time() {
        let idle_timeout = Duration::from_millis(100);
        let house = House::open(Settings {
            idle_timeout,
            ..settings()
        });
        let mut client = house.visit().await;
        expect(&mut client, GREETING).await;
        let counts = timeout(PATIENCE, async {
            while client.write_all(b"x").await.is_ok() && house.responder.snapshot().active == 1 {
                sleep(Duration::from_millis(5)).await;
            }
            drop(client);
            house.drained().await
        });
        assert_eq!(counts.await.unwrap().ended[Outcome::TimedOut], 1);
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_cut_off() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), LISTEN_BACKLOG, false).unwrap();
        SockRef::from(&listener).set_send_buffer_size(1).unwrap(); // inherited
        let session_timeout = Duration::from_millis(200);
        let house = House::on(
            listener,
            Settings {
                session_timeout,
                ..settings()
            },
        );
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&house.address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(socket.into()).unwrap();
        client.write_all(&b"NOOP\r\n".repeat(900)).await.unwrap();
        house.until(|counts| counts.active == 1).await;
        assert_eq!(house.drained().await.ended[Outcome::TimedOut], 1);
    }

    #[rstest]
    #[case::total(2, 10)]
    #[case::per_source(10, 2)]
    #[tokio::test]
    async fn over_a_limit_connections_are_shed_with_a_greeting(
        #[case] connections_max: usize,
        #[case] connections_per_source_max: usize,
    ) {
        let limited = Settings {
            connections_max,
            connections_per_source_max,
            ..settings()
        };
        let house = House::open(limited);
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(house.visit().await);
            expect(held.last_mut().unwrap(), GREETING).await;
        }
        for shed in 1..=100 {
            let mut client = house.visit().await;
            client.write_all(b"EHLO early\r\n").await.unwrap();
            assert_eq!(read_all(&mut client).await, GREETING);
            assert_eq!(house.responder.snapshot().ended[Outcome::Shed], shed);
        }
        held.pop();
        house.until(|counts| counts.active == 1).await;
        let mut client = house.visit().await;
        client.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, [GREETING, GOODBYE].concat());
        drop((client, held));
        let counts = house.drained().await;
        assert_eq!(
            (
                counts.accepted,
                counts.ended[Outcome::Shed],
                counts.ended[Outcome::Quit],
                counts.ended[Outcome::ClosedByPeer]
            ),
            (103, 100, 1, 2)
        );
        let history = house.responder.sources();
        assert_eq!(history.len(), 1);
        assert_eq!(
            (history[0].source, history[0].connections),
            (house.address.ip(), 103)
        );
    }

    /// Connects from an address of 127.0.0.0/8.
    async fn visit_from(house: &House, from: [u8; 4]) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(house.address).await.unwrap()
    }

    fn full(connections_max: usize) -> Settings {
        Settings {
            refuse: Refuse::At(RefuseAt::Rcpt),
            connections_max,
            ..settings()
        }
    }

    const WELCOME: &str = "220 mailless.example.org ESMTP nomail\r\n";

    #[tokio::test]
    async fn when_it_is_full_the_fullest_prefix_makes_room() {
        const PLACES: usize = 6;
        let house = House::open(full(PLACES));
        let mut crowd = Vec::new();
        for host in 1..=5 {
            crowd.push(visit_from(&house, [127, 1, 1, host]).await);
            expect(crowd.last_mut().unwrap(), WELCOME).await;
        }
        let mut other = visit_from(&house, [127, 1, 2, 1]).await;
        expect(&mut other, WELCOME).await;
        // The first of the crowd is not idle any more: the second is.
        crowd[0].write_all(b"NOOP\r\n").await.unwrap();
        expect(&mut crowd[0], "250 2.0.0 done\r\n").await;
        // It makes no room for itself.
        let mut shed = visit_from(&house, [127, 1, 1, 9]).await;
        assert_eq!(read_all(&mut shed).await, GREETING);

        // A newcomer from elsewhere has the whole dialog.
        let mut newcomer = visit_from(&house, [127, 1, 3, 1]).await;
        expect(&mut newcomer, WELCOME).await;
        assert_eq!(read_all(&mut crowd[1]).await, REFUSAL);
        let counts = house
            .until(|counts| counts.counters[Counter::Evicted] == 1)
            .await;
        assert_eq!(
            (counts.active, counts.ended[Outcome::Shed]),
            (PLACES as u64, 1)
        );
        newcomer
            .write_all(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nQUIT\r\n")
            .await
            .unwrap();
        let told = [
            "250 mailless.example.org\r\n",
            "250 2.1.0 sender noted\r\n",
            REFUSAL,
            GOODBYE,
        ];
        assert_eq!(read_all(&mut newcomer).await, told.concat());

        // All others are where they were.
        crowd.push(other);
        for client in [0, 2, 5] {
            crowd[client].write_all(b"QUIT\r\n").await.unwrap();
            assert_eq!(read_all(&mut crowd[client]).await, GOODBYE);
        }
        drop((crowd, newcomer));
        let counts = house.drained().await;
        assert_eq!(
            (
                counts.counters[Counter::Evicted],
                counts.ended[Outcome::Closed],
                counts.ended[Outcome::Quit]
            ),
            (1, 1, 4)
        );
    }

    /// A crowd that fills all places again and again takes none from another, and what
    /// it takes itself changes hands.
    #[tokio::test]
    async fn a_crowd_that_comes_again_takes_no_place_of_another() {
        let house = House::open(full(8));
        let mut others = Vec::new();
        for network in 1..=3 {
            others.push(visit_from(&house, [127, 2, network, 1]).await);
            expect(others.last_mut().unwrap(), WELCOME).await;
        }
        let mut crowd = Vec::new();
        for host in 1..=50 {
            let mut one = visit_from(&house, [127, 1, 1, host]).await;
            let greeting = if host <= 5 { WELCOME } else { GREETING };
            expect(&mut one, greeting).await;
            crowd.push(one);
        }
        for other in &mut others {
            other.write_all(b"NOOP\r\n").await.unwrap();
            expect(other, "250 2.0.0 done\r\n").await;
        }
        assert_eq!(house.responder.snapshot().counters[Counter::Evicted], 0);
    }

    /// With one place for each prefix the idle make room, and those whose dialog goes on
    /// do not.
    #[tokio::test]
    async fn of_equals_the_idle_one_makes_room() {
        let house = House::open(full(3));
        let mut clients = Vec::new();
        for network in 1..=3 {
            clients.push(visit_from(&house, [127, 1, network, 1]).await);
            expect(clients.last_mut().unwrap(), WELCOME).await;
        }
        let mut shed = visit_from(&house, [127, 1, 4, 1]).await;
        assert_eq!(read_all(&mut shed).await, GREETING);
        sleep(IDLE_MIN).await;
        for client in &mut clients[..2] {
            client.write_all(b"NOOP\r\n").await.unwrap();
            expect(client, "250 2.0.0 done\r\n").await;
        }
        let mut newcomer = visit_from(&house, [127, 1, 4, 1]).await;
        expect(&mut newcomer, WELCOME).await;
        assert_eq!(read_all(&mut clients[2]).await, REFUSAL);
        assert_eq!(house.responder.snapshot().counters[Counter::Evicted], 1);
    }

    #[tokio::test]
    async fn over_their_own_bound_those_that_make_room_do_not_linger() {
        let house = House::open(Settings {
            shed_max: 0,
            ..full(2)
        });
        let mut first = visit_from(&house, [127, 1, 1, 1]).await;
        expect(&mut first, WELCOME).await;
        let mut second = visit_from(&house, [127, 1, 1, 2]).await;
        expect(&mut second, WELCOME).await;
        let mut newcomer = visit_from(&house, [127, 1, 2, 1]).await;
        expect(&mut newcomer, WELCOME).await;
        assert_eq!(read_all(&mut first).await, REFUSAL);
        // Its end of the connection is still open.
        let counts = house.responder.snapshot();
        assert_eq!(
            (counts.counters[Counter::Evicted], counts.shed_lingering),
            (1, 0)
        );
        drop((first, second, newcomer));
        house.drained().await;
    }

    #[tokio::test]
    async fn over_its_own_bound_shedding_does_not_linger() {
        let house = House::open(Settings {
            connections_max: 0,
            ..settings()
        });
        house.responder.ledger.page().counts.shed_lingering = SHED_MAX as u64;
        let mut client = house.visit().await;
        assert_eq!(read_all(&mut client).await, GREETING);
        let counts = house.responder.snapshot();
        assert_eq!(
            (
                counts.ended[Outcome::Shed],
                counts.counters[Counter::ShedWithoutLinger]
            ),
            (1, 1)
        );
        check_sum(&counts);
    }

    #[tokio::test]
    async fn a_shutdown_is_said_to_all() {
        let mut house = House::open(settings());
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = house.visit().await;
            expect(&mut client, GREETING).await;
            client.write_all(b"half a li").await.unwrap();
            clients.push(client);
        }
        let begun = Instant::now();
        house.responder.stop(LINGER_MAX * 2);
        for client in &mut clients {
            assert_eq!(read_all(client).await, SHUTTING_DOWN);
        }
        // The clients keep their side open, and the bound holds.
        assert_eq!(house.drained().await.ended[Outcome::Closed], 20);
        assert!(begun.elapsed() < LINGER_MAX + Duration::from_secs(1));
        house.ended.take().unwrap().await.unwrap();
        assert!(TcpStream::connect(house.address).await.is_err());
    }

    #[tokio::test]
    async fn a_socket_closes_and_its_sessions_go_on() {
        let house = House::open(settings());
        let mut client = house.visit().await;
        expect(&mut client, GREETING).await;
        house.responder.close(house.listener);
        while TcpStream::connect(house.address).await.is_ok() {}
        client.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, GOODBYE);
    }

    #[tokio::test]
    async fn a_reload_holds_for_new_connections() {
        let house = House::open(settings());
        let mut old = house.visit().await;
        expect(&mut old, GREETING).await;
        house.responder.configure(Settings {
            replies: Arc::new(Replies::new("[192.0.2.7]", None).unwrap()),
            refuse: Refuse::At(RefuseAt::Greeting(AfterGreeting::Close)),
            ..settings()
        });
        let told = house.told(b"QUIT\r\n").await;
        assert_eq!(told, "521 [192.0.2.7] does not accept mail\r\n");
        old.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut old).await, GOODBYE);
    }

    #[test]
    fn only_errors_of_one_connection_are_passed_over() {
        let concerns_one = |code| concerns_one_connection(&io::Error::from_raw_os_error(code));
        assert!([libc::ECONNABORTED, libc::EPROTO, libc::EINTR].map(concerns_one) == [true; 3]);
        let full = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EBADF,
        ];
        assert!(full.map(concerns_one) == [false; 5]);
    }

    #[test]
    fn a_held_connection_is_small() {
        assert!(size_of::<Session>() <= 192, "{}", size_of::<Session>());
    }

    #[tokio::test]
    async fn auto_greets_first_and_refuses_at_rcpt_on_return() {
        let house = House::open(Settings {
            refuse: Refuse::Auto(AfterGreeting::Hold),
            ..settings()
        });
        assert_eq!(house.told(b"QUIT\r\n").await, [GREETING, GOODBYE].concat());
        let mail = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nQUIT\r\n";
        let told = house.told(mail).await;
        let codes: Vec<_> = told.lines().map(|line| &line[..4]).collect();
        let ehlo = ["250-", "250-", "250-", "250 "];
        assert_eq!(
            codes,
            [&["220 "], &ehlo[..], &["250 ", "521 ", "221 "]].concat()
        );
        // Whoever leaves after EHLO may have missed TLS, which must not be
        // offered: refused there, once.
        for codes in [["220 ", "250-"], ["220 ", "521 "], ["220 ", "250-"]] {
            let told = house.told(b"EHLO a\r\nQUIT\r\n").await;
            let mut lines = told.lines();
            assert!(
                codes
                    .iter()
                    .all(|code| lines.next().unwrap().starts_with(code)),
                "{told}"
            );
            house.drained().await;
        }
        let counts = house.drained().await;
        assert_eq!(
            (
                counts.refused[Refusal::Greeting],
                counts.refused[Refusal::Rcpt],
                counts.refused[Refusal::Ehlo]
            ),
            (1, 1, 1)
        );
        assert_eq!(
            (
                counts.senders,
                counts.counters[Counter::RecipientsElsewhere]
            ),
            (1, 1)
        );
    }

    /// As `option smtpchk` of HAProxy asks, also where others are greeted with 521.
    #[rstest]
    #[case(Refuse::Auto(AfterGreeting::Hold))]
    #[case(Refuse::At(RefuseAt::Greeting(AfterGreeting::Close)))]
    #[case(Refuse::At(RefuseAt::Ehlo))]
    #[tokio::test]
    async fn a_monitor_is_always_refused_at_rcpt_and_leaves_no_trace(#[case] refuse: Refuse) {
        let checked = Settings {
            refuse,
            monitors: vec!["127.0.0.1/32".parse().unwrap()],
            ..settings()
        };
        let house = House::open(checked.clone());
        for _ in 0..6 {
            let told = house.told(b"EHLO check.example\r\nQUIT\r\n").await;
            let codes: Vec<_> = told.lines().map(|line| &line[..4]).collect();
            assert_eq!(codes, ["220 ", "250-", "250-", "250-", "250 ", "221 "]);
        }
        let told = house.told(b"RCPT TO:<a@example.com>\r\nQUIT\r\n").await;
        let expected = [
            "220 mailless.example.org ESMTP nomail\r\n",
            REFUSAL,
            GOODBYE,
        ];
        assert_eq!(told, expected.concat());
        let counts = house.drained().await;
        assert_eq!((counts.ended[Outcome::Quit], counts.senders), (7, 0));
        assert_eq!(counts.counters[Counter::RecipientsElsewhere], 0);
        assert_eq!(house.responder.take_activity(), Activity::default());
        // Nobody else is a monitor.
        house.responder.configure(Settings {
            monitors: vec!["127.0.0.2/32".parse().unwrap()],
            ..checked
        });
        assert!(!house.told(b"EHLO a\r\nQUIT\r\n").await.contains("250"));
    }

    #[tokio::test]
    async fn a_relay_without_room_says_421() {
        let relay = Relay::new(
            Code::DoesNotAcceptMail,
            "no mail",
            [("a.example", None)],
            None,
        );
        let house = House::open(Settings {
            replies: Arc::new(Replies::new(HOST, Some(Arc::new(relay))).unwrap()),
            refuse: Refuse::At(RefuseAt::Rcpt),
            connections_max: 1,
            ..settings()
        });
        let mut held = house.visit().await;
        expect(&mut held, "220 mailless.example.org ESMTP nomail\r\n").await;
        assert!(
            house
                .told(b"QUIT\r\n")
                .await
                .starts_with("421 mailless.example.org ")
        );
        let counts = house.responder.snapshot();
        assert_eq!(
            (
                counts.ended[Outcome::Shed],
                counts.refused[Refusal::Greeting]
            ),
            (1, 0)
        );
    }

    #[rstest]
    #[case::http(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
    #[case::tls(b"\x16\x03\x01\x02\x00\x01\x00")]
    #[case::proxy(b"PROXY UNKNOWN\r\n")]
    #[case::garbage(b"\x00\x01\x02")]
    #[tokio::test]
    async fn what_is_not_mail_is_told_once_and_closed(#[case] input: &[u8]) {
        let house = House::open(Settings {
            refuse: Refuse::At(RefuseAt::Rcpt),
            ..settings()
        });
        let told = house.told(input).await;
        assert_eq!(
            told,
            ["220 mailless.example.org ESMTP nomail\r\n", REFUSAL].concat()
        );
        let counts = house.drained().await;
        assert_eq!(
            (counts.ended[Outcome::Closed], counts.talkers.sum()),
            (1, 1)
        );
        let activity = house.responder.take_activity();
        let tally = activity.of_source.values().next().unwrap();
        assert_eq!(tally.talkers, counts.talkers);
    }

    #[tokio::test]
    async fn pipelined_replies_of_a_transaction_leave_together() {
        let house = House::open(Settings {
            refuse: Refuse::At(RefuseAt::Rcpt),
            ..settings()
        });
        let mut client = house.visit().await;
        client.write_all(b"EHLO a\r\n").await.unwrap();
        let mut buffer = [0; 4096];
        let mut text = String::new();
        while !text.ends_with("250 HELP\r\n") {
            let count = client.read(&mut buffer).await.unwrap();
            text.push_str(str::from_utf8(&buffer[..count]).unwrap());
        }
        let rcpt = "RCPT TO:<a@mailless.example.org>\r\n".repeat(3);
        let commands = format!("MAIL FROM:<>\r\n{rcpt}DATA\r\n");
        client.write_all(commands.as_bytes()).await.unwrap();
        let expected = [
            "250 2.1.0 sender noted\r\n",
            &REFUSAL.repeat(3),
            "554 5.5.1 no valid recipients\r\n",
        ];
        // One piece of input, one of output: all up to DATA, which may not wait.
        let count = client.read(&mut buffer).await.unwrap();
        assert_eq!(str::from_utf8(&buffer[..count]), Ok(&*expected.concat()));
    }

    #[rstest]
    #[case("127.0.0.1:0")]
    #[case("[::1]:0")]
    fn binds_without_blocking(#[case] address: SocketAddr) {
        let listener = bind(address, LISTEN_BACKLOG, false).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(bind(listener.local_addr().unwrap(), LISTEN_BACKLOG, false).is_err());
    }

    #[test]
    fn binds_an_address_that_is_not_there_only_when_asked() {
        let address: SocketAddr = "192.0.2.7:0".parse().unwrap();
        assert!(bind(address, LISTEN_BACKLOG, false).is_err());
        assert!(bind(address, LISTEN_BACKLOG, true).is_ok());
        let address: SocketAddr = "[2001:db8::7]:0".parse().unwrap();
        assert!(bind(address, LISTEN_BACKLOG, true).is_ok());
    }
}
