//! The metrics: a table of families, each made of a status.

use std::collections::BTreeMap;

use nomail_common::{
    abi::{LINES, SLOTS_PER_LINE},
    counted::Counted,
    verdict::{Answer, Verdict},
};

use super::{
    family::{Family, MetricType},
    process::ProcessMetrics,
};
use crate::{
    smtp::Counter,
    status::{
        domains::suspects,
        shape::{GuardCounts, Speaker, StatelessCounter, Status, TableCounter, Trouble, XDP_MODES},
    },
};

/// All metrics.
pub(super) fn families(status: &Status, process: &ProcessMetrics) -> Vec<Family> {
    let mut families = agent(status);
    families.extend(guard(status));
    families.extend(sources(status));
    families.extend(addresses(status));
    families.extend(responder(status));
    families.extend(connections(status));
    families.extend(configuration(status));
    families.extend(lists(status));
    families.extend(crowdsec(status));
    families.extend(of_process(process));
    families
}

fn agent(status: &Status) -> Vec<Family> {
    let mut build = Family::new(
        "nomail_build_info",
        MetricType::Gauge,
        "Always 1; the labels say which agent runs.",
    );
    let labels = [
        ("version", status.version.as_str()),
        ("commit", status.commit.as_str()),
        ("abi", &status.abi.to_string()),
    ];
    build.sample("", &labels, 1);
    vec![
        build,
        Family::gauge(
            "nomail_uptime_seconds",
            "Time since the agent began to serve.",
            status.uptime_secs,
        ),
        Family::gauge(
            "nomail_observe",
            "1 while verdicts are only counted and nothing is dropped (observe = true).",
            u8::from(status.observe),
        ),
        Family::gauge(
            "nomail_listening_addresses",
            "Pairs of address and port that the responder listens on.",
            status.guarded.len(),
        ),
        Family::gauge(
            "nomail_flood_active",
            "1 during a flood of SYNs, while unproven clients are challenged, and for 5 seconds \
             after it.",
            u8::from(status.flood),
        ),
    ]
}

/// What each guard counted. During an exchange of names two interfaces have the same one for
/// a moment: their samples are added, because labels must be unique.
fn guard(status: &Status) -> Vec<Family> {
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
            let is = interface.trouble == Some(*kind);
            *troubles.entry((name, kind.name())).or_default() |= is;
        }
        *losses.entry(name).or_default() += interface.losses;
    }
    let mut of_mode = Family::new(
        "nomail_xdp_mode",
        MetricType::Gauge,
        "1 for the mode of the interface's guard: native, generic or off; 0 for the others.",
    );
    for ((iface, mode), is) in modes {
        of_mode.sample("", &[("iface", iface), ("mode", mode)], u8::from(is));
    }
    let mut of_trouble = Family::new(
        "nomail_guard_trouble",
        MetricType::Gauge,
        "1 while the guard of the interface has this trouble.",
    )
    .with_words(Trouble::ALL);
    for ((iface, kind), is) in troubles {
        of_trouble.sample("", &[("iface", iface), ("kind", kind)], u8::from(is));
    }
    let mut of_losses = Family::new(
        "nomail_guard_losses_total",
        MetricType::Counter,
        "Times that another process detached the XDP program or replaced it.",
    );
    for (iface, losses) in losses {
        of_losses.sample("", &[("iface", iface)], losses);
    }
    let mut syn = Family::new(
        "nomail_syn_total",
        MetricType::Counter,
        "SYNs received for guarded addresses. Each has one verdict.",
    )
    .with_words(Verdict::ALL);
    let mut answers = Family::new(
        "nomail_answers_total",
        MetricType::Counter,
        "What XDP answered, proofs that clients gave, and SYNs that it could not answer.",
    )
    .with_words(Answer::ALL);
    let contended = TableCounter::Contended;
    let mut of_contended = Family::new(
        "nomail_syn_contended_total",
        MetricType::Counter,
        contended.help(),
    );
    for (iface, counts) in &counts {
        let iface = ("iface", *iface);
        for (verdict, count) in counts.syn.iter() {
            syn.sample("", &[iface, ("verdict", verdict.name())], count);
        }
        for (answer, count) in counts.answers.iter() {
            answers.sample("", &[iface, ("kind", answer.name())], count);
        }
        of_contended.sample("", &[iface], counts.table[contended]);
    }
    vec![of_mode, of_trouble, of_losses, syn, answers, of_contended]
}

