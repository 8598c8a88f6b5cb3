//! Runs the tests, in tiers by what they need.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build::{self, Built, Profile};
use crate::{dist, mechanisms, setup, shell, vm};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to run; nothing means host, bpf and netns
    #[arg(value_enum)]
    tiers: Vec<TierName>,
    /// Arguments of the test programs: a filter, --nocapture, …
    #[arg(last = true, value_name = "TEST ARGS")]
    test_args: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TierName {
    /// Unit, property and documentation tests; as the caller
    Host,
    /// The BPF program in the kernel, packet by packet; as root
    Bpf,
    /// Agent and peers in network namespaces; as root
    Netns,
    /// The sender matrix, as a table; as root, on Debian. With `-- --write` it
    /// goes into docs/senders.md; `-- NAME` takes only some senders
    Senders,
    /// The tiers bpf and netns on Debian's kernels 6.1 and 6.12, in virtual
    /// machines; as root, on Debian 12. `-- NAME` takes only some tests,
    /// `-- --kernel 6.1` only one kernel
    Vm,
    /// The packages, on a real Debian: install, upgrade, remove, purge; as root, on
    /// Debian
    Package,
    /// Switches off one mechanism of the guard after another, in a copy of the sources,
    /// and has the tests that are about it fail; as root. Half an hour; `-- WORD` takes
    /// only some. Not in `all`
    Mechanisms,
    /// All of these but `mechanisms`
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Host,
    Bpf,
    Netns,
    Senders,
    Vm,
    Package,
    Mechanisms,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Bpf => "bpf",
            Self::Netns => "netns",
            Self::Senders => "senders",
            Self::Vm => "vm",
            Self::Package => "package",
            Self::Mechanisms => "mechanisms",
        })
    }
}

/// The tiers that the names mean, each once, in order of cost.
fn tiers_of(names: &[TierName]) -> Vec<Tier> {
    let all = names.contains(&TierName::All);
    [
        (TierName::Host, Tier::Host),
        (TierName::Bpf, Tier::Bpf),
        (TierName::Netns, Tier::Netns),
        (TierName::Senders, Tier::Senders),
        (TierName::Vm, Tier::Vm),
        (TierName::Package, Tier::Package),
        (TierName::Mechanisms, Tier::Mechanisms),
    ]
    .into_iter()
    .filter(|(name, tier)| {
        // Those take many minutes, and install packages into roots of their own.
        let extra = [Tier::Senders, Tier::Vm, Tier::Package].contains(tier);
        let mechanisms = *tier == Tier::Mechanisms;
        let default = names.is_empty() && !extra;
        ((all || default) && !mechanisms) || names.contains(name)
    })
    .map(|(_, tier)| tier)
    .collect()
}

/// The tier of a test program of the package nomail-tests.
pub(crate) fn tier_of_program(name: &str) -> Tier {
    if name.starts_with("bpf_") {
        Tier::Bpf
    } else if name == "senders" {
        Tier::Senders
    } else if ["vm", "devices", "clock"].contains(&name) {
        Tier::Vm
    } else if name == "package" {
        Tier::Package
    } else {
        Tier::Netns
    }
}

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

/// Builds what the tests need and runs them; a failing tier does not stop the next.
///
/// # Errors
/// When something cannot be built, or any tier fails.
pub(crate) fn test(args: &Args) -> Result<()> {
    let tiers = tiers_of(&args.tiers);
    let built = build::build(Profile::Debug)?;
    let mut results = Vec::new();
    for tier in tiers {
        shell::say(format!("testing tier {tier}"));
        let start = Instant::now();
        let verdict = match tier {
            Tier::Host => host(&built, &args.test_args),
            Tier::Bpf | Tier::Netns | Tier::Senders => with_root(tier, &built, &args.test_args),
            Tier::Vm => vm::test(&built, &args.test_args).map(|()| Verdict::Passed),
            Tier::Mechanisms => mechanisms::test(&args.test_args).map(|()| Verdict::Passed),
            Tier::Package => {
                dist::dist_all().and_then(|()| with_root(tier, &built, &args.test_args))
            }
        };
        let verdict = verdict.unwrap_or_else(|err| {
            shell::report(&err);
            Verdict::Failed
        });
        results.push((tier, verdict, start.elapsed().as_secs()));
    }
    let summary = summary(&results);
    let all = |verdict| results.iter().all(|(_, of_tier, _)| *of_tier == verdict);
    if all(Verdict::NothingToRun) {
        bail!("{summary}: no test has such a name");
    }
    if results
        .iter()
        .any(|(_, of_tier, _)| *of_tier == Verdict::Failed)
    {
        bail!("{summary}");
    }
    shell::say(summary);
    Ok(())
}

/// What came of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// None of its tests is wanted. It must not look like one that passes.
    NothingToRun,
}

fn summary(results: &[(Tier, Verdict, u64)]) -> String {
    let tiers: Vec<_> = results
        .iter()
        .map(|(tier, verdict, secs)| {
            let verdict = match verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::NothingToRun => "has NOTHING TO RUN",
            };
            format!("{tier} {verdict} ({secs} s)")
        })
        .collect();
    format!("tests: {}", tiers.join(", "))
}

