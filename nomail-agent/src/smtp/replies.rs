//! The texts of all replies, rendered once for a host name.
//!
//! The host comes first where a reply has no enhanced code, and after it where
//! it has one (RFC 1846 section 4.1, RFC 2034 section 4): all replies but the
//! greeting and those to EHLO and HELO carry one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::relay::{Relay, to_ascii};

/// The longest reply line with its CRLF (RFC 5321 section 4.5.3.1.5).
pub const REPLY_MAX: usize = 512;

/// The longest domain name, without its final dot (RFC 1035 section 2.3.4).
const DOMAIN_MAX: usize = 253;

/// The longest label of a domain name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// What can be said. What a relay says of a domain is in [`Relay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 521, before anything was asked (RFC 1846 section 4.1).
    Greeting,
    /// 220, where the refusal comes later.
    Welcome,
    /// 421 instead of a greeting: a relay that has no room.
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
    /// 500: a longer line than [`super::dialog::LINE_MAX`].
    TooLong,
    /// 502: a command of some extension that is not offered.
    Unimplemented,
    /// 503: not now.
    BadSequence,
    /// 554 to DATA: no recipient was accepted, and none ever is.
    NoRecipients,
    /// 421 in a session of a relay whose place another connection needs.
    MakingRoom,
    /// 421: a deadline has passed.
    TimedOut,
    /// 421: the agent is stopping.
    ShuttingDown,
}

impl Reply {
    /// All of them, each at the place of its number.
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
        Self::MakingRoom,
        Self::TimedOut,
        Self::ShuttingDown,
    ];

    /// The reply of `host`, without the last CRLF.
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
            Self::MakingRoom => {
                format!("421 4.3.2 {host} needs the room for others, closing connection")
            }
            Self::TimedOut => format!("421 4.4.2 {host} timed out, closing connection"),
            Self::ShuttingDown => format!("421 4.3.2 {host} shutting down, closing connection"),
        }
    }
}

/// The texts of a host, and what it knows of the domains that it relays for.
#[derive(Debug)]
pub struct Replies {
    host: Box<str>,
    lines: [Box<str>; Reply::ALL.len()],
    relay: Option<Arc<Relay>>,
}

/// The host name cannot stand in a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host name {hostname:?}: {reason}")]
pub struct InvalidHostname {
    hostname: String,
    reason: &'static str,
}

impl Replies {
    /// Renders the replies of `hostname`: a domain name, or an address literal
    /// such as `[192.0.2.7]` or `[IPv6:2001:db8::7]`. With a `relay` the host
    /// is an MX, and greets nobody with 521.
    ///
    /// A valid name leaves every line below the 512 octets of RFC 5321.
    pub fn new(hostname: &str, relay: Option<Arc<Relay>>) -> Result<Self, InvalidHostname> {
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

    /// What to write, with its CRLF.
    pub fn line(&self, reply: Reply) -> &[u8] {
        self.lines[reply as usize].as_bytes()
    }

    /// The domains that this host is an MX for, if it is one.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_deref()
    }

