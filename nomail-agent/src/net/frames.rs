//! The socket on which the agent sends frames of its own.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

/// A packet socket that receives nothing. It is not bound: each frame names its interface.
/// Because a packet socket can be bound to all traffic at any time, its filter, which drops
/// every frame, is locked: an attacker who controls the agent cannot read with it.
#[derive(Debug)]
pub struct FrameSocket(Socket);

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl FrameSocket {
    /// Opens the socket, which needs CAP_NET_RAW.
    ///
    /// # Errors
    /// Those of socket(2), packet(7), and of the options of socket(7).
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let drop = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        if nomail_common::Mechanism::FrameFilter.is_on() {
            socket.attach_filter(&[drop])?;
        }
        if nomail_common::Mechanism::FrameFilterLock.is_on() {
            lock_filter(&socket)?;
        }
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a frame, from its Ethernet header on, on the interface with this index.
    ///
    /// # Errors
    /// Those of sendto(2).
    pub fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        self.0
            .send_to(frame, &link_address(interface, 0)?)
            .map(drop)
    }
}

/// The address of packet(7) for frames of a protocol, in host byte order, on the interface with
/// this index; 0 means all interfaces.
///
/// # Errors
/// None of its own: socket2 returns a result.
pub fn link_address(interface: u32, protocol: u16) -> io::Result<SockAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage is larger than a sockaddr_ll and aligned for every kind of address,
    // and the length that is set is that of the address written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            length.write(mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t);
            Ok(())
        })
    }?;
    Ok(address)
}

/// Locks the filter of a socket for the socket's lifetime (socket(7), `SO_LOCK_FILTER`).
fn lock_filter(socket: &Socket) -> io::Result<()> {
    let lock: libc::c_int = 1;
    let length = mem::size_of_val(&lock) as libc::socklen_t;
    // SAFETY: the option takes an int, which is read during the call only.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LOCK_FILTER,
            (&raw const lock).cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
