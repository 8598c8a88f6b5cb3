//! The man pages: nomail-agent(8) from the command line, nomail.toml(5) from the table of keys.

use std::io;

use clap::Command;
use clap_mangen::Man;
use nomail_agent::config::tables;
use roff::{Roff, bold, roman};

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
