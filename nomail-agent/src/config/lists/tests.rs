//! Prefixes, from the configuration and from lists.

use std::{fmt::Write as _, fs, time::Instant};

use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::{
    super::{error::ConfigError, keys::Config, load::load_layers_of, overrides::Overrides},
    *,
};

/// Reads one file with its drop-ins.
fn load_from(path: &Path, required: bool, overrides: &Overrides) -> Result<Config, ConfigError> {
    load_layers_of(path, required, overrides).map(|(config, _)| config)
}

/// Reads `text` as the file `t.toml`, beside `files`. `@` in the text stands for
/// their directory, and errors come without it.
fn load_beside(text: &str, files: &[(&str, &[u8])]) -> Result<Config, String> {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let path = directory.path().join("t.toml");
    let at = directory.path().display().to_string();
    fs::write(&path, text.replace('@', &at)).unwrap();
    load_from(&path, true, &Overrides::default())
        .map_err(|error| error.to_string().replace(&at, "@"))
}

fn lists_of(text: &str, files: &[(&str, &[u8])]) -> Arc<ListSources> {
    load_beside(text, files).unwrap().lists
}

fn error_of(text: &str, files: &[(&str, &[u8])]) -> String {
    load_beside(text, files).unwrap_err()
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

/// What is logged of the files.
fn warnings_of(text: &str, files: &[(&str, &[u8])]) -> Vec<String> {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let at = directory.path().display().to_string();
    let path = directory.path().join("t.toml");
    fs::write(&path, text.replace('@', &at)).unwrap();
    let config = load_from(&path, true, &Overrides::default()).unwrap();
    let warnings = config.list_files().flat_map(|file| &file.warnings);
    warnings.map(|warning| warning.replace(&at, "@")).collect()
}

/// A list of one file with this content.
fn denied(content: &[u8]) -> Result<Vec<String>, String> {
    load_beside("lists.deny_files = [\"@/list\"]", &[("list", content)])
        .map(|config| texts(&config.lists.deny))
}

#[test]
fn every_key() {
    let lists = lists_of(
        "[lists]\nallow = [\"2001:db8::7\", \"192.0.2.7\"]\n\
         deny = [\"2001:db8::/32\", \"192.0.2.0/24\", \"0.0.0.0/0\", \"::/0\"]\n\
         allow_files = [\"@/a\", \"@/b\"]\ndeny_files = [\"@/c\"]",
        &[
            ("a", b"198.51.100.0/24\n"),
            ("b", b"192.0.2.0/25"),
            ("c", b"192.0.2.0/23\n192.0.2.0/32\n"),
        ],
    );
    assert_eq!(
        texts(&lists.allow),
        [
            "192.0.2.0/25",
            "192.0.2.7/32",
            "198.51.100.0/24",
            "2001:db8::7/128"
        ]
    );
    assert_eq!(
        texts(&lists.deny),
        [
            "0.0.0.0/0",
            "192.0.2.0/23",
            "192.0.2.0/24",
            "192.0.2.0/32",
            "::/0",
            "2001:db8::/32"
        ]
    );
    let files = lists.files.iter();
    let names: Vec<_> = files.map(|file| file.path.file_name()).collect();
    assert_eq!(names, ["a", "b", "c"].map(|name| Some(name.as_ref())));
    assert!(lists.files.iter().all(|file| file.path.is_absolute()));
    let entries: Vec<_> = lists.files.iter().map(|file| file.entries).collect();
    assert_eq!(entries, [1, 1, 2]);
}

#[rstest]
#[case::no_table("")]
#[case::no_key("[lists]")]
#[case::lists("[lists]\nallow = []\ndeny = []\nallow_files = []\ndeny_files = []")]
fn empty(#[case] text: &str) {
    assert_eq!(*lists_of(text, &[]), ListSources::default());
}

#[rstest]
#[case::nothing(b"")]
#[case::mark(b"\xEF\xBB\xBF")]
#[case::comments(b"# 192.0.2.7\n\n \t \r\n\t# none")]
fn empty_files(#[case] content: &[u8]) {
    assert_eq!(denied(content), Ok(Vec::new()));
}

#[test]
fn a_list() {
    let content = "\u{feff}# a list\r\n\r\n  192.0.2.7 # öne\r\n192.0.2.0/24\t\r\n\
                   #203.0.113.1\n\t2001:DB8:0:0::/32\n192.0.2.7/32\n198.51.100.1";
    assert_eq!(
        denied(content.as_bytes()).unwrap(),
        [
            "192.0.2.0/24",
            "192.0.2.7/32",
            "198.51.100.1/32",
            "2001:db8::/32"
        ]
    );
}

#[test]
fn twice_in_one_list_is_once() {
    let lists = lists_of(
        "[lists]\nallow = [\"192.0.2.7\", \"192.0.2.7/32\"]\nallow_files = [\"@/a\", \"@/b\"]",
        &[
            ("a", b"192.0.2.7\n2001:db8::7"),
            ("b", b"2001:db8:0::7/128\n"),
        ],
    );
    assert_eq!(texts(&lists.allow), ["192.0.2.7/32", "2001:db8::7/128"]);
}

#[test]
fn in_both_lists() {
    let error = error_of(
        "[lists]\nallow = [\n \"192.0.2.7\", \"198.51.100.0/24\"]\n\
         deny = [\"192.0.2.7/32\", \"198.51.100.0/25\"]",
        &[],
    );
    assert_eq!(
        error,
        "@/t.toml:4:9: lists.deny: \"192.0.2.7\" is allowed too, at @/t.toml:3:2: leave it out of \
         one of the two lists"
    );
}

/// What another program writes into a file is no reason not to start.
#[test]
fn what_a_file_has_in_common_with_the_other_list_is_allowed() {
    let text = "[lists]\nallow = [\"192.0.2.7\"]\ndeny = [\"2001:db8::/32\"]\n\
                allow_files = [\"@/a\"]\ndeny_files = [\"@/d\"]";
    let files: [(&str, &[u8]); 2] = [
        ("a", b"\n  2001:db8::/32\n198.51.100.0/24"),
        ("d", b"192.0.2.7\n198.51.100.0/24\n203.0.113.9\n"),
    ];
    let lists = lists_of(text, &files);
    assert_eq!(
        texts(&lists.allow),
        ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32"]
    );
    assert_eq!(texts(&lists.deny), ["203.0.113.9/32"]);
    assert!(lists.files.iter().all(|file| file.left_out == 0));
    assert_eq!(
        warnings_of(text, &files),
        ["@/a:2:3: \"2001:db8::/32\" is allowed, though lists.deny has it too, at @/t.toml:3:9"]
    );
}

/// One bad line, as in the reports: the others are in force.
#[rstest]
#[case::not_utf8(
    b"\xC3\xA4\xFF",
    2,
    "1: left out: \"ä\u{fffd}\" is not an address or a network"
)]
#[case::name(
    b" \ta.example\r",
    2,
    "3: left out: \"a.example\" is not an address or a network"
)]
#[case::carriage_return(
    b"192.0.2.8\r192.0.2.9",
    2,
    "1: left out: \"192.0.2.8\\r192.0.2.9\" is not an address"
)]
#[case::too_wide(b"192.0.2.8/33", 2, "1: left out: \"192.0.2.8/33\" is not an address")]
fn a_bad_line_is_left_out(#[case] line: &[u8], #[case] number: usize, #[case] expected: &str) {
    let content = [b"192.0.2.7\n", line, b"\n192.0.2.9\n"].concat();
    let files = [("list", &content[..])];
    for (key, of) in [("allow", true), ("deny", false)] {
        let text = format!("lists.{key}_files = [\"@/list\"]");
        let lists = lists_of(&text, &files);
        let list = if of { &lists.allow } else { &lists.deny };
        assert_eq!(texts(list), ["192.0.2.7/32", "192.0.2.9/32"]);
        assert_eq!((lists.files[0].entries, lists.files[0].left_out), (2, 1));
        assert!(!lists.denies_nothing);
        let warnings = warnings_of(&text, &files);
        let begin = format!("@/list:{number}:{expected}");
        assert!(warnings[0].starts_with(&begin), "{warnings:?}");
        assert_eq!(warnings.len(), 1);
    }
}

