//! The life of the agent: bind, load, attach, give up root, serve, follow
//! changes, detach. The only module that knows all the others.

mod places;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use caps::Capability;
use log::{error, info, warn};
use nomail_common::{abi, source::Source, verdict::Verdict};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::places::{ListenSocket, Places};
use crate::{
    bpf::{self, BpfError, Guard, Mode, Policy},
    config::{self, Config, Hostname, Overrides, XdpMode},
    control::Control,
    exit::{Exit, Failure},
    iface::{Interface, Interfaces, holder_of},
    privilege::{self, Account, Paths},
    smtp::{self, LISTEN_BACKLOG, Replies, Responder, Settings},
    status::{ConnectionStatus, InterfaceStatus, SourceStatus, Status},
};

/// Changes of addresses come in bunches; one answer to all of a bunch.
const SETTLE: Duration = Duration::from_millis(50);
/// How often a bind is tried again that another server was in the way of.
const RETRY: Duration = Duration::from_secs(30);
/// Longest that the end waits for open sessions.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Descriptors beside those of connections: listeners, maps, netlink, log.
const DESCRIPTORS_SPARE: u64 = 512;
/// Read while serving, by every look at a per-CPU map.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// Runs the agent until a signal ends it.
pub fn run(config: Config, overrides: &Overrides) -> Result<(), Failure> {
    raise_descriptor_limit(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    runtime.block_on(async {
        let mut agent = Agent::start(config).await?;
        let served = agent.serve(overrides).await;
        agent.stop().await;
        served
    })
}

struct Agent {
    config: Config,
    interfaces: Vec<Interface>,
    kernel: Interfaces,
    shared: Arc<Shared>,
    listeners: Listeners,
    /// What is bound, and so guarded.
    places: Places,
    /// What could not be bound, and was said so.
    refused: BTreeSet<ListenSocket>,
    /// The name to greet with where none is configured, as found at the start:
    /// the files it is found in cannot be relied on once root is given up.
    found_hostname: Hostname,
    settings: watch::Sender<Arc<Settings>>,
    shutdown: watch::Sender<bool>,
    control: Arc<Control>,
    signals: Signals,
}

/// What `status` is made of.
struct Shared {
    responder: Responder,
    started: Instant,
    guard: Option<Mutex<Guard>>,
    told: Mutex<Told>,
}

/// The parts of the status that change with the configuration.
#[derive(Clone, Default)]
struct Told {
    hostname: String,
    observe: bool,
    interfaces: Vec<InterfaceStatus>,
    guarded: Vec<String>,
}

struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup()).context("SIGHUP")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
        })
    }
}

impl Agent {
    /// Does all that needs root. On an error nothing stays bound or attached.
    async fn start(config: Config) -> Result<Self, Failure> {
        let signals = Signals::catch()?;
        let kernel = Interfaces::connect()?;
        let interfaces = guarded_interfaces(&kernel, &config).await?;
        let account = Account::resolve(&config.user.value, config.user.is_default)
            .map_err(|error| Failure::new(Exit::Configuration, error))?;

        let places = Places::find(&kernel, &config, &interfaces).await?;
        if places.sockets().is_empty() {
            return Err(nothing_to_listen_on(&interfaces));
        }
        let found_hostname = find_hostname(&places);
        let hostname = config
            .hostname
            .as_ref()
            .unwrap_or(&found_hostname)
            .to_string();
        let (settings, settings_seen) = watch::channel(Arc::new(settings_of(&config, &hostname)?));
        let responder = Responder::new(settings_seen);
        let (shutdown, _) = watch::channel(false);
        let mut listeners = Listeners::default();
        for socket in places.sockets() {
            listeners.bind(socket)?;
        }
        let control = bind_control(&config.control, account)?;

        let mut told = Told {
            hostname,
            observe: config.observe,
            interfaces: Vec::new(),
            guarded: places.shown(&interfaces),
        };
        let guard = attach_guard(&config, &interfaces, &places, &mut told)?;
        let shared = Arc::new(Shared {
            responder,
            started: Instant::now(),
            guard: guard.map(Mutex::new),
            told: Mutex::new(told),
        });
        // Binding to addresses that appear, and maps on kernels before 5.19.
        let mut keep = vec![Capability::CAP_NET_BIND_SERVICE];
        if shared.guard.is_some() {
            keep.push(Capability::CAP_BPF);
        }
        privilege::drop_privileges(account, &keep, &readable_paths(&config))
            .context("root privileges cannot be given up")
            .map_err(|error| Failure::new(Exit::Permission, error))?;
        warn_of_unreadable(&config, account);
        listeners.serve(&shared.responder, &shutdown);
        Ok(Self {
            config,
            interfaces,
            kernel,
            shared,
            listeners,
            places,
            refused: BTreeSet::new(),
            found_hostname,
            settings,
            shutdown,
            control: Arc::new(control),
            signals,
        })
    }

