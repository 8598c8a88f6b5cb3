//! Man pages and shell completions, as the agent's command line makes them.
//!
//! The test `docs` of the agent makes and compares them, so that `cargo test` finds
//! what is stale; here it is told to write.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{build, shell};

/// Arguments of `cargo xtask docs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing, and fail if anything differs
    #[arg(long)]
    check: bool,
}

/// Writes `docs/man` and `packaging/completions`, or checks them.
///
/// # Errors
/// When the agent does not compile, a file cannot be written, or, with `--check`,
/// one is not what it should be.
pub(crate) fn docs(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    shell::check_silent(generator()?.env("NOMAIL_DOCS_WRITE", "1"))
        .context("the man pages and completions cannot be written")?;
    shell::say("docs: docs/man and packaging/completions are as the sources make them");
    Ok(())
}

/// Compares `docs/man` and `packaging/completions` with what the sources make.
///
/// # Errors
/// When they differ.
pub(crate) fn check() -> Result<()> {
    shell::check_silent(&mut generator()?)
        .context("the man pages or completions are stale: cargo xtask docs")
}

fn generator() -> Result<Command> {
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--locked", "--quiet", "--package", "nomail-agent"]);
    cargo.args(["--test", "docs"]).env("RUST_BACKTRACE", "0");
    // The pages do not depend on it: any will do, so that nothing is built twice.
    if let Some(object) = build::existing_object()? {
        cargo.env(build::OBJECT, object);
    }
    Ok(cargo)
}
