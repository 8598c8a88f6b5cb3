//! The table of checks, and what they find.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use crate::text::{ascii, plural};

/// Makes [`Check`] from a table. A row is what is checked, the variant, its name, and what to
/// do, as docs/doctor.md has them.
macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $check:ident $name:literal $remedy:literal;)+) => {
        /// A check, in the order of the findings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Check {
            $($(#[doc = $doc])+ $check,)+
        }

        impl Check {
            /// Its name in text and JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)+
                }
            }

            /// For each check its name, what is checked, and what to do.
            #[cfg(test)]
            const ROWS: &[[&str; 3]] = &[$([$name, concat!($($doc),+), $remedy]),+];
        }
    };
}

checks! {
    /// Linux 6.0 or newer, which has all that the XDP program needs: programs that take packets in
    /// pieces, and SYN cookies for XDP
    Kernel "kernel" "boot a newer kernel, or `xdp_mode = \"off\"`";
    /// `/sys/kernel/btf/vmlinux`
    Btf "btf" "a kernel with `CONFIG_DEBUG_INFO_BTF`; if `bpf_load` is ok, nothing";
    /// `net.core.bpf_jit_enable`; the kernel shows it in the host's network namespace only
    BpfJit "bpf_jit" "`sysctl -w net.core.bpf_jit_enable=1`";
    /// whether every user may load BPF programs. nomail does not need it
    UnprivilegedBpf "unprivileged_bpf" "`sysctl -w kernel.unprivileged_bpf_disabled=2`";
    /// loads the real XDP program and its maps, attaches them to nothing, and removes them. Root
    BpfLoad "bpf_load" "as it says";
    /// the file, as `check-config` does; if it is wrong, the other checks use the defaults
    Configuration "configuration" "correct it";
    /// whether an agent answers on the control socket, of this version, not only observing, and in
    /// this network namespace. If it runs in another one, the other checks are about this namespace
    /// and not about that agent
    Agent "agent"
        "start or restart it; `observe = false`; `nsenter --net=/proc/PID/ns/net nomail-agent \
         doctor`";
    /// whether each list file was read without errors: by the running agent, else as the files are
    /// now; and, with `[crowdsec]`, whether decisions arrive
    Lists "lists"
        "correct the file: the agent takes it up within 10 s; `systemctl restart nomail-crowdsec`";
    /// the account that the agent changes to
    User "user" "`useradd --system …`";
    /// whether `limits.connections` fits `fs.nr_open`, or the agent's limit if it may not raise
    /// that. Root
    Descriptors "descriptors" "`sysctl -w fs.nr_open=N`, or `LimitNOFILE=N` in the unit";
    /// whether that account may write to it; matters to `refuse_at = "auto"` only
    StateDir "state_dir" "`install -d …`";
    /// programs in `pin_dir` whose agent no longer runs. Root
    Pins "pins" "start the agent, or `nomail-agent detach`";
    /// it exists, is up, is Ethernet, and has a carrier
    Interface "interface" "`ip link set dev NAME up`, or another name";
    /// whether it is a port of a bridge or bond, which has the addresses then, or has VLAN devices
    Topology "topology" "`interfaces = [\"bond0\"]`, or `listen = [...]`";
    /// which XDP program is on it, and whether a running agent has lost its own. nomail replaces no
    /// other program
    XdpProgram "xdp_program" "stop what attached it, or `ip link set dev NAME xdp off`";
    /// whether the driver has native XDP, as the kernel says since Linux 6.3; the mode that a
    /// running agent has
    XdpNative "xdp_native" "accept generic mode, or another driver";
    /// whether what XDP sends leaves the host: in native mode one end of a veth pair sends only if
    /// the other end has GRO or an XDP program, which a container on a bridge lacks; what a running
    /// agent has noticed; and whether any of at least 1000 challenges was answered
    Answers "answers"
        "`xdp_mode = \"auto\"`, which uses generic mode there; or `ethtool -K PEER gro on`";
    /// whether the XDP program sees the SYNs of what connects: a virtio_net device without
    /// mergeable buffers takes native XDP and never runs it; and what a running agent has noticed
    /// by comparing connections with SYNs
    Sight "sight" "`xdp_mode = \"auto\"`, which uses generic mode there";
    /// above 3506 a packet does not fit one buffer: the driver has to hand it over in pieces
    Mtu "mtu" "a smaller MTU, or generic mode";
    /// LRO and hardware GRO are switched off while XDP is attached; in native mode the other end of
    /// a veth pair sends without TSO (Linux 6.18)
    Offloads "offloads" "measure first, with `ethtool -K`";
    /// generic mode beside neighbours on the same machine (virtio, bridge, tap), whose checksums
    /// are incomplete: an answer of XDP is known to reach them over veth only. XDP answers in a
    /// flood, and sources over their limit
    Checksums "checksums" "`ethtool -K INTERFACE tx off` on the neighbour";
    /// with a running agent: addresses that it cannot guard, because there is no room for more or
    /// they are whole networks (AnyIP); guarded ones whose clients XDP cannot challenge, because
    /// frames for them may have a VLAN tag; configured ones that this host does not have yet
    Addresses "addresses"
        "`listen = [...]` with the addresses that matter; guard the interface that has the \
         address";
    /// which process listens where the agent would
    Port "port" "stop it, or `listen = [...]` without that address";
    /// with a running agent: connects to each address that it listens on, reads `521` (or `220`,
    /// where it refuses later) and its name, and says QUIT. The connection goes through loopback,
    /// not through XDP. It counts in `status`, and `auto` remembers the host's own network. A host
    /// that may not connect to port 25 anywhere is no fault: if SYNs from outside reach the
    /// listener, or that is unknown, the result is `skip`
    Greeting "greeting" "the agent's log; rules that redirect the port";
    /// whether a SYN that arrives at an interface reaches the listener: tried, see
    /// [above](#what-it-sends), not read from rules. If it does not, something between the
    /// interface and the socket drops it or redirects it to another port: a rule of nftables or
    /// iptables, an ingress hook, or `rp_filter`. The SYN is from a reserved address: sources that
    /// a rule allows may get through all the same, and a rule against such addresses ("bogons")
    /// drops this SYN and no real one. Not tried where no route leads back over that interface, in
    /// a flood, while the kernel answers with SYN cookies (`tcp_syncookies = 2`), and with
    /// `responder = "xdp"`. With a running agent also: many SYNs that XDP passed, and not one
    /// connection. Root
    Firewall "firewall"
        "find it with `nft list ruleset` and `iptables-save`, and let TCP to the port through";
    /// how full the table of connections is
    Conntrack "conntrack" "`sysctl -w net.netfilter.nf_conntrack_max=N`";
    /// 1 is right. 0 drops clients when a queue is full; with 2 each connection begins with a
    /// cookie, and one whose last packet is lost hangs without having seen the 521
    SynCookies "tcp_syncookies" "`sysctl -w net.ipv4.tcp_syncookies=1`";
    /// the listener's queue is 4096 if `net.core.somaxconn` allows it; the cap of unproven SYNs is
    /// a sixteenth of it a second
    Somaxconn "somaxconn" "`sysctl -w net.core.somaxconn=4096`";
    /// the first word of the greeting: not an internal name (`.local`, `.internal`, `.lan`, …), a
    /// single label, nor a private or loopback address
    Hostname "hostname" "`hostname = \"mailless.example.org\"`";
    /// whether a mail server on this host (Postfix, Exim, OpenSMTPD, msmtp, nullmailer, dma,
    /// Sendmail, or any process that listens on 127.0.0.1:25) sends with addresses of a domain
    /// whose mail is refused here, or that has a null MX: receivers that verify senders reject it,
    /// and bounces are lost. The domain is read from the server's files; where they do not say, it
    /// is taken to be the host's name
    OwnMail "own_mail"
        "the setting that it prints; [mail that this host \
         sends](operating.md#mail-that-this-host-sends)";
    /// whether this host is an MX of its own name, the domains above it (of two labels and more),
    /// the names that its addresses have (PTR) and the domains above those, up to 32 domains that
    /// mail has arrived for (`foreign_domains` of the running agent's status), and each `--domain`:
    /// by name, or by one of its addresses. RFC 1846 section 4.3 forbids that, and mail for that
    /// domain is refused. Behind NAT only the name is compared. A domain without an MX whose
    /// address is this host's is reported as well
    Mx "mx" "remove the MX record; or, for a domain without mail, `[relay]`";
    /// `--domain`: whether it says that it takes no mail (RFC 7505), and has no other MX beside
    NullMx "null_mx" "`NAME. IN MX 0 .`";
    /// `--domain`: whether it says that it sends no mail
    Spf "spf" "`NAME. IN TXT \"v=spf1 -all\"`";
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// It works, but worse than it could.
    Warn,
    /// It does not work, or it does harm.
    Fail,
    /// It could not be checked, or does not apply.
    Skip,
}

