//! Servers that refuse mail, each on the host of a lab of its own and on one
//! processor: the agent, a bare epoll loop, and what else an operator could take.
//!
//! Those of other projects log to a file as they do by default (smtp-sink does
//! not), and look up no names. All other settings have their defaults.

use std::{
    env, fs,
    io::Read as _,
    net::{SocketAddrV4, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    panic::resume_unwind,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nomail_tests::{
    agent::Agent,
    foreign::Program,
    lab::{HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{tried, until},
    processes::End,
    root::{Instance, Root},
};
use tempfile::TempDir;

use crate::load::{apart, many_sources};

/// Makes the program that calls [`Server::start`] the bare loop instead.
pub const EPOLL_LOOP: &str = "--epoll-loop";

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// [`crate::epoll_loop`].
    EpollLoop,
    /// The same, with a program on its interface that only passes.
    EpollLoopPassed,
    /// The agent without its guard.
    Nomail,
    /// The agent with its guard, at limits that nothing here reaches.
    NomailGuarded,
    /// Postfix's sink for tests, one process with an event loop.
    SmtpSink,
    /// Postfix's postscreen, which refuses by an access list.
    Postscreen,
    /// Postfix's smtpd, which refuses in smtpd_client_restrictions.
    PostfixSmtpd,
    /// OpenSMTPD with a filter that refuses on connect.
    OpenSmtpd,
    /// rblsmtpd under tcpserver, a process for each connection.
    Rblsmtpd,
}

impl Peer {
    /// All of them; the bare loop and the agent are neighbours.
    pub const ALL: [Self; 9] = [
        Self::EpollLoop,
        Self::EpollLoopPassed,
        Self::Nomail,
        Self::NomailGuarded,
        Self::SmtpSink,
        Self::Postscreen,
        Self::PostfixSmtpd,
        Self::OpenSmtpd,
        Self::Rblsmtpd,
    ];

    /// As a table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EpollLoop => "bare epoll loop",
            Self::EpollLoopPassed => "bare epoll loop, bare XDP_PASS",
            Self::Nomail => "nomail, `--xdp-mode off`",
            Self::NomailGuarded => "nomail, guard attached",
            Self::SmtpSink => "Postfix smtp-sink",
            Self::Postscreen => "Postfix postscreen",
            Self::PostfixSmtpd => "Postfix smtpd",
            Self::OpenSmtpd => "OpenSMTPD, filter",
            Self::Rblsmtpd => "tcpserver + rblsmtpd",
        }
    }

    /// The root it is installed in, with what, and how it is started there.
    const fn package(self) -> Option<(&'static str, &'static [&'static str], &'static str)> {
        match self {
            Self::EpollLoop | Self::EpollLoopPassed | Self::Nomail | Self::NomailGuarded => None,
            Self::SmtpSink => Some(("postfix", &["postfix"], SMTP_SINK)),
            Self::Postscreen => Some(("postfix", &["postfix"], POSTSCREEN)),
            Self::PostfixSmtpd => Some(("postfix", &["postfix"], POSTFIX_SMTPD)),
            Self::OpenSmtpd => Some(("opensmtpd", &["opensmtpd"], OPENSMTPD)),
            Self::Rblsmtpd => Some(("ucspi-tcp", &["ucspi-tcp"], RBLSMTPD)),
        }
    }
}

/// First in each root: a name that does not exist is not looked up for long.
const ROOT: &str = r"
hostname mailless.example.org
printf '%s\n' '127.0.0.1 localhost' '192.0.2.1 mailless.example.org' > /etc/hosts
rm -f /etc/resolv.conf
echo nameserver 127.0.0.1 > /etc/resolv.conf
";

/// It greets with the "hard bounce" that it has for rejected commands.
const SMTP_SINK: &str = r"
smtp-sink -h mailless.example.org -f connect \
    -B '521 mailless.example.org does not accept mail' -u postfix -m 4096 192.0.2.1:25 4096 &
";

/// Closes after its 521.
const POSTSCREEN: &str = r"
postconf -M 'smtp/inet=smtp inet n - n - 1 postscreen'
postconf -M 'smtpd/pass=smtpd pass - - n - - smtpd'
echo '0.0.0.0/0 reject' > /etc/postfix/refused
postconf -e 'postscreen_access_list = cidr:/etc/postfix/refused' \
    'postscreen_blacklist_action = drop'
postfix start
";

/// Closes after its 521.
const POSTFIX_SMTPD: &str = r"
echo '0.0.0.0/0 521 mailless.example.org does not accept mail' > /etc/postfix/refused
postconf -e 'smtpd_delay_reject = no' \
    'smtpd_client_restrictions = check_client_access cidr:/etc/postfix/refused'
postfix start
";

/// For each that is Postfix's.
const POSTFIX: &str = r"
cat > /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = mailless.example.org
mydestination =
inet_interfaces = all
inet_protocols = ipv4
queue_directory = /var/spool/nomail-test
alias_maps =
maillog_file = /var/log/nomail-test/mail.log
smtpd_peername_lookup = no
END
postconf -F '*/*/chroot=n'
install -d /var/spool/nomail-test /var/log/nomail-test
";

/// Closes after its 521.
const OPENSMTPD: &str = r#"
cat > /etc/smtpd.conf <<'END'
filter "refuse" phase connect match src { 0.0.0.0/0 } disconnect "521 mailless.example.org does not accept mail"
listen on 192.0.2.1 port 25 hostname mailless.example.org filter "refuse"
match from any for any reject
END
smtpd -d > /var/log/smtpd.log 2>&1 &
"#;

/// It greets with 220, as it is written, and refuses all commands but QUIT.
const RBLSMTPD: &str = r"
env RBLSMTPD='-mailless.example.org does not accept mail' \
    tcpserver -H -R -l 0 -c 4096 -b 4096 192.0.2.1 25 rblsmtpd /bin/true &
";

/// The packages of all peers that can be installed.
#[derive(Debug)]
pub struct Packages {
    roots: Vec<(&'static str, Result<Root, String>)>,
}

impl Packages {
    /// Installs them, or finds them installed.
    pub fn install() -> Self {
        Self::install_for(&Peer::ALL)
    }

    /// The same for these peers alone.
    pub fn install_for(peers: &[Peer]) -> Self {
        let mut roots: Vec<(&'static str, Result<Root, String>)> = Vec::new();
        for (name, packages, _) in peers.iter().copied().filter_map(Peer::package) {
            if roots.iter().all(|(known, _)| *known != name) {
                roots.push((name, tried(|| Root::install(name, packages))));
            }
        }
        Self { roots }
    }

    fn root(&self, name: &str) -> Result<&Root, String> {
        let (_, root) = self
            .roots
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| format!("there is no root {name}"))?;
        root.as_ref().map_err(Clone::clone)
    }
}

/// A server that has greeted a client. It ends on drop.
#[derive(Debug)]
pub struct Server<'packages> {
    // Before the lab: it runs in there.
    running: Running<'packages>,
    /// Where it is, with clients beside it.
    pub lab: Lab,
    /// Which it is.
    pub peer: Peer,
}

#[derive(Debug)]
enum Running<'packages> {
    Loop(
        #[expect(dead_code, reason = "kept to run")] Killed,
        #[expect(dead_code, reason = "kept attached")] Option<OwnedFd>,
    ),
    Agent(
        Agent,
        #[expect(dead_code, reason = "kept until the agent ends")] Configuration,
    ),
    Installed(#[expect(dead_code, reason = "kept to run")] Instance<'packages>),
}

#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'packages> Server<'packages> {
    /// Starts it.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub fn start(peer: Peer, packages: &'packages Packages) -> Result<Self, String> {
        let lab = lab();
        let running = match peer.package() {
            None if matches!(peer, Peer::EpollLoop | Peer::EpollLoopPassed) => {
                let passing = (peer == Peer::EpollLoopPassed).then(|| {
                    let attach = || Program::load("passing").attach(HOST_INTERFACE);
                    lab.host.within(attach)
                });
                Running::Loop(on_host(|| epoll_loop(&lab)), passing)
            }
            None => {
                let configuration = Configuration::new();
                configuration.write(Limits::GENEROUS);
                let mode = if peer == Peer::Nomail {
                    "off"
                } else {
                    "native"
                };
                Running::Agent(agent(&lab, &configuration, mode), configuration)
            }
            Some((root, _, start)) => {
                let root = packages.root(root)?;
                let common = if start == OPENSMTPD || start == RBLSMTPD {
                    ""
                } else {
                    POSTFIX
                };
                let script = format!("{ROOT}{common}{start}");
                Running::Installed(tried(|| on_host(|| root.start(&lab.host, &script)))?)
            }
        };
        tried(|| lab.client.within(|| until("a greeting", greeted)))?;
        Ok(Self { running, lab, peer })
    }

    /// The agent, if it is one.
    pub const fn agent(&self) -> Option<&Agent> {
        match &self.running {
            Running::Agent(agent, _) => Some(agent),
            _ => None,
        }
    }
}

