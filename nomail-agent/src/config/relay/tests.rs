//! Domains, from the configuration and from lists.

use std::{fs, path::Path, time::Instant};

use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::{
    super::{
        choices::RefuseAt,
        error::ConfigError,
        keys::Config,
        load::load_layers_of,
        overrides::{GivenBy, Overrides},
    },
    *,
};

/// Reads one file with its drop-ins.
fn load_from(path: &Path, required: bool, overrides: &Overrides) -> Result<Config, ConfigError> {
    load_layers_of(path, required, overrides).map(|(config, _)| config)
}

/// Reads `text` as the file `t.toml`, beside `files`. `@` in the text stands for
/// their directory, and errors come without it.
fn load_beside(
    text: &str,
    files: &[(&str, &[u8])],
    overrides: &Overrides,
) -> Result<Config, String> {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let path = directory.path().join("t.toml");
    let at = directory.path().display().to_string();
    fs::write(&path, text.replace('@', &at)).unwrap();
    load_from(&path, true, overrides).map_err(|error| error.to_string().replace(&at, "@"))
}

fn relay_of(text: &str, files: &[(&str, &[u8])]) -> Arc<Relay> {
    let config = load_beside(text, files, &Overrides::default()).unwrap();
    assert_eq!(config.refuse_at, RefuseAt::Rcpt);
    config.relay.unwrap()
}

fn error_of(text: &str, files: &[(&str, &[u8])]) -> String {
    load_beside(text, files, &Overrides::default()).unwrap_err()
}

/// Names, with texts in parentheses.
fn shown(relay: &Relay) -> Vec<String> {
    let shown = |domain: &RelayDomain| match &domain.text {
        Some(text) => format!("{} ({text})", domain.name),
        None => domain.name.clone(),
    };
    relay.domains.iter().map(shown).collect()
}

/// A list of one file with this content.
fn listed(content: &[u8]) -> Result<Vec<String>, String> {
    load_beside(
        "relay.domain_files = [\"@/list\"]",
        &[("list", content)],
        &Overrides::default(),
    )
    .map(|config| shown(&config.relay.unwrap()))
}

#[test]
fn defaults() {
    let relay = relay_of("[relay]\ndomains = [\"example.org\"]", &[]);
    let expected = Relay {
        domains: vec![RelayDomain {
            name: "example.org".to_owned(),
            text: None,
        }],
        code: RelayCode::Listed,
        text: "this domain does not accept mail".to_owned(),
        postmaster: None,
        files: Vec::new(),
        written: vec!["example.org".to_owned()],
    };
    assert_eq!(*relay, expected);
    assert_eq!(relay.code.code(), 556);
    assert_eq!(relay.code.enhanced_code(), "5.1.2");
}

#[test]
fn every_key() {
    let text = "refuse_at = \"rcpt\"\nafter_greeting = \"hold\"\n[relay]\n\
                domains = [\"b.example\", \"*.B.example.\\tMail is\\t at c.example \"]\n\
                domain_files = [\"@/one\", \"@/two\"]\ncode = 556\nenhanced_code = \"5.1.10\"\n\
                text = \"no mail # here\"\npostmaster = \"post.master+x@example.org\"\n";
    let text = text.replace("is\\t at", "is  at");
    // The mailbox has no place for the directory.
    let text = text.replace("x@e", "x\\u0040e");
    let relay = relay_of(
        &text,
        &[("one", b"a.example"), ("two", b"b.example\nc.example")],
    );
    assert_eq!(
        shown(&relay),
        [
            "b.example",
            "*.b.example (Mail is  at c.example)",
            "a.example",
            "c.example"
        ]
    );
    assert_eq!(relay.code, RelayCode::NullMx);
    assert_eq!(relay.code.code(), 556);
    assert_eq!(relay.code.enhanced_code(), "5.1.10");
    assert_eq!(relay.text, "no mail # here");
    let postmaster = relay.postmaster.as_deref();
    assert_eq!(postmaster, Some("post.master+x@example.org"));
    let names: Vec<_> = relay
        .files
        .iter()
        .map(|file| file.path.file_name())
        .collect();
    assert_eq!(names, [Some("one".as_ref()), Some("two".as_ref())]);
}

