//! Types of values: what may be written for a key, and how its value is shown.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use toml::Value as Toml;

use super::{
    error::{ValueError, quoted, wrong},
    layer::{Layers, Value},
    origin::Origin,
};

/// The value of a key, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// A value.
    To(Toml),
    /// None, and what the agent does then.
    Unset(&'static str),
}

/// How many values an option of the command line takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// One.
    One,
    /// One, which is a path.
    Path,
    /// At least one, separated by commas; the option may be repeated.
    Many,
    /// `true` or `false`; `true` where neither is given.
    Switch,
}

/// The type of a key's value.
pub(super) trait ValueKind {
    type Value;

    /// How many values an option takes.
    fn takes(&self) -> Takes {
        Takes::One
    }

    /// Reads the value of `key`, if any layer has it.
    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<Self::Value>;

    /// The value as a file would have it.
    fn shown(&self, value: &Self::Value) -> Setting;

    /// Whether two values are the same, set or by default.
    fn is_same(&self, one: &Self::Value, other: &Self::Value) -> bool {
        self.shown(one) == self.shown(other)
    }
}

/// A single value.
pub(super) struct Single<T> {
    takes: Takes,
    check: fn(&Value) -> Result<T, ValueError>,
    show: fn(&T) -> String,
}

/// A string, or what else `check` takes, displayed by [`Display`].
pub(super) const fn text<T: Display>(check: fn(&Value) -> Result<T, ValueError>) -> Single<T> {
    single(check, T::to_string)
}

/// A string, or what else `check` takes.
pub(super) const fn single<T>(
    check: fn(&Value) -> Result<T, ValueError>,
    show: fn(&T) -> String,
) -> Single<T> {
    Single {
        takes: Takes::One,
        check,
        show,
    }
}

/// A path.
pub(super) const fn path(check: fn(&Value) -> Result<PathBuf, ValueError>) -> Single<PathBuf> {
    Single {
        takes: Takes::Path,
        check,
        show: |path| plain(path),
    }
}

/// A path without what makes no difference, such as a final slash.
pub(super) fn plain(path: &Path) -> String {
    path.components().collect::<PathBuf>().display().to_string()
}

impl<T> ValueKind for Single<T> {
    type Value = T;

    fn takes(&self) -> Takes {
        self.takes
    }

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<T> {
        layers.value(key, self.check)
    }

    fn shown(&self, value: &T) -> Setting {
        Setting::To(Toml::String((self.show)(value)))
    }
}

/// A whole number.
pub(super) struct Number<T> {
    range: RangeInclusive<T>,
    give: &'static str,
}

/// A whole number in `range`. Errors say what to `give`.
pub(super) const fn number<T>(range: RangeInclusive<T>, give: &'static str) -> Number<T> {
    Number { range, give }
}

impl<T> ValueKind for Number<T>
where
    T: Copy + Display + PartialOrd + TryFrom<i128> + TryInto<i64>,
{
    type Value = T;

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<T> {
        let Self { range, give } = self;
        let (low, high) = (range.start(), range.end());
        layers.value(key, |value| {
            let number = match value {
                Value::Integer(number) => Some(*number),
                Value::Word(word) => word.parse().ok(),
                _ => None,
            };
            let Some(number) = number else {
                let kind = value.kind();
                return wrong(format!(
                    "{kind} is not a whole number in {low}..={high}: {give}"
                ));
            };
            match T::try_from(number) {
                Ok(number) if range.contains(&number) => Ok(number),
                _ => wrong(format!("{number} is not in {low}..={high}: {give}")),
            }
        })
    }

    fn shown(&self, value: &T) -> Setting {
        // No range is wider than an integer of TOML.
        Setting::To(Toml::Integer((*value).try_into().unwrap_or(i64::MAX)))
    }
}

/// True or false.
pub(super) struct Boolean;

impl ValueKind for Boolean {
    type Value = bool;

    fn takes(&self) -> Takes {
        Takes::Switch
    }

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<bool> {
        layers.value(key, |value| match value {
            Value::Boolean(value) => Ok(*value),
            Value::Word(word) if word == "true" => Ok(true),
            Value::Word(word) if word == "false" => Ok(false),
            other => wrong(format!("{} is neither true nor false", other.kind())),
        })
    }

    fn shown(&self, value: &bool) -> Setting {
        Setting::To(Toml::Boolean(*value))
    }
}

/// One of some names.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Choice<T> {
    /// The name of a value.
    pub(super) fn name(&self, value: T) -> &'static str {
        let found = self.0.iter().find(|(_, choice)| *choice == value);
        found.map_or("", |(name, _)| name)
    }
}

