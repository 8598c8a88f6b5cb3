//! Names: of the host, of domains, of mailboxes; and the text of a reply.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::{
    error::{ValueError, quoted, wrong},
    layer::Value,
};

/// Longest domain name, without a final dot (RFC 1035 section 2.3.4).
const DOMAIN_MAX: usize = 253;
/// Longest label of a domain name.
const LABEL_MAX: usize = 63;
/// Longest text of a refusal at RCPT: with codes and CRLF the line stays within
/// the 512 bytes of RFC 5321 section 4.5.3.1.5.
const REPLY_TEXT_MAX: usize = 400;
/// Longest local part of a mailbox (RFC 5321 section 4.5.3.1.1).
const LOCAL_PART_MAX: usize = 64;
/// Longest mailbox: a path of 256 bytes without its angle brackets.
const MAILBOX_MAX: usize = 254;
/// Most other names of the host.
const ALIASES_MAX: usize = 1000;

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

    /// The text of the greeting.
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

/// Checks the rules of RFC 1035 section 2.3.1, with the first digit of RFC 1123. Errors
/// call the name `shown` and say what to `give`.
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
        let ldh = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
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

/// Another name of this host after those `before` it; written as [`domain`].
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

/// Whether `name` is a domain of plain labels: no A-label, no address. A fast check for
/// nearly all names of a list.
pub(super) fn is_plain_domain(name: &str) -> bool {
    if name.len() > DOMAIN_MAX {
        return false;
    }
    // Of the current label. Its first four bytes are enough to know an A-label.
    let mut length = 0;
    let mut hyphen = false;
    let mut digits = true;
    for byte in name.bytes() {
        match byte {
            b'.' if length == 0 || hyphen => return false,
            b'.' => {
                length = 0;
                digits = true;
                continue;
            }
            b'-' if length == 0 => return false,
            // "xn--", or a tag that a later standard reserves.
            b'-' if length == 3 && hyphen => return false,
            b'-' | b'a'..=b'z' | b'A'..=b'Z' => digits = false,
            b'0'..=b'9' => {}
            _ => return false,
        }
        hyphen = byte == b'-';
        length += 1;
        if length > LABEL_MAX {
            return false;
        }
    }
    // A last label of digits may belong to an address.
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
    // Unicode has more full stops than the one that was stripped.
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
    let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
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
            "{shown} is longer than the {MAILBOX_MAX} bytes of a mailbox: give a shorter one"
        ));
    }
    Ok(text.to_owned())
}
