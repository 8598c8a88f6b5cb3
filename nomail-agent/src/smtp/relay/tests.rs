use proptest::prelude::*;
use rstest::rstest;

use super::*;

const DEFAULT: &str = "this domain takes no mail";

fn relay(domains: &[(&str, Option<&str>)]) -> RefusedDomains {
    let domains = domains
        .iter()
        .map(|(name, text)| (name, text.map(Arc::from)));
    RefusedDomains::new(RelayCode::Listed, DEFAULT, domains, None)
}

fn text<'a>(relay: &'a RefusedDomains, domain: &str) -> Option<&'a str> {
    let line = relay.refusal(domain.as_bytes())?;
    str::from_utf8(line)
        .unwrap()
        .strip_prefix("556 5.1.2 ")?
        .strip_suffix("\r\n")
}

#[rstest]
#[case(RelayCode::Listed, "556 5.1.2 no mail here\r\n")]
#[case(RelayCode::NullMx, "556 5.1.10 no mail here\r\n")]
#[case(RelayCode::Rfc1846, "521 5.3.2 no mail here\r\n")]
fn r1_r3_r4_the_code_and_its_enhanced_code(#[case] code: RelayCode, #[case] expected: &str) {
    let relay = RefusedDomains::new(code, "no mail here", [("example.org", None)], None);
    assert_eq!(relay.refusal(b"example.org"), Some(expected.as_bytes()));
    assert_eq!(relay.postmaster(), None);
}

#[test]
fn r8_the_postmaster_is_elsewhere() {
    let none = [("example.org", None)];
    let relay = RefusedDomains::new(
        RelayCode::Rfc1846,
        DEFAULT,
        none,
        Some("postmaster@example.net"),
    );
    let expected = b"551 5.1.6 User not local; please try <postmaster@example.net>\r\n";
    assert_eq!(relay.postmaster(), Some(&expected[..]));
}

#[rstest]
#[case("example.org", Some("exact"))]
#[case("EXAMPLE.Org", Some("exact"))]
#[case("example.org.", Some("exact"))]
#[case("example.org..", None)]
#[case("a.example.org", Some("below"))]
#[case("a.b.example.org", Some("below"))]
#[case("deep.example.org", Some("below"))]
#[case("a.deep.example.org", Some("deeper"))]
#[case("named.deep.example.org", Some(DEFAULT))]
#[case("a.named.deep.example.org", Some("deeper"))]
#[case("only-below.example", None)]
#[case("a.only-below.example.", Some(DEFAULT))]
#[case("xexample.org", None)]
#[case("org", None)]
#[case("", None)]
#[case(".", None)]
#[case("*.example.org", Some("below"))]
#[case("[192.0.2.7]", None)]
#[case("b\u{fc}cher.example", Some(DEFAULT))]
#[case("B\u{dc}CHER.EXAMPLE", Some(DEFAULT))]
#[case("bu\u{308}cher\u{3002}example", Some(DEFAULT))]
#[case("B\u{fc}cher.Example.", Some(DEFAULT))]
#[case("XN--Bcher-KVA.example", Some(DEFAULT))]
#[case("a\u{fc}.b\u{fc}cher.example", Some("below"))]
#[case("\u{fc}.example", None)]
#[case("\u{ff05}.example", None)]
fn exact_names_then_the_longest_wildcard(#[case] domain: &str, #[case] expected: Option<&str>) {
    let relay = relay(&[
        ("example.org", Some("exact")),
        ("*.example.org", Some("below")),
        ("*.deep.example.org", Some("deeper")),
        ("named.deep.example.org", None),
        ("*.only-below.example", None),
        ("xn--bcher-kva.example", None),
        ("*.xn--bcher-kva.example", Some("below")),
    ]);
    assert_eq!(text(&relay, domain), expected);
}

#[test]
fn bytes_that_are_not_utf8_or_too_many_are_in_no_list() {
    let relay = relay(&[("*.org", None)]);
    assert_eq!(relay.refusal(b"b\xfccher.org"), None);
    assert!(relay.refusal("a.".repeat(126).as_bytes()).is_none());
    let longest = "a.".repeat(126) + "org";
    assert!(relay.refusal(longest.as_bytes()).is_some());
    assert!(relay.refusal(format!("a{longest}").as_bytes()).is_none());
    assert!(
        relay
            .refusal(format!("\u{fc}{longest}").as_bytes())
            .is_none()
    );
}

