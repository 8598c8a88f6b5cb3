use super::*;
use crate::wire::packet::parse;
use proptest::prelude::*;

fn bytes<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

proptest! {
    /// What is turned in place is what is built from a segment, whatever was there before.
    #[test]
    fn headers_turned_are_headers_built(
        mut headers: [u8; IPV6_LENGTH],
        is_ipv6: bool,
        sequence: u32,
        acknowledgment: u32,
    ) {
        let numbers = Numbers { sequence, acknowledgment };
        let (version, ethertype, tcp, protocol) = if is_ipv6 {
            (0x60, [0x86, 0xdd], 40, 6)
        } else {
            (0x45, [8, 0], 20, 9)
        };
        headers[0] = version;
        headers[protocol] = 6;
        if !is_ipv6 {
            headers[2] |= 1;
            (headers[6], headers[7]) = (0x40, 0);
        }
        headers[tcp + 2..tcp + 4].copy_from_slice(&[0, 25]);
        headers[tcp + 12..tcp + 14].copy_from_slice(&[0x50, 2]);
        let frame = [&[0; 12][..], &ethertype, &headers].concat();
        let segment = parse(&frame[..], &[25, 0, 0, 0], false).expect("a SYN");
        let header = Header::syn_ack(numbers);
        if is_ipv6 {
            turn_ipv6(&mut headers, numbers);
            prop_assert_eq!(headers.to_vec(), bytes(ipv6(&segment, &header)));
        } else {
            let headers = headers.first_chunk_mut().expect("is shorter");
            turn_ipv4(headers, numbers);
            prop_assert_eq!(headers.to_vec(), bytes(ipv4(&segment, &header)));
        }
    }
}
