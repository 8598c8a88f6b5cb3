//! Draws a [`Model`] on a terminal of any size, or as plain text.

use nomail_common::verdict::{Answer, Verdict};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Cell, Clear, Paragraph, RenderDirection, Row as Cells, Sparkline, Table},
};

use super::model::{Model, Row, Series};
use crate::{
    status::{Status, labelled},
    text::{ascii, count, duration, plural},
};

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
/// Lines that come before the charts: rows of the table, and all else.
const OTHER_LINES: u16 = 8;

/// Columns of the table: title, width, and the least width of the terminal.
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

/// Draws everything.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
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
        return Line::from("no status yet");
    };
    let state = status.state();
    let mut spans = vec![Span::styled(
        state.text(),
        Style::new().fg(colour(state.colour())).bold(),
    )];
    if status.agent_running {
        spans.push(Span::raw(format!(
            "  {}  up {}",
            ascii(&status.hostname),
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
        let text = format!("{} {}  ", ascii(&interface.name), interface.about());
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
    let names: Vec<_> = names.iter().map(|name| ascii(name)).collect();
    names.join(", ")
}

/// Lines that are there only when there is something to say.
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
    let rare = status.map(rare).unwrap_or_default();
    if !rare.is_empty() {
        notes.push(Line::from(rare));
    }
    notes
}

fn restarted(times: u32) -> String {
    format!("the agent has restarted {}", plural(times.into(), "time"))
}

/// Counters that are 0 on most hosts; empty if all are.
fn rare(status: &Status) -> String {
    labelled(status.counts.table)
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
        // In thousandths, because the chart takes whole numbers. The latest is on the right.
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
        ascii(&row.source.source),
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
pub(super) fn text(model: &Model, number: u64, sources_max: usize) -> String {
    let mut out = format!("frame {number}, rates of {:.1} s: ", model.elapsed_secs());
    match (model.trouble(), model.status()) {
        (Some(trouble), _) => {
            out += &format!("no answer: {trouble}\n");
            return out;
        }
        (None, None) => return out + "no status yet\n",
        (None, Some(status)) => {
            out += &format!("{}\n", status.state().text());
            for interface in &status.interfaces {
                out += &format!("{} {}\n", ascii(&interface.name), interface.about());
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
            let rare = rare(status);
            if !rare.is_empty() {
                out += &format!("{rare}\n");
            }
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
        // Programs read numbers without commas.
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
        // No blank within a cell, so that programs can count cells.
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
pub(super) fn rate(rate: f64) -> String {
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
mod tests;