    /// Serves until SIGTERM or SIGINT.
    async fn serve(&mut self, overrides: &Overrides) -> Result<(), Failure> {
        let asked = Arc::clone(&self.shared);
        let control = Arc::clone(&self.control);
        let control_task =
            tokio::spawn(async move { control.serve(move |sources| asked.status(sources)).await });
        self.follow_program_log();
        {
            let told = self.shared.told();
            info!(
                "{} does not accept mail: listening on {}",
                told.hostname,
                told.guarded.join(", ")
            );
        }
        let mut following = true;
        let mut told_failure = String::new();
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = self.signals.hangup.recv() => self.reload(overrides),
                _ = retry.tick(), if !self.refused.is_empty() => {
                    self.follow_and_tell(&mut told_failure).await;
                }
                more = self.kernel.changed(), if following => {
                    following = more;
                    if more {
                        sleep(SETTLE).await;
                        self.kernel.settle();
                        self.interfaces_are_there().await?;
                        self.follow_and_tell(&mut told_failure).await;
                    } else {
                        error!("netlink ended: changes of addresses are no longer followed");
                    }
                }
            }
        }
        control_task.abort();
        Ok(())
    }

    /// Tells a failure once, not at every change while it lasts.
    async fn follow_and_tell(&mut self, told_failure: &mut String) {
        let failure = match self.follow_addresses().await {
            Ok(()) => String::new(),
            Err(failure) => failure.to_string(),
        };
        if !failure.is_empty() && failure != *told_failure {
            error!("a change of addresses cannot be followed: {failure}");
        }
        *told_failure = failure;
    }

    /// Detaches first, so that no SYN is judged for a listener that is gone.
    async fn stop(self) {
        info!("stopping");
        let Self {
            shared,
            listeners,
            shutdown,
            control,
            ..
        } = self;
        if let Some(guard) = &shared.guard {
            guard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .detach();
        }
        drop(control);
        // Whether anybody still listens to it does not matter.
        let _ = shutdown.send(true);
        if timeout(DRAIN_MAX, shared.responder.drained())
            .await
            .is_err()
        {
            warn!("sessions were still open after {DRAIN_MAX:?}");
        }
        drop(listeners);
    }

    /// Takes over a changed configuration, or keeps the old one as it is.
    fn reload(&mut self, overrides: &Overrides) {
        info!("reloading the configuration");
        if let Err(failure) = self.try_reload(overrides) {
            for line in failure.lines() {
                error!("{line}");
            }
            error!("the configuration stays as it was");
        }
    }

    fn try_reload(&mut self, overrides: &Overrides) -> Result<(), Failure> {
        let new = config::load(overrides)?;
        let needs_restart = self.config.changes_that_need_restart(&new);
        let new = new.with_fixed_from(&self.config);
        let hostname = new
            .hostname
            .as_ref()
            .unwrap_or(&self.found_hostname)
            .to_string();
        let settings = settings_of(&new, &hostname)?;
        self.shared
            .configure(&policy_of(&new, &self.interfaces, &self.places))?;
        self.settings.send_replace(Arc::new(settings));
        {
            let mut told = self.shared.told();
            told.hostname = hostname;
            told.observe = new.observe;
        }
        self.config = new;
        if needs_restart.is_empty() {
            info!("the configuration was reloaded");
        } else {
            warn!(
                "the configuration was reloaded, but a change of {} needs a restart",
                needs_restart.join(", ")
            );
        }
        Ok(())
    }

    /// Listens on and guards the addresses that are there now. A socket is
    /// bound before its address is guarded, and unguarded before it is closed.
    /// An error leaves all as it was.
    async fn follow_addresses(&mut self) -> Result<(), Failure> {
        let mut places = Places::find(&self.kernel, &self.config, &self.interfaces).await?;
        let mut refused = BTreeSet::new();
        for socket in places.sockets() {
            if let Err(failure) = self.listeners.bind(socket) {
                if !self.refused.contains(&socket) {
                    error!("{failure}");
                }
                refused.insert(socket);
            }
        }
        places.remove(&refused);
        self.refused = refused;
        if places == self.places {
            return Ok(());
        }
        let policy = policy_of(&self.config, &self.interfaces, &places);
        if let Err(error) = self.shared.configure(&policy) {
            self.listeners.forget_bound();
            return Err(error.into());
        }
        self.listeners.serve(&self.shared.responder, &self.shutdown);
        self.listeners.keep(&places);
        let shown = places.shown(&self.interfaces);
        info!("addresses changed: listening on {}", shown.join(", "));
        self.shared.told().guarded = shown;
        self.places = places;
        Ok(())
    }

    /// Without its interface the agent guards nothing, and it has given up what
    /// attaching anew would need: the service manager is to start it again.
    async fn interfaces_are_there(&self) -> Result<(), Failure> {
        if self.shared.guard.is_none() {
            return Ok(());
        }
        for guarded in &self.interfaces {
            if !self.kernel.has(guarded.index).await {
                return Err(Failure::new(
                    Exit::Unavailable,
                    anyhow!(
                        "the guarded interface {} is gone: start nomail-agent again when it is \
                         back",
                        guarded.name
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Hands what the XDP program logs to the agent's log.
    fn follow_program_log(&self) {
        let Some(guard) = &self.shared.guard else {
            return;
        };
        if !log::log_enabled!(log::Level::Debug) {
            return;
        }
        let logger = guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .logger();
        let reader = logger.map_err(anyhow::Error::from).and_then(|logger| {
            // SAFETY: the logger owns its ring buffer and keeps the descriptor
            // open until it is dropped, which the AsyncFd alone does.
            unsafe { AsyncFd::register_with_interest(logger, tokio::io::Interest::READABLE) }
                .map_err(Into::into)
        });
        match reader {
            Ok(mut reader) => drop(tokio::spawn(async move {
                while let Ok(mut ready) = reader.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            })),
            Err(error) => warn!("{error:#}"),
        }
    }
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, policy: &Policy) -> Result<(), BpfError> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .configure(policy)
    }

    fn status(&self, sources_max: usize) -> Result<Status> {
        let told = self.told().clone();
        let connections = self.responder.snapshot();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: abi::ABI_VERSION,
            hostname: told.hostname,
            uptime_secs: self.started.elapsed().as_secs(),
            observe: told.observe,
            guarded: told.guarded,
            connections: ConnectionStatus {
                accepted: connections.accepted,
                active: connections.active,
                refused_greeting: connections.refused_greeting,
                quit: connections.quit,
                timed_out: connections.timed_out,
                closed_by_peer: connections.closed_by_peer,
                closed: connections.closed,
                shed: connections.shed,
                ..ConnectionStatus::default()
            },
            ..Status::default()
        };
        let mut sources: HashMap<Source, SourceStatus> = HashMap::new();
        for seen in self.responder.sources() {
            sources.insert(
                Source::from(seen.source),
                SourceStatus {
                    source: shown_source(seen.source),
                    connections: seen.connections,
                    last_seen_secs: seen.last_seen_secs,
                    ..SourceStatus::default()
                },
            );
        }
        if let Some(guard) = &self.guard {
            let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
            for place in std::iter::once(None).chain((0..told.interfaces.len()).map(Some)) {
                let counters = guard.counters(place)?;
                let verdict = |verdict: Verdict| counters.verdicts[verdict as usize];
                status.syn.passed += verdict(Verdict::Passed);
                status.syn.limited_source += verdict(Verdict::LimitedSource);
                status.syn.malformed += verdict(Verdict::Malformed);
                status.syn.total += counters.verdicts.iter().sum::<u64>();
                status.source_evictions += counters.evictions;
            }
            let counts = guard.sources()?;
            status.sources_tracked = counts.len() as u64;
            for count in counts {
                let entry = sources
                    .entry(Source::from(count.address))
                    .or_insert_with(|| SourceStatus {
                        source: shown_source(count.address),
                        last_seen_secs: u64::MAX,
                        ..SourceStatus::default()
                    });
                entry.syn = count.syn;
                entry.limited = count.limited;
                entry.last_seen_secs = entry.last_seen_secs.min(count.last_seen.as_secs());
            }
        }
        status.interfaces = told.interfaces;
        status.sources = sources.into_values().collect();
        status.sources.sort_by(|a, b| {
            let busy = |source: &SourceStatus| source.syn.max(source.connections);
            busy(b).cmp(&busy(a)).then_with(|| a.source.cmp(&b.source))
        });
        status.sources.truncate(sources_max);
        Ok(status)
    }
}

/// An IPv4 address, or the /64 that an IPv6 source is.
fn shown_source(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

/// The listening sockets, each with the task that accepts from it.
#[derive(Default)]
struct Listeners {
    bound: Vec<(ListenSocket, std::net::TcpListener)>,
    serving: HashMap<ListenSocket, AbortHandle>,
}

impl Listeners {
    /// Binds a socket that is not bound yet.
    fn bind(&mut self, socket: ListenSocket) -> Result<(), Failure> {
        if self.serving.contains_key(&socket) {
            return Ok(());
        }
        let listener = smtp::bind(socket.address, LISTEN_BACKLOG, socket.found)
            .map_err(|error| cannot_listen(socket.address, error))?;
        self.bound.push((socket, listener));
        Ok(())
    }

    /// Serves what was bound since.
    fn serve(&mut self, responder: &Responder, shutdown: &watch::Sender<bool>) {
        for (socket, listener) in self.bound.drain(..) {
            let responder = responder.clone();
            let shutdown = shutdown.subscribe();
            let task = tokio::spawn(async move {
                if let Err(error) = responder.serve(listener, shutdown).await {
                    error!("{} is no longer served: {error}", socket.address);
                }
            });
            self.serving.insert(socket, task.abort_handle());
        }
    }

    /// Closes what was bound and is not served yet.
    fn forget_bound(&mut self) {
        self.bound.clear();
    }

    /// Closes all but those of `places`. Their open sessions go on.
    fn keep(&mut self, places: &Places) {
        let sockets = places.sockets();
        self.serving.retain(|socket, task| {
            let kept = sockets.contains(socket);
            if !kept {
                task.abort();
            }
            kept
        });
    }
}

async fn guarded_interfaces(
    kernel: &Interfaces,
    config: &Config,
) -> Result<Vec<Interface>, Failure> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for name in &config.interfaces {
        let interface = if name == config::DEFAULT_ROUTE {
            kernel.of_default_route().await?
        } else {
            kernel.named(name).await?
        };
        if !interfaces.contains(&interface) {
            interfaces.push(interface);
        }
    }
    if config.xdp_mode == XdpMode::Off {
        return Ok(interfaces);
    }
    for interface in &interfaces {
        if !interface.ethernet {
            return Err(Failure::new(
                Exit::Unavailable,
                anyhow!(
                    "{} is not an Ethernet interface, so there is no XDP for it: name the \
                     interface below it, or run the responder alone with --xdp-mode off",
                    interface.name
                ),
            ));
        }
        if let Some(program) = interface.xdp_program {
            return Err(occupied(&interface.name, Some(program)));
        }
    }
    Ok(interfaces)
}

/// Somebody else's program is never replaced.
fn occupied(interface: &str, program: Option<u32>) -> Failure {
    let name = program.and_then(bpf::program_name);
    let error = match (name.as_deref(), program) {
        (Some(abi::PROGRAM), Some(id)) => anyhow!(
            "another nomail-agent guards {interface} (XDP program {id}): stop it first, or give \
             both interfaces to one agent"
        ),
        (name, Some(id)) => anyhow!(
            "the XDP program {:?} (id {id}) is attached to {interface}, and nomail replaces \
             nobody's program: detach it with `ip link set dev {interface} xdp off`, or run the \
             responder alone with --xdp-mode off",
            name.unwrap_or("unknown")
        ),
        (_, None) => anyhow!(
            "another XDP program is attached to {interface}: `ip -d link show dev {interface}` \
             shows it"
        ),
    };
    Failure::new(Exit::Unavailable, error)
}

fn attach_guard(
    config: &Config,
    interfaces: &[Interface],
    places: &Places,
    told: &mut Told,
) -> Result<Option<Guard>, Failure> {
    let modes: &[Mode] = match config.xdp_mode {
        XdpMode::Auto => &[Mode::Native, Mode::Generic],
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Off => {
            warn!("--xdp-mode off: no SYN is counted or limited");
            return Ok(None);
        }
    };
    let ports = places.guarded().into_iter().map(|(_, port)| port);
    let ports = ports
        .chain(config.listen.iter().map(|listen| listen.port))
        .collect();
    let mut guard = Guard::load(&ports, log::log_enabled!(log::Level::Debug))?;
    guard.configure(&policy_of(config, interfaces, places))?;
    for interface in interfaces {
        let name = &interface.name;
        let (mode, refused) = match guard.attach(interface.index, modes) {
            Ok(attached) => attached,
            Err(BpfError::Occupied) => return Err(occupied(name, None)),
            Err(error) => {
                let mut failure = Failure::from(error);
                failure.error = failure.error.context(format!(
                    "the guard cannot be attached to {name}: --xdp-mode off runs the responder \
                     alone"
                ));
                return Err(failure);
            }
        };
        if let Some(refused) = refused {
            warn!(
                "{name}: {mode} XDP, which costs more: {:#}",
                anyhow!(refused)
            );
        }
        info!("{name}: guarded in {mode} mode");
        told.interfaces.push(InterfaceStatus {
            name: name.clone(),
            xdp_mode: mode.to_string(),
            program_id: guard.program_id()?,
            pinned: false,
        });
    }
    Ok(Some(guard))
}

fn policy_of(config: &Config, interfaces: &[Interface], places: &Places) -> Policy {
    Policy {
        syn_rate: config.limits.syn_rate,
        syn_burst: config.limits.syn_burst,
        observe: config.observe,
        interfaces: interfaces.iter().map(|interface| interface.index).collect(),
        guarded: places.guarded(),
    }
}

fn settings_of(config: &Config, hostname: &str) -> Result<Settings, Failure> {
    let replies = Replies::new(hostname)
        .with_context(|| format!("hostname = {hostname:?}"))
        .map_err(|error| Failure::new(Exit::Configuration, error))?;
    Ok(Settings {
        replies: Arc::new(replies),
        after_greeting: match config.after_greeting {
            config::AfterGreeting::Hold => smtp::AfterGreeting::Hold,
            config::AfterGreeting::Close => smtp::AfterGreeting::Close,
        },
        connections_max: config.limits.connections as usize,
        connections_per_source_max: config.limits.connections_per_source as usize,
        idle_timeout: Duration::from_secs(config.limits.idle_timeout_secs),
        session_timeout: Duration::from_secs(config.limits.session_timeout_secs),
    })
}

/// The name of the host, or one of its addresses.
fn find_hostname(places: &Places) -> Hostname {
    config::host_fqdn().unwrap_or_else(|| {
        let mut addresses: Vec<_> = places
            .guarded()
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        addresses.sort_unstable();
        let global = addresses.iter().find(|address| !address.is_loopback());
        let address = global.or(addresses.first());
        Hostname::from_address(address.copied().unwrap_or(Ipv4Addr::LOCALHOST.into()))
    })
}

fn nothing_to_listen_on(interfaces: &[Interface]) -> Failure {
    let names: Vec<_> = interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    Failure::new(
        Exit::Unavailable,
        anyhow!(
            "{} has no address to listen on: give it one, or name addresses with --listen",
            names.join(", ")
        ),
    )
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Failure {
    use std::io::ErrorKind;
    let (exit, remedy) = match error.kind() {
        ErrorKind::AddrInUse => {
            let holder = holder_of(address).unwrap_or_else(|| "another process".to_owned());
            (
                Exit::Failed,
                format!("{holder} listens there: stop it, or name other addresses with --listen"),
            )
        }
        ErrorKind::AddrNotAvailable => (
            Exit::Failed,
            "no interface has that address: `ip address` lists those that are there".to_owned(),
        ),
        ErrorKind::PermissionDenied => (
            Exit::Permission,
            "start nomail-agent as root (sudo), or with CAP_NET_BIND_SERVICE".to_owned(),
        ),
        _ => (Exit::Failed, "the kernel refuses".to_owned()),
    };
    Failure::new(
        exit,
        anyhow!(error).context(format!("cannot listen on {address}: {remedy}")),
    )
}

fn bind_control(path: &Path, account: Account) -> Result<Control, Failure> {
    let exit_of = |error: &anyhow::Error| {
        let denied = error.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        });
        if denied {
            Exit::Permission
        } else {
            Exit::Failed
        }
    };
    let bound = match path.parent() {
        Some(directory) => privilege::create_runtime_directory(
            directory,
            account,
            path == Path::new(config::DEFAULT_CONTROL),
        )
        .with_context(|| format!("cannot create {}", directory.display())),
        None => Ok(()),
    }
    .and_then(|()| Control::bind(path, Account::control_group()));
    bound.map_err(|error| {
        let exit = exit_of(&error);
        Failure::new(exit, error.context("no control socket"))
    })
}

/// What a reload reads, and where the control socket is removed.
fn readable_paths(config: &Config) -> Paths {
    let mut read = vec![POSSIBLE_CPUS.into()];
    read.extend(
        config
            .file
            .iter()
            .filter_map(|file| file.parent())
            .map(Path::to_owned),
    );
    Paths {
        read,
        remove_in: config.control.parent().map(Path::to_owned),
    }
}

/// A file that only root may read starts the agent, but cannot be reloaded.
fn warn_of_unreadable(config: &Config, account: Account) {
    let opened = config.file.as_ref().map(std::fs::File::open);
    if let (Some(file), Some(Err(error))) = (&config.file, opened)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        warn!(
            "{}: a reload will fail, because uid {} may not read it: give it to a group of that \
             user with mode 0640",
            file.display(),
            account.uid
        );
    }
}

/// To what the most connections need that a reload may ask for, if allowed.
fn raise_descriptor_limit(config: &Config) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let beside = smtp::listener::SHED_MAX as u64 + DESCRIPTORS_SPARE;
    let most = u64::from(config::CONNECTIONS_MAX) + beside;
    let needed = u64::from(config.limits.connections) + beside;
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return;
    }
    let result = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        if hard < needed {
            warn!(
                "limits.connections is {}, but only {hard} descriptors are allowed: raise \
                 LimitNOFILE to {needed}",
                config.limits.connections
            );
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(error) = result {
        warn!("the limit of descriptors cannot be raised: {error}");
    }
}
