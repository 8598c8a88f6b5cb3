//! A status as `status` prints it, and in part `top`.

use anstyle::AnsiColor;
use nomail_common::{counted::Counted, verdict::Answer};

use super::{
    domains,
    shape::{InterfaceStatus, MetricsStatus, Speaker, Status, Trouble},
    state::State,
};
use crate::{
    counts::Counts,
    text::{ascii, count, duration, plural},
};

impl InterfaceStatus {
    /// All of it but its name and counts.
    pub fn about(&self) -> String {
        let mode = match self.is_guarded() {
            true => ascii(&self.xdp_mode),
            false => "no guard".to_owned(),
        };
        let pinned = if self.pinned { ", pinned" } else { "" };
        let mut about = format!("{mode}{pinned}");
        if let Some(trouble @ (Trouble::AnswersLost | Trouble::Blind)) = self.trouble {
            about += &format!(", {}", trouble.label().to_uppercase());
        }
        if !self.reason.is_empty() {
            about += &format!(": {}", ascii(&self.reason));
        }
        if self.losses > 0 {
            about += &format!(" (lost {})", plural(self.losses, "time"));
        }
        about
    }
}

/// A line: its label, its text, and its colour if it is to stand out.
type TextLine = (&'static str, String, Option<AnsiColor>);

impl Status {
    /// Which side refuses clients, unless it is simply a listener.
    pub fn about_responder(&self) -> Option<String> {
        let responder = &self.responder;
        let side = if responder.by == Speaker::Xdp {
            "XDP, without a socket"
        } else if responder.is_taken_over() {
            "XDP, IN PLACE OF THE LISTENER"
        } else if responder.fallback == Speaker::Xdp {
            "listener, with XDP as fallback"
        } else {
            return None;
        };
        let answers = &self.counts.answers;
        let said = [Answer::Greeting, Answer::Goodbye].map(|word| (word, answers[word]));
        let said = labelled(said.into_iter().collect::<Counts<_>>());
        let counted = [said, labelled(responder.counts)];
        let counted: Vec<_> = counted
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        Some(match counted.is_empty() {
            true => side.to_owned(),
            false => format!("{side}; {}", counted.join(", ")),
        })
    }

    /// The interfaces without a guard, if there are any.
    pub fn about_unguarded(&self) -> Option<String> {
        let names: Vec<_> = self.unguarded.iter().map(|name| ascii(name)).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{}: traffic arriving there is answered but not filtered",
                names.join(", ")
            )
        })
    }

    /// The whole status, as people read it; `colour` is for terminals.
    pub fn text(&self, colour: bool) -> String {
        let paint = |text: &str, colour_of: Option<AnsiColor>| match colour_of {
            Some(of) if colour => format!("{0}{text}{0:#}", of.on_default()),
            _ => text.to_owned(),
        };
        let write_lines = |out: &mut String, lines: Vec<TextLine>| {
            for (label, text, colour) in lines {
                *out += &format!("{label:<12} {}\n", paint(&text, colour));
            }
        };
        let mut out = String::new();
        write_lines(&mut out, self.head());
        out += "\n";
        self.write_counts(&mut out);
        out += "\n";
        write_lines(&mut out, self.notes());
        self.write_sources(&mut out, &paint);
        out
    }

    /// What runs here, and where.
    fn head(&self) -> Vec<TextLine> {
        let red = Some(AnsiColor::Red);
        let state = self.state();
        let mut lines = vec![("state", state.text().to_owned(), Some(state.colour()))];
        if self.flood && state == State::Observing {
            lines.push(("", "a flood comes in".to_owned(), red));
        }
        if self.agent_running {
            let host = format!(
                "{} does not accept mail (nomail {}, up {})",
                ascii(&self.hostname),
                ascii(&self.version),
                duration(self.uptime_secs)
            );
            lines.push(("host", host, None));
        }
        let mut label = "interfaces";
        for interface in &self.interfaces {
            let text = format!("{:<16} {}", ascii(&interface.name), interface.about());
            lines.push((label, text, interface.is_bad().then_some(AnsiColor::Red)));
            label = "";
        }
        lines.extend(
            self.about_unguarded()
                .map(|text| ("not guarded", text, red)),
        );
        for (label, text) in self.addresses.lines() {
            lines.push((label, text, Some(AnsiColor::Yellow)));
        }
        let listens = self.agent_running && self.responder.by == Speaker::Listener;
        let label = if listens { "listening" } else { "guarded" };
        let pairs: Vec<_> = self.guarded.iter().map(|pair| ascii(pair)).collect();
        lines.push((label, pairs.join(", "), None));
        if let Some(responder) = self.about_responder() {
            let taken_over = self.responder.is_taken_over();
            let colour = taken_over.then_some(AnsiColor::Yellow);
            lines.push(("responder", responder, colour));
        }
        lines
    }

    /// The counters, side by side.
    fn write_counts(&self, out: &mut String) {
        let connections = &self.connections;
        let heading = |label: &str, number| (label.to_owned(), number);
        let part = |label: &str, number| (format!("  {label}"), number);
        let syn = &self.counts.syn;
        let mut syns = vec![heading("SYNS", syn.sum())];
        syns.extend(
            syn.iter()
                .map(|(verdict, number)| part(verdict.label(), number)),
        );
        let mut columns = vec![(21, 13, syns)];
        if self.agent_running {
            let mut ends = vec![
                heading("CONNECTIONS", connections.accepted),
                part("active", connections.active),
            ];
            let ended = connections.ended.iter();
            ends.extend(ended.map(|(outcome, number)| part(outcome.label(), number)));
            columns.push((18, 11, ends));
            let answers = self.counts.answers.iter();
            let answers = answers.map(|(answer, number)| (answer.label().to_uppercase(), number));
            columns.push((19, 12, answers.collect()));
        }
        let rows = columns.iter().map(|(.., rows)| rows.len()).max();
        for row in 0..rows.unwrap_or(0) {
            let cells = columns
                .iter()
                .map(|&(labels, numbers, ref rows)| match rows.get(row) {
                    Some((label, number)) => {
                        format!("{label:<labels$}{:>numbers$}", count(*number))
                    }
                    None => " ".repeat(labels + numbers),
                });
            *out += cells.collect::<Vec<_>>().join("   ").trim_end();
            *out += "\n";
        }
    }

    /// What is worth a line only where there is some of it.
    fn notes(&self) -> Vec<TextLine> {
        let connections = &self.connections;
        let red = Some(AnsiColor::Red);
        let mut notes: Vec<TextLine> = [
            ("refused", labelled(connections.refused)),
            ("not SMTP", labelled(connections.protocols)),
            ("connections", labelled(connections.counters)),
        ]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(label, text)| (label, text, None))
        .collect();
        let mut label = "mail for";
        for line in domains::about(&self.foreign_domains) {
            notes.push((label, line, red));
            label = "";
        }
        let mut tracked = format!("{} tracked", count(self.sources_tracked));
        let table = labelled(self.counts.table);
        if !table.is_empty() {
            tracked += &format!(", {table}");
        }
        notes.push(("sources", tracked, None));
        notes.extend(
            self.lists
                .about()
                .into_iter()
                .map(|line| ("lists", line, red)),
        );
        if let Some(crowdsec) = &self.crowdsec {
            let failing = !crowdsec.error.is_empty() || crowdsec.left_out > 0;
            let colour = failing.then_some(AnsiColor::Red);
            notes.push(("crowdsec", crowdsec.to_string(), colour));
        }
        if !self.metrics.error.is_empty() {
            let MetricsStatus { listen, error } = &self.metrics;
            let text = format!("NOT SHOWN on {}: {}", ascii(listen), ascii(error));
            notes.push(("metrics", text, red));
        }
        let reload = &self.reload;
        if !reload.ok && !reload.error.is_empty() {
            let ago = duration(reload.age_secs);
            let text = format!("failed {ago} ago: {}", ascii(&reload.error));
            notes.push(("reload", text, red));
        } else if !reload.needs_restart.is_empty() {
            let keys = ascii(&reload.needs_restart.join(", "));
            let text = format!("a change of {keys} needs a restart");
            notes.push(("reload", text, Some(AnsiColor::Yellow)));
        }
        notes
    }

    fn write_sources(&self, out: &mut String, paint: &impl Fn(&str, Option<AnsiColor>) -> String) {
        if self.sources.is_empty() {
            return;
        }
        *out += &format!(
            "\n{:<24} {:>13} {:>13} {:>13} {:>10}\n",
            "BUSIEST SOURCES", "SYNS", "LIMITED", "CONNECTIONS", "LAST SEEN"
        );
        for source in &self.sources {
            let limited = format!("{:>13}", count(source.limited));
            let colour = (source.limited > 0).then_some(AnsiColor::Yellow);
            *out += &format!(
                "{:<24} {:>13} {} {:>13} {:>10}\n",
                ascii(&source.source),
                count(source.syn),
                paint(&limited, colour),
                count(source.connections),
                duration(source.last_seen_secs)
            );
        }
    }
}

/// The numbers of a vocabulary that are not 0, with their labels.
pub fn labelled<T: Counted>(counts: Counts<T>) -> String {
    let there = counts.iter().filter(|(_, number)| *number > 0);
    let there: Vec<_> = there
        .map(|(word, number)| format!("{} {}", count(number), word.label()))
        .collect();
    there.join(", ")
}

#[cfg(test)]
mod tests;
