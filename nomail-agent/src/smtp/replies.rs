//! The texts of all replies, rendered once for a host name.
//!
//! The host comes first where a reply has no enhanced code, and after it where
//! it has one (RFC 1846 section 4.1, RFC 2034 section 4): all replies but the
//! greeting and those to EHLO and HELO carry one.

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::relay::{RefusedDomains, to_ascii};

/// The longest domain name, without its final dot (RFC 1035 section 2.3.4).
const DOMAIN_MAX: usize = 253;

/// The longest label of a domain name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// The replies, except those of a relay for its domains, which are in [`RefusedDomains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 521 as the greeting (RFC 1846 section 4.1).
    Greeting,
    /// 220, where the refusal comes later.
    Welcome,
    /// 421 instead of a greeting: a relay over its limit of connections.
    Overloaded,
    /// 521 to a command.
    Refusal,
    /// 521 to a line that ends with LF alone.
    BareLf,
    /// 521 to EHLO or HELO, hence without an enhanced code.
    HeloRefusal,
    /// 250 to HELO.
    Helo,
    /// 250 to EHLO, with the extensions.
    Ehlo,
    /// 250 to NOOP and RSET.
    Done,
    /// 250 to MAIL.
    SenderOk,
    /// 550 at RCPT: not a domain of this relay.
    OtherDomain,
    /// 550 to VRFY.
    NoMailbox,
    /// 214 to HELP.
    Help,
    /// 221 to QUIT.
    Goodbye,
    /// 500: no such command.
    Unknown,
    /// 500: a line longer than [`LINE_MAX`](super::line::LINE_MAX).
    TooLong,
    /// 502: a command of an extension that is not offered.
    Unimplemented,
    /// 503: DATA without MAIL.
    BadSequence,
    /// 554 to DATA: no recipient was accepted, and none ever is.
    NoRecipients,
    /// 421 in a session of a relay, for another connection.
    Evicted,
    /// 421: a deadline passed.
    TimedOut,
    /// 421: the agent is stopping.
    ShuttingDown,
}

impl Reply {
    /// All replies, in the order of their discriminants.
    pub const ALL: [Self; 22] = [
        Self::Greeting,
        Self::Welcome,
        Self::Overloaded,
        Self::Refusal,
        Self::BareLf,
        Self::HeloRefusal,
        Self::Helo,
        Self::Ehlo,
        Self::Done,
        Self::SenderOk,
        Self::OtherDomain,
        Self::NoMailbox,
        Self::Help,
        Self::Goodbye,
        Self::Unknown,
        Self::TooLong,
        Self::Unimplemented,
        Self::BadSequence,
        Self::NoRecipients,
        Self::Evicted,
        Self::TimedOut,
        Self::ShuttingDown,
    ];

    /// Renders the reply of `host`, without the last CRLF.
    fn text(self, host: &str) -> String {
        match self {
            Self::Greeting | Self::HeloRefusal => format!("521 {host} does not accept mail"),
            Self::Welcome => format!("220 {host} ESMTP nomail"),
            Self::Overloaded => format!("421 {host} has no room for more connections, try later"),
            Self::Refusal => format!("521 5.3.2 {host} does not accept mail"),
            Self::BareLf => {
                format!("521 5.5.2 {host} does not accept mail, and lines end with CR LF")
            }
            Self::Helo => format!("250 {host}"),
            Self::Ehlo => {
                format!("250-{host}\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP")
            }
            Self::Done => "250 2.0.0 done".to_owned(),
            Self::SenderOk => "250 2.1.0 sender noted".to_owned(),
            Self::OtherDomain => format!("550 5.7.1 {host} does not relay to this domain"),
            Self::NoMailbox => format!("550 5.1.1 {host} has no mailboxes"),
            Self::Help => format!("214 2.0.0 {host} does not accept mail, see RFC 7504"),
            Self::Goodbye => format!("221 2.0.0 {host} closing connection"),
            Self::Unknown => "500 5.5.1 unknown command".to_owned(),
            Self::TooLong => "500 5.5.6 line too long".to_owned(),
            Self::Unimplemented => "502 5.5.1 command not implemented".to_owned(),
            Self::BadSequence => "503 5.5.1 bad sequence of commands".to_owned(),
            Self::NoRecipients => "554 5.5.1 no valid recipients".to_owned(),
            Self::Evicted => {
                format!("421 4.3.2 {host} needs the room for others, closing connection")
            }
            Self::TimedOut => format!("421 4.4.2 {host} timed out, closing connection"),
            Self::ShuttingDown => format!("421 4.3.2 {host} shutting down, closing connection"),
        }
    }
}

