//! Single values: what may be written, and what is said of the rest.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use ipnet::{IpNet, Ipv4Net};

use super::{
    error::{ValueError, quoted, wrong},
    layer::Value,
};

/// Longest domain name, without a final dot (RFC 1035 section 2.3.4).
const DOMAIN_MAX: usize = 253;
/// Longest label of a domain name.
const LABEL_MAX: usize = 63;
/// Longest name of an interface, which may be an alternative one: ALTIFNAMSIZ without
/// the final NUL.
const INTERFACE_NAME_MAX: usize = 127;
/// Longest path of a Unix socket, sun_path without the final NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Longest user name of useradd(8).
const USER_NAME_MAX: usize = 32;
/// Longest text of a refusal at RCPT: with codes and CRLF the line stays within
/// the 512 octets of RFC 5321 section 4.5.3.1.5.
const REPLY_TEXT_MAX: usize = 400;
/// Longest local part of a mailbox (RFC 5321 section 4.5.3.1.1).
const LOCAL_PART_MAX: usize = 64;
/// Longest mailbox: a path of 256 octets without its angle brackets.
const MAILBOX_MAX: usize = 254;
/// Most health checkers that the log can be told to leave out.
const IGNORED_MAX: usize = 1000;
/// Most other names of the host.
const ALIASES_MAX: usize = 1000;
/// Most files that one key names.
const LIST_FILES_MAX: usize = 64;

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
        if text.len() <= DOMAIN_MAX && text.ends_with('.') {
            return wrong(format!("{shown} ends with a dot: leave it out"));
        }
        check_domain_name(text, &shown, give)?;
        Ok(Self(text.to_owned()))
    }
}

/// The rules of RFC 1035 section 2.3.1, with the first digit of RFC 1123. An
/// error calls the name `shown` and says what to `give`.
fn check_domain_name(name: &str, shown: &str, give: &str) -> Result<(), ValueError> {
    if name.len() > DOMAIN_MAX {
        return wrong(format!(
            "{shown} is longer than {DOMAIN_MAX} characters: {give}"
        ));
    }
    for label in name.split('.') {
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
                "{} in {shown} has other characters than letters, digits and hyphens: {give}",
                quoted(label)
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong(format!(
                "{} in {shown} begins or ends with a hyphen: {give}",
                quoted(label)
            ));
        }
    }
    Ok(())
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

/// Where the metrics are served, or `off`.
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

/// Where the agent keeps what a restart must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// The directory; absolute.
    pub path: PathBuf,
    /// Whether nobody asked for this very directory.
    pub is_default: bool,
}

impl Default for StateDir {
    fn default() -> Self {
        Self {
            path: PathBuf::from(super::DEFAULT_STATE_DIR),
            is_default: true,
        }
    }
}

/// The absolute path of a directory for the agent alone.
pub(super) fn state_dir(value: &Value) -> Result<StateDir, ValueError> {
    Ok(StateDir {
        path: absolute_path(value.text()?, "directory")?,
        is_default: false,
    })
}

/// The absolute path of a directory in a BPF file system, whose names have no
/// dots.
pub(super) fn pin_dir(value: &Value) -> Result<PathBuf, ValueError> {
    let path = absolute_path(value.text()?, "directory")?;
    let has_dot = |name: &std::ffi::OsStr| name.as_encoded_bytes().contains(&b'.');
    if path.file_name().is_some_and(has_dot) {
        return wrong(format!(
            "{} ends in a name with a dot, which a BPF file system does not take: leave it out",
            quoted(value.text()?)
        ));
    }
    Ok(path)
}

/// A file with one entry a line, beside those `before` it.
pub(super) fn list_file(text: &str, before: &[PathBuf]) -> Result<PathBuf, ValueError> {
    let path = absolute_path(text, "file")?;
    if before.contains(&path) {
        return wrong(format!("{} is named twice: leave one out", quoted(text)));
    }
    if before.len() >= LIST_FILES_MAX {
        return wrong(format!(
            "{} is one more than the {LIST_FILES_MAX} files that are read: put some together",
            quoted(text)
        ));
    }
    Ok(path)
}