    /// Whether mail for `domain` is mail for this very host: its name, or any
    /// address literal.
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
        return Err("longer than 253 octets");
    }
    for label in hostname.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return Err("every label has 1 to 63 octets");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label neither begins nor ends with a hyphen");
        }
        if !label
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        {
            return Err("only letters, digits and hyphens between the dots");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HOST: &str = "mailless.example.org";

    /// The replies that RFC 2034 section 4 exempts from enhanced codes.
    const WITHOUT_CODE: [Reply; 6] = [
        Reply::Greeting,
        Reply::Welcome,
        Reply::Overloaded,
        Reply::HeloRefusal,
        Reply::Helo,
        Reply::Ehlo,
    ];

    fn text(reply: Reply) -> String {
        let replies = Replies::new(HOST, None).unwrap();
        String::from_utf8(replies.line(reply).to_vec()).unwrap()
    }

    #[test]
    fn every_reply_is_at_its_place() {
        for (index, reply) in Reply::ALL.into_iter().enumerate() {
            assert_eq!(reply as usize, index);
        }
    }

    #[test]
    fn s1_the_greeting_is_521() {
        assert_eq!(
            text(Reply::Greeting),
            "521 mailless.example.org does not accept mail\r\n"
        );
    }

    #[rstest]
    #[case("a.example", true)]
    #[case("localhost", true)]
    #[case("3com.example", true)]
    #[case("xn--bcher-kva.example", true)]
    #[case("[192.0.2.7]", true)]
    #[case("[IPv6:2001:db8::7]", true)]
    #[case("[ipv6:2001:db8::7]", true)]
    #[case("", false)]
    #[case(".", false)]
    #[case("a.example.", false)]
    #[case("-a.example", false)]
    #[case("a_b.example", false)]
    #[case("b\u{fc}cher.example", false)]
    #[case("a b", false)]
    #[case("a\r\n250 ok", false)]
    #[case("192.0.2.7", false)]
    #[case("2001:db8::7", false)]
    #[case("[192.0.2.256]", false)]
    #[case("[2001:db8::7]", false)]
    #[case("[IPv6:192.0.2.7]", false)]
    #[case("[192.0.2.7", false)]
    #[case("[\u{fc}\u{fc}\u{fc}]", false)]
    fn s2_the_first_word_is_a_host_name_or_address_literal(
        #[case] hostname: &str,
        #[case] valid: bool,
    ) {
        match Replies::new(hostname, None) {
            Ok(replies) => {
                assert!(valid);
                for reply in [Reply::Greeting, Reply::Welcome, Reply::Overloaded] {
                    let greeting = str::from_utf8(replies.line(reply)).unwrap();
                    assert_eq!(greeting.split(' ').nth(1), Some(hostname));
                }
            }
            Err(error) => assert!(!valid, "{error}"),
        }
    }

    #[test]
    fn s11_s12_s13_lines_are_one_code_and_printable_text() {
        for reply in Reply::ALL {
            let text = text(reply);
            let mut lines = text.strip_suffix("\r\n").unwrap().split("\r\n").peekable();
            let code = &text[..3];
            while let Some(line) = lines.next() {
                let separator = if lines.peek().is_some() { '-' } else { ' ' };
                let rest = line.strip_prefix(code).unwrap();
                let rest = rest.strip_prefix(separator).unwrap();
                assert!(!rest.is_empty() && rest.bytes().all(|o| (b' '..=b'~').contains(&o)));
            }
            assert!(code.bytes().all(|octet| octet.is_ascii_digit()));
        }
    }

    #[test]
    fn s14_replies_have_at_most_512_octets() {
        let label = "a".repeat(LABEL_MAX);
        let longest = format!("{label}.{label}.{label}.{}", &label[..DOMAIN_MAX - 3 * 64]);
        assert_eq!(longest.len(), DOMAIN_MAX);
        let replies = Replies::new(&longest, None).unwrap();
        for reply in Reply::ALL {
            assert!(replies.line(reply).len() <= REPLY_MAX);
        }
        assert!(Replies::new(&format!("{longest}a"), None).is_err());
    }

    #[test]
    fn s22_r21_enhanced_codes_of_their_class_where_rfc_2034_wants_them() {
        for reply in Reply::ALL {
            let text = text(reply);
            let class = &text[..1];
            let word = text[4..].split_whitespace().next().unwrap();
            let enhanced = word.split('.').count() == 3
                && word.split('.').all(|part| part.parse::<u16>().is_ok());
            assert_eq!(enhanced, !WITHOUT_CODE.contains(&reply), "{text}");
            assert!(!enhanced || word.starts_with(class), "{text}");
        }
    }

    #[test]
    fn s23_521_goes_with_5_3_2() {
        assert!(text(Reply::Refusal).starts_with("521 5.3.2 "));
    }

    #[test]
    fn r9_ehlo_begins_with_the_host_and_lists_what_is_there() {
        assert_eq!(
            text(Reply::Ehlo),
            "250-mailless.example.org\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n"
        );
        assert_eq!(text(Reply::Helo), "250 mailless.example.org\r\n");
    }

    #[test]
    fn no_reply_asks_for_a_message() {
        for reply in Reply::ALL {
            assert!(!text(reply).starts_with('3'));
        }
    }

    #[rstest]
    #[case("mailless.example.org", true)]
    #[case("MAILLESS.example.ORG.", true)]
    #[case("[192.0.2.1]", true)]
    #[case("sub.mailless.example.org", false)]
    #[case("example.org", false)]
    fn own_mail_is_for_the_host_itself(#[case] domain: &str, #[case] own: bool) {
        assert_eq!(
            Replies::new(HOST, None).unwrap().is_own(domain.as_bytes()),
            own
        );
    }
}