/// Where all servers listen.
///
/// # Panics
/// Never.
pub fn target() -> SocketAddrV4 {
    SocketAddrV4::new(HOST_IPV4.parse().expect("an address"), 25)
}

/// A lab whose ends are apart, with clients from many addresses.
pub fn lab() -> Lab {
    let lab = Lab::new();
    many_sources(&lab);
    apart(&lab);
    lab
}

/// Starts something on the processor of the host.
fn on_host<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let starting = scope.spawn(|| {
            End::Host.stay();
            start()
        });
        starting.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// A server greets at once, or it does not serve yet.
fn greeted() -> Option<()> {
    let mut stream = TcpStream::connect(target()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut code = [0; 3];
    stream.read_exact(&mut code).ok()?;
    code.iter().all(u8::is_ascii_digit).then_some(())
}

fn epoll_loop(lab: &Lab) -> Killed {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", lab.host.name()))
        .arg("--")
        .arg(env::current_exe().expect("the program has a path"))
        .arg(EPOLL_LOOP)
        .stdin(Stdio::null());
    Killed(command.spawn().expect("nsenter of util-linux runs"))
}

/// Starts the agent with a configuration.
///
/// # Panics
/// When it does not serve.
pub fn agent(lab: &Lab, configuration: &Configuration, xdp_mode: &str) -> Agent {
    let file = configuration.file();
    let file = file.to_str().expect("a path in UTF-8");
    let arguments = [
        ["--iface", HOST_INTERFACE],
        ["--hostname", "mailless.example.org"],
        ["--refuse-at", "greeting"],
        ["--xdp-mode", xdp_mode],
        ["--config", file],
    ];
    on_host(|| Agent::start(&lab.host, arguments.as_flattened()))
}

/// What the agent's file says about connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At once.
    pub connections: usize,
    /// At once from one source.
    pub connections_per_source: usize,
}

impl Limits {
    /// As the others have them: none that matters.
    pub const GENEROUS: Self = Self {
        connections: 15_000,
        connections_per_source: 1000,
    };
}

/// The agent's file.
#[derive(Debug)]
pub struct Configuration(TempDir);

impl Configuration {
    /// A place for one.
    ///
    /// # Panics
    /// When there is none.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The agent reads it again when it is no longer root.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("the mode can be set");
        Self(directory)
    }

    /// Its path.
    pub fn file(&self) -> PathBuf {
        self.0.path().join("nomail.toml")
    }

    /// Writes it, with deadlines that nothing here reaches.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, limits: Limits) {
        let Limits {
            connections,
            connections_per_source,
        } = limits;
        let text = format!(
            "[limits]\n\
             unproven_rate = 50000\n\
             syn_rate = 10000\n\
             syn_burst = 10000\n\
             connections = {connections}\n\
             connections_per_source = {connections_per_source}\n\
             idle_timeout_secs = 7200\n\
             session_timeout_secs = 7200\n"
        );
        fs::write(self.file(), text).expect("the configuration can be written");
    }
}
