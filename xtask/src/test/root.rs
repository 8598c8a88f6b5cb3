//! Running the test programs that need root.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::leftovers::Sweeper;
use crate::build::Built;
use crate::tier::{self, Tier};
use crate::{programs, setup, shell};

/// Programs that have the machine to themselves: they flood, and measure what comes of it.
const ALONE: &[&str] = &[
    "bpf_cpus",
    "challenge_loss",
    "challenge_stacks",
    "flood",
    "generator",
    "reload",
    "two_hosts",
];
/// How many of the others run at the same time.
const SIDE_BY_SIDE: usize = 4;

/// A test program: its name and its path.
type Program = (String, PathBuf);

/// The result of a test program.
struct Ran<'a> {
    name: &'a str,
    time: Duration,
    passed: bool,
}

/// Compiles the programs of a tier as the caller, so that target/ stays the caller's, and
/// runs them as root. False if the arguments select none of their tests.
///
/// # Errors
/// When a program cannot be built or started, or fails.
pub(super) fn run(tier: Tier, built: &Built, test_args: &[OsString]) -> Result<bool> {
    setup::ensure_runtime_tools()?;
    let mut wanted = programs::test_programs(built)?;
    wanted.retain(|(name, _)| tier::of_program(name) == tier);
    // The arguments of the senders are not those of libtest.
    if tier != Tier::Senders && !test_args.is_empty() {
        let all = std::mem::take(&mut wanted);
        for program in all {
            if programs::has_test(&program.1, test_args)? {
                wanted.push(program);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(false);
    }
    let sweeper = Sweeper::start()?;
    // With test arguments you watch the output: one program after the other.
    let (side_by_side, alone): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(name, _)| {
        test_args.is_empty() && tier != Tier::Senders && !ALONE.contains(&&**name)
    });
    let mut ran = run_side_by_side(&side_by_side, built, &sweeper);
    for (name, program) in &alone {
        shell::say(format!("running {name}"));
        let begun = Instant::now();
        let result = programs::run_program(program, built, &sweeper.environment(), test_args);
        if let Err(err) = &result {
            shell::report(err);
        }
        ran.push(Ran {
            name,
            time: begun.elapsed(),
            passed: result.is_ok(),
        });
    }
    drop(sweeper);
    shell::say(format!("tier {tier}: {}", times_of(&mut ran)));
    let failed: Vec<_> = ran
        .iter()
        .filter(|ran| !ran.passed)
        .map(|ran| ran.name)
        .collect();
    if !failed.is_empty() {
        bail!(
            "tier {tier}: failed: {}; repeat a test by: cargo xtask test {tier} -- TEST",
            failed.join(", ")
        );
    }
    Ok(true)
}

/// Runs test programs, [`SIDE_BY_SIDE`] at a time, because most of their tests wait. The
/// output of each is printed as a whole when it ends.
fn run_side_by_side<'a>(all: &'a [Program], built: &Built, sweeper: &Sweeper) -> Vec<Ran<'a>> {
    let (waiting, ran) = (Mutex::new(all.iter()), Mutex::new(Vec::new()));
    let package = shell::workspace().join("tests");
    let environment = sweeper.environment();
    let run = || {
        let next = || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.next()
        };
        while let Some((name, program)) = next() {
            shell::say(format!("running {name}"));
            let begun = Instant::now();
            let captured = programs::program_command(program, built, &package, &environment, &[])
                .and_then(|mut command| shell::captured(&mut command));
            let time = begun.elapsed();
            // Held while the output is printed, so that no other comes in between.
            let mut ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = captured.and_then(|(status, output)| {
                io::stdout().lock().write_all(&output)?;
                let secs = time.as_secs();
                shell::say(match status.success() {
                    true => format!("{name} passed in {secs} s"),
                    false => format!("{name} FAILED after {secs} s ({status})"),
                });
                Ok(status.success())
            });
            let passed = passed.unwrap_or_else(|err| {
                shell::report(&err);
                false
            });
            ran.push(Ran { name, time, passed });
        }
    };
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(run);
        }
    });
    ran.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How long each took, the longest first.
fn times_of(ran: &mut [Ran<'_>]) -> String {
    ran.sort_by_key(|ran| std::cmp::Reverse(ran.time));
    let times = ran.iter().map(|ran| {
        let failed = if ran.passed { "" } else { " FAILED" };
        format!("{}{failed} {} s", ran.name, ran.time.as_secs())
    });
    times.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_comes_first_and_failures_are_named() {
        let ran = |name, secs, passed| Ran {
            name,
            time: Duration::from_secs(secs),
            passed,
        };
        let mut all = [ran("a", 2, true), ran("b", 31, false), ran("c", 4, true)];
        assert_eq!(times_of(&mut all), "b FAILED 31 s, c 4 s, a 2 s");
    }
}
