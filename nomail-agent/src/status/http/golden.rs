//! Every key of the JSON and every sample of `/metrics`, against files that are committed.
//!
//! The status has a number of its own in each field, and none of its literals fills fields
//! from a default: a new field does not compile until it has a number here, and a number
//! that goes astray is seen. With `NOMAIL_GOLDEN_WRITE` the files are written anew.

use std::{collections::BTreeMap, env, fs, path::Path, time::Duration};

use nomail_common::counted::Counted;
use serde_json::Value;

use super::{
    exposition::{Format, render},
    process::Figures,
};
use crate::{
    counts::Counts,
    smtp::{Commands, Connections, Counter, Durations},
    status::{
        AddressStatus, CrowdsecStatus, DurationStatus, ForeignDomainStatus, GuardCounts,
        InterfaceStatus, ListFileStatus, ListsStatus, MetricsStatus, Named, ReloadStatus,
        ResponderStatus, SourceStatus, Speaker, Status, Trouble,
    },
};

/// So many more than `from` as the place of the word, from 1 on.
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
        contended: from + 21,
        source_evictions: from + 22,
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
    let numbered = |counter| match counter {
        Counter::Evicted => (counter, 516),
        Counter::RecipientsElsewhere => (counter, 517),
        Counter::ShedWithoutLinger => (counter, 519),
        Counter::SourcesForgotten => (counter, 520),
    };
    Connections {
        accepted: 501,
        active: 502,
        refused: words(502),
        ended: words(506),
        talkers: words(511),
        counters: Counter::ALL.iter().copied().map(numbered).collect(),
        senders: 518,
        // Shown elsewhere or not at all.
        shed_lingering: 0,
        sources_tracked: 0,
        commands: Commands::default(),
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
            takeovers: 902,
            repeated: 903,
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
        syn: words(0),
        answers: words(10),
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
        source_evictions: 915,
        contended: 916,
        elsewhere: counts(300),
        commands: BTreeMap::from([("ehlo".to_owned(), 917), ("other".to_owned(), 918)]),
        durations: DurationStatus {
            count: 919,
            total_micros: 920_000_000,
            within_millis: BTreeMap::from([(10, 921), (30_000, 922)]),
        },
    }
}

fn process() -> Figures {
    Figures {
        cpu: Duration::from_secs(931),
        resident_memory: 932,
        virtual_memory: 933,
        descriptors: 934,
        descriptors_max: 935,
        start_time_secs: 936.5,
    }
}

/// What is committed; or `text`, which is then.
fn golden(name: &str, text: &str) -> String {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let file = Path::new(&manifest)
        .join("src/status/http/golden")
        .join(name);
    if env::var_os("NOMAIL_GOLDEN_WRITE").is_some() {
        fs::write(&file, text).unwrap();
    }
    fs::read_to_string(&file).unwrap()
}

#[test]
fn the_json_is_the_committed_one() {
    let json = serde_json::to_value(full()).unwrap();
    let committed = golden(
        "status.json",
        &(serde_json::to_string_pretty(&json).unwrap() + "\n"),
    );
    assert_eq!(serde_json::from_str::<Value>(&committed).unwrap(), json);
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), full());
}

#[test]
fn the_samples_are_the_committed_ones() {
    for (name, format) in [
        ("metrics.txt", Format::Text),
        ("openmetrics.txt", Format::OpenMetrics),
    ] {
        let text = render(&full(), &process(), format);
        let committed = golden(name, &text);
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&committed), sorted(&text), "{name}");
    }
}
