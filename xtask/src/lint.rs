//! Formatting and clippy, with warnings as errors.

use anyhow::{Result, bail};

use crate::{build, shell};

/// Checks the whole workspace; a failing check does not stop the next.
///
/// # Errors
/// When any check complains.
pub(crate) fn lint() -> Result<()> {
    let mut fmt = shell::cargo()?;
    fmt.args(["fmt", "--all", "--check"]);

    let mut host = shell::cargo()?;
    host.args(["clippy", "--workspace", "--exclude", "nomail-ebpf"])
        .args(["--all-targets", "--", "-D", "warnings"]);
    // The agent's build takes the object if there is one; clippy does not need it fresh.
    if let Some(object) = build::existing_object()? {
        host.env(build::OBJECT, object);
    }

    // For the host's target: clippy has to match its compiler, and the compiler that
    // builds for BPF often comes without one.
    let mut kernel = shell::cargo()?;
    kernel
        .args(["clippy", "--package", "nomail-ebpf", "--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        // Without std nothing unwinds, and the compiler insists on hearing it.
        .env("CARGO_PROFILE_DEV_PANIC", "abort");

    let checks = [
        ("formatting", fmt),
        ("clippy on the host crates", host),
        ("clippy on the kernel crate", kernel),
    ];
    let mut failed = Vec::new();
    for (name, mut command) in checks {
        shell::say(format!("lint: {name}"));
        if let Err(err) = shell::check(&mut command) {
            shell::report(&err);
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    Ok(())
}
