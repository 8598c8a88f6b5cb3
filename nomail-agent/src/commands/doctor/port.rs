//! Checks of the addresses that the agent listens on, or would: which process has them, and
//! how it greets.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use nix::net::if_::if_nametoindex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    finding::{Check, Finding},
    host::Host,
    listen_pair::ListenPair,
    reach::ReachTest,
};
use crate::{
    config::{Config, ListenAddress},
    net::{LocalAddress, has_listener, listening_process},
    status::Status,
};

const SMTP_PORT: u16 = 25;
/// Longest time for a connection; a lost first SYN takes a second of it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest time for greeting and QUIT.
const DIALOG_TIMEOUT: Duration = Duration::from_millis(1500);
/// Connections at once.
const DIALOGS: usize = 32;
/// Longest reply line (RFC 5321 section 4.5.3.1.5).
const REPLY_MAX: usize = 512;

/// What the running agent listens on, else what one with this configuration would.
pub(super) fn pairs(
    config: &Config,
    status: Option<&Status>,
    local: &BTreeSet<LocalAddress>,
    interfaces: &[(u32, String)],
) -> Vec<ListenPair> {
    if let Some(status) = status {
        let shown = status.guarded.iter();
        return shown
            .filter_map(|shown| ListenPair::parse(shown))
            .map(|pair| pair.scoped(local))
            .collect();
    }
    if !config.listen.is_empty() {
        return config.listen.iter().map(configured).collect();
    }
    let found = local.iter().filter_map(|found| {
        let mut interfaces = interfaces.iter();
        let (index, name) = interfaces.find(|(index, _)| *index == found.interface)?;
        Some(match found.address {
            IpAddr::V6(address) if found.is_link_local() => ListenPair {
                address: SocketAddrV6::new(address, SMTP_PORT, 0, *index).into(),
                shown: format!("[{address}%{name}]:{SMTP_PORT}"),
            },
            address => ListenPair::new(SocketAddr::new(address, SMTP_PORT)),
        })
    });
    found.collect()
}

fn configured(listen: &ListenAddress) -> ListenPair {
    let scope = listen.scope.as_deref();
    let scope = scope.and_then(|name| if_nametoindex(name).ok());
    let address = match listen.address {
        IpAddr::V6(address) => {
            SocketAddrV6::new(address, listen.port, 0, scope.unwrap_or(0)).into()
        }
        address => SocketAddr::new(address, listen.port),
    };
    ListenPair {
        address,
        shown: listen.to_string(),
    }
}

pub(super) async fn check(host: &Host, reach: &ReachTest) -> Vec<Finding> {
    let mut findings = ports(host);
    if host.status.is_none() {
        findings.push(Finding::skip(Check::Greeting, "no agent was found to ask"));
        return findings;
    }
    if host.answers_in_xdp() {
        findings.push(Finding::skip(
            Check::Greeting,
            "XDP answers traffic that arrives over an interface, not this host itself: try it \
             from another host",
        ));
        return findings;
    }
    let heard: Vec<_> = stream::iter(&host.pairs)
        .map(|pair| async move { (pair, greet(pair.address).await) })
        .buffered(DIALOGS)
        .collect()
        .await;
    let reached = |pair: &ListenPair| reach.of(pair.address);
    findings.extend(greetings(&heard, host.name.as_str(), reached));
    findings
}

fn ports(host: &Host) -> Vec<Finding> {
    let check = Check::Port;
    if host.pairs.is_empty() {
        return vec![Finding::fail(
            check,
            "there is no address to listen on",
            "ip address add ADDRESS/LENGTH dev NAME, or listen = [\"ADDRESS:25\"]",
        )];
    }
    if host.status.is_some() {
        let how = match host.answers_in_xdp() {
            true => "XDP answers, without a socket, on",
            false => "nomail-agent listens on",
        };
        let shown = shown(host.pairs.iter());
        return vec![Finding::ok(check, format!("{how} {shown}"))];
    }
    let (held, free): (Vec<_>, Vec<_>) = host
        .pairs
        .iter()
        .partition(|pair| has_listener(pair.address));
    let mut findings = Vec::new();
    if !free.is_empty() {
        let free = shown(free.into_iter());
        findings.push(Finding::ok(check, format!("no process listens on {free}")));
    }
    findings.extend(
        held.into_iter()
            .map(|pair| port(pair, listening_process(pair.address), host.root)),
    );
    findings
}

