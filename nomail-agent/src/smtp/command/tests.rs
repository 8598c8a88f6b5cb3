use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn mailbox<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Mailbox<'a> {
    Mailbox {
        path: path.as_bytes(),
        local: local.as_bytes(),
        domain: domain.as_bytes(),
    }
}

fn from<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Option<Command<'a>> {
    Some(Command::Mail(ReversePath::Mailbox(mailbox(
        path, local, domain,
    ))))
}

fn to<'a>(path: &'a str, local: &'a str, domain: &'a str) -> Option<Command<'a>> {
    Some(Command::Rcpt(Recipient::Mailbox(mailbox(
        path, local, domain,
    ))))
}

const fn from_other(path: &str) -> Option<Command<'_>> {
    Some(Command::Mail(ReversePath::Other(path.as_bytes())))
}

const fn to_other(path: &str) -> Option<Command<'_>> {
    Some(Command::Rcpt(Recipient::Other(path.as_bytes())))
}

#[rstest]
#[case("HELO a.example", Command::Helo(b"a.example"))]
#[case("EHLO [IPv6:2001:db8::7]", Command::Ehlo(b"[IPv6:2001:db8::7]"))]
#[case("EHLO my_host, or so", Command::Ehlo(b"my_host, or so"))]
#[case("HELO", Command::Helo(b""))]
#[case("EHLO  \t ", Command::Ehlo(b""))]
#[case("EHLO b\u{fc}cher", Command::Ehlo(b"b\xc3\xbccher"))]
#[case("EHLO a\rb", Command::Ehlo(b"a\rb"))]
#[case("DATA", Command::Data)]
#[case("DATA now", Command::Data)]
#[case("RSET", Command::Rset)]
#[case("RSET all", Command::Rset)]
#[case("NOOP", Command::Noop)]
#[case("NOOP any \u{fc} thing", Command::Noop)]
#[case("VRFY", Command::Vrfy)]
#[case("VRFY \u{fc}", Command::Vrfy)]
#[case("HELP", Command::Help)]
#[case("HELP me", Command::Help)]
#[case("AUTH PLAIN AHgAeQ==", Command::Auth)]
#[case("QUIT", Command::Quit)]
#[case("QUIT now", Command::Quit)]
fn r7_the_required_commands_and_their_arguments(#[case] line: &str, #[case] expected: Command<'_>) {
    assert_eq!(parse(line.as_bytes()), Some(expected));
}

#[rstest]
fn r19_a_known_verb_without_its_command_is_not_an_unknown_one(
    #[values(
        "EXPN list",
        "STARTTLS",
        "BDAT 5 LAST",
        "BURL x LAST",
        "ETRN a",
        "ATRN a",
        "TURN",
        "SEND FROM:<a@b>",
        "SOML FROM:<a@b>",
        "SAML FROM:<a@b>",
        "starttls \u{fc}"
    )]
    line: &str,
) {
    assert_eq!(parse(line.as_bytes()), Some(Command::Unimplemented));
}

#[rstest]
fn r19_anything_else_is_unknown(
    #[values(
        "",
        " ",
        "X",
        "QUITX",
        "QUI",
        " QUIT",
        "MAIL:",
        "LHLO a",
        "XCLIENT NAME=a",
        "DATA\r",
        "RSET\n",
        "Subject: a",
        "\u{fc}",
        "QUIT\0",
        "HELO\u{b}a"
    )]
    line: &str,
) {
    assert_eq!(parse(line.as_bytes()), None);
}

