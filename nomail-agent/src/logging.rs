//! The log: one line each, to stderr.

use std::io::Write as _;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

/// Starts the log. Each `-v` shows more. Under journald each line carries its
/// priority; elsewhere the time and the level.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module("nomail", level)
        .filter_module("nomail_agent", level)
        .filter_module("nomail_ebpf", level)
        .target(Target::Stderr)
        .format(move |out, record| {
            let message = escaped(&record.args().to_string());
            if journald {
                writeln!(out, "<{}>{message}", priority(record.level()))
            } else {
                let time = out.timestamp();
                writeln!(out, "{time} {:<5} {message}", record.level())
            }
        })
        .init();
}

/// Priorities of sd-daemon(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// No line of the log may look like two, or reach a terminal as commands.
fn escaped(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\r\nb\u{1b}[31mü"), "a\\r\\nb\\u{1b}[31mü");
    }
}
