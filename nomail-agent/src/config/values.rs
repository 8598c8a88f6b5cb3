//! Single values: what may be written, and what is said of the rest.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use super::{
    error::{ValueError, quoted, wrong},
    layer::Value,
};

/// Longest domain name, without a final dot (RFC 1035 section 2.3.4).
const DOMAIN_MAX: usize = 253;
/// Longest label of a domain name.
const LABEL_MAX: usize = 63;
/// Longest name of an interface, IFNAMSIZ without the final NUL.
const INTERFACE_NAME_MAX: usize = 15;
/// Longest path of a Unix socket, sun_path without the final NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Longest user name of useradd(8).
const USER_NAME_MAX: usize = 32;

/// The first word of the greeting: a domain name or an address literal
/// (RFC 5321 section 4.1.3), hence printable ASCII without spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hostname(String);

impl Hostname {
    /// The address literal of an address.
    pub fn from_address(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        })
    }

    /// As it is spoken.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let shown = quoted(text);
        let give = "give a name like \"mailless.example.org\"";
        if text.is_empty() {
            return wrong(format!("is empty: {give}"));
        }
        if text.chars().any(char::is_control) {
            return wrong(format!("{shown} has control characters: {give}"));
        }
        if text.chars().any(char::is_whitespace) {
            return wrong(format!("{shown} has spaces: {give}"));
        }
        if !text.is_ascii() {
            return wrong(format!(
                "{shown} is not ASCII: give the name in its xn-- form"
            ));
        }
        if let Some(literal) = text.strip_prefix('[') {
            let address = literal.strip_suffix(']').and_then(parse_literal);
            return match address {
                // Not from_address: an IPv4-mapped address stays as written.
                Some(_) => Ok(Self(text.to_owned())),
                None => wrong(format!(
                    "{shown} is not an address literal: write \"[192.0.2.7]\" or \
                     \"[IPv6:2001:db8::1]\""
                )),
            };
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return wrong(format!(
                "{shown} is an address: write it as the literal \"{}\"",
                Self::from_address(address)
            ));
        }
        if text.len() > DOMAIN_MAX {
            return wrong(format!(
                "{shown} is longer than {DOMAIN_MAX} characters: {give}"
            ));
        }
        if text.ends_with('.') {
            return wrong(format!("{shown} ends with a dot: leave it out"));
        }
        for label in text.split('.') {
            let part = quoted(label);
            if label.is_empty() {
                return wrong(format!("{shown} has an empty label: {give}"));
            }
            if label.len() > LABEL_MAX {
                return wrong(format!(
                    "{shown} has a label of more than {LABEL_MAX} characters: {give}"
                ));
            }
            let ldh = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
            if !label.bytes().all(ldh) {
                return wrong(format!(
                    "{part} in {shown} has other characters than letters, digits and hyphens: \
                     {give}"
                ));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return wrong(format!(
                    "{part} in {shown} begins or ends with a hyphen: {give}"
                ));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

fn parse_literal(literal: &str) -> Option<IpAddr> {
    const TAG: &str = "IPv6:";
    match literal.split_at_checked(TAG.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(TAG) => {
            address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => literal.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Where to listen: `192.0.2.7:25`, `[2001:db8::1]:25`, `[fe80::1%eth0]:25`, or
/// a wildcard, `0.0.0.0:25` or `[::]:25`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// The address; unspecified for all of its family.
    pub address: IpAddr,
    /// The interface that a link-local address belongs to, and only that. Its
    /// number is looked up when the socket is bound.
    pub scope: Option<String>,
    /// The port, not 0.
    pub port: u16,
}

impl ListenAddress {
    /// Whether `other` cannot be bound beside this one: it is the same, or this
    /// one takes all addresses.
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
        let digits = !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit());
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

/// A listening address beside those `before` it.
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

/// An interface beside those `before` it.
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

/// The rules of the kernel's dev_valid_name(), and no control characters.
fn check_interface_name(name: &str) -> Result<(), ValueError> {
    let shown = quoted(name);
    let remedy = "`ip link` lists the names";
    if name.is_empty() {
        return wrong(format!("an interface without a name: {remedy}"));
    }
    if name.len() > INTERFACE_NAME_MAX {
        return wrong(format!(
            "{shown} is longer than the {INTERFACE_NAME_MAX} octets of an interface's name: \
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

/// The account that the agent runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// A name or a numeric uid.
    pub value: String,
    /// Whether nobody asked for this very account.
    pub is_default: bool,
}

impl Default for User {
    fn default() -> Self {
        Self {
            value: "nomail".to_owned(),
            is_default: true,
        }
    }
}

/// A user by name or number.
pub(super) fn user(value: &Value) -> Result<User, ValueError> {
    let give = "give the name or the uid of an account without privileges";
    let name = match value {
        Value::Integer(uid) => uid.to_string(),
        _ => value.text()?.to_owned(),
    };
    let shown = quoted(&name);
    let numeric = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_digit());
    if name == "root" || (numeric && name.bytes().all(|octet| octet == b'0')) {
        return wrong(format!("{shown} is root: {give}"));
    }
    // The largest uid means "no change" to the kernel.
    if numeric && name.parse::<u32>().is_ok_and(|uid| uid != u32::MAX) {
        return Ok(User {
            value: name,
            is_default: false,
        });
    }
    let portable = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    let stem = name.strip_suffix('$').unwrap_or(&name);
    if numeric
        || stem.is_empty()
        || name.len() > USER_NAME_MAX
        || name.starts_with('-')
        || !stem.bytes().all(portable)
    {
        return wrong(format!("{shown} is neither a user name nor a uid: {give}"));
    }
    Ok(User {
        value: name,
        is_default: false,
    })
}

/// The absolute path of a Unix socket.
pub(super) fn socket_path(value: &Value) -> Result<PathBuf, ValueError> {
    let text = value.text()?;
    let shown = quoted(text);
    if text.chars().any(char::is_control) {
        return wrong(format!("{shown} has control characters: give a plain path"));
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.file_name().is_none() {
        return wrong(format!(
            "{shown} is not the absolute path of a file: give one"
        ));
    }
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return wrong(format!(
            "{shown} is longer than the {SOCKET_PATH_MAX} octets of a socket's path: give a \
             shorter one"
        ));
    }
    Ok(path)
}

/// True or false.
pub(super) fn boolean(value: &Value) -> Result<bool, ValueError> {
    match value {
        Value::Boolean(value) => Ok(*value),
        Value::Word(word) if word == "true" => Ok(true),
        Value::Word(word) if word == "false" => Ok(false),
        other => wrong(format!("{} is neither true nor false", other.kind())),
    }
}

/// A whole number in `range`; `give` says what it stands for.
pub(super) fn number<T: TryFrom<i128> + Copy + fmt::Display + PartialOrd>(
    range: RangeInclusive<T>,
    give: &str,
) -> impl Fn(&Value) -> Result<T, ValueError> {
    move |value| {
        let (low, high) = (range.start(), range.end());
        let number = match value {
            Value::Integer(number) => Some(*number),
            Value::Word(word) => word.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            let kind = value.kind();
            return wrong(format!(
                "{kind} is not a whole number in {low}..={high}: {give}"
            ));
        };
        match T::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => wrong(format!("{number} is not in {low}..={high}: {give}")),
        }
    }
}

/// One of `choices`. Those in `later` are named in the documentation, but this
/// version cannot do them.
pub(super) fn choice<T: Copy>(
    choices: &[(&str, T)],
    later: &[&str],
) -> impl Fn(&Value) -> Result<T, ValueError> {
    move |value| {
        let text = value.text()?;
        if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(*chosen);
        }
        let shown = quoted(text);
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let names = match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        if later.contains(&text) {
            return Err(ValueError::Unsupported(format!(
                "{shown} is not supported by this version; use {names}"
            )));
        }
        wrong(format!("{shown} is unknown; use {names}"))
    }
}
