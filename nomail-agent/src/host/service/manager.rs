//! Notifications to the service manager.

use std::{
    env,
    ffi::OsStr,
    fmt, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net as unix},
    },
    time::Duration,
};

use log::warn;
use sd_notify::NotifyState;

/// How often the service manager gets the figures, if they have changed.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Longest that one message waits for a service manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The variable that names the service manager's socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    /// Connected before privileges are dropped, which makes it impossible.
    socket: Option<unix::UnixDatagram>,
    /// The status that was sent last.
    sent: String,
    reload_failed: bool,
    /// A failure to send was logged, and is not logged again until it is over.
    failing: bool,
}

impl Manager {
    /// Connects to the service manager that the environment names. Logs a warning if that
    /// fails: the variable may be inherited from a service that is gone.
    pub fn connect() -> Self {
        let socket = env::var_os(NOTIFY_SOCKET).and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("cannot notify the service manager ({NOTIFY_SOCKET}={name:?}): {error}");
                None
            }
        });
        Self {
            socket,
            ..Self::default()
        }
    }

    /// Reports that everything is bound and attached.
    pub fn ready(&mut self, figures: &Figures) {
        self.sent = self.text(figures);
        let status = self.sent.clone();
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Reports that a reload begins. [`Self::reloaded`] is to follow.
    pub fn reloading(&mut self) {
        let status = NotifyState::Status("reloading the configuration");
        // Without the time a manager that needs it (systemd 253) takes the next READY for an
        // earlier one.
        let Ok(now) = NotifyState::monotonic_usec_now() else {
            return;
        };
        self.send(&[NotifyState::Reloading, now, status]);
    }

    /// Reports the end of a reload.
    pub fn reloaded(&mut self, succeeded: bool, figures: &Figures) {
        self.reload_failed = !succeeded;
        self.ready(figures);
    }

    /// Reports the figures, if they have changed.
    pub fn figures(&mut self, figures: &Figures) {
        let text = self.text(figures);
        if text != self.sent {
            self.send(&[NotifyState::Status(&text)]);
            self.sent = text;
        }
    }

    /// Notifies the watchdog, see [`Watchdog`](super::watchdog::Watchdog).
    pub fn alive(&mut self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Reports that the agent stops.
    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn text(&self, figures: &Figures) -> String {
        let failed = match self.reload_failed {
            true => "; the last reload failed, see the log",
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
                warn!("cannot notify the service manager: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Connects to a path, or to an abstract name after `@`.
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

/// The figures that `systemctl status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Guarded interfaces and their modes.
    pub interfaces: Vec<(String, String)>,
    /// Whether nothing is dropped.
    pub observe: bool,
    /// Whether there is a flood.
    pub flood: bool,
    /// SYNs received.
    pub syns: u64,
    /// SYNs over the limit of their source or prefix.
    pub limited: u64,
    /// Open connections.
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

#[cfg(test)]
mod tests;