/// An absolute path that ends in a name.
pub(super) fn absolute_path(text: &str, what: &str) -> Result<PathBuf, ValueError> {
    let shown = quoted(text);
    if text.chars().any(char::is_control) {
        return wrong(format!("{shown} has control characters: give a plain path"));
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.file_name().is_none() {
        return wrong(format!(
            "{shown} is not the absolute path of a {what}: give one"
        ));
    }
    Ok(path)
}

/// A domain of `[relay]`: a name, or `*.` and a name for all below it. In lower
/// case, in A-labels, without a final dot.
pub(super) fn domain(text: &str) -> Result<String, ValueError> {
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = match is_plain_domain(name) {
        true => Cow::Borrowed(name),
        false => domain_of_any_kind(text, name)?,
    };
    let mut domain = String::with_capacity(wildcard.len() + name.len());
    domain.push_str(wildcard);
    domain.push_str(&name);
    domain.make_ascii_lowercase();
    Ok(domain)
}

/// Another name of this host, beside those `before` it; written as [`domain`].
pub(super) fn alias(text: &str, before: &[String]) -> Result<String, ValueError> {
    let name = domain(text)?;
    if before.contains(&name) {
        return wrong(format!("{} is named twice: leave one out", quoted(text)));
    }
    if before.len() >= ALIASES_MAX {
        return wrong(format!(
            "{} is one more than the {ALIASES_MAX} names that can be given: write *.example.org \
             for all below example.org",
            quoted(text)
        ));
    }
    Ok(name)
}

/// Whether nothing but its case is to be changed in `name`. Nearly all names
/// are so; the others are looked at closely.
pub(super) fn is_plain_domain(name: &str) -> bool {
    if name.len() > DOMAIN_MAX {
        return false;
    }
    // Of the label: its length, and whether it ends with a hyphen. The first
    // four octets are enough to know an A-label.
    let mut length = 0;
    let mut hyphen = false;
    let mut digits = true;
    for octet in name.bytes() {
        match octet {
            b'.' if length == 0 || hyphen => return false,
            b'.' => {
                length = 0;
                digits = true;
                continue;
            }
            b'-' if length == 0 => return false,
            // "xn--", or what a later standard reserves.
            b'-' if length == 3 && hyphen => return false,
            b'-' | b'a'..=b'z' | b'A'..=b'Z' => digits = false,
            b'0'..=b'9' => {}
            _ => return false,
        }
        hyphen = octet == b'-';
        length += 1;
        if length > LABEL_MAX {
            return false;
        }
    }
    // A last label of digits may be that of an address.
    length > 0 && !hyphen && !digits
}

/// `name`, which was written as `text`, in A-labels.
pub(super) fn domain_of_any_kind<'a>(
    text: &str,
    name: &'a str,
) -> Result<Cow<'a, str>, ValueError> {
    let shown = quoted(text);
    let give = "give a domain like \"example.org\" or \"*.example.org\"";
    if text.is_empty() {
        return wrong(format!("is empty: {give}"));
    }
    if name.parse::<IpAddr>().is_ok() {
        return wrong(format!("{shown} is an address: {give}"));
    }
    let is_a_label = |label: &str| {
        let tag = label.get(..4);
        tag.is_some_and(|tag| tag.eq_ignore_ascii_case("xn--"))
    };
    if name.is_ascii() && !name.split('.').any(is_a_label) {
        check_domain_name(name, &shown, give)?;
        return Ok(Cow::Borrowed(name));
    }
    let name = Uts46::new()
        .to_ascii(
            name.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .map_err(|_| {
            ValueError::Wrong(format!(
                "{shown} is not an internationalised domain name: {give}"
            ))
        })?;
    // There are more full stops in Unicode than the one that was taken off.
    let name = match name.strip_suffix('.') {
        Some(name) => Cow::Owned(name.to_owned()),
        None => name,
    };
    if name.parse::<IpAddr>().is_ok() {
        return wrong(format!("{shown} is an address: {give}"));
    }
    check_domain_name(&name, &shown, give)?;
    Ok(name)
}

