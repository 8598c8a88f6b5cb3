//! Benchmarks: programs of `tests/benches` that print a table in Markdown, run
//! as root on a release build; and the report on all of them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build::{self, Built, Profile};
use crate::{setup, shell, test};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "cost")]
    name: Choice,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// What nomail costs a host: time per frame, memory, time to start
    Cost,
    /// Mail servers that refuse, side by side: exchanges, and connections held
    Smtp,
    /// How the guard holds against floods, beside what else holds them off
    Guard,
    /// What reloads and looks at the figures cost those who are served meanwhile
    Reload,
    /// All of them, and a report on every goal: target/bench/REPORT.md
    All,
}

/// The benchmarks, as their programs are called.
const ALL: [&str; 4] = ["cost", "smtp", "guard", "reload"];

impl Choice {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Cost => vec!["cost"],
            Self::Smtp => vec!["smtp"],
            Self::Guard => vec!["guard"],
            Self::Reload => vec!["reload"],
            Self::All => ALL.to_vec(),
        }
    }
}

/// How much of the machine may be busy when a measurement begins.
const BUSY_MAX: f64 = 0.1;
/// How long it is looked at, each time.
const LOOK: Duration = Duration::from_secs(2);
/// How long a quiet machine is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Builds for release, measures, prints the tables and keeps them under
/// target/bench.
///
/// # Errors
/// When something cannot be built, or a benchmark fails.
pub(crate) fn bench(args: &Args) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let built = build::build(Profile::Release)?;
    let mut tables = Vec::new();
    for name in args.name.names() {
        let program = compile(name, &built)?;
        wait_for_quiet();
        tables.push((name, measure(name, &program, &built, args.quick)?));
    }
    if args.name == Choice::All {
        let report = report(&tables, args.quick);
        let file = write("REPORT", &report)?;
        shell::say(format!("the report on all goals is in {}", file.display()));
    }
    Ok(())
}

fn measure(name: &str, program: &Path, built: &Built, quick: bool) -> Result<String> {
    shell::say(format!("measuring {name}"));
    let envs = [
        ("NOMAIL_AGENT", built.agent.as_os_str()),
        (build::OBJECT, built.object.as_os_str()),
    ];
    let mut command = shell::as_root(program, &envs)?;
    if quick {
        command.arg("--quick");
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start: {}", shell::shown(&command)))?;
    if !output.status.success() {
        bail!(
            "{name} failed ({}): {}",
            output.status,
            shell::shown(&command)
        );
    }
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{table}");
    let file = write(name, &table)?;
    shell::say(format!("the table is in {}", file.display()));
    Ok(table)
}

/// Keeps a text under target/bench, and says where.
fn write(name: &str, text: &str) -> Result<PathBuf> {
    let folder = shell::target_dir()?.join("bench");
    let file = folder.join(format!("{name}.md"));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Waits until the machine has little else to do. Where it always has, that is said,
/// and measured all the same.
fn wait_for_quiet() {
    let start = Instant::now();
    let mut told = false;
    while let Some(busy) = busy() {
        if busy <= BUSY_MAX {
            return;
        }
        if start.elapsed() > PATIENCE {
            shell::say(format!(
                "the machine is {:.0} % busy with something else: these figures are of little use",
                busy * 100.0
            ));
            return;
        }
        if !told {
            shell::say(format!(
                "waiting for the machine, which is {:.0} % busy",
                busy * 100.0
            ));
            told = true;
        }
    }
}

/// The share of its time in which the machine was busy, or none where the kernel does
/// not tell.
fn busy() -> Option<f64> {
    let (work, all) = times()?;
    sleep(LOOK);
    let (work_later, all_later) = times()?;
    Some((work_later - work) as f64 / (all_later - all).max(1) as f64)
}

/// From /proc/stat: time of work, and all time.
fn times() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line
        .split_whitespace()
        .filter_map(|time| time.parse().ok())
        .collect();
    // The fourth and the fifth: idle, and waiting for a disk.
    let idle: u64 = times.get(3..5)?.iter().sum();
    // What guests used is part of the first.
    let all: u64 = times.iter().take(8).sum();
    Some((all - idle, all))
}

/// Every goal, the missed ones first, and then the tables.
fn report(tables: &[(&str, String)], quick: bool) -> String {
    let mut report = String::from("# What was measured\n\n");
    if quick {
        report += "With `--quick`: fewer rounds. These figures are not for comparison.\n\n";
    }
    report += "| benchmark | goals met | missed | not judged |\n|---|---|---|---|\n";
    let mut missed = String::new();
    for (name, table) in tables {
        let mut counts = [0; 3];
        for (row, said) in table.lines().filter_map(judgement) {
            let index = match said {
                Judgement::Met => 0,
                Judgement::Missed => 1,
                Judgement::NotJudged => 2,
            };
            counts[index] += 1;
            if said != Judgement::Met {
                let _ = writeln!(missed, "- {name}: {row}");
            }
        }
        let [met, failed, open] = counts;
        let _ = writeln!(report, "| {name} | {met} | {failed} | {open} |");
    }
    if !missed.is_empty() {
        let _ = write!(report, "\nMissed, or not judged:\n\n{missed}");
    }
    for (name, table) in tables {
        let _ = write!(report, "\n# {name}\n\n{table}");
    }
    report
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Met,
    Missed,
    NotJudged,
}

/// What a row of a table has in its last cell, if that is a judgement; and the row's
/// other cells.
fn judgement(line: &str) -> Option<(String, Judgement)> {
    let cells = line.strip_prefix('|')?.strip_suffix('|')?;
    let (row, last) = cells.rsplit_once('|')?;
    let said = match last.trim().trim_matches('*') {
        "met" => Judgement::Met,
        last if last.starts_with("MISSED") => Judgement::Missed,
        last if last.starts_with("not judged") => Judgement::NotJudged,
        _ => return None,
    };
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    Some((cells.join(" | "), said))
}

fn compile(name: &str, built: &Built) -> Result<PathBuf> {
    test::compile_tests(&["bench", "--bench", name], built)?
        .into_iter()
        .find_map(|(found, program)| (found == name).then_some(program))
        .with_context(|| format!("there is no benchmark {name} in tests/benches"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_every_goal_and_names_those_that_are_not_met() {
        let table = "| frame | ns | goal | |\n|---|---|---|---|\n| UDP | 28 | 30 | met |\n\
                     | SYN | 80 | 50 | **MISSED** |\n| kernel | 90 | | |\n\
                     | flood | 1 | 2 | not judged: too busy |\n";
        let report = report(&[("guard", table.to_owned())], false);
        assert!(report.contains("| guard | 1 | 1 | 1 |"), "{report}");
        assert!(report.contains("- guard: SYN | 80 | 50\n"), "{report}");
        assert!(report.contains("- guard: flood | 1 | 2\n"), "{report}");
        assert!(!report.contains("- guard: UDP"), "{report}");
    }
}
