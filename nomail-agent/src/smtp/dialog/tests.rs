use std::sync::Arc;

use nomail_common::counted::Counted as _;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::refusal::RelayCode;

const HOST: &str = "mailless.example.org";
const POINTS: [RefusalPoint; 4] = [
    RefusalPoint::Greeting,
    RefusalPoint::Ehlo,
    RefusalPoint::Mail,
    RefusalPoint::Rcpt,
];
const LIMIT: usize = COMMANDS_MAX as usize;

fn replies() -> Replies {
    Replies::new(HOST, None).unwrap()
}

fn relay() -> Replies {
    let domains = [
        ("example.com", None),
        ("*.example.com", Some(Arc::from("write to example.net"))),
        ("xn--bcher-kva.example", None),
    ];
    let relay = RefusedDomains::new(
        RelayCode::Listed,
        "this domain does not accept mail",
        domains,
        Some("postmaster@example.net"),
    );
    Replies::new(HOST, Some(Arc::new(relay))).unwrap()
}

/// The answer to one command, without the borrows of an [`DialogAction`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    text: String,
    may_wait: bool,
    end: Option<Outcome>,
    refused: Option<RefusalPoint>,
}

impl From<DialogAction<'_>> for Answer {
    fn from(action: DialogAction<'_>) -> Self {
        Self {
            text: String::from_utf8(action.line.to_vec()).unwrap(),
            may_wait: action.may_wait,
            end: action.end,
            refused: action.refused,
        }
    }
}

/// All answers to `input`, passed in pieces of the given sizes, and the
/// dialog after them.
fn talk(
    point: RefusalPoint,
    replies: &Replies,
    input: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> (Dialog, Vec<Answer>) {
    let mut dialog = Dialog::open(point, AfterGreeting::Hold, replies).0;
    let mut answers = Vec::new();
    let mut rest = input;
    let mut sizes = sizes.into_iter();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (mut piece, after) = rest.split_at(size);
        while !piece.is_empty() {
            let (taken, action) = dialog.receive(replies, piece);
            assert!(taken > 0 && (action.is_some() || taken == piece.len()));
            answers.extend(action.map(Answer::from));
            piece = &piece[taken..];
            assert!(dialog.held() <= 2 * LINE_MAX as usize);
        }
        rest = after;
    }
    (dialog, answers)
}

fn answers(point: RefusalPoint, input: &[u8]) -> Vec<Answer> {
    talk(point, &replies(), input, []).1
}

/// The codes of the answers: `250` or `521 5.3.2`.
fn codes(point: RefusalPoint, input: &str) -> Vec<String> {
    codes_of(&answers(point, input.as_bytes()))
}

fn codes_of(answers: &[Answer]) -> Vec<String> {
    let code = |answer: &Answer| {
        let mut words = answer.text[4..].split_whitespace();
        let enhanced = words.next().filter(|word| {
            word.split('.').count() == 3 && word.split('.').all(|n| n.parse::<u16>().is_ok())
        });
        let code = &answer.text[..3];
        enhanced.map_or(code.to_owned(), |enhanced| format!("{code} {enhanced}"))
    };
    answers.iter().map(code).collect()
}

// RFC 1846 section 4: the host that greets with 521.

#[test]
fn s1_the_greeting_is_521() {
    let replies = replies();
    for after in [AfterGreeting::Hold, AfterGreeting::Close] {
        let (_, action) = Dialog::open(RefusalPoint::Greeting, after, &replies);
        assert_eq!(
            action.line,
            b"521 mailless.example.org does not accept mail\r\n"
        );
        assert_eq!(action.refused, Some(RefusalPoint::Greeting));
    }
    for point in [RefusalPoint::Ehlo, RefusalPoint::Mail, RefusalPoint::Rcpt] {
        let (_, action) = Dialog::open(point, AfterGreeting::Hold, &replies);
        assert!(action.line.starts_with(b"220 mailless.example.org "));
        assert_eq!((action.refused, action.end), (None, None));
    }
}

#[test]
fn s3a_close_after_the_greeting() {
    let replies = replies();
    let (mut dialog, action) = Dialog::open(RefusalPoint::Greeting, AfterGreeting::Close, &replies);
    assert_eq!(action.end, Some(Outcome::Closed));
    assert_eq!(dialog.receive(&replies, b"QUIT\r\nNOOP\r\n"), (12, None));
    assert_eq!(dialog.interrupt(&replies, Interruption::Deadline), None);
}