fn sources(status: &Status) -> Vec<Family> {
    let evictions = TableCounter::SourceEvictions;
    vec![
        Family::gauge(
            "nomail_sources_tracked",
            "Sources in the table of the XDP program.",
            status.sources_tracked,
        ),
        Family::gauge(
            "nomail_sources_max",
            "Places in that table.",
            LINES * SLOTS_PER_LINE,
        ),
        Family::counter(
            "nomail_source_evictions_total",
            evictions.help(),
            status.counts.table[evictions],
        ),
    ]
}

fn addresses(status: &Status) -> Vec<Family> {
    let addresses = &status.addresses;
    vec![
        Family::gauge(
            "nomail_addresses_unguarded",
            "Pairs of address and port whose SYNs are not filtered, because XDP has no room for \
             them. A whole network counts as one.",
            addresses.unguarded.count,
        ),
        Family::gauge(
            "nomail_addresses_unchallenged",
            "Guarded pairs of address and port whose clients XDP cannot challenge.",
            addresses.unchallenged.count,
        ),
        Family::gauge(
            "nomail_addresses_absent",
            "Configured addresses and interfaces that this host does not have yet.",
            addresses.absent.count,
        ),
        Family::gauge(
            "nomail_addresses_left_out",
            "IP and hardware addresses of this host that XDP has no room for.",
            addresses.own_left_out + addresses.hardware_left_out,
        ),
    ]
}

fn responder(status: &Status) -> Vec<Family> {
    let speakers = [Speaker::Listener, Speaker::Xdp];
    let mut serving = Family::new(
        "nomail_serving",
        MetricType::Gauge,
        "1 for the side that refuses new clients, 0 for the other.",
    )
    .with_words(&speakers);
    for speaker in speakers {
        let is = u8::from(speaker == status.responder.serving);
        serving.sample("", &[("by", speaker.name())], is);
    }
    let mut families = vec![serving];
    for (counter, count) in status.responder.counts.iter() {
        let name = match counter {
            StatelessCounter::Takeovers => "nomail_takeovers_total",
            StatelessCounter::Repeated => "nomail_greetings_repeated_total",
        };
        families.push(Family::counter(name, counter.help(), count));
    }
    families
}

fn connections(status: &Status) -> Vec<Family> {
    let connections = &status.connections;
    let mut families = vec![
        Family::counter(
            "nomail_connections_accepted_total",
            "Connections accepted: those that ended, and those that are open.",
            connections.accepted,
        ),
        Family::of_words(
            "nomail_connections_total",
            "Connections that ended, by how.",
            "outcome",
            &connections.ended,
        ),
        Family::gauge(
            "nomail_connections_active",
            "Connections that are open now.",
            connections.active,
        ),
        Family::of_words(
            "nomail_refusals_total",
            "Connections by where they were refused first.",
            "at",
            &connections.refused,
        ),
        Family::of_words(
            "nomail_talkers_total",
            "Connections closed because the client did not speak SMTP; also among closed.",
            "protocol",
            &connections.protocols,
        ),
    ];
    for (counter, count) in connections.counters.iter() {
        let name = match counter {
            Counter::RecipientsElsewhere => "nomail_recipients_elsewhere_total".to_owned(),
            _ => format!("nomail_connections_{}_total", counter.name()),
        };
        families.push(Family::counter(name, counter.help(), count));
    }
    let durations = &status.durations;
    let mut lasted = Family::new(
        "nomail_dialog_duration_seconds",
        MetricType::Histogram,
        "How long connections lasted, from accept to close, without shed ones.",
    );
    for (millis, count) in &durations.within_millis {
        let bound = format!("{:?}", *millis as f64 / 1e3);
        lasted.sample("_bucket", &[("le", &bound)], count);
    }
    lasted.sample("_bucket", &[("le", "+Inf")], durations.count);
    lasted.sample("_sum", &[], durations.total_micros as f64 / 1e6);
    lasted.sample("_count", &[], durations.count);
    families.extend([
        Family::of_words(
            "nomail_commands_total",
            "Commands by their verb.",
            "verb",
            &status.commands,
        ),
        lasted,
        Family::gauge(
            "nomail_foreign_domains",
            "Other domains that mail arrived for in the last day, without tests for an open \
             relay: is this host their MX?",
            suspects(&status.foreign_domains),
        ),
        Family::gauge(
            "nomail_senders_remembered",
            "Networks that refuse_at = \"auto\" remembers.",
            connections.senders,
        ),
    ]);
    families
}

