//! What the agent tells about itself: the shape, and how people read it.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::reload::Reload;

/// The state of a running agent. The keys are a contract with dashboards and
/// scripts: more may be added, none renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Version of the map layout.
    pub abi: u32,
    /// First word of the greeting.
    pub hostname: String,
    /// Seconds since start.
    pub uptime_secs: u64,
    /// Whether SYNs are being answered by XDP.
    pub flood: bool,
    /// Whether verdicts are only counted.
    pub observe: bool,
    /// The guarded interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// The pairs that the responder listens on.
    pub guarded: Vec<String>,
    /// The last reload of the configuration.
    pub reload: ReloadStatus,
    /// [`crate::config::Config::hash`] of the configuration in effect, in 16
    /// hexadecimal digits: a JSON number would lose some of them.
    pub config_hash: String,
    /// SYNs received for them, by verdict.
    pub syn: SynStatus,
    /// What XDP answered.
    pub answers: AnswerStatus,
    /// The connections of the responder.
    pub connections: ConnectionStatus,
    /// The busiest sources.
    pub sources: Vec<SourceStatus>,
    /// Sources in the table of the XDP program.
    pub sources_tracked: u64,
    /// Sources that lost their place in it to others.
    pub source_evictions: u64,
}

/// An interface that the XDP program is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native`, `generic` or `off`.
    pub xdp_mode: String,
    /// The kernel's number of the program, 0 when off.
    pub program_id: u32,
    /// Whether the program outlives the agent.
    pub pinned: bool,
}

/// What became of the last reload. The start counts as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Whether it was taken over.
    pub ok: bool,
    /// Seconds since.
    pub age_secs: u64,
    /// Why it was not; empty if it was.
    pub error: String,
    /// Keys whose changes wait for a restart.
    pub needs_restart: Vec<String>,
}

impl From<Reload> for ReloadStatus {
    fn from(reload: Reload) -> Self {
        Self {
            ok: reload.error.is_none(),
            age_secs: reload.at.elapsed().as_secs(),
            error: reload.error.unwrap_or_default(),
            needs_restart: reload
                .needs_restart
                .into_iter()
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// SYNs by verdict; `total` is their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynStatus {
    /// All.
    pub total: u64,
    /// Given to the network stack.
    pub passed: u64,
    /// Their source was over its bucket.
    pub limited_source: u64,
    /// Their prefix was over its bucket.
    pub limited_prefix: u64,
    /// Their source is on the deny list.
    pub denied: u64,
    /// More than the listener can take.
    pub flood: u64,
    /// Not what the stack would take as a SYN.
    pub malformed: u64,
}

/// What XDP answered by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerStatus {
    /// SYN cookies sent.
    pub cookie: u64,
    /// Challenges sent.
    pub challenge: u64,
    /// Challenges that were answered, so that the client's next SYN passes.
    pub proven: u64,
    /// SYNs that were to be answered and could not be; they were dropped.
    pub unanswerable: u64,
    /// Refusals without a socket.
    pub stateless: u64,
}

/// Connections of the responder: accepted = active + quit + timed_out +
/// closed_by_peer + closed + shed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Accepted from the network stack.
    pub accepted: u64,
    /// Open now.
    pub active: u64,
    /// Refused in the greeting.
    pub refused_greeting: u64,
    /// Refused at EHLO or HELO.
    pub refused_ehlo: u64,
    /// Refused at MAIL.
    pub refused_mail: u64,
    /// Refused at RCPT.
    pub refused_rcpt: u64,
    /// Ended by QUIT.
    pub quit: u64,
    /// Ended by a deadline.
    pub timed_out: u64,
    /// Ended by the client without QUIT.
    pub closed_by_peer: u64,
    /// Ended by the agent for another reason.
    pub closed: u64,
    /// Refused at once and closed, for want of room.
    pub shed: u64,
    /// Those of `closed` that spoke HTTP.
    pub http: u64,
    /// Those of `closed` that began with a TLS hello.
    pub tls: u64,
    /// Those of `closed` that sent what no protocol of text has.
    pub garbage: u64,
    /// Refused recipients of other domains than this host's name.
    pub recipients_elsewhere: u64,
    /// Networks that `refuse_at = "auto"` remembers.
    pub senders: u64,
}

/// A source in both halves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// An IPv4 address, or an IPv6 /64.
    pub source: String,
    /// SYNs since it entered the table.
    pub syn: u64,
    /// Those of them over its limit.
    pub limited: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Seconds since its last SYN or connection.
    pub last_seen_secs: u64,
}

