//! Parses a frame into a segment for one of our ports: a SYN, a RST that may answer a
//! challenge, or a segment of a dialog.
//!
//! Any other frame passes. When in doubt, a packet passes too; only what the network stack
//! would drop as well is malformed, and first fragments.

use crate::{
    bounds::MAX_PORTS,
    source::{Source, is_nat64},
    verifier::forget,
    wire::frame::{Frame, half, word},
};

/// Most VLAN tags of a frame that is parsed.
pub const MAX_VLAN_TAGS: usize = 2;
/// Most IPv6 extension headers of a packet that is parsed. A longer chain passes uncounted.
pub const MAX_EXTENSION_HEADERS: usize = 6;

pub(crate) const ETHERNET_LENGTH: usize = 14;
const VLAN_TAG_LENGTH: usize = 4;
pub(crate) const IPV4_LENGTH: usize = 20;
pub(crate) const IPV6_LENGTH: usize = 40;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(crate) const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

pub(crate) const PROTOCOL_HOP_BY_HOP: u8 = 0;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_ROUTING: u8 = 43;
pub(crate) const PROTOCOL_FRAGMENT: u8 = 44;
pub(crate) const PROTOCOL_AUTHENTICATION: u8 = 51;
pub(crate) const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;

pub(crate) const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_SYN: u8 = 0x02;
pub(crate) const TCP_RST: u8 = 0x04;
pub(crate) const TCP_ACK: u8 = 0x10;
pub(crate) const TCP_LENGTH_MIN: usize = 20;

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

    /// Whether a client may have the address, so that it can be answered: not "this
    /// network", loopback, multicast, reserved or broadcast (RFC 6890), nor in IPv6's `::/8`,
    /// except an IPv4 address behind NAT64.
    #[inline(always)]
    pub const fn is_answerable(self, ipv6: bool) -> bool {
        if ipv6 && !is_nat64(self.high, self.low) {
            let first = self.high >> 56;
            return first != 0 && first != 0xff;
        }
        let first = self.low >> 24 & 0xff;
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    pub(crate) const fn is_ipv4(self) -> bool {
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

/// Kinds of segments.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SYN: SYN set, ACK clear.
    Syn = 0,
    /// A SYN that the stack would not accept (FIN or RST set, or a header length below 20 or
    /// beyond the packet: tcp_v4_rcv and tcp_rcv_state_process of Linux), or a first fragment
    /// of TCP.
    Malformed = 1,
    /// A RST without SYN that may answer a challenge: without ACK (RFC 9293 section
    /// 3.10.7.3), or with one that acknowledges the challenge, as lwIP sends it. With
    /// dialogs, any RST.
    Reset = 2,
    /// With dialogs, any other segment with ACK.
    Dialog = 3,
}

/// A segment for one of our ports, in host byte order. Of integers only, so that the verifier
/// accepts it as an argument of a function.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its source address, which may be forged.
    pub peer: Address,
    /// Its destination address.
    pub local: Address,
    /// Its sequence number; 0 in a fragment.
    pub sequence: u32,
    /// Where its IP header begins in the frame.
    pub network: u32,
    /// Its source port.
    pub peer_port: u16,
    /// Its destination port.
    pub port: u16,
    /// The VLAN of its tag: 0 without one, [`VLAN_STACKED`] with more than one.
    pub vlan: u16,
    /// Its kind.
    pub kind: Kind,
    /// Bits [`IPV6`] and [`PLAIN`].
    pub flags: u8,
}

/// [`Segment::flags`]: IPv6, else IPv4.
pub const IPV6: u8 = 1;
/// [`Segment::flags`]: no IP option, extension header or fragmentation.
pub const PLAIN: u8 = 2;

const _: () = assert!(size_of::<Segment>() == 48, "no padding");

impl Segment {
    /// An empty segment to be filled.
    pub const NONE: Self = Self {
        peer: Address { high: 0, low: 0 },
        local: Address { high: 0, low: 0 },
        sequence: 0,
        network: 0,
        peer_port: 0,
        port: 0,
        vlan: 0,
        kind: Kind::Malformed,
        flags: 0,
    };

    /// Whether it is IPv6, else IPv4.
    #[inline(always)]
    pub const fn is_ipv6(&self) -> bool {
        self.flags & IPV6 != 0
    }

    /// Whether it has no IP option, extension header or fragmentation.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.flags & PLAIN != 0
    }

    /// The source that it is counted for.
    #[inline(always)]
    pub const fn source(&self) -> Source {
        if self.is_ipv6() {
            Source::from_ipv6(self.peer.high, self.peer.low)
        } else {
            Source::from_ipv4(self.peer.low as u32)
        }
    }
}

