//! The service manager, systemd or who speaks as it does: what it is told
//! (sd_notify(3)), and the listening sockets that it hands over
//! (sd_listen_fds(3)).
//!
//! Who was started by hand has none; then nobody is told anything.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fmt,
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net as unix},
    },
    time::Duration,
};

use log::warn;
use nix::net::if_::if_indextoname;
use sd_notify::NotifyState;
use socket2::{Protocol, Socket, Type};
use thiserror::Error;
use tokio::{
    sync::oneshot,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::config::ListenAddress;

/// How often the service manager is told the figures, if they have changed.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Longest that one message waits for a service manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The variable that names the service manager's socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    /// Connected before privileges are dropped: afterwards nothing can be.
    socket: Option<unix::UnixDatagram>,
    /// The figures that it was told last.
    told: String,
    reload_failed: bool,
    /// A failure to send was told, and will not be again until it is over.
    failing: bool,
}

impl Manager {
    /// The one that the environment names. One that cannot be reached is warned
    /// of: the variable may be inherited from a service that is gone.
    pub fn connect() -> Self {
        let socket = env::var_os(NOTIFY_SOCKET).and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("the service manager ({NOTIFY_SOCKET}={name:?}) cannot be told: {error}");
                None
            }
        });
        Self {
            socket,
            ..Self::default()
        }
    }

    /// All is bound and attached.
    pub fn ready(&mut self, figures: &Figures) {
        self.told = self.text(figures);
        let status = self.told.clone();
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// The configuration is read anew. [`Self::reloaded`] is to follow.
    pub fn reloading(&mut self) {
        let status = NotifyState::Status("reloading the configuration");
        // Without it a manager that asks for it (systemd 253) takes the next READY
        // for an earlier one.
        let Ok(now) = NotifyState::monotonic_usec_now() else {
            return;
        };
        self.send(&[NotifyState::Reloading, now, status]);
    }

    /// The reload is over.
    pub fn reloaded(&mut self, succeeded: bool, figures: &Figures) {
        self.reload_failed = !succeeded;
        self.ready(figures);
    }

    /// The figures, if they have changed.
    pub fn figures(&mut self, figures: &Figures) {
        let text = self.text(figures);
        if text != self.told {
            self.send(&[NotifyState::Status(&text)]);
            self.told = text;
        }
    }

    /// It serves; see [`Watchdog`].
    pub fn alive(&mut self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// It ends.
    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn text(&self, figures: &Figures) -> String {
        let failed = match self.reload_failed {
            true => "; the last reload failed, and the log tells why",
            false => "",
        };
        format!("{figures}{failed}")
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        match socket.send(lines.join("\n").as_bytes()) {
            Ok(_) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                warn!("the service manager cannot be told: {error}");
            }
            Err(_) => {}
        }
    }
}

/// A path, or an abstract name after `@`.
fn connect(name: &OsStr) -> io::Result<unix::UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => unix::SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => unix::SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is neither a path nor the name of an abstract socket",
            ));
        }
    };
    let socket = unix::UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

/// What `systemctl status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Guarded interfaces and their modes.
    pub interfaces: Vec<(String, String)>,
    /// Nothing is dropped.
    pub observe: bool,
    /// There is a flood.
    pub flood: bool,
    /// SYNs received.
    pub syns: u64,
    /// SYNs over the limit of their source or prefix.
    pub limited: u64,
    /// Connections that are open.
    pub connections: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.flood {
            out.write_str("flood of SYNs, ")?;
        }
        if self.interfaces.is_empty() {
            out.write_str("guarding no interface: ")?;
        } else {
            let mut lead = if self.observe {
                "observing"
            } else {
                "guarding"
            };
            for (name, mode) in &self.interfaces {
                write!(out, "{lead} {name} ({mode})")?;
                lead = ",";
            }
            write!(out, ": {} SYNs, {} limited, ", self.syns, self.limited)?;
        }
        write!(out, "{} connections", self.connections)
    }
}