#[rstest]
fn s3b_and_s7_everything_but_quit_is_answered_521(
    #[values(
        "EHLO a",
        "HELO a",
        "MAIL FROM:<>",
        "RCPT TO:<a@b>",
        "DATA",
        "RSET",
        "NOOP",
        "VRFY a",
        "HELP",
        "EXPN a",
        "STARTTLS",
        "AUTH PLAIN",
        "get / http/1.1",
        "",
        " ",
        ".",
        "QUI",
        "QUITX",
        " QUIT",
        "QUIT\r",
        "a\u{fc}"
    )]
    command: &str,
) {
    let answers = answers(RefusalPoint::Greeting, format!("{command}\r\n").as_bytes());
    assert_eq!(codes_of(&answers), ["521 5.3.2"]);
    assert_eq!((answers[0].end, answers[0].refused), (None, None));
}

#[rstest]
fn s4_a_time_out_closes(#[values(0, 1, 2, 3)] point: usize) {
    let replies = replies();
    let (mut dialog, _) = talk(POINTS[point], &replies, b"EHLO a\r\nhalf", []);
    let action = dialog.interrupt(&replies, Interruption::Deadline).unwrap();
    assert!(action.line.starts_with(b"421 4.4.2 "));
    assert_eq!(action.end, Some(Outcome::TimedOut));
    assert_eq!(dialog.interrupt(&replies, Interruption::Deadline), None);
    assert_eq!(dialog.receive(&replies, b"NOOP\r\n"), (6, None));
}

// S5 and S6 tell the operator when to use 521: nothing here chooses by
// peer or by recipient. S26 is for hosts that greet with 554.

#[rstest]
fn s8_quit_is_answered_221(
    #[values(0, 1, 2, 3)] point: usize,
    // S17, S18, S19: white space, case, arguments.
    #[values("QUIT", "QUIT ", "QUIT\t", "QUIT  \t ", "quit", "qUIT", "QUIT now")] line: &str,
) {
    let answers = answers(POINTS[point], format!("{line}\r\n").as_bytes());
    assert_eq!(codes_of(&answers), ["221 2.0.0"]);
    assert_eq!(answers[0].end, Some(Outcome::Quit));
}

#[rstest]
fn s9_r11_without_quit_the_session_stays_open(#[values(0, 1, 2, 3)] point: usize) {
    let answers = answers(POINTS[point], &b"RSET\r\n".repeat(LIMIT - 1));
    assert_eq!(answers.len(), LIMIT - 1);
    assert!(answers.iter().all(|answer| answer.end.is_none()));
}

#[rstest]
fn s10_one_reply_for_one_command(#[values(0, 1, 2, 3)] point: usize) {
    let point = POINTS[point];
    assert_eq!(answers(point, b"EHLO a\r\n\r\nNOOP\r\n").len(), 3);
    assert_eq!(answers(point, b"EHLO a\r").len(), 0);
    assert_eq!(answers(point, b"QUIT\r\nQUIT\r\nNOOP\r\n").len(), 1);
}

#[rstest]
#[case(512, "221 2.0.0", "221 2.0.0")]
// A command with a long argument is read all the same, see below.
#[case(513, "521 5.3.2", "500 5.5.6")]
#[case(LINE_DISCARD_MAX, "521 5.3.2", "500 5.5.6")]
#[case(LINE_DISCARD_MAX + 1, "521 5.3.2", "521 5.3.2")]
fn s15_r18_lines_of_512_octets_are_commands(
    #[case] length: u32,
    #[case] greeted: &str,
    #[case] later: &str,
) {
    let padding = " ".repeat(length as usize - 6);
    let line = format!("QUIT{padding}\r\n");
    assert_eq!(codes(RefusalPoint::Greeting, &line), [greeted]);
    assert_eq!(codes(RefusalPoint::Rcpt, &line), [later]);
    let answer = &answers(RefusalPoint::Greeting, line.as_bytes())[0];
    assert_eq!(
        answer.end.is_some(),
        length == 512 || length > LINE_DISCARD_MAX
    );
}

#[test]
fn s15_after_a_long_line_the_next_is_a_command() {
    let input = format!("{}\r\nQUIT\r\n", "a".repeat(2000));
    assert_eq!(
        codes(RefusalPoint::Greeting, &input),
        ["521 5.3.2", "221 2.0.0"]
    );
    assert_eq!(
        codes(RefusalPoint::Rcpt, &input),
        ["500 5.5.6", "221 2.0.0"]
    );
}

#[rstest]
#[case("QUIT\r", 0)]
#[case("NOOP\rQUIT\r\n", 1)]
#[case("NOOP\r\r\nNOOP\r\n", 2)]
fn s16_only_crlf_ends_a_line(#[case] input: &str, #[case] lines: usize) {
    for point in POINTS {
        let whole = answers(point, input.as_bytes());
        assert_eq!(whole.len(), lines);
        assert_eq!(whole, talk(point, &replies(), input.as_bytes(), [1; 32]).1);
    }
}

