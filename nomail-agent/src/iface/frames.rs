//! Frames that the agent sends itself.

use std::{io, mem};

use socket2::{Domain, SockAddr, Socket, Type};

/// A packet socket that receives nothing. It is bound to no interface, so that only what
/// names one is sent.
#[derive(Debug)]
pub struct FrameSocket(Socket);

impl FrameSocket {
    /// Opens it, which needs CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a frame, from its hardware addresses on, by the interface of that index.
    pub fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: interface as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the storage is larger than a sockaddr_ll and aligned for every kind of
        // address, and the length that is set is that of what is written.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                storage.cast::<libc::sockaddr_ll>().write(address);
                length.write(mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t);
                Ok(())
            })
        }?;
        self.0.send_to(frame, &address).map(drop)
    }
}