/// When the service manager is to be told that all is well: at half of the time
/// after which it would end the agent, and once the thread that serves has given
/// a proof. So each message comes from two loops that turn.
#[derive(Debug)]
pub struct Watchdog {
    interval: Option<Interval>,
    /// Asked for, and not there yet: never more than one.
    proof: Option<oneshot::Receiver<bool>>,
}

impl Watchdog {
    /// The one that the service manager asks for, if it does.
    pub fn start() -> Self {
        let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
        Self::every(timeout.map(|timeout| timeout / 2))
    }

    /// One that asks so often, or never.
    pub fn every(period: Option<Duration>) -> Self {
        Self {
            interval: period.map(|period| {
                let mut interval = interval(period);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                interval
            }),
            proof: None,
        }
    }

    /// Resolves when the time has come and `prove`, asked then, has given a proof, and to
    /// what that says. May be dropped and called again at any time.
    pub async fn proven(&mut self, prove: impl Fn() -> oneshot::Receiver<bool>) -> bool {
        let Some(interval) = &mut self.interval else {
            return pending().await;
        };
        loop {
            let proof = match &mut self.proof {
                Some(proof) => proof,
                None => {
                    interval.tick().await;
                    self.proof.insert(prove())
                }
            };
            let proven = proof.await;
            self.proof = None;
            if let Ok(says) = proven {
                return says;
            }
        }
    }
}

/// Why sockets that were handed over cannot be used.
#[derive(Debug, Error)]
pub enum HandedError {
    /// The variables or descriptors are not as sd_listen_fds(3) has them.
    #[error("the service manager hands over sockets (LISTEN_FDS), but: {0}")]
    Protocol(#[source] io::Error),
    /// It is of another kind.
    #[error(
        "the service manager hands over a descriptor ({0}) that is no listening TCP socket: \
         nomail-agent.socket may have ListenStream= with addresses and ports only"
    )]
    NotTcp(i32),
    /// It takes IPv4, too, which would be answered, but not guarded.
    #[error(
        "the service manager hands over a socket for {0} that takes IPv4 as well: set \
         BindIPv6Only=ipv6-only in nomail-agent.socket, and name IPv4 addresses by themselves"
    )]
    BothFamilies(SocketAddr),
    /// There is a second one.
    #[error("the service manager hands over two sockets for {0}: take one out")]
    Twice(SocketAddr),
    /// Nobody would accept what comes to it.
    #[error(
        "the service manager hands over a socket for {0}, which `listen` does not name: connections \
         to it would wait for ever. Add it to `listen`, or take it out of nomail-agent.socket"
    )]
    NotWanted(SocketAddr),
}

/// Listening sockets that the service manager has opened and keeps open.
#[derive(Debug, Default)]
pub struct Handed {
    sockets: BTreeMap<SocketAddr, TcpListener>,
    /// Where they listen, in the words of the configuration.
    listen: Vec<ListenAddress>,
}

impl Handed {
    /// Takes what was handed over to this process. To be called once, and before
    /// anything is opened.
    pub fn receive() -> Result<Self, HandedError> {
        let mut handed = Self::default();
        for descriptor in sd_notify::listen_fds().map_err(HandedError::Protocol)? {
            // SAFETY: the service manager opened it for this process, which is asked
            // here alone; that it is open was seen when it was made close-on-exec.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
            let address = listening_address(&socket).ok_or(HandedError::NotTcp(descriptor))?;
            let mapped = address.ip().to_canonical() != address.ip();
            if mapped || takes_both_families(&socket, address) {
                return Err(HandedError::BothFamilies(address));
            }
            if handed.sockets.insert(address, socket.into()).is_some() {
                return Err(HandedError::Twice(address));
            }
            handed.listen.push(in_the_configuration(address));
        }
        Ok(handed)
    }