impl CheckResult {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    /// The colour of the word on a terminal.
    const fn sgr(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warn => "33",
            Self::Fail => "31;1",
            Self::Skip => "2",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    #[serde(serialize_with = "as_name")]
    pub check: Check,
    /// The result.
    pub result: CheckResult,
    /// What was found, or why it could not be checked; one line without control characters.
    pub found: String,
    /// A command or a line of configuration that fixes it.
    pub remedy: Option<String>,
}

fn as_name<S: Serializer>(check: &Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.name())
}

impl Finding {
    pub(super) fn ok(check: Check, found: impl AsRef<str>) -> Self {
        Self::new(check, CheckResult::Ok, found.as_ref(), None)
    }

    pub(super) fn warn(check: Check, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(
            check,
            CheckResult::Warn,
            found.as_ref(),
            Some(remedy.as_ref()),
        )
    }

    pub(super) fn fail(check: Check, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(
            check,
            CheckResult::Fail,
            found.as_ref(),
            Some(remedy.as_ref()),
        )
    }

    /// It does not apply.
    pub(super) fn skip(check: Check, reason: impl AsRef<str>) -> Self {
        Self::new(check, CheckResult::Skip, reason.as_ref(), None)
    }

    /// It could not be checked; the remedy says how it can be.
    pub(super) fn unseen(check: Check, reason: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(
            check,
            CheckResult::Skip,
            reason.as_ref(),
            Some(remedy.as_ref()),
        )
    }

