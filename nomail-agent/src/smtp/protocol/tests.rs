use proptest::prelude::*;
use rstest::rstest;

use super::*;

#[rstest]
#[case(b"GET / HTTP/1.1\r\n", Some(Protocol::Http))]
#[case(b"PRI * HTTP/2.0\r\n", Some(Protocol::Http))]
#[case(b"OPTIONS ", Some(Protocol::Http))]
#[case(b"GET \0", Some(Protocol::Http))]
#[case(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n", Some(Protocol::Proxy))]
#[case(b"PROXY UNKNOWN\r\n", Some(Protocol::Proxy))]
#[case(b"PROXY", None)]
#[case(b"proxy a", None)]
#[case(b"GET", None)]
#[case(b"GETS /", None)]
#[case(b"get / HTTP/1.1", None)]
#[case(b" GET / HTTP/1.1", None)]
#[case(b"\x16", None)]
#[case(b"\x16\x03", Some(Protocol::Tls))]
#[case(b"\x16\x03\x01\x02\0\x01", Some(Protocol::Tls))]
#[case(b"\x16\x02", Some(Protocol::Garbage))]
#[case(b"\x16\r\n", Some(Protocol::Garbage))]
#[case(b"\x80\x2e\x01", Some(Protocol::Garbage))]
#[case(b"\xc3\xbc", Some(Protocol::Garbage))]
#[case(b"EHLO a\0", Some(Protocol::Garbage))]
#[case(b"EHLO \x7f", Some(Protocol::Garbage))]
#[case(b"EHLO \xc3\xbc", None)]
#[case(b"\x03", Some(Protocol::Garbage))]
#[case(b"", None)]
#[case(b"EHLO a\r\n", None)]
#[case(b"\r\n\t", None)]
fn protocols_that_are_not_smtp(#[case] line: &[u8], #[case] expected: Option<Protocol>) {
    assert_eq!(Protocol::recognise(line, 0), expected);
}

proptest! {
    #[test]
    fn a_protocol_is_the_same_in_any_split(
        start in prop::sample::select(vec![&b""[..], b"GET ", b"GE", b"PROXY ", b"PROX", b"\x16", b"\x16\x03", b"\x16\x03\x01", b"EHLO a", b"\r\n", b"PR"]),
        rest in prop::collection::vec(prop_oneof![Just(b' '), Just(b'A'), any::<u8>()], 0..20),
        sizes in prop::collection::vec(1usize..5, 0..30),
    ) {
        let line = [start, &rest].concat();
        let mut seen = 0;
        let mut found = None;
        for size in sizes.into_iter().chain([line.len()]) {
            let end = (seen + size).min(line.len());
            found = Protocol::recognise(&line[..end], seen);
            seen = end;
            if found.is_some() {
                break;
            }
        }
        prop_assert_eq!(found, Protocol::recognise(&line, 0));
    }
}
