//! Paths of the workspace, and the ways in which the tasks start programs.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;

use anyhow::{Context as _, Result, bail};

/// How much of a failed program's output is worth repeating.
const LAST_LINES: usize = 20;

/// Prints a line on what xtask does.
pub(crate) fn say(line: impl AsRef<str>) {
    eprintln!("xtask: {}", line.as_ref());
}

/// Prints an error with everything that caused it.
///
/// Not anyhow's own Debug form, which adds a backtrace of xtask.
pub(crate) fn report(err: &anyhow::Error) {
    eprintln!("xtask: error: {err}");
    for cause in err.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
}

/// The top folder of the workspace.
///
/// Found when xtask runs, never when it was compiled: the xtask of a checkout that was copied
/// or moved would work on the old one. Where none is found, which [`find_workspace`] reports
/// at the start, it is the current folder.
pub(crate) fn workspace() -> PathBuf {
    static FOUND: LazyLock<PathBuf> =
        LazyLock::new(|| find_workspace().unwrap_or_else(|_| PathBuf::from(".")));
    FOUND.clone()
}

/// Finds the top folder of the workspace: above the package that cargo runs, else (xtask was
/// started without cargo) above the current folder.
///
/// # Errors
/// When neither is part of a checkout of nomail.
pub(crate) fn find_workspace() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let current = env::current_dir().context("the current folder is gone")?;
    let starts = package.iter().chain([&current]);
    let found = starts
        .flat_map(|start| start.ancestors())
        .find(|folder| is_workspace(folder));
    found.map(Path::to_owned).with_context(|| {
        format!(
            "{} is not inside a checkout of nomail (a folder with Cargo.toml and xtask): \
             change into one",
            current.display()
        )
    })
}

/// Whether a folder has the workspace that xtask is a member of.
fn is_workspace(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    manifest.lines().any(|line| line.trim() == "[workspace]")
        && folder.join("xtask/Cargo.toml").is_file()
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or `target` of the workspace.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => {
            std::path::absolute(&dir).context("CARGO_TARGET_DIR is no usable path")
        }
        _ => Ok(workspace().join("target")),
    }
}

/// Whether xtask runs as root: /proc/self belongs to the effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The folders of PATH, then the system ones that a user's PATH often lacks.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .collect()
}

/// The first executable of that name in `folders`.
pub(crate) fn find_program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Cargo of the toolchain that runs xtask, in the workspace, for the host crates.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", target_dir()?);
    forget_package(&mut cargo);
    Ok(cargo)
}

/// Removes the variables that `cargo run` sets for the package xtask.
pub(crate) fn forget_package(command: &mut Command) {
    forget(command, |name| {
        ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    });
}

/// Removes from the program's environment all variables that `unwanted` picks.
pub(crate) fn forget(command: &mut Command, unwanted: impl Fn(&str) -> bool) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(&unwanted) {
            command.env_remove(name);
        }
    }
}

/// The command as you can type it, with the environment that it adds.
pub(crate) fn shown(command: &Command) -> String {
    let assignments = command.get_envs().filter_map(|(name, value)| {
        let value = value?;
        Some(format!("{}={}", name.display(), quoted(value)))
    });
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quoted);
    assignments.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a program that prints for itself.
///
/// # Errors
/// When it does not start, or fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start: {}", shown(command)))?;
    if !status.success() {
        bail!("failed ({status}): {}", shown(command));
    }
    Ok(())
}

/// Runs a program without input: how it ended, and all that it printed.
pub(crate) fn captured(command: &mut Command) -> Result<(ExitStatus, Vec<u8>)> {
    let mut printed = Vec::new();
    let status = read_output(command, |mut output| {
        output.read_to_end(&mut printed).map(drop)
    })?;
    Ok((status, printed))
}

/// Runs a program silently.
///
/// # Errors
/// When it does not start, or fails: with its last lines and the command to repeat.
pub(crate) fn check_silent(command: &mut Command) -> Result<()> {
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let status = read_output(command, |output| {
        for line in BufReader::new(output).split(b'\n') {
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(String::from_utf8_lossy(&line?).into_owned());
        }
        Ok(())
    })?;
    if !status.success() {
        let last: Vec<_> = last.iter().map(|line| format!("    {line}")).collect();
        bail!(
            "failed ({status}); its last lines:\n{}\n  to repeat it:\n    {}",
            last.join("\n"),
            shown(command)
        );
    }
    Ok(())
}

/// Runs a program without input, and has `read` take what it prints, both streams in the
/// order of their lines.
fn read_output(
    command: &mut Command,
    read: impl FnOnce(PipeReader) -> std::io::Result<()>,
) -> Result<ExitStatus> {
    let failed = |command: &Command| format!("cannot run: {}", shown(command));
    // One pipe for both streams keeps their lines in order.
    let (reader, writer) = std::io::pipe().with_context(|| failed(command))?;
    let other = writer.try_clone().with_context(|| failed(command))?;
    let spawned = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(other)
        .spawn();
    // The command still holds the write ends: the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.with_context(|| failed(command))?;
    read(reader).with_context(|| failed(command))?;
    child.wait().with_context(|| failed(command))
}

/// What a program prints, when it can be started and succeeds.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

/// The output of git in the workspace, if that is a git checkout.
pub(crate) fn git(arguments: &[&str]) -> Option<String> {
    output_of(Command::new("git").current_dir(workspace()).args(arguments))
}

/// The commit that is built, as the agent's build script sees it.
pub(crate) fn commit() -> Option<String> {
    let named = env::var("NOMAIL_COMMIT").ok();
    named.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
}

/// A program as root: through sudo, unless xtask is root.
///
/// `envs` reaches the program in either case; sudo alone would drop it.
///
/// # Errors
/// Without root and sudo.
pub(crate) fn as_root(program: &Path, envs: &[(&str, &OsStr)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(envs.iter().copied());
        return Ok(command);
    }
    let Some(sudo) = find_program("sudo", &search_path()) else {
        bail!(
            "{} needs root, and there is no sudo here: repeat the command as root",
            program.display()
        );
    };
    let mut command = Command::new(sudo);
    command.arg("--").arg("env");
    for (name, value) in envs {
        let mut assignment = std::ffi::OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_command_that_can_be_pasted() {
        let mut command = Command::new("cargo");
        command.arg("test").arg("two words").env("A", "it's");
        assert_eq!(shown(&command), r"A='it'\''s' cargo test 'two words'");
    }

    #[test]
    fn failure_repeats_last_lines_and_command() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 100; echo broken >&2; exit 3"]);
        let text = check_silent(&mut command).unwrap_err().to_string();
        assert!(text.contains("    broken\n"), "{text}");
        assert!(
            text.contains("    100\n") && !text.contains("    80\n"),
            "{text}"
        );
        assert!(text.contains("sh -c 'seq 100;"), "{text}");
    }

    #[test]
    fn captures_both_streams_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let (status, printed) = captured(&mut command).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(printed, b"one\ntwo\nthree\n");
    }

    #[test]
    fn success_is_silent_success() {
        assert!(check_silent(&mut Command::new("true")).is_ok());
        assert_eq!(
            output_of(Command::new("echo").arg("x")).as_deref(),
            Some("x")
        );
        assert_eq!(output_of(&mut Command::new("false")), None);
    }

    #[test]
    fn finds_only_executables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        fs::write(&file, "").unwrap();
        let folders = [dir.path().to_owned()];
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find_program("tool", &folders), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("tool", &folders), Some(file));
    }
}
