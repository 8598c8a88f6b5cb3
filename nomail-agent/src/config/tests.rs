//! The file with its errors, precedence, defaults and reload.

mod drop_ins;
mod effective;
mod shipped;

use std::fs;

use nomail_common::guard::limiter::{Limit, TICK_SHIFT};
use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::*;

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
    assert_eq!(*config.lists, Lists::default());
    let expected = Log {
        format: LogFormat::Text,
        interval_secs: 60,
        sources_max: 20,
        ignore: Vec::new(),
        envelope: false,
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
        file: None,
        files: Vec::new(),
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
        },
        lists: Arc::new(Lists {
            allow: vec!["192.0.2.7/32".parse().unwrap()],
            deny: ["192.0.2.0/24", "2001:db8::/32"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            denies_nothing: false,
            files: Vec::new(),
            written: lists::Written {
                allow: vec!["192.0.2.7".to_owned()],
                deny: vec!["2001:db8::/32".to_owned(), "192.0.2.0/24".to_owned()],
                ..lists::Written::default()
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
        },
        metrics: Metrics {
            listen: Some("[::1]:9100".parse().unwrap()),
        },
        crowdsec: None,
    };
    assert_eq!(
        load_text(FULL.as_bytes(), &Overrides::default()),
        Ok(expected)
    );
}

#[rstest]
#[case::unknown_key(
    "observe = true\n\n  bogus = 1",
    "t.toml:3:3: bogus: unknown key; this version knows interfaces, listen, hostname, aliases, \
     responder, fallback, refuse_at, after_greeting, monitors, xdp_mode, observe, on_exit, pin_dir, state_dir, user, \
     control, [limits], [lists], [relay], [log], [metrics], [crowdsec]"
)]
#[case::unknown_key_of_a_section(
    "[log]\ninterval = 60",
    "t.toml:2:1: log.interval: unknown key; [log] knows format, interval_secs, sources_max, \
     ignore, envelope"
)]
#[case::unknown_section(
    "[nosuch]\nlisten = []",
    "t.toml:1:2: nosuch: unknown key; this version knows interfaces, listen, hostname, aliases, \
     responder, fallback, refuse_at, after_greeting, monitors, xdp_mode, observe, on_exit, pin_dir, state_dir, user, \
     control, [limits], [lists], [relay], [log], [metrics], [crowdsec]"
)]
#[case::unknown_key_with_a_dot(
    "\"a.b\" = 1",
    "t.toml:1:1: a.b: unknown key; this version knows interfaces, listen, hostname, aliases, \
     responder, fallback, refuse_at, after_greeting, monitors, xdp_mode, observe, on_exit, pin_dir, state_dir, user, \
     control, [limits], [lists], [relay], [log], [metrics], [crowdsec]"
)]
#[case::control_characters_in_a_key(
    "[log]\n\"a\\u001b[2J\" = 1",
    "t.toml:2:1: log.a\\u{1b}[2J: unknown key; [log] knows format, interval_secs, sources_max, \
     ignore, envelope"
)]
#[case::not_toml(
    "observe = true\nobserve = maybe",
    "t.toml:2:11: not TOML: string values must be quoted, expected literal string"
)]
#[case::duplicate_key(
    "observe = true\nobserve = true",
    "t.toml:2:1: not TOML: duplicate key"
)]
#[case::section_is_not_a_table(
    "limits = 3",
    "t.toml:1:1: limits: an integer is not a table: write [limits] and its keys below it"
)]
#[case::list_is_not_a_list(
    "interfaces = \"eth0\"",
    "t.toml:1:14: interfaces: a string is not a list: write [\"eth0\"]"
)]
#[case::list_is_empty(
    "listen = []",
    "t.toml:1:10: listen: is empty: write [\"192.0.2.7:25\"], or leave the key out"
)]
#[case::item_is_not_a_string(
    "interfaces = [\n  \"eth0\",\n  1,\n]",
    "t.toml:3:3: interfaces: an integer is not a string in quotes"
)]
#[case::interface_slash(
    "interfaces = [\"a/b\"]",
    "t.toml:1:15: interfaces: \"a/b\" cannot be the name of an interface: `ip link` lists the names"
)]
#[case::interface_dots(
    "interfaces = [\"..\"]",
    "t.toml:1:15: interfaces: \"..\" cannot be the name of an interface: `ip link` lists the names"
)]
#[case::interface_control(
    "interfaces = [\"a\\u0007\"]",
    "t.toml:1:15: interfaces: \"a\\u{7}\" cannot be the name of an interface: `ip link` lists the \
     names"
)]
#[case::interface_empty(
    "interfaces = [\"\"]",
    "t.toml:1:15: interfaces: an interface without a name: `ip link` lists the names"
)]
#[case::interface_long(
    &format!("interfaces = [\"{}\"]", "a".repeat(128)),
    &format!(
        "t.toml:1:15: interfaces: \"{}\"... is longer than the 127 bytes of an interface's \
         name: `ip link` lists the names",
        "a".repeat(64)
    )
)]
#[case::interface_twice(
    "interfaces = [\"eth0\", \"eth0\"]",
    "t.toml:1:23: interfaces: \"eth0\" is named twice: leave one out"
)]
#[case::listen_without_port(
    "listen = [\"2001:db8::1\"]",
    "t.toml:1:11: listen: \"2001:db8::1\" has no port: write \"[2001:db8::1]:25\""
)]
#[case::listen_port_0(
    "listen = [\"192.0.2.7:0\"]",
    "t.toml:1:11: listen: \"192.0.2.7:0\" has no port in 1..=65535: write \"192.0.2.7:25\" or \
     \"[2001:db8::1]:25\""
)]
#[case::listen_name(
    "listen = [\"localhost:25\"]",
    "t.toml:1:11: listen: \"localhost:25\" has no numeric address before its port: write \
     \"192.0.2.7:25\" or \"[2001:db8::1]:25\""
)]
#[case::listen_multicast(
    "listen = [\"224.0.0.1:25\"]",
    "t.toml:1:11: listen: \"224.0.0.1:25\" is not the address of a host: give a unicast address"
)]
#[case::listen_mapped(
    "listen = [\"[::ffff:192.0.2.7]:25\"]",
    "t.toml:1:11: listen: \"[::ffff:192.0.2.7]:25\" is an IPv4 address in disguise: write 192.0.2.7"
)]
#[case::listen_link_local(
    "listen = [\"[fe80::1]:25\"]",
    "t.toml:1:11: listen: \"[fe80::1]:25\" is link-local: name its interface, as in \
     \"[fe80::1%eth0]:25\""
)]
#[case::listen_needless_scope(
    "listen = [\"[2001:db8::1%eth0]:25\"]",
    "t.toml:1:11: listen: \"[2001:db8::1%eth0]:25\" names an interface, but is not link-local: \
     leave the interface out"
)]
#[case::listen_bad_scope(
    "listen = [\"[fe80::1%a/b]:25\"]",
    "t.toml:1:11: listen: \"a/b\" cannot be the name of an interface: `ip link` lists the names"
)]
#[case::listen_twice(
    "listen = [\"[::1]:25\", \"[0::1]:25\"]",
    "t.toml:1:23: listen: \"[::1]:25\" is named twice: leave one out"
)]
#[case::listen_beside_wildcard(
    "listen = [\"192.0.2.7:25\", \"0.0.0.0:25\"]",
    "t.toml:1:27: listen: \"0.0.0.0:25\" and \"192.0.2.7:25\" cannot both be bound: leave out the \
     wildcard or the address"
)]
#[case::listen_ports(
    "listen = [\"[::]:1\", \"[::]:2\", \"[::]:3\", \"[::]:4\",\n\"[::]:5\"]",
    "t.toml:2:1: listen: \"[::]:5\" is on one port more than the 4 that an agent can guard: leave \
     some out"
)]
#[case::hostname_control(
    "hostname = \"a\\r\\nb\"",
    "t.toml:1:12: hostname: \"a\\r\\nb\" has control characters: give a name like \
     \"mailless.example.org\""
)]
#[case::hostname_space(
    "hostname = \"a b\"",
    "t.toml:1:12: hostname: \"a b\" has spaces: give a name like \"mailless.example.org\""
)]
#[case::hostname_not_ascii(
    "hostname = \"bücher.example\"",
    "t.toml:1:12: hostname: \"bücher.example\" is not ASCII: give the name in its xn-- form"
)]
#[case::hostname_underscore(
    "hostname = \"a_b.example\"",
    "t.toml:1:12: hostname: \"a_b\" in \"a_b.example\" has other characters than letters, digits \
     and hyphens: give a name like \"mailless.example.org\""
)]
#[case::hostname_hyphen(
    "hostname = \"a-.example\"",
    "t.toml:1:12: hostname: \"a-\" in \"a-.example\" begins or ends with a hyphen: give a name like \
     \"mailless.example.org\""
)]
#[case::hostname_empty(
    "hostname = \"\"",
    "t.toml:1:12: hostname: is empty: give a name like \"mailless.example.org\""
)]
#[case::hostname_empty_label(
    "hostname = \"a..b\"",
    "t.toml:1:12: hostname: \"a..b\" has an empty label: give a name like \"mailless.example.org\""
)]
#[case::hostname_final_dot(
    "hostname = \"a.example.\"",
    "t.toml:1:12: hostname: \"a.example.\" ends with a dot: leave it out"
)]
#[case::hostname_address(
    "hostname = \"2001:db8::1\"",
    "t.toml:1:12: hostname: \"2001:db8::1\" is an address: write it as the literal \
     \"[IPv6:2001:db8::1]\""
)]
#[case::hostname_literal(
    "hostname = \"[2001:db8::1]\"",
    "t.toml:1:12: hostname: \"[2001:db8::1]\" is not an address literal: write \"[192.0.2.7]\" or \
     \"[IPv6:2001:db8::1]\""
)]
#[case::hostname_type(
    "hostname = true",
    "t.toml:1:12: hostname: a boolean is not a string in quotes"
)]
#[case::refuse_at_never(
    "refuse_at = \"never\"",
    "t.toml:1:13: refuse_at: \"never\" is unknown; use \"greeting\", \"ehlo\", \"mail\", \"rcpt\" or \
     \"auto\""
)]
#[case::state_dir_relative(
    "state_dir = \"nomail\"",
    "t.toml:1:13: state_dir: \"nomail\" is not the absolute path of a directory: give one"
)]
#[case::on_exit(
    "on_exit = \"stay\"",
    "t.toml:1:11: on_exit: \"stay\" is unknown; use \"detach\" or \"keep\""
)]
#[case::pin_dir_relative(
    "pin_dir = \"nomail\"",
    "t.toml:1:11: pin_dir: \"nomail\" is not the absolute path of a directory: give one"
)]
#[case::pin_dir_dot(
    "pin_dir = \"/sys/fs/bpf/no.mail\"",
    "t.toml:1:11: pin_dir: \"/sys/fs/bpf/no.mail\" ends in a name with a dot, which a BPF file \
     system does not take: leave it out"
)]
#[case::state_dir_root(
    "state_dir = \"/\"",
    "t.toml:1:13: state_dir: \"/\" is not the absolute path of a directory: give one"
)]
#[case::state_dir_control(
    "state_dir = \"/a\\n\"",
    "t.toml:1:13: state_dir: \"/a\\n\" has control characters: give a plain path"
)]
#[case::after_greeting(
    "after_greeting = \"Hold\"",
    "t.toml:1:18: after_greeting: \"Hold\" is unknown; use \"hold\" or \"close\""
)]
#[case::responder(
    "responder = \"kernel\"",
    "t.toml:1:13: responder: \"kernel\" is unknown; use \"listener\" or \"xdp\""
)]
#[case::responder_and_point(
    "responder = \"xdp\"\nrefuse_at = \"rcpt\"",
    "t.toml:1:13: responder: \"xdp\" does not go with a refuse_at other than \"greeting\" (or \
     \"auto\", which then means the same); leave that out, or use \"listener\""
)]
#[case::responder_and_relay(
    "responder = \"xdp\"\nrelay.domains = [\"a\"]",
    "t.toml:1:13: responder: \"xdp\" does not go with [relay], which refuses at RCPT; leave that \
     out, or use \"listener\""
)]
#[case::responder_and_mode(
    "xdp_mode = \"off\"\nresponder = \"xdp\"",
    "t.toml:2:13: responder: \"xdp\" does not go with xdp_mode = \"off\"; leave that out, or use \
     \"listener\""
)]
#[case::responder_and_answer(
    "responder = \"xdp\"\nlimits.flood_answer = \"cookie\"",
    "t.toml:1:13: responder: \"xdp\" does not go with a limits.flood_answer other than \
     \"challenge\"; leave that out, or use \"listener\""
)]
#[case::fallback(
    "fallback = \"listener\"",
    "t.toml:1:12: fallback: \"listener\" is unknown; use \"none\" or \"xdp\""
)]
#[case::fallback_and_responder(
    "responder = \"xdp\"\nfallback = \"xdp\"",
    "t.toml:2:12: fallback: \"xdp\" does not go with responder = \"xdp\", which needs nobody in its \
     place; leave that out, or use \"none\""
)]
#[case::fallback_and_point(
    "fallback = \"xdp\"\nrefuse_at = \"ehlo\"",
    "t.toml:1:12: fallback: \"xdp\" does not go with a refuse_at other than \"greeting\" (or \
     \"auto\", which then means the same); leave that out, or use \"none\""
)]
#[case::fallback_and_relay(
    "fallback = \"xdp\"\nrelay.domains = [\"a\"]",
    "t.toml:1:12: fallback: \"xdp\" does not go with [relay], which refuses at RCPT; leave that \
     out, or use \"none\""
)]
#[case::fallback_and_mode(
    "xdp_mode = \"off\"\nfallback = \"xdp\"",
    "t.toml:2:12: fallback: \"xdp\" does not go with xdp_mode = \"off\"; leave that out, or use \
     \"none\""
)]
#[case::fallback_and_answer(
    "fallback = \"xdp\"\nlimits.flood_answer = \"drop\"",
    "t.toml:1:12: fallback: \"xdp\" does not go with a limits.flood_answer other than \
     \"challenge\"; leave that out, or use \"none\""
)]
#[case::xdp_mode(
    "xdp_mode = \"skb\"",
    "t.toml:1:12: xdp_mode: \"skb\" is unknown; use \"auto\", \"native\", \"generic\" or \"off\""
)]
#[case::observe(
    "observe = \"true\"",
    "t.toml:1:11: observe: a string is neither true nor false"
)]
#[case::user_root(
    "user = \"root\"",
    "t.toml:1:8: user: \"root\" is root: give the name or the uid of an account without privileges"
)]
#[case::user_0(
    "user = 0",
    "t.toml:1:8: user: \"0\" is root: give the name or the uid of an account without privileges"
)]
#[case::user_no_change(
    "user = 4294967295",
    "t.toml:1:8: user: \"4294967295\" is neither a user name nor a uid: give the name or the uid of \
     an account without privileges"
)]
#[case::user_colon(
    "user = \"a:b\"",
    "t.toml:1:8: user: \"a:b\" is neither a user name nor a uid: give the name or the uid of an \
     account without privileges"
)]
#[case::control_empty(
    "control = \"\"",
    "t.toml:1:11: control: \"\" is not the absolute path of a file: give one"
)]
#[case::control_relative(
    "control = \"a/b\"",
    "t.toml:1:11: control: \"a/b\" is not the absolute path of a file: give one"
)]
#[case::control_long(
    "control = \"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
     aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
    "t.toml:1:11: control: \"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"... \
     is longer than the 107 octets of a socket's path: give a shorter one"
)]
#[case::control_characters(
    "control = \"/a\\u0000\"",
    "t.toml:1:11: control: \"/a\\0\" has control characters: give a plain path"
)]
#[case::rate_0(
    "[limits]\nsyn_burst = 1\nsyn_rate = 0",
    "t.toml:3:12: limits.syn_rate: 0 is not in 1..=10000: give the SYNs per second that one source \
     may send"
)]
#[case::rate_dotted(
    "limits.syn_rate = 10001",
    "t.toml:1:19: limits.syn_rate: 10001 is not in 1..=10000: give the SYNs per second that one \
     source may send"
)]
#[case::rate_inline(
    "limits = { syn_rate = -1 }",
    "t.toml:1:23: limits.syn_rate: -1 is not in 1..=10000: give the SYNs per second that one source \
     may send"
)]
#[case::rate_fraction(
    "limits.syn_rate = 1.5",
    "t.toml:1:19: limits.syn_rate: a number with a fraction is not a whole number in 1..=10000: \
     give the SYNs per second that one source may send"
)]
#[case::burst(
    "limits.syn_burst = \"20\"",
    "t.toml:1:20: limits.syn_burst: a string is not a whole number in 1..=10000: give the SYNs that \
     one source may send at once"
)]
#[case::unknown_limit(
    "limits.rate = 1",
    "t.toml:1:8: limits.rate: unknown key; [limits] knows syn_rate, syn_burst, prefix_rate, \
     prefix_burst, unproven_rate, flood_answer, connections, connections_per_source, idle_timeout_secs, \
     session_timeout_secs, sender_age_secs"
)]
#[case::prefix_rate(
    "limits.prefix_rate = 10001\nlimits.prefix_burst = 1",
    "t.toml:1:22: limits.prefix_rate: 10001 is not in 0..=10000: give the SYNs per second that one \
     prefix may send, or 0 for no limit"
)]
#[case::prefix_burst(
    "limits.prefix_rate = 1\nlimits.prefix_burst = 0",
    "t.toml:2:23: limits.prefix_burst: 0 is not in 1..=20000: give the SYNs that one prefix may \
     send at once"
)]
#[case::prefix_burst_alone(
    "[limits]\nprefix_burst = 20",
    "t.toml:2:16: limits.prefix_burst: is of no effect without prefix_rate: give that too, or leave \
     this out"
)]
#[case::flood_answer(
    "limits.flood_answer = \"biscuit\"",
    "t.toml:1:23: limits.flood_answer: \"biscuit\" is unknown; use \"challenge\", \"cookie\" or \"drop\""
)]
#[case::connections(
    "limits.connections = 1000001",
    "t.toml:1:22: limits.connections: 1000001 is not in 1..=1000000: give the connections that may \
     be open at once"
)]
#[case::connections_per_source(
    "limits.connections_per_source = 0",
    "t.toml:1:33: limits.connections_per_source: 0 is not in 1..=1000000: give the connections that \
     one source may have open at once"
)]
#[case::idle_timeout(
    "limits.idle_timeout_secs = 86401",
    "t.toml:1:28: limits.idle_timeout_secs: 86401 is not in 1..=86400: give the seconds to wait for \
     the next command"
)]
#[case::session_timeout(
    "limits.session_timeout_secs = 0",
    "t.toml:1:31: limits.session_timeout_secs: 0 is not in 1..=31536000: give the seconds that a \
     session may last"
)]
#[case::sender_age(
    "limits.sender_age_secs = 3599",
    "t.toml:1:26: limits.sender_age_secs: 3599 is not in 3600..=31536000: give the seconds that a \
     source's network is remembered"
)]
#[case::log_interval(
    "log.interval_secs = 0",
    "t.toml:1:21: log.interval_secs: 0 is not in 1..=86400: give the seconds between two reports"
)]
#[case::log_sources(
    "log.sources_max = 1001",
    "t.toml:1:19: log.sources_max: 1001 is not in 0..=1000: give the sources that a report names"
)]
#[case::monitors_name(
    "monitors = [\"haproxy\"]",
    "t.toml:1:13: monitors: \"haproxy\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
