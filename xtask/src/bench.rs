//! Benchmarks: programs of `benches/benches` that print tables in Markdown, run as root
//! on a release build; the same as JSON and as plots; and the report on all of them.

mod plots;
mod tables;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::json;

use crate::build::{self, Built, Profile};
use crate::{programs, setup, shell};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "cost")]
    name: Choice,
    /// Measure less: fewer rounds, and fewer rows where the table says so. `all` then takes
    /// five minutes
    #[arg(long)]
    quick: bool,
    /// Renew the plots that docs/plots has as well
    #[arg(long)]
    write: bool,
    /// Measure nothing: draw the plots and write the report from the tables in target/bench
    #[arg(long, conflicts_with = "quick")]
    from_last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// What nomail costs a host: time per frame, memory, time to start
    Cost,
    /// Mail servers that refuse, side by side: exchanges, and connections held
    Smtp,
    /// How the guard and its peers hold against floods
    Guard,
    /// What reloads and status queries cost the clients that are served meanwhile
    Reload,
    /// How cost grows: with sources, flood rate, held connections, deny prefixes, relay
    /// domains and CPUs
    Growth,
    /// The 521 without a socket: an exchange beside the listener's, floods, loss, kills
    Socketless,
    /// A simulation of senders that retry from other networks: how long until mail is back
    Farms,
    /// All of them, and a report on every goal: target/bench/REPORT.md
    All,
}

/// The benchmarks, as their programs are called.
const ALL: [&str; 7] = [
    "cost",
    "smtp",
    "guard",
    "socketless",
    "reload",
    "growth",
    "farms",
];

impl Choice {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Cost => vec!["cost"],
            Self::Smtp => vec!["smtp"],
            Self::Guard => vec!["guard"],
            Self::Reload => vec!["reload"],
            Self::Growth => vec!["growth"],
            Self::Socketless => vec!["socketless"],
            Self::Farms => vec!["farms"],
            Self::All => ALL.to_vec(),
        }
    }
}

/// Largest share of the machine that is busy when a measurement begins.
const BUSY_MAX: f64 = 0.1;
/// How long each look at it takes.
const LOOK: Duration = Duration::from_secs(2);
/// How long to wait for a quiet machine; and for a quick measurement.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_QUICK: Duration = Duration::from_secs(4);

/// Builds for release and measures. Prints the tables, and keeps them under target/bench
/// with the same as JSON and the plots.
///
/// # Errors
/// When something cannot be built, or a benchmark fails.
pub(crate) fn bench(args: &Args) -> Result<()> {
    let mut tables = Vec::new();
    if args.from_last {
        for name in args.name.names() {
            let file = folder()?.join(format!("{name}.md"));
            let table = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}: measure it first", file.display()))?;
            tables.push((name, table));
        }
    } else {
        setup::ensure_runtime_tools()?;
        let built = build::build(Profile::Release)?;
        let programs = args.name.names().into_iter();
        let programs: Vec<_> = programs
            .map(|name| Ok((name, compile(name, &built)?)))
            .collect::<Result<_>>()?;
        let patience = if args.quick { PATIENCE_QUICK } else { PATIENCE };
        let begun = Instant::now();
        for (name, program) in programs {
            wait_for_quiet(patience);
            let start = Instant::now();
            let table = measure(name, &program, &built, args.quick)?;
            shell::say(format!(
                "{name} took {:.0} s",
                start.elapsed().as_secs_f64()
            ));
            keep(name, &table, args)?;
            tables.push((name, table));
        }
        if args.name == Choice::All {
            let took = begun.elapsed().as_secs_f64();
            shell::say(format!("all of them took {took:.0} s, without building"));
        }
    }
    let plots = draw(&tables)?;
    if args.write {
        publish(&plots)?;
    }
    if args.name == Choice::All {
        let report = report(&tables, args.quick);
        let file = write("REPORT.md", &report)?;
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
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Prints the tables of a benchmark, and keeps them, also as JSON.
fn keep(name: &str, text: &str, args: &Args) -> Result<()> {
    print!("{text}");
    let file = write(&format!("{name}.md"), text)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let json = json!({
        "benchmark": name,
        "quick": args.quick,
        "commit": shell::commit(),
        "kernel": release.trim(),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "ended_unix_secs": now.map_or(0, |now| now.as_secs()),
        "tables": tables::json(&tables::read(text)),
    });
    write(&format!("{name}.json"), &format!("{json:#}\n"))?;
    shell::say(format!(
        "the tables are in {}, and beside it as JSON",
        file.display()
    ));
    Ok(())
}

/// Draws the plots of these benchmarks, and returns their files.
fn draw(texts: &[(&str, String)]) -> Result<Vec<PathBuf>> {
    let folder = folder()?.join("plots");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for (name, text) in texts {
        let tables = tables::read(text);
        for plot in plots::PLOTS.iter().filter(|plot| plot.benchmark == *name) {
            let file = folder.join(format!("{}.svg", plot.file));
            if plot.draw(&tables, &file)? {
                files.push(file);
            }
        }
    }
    if !files.is_empty() {
        shell::say(format!("{} plots are in {}", files.len(), folder.display()));
    }
    Ok(files)
}

/// Copies the plots that the documentation has into it.
fn publish(plots: &[PathBuf]) -> Result<()> {
    let folder = shell::workspace().join("docs/plots");
    let copies = plots
        .iter()
        .map(|plot| (plot, folder.join(plot.file_name().unwrap_or_default())));
    for (plot, copy) in copies.filter(|(_, copy)| copy.exists()) {
        fs::copy(plot, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
        shell::say(format!("renewed {}", copy.display()));
    }
    Ok(())
}

fn folder() -> Result<PathBuf> {
    Ok(shell::target_dir()?.join("bench"))
}

/// Keeps a text under target/bench, and returns its path.
fn write(name: &str, text: &str) -> Result<PathBuf> {
    let folder = folder()?;
    let file = folder.join(name);
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Waits until the machine is quiet. If it stays busy, says so and measures all the same.
fn wait_for_quiet(patience: Duration) {
    let start = Instant::now();
    let mut said = false;
    while let Some(busy) = busy() {
        if busy <= BUSY_MAX {
            return;
        }
        if start.elapsed() > patience {
            shell::say(format!(
                "the machine is {:.0} % busy with something else: do not rely on these figures",
                busy * 100.0
            ));
            return;
        }
        if !said {
            shell::say(format!(
                "waiting until the machine is quiet: it is {:.0} % busy",
                busy * 100.0
            ));
            said = true;
        }
    }
}

/// The share of its time in which the machine was busy; none without /proc/stat.
fn busy() -> Option<f64> {
    let (work, all) = times()?;
    sleep(LOOK);
    let (work_later, all_later) = times()?;
    Some((work_later - work) as f64 / (all_later - all).max(1) as f64)
}

/// From /proc/stat: time of work, and total time.
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

/// How many goals were met, those that were not, and the tables.
fn report(tables: &[(&str, String)], quick: bool) -> String {
    let mut report = String::from("# What was measured\n\n");
    if quick {
        report += "With `--quick`: fewer rounds, and fewer rows where a table says so. These figures \
                   are not for comparison.\n\n";
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

/// The last cell of a row, if it is a judgement, and the row's other cells.
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
    programs::compile_tests(
        &["bench", "--package", "nomail-benches", "--bench", name],
        built,
    )?
    .into_iter()
    .find_map(|(found, program)| (found == name).then_some(program))
    .with_context(|| format!("there is no benchmark {name} in benches/benches"))
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