/// Several kinds of lists in one, each with what its publisher puts around it.
#[test]
fn public_lists_are_read_as_they_are() {
    let content = b"; Spamhaus DROP List 2024/06/01\n1.10.16.0/20 ; SBL256894\n\
        {\"cidr\":\"1.19.0.0/16\",\"sblid\":\"SBL434604\",\"rir\":\"apnic\"}\n\
        {\"type\":\"metadata\",\"timestamp\":1717243200,\"records\":1}\n\
        # primary URL: https://feeds.dshield.org/block.txt\n\
        Start\tEnd\tNetblock\tAttacks\tName\tCountry\temail\n\
        198.51.100.0\t198.51.100.255\t24\t4015\tN\xC3\x84ME\tUS\ta@example.net\n\
        # IPsum\n192.0.2.7\t9\n";
    let files = [("list", &content[..])];
    let lists = lists_of("lists.deny_files = [\"@/list\"]", &files);
    assert_eq!(
        texts(&lists.deny),
        [
            "1.10.16.0/20",
            "1.19.0.0/16",
            "192.0.2.7/32",
            "198.51.100.0/24"
        ]
    );
    assert_eq!((lists.files[0].entries, lists.files[0].left_out), (4, 0));
    assert_eq!(lists.files[0].warnings, [""; 0]);
}

