//! Embeds the BPF object that `NOMAIL_BPF_OBJECT` names; `cargo xtask build`
//! makes it and sets the variable. Without it the agent still builds, so that
//! cargo and editors work on a machine without the BPF toolchain, and says at
//! start what to run.

use std::{env, fs, path::Path};

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
}
