//! Checks the rules of the house on the sources of the workspace.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::rooms::{PACKAGES, Package};
use super::rules::{self, Exception};
use super::source::Sources;
use crate::shell;

/// The faults that are known.
const KNOWN: &str = include_str!("known.txt");

/// Checks which file uses which, and how long the files are.
///
/// # Errors
/// When a source file cannot be read or breaks a rule, or a known fault is none any more.
pub(super) fn check() -> Result<()> {
    let sources = sources_of(PACKAGES)?;
    let known = KNOWN.lines().filter(|line| !line.starts_with('#'));
    let known = known.map(Exception::parse).collect::<Result<Vec<_>>>()?;
    let (faults, mended) = rules::faults(&sources, PACKAGES, &known);
    let faults = faults.iter().map(ToString::to_string);
    let mended = mended.iter().map(|exception| {
        format!(
            "xtask/src/lint/known.txt: no fault any more: {exception}\n    remedy: delete the line"
        )
    });
    let lines: Vec<_> = faults.chain(mended).collect();
    if !lines.is_empty() {
        bail!("{} faults:\n  {}", lines.len(), lines.join("\n  "));
    }
    Ok(())
}

fn sources_of(packages: &[Package]) -> Result<Sources> {
    let top = shell::workspace();
    let read = |file: &Path| {
        fs::read_to_string(top.join(file))
            .with_context(|| format!("cannot read {}", file.display()))
    };
    let mut sources = Sources::default();
    for package in packages {
        for (name, root) in package.crates {
            sources.add(name, &format!("{}/{root}", package.name), &read)?;
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as in `cargo xtask lint`, for `cargo test`.
    #[test]
    fn the_workspace_keeps_the_rules() {
        if let Err(error) = check() {
            panic!("{error}");
        }
    }
}
