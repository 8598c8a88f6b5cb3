//! Prefixes, from the configuration and from lists.

use std::{fmt::Write as _, fs, time::Instant};

use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::{
    super::{Config, Overrides, load_from},
    *,
};

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

fn lists_of(text: &str, files: &[(&str, &[u8])]) -> Arc<Lists> {
    load_beside(text, files).unwrap().lists
}

fn error_of(text: &str, files: &[(&str, &[u8])]) -> String {
    load_beside(text, files).unwrap_err()
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
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
    let names: Vec<_> = lists.files.iter().map(|file| file.file_name()).collect();
    assert_eq!(names, ["a", "b", "c"].map(|name| Some(name.as_ref())));
    assert!(lists.files.iter().all(|file| file.is_absolute()));
}

#[rstest]
#[case::no_table("")]
#[case::no_key("[lists]")]
#[case::lists("[lists]\nallow = []\ndeny = []\nallow_files = []\ndeny_files = []")]
fn empty(#[case] text: &str) {
    assert_eq!(*lists_of(text, &[]), Lists::default());
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
         deny = [\"192.0.2.7/32\", \"198.51.100.0/25\"]\n\
         allow_files = [\"@/a\"]\ndeny_files = [\"@/d\"]",
        &[
            ("a", b"\n  2001:db8::/32\n2001:db8::/32"),
            ("d", b"198.51.100.0/24\n\n\t2001:db8::/32 # again"),
        ],
    );
    assert_eq!(
        error,
        "@/t.toml:4:9: lists.deny: \"192.0.2.7\" is allowed too, at @/t.toml:3:2: leave it out of \
         one of the two lists\n\
         @/d:1:1: \"198.51.100.0/24\" is allowed too, at @/t.toml:3:15: leave it out of one of the \
         two lists\n\
         @/d:3:2: \"2001:db8::/32\" is allowed too, at @/a:2:3: leave it out of one of the two \
         lists"
    );
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
    "@/t.toml:1:35: lists.allow_files: \"//dev/null\" is named twice: leave one out\n\
     /dev/null: is not a file: name one with a prefix a line"
)]
#[case::files_missing(
    "lists.deny_files = [\"@/d\"]\nlists.allow_files = [\"@/a\"]\nrelay.domain_files = [\"@/r\"]",
    "@/a: there is no such file: create it, or leave it out of lists.allow_files\n\
     @/d: there is no such file: create it, or leave it out of lists.deny_files\n\
     @/r: there is no such file: create it, or leave it out of relay.domain_files"
)]
#[case::file_is_a_directory(
    "lists.allow_files = [\"@\"]",
    "@: is not a file: name one with a prefix a line"
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

#[rstest]
#[case::not_utf8(
    b"192.0.2.7\n# \xC3\xA4\xFF",
    "@/list:2:4: not UTF-8: write the file in UTF-8"
)]
#[case::name(
    b"192.0.2.7\n\n \ta.example\r\n",
    "@/list:3:3: \"a.example\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
#[case::host_bits(
    b"192.0.2.7/24",
    "@/list:1:1: \"192.0.2.7/24\" has bits set behind its prefix: write \"192.0.2.0/24\" for the \
     network, or \"192.0.2.7\" for the address"
)]
#[case::mapped(
    b"::ffff:192.0.2.0/120",
    "@/list:1:1: \"::ffff:192.0.2.0/120\" is IPv4 in disguise: write \"192.0.2.0/24\""
)]
#[case::other_comment(
    b" 192.0.2.0/24\t ; SBL 1 \t# x",
    "@/list:1:16: \"; SBL 1\" follows a prefix: write one a line, and \" #\" before a comment"
)]
#[case::comment_within_a_word(
    b"192.0.2.7#x",
    "@/list:1:1: \"192.0.2.7#x\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
#[case::carriage_return(
    b"192.0.2.7\r192.0.2.8\n",
    "@/list:1:1: \"192.0.2.7\\r192.0.2.8\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
fn errors_of_a_list(#[case] content: &[u8], #[case] expected: &str) {
    assert_eq!(denied(content), Err(expected.to_owned()));
}

#[test]
fn problems_of_lists_are_bounded_and_in_order() {
    let many = "x\n".repeat(12);
    let error = error_of(
        "lists.deny_files = [\"@/d\"]\nobserve = 1\nlists.allow_files = [\"@/a\", \"@/b\"]\n\
         relay.domain_files = [\"@/r\"]",
        &[
            ("a", many.as_bytes()),
            ("b", b"\n\ny"),
            ("d", b"192.0.2.0/24\nz"),
            ("r", b"-"),
        ],
    );
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 15);
    assert_eq!(
        lines[0],
        "@/t.toml:2:11: observe: an integer is neither true nor false"
    );
    for (number, line) in lines[1..11].iter().enumerate() {
        let begin = format!("@/a:{}:1: \"x\" is not an address", number + 1);
        assert!(line.starts_with(&begin), "{line}");
    }
    assert_eq!(lines[11], "@/a: and 2 more problems");
    assert!(lines[12].starts_with("@/b:3:1: \"y\" is"), "{}", lines[12]);
    assert!(lines[13].starts_with("@/d:2:1: \"z\" is"), "{}", lines[13]);
    assert!(lines[14].starts_with("@/r:1:1: \"-\" in"), "{}", lines[14]);
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
    let mut prefixes = Prefixes::new(2, None);
    let mut problems = Vec::new();
    for number in 0..2 {
        let file = LineFile::new(&path, List::Deny, number);
        prefixes.read(&file, &mut problems);
    }
    let origin = Origin::Flag("--flag");
    let more = vec![("192.0.2.9".to_owned(), origin); 2];
    prefixes.add_all("lists.deny", more.clone(), &mut problems);
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let end = "is one more than the 2 prefixes of a list: leave some out, or write the networks \
               that they are in";
    let expected = format!("{}:4:1: \"192.0.2.4/31\" {end}", path.display());
    assert_eq!(told, [expected]);

    let mut prefixes = Prefixes::new(0, None);
    let mut problems = Vec::new();
    prefixes.add_all("lists.deny", more, &mut problems);
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let end = end.replace("the 2", "the 0");
    assert_eq!(told, [format!("--flag: \"192.0.2.9\" {end}")]);
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

    /// Whatever a list holds, there is an answer, and it is fit for a terminal.
    #[test]
    fn any_list_is_answered(
        content in prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            "([-0-9a-f:./#\\t \\r\\n]{0,9}\\n){0,9}".prop_map(String::into_bytes),
        ],
    ) {
        if let Err(error) = denied(&content) {
            for line in error.lines() {
                prop_assert!(line.starts_with("@/list"), "{line:?}");
                prop_assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}
