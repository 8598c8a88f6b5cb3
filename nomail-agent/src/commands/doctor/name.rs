//! Checks of the name that the greeting begins with.

use std::net::IpAddr;

use super::{
    finding::{Check, Finding},
    listen_pair::ListenPair,
};
use crate::{
    config::{self, Config, Hostname},
    status::Status,
};

const REMEDY: &str = "hostname = \"mailless.example.org\", a name in public DNS";

/// Domains for private networks or for none: RFC 2606, 6761, 6762 and 8375, ICANN's for
/// private use, and unregistered ones in wide use.
const INTERNAL: &[&str] = &[
    "corp",
    "example",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];

/// The name that the agent greets with, or would.
pub(super) fn of_host(config: &Config, status: Option<&Status>, pairs: &[ListenPair]) -> Hostname {
    let running = status.and_then(|status| status.hostname.parse().ok());
    let found = running.or_else(|| config.hostname.clone());
    found.or_else(config::host_fqdn).unwrap_or_else(|| {
        let mut addresses: Vec<IpAddr> = pairs.iter().map(|pair| pair.address.ip()).collect();
        addresses.sort_unstable();
        let global = addresses.iter().find(|address| !address.is_loopback());
        let address = global.or(addresses.first()).copied();
        Hostname::from_address(address.unwrap_or(IpAddr::from([127, 0, 0, 1])))
    })
}

/// `name` is a [`Hostname`]: a domain name or an address literal.
pub(super) fn check(name: &str) -> Finding {
    let lower = name.to_ascii_lowercase();
    if let Some(literal) = lower.strip_prefix('[') {
        let literal = literal.trim_end_matches(']').trim_start_matches("ipv6:");
        return match literal.parse::<IpAddr>() {
            Ok(address) => check_literal(name, address.to_canonical()),
            Err(_) => Finding::fail(Check::Hostname, format!("{name} is no address"), REMEDY),
        };
    }
    let internal = |domain: &&&str| {
        let head = lower.strip_suffix(**domain);
        head.is_some_and(|head| head.is_empty() || head.ends_with('.'))
    };
    if let Some(domain) = INTERNAL.iter().find(internal) {
        return Finding::warn(
            Check::Hostname,
            format!("{name} is an internal name: .{domain} is unknown outside"),
            REMEDY,
        );
    }
    match name.contains('.') {
        true => Finding::ok(Check::Hostname, name),
        false => Finding::warn(
            Check::Hostname,
            format!("{name} is a single label: it is unknown outside"),
            REMEDY,
        ),
    }
}

fn check_literal(name: &str, address: IpAddr) -> Finding {
    if address.is_loopback() || address.is_unspecified() {
        return Finding::fail(
            Check::Hostname,
            format!("{name} is every host's own address"),
            REMEDY,
        );
    }
    let private = match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // RFC 6598: behind the NAT of a provider.
            let shared = first == 100 && (64..128).contains(&second);
            address.is_private() || address.is_link_local() || shared
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    match private {
        true => Finding::warn(
            Check::Hostname,
            format!("{name} is a private address: it means nothing to senders"),
            REMEDY,
        ),
        false => Finding::ok(
            Check::Hostname,
            format!("{name}: an address, because the host has no name"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::finding::CheckResult, *};

    #[rstest]
    #[case("mailless.example.org", CheckResult::Ok)]
    #[case("notlocal.org", CheckResult::Ok)]
    #[case("local.example.org", CheckResult::Ok)]
    #[case("host", CheckResult::Warn)]
    #[case("localhost", CheckResult::Warn)]
    #[case("a.Local", CheckResult::Warn)]
    #[case("ip-10-0-0-1.eu.compute.internal", CheckResult::Warn)]
    #[case("a.lan", CheckResult::Warn)]
    #[case("a.home.arpa", CheckResult::Warn)]
    #[case("[203.0.113.7]", CheckResult::Ok)]
    #[case("[IPv6:2001:db8::1]", CheckResult::Ok)]
    #[case("[10.0.0.1]", CheckResult::Warn)]
    #[case("[100.64.0.1]", CheckResult::Warn)]
    #[case("[IPv6:fd00::1]", CheckResult::Warn)]
    #[case("[IPv6:::ffff:192.168.0.1]", CheckResult::Warn)]
    #[case("[127.0.0.1]", CheckResult::Fail)]
    #[case("[IPv6:::1]", CheckResult::Fail)]
    fn names(#[case] name: &str, #[case] result: CheckResult) {
        assert!(name.parse::<Hostname>().is_ok());
        assert_eq!(check(name).result, result, "{name}");
    }
}