#[rstest]
#[case::missing(None, "there is no such file: create it, or leave it out of lists.")]
#[case::page(Some(&b"<html>\n"[..]), "has no line that is a prefix")]
fn a_deny_file_that_cannot_be_read_denies_nobody(
    #[case] content: Option<&[u8]>,
    #[case] expected: &str,
) {
    let files: Vec<_> = content.iter().map(|content| ("d", *content)).collect();
    let lists = lists_of(
        "lists = { deny = [\"192.0.2.7\"], deny_files = [\"@/d\"] }",
        &files,
    );
    assert_eq!(texts(&lists.deny), ["192.0.2.7/32"]);
    assert!(!lists.denies_nothing);
    let unread = lists.files[0].unread.as_deref().unwrap();
    assert!(unread.starts_with(expected), "{unread}");
    assert!(!lists.files[0].warnings.is_empty());
}

/// Otherwise it would be denied what its owner allowed: worse than no nomail.
#[test]
fn without_a_file_of_the_allowed_nothing_is_denied() {
    let text = "[lists]\nallow = [\"192.0.2.7\"]\ndeny = [\"192.0.2.8\"]\n\
                allow_files = [\"@/a\", \"@/none\"]\ndeny_files = [\"@/d\"]";
    let files: [(&str, &[u8]); 2] = [("a", b"192.0.2.9\n"), ("d", b"192.0.2.0/24\n")];
    let lists = lists_of(text, &files);
    assert!(lists.denies_nothing);
    assert_eq!(texts(&lists.allow), ["192.0.2.7/32", "192.0.2.9/32"]);
    assert_eq!(texts(&lists.deny), [""; 0]);
}

#[rstest]
#[case::not_a_table(
    "lists = []",
    "@/t.toml:1:1: lists: a list is not a table: write [lists] and its keys below it"
)]
#[case::unknown_key(
    "[lists]\nblock = []",
    "@/t.toml:2:1: lists.block: unknown key; [lists] knows allow, deny, allow_files, deny_files"
)]
#[case::not_a_list(
    "lists.allow = \"192.0.2.7\"\nlists.deny_files = \"/dev/null\"",
    "@/t.toml:1:15: lists.allow: a string is not a list: write [\"192.0.2.0/24\"]\n\
     @/t.toml:2:20: lists.deny_files: a string is not a list: write [\"/etc/nomail/deny\"]"
)]
#[case::items(
    "lists.deny = [1, \"a.example\",\n \"192.0.2.0/33\", \" 192.0.2.7\", \"\"]",
    "@/t.toml:1:15: lists.deny: an integer is not a string in quotes\n\
     @/t.toml:1:18: lists.deny: \"a.example\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\"\n\
     @/t.toml:2:2: lists.deny: \"192.0.2.0/33\" is not an address or a network: write \
     \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"\n\
     @/t.toml:2:18: lists.deny: \" 192.0.2.7\" is not an address or a network: write \
     \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"\n\
     @/t.toml:2:32: lists.deny: \"\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
