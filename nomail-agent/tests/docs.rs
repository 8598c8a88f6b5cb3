//! The man pages and shell completions, as the command line and the shipped file
//! make them. What is committed must be the same; `cargo xtask docs` writes it.
//!
//! And what the pages for operators name: commands, keys, and other pages.

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

const SHIPPED: &str = include_str!("../../packaging/nomail.toml");

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
    let page = nomail_toml().render();
    // The parser's own list: what no file sets is shown all the same.
    let mut keys = BTreeSet::new();
    for line in SHIPPED.lines() {
        if let Some((key, _)) = code(line).and_then(|(_, code)| code.split_once(" = ")) {
            keys.insert(key);
        }
    }
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        let shown = format!("\\fB{} = ", key.replace('-', "\\-"));
        assert!(page.contains(&shown), "{key} is missing");
    }
}

#[test]
fn the_page_of_the_agent_has_every_option() {
    let page = String::from_utf8(nomail_agent().unwrap()).unwrap();
    let command = nomail_agent::cli::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        for option in command.get_arguments().filter_map(|arg| arg.get_long()) {
            let shown = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "--{option} is missing");
        }
    }
}

/// The pages for operators that are read from beginning to end.
const PAGES: [&str; 4] = ["guide.md", "faq.md", "runbook.md", "container.md"];

/// The text of a page in `docs`.
fn page(name: &str) -> String {
    let folder = repository().join("docs");
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
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
    for name in PAGES {
        for code in shown(&page(name))
            .iter()
            .filter(|code| !code.contains("..."))
        {
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
    for name in PAGES {
        let text = page(name);
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
            let tables = ["limits", "lists", "log", "metrics", "relay", "crowdsec"];
            if let Some((table, last)) = code.split_once('.')
                && tables.contains(&table)
                && key(last)
            {
                assert!(SHIPPED.contains(&format!("{last} = ")), "{name}: {code}");
                keys += 1;
            }
        }
    }
    assert!(lines > 5 && keys > 5, "{lines} {keys}");
}

#[test]
fn the_pages_lead_to_pages_that_there_are() {
    let mut links = 0;
    for name in PAGES {
        for link in page(name).split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.starts_with("https:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { name } else { file };
            let text = page(file);
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| anchor_of(line.trim_start_matches('#').trim()));
            assert!(
                anchor.is_empty() || anchors.any(|found| found == anchor),
                "{name}: {link}"
            );
            links += 1;
        }
    }
    assert!(links > 8, "{links}");
}

