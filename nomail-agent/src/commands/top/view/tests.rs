use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};
use rstest::rstest;

use super::*;
use crate::commands::top::model::{
    KeyPress,
    tests::{source, status},
};
use crate::status::TableCounter;

fn busy() -> Model {
    let mut model = Model::new(100);
    for second in 0..40u64 {
        let sources = [
            source("192.0.2.1", 7 * second, 5 * second),
            source("2001:db8:ffff:ffff::/64", second, 0),
        ];
        let mut sample = status(second * second, 5 * second, &sources);
        sample.unguarded = vec!["wg0".to_owned()];
        sample.counts.table[TableCounter::SourceEvictions] = second;
        model.take(Duration::from_secs(second), Ok(sample));
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(width.max(1).into());
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>())
        .map(|row| row.trim_end().to_owned())
        .collect()
}

#[test]
fn a_wide_terminal_shows_everything() {
    let lines = drawn(&busy(), 120, 30);
    let text = lines.join("\n");
    assert!(lines[0].starts_with("guarding  mailless.example.org  up "));
    assert_eq!(lines[1], "eth0 native  not guarded: wg0");
    assert_eq!(lines[2], "39 sources lost their place to others");
    let passed = &lines[3];
    // 38² to 39² in a second.
    assert!(
        passed.starts_with("passed             77.0/s  peak    77.0"),
        "{text}"
    );
    assert!(passed.ends_with('█') && passed.contains('▁'), "{text}");
    assert!(text.contains("2 sources by SYNs/s"), "{text}");
    let row = lines
        .iter()
        .find(|line| line.starts_with("192.0.2.1 "))
        .unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "192.0.2.1",
            "7.0",
            "5.0",
            "0",
            "limited",
            "71",
            "%",
            "273",
            "195",
            "0"
        ]
    );
    assert_eq!(lines[29], KEYS);
}

#[test]
fn who_serves_is_seen() {
    use crate::status::{ResponderStatus, Speaker};
    let mut sample = status(1, 1, &[]);
    sample.responder = ResponderStatus {
        fallback: Speaker::Xdp,
        serving: Speaker::Xdp,
        ..ResponderStatus::default()
    };
    let mut model = Model::new(9);
    model.take(Duration::ZERO, Ok(sample));
    let taken_over = "XDP, IN PLACE OF THE LISTENER";
    assert!(drawn(&model, 80, 30).join("\n").contains(taken_over));
    assert!(text(&model, 1, 9).contains(taken_over));
}

#[rstest]
fn no_size_is_too_small(
    #[values(0, 1, 2, 7, 20, 41, 80, 300)] width: u16,
    #[values(0, 1, 2, 3, 7, 9, 24, 80)] height: u16,
) {
    let mut model = busy();
    drawn(&model, width, height);
    model.press(KeyPress::Character('?'));
    drawn(&model, width, height);
    model.press(KeyPress::Character('/'));
    model.take(Duration::from_secs(99), Err("gone".to_owned()));
    drawn(&model, width, height);
    drawn(&Model::new(1), width, height);
}

#[test]
fn a_narrow_terminal_keeps_the_source_and_what_fits() {
    let text = drawn(&busy(), 40, 30).join("\n");
    assert!(
        text.contains("192.0.2.1") && text.contains("SYN/s"),
        "{text}"
    );
    assert!(!text.contains("VERDICT"), "{text}");
}

#[test]
fn trouble_pause_help_and_filter_are_seen() {
    let mut model = busy();
    model.press(KeyPress::Character('/'));
    model.press(KeyPress::Character('2'));
    let text = drawn(&model, 80, 30).join("\n");
    assert!(
        text.contains("/2_") && text.contains("2 of 2 sources"),
        "{text}"
    );
    model.press(KeyPress::Escape);
    model.take(Duration::from_secs(50), Err("no such socket".to_owned()));
    model.press(KeyPress::Character('p'));
    let text = drawn(&model, 80, 30).join("\n");
    assert!(text.contains("PAUSED"), "{text}");
    assert!(
        text.contains("no answer, asking again: no such socket"),
        "{text}"
    );
    model.press(KeyPress::Character('?'));
    let text = drawn(&model, 80, 30).join("\n");
    assert!(text.contains("q, Ctrl-C  quit"), "{text}");
    let widest = HELP.lines().map(str::len).max().unwrap();
    assert!(widest <= usize::from(HELP_WIDTH - 2));
}

#[test]
fn nothing_that_was_told_reaches_the_terminal_as_it_is() {
    let evil = "\u{1b}[2J\u{9b}\u{7}\u{202e}\n";
    let mut sample = status(1, 1, &[source(evil, 3, 1)]);
    sample.hostname = evil.to_owned();
    sample.interfaces[0].name = evil.to_owned();
    sample.interfaces[0].xdp_mode = evil.to_owned();
    sample.unguarded = vec![evil.to_owned()];
    let mut model = Model::new(9);
    model.take(Duration::ZERO, Ok(sample));
    let mut all = drawn(&model, 300, 30).concat();
    all += &text(&model, 1, 9).replace('\n', "");
    model.take(Duration::ZERO, Err(evil.to_owned()));
    all += &drawn(&model, 300, 30).concat();
    all += &text(&model, 1, 9).replace('\n', "");
    assert!(all.contains("\\u{1b}[2J"));
    assert!(
        all.chars().all(|c| matches!(c, ' '..='~' | '▁'..='█')),
        "{all:?}"
    );
}

#[test]
fn a_frame_of_text_has_rates_totals_and_countable_cells() {
    let text = text(&busy(), 3, 1);
    assert!(
        text.starts_with("frame 3, rates of 1.0 s: guarding\neth0 native\n"),
        "{text}"
    );
    let cells = |name: &str| -> Vec<_> {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(cells("passed"), ["passed", "77.0", "1521"]);
    assert_eq!(cells("limited_source"), ["limited_source", "5.0", "195"]);
    assert_eq!(
        cells("192.0.2.1"),
        [
            "192.0.2.1",
            "7.0",
            "5.0",
            "0",
            "limited71%",
            "273",
            "195",
            "0"
        ]
    );
    assert!(
        !text.contains("2001:db8"),
        "one source was asked for: {text}"
    );
}

#[rstest]
#[case(0.0, "0")]
#[case(0.25, "0.2")]
#[case(99.96, "100")]
#[case(9_999.0, "9999")]
#[case(12_345.0, "12.3k")]
#[case(1_250_000.0, "1.2M")]
fn rates_are_short(#[case] number: f64, #[case] text: &str) {
    assert_eq!(rate(number), text);
}