#[case::host_bits(
    "lists.allow = [\"192.0.2.7/24\", \"2001:db8::7/32\"]",
    "@/t.toml:1:16: lists.allow: \"192.0.2.7/24\" has bits set behind its prefix: write \
     \"192.0.2.0/24\" for the network, or \"192.0.2.7\" for the address\n\
     @/t.toml:1:32: lists.allow: \"2001:db8::7/32\" has bits set behind its prefix: write \
     \"2001:db8::/32\" for the network, or \"2001:db8::7\" for the address"
)]
#[case::mapped(
    "lists.deny = [\"::ffff:192.0.2.7\", \"::ffff:192.0.2.0/120\"]",
    "@/t.toml:1:15: lists.deny: \"::ffff:192.0.2.7\" is IPv4 in disguise: write \"192.0.2.7\"\n\
     @/t.toml:1:35: lists.deny: \"::ffff:192.0.2.0/120\" is IPv4 in disguise: write \"192.0.2.0/24\""
)]
#[case::file_relative(
    "lists.allow_files = [\"allow\"]",
    "@/t.toml:1:22: lists.allow_files: \"allow\" is not the absolute path of a file: give one"
)]
#[case::file_twice(
    "lists.allow_files = [\"/dev/null\", \"//dev/null\"]",
    "@/t.toml:1:35: lists.allow_files: \"//dev/null\" is named twice: leave one out"
)]
fn errors_of_the_table(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(error_of(text, &[]), expected);
}

#[test]
fn a_file_in_both_lists_is_told_once() {
    let error = error_of(
        "lists.allow_files = [\"@/list\"]\nlists.deny_files = [\"@/list\"]",
        &[("list", b"192.0.2.7\n192.0.2.8\n")],
    );
    assert_eq!(
        error,
        "@/t.toml:2:21: lists.deny_files: \"@/list\" is in lists.allow_files too: leave it out of \
         one of the two"
    );
}

#[test]
fn files_that_cannot_be_read_are_told_and_not_in_force() {
    let text = "lists.deny_files = [\"@/d\"]\nlists.allow_files = [\"@/a\", \"@\"]\n\
                relay.domain_files = [\"@/r\"]";
    assert_eq!(
        warnings_of(text, &[]),
        [
            "@/a: there is no such file: create it, or leave it out of lists.allow_files",
            "@: is not a file: name one with a prefix a line",
            "@/d: there is no such file: create it, or leave it out of lists.deny_files",
            "@/r: there is no such file: create it, or leave it out of relay.domain_files",
        ]
    );
}

/// What a start does without must not take from a reload what is in force.
#[test]
fn a_reload_gives_up_no_list_that_is_in_force() {
    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list");
    let path = directory.path().join("t.toml");
    fs::write(&path, format!("lists.deny_files = [{list:?}]")).unwrap();
    let overrides = Overrides::of_file(Some(path));
    let load = || super::super::load(&overrides).unwrap();
    let reload = |current: &Config| super::super::reload(&overrides, current);

    // Missing all along: the rest can be reloaded, and the file when it comes.
    let missing = load();
    assert_eq!(reload(&missing), Ok(missing.clone()));
    fs::write(&list, "192.0.2.7\n").unwrap();
    let current = reload(&missing).unwrap();
    assert_eq!(texts(&current.lists.deny), ["192.0.2.7/32"]);

    let shown = list.display();
    for (breakage, expected) in [
        (
            None,
            "there is no such file: create it, or leave it out of lists.deny_files",
        ),
        (
            Some("<html>\n"),
            "has no line that is a prefix: is it the file it should be?",
        ),
    ] {
        match breakage {
            None => fs::remove_file(&list).unwrap(),
            Some(text) => fs::write(&list, text).unwrap(),
        }
        let error = reload(&current).unwrap_err().to_string();
        assert_eq!(error, format!("{shown}: {expected}"));
    }
    // A line is left out, as at a start, so that a restart makes no difference.
    fs::write(&list, "192.0.2.8\nx\n").unwrap();
    let current = reload(&current).unwrap();
    assert_eq!(texts(&current.lists.deny), ["192.0.2.8/32"]);
    assert_eq!(current.lists.files[0].left_out, 1);
    // It may be emptied, which a file that could not be read is not.
    fs::write(&list, "# none\n").unwrap();
    assert!(reload(&current).unwrap().lists.deny.is_empty());
}

