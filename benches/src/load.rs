//! Load for an SMTP server that refuses: one thread of clients that connect, read
//! the greeting, say QUIT, and read to the end.
//!
//! A client closes last, after it has read the end, so that TIME_WAIT is where
//! the server is. Its addresses are many, see [`many_sources`].

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{setsockopt, sockopt::IpBindAddressNoPort},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use nomail_tests::{
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, Lab, succeeded},
    processes::{End, waited},
};
use socket2::{Domain, Protocol, Socket, Type};

/// The addresses that the clients come from, one after the other. Not more than
/// the guard's table has places for, and many enough for a limit by source.
pub const SOURCES: u32 = 4096;
/// The first of them; the network is for benchmarks (RFC 2544).
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const NETWORK: &str = "198.18.0.0/15";

/// An exchange that takes longer has failed.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// Time to end for those that are open when all is measured.
const FINISH: Duration = Duration::from_secs(1);
/// Exchanges at once, when they begin by the clock: more have failed.
const PACED_MAX: usize = 4096;
const EVENTS: usize = 256;
/// In place of a slot's number.
const TIMER: u64 = u64::MAX;

/// Has each end of a lab receive on its own processor, as two machines would.
/// Otherwise a packet over veth is received on the processor that has sent it,
/// and most of what a connection costs the host is done by the client.
///
/// # Panics
/// On a machine without two processors, or a kernel without RPS.
pub fn apart(lab: &Lab) {
    for (namespace, interface, end) in [
        (&lab.host, HOST_INTERFACE, End::Host),
        (&lab.client, CLIENT_INTERFACE, End::Client),
    ] {
        let queue = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
        let processor = end.processor();
        // In words of 32 bits, the highest first.
        let others = ",0".repeat(processor / 32);
        let command = format!("echo {:x}{others} > {queue}", 1 << (processor % 32));
        let output = namespace.command("sh").args(["-c", &command]).output();
        succeeded(&command, &output.expect("ip runs"));
    }
}

/// Gives the client of a lab all addresses of 198.18.0.0/15, and as many ports
/// to each of them as there are.
///
/// # Panics
/// Without root.
pub fn many_sources(lab: &Lab) {
    lab.client
        .ip(&format!("route add local {NETWORK} dev {CLIENT_INTERFACE}"));
    lab.host.ip(&format!(
        "route add {NETWORK} via 192.0.2.100 dev {HOST_INTERFACE}"
    ));
    lab.client.within(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
            .expect("a port range");
    });
}

/// How exchanges begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// So many clients, each of which comes again as soon as it is through.
    Clients(usize),
    /// So many in each second, whatever becomes of those before them. The time
    /// that one takes counts from when it was due.
    PerSecond(u32),
}

/// Results of a load.
#[derive(Debug, Default)]
pub struct Measured {
    /// How long it was measured.
    pub window: Duration,
    /// Microseconds from before connect to the end, of each exchange that ended
    /// in that time.
    pub whole_micros: Vec<u32>,
    /// Microseconds from before connect to the greeting, of the same.
    pub greeting_micros: Vec<u32>,
    /// Those of them that got 221.
    pub goodbyes: u64,
    /// Exchanges that ended well, before and after that time too.
    pub all: u64,
    /// How much of the time the clients' thread could not run for others.
    pub waited: Duration,
    /// Codes of the greetings.
    pub codes: BTreeMap<u16, u64>,
    /// Exchanges that came to no good end.
    pub failed: u64,
    /// What became of the first of those.
    pub first_failure: Option<String>,
}

impl Measured {
    /// Exchanges per second.
    pub fn per_second(&self) -> f64 {
        self.whole_micros.len() as f64 / self.window.as_secs_f64()
    }

    fn fail(&mut self, why: &dyn ToString) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| why.to_string());
    }
}

