//! `nomail-agent doctor`: what an experienced administrator would look at, before
//! and while an agent runs.
//!
//! Each file has a group of checks: first what is asked of the host, then what is
//! to be said of it, which is pure. No setting of the host is changed, and what
//! others say (name servers, whoever holds the port) is escaped.

mod agent;
mod dns;
mod finding;
mod firewall;
mod kernel;
mod link;
mod lists;
mod name;
mod netdev;
mod own_mail;
mod port;
mod reach;
mod syn;

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use nix::unistd::Uid;

pub use self::finding::{Check, Finding, Outcome, json, summary, text};
use crate::{
    cli::Doctor,
    config::{self, Config, Hostname, Overrides, Responder},
    exit::{Exit, Failure},
    net::Interfaces,
    status::{Speaker, Status},
};

/// Checks everything, and gives what was found in a steady order.
///
/// # Errors
/// A domain that is none (78), or a host that tells nothing at all (1).
pub fn examine(asked: &Doctor) -> Result<Vec<Finding>, Failure> {
    let domains = asked
        .domains
        .iter()
        .map(|domain| plain_domain(domain))
        .collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    let findings = runtime.block_on(all(asked, &domains));
    // A look-up that nobody waits for any more is not waited for.
    runtime.shutdown_background();
    let mut findings = findings?;
    if asked.quiet {
        findings.retain(|finding| finding.result != Outcome::Ok);
    }
    Ok(findings)
}

/// What most checks need to know.
struct Host {
    /// Whether everything may be seen.
    root: bool,
    config: Config,
    /// What the running agent told.
    status: Option<Status>,
    /// Its addresses, other than those of loopback and of single links.
    addresses: Vec<IpAddr>,
    /// Where the agent listens, or would.
    pairs: Vec<port::Pair>,
    /// The first word of the greeting.
    name: Hostname,
}

impl Host {
    /// Where the agent listens, or would.
    fn listening(&self) -> Vec<SocketAddr> {
        self.pairs.iter().map(|pair| pair.address).collect()
    }

    /// No socket is wanted: XDP answers what comes in over an interface.
    fn answers_in_xdp(&self) -> bool {
        match &self.status {
            Some(status) => status.responder.by == Speaker::Xdp,
            None => self.config.responder == Responder::Xdp,
        }
    }
}

async fn all(asked: &Doctor, domains: &[String]) -> Result<Vec<Finding>, Failure> {
    let root = Uid::effective().is_root();
    let mut findings = kernel::check(root);

    let loaded = config::load(&Overrides::of_file(asked.config.clone()));
    findings.extend(agent::configuration(loaded.as_ref()));
    // The other checks go on with the defaults.
    let mut config = loaded.unwrap_or_default();
    if let Some(control) = &asked.control {
        config.control.clone_from(control);
    }
    let (status, finding) = agent::running(&config);
    findings.push(finding);
    findings.extend(lists::check(&config, status.as_ref()));
    findings.extend(agent::check(&config, status.as_ref(), root));

    let kernel = Interfaces::connect()?;
    let names = link::names(&asked.interfaces, &config, status.as_ref());
    let (interfaces, more) = link::find(&kernel, &names).await?;
    findings.extend(more);
    for interface in &interfaces {
        findings.extend(link::check(interface, &config, status.as_ref(), root));
    }

    findings.extend(agent::addresses(status.as_ref()));
    let local = kernel.addresses().await?;
    let numbered = interfaces
        .iter()
        .map(|found| (found.index, found.name.clone()));
    let numbered: Vec<_> = numbered.collect();
    let pairs = port::pairs(&config, status.as_ref(), &local, &numbered);
    let addresses = local
        .iter()
        .filter(|found| !found.address.is_loopback() && !found.is_link_local())
        .map(|found| found.address)
        .collect();
    let name = name::of_host(&config, status.as_ref(), &pairs);
    let host = Host {
        root,
        config,
        status,
        addresses,
        pairs,
        name,
    };
    let reach = reach::attempt(&kernel, &host, &interfaces, &local).await;
    findings.extend(port::check(&host, &reach).await);
    findings.extend(reach::findings(&host, &reach));
    findings.extend(firewall::check());
    findings.push(name::check(host.name.as_str()));
    findings.extend(own_mail::check(&host).await);
    findings.extend(dns::check(&host, domains).await);
    Ok(findings)
}

/// A domain of the command line, in lower case.
fn plain_domain(text: &str) -> Result<String, Failure> {
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

    /// `docs/doctor.md` has a row for each check, in this order, and no other.
    #[test]
    fn the_table_lists_every_check() {
        let table = include_str!("../../../../docs/doctor.md");
        let (_, table) = table.split_once("## Checks").unwrap();
        let listed: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let checks: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
        assert_eq!(listed, checks);
    }
}
