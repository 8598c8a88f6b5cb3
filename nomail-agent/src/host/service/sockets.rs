//! Listening sockets that the service manager has opened.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd as _, OwnedFd},
};

use nix::net::if_::if_indextoname;
use socket2::{Protocol, Socket, Type};
use thiserror::Error;

use crate::config::ListenAddress;

/// Why inherited sockets cannot be used.
#[derive(Debug, Error)]
pub enum InheritedError {
    /// The variables or descriptors do not match sd_listen_fds(3).
    #[error("the service manager hands over sockets (LISTEN_FDS), but: {0}")]
    Protocol(#[source] io::Error),
    /// A descriptor is no listening TCP socket.
    #[error(
        "the service manager hands over a descriptor ({0}) that is no listening TCP socket: \
         nomail-agent.socket may have ListenStream= with addresses and ports only"
    )]
    NotTcp(i32),
    /// A socket of IPv6 also accepts IPv4, which would be answered, but not guarded.
    #[error(
        "the service manager hands over a socket for {0} that takes IPv4 as well: set \
         BindIPv6Only=ipv6-only in nomail-agent.socket, and name IPv4 addresses by themselves"
    )]
    BothFamilies(SocketAddr),
    /// Two sockets have the same address.
    #[error("the service manager hands over two sockets for {0}: take one out")]
    Twice(SocketAddr),
    /// Connections to it would never be accepted.
    #[error(
        "the service manager hands over a socket for {0}, which `listen` does not name: connections \
         to it would wait for ever. Add it to `listen`, or take it out of nomail-agent.socket"
    )]
    NotWanted(SocketAddr),
}

/// Listening sockets that the service manager has opened and keeps open.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    sockets: BTreeMap<SocketAddr, TcpListener>,
    /// Their addresses, as the configuration writes them.
    listen: Vec<ListenAddress>,
}

impl InheritedSockets {
    /// Takes the sockets of this process. To be called once, before any descriptor is opened.
    pub fn receive() -> Result<Self, InheritedError> {
        let mut inherited = Self::default();
        for descriptor in sd_notify::listen_fds().map_err(InheritedError::Protocol)? {
            // SAFETY: the service manager opened it for this process, and only this function
            // takes it; it was open when it was made close-on-exec.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
            let address = listening_address(&socket).ok_or(InheritedError::NotTcp(descriptor))?;
            let mapped = address.ip().to_canonical() != address.ip();
            if mapped || takes_both_families(&socket, address) {
                return Err(InheritedError::BothFamilies(address));
            }
            if inherited.sockets.insert(address, socket.into()).is_some() {
                return Err(InheritedError::Twice(address));
            }
            inherited.listen.push(to_listen_address(address));
        }
        Ok(inherited)
    }

    /// Takes the socket for the address, if there is one that is not taken.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.sockets.remove(&address)
    }

    /// The addresses of all sockets, also of those that are taken.
    pub fn listen(&self) -> &[ListenAddress] {
        &self.listen
    }

    /// An error unless every socket that is not taken is `wanted`.
    pub fn check(&self, wanted: impl Fn(SocketAddr) -> bool) -> Result<(), InheritedError> {
        let mut addresses = self.sockets.keys();
        match addresses.find(|address| !wanted(**address)) {
            Some(address) => Err(InheritedError::NotWanted(*address)),
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

fn to_listen_address(address: SocketAddr) -> ListenAddress {
    let scope = match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => {
            // None if the interface is gone: then the socket is not wanted.
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
mod tests;
