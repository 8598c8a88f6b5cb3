use rstest::rstest;

use super::*;

#[test]
fn other_names_are_those_of_own_addresses() {
    let hosts = "127.0.0.1 localhost localhost.localdomain\n127.0.1.1 A.example.org a\n\
                 192.0.2.1\twww.example.org x # no.example.org\n192.0.2.9 other.example\n\
                 2001:db8::1 six.example.org a_b.example.org\n";
    let own = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
    let expected = ["a.example.org", "www.example.org", "six.example.org"];
    assert_eq!(aliases_of(&own, hosts), expected);
    assert_eq!(aliases_of(&[], hosts), expected[..1]);
}

#[rstest]
#[case::has_a_dot("a.example.org", "", Some("a.example.org"))]
#[case::debian(
    "a",
    "127.0.0.1 localhost\n127.0.1.1\ta.example.org a # x\n",
    Some("a.example.org")
)]
#[case::dotted_later("A", "192.0.2.7 a a.example.org", Some("a.example.org"))]
#[case::other_line("a", "192.0.2.7 b.example.org b", None)]
#[case::comment("a", "# 192.0.2.7 a.example.org a", None)]
#[case::no_dot("a", "127.0.1.1 a", None)]
#[case::stand_in("localhost", "127.0.0.1 localhost.localdomain localhost", None)]
#[case::underscore("a_b", "127.0.1.1 a_b.example.org a_b", None)]
#[case::nothing("", "", None)]
fn name_of_host(#[case] name: &str, #[case] hosts: &str, #[case] expected: Option<&str>) {
    let found = fqdn_of(name, hosts);
    assert_eq!(found.as_ref().map(Hostname::as_str), expected);
}
