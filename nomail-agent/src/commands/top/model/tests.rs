use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::{
    counts::Counts,
    status::{GuardCounts, InterfaceStatus},
};

const PASSED: Series = Series::Syns(Verdict::Passed);

pub(in crate::commands::top) fn source(name: &str, syn: u64, limited: u64) -> SourceStatus {
    SourceStatus {
        source: name.to_owned(),
        syn,
        limited,
        ..SourceStatus::default()
    }
}

pub(in crate::commands::top) fn status(
    passed: u64,
    limited: u64,
    sources: &[SourceStatus],
) -> Status {
    Status {
        agent_running: true,
        hostname: "mailless.example.org".to_owned(),
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            xdp_mode: "native".to_owned(),
            ..InterfaceStatus::default()
        }],
        counts: GuardCounts {
            syn: Counts::from_iter([(Verdict::Passed, passed), (Verdict::LimitedSource, limited)]),
            ..GuardCounts::default()
        },
        sources: sources.to_vec(),
        ..Status::default()
    }
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn type_in(model: &mut Model, text: &str) {
    for character in text.chars() {
        model.press(KeyPress::Character(character));
    }
}

fn shown(model: &Model) -> Vec<&str> {
    let rows = model.rows().into_iter();
    rows.map(|row| row.source.source.as_str()).collect()
}

#[test]
fn rates_are_of_the_time_that_has_passed() {
    let mut model = Model::new(100);
    model.take(secs(10.0), Ok(status(100, 0, &[source("192.0.2.1", 7, 0)])));
    assert_eq!(model.rate(PASSED), 0.0, "one sample has no rate");
    assert_eq!(model.rows()[0].verdict(), "quiet");
    let sources = [source("192.0.2.1", 27, 15), source("192.0.2.2", 4, 0)];
    model.take(secs(12.0), Ok(status(110, 40, &sources)));
    assert_eq!(model.rate(PASSED), 5.0);
    assert_eq!(model.rate(Series::Syns(Verdict::LimitedSource)), 20.0);
    let rows = model.rows();
    assert_eq!((rows[0].syns, rows[0].limited), (10.0, 7.5));
    assert_eq!(rows[0].verdict(), "limited 75 %");
    assert_eq!((rows[1].syns, rows[1].verdict().as_str()), (2.0, "passed"));
    assert_eq!(model.elapsed_secs(), 2.0);
}

#[test]
fn a_source_that_may_have_been_left_out_before_has_no_rate_yet() {
    let mut model = Model::new(1);
    model.take(secs(0.0), Ok(status(0, 0, &[source("192.0.2.1", 70, 0)])));
    model.take(secs(1.0), Ok(status(0, 0, &[source("192.0.2.2", 71, 0)])));
    assert_eq!(model.rows()[0].syns, 0.0);
}

#[test]
fn an_agent_that_is_gone_is_told_and_one_that_comes_back_counts_anew() {
    let mut model = Model::new(100);
    let mut first = status(1000, 0, &[]);
    first.uptime_secs = 60;
    model.take(secs(0.0), Ok(first));
    model.take(secs(1.0), Err("gone\u{1b}[2J".to_owned()));
    assert_eq!(model.trouble(), Some("gone\\u{1b}[2J"));
    assert_eq!(model.rate(PASSED), 0.0);
    assert!(model.status().is_some(), "what was known stays in sight");
    model.take(secs(2.0), Ok(status(30, 0, &[])));
    assert_eq!((model.trouble(), model.restarts()), (None, 1));
    assert_eq!(model.rate(PASSED), 15.0);
    assert!(model.history(PASSED).eq([0.0, 15.0]));
}

#[test]
fn what_is_paused_over_becomes_one_rate() {
    let mut model = Model::new(100);
    model.take(secs(0.0), Ok(status(0, 0, &[])));
    model.press(KeyPress::Character('p'));
    model.take(secs(1.0), Ok(status(10, 0, &[])));
    assert_eq!(model.status().unwrap().counts.syn[Verdict::Passed], 0);
    model.press(KeyPress::Character('p'));
    model.take(secs(4.0), Ok(status(20, 0, &[])));
    assert_eq!(model.rate(PASSED), 5.0);
}

