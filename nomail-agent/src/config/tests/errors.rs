//! Errors of the file, each with its place.

use super::*;

/// The keys of a table, as errors list them.
fn keys_of(name: &str) -> String {
    let tables = tables();
    let table = tables.iter().find(|table| table.name == name).unwrap();
    let keys: Vec<_> = table.keys.iter().map(FileKey::last_name).collect();
    keys.join(", ")
}

#[rstest]
#[case::unknown_key(
    "observe = true\n\n  bogus = 1",
    "t.toml:3:3: bogus: unknown key; this version knows KEYS, \
     [limits], [lists], [relay], [log], [metrics], [crowdsec]"
)]
#[case::unknown_key_of_a_section(
    "[log]\ninterval = 60",
    "t.toml:2:1: log.interval: unknown key; [log] knows format, interval_secs, sources_max, \
     ignore, envelope"
)]
#[case::unknown_section(
    "[nosuch]\nlisten = []",
    "t.toml:1:2: nosuch: unknown key; this version knows KEYS, \
     [limits], [lists], [relay], [log], [metrics], [crowdsec]"
)]
#[case::unknown_key_with_a_dot(
    "\"a.b\" = 1",
    "t.toml:1:1: a.b: unknown key; this version knows KEYS, \
     [limits], [lists], [relay], [log], [metrics], [crowdsec]"
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
     is longer than the 107 bytes of a socket's path: give a shorter one"
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
    "t.toml:1:8: limits.rate: unknown key; [limits] knows KEYS"
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
    let table = if expected.contains("[limits] knows") {
        "limits"
    } else {
        ""
    };
    assert_eq!(error, expected.replace("KEYS", &keys_of(table)));
}
