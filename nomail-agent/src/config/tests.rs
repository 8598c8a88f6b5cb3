//! The file with its errors, precedence, defaults and reload.

#![allow(
    clippy::needless_update,
    reason = "what is written out here stays right when a key is added"
)]

mod drop_ins;
mod effective;
mod errors;
mod shipped;

use std::fs;

use nomail_common::guard::limiter::{Limit, TICK_SHIFT};
use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    error::ConfigError,
    file,
    keys::{PREFIX_BURST_MAX, RATE_MAX},
    layer::Layers,
    load::{control_of, load_layers_of, read, reject_unknown},
    resolved::WrittenLists,
    *,
};

/// Reads one file with its drop-ins.
fn load_from(path: &Path, required: bool, overrides: &Overrides) -> Result<Config, ConfigError> {
    load_layers_of(path, required, overrides).map(|(config, _)| config)
}

/// All keys.
fn known() -> Vec<&'static str> {
    let tables = tables();
    let keys = tables.iter().flat_map(|table| &table.keys);
    keys.map(|key| key.name).collect()
}

/// Reads `text` as the file `t.toml`. Errors come without its directory.
fn load_text(text: &[u8], overrides: &Overrides) -> Result<Config, String> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t.toml");
    fs::write(&path, text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    load_from(&path, true, overrides)
        .map(|config| Config {
            file: None,
            files: Vec::new(),
            ..config
        })
        .map_err(|error| error.to_string().replace(&prefix, ""))
}

fn flags(given: &[(&'static str, &'static str, &[&str])]) -> Overrides {
    let mut overrides = Overrides::default();
    for (key, flag, values) in given {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        overrides.set(key, GivenBy::Flag(flag), values);
    }
    overrides
}

#[test]
fn defaults() {
    let config = load_text(b"", &Overrides::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.interfaces, ["default-route"]);
    assert_eq!(config.listen, []);
    assert_eq!(config.hostname, None);
    assert_eq!(config.refuse_at, RefuseAt::Auto);
    assert_eq!(config.after_greeting, AfterGreeting::Hold);
    assert_eq!(config.xdp_mode, XdpMode::Auto);
    assert!(!config.observe);
    assert_eq!(config.on_exit, OnExit::Detach);
    assert_eq!(config.pin_dir, Path::new("/sys/fs/bpf/nomail"));
    assert_eq!(config.user.value, "nomail");
    assert!(config.user.is_default);
    assert_eq!(config.control, Path::new("/run/nomail/control.sock"));
    assert_eq!(config.state_dir.path, Path::new("/var/lib/nomail"));
    assert!(config.state_dir.is_default);
    assert_eq!(config.relay, None);
    assert_eq!(config.crowdsec, None);
    assert_eq!(*config.lists, ListSources::default());
    let expected = Log {
        format: LogFormat::Text,
        interval_secs: 60,
        sources_max: 20,
        ignore: Vec::new(),
        envelope: false,
        ..Log::default()
    };
    assert_eq!(config.log, expected);
    let expected = Limits {
        syn_rate: 10,
        syn_burst: 20,
        prefix_rate: 0,
        prefix_burst: 0,
        unproven_rate: 0,
        flood_answer: FloodAnswer::Challenge,
        connections: 10_000,
        connections_per_source: 100,
        idle_timeout_secs: 300,
        session_timeout_secs: 1800,
        sender_age_secs: 518_400,
        ..Limits::default()
    };
    assert_eq!(config.limits, expected);
}

const FULL: &str = r#"
interfaces = ["eth0", "wlan0"]
listen = ["192.0.2.7:25", "[2001:db8::1]:25", "[fe80::1%eth0]:25"]
hostname = "mailless.example.org"
aliases = ["www.example.org", "*.Bücher.example"]
responder = "listener"
fallback = "none"
refuse_at = "ehlo"
after_greeting = "close"
monitors = ["192.0.2.10", "2001:db8:1::/48"]
xdp_mode = "generic"
observe = true
on_exit = "keep"
pin_dir = "/sys/fs/bpf/other/"
state_dir = "/var/lib/other/"
user = 993
control = "/run/other.sock"
[limits]
syn_rate = 1_000
syn_burst = 10000
prefix_rate = 10_000
prefix_burst = 1
unproven_rate = 50_000
flood_answer = "drop"
connections = 1_000_000
connections_per_source = 1
idle_timeout_secs = 86400
session_timeout_secs = 0x10
sender_age_secs = 3600
[lists]
allow = ["192.0.2.7"]
deny = ["2001:db8::/32", "192.0.2.0/24"]
[log]
format = "json"
interval_secs = 86400
sources_max = 0
ignore = ["192.0.2.7", "198.51.100.0/24", "2001:db8::7", "2001:db8::/32", "0.0.0.0/0"]
envelope = true
[metrics]
listen = "[::1]:9100"
"#;

