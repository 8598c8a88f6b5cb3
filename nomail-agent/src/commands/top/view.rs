//! How a [`Model`] is drawn: on a terminal of any size, or as plain text.

use nomail_common::verdict::{Answer, Verdict};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Cell, Clear, Paragraph, RenderDirection, Row as Cells, Sparkline, Table},
};

use super::model::{Model, Row, Series};
use crate::status::{Status, count, duration, escaped};

const KEYS: &str = "q quit  s sort  / filter  p pause  ? help";
const HELP: &str = "\
q, Ctrl-C  quit
s          sort by SYNs/s, limited/s,
           connections/s, address
/          filter: a network, an address,
           or a part of one; Esc ends it
p          pause: the next rate is then
           of the whole pause
?          this help

Denied and malformed SYNs are in no
source's row. Rows are of the 1,000
sources with the most SYNs in total.";
const HELP_WIDTH: u16 = 44;
/// Lines beside the sparklines and the rows of the table that are wanted first.
const OTHER_LINES: u16 = 8;

/// Columns of the table: title, width, and from which width of the terminal on.
const COLUMNS: [(&str, u16, u16); 8] = [
    ("SOURCE", 24, 0),
    ("SYN/s", 8, 33),
    ("LIM/s", 8, 42),
    ("CONN/s", 8, 51),
    ("VERDICT", 13, 65),
    ("SYNS", 13, 79),
    ("LIMITED", 13, 93),
    ("CONNECTIONS", 13, 107),
];

/// Draws all of it.
pub fn draw(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    let notes = notes_of(model);
    let charts = (Series::all().count() as u16).min(area.height.saturating_sub(OTHER_LINES));
    let [state, interfaces, trouble, rates, title, table, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(notes.len() as u16),
        Constraint::Length(charts),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(state_line(model), state);
    frame.render_widget(interfaces_line(model), interfaces);
    frame.render_widget(Paragraph::new(notes), trouble);
    draw_rates(model, frame, rates);
    frame.render_widget(title_line(model), title);
    draw_table(model, frame, table);
    frame.render_widget(keys_line(model), keys);
    if model.shows_help() {
        let height = HELP.lines().count() as u16 + 2;
        let popup = area.centered(Constraint::Length(HELP_WIDTH), Constraint::Length(height));
        frame.render_widget(Clear, popup);
        frame.render_widget(
            Paragraph::new(HELP).block(Block::bordered().title(" help ")),
            popup,
        );
    }
}

fn state_line(model: &Model) -> Line<'_> {
    let Some(status) = model.status() else {
        return Line::from("nothing was told yet");
    };
    let state = status.state();
    let mut spans = vec![Span::styled(
        state.text(),
        Style::new().fg(colour(state.colour())).bold(),
    )];
    if status.agent_running {
        spans.push(Span::raw(format!(
            "  {}  up {}",
            escaped(&status.hostname),
            duration(status.uptime_secs)
        )));
    }
    if model.is_paused() {
        spans.push(Span::styled("  PAUSED", Style::new().reversed()));
    }
    Line::from(spans)
}

fn interfaces_line(model: &Model) -> Line<'_> {
    let Some(status) = model.status() else {
        return Line::default();
    };
    let mut spans = Vec::new();
    for interface in &status.interfaces {
        let style = match interface.is_bad() {
            true => Style::new().fg(Color::Red),
            false => Style::new(),
        };
        let text = format!("{} {}  ", escaped(&interface.name), interface.about());
        spans.push(Span::styled(text, style));
    }
    if !status.unguarded.is_empty() {
        spans.push(Span::styled(
            format!("not guarded: {}", names(&status.unguarded)),
            Style::new().fg(Color::Red),
        ));
    }
    Line::from(spans)
}

fn names(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| escaped(name)).collect();
    names.join(", ")
}

/// What is worth a line of its own, if there is anything.
fn notes_of(model: &Model) -> Vec<Line<'_>> {
    let red = Style::new().fg(Color::Red);
    let mut notes = Vec::new();
    if let Some(trouble) = model.trouble() {
        notes.push(Line::styled(
            format!("no answer, asking again: {trouble}"),
            red,
        ));
    } else if model.restarts() > 0 {
        notes.push(Line::from(restarted(model.restarts())));
    }
    let status = model.status();
    if let Some(status) = status
        && let Some(responder) = status.about_responder()
    {
        let style = match status.responder.is_taken_over() {
            true => Style::new().fg(Color::Yellow),
            false => Style::new(),
        };
        notes.push(Line::styled(responder, style));
    }
    if status.is_some_and(|status| status.observe && status.flood) {
        notes.push(Line::styled("a flood comes in", red));
    }
    if let Some(rare) = status.and_then(rare) {
        notes.push(Line::from(rare));
    }
    notes
}

