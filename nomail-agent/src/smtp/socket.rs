//! Listening sockets.

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, os::fd::AsRawFd as _, time::Duration};

use mio::net::{TcpListener, TcpStream};
use nix::{
    getsockopt_impl, sockopt_impl,
    sys::socket::{getsockopt, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

/// The default backlog of a listening socket.
pub const LISTEN_BACKLOG: u32 = 4096;

/// How long the kernel retries what a peer does not acknowledge, also after the connection
/// was closed (TCP_USER_TIMEOUT, tcp(7)).
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// Bytes of each of the kernel's buffers of a connection, as setsockopt(2) takes them: the
/// kernel doubles them for its own bookkeeping. They bound what a client that floods or
/// never reads can fill.
const SOCKET_BUFFER: usize = 8 * 1024;

/// Binds a non-blocking listening socket.
///
/// An IPv6 socket accepts IPv6 only. The scope of a link-local `address` counts.
/// With `freebind` the address need not exist yet.
pub fn bind(
    address: SocketAddr,
    backlog: u32,
    freebind: bool,
) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(freebind)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(freebind)?;
        }
    }
    socket.bind(&address.into())?;
    prepare(socket, backlog)
}

/// Makes a socket that another process has bound what [`bind`] returns.
pub fn adopt(listener: std::net::TcpListener, backlog: u32) -> io::Result<std::net::TcpListener> {
    listener.set_nonblocking(true)?;
    prepare(listener.into(), backlog)
}

fn prepare(socket: Socket, backlog: u32) -> io::Result<std::net::TcpListener> {
    // Inherited by the accepted sockets. Replies to pipelined commands are
    // small writes, which must not wait for each other's acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// The beginning of the kernel's `struct tcp_info` (tcp(7)). The structure grows from one
/// kernel to the next, and nix requires as many bytes as it asks for: every kernel has these.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueueInfo {
    _states: [u8; 8],
    _times_and_sizes: [u32; 4],
    /// Of a listening socket, the length of its queue (`tcp_get_info` of Linux).
    unacked: u32,
    /// Of a listening socket, its backlog.
    sacked: u32,
}

sockopt_impl!(
    /// The queue of a listening socket.
    TcpQueue,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    QueueInfo
);

/// Whether the kernel drops further connections to the socket.
pub(super) fn queue_is_full(listener: &TcpListener) -> bool {
    // The queue may be longer than the backlog by one (`sk_acceptq_is_full`).
    getsockopt(listener, TcpQueue).is_ok_and(|info| info.unacked > info.sacked)
}

/// The control message in which the kernel tells over which interface a connection arrived, with
/// room for the longer one, of IPv6.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct PacketInfo([u8; 40]);

impl PacketInfo {
    /// The interface's number: the first word of IPv4's structure, the last of IPv6's.
    fn interface(&self, length: usize) -> Option<u32> {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let at = match length.checked_sub(HEADER)? {
            16 => HEADER,
            24 => HEADER + size_of::<libc::in6_addr>(),
            _ => return None,
        };
        let bytes = self.0.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes)).filter(|&index| index != 0)
    }
}

/// The number of the interface over which the last packet of the handshake arrived
/// (`tcp_v4_syn_recv_sock`, `tcp_v6_syn_recv_sock` of Linux).
pub(super) fn arrived_over(stream: &TcpStream) -> Option<u32> {
    /// linux/in6.h.
    const IPV6_2292PKTOPTIONS: libc::c_int = 6;
    // The kernel tells it only while the option is set. For IPv6 the option costs a copy of
    // each packet's description, so it is not left on.
    let v6 = stream.local_addr().ok()?.is_ipv6();
    let (level, option) = if v6 {
        setsockopt(stream, sockopt::Ipv6RecvPacketInfo, &true).ok()?;
        (libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS)
    } else {
        setsockopt(stream, sockopt::Ipv4PacketInfo, &true).ok()?;
        (libc::IPPROTO_IP, libc::IP_PKTOPTIONS)
    };
    let mut info = PacketInfo([0; 40]);
    let mut length = size_of::<PacketInfo>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, and any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            level,
            option,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if v6 {
        let _ = setsockopt(stream, sockopt::Ipv6RecvPacketInfo, &false);
    }
    if result == 0 {
        info.interface(length as usize)
    } else {
        None
    }
}

/// Whether an error of accept concerns only the connection that was to be
/// accepted: accept(2) passes on what happened to it in the queue. Any other
/// error, such as too many files or no memory, would fail the next accept as well.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ETIMEDOUT
        )
    )
}
