//! Finding a compiler and a linker for BPF.
//!
//! `bpfel-unknown-none` has no precompiled `core`: the compiler has to come with the source
//! that matches it (rust-src), and the linker has to read the bitcode that the compiler
//! writes, so its LLVM has to be at least as new as the compiler's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::tools_dir;
use crate::shell;

/// Names the compiler to take, whatever others there are.
pub(super) const OVERRIDE: &str = "NOMAIL_BPF_RUSTC";
/// The oldest compiler for the workspace: its `rust-version`.
const MIN_RUST: (u32, u32) = (1, 95);

/// What builds nomail-ebpf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// Where a compiler was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Named by the environment variable [`OVERRIDE`].
    Override,
    /// rustup's nightly.
    Nightly,
    /// The rustc on PATH.
    Path,
    /// /usr/bin/rustc.
    System,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Override => OVERRIDE,
            Self::Nightly => "rustup's nightly",
            Self::Path => "rustc on PATH",
            Self::System => "the system's rustc",
        })
    }
}

/// A compiler, and what decides whether it can build for BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) origin: Origin,
    pub(crate) rustc: PathBuf,
    /// The cargo that came with it, if any: `-Z` options should match the compiler.
    pub(crate) cargo: Option<PathBuf>,
    pub(crate) version: Version,
    pub(crate) rust_src: bool,
}

impl Compiler {
    /// Why it cannot build for BPF.
    pub(super) fn shortcoming(&self) -> Option<String> {
        let (major, minor) = MIN_RUST;
        if self.version.number < MIN_RUST {
            Some(format!("too old, {major}.{minor} is needed"))
        } else if !self.rust_src {
            Some("no rust-src".to_owned())
        } else {
            None
        }
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({}, LLVM {}{})",
            self.origin,
            self.rustc.display(),
            self.version.release,
            self.version.llvm,
            if self.rust_src { ", rust-src" } else { "" }
        )
    }
}

/// What `rustc -vV` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// As printed, for people.
    pub(crate) release: String,
    /// Major and minor.
    pub(crate) number: (u32, u32),
    /// LLVM's major version.
    pub(crate) llvm: u32,
}

impl Version {
    /// Reads the output of `rustc -vV`.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let release = field("release: ")?.trim();
        let mut parts = release.split(['.', '-']);
        let mut number = || parts.next()?.parse().ok();
        Some(Self {
            release: release.to_owned(),
            number: (number()?, number()?),
            llvm: field("LLVM version: ")?
                .split('.')
                .next()?
                .trim()
                .parse()
                .ok()?,
        })
    }
}

/// The places to look at; the tests bring their own.
#[derive(Debug)]
pub(super) struct Places {
    rustcs: Vec<(Origin, PathBuf)>,
    linkers: Vec<PathBuf>,
}

impl Places {
    pub(super) fn of_this_machine() -> Result<Self> {
        let path = shell::search_path();
        let mut rustcs = Vec::new();
        if let Some(rustc) = std::env::var_os(OVERRIDE).filter(|value| !value.is_empty()) {
            let rustc = std::path::absolute(&rustc)
                .with_context(|| format!("{OVERRIDE} is no usable path"))?;
            rustcs.push((Origin::Override, rustc));
        } else {
            // `which` never installs a toolchain, which `rustc +nightly` might.
            let nightly = shell::output_of(Command::new("rustup").args([
                "which",
                "--toolchain",
                "nightly",
                "rustc",
            ]));
            rustcs.extend(nightly.map(|rustc| (Origin::Nightly, rustc.into())));
            let on_path = shell::find_program("rustc", &path);
            rustcs.extend(on_path.map(|rustc| (Origin::Path, rustc)));
            rustcs.push((Origin::System, "/usr/bin/rustc".into()));
        }
        let mut linkers = vec![
            tools_dir()?.join("bin"),
            shell::workspace().join("target/tools/bin"),
        ];
        linkers.extend(path);
        Ok(Self { rustcs, linkers })
    }

    /// Every compiler that runs, best first.
    fn compilers(&self) -> Vec<Compiler> {
        let mut found: Vec<Compiler> = Vec::new();
        for (origin, rustc) in &self.rustcs {
            if let Some(compiler) = inspect(*origin, rustc)
                && found.iter().all(|other| other.rustc != compiler.rustc)
            {
                found.push(compiler);
            }
        }
        found
    }

    /// The first linker that reads what a compiler with that LLVM writes.
    pub(super) fn linker(&self, llvm: u32) -> Option<PathBuf> {
        let linkers = self.linkers.iter().map(|folder| folder.join("bpf-linker"));
        linkers
            .filter(|file| shell::is_executable(file))
            .find(|file| {
                fs::read(file)
                .ok()
                .and_then(|bytes| llvm_of_binary(&bytes))
                .is_some_and(|linker| linker >= llvm)
                // Its LLVM may be a shared library that has gone since.
                && shell::output_of(Command::new(file).arg("--version")).is_some()
            })
    }
}

/// Asks a compiler for its version and looks for its source.
fn inspect(origin: Origin, rustc: &Path) -> Option<Compiler> {
    let ask = |option: &[&str]| shell::output_of(Command::new(rustc).args(option));
    let version = Version::parse(&ask(&["-vV"])?)?;
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
    // rustup's `rustc` is a proxy that the environment can redirect; the compiler is in the
    // sysroot.
    let own = |name: &str| Some(sysroot.join("bin").join(name)).filter(|p| shell::is_executable(p));
    Some(Compiler {
        origin,
        rustc: own("rustc").unwrap_or_else(|| rustc.to_owned()),
        cargo: own("cargo"),
        version,
        rust_src: sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists(),
    })
}

/// The major version of the LLVM that a bpf-linker was linked with.
///
/// bpf-linker does not print it. A dynamic binary names `libLLVM.so.22.1`
/// (formerly `libLLVM-14.so`), a static one carries the producer string
/// `LLVM22.1.2` that LLVM writes into bitcode.
fn llvm_of_binary(bytes: &[u8]) -> Option<u32> {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == b'L') {
        rest = &rest[at + 1..];
        let Some(tail) = rest.strip_prefix(b"LVM") else {
            continue;
        };
        let tail = [&b".so."[..], b"-", b"_"]
            .iter()
            .find_map(|separator| tail.strip_prefix(*separator))
            .unwrap_or(tail);
        // Two digits: symbols of the kind LLVM3.1 mean something else.
        if let [tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'.', ..] = tail {
            return Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0'));
        }
    }
    None
}

/// A compiler with the linker found for it.
pub(super) type Candidate = (Compiler, Option<PathBuf>);

/// The best of the candidates, which come in order of preference: one that lacks
/// nothing, else one that lacks only the linker.
pub(super) fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    let usable = || {
        candidates
            .iter()
            .filter(|(compiler, _)| compiler.shortcoming().is_none())
    };
    usable()
        .find(|(_, linker)| linker.is_some())
        .or_else(|| usable().next())
}

/// Each compiler that runs, best first, with the linker for it.
pub(super) fn candidates(places: &Places) -> Vec<Candidate> {
    let compilers = places.compilers().into_iter();
    compilers
        .map(|compiler| {
            let linker = match compiler.shortcoming() {
                None => places.linker(compiler.version.llvm),
                Some(_) => None,
            };
            (compiler, linker)
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
