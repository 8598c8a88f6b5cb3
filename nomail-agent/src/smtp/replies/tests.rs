use rstest::rstest;

use super::*;
use crate::smtp::relay::REPLY_MAX;

const HOST: &str = "mailless.example.org";

/// The replies that RFC 2034 section 4 exempts from enhanced codes.
const WITHOUT_CODE: [Reply; 6] = [
    Reply::Greeting,
    Reply::Welcome,
    Reply::Overloaded,
    Reply::HeloRefusal,
    Reply::Helo,
    Reply::Ehlo,
];

fn text(reply: Reply) -> String {
    let replies = Replies::new(HOST, None).unwrap();
    String::from_utf8(replies.line(reply).to_vec()).unwrap()
}

#[test]
fn every_reply_is_at_its_discriminant() {
    for (index, reply) in Reply::ALL.into_iter().enumerate() {
        assert_eq!(reply as usize, index);
    }
}

#[test]
fn s1_the_greeting_is_521() {
    assert_eq!(
        text(Reply::Greeting),
        "521 mailless.example.org does not accept mail\r\n"
    );
}

#[rstest]
#[case("a.example", true)]
#[case("localhost", true)]
#[case("3com.example", true)]
#[case("xn--bcher-kva.example", true)]
#[case("[192.0.2.7]", true)]
#[case("[IPv6:2001:db8::7]", true)]
#[case("[ipv6:2001:db8::7]", true)]
#[case("", false)]
#[case(".", false)]
#[case("a.example.", false)]
#[case("-a.example", false)]
#[case("a_b.example", false)]
#[case("b\u{fc}cher.example", false)]
#[case("a b", false)]
#[case("a\r\n250 ok", false)]
#[case("192.0.2.7", false)]
#[case("2001:db8::7", false)]
#[case("[192.0.2.256]", false)]
#[case("[2001:db8::7]", false)]
#[case("[IPv6:192.0.2.7]", false)]
#[case("[192.0.2.7", false)]
#[case("[\u{fc}\u{fc}\u{fc}]", false)]
fn s2_the_first_word_is_a_host_name_or_address_literal(
    #[case] hostname: &str,
    #[case] valid: bool,
) {
    match Replies::new(hostname, None) {
        Ok(replies) => {
            assert!(valid);
            for reply in [Reply::Greeting, Reply::Welcome, Reply::Overloaded] {
                let greeting = str::from_utf8(replies.line(reply)).unwrap();
                assert_eq!(greeting.split(' ').nth(1), Some(hostname));
            }
        }
        Err(error) => assert!(!valid, "{error}"),
    }
}

#[test]
fn s11_s12_s13_lines_are_one_code_and_printable_text() {
    for reply in Reply::ALL {
        let text = text(reply);
        let mut lines = text.strip_suffix("\r\n").unwrap().split("\r\n").peekable();
        let code = &text[..3];
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            let rest = line.strip_prefix(code).unwrap();
            let rest = rest.strip_prefix(separator).unwrap();
            assert!(!rest.is_empty() && rest.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
        assert!(code.bytes().all(|byte| byte.is_ascii_digit()));
    }
}

#[test]
fn s14_replies_have_at_most_512_octets() {
    let label = "a".repeat(LABEL_MAX);
    let longest = format!("{label}.{label}.{label}.{}", &label[..DOMAIN_MAX - 3 * 64]);
    assert_eq!(longest.len(), DOMAIN_MAX);
    let replies = Replies::new(&longest, None).unwrap();
    for reply in Reply::ALL {
        assert!(replies.line(reply).len() <= REPLY_MAX);
    }
    assert!(Replies::new(&format!("{longest}a"), None).is_err());
}

#[test]
fn s22_r21_enhanced_codes_of_their_class_where_rfc_2034_wants_them() {
    for reply in Reply::ALL {
        let text = text(reply);
        let class = &text[..1];
        let word = text[4..].split_whitespace().next().unwrap();
        let enhanced =
            word.split('.').count() == 3 && word.split('.').all(|part| part.parse::<u16>().is_ok());
        assert_eq!(enhanced, !WITHOUT_CODE.contains(&reply), "{text}");
        assert!(!enhanced || word.starts_with(class), "{text}");
    }
}

#[test]
fn s23_521_goes_with_5_3_2() {
    assert!(text(Reply::Refusal).starts_with("521 5.3.2 "));
}

#[test]
fn r9_ehlo_begins_with_the_host_and_lists_what_is_there() {
    assert_eq!(
        text(Reply::Ehlo),
        "250-mailless.example.org\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n"
    );
    assert_eq!(text(Reply::Helo), "250 mailless.example.org\r\n");
}

#[test]
fn no_reply_asks_for_a_message() {
    for reply in Reply::ALL {
        assert!(!text(reply).starts_with('3'));
    }
}

#[rstest]
#[case("mailless.example.org", true)]
#[case("MAILLESS.example.ORG.", true)]
#[case("[192.0.2.1]", true)]
#[case("sub.mailless.example.org", false)]
#[case("example.org", false)]
fn own_mail_is_for_the_host_itself(#[case] domain: &str, #[case] own: bool) {
    assert_eq!(
        Replies::new(HOST, None).unwrap().is_own(domain.as_bytes()),
        own
    );
}
