//! Benchmarks: programs of `tests/benches` that print a table in Markdown, run
//! as root on a release build.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build::{self, Built, Profile};
use crate::{setup, shell, test};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "cost")]
    name: Name,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// What nomail costs a host: time per frame, memory, time to start
    Cost,
    /// Mail servers that refuse, side by side: exchanges, and connections held
    Smtp,
    /// How the guard holds against floods, beside what else holds them off
    Guard,
}

impl Name {
    const fn target(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Smtp => "smtp",
            Self::Guard => "guard",
        }
    }
}

/// Builds for release, measures, prints the table and keeps it under
/// target/bench.
///
/// # Errors
/// When something cannot be built, or the benchmark fails.
pub(crate) fn bench(args: &Args) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let built = build::build(Profile::Release)?;
    let name = args.name.target();
    let program = compile(name, &built)?;
    shell::say(format!("measuring {name}"));
    let envs = [
        ("NOMAIL_AGENT", built.agent.as_os_str()),
        (build::OBJECT, built.object.as_os_str()),
    ];
    let mut command = shell::as_root(&program, &envs)?;
    if args.quick {
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
    let table = String::from_utf8_lossy(&output.stdout);
    print!("{table}");
    let folder = shell::target_dir()?.join("bench");
    let file = folder.join(format!("{name}.md"));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, table.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    shell::say(format!("the table is in {}", file.display()));
    Ok(())
}

fn compile(name: &str, built: &Built) -> Result<PathBuf> {
    test::compile_tests(&["bench", "--bench", name], built)?
        .into_iter()
        .find_map(|(found, program)| (found == name).then_some(program))
        .with_context(|| format!("there is no benchmark {name} in tests/benches"))
}