#[test]
fn too_many_files() {
    let names: Vec<_> = (0..65).map(|number| format!("\"@/{number}\"")).collect();
    let files: Vec<_> = (0..64).map(|number| number.to_string()).collect();
    let files: Vec<_> = files.iter().map(|name| (&**name, &b""[..])).collect();
    let text = format!("lists.deny_files = [\n{}]", names.join(",\n"));
    assert_eq!(
        error_of(&text, &files),
        "@/t.toml:66:1: lists.deny_files: \"@/64\" is one more than the 64 files that are read: \
         put some together"
    );
}

#[test]
fn too_many_prefixes() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, "192.0.2.1\n192.0.2.2\n192.0.2.1\n192.0.2.4/31\nx\n").unwrap();
    let mut prefixes = PrefixList::new(2, None);
    let mut problems = Vec::new();
    let file = LineFile::new(&path, List::Deny);
    // The bound costs what is over it, and nothing else.
    let read = [prefixes.read(&file, 0), prefixes.read(&file, 1)];
    let origin = Origin::Flag("--flag");
    let more = vec![("192.0.2.9".to_owned(), origin); 2];
    prefixes.add_all("lists.deny", more, &mut problems, &mut []);
    let end = "is one more than the 2 prefixes of a list: leave some out, or write the networks \
               that they are in";
    let expected = format!("{}:4:1: left out: \"192.0.2.4/31\" {end}", path.display());
    for read in read {
        assert_eq!((read.entries, read.left_out), (3, 2));
        assert_eq!(read.warnings[0], expected);
    }
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, [format!("--flag: \"192.0.2.9\" {end}")]);
    assert_eq!(
        texts(&prefixes.into_sorted()),
        ["192.0.2.1/32", "192.0.2.2/32"]
    );
}

/// Also the measure of the time: `cargo test -p nomail-agent --lib
/// a_hundred_thousand_prefixes -- --nocapture`. The bound is loose, for slow
/// machines.
#[test]
fn a_hundred_thousand_prefixes_load_fast() {
    let mut list = String::new();
    for number in (0..100_000_u32).rev() {
        match number % 4 {
            0 => writeln!(list, "2001:db8:{:x}:{:x}::/64", number >> 8, number & 255),
            1 => writeln!(list, "10.{}.{}.0/24", number >> 10 & 255, number >> 2 & 255),
            _ => writeln!(list, "{} # x", std::net::Ipv4Addr::from(number << 12 | 7)),
        }
        .unwrap();
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t.toml");
    let text = format!("lists.deny_files = [\"{}/l\"]", directory.path().display());
    fs::write(&path, text).unwrap();
    fs::write(directory.path().join("l"), list).unwrap();
    let begin = Instant::now();
    let config = load_from(&path, true, &Overrides::default()).unwrap();
    let took = begin.elapsed();
    println!("100,000 prefixes in {took:?}");
    let deny = &config.lists.deny;
    assert_eq!(deny.len(), 100_000);
    assert!(deny.is_sorted());
    assert!(took.as_secs() < 10, "{took:?}");
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let is_mapped = |prefix: &IpNet| matches!(prefix, IpNet::V6(ipv6) if ipv6.addr().to_ipv4_mapped().is_some());
    let ipv4 = (any::<u32>(), 0u8..=32)
        .prop_map(|(address, length)| (std::net::IpAddr::V4(address.into()), length));
    let ipv6 = (any::<u128>(), 0u8..=128)
        .prop_map(|(address, length)| (std::net::IpAddr::V6(address.into()), length));
    prop_oneof![ipv4, ipv6]
        .prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc())
        .prop_filter("IPv4 in disguise", move |prefix| !is_mapped(prefix))
}

