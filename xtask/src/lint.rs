//! Formatting and clippy, with warnings as errors; what the dependencies are; and
//! how much of the code is unsafe.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{build, setup, shell};

/// What `cargo install` builds.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// How often `unsafe` stands in the code of each folder. clippy demands that each
/// says why it is sound; that a new one is needed, its reviewer sees here.
const UNSAFE: &[(&str, usize)] = &[
    ("benches", 9),
    ("fuzz", 0),
    ("nomail-agent", 7),
    ("nomail-common", 5),
    ("nomail-ebpf", 51),
    ("tests", 11),
];

/// Checks the whole workspace; a failing check does not stop the next.
///
/// # Errors
/// When any check complains.
pub(crate) fn lint() -> Result<()> {
    let mut fmt = shell::cargo()?;
    fmt.args(["fmt", "--all", "--check"]);

    let mut host = shell::cargo()?;
    host.args([
        "clippy",
        "--locked",
        "--workspace",
        "--exclude",
        "nomail-ebpf",
    ])
    .args(["--all-targets", "--", "-D", "warnings"]);
    // The agent's build takes the object if there is one; clippy does not need it fresh.
    if let Some(object) = build::existing_object()? {
        host.env(build::OBJECT, object);
    }

    // For the host's target: clippy has to match its compiler, and the compiler that
    // builds for BPF often comes without one.
    let mut kernel = shell::cargo()?;
    kernel
        .args([
            "clippy",
            "--locked",
            "--package",
            "nomail-ebpf",
            "--",
            "-D",
            "warnings",
        ])
        .env("RUSTC_BOOTSTRAP", "1")
        // Without std nothing unwinds, and the compiler insists on hearing it.
        .env("CARGO_PROFILE_DEV_PANIC", "abort");

    let checks = [
        ("formatting", fmt),
        ("clippy on the host crates", host),
        ("clippy on the kernel crate", kernel),
    ];
    let deny = || -> Result<()> {
        let mut deny = Command::new(setup::cargo_program("cargo-deny", CARGO_DENY_VERSION)?);
        shell::forget_package(&mut deny);
        deny.current_dir(shell::workspace())
            .args(["check", "licenses", "bans", "sources"]);
        shell::check_silent(&mut deny)
    };
    let mut failed = Vec::new();
    for (name, mut command) in checks {
        shell::say(format!("lint: {name}"));
        if let Err(err) = shell::check(&mut command) {
            shell::report(&err);
            failed.push(name);
        }
    }
    let more: [(_, &dyn Fn() -> Result<()>); 2] = [
        ("licences, sources and versions of dependencies", &deny),
        ("the number of unsafe blocks", &count_unsafe),
    ];
    for (name, check) in more {
        shell::say(format!("lint: {name}"));
        if let Err(err) = check() {
            shell::report(&err);
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    Ok(())
}

fn count_unsafe() -> Result<()> {
    let mut wrong = Vec::new();
    for &(folder, recorded) in UNSAFE {
        let found = unsafe_in(&shell::workspace().join(folder))?;
        if found != recorded {
            wrong.push(format!("{folder} has {found}, recorded are {recorded}"));
        }
    }
    if !wrong.is_empty() {
        bail!(
            "{}: if they have to be there, change UNSAFE in xtask/src/lint.rs",
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