/// It ends no line, and no client waits for an answer in vain.
#[rstest]
#[case("QUIT\n", 0)]
#[case("\n", 0)]
#[case("NOOP\nQUIT\n\r\n", 0)]
#[case("NOOP\r\nEHLO a\nQUIT\r\n", 1)]
#[case("RCPT TO:<a@b>\r\n\nMAIL FROM:<>\r\n", 1)]
fn s16_a_bare_lf_is_refused_and_closed(#[case] input: &str, #[case] lines: usize) {
    for replies in [replies(), relay()] {
        for point in POINTS {
            for sizes in [vec![], vec![1; input.len()]] {
                let (_, answers) = talk(point, &replies, input.as_bytes(), sizes);
                assert_eq!(answers.len(), lines + 1);
                let last = answers.last().unwrap();
                let wanted = "521 5.5.2 mailless.example.org does not accept mail, and lines \
                              end with CR LF\r\n";
                assert_eq!(last.text, wanted);
                assert_eq!(last.end, Some(Outcome::Closed));
            }
        }
    }
}

#[test]
fn s20_a_shutdown_is_announced_with_421() {
    let replies = replies();
    let mut dialog = Dialog::open(RefusalPoint::Greeting, AfterGreeting::Hold, &replies).0;
    let action = dialog.interrupt(&replies, Interruption::Shutdown).unwrap();
    assert!(action.line.starts_with(b"421 4.3.2 "));
    assert_eq!(action.end, Some(Outcome::Closed));
}

#[test]
fn s20_an_evicted_session_is_refused_or_deferred() {
    for (replies, point, expected) in [
        (replies(), RefusalPoint::Greeting, "521 5.3.2 "),
        (replies(), RefusalPoint::Rcpt, "521 5.3.2 "),
        (relay(), RefusalPoint::Rcpt, "421 4.3.2 "),
    ] {
        let mut dialog = Dialog::open(point, AfterGreeting::Hold, &replies).0;
        let action = dialog.interrupt(&replies, Interruption::Eviction).unwrap();
        assert!(action.line.starts_with(expected.as_bytes()));
        assert_eq!(action.end, Some(Outcome::Closed));
        assert_eq!(dialog.receive(&replies, b"QUIT\r\n"), (6, None));
    }
}

#[test]
fn s21_postmaster_is_no_exception() {
    assert_eq!(
        codes(RefusalPoint::Greeting, "RCPT TO:<postmaster>\r\n"),
        ["521 5.3.2"]
    );
}

#[test]
fn s24_pipelined_commands_are_answered_in_order_one_by_one() {
    let replies = replies();
    let mut dialog = Dialog::open(RefusalPoint::Greeting, AfterGreeting::Hold, &replies).0;
    let (taken, action) = dialog.receive(&replies, b"NOOP\r\nQUIT\r\n");
    assert_eq!((taken, action.unwrap().end), (6, None));
    let (taken, action) = dialog.receive(&replies, b"QUIT\r\n");
    assert_eq!((taken, action.unwrap().end), (6, Some(Outcome::Quit)));
}

#[rstest]
fn s25_a_session_that_goes_on_for_ever_is_closed(#[values(0, 1, 2, 3)] point: usize) {
    let answers = answers(POINTS[point], &b"NOOP\r\n".repeat(LIMIT + 5));
    assert_eq!(answers.len(), LIMIT);
    assert_eq!(answers.last().unwrap().end, Some(Outcome::Closed));
}

// The dialogs that refuse later.

#[test]
fn ehlo_and_helo_are_refused_and_the_session_is_held() {
    let answers = answers(
        RefusalPoint::Ehlo,
        b"EHLO a\r\nHELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nQUIT\r\n",
    );
    // RFC 2034 has no enhanced codes in replies to EHLO and HELO.
    let refused = ["521", "521", "521 5.3.2", "521 5.3.2", "521 5.3.2"];
    assert_eq!(codes_of(&answers), [&refused[..], &["221 2.0.0"]].concat());
    assert!(answers[0].text.starts_with("521 mailless.example.org "));
    let points: Vec<_> = answers.iter().filter_map(|answer| answer.refused).collect();
    assert_eq!(points, [RefusalPoint::Ehlo]);
    assert!(answers[..5].iter().all(|answer| answer.end.is_none()));
}

