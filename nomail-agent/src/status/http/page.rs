//! The page for people at `/`, and what its script asks for.

use nomail_common::{
    counted::Counted,
    verdict::{Answer, Verdict},
};
use serde::Serialize;
use serde_json::json;

use super::history::{Chart, History};
use crate::{
    counts::Counts,
    refusal::RefusalPoint,
    smtp::{Counter, Outcome, protocol::Protocol},
    status::{
        crowdsec::Pull,
        domains::suspects,
        shape::{InterfaceStatus, Status, Trouble},
    },
};

/// Sources on the page.
pub const SOURCES_SHOWN: usize = 20;

/// The page, with [`NONCE`] and [`VOCABULARY`] in it.
pub(super) const HTML: &str = include_str!("page.html");
/// In place of the nonce of style and script.
pub(super) const NONCE: &str = "NONCE";
/// In place of [`vocabulary`].
pub(super) const VOCABULARY: &str = "VOCABULARY";

/// The JSON at `/status.json`.
#[derive(Debug, Serialize)]
pub struct View {
    /// As `nomail-agent status --json` has it.
    #[serde(flatten)]
    pub status: Status,
    /// The last minutes.
    pub history: History,
    /// Since the start, what [`Self::history`] has the rates of.
    totals: Counts<Chart>,
    /// Words on what is right and wrong, each with its CSS class.
    states: Vec<(String, &'static str)>,
}

impl View {
    /// Of a status and the rates before it.
    pub fn new(status: Status, history: History) -> Self {
        Self {
            totals: Chart::totals(&status.counts, status.connections.accepted),
            states: states(&status),
            status,
            history,
        }
    }
}

/// What is right and wrong, in a few words each.
fn states(status: &Status) -> Vec<(String, &'static str)> {
    let in_trouble = |interface: &InterfaceStatus| {
        let trouble = interface
            .trouble
            .filter(|trouble| *trouble != Trouble::Gone)?;
        let InterfaceStatus { name, reason, .. } = interface;
        Some((format!("{} on {name}: {reason}", trouble.label()), "bad"))
    };
    let mut states: Vec<_> = status.interfaces.iter().filter_map(in_trouble).collect();
    if states.is_empty() {
        let off = status.interfaces.iter().filter(|one| !one.is_guarded());
        let off: Vec<_> = off.map(|interface| interface.name.as_str()).collect();
        states.push(match off.len() {
            all if all == status.interfaces.len() => {
                ("no guard on any interface".to_owned(), "warn")
            }
            0 => ("guarding".to_owned(), "good"),
            _ => (format!("not guarding {}", off.join(", ")), "bad"),
        });
    }
    let others = [
        (status.flood, "flood", "bad"),
        (status.observe, "observing only", "warn"),
        (!status.reload.ok, "the last reload failed", "bad"),
        (status.guarded.is_empty(), "listening nowhere", "bad"),
        (
            suspects(&status.foreign_domains) > 0,
            "mail for other domains arrives",
            "warn",
        ),
    ];
    let others = others.into_iter().filter(|(is, ..)| *is);
    states.extend(others.map(|(_, text, class)| (text.to_owned(), class)));
    states
}

/// The page for one request, whose style and script run with `nonce`.
pub(super) fn html(nonce: &str) -> String {
    let html = HTML.replace(NONCE, nonce);
    html.replace(VOCABULARY, &vocabulary())
}

/// The keys and labels of what is counted, as the page's script reads them.
fn vocabulary() -> String {
    fn words<T: Counted>() -> Vec<[&'static str; 2]> {
        T::ALL
            .iter()
            .map(|word| [word.key(), word.label()])
            .collect()
    }
    json!({
        "charts": words::<Chart>(),
        "syn": words::<Verdict>(),
        "answers": words::<Answer>(),
        "ended": words::<Outcome>(),
        "refused": words::<RefusalPoint>(),
        "talkers": words::<Protocol>(),
        "counters": words::<Counter>(),
        "pulls": words::<Pull>(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_is_right_and_wrong() {
        let mut status = Status {
            interfaces: vec![InterfaceStatus::default(), InterfaceStatus::default()],
            guarded: vec!["192.0.2.7:25".to_owned()],
            ..Status::default()
        };
        status.reload.ok = true;
        for (interface, name) in status.interfaces.iter_mut().zip(["eth0", "eth1"]) {
            (interface.name, interface.xdp_mode) = (name.to_owned(), "native".to_owned());
        }
        let texts = |status: &Status| {
            let states = states(status).into_iter();
            states.map(|(text, _)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&status), ["guarding"]);
        let eth1 = &mut status.interfaces[1];
        (eth1.xdp_mode, eth1.trouble) = ("off".to_owned(), Some(Trouble::Gone));
        assert_eq!(texts(&status), ["not guarding eth1"]);
        let eth1 = &mut status.interfaces[1];
        (eth1.reason, eth1.trouble) = ("why".to_owned(), Some(Trouble::Detached));
        status.flood = true;
        assert_eq!(texts(&status), ["guard detached on eth1: why", "flood"]);
        let all_wrong = Status {
            observe: true,
            foreign_domains: vec![crate::status::ForeignDomainStatus {
                suspect: true,
                ..crate::status::ForeignDomainStatus::default()
            }],
            ..Status::default()
        };
        let expected = [
            "no guard on any interface",
            "observing only",
            "the last reload failed",
            "listening nowhere",
            "mail for other domains arrives",
        ];
        assert_eq!(texts(&all_wrong), expected);
    }
}
