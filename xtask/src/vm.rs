//! The tier vm: the test programs of other tiers, on other kernels.

use std::env;
use std::ffi::OsString;

use anyhow::{Context as _, Result};

use crate::build::Built;
use crate::tier::{self, Tier};
use crate::{programs, setup, shell};

/// The test program that starts the machines.
const PROGRAM: &str = "vm";

/// Runs the programs of the tiers bpf and netns, and those that need a machine of their own,
/// in virtual machines.
///
/// # Errors
/// When something cannot be built, or a test fails.
pub(crate) fn test(built: &Built, test_args: &[OsString]) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let (vm, others): (Vec<_>, Vec<_>) = programs::test_programs(built)?
        .into_iter()
        .partition(|(name, _)| name == PROGRAM);
    let (_, program) = vm
        .first()
        .with_context(|| format!("there is no test program {PROGRAM} in tests/tests"))?;
    let in_machines = |name: &str| {
        // The library of the tests is one of the programs, and has no tests.
        let elsewhere = [Tier::Senders, Tier::Package];
        name != "nomail_tests" && !elsewhere.contains(&tier::of_program(name))
    };
    let paths = others
        .iter()
        .filter(|(name, _)| in_machines(name))
        .map(|(_, path)| path);
    let paths = env::join_paths(paths).context("the target directory has a colon in its name")?;
    shell::say("running emulated machines one after the other: this takes about an hour");
    programs::run_program(
        program,
        built,
        &[("NOMAIL_TEST_PROGRAMS", paths.as_os_str())],
        test_args,
    )
}