#[rstest]
#[case("Example.ORG.", Some("example.org"))]
#[case("*.B\u{fc}cher.example", Some("*.xn--bcher-kva.example"))]
#[case("a_b.example", Some("a_b.example"))]
#[case("xn--a", None)]
#[case("a b.example", None)]
fn names_have_one_form(#[case] name: &str, #[case] expected: Option<&str>) {
    assert_eq!(to_ascii(name.as_bytes()).as_deref(), expected);
}

#[rstest]
#[case("a\r\n250 ok")]
#[case("b\u{fc}cher")]
#[case("\0\x7f\t")]
#[case(&"\u{fc}a".repeat(1000))]
fn s11_s14_no_text_breaks_a_reply_line(#[case] given: &str) {
    let domains = [("a", Some(Arc::from(given)))];
    let relay = RefusedDomains::new(RelayCode::NullMx, given, domains, Some(given));
    for line in [relay.refusal(b"a"), relay.postmaster()] {
        let line = line.unwrap();
        assert!(line.len() <= 512);
        let text = line.strip_suffix(b"\r\n").unwrap();
        assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)));
    }
}

#[test]
fn a_text_is_rendered_once_however_many_domains_have_it() {
    let domains = (0..1000).map(|n| {
        (
            format!("d{n}.example"),
            Some(Arc::from(format!("text {}", n % 3))),
        )
    });
    let relay = RefusedDomains::new(RelayCode::NullMx, DEFAULT, domains, None);
    assert_eq!(relay.lines.len(), 4);
    assert_eq!(relay.len(), 1000);
}

#[test]
fn a_hundred_thousand_domains_are_all_found() {
    let name = |n: u32| match n % 4 {
        0 => format!("*.wild-{n}.example"),
        _ => format!("mailless-{n}.example"),
    };
    let domains = (0..100_000).map(|n| (name(n), None));
    let relay = RefusedDomains::new(RelayCode::Listed, DEFAULT, domains, None);
    assert_eq!(relay.len(), 100_000);
    for n in 0..100_000 {
        let name = name(n).replace('*', "any.depth");
        assert_eq!(text(&relay, &name), Some(DEFAULT));
    }
    assert_eq!(text(&relay, "mailless-0.example"), None);
    assert_eq!(text(&relay, "wild-0.example"), None);
}

/// Few labels, so that names and wildcards meet.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "cc"]), 1..5)
        .prop_map(|labels| labels.join("."))
}

fn entry() -> impl Strategy<Value = (String, Option<String>)> {
    let name = (name(), any::<bool>()).prop_map(|(name, wild)| match wild {
        true => format!("*.{name}"),
        false => name,
    });
    (name, prop::option::of("[a-e]"))
}

/// The same rules on the whole list: among the entries that cover
/// the name, the longest, and of those the last.
fn expected<'a>(entries: &'a [(String, Option<String>)], domain: &str) -> Option<&'a str> {
    let covering = entries
        .iter()
        .filter(|(name, _)| match name.strip_prefix('*') {
            Some(suffix) => domain.ends_with(suffix),
            None => name == domain,
        });
    // A name is longer than any wildcard for it: it counts for one more.
    let length = |name: &str| name.trim_start_matches("*.").len();
    covering
        .max_by_key(|(name, _)| length(name))
        .map(|(_, text)| text.as_deref().unwrap_or(DEFAULT))
}

proptest! {
    #[test]
    fn the_table_agrees_with_the_list(
        entries in prop::collection::vec(entry(), 0..20),
        domains in prop::collection::vec(name(), 1..20),
    ) {
        let list: Vec<_> = entries.iter().map(|(name, text)| (name.as_str(), text.as_deref())).collect();
        let relay = relay(&list);
        for domain in domains {
            prop_assert_eq!(text(&relay, &domain), expected(&entries, &domain));
            prop_assert_eq!(text(&relay, &(domain.to_uppercase() + ".")), expected(&entries, &domain));
        }
    }

    #[test]
    fn any_bytes_are_looked_up_without_panic(domain in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = relay(&[("*.org", None)]).refusal(&domain);
    }

    #[test]
    fn any_letters_are_looked_up_without_panic(domain in "\\PC{0,80}") {
        let _ = relay(&[("*.org", None)]).refusal(domain.as_bytes());
    }
}