/// A source as people write it: an IPv4 address, or the /64 that an IPv6 source
/// is.
pub fn shown_source(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            syn, connections, ..
        } = self;
        writeln!(
            out,
            "{} does not accept mail (nomail {}, up {})",
            self.hostname,
            self.version,
            duration(self.uptime_secs)
        )?;
        let interfaces: Vec<_> = self
            .interfaces
            .iter()
            .map(|interface| {
                let pinned = if interface.pinned { ", pinned" } else { "" };
                format!("{} ({}{pinned})", interface.name, interface.xdp_mode)
            })
            .collect();
        writeln!(
            out,
            "guard        {}{}",
            if interfaces.is_empty() {
                "off: the responder runs alone".to_owned()
            } else {
                interfaces.join(", ")
            },
            if self.observe { ", observing only" } else { "" }
        )?;
        writeln!(out, "listening    {}", self.guarded.join(", "))?;
        let reload = &self.reload;
        if !reload.ok {
            let age = duration(reload.age_secs);
            writeln!(out, "reload       failed {age} ago: {}", reload.error)?;
        } else if !reload.needs_restart.is_empty() {
            let keys = reload.needs_restart.join(", ");
            writeln!(out, "reload       a change of {keys} needs a restart")?;
        }
        writeln!(
            out,
            "SYNs         {} received: {} passed, {} over their source's limit, {} over their \
             prefix's, {} over the listener's, {} denied, {} malformed",
            syn.total,
            syn.passed,
            syn.limited_source,
            syn.limited_prefix,
            syn.flood,
            syn.denied,
            syn.malformed
        )?;
        if self.answers != AnswerStatus::default() {
            let AnswerStatus {
                cookie,
                challenge,
                proven,
                unanswerable,
                ..
            } = self.answers;
            writeln!(
                out,
                "answers      {challenge} challenges sent, {proven} proven; {cookie} SYN \
                 cookies sent; {unanswerable} SYNs could not be answered"
            )?;
        }
        writeln!(
            out,
            "connections  {} accepted: {} active, {} quit, {} timed out, {} closed by the client, \
             {} closed, {} shed",
            connections.accepted,
            connections.active,
            connections.quit,
            connections.timed_out,
            connections.closed_by_peer,
            connections.closed,
            connections.shed
        )?;
        writeln!(
            out,
            "refused      {} in the greeting, {} at EHLO, {} at MAIL, {} at RCPT; {} spoke HTTP, \
             {} TLS, {} garbage",
            connections.refused_greeting,
            connections.refused_ehlo,
            connections.refused_mail,
            connections.refused_rcpt,
            connections.http,
            connections.tls,
            connections.garbage
        )?;
        if connections.recipients_elsewhere > 0 {
            writeln!(
                out,
                "warning      {} recipients of other domains were refused: is this host an MX of \
                 one? The log names them",
                connections.recipients_elsewhere
            )?;
        }
        writeln!(
            out,
            "sources      {} tracked, {} replaced by others",
            self.sources_tracked, self.source_evictions
        )?;
        if self.sources.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<40} {:>12} {:>12} {:>12} {:>10}",
            "BUSIEST SOURCES", "SYNS", "LIMITED", "CONNECTIONS", "LAST SEEN"
        )?;
        for source in &self.sources {
            writeln!(
                out,
                "{:<40} {:>12} {:>12} {:>12} {:>10}",
                source.source,
                source.syn,
                source.limited,
                source.connections,
                duration(source.last_seen_secs)
            )?;
        }
        Ok(())
    }
}

/// The two largest units of a number of seconds.
fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let status = Status {
            interfaces: vec![InterfaceStatus::default()],
            sources: vec![SourceStatus::default()],
            ..Status::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        let contract = [
            (
                "",
                "version abi hostname uptime_secs flood observe interfaces guarded reload config_hash syn answers connections sources",
            ),
            ("/reload", "ok age_secs error needs_restart"),
            ("/interfaces/0", "name xdp_mode program_id pinned"),
            (
                "/syn",
                "total passed limited_source limited_prefix denied flood malformed",
            ),
            ("/answers", "cookie challenge proven stateless"),
            (
                "/connections",
                "accepted active refused_greeting refused_ehlo refused_mail refused_rcpt quit timed_out shed",
            ),
            (
                "/sources/0",
                "source syn limited connections last_seen_secs",
            ),
        ];
        for (path, keys) in contract {
            let object = json.pointer(path).unwrap();
            for key in keys.split(' ') {
                assert!(object.get(key).is_some(), "{path}/{key}");
            }
        }
    }

    #[rstest]
    #[case::well(true, "", &[], None)]
    #[case::failed(false, "a.toml:1:1: wrong", &[], Some("failed 1m01s ago: a.toml:1:1: wrong"))]
    #[case::waiting(
        true,
        "",
        &["listen", "user"],
        Some("a change of listen, user needs a restart")
    )]
    fn a_reload_is_told_where_there_is_something_to_do(
        #[case] ok: bool,
        #[case] error: &str,
        #[case] needs_restart: &[&str],
        #[case] expected: Option<&str>,
    ) {
        let status = Status {
            reload: ReloadStatus {
                ok,
                age_secs: 61,
                error: error.to_owned(),
                needs_restart: needs_restart.iter().map(ToString::to_string).collect(),
            },
            ..Status::default()
        };
        let text = status.to_string();
        let told = text
            .lines()
            .find_map(|line| line.strip_prefix("reload       "));
        assert_eq!(told, expected);
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(61, "1m01s")]
    #[case(7_260, "2h01m")]
    #[case(90_000, "1d01h")]
    fn durations_read_well(#[case] secs: u64, #[case] text: &str) {
        assert_eq!(duration(secs), text);
    }
}
