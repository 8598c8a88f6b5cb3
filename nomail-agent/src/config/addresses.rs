//! Addresses, networks and interfaces.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    error::{ValueError, quoted, wrong},
    layer::Value,
};

/// Longest name of an interface, which may be an alternative one: ALTIFNAMSIZ without
/// the final NUL.
const INTERFACE_NAME_MAX: usize = 127;
/// Most health checkers that one key names.
const IGNORED_MAX: usize = 1000;

/// Where to listen: `192.0.2.7:25`, `[2001:db8::1]:25`, `[fe80::1%eth0]:25`, or
/// a wildcard, `0.0.0.0:25` or `[::]:25`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// The address; unspecified for all of its family.
    pub address: IpAddr,
    /// The interface of a link-local address. Its number is looked up when the socket is
    /// bound.
    pub scope: Option<String>,
    /// The port, not 0.
    pub port: u16,
}

impl ListenAddress {
    /// Whether this address keeps `other` from being bound: it is the same, or a wildcard.
    fn covers(&self, other: &Self) -> bool {
        self.port == other.port
            && self.address.is_ipv4() == other.address.is_ipv4()
            && (self.address.is_unspecified() || self == other)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match (self.address, &self.scope) {
            (IpAddr::V4(address), _) => write!(out, "{address}:{port}"),
            (IpAddr::V6(address), None) => write!(out, "[{address}]:{port}"),
            (IpAddr::V6(address), Some(scope)) => write!(out, "[{address}%{scope}]:{port}"),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let shown = quoted(text);
        let give = "write \"192.0.2.7:25\" or \"[2001:db8::1]:25\"";
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let with_port = match address {
                IpAddr::V4(address) => format!("{address}:25"),
                IpAddr::V6(address) => format!("[{address}]:25"),
            };
            return wrong(format!("{shown} has no port: write \"{with_port}\""));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong(format!("{shown} is not an address and a port: {give}"));
        };
        let (address, scope) = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inside) => {
                let (address, scope) = match inside.split_once('%') {
                    Some((address, scope)) => (address, Some(scope)),
                    None => (inside, None),
                };
                (address.parse::<Ipv6Addr>().ok().map(IpAddr::V6), scope)
            }
            None => (host.parse::<Ipv4Addr>().ok().map(IpAddr::V4), None),
        };
        let Some(address) = address else {
            return wrong(format!(
                "{shown} has no numeric address before its port: {give}"
            ));
        };
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse::<u16>() {
            Ok(port) if digits && port != 0 => port,
            _ => return wrong(format!("{shown} has no port in 1..=65535: {give}")),
        };
        check_listenable(&shown, address, scope)?;
        Ok(Self {
            address,
            scope: scope.map(str::to_owned),
            port,
        })
    }
}

fn check_listenable(shown: &str, address: IpAddr, scope: Option<&str>) -> Result<(), ValueError> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_multicast() || broadcast {
        return wrong(format!(
            "{shown} is not the address of a host: give a unicast address"
        ));
    }
    let IpAddr::V6(ipv6) = address else {
        return Ok(());
    };
    if let Some(ipv4) = ipv6.to_ipv4_mapped() {
        return wrong(format!(
            "{shown} is an IPv4 address in disguise: write {ipv4}"
        ));
    }
    match scope {
        None if ipv6.is_unicast_link_local() => wrong(format!(
            "{shown} is link-local: name its interface, as in \"[{ipv6}%eth0]:25\""
        )),
        Some(_) if !ipv6.is_unicast_link_local() => wrong(format!(
            "{shown} names an interface, but is not link-local: leave the interface out"
        )),
        Some(scope) => check_interface_name(scope),
        None => Ok(()),
    }
}

/// A listening address after those `before` it.
pub(super) fn listen_address(
    text: &str,
    before: &[ListenAddress],
) -> Result<ListenAddress, ValueError> {
    use nomail_common::abi::MAX_PORTS;
    let address: ListenAddress = text.parse()?;
    if before.contains(&address) {
        return wrong(format!("\"{address}\" is named twice: leave one out"));
    }
    let overlap = before
        .iter()
        .find(|other| other.covers(&address) || address.covers(other));
    if let Some(other) = overlap {
        return wrong(format!(
            "\"{address}\" and \"{other}\" cannot both be bound: leave out the wildcard or the \
             address"
        ));
    }
    let mut ports: Vec<_> = before.iter().map(|other| other.port).collect();
    ports.push(address.port);
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MAX_PORTS {
        return wrong(format!(
            "\"{address}\" is on one port more than the {MAX_PORTS} that an agent can guard: \
             leave some out"
        ));
    }
    Ok(address)
}

/// The address of the HTTP server, or `off`.
pub(super) fn metrics_address(value: &Value) -> Result<Option<SocketAddr>, ValueError> {
    let text = value.text()?;
    if text == "off" {
        return Ok(None);
    }
    let give = "write \"127.0.0.1:9521\" or \"[::1]:9521\", or \"off\"";
    let shown = quoted(text);
    let Ok(address) = text.parse::<SocketAddr>() else {
        return wrong(format!("{shown} is not an address and a port: {give}"));
    };
    if address.port() == 0 {
        return wrong(format!("{shown} has no port in 1..=65535: {give}"));
    }
    let ip = address.ip();
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return wrong(format!("{shown} is not the address of a host: {give}"));
    }
    Ok(Some(address))
}

