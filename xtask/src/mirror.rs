//! Copies of the sources.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Makes `to` a copy of `from`, without what is built and the history. A file that is
/// the same keeps its time, so that cargo does not build it again.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn mirror(from: &Path, to: &Path, target: &Path) -> Result<()> {
    let is_left_out =
        |path: &Path| path == target || [".git", "target"].map(OsStr::new).contains(&name_of(path));
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for path in entries(from)? {
        let copy = to.join(name_of(&path));
        if is_left_out(&path) {
            continue;
        }
        if path.is_dir() {
            mirror(&path, &copy, target)?;
        } else if fs::read(&copy).ok() != fs::read(&path).ok() {
            fs::copy(&path, &copy)
                .with_context(|| format!("cannot copy {} to {}", path.display(), copy.display()))?;
        }
    }
    for copy in entries(to)? {
        if is_left_out(&copy) || from.join(name_of(&copy)).exists() {
            continue;
        }
        let removed = match copy.is_dir() {
            true => fs::remove_dir_all(&copy),
            false => fs::remove_file(&copy),
        };
        removed.with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}", folder.display()))
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_its_source() {
        let top = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| top.path().join(name));
        let target = from.join("built");
        for folder in ["a/b", "target", ".git", "built"] {
            fs::create_dir_all(from.join(folder)).unwrap();
            fs::write(from.join(folder).join("file"), folder).unwrap();
        }
        mirror(&from, &to, &target).unwrap();
        assert_eq!(fs::read(to.join("a/b/file")).unwrap(), b"a/b");
        assert_eq!(entries(&to).unwrap(), [to.join("a")]);

        let time = |path: &str| fs::metadata(to.join(path)).unwrap().modified().unwrap();
        let before = time("a/b/file");
        fs::create_dir_all(to.join("target")).unwrap();
        fs::create_dir_all(to.join("c/d")).unwrap();
        fs::write(to.join("a/other"), "x").unwrap();
        fs::write(from.join("new"), "y").unwrap();
        mirror(&from, &to, &target).unwrap();
        assert_eq!(time("a/b/file"), before);
        assert!(to.join("target").exists() && to.join("new").exists());
        assert!(!to.join("c").exists() && !to.join("a/other").exists());
    }
}
