//! THE table of configuration keys. A row makes the field, its default, how it is read and
//! checked, whether a reload changes it, the option and the variable, and its description in
//! `--help`, `packaging/nomail.toml`, the man pages and `docs/options.md`
//! (`cargo xtask docs`).
//!
//! The first paragraph of a description is the text of `--help`. What the default is, and
//! that a key needs a restart, is added to it.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "descriptions are for operators: [relay] is a table, not a link"
)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    addresses::{self, ListenAddress},
    api_url::ApiUrl,
    choices::{
        AFTER_GREETINGS, AfterGreeting, CODES_OF_556, FLOOD_ANSWERS, Fallback, FloodAnswer,
        LogFormat, OnExit, RefuseAt, RelayCode, Responder, XdpMode,
    },
    kinds::{
        Boolean, Choice, Entries, Optional, RelayReply, Setting, Unless, ValueKind as _, list,
        number, path, paths, plain, single, text,
    },
    layer::Layers,
    names::{self, Hostname},
    origin::Origin,
    resolved::{ListSources, Relay},
    table::{FileKey, Flag, KeyTable, Values, table},
    values::{self, StateDir, User},
};

/// In place of an interface's name: the one that the default route leads through.
pub const DEFAULT_ROUTE: &str = "default-route";
/// Path of the control socket by default.
pub const DEFAULT_CONTROL: &str = "/run/nomail/control.sock";
/// Directory of pins by default.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/nomail";
/// Directory of CrowdSec's decisions by default. The unit's directory is made anew with each
/// start; the one above it stays, and is what an agent in its sandbox can still reach.
pub const DEFAULT_RUN_DIR: &str = "/run/nomail-crowdsec/decisions";
/// Most connections at once that can be configured; with what else needs
/// descriptors it stays below fs.nr_open's default.
pub const CONNECTIONS_MAX: u32 = 1_000_000;

/// Highest rate of a source or a prefix. At 100 jiffies per second, which is the
/// fewest, [`nomail_common::guard::limiter::Limit`] keeps it within 1.3 %.
pub(super) const RATE_MAX: u32 = 10_000;
/// Most unproven SYNs per second; beyond it the clock of 100 Hz rounds badly.
const UNPROVEN_RATE_MAX: u32 = 50_000;
/// Most SYNs of a prefix at once: the default of the highest rate.
pub(super) const PREFIX_BURST_MAX: u32 = 2 * RATE_MAX;
/// A year: the longest session, and the longest memory of a source.
const YEAR_SECS: u32 = 31_536_000;