/// R10, R14, R15, R16, R22, and what RFC 5321 has no grammar for.
#[rstest]
#[case("MAIL FROM:<>", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM: <>", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM:<a@b.example>", from("a@b.example", "a", "b.example"))]
#[case(
    "MAIL\tFROM:  \t<A.b@B.Example>",
    from("A.b@B.Example", "A.b", "B.Example")
)]
#[case("MAIL FROM:<@x,@y.z:a@b>", from("@x,@y.z:a@b", "a", "b"))]
#[case("MAIL", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM:", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM :<a@b>", from("a@b", "a", "b"))]
#[case("MAIL FROM<a@b>", from("a@b", "a", "b"))]
#[case("MAIL FROM <a@b>", from("a@b", "a", "b"))]
#[case("MAIL TO:<a@b>", from("a@b", "a", "b"))]
#[case("MAIL <a@b>", from("a@b", "a", "b"))]
#[case("MAIL a@b SIZE=1", from("a@b", "a", "b"))]
#[case("MAIL FROM:a@b", from("a@b", "a", "b"))]
#[case("MAIL FROM: a@b  SIZE=1", from("a@b", "a", "b"))]
#[case("MAIL FROM:from@b", from("from@b", "from", "b"))]
#[case("MAIL from@b", from("from@b", "from", "b"))]
#[case("MAIL FROM:A <a@b>", from("a@b", "a", "b"))]
#[case("MAIL FROM:\"A <x\" <a@b>", from("a@b", "a", "b"))]
#[case("MAIL FROM:<a@b", from("a@b", "a", "b"))]
#[case("MAIL FROM:< a@b >", from("a@b", "a", "b"))]
#[case("MAIL FROM:<a>", from_other("a"))]
#[case("MAIL FROM:<postmaster>", from_other("postmaster"))]
#[case("MAIL FROM:< >", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM:<>x", Some(Command::Mail(ReversePath::Null)))]
#[case("MAIL FROM:<\u{fc}@b>", from("\u{fc}@b", "\u{fc}", "b"))]
#[case(
    "MAIL FROM:<a@b\u{fc}.example>",
    from("a@b\u{fc}.example", "a", "b\u{fc}.example")
)]
#[case("MAIL FROM:<> SIZE=5", Some(Command::Mail(ReversePath::Null)))]
#[case(
    "MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8 AUTH=<>",
    from("a@b", "a", "b")
)]
#[case("MAIL FROM:<a@-> BODY=8BITMIME", from_other("a@-"))]
fn any_sender_of_mail_is_read(#[case] line: &str, #[case] expected: Option<Command<'_>>) {
    assert_eq!(parse(line.as_bytes()), expected);
}

/// R14, R15, R16, and what RFC 5321 has no grammar for.
#[rstest]
#[case("<Postmaster>", Some(Command::Rcpt(Recipient::Postmaster)))]
#[case("<POSTMASTER>", Some(Command::Rcpt(Recipient::Postmaster)))]
#[case("postmaster", Some(Command::Rcpt(Recipient::Postmaster)))]
#[case("<postmaster> x", Some(Command::Rcpt(Recipient::Postmaster)))]
#[case("<postmaster@b>", to("postmaster@b", "postmaster", "b"))]
#[case("<a@b.example.>", to("a@b.example.", "a", "b.example."))]
#[case("<a..b.@b>", to("a..b.@b", "a..b.", "b"))]
#[case(
    "<!#$%&'*+-/=?^_`{|}~@b>",
    to("!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b")
)]
#[case("<a@_x.b_c>", to("a@_x.b_c", "a", "_x.b_c"))]
#[case("<a@[192.0.2.7]>", to("a@[192.0.2.7]", "a", "[192.0.2.7]"))]
#[case(
    "<@[IPv6:::1],@c:a@[IPv6:::1]>",
    to("@[IPv6:::1],@c:a@[IPv6:::1]", "a", "[IPv6:::1]")
)]
#[case("<\"\"@b>", to("\"\"@b", "\"\"", "b"))]
#[case("<\"a@b > c\"@d>", to("\"a@b > c\"@d", "\"a@b > c\"", "d"))]
#[case("\"a b\"@d NOTIFY=NEVER", to("\"a b\"@d", "\"a b\"", "d"))]
#[case(r#"<"a@b\"c"@d>"#, to(r#""a@b\"c"@d"#, r#""a@b\"c""#, "d"))]
#[case(r#"<"\\"@d>"#, to(r#""\\"@d"#, r#""\\""#, "d"))]
#[case(
    "<a@b\u{fc}cher.example>",
    to("a@b\u{fc}cher.example", "a", "b\u{fc}cher.example")
)]
#[case("a@b", to("a@b", "a", "b"))]
#[case("A <a@b>", to("a@b", "a", "b"))]
#[case("<a@b", to("a@b", "a", "b"))]
#[case("< a@b > x", to("a@b", "a", "b"))]
#[case("<a@b>>", to("a@b", "a", "b"))]
#[case("<a@b>NOTIFY=NEVER", to("a@b", "a", "b"))]
#[case("<a@b> NOTIFY=NEVER ORCPT=rfc822;a@c", to("a@b", "a", "b"))]
#[case("<a b@c>", to("a b@c", "a b", "c"))]
#[case("<a@b@c>", to("a@b@c", "a@b", "c"))]
#[case("<a\\@b@c>", to("a\\@b@c", "a\\@b", "c"))]
#[case("<\"a\"b@c>", to("\"a\"b@c", "\"a\"b", "c"))]
#[case("<b\"a\"@c>", to("b\"a\"@c", "b\"a\"", "c"))]
#[case("<@b>", to("@b", "", "b"))]
#[case("<@a,b:a@c>", to("@a,b:a@c", "@a,b:a", "c"))]
#[case("<@[::1:a@c>", to("@[::1:a@c", ":1:a", "c"))]
#[case("<\u{fc}@b>", to("\u{fc}@b", "\u{fc}", "b"))]
#[case("", to_other(""))]
#[case("<>", to_other(""))]
#[case("<root>", to_other("root"))]
#[case("root", to_other("root"))]
#[case("<@a:postmaster>", to_other("@a:postmaster"))]
#[case("<a@>", to_other("a@"))]
#[case("<a@.>", to_other("a@."))]
#[case("<a@b..c>", to_other("a@b..c"))]
#[case("<a@-b>", to_other("a@-b"))]
#[case("<a@b c>", to_other("a@b c"))]
#[case("<a@[]>", to_other("a@[]"))]
#[case("<a@[192.0.2.7>", to_other("a@[192.0.2.7"))]
#[case("<\"a@c>", to_other("\"a@c"))]
#[case("<a\0@b>", to_other("a\0@b"))]
#[case("<\"a\tb\"@b>", to_other("\"a\tb\"@b"))]
#[case("<a@b\0>", to_other("a@b\0"))]
#[case("<a@b\u{85}>", to_other("a@b\u{85}"))]
fn any_recipient_of_rcpt_is_read(#[case] path: &str, #[case] expected: Option<Command<'_>>) {
    for line in [
        format!("RCPT TO:{path}"),
        format!("rcpt to: {path} "),
        format!("Rcpt To :\t{path}"),
    ] {
        let (ours, expected) = (parse(line.as_bytes()), format!("{expected:?}"));
        assert_eq!(format!("{ours:?}"), expected, "{line}");
    }
}

