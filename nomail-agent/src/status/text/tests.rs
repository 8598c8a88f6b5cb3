use nomail_common::verdict::Verdict;
use rstest::rstest;

use super::*;
use crate::{
    refusal::RefusalPoint,
    smtp::{Counter, protocol::Protocol},
    status::{
        CrowdsecStatus, ForeignDomainStatus, GuardCounts, Pull, ReloadStatus, SourceStatus,
        StatelessCounter, TableCounter,
    },
};

fn sample() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        hostname: "mailless.example.org".to_owned(),
        uptime_secs: 61,
        agent_running: true,
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            xdp_mode: "native".to_owned(),
            ..InterfaceStatus::default()
        }],
        guarded: vec!["192.0.2.7:25".to_owned()],
        counts: GuardCounts {
            syn: Counts::from_iter([(Verdict::Passed, 1_234_567), (Verdict::LimitedSource, 40)]),
            ..GuardCounts::default()
        },
        sources: vec![SourceStatus {
            source: "192.0.2.9".to_owned(),
            syn: 60,
            limited: 40,
            ..SourceStatus::default()
        }],
        ..Status::default()
    }
}

#[test]
fn the_state_comes_first() {
    let mut status = sample();
    let first = |status: &Status| status.text(false).lines().next().map(str::to_owned);
    assert_eq!(first(&status).unwrap(), "state        guarding");
    status.flood = true;
    assert!(first(&status).unwrap().contains("FLOOD"));
    status.observe = true;
    assert!(first(&status).unwrap().contains("observing"));
    assert!(status.text(false).contains("a flood comes in"));
    status.interfaces[0].xdp_mode = "off".to_owned();
    assert!(first(&status).unwrap().contains("NOT GUARDING"));
    status.agent_running = false;
    assert!(first(&status).unwrap().contains("agent not running"));
    assert!(!status.text(false).contains("closed by client"));
}

#[test]
fn a_guard_that_is_lost_or_mute_comes_first() {
    let mut status = sample();
    assert_eq!(
        (status.state(), status.unhealthy()),
        (State::Guarding, None)
    );
    status.flood = true;
    status.observe = true;
    let on = &mut status.interfaces[0];
    on.reason = "another process detached the XDP program".to_owned();
    (on.trouble, on.xdp_mode, on.losses) = (Some(Trouble::Detached), "off".to_owned(), 1);
    let text = status.text(false);
    assert!(text.starts_with("state        GUARD LOST"), "{text}");
    assert!(text.contains("no guard: another process detached the XDP program (lost 1 time)"));
    let why = "eth0 is not guarded: another process detached the XDP program.";
    assert_eq!(status.unhealthy().unwrap(), why);
    status.interfaces[0].trouble = Some(Trouble::Replaced);
    assert_eq!(status.state(), State::Lost);
    assert!(status.unhealthy().is_some());
    status.interfaces[0].xdp_mode = "native".to_owned();
    status.interfaces[0].trouble = Some(Trouble::Blind);
    assert_eq!(status.state(), State::Blind);
    status.interfaces[0].trouble = Some(Trouble::AnswersLost);
    assert_eq!(status.state(), State::AnswersLost);
    assert!(status.text(false).contains("native, ANSWERS LOST: "));
    assert_eq!(status.unhealthy(), None, "the listener serves");
    status.responder.serving = Speaker::Xdp;
    assert!(status.unhealthy().is_some());
    status.interfaces[0].trouble = Some(Trouble::Gone);
    assert_eq!(status.unhealthy(), None);
    status.guarded.clear();
    assert!(status.unhealthy().is_some());
    let json = serde_json::to_value(Trouble::AnswersLost).unwrap();
    assert_eq!(json, Trouble::AnswersLost.name());
}

#[test]
fn the_side_that_refuses_is_shown_where_xdp_may() {
    let shown = |status: &Status| {
        let text = status.text(false);
        let line = text.lines().find(|line| line.starts_with("responder"));
        line.map(|line| line["responder".len()..].trim().to_owned())
    };
    let mut status = sample();
    assert_eq!(shown(&status), None);
    status.responder.fallback = Speaker::Xdp;
    status.responder.counts[StatelessCounter::Takeovers] = 1200;
    let expected = "listener, with XDP as fallback; 1,200 takeovers";
    assert_eq!(shown(&status).unwrap(), expected);
    status.responder.serving = Speaker::Xdp;
    status.counts.answers[Answer::Greeting] = 7;
    let expected = "XDP, IN PLACE OF THE LISTENER; 7 greetings sent, 1,200 takeovers";
    assert_eq!(shown(&status).unwrap(), expected);
    assert!(status.text(false).contains("\nlistening "));
    status.responder.by = Speaker::Xdp;
    status.counts.answers[Answer::Goodbye] = 2;
    status.responder.counts = Counts::default();
    let expected = "XDP, without a socket; 7 greetings sent, 2 QUITs answered";
    assert_eq!(shown(&status).unwrap(), expected);
    assert!(!status.text(false).contains("\nlistening "));
}