fn restarted(times: u32) -> String {
    match times {
        1 => "the agent was started anew since this began".to_owned(),
        _ => format!("the agent was started anew {times} times since this began"),
    }
}

/// Counters that are 0 on most hosts.
fn rare(status: &Status) -> Option<String> {
    let mut parts = Vec::new();
    if status.source_evictions > 0 {
        parts.push(format!(
            "{} sources lost their place to others",
            count(status.source_evictions)
        ));
    }
    if status.contended > 0 {
        parts.push(format!(
            "{} SYNs charged to no source",
            count(status.contended)
        ));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn draw_rates(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    for (series, row) in Series::all().zip(area.rows()) {
        let [label, chart] =
            Layout::horizontal([Constraint::Length(39), Constraint::Fill(1)]).areas(row);
        let peak = model.history(series).fold(0.0, f64::max);
        let colour = match series {
            Series::Syns(Verdict::Passed)
            | Series::Answers(Answer::Proven)
            | Series::Connections => Color::Green,
            Series::Syns(Verdict::LimitedSource | Verdict::LimitedPrefix) | Series::Answers(_) => {
                Color::Yellow
            }
            Series::Syns(_) => Color::Red,
        };
        let text = format!(
            "{:<14} {:>8}/s  peak {:>7} ",
            series.name(),
            rate(model.rate(series)),
            rate(peak)
        );
        frame.render_widget(Line::from(text), label);
        // In thousandths, as the chart is of whole numbers. The latest is on the right.
        let data = model.history(series).rev().take(chart.width.into());
        let data = data.map(|rate| (rate * 1000.0) as u64);
        frame.render_widget(
            Sparkline::default()
                .data(data)
                .direction(RenderDirection::RightToLeft)
                .style(Style::new().fg(colour)),
            chart,
        );
    }
}

fn title_line(model: &Model) -> Line<'_> {
    let rows = model.rows().len();
    let of = match model.filter() {
        ("", false) => format!("{} sources", count(rows as u64)),
        _ => format!(
            "{} of {} sources",
            count(rows as u64),
            count(model.rows_total() as u64)
        ),
    };
    Line::from(vec![
        Span::raw(of),
        Span::raw(format!(" by {}", model.sort().name())).bold(),
    ])
}

fn keys_line(model: &Model) -> Line<'_> {
    match model.filter() {
        (filter, true) => Line::from(format!("/{filter}_  Enter keeps it, Esc ends it")),
        ("", false) => Line::from(KEYS).dim(),
        (filter, false) => Line::from(format!("filter {filter}  {KEYS}")).dim(),
    }
}

fn draw_table(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, _, from)| area.width >= *from)
        .collect();
    let right = |at: usize, text: String| {
        if at == 0 || COLUMNS[at].0 == "VERDICT" {
            Cell::from(text)
        } else {
            Cell::from(Line::from(text).right_aligned())
        }
    };
    let titles = columns.iter().enumerate();
    let header = titles.map(|(at, (title, _, _))| right(at, (*title).to_owned()));
    let rows = model
        .rows()
        .into_iter()
        .take(area.height.into())
        .map(|row| {
            let style = if row.limited > 0.0 {
                Style::new().fg(Color::Yellow)
            } else {
                Style::new()
            };
            let cells = cells_of(row).into_iter().enumerate();
            let cells = cells.take(columns.len()).map(|(at, text)| right(at, text));
            Cells::new(cells.collect::<Vec<_>>()).style(style)
        });
    let widths = columns
        .iter()
        .map(|(_, width, _)| Constraint::Length(*width));
    let table = Table::new(rows, widths).header(Cells::new(header).reversed());
    frame.render_widget(table, area);
}

fn cells_of(row: &Row) -> [String; COLUMNS.len()] {
    [
        escaped(&row.source.source),
        rate(row.syns),
        rate(row.limited),
        rate(row.connections),
        row.verdict(),
        count(row.source.syn),
        count(row.source.limited),
        count(row.source.connections),
    ]
}

