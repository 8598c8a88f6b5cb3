//! The files that are made of the agent's command line and its table of keys, and the book.
//!
//! The test `docs` of the agent makes and compares them, so that `cargo test` finds
//! stale ones; here it writes them.

mod book;

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{build, shell};

/// Arguments of `cargo xtask docs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing, and fail if anything differs
    #[arg(long)]
    check: bool,
    /// Build the folder docs as a book, into target/book, instead
    ///
    /// Installs mdBook under target/tools if it is missing.
    #[arg(long, conflicts_with = "check")]
    book: bool,
}

/// Writes the generated files, or checks them, or builds the book.
///
/// # Errors
/// The agent does not compile, a file cannot be written, or, with `--check`, one is stale;
/// with `--book`, mdBook fails.
pub(crate) fn docs(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    if args.book {
        let book = book::build()?;
        shell::say(format!("docs: the book is in {}", book.display()));
        return Ok(());
    }
    shell::check_silent(generator()?.env("NOMAIL_DOCS_WRITE", "1"))
        .context("the generated files cannot be written")?;
    shell::say(
        "docs: docs/man, docs/options.md, packaging/nomail.toml and packaging/completions are up \
         to date",
    );
    Ok(())
}

/// Checks the generated files.
///
/// # Errors
/// One is stale.
pub(crate) fn check() -> Result<()> {
    shell::check_silent(&mut generator()?)
        .context("generated files are stale: run cargo xtask docs")
}

fn generator() -> Result<Command> {
    let mut cargo = shell::cargo()?;
    cargo.args(["test", "--locked", "--quiet", "--package", "nomail-agent"]);
    cargo.args(["--test", "docs"]).env("RUST_BACKTRACE", "0");
    // The files do not depend on it: an existing one saves a build.
    if let Some(object) = build::existing_object()? {
        cargo.env(build::OBJECT, object);
    }
    Ok(cargo)
}
