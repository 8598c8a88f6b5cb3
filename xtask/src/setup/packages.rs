//! Installing programs: Debian's packages, and what cargo builds.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Where `cargo install` puts programs.
pub(super) fn tools_dir() -> Result<PathBuf> {
    Ok(shell::target_dir()?.join("tools"))
}

/// What decides how something can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// Debian, as root: xtask installs.
    DebianRoot,
    /// Debian, not as root: xtask prints what to install.
    DebianUser,
    /// The names of the packages are not known.
    Other,
}

impl Host {
    /// Asks `/etc/os-release` and the kernel.
    pub(super) fn of_this_machine() -> Self {
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

/// Programs that the tests with root call, and their Debian packages.
const RUNTIME_TOOLS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("ethtool", "ethtool"), ("tmux", "tmux")];

/// Finds or installs what the tests of tier bpf and netns call.
///
/// # Errors
/// When something is missing that xtask cannot install.
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

/// `--no-remove`: xtask removes no package.
const APT_INSTALL: [&str; 4] = ["install", "-y", "--no-install-recommends", "--no-remove"];

/// The command that installs them, for people.
pub(super) fn apt_line(packages: &[String]) -> String {
    format!(
        "apt-get update && apt-get {} {}",
        APT_INSTALL.join(" "),
        packages.join(" ")
    )
}

/// Installs packages, as root.
///
/// # Errors
/// When apt-get fails.
pub(super) fn apt_install(packages: &[String]) -> Result<()> {
    shell::say(format!(
        "setup: installing packages: {}",
        apt_line(packages)
    ));
    // Without the option apt-get reports success for an unreachable archive. Its failure is
    // no error yet: the package lists that are there may suffice.
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

/// Arguments of `cargo install`: optimising these tools takes longer than they run.
pub(super) const FAST_TO_BUILD: [&str; 3] = ["--debug", "--config", "profile.dev.debug=false"];

/// A program that cargo installs, from target/tools or PATH; built if it is in neither.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn cargo_program(name: &str, version: &str) -> Result<PathBuf> {
    cargo_program_with(name, version, &[])
}

/// The same, with more arguments of `cargo install`.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn cargo_program_with(name: &str, version: &str, more: &[&str]) -> Result<PathBuf> {
    let tools = tools_dir()?;
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
        .args(more)
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