table! {
    /// The configuration in effect.
    pub struct Config = "" {
        /// Interfaces to guard, by name, 1 to 16; "default-route" is the interface of the
        /// default route.
        interfaces: Vec<String> = vec![DEFAULT_ROUTE.to_owned()], restart,
            list("\"eth0\"", addresses::interface).not_empty(),
            flag "--iface" "NOMAIL_IFACE" "NAME";

        /// Where to listen, and exactly what to guard: addresses with a port like 192.0.2.7:25 or
        /// [fe80::7%eth0]:25, at most 4 different ports; 0.0.0.0:25 and [::]:25 are wildcards.
        ///
        /// Without it the agent also follows addresses that appear later, and with the socket
        /// unit it listens on the sockets of that.
        listen: Vec<ListenAddress> = Vec::new(), restart,
            Unless {
                of: list("\"192.0.2.7:25\"", addresses::listen_address).not_empty(),
                is_unset: Vec::is_empty,
                unset: "port 25 of every address of the interfaces",
            },
            flag "--listen" "NOMAIL_LISTEN" "ADDR:PORT",
            example r#"["192.0.2.7:25", "[2001:db8::7]:25", "[fe80::7%eth0]:25"]"#;

        /// First word of the 521 greeting: a domain name of at most 253 characters, or an
        /// address literal like [192.0.2.7] or [IPv6:2001:db8::1].
        ///
        /// The FQDN is the host name, or the name that /etc/hosts has for it.
        hostname: Option<Hostname> = None, reload,
            Optional {
                of: text(|value| value.text()?.parse::<Hostname>()),
                unset: "the host's FQDN, else an address literal",
            },
            flag "--hostname" "NOMAIL_HOSTNAME" "NAME",
            example r#""mailless.example.org""#;

        /// Other names of this host, at most 1000; "*.example.org" for all below example.org.
        ///
        /// Mail for another domain raises a warning, because it is lost if an MX record of the
        /// domain points here; mail for these names does not, nor for those that /etc/hosts
        /// gives the host's addresses.
        aliases: Vec<String> = Vec::new(), reload,
            list("\"www.example.org\"", names::alias);

        /// What speaks the refusal: "listener" (sockets of the agent), or "xdp" (the XDP
        /// program, without a socket; in the greeting only, not with [relay]).
        ///
        /// With "xdp" no process and no memory serves a connection, refuse_at = "auto" means
        /// "greeting", and a client that never sends a RST is not served. Other refusal points,
        /// xdp_mode = "off" and another limits.flood_answer than "challenge" need the listener.
        responder: Responder = Responder::default(), restart, Choice(Responder::CHOICES),
            flag "--responder" "NOMAIL_RESPONDER" "WHAT";

        /// What speaks the refusal while the listener takes no connections, because its queue
        /// stays full or the agent is stalled: "none", or "xdp".
        ///
        /// XDP answers new clients within a second, and until a second after the listener has
        /// recovered; open connections stay where they began. With on_exit = "keep" it also
        /// answers while no agent runs. Needs what responder = "xdp" needs, and that to be
        /// "listener".
        fallback: Fallback = Fallback::default(), restart, Choice(Fallback::CHOICES);

        /// Where the refusal is spoken: always in the "greeting", at "ehlo", "mail" or "rcpt";
        /// or "auto": in the greeting on the first contact, at RCPT when the sender returns,
        /// from wherever. With [relay] only "rcpt", which is the default then.
        refuse_at: RefuseAt = RefuseAt::default(), reload, Choice(RefuseAt::CHOICES),
            flag "--refuse-at" "NOMAIL_REFUSE_AT" "WHERE";

        /// What follows a greeting with 521: "hold" (answer 521 to everything except QUIT), or
        /// "close". With [relay] only "hold".
        after_greeting: AfterGreeting = AfterGreeting::default(), reload,
            Choice(AFTER_GREETINGS),
            flag "--after-greeting" "NOMAIL_AFTER_GREETING" "WHAT";

        /// Health checkers, at most 1000 addresses and networks: they always get 220, 250 to
        /// EHLO and 521 at RCPT, whatever refuse_at says, and neither the memory of "auto" nor
        /// the log has them. Not with responder = "xdp".
        monitors: Vec<IpNet> = Vec::new(), reload, list("\"192.0.2.7\"", addresses::ignored);

        /// How XDP attaches: "native" (in the driver), "generic" (in the network stack, slower),
        /// "auto" (native, else generic with a warning), or "off" (no guard, the responder
        /// alone).
        xdp_mode: XdpMode = XdpMode::default(), restart, Choice(XdpMode::CHOICES),
            flag "--xdp-mode" "NOMAIL_XDP_MODE" "MODE";

        /// Count and report every verdict, but drop nothing and answer nothing in XDP.
        ///
        /// The 521 is spoken all the same.
        observe: bool = false, reload, Boolean,
            flag "--observe" "NOMAIL_OBSERVE" "true|false";

        /// What happens to the guard when the agent exits: "detach" removes it; "keep" leaves it
        /// with its counters, and the next agent takes it over.
        on_exit: OnExit = OnExit::default(), restart, Choice(OnExit::CHOICES);

        /// Where the guard is pinned with on_exit = "keep": an absolute path in a BPF file
        /// system, whose last name has no dot. Each agent needs a directory of its own.
        pin_dir: PathBuf = DEFAULT_PIN_DIR.into(), restart, path(values::pin_dir);

        /// Directory for what a restart must not forget: an absolute path. One that you set is
        /// created if it is missing.
        state_dir: StateDir = StateDir::default(), restart,
            Unless {
                of: single(values::state_dir, |directory| plain(&directory.path)),
                is_unset: |directory| directory.is_default,
                unset: "/var/lib/nomail, if it is there",
            },
            example r#""/var/lib/nomail""#;

        /// The account that the agent switches to, a name or a uid, never root. One that you set
        /// must exist.
        user: User = User::default(), restart,
            Unless {
                of: single(values::user, |user| user.value.clone()),
                is_unset: |user| user.is_default,
                unset: "nomail, or a free uid from 61184 to 65519 if there is no such user",
            },
            example r#""nomail""#;

        /// Unix socket on which the agent serves its status: an absolute path of at most 107
        /// bytes.
        control: PathBuf = DEFAULT_CONTROL.into(), restart, path(values::socket_path),
            flag "--control" "NOMAIL_CONTROL" "PATH";
    }
    beside {
        /// The file that was read, or would have been: where a reload looks.
        /// `None` only in [`Config::default`].
        file: Option<PathBuf> = None;
        /// The files that were read: that one, if it was there, and its drop-ins.
        files: Vec<PathBuf> = Vec::new();
        /// `[limits]`.
        limits: Limits = Limits::default();
        /// `[lists]`.
        lists: Arc<ListSources> = Arc::default();
        /// `[relay]`. None: this host is no MX.
        relay: Option<Arc<Relay>> = None;
        /// `[log]`.
        log: Log = Log::default();
        /// `[metrics]`.
        metrics: Metrics = Metrics::default();
        /// `[crowdsec]`. None: no API is asked.
        crowdsec: Option<Crowdsec> = None;
    }
}

