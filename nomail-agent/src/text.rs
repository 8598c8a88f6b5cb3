//! Text for people: what commands print, and how numbers, times and foreign text look in it.

use std::{
    io::{self, Write as _},
    net::IpAddr,
};

use anyhow::{Context as _, Result};

/// Prints to standard output. A closed pipe, as `head` leaves it, is no error; `print!`
/// would panic.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

/// Text that came through a socket: only printable ASCII stays as it is, so that nothing reaches
/// a terminal as a command, and each character is one column wide.
pub fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_default()),
        }
    }
    shown
}

/// Text of this host (a file, an argument) on one line: control characters, and others that do
/// not print, are escaped.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// A number in groups of three digits: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number and its noun, with an `s` unless it is 1: `2 networks`.
pub fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}

/// The two largest units of a number of seconds: `1m01s`.
pub fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

/// A source: an IPv4 address, or the /64 of an IPv6 address.
pub fn source(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn text_from_outside_is_one_line_and_no_command() {
        let text = "a\r\nb\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\"\\\u{e4}";
        let shown = "a\\r\\nb\\u{1b}]0;x\\u{7}\\u{9b}31m\\u{202e}\"\\\u{e4}";
        assert_eq!(escaped(text), shown);
        assert_eq!(ascii(text), shown.replace('\u{e4}', "\\u{e4}"));
    }

    #[rstest]
    #[case(0, "0")]
    #[case(999, "999")]
    #[case(1000, "1,000")]
    #[case(1_234_567, "1,234,567")]
    fn numbers_are_grouped(#[case] number: u64, #[case] text: &str) {
        assert_eq!(count(number), text);
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(plural(1, "network"), "1 network");
        assert_eq!(plural(1200, "network"), "1,200 networks");
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(61, "1m01s")]
    #[case(7_260, "2h01m")]
    #[case(90_000, "1d01h")]
    fn durations_read_well(#[case] secs: u64, #[case] text: &str) {
        assert_eq!(duration(secs), text);
    }
}