#[test]
fn every_key() {
    let expected = Config {
        interfaces: vec!["eth0".to_owned(), "wlan0".to_owned()],
        listen: ["192.0.2.7:25", "[2001:db8::1]:25", "[fe80::1%eth0]:25"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
        hostname: Some("mailless.example.org".parse().unwrap()),
        aliases: vec![
            "www.example.org".to_owned(),
            "*.xn--bcher-kva.example".to_owned(),
        ],
        responder: Responder::Listener,
        fallback: Fallback::None,
        refuse_at: RefuseAt::Ehlo,
        after_greeting: AfterGreeting::Close,
        monitors: ["192.0.2.10/32", "2001:db8:1::/48"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        xdp_mode: XdpMode::Generic,
        observe: true,
        on_exit: OnExit::Keep,
        pin_dir: "/sys/fs/bpf/other".into(),
        state_dir: StateDir {
            path: "/var/lib/other".into(),
            is_default: false,
        },
        user: User {
            value: "993".to_owned(),
            is_default: false,
        },
        control: "/run/other.sock".into(),
        limits: Limits {
            syn_rate: 1000,
            syn_burst: 10_000,
            prefix_rate: 10_000,
            prefix_burst: 1,
            unproven_rate: 50_000,
            flood_answer: FloodAnswer::Drop,
            connections: 1_000_000,
            connections_per_source: 1,
            idle_timeout_secs: 86_400,
            session_timeout_secs: 16,
            sender_age_secs: 3600,
            ..Limits::default()
        },
        lists: Arc::new(ListSources {
            allow: ["192.0.2.7/32".parse().unwrap()].into(),
            deny: ["192.0.2.0/24", "2001:db8::/32"]
                .map(|net| net.parse().unwrap())
                .into(),
            denies_nothing: false,
            files: Vec::new(),
            written: WrittenLists {
                allow: vec!["192.0.2.7".to_owned()],
                deny: vec!["2001:db8::/32".to_owned(), "192.0.2.0/24".to_owned()],
                ..WrittenLists::default()
            },
        }),
        relay: None,
        log: Log {
            format: LogFormat::Json,
            interval_secs: 86_400,
            sources_max: 0,
            ignore: [
                "192.0.2.7/32",
                "198.51.100.0/24",
                "2001:db8::7/128",
                "2001:db8::/32",
                "0.0.0.0/0",
            ]
            .map(|net| net.parse().unwrap())
            .to_vec(),
            envelope: true,
            ..Log::default()
        },
        metrics: Metrics {
            listen: Some("[::1]:9100".parse().unwrap()),
        },
        crowdsec: None,
        ..Config::default()
    };
    assert_eq!(
        load_text(FULL.as_bytes(), &Overrides::default()),
        Ok(expected)
    );
}

#[test]
fn not_utf8() {
    let error = load_text(b"# \xC3\xA4\nab\xFF", &Overrides::default()).unwrap_err();
    assert_eq!(error, "t.toml:2:3: not UTF-8: write the file in UTF-8");
}

#[test]
fn too_long() {
    let error = load_text(&vec![b'#'; (1 << 20) + 1], &Overrides::default()).unwrap_err();
    assert_eq!(error, "t.toml: is longer than 1048576 bytes");
}

#[test]
fn long_values_are_cut() {
    let text = format!("hostname = \"{}\"", "a".repeat(254));
    let error = load_text(text.as_bytes(), &Overrides::default()).unwrap_err();
    let expected = format!(
        "t.toml:1:12: hostname: \"{}\"... is longer than 253 characters: give a name like \
         \"mailless.example.org\"",
        "a".repeat(64)
    );
    assert_eq!(error, expected);
}

#[test]
fn too_many_interfaces() {
    let names: Vec<_> = (0..17).map(|number| format!("\"eth{number}\"")).collect();
    let text = format!("interfaces = [\n{}\n]", names.join(",\n"));
    let error = load_text(text.as_bytes(), &Overrides::default()).unwrap_err();
    assert_eq!(
        error,
        "t.toml:18:1: interfaces: \"eth16\" is one more than the 16 interfaces that an agent can \
         guard: start another agent for it"
    );
}

#[test]
fn a_named_file_must_be_there() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("missing\n.toml");
    let error = load(&Overrides::of_file(Some(path.clone()))).unwrap_err();
    let expected = format!(
        "{}/missing\\n.toml: there is no such file: create it, or name another with --config",
        directory.path().display()
    );
    assert_eq!(error.to_string(), expected);
    let config = load_from(&path, false, &Overrides::default()).unwrap();
    assert_eq!(config.file, Some(path));
}

#[test]
fn flags_win_over_environment_and_file() {
    let text = b"hostname = \"file.example\"\nobserve = true\nlimits.syn_rate = 3\n\
                 interfaces = [\"eth0\", \"eth1\"]\n";
    let mut overrides = flags(&[
        ("hostname", "--hostname", &["flag.example"]),
        ("observe", "--observe", &["false"]),
        ("interfaces", "--iface", &["eth2"]),
    ]);
    let variable = GivenBy::Environment("NOMAIL_SYN_BURST");
    overrides.set("limits.syn_burst", variable, vec!["7".to_owned()]);
    let config = load_text(text, &overrides).unwrap();
    assert_eq!(config.hostname.unwrap().as_str(), "flag.example");
    assert!(!config.observe);
    assert_eq!(config.interfaces, ["eth2"]);
    assert_eq!(config.limits.syn_rate, 3);
    assert_eq!(config.limits.syn_burst, 7);
    assert_eq!(config.limits.connections, 10_000);
}

#[test]
fn what_a_flag_overrides_is_checked_too() {
    let overrides = flags(&[("observe", "--observe", &["true"])]);
    let error = load_text(b"observe = 1", &overrides).unwrap_err();
    assert_eq!(
        error,
        "t.toml:1:11: observe: an integer is neither true nor false"
    );
}

#[test]
fn errors_name_the_file_then_flags_then_variables() {
    let mut overrides = flags(&[
        ("limits.syn_rate", "--syn-rate", &["0"]),
        ("refuse_at", "--refuse-at", &["never"]),
        ("listen", "--listen", &["[::1]:25", "[::1]:25"]),
        ("limits.syn_burst", "--syn-burst", &["ten"]),
    ]);
    overrides.set(
        "hostname",
        GivenBy::Environment("NOMAIL_HOSTNAME"),
        vec!["a\u{1b}b".to_owned()],
    );
    let error = load_text(b"observe = 1", &overrides).unwrap_err();
    assert_eq!(
        error,
        "t.toml:1:11: observe: an integer is neither true nor false\n\
         --listen: \"[::1]:25\" is named twice: leave one out\n\
         --refuse-at: \"never\" is unknown; use \"greeting\", \"ehlo\", \"mail\", \"rcpt\" or \"auto\"\n\
         --syn-rate: 0 is not in 1..=10000: give the SYNs per second that one source may send\n\
         --syn-burst: \"ten\" is not a whole number in 1..=10000: give the SYNs that one source may \
         send at once\n\
         NOMAIL_HOSTNAME: \"a\\u{1b}b\" has control characters: give a name like \
         \"mailless.example.org\""
    );
}

#[test]
fn reload() {
    let old = Config::default();
    let new = load_text(FULL.as_bytes(), &Overrides::default()).unwrap();
    assert_eq!(
        old.changes_that_need_restart(&new),
        [
            "interfaces",
            "listen",
            "xdp_mode",
            "on_exit",
            "pin_dir",
            "state_dir",
            "user",
            "control",
            "log.format",
            "metrics.listen"
        ]
    );
    let effective = new.clone().with_fixed_from(&old);
    assert_eq!(old.changes_that_need_restart(&effective), [""; 0]);
    let expected = Config {
        hostname: new.hostname,
        aliases: new.aliases,
        refuse_at: new.refuse_at,
        after_greeting: new.after_greeting,
        monitors: new.monitors,
        observe: new.observe,
        limits: new.limits,
        lists: new.lists,
        log: Log {
            format: LogFormat::Text,
            ..new.log
        },
        ..old
    };
    assert_eq!(effective, expected);
}

#[test]
fn metrics_can_be_off() {
    let config = load_text(b"[metrics]\nlisten = \"off\"", &Overrides::default()).unwrap();
    assert_eq!(config.metrics, Metrics { listen: None });
}

/// `detach` needs one key; errors of others do not matter.
#[rstest]
#[case("", Ok("/sys/fs/bpf/nomail"))]
#[case("pin_dir = \"/sys/fs/bpf/a\"\nnonsense = 1", Ok("/sys/fs/bpf/a"))]
#[case(
    "pin_dir = 1",
    Err("t.toml:1:11: pin_dir: an integer is not a string in quotes")
)]
fn the_directory_of_pins(#[case] text: &str, #[case] expected: Result<&str, &str>) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("t.toml");
    fs::write(&file, text).unwrap();
    let found = pin_dir(Some(&file)).map_err(|error| {
        let prefix = format!("{}/", directory.path().display());
        error.to_string().replace(&prefix, "")
    });
    let expected = expected.map(PathBuf::from).map_err(str::to_owned);
    assert_eq!(found, expected);
    fs::remove_file(&file).unwrap();
    assert!(pin_dir(Some(&file)).is_err(), "it was named");
}

