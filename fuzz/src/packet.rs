//! Frames from the wire.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ipv6ExtensionSlice, LinkExtSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice,
};
use nomail_common::{
    source::Source,
    wire::packet::{Address, Kind, MAX_EXTENSION_HEADERS, MAX_VLAN_TAGS, Segment, parse},
};

const PORTS: [u16; 4] = [25, 587, 0, 0];

/// A SYN, as far as another parser can say the same of it. Resets are left out.
#[derive(Debug, PartialEq, Eq)]
struct Syn {
    source: Source,
    destination: Address,
    port: u16,
    malformed: bool,
}

fn syn_of(segment: Segment) -> Option<Syn> {
    (segment.kind != Kind::Reset).then(|| Syn {
        source: segment.source(),
        destination: segment.local,
        port: segment.port,
        malformed: segment.kind == Kind::Malformed,
    })
}

/// The octets of one frame, whole and cut at every length: never another SYN
/// than that of the whole, and that as etherparse sees it.
pub fn packet(frame: &[u8]) {
    let whole = parse(frame, &PORTS, false);
    for length in 0..frame.len() {
        let cut = parse(&frame[..length], &PORTS, false);
        assert!(cut.is_none() || cut == whole, "cut at {length}");
    }
    if let Some(syn) = whole {
        assert!(syn.port != 0 && PORTS.contains(&syn.port));
    }
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        // It insists on lengths and fields that we do not look at.
        return;
    };
    if packet.net.as_ref().is_some_and(is_fragment) {
        // It does not look into them.
        assert!(whole.is_none_or(|segment| segment.kind != Kind::Syn));
        return;
    }
    assert_eq!(whole.and_then(syn_of), expected(&packet));
}

fn is_fragment(net: &NetSlice<'_>) -> bool {
    match net {
        NetSlice::Ipv4(ip) => ip.is_payload_fragmented(),
        NetSlice::Ipv6(ip) => ip.is_payload_fragmented(),
        NetSlice::Arp(_) => false,
    }
}

/// The SYN that etherparse sees, as far as we look for one.
fn expected(packet: &SlicedPacket<'_>) -> Option<Syn> {
    if !tags_are_known(packet) {
        return None;
    }
    let (source, destination, no_payload): (IpAddr, IpAddr, bool) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) if ip.extensions().is_empty() => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                false,
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let mut extensions = 0;
            for extension in ip.extensions().clone() {
                extensions += 1;
                if let Ipv6ExtensionSlice::Routing(routing) = extension
                    && routing.payload().get(1) != Some(&0)
                {
                    return None;
                }
            }
            // Etherparse takes 0 for a jumbogram, which Linux does not.
            let no_payload = header.payload_length() == 0;
            let mapped = header.destination_addr().to_ipv4_mapped().is_some();
            if extensions > MAX_EXTENSION_HEADERS || mapped || (no_payload && extensions > 0) {
                return None;
            }
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                no_payload,
            )
        }
        _ => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else {
        return None;
    };
    let port = tcp.destination_port();
    let wanted = tcp.syn() && !tcp.ack() && port != 0 && PORTS.contains(&port);
    wanted.then(|| Syn {
        source: source_of(source),
        destination: destination.into(),
        port,
        malformed: tcp.fin() || tcp.rst() || no_payload,
    })
}

/// Not from an [`IpAddr`]: in a packet an IPv4-mapped address is IPv6.
fn source_of(address: IpAddr) -> Source {
    match address {
        IpAddr::V4(address) => Source::from_ipv4(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            Source::from_ipv6((bits >> 64) as u64, bits as u64)
        }
    }
}

/// Whether there are only VLAN tags, of the two kinds that we look through, and
/// not too many.
fn tags_are_known(packet: &SlicedPacket<'_>) -> bool {
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else {
        return false;
    };
    let mut ether_type = ethernet.ether_type();
    for tag in &packet.link_exts {
        let known = [EtherType::VLAN_TAGGED_FRAME, EtherType::PROVIDER_BRIDGING];
        match tag {
            LinkExtSlice::Vlan(tag) if known.contains(&ether_type) => ether_type = tag.ether_type(),
            _ => return false,
        }
    }
    packet.link_exts.len() <= MAX_VLAN_TAGS
}
