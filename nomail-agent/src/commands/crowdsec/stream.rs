//! What the API answers, as JSON: decisions that are new and that are deleted.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use crate::status::DECISIONS_MAX;

/// Longest duration: what is longer counts as this.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// An answer. One without both lists is none: it must not look as if nothing were
/// denied.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamAnswer {
    pub(super) new: Bans,
    pub(super) deleted: Bans,
}

/// What a decision is about: the API keeps the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Ip,
    Range,
}

/// What identifies a decision. Not its number: of two on one address the API names only
/// one, and the deletion may be that of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StreamKey {
    pub(super) scope: Scope,
    /// Without host bits, and no IPv4 in IPv6.
    pub(super) prefix: IpNet,
}

/// A decision to ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ban {
    pub(super) key: StreamKey,
    /// How long it holds from now on; 0 when it is over.
    pub(super) left: Duration,
}

/// Those decisions of a list that are bans of addresses or ranges.
#[derive(Debug, Default)]
pub(super) struct Bans {
    pub(super) bans: Vec<Ban>,
    /// More of them, for which there is no room.
    pub(super) beyond: usize,
}

impl Bans {
    pub(super) fn len(&self) -> usize {
        self.bans.len() + self.beyond
    }
}

/// As the API writes it.
#[derive(Deserialize)]
struct StreamDecision {
    #[serde(rename = "type")]
    kind: String,
    scope: String,
    value: String,
    duration: String,
}

impl StreamDecision {
    /// None: it is no ban, or not of an address or a range.
    fn ban(&self) -> Option<Ban> {
        let scope = if self.scope.eq_ignore_ascii_case("ip") {
            Scope::Ip
        } else if self.scope.eq_ignore_ascii_case("range") {
            Scope::Range
        } else {
            return None;
        };
        let is_ban = self.kind.eq_ignore_ascii_case("ban");
        is_ban.then_some(Ban {
            key: StreamKey {
                scope,
                prefix: prefix_of(&self.value)?,
            },
            left: duration_of(&self.duration)?,
        })
    }
}

