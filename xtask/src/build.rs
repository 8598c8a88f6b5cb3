//! Builds the BPF object, and the agent that embeds it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Toolchain, Verbosity};
use crate::shell;

/// Names the BPF object: for xtask a prebuilt one, for the agent's build the one to embed.
pub(crate) const OBJECT: &str = "NOMAIL_BPF_OBJECT";

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build the agent with optimisation (the BPF object always is)
    #[arg(long)]
    release: bool,
}

impl Args {
    /// The profile that the user asked for.
    pub(crate) fn profile(&self) -> Profile {
        if self.release {
            Profile::Release
        } else {
            Profile::Debug
        }
    }
}

/// Cargo's profile for the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// target/debug
    Debug,
    /// target/release
    Release,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The BPF object.
    pub(crate) object: PathBuf,
    /// The agent, with that object inside.
    pub(crate) agent: PathBuf,
    /// Whether the object logs each step of a segment, and the agent shows it.
    pub(crate) traces: bool,
}

/// Builds the BPF object (unless the environment names one) and the agent.
///
/// # Errors
/// When there is no BPF toolchain, or something does not compile.
pub(crate) fn build(profile: Profile) -> Result<Built> {
    build_either(profile, false)
}

/// The same for development: an object that logs each step of a segment, and an agent that
/// shows it.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_traced(profile: Profile) -> Result<Built> {
    build_either(profile, true)
}

fn build_either(profile: Profile, traces: bool) -> Result<Built> {
    let object = object(traces)?;
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    let agent = shell::target_dir()?.join(folder).join("nomail-agent");
    let mut cargo = shell::cargo()?;
    cargo
        .args(["build", "--locked", "--package", "nomail-agent"])
        .env(OBJECT, &object);
    if traces {
        cargo.args(TRACE);
    }
    if profile == Profile::Release {
        cargo.arg("--release");
        flag_release(&mut cargo)?;
    }
    shell::say(format!("building the agent: {}", agent.display()));
    shell::check(&mut cargo).context("the agent does not build")?;
    if !agent.is_file() {
        bail!("cargo succeeded, but there is no {}", agent.display());
    }
    Ok(Built {
        object,
        agent,
        traces,
    })
}

/// Has cargo compile a package so that it logs each step of a segment.
pub(crate) const TRACE: [&str; 2] = ["--features", "trace"];

/// The BPF object: the prebuilt one that the environment names, or a fresh build.
fn object(traces: bool) -> Result<PathBuf> {
    if let Some(object) = prebuilt_object()? {
        shell::say(format!(
            "taking the BPF object {} ({OBJECT})",
            object.display()
        ));
        return Ok(object);
    }
    build_object(&setup::ensure(Verbosity::Brief)?, traces)
}

/// The object that the environment names, as an absolute path.
fn prebuilt_object() -> Result<Option<PathBuf>> {
    let Some(object) = env::var_os(OBJECT).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let object =
        std::path::absolute(&object).with_context(|| format!("{OBJECT} is no usable path"))?;
    if !object.is_file() {
        bail!(
            "{OBJECT} names {}, which is no file: unset it to build the object here",
            object.display()
        );
    }
    Ok(Some(object))
}

/// An object that is there already, for commands that do not care how fresh it is.
///
/// # Errors
/// When the environment names an object that is not there.
pub(crate) fn existing_object() -> Result<Option<PathBuf>> {
    let built = object_path(&bpf_target_dir(false)?);
    Ok(prebuilt_object()?.or(Some(built).filter(|path| path.is_file())))
}

/// BPF in the byte order of this machine, whose kernel loads it.
const BPF_TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// A separate folder, so that the two builds neither wait for each other's lock nor discard
/// each other's work; and one that traces is never taken for the other.
fn bpf_target_dir(traces: bool) -> Result<PathBuf> {
    let folder = if traces { "bpf-trace" } else { "bpf" };
    Ok(shell::target_dir()?.join(folder))
}

/// The BPF object in a target folder for BPF.
pub(crate) fn object_path(target_dir: &Path) -> PathBuf {
    target_dir.join(BPF_TARGET).join("release/nomail-ebpf")
}

fn build_object(toolchain: &Toolchain, traces: bool) -> Result<PathBuf> {
    let compiler = &toolchain.compiler;
    let target_dir = bpf_target_dir(traces)?;
    let object = object_path(&target_dir);
    let known = shell::output_of(Command::new(&compiler.rustc).args([
        "--target",
        BPF_TARGET,
        "--print",
        "target-features",
    ]));

    let mut cargo = match &compiler.cargo {
        Some(cargo) => Command::new(cargo),
        None => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
    };
    shell::forget(&mut cargo, steers_cargo);
    let linker_dir = toolchain.linker.parent().map(Path::to_owned);
    let path = env::join_paths(linker_dir.into_iter().chain(shell::search_path()))
        .context("bpf-linker's folder cannot be put on PATH")?;
    cargo
        .current_dir(shell::workspace())
        .args(["build", "--locked", "--quiet", "--release"])
        .args(["--package", "nomail-ebpf", "--bin", "nomail-ebpf"])
        .args(["-Z", "build-std=core", "--target", BPF_TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("PATH", path)
        .env("RUSTC", &compiler.rustc)
        // Allows -Z and unstable features on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [
                rust_flags(known.as_deref()),
                place_flags(&source_places(&compiler.rustc))?,
            ]
            .concat()
            .join("\u{1f}"),
        );
    if traces {
        cargo.args(TRACE);
    }
    shell::say(format!(
        "building the BPF object (the first time about a minute): {}",
        object.display()
    ));
    shell::check(&mut cargo).context("the BPF object does not build")?;
    if !object.is_file() {
        bail!("cargo succeeded, but there is no {}", object.display());
    }
    Ok(object)
}