#[rstest]
#[case("code = 521", RelayCode::Rfc1846, 521, "5.3.2")]
#[case("code = 556", RelayCode::Listed, 556, "5.1.2")]
#[case("enhanced_code = \"5.1.2\"", RelayCode::Listed, 556, "5.1.2")]
#[case("enhanced_code = \"5.1.10\"", RelayCode::NullMx, 556, "5.1.10")]
fn codes(
    #[case] written: &str,
    #[case] expected: RelayCode,
    #[case] code: u16,
    #[case] enhanced_code: &str,
) {
    let text = format!("[relay]\ndomains = [\"a.example\"]\n{written}");
    let found = relay_of(&text, &[]).code;
    assert_eq!(found, expected);
    assert_eq!(found.code(), code);
    assert_eq!(found.enhanced_code(), enhanced_code);
}

#[rstest]
#[case::plain("example.org", "example.org")]
#[case::wildcard("*.example.org", "*.example.org")]
#[case::case("*.EXAMPLE.org", "*.example.org")]
#[case::final_dot("example.org.", "example.org")]
#[case::top_level("example", "example")]
#[case::digits("3com.1.example", "3com.1.example")]
#[case::last_digits("example.1", "example.1")]
#[case::hyphens("a--b.ab--c.example", "a--b.ab--c.example")]
#[case::u_label("BÜCHER.example", "xn--bcher-kva.example")]
#[case::a_label("XN--Bcher-KVA.example", "xn--bcher-kva.example")]
#[case::decomposed("bu\u{308}cher.example", "xn--bcher-kva.example")]
#[case::sharp_s("*.straße.example", "*.xn--strae-oqa.example")]
#[case::top_level_u_label("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f")]
#[case::other_full_stops("bücher。example。", "xn--bcher-kva.example")]
fn domains(#[case] written: &str, #[case] expected: &str) {
    assert_eq!(names::domain(written), Ok(expected.to_owned()));
    assert_eq!(names::domain(expected), Ok(expected.to_owned()));
}