#[rstest]
#[case("greeting", RefuseAt::Greeting)]
#[case("ehlo", RefuseAt::Ehlo)]
#[case("mail", RefuseAt::Mail)]
#[case("rcpt", RefuseAt::Rcpt)]
#[case("auto", RefuseAt::Auto)]
fn refusal_points(#[case] written: &'static str, #[case] expected: RefuseAt) {
    let text = format!("refuse_at = \"{written}\"");
    let config = load_text(text.as_bytes(), &Overrides::default()).unwrap();
    assert_eq!(config.refuse_at, expected);
    let flag = flags(&[("refuse_at", "--refuse-at", &[written])]);
    assert_eq!(load_text(b"", &flag).unwrap().refuse_at, expected);
}

#[rstest]
#[case::rate_alone("prefix_rate = 10_000", 10_000, 20_000)]
#[case::both("prefix_burst = 20_000\nprefix_rate = 1", 1, 20_000)]
#[case::off("prefix_rate = 0", 0, 0)]
#[case::off_for_now("prefix_rate = 0\nprefix_burst = 7", 0, 7)]
fn prefixes(#[case] written: &str, #[case] rate: u32, #[case] burst: u32) {
    let text = format!("[limits]\n{written}");
    let limits = load_text(text.as_bytes(), &Overrides::default())
        .unwrap()
        .limits;
    assert_eq!((limits.prefix_rate, limits.prefix_burst), (rate, burst));
}

