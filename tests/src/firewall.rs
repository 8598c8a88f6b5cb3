//! nftables in a namespace, by the nft of an overlay root.

use std::fs;

use crate::{lab::Namespace, root::Root};

/// The nft that the machine may not have.
#[derive(Debug)]
pub struct Nft(Root);

impl Nft {
    /// Installs it, or finds it installed.
    ///
    /// # Panics
    /// When that fails.
    pub fn install() -> Self {
        Self(Root::install("nftables", &["nftables"]))
    }

    /// Loads a ruleset into the namespace. It stays there.
    ///
    /// # Panics
    /// When nft or the kernel refuses it, with what nft said.
    pub fn load(&self, namespace: &Namespace, ruleset: &str) {
        // nft 1.0 wants a line for each end.
        let ruleset = ruleset.replace("; }", ";\n}").replace("} }", "}\n}");
        let script = format!(
            "nft -f - <<'END'\n{ruleset}\nEND\nnft list ruleset > /root/loaded; echo loaded >> /root/loaded\n"
        );
        let mut instance = self.0.start(namespace, &script);
        instance.line("/root/loaded", &["loaded"]);
    }
}

/// How many connections the namespace tracks.
///
/// # Panics
/// When the kernel tracks none at all, in any namespace.
pub fn conntrack_entries(namespace: &Namespace) -> u64 {
    const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
    let text = namespace
        .within(|| fs::read_to_string(COUNT))
        .unwrap_or_else(|error| panic!("{COUNT}: {error}: a kernel without conntrack?"));
    text.trim().parse().expect("a number")
}

/// A counter of `/proc/net/netstat` of the namespace, such as `SyncookiesSent`.
///
/// # Panics
/// When there is none of the name.
pub fn netstat(namespace: &Namespace, name: &str) -> u64 {
    let text = namespace
        .within(|| fs::read_to_string("/proc/thread-self/net/netstat"))
        .expect("the kernel counts");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let found = lines.chunks_exact(2).find_map(|pair| {
        let place = pair[0].iter().position(|of| *of == name)?;
        pair[1][place].parse().ok()
    });
    found.unwrap_or_else(|| panic!("no counter {name}"))
}