    /// The socket for the address, if there is one, and it is not taken yet.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.sockets.remove(&address)
    }

    /// Where they listen, also those that are taken.
    pub fn listen(&self) -> &[ListenAddress] {
        &self.listen
    }

    /// Whether all are `wanted`.
    pub fn check(&self, wanted: impl Fn(SocketAddr) -> bool) -> Result<(), HandedError> {
        let mut addresses = self.sockets.keys();
        match addresses.find(|address| !wanted(**address)) {
            Some(address) => Err(HandedError::NotWanted(*address)),
            None => Ok(()),
        }
    }
}

fn listening_address(socket: &Socket) -> Option<SocketAddr> {
    let is_tcp = socket.r#type().ok()? == Type::STREAM
        && socket.protocol().ok()? == Some(Protocol::TCP)
        && socket.is_listener().ok()?;
    is_tcp.then(|| socket.local_addr().ok()?.as_socket())?
}

fn in_the_configuration(address: SocketAddr) -> ListenAddress {
    let scope = match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => {
            // Without a name, because the interface is gone, the socket is not wanted.
            let name = if_indextoname(address.scope_id()).ok();
            name.and_then(|name| name.into_string().ok())
        }
        _ => None,
    };
    ListenAddress {
        address: address.ip(),
        scope,
        port: address.port(),
    }
}