table! {
    /// Limits for one source, and for all together. A source is one IPv4 address or one IPv6
    /// /64; a prefix is an IPv4 /24 or an IPv6 /48.
    #[derive(Copy)]
    pub struct Limits = "limits." {
        /// SYNs per second that one source (IPv4 address or IPv6 /64) may send, 1 to 10000.
        ///
        /// A source over this rate is challenged; if it has already proven its address, its SYNs
        /// are dropped.
        syn_rate: u32 = 10, reload,
            number(1..=RATE_MAX, "give the SYNs per second that one source may send"),
            flag "--syn-rate" "NOMAIL_SYN_RATE" "N";

        /// SYNs that one source may send at once, 1 to 10000.
        syn_burst: u32 = 20, reload,
            number(1..=10_000, "give the SYNs that one source may send at once"),
            flag "--syn-burst" "NOMAIL_SYN_BURST" "N";

        /// SYNs per second that one prefix may send, 0 to 10000. 0 is no limit.
        prefix_rate: u32 = 0, reload,
            number(
                0..=RATE_MAX,
                "give the SYNs per second that one prefix may send, or 0 for no limit",
            );

        /// SYNs that one prefix may send at once, 1 to 20000. Only with prefix_rate.
        prefix_burst: u32 = 0, reload,
            Unless {
                of: number(1..=PREFIX_BURST_MAX, "give the SYNs that one prefix may send at once"),
                is_unset: |burst| *burst == 0,
                unset: "twice prefix_rate",
            },
            example "200";

        /// SYNs per second of all sources together that may pass without a proof of their
        /// address, 0 to 50000, and four times as many at once. 0 is a sixteenth of the
        /// listener's queue, 64000 with flood_answer = "cookie".
        unproven_rate: u32 = 0, reload,
            number(
                0..=UNPROVEN_RATE_MAX,
                "give the SYNs per second that may pass without a proof of their address, or \
                 0 for what the listener's queue can absorb",
            );

        /// The answer to a SYN over a limit from a client that has not proven its address.
        /// "challenge": XDP makes the client prove it, which a real TCP does by itself. "drop":
        /// none; an attacker that forges an address can then silence its owner. "cookie": the
        /// kernel's SYN cookie while the listener's queue is full; for clients whose firewall
        /// drops RSTs, on hosts whose own firewall does not track port 25.
        flood_answer: FloodAnswer = FloodAnswer::default(), reload, Choice(FLOOD_ANSWERS);

        /// Connections at once, 1 to 1000000. When they are reached, a connection of the fullest
        /// network (IPv4 /24, IPv6 /48) makes room for one of a network with fewer; any other
        /// newcomer is greeted with 521 (a relay: 421) and closed.
        connections: u32 = 10_000, reload,
            number(1..=CONNECTIONS_MAX, "give the connections that may be open at once");

        /// Connections at once of one source, 1 to 1000000. Those beyond are greeted and closed
        /// likewise.
        connections_per_source: u32 = 100, reload,
            number(
                1..=CONNECTIONS_MAX,
                "give the connections that one source may have open at once",
            );

        /// Seconds that a session may wait for the next command, 1 to 86400.
        idle_timeout_secs: u64 = 300, reload,
            number(1..=86_400, "give the seconds to wait for the next command");

        /// Seconds that a session may last in all, 1 to 31536000 (a year).
        session_timeout_secs: u64 = 1800, reload,
            number(1..=u64::from(YEAR_SECS), "give the seconds that a session may last");

        /// Seconds that refuse_at = "auto" remembers a network, 3600 (an hour) to 31536000 (a
        /// year). Senders retry for days; the default is six.
        sender_age_secs: u32 = 518_400, reload,
            number(3600..=YEAR_SECS, "give the seconds that a source's network is remembered");
    }
}

