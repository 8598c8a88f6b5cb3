//! The domains that a relay refuses: those for which this host is the mail
//! exchanger, and which take no mail (RFC 1846 section 3, RFC 7504 section 4,
//! RFC 7505 section 4.1).

use std::{collections::HashMap, sync::Arc};

use idna::AsciiDenyList;

use super::command::DOMAIN_MAX;

/// The longest reply line with its CRLF (RFC 5321 section 4.5.3.1.5).
const REPLY_MAX: usize = 512;

/// The code with which a domain is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 556 5.1.2: the operator says that the domain takes no mail (RFC 7504
    /// section 4).
    DoesNotAcceptMail,
    /// 556 5.1.10: the domain has a null MX (RFC 7505 section 4.1).
    NullMx,
    /// 521 5.3.2: the letter of RFC 1846 section 3.
    Host,
}

impl Code {
    /// The reply code and the enhanced status code (RFC 2034).
    const fn digits(self) -> &'static str {
        match self {
            Self::DoesNotAcceptMail => "556 5.1.2",
            Self::NullMx => "556 5.1.10",
            Self::Host => "521 5.3.2",
        }
    }
}

/// The mailless domains of a relay and the replies for them.
///
/// Built once for a configuration and never changed. A domain is found in a
/// time that its own length bounds, however many there are.
#[derive(Debug)]
pub struct Relay {
    /// Every distinct reply line, with its CRLF.
    lines: Vec<Box<[u8]>>,
    /// By name: which of `lines`.
    exact: HashMap<Box<[u8]>, usize>,
    /// By what follows `*.`: which of `lines`.
    wildcards: HashMap<Box<[u8]>, usize>,
    postmaster: Option<Box<[u8]>>,
}

impl Relay {
    /// The relay for `domains`: names or wildcards such as `*.example.org`,
    /// each as [`to_ascii`] writes it, and the text for it unless it is
    /// `default_text`. Of a name that comes twice the last counts.
    ///
    /// A wildcard covers every name below it, at any depth, and not the name
    /// itself. A name that is in the list itself, or in a longer wildcard,
    /// has the text that it has there.
    ///
    /// `postmaster` is the address that those who want the postmaster are
    /// told to write to.
    ///
    /// Texts are cut where a reply line has to end, and what cannot stand in
    /// one becomes a question mark: whoever reads texts from an operator
    /// checks them before.
    pub fn new<N: AsRef<str>>(
        code: Code,
        default_text: &str,
        domains: impl IntoIterator<Item = (N, Option<Arc<str>>)>,
        postmaster: Option<&str>,
    ) -> Self {
        let mut lines = vec![reply(code.digits(), default_text)];
        let mut known: HashMap<Arc<str>, usize> = HashMap::new();
        let mut exact = HashMap::new();
        let mut wildcards = HashMap::new();
        for (name, text) in domains {
            let line = match text {
                None => 0,
                Some(text) => *known.entry(text).or_insert_with_key(|text| {
                    lines.push(reply(code.digits(), text));
                    lines.len() - 1
                }),
            };
            let (names, name) = match name.as_ref().strip_prefix("*.") {
                Some(parent) => (&mut wildcards, parent),
                None => (&mut exact, name.as_ref()),
            };
            names.insert(name.as_bytes().into(), line);
        }
        Self {
            lines,
            exact,
            wildcards,
            postmaster: postmaster.map(|address| {
                reply(
                    "551 5.1.6",
                    &format!("User not local; please try <{address}>"),
                )
            }),
        }
    }

    /// The complete reply line for a recipient's domain, if it is refused.
    ///
    /// Case and a final dot do not matter; U-labels, in UTF-8, mean their
    /// A-labels (RFC 5890). A domain in ASCII is looked up without
    /// allocation.
    pub fn refusal(&self, domain: &[u8]) -> Option<&[u8]> {
        let mut buffer = [0; DOMAIN_MAX];
        let line = if domain.is_ascii() {
            let name = buffer.get_mut(..domain.len())?;
            name.copy_from_slice(domain);
            name.make_ascii_lowercase();
            self.find(name.strip_suffix(b".").unwrap_or(name))
        } else if domain.len() <= DOMAIN_MAX {
            self.find(to_ascii(domain)?.as_bytes())
        } else {
            None
        };
        self.lines.get(line?).map(AsRef::as_ref)
    }

