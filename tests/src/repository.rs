//! The checkout that the running test belongs to.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Returns the top folder of the checkout, as it is now: a path compiled in would be
/// that of the checkout from which this one was copied or moved.
///
/// # Panics
/// Outside of a checkout.
pub fn repository() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = [package, env::current_exe().ok(), env::current_dir().ok()];
    let is_top = |folder: &&Path| folder.join("packaging/nomail.toml").is_file();
    let mut found = starts
        .iter()
        .flatten()
        .filter_map(|start| start.ancestors().find(is_top));
    found
        .next()
        .expect("the test runs in a checkout of nomail")
        .to_owned()
}
