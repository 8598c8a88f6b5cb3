use rstest::rstest;

use super::*;

fn shown(line: &str) -> Result<String, String> {
    match listed(line) {
        Ok(Listed::Network { network, corrected }) => {
            let mark = if corrected { " corrected" } else { "" };
            Ok(format!("{network}{mark}"))
        }
        Ok(Listed::Nothing) => Ok(String::new()),
        Err(error) => Err(format!("{}: {}", error.at, error.error)),
    }
}

/// Lines as they are published.
#[rstest]
#[case::drop_text("1.10.16.0/20 ; SBL256894", "1.10.16.0/20")]
#[case::drop_text_head(
    "; Spamhaus DROP List 2024/06/01 - (c) 2024 The Spamhaus Project SLU",
    ""
)]
#[case::drop_json(
    r#"{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}"#,
    "1.10.16.0/20"
)]
#[case::drop_json_v6(
    r#"{"cidr":"2001:db8:4::/48","sblid":"SBL1","rir":"ripencc"}"#,
    "2001:db8:4::/48"
)]
#[case::drop_json_tail(
    r#"{"type":"metadata","timestamp":1717243200,"size":81331,"records":1369,"copyright":"(c) 2024 The Spamhaus Project SLU","terms":"https://www.spamhaus.org/drop/terms/#x"}"#,
    ""
)]
#[case::dshield(
    "198.51.100.0\t198.51.100.255\t24\t4015\tEXAMPLE-AS\tUS\tabuse@example.net",
    "198.51.100.0/24"
)]
#[case::dshield_short("203.0.112.0\t203.0.113.255\t23\t77", "203.0.112.0/23")]
#[case::dshield_heading("Start\tEnd\tNetblock\tAttacks\tName\tCountry\temail", "")]
#[case::dshield_comment("#   primary URL: https://feeds.dshield.org/block.txt", "")]
#[case::ipsum("192.0.2.7\t9", "192.0.2.7/32")]
#[case::ipsum_head("# IPsum Threat Intelligence Feed", "")]
#[case::bare("2001:DB8::/32", "2001:db8::/32")]
#[case::words("192.0.2.7 since May, 3 times", "192.0.2.7/32")]
#[case::comment_in_a_word("192.0.2.7;x", "192.0.2.7/32")]
#[case::host_bits("192.0.2.1/24", "192.0.2.0/24 corrected")]
#[case::host_bits_v6("2001:db8::1/32", "2001:db8::/32 corrected")]
#[case::mapped("::ffff:192.0.2.7", "192.0.2.7/32 corrected")]
#[case::mapped_network("::ffff:192.0.2.7/120", "192.0.2.0/24 corrected")]
#[case::nothing(" \t", "")]
fn published(#[case] line: &str, #[case] expected: &str) {
    assert_eq!(shown(line), Ok(expected.to_owned()));
    assert_eq!(shown(&format!("\t {line} ")), Ok(expected.to_owned()));
}

#[rstest]
#[case::name("a.example", "0: \"a.example\" is not an address or a network")]
#[case::html("<!DOCTYPE html>", "0: \"<!DOCTYPE\" is not an address or a network")]
#[case::asn(
    r#"{"asn":245,"rir":"ripencc","domain":"example.net"}"#,
    "0: is JSON without \"cidr\""
)]
#[case::cut(r#"{"cidr":"1.10.16.0/20","sblid":"SBL2"#, "0: is not JSON with")]
#[case::json_type(r#"{"cidr":7}"#, "0: is not JSON with")]
#[case::json_cidr(r#" {"cidr":"1.10.16.0/33"}"#, "1: \"1.10.16.0/33\" is not an address")]
#[case::range("192.0.2.0 - 192.0.2.255", "0: \"192.0.2.0\" begins a range")]
#[case::not_its_length(
    "198.51.100.0\t198.51.100.255\t25",
    "0: \"198.51.100.0\" to \"198.51.100.255\" is not a network"
)]
#[case::not_its_begin("198.51.100.1\t198.51.100.255\t24", "0: \"198.51.100.1\" to")]
#[case::no_length("198.51.100.0\t198.51.100.255", "0: \"198.51.100.0\" to")]
#[case::two_families("198.51.100.0\t2001:db8::\t24", "0: \"198.51.100.0\" to")]
#[case::mapped_wide("::ffff:0.0.0.0/90", "0: \"::ffff:0.0.0.0/90\" is IPv4 in disguise")]
fn wrong_lines(#[case] line: &str, #[case] expected: &str) {
    let error = shown(line).unwrap_err();
    assert!(error.starts_with(expected), "{error}");
}