/// Has cargo compile for release without the paths of this machine, in addition to the flags
/// of the environment.
///
/// # Errors
/// When the target directory has no usable path.
pub(crate) fn flag_release(cargo: &mut Command) -> Result<()> {
    const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
    let mut flags: Vec<String> = match (env::var(FLAGS), env::var("RUSTFLAGS")) {
        (Ok(flags), _) if !flags.is_empty() => flags.split('\u{1f}').map(str::to_owned).collect(),
        (_, Ok(flags)) => flags.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    flags.extend(place_flags(&[])?);
    cargo.env(FLAGS, flags.join("\u{1f}"));
    Ok(())
}

/// Where the source of `core` is that is compiled with nomail-ebpf, and its name in the
/// object.
fn source_places(rustc: &Path) -> Vec<(PathBuf, &'static str)> {
    let sysroot = shell::output_of(Command::new(rustc).args(["--print", "sysroot"]));
    let sysroot = sysroot.map(|sysroot| (PathBuf::from(sysroot).join("lib/rustlib"), "/rustlib"));
    sysroot.into_iter().collect()
}

/// Flags that replace the folders of this machine, in panic messages and debug information,
/// by names that are the same everywhere.
fn place_flags(more: &[(PathBuf, &str)]) -> Result<Vec<String>> {
    let cargo_home = env::var_os("CARGO_HOME").filter(|home| !home.is_empty());
    let cargo_home = cargo_home.map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    // If two fit, the last one counts: the target directory is often in the workspace.
    let mut places: Vec<_> = more.to_vec();
    places.extend(cargo_home.map(|home| (home, "/cargo")));
    places.push((shell::workspace(), "/nomail"));
    places.push((shell::target_dir()?, "/nomail/target"));
    let flags = places
        .iter()
        .map(|(place, name)| format!("--remap-path-prefix={}={name}", place.display()));
    Ok(flags.collect())
}

/// The flags for nomail-ebpf; `target_features` are those that the compiler knows.
fn rust_flags(target_features: Option<&str>) -> Vec<String> {
    let mut flags = vec![
        // aya-ebpf: registers and structures of the machine that loads the program.
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        // BTF comes from debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    // Headers behind an Ethernet header are misaligned. The kernel allows such access
    // where the machine does; without this LLVM loads byte by byte. The linker
    // generates the code, so it suffices to tell the linker; -Ctarget-feature does the
    // same with a warning in every build.
    let misaligned = "allows-misaligned-mem-access";
    if target_features.is_some_and(|known| known.contains(misaligned)) {
        flags.push(format!("-Clink-arg=--cpu-features=+{misaligned}"));
    }
    flags
}

/// Whether a variable steers cargo or rustc: some are set by the cargo that runs xtask and
/// name its toolchain, others are for the host crates.
fn steers_cargo(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_BUILD_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_misaligned_access_only_where_known() {
        let known = "    allows-misaligned-mem-access - Allows it.\n    alu32 - x\n";
        let feature = "-Clink-arg=--cpu-features=+allows-misaligned-mem-access";
        assert!(rust_flags(Some(known)).iter().any(|flag| flag == feature));
        assert!(!rust_flags(Some("alu32")).iter().any(|flag| flag == feature));
        assert!(!rust_flags(None).iter().any(|flag| flag == feature));
    }

    #[test]
    fn each_place_has_a_name_that_is_the_same_everywhere() {
        let flags = place_flags(&[(PathBuf::from("/opt/rust"), "/rustlib")]).unwrap();
        let workspace = format!(
            "--remap-path-prefix={}=/nomail",
            shell::workspace().display()
        );
        assert_eq!(flags[0], "--remap-path-prefix=/opt/rust=/rustlib");
        assert!(flags.contains(&workspace), "{flags:?}");
    }

    #[test]
    fn inherited_toolchain_is_forgotten_but_not_the_network() {
        for name in [
            "CARGO",
            "RUSTC",
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_PKG_NAME",
        ] {
            assert!(steers_cargo(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "PATH",
            "CARGO_TERM_COLOR",
        ] {
            assert!(!steers_cargo(name), "{name}");
        }
    }
}
