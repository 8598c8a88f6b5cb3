//! Honest, hostile and faulty traffic at once for minutes: `tests/examples/soak.rs`.

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::{setup, shell};

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in minutes; 60 before a release
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
}

/// Builds the agent for release, and runs the soak.
///
/// # Errors
/// When something cannot be built, or the soak fails: its last lines say why.
pub(crate) fn soak(args: &Args) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let built = build::build(Profile::Release)?;
    let mut cargo = shell::cargo()?;
    cargo
        .args([
            "build",
            "--locked",
            "--package",
            "nomail-tests",
            "--example",
            "soak",
        ])
        .env(build::OBJECT, &built.object);
    shell::check(&mut cargo).context("the soak does not build")?;
    let program = shell::target_dir()?.join("debug/examples/soak");
    let mut soak = shell::as_root(&program, &[("NOMAIL_AGENT", built.agent.as_os_str())])?;
    soak.arg(args.minutes.to_string());
    shell::check(&mut soak)
}
