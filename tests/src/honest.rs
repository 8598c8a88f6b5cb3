//! Honest clients: connections at a steady rate, of which each hears the greeting,
//! says QUIT and waits for the end.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

/// Connections to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Source addresses, used in turn.
    pub from: Vec<IpAddr>,
    /// The destination.
    pub to: SocketAddr,
    /// Connections.
    pub count: usize,
    /// Connections started a second, whatever their outcome.
    pub rate: u32,
    /// How long each may take.
    pub timeout: Duration,
}

/// Results of a [`Plan`].
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Connections that were begun.
    pub begun: usize,
    /// Those that were served to the end.
    pub served: usize,
    /// Those that were refused or reset.
    pub refused: usize,
    /// From connect to the greeting, in order.
    pub greeted: Vec<Duration>,
    /// From the first connect to the last.
    pub beginning: Duration,
}

struct Session {
    stream: TcpStream,
    begun: Instant,
    heard: Vec<u8>,
    greeted: Option<Duration>,
}

enum Step {
    Goes,
    Served,
    Refused,
}

impl Plan {
    /// Makes the connections.
    ///
    /// # Panics
    /// When there are not enough descriptors or addresses.
    pub fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut sessions: Vec<Session> = Vec::new();
        let start = Instant::now();
        loop {
            let due = (start.elapsed().as_secs_f64() * f64::from(self.rate)) as usize + 1;
            while outcome.begun < due.min(self.count) {
                let from = self.from[outcome.begun % self.from.len()];
                outcome.begun += 1;
                outcome.beginning = start.elapsed();
                match open(from, self.to) {
                    Some(session) => sessions.push(session),
                    None => outcome.refused += 1,
                }
            }
            if sessions.is_empty() && outcome.begun == self.count {
                break;
            }
            for at in ready(&sessions).into_iter().rev() {
                let step = sessions[at].go_on();
                if matches!(step, Step::Goes) {
                    continue;
                }
                let session = sessions.swap_remove(at);
                match step {
                    Step::Served => outcome.served += 1,
                    _ => outcome.refused += 1,
                }
                outcome.greeted.extend(session.greeted);
            }
            sessions.retain(|session| {
                let lives = session.begun.elapsed() < self.timeout;
                if !lives {
                    outcome.greeted.extend(session.greeted);
                }
                lives
            });
        }
        outcome.greeted.sort_unstable();
        outcome
    }
}

impl Outcome {
    /// Adds the results of another run.
    pub fn add(&mut self, other: &Self) {
        self.begun += other.begun;
        self.served += other.served;
        self.refused += other.refused;
        self.beginning += other.beginning;
        self.greeted.extend_from_slice(&other.greeted);
        self.greeted.sort_unstable();
    }

    /// The share that was served, and the interval in which the true one lies with
    /// 95 % (Wilson).
    pub fn share(&self) -> (f64, f64, f64) {
        const Z: f64 = 1.96;
        let n = self.begun.max(1) as f64;
        let share = self.served as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let centre = (share + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        (share, (centre - half).max(0.0), (centre + half).min(1.0))
    }

    /// The median time to the greeting.
    pub fn median(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// The time to the greeting that this share of the greeted clients did not exceed.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let at = (self.greeted.len() as f64 * share) as usize;
        let at = at.min(self.greeted.len().saturating_sub(1));
        self.greeted.get(at).copied()
    }

    /// Those that were not served.
    pub const fn failed(&self) -> usize {
        self.begun - self.served
    }

    /// Connections begun in a second.
    pub fn rate(&self) -> f64 {
        self.begun as f64 / self.beginning.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn open(from: IpAddr, to: SocketAddr) -> Option<Session> {
    let socket =
        Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a descriptor is free");
    socket
        .bind(&SocketAddr::new(from, 0).into())
        .expect("the address is the client's");
    socket
        .set_nonblocking(true)
        .expect("a socket can be non-blocking");
    let begun = Instant::now();
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => None,
        _ => Some(Session {
            stream: socket.into(),
            begun,
            heard: Vec::new(),
            greeted: None,
        }),
    }
}

/// Which sessions have something to read; waits for at most a millisecond.
fn ready(sessions: &[Session]) -> Vec<usize> {
    let mut waits: Vec<_> = sessions
        .iter()
        .map(|session| libc::pollfd {
            fd: session.stream.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the length are those of `waits`.
    unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, 1) };
    let ready = waits.iter().enumerate();
    ready
        .filter(|(_, wait)| wait.revents != 0)
        .map(|(at, _)| at)
        .collect()
}

impl Session {
    fn go_on(&mut self) -> Step {
        let mut room = [0; 512];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => {
                    let end = self.heard.windows(6).any(|six| six == b"\r\n221 ");
                    return if end { Step::Served } else { Step::Refused };
                }
                Ok(read) => self.heard.extend_from_slice(&room[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Goes,
                Err(_) => return Step::Refused,
            }
            if self.greeted.is_none() && self.heard.ends_with(b"\r\n") {
                self.greeted = Some(self.begun.elapsed());
                // A connection that just began takes six bytes.
                if self.stream.write_all(b"QUIT\r\n").is_err() {
                    return Step::Refused;
                }
            }
        }
    }
}