/// Puts a load on a server, from the namespace of the calling thread, which has
/// the clients' processor for it, also afterwards.
///
/// What ends during `warm_up` does not count.
///
/// # Panics
/// When the machine lacks something for it.
pub fn exchange(target: SocketAddrV4, load: Load, warm_up: Duration, window: Duration) -> Measured {
    End::Client.stay();
    let mut clients = Clients::new(target);
    let waited_before = waited();
    let begun = Instant::now();
    let measured_from = begun + warm_up;
    let end = measured_from + window;
    let pace = match load {
        Load::Clients(count) => {
            for _ in 0..count {
                clients.begin(Instant::now());
            }
            None
        }
        Load::PerSecond(rate) => Some(Pace::start(&clients.set, begun, rate)),
    };
    clients.again = pace.is_none();
    let mut started = 0;
    let mut looked = begun;
    loop {
        let ready = clients.wait();
        let now = Instant::now();
        if now >= end {
            break;
        }
        for event in 0..ready {
            clients.handle(event, measured_from);
        }
        if let Some(pace) = &pace {
            pace.go_on();
            while pace.due(started) <= now {
                if clients.open.len() - clients.free.len() < PACED_MAX {
                    clients.begin(pace.due(started));
                } else {
                    clients.measured.fail(&"too many exchanges at once");
                }
                started += 1;
            }
        }
        if now - looked > EXCHANGE_DEADLINE / 10 {
            looked = now;
            clients.give_up(now);
        }
    }
    clients.measured.window = window;
    clients.measured.waited = waited() - waited_before;
    clients.finish();
    clients.measured
}

/// A clock for exchanges, in the set of their sockets.
struct Pace {
    timer: TimerFd,
    begun: Instant,
    interval: Duration,
}

impl Pace {
    fn start(set: &Epoll, begun: Instant, per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).expect("a timer");
        let every = Expiration::Interval(TimeSpec::from_duration(interval));
        timer
            .set(every, TimerSetTimeFlags::empty())
            .expect("a timer");
        set.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))
            .expect("an epoll set");
        Self {
            timer,
            begun,
            interval,
        }
    }

    /// Readies the timer for its next time. An error is that it has not expired,
    /// and waits for that already.
    fn go_on(&self) {
        let _ = self.timer.wait();
    }

    fn due(&self, number: u32) -> Instant {
        self.begun + self.interval * number
    }
}

/// One client.
struct Exchange {
    socket: Socket,
    due: Instant,
    greeted: Option<Instant>,
    code: Option<u16>,
    goodbye: bool,
}

struct Clients {
    target: SocketAddrV4,
    source: u32,
    set: Epoll,
    events: [EpollEvent; EVENTS],
    open: Vec<Option<Exchange>>,
    free: Vec<usize>,
    /// One that is through is followed by another.
    again: bool,
    measured: Measured,
}

/// What an event has come to.
enum Progress {
    Open,
    Ended,
    Failed(io::Error),
}

impl Clients {
    fn new(target: SocketAddrV4) -> Self {
        Self {
            target,
            source: 0,
            set: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set"),
            events: [EpollEvent::empty(); EVENTS],
            open: Vec::new(),
            free: Vec::new(),
            again: false,
            measured: Measured::default(),
        }
    }

