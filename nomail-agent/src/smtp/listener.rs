//! The sockets of the responder: accept, greet, hold, close.
//!
//! One [`Responder`] serves all listening sockets on a tokio runtime. Every
//! connection is one small task. It is written to and read from under an idle
//! and a session deadline, and closed so that the peer can read what it was
//! told: shutdown of our direction, a bounded drain, close. (Closing with
//! unread input makes the kernel send RST, and the peer loses the text.)
//!
//! Over [`Settings::connections_max`] or
//! [`Settings::connections_per_source_max`] a connection is *shed*: greeted
//! and closed at once. That too is a complete dialog (RFC 1846 section 4.2 a).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use nomail_common::source::Source;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::dialog::{AfterGreeting, Dialog, Interruption, Outcome, Replies};

/// The default backlog of a listening socket.
pub const LISTEN_BACKLOG: u32 = 4096;

/// How long a closed connection waits for the peer to close its side.
pub const LINGER_MAX: Duration = Duration::from_secs(2);

/// How much input a closed connection swallows before it is dropped.
pub const LINGER_OCTETS_MAX: usize = 256 * 1024;

/// How many shed connections may linger at once. One more is greeted and
/// dropped without waiting for the peer, which may lose the text.
pub const SHED_MAX: usize = 1024;

/// How many sources are remembered; the one not seen for longest goes first.
pub const SOURCES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The rest after an error of accept that the next accept would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one log line about such errors in this time.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Input is read in pieces of this size. The buffer is part of every held
/// connection, so it is small; a command line of a sender fits.
const READ_OCTETS: usize = 64;

/// What the responder says and how much it bears.
///
/// A change holds for connections that are accepted after it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The texts.
    pub replies: Arc<Replies>,
    /// Whether a connection is held after the greeting.
    pub after_greeting: AfterGreeting,
    /// Connections at once, of all sources. File descriptors must suffice for
    /// these, [`SHED_MAX`] and a few more.
    pub connections_max: usize,
    /// Connections at once of one source.
    pub connections_per_source_max: usize,
    /// How long after a reply the next command must be complete.
    pub idle_timeout: Duration,
    /// How long a session may last in all.
    pub session_timeout: Duration,
}

/// Counts of connections.
///
/// Always `accepted = active + quit + timed_out + closed_by_peer + closed +
/// shed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Accepted from a listening socket.
    pub accepted: u64,
    /// Open now, lingering included, shed ones not.
    pub active: u64,
    /// Told 521 in the greeting; moves beside the outcomes.
    pub refused_greeting: u64,
    /// Ended by QUIT.
    pub quit: u64,
    /// Ended by a deadline.
    pub timed_out: u64,
    /// Ended by the peer, without QUIT.
    pub closed_by_peer: u64,
    /// Ended by us: after the greeting, on input over a bound, on shutdown.
    pub closed: u64,
    /// Over a limit: greeted and closed.
    pub shed: u64,
    /// Those of `shed` that were over [`SHED_MAX`] too.
    pub shed_without_linger: u64,
    /// Shed connections that linger now.
    pub shed_lingering: u64,
    /// Sources in the history.
    pub sources_tracked: u64,
    /// Sources that the history has forgotten for others.
    pub sources_evicted: u64,
}

/// What is remembered of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceHistory {
    /// The IPv4 address, or the first address of the IPv6 /64.
    pub source: IpAddr,
    /// Connections accepted since the source entered the history.
    pub connections: u64,
    /// Seconds since the last of them.
    pub last_seen_secs: u64,
}

/// A listening socket, non-blocking and ready for [`Responder::serve`].
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
    // Inherited by the accepted sockets: replies to pipelined commands are
    // small writes, which must not wait for each other's acknowledgement.
    socket.set_tcp_nodelay(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(freebind)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(freebind)?;
        }
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Serves the dialog on any number of listening sockets. Clones share limits,
/// counts and history.
#[derive(Clone, Debug)]
pub struct Responder {
    settings: watch::Receiver<Arc<Settings>>,
    shared: Arc<Shared>,
}

impl Responder {
    /// A responder that follows `settings`.
    pub fn new(settings: watch::Receiver<Arc<Settings>>) -> Self {
        Self {
            settings,
            shared: Arc::new(Shared {
                ledger: Mutex::new(Ledger {
                    counts: Connections::default(),
                    active: HashMap::new(),
                    history: LruCache::new(SOURCES_MAX),
                    accept_error_logged: None,
                }),
                idle: Notify::new(),
            }),
        }
    }

