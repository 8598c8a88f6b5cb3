//! `packaging/nomail.toml`, from the table of keys.

use nomail_agent::config::{FileKey, KeyTable, Setting, tables};

/// Longest line of a comment.
const WIDTH: usize = 84;
/// An equals sign between spaces that do not break.
const NO_BREAK: &str = "\u{a0}=\u{a0}";

/// What the file says before its keys; nomail.toml(5) too.
pub(crate) const HEADER: &str = "\
# Configuration of nomail-agent.
#
# A line `#key = value` shows a default: remove the # and change the value. A line
# `#   key = value` is an example for a key that is not set by default. As it is, this
# file changes nothing.
#
# A flag or a variable NOMAIL_* wins over the files. The files *.toml in the directory
# nomail.toml.d beside this file, at most 64, are read after it in the order of their
# names: of two that set a key, the later counts. A list replaces an earlier list.
# Hidden files are left out.
#
# No file is longer than 1 MiB. Unknown keys are errors, and one error anywhere leaves
# a running agent as it was.
#
#   nomail-agent check-config           validates the file, and lists every error
#   nomail-agent check-config --show    prints the values in effect, and their origins
#   systemctl reload nomail-agent       or SIGHUP: applies the file
#
# A change of a key that needs a restart takes effect at the next start.
";

/// The whole file.
pub(crate) fn file() -> String {
    let mut file = HEADER.to_owned();
    for table in tables() {
        if !table.name.is_empty() {
            file += "\n\n";
            file += &comment(&about(&table));
            file += &format!("{}[{}]\n", mark(is_optional(&table)), table.name);
        }
        for key in &table.keys {
            file += "\n";
            file += &comment(&description(key, is_optional(&table)));
            file += &match &key.default {
                Setting::To(_) if !is_optional(&table) => format!("#{}\n", line(key)),
                _ => format!("{}{}\n", mark(true), line(key)),
            };
        }
    }
    file
}

fn mark(is_example: bool) -> &'static str {
    match is_example {
        true => "#   ",
        false => "",
    }
}

/// Whether a table is not the same as none.
pub(crate) fn is_optional(table: &KeyTable) -> bool {
    table.without.is_some()
}

/// What is said of a table.
pub(crate) fn about(table: &KeyTable) -> String {
    let about = table.about.concat();
    match table.without {
        None => about.trim().to_owned(),
        Some(without) => format!("{} Without this table {without}.", about.trim()),
    }
}

/// What is said of a key. `tells_default`: that its line shows the default.
pub(crate) fn description(key: &FileKey, tells_default: bool) -> String {
    let mut text = key.description();
    match &key.default {
        Setting::Unset(means) => text += &format!(" Not set: {means}."),
        Setting::To(_) if tells_default => text += " This is the default.",
        Setting::To(_) => {}
    }
    if key.needs_restart {
        text += " Needs a restart.";
    }
    text
}

/// The key with its default, or with an example where that is none.
pub(crate) fn line(key: &FileKey) -> String {
    let value = match &key.default {
        Setting::To(value) => value.to_string(),
        Setting::Unset(_) => key.example.unwrap_or_default().to_owned(),
    };
    format!("{} = {value}", key.last_name())
}

fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    // A key stays on one line with its value.
    let text = text.replace(" = ", NO_BREAK);
    for word in text.split([' ', '\n']) {
        let last = lines.len() - 1;
        if lines[last].chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("# {word}"));
        } else {
            lines[last] += &format!(" {word}");
        }
    }
    lines.join("\n").replace(NO_BREAK, " = ") + "\n"
}