table! {
    /// Addresses and networks, IPv4 and IPv6, without host bits: "192.0.2.7" or "192.0.2.0/24",
    /// not "192.0.2.7/24". At most 1048576 in each of the two lists. The same network in both is
    /// an error; of networks within each other, allow wins.
    pub(super) struct ListKeys = "lists." {
        /// Sources that deny and the limits of SYNs do not apply to. In a flood they have to
        /// prove their address as all others do.
        allow: Vec<(String, Origin)> = Vec::new(), reload,
            Entries { example: "\"192.0.2.0/24\"", may_be_empty: true };

        /// Sources whose SYNs are dropped.
        deny: Vec<(String, Origin)> = Vec::new(), reload,
            Entries { example: "\"192.0.2.0/24\"", may_be_empty: true };

        /// Files with more to allow, one a line, "#" or ";" before a comment: absolute paths, at
        /// most 64, of each 64 MiB. Wrong lines are left out with a warning. While a file is
        /// missing, the agent runs and denies nothing. A file that changes is taken up within 10
        /// seconds.
        allow_files: Vec<PathBuf> = Vec::new(), reload,
            paths("\"/etc/nomail/allow\"", values::list_file);

        /// Files with more to deny, as in allow_files; also Spamhaus DROP, DShield and ipsum as
        /// they are published. One that is missing is left out with a warning.
        deny_files: Vec<PathBuf> = Vec::new(), reload,
            paths("\"/etc/nomail/deny\"", values::list_file);
    }
}

table! {
    /// The domains without mail that this host is MX for. Mail for them is refused with 556,
    /// all other mail with 550. It needs domains or domain_files.
    pub(super) struct RelayKeys = "relay.", without "this host is no MX of other domains" {
        /// The domains, at most 1000000 with those of the files: "example.org" for the name
        /// itself, "*.example.org" for all below it, and behind a name, if it has one, its own
        /// text, of at most 400 characters.
        domains: Vec<(String, Origin)> = Vec::new(), reload,
            Unless {
                of: Entries { example: "\"example.org\"", may_be_empty: false },
                is_unset: |_| true,
                unset: "none beside those of relay.domain_files",
            },
            example r#"["example.org", "*.example.org", "example.com closed since May"]"#;

        /// Files with more domains, one a line: absolute paths, at most 64, of each 64 MiB.
        /// Wrong lines and missing files are left out with a warning. A file that changes is taken
        /// up within 10 seconds.
        domain_files: Vec<PathBuf> = Vec::new(), reload,
            Unless {
                of: paths("\"/etc/nomail/domains\"", values::list_file).not_empty(),
                is_unset: |_| true,
                unset: "none beside those of relay.domains",
            },
            example r#"["/etc/nomail/domains"]"#;

        /// The code of the refusal: 556 (RFC 7504), or 521, to the letter of RFC 1846.
        code: u16 = RelayCode::default().code(), reload, RelayReply;

        /// The enhanced code of 556: "5.1.2", or "5.1.10" for domains with a null MX. 521 has
        /// 5.3.2 and takes no other.
        enhanced_code: Option<RelayCode> = Some(RelayCode::default()), reload,
            Optional { of: Choice(CODES_OF_556), unset: "5.3.2, which 521 always has" };

        /// The text of the refusal for a domain without its own: printable ASCII of at most 400
        /// characters.
        text: String = "this domain does not accept mail".to_owned(), reload,
            text(|value| names::reply_text(value.text()?).map(str::to_owned));

        /// The mailbox that mail to postmaster is pointed to (551), of at most 254 characters.
        postmaster: Option<String> = None, reload,
            Optional {
                of: text(names::mailbox),
                unset: "mail to postmaster is refused as other mail is",
            },
            example r#""postmaster@example.com""#;
    }
}

