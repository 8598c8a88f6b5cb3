//! Values as they were written, before anybody knows whether they are right.

use std::collections::BTreeMap;

use super::{
    GivenBy, Overrides, SECTIONS,
    error::{Origin, Problem, SHOWN_MAX, ValueError, quoted, wrong},
};

/// Everything that one source of settings says, by key: `limits.syn_rate`.
pub(super) type Layer = BTreeMap<String, Entry>;

/// What is in effect of several layers, by key. What is not in it has its default.
pub(super) type Chosen = BTreeMap<&'static str, Entry>;

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where the key is.
    pub(super) key: Origin,
    /// The value, and where it is.
    pub(super) written: Written,
}

/// A value and its place.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value of some type.
#[derive(Debug)]
pub(super) enum Value {
    /// A word of the command line or the environment: it may mean any type.
    Word(String),
    /// A string of a file.
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Written>),
    /// A table that is known. Its keys are entries of their own.
    Section,
    /// What no key takes.
    Other(&'static str),
}

impl Value {
    /// The text of a string.
    pub(super) fn text(&self) -> Result<&str, ValueError> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            _ => wrong(format!("{} is not a string in quotes", self.kind())),
        }
    }

    /// How errors call its type.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Word(text) => quoted(text),
            Self::Text(_) => "a string".to_owned(),
            Self::Integer(_) => "an integer".to_owned(),
            Self::Boolean(_) => "a boolean".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Section => "a table".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }
}

/// The layer of flags and environment.
pub(super) fn layer_of(overrides: &Overrides) -> Layer {
    let mut layer = Layer::new();
    for (key, given) in &overrides.given {
        let origin = match given.by {
            GivenBy::Flag(name) => Origin::Flag(name),
            GivenBy::Environment(name) => Origin::Environment(name),
        };
        let mut words: Vec<_> = given
            .values
            .iter()
            .map(|word| Written {
                origin: origin.clone(),
                value: Value::Word(word.clone()),
            })
            .collect();
        let written = match words.pop() {
            Some(only) if words.is_empty() => only,
            last => Written {
                origin: origin.clone(),
                value: Value::List(words.into_iter().chain(last).collect()),
            },
        };
        let entry = Entry {
            key: origin,
            written,
        };
        layer.insert((*key).to_owned(), entry);
    }
    layer
}

