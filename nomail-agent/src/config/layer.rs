//! Values as they were written, not checked yet.

use std::collections::BTreeMap;

use super::{
    error::{Problem, ValueError, quoted, wrong},
    origin::Origin,
};

/// The entries of one file, or of flags and environment, by key: `limits.syn_rate`.
pub(super) type Layer = BTreeMap<String, LayerEntry>;

/// A key and its value.
#[derive(Debug)]
pub(super) struct LayerEntry {
    /// Where the key is.
    pub(super) key: Origin,
    /// The value, and where it is.
    pub(super) written: Written,
}

impl LayerEntry {
    /// The items of a list; of any other value, itself.
    pub(super) fn items(&self) -> &[Written] {
        match &self.written.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(&self.written),
        }
    }
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
    /// A known table. Its keys are entries of their own.
    Table,
    /// A type that no key takes.
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

    /// The name of its type in errors.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Word(text) => quoted(text),
            Self::Text(_) => "a string".to_owned(),
            Self::Integer(_) => "an integer".to_owned(),
            Self::Boolean(_) => "a boolean".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Table => "a table".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }
}

/// Layers being read key by key. A higher layer replaces what a lower one says, but
/// every layer has to be right.
#[derive(Debug)]
pub(super) struct Layers {
    /// From the lowest to the highest.
    layers: Vec<Layer>,
    /// For each key that was read, the highest layer with a correct value.
    chosen: BTreeMap<&'static str, usize>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    pub(super) fn new(layers: Vec<Layer>, problems: Vec<Problem>) -> Self {
        Self {
            layers,
            chosen: BTreeMap::new(),
            problems,
        }
    }

    /// Where the table `name` begins, also one without a key.
    pub(super) fn table(&self, name: &str) -> Option<Origin> {
        let entry = self.layers.iter().find_map(|layer| layer.get(name))?;
        matches!(entry.written.value, Value::Table).then(|| entry.key.clone())
    }

    /// Whether any layer has `key`, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.layers.iter().any(|layer| layer.contains_key(key))
    }

    /// The entry of `key` that is in effect. None: its default is.
    pub(super) fn chosen(&self, key: &str) -> Option<&LayerEntry> {
        self.layers.get(*self.chosen.get(key)?)?.get(key)
    }

    /// All keys of all layers.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &LayerEntry)> {
        self.layers.iter().flatten()
    }

    /// Adds an error about the value of `key` that is in effect.
    pub(super) fn reject(&mut self, key: &'static str, text: String) {
        if let Some(entry) = self.chosen(key) {
            let error = ValueError::Wrong(text);
            let problem = Problem::with_value(&entry.written.origin, key, &error);
            self.problems.push(problem);
        }
    }

    /// The single value of `key`, if any layer has it.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(&Value) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(key, |written, problems| {
            check(&written.value)
                .map_err(|error| problems.push(Problem::with_value(&written.origin, key, &error)))
                .ok()
        })
    }

    /// The values of `key`, if any layer has it. `check` gets a text, its origin and
    /// the values before it. `example` is one value, for errors.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        may_be_empty: bool,
        check: impl Fn(&str, &Origin, &[T]) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        self.read(key, |written, problems| {
            let items = items(key, example, written, problems)?;
            if items.is_empty() && !may_be_empty {
                let text = format!("is empty: write [{example}], or leave the key out");
                let error = ValueError::Wrong(text);
                problems.push(Problem::with_value(&written.origin, key, &error));
                return None;
            }
            let mut values = Vec::with_capacity(items.len());
            for Written { origin, value } in items {
                match value.text().and_then(|text| check(text, origin, &values)) {
                    Ok(value) => values.push(value),
                    Err(error) => problems.push(Problem::with_value(origin, key, &error)),
                }
            }
            Some(values)
        })
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Written, &mut Vec<Problem>) -> Option<T>,
    ) -> Option<T> {
        let mut value = None;
        for (index, layer) in self.layers.iter().enumerate() {
            if let Some(entry) = layer.get(key)
                && let Some(read) = read(&entry.written, &mut self.problems)
            {
                value = Some(read);
                self.chosen.insert(key, index);
            }
        }
        value
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