#[test]
fn mail_is_refused_at_mail() {
    let input = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<>\r\n";
    let answers = answers(RefusalPoint::Mail, input);
    let wanted = ["250", "521 5.3.2", "521 5.3.2", "503 5.5.1", "521 5.3.2"];
    assert_eq!(codes_of(&answers), wanted);
    assert_eq!(answers[1].refused, Some(RefusalPoint::Mail));
    assert_eq!(answers[4].refused, None);
}

#[test]
fn mail_is_refused_at_rcpt() {
    let input = b"HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nRCPT TO:<postmaster>\r\nDATA\r\n";
    let answers = answers(RefusalPoint::Rcpt, input);
    let wanted = ["250", "250 2.1.0", "521 5.3.2", "521 5.3.2", "554 5.5.1"];
    assert_eq!(codes_of(&answers), wanted);
    assert_eq!(answers[2].refused, Some(RefusalPoint::Rcpt));
}

/// R10, R11, R12, R13, R15, R16, R19: what is said before, between and
/// after, where mail is refused at RCPT. Where RFC 5321 has 501, 503 or 555
/// for MAIL and RCPT, the sender goes on to its 521.
#[rstest]
#[case("MAIL FROM:<a@b>|RCPT TO:<a@b>", "250 2.1.0|521 5.3.2")]
#[case("RCPT TO:<a@b>", "521 5.3.2")]
#[case("RCPT TO:<a@b>|DATA", "521 5.3.2|503 5.5.1")]
#[case("DATA", "503 5.5.1")]
#[case("EHLO a|RCPT TO:<a@b>", "250|521 5.3.2")]
#[case("EHLO a|DATA", "250|503 5.5.1")]
#[case("EHLO a|MAIL FROM:<>|MAIL FROM:<>", "250|250 2.1.0|250 2.1.0")]
#[case("EHLO a|MAIL FROM:<>|DATA", "250|250 2.1.0|554 5.5.1")]
#[case(
    "EHLO a|MAIL FROM:<>|EHLO a|RCPT TO:<a@b>|DATA",
    "250|250 2.1.0|250|521 5.3.2|503 5.5.1"
)]
#[case(
    "EHLO a|MAIL FROM:<>|RSET|RCPT TO:<a@b>|DATA",
    "250|250 2.1.0|250 2.0.0|521 5.3.2|503 5.5.1"
)]
#[case(
    "EHLO a|RSET|MAIL FROM:<>|RCPT TO:<a@b>",
    "250|250 2.0.0|250 2.1.0|521 5.3.2"
)]
#[case(
    "EHLO a|MAIL FROM:<>|NOOP x|RCPT TO:<a@b>",
    "250|250 2.1.0|250 2.0.0|521 5.3.2"
)]
#[case(
    "EHLO a|MAIL FROM:<>|VRFY a|HELP|RCPT TO:<a@b>",
    "250|250 2.1.0|550 5.1.1|214 2.0.0|521 5.3.2"
)]
#[case("NOOP|RSET|VRFY a|HELP", "250 2.0.0|250 2.0.0|550 5.1.1|214 2.0.0")]
#[case("EHLO|HELO|EHLO \u{fc}|helo", "250|250|250|250")]
#[case("RSET now|VRFY|DATA now", "250 2.0.0|550 5.1.1|503 5.5.1")]
#[case("EHLO a|MAIL FROM:a@b|MAIL FROM:<a@b", "250|250 2.1.0|250 2.1.0")]
#[case("MAIL FROM:<>|RCPT TO:<root>|RCPT", "250 2.1.0|521 5.3.2|521 5.3.2")]
#[case("EHLO a|MAIL FROM:<a@b> SIZE=1 RET=HDRS ENVID=x", "250|250 2.1.0")]
#[case("MAIL FROM:<>|RCPT TO:<a@b> NOTIFY=NEVER", "250 2.1.0|521 5.3.2")]
#[case("EHLO a|MAIL FROM:<\u{fc}@b> SMTPUTF8", "250|250 2.1.0")]
#[case("STARTTLS|EXPN a|BDAT 1", "502 5.5.1|502 5.5.1|502 5.5.1")]
#[case("AUTH PLAIN|RCPT TO:<a@b>", "521 5.3.2|521 5.3.2")]
#[case("NOSUCH|.", "500 5.5.1|500 5.5.1")]
#[case("EHLO a||.", "250|500 5.5.1|500 5.5.1")]
fn r10_to_r19_in_any_order(#[case] lines: &str, #[case] wanted: &str) {
    let input = lines.replace('|', "\r\n") + "\r\n";
    let wanted: Vec<_> = wanted.split('|').collect();
    assert_eq!(codes(RefusalPoint::Rcpt, &input), wanted);
}