    fn wait(&mut self) -> usize {
        match self.set.wait(&mut self.events, EpollTimeout::from(50u8)) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => panic!("epoll_wait: {error}"),
        }
    }

    fn begin(&mut self, due: Instant) {
        self.source = (self.source + 1) % SOURCES;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        match connect(self.target, self.source) {
            Ok(socket) => {
                let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
                self.set
                    .add(&socket, EpollEvent::new(events, slot as u64))
                    .expect("an epoll set");
                self.open[slot] = Some(Exchange {
                    socket,
                    due,
                    greeted: None,
                    code: None,
                    goodbye: false,
                });
            }
            Err(error) => {
                self.free.push(slot);
                self.measured.fail(&error);
            }
        }
    }

    fn handle(&mut self, event: usize, measured_from: Instant) {
        let event = self.events[event];
        let slot = event.data() as usize;
        let Some(Some(exchange)) = self.open.get_mut(slot) else {
            // The timer.
            return;
        };
        let hung_up = event
            .events()
            .intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let progress = exchange.proceed(hung_up);
        if matches!(progress, Progress::Open) {
            return;
        }
        let now = Instant::now();
        let Some(exchange) = self.open[slot].take() else {
            return;
        };
        self.free.push(slot);
        self.count(&progress, &exchange, now, measured_from);
        drop(exchange);
        if self.again {
            self.begin(Instant::now());
        }
    }

    fn count(
        &mut self,
        progress: &Progress,
        exchange: &Exchange,
        now: Instant,
        measured_from: Instant,
    ) {
        let measured = &mut self.measured;
        let greeted = match (progress, exchange.greeted) {
            (Progress::Failed(error), _) => return measured.fail(error),
            (_, None) => return measured.fail(&"closed without a greeting"),
            (_, Some(greeted)) => greeted,
        };
        measured.all += 1;
        if now < measured_from {
            return;
        }
        let micros = |moment: Instant| (moment - exchange.due).as_micros() as u32;
        measured.whole_micros.push(micros(now));
        measured.greeting_micros.push(micros(greeted));
        measured.goodbyes += u64::from(exchange.goodbye);
        *measured
            .codes
            .entry(exchange.code.unwrap_or(0))
            .or_default() += 1;
    }

    /// Ends what takes too long.
    fn give_up(&mut self, now: Instant) {
        for slot in 0..self.open.len() {
            let late = |exchange: &Exchange| now > exchange.due + EXCHANGE_DEADLINE;
            if self.open[slot].as_ref().is_some_and(late) {
                self.open[slot] = None;
                self.free.push(slot);
                self.measured
                    .fail(&format!("no end within {EXCHANGE_DEADLINE:?}"));
                if self.again {
                    self.begin(now);
                }
            }
        }
    }

    /// Lets those that are open come to their end, which no longer counts; except
    /// that one without an end has failed.
    fn finish(&mut self) {
        self.again = false;
        let end = Instant::now() + FINISH;
        while self.open.len() > self.free.len() && Instant::now() < end {
            for event in 0..self.wait() {
                self.handle(event, end + FINISH);
            }
        }
        for _ in self.open.drain(..).flatten() {
            self.measured
                .fail(&format!("no end within {FINISH:?} after the others"));
        }
    }
}

impl Exchange {
    /// Reads, and says QUIT once it is greeted.
    fn proceed(&mut self, hung_up: bool) -> Progress {
        let mut buffer = [0; 1024];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return Progress::Ended,
                Ok(count) => {
                    self.take(&buffer[..count]);
                    // Less than there was room for: nothing is left, unless
                    // the server has already said that it is through.
                    if !hung_up && count < buffer.len() {
                        return Progress::Open;
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Progress::Open,
                    // The QUIT met a server that had closed after its greeting.
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                        if self.greeted.is_some() =>
                    {
                        return Progress::Ended;
                    }
                    _ => return Progress::Failed(error),
                },
            }
        }
    }

    fn take(&mut self, octets: &[u8]) {
        let code = octets
            .get(..3)
            .and_then(|code| str::from_utf8(code).ok())
            .and_then(|code| code.parse().ok());
        if self.greeted.is_some() {
            self.goodbye |= code == Some(221);
            return;
        }
        self.code = self.code.or(code);
        if octets.ends_with(b"\n") {
            self.greeted = Some(Instant::now());
            // An error is that of a server which has closed already.
            let _ = (&self.socket).write(b"QUIT\r\n");
        }
    }
}

/// A socket on its way to the server, from an address of its own.
pub(crate) fn connect(target: SocketAddrV4, source: u32) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::TCP))?;
    // Else a port is taken for all targets, by a search through all ports.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    let source = Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + 1 + source % SOURCES);
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}