    /// Accepts from `listener` until `shutdown` becomes true or loses its
    /// sender.
    ///
    /// Then open sessions are told 421 and closed, which takes [`LINGER_MAX`]
    /// at most; [`Self::drained`] waits for them. Dropping this future instead
    /// closes the listening socket alone, and its sessions go on.
    ///
    /// Errors of accept do not end this; only a socket that the runtime cannot
    /// take does, at once.
    pub async fn serve(
        &self,
        listener: std::net::TcpListener,
        mut shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                biased;
                () = raised(&mut shutdown) => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer.ip(), &shutdown),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.log_accept_error(&error);
                    tokio::select! {
                        () = raised(&mut shutdown) => return Ok(()),
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Connections {
        let ledger = self.shared.ledger();
        Connections {
            sources_tracked: ledger.history.len() as u64,
            ..ledger.counts
        }
    }

    /// The history, the source seen last first.
    pub fn sources(&self) -> Vec<SourceHistory> {
        let ledger = self.shared.ledger();
        let entries = ledger.history.iter();
        entries
            .map(|(source, seen)| SourceHistory {
                source: source.address(),
                connections: seen.connections,
                last_seen_secs: seen.last.elapsed().as_secs(),
            })
            .collect()
    }

    /// Resolves when no connection is left. Of use once every
    /// [`Self::serve`] has ended.
    pub async fn drained(&self) {
        loop {
            // Created before the look, so that a change in between is seen.
            let changed = self.shared.idle.notified();
            if self.shared.ledger().is_idle() {
                return;
            }
            changed.await;
        }
    }

    /// Greets a connection and starts its task. Never waits: the greeting
    /// fits the empty send buffer of a new socket.
    fn welcome(&self, stream: TcpStream, peer: IpAddr, shutdown: &watch::Receiver<bool>) {
        let settings = Arc::clone(&self.settings.borrow());
        let admission = Shared::admit(&self.shared, Source::from(peer), &settings);
        let after_greeting = match &admission {
            Admission::Active(_) => settings.after_greeting,
            Admission::Shed(_) | Admission::ShedAtOnce => AfterGreeting::Close,
        };
        let (dialog, action) = Dialog::open(after_greeting);
        let greeted = send_at_once(&stream, settings.replies.line(action.reply));
        if greeted {
            self.shared.ledger().counts.refused_greeting += 1;
        }
        match admission {
            Admission::Active(mut permit) => {
                permit.outcome = match action.end {
                    _ if !greeted => Outcome::ClosedByPeer,
                    Some(outcome) => outcome,
                    None => {
                        let session = Session {
                            ends: Instant::now() + settings.session_timeout,
                            dialog,
                            settings,
                            shutdown: shutdown.clone(),
                        };
                        tokio::spawn(hold(stream, session, permit));
                        return;
                    }
                };
                tokio::spawn(close(stream, permit));
            }
            Admission::Shed(permit) => {
                tokio::spawn(close(stream, permit));
            }
            Admission::ShedAtOnce => {
                // An error means that the peer has gone already.
                let _ = SockRef::from(&stream).shutdown(Shutdown::Write);
            }
        }
    }

    fn log_accept_error(&self, error: &io::Error) {
        let mut ledger = self.shared.ledger();
        let logged = &mut ledger.accept_error_logged;
        if logged.is_none_or(|last| last.elapsed() >= ACCEPT_LOG_INTERVAL) {
            *logged = Some(Instant::now());
            drop(ledger);
            log::error!("cannot accept connections, trying again: {error}");
        }
    }
}

/// What all clones of a responder and all its connections share.
#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// Notified when the last connection has gone.
    idle: Notify,
}

#[derive(Debug)]
struct Ledger {
    counts: Connections,
    /// Connections open now, by source; bounded by `connections_max`.
    active: HashMap<Source, usize>,
    history: LruCache<Source, Seen>,
    accept_error_logged: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    connections: u64,
    last: Instant,
}

/// What becomes of a new connection.
enum Admission {
    Active(Permit),
    Shed(ShedPermit),
    ShedAtOnce,
}

impl Shared {
    /// The ledger. No code panics while it holds it half-changed, so a
    /// poisoned lock is as good as any.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new connection, and takes it in or not.
    fn admit(shared: &Arc<Self>, source: Source, settings: &Settings) -> Admission {
        let mut ledger = shared.ledger();
        ledger.remember(source);
        ledger.counts.accepted += 1;
        let of_source = ledger.active.get(&source).copied().unwrap_or(0);
        if ledger.counts.active < settings.connections_max as u64
            && of_source < settings.connections_per_source_max
        {
            ledger.counts.active += 1;
            ledger.active.insert(source, of_source + 1);
            return Admission::Active(Permit {
                shared: Arc::clone(shared),
                source,
                outcome: Outcome::Closed,
            });
        }
        ledger.counts.shed += 1;
        if ledger.counts.shed_lingering < SHED_MAX as u64 {
            ledger.counts.shed_lingering += 1;
            Admission::Shed(ShedPermit(Arc::clone(shared)))
        } else {
            ledger.counts.shed_without_linger += 1;
            Admission::ShedAtOnce
        }
    }
}