#[test]
fn r12_no_354_whatever_is_said() {
    let all = [
        "EHLO a",
        "HELO a",
        "MAIL FROM:<a@b>",
        "RCPT TO:<a@b>",
        "DATA",
        "RSET",
        "NOOP",
    ];
    for first in all {
        for second in all {
            for third in all {
                for last in all {
                    let input = [first, second, third, last, ""].join("\r\n");
                    for point in POINTS {
                        let codes = codes(point, &input);
                        assert_eq!(codes.len(), 4);
                        assert!(codes.iter().all(|code| !code.starts_with('3')));
                    }
                }
            }
        }
    }
}

#[test]
fn r14_source_routes_and_relayed_domains() {
    let replies = relay();
    let reply_to = |recipient: &str| {
        let input = format!("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\n");
        let (_, answers) = talk(RefusalPoint::Rcpt, &replies, input.as_bytes(), []);
        answers[2].text.trim_end().to_owned()
    };
    let refused = "556 5.1.2 this domain does not accept mail";
    for recipient in [
        "a@example.com",
        "a@EXAMPLE.Com",
        "a@example.com.",
        "\"a b\"@example.com",
        "@other.example,@another.example:a@example.com",
        "a@b\u{fc}cher.example",
        "a@xn--BCHER-kva.example",
    ] {
        assert_eq!(reply_to(recipient), refused, "{recipient}");
    }
    assert_eq!(
        reply_to("a@b.c.example.com"),
        "556 5.1.2 write to example.net"
    );
    let postmaster = "551 5.1.6 User not local; please try <postmaster@example.net>";
    for recipient in [
        "Postmaster",
        "postmaster",
        "postmaster@example.com",
        "POSTMASTER@mailless.example.org",
    ] {
        assert_eq!(reply_to(recipient), postmaster, "{recipient}");
    }
    for recipient in [
        "a@mailless.example.org",
        "@example.com:a@Mailless.Example.ORG.",
        "root",
        "",
        "a@",
        "a@-b",
    ] {
        let host = "521 5.3.2 mailless.example.org does not accept mail";
        assert_eq!(reply_to(recipient), host, "{recipient}");
    }
    for recipient in [
        "a@example.org",
        "postmaster@example.org",
        "a@sub.mailless.example.org",
        "@example.com:a@example.org",
        "a@[192.0.2.1]",
    ] {
        let other = "550 5.7.1 mailless.example.org does not relay to this domain";
        assert_eq!(reply_to(recipient), other, "{recipient}");
    }
}

/// RFC 1846 section 3: a host that is named in the recipient and takes no mail.
#[rstest]
#[case("a@[192.0.2.7]", Some("192.0.2.7"), "521 5.3.2")]
#[case("a@[192.0.2.7]", Some("::ffff:192.0.2.7"), "521 5.3.2")]
#[case("a@[IPv6:2001:DB8::7]", Some("2001:db8::7"), "521 5.3.2")]
#[case("a@[2001:db8::7]", Some("2001:db8::7"), "521 5.3.2")]
#[case("@example.com:a@[192.0.2.7]", Some("192.0.2.7"), "521 5.3.2")]
#[case("postmaster@[192.0.2.7]", Some("192.0.2.7"), "551 5.1.6")]
#[case("a@[192.0.2.8]", Some("192.0.2.7"), "550 5.7.1")]
#[case("postmaster@[192.0.2.8]", Some("192.0.2.7"), "550 5.7.1")]
#[case("a@[192.0.2.7]", None, "550 5.7.1")]
#[case("a@[IPv6:192.0.2.7]", Some("192.0.2.7"), "550 5.7.1")]
#[case("a@[smtp:192.0.2.7]", Some("192.0.2.7"), "550 5.7.1")]
#[case("a@example.com", Some("192.0.2.7"), "556 5.1.2")]
#[case("a@mailless.example.org", None, "521 5.3.2")]
fn a_relay_refuses_mail_for_itself_as_a_host(
    #[case] recipient: &str,
    #[case] local: Option<&str>,
    #[case] code: &str,
) {
    let replies = relay();
    let mut dialog = Dialog::open(RefusalPoint::Rcpt, AfterGreeting::Hold, &replies).0;
    let local = || local.map(|address| address.parse().unwrap());
    let line = format!("RCPT TO:<{recipient}>\r\n");
    let (_, action) = dialog.receive_at(&replies, line.as_bytes(), &local);
    assert_eq!(codes_of(&[action.unwrap().into()]), [code]);
}

