//! `docs/options.md`, from the table of keys.

use nomail_agent::config::{FileKey, Setting, Takes, tables};

use crate::file::about;

/// The whole page.
pub(crate) fn options() -> String {
    let mut page = "\
<!-- Made by `cargo xtask docs` of nomail-agent/src/config/keys.rs: edit those rows. -->

# Options

A value comes from the first of these that sets it: flag, environment, drop-in, file, default. \
[Configuration](configuration.md) describes drop-ins and lists; `nomail-agent check-config --show` \
prints the values in effect. A key marked *restart* is read only at the start, all others also \
by a reload.

## Flags without a key

| flag | environment | meaning |
|---|---|---|
"
    .to_owned();
    let command = nomail_agent::cli::command();
    let is_key = |id: &str| {
        tables()
            .iter()
            .any(|table| table.keys.iter().any(|key| key.name == id))
    };
    for arg in command
        .get_arguments()
        .filter(|arg| !is_key(arg.get_id().as_str()))
    {
        if let (Some(long), Some(variable), Some(help)) =
            (arg.get_long(), arg.get_env(), arg.get_help())
        {
            page += &format!(
                "| `--{long}` | `{}` | {help} |\n",
                variable.to_string_lossy()
            );
        }
    }
    for table in tables() {
        let heading = match table.name {
            "" => "Keys before the first table".to_owned(),
            name => format!("`[{name}]`"),
        };
        page += &format!("\n## {heading}\n\n");
        if !table.name.is_empty() {
            page += &format!("{}\n\n", about(&table));
        }
        page += "| key | flag, environment | default | meaning |\n|---|---|---|---|\n";
        for key in &table.keys {
            page += &row(key);
        }
    }
    page
}

fn row(key: &FileKey) -> String {
    let flag = key.flag.map_or_else(String::new, |flag| {
        let value = match key.takes {
            Takes::Switch => format!("[={}]", flag.value),
            Takes::One | Takes::Path | Takes::Many => format!(" {}", flag.value),
        };
        format!("`{}{value}`, `{}`", flag.option, flag.variable)
    });
    let default = match &key.default {
        Setting::To(value) => format!("`{value}`"),
        Setting::Unset(means) => (*means).to_owned(),
    };
    let restart = if key.needs_restart { " *restart*" } else { "" };
    let cells = [
        format!("`{}`{restart}", key.name),
        flag,
        default,
        key.description().replace('*', "\\*"),
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}