impl Ledger {
    fn remember(&mut self, source: Source) {
        let last = Instant::now();
        if let Some(seen) = self.history.get_mut(&source) {
            seen.connections += 1;
            seen.last = last;
        } else {
            let connections = 1;
            let evicted = self.history.push(source, Seen { connections, last });
            self.counts.sources_evicted += u64::from(evicted.is_some());
        }
    }

    fn is_idle(&self) -> bool {
        self.counts.active == 0 && self.counts.shed_lingering == 0
    }
}

/// The place of one open connection; its outcome is counted when it is dropped.
struct Permit {
    shared: Arc<Shared>,
    source: Source,
    outcome: Outcome,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut ledger = self.shared.ledger();
        if let Some(count) = ledger.active.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                ledger.active.remove(&self.source);
            }
        }
        let counts = &mut ledger.counts;
        counts.active -= 1;
        *match self.outcome {
            Outcome::Quit => &mut counts.quit,
            Outcome::TimedOut => &mut counts.timed_out,
            Outcome::ClosedByPeer => &mut counts.closed_by_peer,
            Outcome::Closed => &mut counts.closed,
        } += 1;
        if ledger.is_idle() {
            self.shared.idle.notify_waiters();
        }
    }
}

/// The place of one shed connection that lingers.
struct ShedPermit(Arc<Shared>);

impl Drop for ShedPermit {
    fn drop(&mut self) {
        let mut ledger = self.0.ledger();
        ledger.counts.shed_lingering -= 1;
        if ledger.is_idle() {
            self.0.idle.notify_waiters();
        }
    }
}

/// A session after its greeting.
struct Session {
    dialog: Dialog,
    settings: Arc<Settings>,
    ends: Instant,
    shutdown: watch::Receiver<bool>,
}

/// The task of a held connection. An async block and not an async fn, whose
/// `mut` parameters would be kept twice.
#[expect(clippy::manual_async_fn, reason = "a smaller future")]
fn hold(
    mut stream: TcpStream,
    mut session: Session,
    mut permit: Permit,
) -> impl Future<Output = ()> + Send {
    async move {
        permit.outcome = session.converse(&mut stream).await;
        close(stream, permit).await;
    }
}

/// Lingers, closes, and only then gives up the place.
async fn close<P>(stream: TcpStream, permit: P) {
    linger(&stream).await;
    drop(stream);
    drop(permit);
}

impl Session {
    /// Reads and replies until the session is over. A reply is written before
    /// any more input is looked at.
    async fn converse(&mut self, stream: &mut TcpStream) -> Outcome {
        let mut buffer = [0; READ_OCTETS];
        let mut deadline = self.deadline();
        loop {
            let shutdown = &mut self.shutdown;
            let read = unless_stopped(deadline, shutdown, stream.read(&mut buffer)).await;
            let mut input = match read {
                Ok(0) | Err(Stop::Peer) => return Outcome::ClosedByPeer,
                Ok(count) => &buffer[..count],
                Err(Stop::Interrupted(why)) => return self.last_words(stream, why),
            };
            while let (taken, Some(action)) = self.dialog.receive(input) {
                input = &input[taken..];
                let line = self.settings.replies.line(action.reply);
                let shutdown = &mut self.shutdown;
                let written = unless_stopped(deadline, shutdown, stream.write_all(line)).await;
                match (action.end, written) {
                    // Many clients leave after QUIT without waiting for 221.
                    (Some(outcome), Ok(()) | Err(Stop::Peer)) => return outcome,
                    (None, Ok(())) => deadline = self.deadline(),
                    (None, Err(Stop::Peer)) => return Outcome::ClosedByPeer,
                    // Part of a line may be out: nothing can follow it.
                    (_, Err(Stop::Interrupted(Interruption::Deadline))) => {
                        return Outcome::TimedOut;
                    }
                    (_, Err(Stop::Interrupted(Interruption::Shutdown))) => return Outcome::Closed,
                }
            }
        }
    }

    /// The end of the idle time that begins now, or of the session.
    fn deadline(&self) -> Instant {
        self.ends.min(Instant::now() + self.settings.idle_timeout)
    }