#[test]
fn r20_only_what_rfc_2920_allows_may_wait() {
    let input = b"EHLO a\r\nNOOP\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRSET\r\nDATA\r\nVRFY a\r\n\
        NOSUCH\r\nHELP\r\nQUIT\r\n";
    for point in [RefusalPoint::Ehlo, RefusalPoint::Mail, RefusalPoint::Rcpt] {
        let answers = answers(point, input);
        let waiting: Vec<_> = answers.iter().map(|answer| answer.may_wait).collect();
        let f = false;
        assert_eq!(waiting, [f, f, true, true, true, f, f, f, f, f]);
    }
}

#[test]
fn over_its_limits_a_host_refuses_and_a_relay_defers() {
    let replies = replies();
    let (_, action) = Dialog::shed(&replies);
    assert!(action.line.starts_with(b"521 mailless.example.org "));
    assert_eq!(action.end, Some(Outcome::Closed));
    let relay = relay();
    let (mut dialog, action) = Dialog::shed(&relay);
    assert!(action.line.starts_with(b"421 mailless.example.org "));
    assert_eq!((action.end, action.refused), (Some(Outcome::Closed), None));
    assert_eq!(dialog.receive(&relay, b"QUIT\r\n"), (6, None));
}

#[rstest]
#[case(b"GET / HTTP/1.1\r\n", Protocol::Http)]
#[case(b"CONNECT a:25 HTTP/1.1\r\n\r\n", Protocol::Http)]
#[case(b"\x16\x03\x01\x02", Protocol::Tls)]
#[case(b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 25\r\n", Protocol::Proxy)]
#[case(b"NOOP\0\r\nNOOP\r\n", Protocol::Garbage)]
#[case(b"\0\r\nQUIT\r\n", Protocol::Garbage)]
#[case(b"\xff\xfb\x1f", Protocol::Garbage)]
fn other_protocols_are_refused_once_and_closed(#[case] input: &[u8], #[case] kind: Protocol) {
    let replies = replies();
    for point in POINTS {
        for sizes in [vec![], vec![1; input.len()]] {
            let (_, answers) = talk(point, &replies, input, sizes);
            assert_eq!(codes_of(&answers), ["521 5.3.2"]);
            assert_eq!(answers[0].end, Some(Outcome::Closed));
        }
        let mut dialog = Dialog::open(point, AfterGreeting::Hold, &replies).0;
        let (_, action) = dialog.receive(&replies, input);
        assert_eq!(action.unwrap().observed, Some(Observed::Protocol(kind)));
    }
}

/// The signature begins with two empty lines, which are answered without waiting for the
/// NUL, with 521.
#[rstest]
#[case(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Protocol::Proxy)]
#[case(b"\r\n\0\r\nQUIT\n", Protocol::Garbage)]
#[case(b"\r\n\r\n\x01\r\nQUIT\n", Protocol::Garbage)]
fn the_proxy_protocol_is_refused_from_its_first_line(#[case] input: &[u8], #[case] kind: Protocol) {
    for replies in [replies(), relay()] {
        for point in POINTS {
            let whole = talk(point, &replies, input, []).1;
            assert!(codes_of(&whole).iter().all(|code| code == "521 5.3.2"));
            assert_eq!(whole.last().unwrap().end, Some(Outcome::Closed));
            let split = talk(point, &replies, input, vec![1; input.len()]).1;
            assert_eq!(whole, split);
            let mut dialog = Dialog::open(point, AfterGreeting::Hold, &replies).0;
            let mut rest = input;
            let observed = loop {
                let (taken, action) = dialog.receive(&replies, rest);
                match action.unwrap().observed {
                    None => rest = &rest[taken..],
                    observed => break observed,
                }
            };
            assert_eq!(observed, Some(Observed::Protocol(kind)));
        }
    }
}

/// The argument may be longer than a line: the verb suffices.
#[rstest]
#[case("EHLO ", "a", "250")]
#[case("MAIL FROM:<a@b> X=", "a", "250 2.1.0")]
#[case("RCPT TO:<a@example.com> ORCPT=", "a", "521 5.3.2|556 5.1.2")]
// The domain of a path that is cut off is unknown.
#[case("RCPT TO:<a@", "b.", "521 5.3.2|521 5.3.2")]
#[case("RCPT TO:", "a", "521 5.3.2|521 5.3.2")]
#[case("NOOP ", "a", "500 5.5.6")]
fn r18_a_long_line_is_known_by_its_verb(
    #[case] start: &str,
    #[case] filling: &str,
    #[case] wanted: &str,
) {
    for length in [513, 600, 5000] {
        let line = format!("{start}{}\r\n", filling.repeat(length - start.len()));
        let mut wanted = wanted.split('|').cycle();
        for replies in [replies(), relay()] {
            let (_, answers) = talk(RefusalPoint::Rcpt, &replies, line.as_bytes(), []);
            assert_eq!(codes_of(&answers), [wanted.next().unwrap()]);
        }
    }
}

