//! Formatting and clippy with warnings as errors, links of the documentation, the rules of
//! the house, dependencies, and unsafe blocks.

mod house;
mod rooms;
mod rules;
mod source;
mod syntax;
mod unsafe_blocks;

use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, setup, shell};

/// What `cargo install` builds.
const CARGO_DENY_VERSION: &str = "0.20.2";
/// The packages that are compiled for the host.
const HOST: [&str; 4] = ["--locked", "--workspace", "--exclude", "nomail-ebpf"];
const WARNINGS_ARE_ERRORS: [&str; 3] = ["--", "-D", "warnings"];

type Check = fn() -> Result<()>;

/// Checks the whole workspace; a failing check does not stop the next.
///
/// # Errors
/// When any check complains.
pub(crate) fn lint() -> Result<()> {
    let checks: [(&str, Check); 7] = [
        ("rules of the house", house::check),
        ("number of unsafe blocks", unsafe_blocks::check),
        ("formatting", formatting),
        ("clippy on the host crates", clippy_host),
        ("clippy on nomail-ebpf", clippy_kernel),
        ("links of the documentation", links),
        (
            "licences, sources and versions of dependencies",
            dependencies,
        ),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        shell::say(format!("lint: {name}"));
        if let Err(err) = check() {
            shell::report(&err);
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: failed: {}", failed.join(", "));
    }
    Ok(())
}

fn formatting() -> Result<()> {
    shell::check(shell::cargo()?.args(["fmt", "--all", "--check"]))
}

fn clippy_host() -> Result<()> {
    let mut clippy = shell::cargo()?;
    clippy.arg("clippy").args(HOST).arg("--all-targets");
    // What only a development object needs, too.
    clippy.args(["--features", "nomail-tests/trace"]);
    shell::check(with_object(&mut clippy)?.args(WARNINGS_ARE_ERRORS))
}

fn clippy_kernel() -> Result<()> {
    for features in [&[][..], &build::TRACE] {
        let mut clippy = shell::cargo()?;
        clippy
            .args(["clippy", "--locked", "--package", "nomail-ebpf"])
            .args(features)
            .args(WARNINGS_ARE_ERRORS);
        shell::check(for_host(&mut clippy))?;
    }
    Ok(())
}

/// Links of doc comments to items that do not exist, also in private items.
fn links() -> Result<()> {
    let mut host = shell::cargo()?;
    host.arg("doc").args(HOST);
    let mut kernel = shell::cargo()?;
    kernel.args(["doc", "--locked", "--package", "nomail-ebpf"]);
    for cargo in [with_object(&mut host)?, for_host(&mut kernel)] {
        cargo
            .args(["--no-deps", "--document-private-items"])
            .args(["--quiet", "--keep-going"])
            .env(
                "RUSTDOCFLAGS",
                "-A rustdoc::all -D rustdoc::broken_intra_doc_links",
            );
        shell::check(cargo)?;
    }
    Ok(())
}

fn dependencies() -> Result<()> {
    let mut deny = Command::new(setup::cargo_program("cargo-deny", CARGO_DENY_VERSION)?);
    shell::forget_package(&mut deny);
    deny.current_dir(shell::workspace())
        .args(["check", "licenses", "bans", "sources"]);
    shell::check_silent(&mut deny)
}

/// The agent's build takes the XDP object if there is one; here it need not be fresh.
fn with_object(cargo: &mut Command) -> Result<&mut Command> {
    if let Some(object) = build::existing_object()? {
        cargo.env(build::OBJECT, object);
    }
    Ok(cargo)
}

/// Has nomail-ebpf compiled for the host: clippy has to match its compiler, and the
/// compiler that builds for BPF often comes without one.
fn for_host(cargo: &mut Command) -> &mut Command {
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        // Without std nothing unwinds, and the compiler wants that said.
        .env("CARGO_PROFILE_DEV_PANIC", "abort")
}
