//! Vocabularies that are counted: one row of a table for each word.

use core::fmt::Debug;

/// A word of a vocabulary that [`counted!`](crate::counted!) has made.
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
    /// The key in JSON: the prefix of the vocabulary, if it has one, and the name.
    fn key(self) -> &'static str;
    /// A few words for people.
    fn label(self) -> &'static str;
    /// The doc comment of the row.
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
mod tests {
    use super::*;

    counted! {
        /// Kinds of fruit.
        enum Fruit "fruit_" {
            /// Round, and red or
            /// green.
            Apple "apple" "an apple";
            /// Yellow.
            Lemon "lemon" "a lemon";
        }
    }

    #[test]
    fn a_row_has_all_of_a_word() {
        assert_eq!(Fruit::ALL, [Fruit::Apple, Fruit::Lemon]);
        assert_eq!((Fruit::COUNT, Fruit::Lemon.index()), (2, 1));
        let apple = Fruit::Apple;
        assert_eq!(
            [apple.name(), apple.key(), apple.label(), apple.help()],
            [
                "apple",
                "fruit_apple",
                "an apple",
                "Round, and red or green."
            ]
        );
    }
}