fn takes_both_families(socket: &Socket, address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified() && !socket.only_v6().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        net::Ipv4Addr,
        time::{Duration, Instant},
    };

    use rstest::rstest;
    use socket2::Domain;

    use super::*;

    fn figures() -> Figures {
        Figures {
            interfaces: vec![("eth0".to_owned(), "native".to_owned())],
            syns: 1234,
            limited: 12,
            connections: 3,
            ..Figures::default()
        }
    }

    #[test]
    fn figures_are_told_in_a_line() {
        let told = figures().to_string();
        assert_eq!(
            told,
            "guarding eth0 (native): 1234 SYNs, 12 limited, 3 connections"
        );
        let mut two = figures();
        two.interfaces.push(("eth1".to_owned(), "off".to_owned()));
        (two.observe, two.flood) = (true, true);
        assert!(
            two.to_string()
                .starts_with("flood of SYNs, observing eth0 (native), eth1 (off): 1234 SYNs")
        );
        let alone = Figures {
            connections: 3,
            ..Figures::default()
        };
        assert_eq!(alone.to_string(), "guarding no interface: 3 connections");
    }

    fn manager_and_what_it_hears() -> (Manager, unix::UnixDatagram) {
        let (socket, heard) = unix::UnixDatagram::pair().unwrap();
        heard.set_nonblocking(true).unwrap();
        let manager = Manager {
            socket: Some(socket),
            ..Manager::default()
        };
        (manager, heard)
    }

    fn hear(heard: &unix::UnixDatagram) -> Option<String> {
        let mut buffer = [0; 512];
        let count = heard.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
    }

    #[test]
    fn the_same_figures_are_told_once_and_a_failed_reload_until_one_succeeds() {
        let (mut manager, heard) = manager_and_what_it_hears();
        manager.ready(&figures());
        let status = format!("STATUS={}", figures());
        assert_eq!(hear(&heard), Some(format!("READY=1\n{status}")));
        manager.figures(&figures());
        assert_eq!(hear(&heard), None);
        manager.reloading();
        let reloading = hear(&heard).unwrap();
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        manager.reloaded(false, &figures());
        let failed = hear(&heard).unwrap();
        assert!(failed.starts_with("READY=1\n") && failed.contains("the last reload failed"));
        manager.figures(&Figures {
            syns: 1235,
            ..figures()
        });
        assert!(hear(&heard).unwrap().contains("the last reload failed"));
        manager.reloaded(true, &figures());
        assert_eq!(hear(&heard), Some(format!("READY=1\n{status}")));
    }

    #[test]
    fn a_manager_that_does_not_read_delays_nothing_for_long() {
        let (mut manager, heard) = manager_and_what_it_hears();
        let timeout = Some(Duration::from_millis(10));
        let socket = manager.socket.as_ref().unwrap();
        socket.set_write_timeout(timeout).unwrap();
        let start = Instant::now();
        while !manager.failing {
            manager.alive();
            assert!(start.elapsed() < SEND_TIMEOUT * 5);
        }
        assert_eq!(hear(&heard), Some("WATCHDOG=1".to_owned()));
        manager.alive();
        assert!(!manager.failing);
        drop(heard);
        manager.alive();
        assert!(manager.failing);
    }

    #[rstest]
    #[case("vsock:2:1234")]
    #[case("relative")]
    #[case("")]
    #[case("/nonexistent/notify")]
    #[case("@nomail-nobody-has-this-name")]
    fn what_cannot_be_reached_is_an_error(#[case] name: &str) {
        assert!(connect(OsStr::new(name)).is_err());
    }

    #[test]
    fn abstract_names_are_connected_to() {
        let name = format!("nomail-test-{}", std::process::id());
        let address = unix::SocketAddr::from_abstract_name(&name).unwrap();
        let heard = unix::UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        socket.send(b"READY=1").unwrap();
        assert_eq!(heard.recv(&mut [0; 16]).unwrap(), 7);
    }

    fn watchdog() -> Watchdog {
        let mut interval = interval(Duration::from_secs(10));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Watchdog {
            interval: Some(interval),
            proof: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_proven_without_a_proof_and_it_is_asked_for_once() {
        let mut watchdog = watchdog();
        let asked = Cell::new(None);
        let prove = || {
            let (proof, proven) = oneshot::channel();
            assert!(asked.replace(Some(proof)).is_none(), "asked twice");
            proven
        };
        for _ in 0..20 {
            let minute = Duration::from_secs(60);
            let proven = tokio::time::timeout(minute, watchdog.proven(prove)).await;
            assert!(proven.is_err());
        }
        asked.take().unwrap().send(false).unwrap();
        assert!(!watchdog.proven(prove).await);
        // A thread that is gone proves nothing; the next one may.
        let later = tokio::time::timeout(Duration::from_secs(5), watchdog.proven(prove));
        assert!(later.await.is_err());
        drop(asked.take());
        let start = tokio::time::Instant::now();
        watchdog
            .proven(|| {
                let (proof, proven) = oneshot::channel();
                proof.send(true).unwrap();
                proven
            })
            .await;
        assert!(start.elapsed() <= Duration::from_secs(10));
    }

    #[test]
    fn only_a_listening_tcp_socket_has_an_address() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let clone = || Socket::from(listener.try_clone().unwrap());
        assert_eq!(listening_address(&clone()), Some(address));
        assert!(!takes_both_families(&clone(), address));
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        assert_eq!(listening_address(&bound), None);
        let datagram = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert_eq!(listening_address(&datagram), None);
        let local = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        assert_eq!(listening_address(&local), None);
    }

    #[rstest]
    #[case(true)]
    #[case(false)]
    fn a_wildcard_for_both_families_is_seen(#[case] only_v6: bool) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(only_v6).unwrap();
        let wildcard: SocketAddr = "[::]:0".parse().unwrap();
        socket.bind(&wildcard.into()).unwrap();
        socket.listen(1).unwrap();
        let address = listening_address(&socket).unwrap();
        assert_eq!(takes_both_families(&socket, address), !only_v6);
    }

    #[test]
    fn sockets_are_known_by_their_address_and_all_must_be_wanted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut handed = Handed {
            sockets: [(address, listener)].into(),
            listen: vec![in_the_configuration(address)],
        };
        let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        handed.check(|wanted| wanted == address).unwrap();
        let error = handed.check(|wanted| wanted == other).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(handed.take(other).is_none());
        let taken = handed.take(address).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(handed.take(address).is_none());
        assert_eq!(handed.listen()[0].to_string(), address.to_string());
    }

    #[test]
    fn the_scope_of_an_address_has_a_name() {
        let address: SocketAddr = "[fe80::1%1]:25".parse().unwrap();
        let shown = in_the_configuration(address).to_string();
        assert_eq!(shown, "[fe80::1%lo]:25");
    }
}
