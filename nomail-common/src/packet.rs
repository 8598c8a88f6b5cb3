//! From a frame to a SYN for one of our ports, or to nothing.
//!
//! Nothing means: pass. A packet in doubt passes too; what is dropped as
//! malformed is only what the stack would drop as well, and fragments.

use crate::{abi::MAX_PORTS, frame::Frame, source::Source};

/// VLAN tags that are looked through.
pub const MAX_VLAN_TAGS: usize = 2;
/// IPv6 extension headers that are looked through. A longer chain passes
/// uncounted.
pub const MAX_EXTENSION_HEADERS: usize = 6;

const ETHERNET_LENGTH: usize = 14;
const VLAN_TAG_LENGTH: usize = 4;
const IPV6_LENGTH: usize = 40;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_AUTHENTICATION: u8 = 51;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
const TCP_LENGTH_MIN: usize = 20;

/// An address in host byte order, IPv4 as IPv4-mapped IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The upper 64 bits.
    pub high: u64,
    /// The lower 64 bits.
    pub low: u64,
}

impl Address {
    /// From an IPv4 address in host byte order.
    #[inline(always)]
    pub const fn from_ipv4(address: u32) -> Self {
        Self {
            high: 0,
            low: 0xffff_0000_0000 | address as u64,
        }
    }

    #[inline(always)]
    const fn is_ipv4(self) -> bool {
        self.high == 0 && self.low >> 32 == 0xffff
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        let bits = match address {
            core::net::IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            core::net::IpAddr::V6(address) => address.to_bits(),
        };
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }
}

/// A SYN (SYN set, ACK clear), or a first fragment of TCP, for one of our ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Whom it claims to be from.
    pub source: Source,
    /// Where it goes.
    pub destination: Address,
    /// To which port, in host byte order.
    pub port: u16,
    /// The stack would not take it as a SYN (FIN or RST beside it, a header
    /// length below 20 or beyond the packet: tcp_v4_rcv and
    /// tcp_rcv_state_process of Linux), or it is a fragment.
    pub malformed: bool,
}

/// Where the transport header is, and between whom.
struct Transport {
    offset: usize,
    /// Octets from `offset` to the end of the IP packet, padding left out.
    length: usize,
    first_fragment: bool,
    source: Source,
    destination: Address,
}

/// Finds a SYN for one of `ports` (0 where unused).
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, ports: &[u16; MAX_PORTS]) -> Option<Syn> {
    let ethernet: [u8; ETHERNET_LENGTH] = frame.read(0)?;
    let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut offset = ETHERNET_LENGTH;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        let tag: [u8; VLAN_TAG_LENGTH] = frame.read(offset)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += VLAN_TAG_LENGTH;
    }
    let transport = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset),
        ETHERTYPE_IPV6 => ipv6(frame, offset),
        _ => None,
    }?;
    tcp(frame, &transport, ports)
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Transport> {
    let header: [u8; 20] = frame.read(offset)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if header[9] != PROTOCOL_TCP
        || header[0] >> 4 != 4
        || header_length < 20
        || fragment & 0x1fff != 0
    {
        return None;
    }
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Some(Transport {
        offset: offset + header_length,
        length: total_length.checked_sub(header_length)?,
        first_fragment: fragment & 0x2000 != 0,
        source: Source::from_ipv4(u32::from_be_bytes([
            header[12], header[13], header[14], header[15],
        ])),
        destination: Address::from_ipv4(u32::from_be_bytes([
            header[16], header[17], header[18], header[19],
        ])),
    })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Transport> {
    // In two reads: most IPv6 that is not TCP needs only the first.
    let fixed: [u8; 8] = frame.read(offset)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let mut next = fixed[6];
    let mut skipped = 0;
    let mut first_fragment = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == PROTOCOL_TCP {
            break;
        }
        let header: [u8; 4] = frame.read(offset + IPV6_LENGTH + skipped)?;
        let length = usize::from(header[1]);
        skipped += match next {
            PROTOCOL_HOP_BY_HOP | PROTOCOL_DESTINATION_OPTIONS => (length + 1) * 8,
            // With segments left the packet is only on its way through.
            PROTOCOL_ROUTING if header[3] == 0 => (length + 1) * 8,
            PROTOCOL_AUTHENTICATION => (length + 2) * 4,
            PROTOCOL_FRAGMENT => {
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                if fragment & 0xfff8 != 0 {
                    return None;
                }
                first_fragment |= fragment & 1 != 0;
                8
            }
            _ => return None,
        };
        next = header[0];
    }
    if next != PROTOCOL_TCP {
        return None;
    }
    let addresses: [u8; 32] = frame.read(offset + 8)?;
    let word = |at: usize| {
        u64::from_be_bytes([
            addresses[at],
            addresses[at + 1],
            addresses[at + 2],
            addresses[at + 3],
            addresses[at + 4],
            addresses[at + 5],
            addresses[at + 6],
            addresses[at + 7],
        ])
    };
    let destination = Address {
        high: word(16),
        low: word(24),
    };
    // On the wire such an address is nobody's; it must not match an IPv4 pair.
    if destination.is_ipv4() {
        return None;
    }
    let payload_length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    Some(Transport {
        offset: offset + IPV6_LENGTH + skipped,
        length: payload_length.checked_sub(skipped)?,
        first_fragment,
        source: Source::from_ipv6(word(0)),
        destination,
    })
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(
    frame: &F,
    transport: &Transport,
    ports: &[u16; MAX_PORTS],
) -> Option<Syn> {
    let (port, malformed) = if transport.first_fragment {
        // It need not reach the flags.
        let header: [u8; 4] = frame.read(transport.offset)?;
        (u16::from_be_bytes([header[2], header[3]]), true)
    } else {
        let header: [u8; TCP_LENGTH_MIN] = frame.read(transport.offset)?;
        let flags = header[13];
        if flags & (TCP_SYN | TCP_ACK) != TCP_SYN {
            return None;
        }
        let header_length = usize::from(header[12] >> 4) * 4;
        (
            u16::from_be_bytes([header[2], header[3]]),
            flags & (TCP_FIN | TCP_RST) != 0
                || header_length < TCP_LENGTH_MIN
                || header_length > transport.length,
        )
    };
    if port == 0 || !ports.contains(&port) {
        return None;
    }
    Some(Syn {
        source: transport.source,
        destination: transport.destination,
        port,
        malformed,
    })
}
