//! Fuzzes what reads bytes from outside, with cargo-fuzz.
//!
//! The targets are functions of the package nomail-fuzz; `cargo test` replays its corpus.
//! What a run adds to the corpus stays under target; findings go to fuzz/artifacts.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{setup, shell};

/// What `cargo install` builds.
const CARGO_FUZZ_VERSION: &str = "0.13.1";
/// Longest that one input may take before it counts as a hang.
const TIMEOUT_SECS: u32 = 10;
/// Most memory that a run may take, with what AddressSanitizer holds back.
const MEMORY_MAX_MIB: u32 = 2048;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to fuzz, one after the other; nothing means every target
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    secs: u32,
}

/// Fuzzes the targets; a finding in one does not stop the next.
///
/// # Errors
/// When there is no nightly compiler or cargo-fuzz, something does not compile, or
/// anything is found: with what to do about it.
pub(crate) fn fuzz(args: &Args) -> Result<()> {
    let targets = chosen(&args.targets, &known_targets()?)?;
    let tool = Tool::find()?;
    for target in &targets {
        shell::say(format!("building the fuzz target {target}"));
        shell::check(&mut tool.command("build", target)?)?;
    }
    let mut failed = Vec::new();
    for target in &targets {
        shell::say(format!("fuzzing {target} for {} s", args.secs));
        let run = run(&tool, target, args.secs)?;
        shell::say(run.summary(target));
        if !run.passed {
            shell::report(&run.error(target));
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("fuzz: failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The fuzz targets that there are.
fn known_targets() -> Result<Vec<String>> {
    let folder = fuzz_dir().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.path();
        names.extend(file.file_stem().map(|stem| stem.display().to_string()));
    }
    names.sort();
    Ok(names)
}

/// The targets that were asked for, or all.
fn chosen(asked: &[String], known: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = asked.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no fuzz target {unknown}: choose from {}",
            known.join(", ")
        );
    }
    let all = asked.is_empty();
    let wanted = |name: &&String| all || asked.contains(name);
    Ok(known.iter().filter(wanted).cloned().collect())
}

fn fuzz_dir() -> PathBuf {
    shell::workspace().join("fuzz")
}

/// cargo-fuzz, and the compiler that it needs.
struct Tool {
    cargo_fuzz: PathBuf,
    /// The folder of nightly's cargo and rustc.
    nightly: PathBuf,
}

impl Tool {
    fn find() -> Result<Self> {
        // `which` never installs a toolchain, which `cargo +nightly` might.
        let which = ["which", "--toolchain", "nightly", "cargo"];
        let cargo = shell::output_of(Command::new("rustup").args(which));
        let nightly = cargo.as_deref().and_then(|cargo| Path::new(cargo).parent());
        let Some(nightly) = nightly else {
            bail!(
                "libFuzzer's sanitizers need a nightly compiler: rustup toolchain install nightly"
            );
        };
        Ok(Self {
            // Built with the cargo that runs xtask: its dependencies do not compile
            // on nightly.
            cargo_fuzz: setup::cargo_program("cargo-fuzz", CARGO_FUZZ_VERSION)?,
            nightly: nightly.to_owned(),
        })
    }

    /// A command of cargo-fuzz for one target.
    fn command(&self, name: &str, target: &str) -> Result<Command> {
        let folders = [self.nightly.clone()].into_iter();
        let path = env::join_paths(folders.chain(shell::search_path()))
            .context("nightly's folder cannot be put on PATH")?;
        let mut command = Command::new(&self.cargo_fuzz);
        shell::forget_package(&mut command);
        // Set by the cargo that runs xtask, for its own toolchain.
        shell::forget(&mut command, |name| {
            ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"].contains(&name)
        });
        command
            .current_dir(shell::workspace())
            .env("PATH", path)
            // The workspace's release profile is for packages.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("RUST_BACKTRACE", "1")
            .args(["fuzz", name, "--features", "libfuzzer"])
            .arg("--fuzz-dir")
            .arg(fuzz_dir())
            .arg("--target-dir")
            .arg(shell::target_dir()?.join("fuzz"))
            .arg(target);
        Ok(command)
    }
}

/// The result of fuzzing one target.
#[derive(Debug)]
struct Run {
    passed: bool,
    runs: Option<u64>,
    secs: u64,
    /// Edges of the program that were reached.
    coverage: Option<u64>,
    /// The program that ran; it also takes single inputs.
    program: String,
    /// Inputs that broke something.
    findings: Vec<PathBuf>,
    log: PathBuf,
}

fn run(tool: &Tool, target: &str, secs: u32) -> Result<Run> {
    let target_dir = shell::target_dir()?;
    let grown = target_dir.join("fuzz-corpus").join(target);
    fs::create_dir_all(&grown).with_context(|| grown.display().to_string())?;
    let log = target_dir.join("fuzz").join(format!("{target}.log"));
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = tool.command("run", target)?;
    command
        // libFuzzer adds to the first.
        .arg(&grown)
        .arg(fuzz_dir().join("corpus").join(target))
        .arg("--")
        .arg(format!("-max_total_time={secs}"))
        .arg(format!("-timeout={TIMEOUT_SECS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"))
        .arg("-print_final_stats=1")
        .stdout(file.try_clone().context("cannot write the log")?)
        .stderr(file);
    let (start, clock) = (Instant::now(), SystemTime::now());
    let status = command
        .status()
        .with_context(|| format!("cannot start: {}", shell::shown(&command)))?;
    let text = fs::read(&log).with_context(|| log.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    Ok(Run {
        passed: status.success(),
        runs: last_number(&text, "stat::number_of_executed_units:"),
        secs: start.elapsed().as_secs(),
        coverage: last_number(&text, " cov:"),
        program: program_in(&text).unwrap_or(target).to_owned(),
        findings: files_since(&fuzz_dir().join("artifacts").join(target), clock),
        log,
    })
}

impl Run {
    fn summary(&self, target: &str) -> String {
        let number = |number: Option<u64>| number.map_or("?".to_owned(), |n| n.to_string());
        format!(
            "fuzz: {target}: {} runs in {} s, {} edges, {} findings",
            number(self.runs),
            self.secs,
            number(self.coverage),
            self.findings.len()
        )
    }

    /// Says where the inputs are, and how to replay and keep them.
    fn error(&self, target: &str) -> anyhow::Error {
        let log = self.log.display();
        if self.findings.is_empty() {
            return anyhow!("fuzzing {target} failed without an input to blame: see {log}");
        }
        let mut text = format!("fuzzing {target} found something: see {log}");
        for finding in &self.findings {
            let input = finding.display();
            text += &format!("\n  input: {input}\n  replay: {} {input}", self.program);
        }
        text += &format!(
            "\n  replay on stable, which sees no leak: cargo test --package nomail-fuzz {target}\
             \n  keep, once it passes: mv INPUT fuzz/corpus/{target}/WHAT-IT-IS"
        );
        anyhow!(text)
    }
}

/// The program that cargo says it runs.
fn program_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("Running `")?;
    rest.split_whitespace().next()
}

/// The number behind the last `label`.
fn last_number(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(label)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The files of a folder that were written since; none if there is no such folder.
fn files_since(folder: &Path, since: SystemTime) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let new = entries.filter(|entry| {
        let modified = entry.metadata().and_then(|meta| meta.modified());
        modified.is_ok_and(|modified| modified >= since)
    });
    let mut files: Vec<_> = new.map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_targets() {
        let known = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(chosen(&[], &known).unwrap(), known);
        let asked = ["c", "a", "a"].map(str::to_owned);
        assert_eq!(chosen(&asked, &known).unwrap(), ["a", "c"]);
        let error = chosen(&["d".to_owned()], &known).unwrap_err().to_string();
        assert_eq!(error, "there is no fuzz target d: choose from a, b, c");
    }

    #[test]
    fn every_target_has_a_program() {
        assert!(known_targets().unwrap().contains(&"dialog".to_owned()));
    }

    #[test]
    fn reads_libfuzzers_words() {
        let log = "     Running `target/fuzz/release/a -artifact_prefix=x /c`\n\
                   #2\tINITED cov: 10 ft: 11 corp: 1/1b\n\
                   #9\tDONE   cov: 530 ft: 1777 corp: 64/2055b\n\
                   Done 1234 runs in 2 second(s)\n\
                   stat::number_of_executed_units: 1234\n\
                   stat::average_exec_per_sec:     617\n";
        assert_eq!(last_number(log, " cov:"), Some(530));
        assert_eq!(
            last_number(log, "stat::number_of_executed_units:"),
            Some(1234)
        );
        assert_eq!(last_number("", " cov:"), None);
        assert_eq!(program_in(log), Some("target/fuzz/release/a"));
        assert_eq!(program_in(""), None);
    }

    #[test]
    fn only_new_files_are_findings() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("crash-1");
        fs::write(&file, "x").unwrap();
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(files_since(folder.path(), written), [file]);
        let later = written + std::time::Duration::from_secs(1);
        assert!(files_since(folder.path(), later).is_empty());
        assert!(files_since(&folder.path().join("none"), written).is_empty());
    }
}
