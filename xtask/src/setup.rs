//! Sets up what building and testing need: finds it, or installs it.

mod packages;
mod toolchain;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::packages::{FAST_TO_BUILD, Host, apt_install, apt_line, tools_dir};
pub(crate) use self::packages::{cargo_program, cargo_program_with, ensure_runtime_tools};
pub(crate) use self::toolchain::Toolchain;
use self::toolchain::{Candidate, Compiler, OVERRIDE, Origin, Places, candidates, choose};
use crate::shell;

/// What `cargo install` builds, and the LLVM versions it has a feature for.
const LINKER_VERSION: &str = "0.13.0";
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// Debian's packages with a recent compiler and its source; kept recent for web browsers.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// How much [`ensure`] prints when nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// One line: the toolchain taken.
    Brief,
    /// Also every compiler looked at.
    Verbose,
}

/// Finds a complete BPF toolchain, or installs what is missing where that is possible.
///
/// # Errors
/// When nothing complete is there and nothing can be installed: with the commands to
/// type.
pub(crate) fn ensure(verbosity: Verbosity) -> Result<Toolchain> {
    let places = Places::of_this_machine()?;
    let mut found = candidates(&places);
    if verbosity == Verbosity::Verbose {
        shell::say("setup: looking for a compiler with rust-src and a bpf-linker for it");
        for (compiler, _) in &found {
            let verdict = compiler
                .shortcoming()
                .unwrap_or_else(|| "usable".to_owned());
            shell::say(format!("  {compiler}: {verdict}"));
        }
    }
    if choose(&found).is_none() {
        install_compiler(&found)?;
        found = candidates(&places);
    }
    let Some((compiler, linker)) = choose(&found) else {
        bail!("{}", no_compiler(&found, Host::of_this_machine()));
    };
    let linker = match linker {
        Some(linker) => linker.clone(),
        None => install_linker(compiler, &places)?,
    };
    shell::say(format!(
        "BPF toolchain: {compiler}, linker {}",
        linker.display()
    ));
    Ok(Toolchain {
        compiler: compiler.clone(),
        linker,
    })
}

/// What to do without a usable compiler.
fn no_compiler(found: &[Candidate], host: Host) -> String {
    let mut text = "no compiler that can build for BPF (one with rust-src)".to_owned();
    for (compiler, _) in found {
        let why = compiler.shortcoming().unwrap_or_default();
        text += &format!("\n  looked at {compiler}: {why}");
    }
    if let [(compiler, _)] = found
        && compiler.origin == Origin::Override
    {
        text += &format!("\n  unset {OVERRIDE}, or point it to a rustc that has rust-src");
        return text;
    }
    if host != Host::Other {
        text += &format!(
            "\n  as root, on Debian with its security archive:\n    {}",
            apt_line(&DEBIAN_COMPILER.map(str::to_owned))
        );
    }
    text += "\n  with rustup, on any system:\n    rustup toolchain install nightly --component rust-src";
    text += "\n  then repeat: cargo xtask setup";
    text
}

/// Installs Debian's compiler, or prints what to install.
fn install_compiler(found: &[Candidate]) -> Result<()> {
    let host = Host::of_this_machine();
    let overridden = std::env::var_os(OVERRIDE).filter(|value| !value.is_empty());
    if let (Some(rustc), true) = (&overridden, found.is_empty()) {
        bail!(
            "{OVERRIDE}={}: this is no rustc that runs; unset it, or point it to one that has rust-src",
            rustc.display()
        );
    }
    if host != Host::DebianRoot || overridden.is_some() {
        bail!("{}", no_compiler(found, host));
    }
    apt_install(&DEBIAN_COMPILER.map(str::to_owned))
        .with_context(|| format!("cannot install a compiler\n{}", no_compiler(found, host)))
}

/// Builds bpf-linker for that compiler.
fn install_linker(compiler: &Compiler, places: &Places) -> Result<PathBuf> {
    let wanted = compiler.version.llvm;
    let host = Host::of_this_machine();
    let released = "take a released bpf-linker (it brings its LLVM):\n    \
        cargo install cargo-binstall && cargo binstall bpf-linker\n  then repeat: cargo xtask setup";
    let package = format!("llvm-{wanted}-dev");

    if llvm_prefix(wanted).is_none() && host == Host::DebianRoot && LINKER_LLVM.contains(&wanted) {
        apt_install(std::slice::from_ref(&package)).with_context(|| {
            format!("cannot install LLVM {wanted} for bpf-linker; or {released}")
        })?;
    }
    let Some((llvm, prefix)) = llvm_prefix(wanted) else {
        let debian = if host == Host::Other || !LINKER_LLVM.contains(&wanted) {
            String::new()
        } else {
            let line = apt_line(std::slice::from_ref(&package));
            format!(
                "\n  as root, on Debian (cargo xtask setup then builds the linker):\n    {line}"
            )
        };
        bail!(
            "no bpf-linker with LLVM {wanted} or newer for {compiler}, and no LLVM to build one with{debian}\n  or {released}"
        );
    };

    let mut cargo = shell::cargo()?;
    cargo
        // A temporary folder of cargo's own: nothing of it is needed afterwards.
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", &prefix)
        .args(["install", &format!("bpf-linker@{LINKER_VERSION}")])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .args(["--locked", "--force"])
        .args(FAST_TO_BUILD)
        .arg("--root")
        .arg(tools_dir()?);
    shell::say(format!(
        "setup: building bpf-linker, about a minute: {}",
        shell::shown(&cargo)
    ));
    shell::check_silent(&mut cargo)
        .with_context(|| format!("cannot build bpf-linker; or {released}"))?;
    places.linker(wanted).with_context(|| {
        format!(
            "the new bpf-linker in {} does not run",
            tools_dir().unwrap_or_default().display()
        )
    })
}

/// An installed LLVM with development files, of that version or newer, that
/// bpf-linker can be built with.
fn llvm_prefix(wanted: u32) -> Option<(u32, PathBuf)> {
    LINKER_LLVM
        .filter(|&llvm| llvm >= wanted)
        .map(|llvm| (llvm, PathBuf::from(format!("/usr/lib/llvm-{llvm}"))))
        .find(|(_, prefix)| {
            prefix.join("lib/libLLVM.so").exists() && prefix.join("include/llvm-c").exists()
        })
}

#[cfg(test)]
mod tests {
    use super::toolchain::tests::compiler;
    use super::*;

    #[test]
    fn says_what_helps() {
        let bare = [(compiler(Origin::Nightly, "1.97.0-nightly", false), None)];
        let debian = no_compiler(&bare, Host::DebianUser);
        assert!(debian.contains(
            "rustup's nightly: /somewhere/bin/rustc (1.97.0-nightly, LLVM 22): no rust-src"
        ));
        assert!(debian.contains("apt-get update && apt-get install -y --no-install-recommends --no-remove rustc-web cargo-web rust-web-src"));
        let other = no_compiler(&[], Host::Other);
        assert!(!other.contains("apt-get"));
        assert!(other.contains("rustup toolchain install nightly --component rust-src"));
        let named = [(compiler(Origin::Override, "1.97.0", false), None)];
        assert!(no_compiler(&named, Host::DebianUser).contains("unset NOMAIL_BPF_RUSTC"));
    }
}
