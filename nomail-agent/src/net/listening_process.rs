//! The process that listens on a TCP port, for the error of a bind that fails.

use std::net::SocketAddr;

use procfs::{
    net::{TcpState, tcp, tcp6},
    process::{FDTarget, all_processes},
};

/// Whether a process listens where a bind to `wanted` would fail. Needs no privilege.
pub fn has_listener(wanted: SocketAddr) -> bool {
    !listening_inodes(wanted).is_empty()
}

/// The process that listens where a bind to `wanted` fails, as "NAME (pid N)". None when it is
/// in another PID namespace or hidden from this process.
pub fn listening_process(wanted: SocketAddr) -> Option<String> {
    let listening = listening_inodes(wanted);
    all_processes().ok()?.filter_map(Result::ok).find_map(|process| {
        let listens = process.fd().ok()?.filter_map(Result::ok).any(
            |descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if listening.contains(&inode)),
        );
        let name = process.stat().ok()?.comm;
        listens.then(|| format!("{name} (pid {})", process.pid))
    })
}

/// The inodes of the sockets that listen where a bind to `wanted` fails.
fn listening_inodes(wanted: SocketAddr) -> Vec<u64> {
    tcp()
        .into_iter()
        .flatten()
        .chain(tcp6().into_iter().flatten())
        .filter(|socket| {
            let local = socket.local_address;
            socket.state == TcpState::Listen
                && local.port() == wanted.port()
                && (local.ip().to_canonical() == wanted.ip()
                    || local.ip().is_unspecified()
                    || wanted.ip().is_unspecified())
        })
        .map(|socket| socket.inode)
        .collect()
}

#[cfg(test)]
mod tests;