#[rstest]
#[case::empty("", "is empty")]
#[case::only_wildcard("*.", "\"*.\" has an empty label")]
#[case::star(
    "*",
    "\"*\" in \"*\" has other characters than letters, digits and hyphens"
)]
#[case::star_within(
    "a.*.example",
    "\"*\" in \"a.*.example\" has other characters than letters, digits and hyphens"
)]
#[case::dot(".", "\".\" has an empty label")]
#[case::two_dots("example.org..", "\"example.org..\" has an empty label")]
#[case::first_dot(".example.org", "\".example.org\" has an empty label")]
#[case::underscore(
    "a_b.example",
    "\"a_b\" in \"a_b.example\" has other characters than letters, digits and hyphens"
)]
#[case::mailbox(
    "a@example.org",
    "\"a@example\" in \"a@example.org\" has other characters than letters, digits and hyphens"
)]
#[case::hyphen("a-.example", "\"a-\" in \"a-.example\" begins or ends with a hyphen")]
#[case::last_hyphen("a.-", "\"-\" in \"a.-\" begins or ends with a hyphen")]
#[case::address("192.0.2.7", "\"192.0.2.7\" is an address")]
#[case::address6("2001:db8::1", "\"2001:db8::1\" is an address")]
#[case::wide_address("１92.0.2.7", "\"１92.0.2.7\" is an address")]
#[case::long_label(
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"... has a label of more \
     than 63 characters"
)]
#[case::not_punycode(
    "xn--a.example",
    "\"xn--a.example\" is not an internationalised domain name"
)]
#[case::u_underscore("ü_.example", "\"ü_.example\" is not an internationalised domain name")]
#[case::control(
    "a\u{1b}",
    "\"a\\u{1b}\" in \"a\\u{1b}\" has other characters than letters, digits and hyphens"
)]
fn wrong_domains(#[case] written: &str, #[case] expected: &str) {
    let expected = format!("{expected}: give a domain like \"example.org\" or \"*.example.org\"");
    let error = names::domain(written).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn long_domains() {
    let label = "a".repeat(49);
    let name = [label.as_str(); 5].join(".");
    let longest = format!("{name}.ab");
    assert_eq!(longest.len(), 252);
    assert_eq!(
        names::domain(&format!("*.{longest}c.")),
        Ok(format!("*.{longest}c"))
    );
    let error = names::domain(&format!("{longest}cd")).unwrap_err();
    let cut: String = longest.chars().take(64).collect();
    assert_eq!(
        error.to_string(),
        format!(
            "\"{cut}\"... is longer than 253 characters: give a domain like \"example.org\" or \
             \"*.example.org\""
        )
    );
}

#[test]
fn a_list() {
    let content = "\u{feff}# a list\r\n\r\n  a.example # one\r\nB.example\tMoved to c#d.example  \
                   # since 2020\r\n#x.example\n \t\nbücher.example no mail#\n*.b.example";
    assert_eq!(
        listed(content.as_bytes()).unwrap(),
        [
            "a.example",
            "b.example (Moved to c#d.example)",
            "xn--bcher-kva.example (no mail#)",
            "*.b.example"
        ]
    );
}

#[test]
fn lists_may_overlap() {
    let relay = relay_of(
        "[relay]\ntext = \"none\"\ndomains = [\"bücher.example\", \"a.example x\"]\n\
         domain_files = [\"@/one\", \"@/two\"]",
        &[
            ("one", b"A.example  x\nxn--bcher-kva.example none\n"),
            ("two", b"b.example\nb.example\na.example x\n*.a.example y"),
        ],
    );
    assert_eq!(
        shown(&relay),
        [
            "xn--bcher-kva.example",
            "a.example (x)",
            "b.example",
            "*.a.example (y)"
        ]
    );
}

#[test]
fn equal_texts_are_kept_once() {
    let relay = relay_of("relay.domains = [\"a x\", \"b y\", \"c x\"]", &[]);
    let texts: Vec<_> = relay.domains.iter().flat_map(|d| &d.text).collect();
    assert!(Arc::ptr_eq(texts[0], texts[2]));
}

#[test]
fn two_texts_for_one_domain() {
    let error = error_of(
        "[relay]\ndomains = [\"a.example\", \"b.example x\",\n  \"A.example x\"]",
        &[],
    );
    assert_eq!(
        error,
        "@/t.toml:3:3: relay.domains: \"a.example\" has another text at @/t.toml:2:12: write the \
         same, or leave one out"
    );
}

#[test]
fn of_two_texts_in_files_the_first_counts() {
    let (warnings, domains) = warned(b"c\n b.example y\n\nc z\n");
    assert_eq!(
        warnings,
        [
            "@/list:4:1: left out: \"c\" has another text at @/list:1:1: write the same, or leave one out"
        ]
    );
    assert_eq!(domains, ["c", "b.example (y)"]);
}

#[rstest]
#[case::no_key(
    "\n[relay]",
    "@/t.toml:2:2: relay: names no domain: give domains = [\"example.org\"] or domain_files = \
     [\"/etc/nomail/domains\"]"
)]
#[case::inline(
    "relay = {}",
    "@/t.toml:1:1: relay: names no domain: give domains = [\"example.org\"] or domain_files = \
     [\"/etc/nomail/domains\"]"
)]
#[case::not_a_table(
    "relay = true",
    "@/t.toml:1:1: relay: a boolean is not a table: write [relay] and its keys below it"
)]
#[case::tables(
    "[[relay]]\ndomains = [\"a\"]",
    "@/t.toml:1:3: relay: a list is not a table: write [relay] and its keys below it"
)]
#[case::unknown_key(
    "[relay]\ndomains = [\"a\"]\ndomain = 1",
    "@/t.toml:3:1: relay.domain: unknown key; [relay] knows domains, domain_files, code, \
     enhanced_code, text, postmaster"
)]
#[case::domains_empty(
    "relay.domains = []",
    "@/t.toml:1:17: relay.domains: is empty: write [\"example.org\"], or leave the key out"
)]
#[case::domains_not_a_list(
    "relay.domains = \"a\"",
    "@/t.toml:1:17: relay.domains: a string is not a list: write [\"example.org\"]"
)]
#[case::entry(
    "relay.domains = [\"a\",\n 1, \"b..c\", \"d ü\"]",
    "@/t.toml:2:2: relay.domains: an integer is not a string in quotes\n\
     @/t.toml:2:5: relay.domains: \"b..c\" has an empty label: give a domain like \"example.org\" \
     or \"*.example.org\"\n\
     @/t.toml:2:13: relay.domains: \"ü\" is not ASCII, which is all that SMTP replies can hold: \
     give a text like \"this domain does not accept mail\""
)]
#[case::blank_entry(
    "relay.domains = [\" \"]",
    "@/t.toml:1:18: relay.domains: is empty: give a domain like \"example.org\" or \
     \"*.example.org\""
)]
#[case::files_empty(
    "relay.domain_files = []",
    "@/t.toml:1:22: relay.domain_files: is empty: write [\"/etc/nomail/domains\"], or leave the \
     key out"
)]
#[case::file_relative(
    "relay.domain_files = [\"list\"]",
    "@/t.toml:1:23: relay.domain_files: \"list\" is not the absolute path of a file: give one"
)]
#[case::file_twice(
    "relay.domain_files = [\"/dev/null\", \"//dev/null\"]",
    "@/t.toml:1:36: relay.domain_files: \"//dev/null\" is named twice: leave one out"
)]
#[case::code(
    "[relay]\ndomains = [\"a\"]\ncode = 550",
    "@/t.toml:3:8: relay.code: 550 is unknown; use 556 or 521"
)]
#[case::code_type(
    "[relay]\ndomains = [\"a\"]\ncode = \"556\"",
    "@/t.toml:3:8: relay.code: a string is unknown; use 556 or 521"
)]
#[case::enhanced_code(
    "[relay]\ndomains = [\"a\"]\nenhanced_code = \"5.7.1\"",
    "@/t.toml:3:17: relay.enhanced_code: \"5.7.1\" is unknown; use \"5.1.2\" or \"5.1.10\""
)]
#[case::enhanced_code_of_521(
    "[relay]\ndomains = [\"a\"]\nenhanced_code = \"5.1.2\"\ncode = 521",
    "@/t.toml:3:17: relay.enhanced_code: code = 521 has 5.3.2 and nothing else: leave the key \
     out, or write code = 556"
)]
#[case::text_empty(
    "[relay]\ndomains = [\"a\"]\ntext = \"\"",
    "@/t.toml:3:8: relay.text: is empty: give a text like \"this domain does not accept mail\""
)]
#[case::text_control(
    "[relay]\ndomains = [\"a\"]\ntext = \"a\\r\\n250 b\"",
    "@/t.toml:3:8: relay.text: \"a\\r\\n250 b\" has control characters: give a text like \"this \
     domain does not accept mail\""
)]
#[case::text_space(
    "[relay]\ndomains = [\"a\"]\ntext = \" a\"",
    "@/t.toml:3:8: relay.text: \" a\" begins or ends with a space: leave it out"
)]
#[case::postmaster(
    "[relay]\ndomains = [\"a\"]\npostmaster = \"postmaster\"",
    "@/t.toml:3:14: relay.postmaster: \"postmaster\" is not a mailbox: give one like \
     \"postmaster@example.org\""
)]
#[case::refuse_at(
    "refuse_at = \"auto\"\nrelay.domains = [\"a\"]",
    "@/t.toml:1:13: refuse_at: \"auto\" does not go with [relay], which refuses at RCPT and never \
     greets with 521; use \"rcpt\", or leave it out"
)]
#[case::after_greeting(
    "after_greeting = \"close\"\nrelay.domains = [\"a\"]",
    "@/t.toml:1:18: after_greeting: \"close\" does not go with [relay], which never greets with \
     521; use \"hold\", or leave it out"
)]
fn errors_of_the_table(#[case] text: &str, #[case] expected: &str) {
    // A mailbox in an error is not the directory.
    let error = error_of(text, &[]);
    assert_eq!(error, expected);
}