/// At every clock of the kernel each rate can be kept.
#[rstest]
fn limits_fit_the_clock(#[values(100, 250, 300, 1000, 1200)] hz: u32) {
    let second = f64::from(hz) * f64::from(1 << TICK_SHIFT);
    for rate in 1..=RATE_MAX {
        let limit = Limit::new(rate, PREFIX_BURST_MAX, hz).unwrap();
        let kept = second / limit.interval as f64;
        assert!((kept / f64::from(rate) - 1.0).abs() < 0.013, "{rate}");
    }
}

#[test]
fn lists_of_health_checkers_may_be_empty() {
    let config = load_text(b"monitors = []\nlog.ignore = []", &Overrides::default()).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn control_is_found_in_a_file_that_is_wrong_elsewhere() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("t.toml");
    assert_eq!(control_of(&path), Path::new(DEFAULT_CONTROL));
    fs::write(&path, "control = \"/c\"\nrelay.domain_files = [\"/none\"]").unwrap();
    assert_eq!(control_of(&path), Path::new("/c"));
    fs::write(&path, "control = \"c\"").unwrap();
    assert_eq!(control_of(&path), Path::new(DEFAULT_CONTROL));
}

#[rstest]
#[case("192.0.2.7", "[192.0.2.7]")]
#[case("2001:db8::1", "[IPv6:2001:db8::1]")]
#[case("::ffff:192.0.2.7", "[192.0.2.7]")]
fn hostname_from_address(#[case] address: &str, #[case] expected: &str) {
    let hostname = Hostname::from_address(address.parse().unwrap());
    assert_eq!(hostname.as_str(), expected);
    assert_eq!(expected.parse(), Ok(hostname));
}

