//! A look at where headers usually are, to let other traffic pass at the least cost.
//!
//! It asks in the order in which most frames are seen not to be ours, and reads no more than
//! it asks. What it finds is what [`packet::parse`](super::packet::parse) would find.

use crate::wire::{
    frame::{Frame, double, half, part, word},
    packet::{
        Address, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN,
        ETHERTYPE_VLAN, IPV4_LENGTH, IPV6, IPV6_LENGTH, PLAIN, PROTOCOL_AUTHENTICATION,
        PROTOCOL_DESTINATION_OPTIONS, PROTOCOL_FRAGMENT, PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING,
        PROTOCOL_TCP, Segment, TCP_LENGTH_MIN, kind,
    },
};

/// What a glance at a frame finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Nothing for us: the frame passes.
    Nothing,
    /// A segment of IPv4.
    Ipv4(Segment),
    /// A segment of IPv6.
    Ipv6(Segment),
    /// Headers elsewhere than usual: [`packet::parse`](super::packet::parse) finds them.
    Unusual,
}

/// Bytes of the shortest TCP segment, and what a glance reads of any frame.
const START: usize = behind(ETHERNET_LENGTH, IPV4_LENGTH);
/// Bytes of the shortest first fragment with ports.
const FRAGMENT: usize = ETHERNET_LENGTH + IPV4_LENGTH + 4;

/// Bytes of a frame up to the end of the shortest TCP header, where a network header of
/// `length` bytes begins at `network`.
const fn behind(network: usize, length: usize) -> usize {
    network + length + TCP_LENGTH_MIN
}

/// Looks at a frame. `is_ours` says whether a port is one of ours; 0 never is. With `dialogs`
/// segments of dialogs are found, too; it is asked when it matters.
#[inline(always)]
pub fn glance<F: Frame + ?Sized>(
    frame: &F,
    is_ours: impl Fn(u16) -> bool,
    dialogs: impl Fn() -> bool,
) -> Glance {
    const PLAIN_IPV4: usize = START;
    const PLAIN_IPV6: usize = behind(ETHERNET_LENGTH, IPV6_LENGTH);
    let Some(start) = frame.start::<START>() else {
        return short(frame);
    };
    match half(start, 12) {
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => tagged(frame, start, is_ours, dialogs),
        ethertype => look::<_, ETHERNET_LENGTH, PLAIN_IPV4, PLAIN_IPV6>(
            frame, start, ethertype, is_ours, dialogs,
        ),
    }
}

/// Looks at a frame that is too short for a TCP header.
#[inline(always)]
fn short<F: Frame + ?Sized>(frame: &F) -> Glance {
    match frame.start::<FRAGMENT>() {
        Some(start) => match half(start, 12) {
            ETHERTYPE_IPV4 if start[ETHERNET_LENGTH + 9] == PROTOCOL_TCP => Glance::Unusual,
            ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => Glance::Unusual,
            _ => Glance::Nothing,
        },
        None => Glance::Nothing,
    }
}

/// Looks behind one or two VLAN tags. What is ours is left to the parser.
#[inline(always)]
fn tagged<F: Frame + ?Sized>(
    frame: &F,
    start: &[u8; START],
    is_ours: impl Fn(u16) -> bool,
    dialogs: impl Fn() -> bool,
) -> Glance {
    const ONE_TAG: usize = ETHERNET_LENGTH + 4;
    const TWO_TAGS: usize = ETHERNET_LENGTH + 8;
    const ONE_IPV4: usize = behind(ONE_TAG, IPV4_LENGTH);
    const ONE_IPV6: usize = behind(ONE_TAG, IPV6_LENGTH);
    const TWO_IPV4: usize = behind(TWO_TAGS, IPV4_LENGTH);
    const TWO_IPV6: usize = behind(TWO_TAGS, IPV6_LENGTH);
    let ethertype = half(start, 16);
    let found = match ethertype {
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => {
            look::<_, TWO_TAGS, TWO_IPV4, TWO_IPV6>(frame, start, half(start, 20), is_ours, dialogs)
        }
        _ => look::<_, ONE_TAG, ONE_IPV4, ONE_IPV6>(frame, start, ethertype, is_ours, dialogs),
    };
    match found {
        Glance::Nothing => Glance::Nothing,
        _ => Glance::Unusual,
    }
}

