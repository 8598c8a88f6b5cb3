//! Clients that come to an SMTP server, are greeted, and stay: as many as one
//! asks for, whatever one process may open.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddrV4,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        resource::{Resource, getrlimit},
    },
};
use nomail_tests::processes::End;
use socket2::Socket;

use crate::load::connect;

/// Clients that are on their way, or saying QUIT, at once. Some servers have a
/// short queue for connections; one that does not fit is lost to a client that
/// waits for a greeting, if the kernel has answered it with a cookie.
const BUSY_MAX: usize = 32;
/// When nothing has happened for so long, nothing more will.
const PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors that each table leaves for other purposes.
const DESCRIPTORS_SPARE: u64 = 1000;
const EVENTS: usize = 256;

/// What has become of some clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Greeted, and connected.
    pub held: usize,
    /// Greeted, and then hung up on.
    pub hung_up: usize,
    /// Connected or trying to, and not greeted.
    pub waiting: usize,
    /// Not connected, or hung up on without a greeting.
    pub failed: usize,
    /// Said QUIT, got 221, and were closed.
    pub goodbye: usize,
}

impl Counts {
    /// Those that were greeted.
    pub const fn greeted(&self) -> usize {
        self.held + self.hung_up + self.goodbye
    }

    const fn add(&mut self, other: &Self) {
        self.held += other.held;
        self.hung_up += other.hung_up;
        self.waiting += other.waiting;
        self.failed += other.failed;
        self.goodbye += other.goodbye;
    }
}

/// Clients that stay until they are told to leave. Dropped, they just go.
#[derive(Debug)]
pub struct Crowd {
    parts: Vec<Part>,
    counts: Counts,
}

/// Clients of one thread, which has a table of descriptors of its own: the limit
/// is for each table.
#[derive(Debug)]
struct Part {
    leave: mpsc::Sender<()>,
    thread: JoinHandle<Counts>,
}

impl Crowd {
    /// Brings so many clients to a server, from the namespace of the calling
    /// thread.
    ///
    /// # Panics
    /// When the machine lacks something for it.
    pub fn gather(target: SocketAddrV4, size: usize) -> Self {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let share = limit.saturating_sub(DESCRIPTORS_SPARE).max(1) as usize;
        let mut counts = Counts::default();
        let mut parts = Vec::new();
        for first in (0..size).step_by(share) {
            let size = share.min(size - first);
            let (leave, told_to_leave) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let thread = thread::spawn(move || {
                unshare(CloneFlags::CLONE_FILES).expect("a table of descriptors");
                End::Client.stay();
                let mut clients = Clients::new(target, first, size);
                clients.come();
                tell.send(clients.counts()).expect("somebody waits");
                // An error when the crowd has been dropped instead.
                if told_to_leave.recv().is_ok() {
                    clients.leave();
                }
                clients.counts()
            });
            counts.add(&told.recv().expect("the thread of a crowd"));
            parts.push(Part { leave, thread });
        }
        Self { parts, counts }
    }

    /// What has become of them when they came.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// All that are held say QUIT and read to the end.
    ///
    /// # Panics
    /// When the machine lacks something for it.
    pub fn leave(self) -> Counts {
        let mut counts = Counts::default();
        for part in self.parts {
            part.leave.send(()).expect("the thread of a crowd");
            counts.add(&part.thread.join().expect("the thread of a crowd"));
        }
        counts
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Waiting,
    Held,
    Leaving { goodbye: bool },
    Goodbye,
    HungUp,
    Failed,
}

struct Clients {
    target: SocketAddrV4,
    first: usize,
    set: Epoll,
    sockets: Vec<Option<Socket>>,
    states: Vec<State>,
}

impl Clients {
    fn new(target: SocketAddrV4, first: usize, size: usize) -> Self {
        Self {
            target,
            first,
            set: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set"),
            sockets: (0..size).map(|_| None).collect(),
            states: vec![State::Away; size],
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for state in &self.states {
            *match state {
                State::Held => &mut counts.held,
                State::HungUp => &mut counts.hung_up,
                State::Waiting | State::Leaving { .. } => &mut counts.waiting,
                State::Away | State::Failed => &mut counts.failed,
                State::Goodbye => &mut counts.goodbye,
            } += 1;
        }
        counts
    }

    fn come(&mut self) {
        self.go_through(|clients, index| {
            let source = (clients.first + index) as u32;
            let Ok(socket) = connect(clients.target, source) else {
                clients.states[index] = State::Failed;
                return false;
            };
            let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
            clients
                .set
                .add(&socket, EpollEvent::new(events, index as u64))
                .expect("an epoll set");
            clients.sockets[index] = Some(socket);
            clients.states[index] = State::Waiting;
            true
        });
    }

    fn leave(&mut self) {
        self.go_through(|clients, index| {
            let (Some(mut socket), State::Held) =
                (clients.sockets[index].as_ref(), clients.states[index])
            else {
                return false;
            };
            // An error will be met again when it reads.
            let _ = socket.write(b"QUIT\r\n");
            clients.states[index] = State::Leaving { goodbye: false };
            true
        });
    }

    /// Does `begin` with each client, and waits for what comes of it. `begin`
    /// tells whether something will.
    fn go_through(&mut self, begin: impl Fn(&mut Self, usize) -> bool) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let (mut begun, mut busy) = (0, 0);
        let mut last = Instant::now();
        while (begun < self.states.len() || busy > 0) && last.elapsed() < PATIENCE {
            while begun < self.states.len() && busy < BUSY_MAX {
                busy += usize::from(begin(self, begun));
                begun += 1;
                last = Instant::now();
            }
            let ready = match self.set.wait(&mut events, EpollTimeout::from(100u8)) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => panic!("epoll_wait: {error}"),
            };
            for event in &events[..ready] {
                let index = event.data() as usize;
                let before = self.states[index];
                self.proceed(index);
                let is_busy = |state| matches!(state, State::Waiting | State::Leaving { .. });
                if is_busy(before) && !is_busy(self.states[index]) {
                    busy -= 1;
                    last = Instant::now();
                }
            }
        }
    }

    /// Reads all there is.
    fn proceed(&mut self, index: usize) {
        let mut buffer = [0; 1024];
        while let Some(mut socket) = self.sockets[index].as_ref() {
            let state = &mut self.states[index];
            match socket.read(&mut buffer) {
                Ok(count) if count > 0 => match state {
                    State::Waiting => *state = State::Held,
                    State::Leaving { goodbye } => *goodbye |= buffer.starts_with(b"221"),
                    _ => {}
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    *state = match state {
                        State::Leaving { goodbye: true } => State::Goodbye,
                        State::Waiting | State::Away => State::Failed,
                        _ => State::HungUp,
                    };
                    self.sockets[index] = None;
                }
            }
        }
    }
}
