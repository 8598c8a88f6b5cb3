//! The host's names, from its host name and /etc/hosts: DNS may hang, and a reload must not.

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read as _, net::IpAddr};

use super::names::Hostname;

/// Most bytes of /etc/hosts that are read.
const HOSTS_MAX: u64 = 1 << 20;

/// The fully qualified name of this host: its host name if that has a dot, else the name
/// for it in /etc/hosts.
pub fn host_fqdn() -> Option<Hostname> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    fqdn_of(&name, &hosts())
}

/// The other names that /etc/hosts gives these addresses and those of loopback.
pub fn host_aliases(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<String> {
    aliases_of(&addresses.into_iter().collect::<Vec<_>>(), &hosts())
}

fn hosts() -> String {
    let mut hosts = Vec::new();
    // The names are optional: an unreadable file is an empty one.
    let _ = File::open("/etc/hosts").and_then(|file| file.take(HOSTS_MAX).read_to_end(&mut hosts));
    String::from_utf8_lossy(&hosts).into_owned()
}

fn aliases_of(addresses: &[IpAddr], hosts: &str) -> Vec<String> {
    let mut aliases = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        let is_own = |address: IpAddr| address.is_loopback() || addresses.contains(&address);
        if address.is_some_and(is_own) {
            let names = words.filter_map(qualified);
            aliases.extend(names.map(|name| name.as_str().to_ascii_lowercase()));
        }
    }
    aliases
}

fn fqdn_of(name: &str, hosts: &str) -> Option<Hostname> {
    if let Some(name) = qualified(name) {
        return Some(name);
    }
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut names = line.split_ascii_whitespace().skip(1);
        names
            .clone()
            .any(|alias| alias.eq_ignore_ascii_case(name))
            .then(|| names.find_map(qualified))
            .flatten()
    })
}

/// `name` if it has a dot and is no placeholder.
fn qualified(name: &str) -> Option<Hostname> {
    let is_placeholder = ["localhost", "localdomain", "localdomain4", "localdomain6"]
        .iter()
        .any(|label| {
            name.rsplit('.')
                .next()
                .is_some_and(|last| last.eq_ignore_ascii_case(label))
        });
    if !name.contains('.') || is_placeholder {
        return None;
    }
    // An address literal has dots too, but is no host name.
    name.parse().ok().filter(|_| !name.starts_with('['))
}
