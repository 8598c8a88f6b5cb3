//! Parsing: any bytes at all, and agreement with etherparse on what it builds.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, Ipv6RawExtHeader,
    SingleVlanHeader, TcpHeader, VlanId,
};
use nomail_common::{
    source::Source,
    wire::frame::Frame,
    wire::glance::{Glance, glance},
    wire::packet::{
        Address, IPV6, Kind, MAX_EXTENSION_HEADERS, PLAIN, Segment, VLAN_STACKED, parse,
    },
};
use proptest::{collection::vec, prelude::*};

const PORTS: [u16; 4] = [25, 587, 0, 0];

/// A frame that knows how far it was read.
struct Watched<'a> {
    bytes: &'a [u8],
    furthest: Cell<usize>,
}

impl<'a> Watched<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            furthest: Cell::new(0),
        }
    }
}

impl Frame for Watched<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let read = self.bytes.read(offset);
        if read.is_some() {
            self.furthest.set(self.furthest.get().max(offset + N));
        }
        read
    }

    fn start<const N: usize>(&self) -> Option<&[u8; N]> {
        self.bytes.start()
    }
}

/// A frame to be, in fields.
#[derive(Clone, Debug)]
struct Plan {
    tags: usize,
    ipv6: bool,
    source: u128,
    destination: u128,
    port: u16,
    syn: bool,
    ack: bool,
    fin: bool,
    rst: bool,
    acknowledgment: u32,
    ip_options: Vec<[u8; 4]>,
    extensions: usize,
    tcp_options: Vec<u8>,
    payload: Vec<u8>,
    padding: usize,
}

prop_compose! {
    fn plans()(
        (tags, ipv6, source, destination) in
            (0usize..=3, any::<bool>(), any::<u128>(), any::<u128>()),
        port in prop_oneof![Just(25u16), Just(587), Just(0), any::<u16>()],
        syn in prop::bool::weighted(0.8),
        ack in prop::bool::weighted(0.2),
        fin in prop::bool::weighted(0.1),
        rst in prop::bool::weighted(0.1),
        acknowledgment in prop_oneof![0u32..=2, any::<u32>()],
        ip_options in vec(any::<[u8; 4]>(), 0..=10),
        extensions in 0usize..=8,
        tcp_options in vec(Just(1u8), 0..=40),
        payload in vec(any::<u8>(), 0..32),
        padding in 0usize..32,
    ) -> Plan {
        Plan {
            tags, ipv6, source, destination, port, syn, ack, fin, rst, acknowledgment, ip_options,
            extensions, tcp_options, payload, padding,
        }
    }
}

impl Plan {
    fn build(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.write_ethernet(&mut frame);
        let mut tcp = TcpHeader::new(40_000, self.port, 7, 1024);
        (tcp.syn, tcp.ack, tcp.fin, tcp.rst) = (self.syn, self.ack, self.fin, self.rst);
        tcp.acknowledgment_number = self.acknowledgment;
        tcp.set_options_raw(&self.tcp_options).unwrap();
        self.write_ip(&mut frame, tcp.header_len() + self.payload.len());
        tcp.write(&mut frame).unwrap();
        frame.extend(&self.payload);
        frame.extend(vec![0; self.padding]);
        frame
    }

    fn write_ethernet(&self, frame: &mut Vec<u8>) {
        let mut types: Vec<_> = (0..self.tags)
            .map(|tag| [EtherType::VLAN_TAGGED_FRAME, EtherType::PROVIDER_BRIDGING][tag % 2])
            .collect();
        types.push(if self.ipv6 {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        });
        Ethernet2Header {
            source: [2; 6],
            destination: [4; 6],
            ether_type: types[0],
        }
        .write(frame)
        .unwrap();
        for &ether_type in &types[1..] {
            SingleVlanHeader {
                vlan_id: VlanId::try_new(7).unwrap(),
                ether_type,
                ..SingleVlanHeader::default()
            }
            .write(frame)
            .unwrap();
        }
    }

    fn write_ip(&self, frame: &mut Vec<u8>, tcp_length: usize) {
        if !self.ipv6 {
            let (source, destination) = (self.source as u32, self.destination as u32);
            let mut ip = Ipv4Header::new(
                0,
                64,
                IpNumber::TCP,
                source.to_be_bytes(),
                destination.to_be_bytes(),
            )
            .unwrap();
            ip.options = self.ip_options.concat().as_slice().try_into().unwrap();
            ip.total_len = (ip.header_len() + tcp_length) as u16;
            return ip.write(frame).unwrap();
        }
        let mut protocols = vec![IpNumber::IPV6_DESTINATION_OPTIONS; self.extensions];
        protocols.push(IpNumber::TCP);
        Ipv6Header {
            payload_length: (tcp_length + self.extensions * 8) as u16,
            next_header: protocols[0],
            source: self.source.to_be_bytes(),
            destination: self.destination.to_be_bytes(),
            ..Ipv6Header::default()
        }
        .write(frame)
        .unwrap();
        for &next in &protocols[1..] {
            Ipv6RawExtHeader::new_raw(next, &[0; 6])
                .unwrap()
                .write(frame)
                .unwrap();
        }
    }

