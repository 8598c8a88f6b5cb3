//! The two segments that doctor injects at an interface: a SYN from outside, and the RST that
//! ends the attempt.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// As from a host some routers away, because rules may check it.
const TTL: u8 = 57;
/// Ethernet's header, in bytes.
const ETHERNET: usize = 14;
const TCP: u8 = 6;
const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
/// The only option of the SYN: a maximum segment size of 1460 bytes.
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];

/// One attempt to connect from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The stranger.
    pub(super) from: SocketAddr,
    /// The listener.
    pub(super) to: SocketAddr,
    /// The interface's hardware address.
    pub(super) hardware: [u8; 6],
    /// The sequence number of the SYN.
    pub(super) sequence: u32,
}

impl Attempt {
    /// The frame of its SYN.
    pub(super) fn syn(&self) -> Vec<u8> {
        self.frame(self.sequence, FLAG_SYN, &MSS)
    }

    /// The frame of the RST behind that: what waits for the rest of the handshake ends.
    pub(super) fn reset(&self) -> Vec<u8> {
        self.frame(self.sequence.wrapping_add(1), FLAG_RST, &[])
    }

    fn frame(&self, sequence: u32, flags: u8, options: &[u8]) -> Vec<u8> {
        let segment = self.segment(sequence, flags, options);
        let mut frame = Vec::with_capacity(ETHERNET + 40 + segment.len());
        frame.extend(self.hardware);
        // A locally administered address: a router's.
        frame.extend([0x02, 0, 0, 0, 0, 0x01]);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend(0x0800u16.to_be_bytes());
                frame.extend(ipv4(from, to, segment.len()));
            }
            (from, to) => {
                frame.extend(0x86ddu16.to_be_bytes());
                frame.extend(ipv6(as_ipv6(from), as_ipv6(to), segment.len()));
            }
        }
        frame.extend(segment);
        frame
    }

    fn segment(&self, sequence: u32, flags: u8, options: &[u8]) -> Vec<u8> {
        let length = 20 + options.len();
        let mut segment = Vec::with_capacity(length);
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(sequence.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend([(length as u8 / 4) << 4, flags]);
        segment.extend(64_240u16.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
        let mut pseudo = address_bytes(self.from.ip());
        pseudo.extend(address_bytes(self.to.ip()));
        pseudo.extend([0, TCP]);
        pseudo.extend((length as u16).to_be_bytes());
        let checksum = checksum(&[&pseudo, &segment]);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        segment
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: usize) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + payload as u16).to_be_bytes());
    // Not to be fragmented.
    header[6] = 0x40;
    header[8] = TTL;
    header[9] = TCP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let checksum = checksum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, payload: usize) -> [u8; 40] {
    let mut header = [0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    header[6] = TCP;
    header[7] = TTL;
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&to.octets());
    header
}

/// Both addresses of an attempt have one family.
fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071) of parts of even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(from: &str, to: &str) -> Attempt {
        Attempt {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            hardware: [2, 0, 0, 0, 0, 2],
            sequence: 0xffff_ffff,
        }
    }

    /// Of the whole: 0, as the sum of what is right has its complement in it.
    fn is_summed(frame: &[u8], header: usize) -> bool {
        let (ip, segment) = frame[ETHERNET..].split_at(header);
        let addresses = if header == 20 { &ip[12..] } else { &ip[8..] };
        let length = (segment.len() as u16).to_be_bytes();
        let summed = checksum(&[addresses, &[0, TCP], &length, segment]) == 0;
        summed && (header == 40 || checksum(&[ip]) == 0)
    }

    #[test]
    fn frames_are_well_formed() {
        for (from, to, header) in [
            ("198.51.100.7:50000", "192.0.2.1:25", 20),
            ("[3fff::7]:50000", "[2001:db8::1]:25", 40),
        ] {
            let attempt = attempt(from, to);
            let syn = attempt.syn();
            assert_eq!(syn.len(), ETHERNET + header + 24);
            assert!(is_summed(&syn, header), "{syn:x?}");
            let tcp = &syn[ETHERNET + header..];
            assert_eq!(tcp[..4], [0xc3, 0x50, 0, 25]);
            assert_eq!((&tcp[4..8], tcp[13]), (&[0xff; 4][..], FLAG_SYN));
            let reset = attempt.reset();
            assert!(is_summed(&reset, header), "{reset:x?}");
            let tcp = &reset[ETHERNET + header..];
            assert_eq!((&tcp[4..8], tcp[13]), (&[0; 4][..], FLAG_RST));
        }
    }
}