/// [`Segment::vlan`] of a frame with two tags. Not a valid VLAN number.
pub const VLAN_STACKED: u16 = 0xffff;
/// The number of the VLAN in a tag (IEEE 802.1Q).
const VLAN_MASK: u16 = 0x0fff;

/// The transport header and the addresses of an IP packet.
struct Transport {
    offset: usize,
    /// Bytes from `offset` to the end of the IP packet, without padding of the frame.
    length: usize,
    first_fragment: bool,
    ipv6: bool,
    peer: Address,
    local: Address,
    plain: bool,
}

/// Covers the bytes before an IP header: Ethernet's, and those of all tags.
const NETWORK_MASK: usize = 0x1f;

const _: () = assert!(ETHERNET_LENGTH + MAX_VLAN_TAGS * VLAN_TAG_LENGTH <= NETWORK_MASK);

/// Parses a SYN for one of `ports` (0 where unused), or a RST; with `dialogs` also segments of
/// dialogs. None for any other frame.
pub fn parse<F: Frame + ?Sized>(
    frame: &F,
    ports: &[u16; MAX_PORTS],
    dialogs: bool,
) -> Option<Segment> {
    parse_with(frame, ports, dialogs, |offset, kind| {
        Extension::read(frame, offset, kind)
    })
}

/// [`parse`] with a function of the caller's for [`Extension::read`].
#[inline(always)]
pub fn parse_with<F: Frame + ?Sized>(
    frame: &F,
    ports: &[u16; MAX_PORTS],
    dialogs: bool,
    read: impl Fn(usize, u8) -> Extension,
) -> Option<Segment> {
    let ethernet: [u8; ETHERNET_LENGTH] = frame.read(0)?;
    let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut network = ETHERNET_LENGTH;
    let mut vlan = 0;
    for tags in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        let tag: [u8; VLAN_TAG_LENGTH] = frame.read(network)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        network += VLAN_TAG_LENGTH;
        vlan = if tags == 0 {
            u16::from_be_bytes([tag[0], tag[1]]) & VLAN_MASK
        } else {
            VLAN_STACKED
        };
    }
    let network = forget(network as u64, u64::from(ethertype)) as usize & NETWORK_MASK;
    let transport = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, network),
        ETHERTYPE_IPV6 if crate::Mechanism::Ipv6.is_on() => ipv6(frame, network, read),
        _ => None,
    }?;
    tcp(frame, &transport, network, vlan, ports, dialogs)
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
        ipv6: false,
        peer: Address::from_ipv4(u32::from_be_bytes([
            header[12], header[13], header[14], header[15],
        ])),
        local: Address::from_ipv4(u32::from_be_bytes([
            header[16], header[17], header[18], header[19],
        ])),
        plain: header_length == 20,
    })
}

/// An extension header of IPv6 in one word: its length in bytes, 0 if it is none that is
/// skipped; above 16 bits the kind of the next header; above 24 whether it is that of a first
/// fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension(pub u64);

const LENGTH_MASK: u64 = 0xffff;
const NEXT_SHIFT: u32 = 16;
const FIRST_FRAGMENT: u64 = 1 << 24;
/// Covers the bytes of the longest chain of extension headers.
const SKIPPED_MASK: usize = 0x3fff;

const _: () = assert!(MAX_EXTENSION_HEADERS * 256 * 8 <= SKIPPED_MASK);

impl Extension {
    /// Not an extension header that is skipped.
    const NONE: Self = Self(0);

