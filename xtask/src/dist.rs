//! Builds the packages with cargo-deb and cargo-generate-rpm. `nomail-agent/Cargo.toml` and
//! `packaging/debian` say what is in them and what an installation does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build::{self, Profile};
use crate::docs;
use crate::{mirror, setup, shell};

/// Largest package: it goes to every host of a fleet.
const DEB_MAX_BYTES: u64 = 6 * 1024 * 1024;

/// The time that the packages give to their files, so that they do not depend on when
/// they are built: <https://reproducible-builds.org/specs/source-date-epoch/>
pub(crate) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to build; nothing means both
    #[arg(value_enum)]
    formats: Vec<Format>,
    /// Do not check the man pages: for the second build of `reproduce`
    #[arg(long, hide = true)]
    unchecked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Debian and its derivatives
    Deb,
    /// For Fedora, RHEL, openSUSE and their derivatives
    Rpm,
}

const ALL: [Format; 2] = [Format::Deb, Format::Rpm];

impl Format {
    /// The cargo command that makes the package, and the version to install.
    fn tool(self) -> (&'static str, &'static str) {
        match self {
            Self::Deb => ("cargo-deb", "3.8.0"),
            Self::Rpm => ("cargo-generate-rpm", "0.21.0"),
        }
    }
}

/// Builds the packages that were asked for.
///
/// # Errors
/// As [`dist_all`].
pub(crate) fn dist(args: &Args) -> Result<()> {
    if !args.unchecked {
        docs::check()?;
    }
    if args.formats.is_empty() {
        packages(&ALL)
    } else {
        packages(&args.formats)
    }
}

/// Builds all packages into `target/dist`, from a release build.
///
/// # Errors
/// When the man pages are stale, the agent or a tool does not build, the version in
/// Debian's changelog is another, or a package is too large.
pub(crate) fn dist_all() -> Result<()> {
    docs::check()?;
    packages(&ALL)
}

/// The time of the sources: that of the environment, else that of the commit.
pub(crate) fn source_date() -> Option<String> {
    let named = std::env::var(SOURCE_DATE_EPOCH).ok();
    named
        .filter(|date| !date.is_empty())
        .or_else(|| shell::git(&["log", "-1", "--format=%ct"]))
}

fn packages(formats: &[Format]) -> Result<()> {
    changelog_is_of(env!("CARGO_PKG_VERSION"))?;
    build::build(Profile::Release)?;
    for format in formats {
        let (name, version) = format.tool();
        let tool = setup::cargo_program(name, version)?;
        let package = package(*format, &tool)?;
        let bytes = fs::metadata(&package)
            .with_context(|| package.display().to_string())?
            .len();
        if *format == Format::Deb && bytes > DEB_MAX_BYTES {
            bail!(
                "{}: {bytes} bytes, more than {DEB_MAX_BYTES}",
                package.display()
            );
        }
        shell::say(format!("dist: {} ({bytes} bytes)", package.display()));
    }
    shell::say("dist: the packages need a C library at least as new as this machine's");
    Ok(())
}

/// Debian's changelog names the version of the package; the newest is its first line.
fn changelog_is_of(version: &str) -> Result<()> {
    let file = shell::workspace().join("packaging/debian/changelog");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with(&format!("nomail-agent ({version}-1) ")) {
        bail!(
            "{} begins with \"{first}\": write an entry for {version}-1",
            file.display()
        );
    }
    Ok(())
}

/// Packs what is built, and returns the path of the package.
fn package(format: Format, tool: &Path) -> Result<PathBuf> {
    let extension = match format {
        Format::Deb => "deb",
        Format::Rpm => "rpm",
    };
    let target_dir = shell::target_dir()?;
    // Empty, so that the new package is the only file in it.
    let folder = target_dir.join("dist").join(extension);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut command = Command::new(tool);
    shell::forget_package(&mut command);
    command.env("CARGO_TARGET_DIR", &target_dir);
    if let Some(date) = source_date() {
        command.env(SOURCE_DATE_EPOCH, date);
    }
    match format {
        Format::Deb => command.current_dir(shell::workspace()).args([
            "--no-build",
            "--package",
            "nomail-agent",
            "--output",
        ]),
        Format::Rpm => {
            let copy = fresh_copy(&target_dir)?;
            command
                .current_dir(&copy)
                .args(["generate-rpm", "--package", "nomail-agent", "--target-dir"])
                .arg(copy.join("target"))
                .arg("--output")
        }
    };
    command.arg(&folder);
    shell::check_silent(&mut command)?;
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|file| file.extension().is_some_and(|found| found == extension))
        .with_context(|| format!("{} made no package", tool.display()))
}

/// Copies the sources and the agent. For files newer than the time of the sources
/// cargo-generate-rpm writes that time; for older ones it would write when they were checked
/// out.
fn fresh_copy(target_dir: &Path) -> Result<PathBuf> {
    let copy = target_dir.join("dist/source");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| copy.display().to_string())?;
    }
    mirror::mirror(&shell::workspace(), &copy, target_dir)?;
    let [agent, of_copy] =
        [target_dir, &copy.join("target")].map(|target| target.join("release/nomail-agent"));
    fs::create_dir_all(copy.join("target/release"))
        .and_then(|()| fs::copy(&agent, of_copy))
        .with_context(|| agent.display().to_string())?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_changelog_is_of_this_version() {
        changelog_is_of(env!("CARGO_PKG_VERSION")).unwrap();
        let error = changelog_is_of("9.9").unwrap_err().to_string();
        assert!(error.ends_with("write an entry for 9.9-1"), "{error}");
    }
}
