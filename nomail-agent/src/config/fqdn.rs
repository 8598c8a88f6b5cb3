//! The host's own name, from the host's own files: DNS may hang, and a reload
//! must not.

use std::{fs::File, io::Read as _, net::IpAddr};

use super::Hostname;

/// As much of /etc/hosts as is read.
const HOSTS_MAX: u64 = 1 << 20;

/// The fully qualified name of this host, if it has one that others could know:
/// its host name with a dot, or the name for it in /etc/hosts.
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
    // Without the file, or a part of it, the name is less, not the agent.
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

/// `name` if it has a dot and is more than a stand-in.
fn qualified(name: &str) -> Option<Hostname> {
    let stand_in = ["localhost", "localdomain", "localdomain4", "localdomain6"]
        .iter()
        .any(|label| {
            name.rsplit('.')
                .next()
                .is_some_and(|last| last.eq_ignore_ascii_case(label))
        });
    if !name.contains('.') || stand_in {
        return None;
    }
    // An address literal has dots too, but is nobody's host name.
    name.parse().ok().filter(|_| !name.starts_with('['))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn other_names_are_those_of_own_addresses() {
        let hosts = "127.0.0.1 localhost localhost.localdomain\n127.0.1.1 A.example.org a\n\
                     192.0.2.1\twww.example.org x # no.example.org\n192.0.2.9 other.example\n\
                     2001:db8::1 six.example.org a_b.example.org\n";
        let own = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        let expected = ["a.example.org", "www.example.org", "six.example.org"];
        assert_eq!(aliases_of(&own, hosts), expected);
        assert_eq!(aliases_of(&[], hosts), expected[..1]);
    }

    #[rstest]
    #[case::has_a_dot("a.example.org", "", Some("a.example.org"))]
    #[case::debian(
        "a",
        "127.0.0.1 localhost\n127.0.1.1\ta.example.org a # x\n",
        Some("a.example.org")
    )]
    #[case::dotted_later("A", "192.0.2.7 a a.example.org", Some("a.example.org"))]
    #[case::other_line("a", "192.0.2.7 b.example.org b", None)]
    #[case::comment("a", "# 192.0.2.7 a.example.org a", None)]
    #[case::no_dot("a", "127.0.1.1 a", None)]
    #[case::stand_in("localhost", "127.0.0.1 localhost.localdomain localhost", None)]
    #[case::underscore("a_b", "127.0.1.1 a_b.example.org a_b", None)]
    #[case::nothing("", "", None)]
    fn name_of_host(#[case] name: &str, #[case] hosts: &str, #[case] expected: Option<&str>) {
        let found = fqdn_of(name, hosts);
        assert_eq!(found.as_ref().map(Hostname::as_str), expected);
    }
}