fn host(built: &Built, test_args: &[OsString]) -> Result<Verdict> {
    let mut cargo = shell::cargo()?;
    cargo
        .args(["test", "--locked", "--no-fail-fast", "--"])
        .args(test_args)
        .env(build::OBJECT, &built.object);
    shell::check(&mut cargo)?;
    Ok(Verdict::Passed)
}

/// Compiles as the caller, so that target/ stays the caller's, and runs as root.
fn with_root(tier: Tier, built: &Built, test_args: &[OsString]) -> Result<Verdict> {
    setup::ensure_runtime_tools()?;
    let mut programs = test_programs(built)?;
    programs.retain(|(name, _)| tier_of_program(name) == tier);
    // The arguments of the senders are not those of libtest.
    if tier != Tier::Senders && !test_args.is_empty() {
        let mut wanted = Vec::new();
        for program in programs {
            if has_test(&program.1, test_args)? {
                wanted.push(program);
            }
        }
        programs = wanted;
    }
    if programs.is_empty() {
        return Ok(Verdict::NothingToRun);
    }
    // Test arguments are given by somebody who watches: one program after the other then.
    let (side_by_side, alone): (Vec<_>, Vec<_>) = programs.into_iter().partition(|(name, _)| {
        test_args.is_empty() && tier != Tier::Senders && !ALONE.contains(&&**name)
    });
    let mut failures = run_side_by_side(&side_by_side, built)?;
    for (name, program) in &alone {
        shell::say(format!("running {name}"));
        if let Err(err) = run_program(program, built, &[], test_args) {
            shell::report(&err);
            failures.push((name, program));
        }
    }
    let (mut failed, mut unsteady) = (Vec::new(), Vec::new());
    for (name, program) in failures {
        if !is_tried_again(tier) {
            failed.push(&**name);
            continue;
        }
        shell::say(format!("running {name} again"));
        match run_program(program, built, &[], test_args) {
            Ok(()) => unsteady.push(&**name),
            Err(err) => {
                shell::report(&err);
                failed.push(name);
            }
        }
    }
    if !unsteady.is_empty() {
        let names = unsteady.join(", ");
        shell::say(format!(
            "tier {tier}: UNSTEADY, failed once and passed once: {names}"
        ));
    }
    if !failed.is_empty() {
        bail!("tier {tier}: failed: {}", failed.join(", "));
    }
    Ok(Verdict::Passed)
}

/// Runs test programs, [`SIDE_BY_SIDE`] at a time, and returns those that failed: most of
/// their tests wait. What one prints is shown when it ends.
fn run_side_by_side<'a>(
    programs: &'a [(String, PathBuf)],
    built: &Built,
) -> Result<Vec<(&'a String, &'a PathBuf)>> {
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    // sudo asks for its password here, and not once for each of them.
    shell::check(&mut shell::as_root(Path::new("true"), &[])?)?;
    let (waiting, failed) = (Mutex::new(programs.iter()), Mutex::new(Vec::new()));
    let package = shell::workspace().join("tests");
    let run = || {
        let next = || {
            waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next()
        };
        while let Some((name, program)) = next() {
            shell::say(format!("running {name}"));
            let result = program_command(program, built, &package, &[], &[])
                .and_then(|mut command| shell::check_and_print(&mut command));
            if let Err(err) = result {
                shell::report(&err);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((name, program));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(run);
        }
    });
    Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a test program has a test that its arguments select.
fn has_test(program: &Path, test_args: &[OsString]) -> Result<bool> {
    let mut list = Command::new(program);
    list.args(["--list", "--format", "terse"]).args(test_args);
    let output = list
        .output()
        .with_context(|| format!("cannot start: {}", shell::shown(&list)))?;
    if !output.status.success() {
        bail!("failed ({}): {}", output.status, shell::shown(&list));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().any(|line| line.ends_with(": test")))
}

/// Whether a program that failed has a second try, after which it passes as unsteady.
/// Floods and honest clients share the CPUs of the machine with whatever else runs
/// there; one frame through the program, in the tier bpf, does not.
fn is_tried_again(tier: Tier) -> bool {
    tier == Tier::Netns
}

/// Runs a test program as root, with `more` in its environment.
pub(crate) fn run_program(
    program: &Path,
    built: &Built,
    more: &[(&str, &OsStr)],
    test_args: &[OsString],
) -> Result<()> {
    let package = shell::workspace().join("tests");
    let test_args: Vec<_> = test_args.iter().map(OsString::as_os_str).collect();
    shell::check(&mut program_command(
        program, built, &package, more, &test_args,
    )?)
}

/// A test program as root, in the folder of its package, with `more` in its environment.
pub(crate) fn program_command(
    program: &Path,
    built: &Built,
    package: &Path,
    more: &[(&str, &OsStr)],
    test_args: &[&OsStr],
) -> Result<Command> {
    // Namespaces and BPF programs are heavy, and timing matters in some tests.
    let threads = std::env::var_os("RUST_TEST_THREADS").unwrap_or_else(|| "2".into());
    let mut envs: Vec<(&str, &OsStr)> = vec![
        ("NOMAIL_AGENT", built.agent.as_os_str()),
        (build::OBJECT, built.object.as_os_str()),
        ("RUST_TEST_THREADS", &threads),
        // As cargo would.
        ("CARGO_MANIFEST_DIR", package.as_os_str()),
    ];
    envs.extend(more);
    let user: Vec<_> = ["RUST_BACKTRACE", "RUST_LOG"]
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .collect();
    envs.extend(user.iter().map(|(name, value)| (*name, value.as_os_str())));

    let mut command = shell::as_root(program, &envs)?;
    command.args(test_args).current_dir(package);
    Ok(command)
}

/// Compiles the package nomail-tests: its test programs, by name.
pub(crate) fn test_programs(built: &Built) -> Result<Vec<(String, PathBuf)>> {
    compile_tests(&["test", "--package", "nomail-tests"], built)
}

/// Compiles programs with a cargo command that can also run them: their names and
/// paths, in order.
pub(crate) fn compile_tests(command: &[&str], built: &Built) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = shell::cargo()?;
    if command.first() == Some(&"bench") {
        // As the agent is, or everything would be compiled twice.
        build::flag_release(&mut cargo)?;
    }
    compile(cargo, command, built)
}

