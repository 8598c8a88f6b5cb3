use super::{super::family::text, *};
use crate::{
    counts::Counts,
    smtp::command::Verb,
    status::{CrowdsecStatus, DurationStatus, InterfaceStatus, Pull},
};

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
        commands: Counts::from_iter([(Verb::Quit, 8)]),
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
    let text = text(&families(&sample(), &ProcessMetrics::default()));
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
    let mut series: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series)
        .collect();
    let shown = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), shown, "each once");
}

#[test]
fn crowdsec_is_there_where_it_is_pulled_from() {
    let shown = |crowdsec| {
        let status = Status {
            crowdsec,
            ..sample()
        };
        let text = text(&families(&status, &ProcessMetrics::default()));
        let lines = text.lines().filter(|line| line.contains("crowdsec"));
        lines
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(shown(None).is_empty());
    // As after a reload without the table.
    assert!(shown(Some(CrowdsecStatus::default())).is_empty());
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
        shown(Some(crowdsec)),
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
