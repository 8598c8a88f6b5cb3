//! Addresses that are not guarded or served as the others are.

use serde::{Deserialize, Serialize};

use crate::text::{ascii, count};

/// Names in a status; further ones are only counted.
pub const NAMES_MAX: usize = 100;
/// Names on one line of text.
const SHOWN_MAX: usize = 8;

/// The first [`NAMES_MAX`] of some names, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Number of all.
    pub count: u64,
    /// The first of them.
    pub names: Vec<String>,
}

impl<S: ToString> FromIterator<S> for Named {
    fn from_iter<T: IntoIterator<Item = S>>(all: T) -> Self {
        let mut named = Self::default();
        for name in all {
            if named.names.len() < NAMES_MAX {
                named.names.push(name.to_string());
            }
            named.count += 1;
        }
        named
    }
}

impl Named {
    /// The first few, and how many more there are; none if there are none.
    pub fn shown(&self) -> Option<String> {
        let first = self.names.iter().take(SHOWN_MAX);
        let names: Vec<_> = first.map(|name| ascii(name)).collect();
        let more = self.count.saturating_sub(names.len() as u64);
        let shown = names.join(", ");
        match (self.count, more) {
            (0, _) => None,
            (_, 0) => Some(shown),
            _ => Some(format!("{shown} and {} more", count(more))),
        }
    }
}

/// Addresses that are not guarded or served as the others are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressStatus {
    /// Pairs of address and port that XDP has no room for. With a wildcard socket they are
    /// answered, else they are not listened on.
    pub unguarded: Named,
    /// Guarded pairs whose clients XDP cannot challenge, because frames for them may have a
    /// VLAN tag.
    pub unchallenged: Named,
    /// Configured addresses and interfaces that this host does not have yet.
    pub absent: Named,
    /// Addresses of this host that XDP has no room for, so that it may answer a packet with one
    /// as its forged source.
    pub own_left_out: u64,
    /// Hardware addresses that XDP has no room for, so that it does not answer frames for
    /// them.
    pub hardware_left_out: u64,
}

impl AddressStatus {
    /// A label and a text for each kind of such addresses.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(shown) = self.unguarded.shown() {
            let what = format!("{shown}: traffic to these addresses is not filtered");
            lines.push(("unguarded", what));
        }
        if let Some(shown) = self.unchallenged.shown() {
            let what = format!("{shown}: guarded but cannot be challenged");
            lines.push(("unchallenged", what));
        }
        if let Some(shown) = self.absent.shown() {
            lines.push(("absent", format!("{shown}: not on this host yet")));
        }
        if self.own_left_out > 0 || self.hardware_left_out > 0 {
            let what = format!(
                "{} own and {} hardware addresses are unknown to XDP",
                count(self.own_left_out),
                count(self.hardware_left_out)
            );
            lines.push(("left out", what));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted_and_few_are_shown() {
        assert_eq!(Named::default().shown(), None);
        let few: Named = ["a", "\u{1b}[2J"].into_iter().collect();
        assert_eq!(few.shown().as_deref(), Some("a, \\u{1b}[2J"));
        let many: Named = (0..1000).collect();
        assert_eq!((many.count, many.names.len()), (1000, NAMES_MAX));
        assert_eq!(
            many.shown().as_deref(),
            Some("0, 1, 2, 3, 4, 5, 6, 7 and 992 more")
        );
    }

    #[test]
    fn a_status_without_such_addresses_has_no_line() {
        assert!(AddressStatus::default().lines().is_empty());
        let status = AddressStatus {
            unguarded: ["192.0.2.1:25"].into_iter().collect(),
            own_left_out: 3,
            ..AddressStatus::default()
        };
        let lines = status.lines();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].1.starts_with("192.0.2.1:25: "));
        assert!(lines[1].1.starts_with("3 own and 0 hardware addresses"));
    }
}