    /// It could not be checked without root.
    pub(super) fn needs_root(check: Check, what: &str) -> Self {
        Self::unseen(check, format!("only root sees {what}"), "run as root")
    }

    fn new(check: Check, result: CheckResult, found: &str, remedy: Option<&str>) -> Self {
        Self {
            check,
            result,
            found: ascii(found),
            remedy: remedy.map(ascii),
        }
    }
}

/// A line for each finding, in columns.
pub fn text(findings: &[Finding], colour: bool) -> String {
    let names = findings.iter().map(|finding| finding.check.name().len());
    let width = names.max().unwrap_or(0);
    let mut shown = String::new();
    for finding in findings {
        let word = format!("{:<4}", finding.result.word());
        let word = match colour {
            true => format!("\x1b[{}m{word}\x1b[0m", finding.result.sgr()),
            false => word,
        };
        // Writing to a string cannot fail.
        let _ = write!(
            shown,
            "{word}  {:<width$}  {}",
            finding.check.name(),
            finding.found
        );
        if let Some(remedy) = &finding.remedy {
            let _ = write!(shown, " -> {remedy}");
        }
        shown.push('\n');
    }
    shown
}

/// A line with the number of each result.
pub fn summary(findings: &[Finding]) -> String {
    let count = |result| {
        let findings = findings.iter();
        findings.filter(|finding| finding.result == result).count() as u64
    };
    format!(
        "{}: {} ok, {}, {}, {} skipped\n",
        plural(findings.len() as u64, "check"),
        count(CheckResult::Ok),
        plural(count(CheckResult::Warn), "warning"),
        plural(count(CheckResult::Fail), "error"),
        count(CheckResult::Skip)
    )
}

/// An array of objects with `check`, `result`, `found` and `remedy`, which is
/// null where there is none.
///
/// # Errors
/// None that can be.
pub fn json(findings: &[Finding]) -> serde_json::Result<String> {
    serde_json::to_string(findings)
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn text_is_aligned_and_json_says_the_same() {
        let findings = [
            Finding::ok(Check::Mx, "fine"),
            Finding::fail(Check::XdpProgram, "a \"b\"\n\u{1b}[31m\u{202e}", "do it"),
            Finding::needs_root(Check::Pins, "them"),
        ];
        assert_eq!(
            text(&findings, false),
            "ok    mx           fine\n\
             fail  xdp_program  a \"b\"\\n\\u{1b}[31m\\u{202e} -> do it\n\
             skip  pins         only root sees them -> run as root\n"
        );
        assert_eq!(
            summary(&findings),
            "3 checks: 1 ok, 0 warnings, 1 error, 1 skipped\n"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&findings).unwrap()).unwrap();
        assert_eq!(json[0]["remedy"], serde_json::Value::Null);
        for (finding, json) in findings.iter().zip(json.as_array().unwrap()) {
            assert_eq!(json["check"], finding.check.name());
            assert_eq!(json["result"], finding.result.word());
            assert_eq!(json["found"], finding.found.as_str());
        }
    }

    #[test]
    fn colour_is_only_for_the_word() {
        let coloured = text(&[Finding::ok(Check::Mx, "fine")], true);
        assert_eq!(coloured, "\x1b[32mok  \x1b[0m  mx  fine\n");
    }

    /// With `NOMAIL_GOLDEN_WRITE` first writes it.
    #[test]
    fn the_reference_of_checks_is_the_committed_one() {
        const HEAD: &str = "| check | what is checked | what to do |\n|---|---|---|\n";
        let row = |[name, what, remedy]: &[&str; 3]| {
            format!("| `{name}` | {} | {remedy} |\n", what.trim())
        };
        let rows: String = Check::ROWS.iter().map(row).collect();
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap();
        let file = Path::new(&manifest).join("../docs/doctor.md");
        let page = fs::read_to_string(&file).unwrap();
        let (before, committed) = page.split_once(HEAD).unwrap();
        if env::var_os("NOMAIL_GOLDEN_WRITE").is_some() {
            fs::write(&file, format!("{before}{HEAD}{rows}")).unwrap();
        } else {
            assert_eq!(committed, rows);
        }
    }
}