impl<'de> Deserialize<'de> for Bans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Keeps what is needed of each decision, so that the text of many is never in
        /// memory at once.
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Bans;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of decisions, or null")
            }

            fn visit_unit<E>(self) -> Result<Bans, E> {
                Ok(Bans::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bans, A::Error> {
                let mut found = Bans::default();
                while let Some(decision) = list.next_element::<StreamDecision>()? {
                    match decision.ban() {
                        None => {}
                        Some(_) if found.bans.len() >= DECISIONS_MAX => found.beyond += 1,
                        Some(ban) => found.bans.push(ban),
                    }
                }
                Ok(found)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// A value as somebody typed it: an address or a network, with host bits or not,
/// IPv4 perhaps in IPv6.
fn prefix_of(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().ok()?,
    };
    let unmapped = match prefix {
        IpNet::V6(network) => unmapped(network.addr(), network.prefix_len()),
        IpNet::V4(_) => None,
    };
    Some(unmapped.unwrap_or(prefix).trunc())
}

fn unmapped(address: Ipv6Addr, length: u8) -> Option<IpNet> {
    let ipv4 = address.to_ipv4_mapped()?;
    let network = Ipv4Net::new(ipv4, length.checked_sub(96)?).ok()?;
    Some(IpNet::V4(network))
}

/// A duration as Go writes it, such as `3h59m58.7s`; 0 for a negative one.
fn duration_of(text: &str) -> Option<Duration> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut secs = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_secs = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        secs += number.parse::<f64>().ok()? * unit_secs;
        rest = tail;
    }
    if text.is_empty() {
        return None;
    }
    if negative {
        return Some(Duration::ZERO);
    }
    // It fails for what is longer than any duration.
    let left = Duration::try_from_secs_f64(secs).unwrap_or(DURATION_MAX);
    Some(left.min(DURATION_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("192.0.2.7", Some("192.0.2.7/32"))]
    #[case(" 192.0.2.7/24 ", Some("192.0.2.0/24"))]
    #[case("2001:DB8:1::5/48", Some("2001:db8:1::/48"))]
    #[case("::ffff:192.0.2.9", Some("192.0.2.9/32"))]
    #[case("::FFFF:192.0.2.9/120", Some("192.0.2.0/24"))]
    #[case("::ffff:0:0/96", Some("0.0.0.0/0"))]
    #[case("::/0", Some("::/0"))]
    #[case("192.0.2.7/33", None)]
    #[case("fe80::1%eth0", None)]
    #[case("example.org", None)]
    #[case("", None)]
    fn prefixes(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(prefix_of(text), expected.map(|text| text.parse().unwrap()));
    }

    #[rstest]
    #[case("9m58.7s", Some(598.7))]
    #[case("3h59m59.576599868s", Some(14_399.576_599_868))]
    #[case("-10.706421ms", Some(0.0))]
    #[case("1.5h", Some(5400.0))]
    #[case("10µs", Some(0.000_01))]
    #[case("0", Some(0.0))]
    #[case("0s", Some(0.0))]
    #[case("99999999999999999999h", Some(DURATION_MAX.as_secs_f64()))]
    #[case("", None)]
    #[case("-", None)]
    #[case("5", None)]
    #[case("h", None)]
    #[case("1d", None)]
    #[case("1..2s", None)]
    #[case("infs", None)]
    #[case("NaNs", None)]
    fn durations(#[case] text: &str, #[case] secs: Option<f64>) {
        let found = duration_of(text).map(|found| found.as_secs_f64());
        match (found, secs) {
            (Some(found), Some(secs)) => assert!((found - secs).abs() < 1e-6, "{found}"),
            (found, secs) => assert_eq!(found, secs),
        }
    }

    fn decision(kind: &str, scope: &str, value: &str) -> String {
        format!(
            r#"{{"duration":"1h","id":1,"origin":"cscli","scenario":"x","scope":"{scope}","type":"{kind}","value":"{value}"}}"#
        )
    }

    #[test]
    fn bans_of_addresses_and_ranges_are_taken() {
        let new = [
            decision("ban", "Ip", "192.0.2.7"),
            decision("Ban", "range", "2001:db8::/32"),
            decision("captcha", "Ip", "192.0.2.8"),
            decision("ban", "Country", "XX"),
            decision("ban", "Ip", "nonsense"),
        ];
        let text = format!(r#"{{"deleted":null,"new":[{}]}}"#, new.join(","));
        let answer: StreamAnswer = serde_json::from_reader(text.as_bytes()).unwrap();
        assert_eq!(answer.deleted.len(), 0);
        let found: Vec<_> = answer.new.bans.iter().map(|ban| ban.key).collect();
        let key = |scope, prefix: &str| StreamKey {
            scope,
            prefix: prefix.parse().unwrap(),
        };
        assert_eq!(
            found,
            [
                key(Scope::Ip, "192.0.2.7/32"),
                key(Scope::Range, "2001:db8::/32")
            ]
        );
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case(r#"{"message":"access forbidden"}"#)]
    #[case(r#"{"new":null}"#)]
    #[case(r#"{"new":null,"deleted":7}"#)]
    #[case(r#"{"new":[7],"deleted":null}"#)]
    #[case(r#"{"new":[{"value":"192.0.2.7"}],"deleted":null}"#)]
    #[case(r#"{"new":null,"deleted":null} more"#)]
    #[case("null")]
    fn what_is_no_answer_is_refused(#[case] text: &str) {
        assert!(serde_json::from_reader::<_, StreamAnswer>(text.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = serde_json::from_reader::<_, StreamAnswer>(&bytes[..]);
        }

        #[test]
        fn any_value_is_read(value in "[0-9a-fA-F:./ ]{0,24}|\\PC*", duration in "[-0-9.hmsunµ]{0,16}|\\PC*") {
            if let Some(prefix) = prefix_of(&value) {
                prop_assert_eq!(prefix, prefix.trunc());
            }
            if let Some(left) = duration_of(&duration) {
                prop_assert!(left <= DURATION_MAX);
            }
        }
    }
}
