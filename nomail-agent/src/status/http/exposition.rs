//! The figures as Prometheus reads them: its text format 0.0.4, or OpenMetrics
//! 1.0 for who asks for that.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
};

use nomail_common::{
    abi::{LINES, SLOTS_PER_LINE},
    counted::Counted,
};

use super::process::Figures;
use crate::{
    counts::Counts,
    smtp::Counter,
    status::{GuardCounts, Speaker, Status, Trouble, suspects},
};

/// The modes that an interface's guard can be in.
const XDP_MODES: [&str; 3] = ["native", "generic", "off"];

/// How the figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// What a client likes best of the two, by its header `Accept`; the text
    /// format where it does not care.
    pub(super) fn negotiate(accept: &str) -> Self {
        let (mut text, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, None);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse::<f32>().unwrap_or(0.0),
                    Some(("version", value)) => version = Some(value.trim_matches('"')),
                    _ => {}
                }
            }
            let best = match (kind.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => &mut open,
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", None) => &mut text,
                _ => continue,
            };
            *best = quality.max(*best);
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// What the header `Content-Type` says.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All figures.
pub(super) fn render(status: &Status, process: &Figures, format: Format) -> String {
    let mut out = Exposition {
        text: String::with_capacity(16 * 1024),
        format,
    };
    agent(&mut out, status);
    guard(&mut out, status);
    addresses(&mut out, status);
    responder(&mut out, status);
    configuration(&mut out, status);
    lists(&mut out, status);
    crowdsec(&mut out, status);
    of_process(&mut out, process);
    if format == Format::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

fn agent(out: &mut Exposition, status: &Status) {
    let abi = status.abi.to_string();
    out.family("nomail_build", Kind::Info, "What runs here.")
        .sample(
            "_info",
            &[
                ("version", &status.version),
                ("commit", &status.commit),
                ("abi", &abi),
            ],
            1,
        );
    out.gauge(
        "nomail_uptime_seconds",
        "Time since the agent began to serve.",
        status.uptime_secs,
    );
    out.gauge(
        "nomail_observe",
        "Whether verdicts are only counted, and nothing is dropped.",
        u8::from(status.observe),
    );
    out.gauge(
        "nomail_listening_addresses",
        "Pairs of address and port that the responder listens on, and so guards.",
        status.guarded.len(),
    );
}

fn guard(out: &mut Exposition, status: &Status) {
    out.gauge(
        "nomail_flood_active",
        "Whether there is a flood of SYNs, so that clients are asked for a proof of their address.",
        u8::from(status.flood),
    );
    // Two interfaces have one name for a moment when names are exchanged: what
    // has the same labels is added up, because it may be told only once.
    let mut modes: BTreeMap<_, bool> = BTreeMap::new();
    let mut counts: BTreeMap<&str, GuardCounts> = BTreeMap::new();
    let mut troubles: BTreeMap<_, bool> = BTreeMap::new();
    let mut losses: BTreeMap<&str, u64> = BTreeMap::new();
    if status.elsewhere != GuardCounts::default() {
        // No interface has an empty name.
        counts.insert("", status.elsewhere);
    }
    for interface in &status.interfaces {
        let name = interface.name.as_str();
        *counts.entry(name).or_default() += interface.counts;
        for mode in XDP_MODES {
            *modes.entry((name, mode)).or_default() |= mode == interface.xdp_mode;
        }
        for kind in Trouble::ALL {
            *troubles.entry((name, kind.name())).or_default() |= interface.trouble == Some(kind);
        }
        *losses.entry(name).or_default() += interface.losses;
    }
    let mut family = out.family(
        "nomail_xdp_mode",
        Kind::Gauge,
        "1 for the mode that the interface's guard is in, 0 for the others.",
    );
    for ((iface, mode), is) in modes {
        family.sample("", &[("iface", iface), ("mode", mode)], u8::from(is));
    }
    let mut family = out.family(
        "nomail_guard_trouble",
        Kind::Gauge,
        "1 while the interface is gone, its XDP program was detached or replaced, or what XDP \
         sends is lost.",
    );
    for ((iface, kind), is) in troubles {
        family.sample("", &[("iface", iface), ("kind", kind)], u8::from(is));
    }
    let mut family = out.family(
        "nomail_guard_losses",
        Kind::Counter,
        "How often another process detached the XDP program or replaced it.",
    );
    for (iface, losses) in losses {
        family.sample("_total", &[("iface", iface)], losses);
    }
    let mut family = out.family(
        "nomail_syn",
        Kind::Counter,
        "SYNs received for guarded addresses. Each has one verdict.",
    );
    for (iface, counts) in &counts {
        for (verdict, count) in counts.syn.iter() {
            let labels = [("iface", *iface), ("verdict", verdict.name())];
            family.sample("_total", &labels, count);
        }
    }
    let mut family = out.family(
        "nomail_syn_contended",
        Kind::Counter,
        "SYNs that no bucket was charged for, because other CPUs were in the way.",
    );
    for (iface, counts) in &counts {
        family.sample("_total", &[("iface", iface)], counts.contended);
    }
    let mut family = out.family(
        "nomail_answers",
        Kind::Counter,
        "What XDP answered by itself, proofs that clients gave, and SYNs it could not answer.",
    );
    for (iface, counts) in &counts {
        for (answer, count) in counts.answers.iter() {
            let labels = [("iface", *iface), ("kind", answer.name())];
            family.sample("_total", &labels, count);
        }
    }
    out.gauge(
        "nomail_sources_tracked",
        "Sources in the table of the XDP program.",
        status.sources_tracked,
    );
    out.gauge(
        "nomail_sources_max",
        "Sources that the table has places for.",
        LINES * SLOTS_PER_LINE,
    );
    out.counter(
        "nomail_source_evictions",
        "Sources that lost their place in the table to others.",
        status.source_evictions,
    );
}

/// Addresses that are not served as others are.
fn addresses(out: &mut Exposition, status: &Status) {
    let addresses = &status.addresses;
    for (name, help, count) in [
        (
            "nomail_addresses_unguarded",
            "Pairs of address and port whose SYNs are not filtered, because XDP has no room \
             for them.",
            addresses.unguarded.count,
        ),
        (
            "nomail_addresses_unchallenged",
            "Guarded pairs of address and port that XDP cannot challenge clients for.",
            addresses.unchallenged.count,
        ),
        (
            "nomail_addresses_absent",
            "Configured addresses and interfaces that this host does not have yet.",
            addresses.absent.count,
        ),
        (
            "nomail_addresses_left_out",
            "Own addresses and hardware addresses that XDP has no room for.",
            addresses.own_left_out + addresses.hardware_left_out,
        ),
    ] {
        out.gauge(name, help, count);
    }
}

fn responder(out: &mut Exposition, status: &Status) {
    let connections = &status.connections;
    let mut family = out.family(
        "nomail_serving",
        Kind::Gauge,
        "1 for who says the refusal to new clients, 0 for the other.",
    );
    for speaker in [Speaker::Listener, Speaker::Xdp] {
        let is = u8::from(speaker == status.responder.serving);
        family.sample("", &[("by", speaker.name())], is);
    }
    out.counter(
        "nomail_takeovers",
        "How often XDP has taken the place of the listeners (fallback).",
        status.responder.takeovers,
    );
    out.counter(
        "nomail_greetings_repeated",
        "Greetings of XDP that were sent again, because the client cannot ask for them.",
        status.responder.repeated,
    );
    out.counter(
        "nomail_connections_accepted",
        "Connections accepted.",
        connections.accepted,
    );
    out.by_label(
        "nomail_connections",
        "Connections by how they ended.",
        "outcome",
        &connections.ended,
    );
    for (counter, count) in connections.counters.iter() {
        out.counter(&family_of(counter), counter.help(), count);
    }
    out.gauge(
        "nomail_connections_active",
        "Connections that are open now.",
        connections.active,
    );
    out.by_label(
        "nomail_refusals",
        "Connections by where they were first told that there is no mail here.",
        "at",
        &connections.refused,
    );
    out.by_label(
        "nomail_talkers",
        "Connections closed because what they spoke was no SMTP.",
        "protocol",
        &connections.talkers,
    );
    let mut family = out.family("nomail_commands", Kind::Counter, "Commands by their verb.");
    for (verb, count) in &status.commands {
        family.sample("_total", &[("verb", verb)], count);
    }
    out.gauge(
        "nomail_foreign_domains",
        "Other domains that mail arrived for in the last day, tests for an open relay left out.",
        suspects(&status.foreign_domains),
    );
    out.gauge(
        "nomail_senders_remembered",
        "Networks that refuse_at = \"auto\" remembers.",
        connections.senders,
    );
    let durations = &status.durations;
    let mut family = out.family(
        "nomail_dialog_duration_seconds",
        Kind::Histogram,
        "How long connections lasted, from accept to close, shed ones left out.",
    );
    for (millis, count) in &durations.within_millis {
        let bound = format!("{:?}", *millis as f64 / 1e3);
        family.sample("_bucket", &[("le", &bound)], count);
    }
    family.sample("_bucket", &[("le", "+Inf")], durations.count);
    family.sample("_sum", &[], durations.total_micros as f64 / 1e6);
    family.sample("_count", &[], durations.count);
}

/// The family of a counter.
fn family_of(counter: Counter) -> String {
    match counter {
        Counter::RecipientsElsewhere => "nomail_recipients_elsewhere".to_owned(),
        _ => format!("nomail_connections_{}", counter.name()),
    }
}

fn configuration(out: &mut Exposition, status: &Status) {
    let reload = &status.reload;
    out.gauge(
        "nomail_config_last_reload_successful",
        "Whether the last reload took the configuration over; 1 before the first.",
        u8::from(reload.ok),
    );
    out.gauge(
        "nomail_config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken over, at the start or by a reload.",
        reload.taken_over_unix_secs,
    );
    out.gauge(
        "nomail_config_hash",
        "A number that changes with the configuration in effect.",
        // A sample is a double, which has 53 bits.
        u64::from_str_radix(&status.config_hash, 16).map_or(0, |hash| hash >> 11),
    );
}

/// The lists of prefixes and domains.
fn lists(out: &mut Exposition, status: &Status) {
    let lists = &status.lists;
    let mut family = out.family(
        "nomail_list_entries",
        Kind::Gauge,
        "Prefixes and domains in force, by list.",
    );
    for (list, count) in [
        ("allow", lists.allow),
        ("deny", lists.deny),
        ("domains", lists.domains),
    ] {
        family.sample("", &[("list", list)], count);
    }
    let of_files = [
        ("allow", "lists.allow_files"),
        ("deny", "lists.deny_files"),
        ("domains", "relay.domain_files"),
    ];
    let mut family = out.family(
        "nomail_list_lines_left_out",
        Kind::Gauge,
        "Wrong lines of list files, which are not in force. The log names them.",
    );
    for (list, key) in of_files {
        let (_, left_out) = lists.missing_of(key);
        family.sample("", &[("list", list)], left_out);
    }
    let mut family = out.family(
        "nomail_list_files_unread",
        Kind::Gauge,
        "List files that could not be read, so that nothing of them is in force.",
    );
    for (list, key) in of_files {
        let (unread, _) = lists.missing_of(key);
        family.sample("", &[("list", list)], unread);
    }
    out.gauge(
        "nomail_denies_nothing",
        "Whether nothing is denied, because a file of lists.allow_files could not be read.",
        u8::from(lists.denies_nothing),
    );
}

/// Nothing where nobody's decisions are pulled.
fn crowdsec(out: &mut Exposition, status: &Status) {
    let Some(crowdsec) = &status.crowdsec else {
        return;
    };
    if crowdsec.url.is_empty() {
        return;
    }
    out.gauge(
        "nomail_crowdsec_last_pull_successful",
        "Whether the last pull of CrowdSec's decisions went well; 0 before the first.",
        u8::from(crowdsec.ok),
    );
    out.gauge(
        "nomail_crowdsec_last_pull_success_timestamp_seconds",
        "When CrowdSec's decisions were last pulled; 0 if they never were.",
        crowdsec.last_pull_unix_secs,
    );
    let mut family = out.family(
        "nomail_crowdsec_decisions",
        Kind::Gauge,
        "Decisions of CrowdSec that are denied.",
    );
    let ipv6 = crowdsec.decisions_ipv6;
    let ipv4 = crowdsec.decisions.saturating_sub(ipv6);
    for (of, count) in [("ipv4", ipv4), ("ipv6", ipv6)] {
        family.sample("", &[("family", of)], count);
    }
    out.by_label(
        "nomail_crowdsec_pulls",
        "Pulls of CrowdSec's decisions by how they went.",
        "result",
        &crowdsec.pulls,
    );
    out.gauge(
        "nomail_crowdsec_decisions_left_out",
        "Decisions of CrowdSec that there is no room for.",
        crowdsec.left_out,
    );
}

fn of_process(out: &mut Exposition, process: &Figures) {
    out.counter(
        "process_cpu_seconds",
        "Processor time of the agent, not of its XDP program.",
        process.cpu.as_secs_f64(),
    );
    out.gauge(
        "process_resident_memory_bytes",
        "Memory in use, without the maps of the XDP program.",
        process.resident_memory,
    );
    out.gauge(
        "process_virtual_memory_bytes",
        "Memory mapped.",
        process.virtual_memory,
    );
    out.gauge("process_open_fds", "Open descriptors.", process.descriptors);
    out.gauge(
        "process_max_fds",
        "Most descriptors that may be open.",
        process.descriptors_max,
    );
    out.gauge(
        "process_start_time_seconds",
        "When the agent was started, in seconds since 1970.",
        process.start_time_secs,
    );
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A text that grows by one family of samples after the other.
struct Exposition {
    text: String,
    format: Format,
}

/// A family that samples are added to.
struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Exposition {
    /// Begins a family, by its name without a suffix.
    fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let text = &mut self.text;
        // The text format knows no infos, and has the suffix in a counter's name.
        let (kind, suffix) = match (kind, self.format) {
            (Kind::Counter, Format::Text) => ("counter", "_total"),
            (Kind::Counter, Format::OpenMetrics) => ("counter", ""),
            (Kind::Info, Format::Text) => ("gauge", "_info"),
            (Kind::Info, Format::OpenMetrics) => ("info", ""),
            (Kind::Gauge, _) => ("gauge", ""),
            (Kind::Histogram, _) => ("histogram", ""),
        };
        put(text, format_args!("# HELP {name}{suffix} "));
        let help_escaped = help.replace('\\', "\\\\");
        text.push_str(&match self.format {
            Format::Text => help_escaped,
            Format::OpenMetrics => help_escaped.replace('"', "\\\""),
        });
        put(text, format_args!("\n# TYPE {name}{suffix} {kind}\n"));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| {
            let before = name.strip_suffix(unit);
            before.is_some_and(|before| before.ends_with('_'))
        });
        if let (Some(unit), Format::OpenMetrics) = (unit, self.format) {
            put(text, format_args!("# UNIT {name} {unit}\n"));
        }
        Family { text, name }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample("", &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        let mut family = self.family(name, Kind::Counter, help);
        family.sample("_total", &[], value);
    }

    fn by_label<T: Counted>(&mut self, name: &str, help: &str, label: &str, counts: &Counts<T>) {
        let mut family = self.family(name, Kind::Counter, help);
        for (word, count) in counts.iter() {
            family.sample("_total", &[(label, word.name())], count);
        }
    }
}

impl Family<'_> {
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        put(self.text, format_args!("{}{suffix}", self.name));
        for (place, (label, of)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            put(self.text, format_args!("{before}{label}=\""));
            for character in of.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        put(self.text, format_args!(" {value}\n"));
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes all that is written to it.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use nomail_common::verdict::Verdict;
    use rstest::rstest;

    use super::*;
    use crate::status::{CrowdsecStatus, DurationStatus, InterfaceStatus, Pull};

    #[rstest]
    #[case::nothing("", Format::Text)]
    #[case::anything("*/*", Format::Text)]
    #[case::browser("text/html,application/xml;q=0.9,*/*;q=0.8", Format::Text)]
    #[case::prometheus_2(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
         q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        Format::OpenMetrics
    )]
    #[case::prometheus_3(
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
         escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        Format::OpenMetrics
    )]
    #[case::liked_less("application/openmetrics-text;q=0.4, text/plain;q=0.5", Format::Text)]
    #[case::refused("application/openmetrics-text;q=0", Format::Text)]
    #[case::newer("application/openmetrics-text;version=2.0.0,*/*;q=0.1", Format::Text)]
    #[case::in_capitals("Application/OpenMetrics-Text; version=\"1.0.0\"", Format::OpenMetrics)]
    #[case::not_a_number("application/openmetrics-text;q=NaN;version", Format::Text)]
    fn formats(#[case] accept: &str, #[case] format: Format) {
        assert_eq!(Format::negotiate(accept), format);
    }

    fn sample() -> Status {
        let counts = |passed| GuardCounts {
            syn: Counts::from_iter([(Verdict::Passed, passed)]),
            ..GuardCounts::default()
        };
        let interface = |name: &str, mode: &str, passed| InterfaceStatus {
            name: name.to_owned(),
            xdp_mode: mode.to_owned(),
            counts: counts(passed),
            ..InterfaceStatus::default()
        };
        Status {
            version: "1.2.3".to_owned(),
            commit: "unknown".to_owned(),
            abi: 7,
            interfaces: vec![
                interface("eth\"\\0", "native", 3),
                interface("eth1", "off", 4),
                interface("eth1", "generic", 5),
            ],
            elsewhere: counts(2),
            commands: BTreeMap::from([("quit".to_owned(), 8)]),
            durations: DurationStatus {
                count: 3,
                total_micros: 2_500_000,
                within_millis: BTreeMap::from([(10, 1), (1000, 2), (30_000, 2)]),
            },
            ..Status::default()
        }
    }

    #[test]
    fn in_the_text_format() {
        let text = render(&sample(), &Figures::default(), Format::Text);
        for line in [
            "# TYPE nomail_build_info gauge",
            "nomail_build_info{version=\"1.2.3\",commit=\"unknown\",abi=\"7\"} 1",
            "# TYPE nomail_syn_total counter",
            "nomail_syn_total{iface=\"\",verdict=\"passed\"} 2",
            "nomail_syn_total{iface=\"eth\\\"\\\\0\",verdict=\"passed\"} 3",
            "nomail_syn_total{iface=\"eth1\",verdict=\"passed\"} 9",
            "nomail_xdp_mode{iface=\"eth1\",mode=\"native\"} 0",
            "nomail_xdp_mode{iface=\"eth1\",mode=\"off\"} 1",
            "nomail_commands_total{verb=\"quit\"} 8",
            "nomail_dialog_duration_seconds_bucket{le=\"0.01\"} 1",
            "nomail_dialog_duration_seconds_bucket{le=\"30.0\"} 2",
            "nomail_dialog_duration_seconds_bucket{le=\"+Inf\"} 3",
            "nomail_dialog_duration_seconds_sum 2.5",
            "nomail_dialog_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
        let mut series: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, _)| series)
            .collect();
        let told = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), told, "each once");
    }

    #[test]
    fn crowdsec_is_there_where_it_is_pulled_from() {
        let told = |crowdsec| {
            let status = Status {
                crowdsec,
                ..sample()
            };
            let text = render(&status, &Figures::default(), Format::Text);
            let lines = text.lines().filter(|line| line.contains("crowdsec"));
            lines
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(told(None).is_empty());
        // As after a reload without the table.
        assert!(told(Some(CrowdsecStatus::default())).is_empty());
        let crowdsec = CrowdsecStatus {
            url: "http://127.0.0.1:8080/".to_owned(),
            ok: true,
            decisions: 7,
            decisions_ipv6: 2,
            left_out: 3,
            pulls: Counts::from_iter([(Pull::Succeeded, 9)]),
            last_pull_unix_secs: 1_800_000_000,
            ..CrowdsecStatus::default()
        };
        assert_eq!(
            told(Some(crowdsec)),
            [
                "nomail_crowdsec_last_pull_successful 1",
                "nomail_crowdsec_last_pull_success_timestamp_seconds 1800000000",
                "nomail_crowdsec_decisions{family=\"ipv4\"} 5",
                "nomail_crowdsec_decisions{family=\"ipv6\"} 2",
                "nomail_crowdsec_pulls_total{result=\"succeeded\"} 9",
                "nomail_crowdsec_pulls_total{result=\"failed\"} 0",
                "nomail_crowdsec_decisions_left_out 3",
            ]
        );
    }

    #[test]
    fn as_openmetrics() {
        let text = render(&sample(), &Figures::default(), Format::OpenMetrics);
        assert!(text.ends_with("\n# EOF\n"));
        for line in [
            "# TYPE nomail_build info",
            "# TYPE nomail_syn counter",
            "# TYPE process_cpu_seconds counter",
            "# UNIT process_cpu_seconds seconds",
            "process_cpu_seconds_total 0",
            "nomail_dialog_duration_seconds_bucket{le=\"30.0\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // The same samples in both.
        let samples = |text: &str| -> Vec<_> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        let plain = render(&sample(), &Figures::default(), Format::Text);
        assert_eq!(samples(&text), samples(&plain));
    }
}
