//! What became of mail, as a table.

use std::fmt::{self, Write as _};

/// What became of a message, from best to worst for its sender and its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The host that is there for this mail accepted it.
    Delivered,
    /// Its sender got it back, with the reason, after so many retries.
    Returned(u32),
    /// Its sender learned that it failed, but not why.
    Unexplained,
    /// It is still queued after [`crate::senders::RETRIES_MAX`] retries.
    Deferred,
    /// It is lost, and no one was notified.
    Lost,
}

impl Outcome {
    /// Parses a cell: `0`, `1`, … for returned at that retry, `+` for
    /// delivered, `D` for deferred, `?` for unexplained, `!` for lost.
    ///
    /// # Panics
    /// When it is none of these.
    pub fn from_letter(letter: &str) -> Self {
        match letter {
            "+" => Self::Delivered,
            "?" => Self::Unexplained,
            "D" => Self::Deferred,
            "!" => Self::Lost,
            number => Self::Returned(number.parse().expect("a number of retries")),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::Returned(0) => f.write_str("returned at once"),
            Self::Returned(1) => f.write_str("returned at first retry"),
            Self::Returned(2) => f.write_str("returned at second retry"),
            Self::Returned(retries) => write!(f, "returned at retry {retries}"),
            Self::Unexplained => f.write_str("failed without the reason"),
            Self::Deferred => f.write_str("**deferred**"),
            Self::Lost => f.write_str("**lost**"),
        }
    }
}

/// Lays out rows, the first of them the head, as a table in Markdown.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        // A String takes all.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}
