//! The man pages: nomail-agent(8) from the command line, nomail.toml(5) from the table of keys.

use std::io;

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;
use nomail_agent::config::tables;
use roff::{Inline, Roff, bold, italic, roman};

use crate::file::{self, about, description, line};

/// nomail-agent(8): all commands on one page.
pub(crate) fn nomail_agent() -> io::Result<Vec<u8>> {
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
    page.extend(synopsis(&command, "nomail-agent").to_roff().into_bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let notes = command.get_after_help().map(ToString::to_string);
    let (notes, exit_codes) = parted(notes.as_deref().unwrap_or_default());
    page.extend(paragraphs("NOTES", &notes).to_roff().into_bytes());
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
    end.control("SH", ["SIGNALS"]);
    for (signal, what) in SIGNALS {
        end.control("TP", [])
            .text([bold(signal)])
            .text([roman(what)]);
    }
    end.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit_codes {
        end.control("TP", [])
            .text([bold(code)])
            .text([roman(meaning)]);
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
            "The memory of refuse_at = \"auto\", and domains that mail arrived for (state_dir).",
        ),
        (
            "/run/nomail/control.sock",
            "The control socket, which status and top read.",
        ),
        (
            "/sys/fs/bpf/nomail",
            "The guard's pins with on_exit = \"keep\".",
        ),
        (
            "/usr/share/doc/nomail-agent",
            "The documentation of the package: install.md, operating.md, runbook.md and more.",
        ),
    ] {
        end.control("TP", []).text([bold(file)]).text([roman(what)]);
    }
    end.control("SH", ["EXAMPLES"]);
    for (example, what) in EXAMPLES {
        end.control("TP", [])
            .text([bold(example)])
            .text([roman(what)]);
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

const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGHUP",
        "Reads the configuration again. If anything is wrong, nothing changes.",
    ),
    (
        "SIGTERM, SIGINT",
        "Detaches the XDP program, unless on_exit = \"keep\", answers 421 to open sessions, and exits.",
    ),
];

/// Commands that parse, and what they do.
pub(crate) const EXAMPLES: [(&str, &str); 5] = [
    (
        "nomail-agent --iface eth0 --hostname mailless.example.org --observe",
        "Refuses mail and counts verdicts, but drops nothing.",
    ),
    (
        "nomail-agent check-config --show",
        "Prints the values in effect, and where each comes from.",
    ),
    (
        "nomail-agent doctor --domain example.org",
        "Checks the host, and whether the domain says that it takes no mail.",
    ),
    (
        "nomail-agent status --json",
        "Prints state and counters for scripts.",
    ),
    (
        "nomail-agent top --batch -n 1",
        "Prints one frame of live figures.",
    ),
];

/// The section SYNOPSIS: a command with its options and their values.
fn synopsis(command: &Command, name: &str) -> Roff {
    let mut words = vec![bold(name)];
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        words.extend(usage(arg));
    }
    if command.has_subcommands() {
        words.extend([roman(" ["), italic("COMMAND"), roman("]")]);
    }
    let mut section = Roff::new();
    section.control("SH", ["SYNOPSIS"]).text(words);
    section
}

/// An option as the synopsis has it.
fn usage(arg: &Arg) -> Vec<Inline> {
    let option = match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => return Vec::new(),
    };
    let mut words = vec![roman(" ["), bold(option)];
    if arg.get_action().takes_values() {
        let values = arg.get_value_names().unwrap_or_default();
        let value = values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let value = italic(value.join(" "));
        words.extend(match arg.is_require_equals_set() {
            true => vec![roman("[="), value, roman("]")],
            false => vec![roman(" "), value],
        });
    }
    let repeats = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
    words.push(roman(if repeats { "]..." } else { "]" }));
    words
}

/// Paragraphs of notes, and the exit codes that one of them names.
fn parted(notes: &str) -> (Vec<&str>, Vec<(&str, &str)>) {
    let (mut paragraphs, mut codes) = (Vec::new(), Vec::new());
    for paragraph in notes.split("\n\n") {
        match paragraph.strip_prefix("Exit codes: ") {
            Some(list) => {
                let list = list.trim_end_matches('.').split(", ");
                codes.extend(list.filter_map(|code| code.split_once(' ')));
            }
            None => paragraphs.push(paragraph),
        }
    }
    (paragraphs, codes)
}

fn paragraphs(title: &str, paragraphs: &[&str]) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]);
    for paragraph in paragraphs {
        section.control("PP", []).text([roman(*paragraph)]);
    }
    section
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
    let name = format!("nomail-agent {}", shown.get_name());
    sections.extend(synopsis(&shown, &name).to_roff().into_bytes());
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

/// nomail.toml(5).
pub(crate) fn nomail_toml() -> Roff {
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
    prose(&mut page, file::HEADER.lines());
    for table in tables() {
        match table.name {
            "" => page.control("SH", ["OUTSIDE OF TABLES"]),
            name => {
                page.control("SH", [format!("[{name}]").as_str()]);
                page.control("PP", []).text([roman(about(&table))])
            }
        };
        for key in &table.keys {
            page.control("TP", [])
                .text([bold(line(key))])
                .text([roman(description(key, true))]);
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