#[case::monitors_without_a_listener(
    "responder = \"xdp\"\nmonitors = [\"192.0.2.7\"]",
    "t.toml:1:13: responder: \"xdp\" does not go with monitors, which are refused at RCPT; leave \
     that out, or use \"listener\""
)]
#[case::log_ignore_type(
    "log.ignore = \"192.0.2.7\"",
    "t.toml:1:14: log.ignore: a string is not a list: write [\"192.0.2.7\"]"
)]
#[case::log_ignore_name(
    "log.ignore = [\"a.example\"]",
    "t.toml:1:15: log.ignore: \"a.example\" is not an address or a network: write \"192.0.2.7\", \
     \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
#[case::log_ignore_prefix(
    "log.ignore = [\"192.0.2.0/33\"]",
    "t.toml:1:15: log.ignore: \"192.0.2.0/33\" is not an address or a network: write \
     \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
#[case::log_ignore_host_bits(
    "log.ignore = [\"192.0.2.7/24\", \"2001:db8::7/32\"]",
    "t.toml:1:15: log.ignore: \"192.0.2.7/24\" has bits set behind its prefix: write \
     \"192.0.2.0/24\" for the network, or \"192.0.2.7\" for the address\n\
     t.toml:1:31: log.ignore: \"2001:db8::7/32\" has bits set behind its prefix: write \
     \"2001:db8::/32\" for the network, or \"2001:db8::7\" for the address"
)]
#[case::log_ignore_mapped(
    "log.ignore = [\"::ffff:192.0.2.7\", \"::ffff:192.0.2.0/120\"]",
    "t.toml:1:15: log.ignore: \"::ffff:192.0.2.7\" is IPv4 in disguise: write \"192.0.2.7\"\n\
     t.toml:1:35: log.ignore: \"::ffff:192.0.2.0/120\" is IPv4 in disguise: write \"192.0.2.0/24\""
)]
#[case::log_ignore_twice(
    "log.ignore = [\"192.0.2.7\", \"192.0.2.7/32\"]",
    "t.toml:1:28: log.ignore: \"192.0.2.7/32\" is named twice: leave one out"
)]
#[case::log_envelope(
    "log.envelope = 1",
    "t.toml:1:16: log.envelope: an integer is neither true nor false"
)]
#[case::metrics_not_an_address(
    "metrics.listen = \"localhost:9521\"",
    "t.toml:1:18: metrics.listen: \"localhost:9521\" is not an address and a port: write \
     \"127.0.0.1:9521\" or \"[::1]:9521\", or \"off\""
)]
#[case::metrics_without_a_port(
    "[metrics]\nlisten = \"[::1]:0\"",
    "t.toml:2:10: metrics.listen: \"[::1]:0\" has no port in 1..=65535: write \"127.0.0.1:9521\" \
     or \"[::1]:9521\", or \"off\""
)]
#[case::metrics_for_many(
    "[metrics]\nlisten = \"224.0.0.1:9521\"",
    "t.toml:2:10: metrics.listen: \"224.0.0.1:9521\" is not the address of a host: write \
     \"127.0.0.1:9521\" or \"[::1]:9521\", or \"off\""
)]
#[case::metrics_neither_on_nor_off(
    "[metrics]\nlisten = false",
    "t.toml:2:10: metrics.listen: a boolean is not a string in quotes"
)]
#[case::column_in_characters(
    "log = { \"äöü\" = 1, format = \"x\" }",
    "t.toml:1:9: log.äöü: unknown key; [log] knows format, interval_secs, sources_max, ignore, \
     envelope\n\
     t.toml:1:29: log.format: \"x\" is unknown; use \"text\" or \"json\""
)]
#[case::crlf(
    "# ä\r\nobserve = 1\r\n",
    "t.toml:2:11: observe: an integer is neither true nor false"
)]
#[case::all_in_order_of_the_file(
    "xdp_mode = \"x\"\nobserve = 1\nlog.format = \"x\"\nafter_greeting = 2",
    "t.toml:1:12: xdp_mode: \"x\" is unknown; use \"auto\", \"native\", \"generic\" or \"off\"\n\
     t.toml:2:11: observe: an integer is neither true nor false\n\
     t.toml:3:14: log.format: \"x\" is unknown; use \"text\" or \"json\"\n\
     t.toml:4:18: after_greeting: an integer is not a string in quotes"
)]
fn errors_of_the_file(#[case] text: &str, #[case] expected: &str) {
    let error = load_text(text.as_bytes(), &Overrides::default()).unwrap_err();
    assert_eq!(error, expected);
}