/// The same by a cargo of the caller's.
pub(crate) fn compile(
    mut cargo: Command,
    command: &[&str],
    built: &Built,
) -> Result<Vec<(String, PathBuf)>> {
    cargo
        .args(command)
        .args(["--locked", "--no-run", "--quiet"])
        .arg("--message-format=json-render-diagnostics")
        .env(build::OBJECT, &built.object)
        .stderr(Stdio::inherit());
    let output = cargo
        .output()
        .with_context(|| format!("cannot start: {}", shell::shown(&cargo)))?;
    if !output.status.success() {
        bail!("it does not compile: {}", shell::shown(&cargo));
    }
    Ok(programs_in(&String::from_utf8_lossy(&output.stdout)))
}

/// Picks the test and bench programs out of cargo's JSON messages, one a line.
fn programs_in(messages: &str) -> Vec<(String, PathBuf)> {
    let mut programs: Vec<_> = messages
        .lines()
        .filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let executable = message["executable"].as_str()?;
            let name = message["target"]["name"].as_str()?;
            let wanted =
                message["profile"]["test"] == true || message["target"]["kind"][0] == "bench";
            wanted.then(|| (name.to_owned(), executable.into()))
        })
        .collect();
    programs.sort();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_belong_to_tiers() {
        assert_eq!(tier_of_program("bpf_limiter"), Tier::Bpf);
        assert_eq!(tier_of_program("responder"), Tier::Netns);
        assert_eq!(tier_of_program("no_bpf_here"), Tier::Netns);
        assert_eq!(tier_of_program("bpf"), Tier::Netns);
        assert_eq!(tier_of_program("senders"), Tier::Senders);
        assert_eq!(tier_of_program("devices"), Tier::Vm);
        assert_eq!(tier_of_program("package"), Tier::Package);
    }

    #[test]
    fn names_mean_tiers() {
        let all = vec![
            Tier::Host,
            Tier::Bpf,
            Tier::Netns,
            Tier::Senders,
            Tier::Vm,
            Tier::Package,
        ];
        assert_eq!(tiers_of(&[]), all[..3]);
        assert_eq!(tiers_of(&[TierName::Senders]), [Tier::Senders]);
        assert_eq!(tiers_of(&[TierName::Bpf, TierName::All]), all);
        assert_eq!(tiers_of(&[TierName::Mechanisms]), [Tier::Mechanisms]);
        assert_eq!(
            tiers_of(&[TierName::Netns, TierName::Host, TierName::Host]),
            [Tier::Host, Tier::Netns]
        );
    }

    #[test]
    fn reads_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"flood"},"profile":{"test":true},"executable":"/t/a \"b\""}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"bpf_x"},"profile":{"test":true},"executable":"/t/bpf_x-1"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"tool"},"profile":{"test":false},"executable":"/t/tool"}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"lib"},"profile":{"test":false},"executable":null}
{"reason":"build-finished","success":true}
not json
"#;
        assert_eq!(
            programs_in(messages),
            [
                ("bpf_x".to_owned(), PathBuf::from("/t/bpf_x-1")),
                ("flood".to_owned(), PathBuf::from("/t/a \"b\"")),
            ]
        );
    }

    #[test]
    fn one_line_tells_all() {
        let line = summary(&[
            (Tier::Host, Verdict::Passed, 3),
            (Tier::Bpf, Verdict::Failed, 1),
            (Tier::Netns, Verdict::NothingToRun, 0),
        ]);
        assert_eq!(
            line,
            "tests: host passed (3 s), bpf FAILED (1 s), netns has NOTHING TO RUN (0 s)"
        );
    }
}
