//! What commands print.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

/// Prints to standard output. A reader that has closed its end, as `head` does, has seen
/// enough; `print!` would panic.
///
/// # Errors
/// When the text cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}