/// An interface after those `before` it.
pub(super) fn interface(text: &str, before: &[String]) -> Result<String, ValueError> {
    use nomail_common::abi::MAX_INTERFACES;
    check_interface_name(text)?;
    if before.iter().any(|other| other == text) {
        return wrong(format!("{} is named twice: leave one out", quoted(text)));
    }
    if before.len() >= MAX_INTERFACES {
        return wrong(format!(
            "{} is one more than the {MAX_INTERFACES} interfaces that an agent can guard: \
             start another agent for it",
            quoted(text)
        ));
    }
    Ok(text.to_owned())
}

/// Checks the rules of the kernel's dev_valid_name(), and for control characters.
fn check_interface_name(name: &str) -> Result<(), ValueError> {
    let shown = quoted(name);
    let remedy = "`ip link` lists the names";
    if name.is_empty() {
        return wrong(format!("an interface without a name: {remedy}"));
    }
    if name.len() > INTERFACE_NAME_MAX {
        return wrong(format!(
            "{shown} is longer than the {INTERFACE_NAME_MAX} bytes of an interface's name: \
             {remedy}"
        ));
    }
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name == "." || name == ".." || name.contains(forbidden) {
        return wrong(format!(
            "{shown} cannot be the name of an interface: {remedy}"
        ));
    }
    Ok(())
}

/// An address or a network without host bits.
pub(super) fn network(text: &str) -> Result<IpNet, ValueError> {
    let shown = quoted(text);
    let net = any_network(text)?;
    if let Some(ipv4) = mapped(net) {
        // ::ffff:0:0/96 is all of IPv4.
        let ipv4 = match ipv4 {
            Ok(net) if net.prefix_len() < 32 => net.to_string(),
            Ok(net) => net.addr().to_string(),
            Err(address) => address.to_string(),
        };
        return wrong(format!("{shown} is IPv4 in disguise: write \"{ipv4}\""));
    }
    if net.trunc() != net {
        return wrong(format!(
            "{shown} has bits set behind its prefix: write \"{}\" for the network, or \"{}\" for \
             the address",
            net.trunc(),
            net.addr()
        ));
    }
    Ok(net)
}

/// As [`network`], for files, which other programs write: masks host bits off, and takes
/// IPv4-mapped addresses for IPv4. Returns whether that was needed.
pub(super) fn network_of_list(text: &str) -> Result<(IpNet, bool), ValueError> {
    let net = any_network(text)?;
    let plain = match mapped(net) {
        None => net.trunc(),
        Some(Ok(ipv4)) => IpNet::V4(ipv4.trunc()),
        // Wider than IPv4: it has no meaning.
        Some(Err(_)) => return network(text).map(|net| (net, false)),
    };
    Ok((plain, plain != net))
}

fn any_network(text: &str) -> Result<IpNet, ValueError> {
    let parsed = match text.split_once('/') {
        None => text.parse::<IpAddr>().ok().map(IpNet::from),
        Some((address, length)) => plain_network(address, length).or_else(|| text.parse().ok()),
    };
    let not_one = || {
        let give = "write \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"";
        let shown = quoted(text);
        ValueError::Wrong(format!("{shown} is not an address or a network: {give}"))
    };
    parsed.ok_or_else(not_one)
}

/// A network as it is usually written: in a third of the time that [`IpNet`]'s parser takes.
fn plain_network(address: &str, length: &str) -> Option<IpNet> {
    let is_plain = matches!(length.as_bytes(), [b'1'..=b'9', b'0'..=b'9', ..] | [_]);
    IpNet::new(
        address.parse().ok()?,
        length.parse().ok().filter(|_| is_plain)?,
    )
    .ok()
}

/// The IPv4 network of one within `::ffff:0:0/96`, or only its address where the network is
/// wider than that.
fn mapped(net: IpNet) -> Option<Result<Ipv4Net, Ipv4Addr>> {
    let IpNet::V6(ipv6) = net else {
        return None;
    };
    let address = ipv6.addr().to_ipv4_mapped()?;
    let length = ipv6.prefix_len().checked_sub(96);
    let ipv4 = length.and_then(|length| Ipv4Net::new(address, length).ok());
    Some(ipv4.ok_or(address))
}

/// The address or network of a health checker after those `before` it.
pub(super) fn ignored(text: &str, before: &[IpNet]) -> Result<IpNet, ValueError> {
    let net = network(text)?;
    let shown = quoted(text);
    if before.contains(&net) {
        return wrong(format!("{shown} is named twice: leave one out"));
    }
    if before.len() >= IGNORED_MAX {
        return wrong(format!(
            "{shown} is one more than the {IGNORED_MAX} that can be named: name their networks"
        ));
    }
    Ok(net)
}
