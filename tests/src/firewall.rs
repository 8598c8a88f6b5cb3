//! nftables in a namespace, by the nft of an overlay root.

use std::fs;

use crate::{flood::sysctl, lab::Namespace, rig::tcp_counter, root::Root};

/// An nft, also where the machine has none.
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

/// Rules that a host may have of its own.
#[derive(Clone, Copy, Debug)]
pub struct HostRules {
    /// A name for the rules.
    pub name: &'static str,
    ruleset: &'static str,
    /// Whether conntrack may pick up connections in the middle.
    loose: bool,
    /// `--listen` of the agent, where it cannot find the address itself.
    pub listen: Option<&'static str>,
}

impl HostRules {
    /// Loads them into the namespace.
    ///
    /// # Panics
    /// When nft or the kernel refuses them.
    pub fn load(&self, nft: &Nft, namespace: &Namespace) {
        nft.load(namespace, self.ruleset);
        if !self.loose {
            sysctl(namespace, "net/netfilter/nf_conntrack_tcp_loose", "0");
        }
    }
}

/// None, those that drop by state, and one that moves the port.
pub const HOST_RULES: [HostRules; 6] = {
    const NONE: HostRules = HostRules {
        name: "no rules",
        ruleset: "",
        loose: true,
        listen: None,
    };
    const NOT_SYN: HostRules = HostRules {
        name: "NEW-not-SYN drop",
        ruleset: "table inet test {
            chain input { type filter hook input priority 0; policy accept;
                ct state invalid drop
                tcp flags & (fin|syn|rst|ack) != syn ct state new drop; } }",
        ..NONE
    };
    [
        NONE,
        HostRules {
            name: "ct state",
            ruleset: "table inet test {
                chain input { type filter hook input priority 0; policy drop;
                    iif lo accept
                    ct state established,related accept
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                    tcp dport 25 ct state new accept; } }",
            ..NONE
        },
        HostRules {
            name: "ct state invalid drop",
            ruleset: "table inet test {
                chain input { type filter hook input priority 0; policy accept;
                    ct state invalid drop; } }",
            ..NONE
        },
        NOT_SYN,
        HostRules {
            name: "NEW-not-SYN drop, nf_conntrack_tcp_loose=0",
            loose: false,
            ..NOT_SYN
        },
        // XDP is before netfilter: it sees port 25, and guards what is listened on.
        HostRules {
            name: "port 25 redirected",
            ruleset: "table ip test {
                chain prerouting { type nat hook prerouting priority -100;
                    tcp dport 25 redirect to :2525; }
                chain input { type filter hook input priority 0; policy accept;
                    ct state invalid drop; } }",
            listen: Some("192.0.2.1:25,192.0.2.1:2525"),
            ..NONE
        },
    ]
};

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
    namespace.within(|| tcp_counter("netstat", "TcpExt:", name))
}
