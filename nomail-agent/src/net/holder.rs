//! Who holds a TCP port, for the error of who wanted it.

use std::net::SocketAddr;

use procfs::{
    net::{TcpState, tcp, tcp6},
    process::{FDTarget, all_processes},
};

/// Whether anybody listens where a bind to `wanted` would fail. Anybody may ask.
pub fn is_held(wanted: SocketAddr) -> bool {
    !listening(wanted).is_empty()
}

/// The process that listens where a bind to `wanted` fails, as "NAME (pid N)".
/// Nothing when it is in another PID namespace or may not be seen.
pub fn holder_of(wanted: SocketAddr) -> Option<String> {
    let listening = listening(wanted);
    all_processes().ok()?.filter_map(Result::ok).find_map(|process| {
        let holds = process.fd().ok()?.filter_map(Result::ok).any(
            |descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if listening.contains(&inode)),
        );
        let name = process.stat().ok()?.comm;
        holds.then(|| format!("{name} (pid {})", process.pid))
    })
}

/// The inodes of the sockets that listen there.
fn listening(wanted: SocketAddr) -> Vec<u64> {
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
mod tests {
    use super::*;

    #[test]
    fn names_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap()).unwrap();
        assert!(
            holder.ends_with(&format!("(pid {})", std::process::id())),
            "{holder}"
        );
        let address = listener.local_addr().unwrap();
        assert!(is_held(address));
        drop(listener);
        assert!(!is_held(address));
        assert_eq!(holder_of(address), None);
    }
}