/// Layers being read key by key. What a higher layer says replaces what a lower
/// one says, but every layer has to be right.
#[derive(Debug)]
pub(super) struct Layers {
    /// From the lowest to the highest.
    layers: Vec<Layer>,
    /// The keys that were read.
    pub(super) known: Vec<&'static str>,
    /// Of each key that was read, what the highest layer says that is right.
    pub(super) chosen: Chosen,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        Self {
            layers,
            known: Vec::new(),
            chosen: Chosen::new(),
            problems: Vec::new(),
        }
    }

    /// Where the table `section` is, if it is there, also without a key.
    pub(super) fn section(&self, section: &str) -> Option<Origin> {
        let entry = self.layers.iter().find_map(|layer| layer.get(section))?;
        matches!(entry.written.value, Value::Section).then(|| entry.key.clone())
    }

    /// Whether any layer has `key`, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.layers.iter().any(|layer| layer.contains_key(key))
    }

    /// The single value of `key`, if any layer has it.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(&Value) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.value_with_origin(key, check).map(|(value, _)| value)
    }

    /// The single value of `key`, and where it is.
    pub(super) fn value_with_origin<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(&Value) -> Result<T, ValueError>,
    ) -> Option<(T, Origin)> {
        self.read(key, |written, problems| {
            check(&written.value)
                .map_err(|error| problems.push(Problem::with_value(&written.origin, key, &error)))
                .map(|value| (value, written.origin.clone()))
                .ok()
        })
    }

    /// The values of `key`, at least one. `check` gets a text and the values
    /// before it.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        check: impl Fn(&str, &[T]) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        self.read(key, |written, problems| {
            let items = items(key, example, written, problems)?;
            if items.is_empty() {
                problems.push(is_empty(key, example, written));
                return None;
            }
            Some(checked(key, items, problems, &check))
        })
    }

    /// The values of `key`, of which there may be none.
    pub(super) fn list_or_empty<T>(
        &mut self,
        key: &'static str,
        example: &str,
        check: impl Fn(&str, &[T]) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        self.read(key, |written, problems| {
            let items = items(key, example, written, problems)?;
            Some(checked(key, items, problems, &check))
        })
    }

    /// The texts of `key`, at least one, each with its place.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Vec<(String, Origin)>> {
        self.read(key, |written, problems| {
            let items = items(key, example, written, problems)?;
            if items.is_empty() {
                problems.push(is_empty(key, example, written));
                return None;
            }
            Some(texts_of(key, items, problems))
        })
    }

    /// The texts of `key`, of which there may be none, each with its place.
    pub(super) fn texts_or_empty(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Vec<(String, Origin)>> {
        self.read(key, |written, problems| {
            let items = items(key, example, written, problems)?;
            Some(texts_of(key, items, problems))
        })
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Written, &mut Vec<Problem>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let mut value = None;
        for layer in &mut self.layers {
            if let Some(entry) = layer.remove(key)
                && let Some(read) = read(&entry.written, &mut self.problems)
            {
                value = Some(read);
                self.chosen.insert(key, entry);
            }
        }
        value
    }

    /// Complains about every key that was not read.
    pub(super) fn refuse_unknown(&mut self) {
        for (key, entry) in self.layers.iter().flatten() {
            if matches!(entry.written.value, Value::Section) {
                continue;
            }
            let prefix = format!("{key}.");
            let text = if self.known.iter().any(|known| known.starts_with(&prefix)) {
                let kind = entry.written.value.kind();
                format!("{key}: {kind} is not a table: write [{key}] and its keys below it")
            } else {
                // A quoted name may have a dot, and is in no section.
                let section = key.split_once('.').map(|(section, _)| section);
                let section = section.filter(|section| SECTIONS.contains(section));
                let who = section.map_or("this version".to_owned(), |name| format!("[{name}]"));
                // Names come from the file, and errors stay readable.
                let key: String = key.chars().take(SHOWN_MAX).collect();
                format!("{key}: unknown key; {who} knows {}", self.known_in(section))
            };
            self.problems.push(Problem {
                origin: entry.key.clone(),
                text,
            });
        }
    }

    /// The keys of a section, or those outside and the sections.
    fn known_in(&self, section: Option<&str>) -> String {
        let mut names = Vec::new();
        for key in &self.known {
            let name = match (key.split_once('.'), section) {
                (Some((of, name)), Some(section)) if of == section => name.to_owned(),
                (Some((of, _)), None) => format!("[{of}]"),
                (None, None) => (*key).to_owned(),
                _ => continue,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

/// The items of a list. A word stands for a list of one.
fn items<'a>(
    key: &str,
    example: &str,
    written: &'a Written,
    problems: &mut Vec<Problem>,
) -> Option<&'a [Written]> {
    match &written.value {
        Value::List(items) => Some(items),
        Value::Word(_) => Some(std::slice::from_ref(written)),
        other => {
            let text = format!("{} is not a list: write [{example}]", other.kind());
            let error = ValueError::Wrong(text);
            problems.push(Problem::with_value(&written.origin, key, &error));
            None
        }
    }
}

fn is_empty(key: &str, example: &str, written: &Written) -> Problem {
    let text = format!("is empty: write [{example}], or leave the key out");
    Problem::with_value(&written.origin, key, &ValueError::Wrong(text))
}

/// Those of `items` that are texts, each with its place.
fn texts_of(key: &str, items: &[Written], problems: &mut Vec<Problem>) -> Vec<(String, Origin)> {
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        match item.value.text() {
            Ok(text) => texts.push((text.to_owned(), item.origin.clone())),
            Err(error) => problems.push(Problem::with_value(&item.origin, key, &error)),
        }
    }
    texts
}

/// Those of `items` that `check` takes.
fn checked<T>(
    key: &str,
    items: &[Written],
    problems: &mut Vec<Problem>,
    check: impl Fn(&str, &[T]) -> Result<T, ValueError>,
) -> Vec<T> {
    let mut values = Vec::new();
    for item in items {
        match item.value.text().and_then(|text| check(text, &values)) {
            Ok(value) => values.push(value),
            Err(error) => problems.push(Problem::with_value(&item.origin, key, &error)),
        }
    }
    values
}
