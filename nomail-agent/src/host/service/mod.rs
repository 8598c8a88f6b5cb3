//! The service manager, systemd or one with the same protocols: notifications (sd_notify(3)) and
//! inherited sockets (sd_listen_fds(3)). A process started by hand has neither.

mod manager;
mod sockets;
mod watchdog;

pub use self::{
    manager::{Figures, Manager, STATUS_INTERVAL},
    sockets::{InheritedError, InheritedSockets},
    watchdog::Watchdog,
};