#[test]
fn r16_a_domain_that_is_not_utf8_is_none() {
    assert_eq!(
        parse(b"RCPT TO:<a@b\xfc.example>"),
        Some(Command::Rcpt(Recipient::Other(b"a@b\xfc.example")))
    );
}

/// Only a domain has a limit: VERP and SRS write long local parts, and
/// routes are long anyway.
#[rstest]
#[case(64, 5, 0, true)]
#[case(450, 5, 0, true)]
#[case(1, 255, 0, true)]
#[case(1, 256, 0, false)]
#[case(64, 255, 0, true)]
#[case(1, 5, 400, true)]
fn r18_the_limits_of_local_part_domain_and_path(
    #[case] local: usize,
    #[case] domain: usize,
    #[case] route: usize,
    #[case] valid: bool,
) {
    let name = |length: usize| {
        let label = "a".repeat(40) + ".";
        let name = label.repeat(11)[..length].to_owned();
        name.strip_suffix('.')
            .map_or(name.clone(), |name| format!("{name}a"))
    };
    let route = match route {
        0 => String::new(),
        _ => format!("@{}:", name(route - 2)),
    };
    let (local, domain) = ("a".repeat(local), name(domain));
    let path = format!("{route}{local}@{domain}");
    for (line, good, other) in [
        (
            format!("MAIL FROM:<{path}>"),
            from(&path, &local, &domain),
            from_other(&path),
        ),
        (
            format!("RCPT TO:<{path}>"),
            to(&path, &local, &domain),
            to_other(&path),
        ),
    ] {
        let expected = if valid { good } else { other };
        assert_eq!(parse(line.as_bytes()), expected);
    }
}

#[rstest]
#[case(63, true)]
#[case(64, false)]
fn r18_a_label_has_at_most_63_octets(#[case] length: usize, #[case] valid: bool) {
    let path = format!("a@{}.example", "a".repeat(length));
    let line = format!("RCPT TO:<{path}>");
    let other = parse(line.as_bytes()) == to_other(&path);
    assert_eq!(other, !valid);
}

#[rstest]
fn s17_trailing_white_space_is_tolerated(
    #[values(
        "HELO a",
        "MAIL FROM:<>",
        "RCPT TO:<a@b>",
        "DATA",
        "RSET",
        "QUIT",
        "VRFY a"
    )]
    line: &str,
) {
    for space in [" ", "\t", " \t  "] {
        let padded = format!("{line}{space}");
        assert_eq!(parse(padded.as_bytes()), parse(line.as_bytes()));
        assert!(parse(padded.as_bytes()).is_some());
    }
}