#[test]
fn flags_have_to_go_with_a_relay() {
    let mut overrides = Overrides::default();
    let mut set = |key, by, value: &str| overrides.set(key, by, vec![value.to_owned()]);
    set("refuse_at", GivenBy::Flag("--refuse-at"), "greeting");
    let variable = GivenBy::Environment("NOMAIL_AFTER_GREETING");
    set("after_greeting", variable, "close");
    let text = "refuse_at = \"rcpt\"\nrelay.domains = [\"a\"]";
    let error = load_beside(text, &[], &overrides).unwrap_err();
    assert_eq!(
        error,
        "--refuse-at: \"greeting\" does not go with [relay], which refuses at RCPT and never greets \
         with 521; use \"rcpt\", or leave it out\n\
         NOMAIL_AFTER_GREETING: \"close\" does not go with [relay], which never greets with 521; \
         use \"hold\", or leave it out"
    );
}

#[rstest]
#[case::local_part("a..b@example.org")]
#[case::quoted("\\\"a b\\\"@example.org")]
#[case::no_local_part("@example.org")]
#[case::not_ascii("pöst@example.org")]
#[case::two("a@b@example.org")]
#[case::brackets("<a@example.org>")]
#[case::line("a\\r\\n@example.org")]
#[case::domain("a@")]
#[case::domain_ip("a@[192.0.2.7]")]
#[case::domain_not_ascii("a@bücher.example")]
#[case::long("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@example.org")]
fn wrong_postmasters(#[case] written: &str) {
    let written = written.replace('@', "\\u0040");
    let text = format!("[relay]\ndomains = [\"a\"]\npostmaster = \"{written}\"");
    let error = error_of(&text, &[]);
    let begin = "@/t.toml:3:14: relay.postmaster: ";
    assert!(error.starts_with(begin), "{error}");
    let end = ": give one like \"postmaster@example.org\"";
    assert!(error.ends_with(end), "{error}");
}

