//! Captures the frames of an interface, also as a pcap file.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt,
            socket, sockopt,
        },
        time::TimeVal,
    },
};

use crate::lab::Namespace;

/// Longest frame that is captured whole.
const FRAME_MAX: usize = 2048;
/// Bytes of frames that may wait in the socket.
const BUFFER: usize = 8 << 20;
/// How often the end of a capture checks for more frames.
const LOOK_MICROS: i64 = 50_000;

/// A file with microseconds, in the byte order of this machine.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const PCAP_VERSION: [u16; 2] = [2, 4];
const PCAP_ETHERNET: u32 = 1;

/// A frame, and when it was there.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Since 1970.
    pub at: Duration,
    /// From the Ethernet header on.
    pub octets: Vec<u8>,
}

/// The addresses, flags and numbers of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub from: IpAddr,
    /// The port it comes from.
    pub port: u16,
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// RST.
    pub rst: bool,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgment number.
    pub acknowledgment: u32,
}

impl Captured {
    /// The TCP segment in a frame, if it has one.
    pub fn seen(&self) -> Option<Seen> {
        let headers = PacketHeaders::from_ethernet_slice(&self.octets).ok()?;
        let from = match headers.net? {
            NetHeaders::Ipv4(header, _) => IpAddr::from(header.source),
            NetHeaders::Ipv6(header, _) => IpAddr::from(header.source),
            NetHeaders::Arp(_) => return None,
        };
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            return None;
        };
        Some(Seen {
            from,
            port: tcp.source_port,
            syn: tcp.syn,
            ack: tcp.ack,
            rst: tcp.rst,
            sequence: tcp.sequence_number,
            acknowledgment: tcp.acknowledgment_number,
        })
    }
}

/// A capture that is running.
#[derive(Debug)]
pub struct Capture {
    over: Arc<AtomicBool>,
    taking: JoinHandle<Vec<Captured>>,
}

impl Capture {
    /// Starts to capture an interface of the namespace.
    ///
    /// # Panics
    /// Without root, or without the interface.
    pub fn start(namespace: &Namespace, interface: &str) -> Self {
        let (socket, index) = namespace.within(|| {
            let index = if_nametoindex(interface).expect("the interface is there");
            (open(), index)
        });
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let taking = thread::spawn(move || take(&socket, index as usize, &told));
        Self { over, taking }
    }

    /// Ends it and returns the frames.
    ///
    /// # Panics
    /// When the socket has failed.
    pub fn stop(self) -> Vec<Captured> {
        self.over.store(true, Ordering::Relaxed);
        self.taking.join().expect("frames can be received")
    }
}

fn open() -> OwnedFd {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .expect("root may open a packet socket");
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("root may have a large buffer");
    let look = TimeVal::new(0, LOOK_MICROS);
    setsockopt(&socket, sockopt::ReceiveTimeout, &look).expect("a socket has a timeout");
    socket
}

/// The socket receives from all interfaces of its namespace.
fn take(socket: &OwnedFd, index: usize, over: &AtomicBool) -> Vec<Captured> {
    let mut taken = Vec::new();
    let mut room = [0; FRAME_MAX];
    loop {
        // Before: what waits by then is taken.
        let is_last = over.load(Ordering::Relaxed);
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut room) {
            Ok((length, Some(address))) if address.ifindex() == index => taken.push(Captured {
                at: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
                octets: room[..length].to_vec(),
            }),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if is_last => return taken,
            Err(Errno::EAGAIN) => {}
            Err(error) => panic!("a packet socket: {error}"),
        }
    }
}

/// A file of frames, as tcpdump writes it.
pub fn pcap(frames: &[Captured]) -> Vec<u8> {
    let mut file = Vec::new();
    let [major, minor] = PCAP_VERSION.map(u16::to_ne_bytes);
    let version = u32::from_ne_bytes([major[0], major[1], minor[0], minor[1]]);
    let begin = [PCAP_MAGIC, version, 0, 0, FRAME_MAX as u32, PCAP_ETHERNET];
    file.extend(begin.iter().flat_map(|word| word.to_ne_bytes()));
    for frame in frames {
        let header = [
            frame.at.as_secs() as u32,
            frame.at.subsec_micros(),
            frame.octets.len() as u32,
            frame.octets.len() as u32,
        ];
        file.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        file.extend(&frame.octets);
    }
    file
}