    /// The extension header of this kind at `offset`.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, offset: usize, kind: u8) -> Self {
        let Some(header): Option<[u8; 4]> = frame.read(offset) else {
            return Self::NONE;
        };
        let length = u64::from(header[1]);
        let fragment = half(&header, 2);
        let next = u64::from(header[0]) << NEXT_SHIFT;
        Self(match kind {
            PROTOCOL_HOP_BY_HOP | PROTOCOL_DESTINATION_OPTIONS => next | ((length + 1) * 8),
            // With segments left, this host is not the destination.
            PROTOCOL_ROUTING if header[3] == 0 => next | ((length + 1) * 8),
            PROTOCOL_AUTHENTICATION => next | ((length + 2) * 4),
            PROTOCOL_FRAGMENT if fragment & 0xfff8 == 0 && fragment & 1 != 0 => {
                next | FIRST_FRAGMENT | 8
            }
            PROTOCOL_FRAGMENT if fragment & 0xfff8 == 0 => next | 8,
            _ => return Self::NONE,
        })
    }

    const fn length(self) -> usize {
        (self.0 & LENGTH_MASK) as usize
    }

    const fn next(self) -> u8 {
        (self.0 >> NEXT_SHIFT) as u8
    }

    const fn is_first_fragment(self) -> bool {
        self.0 & FIRST_FRAGMENT != 0
    }
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    read: impl Fn(usize, u8) -> Extension,
) -> Option<Transport> {
    // In two reads: most IPv6 that is not TCP needs only the first.
    let fixed: [u8; 8] = frame.read(offset)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let mut next = fixed[6];
    let mut skipped = 0;
    let mut seen = 0;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == PROTOCOL_TCP {
            break;
        }
        let extension = read(offset + IPV6_LENGTH + skipped, next);
        if extension.length() == 0 {
            return None;
        }
        skipped += extension.length();
        next = extension.next();
        seen |= extension.0;
    }
    let first_fragment = Extension(seen).is_first_fragment();
    let skipped = forget(skipped as u64, seen) as usize & SKIPPED_MASK;
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
    let local = Address {
        high: word(16),
        low: word(24),
    };
    // On the wire no host has an IPv4-mapped address; it must not match an IPv4 pair.
    if local.is_ipv4() {
        return None;
    }
    let payload_length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    Some(Transport {
        offset: offset + IPV6_LENGTH + skipped,
        length: payload_length.checked_sub(skipped)?,
        first_fragment,
        ipv6: true,
        peer: Address {
            high: word(0),
            low: word(8),
        },
        local,
        plain: skipped == 0,
    })
}

/// The kind of a segment with this TCP header; `length` is that of the IP packet from the TCP
/// header on. None for a segment that is not asked for.
#[inline(always)]
pub(crate) fn kind(
    header: &[u8; TCP_LENGTH_MIN],
    length: usize,
    dialogs: impl Fn() -> bool,
) -> Option<Kind> {
    let flags = header[13];
    if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        let header_length = (header[12] >> 4) as usize * 4;
        let is_malformed = flags & (TCP_FIN | TCP_RST) != 0
            || header_length < TCP_LENGTH_MIN
            || header_length > length
            || crate::Mechanism::DataAndEcnAccepted.is_off()
                && (flags & !TCP_SYN != 0 || header_length != length);
        Some(if is_malformed {
            Kind::Malformed
        } else {
            Kind::Syn
        })
    } else if flags & (TCP_SYN | TCP_RST) == TCP_RST
        && (flags & TCP_ACK == 0 || dialogs() || acknowledges_challenge(header))
    {
        Some(Kind::Reset)
    } else if flags & (TCP_RST | TCP_ACK) == TCP_ACK && dialogs() {
        Some(Kind::Dialog)
    } else {
        None
    }
}

/// Whether a header acknowledges a challenge: its sequence number is 0, and its SYN counts for
/// one. The RST of a connection hardly ever does.
#[inline(always)]
const fn acknowledges_challenge(header: &[u8; TCP_LENGTH_MIN]) -> bool {
    word(header, 8) <= 1
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(
    frame: &F,
    transport: &Transport,
    network: usize,
    vlan: u16,
    ports: &[u16; MAX_PORTS],
    dialogs: bool,
) -> Option<Segment> {
    let (peer_port, port, sequence, kind) = if transport.first_fragment {
        // A first fragment need not include the flags.
        let header: [u8; 4] = frame.read(transport.offset)?;
        let port = u16::from_be_bytes([header[2], header[3]]);
        let port = if crate::Mechanism::FirstFragments.is_on() {
            port
        } else {
            0
        };
        (0, port, 0, Kind::Malformed)
    } else {
        let header: [u8; TCP_LENGTH_MIN] = frame.read(transport.offset)?;
        let kind = kind(&header, transport.length, || dialogs)?;
        (
            u16::from_be_bytes([header[0], header[1]]),
            u16::from_be_bytes([header[2], header[3]]),
            u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            kind,
        )
    };
    if port == 0 || !ports.contains(&port) {
        return None;
    }
    let plain = transport.plain && !transport.first_fragment;
    let ipv6 = if transport.ipv6 { IPV6 } else { 0 };
    Some(Segment {
        peer: transport.peer,
        local: transport.local,
        sequence,
        network: network as u32,
        peer_port,
        port,
        vlan,
        kind,
        flags: ipv6 | if plain { PLAIN } else { 0 },
    })
}
