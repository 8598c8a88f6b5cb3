//! The file that packages install: `packaging/nomail.toml`.

use std::collections::BTreeMap;

use super::*;

const SHIPPED: &str = include_str!("../../../../packaging/nomail.toml");

/// How a line begins that shows a default, and one that shows an example.
const DEFAULT: &str = "#";
const EXAMPLE: &str = "#   ";

/// The line without its `mark`, if it is of that kind and no prose.
fn marked<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(mark)?;
    let (name, _) = rest.split_once(" = ").unwrap_or((rest, ""));
    let is_key = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
    };
    let header = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    (is_key(name) && rest.contains(" = ") || header.is_some_and(is_key)).then_some(rest)
}

/// The file with what `marks` mark written out.
fn written_out(marks: &[&str]) -> String {
    let lines = SHIPPED.lines().map(|line| {
        let rest = marks.iter().find_map(|mark| marked(line, mark));
        rest.unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What the file says of each key: the comment above it.
fn comments() -> BTreeMap<String, String> {
    let mut comments = BTreeMap::new();
    let mut section = String::new();
    let mut above = String::new();
    for line in SHIPPED.lines() {
        let code = marked(line, EXAMPLE).or_else(|| marked(line, DEFAULT));
        match code.or((!line.starts_with('#')).then_some(line)) {
            Some(code) => {
                if let Some(name) = code
                    .strip_prefix('[')
                    .and_then(|code| code.strip_suffix(']'))
                {
                    section = format!("{name}.");
                } else if let Some((key, _)) = code.split_once(" = ") {
                    comments.insert(format!("{section}{key}"), std::mem::take(&mut above));
                }
                above.clear();
            }
            None => {
                above += line.trim_start_matches('#');
            }
        }
    }
    comments
}

#[test]
fn installed_it_changes_nothing() {
    for text in [SHIPPED.to_owned(), written_out(&[DEFAULT])] {
        assert_eq!(
            load_text(text.as_bytes(), &Overrides::default()),
            Ok(Config::default())
        );
    }
}

#[test]
fn its_defaults_are_written_out() {
    let text = written_out(&[DEFAULT]);
    let layer = file::parse(Path::new("t.toml"), text.as_bytes()).unwrap();
    for (key, setting) in super::super::effective::settings(&Config::default()) {
        let is_set = matches!(setting, Setting::To(_));
        assert_eq!(layer.contains_key(key), is_set, "{key}");
    }
}

/// Its examples are right, too.
#[test]
fn every_key_is_in_it() {
    let text = written_out(&[EXAMPLE, DEFAULT]);
    let layer = file::parse(Path::new("t.toml"), text.as_bytes()).unwrap();
    for key in known() {
        assert!(
            layer.contains_key(key),
            "{key} is missing in packaging/nomail.toml"
        );
    }
    // What goes with the examples.
    let text = text.replace("refuse_at = \"auto\"", "refuse_at = \"rcpt\"");
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), "example.net\n").unwrap();
    let text = text.replace("/etc/nomail/domains", list.path().to_str().unwrap());
    let config = load_text(text.as_bytes(), &Overrides::default()).unwrap();
    assert_eq!(config.relay.unwrap().domains.len(), 4);
    assert_eq!(config.listen.len(), 3);
}

/// What the parser says of a wrong value has the bounds and the choices: the
/// comment above the key has them, too.
#[test]
fn bounds_and_choices_are_those_of_the_parser() {
    let comments = comments();
    let mut numbers = 0;
    let mut choices = 0;
    for key in known() {
        let comment = &comments[key];
        assert!(!comment.is_empty(), "{key}");
        let answer = |value: &str| {
            let text = format!("{key} = {value}\n");
            load_text(text.as_bytes(), &Overrides::default()).unwrap_err()
        };
        if let Some((_, rest)) = answer("-1").split_once(" is not in ") {
            let (low, rest) = rest.split_once("..=").unwrap();
            let high = rest.split_once(':').unwrap().0;
            let number = |number: &str| {
                comment
                    .split(|c: char| !c.is_ascii_digit())
                    .any(|word| word == number)
            };
            assert!(
                number(low) && number(high),
                "{key}: {low} to {high}: {comment}"
            );
            numbers += 1;
        }
        if let Some((_, names)) = answer("\"?\"").split_once(" is unknown; use ") {
            let names = names.lines().next().unwrap();
            for name in names.split('"').skip(1).step_by(2) {
                assert!(
                    comment.contains(&format!("{name:?}")),
                    "{key}: {name}: {comment}"
                );
                choices += 1;
            }
        }
    }
    assert!(numbers >= 12 && choices >= 19, "what is asked for is found");
    for (key, bound) in [
        ("interfaces", nomail_common::abi::MAX_INTERFACES),
        ("listen", nomail_common::abi::MAX_PORTS),
    ] {
        assert!(comments[key].contains(&bound.to_string()), "{key}: {bound}");
    }
    assert!(SHIPPED.contains(&LIST_PREFIXES_MAX.to_string()));
    assert!(SHIPPED.contains(&nomail_common::abi::MAX_BANS.to_string()));
}
