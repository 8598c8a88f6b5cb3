//! The host's own name, from the host's own files: DNS may hang, and a reload
//! must not.

use std::{fs::File, io::Read as _};

use super::Hostname;

/// As much of /etc/hosts as is read.
const HOSTS_MAX: u64 = 1 << 20;

/// The fully qualified name of this host, if it has one that others could know:
/// its host name with a dot, or the name for it in /etc/hosts.
pub fn host_fqdn() -> Option<Hostname> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let mut hosts = Vec::new();
    // Without the file, or a part of it, the name is less, not the agent.
    let _ = File::open("/etc/hosts").and_then(|file| file.take(HOSTS_MAX).read_to_end(&mut hosts));
    fqdn_of(&name, &String::from_utf8_lossy(&hosts))
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
