//! Protocols that clients speak instead of SMTP.

#[cfg(test)]
mod tests;

use nomail_common::counted;

counted! {
    /// A protocol that is not SMTP.
    pub enum Protocol {
        /// A HTTP request.
        Http "http" "spoke HTTP";
        /// A TLS ClientHello without STARTTLS before it.
        Tls "tls" "began with TLS";
        /// The PROXY protocol, version 1 or 2: a proxy in front of this host is set to send it.
        Proxy "proxy" "sent a PROXY header";
        /// Other bytes that no text contains.
        Garbage "garbage" "sent garbage";
    }
}

/// HTTP methods, and the preface of HTTP/2 (RFC 9110 section 9, RFC 5789,
/// RFC 9113 section 3.4). None is a verb of SMTP.
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
];

/// The start of a PROXY protocol header, version 1.
const PROXY_V1: &[u8] = b"PROXY ";

/// The empty lines at the start of the signature of PROXY protocol version 2. A NUL follows
/// them.
pub(super) const PROXY_V2_EMPTY_LINES: u8 = 2;

/// The record type of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The major version of every TLS record.
const TLS_MAJOR: u8 = 0x03;

impl Protocol {
    /// Recognises a protocol in a line that may be incomplete, as soon as its bytes
    /// decide. CR, LF and tabs are not garbage.
    ///
    /// `line` is the line so far. Its first `seen` bytes were passed before without a
    /// result, and only the rest is searched, so that all calls for a line take time in
    /// proportion to its length and their number. How a line is split never changes the
    /// result.
    pub fn recognise(line: &[u8], seen: usize) -> Option<Self> {
        match line {
            [] | [TLS_HANDSHAKE] => None,
            [TLS_HANDSHAKE, TLS_MAJOR, ..] => Some(Self::Tls),
            [TLS_HANDSHAKE | 0x80.., ..] => Some(Self::Garbage),
            _ if line.starts_with(PROXY_V1) => Some(Self::Proxy),
            _ if HTTP_METHODS.iter().any(|method| line.starts_with(method)) => Some(Self::Http),
            _ => {
                let fresh = line.get(seen..).unwrap_or_default();
                let control =
                    |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t');
                fresh.iter().any(control).then_some(Self::Garbage)
            }
        }
    }
}
