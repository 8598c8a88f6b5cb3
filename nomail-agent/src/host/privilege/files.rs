//! The files that stay reachable, by landlock.

use std::{
    fs, iter,
    path::{self, Path, PathBuf},
};

use anyhow::{Context as _, Result};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use log::{debug, info};

use crate::config;

/// The version of landlock that this uses; older kernels restrict less.
const LANDLOCK_ABI: ABI = ABI::V5;

/// The files that stay reachable.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Files of the kernel, to read.
    pub read: Vec<PathBuf>,
    /// The configuration, which a reload reads with its drop-ins.
    pub config: Option<PathBuf>,
    /// The other files that a reload reads.
    pub lists: Vec<PathBuf>,
    /// Directory of the control socket, which is removed at exit.
    pub remove_in: Option<PathBuf>,
    /// Directory in which files are replaced.
    pub write_in: Option<PathBuf>,
}

impl Paths {
    /// The access that is allowed beneath each path.
    fn rules(&self) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
        let read: BitFlags<_> = AccessFs::ReadFile.into();
        let mut rules: Vec<_> = self.read.iter().map(|path| (path.clone(), read)).collect();
        // The whole directory, because editors replace the file in it. Only that of the
        // configuration may be listed, for drop-ins that are added later.
        for file in &self.lists {
            rules.extend(reloaded(file).into_iter().map(|path| (path, read)));
        }
        if let Some(file) = &self.config {
            let list = read | AccessFs::ReadDir;
            rules.extend(reloaded(file).into_iter().map(|path| (path, list)));
            rules.push((config::drop_in_directory(file), list));
        }
        if let Some(directory) = &self.remove_in {
            rules.push((directory.clone(), AccessFs::RemoveFile.into()));
        }
        if let Some(directory) = &self.write_in {
            let write = AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::RemoveFile
                | AccessFs::ReadFile;
            rules.push((directory.clone(), write));
        }
        rules
    }
}

/// The paths that a reload of a file needs: its directory, and that of the target of a link.
fn reloaded(file: &Path) -> Vec<PathBuf> {
    let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let target = fs::canonicalize(&file).ok();
    let mut paths = Vec::new();
    for file in iter::once(file).chain(target) {
        let path = match file.parent() {
            Some(directory) if !is_shared(directory) => directory.to_owned(),
            _ => file,
        };
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Whether a directory has more than nomail's files in it: `/`, and directories in it such as
/// `/etc`.
fn is_shared(directory: &Path) -> bool {
    let above = directory.parent();
    above.is_none_or(|above| above.parent().is_none())
}

/// Whether only the file itself stays reachable, not its directory, or only the target of a
/// link.
pub fn is_in_shared_directory(file: &Path) -> bool {
    let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let Ok(target) = fs::canonicalize(&file) else {
        return false;
    };
    [file, target]
        .iter()
        .any(|file| file.parent().is_none_or(is_shared))
}

/// Restricts this thread, and those it starts, to `paths`.
pub(super) fn restrict_files(paths: &Paths) -> Result<()> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .create()?;
    for (path, access) in paths.rules() {
        match PathFd::new(&path) {
            Ok(descriptor) => {
                let access = if path.is_dir() {
                    access
                } else {
                    access & AccessFs::from_file(LANDLOCK_ABI)
                };
                ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access))?;
            }
            // A file that does not exist now cannot be read later either.
            Err(error) => debug!("landlock: {}: {error}", path.display()),
        }
    }
    let status = ruleset.restrict_self().context("landlock")?;
    if status.ruleset == RulesetStatus::NotEnforced {
        info!("this kernel has no landlock: only file permissions protect files");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
