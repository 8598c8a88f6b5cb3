//! The host, as most checks need to know it.

use std::net::{IpAddr, SocketAddr};

use super::listen_pair::ListenPair;
use crate::{
    config::{Config, Hostname, Responder},
    exit::{Exit, Failure},
    status::{Speaker, Status},
};

/// What most checks need to know.
pub(super) struct Host {
    /// Whether doctor runs as root.
    pub(super) root: bool,
    pub(super) config: Config,
    /// The status of the running agent.
    pub(super) status: Option<Status>,
    /// Its addresses, other than those of loopback and of single links.
    pub(super) addresses: Vec<IpAddr>,
    /// Where the agent listens, or would.
    pub(super) pairs: Vec<ListenPair>,
    /// The first word of the greeting.
    pub(super) name: Hostname,
}

impl Host {
    /// Where the agent listens, or would.
    pub(super) fn listening(&self) -> Vec<SocketAddr> {
        self.pairs.iter().map(|pair| pair.address).collect()
    }

    /// No socket is wanted: XDP answers what comes in over an interface.
    pub(super) fn answers_in_xdp(&self) -> bool {
        match &self.status {
            Some(status) => status.responder.by == Speaker::Xdp,
            None => self.config.responder == Responder::Xdp,
        }
    }
}

/// A domain of the command line, in lower case.
pub(super) fn plain_domain(text: &str) -> Result<String, Failure> {
    let refused = |error: anyhow::Error| {
        let error = error.context(format!("--domain {text:?}"));
        Failure::new(Exit::Configuration, error)
    };
    let name: Hostname = text
        .parse()
        .map_err(|error| refused(anyhow::Error::new(error)))?;
    if name.as_str().starts_with('[') {
        return Err(refused(anyhow::anyhow!("is an address: give a domain")));
    }
    Ok(name.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_name() {
        assert_eq!(plain_domain("Example.ORG").unwrap(), "example.org");
        for wrong in [
            "",
            "[192.0.2.7]",
            "192.0.2.7",
            "a b",
            "example.org.",
            "a\u{1b}[31m",
        ] {
            let failure = plain_domain(wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Configuration, "{wrong:?}");
            assert!(!failure.to_string().contains('\u{1b}'));
        }
    }
}
