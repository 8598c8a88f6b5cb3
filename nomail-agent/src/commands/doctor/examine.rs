//! All checks, in their order.

use anyhow::Context as _;
use nix::unistd::Uid;

use super::{
    agent, device, dns,
    finding::{CheckResult, Finding},
    firewall,
    host::{Host, plain_domain},
    interface, kernel, lists, name, own_mail, port, reach,
};
use crate::{
    cli::DoctorArgs,
    config::{self, Overrides},
    exit::Failure,
    net::Interfaces,
};

/// Checks everything, and gives what was found in a steady order.
///
/// # Errors
/// When a `--domain` is no domain name (78), or netlink cannot be used (1).
pub fn examine(asked: &DoctorArgs) -> Result<Vec<Finding>, Failure> {
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
    // Look-ups that ran into their time-out may still be running.
    runtime.shutdown_background();
    let mut findings = findings?;
    if asked.quiet {
        findings.retain(|finding| finding.result != CheckResult::Ok);
    }
    Ok(findings)
}

async fn all(asked: &DoctorArgs, domains: &[String]) -> Result<Vec<Finding>, Failure> {
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
    let names = device::names(&asked.interfaces, &config, status.as_ref());
    let (interfaces, more) = device::find(&kernel, &names).await?;
    findings.extend(more);
    for interface in &interfaces {
        findings.extend(interface::check(interface, &config, status.as_ref(), root));
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
