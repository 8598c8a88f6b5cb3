//! What is between the wire and the listener: rules, connection tracking, and the
//! kernel's own defence.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;

use super::{
    Check, Finding, Host,
    kernel::number,
    rules::{self, Chains, Fate, Redirect, Syn},
};
use crate::smtp::LISTEN_BACKLOG;

/// Longest that a tool may take to tell the rules.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most octets of rules that are looked at.
const RULES_MAX: u64 = 64 << 20;
/// Where root's tools are; not where the caller says.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Percent of the table of connections from which on it is told.
const CONNTRACK_FULL: u64 = 80;

pub(super) fn check(host: &Host, interfaces: &[(u32, String)]) -> Vec<Finding> {
    let mut findings = firewall(host, interfaces);
    let conntrack_number = |name| number(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
    findings.push(conntrack(
        conntrack_number("count").ok(),
        conntrack_number("max").ok(),
        conntrack_number("tcp_loose").ok(),
    ));
    findings.push(syncookies(number("/proc/sys/net/ipv4/tcp_syncookies").ok()));
    findings.push(somaxconn(number("/proc/sys/net/core/somaxconn").ok()));
    findings
}

/// What the tools that there are have told.
#[derive(Debug, Default)]
struct Told {
    nft: Option<Value>,
    iptables: Option<String>,
    ip6tables: Option<String>,
}

fn firewall(host: &Host, interfaces: &[(u32, String)]) -> Vec<Finding> {
    let check = Check::Firewall;
    if host.answers_in_xdp() {
        return vec![Finding::ok(
            check,
            "its rules see nothing of this: XDP answers before them",
        )];
    }
    if !host.root {
        return vec![Finding::needs_root(check, "the firewall's rules")];
    }
    let told = match told() {
        Ok(told) => told,
        Err(error) => return vec![Finding::unseen(check, error, "nft list ruleset")],
    };
    if told.nft.is_none() && told.iptables.is_none() {
        return vec![Finding::unseen(
            check,
            "neither nft nor iptables-save is there to tell the rules",
            "apt-get install nftables",
        )];
    }
    let mut findings = Vec::new();
    let ports: BTreeSet<u16> = host.pairs.iter().map(|pair| pair.address.port()).collect();
    let looked_at: BTreeSet<_> = host
        .pairs
        .iter()
        .map(|pair| (pair.address.is_ipv6(), pair.address.port()))
        .collect();
    for (ipv6, port) in looked_at {
        for (_, interface) in interfaces {
            let syn = Syn {
                ipv6,
                port,
                interface,
            };
            findings.extend(judge(syn, &chains(&told, syn).fate(), &ports));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            "its rules let SYNs through to the listener",
        ));
    }
    findings
}

fn chains(told: &Told, syn: Syn<'_>) -> Chains {
    let saved = if syn.ipv6 {
        &told.ip6tables
    } else {
        &told.iptables
    };
    let mut chains = Chains::default();
    if let Some(ruleset) = &told.nft {
        chains.extend(rules::nft(ruleset, syn, saved.is_some()));
    }
    if let Some(saved) = saved {
        chains.extend(rules::iptables(saved, syn));
    }
    chains
}

fn judge(syn: Syn<'_>, fate: &Fate, listening: &BTreeSet<u16>) -> Vec<Finding> {
    let check = Check::Firewall;
    let family = if syn.ipv6 { "IPv6" } else { "IPv4" };
    let what = format!("{family} on {}, port {}", syn.interface, syn.port);
    let mut findings = Vec::new();
    for Redirect { port, address } in &fate.redirects {
        let to = port.unwrap_or(syn.port);
        if let Some(address) = address {
            findings.push(Finding::warn(
                check,
                format!("{what}: sent on to {address}, which need not be nomail"),
                format!("leave port {} out of that rule", syn.port),
            ));
        } else if !listening.contains(&to) {
            findings.push(Finding::fail(
                check,
                format!("{what}: redirected to port {to}, where nomail does not listen"),
                format!("remove that rule, or listen on both ports: listen = [\"ADDRESS:{}\", \"ADDRESS:{to}\"]", syn.port),
            ));
        }
    }
    match &fate.dropped {
        Some(dropped) if dropped.some_pass => findings.push(Finding::warn(
            check,
            format!(
                "{what}: chain {} lets only some through, if any",
                dropped.by
            ),
            &dropped.remedy,
        )),
        Some(dropped) => findings.push(Finding::fail(
            check,
            format!("{what}: chain {} lets nobody through", dropped.by),
            &dropped.remedy,
        )),
        None => {}
    }
    findings
}

fn told() -> Result<Told, String> {
    let mut told = Told::default();
    if let Some(octets) = output("nft", &["-j", "list", "ruleset"])? {
        let ruleset = serde_json::from_slice(&octets);
        told.nft = Some(ruleset.map_err(|error| format!("nft -j list ruleset: {error}"))?);
    }
    for (tool, saved) in [
        ("iptables-save", &mut told.iptables),
        ("ip6tables-save", &mut told.ip6tables),
    ] {
        let octets = output(tool, &[])?;
        *saved = octets.map(|octets| String::from_utf8_lossy(&octets).into_owned());
    }
    Ok(told)
}