impl<T: Copy + PartialEq> ValueKind for Choice<T> {
    type Value = T;

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<T> {
        layers.value(key, |value| {
            let text = value.text()?;
            if let Some((_, chosen)) = self.0.iter().find(|(name, _)| *name == text) {
                return Ok(*chosen);
            }
            let shown = quoted(text);
            let names: Vec<_> = self.0.iter().map(|(name, _)| quoted(name)).collect();
            let names = match names.split_last() {
                Some((last, [])) => last.clone(),
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => String::new(),
            };
            wrong(format!("{shown} is unknown; use {names}"))
        })
    }

    fn shown(&self, value: &T) -> Setting {
        Setting::To(Toml::String(self.name(*value).to_owned()))
    }
}

/// A reply code of a relay.
pub(super) struct RelayReply;

impl ValueKind for RelayReply {
    type Value = u16;

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<u16> {
        layers.value(key, |value| match value {
            Value::Integer(556) => Ok(556),
            Value::Integer(521) => Ok(521),
            Value::Integer(other) => wrong(format!("{other} is unknown; use 556 or 521")),
            other => wrong(format!("{} is unknown; use 556 or 521", other.kind())),
        })
    }

    fn shown(&self, value: &u16) -> Setting {
        Setting::To(Toml::Integer((*value).into()))
    }
}

/// A list of strings.
pub(super) struct StringList<T> {
    example: &'static str,
    may_be_empty: bool,
    check: fn(&str, &[T]) -> Result<T, ValueError>,
    show: fn(&T) -> String,
}

/// A list. `check` gets a text and the values before it; `example` is one value, for errors.
pub(super) const fn list<T: Display>(
    example: &'static str,
    check: fn(&str, &[T]) -> Result<T, ValueError>,
) -> StringList<T> {
    StringList {
        example,
        may_be_empty: true,
        check,
        show: T::to_string,
    }
}

/// A list of paths, as [`list`].
pub(super) const fn paths(
    example: &'static str,
    check: fn(&str, &[PathBuf]) -> Result<PathBuf, ValueError>,
) -> StringList<PathBuf> {
    StringList {
        example,
        may_be_empty: true,
        check,
        show: |path| plain(path),
    }
}

impl<T> StringList<T> {
    /// The same, with at least one value.
    pub(super) const fn not_empty(mut self) -> Self {
        self.may_be_empty = false;
        self
    }
}

impl<T> ValueKind for StringList<T> {
    type Value = Vec<T>;

    fn takes(&self) -> Takes {
        Takes::Many
    }

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<Vec<T>> {
        layers.list(key, self.example, self.may_be_empty, |text, _, before| {
            (self.check)(text, before)
        })
    }

    fn shown(&self, values: &Vec<T>) -> Setting {
        let values = values.iter().map(|value| Toml::String((self.show)(value)));
        Setting::To(Toml::Array(values.collect()))
    }
}

/// A list of strings that are checked together with files, each with its place.
pub(super) struct Entries {
    pub(super) example: &'static str,
    pub(super) may_be_empty: bool,
}

impl ValueKind for Entries {
    type Value = Vec<(String, Origin)>;

    fn takes(&self) -> Takes {
        Takes::Many
    }

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<Self::Value> {
        layers.list(key, self.example, self.may_be_empty, |text, origin, _| {
            Ok((text.to_owned(), origin.clone()))
        })
    }

    fn shown(&self, entries: &Self::Value) -> Setting {
        let texts = entries.iter().map(|(text, _)| Toml::String(text.clone()));
        Setting::To(Toml::Array(texts.collect()))
    }
}

/// A value that may be missing.
pub(super) struct Optional<K> {
    /// The kind of one that is there.
    pub(super) of: K,
    /// What the agent does without one.
    pub(super) unset: &'static str,
}

impl<K: ValueKind> ValueKind for Optional<K> {
    type Value = Option<K::Value>;

    fn takes(&self) -> Takes {
        self.of.takes()
    }

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<Self::Value> {
        self.of.read(layers, key).map(Some)
    }

    fn shown(&self, value: &Self::Value) -> Setting {
        match value {
            None => Setting::Unset(self.unset),
            Some(value) => self.of.shown(value),
        }
    }
}

/// A value of which some mean that nothing is set.
pub(super) struct Unless<K: ValueKind> {
    /// The kind of the others.
    pub(super) of: K,
    /// Whether nothing is set.
    pub(super) is_unset: fn(&K::Value) -> bool,
    /// What the agent does then.
    pub(super) unset: &'static str,
}

impl<K: ValueKind> ValueKind for Unless<K> {
    type Value = K::Value;

    fn takes(&self) -> Takes {
        self.of.takes()
    }

    fn read(&self, layers: &mut Layers, key: &'static str) -> Option<K::Value> {
        self.of.read(layers, key)
    }

    fn shown(&self, value: &K::Value) -> Setting {
        match (self.is_unset)(value) {
            true => Setting::Unset(self.unset),
            false => self.of.shown(value),
        }
    }

    fn is_same(&self, one: &K::Value, other: &K::Value) -> bool {
        self.of.is_same(one, other)
    }
}