    /// Says why the session is over, if there is room in the send buffer.
    fn last_words(&mut self, stream: &TcpStream, why: Interruption) -> Outcome {
        let Some(action) = self.dialog.interrupt(why) else {
            return Outcome::Closed;
        };
        send_at_once(stream, self.settings.replies.line(action.reply));
        action.end.unwrap_or(Outcome::Closed)
    }
}

/// Why reading or writing came to nothing.
enum Stop {
    /// The connection is broken; the peer may do that at any time.
    Peer,
    Interrupted(Interruption),
}

/// Does `io`, unless the deadline passes or the shutdown begins. These two
/// come first, or a peer that always has something to read would not let them.
async fn unless_stopped<T>(
    deadline: Instant,
    shutdown: &mut watch::Receiver<bool>,
    io: impl Future<Output = io::Result<T>>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        () = raised(shutdown) => Err(Stop::Interrupted(Interruption::Shutdown)),
        () = sleep_until(deadline) => Err(Stop::Interrupted(Interruption::Deadline)),
        done = io => done.map_err(|_| Stop::Peer),
    }
}

/// Resolves when the shutdown begins. A lost sender means the same.
async fn raised(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|begun| *begun).await;
}

/// Writes a line without waiting; false if the socket did not take it whole.
///
/// Straight to the socket, because the runtime does not try to write to one
/// that it has not yet seen writable.
fn send_at_once(stream: &TcpStream, line: &[u8]) -> bool {
    let sent = SockRef::from(stream).send_with_flags(line, libc::MSG_NOSIGNAL);
    sent.is_ok_and(|count| count == line.len())
}

