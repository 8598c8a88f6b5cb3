//! What stands before a listener under a flood: nomail, and what else an operator could
//! take, on the host of a [`Rig`].

use std::{any::Any, fs, os::fd::OwnedFd, panic::catch_unwind};

use nomail_tests::{
    agent::Agent,
    foreign::Program,
    generator::returner,
    lab::HOST_INTERFACE,
    rig::{RECEIVING_CPU, Rig},
    root::Root,
};

use crate::rivals::Rival;

/// SYNs a second and at once of a source, by default: of nomail and of the others.
pub const LIMIT: (u32, u32) = (10, 20);

/// What stands before the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// nomail as it is by default.
    Nomail,
    /// With `flood_answer = "cookie"`.
    NomailCookie,
    /// With `flood_answer = "drop"`.
    NomailDrop,
    /// A program that sends each frame back: the floor of programs that answer.
    Return,
    /// Nothing but the kernel's own SYN cookies.
    Kernel,
    /// A program that passes each frame, then the kernel.
    Pass,
    /// A limit for each source in nftables, at ingress.
    Nft,
    /// A limit for each source in iptables.
    Hashlimit,
    /// The SYN proxy of iptables.
    Synproxy,
    /// The same, with a program in C that sends the cookies.
    XdpSynproxy,
    /// nomail's algorithm in C.
    InC,
}

impl Guard {
    /// As a table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nomail => "**nomail**",
            Self::NomailCookie => "nomail, `flood_answer = \"cookie\"`",
            Self::NomailDrop => "nomail, `flood_answer = \"drop\"`",
            Self::Return => "bare XDP_TX: each frame goes back",
            Self::Kernel => "kernel alone, `tcp_syncookies` 1",
            Self::Pass => "bare XDP_PASS, then the kernel alone",
            Self::Nft => "nft dynamic set at ingress",
            Self::Hashlimit => "iptables hashlimit",
            Self::Synproxy => "iptables SYNPROXY",
            Self::XdpSynproxy => "iptables SYNPROXY, its cookies from XDP (as xdp_synproxy)",
            Self::InC => "nomail's algorithm in C, for IPv4 alone",
        }
    }

    /// Whether nomail guards.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Nomail | Self::NomailCookie | Self::NomailDrop)
    }

    /// What sets it up, with programs that the machine may not have. Limits are
    /// nomail's own by default: ten a second, twenty at once, 65,536 sources.
    const fn script(self) -> Option<&'static str> {
        match self {
            Self::Nft => Some(
                r#"nft -f - <<'END'
table netdev guard {
  set sources { type ipv4_addr; flags dynamic,timeout; timeout 60s; size 65536; }
  chain ingress {
    type filter hook ingress device "host0" priority 0; policy accept;
    tcp dport 25 tcp flags & (syn|ack) == syn update @sources { ip saddr limit rate over 10/second burst 20 packets } drop
  }
}
END
echo done > /done"#,
            ),
            Self::Hashlimit => Some(
                "iptables -t raw -A PREROUTING -p tcp --dport 25 --syn -m hashlimit \
                 --hashlimit-above 10/sec --hashlimit-burst 20 --hashlimit-mode srcip \
                 --hashlimit-name guard --hashlimit-htable-size 65536 \
                 --hashlimit-htable-max 65536 -j DROP; echo done > /done",
            ),
            Self::Synproxy | Self::XdpSynproxy => Some(
                "iptables -t raw -A PREROUTING -p tcp --dport 25 --syn -j CT --notrack; \
                 iptables -A INPUT -p tcp --dport 25 -m conntrack --ctstate INVALID,UNTRACKED \
                 -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460; \
                 iptables -A INPUT -m conntrack --ctstate INVALID -j DROP; \
                 echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose; echo done > /done",
            ),
            _ => None,
        }
    }
}

/// Installs what the others need.
///
/// # Errors
/// Why it is not to be had, in one line.
pub fn install() -> Result<Root, String> {
    catch_unwind(|| Root::install("guards", &["iptables", "nftables"]))
        .map_err(|panic| reason(&*panic))
}

/// Puts a program on the host's interface until the result is dropped.
pub fn on_host(rig: &Rig, program: &Program) -> OwnedFd {
    rig.lab.host.within(|| program.attach(HOST_INTERFACE))
}

/// Sets up a guard that is not nomail, until the result is dropped.
///
/// # Panics
/// When it is not to be had.
pub fn set_up(rig: &Rig, guard: Guard, root: Result<&Root, &String>) -> Option<OwnedFd> {
    if let Some(script) = guard.script() {
        let root = root.unwrap_or_else(|error| panic!("{error}"));
        let mut instance = root.start(&rig.lab.host, script);
        instance.line("/done", &["done"]);
    }
    match guard {
        Guard::Pass => Some(on_host(rig, &Program::load("pass"))),
        Guard::Return => Some(on_host(rig, &returner())),
        Guard::XdpSynproxy => Some(on_host(rig, &rival(Rival::Cookies))),
        Guard::InC => Some(on_host(rig, &rival(Rival::Challenges))),
        _ => None,
    }
}

fn rival(rival: Rival) -> Program {
    rival.load().unwrap_or_else(|error| panic!("{error}"))
}

/// Starts the server, the same for all of them, on the CPU that receives. A source may
/// send `limit` SYNs a second and at once.
///
/// # Panics
/// When it does not serve.
pub fn serve(rig: &Rig, guard: Guard, limit: (u32, u32), listen: Option<&str>) -> Agent {
    // It is read at the start, and not again.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("nomail.toml");
    let answer = match guard {
        Guard::NomailDrop => "drop",
        Guard::NomailCookie => "cookie",
        _ => "challenge",
    };
    let text = format!(
        "[limits]\nflood_answer = \"{answer}\"\nsyn_rate = {}\nsyn_burst = {}\n",
        limit.0, limit.1
    );
    fs::write(&file, text).expect("the configuration can be written");
    let mode = if guard.is_ours() { "native" } else { "off" };
    let cpu = RECEIVING_CPU.to_string();
    let mut arguments = vec![
        "--iface",
        HOST_INTERFACE,
        "--hostname",
        "mailless.example.org",
        "--xdp-mode",
        mode,
        "--config",
        file.to_str().expect("a path in UTF-8"),
    ];
    if let Some(listen) = listen {
        arguments.extend(["--listen", listen]);
    }
    Agent::spawn_through(&rig.lab.host, &["taskset", "-c", &cpu], &arguments).serving()
}

/// The first line of what a panic said, without the separator of a table.
pub fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    let first = text.and_then(|text| text.lines().next());
    first.unwrap_or("it failed").replace('|', " ")
}