/// What mail servers, libraries, printers and scripts send before and in RCPT, each of
/// which some server answers with an error.
#[rstest]
#[case::nothing("")]
#[case::helo_alone("HELO")]
#[case::lower_case("ehlo a|mail from:<a@b>")]
#[case::utf8("EHLO b\u{fc}ro-pc|MAIL FROM:<j\u{f6}rg@b\u{fc}cher.example> SMTPUTF8")]
#[case::address("EHLO 192.168.1.20|MAIL FROM:<scanner@[192.168.1.20]>")]
#[case::underscore("EHLO my_printer._local|MAIL FROM:scanner@my_printer")]
#[case::twice("EHLO a|EHLO a|HELO a|MAIL FROM:<>|MAIL FROM:<>")]
#[case::starttls("EHLO a|STARTTLS|EHLO a|MAIL FROM:<a@b>")]
#[case::auth("EHLO a|AUTH LOGIN|MAIL FROM:<a@b> AUTH=<>")]
#[case::verp("MAIL FROM:<bounces+0123456789012345678901234567890123456789012345=b.example@a>")]
#[case::srs("MAIL FROM:<SRS1=abcd=a.example==efgh=XY=example.org=a-very-long-local-part-indeed@b>")]
#[case::parameters("EHLO a|MAIL FROM:<a@b> BODY=8BITMIME SIZE=10 RET=HDRS ENVID=QQ314159 X-A=B")]
#[case::local("HELO localhost|MAIL FROM:<root>")]
#[case::spaces("HELO a |MAIL FROM: <a@b> ")]
#[case::name("MAIL FROM:Printer <a@b>")]
#[case::no_colon("MAIL FROM <a@b>")]
#[case::route("MAIL FROM:<@a,@[192.0.2.1]:a@b>")]
#[case::quoted("MAIL FROM:<\"a b>\"@c>")]
#[case::xclient("XCLIENT NAME=a|MAIL FROM:<a@b>")]
#[case::data("MAIL FROM:<a@b>|DATA")]
#[case::rset("MAIL FROM:<a@b>|RSET|VRFY a|EXPN b|NOOP|HELP")]
fn every_sender_gets_to_its_refusal(#[case] before: &str) {
    let relayed = [
        ("TO:<a@example.com>", "556 5.1.2"),
        ("TO: a@example.com", "556 5.1.2"),
        (
            "TO:<a@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b",
            "556 5.1.2",
        ),
        ("TO:<\"a b\"@EXAMPLE.com.>", "556 5.1.2"),
        ("TO:<@x,@y:a@example.com>", "556 5.1.2"),
        ("TO:<a@b\u{fc}cher.example>", "556 5.1.2"),
        ("TO:<a@other.example>", "550 5.7.1"),
        ("TO:<root>", "521 5.3.2"),
        ("TO:", "521 5.3.2"),
        ("", "521 5.3.2"),
    ];
    for (recipient, relayed) in relayed {
        let lines = [before, "|RCPT ", recipient, "|"].concat();
        let input = lines.trim_start_matches('|').replace('|', "\r\n");
        for point in POINTS {
            let answer = answers(point, input.as_bytes()).pop().unwrap();
            assert_eq!(codes_of(&[answer]), ["521 5.3.2"], "{input}");
        }
        let (_, mut answers) = talk(RefusalPoint::Rcpt, &relay(), input.as_bytes(), []);
        assert_eq!(codes_of(&[answers.pop().unwrap()]), [relayed], "{input}");
    }
}

