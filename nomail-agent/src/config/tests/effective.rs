//! What is in effect, as it is shown and hashed.

use super::*;

/// Reads `text` as the file `t.toml` and shows what is in effect, without the
/// directory.
fn shown(text: &str, overrides: &Overrides) -> String {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t.toml");
    fs::write(&path, text).unwrap();
    let (config, layers) = load_layers_of(&path, true, overrides).unwrap();
    let prefix = format!("{}/", directory.path().display());
    super::super::effective::shown(&config, &layers).replace(&prefix, "")
}

fn hash_of(text: &str) -> u64 {
    load_text(text.as_bytes(), &Overrides::default())
        .unwrap()
        .hash()
}

const RELAY: &str = "[relay]\ndomains = [\"example.org\", \"*.example.org closed \\\"since\\\" May\"]\n\
                     text = \"no\\\\mail\"\npostmaster = \"p@example.com\"\nenhanced_code = \"5.1.10\"";

const CROWDSEC: &str = "[crowdsec]\napi_key_file = '/etc/nomail/crowdsec.key'";

/// Each line, in this order; other keys may be between them.
#[rstest]
#[case::defaults("", include_str!("shown/defaults.toml"))]
#[case::written(include_str!("shown/written.toml"), include_str!("shown/of_written.toml"))]
fn what_is_shown(#[case] text: &str, #[case] expected: &str) {
    let shown = shown(text, &Overrides::default());
    let mut lines = shown.lines();
    for expected in expected.lines() {
        assert!(lines.any(|line| line == expected), "{expected}\n{shown}");
    }
}

#[rstest]
#[case::defaults("")]
#[case::full(FULL)]
#[case::relay(RELAY)]
#[case::crowdsec(CROWDSEC)]
#[case::relay_of_1846("relay = { domains = ['example.org'], code = 521 }")]
#[case::prefix("limits.prefix_rate = 5")]
#[case::prefix_burst("limits = { prefix_rate = 0, prefix_burst = 7 }")]
#[case::names_of_defaults("user = \"nomail\"\nstate_dir = \"/var/lib/nomail\"")]
#[case::escapes("state_dir = '/a\"b\\c ü'\n")]
fn what_is_shown_says_the_same(#[case] text: &str) {
    let overrides = Overrides::default();
    let expected = load_text(text.as_bytes(), &overrides).unwrap();
    let shown = shown(text, &overrides);
    let again = load_text(shown.as_bytes(), &overrides);
    assert_eq!(again, Ok(expected.clone()), "{shown}");
    assert_eq!(again.unwrap().hash(), expected.hash());
}

#[test]
fn every_key_is_shown() {
    let text = format!("{RELAY}\n{CROWDSEC}");
    let config = load_text(text.as_bytes(), &Overrides::default()).unwrap();
    let settings = super::super::effective::settings(&config);
    let mut shown: Vec<_> = settings.into_iter().map(|(key, _)| key).collect();
    let mut known = known();
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
}

#[test]
fn each_value_has_its_origin() {
    let text = "\nobserve = true\nhostname = \"a.example\"\ncontrol = \"/c\"\n[log]\n\n\
                interfaces.x = 1\n"
        .replace(
            "interfaces.x = 1\n",
            "ignore = [\n\"192.0.2.7\",\n\"2001:db8::/32\" ]\n",
        );
    let mut overrides = flags(&[
        ("interfaces", "--iface", &["eth0", "eth1"]),
        ("limits.syn_rate", "--syn-rate", &["12"]),
        ("hostname", "--hostname", &["b.example"]),
    ]);
    let variable = GivenBy::Environment("NOMAIL_LISTEN");
    overrides.set("listen", variable, vec!["192.0.2.7:25".to_owned()]);
    let shown = shown(&text, &overrides);
    for expected in [
        "interfaces = [\"eth0\", \"eth1\"]  # flag --iface",
        "listen = [\"192.0.2.7:25\"]  # environment NOMAIL_LISTEN",
        "hostname = \"b.example\"  # flag --hostname",
        "refuse_at = \"auto\"  # default",
        "observe = true  # t.toml:2",
        "# user is not set  # default: nomail, or a free uid from 61184 to 65519 if there is no such user",
        "control = \"/c\"  # t.toml:4",
        "# [relay] is not there  # default: this host is no MX of other domains",
        "# [crowdsec] is not there  # default: no decisions of CrowdSec are denied",
        "syn_rate = 12  # flag --syn-rate",
        "ignore = [\"192.0.2.7\", \"2001:db8::/32\"]  # t.toml:7",
    ] {
        let found = shown.lines().any(|line| {
            let words: Vec<_> = line.split("  ").filter(|part| !part.is_empty()).collect();
            let words: Vec<_> = words.iter().map(|part| part.trim()).collect();
            words.join("  ") == expected
        });
        assert!(found, "{expected}\n{shown}");
    }
    for line in shown
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('['))
    {
        assert!(line.contains("  # "), "{line}");
    }
}