/// Ends our direction, then swallows what the peer still sends until it ends
/// its own, within [`LINGER_MAX`] and [`LINGER_OCTETS_MAX`].
async fn linger(stream: &TcpStream) {
    if SockRef::from(stream).shutdown(Shutdown::Write).is_err() {
        return; // The peer has gone.
    }
    let drain = async {
        let mut left = LINGER_OCTETS_MAX;
        while left > 0 && stream.readable().await.is_ok() {
            match discard(stream) {
                Ok(0) => return,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(LINGER_MAX, drain).await;
}

/// Reads and forgets. The large buffer lives here, on the stack of the thread,
/// not in the task of the connection.
fn discard(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 4096])
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
    use tokio::task::JoinHandle;

    use super::*;

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
            replies: Arc::new(Replies::new(HOST).unwrap()),
            after_greeting: AfterGreeting::Hold,
            connections_max: 10_000,
            connections_per_source_max: 10_000,
            idle_timeout: PATIENCE,
            session_timeout: PATIENCE,
        }
    }

    /// A responder on a port of 127.0.0.1.
    struct House {
        responder: Responder,
        address: SocketAddr,
        settings: watch::Sender<Arc<Settings>>,
        shutdown: watch::Sender<bool>,
        serving: JoinHandle<io::Result<()>>,
    }

    impl House {
        fn open(settings: Settings) -> Self {
            let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), LISTEN_BACKLOG, false).unwrap();
            Self::on(listener, settings)
        }

        fn on(listener: std::net::TcpListener, settings: Settings) -> Self {
            let address = listener.local_addr().unwrap();
            let (settings, followed) = watch::channel(Arc::new(settings));
            let (shutdown, begun) = watch::channel(false);
            let responder = Responder::new(followed);
            let serving = tokio::spawn({
                let responder = responder.clone();
                async move { responder.serve(listener, begun).await }
            });
            Self {
                responder,
                address,
                settings,
                shutdown,
                serving,
            }
        }

        async fn visit(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Waits until all connections have gone, and checks the sum.
        async fn drained(&self) -> Connections {
            timeout(PATIENCE, self.responder.drained()).await.unwrap();
            let counts = self.responder.snapshot();
            check_sum(&counts);
            assert_eq!((counts.active, counts.shed_lingering), (0, 0));
            assert!(self.responder.shared.ledger().active.is_empty());
            counts
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
    }

    fn check_sum(counts: &Connections) {
        let Connections {
            active,
            quit,
            timed_out,
            closed_by_peer,
            closed,
            shed,
            ..
        } = *counts;
        assert_eq!(
            counts.accepted,
            active + quit + timed_out + closed_by_peer + closed + shed
        );
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
            (counts.accepted, counts.quit, counts.refused_greeting),
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
        assert_eq!(counts.quit + counts.closed_by_peer, 20);
    }

    #[rstest]
    #[case::hold(AfterGreeting::Hold)]
    #[case::close(AfterGreeting::Close)]
    #[tokio::test]
    async fn an_early_talker_reads_the_greeting(#[case] after_greeting: AfterGreeting) {
        const TIMES: u64 = 1000;
        let house = House::open(Settings {
            after_greeting,
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
            counts.quit
        } else {
            counts.closed
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
        assert_eq!(house.drained().await.closed, 1);
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
        assert_eq!(house.drained().await.timed_out, 1);
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
        assert_eq!(counts.await.unwrap().timed_out, 1);
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
        assert_eq!(house.drained().await.timed_out, 1);
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
            assert_eq!(house.responder.snapshot().shed, shed);
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
                counts.shed,
                counts.quit,
                counts.closed_by_peer
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

    #[tokio::test]
    async fn over_its_own_bound_shedding_does_not_linger() {
        let house = House::open(Settings {
            connections_max: 0,
            ..settings()
        });
        house.responder.shared.ledger().counts.shed_lingering = SHED_MAX as u64;
        let mut client = house.visit().await;
        assert_eq!(read_all(&mut client).await, GREETING);
        let counts = house.responder.snapshot();
        assert_eq!((counts.shed, counts.shed_without_linger), (1, 1));
        check_sum(&counts);
    }

    #[tokio::test]
    async fn a_shutdown_is_said_to_all() {
        let house = House::open(settings());
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = house.visit().await;
            expect(&mut client, GREETING).await;
            client.write_all(b"half a li").await.unwrap();
            clients.push(client);
        }
        let begun = Instant::now();
        house.shutdown.send(true).unwrap();
        for client in &mut clients {
            assert_eq!(read_all(client).await, SHUTTING_DOWN);
        }
        // The clients keep their side open, and the bound holds.
        assert_eq!(house.drained().await.closed, 20);
        assert!(begun.elapsed() < LINGER_MAX + Duration::from_secs(1));
        house.serving.await.unwrap().unwrap();
        assert!(TcpStream::connect(house.address).await.is_err());
    }

    #[tokio::test]
    async fn without_its_future_a_socket_closes_and_its_sessions_go_on() {
        let house = House::open(settings());
        let mut client = house.visit().await;
        expect(&mut client, GREETING).await;
        house.serving.abort();
        while TcpStream::connect(house.address).await.is_ok() {}
        client.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, GOODBYE);
    }

    #[tokio::test]
    async fn a_reload_holds_for_new_connections() {
        let house = House::open(settings());
        let mut old = house.visit().await;
        expect(&mut old, GREETING).await;
        let replies = Arc::new(Replies::new("[192.0.2.7]").unwrap());
        let after_greeting = AfterGreeting::Close;
        house.settings.send_replace(Arc::new(Settings {
            replies,
            after_greeting,
            ..settings()
        }));
        let mut new = house.visit().await;
        assert_eq!(
            read_all(&mut new).await,
            "521 [192.0.2.7] does not accept mail\r\n"
        );
        old.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut old).await, GOODBYE);
    }

    #[test]
    fn the_history_is_bounded_and_says_what_it_forgets() {
        let responder = Responder::new(watch::channel(Arc::new(settings())).1);
        let sources = SOURCES_MAX.get() as u32 + 10;
        for address in 0..sources {
            for _ in 0..2 {
                responder
                    .shared
                    .ledger()
                    .remember(Source::from_ipv4(address));
            }
        }
        let counts = responder.snapshot();
        assert_eq!(
            (counts.sources_tracked, counts.sources_evicted),
            (SOURCES_MAX.get() as u64, 10)
        );
        let history = responder.sources();
        assert_eq!(
            history[0].source,
            IpAddr::from(Ipv4Addr::from_bits(sources - 1))
        );
        assert!(history.iter().all(|seen| seen.connections == 2));
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_networks() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_eq!(source("2001:db8::7"), source("2001:db8::8"));
        assert_ne!(source("2001:db8::7"), source("2001:db8:0:1::7"));
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

    #[tokio::test]
    async fn a_held_connection_is_small() {
        let house = House::open(settings());
        let client = house.visit().await;
        let permit = Permit {
            shared: Arc::clone(&house.responder.shared),
            source: Source::from_ipv4(0),
            outcome: Outcome::Closed,
        };
        house.responder.shared.ledger().counts.active += 1;
        let session = Session {
            dialog: Dialog::open(AfterGreeting::Hold).0,
            settings: Arc::new(settings()),
            ends: Instant::now(),
            shutdown: house.shutdown.subscribe(),
        };
        let size = size_of_val(&hold(client, session, permit));
        assert!(size <= 640, "{size} octets");
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
