//! The BPF toolchain: find a complete one, or install it.
//!
//! `bpfel-unknown-none` ships no precompiled `core`: the compiler must come with the
//! source that matches it (rust-src), and the linker must read the bitcode that the
//! compiler writes, so its LLVM must be at least as new as the compiler's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Names a compiler to take, whatever else is there.
const OVERRIDE: &str = "NOMAIL_BPF_RUSTC";
/// The oldest compiler for the workspace: its `rust-version`.
const MIN_RUST: (u32, u32) = (1, 95);
/// What `cargo install` builds, and the LLVM versions it has a feature for.
const LINKER_VERSION: &str = "0.13.0";
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// Debian's packages with a recent compiler and its source; kept recent for web browsers.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// How much [`ensure`] says when nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// One line: the toolchain taken.
    Brief,
    /// Also every compiler looked at.
    Verbose,
}

/// A complete set: everything that builds the kernel crate.
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
    fn shortcoming(&self) -> Option<String> {
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

/// What `rustc -vV` tells.
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
struct Places {
    rustcs: Vec<(Origin, PathBuf)>,
    linkers: Vec<PathBuf>,
}

impl Places {
    fn of_this_machine() -> Result<Self> {
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
    fn linker(&self, llvm: u32) -> Option<PathBuf> {
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
    // Where rustup is in charge `rustc` is a proxy that the environment can
    // redirect; the compiler in the sysroot is the thing itself.
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
/// (`libLLVM-14.so` in old times), a static one carries the producer string
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
type Candidate = (Compiler, Option<PathBuf>);

/// The best of the candidates, which come in order of preference: one that lacks
/// nothing, else one that lacks only the linker.
fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    let usable = || {
        candidates
            .iter()
            .filter(|(compiler, _)| compiler.shortcoming().is_none())
    };
    usable()
        .find(|(_, linker)| linker.is_some())
        .or_else(|| usable().next())
}

fn candidates(places: &Places) -> Vec<Candidate> {
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

/// Where `cargo install` puts the linker.
fn tools_dir() -> Result<PathBuf> {
    Ok(shell::target_dir()?.join("tools"))
}

/// Finds a complete BPF toolchain, or installs what is missing where that is possible.
///
/// # Errors
/// When nothing complete is there and nothing can be installed: with the commands
/// that help.
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

/// What decides how something can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// Debian, as root: we install.
    DebianRoot,
    /// Debian, not as root: we tell what to install.
    DebianUser,
    /// We know no package names.
    Other,
}

impl Host {
    fn of_this_machine() -> Self {
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::from(&os, shell::is_root())
    }

    /// Debian itself only: its derivatives have neither the packages named here nor
    /// always their versions.
    fn from(os_release: &str, root: bool) -> Self {
        let debian = os_release
            .lines()
            .any(|line| line.trim().replace(['"', '\''], "") == "ID=debian");
        match (debian, root) {
            (true, true) => Self::DebianRoot,
            (true, false) => Self::DebianUser,
            (false, _) => Self::Other,
        }
    }
}

/// The text for people without a usable compiler.
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

/// Installs Debian's compiler, or tells what to install.
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

/// The programs that the root tests call, with their Debian packages.
const RUNTIME_TOOLS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("ethtool", "ethtool"), ("tmux", "tmux")];

/// Finds or installs what the tests of tier bpf and netns call.
///
/// # Errors
/// When something is missing that we cannot install.
pub(crate) fn ensure_runtime_tools() -> Result<()> {
    let path = shell::search_path();
    let missing = || {
        RUNTIME_TOOLS
            .iter()
            .filter(|(program, _)| shell::find_program(program, &path).is_none())
    };
    let packages: Vec<String> = missing()
        .map(|(_, package)| (*package).to_owned())
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    match Host::of_this_machine() {
        Host::DebianRoot => apt_install(&packages),
        Host::DebianUser => bail!(
            "the tests need {}; as root:\n    {}",
            packages.join(" and "),
            apt_line(&packages)
        ),
        Host::Other => bail!(
            "the tests need {}: install them with your package manager",
            packages.join(" and ")
        ),
    }
}

fn apt_command(arguments: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// `--no-remove`: if something else has to go for our packages, that is not ours to decide.
const APT_INSTALL: [&str; 4] = ["install", "-y", "--no-install-recommends", "--no-remove"];

fn apt_line(packages: &[String]) -> String {
    format!(
        "apt-get update && apt-get {} {}",
        APT_INSTALL.join(" "),
        packages.join(" ")
    )
}

fn apt_install(packages: &[String]) -> Result<()> {
    shell::say(format!(
        "setup: installing packages: {}",
        apt_line(packages)
    ));
    // Without the option apt-get calls an unreachable archive a success. It need not
    // stop us: the lists at hand may do.
    let update = shell::check_silent(&mut apt_command(&[
        "update",
        "-o",
        "APT::Update::Error-Mode=any",
    ]));
    let mut install = apt_command(&APT_INSTALL);
    match (shell::check_silent(install.args(packages)), update) {
        (Ok(()), _) => Ok(()),
        (Err(install), Ok(())) => Err(install),
        (Err(install), Err(update)) => {
            Err(install.context(format!("the package lists are not up to date: {update}")))
        }
    }
}

/// Arguments of `cargo install` for tools that run for seconds: optimising them takes
/// longer than they ever run.
const FAST_TO_BUILD: [&str; 3] = ["--debug", "--config", "profile.dev.debug=false"];

/// A program that cargo installs, from target/tools or PATH; built if it is nowhere.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn cargo_program(name: &str, version: &str) -> Result<PathBuf> {
    let tools = shell::target_dir()?.join("tools");
    let mut folders = vec![tools.join("bin")];
    folders.extend(shell::search_path());
    if let Some(program) = shell::find_program(name, &folders) {
        return Ok(program);
    }
    let mut cargo = shell::cargo()?;
    cargo
        // A temporary folder of cargo's own: nothing of it is needed afterwards.
        .env_remove("CARGO_TARGET_DIR")
        .args(["install", &format!("{name}@{version}"), "--locked"])
        .args(FAST_TO_BUILD)
        .arg("--root")
        .arg(&tools);
    shell::say(format!(
        "building {name}, one to five minutes: {}",
        shell::shown(&cargo)
    ));
    shell::check_silent(&mut cargo).with_context(|| format!("cannot build {name}"))?;
    shell::find_program(name, &folders).with_context(|| format!("the new {name} is not there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    fn compiler(origin: Origin, release: &str, rust_src: bool) -> Compiler {
        let text = format!("release: {release}\nLLVM version: 22.1.2\n");
        Compiler {
            origin,
            rustc: "/somewhere/bin/rustc".into(),
            cargo: None,
            version: Version::parse(&text).unwrap(),
            rust_src,
        }
    }

    #[test]
    fn reads_rustc_versions() {
        let version = Version::parse(STABLE).unwrap();
        assert_eq!(version.release, "1.95.0");
        assert_eq!((version.number, version.llvm), ((1, 95), 22));
        let nightly = STABLE.replace("release: 1.95.0", "release: 1.100.0-nightly");
        assert_eq!(Version::parse(&nightly).unwrap().number, (1, 100));
        assert_eq!(Version::parse("rustc 1.95.0\n"), None);
        assert_eq!(Version::parse(&STABLE.replace("22.1.2", "unknown")), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn reads_the_llvm_of_a_linker() {
        for (text, major) in [
            ("\0libLLVM.so.22.1\0", Some(22)),
            ("\0libLLVM-14.so.1\0", Some(14)),
            ("\0LLVM_21.1\0", Some(21)),
            ("\0LLVM23.1.0-rust-1.99.0-nightly\0", Some(23)),
            ("LLLVM22.1", Some(22)),
            ("LLVM 22 builds also", None),
            ("LLVM3.1 LLVMContext22set LLVM", None),
            ("", None),
        ] {
            assert_eq!(llvm_of_binary(text.as_bytes()), major, "{text:?}");
        }
    }

    #[test]
    fn prefers_the_first_complete_set() {
        let linker = Some(PathBuf::from("/tools/bpf-linker"));
        let nightly = compiler(Origin::Nightly, "1.97.0-nightly", true);
        let bare = compiler(Origin::Nightly, "1.97.0-nightly", false);
        let old = compiler(Origin::System, "1.63.0", true);
        let system = compiler(Origin::System, "1.96.0", true);
        let origin = |found: &[Candidate]| choose(found).map(|(compiler, _)| compiler.origin);

        let both = [
            (nightly.clone(), linker.clone()),
            (system.clone(), linker.clone()),
        ];
        assert_eq!(origin(&both), Some(Origin::Nightly));
        // A complete set wins over a better compiler that would need a linker built.
        let one_linker = [(nightly.clone(), None), (system.clone(), linker)];
        assert_eq!(origin(&one_linker), Some(Origin::System));
        let no_linker = [(nightly, None), (system.clone(), None)];
        assert_eq!(origin(&no_linker), Some(Origin::Nightly));
        assert_eq!(
            origin(&[(bare.clone(), None), (system, None)]),
            Some(Origin::System)
        );
        assert_eq!(origin(&[(bare, None), (old, None)]), None);
        assert_eq!(origin(&[]), None);
    }

    #[test]
    fn finds_a_set_in_given_places() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let sysroot = dir.path().join("sysroot");
        let core = sysroot.join("lib/rustlib/src/rust/library/core/src");
        let script = |file: &Path, text: &str| {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let rustc = sysroot.join("bin/rustc");
        script(
            &rustc,
            &format!(
                "case $1 in -vV) echo 'release: 1.96.0'; echo 'LLVM version: 22.1.8';; *) echo {};; esac",
                sysroot.display()
            ),
        );
        let tools = dir.path().join("tools");
        let mut places = Places {
            rustcs: vec![
                (Origin::System, rustc.clone()),
                (Origin::Path, rustc.clone()),
            ],
            linkers: vec![tools.clone()],
        };

        let found = candidates(&places);
        assert_eq!(found.len(), 1, "the same compiler counts once");
        assert_eq!(found[0].0.shortcoming().as_deref(), Some("no rust-src"));

        fs::create_dir_all(&core).unwrap();
        fs::write(core.join("lib.rs"), "").unwrap();
        script(&tools.join("bpf-linker"), "# LLVM21.1.0");
        let (found, linker) = candidates(&places).remove(0);
        assert_eq!((found.rustc, linker), (rustc, None), "its LLVM is too old");

        script(&tools.join("bpf-linker"), "# LLVM22.1.0");
        assert_eq!(candidates(&places)[0].1, Some(tools.join("bpf-linker")));
        script(&tools.join("bpf-linker"), "# LLVM22.1.0\nexit 127");
        assert_eq!(candidates(&places)[0].1, None, "it does not run");

        places.rustcs = vec![(Origin::System, dir.path().join("nowhere"))];
        assert_eq!(candidates(&places), []);
    }

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

    #[test]
    fn knows_debian() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
        assert_eq!(Host::from(debian, true), Host::DebianRoot);
        assert_eq!(Host::from(debian, false), Host::DebianUser);
        assert_eq!(Host::from("ID=ubuntu\nID_LIKE=debian\n", true), Host::Other);
        assert_eq!(Host::from("ID=\"debian\"\n", true), Host::DebianRoot);
        assert_eq!(Host::from("", true), Host::Other);
    }
}
