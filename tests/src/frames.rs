//! Frames that reach the XDP program.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use etherparse::{PacketBuilder, TcpHeader};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// A TCP segment as etherparse builds it, to be changed byte by byte.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Address and port it claims to come from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// The flags byte.
    pub flags: u8,
    /// The sequence number.
    pub sequence: u32,
    /// VLAN tags around it, at most two.
    pub vlan_tags: usize,
}

/// The FIN flag.
pub const FIN: u8 = 0x01;
/// The SYN flag.
pub const SYN: u8 = 0x02;
/// The RST flag.
pub const RST: u8 = 0x04;
/// The PSH flag.
pub const PSH: u8 = 0x08;
/// The ACK flag.
pub const ACK: u8 = 0x10;
/// Length of an Ethernet header without tags.
pub const ETHERNET_LENGTH: usize = 14;

impl Segment {
    /// A SYN without tags.
    pub fn syn(source: &str, destination: &str) -> Self {
        Self {
            source: parse(source),
            destination: parse(destination),
            flags: SYN,
            sequence: 0x1234_5678,
            vlan_tags: 0,
        }
    }

    /// The frame, from the lab's client to its host.
    pub fn frame(&self) -> Vec<u8> {
        self.frame_with(0, &[], &[])
    }

    /// The same with an acknowledgment number, TCP options and a payload.
    pub fn frame_with(&self, acknowledgment: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let builder = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), 64)
            }
            _ => panic!("{source} and {destination} are of different families"),
        };
        let (source_port, destination_port) = (self.source.port(), self.destination.port());
        let mut tcp = TcpHeader::new(source_port, destination_port, self.sequence, 64_000);
        tcp.acknowledgment_number = acknowledgment;
        let flag = |flag: u8| self.flags & flag != 0;
        [tcp.fin, tcp.syn, tcp.rst, tcp.psh] = [FIN, SYN, RST, PSH].map(flag);
        [tcp.ack, tcp.urg, tcp.ece, tcp.cwr] = [ACK, 0x20, 0x40, 0x80].map(flag);
        tcp.set_options_raw(options).expect("room for the options");
        let mut frame = Vec::new();
        builder
            .tcp_header(tcp)
            .write(&mut frame, payload)
            .expect("a Vec takes every frame");
        for tag in 0..self.vlan_tags {
            let tag = tag as u8;
            frame.splice(12..12, [0x81, 0x00, 0x00, 100 + tag]);
        }
        frame
    }
}

fn parse(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}

/// Sends raw frames out of an interface of the namespace that it was opened in.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl FrameSender {
    /// Opens it on `interface`.
    ///
    /// # Panics
    /// Without the interface, or without root.
    pub fn open(interface: &str) -> Self {
        Self::try_open(interface).expect("the interface is there, and root may send on it")
    }

    /// The same on an interface that may be gone.
    ///
    /// # Errors
    /// Without the interface, or without root.
    pub fn try_open(interface: &str) -> nix::Result<Self> {
        let index = if_nametoindex(interface)?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        Ok(Self { socket, address })
    }

    /// Sends a frame; all of it is on the wire when this returns.
    ///
    /// # Panics
    /// When the interface does not take it.
    pub fn send(&self, frame: &[u8]) {
        let sent = self.try_send(frame);
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// Sends a frame to an interface that may be gone.
    ///
    /// # Errors
    /// When the interface does not take it.
    pub fn try_send(&self, frame: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: pointers and lengths are those of `frame` and `address`,
            // which outlive the call.
            let sent = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const self.address).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            if sent == frame.len() as isize {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            // The queue of the interface is full for a moment.
            if error.raw_os_error() != Some(libc::ENOBUFS) {
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
}
