//! Builds and runs the agent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::shell;

/// Arguments of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build an XDP object that logs each step of a segment, and an agent that shows it at
    /// `-vvv`
    #[arg(long)]
    trace: bool,
    /// Arguments of the agent; without any it guards port 25 of the default route's interface
    #[arg(last = true, value_name = "AGENT ARGS")]
    agent_args: Vec<OsString>,
}

/// Builds the agent and becomes it.
///
/// # Errors
/// When it cannot be built or started; the exit code of a started agent is its own.
pub(crate) fn run(args: &Args) -> Result<()> {
    let built = match args.trace {
        true => build::build_traced(Profile::Release)?,
        false => build::build(Profile::Release)?,
    };
    let mut agent = shell::as_root(&built.agent, &[])?;
    agent.args(&args.agent_args);
    let through = if shell::is_root() {
        ""
    } else {
        " (root is needed to load BPF)"
    };
    shell::say(format!("running{through}: {}", shell::shown(&agent)));
    // exec, so that signals and the exit code are the agent's.
    Err(agent.exec()).context("cannot start the agent")
}