fn configuration(status: &Status) -> Vec<Family> {
    let reload = &status.reload;
    vec![
        Family::gauge(
            "nomail_config_last_reload_successful",
            "1 unless the last reload failed, so that the configuration before it is in effect.",
            u8::from(reload.ok),
        ),
        Family::gauge(
            "nomail_config_last_reload_success_timestamp_seconds",
            "When the configuration in effect was taken over: at the start, by a reload, or when \
             a list file changed.",
            reload.taken_over_unix_secs,
        ),
        Family::gauge(
            "nomail_config_hash",
            "A number that changes with the configuration in effect.",
            // A sample is a double, which has 53 bits.
            u64::from_str_radix(&status.config_hash, 16).map_or(0, |hash| hash >> 11),
        ),
    ]
}

fn lists(status: &Status) -> Vec<Family> {
    let lists = &status.lists;
    let rows = [
        ("allow", "lists.allow_files", lists.allow),
        ("deny", "lists.deny_files", lists.deny),
        ("domains", "relay.domain_files", lists.domains),
    ];
    let gauge = |name, help| Family::new(name, MetricType::Gauge, help);
    let mut entries = gauge(
        "nomail_list_entries",
        "Prefixes (allow, deny) and domains of [relay] in force.",
    );
    let mut lines = gauge(
        "nomail_list_lines_left_out",
        "Wrong lines of list files, which are not in force. The log names them.",
    );
    let mut unread = gauge(
        "nomail_list_files_unread",
        "List files that could not be read: nothing of them is in force, or their earlier lines \
         are.",
    );
    for (list, key, count) in rows {
        let label = [("list", list)];
        let (files_unread, left_out) = lists.missing_of(key);
        entries.sample("", &label, count);
        lines.sample("", &label, left_out);
        unread.sample("", &label, files_unread);
    }
    let denies_nothing = Family::gauge(
        "nomail_denies_nothing",
        "1 while nothing is denied, because a file of lists.allow_files could not be read.",
        u8::from(lists.denies_nothing),
    );
    vec![entries, lines, unread, denies_nothing]
}

/// Empty without `[crowdsec]`.
fn crowdsec(status: &Status) -> Vec<Family> {
    let there = status.crowdsec.as_ref();
    let Some(crowdsec) = there.filter(|crowdsec| !crowdsec.url.is_empty()) else {
        return Vec::new();
    };
    let mut decisions = Family::new(
        "nomail_crowdsec_decisions",
        MetricType::Gauge,
        "Decisions of CrowdSec that are denied, ipv4 and ipv6.",
    );
    let ipv6 = crowdsec.decisions_ipv6;
    let ipv4 = crowdsec.decisions.saturating_sub(ipv6);
    for (of, count) in [("ipv4", ipv4), ("ipv6", ipv6)] {
        decisions.sample("", &[("family", of)], count);
    }
    vec![
        Family::gauge(
            "nomail_crowdsec_last_pull_successful",
            "1 if the last pull of CrowdSec's decisions succeeded, 0 if it failed, there was \
             none yet, or nomail-agent crowdsec does not run.",
            u8::from(crowdsec.ok),
        ),
        Family::gauge(
            "nomail_crowdsec_last_pull_success_timestamp_seconds",
            "When a pull of CrowdSec's decisions last succeeded; 0 if none has.",
            crowdsec.last_pull_unix_secs,
        ),
        decisions,
        Family::of_words(
            "nomail_crowdsec_pulls_total",
            "Pulls of CrowdSec's decisions.",
            "result",
            &crowdsec.pulls,
        ),
        Family::gauge(
            "nomail_crowdsec_decisions_left_out",
            "Decisions of CrowdSec that there is no room for.",
            crowdsec.left_out,
        ),
    ]
}

/// Under the names that all exporters use.
fn of_process(process: &ProcessMetrics) -> Vec<Family> {
    vec![
        Family::counter(
            "process_cpu_seconds_total",
            "Processor time of the agent, not of its XDP program.",
            process.cpu.as_secs_f64(),
        ),
        Family::gauge(
            "process_resident_memory_bytes",
            "Memory in use, without the maps of the XDP program.",
            process.resident_memory,
        ),
        Family::gauge(
            "process_virtual_memory_bytes",
            "Memory mapped.",
            process.virtual_memory,
        ),
        Family::gauge("process_open_fds", "Open descriptors.", process.descriptors),
        Family::gauge(
            "process_max_fds",
            "Most descriptors allowed.",
            process.descriptors_max,
        ),
        Family::gauge(
            "process_start_time_seconds",
            "When the agent was started, in seconds since 1970.",
            process.start_time_secs,
        ),
    ]
}

#[cfg(test)]
mod tests;