#[rstest]
#[case("192.0.2.7:25")]
#[case("0.0.0.0:2525")]
#[case("[::]:25")]
#[case("[2001:db8::1]:65535")]
#[case("[fe80::1%eth0.7]:25")]
fn listen_addresses_are_shown_as_written(#[case] text: &str) {
    assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
}

/// Lines that are nearly correct, so that values get past the TOML parser.
fn nearly_right() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "interfaces",
        "listen",
        "hostname",
        "refuse_at",
        "monitors",
        "observe",
        "user",
        "control",
        "limits",
        "limits.syn_rate",
        "limits.connections",
        "limits.prefix_rate",
        "limits.prefix_burst",
        "limits.flood_answer",
        "lists",
        "lists.allow",
        "lists.deny",
        "log.format",
        "log",
        "log.ignore",
        "metrics.listen",
        "state_dir",
        "on_exit",
        "pin_dir",
        "relay",
        "relay.domains",
        "relay.code",
        "relay.enhanced_code",
        "relay.text",
        "relay.postmaster",
        "[limits]",
        "[lists]",
        "[relay]",
        "crowdsec",
        "crowdsec.url",
        "crowdsec.api_key_file",
        "crowdsec.interval_secs",
        "crowdsec.run_dir",
        "[[log]]",
    ]);
    let value = prop_oneof![
        any::<String>().prop_map(|text| format!("{text:?}")),
        any::<String>().prop_map(|text| format!("[{}]", toml::Value::String(text))),
        any::<String>().prop_map(|text| toml::Value::String(text).to_string()),
        "[-*.a-z0-9ü# ]{0,12}".prop_map(|text| format!("['{text}', '{text}']")),
        "[0-9:.%a-f/\\[\\]]{0,20}".prop_map(|text| format!("['{text}', '{text}']")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("{ a = [[], {}], \"\" = 1979-05-27 }".to_owned()),
    ];
    prop::collection::vec((key, value), 0..6).prop_map(|lines| {
        let lines: Vec<_> = lines
            .iter()
            .map(|(key, value)| match key.starts_with('[') {
                true => (*key).to_owned(),
                false => format!("{key} = {value}"),
            })
            .collect();
        lines.join("\n")
    })
}

/// Every file is loaded or rejected, and errors have no control characters.
fn answers(bytes: &[u8]) -> Result<(), TestCaseError> {
    let path = Path::new("t.toml");
    let mut layers = match file::parse(path, bytes) {
        Ok(layer) => Layers::new(vec![layer], Vec::new()),
        Err(problem) => {
            let line = problem.to_string();
            prop_assert!(!line.contains(char::is_control), "{line:?}");
            return Ok(());
        }
    };
    let config = read(&mut layers);
    reject_unknown(&mut layers);
    if layers.problems.is_empty() {
        if let Some(hostname) = config.hostname {
            prop_assert!(
                hostname
                    .as_str()
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic())
            );
        }
        if let Some(relay) = config.relay {
            prop_assert!(!relay.domains.is_empty());
            prop_assert_eq!(config.refuse_at, RefuseAt::Rcpt);
        }
        return Ok(());
    }
    for line in ConfigError::new(layers.problems).lines() {
        prop_assert!(line.starts_with("t.toml:"), "{line:?}");
        prop_assert!(!line.contains(char::is_control), "{line:?}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        answers(&bytes)?;
    }

    #[test]
    fn any_text_is_answered(text: String) {
        answers(text.as_bytes())?;
    }

    #[test]
    fn nearly_right_text_is_answered(text in nearly_right()) {
        answers(text.as_bytes())?;
    }

    #[test]
    fn any_word_is_answered(word: String) {
        let _ = word.parse::<Hostname>();
        if let Ok(address) = word.parse::<ListenAddress>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
