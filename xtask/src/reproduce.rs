//! Builds the same sources twice, in two places, and compares the results byte by byte. With
//! the same compilers you can check that a binary was built from these sources. In the second
//! place nothing logs the steps of a segment: what a development object has more is in no
//! binary.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Profile};
use crate::{dist, mirror, shell};

/// Arguments of `cargo xtask reproduce`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare the packages as well
    #[arg(long)]
    packages: bool,
}

/// Builds for release here, and from nothing in a copy of the sources below the target
/// directory; fails unless both are the same.
///
/// # Errors
/// When something does not build, differs, or contains the path where it was built.
pub(crate) fn reproduce(args: &Args) -> Result<()> {
    if env::var_os(build::OBJECT).is_some_and(|object| !object.is_empty()) {
        bail!(
            "unset {}: the object is one of the things to compare",
            build::OBJECT
        );
    }
    let target = shell::target_dir()?;
    // Another place, with a name of another length.
    let copy = target.join("reproduce/in-another-place/source");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| copy.display().to_string())?;
    }
    mirror::mirror(&shell::workspace(), &copy, &target)?;
    for file in fs::read_dir(copy.join("nomail-ebpf/src"))?.flatten() {
        let text = fs::read_to_string(file.path())?;
        fs::write(file.path(), without_trace(&text))?;
    }
    if args.packages {
        dist::dist_all()?;
    } else {
        build::build(Profile::Release)?;
    }
    shell::say(format!("reproduce: once more in {}", copy.display()));
    let mut again = cargo_in(&copy, &target)?;
    match args.packages {
        // The man pages were checked in the first build.
        true => again.args(["xtask", "dist", "--unchecked"]),
        false => again.args(["xtask", "build", "--release"]),
    };
    shell::check(&mut again)?;
    let of_copy = copy.join("target");
    let mut differing = Vec::new();
    for file in files(&target, args.packages)? {
        let other = of_copy.join(&file);
        let (one, two) = (read(&target.join(&file))?, read(&other)?);
        let [here, there] = [&one, &two].map(|bytes| digest(bytes));
        shell::say(format!("{here}  {} ({} bytes)", file.display(), one.len()));
        if one != two {
            let at = one.iter().zip(&two).position(|(one, two)| one != two);
            shell::say(format!(
                "{there}  {} ({} bytes): DIFFERS, first at byte {}",
                other.display(),
                two.len(),
                at.unwrap_or(one.len().min(two.len()))
            ));
            differing.push(file.display().to_string());
        }
        for place in [&copy, &shell::workspace()] {
            if contains(&one, place) || contains(&two, place) {
                bail!(
                    "{} contains the path where it was built: {}",
                    file.display(),
                    place.display()
                );
            }
        }
    }
    if !differing.is_empty() {
        bail!("different in the two places: {}", differing.join(", "));
    }
    shell::say("reproduce: the same bytes in both places");
    Ok(())
}

/// Cargo in the copy, with the tools that are there already and the commit that a copy
/// cannot know.
fn cargo_in(copy: &Path, target: &Path) -> Result<Command> {
    let tools = target.join("tools/bin");
    let path = env::join_paths([tools].into_iter().chain(shell::search_path()))
        .context("the target directory cannot be put on PATH")?;
    let mut cargo = shell::cargo()?;
    cargo
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .env("PATH", path);
    for (name, value) in [
        ("NOMAIL_COMMIT", shell::commit()),
        (dist::SOURCE_DATE_EPOCH, dist::source_date()),
    ] {
        if let Some(value) = value {
            cargo.env(name, value);
        }
    }
    Ok(cargo)
}

/// What is compared, by its path below a target directory.
fn files(target: &Path, packages: bool) -> Result<Vec<PathBuf>> {
    let mut files = vec![
        build::object_path(Path::new("bpf")),
        PathBuf::from("release/nomail-agent"),
    ];
    if packages {
        for format in ["deb", "rpm"] {
            let folder = Path::new("dist").join(format);
            let entries = fs::read_dir(target.join(&folder))
                .with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries.flatten() {
                files.push(folder.join(entry.file_name()));
            }
        }
    }
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// SHA-256 by sha256sum; a dash where there is no such program.
fn digest(bytes: &[u8]) -> String {
    let sum = || -> Result<String> {
        let file = shell::target_dir()?.join("reproduce/summed");
        fs::write(&file, bytes)?;
        let printed = shell::output_of(Command::new("sha256sum").arg(&file));
        fs::remove_file(&file)?;
        let printed = printed.context("no sha256sum")?;
        Ok(printed.split(' ').next().unwrap_or_default().to_owned())
    };
    sum().unwrap_or_else(|_| "-".to_owned())
}

/// A source without its `trace!` statements; all others stay on their lines, which are in the
/// object.
fn without_trace(source: &str) -> String {
    let mut inside = false;
    let lines = source.split('\n').map(|line| {
        inside |= line.trim_start().starts_with("trace!(");
        let kept = if inside { "" } else { line };
        inside &= !line.ends_with(");");
        kept
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn contains(bytes: &[u8], path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    bytes.windows(path.len()).any(|window| window == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_in_bytes() {
        assert!(contains(b"\0/home/me/nomail/src\0", Path::new("/home/me")));
        assert!(!contains(b"\0/nomail/src\0", Path::new("/home/me")));
    }

    #[test]
    fn statements_that_trace_are_blank_lines() {
        let source = "a();\n    trace!(one, 1);\n    trace!(\n        two,\n    );\nb();\n";
        assert_eq!(without_trace(source), "a();\n\n\n\n\nb();\n");
        assert_eq!(
            without_trace("use crate::trace::trace;\n"),
            "use crate::trace::trace;\n"
        );
    }

    #[test]
    fn all_that_is_shipped_is_compared() {
        let target = tempfile::tempdir().unwrap();
        for format in ["deb", "rpm"] {
            let folder = target.path().join("dist").join(format);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("nomail.{format}")), "").unwrap();
        }
        let count = |packages| files(target.path(), packages).unwrap().len();
        assert_eq!((count(false), count(true)), (2, 4));
    }
}