#[test]
fn every_verb_is_found_by_its_name() {
    for verb in Verb::ALL {
        assert_eq!(Verb::of(verb.name().as_bytes()), *verb);
    }
}

/// A line with a verb, or with something like one, and arguments.
fn line() -> impl Strategy<Value = String> {
    let verbs = Verb::ALL
        .iter()
        .map(|verb| verb.label())
        .collect::<Vec<_>>();
    let word = prop_oneof![
        4 => prop::sample::select(verbs.clone()).prop_map(str::to_owned),
        1 => (prop::sample::select(verbs), 0usize..9, "[A-Za-z0-9]?").prop_map(
            |(verb, keep, more)| format!("{}{more}", &verb[..keep.min(verb.len())])
        ),
        1 => "[!-~]{1,10}",
    ];
    let cased = (word, any::<u64>()).prop_map(|(word, mask)| {
        let flip = |(at, letter): (usize, char)| match mask >> at & 1 {
            1 => letter.to_ascii_lowercase(),
            _ => letter,
        };
        word.chars().enumerate().map(flip).collect::<String>()
    });
    let argument = prop_oneof![
        Just(String::new()),
        Just(" ".to_owned()),
        "[ \t](FROM|TO|from): ?<[a-z]{0,3}@?[a-z.]{0,5}>",
        "[ \t][!-~ ]{0,20}",
    ];
    (cased, argument).prop_map(|(word, argument)| word + &argument)
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9])?"
}

fn domain() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join(".")),
        1 => prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join(".") + "."),
        1 => any::<std::net::Ipv4Addr>().prop_map(|address| format!("[{address}]")),
        1 => any::<std::net::Ipv6Addr>().prop_map(|address| format!("[IPv6:{address}]")),
    ]
}

fn local() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.-]{1,20}",
        r#""([ !#-\[\]-~]|\\[ -~]){0,20}""#,
    ]
}

proptest! {
    #[test]
    fn any_bytes_parse_and_never_panic(line in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(parse(&line).is_some(), Verb::of(&line) != Verb::Other);
        let mail = [&b"MAIL FROM:"[..], &line].concat();
        prop_assert!(matches!(parse(&mail), Some(Command::Mail(_))));
        let rcpt = [&b"RCPT TO:<"[..], &line].concat();
        prop_assert!(matches!(parse(&rcpt), Some(Command::Rcpt(_))));
    }

    #[test]
    fn any_special_bytes_parse_and_never_panic(path in r#"[<>@,:.\\"\[\]a \u{fc}\x00-]{0,30}"#) {
        if let Some(Command::Rcpt(Recipient::Mailbox(mailbox))) = parse(format!("RCPT TO:<{path}>").as_bytes()) {
            let address = [mailbox.local, b"@", mailbox.domain].concat();
            prop_assert!(mailbox.path.ends_with(&address));
        }
    }

    #[test]
    fn s18_verbs_and_keywords_are_case_insensitive(line in line()) {
        let kind = |line: String| (Verb::of(line.as_bytes()), parse(line.as_bytes()).is_none());
        prop_assert_eq!(kind(line.to_ascii_uppercase()), kind(line.to_ascii_lowercase()));
    }

    #[test]
    fn smtp_proto_sees_the_same_verbs(line in line()) {
        let (ours, theirs) = oracle::verbs(&line);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn r14_what_was_written_is_what_is_read(
        route in prop::collection::vec(domain(), 0..3),
        local in local(),
        domain in domain(),
        space in "[ \t]{0,2}",
    ) {
        let hosts: Vec<_> = route.iter().map(|host| format!("@{host}")).collect();
        let route = if hosts.is_empty() { String::new() } else { hosts.join(",") + ":" };
        let path = format!("{route}{local}@{domain}");
        let mail = format!("MAIL FROM:{space}<{path}>{space}");
        prop_assert_eq!(parse(mail.as_bytes()), from(&path, &local, &domain));
        let rcpt = format!("RCPT TO:{space}<{path}>{space}");
        prop_assert_eq!(parse(rcpt.as_bytes()), to(&path, &local, &domain));
        let mail = format!("MAIL FROM:<{path}> SIZE=1");
        prop_assert_eq!(parse(mail.as_bytes()), from(&path, &local, &domain));
        let bare = format!("RCPT TO:{space}{path} NOTIFY=NEVER");
        prop_assert_eq!(parse(bare.as_bytes()), to(&path, &local, &domain));
    }
}
