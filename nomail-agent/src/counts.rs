//! Counts by the words of a vocabulary.

use std::{
    fmt,
    marker::PhantomData,
    ops::{AddAssign, Index, IndexMut},
};

use nomail_common::counted::Counted;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// One number for each word of a vocabulary. In JSON it is an object with the words' keys;
/// a missing key is read as 0, and an unknown one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts<T: Counted>(T::Numbers);

impl<T: Counted> Counts<T> {
    /// Returns counts from numbers in the order of the words.
    pub const fn new(numbers: T::Numbers) -> Self {
        Self(numbers)
    }

    /// Returns the sum of all numbers.
    pub fn sum(&self) -> u64 {
        self.0.as_ref().iter().sum()
    }

    /// Returns each word with its number.
    pub fn iter(&self) -> impl Iterator<Item = (T, u64)> {
        T::ALL.iter().map(|&word| (word, self[word]))
    }
}

impl<T: Counted> Default for Counts<T> {
    fn default() -> Self {
        Self(T::Numbers::default())
    }
}

impl<T: Counted> Index<T> for Counts<T> {
    type Output = u64;

    fn index(&self, word: T) -> &u64 {
        &self.0.as_ref()[word.index()]
    }
}

impl<T: Counted> IndexMut<T> for Counts<T> {
    fn index_mut(&mut self, word: T) -> &mut u64 {
        &mut self.0.as_mut()[word.index()]
    }
}

impl<T: Counted> AddAssign for Counts<T> {
    fn add_assign(&mut self, other: Self) {
        for (word, number) in other.iter() {
            self[word] += number;
        }
    }
}

impl<T: Counted> FromIterator<(T, u64)> for Counts<T> {
    fn from_iter<I: IntoIterator<Item = (T, u64)>>(numbers: I) -> Self {
        let mut counts = Self::default();
        for (word, number) in numbers {
            counts[word] += number;
        }
        counts
    }
}

impl<T: Counted> Serialize for Counts<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(word, number)| (word.key(), number)))
    }
}

impl<'de, T: Counted> Deserialize<'de> for Counts<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByKey(PhantomData))
    }
}

struct ByKey<T>(PhantomData<T>);

impl<'de, T: Counted> Visitor<'de> for ByKey<T> {
    type Value = Counts<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of numbers")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Counts<T>, M::Error> {
        let mut counts = Counts::default();
        while let Some(key) = map.next_key::<String>()? {
            match T::ALL.iter().find(|word| word.key() == key) {
                Some(word) => counts[*word] = map.next_value()?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use nomail_common::verdict::Verdict;

    use super::*;

    #[test]
    fn numbers_go_by_their_words() {
        let mut counts = Counts::from_iter([(Verdict::Passed, 3), (Verdict::Flood, 4)]);
        counts += counts;
        counts[Verdict::Denied] += 1;
        assert_eq!((counts.sum(), counts[Verdict::Flood]), (15, 8));
        let there: Vec<_> = counts.iter().filter(|(_, number)| *number > 0).collect();
        let expected = [
            (Verdict::Passed, 6),
            (Verdict::Denied, 1),
            (Verdict::Flood, 8),
        ];
        assert_eq!(there, expected);
    }

    #[test]
    fn json_of_another_version_is_understood() {
        let json = r#"{"flood": 2, "total": 5, "judged": {"twice": [1]}, "passed": 3}"#;
        let counts: Counts<Verdict> = serde_json::from_str(json).unwrap();
        assert_eq!(
            counts,
            Counts::from_iter([(Verdict::Passed, 3), (Verdict::Flood, 2)])
        );
    }
}