/// What is logged of a list of one file with this content, and the domains in force.
fn warned(content: &[u8]) -> (Vec<String>, Vec<String>) {
    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list");
    fs::write(&list, content).unwrap();
    let path = directory.path().join("t.toml");
    fs::write(&path, format!("relay.domain_files = [{list:?}]")).unwrap();
    let config = load_from(&path, true, &Overrides::default()).unwrap();
    let at = directory.path().display().to_string();
    let warnings = config.list_files().flat_map(|file| &file.warnings);
    let warnings = warnings.map(|warning| warning.replace(&at, "@")).collect();
    (warnings, shown(&config.relay.unwrap()))
}

#[rstest]
#[case::empty(
    b"",
    "@/list: lists no domain: write one a line, or leave the file out of relay.domain_files"
)]
#[case::only_comments(
    b"# example.org\n; example.org\n",
    "@/list: lists no domain: write one a line, or leave the file out of relay.domain_files"
)]
#[case::not_utf8(
    b"right.example\nb\xC3\xA4\xFF",
    "@/list:2:1: left out: \"b\u{e4}\u{fffd}\" is not an internationalised domain name: give a domain \
     like \"example.org\" or \"*.example.org\""
)]
#[case::domain(
    b"right.example\n\t a_b.example\r\n",
    "@/list:2:3: left out: \"a_b\" in \"a_b.example\" has other characters than letters, digits and \
     hyphens: give a domain like \"example.org\" or \"*.example.org\""
)]
#[case::text(
    b"\xC3\xA4.example   no\tmail \t # x\nright.example",
    "@/list:1:13: left out: \"no\\tmail\" has control characters: give a text like \"this domain \
     does not accept mail\""
)]
#[case::carriage_return(
    b"right.example\na.example no\rb.example yes\n",
    "@/list:2:11: left out: \"no\\rb.example yes\" has control characters: give a text like \"this \
     domain does not accept mail\""
)]
fn a_bad_line_is_left_out(#[case] content: &[u8], #[case] expected: &str) {
    let (warnings, domains) = warned(content);
    assert_eq!(warnings, [expected]);
    let right = content.windows(5).any(|word| word == b"right");
    assert_eq!(domains, vec!["right.example"; usize::from(right)]);
}