/// Looks at an IP packet that begins at `AT`, in a frame that ends, with the shortest TCP
/// header, at `V4` or `V6`.
#[inline(always)]
fn look<F: Frame + ?Sized, const AT: usize, const V4: usize, const V6: usize>(
    frame: &F,
    start: &[u8; START],
    ethertype: u16,
    is_ours: impl Fn(u16) -> bool,
    dialogs: impl Fn() -> bool,
) -> Glance {
    match ethertype {
        ETHERTYPE_IPV4 => {
            if start[AT + 9] != PROTOCOL_TCP {
                return Glance::Nothing;
            }
            // Options, or a fragment.
            if start[AT] != 0x45 || half(start, AT + 6) & 0x3fff != 0 {
                return Glance::Unusual;
            }
            if !is_ours(half(start, AT + IPV4_LENGTH + 2)) {
                return Glance::Nothing;
            }
            match frame.start::<V4>() {
                Some(headers) => ipv4::<AT, V4>(headers, dialogs),
                None => Glance::Nothing,
            }
        }
        ETHERTYPE_IPV6 if crate::Mechanism::Ipv6.is_on() => {
            match start[AT + 6] {
                PROTOCOL_TCP => {}
                PROTOCOL_HOP_BY_HOP
                | PROTOCOL_ROUTING
                | PROTOCOL_FRAGMENT
                | PROTOCOL_AUTHENTICATION
                | PROTOCOL_DESTINATION_OPTIONS => return Glance::Unusual,
                _ => return Glance::Nothing,
            }
            match frame.start::<V6>() {
                Some(headers) if is_ours(half(headers, AT + IPV6_LENGTH + 2)) => {
                    ipv6::<AT, V6>(headers, dialogs)
                }
                _ => Glance::Nothing,
            }
        }
        _ => Glance::Nothing,
    }
}

#[inline(always)]
fn ipv4<const AT: usize, const N: usize>(headers: &[u8; N], dialogs: impl Fn() -> bool) -> Glance {
    let tcp: &[u8; TCP_LENGTH_MIN] = part(headers, AT + IPV4_LENGTH);
    let length = usize::from(half(headers, AT + 2)).checked_sub(IPV4_LENGTH);
    match length.and_then(|length| kind(tcp, length, dialogs)) {
        Some(kind) => Glance::Ipv4(Segment {
            peer: Address::from_ipv4(word(headers, AT + 12)),
            local: Address::from_ipv4(word(headers, AT + 16)),
            sequence: word(tcp, 4),
            network: AT as u32,
            peer_port: half(tcp, 0),
            port: half(tcp, 2),
            vlan: 0,
            kind,
            flags: PLAIN,
        }),
        None => Glance::Nothing,
    }
}

#[inline(always)]
fn ipv6<const AT: usize, const N: usize>(headers: &[u8; N], dialogs: impl Fn() -> bool) -> Glance {
    let tcp: &[u8; TCP_LENGTH_MIN] = part(headers, AT + IPV6_LENGTH);
    let length = usize::from(half(headers, AT + 4));
    let Some(kind) = kind(tcp, length, dialogs) else {
        return Glance::Nothing;
    };
    let [peer, local] = [8, 24].map(|at| Address {
        high: double(headers, AT + at),
        low: double(headers, AT + at + 8),
    });
    // On the wire no host has an IPv4-mapped address; it must not match an IPv4 pair.
    if headers[AT] >> 4 != 6 || local.is_ipv4() {
        return Glance::Nothing;
    }
    Glance::Ipv6(Segment {
        peer,
        local,
        sequence: word(tcp, 4),
        network: AT as u32,
        peer_port: half(tcp, 0),
        port: half(tcp, 2),
        vlan: 0,
        kind,
        flags: IPV6 | PLAIN,
    })
}
