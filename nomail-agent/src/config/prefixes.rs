//! A line of a list of prefixes: one prefix and any words after it, or a line of a public
//! block list. Spamhaus DROP (text and JSON), DShield's `block.txt` and ipsum are read as
//! published.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    addresses,
    error::{ValueError, quoted, wrong},
    lines::{BLANK, COMMENT, EntryError, begin_of},
};

/// The heading of the columns of DShield's `block.txt`.
const DSHIELD_HEADING: [&str; 3] = ["Start", "End", "Netblock"];

/// The content of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// A network without host bits, and whether it was written with them.
    Network { network: IpNet, corrected: bool },
    /// No network.
    Nothing,
}

/// A line of Spamhaus' JSON, which has more keys than these.
#[derive(Deserialize)]
struct JsonLine {
    cidr: Option<String>,
    r#type: Option<String>,
}

/// Parses one line. Words after the first are ignored, unless they make it a range.
pub(super) fn listed(line: &str) -> Result<Listed, EntryError> {
    let begin = begin_of(line);
    let error = |error| EntryError::new(begin, error);
    if line[begin..].starts_with('{') {
        return json(&line[begin..]).map_err(error);
    }
    let text = line.split(COMMENT).next().unwrap_or_default();
    let mut words = text.split(BLANK).filter(|word| !word.is_empty());
    let Some(first) = words.next() else {
        return Ok(Listed::Nothing);
    };
    let (second, third) = (words.next(), words.next());
    let heading = [Some(first), second, third];
    if heading == DSHIELD_HEADING.map(Some) {
        return Ok(Listed::Nothing);
    }
    if let Some(range) = range(first, second, third) {
        return range.map_err(error);
    }
    network(first).map_err(error)
}

fn network(text: &str) -> Result<Listed, ValueError> {
    let (network, corrected) = addresses::network_of_list(text)?;
    Ok(Listed::Network { network, corrected })
}

/// A first and a last address and the length of their prefix, as DShield publishes them.
/// None: the line is no range.
fn range(
    first: &str,
    second: Option<&str>,
    third: Option<&str>,
) -> Option<Result<Listed, ValueError>> {
    let begin: IpAddr = first.parse().ok()?;
    if second? == "-" {
        return Some(wrong(format!(
            "{} begins a range of addresses: write the networks that are in it",
            quoted(first)
        )));
    }
    let end: IpAddr = second?.parse().ok()?;
    let length: Option<u8> = third.and_then(|length| length.parse().ok());
    let network = length.and_then(|length| IpNet::new(begin, length).ok());
    Some(match network {
        Some(network) if network.network() == begin && network.broadcast() == end => {
            Ok(Listed::Network {
                network,
                corrected: false,
            })
        }
        _ => wrong(format!(
            "{} to {} is not a network whose length follows: write \"192.0.2.0/24\"",
            quoted(first),
            quoted(second?)
        )),
    })
}

fn json(line: &str) -> Result<Listed, ValueError> {
    let JsonLine { cidr, r#type } = match serde_json::from_str(line) {
        Ok(read) => read,
        // ListLine and column of its error are those within the line.
        Err(_) => return wrong("is not JSON with a text \"cidr\"".to_owned()),
    };
    match cidr {
        Some(cidr) => network(&cidr),
        None if r#type.as_deref() == Some("metadata") => Ok(Listed::Nothing),
        None => wrong("is JSON without \"cidr\": name a list of networks".to_owned()),
    }
}
