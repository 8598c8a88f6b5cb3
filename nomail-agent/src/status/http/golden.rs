//! Every key of the JSON and every metric, against committed files, and the reference of
//! metrics in `docs/metrics.md`. `NOMAIL_GOLDEN_WRITE=1` writes all of them.
//!
//! Each field of the status has a number of its own, and no literal takes fields from a
//! default: a new field does not compile without a number here, and one that is shown in the
//! wrong place is seen. Rows of a vocabulary get their numbers in order.

use std::{collections::BTreeMap, env, fs, path::Path, time::Duration};

use nomail_common::counted::Counted;
use serde_json::Value;

use super::{exposition::families, family::text, process::ProcessMetrics};
use crate::{
    counts::Counts,
    smtp::{Connections, Counter, Durations, command::Verb},
    status::{
        AddressStatus, CrowdsecStatus, DurationStatus, ForeignDomainStatus, GuardCounts,
        InterfaceStatus, ListFileStatus, ListsStatus, MetricsStatus, Named, ReloadStatus,
        ResponderStatus, SourceStatus, Speaker, StatelessCounter, Status, TableCounter, Trouble,
    },
};

/// `from` and 1 for the first word, and so on.
fn words<T: Counted>(from: u64) -> Counts<T> {
    (from + 1..)
        .zip(T::ALL)
        .map(|(number, word)| (*word, number))
        .collect()
}

fn counts(from: u64) -> GuardCounts {
    GuardCounts {
        syn: words(from),
        answers: words(from + 10),
        table: words(from + 20),
    }
}

fn interface(name: &str, mode: &str, trouble: Option<Trouble>, from: u64) -> InterfaceStatus {
    InterfaceStatus {
        name: name.to_owned(),
        xdp_mode: mode.to_owned(),
        program_id: from as u32 + 31,
        pinned: true,
        trouble,
        reason: format!("reason {from}"),
        losses: from + 32,
        counts: counts(from),
    }
}

fn connections() -> Connections {
    // `senders` has 518.
    let numbers = (516..).filter(|number| *number != 518);
    Connections {
        accepted: 501,
        active: 502,
        refused: words(502),
        ended: words(506),
        protocols: words(511),
        counters: Counter::ALL.iter().copied().zip(numbers).collect(),
        senders: 518,
        // Shown elsewhere or not at all.
        shed_lingering: 0,
        sources_tracked: 0,
        commands: Counts::default(),
        durations: Durations::default(),
    }
}

fn crowdsec() -> CrowdsecStatus {
    CrowdsecStatus {
        url: "http://127.0.0.1:8080/".to_owned(),
        running: true,
        ok: true,
        decisions: 603,
        decisions_ipv6: 202,
        left_out: 606,
        last_pull_secs: Some(604),
        last_pull_unix_secs: 605,
        error: "why not".to_owned(),
        pulls: words(606),
    }
}

fn addresses() -> AddressStatus {
    let named = |count, name: &str| Named {
        count,
        names: vec![name.to_owned()],
    };
    AddressStatus {
        unguarded: named(701, "192.0.2.1:25"),
        unchallenged: named(702, "192.0.2.2:25"),
        absent: named(703, "eth9"),
        own_left_out: 704,
        hardware_left_out: 705,
    }
}

fn lists() -> ListsStatus {
    let files = [
        "lists.allow_files",
        "lists.deny_files",
        "relay.domain_files",
    ];
    let file = |(at, key): (usize, &&str)| ListFileStatus {
        path: format!("/etc/nomail/{at}"),
        key: (*key).to_owned(),
        entries: 811 + at as u64,
        left_out: 821 + at as u64,
        error: if at == 0 {
            "unread".to_owned()
        } else {
            String::new()
        },
        kept: at == 0,
    };
    ListsStatus {
        allow: 801,
        deny: 802,
        domains: 803,
        denies_nothing: true,
        files: files.iter().enumerate().map(file).collect(),
    }
}

