//! How much of the code is unsafe.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// How often `unsafe` stands in the code of each folder. clippy demands that each says why it
/// is sound; this shows the reviewer that there is a new one.
const UNSAFE: &[(&str, usize)] = &[
    ("benches", 10),
    ("fuzz", 0),
    ("nomail-agent", 9),
    ("nomail-common", 6),
    ("nomail-ebpf", 57),
    ("tests", 11),
];

/// Compares what there is with [`UNSAFE`].
///
/// # Errors
/// When a folder has another number of them.
pub(super) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for &(folder, recorded) in UNSAFE {
        let found = unsafe_in(&shell::workspace().join(folder))?;
        if found != recorded {
            wrong.push(format!("{folder} has {found}, recorded are {recorded}"));
        }
    }
    if !wrong.is_empty() {
        bail!(
            "unsafe blocks: {}; if this is right, change UNSAFE in xtask/src/lint/unsafe_blocks.rs",
            wrong.join("; ")
        );
    }
    Ok(())
}

/// Occurrences of the keyword in the sources below a folder, attributes and
/// comments left out.
fn unsafe_in(folder: &Path) -> Result<usize> {
    let mut found = 0;
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            found += unsafe_in(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            found += text.lines().map(unsafe_on).sum::<usize>();
        }
    }
    Ok(found)
}

fn unsafe_on(line: &str) -> usize {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
        .iter()
        .map(|form| code.matches(form).count())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_unsafe_and_nothing_else() {
        let count = |text: &str| text.lines().map(unsafe_on).sum::<usize>();
        assert_eq!(count("let a = unsafe { b() }; // unsafe { c }"), 1);
        assert_eq!(count("unsafe impl Pod for A {}\npub unsafe fn b()"), 2);
        assert_eq!(count("#[unsafe(no_mangle)]\n/// unsafe fn"), 0);
    }
}