#[test]
fn not_utf8() {
    let error = load_text(b"# \xC3\xA4\nab\xFF", &Overrides::default()).unwrap_err();
    assert_eq!(error, "t.toml:2:3: not UTF-8: write the file in UTF-8");
}

#[test]
fn too_long() {
    let error = load_text(&vec![b'#'; (1 << 20) + 1], &Overrides::default()).unwrap_err();
    assert_eq!(error, "t.toml: is longer than 1048576 octets");
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
            "control",
            "user",
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

/// `detach` needs one key, and is not stopped by others.
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

/// Whatever the kernel's clock, it can keep all that may be written.
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
fn nobody_may_be_ignored() {
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

/// Lines that are nearly right, so that values get past the TOML parser.
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

/// Whatever the file holds, there is an answer, and it is fit for a terminal.
fn answers(octets: &[u8]) -> Result<(), TestCaseError> {
    let path = Path::new("t.toml");
    let mut layers = match file::parse(path, octets) {
        Ok(layer) => Layers::new(vec![layer]),
        Err(problem) => {
            let line = problem.to_string();
            prop_assert!(!line.contains(char::is_control), "{line:?}");
            return Ok(());
        }
    };
    let config = read(&mut layers);
    layers.refuse_unknown();
    if layers.problems.is_empty() {
        if let Some(hostname) = config.hostname {
            prop_assert!(
                hostname
                    .as_str()
                    .bytes()
                    .all(|octet| octet.is_ascii_graphic())
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
    fn any_octets_are_answered(octets: Vec<u8>) {
        answers(&octets)?;
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