#[test]
fn s_goes_through_all_orders() {
    let sources = |scale: u64| {
        let mut sources = [
            source("192.0.2.3", 30 * scale, 0),
            source("2001:db8::/64", 20 * scale, 5 * scale),
            source("192.0.2.20", 10 * scale, 9 * scale),
        ];
        sources[0].connections = scale;
        sources[2].connections = 2 * scale;
        status(0, 0, &sources)
    };
    let mut model = Model::new(100);
    model.take(secs(0.0), Ok(sources(1)));
    model.take(secs(1.0), Ok(sources(2)));
    let orders = [
        ["192.0.2.3", "2001:db8::/64", "192.0.2.20"],
        ["192.0.2.20", "2001:db8::/64", "192.0.2.3"],
        ["192.0.2.20", "192.0.2.3", "2001:db8::/64"],
        ["192.0.2.3", "192.0.2.20", "2001:db8::/64"],
        ["192.0.2.3", "2001:db8::/64", "192.0.2.20"],
    ];
    for order in orders {
        assert_eq!(shown(&model), order, "by {}", model.sort().name());
        model.press(KeyPress::Character('s'));
    }
}

#[rstest]
#[case("192.0.2.0/24", &["192.0.2.1", "192.0.2.11"])]
#[case("192.0.2.1", &["192.0.2.1"])]
#[case("2001:db8::/32", &["2001:db8::/64"])]
#[case("2001:db8::77", &["2001:db8::/64"])]
#[case(".2.1", &["192.0.2.1", "192.0.2.11"])]
#[case("DB8", &["2001:db8::/64"])]
#[case("nobody", &[])]
fn filters(#[case] filter: &str, #[case] left: &[&str]) {
    let sources = ["192.0.2.1", "192.0.2.11", "198.51.100.1", "2001:db8::/64"];
    let sources = sources.map(|name| source(name, 1, 0));
    let mut model = Model::new(100);
    model.take(secs(0.0), Ok(status(0, 0, &sources)));
    model.press(KeyPress::Character('/'));
    type_in(&mut model, filter);
    assert_eq!(model.filter(), (filter, true));
    assert_eq!(shown(&model), left);
    model.press(KeyPress::Enter);
    assert_eq!(shown(&model), left);
    model.press(KeyPress::Escape);
    assert_eq!(shown(&model).len(), 4);
}

#[test]
fn letters_are_no_commands_while_a_filter_is_typed() {
    let mut model = Model::new(100);
    model.press(KeyPress::Character('/'));
    type_in(&mut model, "qsp?\u{1b}ü");
    model.press(KeyPress::Backspace);
    assert_eq!(model.filter(), ("qsp", true));
    assert!(!model.is_done() && !model.is_paused() && !model.shows_help());
    type_in(&mut model, &"x".repeat(1000));
    assert_eq!(model.filter().0.len(), FILTER_MAX);
    model.press(KeyPress::Enter);
    model.press(KeyPress::Character('q'));
    assert!(model.is_done());
}

proptest! {
    /// Any statuses in any order: no panic, no bound exceeded, no rate
    /// that is not a number.
    #[test]
    fn anything_may_be_told(
        samples in proptest::collection::vec(
            (any::<u64>(), proptest::option::of((any::<u32>(), any::<u32>(), ".{0,9}"))), 0..40
        ),
    ) {
        let mut model = Model::new(2);
        for (at, sample) in samples {
            let polled = sample.ok_or_else(|| "gone".to_owned()).map(|(a, b, name)| {
                status(a.into(), b.into(), &[source(&name, a.into(), b.into())])
            });
            model.take(Duration::from_millis(at), polled);
            for series in Series::all() {
                prop_assert!(model.rate(series).is_finite() && model.rate(series) >= 0.0);
                prop_assert!(model.history(series).count() <= HISTORY_MAX);
            }
            prop_assert!(model.rows().iter().all(|row| row.syns.is_finite()));
        }
    }
}