/// A frame as text, for scripts.
pub fn text(model: &Model, number: u64, sources_max: usize) -> String {
    let mut out = format!("frame {number}, rates of {:.1} s: ", model.elapsed_secs());
    match (model.trouble(), model.status()) {
        (Some(trouble), _) => {
            out += &format!("no answer: {trouble}\n");
            return out;
        }
        (None, None) => return out + "nothing was told yet\n",
        (None, Some(status)) => {
            out += &format!("{}\n", status.state().text());
            for interface in &status.interfaces {
                out += &format!("{} {}\n", escaped(&interface.name), interface.about());
            }
            if let Some(unguarded) = status.about_unguarded() {
                out += &format!("not guarded {unguarded}\n");
            }
            for (label, what) in status.addresses.lines() {
                out += &format!("{label} {what}\n");
            }
            if let Some(responder) = status.about_responder() {
                out += &format!("responder {responder}\n");
            }
            if status.observe && status.flood {
                out += "a flood comes in\n";
            }
            out += &rare(status).map_or_else(String::new, |rare| rare + "\n");
            if model.restarts() > 0 {
                out += &format!("{}\n", restarted(model.restarts()));
            }
            out += &format!("\n{:<14} {:>9} {:>13}\n", "", "RATE/s", "TOTAL");
            for series in Series::all() {
                out += &format!(
                    "{:<14} {:>9} {:>13}\n",
                    series.name(),
                    rate(model.rate(series)),
                    series.total(status)
                );
            }
        }
    }
    let rows = model.rows();
    if !rows.is_empty() {
        out += "\n";
        out += &text_row(COLUMNS.map(|(title, _, _)| title.to_owned()));
    }
    for row in rows.into_iter().take(sources_max) {
        let mut cells = cells_of(row);
        // Exact numbers are easier to read for programs without commas.
        cells[5] = row.source.syn.to_string();
        cells[6] = row.source.limited.to_string();
        cells[7] = row.source.connections.to_string();
        out += &text_row(cells);
    }
    out
}

fn text_row(cells: [String; COLUMNS.len()]) -> String {
    let mut line = String::new();
    for ((title, width, _), cell) in COLUMNS.iter().zip(cells) {
        let width = usize::from(*width);
        // No blank within a cell, so that cells can be counted.
        let cell = cell.replace(' ', "");
        line += &match *title {
            "SOURCE" => format!("{cell:<width$}"),
            "VERDICT" => format!("  {cell:<width$}"),
            _ => format!(" {cell:>width$}"),
        };
    }
    line + "\n"
}

/// A rate in a few characters.
pub fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        _ if rate < 99.95 => format!("{rate:.1}"),
        _ if rate < 9999.5 => format!("{rate:.0}"),
        _ if rate < 999_950.0 => format!("{:.1}k", rate / 1e3),
        _ if rate < 999_950_000.0 => format!("{:.1}M", rate / 1e6),
        _ => format!("{:.1}G", rate / 1e9),
    }
}

const fn colour(colour: anstyle::AnsiColor) -> Color {
    match colour {
        anstyle::AnsiColor::Green => Color::Green,
        anstyle::AnsiColor::Yellow => Color::Yellow,
        anstyle::AnsiColor::Red => Color::Red,
        _ => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::{Terminal, backend::TestBackend};
    use rstest::rstest;

    use super::*;
    use crate::commands::top::model::{
        Key,
        tests::{source, status},
    };

    fn busy() -> Model {
        let mut model = Model::new(100);
        for second in 0..40u64 {
            let sources = [
                source("192.0.2.1", 7 * second, 5 * second),
                source("2001:db8:ffff:ffff::/64", second, 0),
            ];
            let mut told = status(second * second, 5 * second, &sources);
            told.unguarded = vec!["wg0".to_owned()];
            told.source_evictions = second;
            model.take(Duration::from_secs(second), Ok(told));
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
        let mut told = status(1, 1, &[]);
        told.responder = ResponderStatus {
            fallback: Speaker::Xdp,
            serving: Speaker::Xdp,
            ..ResponderStatus::default()
        };
        let mut model = Model::new(9);
        model.take(Duration::ZERO, Ok(told));
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
        model.press(Key::Character('?'));
        drawn(&model, width, height);
        model.press(Key::Character('/'));
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
        model.press(Key::Character('/'));
        model.press(Key::Character('2'));
        let text = drawn(&model, 80, 30).join("\n");
        assert!(
            text.contains("/2_") && text.contains("2 of 2 sources"),
            "{text}"
        );
        model.press(Key::Escape);
        model.take(Duration::from_secs(50), Err("no such socket".to_owned()));
        model.press(Key::Character('p'));
        let text = drawn(&model, 80, 30).join("\n");
        assert!(text.contains("PAUSED"), "{text}");
        assert!(
            text.contains("no answer, asking again: no such socket"),
            "{text}"
        );
        model.press(Key::Character('?'));
        let text = drawn(&model, 80, 30).join("\n");
        assert!(text.contains("q, Ctrl-C  quit"), "{text}");
        let widest = HELP.lines().map(str::len).max().unwrap();
        assert!(widest <= usize::from(HELP_WIDTH - 2));
    }

    #[test]
    fn nothing_that_was_told_reaches_the_terminal_as_it_is() {
        let evil = "\u{1b}[2J\u{9b}\u{7}\u{202e}\n";
        let mut told = status(1, 1, &[source(evil, 3, 1)]);
        told.hostname = evil.to_owned();
        told.interfaces[0].name = evil.to_owned();
        told.interfaces[0].xdp_mode = evil.to_owned();
        told.unguarded = vec![evil.to_owned()];
        let mut model = Model::new(9);
        model.take(Duration::ZERO, Ok(told));
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
}
