//! A lab of the tests to watch: `tests/examples/demo.rs`.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::{setup, shell};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print 8 frames of text and end, as when the output is no terminal
    #[arg(long)]
    batch: bool,
}

/// Builds the agent and the demo, and becomes the demo.
///
/// # Errors
/// When something cannot be built or started; the exit code of a started demo is
/// its own.
pub(crate) fn demo(args: &Args) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let built = build::build(Profile::Debug)?;
    let mut cargo = shell::cargo()?;
    cargo
        .args([
            "build",
            "--locked",
            "--package",
            "nomail-tests",
            "--example",
            "demo",
        ])
        .env(build::OBJECT, &built.object);
    shell::check(&mut cargo).context("the demo does not build")?;
    let program = shell::target_dir()?.join("debug/examples/demo");
    let mut demo = shell::as_root(&program, &[("NOMAIL_AGENT", built.agent.as_os_str())])?;
    if args.batch {
        demo.arg("--batch");
    }
    shell::say(format!("starting {}", shell::shown(&demo)));
    // exec, so that signals and the exit code are the demo's.
    Err(demo.exec()).context("cannot start the demo")
}