table! {
    /// The log, on standard error.
    pub struct Log = "log." {
        /// Format of the log on standard error: "text" for people, or "json", one object a line.
        format: LogFormat = LogFormat::default(), restart, Choice(LogFormat::CHOICES),
            flag "--log-format" "NOMAIL_LOG_FORMAT" "FORMAT";

        /// Seconds between two reports of the busiest sources, 1 to 86400.
        interval_secs: u64 = 60, reload,
            number(1..=86_400, "give the seconds between two reports");

        /// Sources that such a report names, each on a line, 0 to 1000.
        sources_max: usize = 20, reload,
            number(0..=1000, "give the sources that a report names");

        /// Health checkers that no report names: at most 1000 addresses and networks.
        ignore: Vec<IpNet> = Vec::new(), reload, list("\"192.0.2.7\"", addresses::ignored);

        /// Log the addresses of envelopes, which are personal data.
        envelope: bool = false, reload, Boolean;
    }
}

table! {
    /// Figures by HTTP.
    #[derive(Copy)]
    pub struct Metrics = "metrics." {
        /// Where the agent serves its figures by HTTP, /metrics for Prometheus, /healthz, and a
        /// page for people at /: an address with a port, or "off".
        listen: Option<SocketAddr> = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9521)),
            restart,
            single(addresses::metrics_address, |listen| {
                listen.map_or_else(|| "off".to_owned(), |address| address.to_string())
            }),
            flag "--metrics" "NOMAIL_METRICS" "ADDR:PORT|off";
    }
}

table! {
    /// The local API of CrowdSec whose decisions are denied, too: those of the type ban for
    /// addresses and ranges, at most 262144. nomail-agent crowdsec, which is the unit
    /// nomail-crowdsec.service, pulls them. Adding this table to a running agent needs a
    /// restart; changing or removing it does not, except for run_dir.
    pub struct Crowdsec = "crowdsec.", without "no decisions of CrowdSec are denied" {
        /// Where the API listens: http, a numeric address and a port.
        url: ApiUrl = ApiUrl::default(), reload, text(|value| value.text()?.parse::<ApiUrl>());

        /// The file with the API's key, as `cscli bouncers add nomail -o raw` prints it: an
        /// absolute path. Readable for the group nomail and nobody else.
        api_key_file: PathBuf = PathBuf::new(), reload,
            Unless {
                of: path(|value| values::absolute_path(value.text()?, "file")),
                is_unset: |path| path.as_os_str().is_empty(),
                unset: "an error, because the API needs one",
            },
            example r#""/etc/nomail/crowdsec.key""#;

        /// Seconds from one pull of decisions to the next, 1 to 3600. With 5 a decision is in
        /// force within 10 seconds.
        interval_secs: u64 = 5, reload,
            number(1..=3600, "give the seconds from one pull of decisions to the next");

        /// The directory in which nomail-agent crowdsec writes the decisions, and the agent
        /// reads them: an absolute path, below a directory that stays.
        run_dir: PathBuf = DEFAULT_RUN_DIR.into(), restart,
            path(|value| values::absolute_path(value.text()?, "directory"));
    }
}

/// All tables, in the order of the file.
pub fn tables() -> [KeyTable; 7] {
    [
        Config::table(),
        Limits::table(),
        ListKeys::table(),
        RelayKeys::table(),
        Log::table(),
        Metrics::table(),
        Crowdsec::table(),
    ]
}
