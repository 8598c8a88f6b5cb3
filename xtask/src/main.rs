//! `cargo xtask`: sets up the BPF toolchain, builds, runs, tests and lints nomail.
//!
//! The crate nomail-ebpf needs a compiler with the source of `core`, and a linker that stable
//! Rust does not have; everything else is plain cargo. These commands hide the difference.

#![allow(
    clippy::print_stderr,
    reason = "a command line tool: what it does and why it failed goes to stderr"
)]

mod bench;
mod build;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod lint;
mod mechanisms;
mod mirror;
mod programs;
mod reproduce;
mod run;
mod setup;
mod shell;
mod soak;
mod test;
mod tier;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, runs and tests nomail.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what the BPF object needs: a compiler with rust-src, and bpf-linker
    ///
    /// Takes the first of: the compiler that NOMAIL_BPF_RUSTC names, rustup's
    /// nightly, the rustc on PATH, /usr/bin/rustc. Installs packages only as root
    /// on Debian, and removes none; elsewhere it prints the commands.
    Setup,
    /// Build the BPF object and the agent that embeds it
    ///
    /// NOMAIL_BPF_OBJECT=FILE takes a prebuilt object instead of building one.
    Build(build::Args),
    /// Set up what is missing, build, and run the agent (through sudo when not root)
    Run(run::Args),
    /// Run the tests; the tiers bpf and netns through sudo when not root
    Test(test::Args),
    /// Measure beside other programs, and write tables and plots under target/bench (as root)
    Bench(bench::Args),
    /// Show nomail at work: a host with it, a sender, a bot, a flood that comes and goes, and
    /// `top` on it; in network namespaces (as root)
    Demo(demo::Args),
    /// Run honest, hostile and faulty traffic at once for minutes; fails when memory or
    /// descriptors grow, or a counter is wrong (as root)
    Soak(soak::Args),
    /// Write the shipped file, option reference, man pages and shell completions from the
    /// sources; or build the book
    Docs(docs::Args),
    /// Build the packages for Debian and for RPM, into target/dist
    ///
    /// Installs cargo-deb and cargo-generate-rpm under target/tools if they are
    /// missing.
    Dist(dist::Args),
    /// Build the same sources in two places, and compare the results byte by byte
    ///
    /// Two release builds: some minutes.
    Reproduce(reproduce::Args),
    /// Fuzz what reads bytes from outside, with libFuzzer on nightly Rust
    ///
    /// Installs cargo-fuzz under target/tools if it is missing. Findings are in
    /// fuzz/artifacts.
    Fuzz(fuzz::Args),
    /// Check formatting, clippy, links of the documentation, the rules on who uses whom,
    /// dependencies, and the number of unsafe blocks
    Lint,
}

fn main() -> ExitCode {
    let task = Cli::parse().command;
    match shell::find_workspace().and_then(|_| dispatch(&task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            shell::report(&err);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: &Task) -> Result<()> {
    match task {
        Task::Setup => setup::ensure(setup::Verbosity::Verbose).map(drop),
        Task::Build(args) => build::build(args.profile()).map(drop),
        Task::Run(args) => run::run(args),
        Task::Test(args) => test::test(args),
        Task::Bench(args) => bench::bench(args),
        Task::Demo(args) => demo::demo(args),
        Task::Soak(args) => soak::soak(args),
        Task::Docs(args) => docs::docs(args),
        Task::Dist(args) => dist::dist(args),
        Task::Reproduce(args) => reproduce::reproduce(args),
        Task::Fuzz(args) => fuzz::fuzz(args),
        Task::Lint => lint::lint(),
    }
}