#[rstest]
#[case("", false)]
#[case("EHLO a\r\n", true)]
#[case("EHLO a\r\nSTARTTLS\r\n", true)]
#[case("HELO a\r\n", false)]
#[case("EHLO a\r\nMAIL FROM:<>\r\n", false)]
fn leaving_after_ehlo_is_known(#[case] input: &str, #[case] left: bool) {
    let (dialog, _) = talk(RefusalPoint::Rcpt, &replies(), input.as_bytes(), []);
    assert_eq!(dialog.left_after_ehlo(), left);
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<Dialog>() <= 56, "{}", size_of::<Dialog>());
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => prop::sample::select(vec![
            &b"\r\n"[..], b"\r", b"\n", b"QUIT", b" ", b"\t", b"X", b"EHLO a\r\n", b"HELO a\r\n",
            b"NOOP\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@example.com>\r\n", b"DATA\r\n",
            b"RSET\r\n", b"VRFY a\r\n", b"HELP\r\n", b"\r\n\r\n\0\r\nQUIT\n", b"GET / HTTP/1.1\r\n", b"\x16\x03", b".\r\n",
        ]).prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(any::<u8>(), 0..8),
        1 => (500usize..520).prop_map(|length| vec![b' '; length]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// The lines of `input`.
fn lines(input: &[u8]) -> usize {
    input.windows(2).filter(|pair| pair == b"\r\n").count()
}

/// A line that begins with a verb, in any case and with any text behind it.
fn command() -> impl Strategy<Value = (Verb, Vec<u8>)> {
    let text =
        any::<u8>().prop_filter("no text", |byte| !byte.is_ascii_control() || *byte == b'\t');
    let argument = prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::sample::select(vec![
            &b" FROM:<>"[..], b" FROM:<a@b> SIZE=1", b" from: a@b", b" TO:<a@b>", b" to:root",
            b" TO:<@a,@b:c@example.com>", b" TO:<\"a b\"@c> NOTIFY=NEVER", b" TO:<a@b\xfc>",
        ]).prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(text.clone(), 0..30).prop_map(|text| [b" ", &text[..]].concat()),
        1 => prop::collection::vec(text, 400..700).prop_map(|text| [b" TO:<", &text[..]].concat()),
    ];
    (
        prop::sample::select(Verb::ALL.to_vec()),
        argument,
        any::<bool>(),
    )
        .prop_map(|(verb, argument, upper)| {
            let name = if upper { verb.label() } else { verb.name() };
            (verb, [name.as_bytes(), &argument, b"\r\n"].concat())
        })
}

proptest! {
    #[test]
    fn any_bytes_in_any_split_give_the_same_replies(
        input in input(),
        point in 0usize..4,
        sizes in prop::collection::vec(1usize..20, 0..200),
    ) {
        for replies in [replies(), relay()] {
            let whole = talk(POINTS[point], &replies, &input, []).1;
            prop_assert_eq!(&whole, &talk(POINTS[point], &replies, &input, sizes.clone()).1);
            let single = vec![1; input.len()];
            prop_assert_eq!(&whole, &talk(POINTS[point], &replies, &input, single).1);
        }
    }

    #[test]
    fn rcpt_is_refused_whatever_was_said_before(
        commands in prop::collection::vec(command(), 0..30),
        point in 0usize..4,
    ) {
        let input: Vec<u8> = commands.iter().flat_map(|(_, line)| line.clone()).collect();
        let host = talk(POINTS[point], &replies(), &input, []).1;
        let relayed = talk(RefusalPoint::Rcpt, &relay(), &input, []).1;
        for ((verb, line), (host, relayed)) in commands.iter().zip(host.iter().zip(&relayed)) {
            let line = line.escape_ascii();
            if *verb == Verb::Rcpt {
                prop_assert_eq!(&host.text, "521 5.3.2 mailless.example.org does not accept mail\r\n");
                let code = relayed.text.split(' ').next().unwrap();
                prop_assert!(["521", "550", "551", "556"].contains(&code), "{} {}", line, code);
            } else if *verb == Verb::Mail || matches!(verb, Verb::Helo | Verb::Ehlo) {
                let code = &host.text[..3];
                prop_assert!(["250", "521"].contains(&code), "{} {}", line, code);
                prop_assert!(relayed.text.starts_with("250"));
            }
        }
    }

    #[test]
    fn replies_are_well_formed_and_one_for_a_command(
        input in prop_oneof![input(), prop::collection::vec(any::<u8>(), 0..2048)],
        point in 0usize..4,
    ) {
        let answers = talk(POINTS[point], &relay(), &input, []).1;
        let ended = answers.last().and_then(|answer| answer.end);
        prop_assert!(answers.iter().rev().skip(1).all(|answer| answer.end.is_none()));
        // One more only for input that is cut off before its line ends.
        let lines = lines(&input);
        prop_assert!(answers.len() <= lines + usize::from(ended == Some(Outcome::Closed)));
        if ended.is_none() {
            prop_assert_eq!(answers.len(), lines);
        }
        let out: usize = answers.iter().map(|answer| answer.text.len()).sum();
        // At worst an empty line, two bytes, is answered with one reply.
        prop_assert!(out <= 100 * input.len());
        for answer in &answers {
            prop_assert!(answer.text.ends_with("\r\n") && answer.text.is_ascii());
            for line in answer.text.split_terminator("\r\n") {
                prop_assert!(line.len() <= 510 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit));
                prop_assert!(!line.starts_with('3'));
            }
        }
        let refused = answers.iter().filter(|answer| answer.refused.is_some()).count();
        prop_assert!(refused <= 1);
    }
}