/// A drop-in's place is its own file's; names are fit for a comment.
#[test]
fn drop_ins_are_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t\n.toml");
    fs::create_dir(drop_in_directory(&path)).unwrap();
    fs::write(
        drop_in_directory(&path).join("\u{1b}[2J.toml"),
        "\nobserve = true",
    )
    .unwrap();
    let shown = show(&Overrides::of_file(Some(path))).unwrap();
    assert!(shown.contains("t\\n.toml.d/\\u{1b}[2J.toml:2\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'));
}

/// Lists that are read from files are named, not repeated.
#[test]
fn lists_are_shown_as_they_are_written() {
    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list");
    fs::write(&list, "192.0.2.0/24\n").unwrap();
    let text = format!("[lists]\ndeny = [\"198.51.100.7\"]\ndeny_files = [{list:?}]\n");
    let shown = shown(&text, &Overrides::default());
    assert!(shown.contains("deny = [\"198.51.100.7\"]  "), "{shown}");
    assert!(shown.contains("deny_files = [\""), "{shown}");
    assert!(!shown.contains("192.0.2.0"), "{shown}");
}

/// Examples of its authors.
#[rstest]
#[case(b"", 0xcbf2_9ce4_8422_2325)]
#[case(b"a", 0xaf63_dc4c_8601_ec8c)]
#[case(b"foobar", 0x8594_4171_f739_67e8)]
fn the_hash_is_fnv_1a(#[case] octets: &[u8], #[case] expected: u64) {
    let mut hash = super::super::effective::Fnv1a::default();
    hash.write(octets);
    assert_eq!(hash.0, expected);
}

#[rstest]
#[case::layout(
    "observe = true\n[limits]\nsyn_rate = 0x10",
    "limits = { syn_rate = 16 } # x\nobserve = true"
)]
#[case::defaults_written(
    "limits.syn_rate = 10\nlists.deny = []\ncontrol = \"/run/nomail/control.sock\"",
    ""
)]
#[case::order_of_lists(
    "lists.deny = [\"192.0.2.1\", \"192.0.2.2\"]",
    "lists.deny = [\"192.0.2.2\", \"192.0.2.1\"]"
)]
#[case::order_of_domains(
    "relay.domains = [\"a.example\", \"b.example x\"]",
    "relay.domains = [\"B.example x\", \"a.example\"]"
)]
#[case::text_of_its_own(
    "relay.domains = [\"a.example\"]",
    "relay.domains = [\"a.example this domain does not accept mail\"]"
)]
#[case::slash("pin_dir = \"/sys/fs/bpf/a\"", "pin_dir = \"/sys/fs/bpf//a/\"")]
fn the_same_values_have_the_same_hash(#[case] one: &str, #[case] other: &str) {
    assert_eq!(hash_of(one), hash_of(other));
}

#[test]
fn other_values_have_another_hash() {
    let mut hashes = vec![];
    for text in [
        "",
        FULL,
        "observe = true",
        "user = \"nomail\"",
        "hostname = \"a.example\"",
        "limits.syn_rate = 11",
        "limits.syn_burst = 11",
        "lists.deny = [\"192.0.2.1\"]",
        "lists.allow = [\"192.0.2.1\"]",
        "lists.allow = [\"192.0.2.1\", \"192.0.2.2\"]",
        "lists = { allow = [\"192.0.2.1\"], deny = [\"192.0.2.2\"] }",
        "lists.deny = [\"192.0.2.0/31\"]",
        "lists.deny = [\"192.0.2.0/30\"]",
        "relay.domains = [\"a.example\"]",
        "relay.domains = [\"*.a.example\"]",
        "relay.domains = [\"a.example x\"]",
        "relay = { domains = [\"a.example\"], text = \"x\", code = 521 }",
    ] {
        hashes.push(hash_of(text));
    }
    let number = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), number);
}

#[test]
fn a_listed_file_counts_by_what_it_lists() {
    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list");
    let text = format!("lists.deny_files = [{list:?}]");
    fs::write(&list, "192.0.2.1 # x\n").unwrap();
    assert_eq!(hash_of(&text), hash_of("lists.deny = [\"192.0.2.1\"]"));
    fs::write(&list, "192.0.2.2\n").unwrap();
    assert_eq!(hash_of(&text), hash_of("lists.deny = [\"192.0.2.2\"]"));
}

proptest! {
    #[test]
    fn whatever_is_shown_says_the_same(text in nearly_right()) {
        let overrides = Overrides::default();
        if let Ok(config) = load_text(text.as_bytes(), &overrides) {
            let shown = shown(&text, &overrides);
            prop_assert_eq!(load_text(shown.as_bytes(), &overrides), Ok(config), "{}", shown);
        }
    }
}
