//! The programs of the package nomail-tests: compiling them, and running them as root.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Built};
use crate::shell;

/// Whether a test program has a test that its arguments select.
pub(crate) fn has_test(program: &Path, test_args: &[OsString]) -> Result<bool> {
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
    let user: Vec<_> = ["NOMAIL_GOLDEN_WRITE", "RUST_BACKTRACE", "RUST_LOG"]
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
    let mut command = vec!["test", "--package", "nomail-tests"];
    if built.traces {
        // Of the tier bpf alone.
        command.extend(["--test", "bpf_*"]);
        command.extend(build::TRACE);
    }
    compile_tests(&command, built)
}

/// Compiles programs with a cargo command that can also run them: their names and paths, in
/// order.
pub(crate) fn compile_tests(command: &[&str], built: &Built) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = shell::cargo()?;
    if command.first() == Some(&"bench") {
        // As the agent is, or everything would be compiled twice.
        build::flag_release(&mut cargo)?;
    }
    compile(cargo, command, built)
}

/// The same with the caller's cargo command.
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
        bail!("does not compile: {}", shell::shown(&cargo));
    }
    Ok(programs_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The test and bench programs in cargo's JSON messages, which are one a line.
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
}