#[test]
fn the_longest_text() {
    let text = "x".repeat(400);
    let list = format!("a {text}\n");
    assert_eq!(listed(list.as_bytes()).unwrap(), [format!("a ({text})")]);
    let cut = "x".repeat(64);
    let (warnings, domains) = warned(format!("a {text}x\nb\n").as_bytes());
    let expected = format!(
        "@/list:1:3: left out: \"{cut}\"... is longer than 400 characters: give a shorter text"
    );
    assert_eq!(warnings, [expected]);
    assert_eq!(domains, ["b"]);
}

#[test]
fn a_page_in_place_of_a_list_is_no_list() {
    let (warnings, domains) = warned(&b"a..b\n".repeat(12));
    assert_eq!(warnings.len(), 12);
    assert_eq!(warnings[10], "@/list: 2 more lines are left out");
    let expected = "@/list: has no line that is a domain: is it the file it should be?";
    assert_eq!(warnings[11], expected);
    assert_eq!(domains, [""; 0]);
}

#[test]
fn too_many_domains() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, "a\nb\na\nc\nd\n").unwrap();
    let mut list = DomainList::new("", 2);
    let file = LineFile::new(&path, List::Domains);
    let expected = format!(
        "{}:4:1: left out: is one more than the 2 domains of a relay: leave some out, or write \
         *.example.org for all below example.org",
        path.display()
    );
    for _ in 0..2 {
        let read = list.read(&file);
        assert_eq!((read.entries, read.left_out), (3, 2));
        assert_eq!(read.warnings[0], expected);
    }
}

/// Also the measure of the time: `cargo test -p nomail-agent --lib
/// a_hundred_thousand -- --nocapture`. The bound is loose, for slow machines.
#[test]
fn a_hundred_thousand_domains_load_fast() {
    let list: String = (0..100_000)
        .map(|number| format!("host-{number}.Example.org\n"))
        .collect();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t.toml");
    let text = format!(
        "relay.domain_files = [\"{}/list\"]",
        directory.path().display()
    );
    fs::write(&path, text).unwrap();
    fs::write(directory.path().join("list"), list).unwrap();
    let begin = Instant::now();
    let config = load_from(&path, true, &Overrides::default()).unwrap();
    let took = begin.elapsed();
    println!("100,000 domains in {took:?}");
    let domains = &config.relay.unwrap().domains;
    assert_eq!(domains.len(), 100_000);
    assert_eq!(domains[99_999].name, "host-99999.example.org");
    assert!(took.as_secs() < 10, "{took:?}");
}

proptest! {
    /// The quick look at a domain and the close one agree.
    #[test]
    fn quick_and_close(name in "([-a-zA-Z0-9.]{0,12}|[a-zA-Z0-9]([-a-z0-9]{0,3}[.]?){1,6})") {
        if names::is_plain_domain(&name) {
            let close = names::domain_of_any_kind(&name, &name);
            prop_assert_eq!(close, Ok(name.as_str().into()));
        }
    }

    #[test]
    fn a_domain_is_fit_for_a_look_up(text in "\\PC{0,20}|[*.]{0,2}[-.a-zäß。xn0-9]{0,20}") {
        if let Ok(name) = names::domain(&text) {
            prop_assert_eq!(names::domain(&name), Ok(name.clone()));
            let bare = name.strip_prefix("*.").unwrap_or(&name);
            prop_assert!(bare.len() <= 253);
            for label in bare.split('.') {
                prop_assert!((1..=63).contains(&label.len()), "{:?}", name);
                let fit = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-');
                prop_assert!(label.bytes().all(fit), "{:?}", name);
            }
        }
    }

    /// Whatever a list holds, the agent starts, and what it says of it is fit for a
    /// terminal.
    #[test]
    fn any_list_is_taken(
        content in prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            "([-a-z\u{fc}*.#;\t \r\n]{0,9}\n){0,9}".prop_map(String::into_bytes),
        ],
    ) {
        let (warnings, domains) = warned(&content);
        prop_assert!(!domains.is_empty() || !warnings.is_empty());
        for line in warnings {
            prop_assert!(line.starts_with("@/list"), "{line:?}");
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