    /// The complete reply line for the postmaster, if there is an address to
    /// give: 551, another mailbox to try (RFC 5321 section 3.4).
    pub fn postmaster(&self) -> Option<&[u8]> {
        self.postmaster.as_deref()
    }

    /// How many names and wildcards there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name itself, and then what is after each of its dots: the longest
    /// wildcard first.
    fn find(&self, name: &[u8]) -> Option<usize> {
        let mut line = self.exact.get(name);
        let mut rest = name;
        while line.is_none() {
            let dot = rest.iter().position(|&octet| octet == b'.')?;
            rest = rest.get(dot + 1..)?;
            line = self.wildcards.get(rest);
        }
        line.copied()
    }
}

/// A domain name in lower case and A-labels, without a final dot: the one form
/// in which names are compared (UTS #46). None when there is no such form.
///
/// A leading `*.` stays. Whether labels are right for a host name is not
/// checked.
pub fn to_ascii(domain: &[u8]) -> Option<String> {
    let mut name = idna::domain_to_ascii_cow(domain, AsciiDenyList::URL)
        .ok()?
        .into_owned();
    if name.ends_with('.') {
        name.pop();
    }
    Some(name)
}

/// One reply line: printable ASCII (RFC 5321 section 4.2), at most 512 octets.
fn reply(digits: &str, text: &str) -> Box<[u8]> {
    let mut line = format!("{digits} ").into_bytes();
    let octet = |letter: char| match letter {
        ' '..='~' => letter as u8,
        _ => b'?',
    };
    line.extend(text.chars().map(octet));
    line.truncate(REPLY_MAX - b"\r\n".len());
    line.extend(b"\r\n");
    line.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const DEFAULT: &str = "this domain takes no mail";

    fn relay(domains: &[(&str, Option<&str>)]) -> Relay {
        let domains = domains
            .iter()
            .map(|(name, text)| (name, text.map(Arc::from)));
        Relay::new(Code::DoesNotAcceptMail, DEFAULT, domains, None)
    }

    fn text<'a>(relay: &'a Relay, domain: &str) -> Option<&'a str> {
        let line = relay.refusal(domain.as_bytes())?;
        str::from_utf8(line)
            .unwrap()
            .strip_prefix("556 5.1.2 ")?
            .strip_suffix("\r\n")
    }

    #[rstest]
    #[case(Code::DoesNotAcceptMail, "556 5.1.2 no mail here\r\n")]
    #[case(Code::NullMx, "556 5.1.10 no mail here\r\n")]
    #[case(Code::Host, "521 5.3.2 no mail here\r\n")]
    fn r1_r3_r4_the_code_and_its_enhanced_code(#[case] code: Code, #[case] expected: &str) {
        let relay = Relay::new(code, "no mail here", [("example.org", None)], None);
        assert_eq!(relay.refusal(b"example.org"), Some(expected.as_bytes()));
        assert_eq!(relay.postmaster(), None);
    }

    #[test]
    fn r8_the_postmaster_is_elsewhere() {
        let none = [("example.org", None)];
        let relay = Relay::new(Code::Host, DEFAULT, none, Some("postmaster@example.net"));
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
    fn octets_that_are_not_utf8_or_too_many_are_in_no_list() {
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
        let relay = Relay::new(Code::NullMx, given, domains, Some(given));
        for line in [relay.refusal(b"a"), relay.postmaster()] {
            let line = line.unwrap();
            assert!(line.len() <= 512);
            let text = line.strip_suffix(b"\r\n").unwrap();
            assert!(text.iter().all(|octet| (b' '..=b'~').contains(octet)));
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
        let relay = Relay::new(Code::NullMx, DEFAULT, domains, None);
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
        let relay = Relay::new(Code::DoesNotAcceptMail, DEFAULT, domains, None);
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

    /// The same rules, said of the whole list: among the entries that cover
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
        fn the_table_says_what_the_list_says(
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
        fn any_octets_are_looked_up_without_panic(domain in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = relay(&[("*.org", None)]).refusal(&domain);
        }

        #[test]
        fn any_letters_are_looked_up_without_panic(domain in "\\PC{0,80}") {
            let _ = relay(&[("*.org", None)]).refusal(domain.as_bytes());
        }
    }
}