/// Each fault has the tests that it names.
#[test]
fn the_page_of_faults_names_tests_that_there_are() {
    let tests = repository().join("tests/tests");
    let text = page("faults.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"));
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next();
        let names: Vec<_> = cell.unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            let (program, test) = name.split_once("::").unwrap();
            let source = fs::read_to_string(tests.join(format!("{program}.rs"))).unwrap();
            assert!(source.contains(&format!("\nfn {test}()")), "{name}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

/// What a heading is called in a link.
fn anchor_of(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    let heading = heading.to_lowercase();
    heading
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// Every file that is generated: its path in the repository, and what it says.
fn generated() -> io::Result<Vec<(PathBuf, String)>> {
    let mut files = vec![
        ("docs/man/nomail-agent.8".into(), nomail_agent()?),
        (
            "docs/man/nomail.toml.5".into(),
            nomail_toml().render().into_bytes(),
        ),
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

/// nomail-agent(8): all commands on one page.
fn nomail_agent() -> io::Result<Vec<u8>> {
    let mut command = nomail_agent::cli::command();
    command.build();
    let man = Man::new(command.clone())
        .section("8")
        // None: a page that is generated changes only with what it tells.
        .date("\"\"")
        .source(concat!("nomail ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_extra_section(&mut page)?;
    for subcommand in command.get_subcommands() {
        if subcommand.get_name() != "help" {
            page.extend(section_of(&command, subcommand)?);
        }
    }
    let mut end = Roff::new();
    end.control("SH", ["ENVIRONMENT"]);
    for arg in command.get_arguments() {
        if let (Some(variable), Some(option)) = (arg.get_env(), arg.get_long()) {
            end.control("TP", [])
                .text([bold(variable.to_string_lossy())])
                .text([roman("As "), bold(format!("--{option}")), roman(".")]);
        }
    }
    end.control("SH", ["FILES"]);
    for (file, what) in [
        ("/etc/nomail/nomail.toml", "The configuration."),
        (
            "/etc/nomail/nomail.toml.d/*.toml",
            "Drop-ins, read after it.",
        ),
        (
            "/var/lib/nomail",
            "The memory of refuse_at = \"auto\" (state_dir).",
        ),
        ("/run/nomail/control.sock", "Where status and top ask."),
        (
            "/sys/fs/bpf/nomail",
            "The guard's pins with on_exit = \"keep\".",
        ),
    ] {
        end.control("TP", []).text([bold(file)]).text([roman(what)]);
    }
    end.control("SH", ["SEE ALSO"]).text([
        bold("nomail.toml"),
        roman("(5), "),
        bold("systemctl"),
        roman("(1)"),
    ]);
    page.extend(end.to_roff().into_bytes());
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    let page = page.replace(PREAMBLE, "").replace(" EXTRA\n", " NOTES\n");
    Ok(format!("{PREAMBLE}{page}").into_bytes())
}

/// What roff begins each document with; the page has it once.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A section of the page for one command: the usual sections, a level deeper.
///
/// Options of the main command that it takes as well are not told again.
fn section_of(main: &Command, subcommand: &Command) -> io::Result<Vec<u8>> {
    let told = |id: &str| {
        let known = main.get_arguments().find(|arg| arg.get_id() == id)?;
        known.get_long()
    };
    let repeated: Vec<_> = subcommand
        .get_arguments()
        .map(|arg| arg.get_id().to_string())
        .filter(|id| told(id).is_some())
        .collect();
    let mut shown = subcommand.clone();
    for id in &repeated {
        shown = shown.mut_arg(id, |arg| arg.hide(true));
    }
    let man = Man::new(shown.clone());
    let mut sections = Vec::new();
    man.render_synopsis_section(&mut sections)?;
    if shown.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut sections)?;
    }
    // What run says at its end, the page has said.
    let repeats_notes = subcommand.get_after_help().map(ToString::to_string)
        == main.get_after_help().map(ToString::to_string);
    if !repeats_notes {
        man.render_extra_section(&mut sections)?;
    }
    let sections = String::from_utf8(sections).map_err(io::Error::other)?;
    let mut head = Roff::new();
    head.control("SH", [subcommand.get_name().to_uppercase().as_str()]);
    if let Some(about) = subcommand.get_about() {
        head.text([roman(format!("{about}."))]);
    }
    let mut out = head.to_roff().into_bytes();
    out.extend(sections.replace(".SH ", ".SS ").into_bytes());
    let names: Vec<_> = repeated
        .iter()
        .filter_map(|id| told(id))
        .filter(|name| *name != "help")
        .collect();
    let note = match names.len() {
        0 => return Ok(out),
        1..=3 => format!("And as above: --{}.", names.join(", --")),
        _ => "And all options above.".to_owned(),
    };
    let mut end = Roff::new();
    end.control("PP", []).text([roman(note)]);
    out.extend(end.to_roff().into_bytes());
    Ok(out)
}

/// What kind of code a line of the shipped file shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[table]`, or `#   [table]` for one that is not there by default.
    Table,
    /// `#key = value`
    Default,
    /// `#   key = value`
    Example,
}

/// The code that a line of the shipped file shows, if it is no prose.
fn code(line: &str) -> Option<(Kind, &str)> {
    let is_key = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
    };
    let example = line.strip_prefix("#   ");
    let code = example.or(line.strip_prefix('#')).unwrap_or(line);
    let table = code
        .strip_prefix('[')
        .and_then(|code| code.strip_suffix(']'));
    if table.is_some_and(is_key) {
        return Some((Kind::Table, code));
    }
    let (key, _) = code.split_once(" = ")?;
    let kind = if example.is_some() {
        Kind::Example
    } else {
        Kind::Default
    };
    is_key(key).then_some((kind, code))
}

/// nomail.toml(5), from the comments of the shipped file.
fn nomail_toml() -> Roff {
    let mut page = Roff::new();
    page.control(
        "TH",
        [
            "nomail.toml",
            "5",
            "\"\"",
            concat!("nomail ", env!("CARGO_PKG_VERSION")),
            "File Formats",
        ],
    );
    page.control("SH", ["NAME"])
        .text([roman("nomail.toml - configuration of nomail-agent")]);
    page.control("SH", ["SYNOPSIS"])
        .text([bold("/etc/nomail/nomail.toml")])
        .control("br", [])
        .text([bold("/etc/nomail/nomail.toml.d/*.toml")]);
    page.control("SH", ["DESCRIPTION"]);

    let mut blocks = SHIPPED.split("\n\n").map(str::trim).peekable();
    // The first block is about the file as a whole.
    if let Some(header) = blocks.next() {
        prose(&mut page, header.lines());
    }
    page.control("SH", ["OUTSIDE OF TABLES"]);
    for block in blocks {
        let Some((kind, line)) = block.lines().last().and_then(code) else {
            prose(&mut page, block.lines());
            continue;
        };
        let comment = block.lines().filter(|line| code(line).is_none());
        match kind {
            Kind::Table => {
                page.control("SH", [line]);
                prose(&mut page, comment);
            }
            Kind::Default | Kind::Example => {
                page.control("TP", []).text([bold(line)]);
                let of_value = match kind {
                    Kind::Default => "This is the default.",
                    _ => "An example: by default it is not set.",
                };
                let words: Vec<_> = comment
                    .map(|line| line.trim_start_matches('#').trim())
                    .collect();
                page.text([roman(words.join(" "))])
                    .control("br", [])
                    .text([roman(of_value)]);
            }
        }
    }
    page.control("SH", ["SEE ALSO"])
        .text([bold("nomail-agent"), roman("(8)")]);
    page
}

/// Comments as paragraphs; indented lines stay as they are.
fn prose<'a>(page: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    let mut paragraph = Vec::new();
    let mut verbatim = false;
    for line in lines {
        let line = line
            .strip_prefix("# ")
            .or(line.strip_prefix('#'))
            .unwrap_or(line);
        let indented = line.starts_with("  ");
        if indented != verbatim || line.is_empty() {
            flush(page, &mut paragraph);
        }
        if indented != verbatim {
            if indented {
                page.control("PP", []).control("EX", []);
            } else {
                page.control("EE", []);
            }
            verbatim = indented;
        }
        if indented {
            page.text([roman(line)]);
        } else if !line.is_empty() {
            paragraph.push(line);
        }
    }
    flush(page, &mut paragraph);
    if verbatim {
        page.control("EE", []);
    }
}

fn flush(page: &mut Roff, paragraph: &mut Vec<&str>) {
    if !paragraph.is_empty() {
        page.control("PP", []).text([roman(paragraph.join("\n"))]);
        paragraph.clear();
    }
}
