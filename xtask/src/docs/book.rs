//! The folder docs as a book, with mdBook.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{setup, shell};

/// What `cargo install` builds.
const MDBOOK_VERSION: &str = "0.5.4";
/// Without its web server and its watch on the files.
const MDBOOK_FEATURES: [&str; 3] = ["--no-default-features", "--features", "search"];

/// Builds the book into target/book, and returns that folder.
///
/// # Errors
/// mdBook cannot be installed or fails, or the book loads something from another host.
pub(super) fn build() -> Result<PathBuf> {
    let book = shell::target_dir()?.join("book");
    let program = setup::cargo_program_with("mdbook", MDBOOK_VERSION, &MDBOOK_FEATURES)?;
    let mut mdbook = Command::new(program);
    shell::forget_package(&mut mdbook);
    mdbook
        .arg("build")
        .arg(shell::workspace().join("docs"))
        .arg("--dest-dir")
        .arg(&book);
    shell::check_silent(&mut mdbook)?;
    let foreign = foreign_assets(&book)?;
    if !foreign.is_empty() {
        bail!(
            "the book is to be read offline, and loads from other hosts:\n  {}",
            foreign.join("\n  ")
        );
    }
    Ok(book)
}

/// What the pages and styles below a folder load from other hosts.
fn foreign_assets(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default();
        if path.is_dir() {
            found.extend(foreign_assets(&path)?);
        } else if ["html", "css"].iter().any(|known| *known == extension) {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let loads = loads(&text);
            found.extend(loads.map(|what| format!("{}: {what}", path.display())));
        }
    }
    Ok(found)
}

/// The addresses of other hosts that a page or a style loads. A link to follow is none.
fn loads(text: &str) -> impl Iterator<Item = &str> {
    text.split('<').flat_map(|tag| {
        let attribute = match tag.starts_with("link ") {
            true => "href=\"",
            false => "src=\"",
        };
        let of_tag = tag.split(attribute).skip(1);
        let of_style = tag.split("url(").chain(tag.split("@import ")).skip(1);
        let values = of_tag.chain(of_style);
        values
            .map(|value| value.trim_start_matches(['"', '\'', ' ']))
            .filter(|value| {
                ["http:", "https:", "//"]
                    .iter()
                    .any(|host| value.starts_with(host))
            })
            .map(|value| value.split(['"', '\'', ')', ' ']).next().unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_from_other_hosts_is_found() {
        let page = "<link rel=\"icon\" href=\"https://a.example/x\"><script src=\"//b.example/y\">\
                    <style>a { background: url('http://c.example/z') }</style>\
                    <a href=\"https://d.example/\">followed</a><img src=\"page.png\">";
        let found: Vec<_> = loads(page).collect();
        assert_eq!(
            found,
            ["https://a.example/x", "//b.example/y", "http://c.example/z"]
        );
        assert_eq!(loads("@import \"https://e.example\";").count(), 1);
    }
}
