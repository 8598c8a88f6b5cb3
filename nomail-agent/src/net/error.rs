//! Errors of asking the kernel about its network.

use std::io;

use thiserror::Error;

/// An error of asking the kernel about its network.
#[derive(Debug, Error)]
pub enum IfaceError {
    /// A netlink socket cannot be opened.
    #[error("no netlink socket can be opened")]
    Socket(#[from] io::Error),
    /// The kernel answered with an error.
    #[error("cannot read the network configuration from the kernel")]
    Netlink(#[from] rtnetlink::Error),
    /// There is no such interface.
    #[error(
        "there is no interface {name}: `ip link` lists the interfaces; these are here: {known}"
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// The interfaces that exist.
        known: String,
    },
    /// There is no default route.
    #[error("there is no default route to take an interface from: name one with --iface")]
    NoDefaultRoute,
}
