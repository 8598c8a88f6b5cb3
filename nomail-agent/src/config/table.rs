//! What a table of the file and its keys have in common, and [`table!`], which makes one
//! of rows.

use super::{
    kinds::{Setting, Takes},
    layer::Layers,
};

/// A table of the file, or the keys before the first table.
#[derive(Debug)]
pub struct KeyTable {
    /// `limits`; empty for the keys before the first table.
    pub name: &'static str,
    /// The lines of its description.
    pub about: &'static [&'static str],
    /// What holds without the table, where that is not the same as an empty one.
    pub without: Option<&'static str>,
    /// In the order of the rows.
    pub keys: Vec<FileKey>,
}

/// A key of the file.
#[derive(Debug)]
pub struct FileKey {
    /// With its table's name: `limits.syn_rate`.
    pub name: &'static str,
    /// The lines of its description.
    pub doc: &'static [&'static str],
    /// The value where none is written.
    pub default: Setting,
    /// A value in TOML, where the default is none.
    pub example: Option<&'static str>,
    /// Whether only a start reads it.
    pub needs_restart: bool,
    /// How many values the option takes.
    pub takes: Takes,
    /// The option of the command line.
    pub flag: Option<Flag>,
}

impl FileKey {
    /// The name within its table: `syn_rate`.
    pub fn last_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The first paragraph of the description: the text of `--help`.
    pub fn summary(&self) -> String {
        self.paragraphs().next().unwrap_or_default()
    }

    /// The whole description.
    pub fn description(&self) -> String {
        self.paragraphs().collect::<Vec<_>>().join(" ")
    }

    fn paragraphs(&self) -> impl Iterator<Item = String> {
        let lines = self.doc.split(|line| line.trim().is_empty());
        lines.map(|lines| lines.concat().trim().to_owned())
    }
}

/// An option of `run` that wins over the file.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// `--syn-rate`.
    pub option: &'static str,
    /// `NOMAIL_SYN_RATE`.
    pub variable: &'static str,
    /// How `--help` calls the value: `N`.
    pub value: &'static str,
}

/// The values of a table of the file. [`table!`] implements it.
pub(super) trait Values: Default {
    /// The table and its keys.
    fn table() -> KeyTable;

    /// Reads every key. What is wrong goes to `layers.problems`.
    fn read(layers: &mut Layers) -> Self;

    /// Each key with its value.
    fn settings(&self) -> Vec<(&'static str, Setting)>;

    /// The keys that need a restart and differ in `new`.
    fn changes_that_need_restart(&self, new: &Self) -> Vec<&'static str>;

    /// Takes the values of keys that need a restart from `old`.
    fn keep_from(&mut self, old: &Self);
}

/// Makes a struct, its defaults and its [`Values`] from rows: a doc comment, the key with its
/// type and default, whether a `reload` or only a `restart` changes it, its [`ValueKind`], the
/// option of the command line, and an example where the default is none. The fields `beside`
/// them are no keys.
///
/// [`ValueKind`]: super::kinds::ValueKind
macro_rules! table {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:ident),+)])?
        $vis:vis struct $of:ident = $prefix:literal $(, without $without:literal)? {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty = $default:expr, $change:ident, $kind:expr
                $(, flag $option:literal $variable:literal $value:literal)?
                $(, example $example:literal)?;
            )+
        }
        $(beside {
            $(
                $(#[doc = $field_doc:literal])+
                $field:ident: $field_type:ty = $field_default:expr;
            )+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq $($(, $derive)+)?)]
        $vis struct $of {
            $($(#[doc = $doc])+ $vis $key: $type,)+
            $($($(#[doc = $field_doc])+ $vis $field: $field_type,)+)?
        }

        impl Default for $of {
            fn default() -> Self {
                Self {
                    $($key: $default,)+
                    $($($field: $field_default,)+)?
                }
            }
        }

        impl Values for $of {
            fn table() -> KeyTable {
                let default = Self::default();
                KeyTable {
                    name: $prefix.trim_end_matches('.'),
                    about: &[$($about),+],
                    without: None $(.or(Some($without)))?,
                    keys: vec![$(FileKey {
                        name: concat!($prefix, stringify!($key)),
                        doc: &[$($doc),+],
                        default: $kind.shown(&default.$key),
                        example: None $(.or(Some($example)))?,
                        needs_restart: table!($change),
                        takes: $kind.takes(),
                        flag: None $(.or(Some(Flag {
                            option: $option,
                            variable: $variable,
                            value: $value,
                        })))?,
                    }),+],
                }
            }

            fn read(layers: &mut Layers) -> Self {
                let default = Self::default();
                Self {
                    $(
                        $key: $kind
                            .read(layers, concat!($prefix, stringify!($key)))
                            .unwrap_or(default.$key),
                    )+
                    $($($field: default.$field,)+)?
                }
            }

            fn settings(&self) -> Vec<(&'static str, Setting)> {
                vec![$((concat!($prefix, stringify!($key)), $kind.shown(&self.$key))),+]
            }

            fn changes_that_need_restart(&self, new: &Self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(
                    if table!($change) && !$kind.is_same(&self.$key, &new.$key) {
                        keys.push(concat!($prefix, stringify!($key)));
                    }
                )+
                keys
            }

            fn keep_from(&mut self, old: &Self) {
                $(
                    if table!($change) {
                        self.$key.clone_from(&old.$key);
                    }
                )+
            }
        }
    };
    (reload) => { false };
    (restart) => { true };
}

pub(super) use table;
