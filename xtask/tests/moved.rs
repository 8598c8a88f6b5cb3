//! A checkout that was copied or moved with what was built in it: xtask works on the
//! one in which it is started, not on the one in which it was compiled.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// What xtask sees of a checkout, and a cargo that notes where it is started.
struct Checkout(TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().unwrap());
        for folder in ["xtask", "docs"] {
            fs::create_dir(checkout.top().join(folder)).unwrap();
        }
        let write = |file: &str, text: &str| fs::write(checkout.top().join(file), text).unwrap();
        write("Cargo.toml", "[workspace]\nmembers = [\"xtask\"]\n");
        write("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n");
        write(
            "cargo",
            "#!/bin/sh\npwd > \"$NOTED\"\necho \"$CARGO_TARGET_DIR\" >> \"$NOTED\"\n",
        );
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(checkout.cargo(), executable).unwrap();
        checkout
    }

    fn top(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn cargo(&self) -> PathBuf {
        self.top().join("cargo")
    }

    /// Runs a task that does nothing but start cargo.
    fn run(&self, current: &Path, package: Option<&Path>) -> Output {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask
            .arg("docs")
            .current_dir(current)
            .env("CARGO", self.cargo())
            .env("NOTED", self.top().join("noted"))
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("NOMAIL_BPF_OBJECT");
        if let Some(package) = package {
            xtask.env("CARGO_MANIFEST_DIR", package);
        }
        xtask.output().unwrap()
    }

    /// Cargo was started at the top of this checkout, to build into it.
    fn was_worked_on(&self, output: &Output) {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let noted = fs::read_to_string(self.top().join("noted")).unwrap();
        let top = self.top();
        let expected = format!("{}\n{}\n", top.display(), top.join("target").display());
        assert_eq!(noted, expected, "{error}");
    }
}

#[test]
fn cargo_says_which_checkout_it_is() {
    let checkout = Checkout::new();
    let output = checkout.run(Path::new("/"), Some(&checkout.top().join("xtask")));
    checkout.was_worked_on(&output);
}

#[test]
fn without_cargo_it_is_the_one_around_the_current_folder() {
    let checkout = Checkout::new();
    checkout.was_worked_on(&checkout.run(&checkout.top(), None));
    checkout.was_worked_on(&checkout.run(&checkout.top().join("docs"), None));
    // Another package's folder says nothing.
    let other = tempfile::tempdir().unwrap();
    checkout.was_worked_on(&checkout.run(&checkout.top(), Some(other.path())));
}

#[test]
fn outside_of_a_checkout_it_says_so() {
    let (checkout, outside) = (Checkout::new(), tempfile::tempdir().unwrap());
    let output = checkout.run(outside.path(), None);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("is not inside a checkout of nomail") && error.contains("change into one"),
        "{error}"
    );
    assert!(!checkout.top().join("noted").exists());
}

/// The kind of fault: a folder that is known from when something was compiled.
#[test]
fn no_folder_is_compiled_in() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let mut folders = vec![package.parent().unwrap().to_owned()];
    let (mut found, mut read) = (Vec::new(), 0);
    // In two pieces, or this file would be found.
    let baked = concat!("env!(\"CARGO_", "MANIFEST_DIR\")");
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read += 1;
                if fs::read_to_string(&path).unwrap().contains(baked) {
                    found.push(path);
                }
            }
        }
    }
    assert!(read > 100, "{read}");
    assert_eq!(found, [""; 0].map(PathBuf::from));
}