fn port(pair: &ListenPair, holder: Option<String>, root: bool) -> Finding {
    let shown = &pair.shown;
    if holder.is_none() && !root {
        return Finding::needs_root(Check::Port, &format!("which process listens on {shown}"));
    }
    let holder = holder.unwrap_or_else(|| "a process of another PID namespace".to_owned());
    Finding::fail(
        Check::Port,
        format!("{holder} listens on {shown}"),
        "stop it, or leave that address out: listen = [\"ADDRESS:25\"]",
    )
}

fn shown<'a>(pairs: impl Iterator<Item = &'a ListenPair>) -> String {
    let shown: Vec<_> = pairs.map(|pair| pair.shown.as_str()).collect();
    shown.join(", ")
}

/// What came of a connection.
#[derive(Debug)]
enum Greeted {
    /// The first line of the greeting.
    Line(Vec<u8>),
    /// It failed after it was established.
    Broken(io::Error),
    /// It was not established.
    Unconnected(io::Error),
}

async fn greet(to: SocketAddr) -> Greeted {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await;
    let mut stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Greeted::Unconnected(error),
        Err(_) => return Greeted::Unconnected(io::ErrorKind::TimedOut.into()),
    };
    let dialog = async {
        let line = read_line(&mut stream).await?;
        // The reply does not matter.
        if stream.write_all(b"QUIT\r\n").await.is_ok() {
            let _ = read_line(&mut stream).await;
        }
        Ok(line)
    };
    match timeout(DIALOG_TIMEOUT, dialog).await {
        Ok(Ok(line)) => Greeted::Line(line),
        Ok(Err(error)) => Greeted::Broken(error),
        Err(_) => Greeted::Broken(io::ErrorKind::TimedOut.into()),
    }
}

async fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = vec![0; REPLY_MAX];
    let mut length = 0;
    while length < REPLY_MAX && !line[..length].contains(&b'\n') {
        match stream.read(&mut line[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    line.truncate(length);
    Ok(line)
}

/// `reached`: whether SYNs from outside reach a listener, if known.
fn greetings(
    heard: &[(&ListenPair, Greeted)],
    name: &str,
    reached: impl Fn(&ListenPair) -> Option<bool>,
) -> Vec<Finding> {
    let check = Check::Greeting;
    let mut findings = Vec::new();
    let mut good: Vec<&ListenPair> = Vec::new();
    for (pair, heard) in heard {
        let shown = &pair.shown;
        let line = match heard {
            Greeted::Line(line) => line.trim_ascii_end(),
            // A host whose rules forbid outgoing mail cannot connect to itself either.
            Greeted::Unconnected(error) if reached(pair) != Some(false) => {
                let from_outside = match reached(pair) {
                    Some(_) => "a SYN from outside reaches the listener",
                    None => "whether a SYN from outside reaches the listener is not known",
                };
                findings.push(Finding::unseen(
                    check,
                    format!(
                        "{shown}, from this host itself: {error}: rules for outgoing mail may forbid \
                         the connection; {from_outside}"
                    ),
                    "connect from another host",
                ));
                continue;
            }
            Greeted::Broken(error) | Greeted::Unconnected(error) => {
                findings.push(Finding::fail(
                    check,
                    format!("{shown}, from this host itself: {error}"),
                    "check the agent's log, and the firewall's rules for lo",
                ));
                continue;
            }
        };
        let mut words = line.split(|&byte| byte == b' ');
        let code = words.next().unwrap_or_default();
        let named = words.next().is_some_and(|word| word == name.as_bytes());
        let line = line.escape_ascii();
        match code {
            b"521" | b"220" if named => good.push(pair),
            b"421" if named => findings.push(Finding::warn(
                check,
                format!("{shown} has no room: {line}"),
                "limits.connections = N, with a larger N",
            )),
            _ => findings.push(Finding::fail(
                check,
                format!("{shown} is not answered as by {name}: \"{line}\""),
                "remove the rule that redirects it: nft list ruleset",
            )),
        }
    }
    if !good.is_empty() {
        let shown = shown(good.into_iter());
        findings.push(Finding::ok(
            check,
            format!("{name} answers on {shown}, from this host itself"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests;
