//! What is made of the command line and the table of keys: the shipped file, man pages, the
//! option reference and shell completions. What is committed must be the same;
//! `cargo xtask docs` writes it.
//!
//! And what the pages for operators name: commands and keys.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod file;
mod man;
mod options;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap_complete::Shell;
use nomail_agent::config::tables;

/// Set by `cargo xtask docs`: write what differs, and pass.
const WRITE: &str = "NOMAIL_DOCS_WRITE";

/// The top folder of the checkout, as cargo says when it runs the test: it may have been
/// copied or moved since it was compiled.
fn repository() -> PathBuf {
    Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..")
}

#[test]
fn committed_pages_and_completions_are_true() {
    let mut stale = Vec::new();
    for (path, text) in generated().unwrap() {
        let file = repository().join(&path);
        if fs::read_to_string(&file).is_ok_and(|committed| committed == text) {
            continue;
        }
        if env::var_os(WRITE).is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        } else {
            stale.push(path);
        }
    }
    assert!(
        stale.is_empty(),
        "not what the sources make: {stale:?}: run cargo xtask docs, and commit them"
    );
}

#[test]
fn the_page_of_the_file_has_every_key() {
    let page = man::nomail_toml().render();
    let mut keys = 0;
    for key in tables().iter().flat_map(|table| &table.keys) {
        let name = key.last_name();
        assert!(
            page.contains(&format!("\\fB{name} = ")),
            "{name} is missing"
        );
        keys += 1;
    }
    assert!(keys > 30, "{keys}");
}

#[test]
fn the_page_of_the_agent_has_every_option() {
    let page = String::from_utf8(man::nomail_agent().unwrap()).unwrap();
    let command = nomail_agent::cli::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        for option in command.get_arguments().filter_map(|arg| arg.get_long()) {
            let shown = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "--{option} is missing");
        }
    }
}

#[test]
fn the_page_of_the_agent_has_examples_that_parse() {
    for (example, _) in man::EXAMPLES {
        nomail_agent::cli::command()
            .try_get_matches_from(example.split_whitespace())
            .unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

/// Chapters that are generated, or name settings of other programs.
const REFERENCES: [&str; 4] = ["doctor.md", "metrics.md", "options.md", "senders.md"];

/// The README and the chapters of the book: their names and texts.
fn pages() -> Vec<(String, String)> {
    let chapters = fs::read_dir(repository().join("docs")).unwrap();
    let chapters = chapters.map(|entry| entry.unwrap().path());
    let pages = chapters.filter(|path| path.extension().is_some_and(|found| found == "md"));
    pages
        .filter(|path| !REFERENCES.iter().any(|name| path.ends_with(name)))
        .chain([repository().join("README.md")])
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect()
}

/// What a page shows as code: the lines of its blocks, and the pieces within a line.
fn shown(page: &str) -> Vec<&str> {
    let mut code = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            code.push(line.trim());
        } else {
            code.extend(line.split('`').skip(1).step_by(2));
        }
    }
    code
}

#[test]
fn the_pages_name_commands_that_there_are() {
    let mut commands = 0;
    for (name, text) in pages() {
        for code in shown(&text).iter().filter(|code| !code.contains("...")) {
            let Some(at) = code.find("nomail-agent ") else {
                continue;
            };
            // Behind another program's name it is a unit or a package.
            if at > 0 && !code[..at].ends_with("exec nomail ") {
                continue;
            }
            let words = code[at..].split_whitespace();
            let words = words.take_while(|word| !["|", ">", "#"].contains(word));
            nomail_agent::cli::command()
                .try_get_matches_from(words)
                .unwrap_or_else(|error| panic!("{name}: {code}: {error}"));
            commands += 1;
        }
    }
    assert!(commands > 10, "{commands}");
}

#[test]
fn the_pages_name_keys_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    let (mut lines, mut keys) = (0, 0);
    for (name, text) in pages() {
        for code in shown(&text) {
            let key = |text: &str| {
                !text.is_empty()
                    && text
                        .bytes()
                        .all(|octet| octet.is_ascii_lowercase() || [b'_', b'.'].contains(&octet))
            };
            // Lines of a block belong to a table, and to a command that is run.
            let within = text.contains(&format!("`{code}`"));
            if within && code.split_once(" = ").is_some_and(|(left, _)| key(left)) {
                fs::write(&file, code).unwrap();
                let overrides = nomail_agent::config::Overrides::of_file(Some(file.clone()));
                nomail_agent::config::load(&overrides)
                    .unwrap_or_else(|error| panic!("{name}: {code}: {error}"));
                lines += 1;
            }
            let tables = tables();
            if let Some((table, last)) = code.split_once('.')
                && !table.is_empty()
                && let Some(table) = tables.iter().find(|known| known.name == table)
                && key(last)
            {
                let known = table.keys.iter().any(|key| key.name == code);
                assert!(known, "{name}: {code}");
                keys += 1;
            }
        }
    }
    assert!(lines > 5 && keys > 5, "{lines} {keys}");
}

/// Every file that is generated: its path in the repository, and its text.
fn generated() -> io::Result<Vec<(PathBuf, String)>> {
    let mut files = vec![
        ("docs/man/nomail-agent.8".into(), man::nomail_agent()?),
        (
            "docs/man/nomail.toml.5".into(),
            man::nomail_toml().render().into_bytes(),
        ),
        ("docs/options.md".into(), options::options().into_bytes()),
        ("packaging/nomail.toml".into(), file::file().into_bytes()),
    ];
    for (shell, name) in [
        (Shell::Bash, "nomail-agent.bash"),
        (Shell::Zsh, "_nomail-agent"),
        (Shell::Fish, "nomail-agent.fish"),
    ] {
        let mut script = Vec::new();
        let mut command = nomail_agent::cli::command();
        clap_complete::generate(shell, &mut command, "nomail-agent", &mut script);
        files.push((Path::new("packaging/completions").join(name), script));
    }
    files
        .into_iter()
        .map(|(path, text)| {
            let text = String::from_utf8(text).map_err(io::Error::other)?;
            Ok((path, text))
        })
        .collect()
}