    fn expected(&self) -> Option<Segment> {
        let kind = match (self.syn, self.ack, self.rst) {
            (true, false, _) if self.fin || self.rst => Kind::Malformed,
            (true, false, _) => Kind::Syn,
            (false, false, true) => Kind::Reset,
            // Of a challenge, whose number is 0, with its SYN counted or not.
            (false, true, true) if self.acknowledgment <= 1 => Kind::Reset,
            _ => return None,
        };
        let found = self.tags <= 2
            && !(self.ipv6 && self.destination >> 32 == 0xffff)
            && !(self.ipv6 && self.extensions > MAX_EXTENSION_HEADERS)
            && (self.port == 25 || self.port == 587);
        let address = |bits: u128| -> IpAddr {
            if self.ipv6 {
                Ipv6Addr::from_bits(bits).into()
            } else {
                Ipv4Addr::from_bits(bits as u32).into()
            }
        };
        let plain = if self.ipv6 {
            self.extensions == 0
        } else {
            self.ip_options.is_empty()
        };
        let segment = Segment {
            peer: raw(address(self.source)),
            local: raw(address(self.destination)),
            sequence: 7,
            network: 14 + 4 * self.tags as u32,
            peer_port: 40_000,
            port: self.port,
            vlan: [0, 7, VLAN_STACKED][self.tags.min(2)],
            kind,
            flags: if self.ipv6 { IPV6 } else { 0 } | if plain { PLAIN } else { 0 },
        };
        if found {
            let source = match address(self.source) {
                IpAddr::V4(source) => Source::from_ipv4(source.to_bits()),
                IpAddr::V6(source) => {
                    let bits = source.to_bits();
                    Source::from_ipv6((bits >> 64) as u64, bits as u64)
                }
            };
            assert_eq!(segment.source(), source);
        }
        found.then_some(segment)
    }
}

/// As on the wire: an IPv6 address that looks IPv4-mapped stays what it is.
fn raw(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::from_ipv4(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            Address {
                high: (bits >> 64) as u64,
                low: bits as u64,
            }
        }
    }
}

/// What the program finds: a glance, and the parser where that is not enough.
fn found(frame: &[u8], dialogs: bool) -> Option<Segment> {
    let is_ours = |port| port != 0 && PORTS.contains(&port);
    match glance(frame, is_ours, || dialogs) {
        Glance::Nothing => None,
        Glance::Ipv4(segment) => {
            assert!(!segment.is_ipv6());
            Some(segment)
        }
        Glance::Ipv6(segment) => {
            assert!(segment.is_ipv6());
            Some(segment)
        }
        Glance::Unusual => parse(frame, &PORTS, dialogs),
    }
}

/// A frame that may end anywhere, from headers that matter at their usual offsets.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let two = |numbers: &'static [u16]| prop::sample::select(numbers);
    let ethertypes = two(&[0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806]);
    let places = (
        prop::sample::select(vec![14usize, 18, 22]),
        ethertypes.clone(),
        ethertypes.clone(),
        ethertypes,
    );
    let first = prop::sample::select(vec![0x45u8, 0x46, 0x44, 0x55, 0x60, 0x6f]);
    let protocol = prop::sample::select(vec![6u8, 17, 0, 43, 44, 51, 60]);
    let fragment = two(&[0, 0x4000, 0x8000, 0x2000, 1]);
    let tcp = (two(&[25, 587, 0, 80]), any::<u8>(), any::<u8>());
    let bytes = vec(any::<u8>(), 0..120);
    (places, first, protocol, fragment, tcp, bytes).prop_map(
        |((at, one, two, three), first, protocol, fragment, (port, offset, flags), mut bytes)| {
            let version = if first >> 4 == 6 { 40 } else { 20 };
            let mut put = |at: usize, value: &[u8]| {
                for (place, byte) in bytes.iter_mut().skip(at).zip(value) {
                    *place = *byte;
                }
            };
            for (place, ethertype) in [(12, one), (16, two), (20, three)] {
                put(place, &ethertype.to_be_bytes());
            }
            put(at, &[first]);
            put(at + if version == 40 { 6 } else { 9 }, &[protocol]);
            if version == 20 {
                put(at + 6, &fragment.to_be_bytes());
            }
            put(at + version + 2, &port.to_be_bytes());
            put(at + version + 12, &[offset, flags]);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_glance_finds_what_the_parser_does(frame in nearly_frames(), dialogs: bool) {
        prop_assert_eq!(found(&frame, dialogs), parse(frame.as_slice(), &PORTS, dialogs));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_their_bounds(bytes in vec(any::<u8>(), 0..200)) {
        let watched = Watched::new(&bytes);
        parse(&watched, &PORTS, false);
        prop_assert!(watched.furthest.get() <= bytes.len());
    }

    /// Reaches the branches that random bytes seldom do.
    #[test]
    fn any_damaged_octet_is_survived(
        plan in plans(),
        at: prop::sample::Index,
        octet: u8,
    ) {
        let mut frame = plan.build();
        let at = at.index(frame.len());
        frame[at] = octet;
        let watched = Watched::new(&frame);
        parse(&watched, &PORTS, false);
        prop_assert!(watched.furthest.get() <= frame.len());
        prop_assert_eq!(found(&frame, true), parse(frame.as_slice(), &PORTS, true));
    }

    #[test]
    fn agrees_with_etherparse(plan in plans()) {
        prop_assert_eq!(parse(plan.build().as_slice(), &PORTS, false), plan.expected());
        for dialogs in [false, true] {
            let frame = plan.build();
            prop_assert_eq!(found(&frame, dialogs), parse(frame.as_slice(), &PORTS, dialogs));
        }
    }

    /// Cut before the end of the fixed TCP header: nothing. After it: as whole.
    #[test]
    fn truncation_at_every_length(plan in plans()) {
        let frame = plan.build();
        let whole = parse(frame.as_slice(), &PORTS, false);
        let after_tcp = plan.padding + plan.payload.len();
        let fixed_end = frame.len() - after_tcp - plan.tcp_options.len().next_multiple_of(4);
        for length in 0..frame.len() {
            let cut = parse(&frame[..length], &PORTS, false);
            prop_assert_eq!(cut, if length < fixed_end { None } else { whole });
            prop_assert_eq!(found(&frame[..length], false), cut);
        }
    }
}