/// The text behind the codes of a refusal.
pub(super) fn reply_text(text: &str) -> Result<&str, ValueError> {
    let give = "give a text like \"this domain does not accept mail\"";
    if text.is_empty() {
        return wrong(format!("is empty: {give}"));
    }
    let shown = quoted(text);
    if text.chars().any(char::is_control) {
        return wrong(format!("{shown} has control characters: {give}"));
    }
    if !text.is_ascii() {
        return wrong(format!(
            "{shown} is not ASCII, which is all that SMTP replies can hold: {give}"
        ));
    }
    if text.len() > REPLY_TEXT_MAX {
        return wrong(format!(
            "{shown} is longer than {REPLY_TEXT_MAX} characters: give a shorter text"
        ));
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return wrong(format!("{shown} begins or ends with a space: leave it out"));
    }
    Ok(text)
}

/// A mailbox in ASCII without a quoted local part, as replies can name it.
pub(super) fn mailbox(value: &Value) -> Result<String, ValueError> {
    let text = value.text()?;
    let shown = quoted(text);
    let give = "give one like \"postmaster@example.org\"";
    let Some((local, domain)) = text.rsplit_once('@') else {
        return wrong(format!("{shown} is not a mailbox: {give}"));
    };
    let atext =
        |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet);
    let atom = |atom: &str| !atom.is_empty() && atom.bytes().all(atext);
    if local.len() > LOCAL_PART_MAX || !local.split('.').all(atom) {
        return wrong(format!(
            "{shown} has a local part that is too long or has other characters than letters, \
             digits and those of an atom: {give}"
        ));
    }
    check_domain_name(domain, &shown, give)?;
    if text.len() > MAILBOX_MAX {
        return wrong(format!(
            "{shown} is longer than the {MAILBOX_MAX} octets of a mailbox: give a shorter one"
        ));
    }
    Ok(text.to_owned())
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

/// As [`network`], for files, which other programs write: host bits are cut off, and
/// IPv4 in disguise is IPv4. Says whether that was needed.
pub(super) fn network_of_list(text: &str) -> Result<(IpNet, bool), ValueError> {
    let net = any_network(text)?;
    let plain = match mapped(net) {
        None => net.trunc(),
        Some(Ok(ipv4)) => IpNet::V4(ipv4.trunc()),
        // Wider than IPv4: nobody knows what it is to mean.
        Some(Err(_)) => return network(text).map(|net| (net, false)),
    };
    Ok((plain, plain != net))
}

fn any_network(text: &str) -> Result<IpNet, ValueError> {
    let parsed = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok(),
    };
    let not_one = || {
        let give = "write \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"";
        let shown = quoted(text);
        ValueError::Wrong(format!("{shown} is not an address or a network: {give}"))
    };
    parsed.ok_or_else(not_one)
}

/// The IPv4 network that is meant by one within `::ffff:0:0/96`, or only its address
/// where the network is wider than that.
fn mapped(net: IpNet) -> Option<Result<Ipv4Net, Ipv4Addr>> {
    let IpNet::V6(ipv6) = net else {
        return None;
    };
    let address = ipv6.addr().to_ipv4_mapped()?;
    let length = ipv6.prefix_len().checked_sub(96);
    let ipv4 = length.and_then(|length| Ipv4Net::new(address, length).ok());
    Some(ipv4.ok_or(address))
}

/// An address or a network that the log leaves out, beside those `before` it.
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

/// One of `choices`.
pub(super) fn choice<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Value) -> Result<T, ValueError> {
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
        wrong(format!("{shown} is unknown; use {names}"))
    }
}
