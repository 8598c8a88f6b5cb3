//! What flags and environment say. They win over the files, for the life of the agent.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    layer::{Layer, LayerEntry, Value, Written},
    origin::Origin,
};

/// The options of the command line and the variables of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The file to read. None: [`DEFAULT_FILE`](super::DEFAULT_FILE), if it is there.
    pub file: Option<PathBuf>,
    given: BTreeMap<&'static str, Given>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    by: GivenBy,
    values: Vec<String>,
}

/// The option or variable of a value, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenBy {
    /// An option of the command line: `--syn-rate`.
    Flag(&'static str),
    /// A variable: `NOMAIL_SYN_RATE`.
    Environment(&'static str),
}

impl Overrides {
    /// No overrides, and the file to read. None: [`DEFAULT_FILE`](super::DEFAULT_FILE), if
    /// it is there.
    pub fn of_file(file: Option<PathBuf>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// Gives `key`, as the file calls it (`limits.syn_rate`), these values.
    /// [`load`](super::load()) checks them.
    pub fn set(&mut self, key: &'static str, by: GivenBy, values: Vec<String>) {
        self.given.insert(key, Given { by, values });
    }

    /// The layer of flags and environment.
    pub(super) fn layer(&self) -> Layer {
        let mut layer = Layer::new();
        for (key, given) in &self.given {
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
            let entry = LayerEntry {
                key: origin,
                written,
            };
            layer.insert((*key).to_owned(), entry);
        }
        layer
    }
}
