//! Embeds the BPF object that `NOMAIL_BPF_OBJECT` names; `cargo xtask build`
//! makes it and sets the variable. Without it the agent still builds, so that
//! cargo and editors work on a machine without the BPF toolchain, and says at
//! start what to run. And tells the commit that is built: `NOMAIL_COMMIT`, else
//! what git says, else `unknown`.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=NOMAIL_BPF_OBJECT");
    let out = env::var("OUT_DIR").map(|dir| Path::new(&dir).join("nomail.o"));
    let result = match (out, env::var_os("NOMAIL_BPF_OBJECT")) {
        (Ok(out), Some(object)) => {
            println!("cargo::rerun-if-changed={}", Path::new(&object).display());
            fs::copy(&object, out)
                .map(drop)
                .map_err(|error| format!("NOMAIL_BPF_OBJECT={}: {error}", object.display()))
        }
        (Ok(out), None) => fs::write(out, []).map_err(|error| error.to_string()),
        (Err(error), _) => Err(error.to_string()),
    };
    if let Err(error) = result {
        println!("cargo::error={error}");
    }
    println!("cargo::rerun-if-env-changed=NOMAIL_COMMIT");
    let commit = env::var("NOMAIL_COMMIT")
        .ok()
        .or_else(commit)
        .unwrap_or("unknown".to_owned());
    println!("cargo::rustc-env=NOMAIL_COMMIT={commit}");
}

/// The commit that is checked out.
fn commit() -> Option<String> {
    // It grows with every commit and every checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