#[test]
fn what_is_0_and_rare_is_left_out() {
    let mut status = sample();
    let rare = [
        "not guarded",
        "charged to no source",
        "lost their place",
        "mail for",
    ];
    let text = status.text(false);
    for word in rare {
        assert!(!text.contains(word), "{word} in {text}");
    }
    status.unguarded = vec!["wg0".to_owned()];
    status.counts.table[TableCounter::Contended] = 7;
    status.counts.table[TableCounter::SourceEvictions] = 8000;
    status.foreign_domains = vec![ForeignDomainStatus {
        suspect: true,
        ..ForeignDomainStatus::default()
    }];
    let text = status.text(false);
    for word in rare {
        assert!(text.contains(word), "{word} not in {text}");
    }
    assert!(text.contains("not guarded  wg0: ") && text.contains("8,000 sources lost"));
}

#[test]
fn what_is_counted_is_shown_by_its_label_once_there_is_any() {
    let mut status = sample();
    let connections = &mut status.connections;
    connections.refused[RefusalPoint::Rcpt] = 4000;
    connections.protocols[Protocol::Tls] = 2;
    for (number, counter) in (1..).zip(Counter::ALL.iter().take(4)) {
        connections.counters[*counter] = number;
    }
    status.crowdsec = Some(CrowdsecStatus {
        url: "http://127.0.0.1:8080/".to_owned(),
        pulls: Counts::from_iter([(Pull::Succeeded, 8), (Pull::Failed, 1)]),
        ..CrowdsecStatus::default()
    });
    let text = status.text(false);
    for line in [
        "refused      4,000 at RCPT",
        "not SMTP     2 began with TLS",
        "connections  1 made room for others, 2 recipients of other domains, \
         3 shed without waiting, 4 sources forgotten",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains(":8080/, 1 of 9 pulls failed\n"), "{text}");
}

#[test]
fn columns_are_aligned_and_numbers_grouped() {
    let text = sample().text(false);
    let syns = text.lines().find(|line| line.starts_with("SYNS")).unwrap();
    let passed = text.lines().find(|line| line.contains("  passed")).unwrap();
    assert_eq!(syns.find("1,234,607"), passed.find("1,234,567"), "{text}");
    for line in text.lines() {
        assert!(line.len() <= 100 && line.trim_end() == line, "{line:?}");
    }
}

#[test]
fn colour_changes_nothing_else_and_text_from_outside_is_escaped() {
    let mut status = sample();
    assert!(!status.text(false).contains('\u{1b}'));
    let mut plain = String::new();
    let mut coloured = status.text(true);
    assert!(coloured.contains('\u{1b}'));
    while let Some(at) = coloured.find('\u{1b}') {
        plain += &coloured[..at];
        let end = at + coloured[at..].find('m').unwrap();
        coloured.drain(..=end);
    }
    plain += &coloured;
    assert_eq!(plain, status.text(false));
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\n";
    status.hostname = evil.to_owned();
    status.version = evil.to_owned();
    status.guarded[0] = evil.to_owned();
    status.interfaces[0].name = evil.to_owned();
    status.interfaces[0].xdp_mode = evil.to_owned();
    status.interfaces[0].reason = evil.to_owned();
    status.sources[0].source = evil.to_owned();
    status.unguarded = vec!["\u{1b}[2J".to_owned()];
    let text = status.text(false);
    assert!(
        text.chars().all(|c| c == '\n' || matches!(c, ' '..='~')),
        "{text:?}"
    );
    assert!(text.contains("\\u{1b}]0;x\\u{7}"));
}

#[rstest]
#[case::well(true, "", &[], None)]
#[case::failed(false, "a.toml:1:1: wrong", &[], Some("failed 1m01s ago: a.toml:1:1: wrong"))]
#[case::waiting(
    true,
    "",
    &["listen", "user"],
    Some("a change of listen, user needs a restart")
)]
fn a_reload_is_shown_where_there_is_something_to_do(
    #[case] ok: bool,
    #[case] error: &str,
    #[case] needs_restart: &[&str],
    #[case] expected: Option<&str>,
) {
    let status = Status {
        reload: ReloadStatus {
            ok,
            taken_over_unix_secs: 0,
            age_secs: 61,
            error: error.to_owned(),
            needs_restart: needs_restart.iter().map(ToString::to_string).collect(),
        },
        ..Status::default()
    };
    let text = status.text(false);
    let shown = text
        .lines()
        .find_map(|line| line.strip_prefix("reload       "));
    assert_eq!(shown, expected);
}