proptest! {
    /// Every network can be written, and comes back sorted and once.
    #[test]
    fn any_networks_are_kept(prefixes in prop::collection::vec(prefix(), 0..20)) {
        let lines: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
        let mut expected = prefixes;
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(denied(lines.join("\n").as_bytes()), Ok(texts(&expected)));
    }

    /// Whatever a list holds, the agent starts, and what it says of it is fit for a
    /// terminal.
    #[test]
    fn any_list_is_taken(
        content in prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            "([-0-9a-f:./#;{}\"cidr \t \r\n]{0,9}\n){0,9}".prop_map(String::into_bytes),
        ],
    ) {
        let text = "lists.deny_files = [\"@/list\"]";
        let files = [("list", &content[..])];
        let lists = lists_of(text, &files);
        let file = &lists.files[0];
        prop_assert!(file.entries >= lists.deny.len());
        prop_assert!(file.left_out == 0 || !file.warnings.is_empty());
        for line in warnings_of(text, &files) {
            prop_assert!(line.starts_with("@/list"), "{line:?}");
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn files_are_read_again_without_the_configuration() {
    let directory = TempDir::new().unwrap();
    let at = directory.path().display().to_string();
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text.replace('@', &at)).unwrap();
    };
    let toml = "[lists]\nallow = [\"192.0.2.1\"]\ndeny = [\"192.0.2.2\"]\n\
                allow_files = [\"@/allow\"]\ndeny_files = [\"@/deny\"]\n\
                [relay]\ndomains = [\"a.example own text\"]\ndomain_files = [\"@/domains\"]\n";
    write("t.toml", toml);
    write("deny", "192.0.2.3\n");
    write("domains", "b.example\n");
    let path = directory.path().join("t.toml");
    let first = load_from(&path, true, &Overrides::default()).unwrap();
    assert!(first.lists.denies_nothing);
    assert_eq!(first.with_lists_read_again(), first);

    // What the configuration says by now is not looked at.
    write("t.toml", "observe = true");
    write("allow", "192.0.2.3\n");
    write("deny", "192.0.2.3\n192.0.2.4\n");
    write("domains", "c.example\n");
    let second = first.with_lists_read_again();
    assert_eq!(texts(&second.lists.allow), ["192.0.2.1/32", "192.0.2.3/32"]);
    assert_eq!(texts(&second.lists.deny), ["192.0.2.2/32", "192.0.2.4/32"]);
    let relay = second.relay.as_ref().unwrap();
    let domains: Vec<_> = relay.domains.iter().map(|found| &*found.name).collect();
    assert_eq!(domains, ["a.example", "c.example"]);
    assert_eq!(relay.domains[0].text.as_deref(), Some("own text"));
    assert!(!second.observe);
    assert_eq!(second.lost_since(&first).count(), 0);

    fs::remove_file(directory.path().join("deny")).unwrap();
    write("domains", "<html>\n");
    let third = second.with_lists_read_again();
    let lost: Vec<_> = third.lost_since(&second).map(|file| file.key).collect();
    assert_eq!(lost, ["lists.deny_files", "relay.domain_files"]);
    assert_eq!(third.lost_since(&third).count(), 0);
}

#[test]
fn prefixes_of_a_file_that_no_key_names_have_a_bound() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("deny");
    fs::write(&path, "# decisions\n192.0.2.2\n2001:db8::/32\n192.0.2.1\n").unwrap();
    let (prefixes, file) = read_prefixes(&path, 10);
    assert_eq!(
        texts(&prefixes),
        ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::/32"]
    );
    assert_eq!((file.entries, file.left_out, file.unread), (3, 0, None));
    let (prefixes, file) = read_prefixes(&path, 2);
    assert_eq!((prefixes.len(), file.left_out), (2, 1));
}
