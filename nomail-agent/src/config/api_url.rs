//! The URL of the local API of CrowdSec.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use super::error::{ValueError, quoted, wrong};

/// The URL of an API: `http`, a numeric address and a port. The process that connects to it
/// can look up no name in its sandbox, and has no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiUrl(SocketAddr);

impl ApiUrl {
    /// Where to connect to.
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl Default for ApiUrl {
    /// Where CrowdSec listens by default.
    fn default() -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080))
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}", self.0)
    }
}

impl FromStr for ApiUrl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let shown = quoted(text);
        let give = "write \"http://127.0.0.1:8080\"";
        let scheme = |scheme: &str| {
            let begin = text.get(..scheme.len())?;
            let rest = text.get(scheme.len()..)?;
            begin.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        if scheme("https://").is_some() {
            return wrong(format!(
                "{shown} is https, which nomail does not speak: let a local API on this host, or \
                 a tunnel (stunnel, ssh -L) listen on 127.0.0.1, and {give}"
            ));
        }
        let Some(rest) = scheme("http://") else {
            return wrong(format!("{shown} is not the URL of an API: {give}"));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return wrong(format!(
                "a URL with a user or a password: leave that out, and put the key into \
                 api_key_file; {give}"
            ));
        }
        if authority.contains(['/', '?', '#']) {
            return wrong(format!(
                "{shown} has more behind its port: leave that out; {give}"
            ));
        }
        // The one name that is known without asking.
        let authority = match authority.get(..9) {
            Some(name) if name.eq_ignore_ascii_case("localhost") => {
                format!("127.0.0.1{}", &authority[9..])
            }
            _ => authority.to_owned(),
        };
        if let Ok(address) = authority.parse::<SocketAddr>() {
            if address.port() == 0 || address.ip().is_unspecified() {
                return wrong(format!("{shown} is the address of no server: {give}"));
            }
            return Ok(Self(address));
        }
        let bare = authority.trim_matches(['[', ']']);
        if bare.parse::<IpAddr>().is_ok() {
            return wrong(format!("{shown} has no port: {give}"));
        }
        wrong(format!(
            "{shown} has no numeric address and port: nomail cannot look up a name in its \
             sandbox; {give}"
        ))
    }
}