fn full() -> Status {
    Status {
        version: "1.2.3".to_owned(),
        commit: "abcdef".to_owned(),
        abi: 9,
        hostname: "mailless.example.org".to_owned(),
        uptime_secs: 901,
        flood: true,
        observe: true,
        agent_running: true,
        interfaces: vec![
            interface("eth0", "native", None, 100),
            interface("eth1", "off", Some(Trouble::Detached), 200),
        ],
        guarded: vec!["192.0.2.7:25".to_owned()],
        responder: ResponderStatus {
            by: Speaker::Listener,
            fallback: Speaker::Xdp,
            serving: Speaker::Xdp,
            counts: words::<StatelessCounter>(901),
        },
        reload: ReloadStatus {
            ok: true,
            age_secs: 904,
            taken_over_unix_secs: 905,
            error: "wrong".to_owned(),
            needs_restart: vec!["listen".to_owned()],
        },
        config_hash: "00000000003a2000".to_owned(),
        unguarded: vec!["wg0".to_owned()],
        metrics: MetricsStatus {
            listen: "127.0.0.1:9521".to_owned(),
            error: "taken".to_owned(),
        },
        addresses: addresses(),
        crowdsec: Some(crowdsec()),
        lists: lists(),
        counts: GuardCounts {
            syn: words(0),
            answers: words(10),
            table: Counts::from_iter([
                (TableCounter::SourceEvictions, 915),
                (TableCounter::Contended, 916),
            ]),
        },
        connections: connections(),
        foreign_domains: vec![ForeignDomainStatus {
            domain: "example.net".to_owned(),
            networks: 906,
            recipients: 907,
            first_seen_secs: 908,
            last_seen_secs: 909,
            suspect: true,
        }],
        sources: vec![SourceStatus {
            source: "192.0.2.9".to_owned(),
            syn: 910,
            limited: 911,
            connections: 912,
            last_seen_secs: 913,
        }],
        sources_tracked: 914,
        elsewhere: counts(300),
        commands: Counts::from_iter([(Verb::Ehlo, 917), (Verb::Other, 918)]),
        durations: DurationStatus {
            count: 919,
            total_micros: 920_000_000,
            within_millis: BTreeMap::from([(10, 921), (30_000, 922)]),
        },
    }
}

fn process() -> ProcessMetrics {
    ProcessMetrics {
        cpu: Duration::from_secs(931),
        resident_memory: 932,
        virtual_memory: 933,
        descriptors: 934,
        descriptors_max: 935,
        start_time_secs: 936.5,
    }
}

/// The committed file of this path in the repository; with `NOMAIL_GOLDEN_WRITE` first written
/// as `made` makes it of the old one.
fn committed(path: &str, made: impl FnOnce(&str) -> String) -> String {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let file = Path::new(&manifest).join("..").join(path);
    if env::var_os("NOMAIL_GOLDEN_WRITE").is_some() {
        let old = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, made(&old)).unwrap();
    }
    fs::read_to_string(&file).unwrap()
}

#[test]
fn the_json_is_the_committed_one() {
    let json = serde_json::to_value(full()).unwrap();
    let committed = committed("nomail-agent/src/status/http/golden/status.json", |_| {
        serde_json::to_string_pretty(&json).unwrap() + "\n"
    });
    assert_eq!(serde_json::from_str::<Value>(&committed).unwrap(), json);
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), full());
}

#[test]
fn the_metrics_are_the_committed_ones() {
    let text = text(&families(&full(), &process()));
    let path = "nomail-agent/src/status/http/golden/metrics.txt";
    assert_eq!(committed(path, |_| text.clone()), text);
}

/// The row of docs/metrics.md for a family, of its lines in the text format.
fn row(family: &str) -> String {
    let mut lines = family.lines();
    let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
    let (_, kind) = lines.next().unwrap().rsplit_once(' ').unwrap();
    let mut help = help.replace("\\\\", "\\");
    let mut labels = Vec::new();
    for label in lines.filter_map(|sample| Some(sample.split_once('{')?.1.split_once('}')?.0)) {
        for label in label.split(',') {
            let (label, value) = label.split_once('=').unwrap();
            let label = format!("`{label}`");
            if !labels.contains(&label) && label != "`le`" {
                labels.push(label);
            }
            let value = value.trim_matches('"');
            help = help.replace(&format!(". {value}: "), &format!(". `{value}`: "));
        }
    }
    format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
}

#[test]
fn the_reference_of_metrics_is_the_committed_one() {
    const HEAD: &str = "| metric | type | labels | what |\n|---|---|---|---|\n";
    let text = text(&families(&full(), &process()));
    let rows: String = text.split("# HELP ").skip(1).map(row).collect();
    let committed = committed("docs/metrics.md", |old| {
        let (before, _) = old.split_once(HEAD).unwrap();
        format!("{before}{HEAD}{rows}")
    });
    assert_eq!(committed.split_once(HEAD).unwrap().1, rows);
}