/// What a tool prints; none if there is no such tool.
fn output(tool: &str, arguments: &[&str]) -> Result<Option<Vec<u8>>, String> {
    let spawned = Command::new(tool)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{tool} cannot be run: {error}")),
    };
    let (sender, receiver) = mpsc::channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || {
        let mut octets = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| {
            stdout.take(RULES_MAX).read_to_end(&mut octets)
        });
        // Nobody may wait for it any more.
        let _ = sender.send(read.map(|_| octets));
    });
    let read = receiver.recv_timeout(TOOL_TIMEOUT);
    // It may have ended, and is to end if it has not.
    let late = read.is_err();
    if late || matches!(&read, Ok(Ok(octets)) if octets.len() as u64 == RULES_MAX) {
        let _ = child.kill();
    }
    let status = child.wait();
    match (read, status) {
        (Ok(Ok(octets)), Ok(status)) if status.success() => Ok(Some(octets)),
        (Ok(Ok(_)), Ok(status)) => Err(format!("{tool} failed: {status}")),
        (Ok(Err(error)), _) | (_, Err(error)) => Err(format!("{tool}: {error}")),
        (Err(_), _) => Err(format!("{tool} did not end within {TOOL_TIMEOUT:?}")),
    }
}

fn conntrack(count: Option<u64>, max: Option<u64>, loose: Option<u64>) -> Finding {
    let check = Check::Conntrack;
    let (Some(count), Some(max)) = (count, max) else {
        return Finding::ok(check, "the kernel tracks no connections here");
    };
    if count * 100 >= max * CONNTRACK_FULL {
        return Finding::warn(
            check,
            format!("{count} of {max} entries are in use: when it is full, all services suffer"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 2),
        );
    }
    let loose = match loose {
        Some(0) => "; tcp_loose = 0, which does not harm challenges",
        _ => "",
    };
    Finding::ok(
        check,
        format!(
            "{count} of {max} entries are in use; what XDP drops or challenges makes none{loose}"
        ),
    )
}

fn syncookies(value: Option<u64>) -> Finding {
    let check = Check::SynCookies;
    match value {
        Some(1) => Finding::ok(check, "1: only when a listener's queue is full"),
        Some(0) => Finding::warn(
            check,
            "0: when a listener's queue is full, new clients are dropped",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        Some(_) => Finding::warn(
            check,
            "2: each connection begins with a cookie; one whose last packet is lost hangs, and \
             never sees the 521",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        None => Finding::skip(check, "the kernel has no SYN cookies"),
    }
}

fn somaxconn(value: Option<u64>) -> Finding {
    let check = Check::Somaxconn;
    let wanted = u64::from(LISTEN_BACKLOG);
    match value {
        Some(value) if value >= wanted => Finding::ok(check, format!("{value}")),
        Some(value) => Finding::warn(
            check,
            format!(
                "{value}: the listener's queue has room for fewer than {wanted}, so that clients \
                 are challenged from {} unproven SYNs a second on",
                (value / 16).max(1)
            ),
            format!("sysctl -w net.core.somaxconn={wanted}, and restart the agent"),
        ),
        None => Finding::skip(check, "the kernel does not tell net.core.somaxconn"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};
    use crate::doctor::rules::Dropped;

    const SYN: Syn<'_> = Syn {
        ipv6: false,
        port: 25,
        interface: "eth0",
    };

    fn results(fate: &Fate) -> Vec<Outcome> {
        let findings = judge(SYN, fate, &[25, 26].into()).into_iter();
        findings.map(|found| found.result).collect()
    }

    #[test]
    fn fates() {
        assert_eq!(results(&Fate::default()), []);
        let dropped = |some_pass| Fate {
            dropped: Some(Dropped {
                by: "inet filter input".to_owned(),
                remedy: "nft".to_owned(),
                some_pass,
            }),
            ..Fate::default()
        };
        assert_eq!(results(&dropped(false)), [Outcome::Fail]);
        assert_eq!(results(&dropped(true)), [Outcome::Warn]);
        let redirected = |port, address: Option<&str>| Fate {
            redirects: vec![Redirect {
                port,
                address: address.map(str::to_owned),
            }],
            ..Fate::default()
        };
        assert_eq!(results(&redirected(Some(2525), None)), [Outcome::Fail]);
        assert_eq!(results(&redirected(Some(26), None)), []);
        assert_eq!(
            results(&redirected(None, Some("10.0.0.1"))),
            [Outcome::Warn]
        );
    }

    #[test]
    fn tools() {
        assert_eq!(output("no-such-tool", &[]), Ok(None));
        assert_eq!(output("echo", &["a"]), Ok(Some(b"a\n".to_vec())));
        assert!(output("false", &[]).unwrap_err().contains("failed"));
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let error = output("sleep", &["60"]).unwrap_err();
        assert!(error.contains("did not end"), "{error}");
    }

    #[test]
    fn numbers() {
        let result = |count, max| conntrack(Some(count), Some(max), Some(0)).result;
        assert_eq!(result(79, 100), Outcome::Ok);
        assert_eq!(result(80, 100), Outcome::Warn);
        assert_eq!(conntrack(None, None, None).result, Outcome::Ok);
        assert_eq!(syncookies(Some(1)).result, Outcome::Ok);
        assert_eq!(syncookies(Some(0)).result, Outcome::Warn);
        assert_eq!(syncookies(Some(2)).result, Outcome::Warn);
        assert_eq!(syncookies(None).result, Outcome::Skip);
        assert_eq!(somaxconn(Some(4096)).result, Outcome::Ok);
        assert_eq!(somaxconn(Some(128)).result, Outcome::Warn);
        assert_eq!(somaxconn(None).result, Outcome::Skip);
    }
}