/// The replies of a host, and of the domains that it is a relay for.
#[derive(Debug)]
pub struct Replies {
    host: Box<str>,
    lines: [Box<str>; Reply::ALL.len()],
    relay: Option<Arc<RefusedDomains>>,
}

/// The host name is not valid in a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host name {hostname:?}: {reason}")]
pub struct InvalidHostname {
    hostname: String,
    reason: &'static str,
}

impl Replies {
    /// Renders the replies of `hostname`: a domain name, or an address literal
    /// such as `[192.0.2.7]` or `[IPv6:2001:db8::7]`. With a `relay` the host
    /// is an MX, and greets no client with 521.
    ///
    /// With a valid name every line fits the 512 octets of RFC 5321.
    pub fn new(
        hostname: &str,
        relay: Option<Arc<RefusedDomains>>,
    ) -> Result<Self, InvalidHostname> {
        check_hostname(hostname).map_err(|reason| InvalidHostname {
            hostname: hostname.to_owned(),
            reason,
        })?;
        Ok(Self {
            host: hostname.into(),
            lines: Reply::ALL.map(|reply| (reply.text(hostname) + "\r\n").into_boxed_str()),
            relay,
        })
    }

    /// Returns the text of a reply, with its CRLF.
    pub fn line(&self, reply: Reply) -> &[u8] {
        self.lines[reply as usize].as_bytes()
    }

    /// Returns the domains that this host is an MX for, if it is one.
    pub fn relay(&self) -> Option<&RefusedDomains> {
        self.relay.as_deref()
    }

    /// Whether `domain` stands for this host: its name, or any address literal.
    pub fn is_own(&self, domain: &[u8]) -> bool {
        domain.starts_with(b"[") || self.is_name(domain)
    }

    /// Whether `domain` is this host's name.
    pub fn is_name(&self, domain: &[u8]) -> bool {
        let domain = domain.strip_suffix(b".").unwrap_or(domain);
        domain.eq_ignore_ascii_case(self.host.as_bytes())
            || (!domain.is_ascii() && to_ascii(domain).as_deref() == Some(&*self.host))
    }
}

/// `Domain` or `address-literal` of RFC 5321 section 4.1.2.
fn check_hostname(hostname: &str) -> Result<(), &'static str> {
    if let Some(literal) = hostname.strip_prefix('[') {
        let valid = literal.strip_suffix(']').is_some_and(|address| {
            match address.split_at_checked("IPv6:".len()) {
                Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
                    address.parse::<Ipv6Addr>().is_ok()
                }
                _ => address.parse::<Ipv4Addr>().is_ok(),
            }
        });
        return valid
            .then_some(())
            .ok_or("not an address literal like [192.0.2.7] or [IPv6:2001:db8::7]");
    }
    if hostname.parse::<IpAddr>().is_ok() {
        return Err("an address is written as a literal, [192.0.2.7] or [IPv6:2001:db8::7]");
    }
    if hostname.len() > DOMAIN_MAX {
        return Err("longer than 253 bytes");
    }
    for label in hostname.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return Err("every label has 1 to 63 bytes");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label neither begins nor ends with a hyphen");
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err("only letters, digits and hyphens between the dots");
        }
    }
    Ok(())
}
