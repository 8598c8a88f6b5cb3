//! Tables of words that are counted.

use core::fmt::Debug;

/// A word of a table of [`counted!`](crate::counted!).
pub trait Counted: Copy + Debug + Eq + 'static {
    /// An array of one number for each word.
    type Numbers: Copy + Debug + Default + Eq + AsRef<[u64]> + AsMut<[u64]>;
    /// Number of words.
    const COUNT: usize;
    /// All words, in the order of their index.
    const ALL: &'static [Self];

    /// The index into [`Self::ALL`] and [`Self::Numbers`].
    fn index(self) -> usize;
    /// The name in metrics and log lines.
    fn name(self) -> &'static str;
    /// The key in JSON: the prefix of the table, if it has one, and the name.
    fn key(self) -> &'static str;
    /// A short description for display.
    fn label(self) -> &'static str;
    /// The doc comment of the row, a help text.
    fn help(self) -> &'static str;
}

/// Makes an enum and its [`Counted`] from a table. A row is a doc comment, the variant, its
/// name and its label; the order of the rows is that of the indices. A prefix behind the name
/// of the enum goes before each key in JSON.
#[macro_export]
macro_rules! counted {
    ($(#[$meta:meta])* $vis:vis enum $of:ident { $($rows:tt)* }) => {
        $crate::counted! { $(#[$meta])* $vis enum $of "" { $($rows)* } }
    };
    ($(#[$meta:meta])* $vis:vis enum $of:ident $prefix:literal {
        $($(#[doc = $doc:literal])+ $word:ident $name:literal $label:literal;)+
    }) => {
        $(#[$meta])*
        #[repr(usize)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $of {
            $($(#[doc = $doc])+ $word,)+
        }

        impl $crate::counted::Counted for $of {
            type Numbers = [u64; Self::ALL.len()];
            const COUNT: usize = Self::ALL.len();
            const ALL: &'static [Self] = &[$(Self::$word),+];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$word => $name,)+
                }
            }

            fn key(self) -> &'static str {
                match self {
                    $(Self::$word => concat!($prefix, $name),)+
                }
            }

            fn label(self) -> &'static str {
                match self {
                    $(Self::$word => $label,)+
                }
            }

            fn help(self) -> &'static str {
                match self {
                    $(Self::$word => concat!($($doc),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

#[cfg(test)]
mod tests;
