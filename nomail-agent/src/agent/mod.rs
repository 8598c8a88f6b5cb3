//! The life of the agent: bind, load, attach, give up root, serve, follow
//! changes, detach. The only module that knows all the others.

mod addresses;
mod arrival;
mod decisions;
mod failover;
mod foreign;
mod lists;
mod metrics_socket;
mod own;
mod pinned;
mod places;
mod telling;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use caps::Capability;
use ipnet::IpNet;
use log::{error, info, warn};
use nomail_common::{
    abi::{self, MAX_GUARDED, Texts},
    guard::source::Source,
    stateless::dialog::TEXT_MAX,
    verdict::{Answer, Verdict},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{MissedTickBehavior, interval, interval_at, sleep, timeout},
};

use self::{
    decisions::Decisions,
    failover::{Failover, HEARTBEAT},
    metrics_socket::MetricsSocket,
    places::{ListenSocket, Places},
    watch::{Plan, Watch},
};
pub use self::{pinned::detach, telling::Teller};
use crate::{
    commands::crowdsec,
    config::{
        self, Config, Fallback, FloodAnswer, Hostname, OnExit, Overrides, RelayCode, WatchedLists,
        XdpMode,
    },
    exit::{Exit, Failure},
    guard::{
        self, BpfError, Guard, GuardedInterface, Limited, Lists, Mode, OwedFrame, Pins, Policy,
        Rate,
    },
    host::memory,
    host::privilege::{self, Account, Confinement, Paths, Thread},
    host::service::{self, Handed, Manager, Watchdog},
    host::state::State,
    logging::limited::LimitedLog,
    logging::report::Reporter,
    net::{FrameSocket, IfaceError, Interface, Interfaces, holder_of, sockets_are_in},
    smtp::{
        self, LISTEN_BACKLOG, ListenerId, Refuse, RefuseAt, Relay, Replies, Responder, Settings,
        relay,
    },
    status::control::Control,
    status::http::{self, History, Totals, View},
    status::reload::Reload,
    status::{
        AddressStatus, CrowdsecStatus, DurationStatus, GuardCounts, InterfaceStatus, ListsStatus,
        MetricsStatus, ResponderStatus, Speaker, Status, Trouble, foreign_domains,
    },
    walk::{self, WalkError},
};

/// Changes of addresses come in bunches; one answer to all of a bunch.
const SETTLE: Duration = Duration::from_millis(50);
/// How often a bind is tried again that another server was in the way of.
const RETRY: Duration = Duration::from_secs(30);
/// Longest that the end waits for open sessions.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether there is a flood, and what XDP has to tell.
const FLOOD_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds without a SYN of a flood after which it is over.
const FLOOD_QUIET_SECS: u32 = 5;
/// How often list files and decisions are looked at.
const LISTS_INTERVAL: Duration = Duration::from_secs(2);
/// How often the memory of `auto` is written down.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);
/// Descriptors beside those of connections: listeners, maps, netlink, log.
pub(crate) const DESCRIPTORS_SPARE: u64 = 512 + MAX_GUARDED as u64;
/// Bounds the queues of all listening sockets.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
/// 0 when the kernel takes no SYN cookies.
const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
/// Unproven SYNs a second that may pass while the queue is not full and SYN
/// cookies are the answer: 256 in each jiffy of 4 ms. They have to fill the queue,
/// and must not be a flood by themselves where it never fills, because the agent
/// is stalled.
const COOKIE_CAP: Rate = Rate {
    rate: 64_000,
    burst: 256,
};
/// Read while serving, by every look at a per-CPU map.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// Runs the agent until a signal ends it.
pub fn run(config: Config, overrides: &Overrides) -> Result<(), Failure> {
    // Before anything is opened: the descriptors are known by their numbers.
    let handed = Handed::receive()?;
    let manager = Manager::connect();
    let room = raise_descriptor_limit(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    runtime.block_on(async {
        let mut agent = Agent::start(config, room, handed, manager).await?;
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
    /// Interfaces that are not there, and were said to be gone, by their places.
    gone: BTreeSet<usize>,
    /// The guard has yet to be told which interfaces there are.
    stale: bool,
    /// Interfaces that came back and cannot be guarded, and were said so.
    refused_interfaces: BTreeSet<u32>,
    /// The name to greet with where none is configured, as found at the start:
    /// the files it is found in cannot be relied on once root is given up.
    found_hostname: Hostname,
    /// Its other names in /etc/hosts, as found at the start.
    found_aliases: Vec<String>,
    /// What XDP says where nobody listens, or takes connections.
    texts: Option<Texts>,
    room: Room,
    /// Resolves when the serving thread has ended.
    served: oneshot::Receiver<()>,
    state: Option<State>,
    reporter: Reporter,
    limited: LimitedLog,
    watched: WatchedLists,
    /// What is banned beside the lists, if the agent was started with `[crowdsec]`.
    decisions: Option<Decisions>,
    /// The kernel did not take the decisions.
    undenied: bool,
    flood: FloodWatch,
    watch: Watch,
    failover: Failover,
    /// Where XDP answers: what it owes is sent by this.
    frames: Option<FrameSocket>,
    /// The last try to retransmit greetings failed.
    repeat_failed: bool,
    /// The kernel was last seen to take SYN cookies.
    syncookies: bool,
    /// When the last report was due.
    reported: Instant,
    control: Arc<Control>,
    manager: Manager,
    metrics: MetricsSocket,
    signals: Signals,
}

/// Most connections that the descriptors suffice for.
#[derive(Clone, Copy)]
struct Room {
    /// Those that are served.
    connections: u32,
    /// Those that are shed, and linger.
    shed: usize,
}

/// What `status` is made of.
struct Shared {
    responder: Responder,
    started: Instant,
    guard: Option<Mutex<Guard>>,
    told: Mutex<Told>,
    reload: Mutex<Reload>,
    flood: AtomicBool,
    /// How often XDP has taken the place of the listeners.
    takeovers: AtomicU64,
    /// Greetings of XDP that were sent again.
    repeated: AtomicU64,
    history: Mutex<History>,
    /// Whose place it is to say the refusal, and who takes it.
    by: Speaker,
    fallback: Speaker,
}

/// The parts of the status that change with the configuration.
#[derive(Clone, Default)]
struct Told {
    hostname: String,
    observe: bool,
    interfaces: Vec<InterfaceStatus>,
    guarded: Vec<String>,
    unguarded: Vec<String>,
    lists: ListsStatus,
    crowdsec: Option<CrowdsecStatus>,
    metrics: MetricsStatus,
    addresses: AddressStatus,
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
    async fn start(
        mut config: Config,
        room: Room,
        handed: Handed,
        manager: Manager,
    ) -> Result<Self, Failure> {
        lists::warn_of(&config);
        listen_as_handed(&mut config, &handed);
        let signals = Signals::catch()?;
        let kernel = Interfaces::connect()?;
        let pins = pinned::find(&kernel, &config).await?;
        let interfaces = guarded_interfaces(&kernel, &config, pins.as_ref()).await?;
        let account = Account::resolve(
            &config.user.value,
            config.user.is_default,
            &config.state_dir.path,
        )
        .map_err(|error| Failure::new(Exit::Configuration, error))?;

        let places = Places::find(&kernel, &config, &interfaces, &HashSet::new()).await?;
        places.some_are_there(&kernel, &config).await?;
        if places.sockets().is_empty() {
            return Err(nothing_to_listen_on(&interfaces));
        }
        handed.check(|address| places.has(address))?;
        let found_hostname = find_hostname(&places);
        let found_aliases = config::host_aliases(places.guarded().iter().map(|pair| pair.0));
        let hostname = config
            .hostname
            .as_ref()
            .unwrap_or(&found_hostname)
            .to_string();
        let settings = settings_of(&config, &hostname, room)?;
        let texts = texts_of(&config, &settings.replies)?;
        let only_look = config.responder == config::Responder::Xdp;
        if only_look && !handed.listen().is_empty() {
            return Err(no_socket_wanted());
        }
        let mut listeners = Listeners {
            handed,
            only_look,
            ..Listeners::default()
        };
        for socket in places.sockets() {
            listeners.bind(socket, places.is_absent(socket))?;
        }
        let control = bind_control(&config.control, account)?;
        let metrics = MetricsSocket::open(config.metrics.listen)?;

        let mut told = Told {
            hostname,
            observe: config.observe,
            interfaces: Vec::new(),
            guarded: places.shown(&interfaces),
            unguarded: Vec::new(),
            lists: ListsStatus::from(&config),
            crowdsec: None,
            metrics: metrics.status(),
            addresses: addresses::status_of(&config, &places, &interfaces),
        };
        addresses::log(&AddressStatus::default(), &told.addresses);
        let mut watch = Watch::open();
        let plans = watch.plans(&kernel, config.xdp_mode, &interfaces).await;
        let on: Vec<_> = interfaces.iter().zip(&plans).collect();
        let guard = attach_guard(&config, &on, &places, texts, pins, &mut told)?;
        watch.begin(&told.interfaces);
        let mut state = prepare_state(&config, account)?;
        if let Some(crowdsec) = &config.crowdsec
            && let Err(error) = crowdsec::create_above(&crowdsec.run_dir)
        {
            warn!("CrowdSec's decisions may be out of reach: {error:#}");
        }
        let frames = texts.and_then(|_| open_frame_socket());
        // Binding to addresses that appear, and maps on kernels before 5.19.
        let mut keep = vec![Capability::CAP_NET_BIND_SERVICE];
        if guard.is_some() {
            keep.push(Capability::CAP_BPF);
        }
        let denied = |error: anyhow::Error| {
            let error = error.context("root privileges cannot be given up");
            Failure::new(Exit::Permission, error)
        };
        let guard = settle_pins(guard, &interfaces, &mut told)?;
        let paths = reachable_paths(&config, state.is_some());
        privilege::drop_privileges(account, &keep, &paths).map_err(denied)?;
        warn_of_unreadable(&config, account);
        warn_of_shared_directories(&config);
        let age_secs = config.limits.sender_age_secs;
        let senders = match &state {
            Some(state) => state.load(age_secs),
            None => smtp::Senders::new(age_secs),
        };
        // Now, so that a directory that cannot be written is told at the start.
        if let Some(state) = &mut state {
            state.save(&senders);
        }
        let mut domains = state.as_ref().map(State::load_domains).unwrap_or_default();
        domains.set_own(config.aliases.iter().chain(&found_aliases));
        privilege::die_of_faults().map_err(denied)?;
        let confinement = Confinement::default();
        let of_thread = confinement.clone();
        let (responder, served) = Responder::start(settings, senders, move || {
            of_thread.confine(Thread::Smtp);
        })
        .context("the thread that serves cannot be started")?;
        confinement.check().map_err(denied)?;
        responder.with_foreign_domains(|kept| *kept = domains);
        let decisions = decisions_of(&config, guard.is_some());
        privilege::restrict_syscalls(Thread::Main {
            guard: guard.is_some(),
        })
        .map_err(denied)?;
        memory::give_back();
        listeners.serve(&responder);
        let shared = Arc::new(Shared {
            responder,
            started: Instant::now(),
            guard: guard.map(Mutex::new),
            told: Mutex::new(told),
            reload: Mutex::new(Reload::succeeded(&config, Vec::new())),
            flood: AtomicBool::new(false),
            takeovers: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            history: Mutex::default(),
            by: match config.responder {
                config::Responder::Listener => Speaker::Listener,
                config::Responder::Xdp => Speaker::Xdp,
            },
            fallback: match config.fallback {
                Fallback::None => Speaker::None,
                Fallback::Xdp => Speaker::Xdp,
            },
        });
        // What was counted by an earlier agent is no flood of now.
        let flood = FloodWatch::from(shared.counts().unwrap_or_default().all.syn[Verdict::Flood]);
        Ok(Self {
            watched: WatchedLists::new(&config),
            config,
            gone: absent_places(&interfaces),
            stale: false,
            interfaces,
            kernel,
            shared,
            listeners,
            places,
            refused: BTreeSet::new(),
            refused_interfaces: BTreeSet::new(),
            found_hostname,
            found_aliases,
            texts,
            room,
            served,
            state,
            reporter: Reporter::default(),
            limited: LimitedLog::default(),
            decisions,
            undenied: false,
            flood,
            watch,
            failover: Failover::default(),
            frames,
            repeat_failed: false,
            syncookies: true,
            reported: Instant::now(),
            control: Arc::new(control),
            manager,
            metrics,
            signals,
        })
    }

    /// Serves until SIGTERM or SIGINT.
    async fn serve(&mut self, overrides: &Overrides) -> Result<(), Failure> {
        let asked = Arc::clone(&self.shared);
        let control = Arc::clone(&self.control);
        let control_task =
            tokio::spawn(async move { control.serve(move |sources| asked.status(sources)).await });
        self.serve_metrics();
        {
            let told = self.shared.told();
            let how = match self.config.responder {
                config::Responder::Xdp => "answered by XDP, without a socket, on",
                config::Responder::Listener => "listening on",
            };
            info!(
                "{} does not accept mail: {how} {}",
                told.hostname,
                first_of(&told.guarded)
            );
        }
        self.tell_unguarded().await;
        self.manager.ready(&self.shared.figures());
        let mut watchdog = Watchdog::start();
        let falls_back = self.config.fallback == Fallback::Xdp;
        let mut heartbeat = Watchdog::every(falls_back.then_some(HEARTBEAT));
        let mut figures = interval(service::STATUS_INTERVAL);
        let mut following = true;
        let mut told_failure = String::new();
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut save = interval(SAVE_INTERVAL);
        let mut report = self.report_interval();
        let mut flood = interval(FLOOD_INTERVAL);
        let mut lists = interval(LISTS_INTERVAL);
        lists.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = &mut self.served => {
                    return Err(anyhow!("the serving thread has ended: start nomail-agent again")
                        .into());
                }
                _ = self.signals.hangup.recv() => {
                    let before = self.config.log.interval_secs;
                    self.manager.reloading();
                    let reloaded = self.reload(overrides);
                    self.manager.reloaded(reloaded, &self.shared.figures());
                    if self.config.log.interval_secs != before {
                        report = self.report_interval();
                    }
                }
                _ = watchdog.proven(|| self.shared.responder.prove()) => self.manager.alive(),
                room = heartbeat.proven(|| self.shared.responder.prove()) => self.follow_listeners(room),
                _ = figures.tick() => self.manager.figures(&self.shared.figures()),
                _ = report.tick() => self.report(),
                _ = save.tick() => self.save_state(),
                _ = flood.tick() => {
                    if falls_back {
                        self.watch_for_takeovers();
                    } else {
                        self.shared.renew_lease();
                    }
                    self.repeat_greetings();
                    self.watch_guard().await;
                    self.watch_for_floods();
                    self.watch_for_cookies();
                    self.tell_of_limited();
                    foreign::warn_of_due(&self.shared.responder);
                }
                _ = lists.tick() => {
                    self.follow_decisions();
                    self.follow_lists();
                }
                _ = retry.tick(), if !self.refused.is_empty() || self.metrics.is_waiting() => {
                    self.retry_metrics();
                    if !self.refused.is_empty() {
                        self.follow_and_tell(&mut told_failure).await;
                    }
                }
                more = self.kernel.changed(), if following => {
                    following = more;
                    if more {
                        sleep(SETTLE).await;
                        self.kernel.settle();
                        self.follow_interfaces().await?;
                        self.watch_guard().await;
                        self.follow_and_tell(&mut told_failure).await;
                    } else {
                        error!("netlink ended: changes of addresses are no longer followed");
                    }
                }
            }
        }
        control_task.abort();
        self.metrics.close();
        Ok(())
    }

    /// Shows the metrics where their socket was bound since.
    fn serve_metrics(&mut self) {
        let shown = Arc::clone(&self.shared);
        self.metrics.serve(|server| {
            server.serve(move || {
                Ok(View {
                    status: shown.status(http::SOURCES_SHOWN)?,
                    history: shown.history().clone(),
                })
            })
        });
    }

    fn retry_metrics(&mut self) {
        self.metrics.retry();
        self.shared.told().metrics = self.metrics.status();
        self.serve_metrics();
    }

    fn report_interval(&self) -> tokio::time::Interval {
        let period = Duration::from_secs(self.config.log.interval_secs);
        interval_at(tokio::time::Instant::now() + period, period)
    }

    /// Tells what connections did since the last report.
    fn report(&mut self) {
        // The last report is early, others may be late.
        let elapsed = self.reported.elapsed() + Duration::from_millis(500);
        self.reported = Instant::now();
        let activity = self.shared.responder.take_activity();
        if activity == smtp::Activity::default() {
            return;
        }
        let limited = self.shared.limited_syns();
        let lines = self.reporter.lines(
            activity,
            |source| limited.get(&source).copied().unwrap_or(0),
            self.config.log.sources_max,
            elapsed.as_secs().max(1),
        );
        for line in lines {
            line.log();
        }
    }

    /// Tells when a flood begins and when it is over, and keeps the rates.
    fn watch_for_floods(&mut self) {
        let Ok(counts) = self.shared.counts() else {
            return;
        };
        let (syn, answers) = (counts.all.syn, counts.all.answers);
        let totals = Totals {
            syn: syn.sum(),
            stopped: syn.sum() - syn[Verdict::Passed],
            challenges: answers[Answer::Challenge],
            connections: self.shared.responder.snapshot().accepted,
        };
        self.shared.history().look(totals, Instant::now());
        let syn = syn[Verdict::Flood];
        let was = self.shared.flood.load(Ordering::Relaxed);
        let is = self.flood.look(syn);
        self.shared.flood.store(is, Ordering::Relaxed);
        match (was, is) {
            (false, true) => warn!(
                event = "flood_began";
                "a flood of SYNs: more than the listeners can take"
            ),
            (true, false) => info!(event = "flood_over"; "the flood of SYNs is over"),
            _ => {}
        }
    }

    /// Tells when XDP has taken over; how long ago it has, if it has not given back.
    fn watch_for_takeovers(&mut self) -> Option<Duration> {
        let ago = self.shared.has_taken_over()?;
        self.failover.taken_over(ago, Instant::now());
        let takeovers = self.failover.takeovers();
        self.shared.takeovers.store(takeovers, Ordering::Relaxed);
        Some(ago)
    }

    /// The listeners are served: while there is `room` in their queues, they keep their
    /// place, or have it back.
    fn follow_listeners(&mut self, room: bool) {
        self.failover.queue_full = !room;
        let taken_over = self.watch_for_takeovers();
        if room {
            self.shared.renew_lease();
            if let Some(ago) = taken_over {
                self.failover.given_back(ago);
            }
        }
    }

    /// Sends what XDP owes its clients again: it may be lost.
    fn repeat_greetings(&mut self) {
        let Some(socket) = &self.frames else {
            return;
        };
        let (mut sent, mut failure) = (false, None);
        match self.shared.owed_frames() {
            Ok(frames) => {
                for frame in frames {
                    match socket.send(frame.interface, &frame.bytes) {
                        Ok(()) => {
                            self.shared.repeated.fetch_add(1, Ordering::Relaxed);
                            sent = true;
                        }
                        Err(error) => failure = Some(anyhow!(error)),
                    }
                }
            }
            Err(error) => failure = Some(error.into()),
        }
        match failure {
            Some(error) if !std::mem::replace(&mut self.repeat_failed, true) => warn!(
                "cannot retransmit greetings that XDP sent: {error:#}; clients that lost one wait \
                 in vain"
            ),
            None if sent && std::mem::take(&mut self.repeat_failed) => {
                info!("greetings that XDP sent are retransmitted again");
            }
            _ => {}
        }
    }

    /// Follows the sysctl without which there are no SYN cookies.
    fn watch_for_cookies(&mut self) {
        let wanted = self.config.limits.flood_answer == FloodAnswer::Cookie;
        let syncookies = !wanted || takes_syncookies();
        if syncookies == std::mem::replace(&mut self.syncookies, syncookies) || !wanted {
            return;
        }
        if syncookies {
            info!("net.ipv4.tcp_syncookies is on again: floods are answered with SYN cookies");
        } else {
            warn!(
                "limits.flood_answer = \"cookie\", but net.ipv4.tcp_syncookies is 0: floods are \
                 answered with challenges until it is 1"
            );
        }
        let policy = policy_of(
            &self.config,
            &self.interfaces,
            &self.places,
            self.texts,
            self.banned(),
        );
        if let Err(error) = self.shared.configure(&policy) {
            error!("the answer to floods cannot be changed: {error}");
        }
    }

    /// Tells of the sources that were limited since the last look.
    fn tell_of_limited(&mut self) {
        let now = Instant::now();
        let limits = &self.config.limits;
        let events = self.shared.take_limited();
        if events.is_empty() {
            return;
        }
        let sources = self.shared.responder.sources().into_iter();
        let connections: HashMap<_, _> = sources
            .map(|source| (source.source, source.connections))
            .collect();
        for event in events {
            let rate = match event.verdict {
                Verdict::LimitedPrefix => limits.prefix_rate,
                _ => limits.syn_rate,
            };
            let mut interfaces = self.interfaces.iter();
            let interface = interfaces.find(|interface| interface.index == event.interface);
            let name = interface.map(|interface| interface.name.as_str());
            let connections = match event.verdict {
                Verdict::LimitedPrefix => 0,
                _ => connections.get(&event.address).copied().unwrap_or(0),
            };
            self.limited.tell(&event, rate, name, connections, now);
        }
    }

    /// Denies what CrowdSec's decisions say. What the kernel refuses is tried again.
    fn follow_decisions(&mut self) {
        let Some(decisions) = &mut self.decisions else {
            return;
        };
        let changed = decisions.look(Instant::now());
        self.shared.told().crowdsec = Some(decisions.status(u64::from(smtp::unix_now())));
        if !changed && !self.undenied {
            return;
        }
        let policy = policy_of(
            &self.config,
            &self.interfaces,
            &self.places,
            self.texts,
            self.banned(),
        );
        let configured = self.shared.configure(&policy);
        if let Err(error) = &configured
            && changed
        {
            error!("CrowdSec's decisions cannot be put in force; this is tried again: {error}");
        }
        self.undenied = configured.is_err();
    }

    fn banned(&self) -> &[IpNet] {
        self.decisions.as_ref().map_or(&[], Decisions::banned)
    }

    /// Takes up list files that were replaced or changed, unless one can no longer be read.
    fn follow_lists(&mut self) {
        if !self.watched.look() {
            return;
        }
        let new = self.config.with_lists_read_again();
        let lost: Vec<_> = new.lost_since(&self.config).collect();
        if !lost.is_empty() {
            lists::warn_of_lost(&lost);
            self.shared.told().lists.keep(&lost);
            return;
        }
        lists::warn_of(&new);
        match self.take(new) {
            Ok(()) => {
                info!("changed list files are in force");
                self.shared.last_reload().lists_taken(&self.config);
            }
            Err(failure) => error!("changed list files cannot be put in force: {failure}"),
        }
        // Of long lists, those before them.
        memory::give_back();
    }

    /// Writes down the memory of `auto`, and the domains that mail arrived for.
    fn save_state(&mut self) {
        if let Some(state) = &mut self.state {
            state.save_all(
                &self.shared.responder.senders(),
                &self.shared.responder.foreign_domains(),
            );
        }
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
        self.tell_unguarded().await;
    }

    /// Finds the interfaces over which the listeners are reached, and no guard is on
    /// the way.
    async fn tell_unguarded(&self) {
        let guarded: Vec<_> = {
            let told = self.shared.told();
            let on = told.interfaces.iter().zip(&self.interfaces);
            on.filter(|(told, _)| told.xdp_mode != "off")
                .map(|(_, interface)| interface.index)
                .collect()
        };
        let Ok(ways) = self.kernel.unguarded(&guarded).await else {
            return;
        };
        let reached = ways
            .into_iter()
            .filter(|(index, _)| self.places.are_reached_over(*index));
        self.shared.told().unguarded = reached.map(|(_, name)| name).collect();
    }

    /// Detaches first, so that no SYN is judged for a listener that is gone; or
    /// tells a guard that stays that there will be none.
    async fn stop(mut self) {
        info!("stopping");
        self.manager.stopping();
        if let Some(guard) = &self.shared.guard {
            let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = guard.leave() {
                error!(
                    "cannot update the pinned guard: it may challenge clients for up to 10 s: {error}"
                );
            }
        }
        self.shared.responder.stop(DRAIN_MAX);
        // It may be the thread's end that is the reason.
        if !self.served.is_terminated()
            && timeout(DRAIN_MAX + SETTLE, &mut self.served).await.is_err()
        {
            warn!("sessions were still open after {DRAIN_MAX:?}");
        }
        self.tell_of_limited();
        self.report();
        self.save_state();
    }

    /// Takes over a changed configuration, or keeps the old one as it is; whether
    /// it was taken over.
    fn reload(&mut self, overrides: &Overrides) -> bool {
        info!("reloading the configuration");
        let (reload, taken) = match self.try_reload(overrides) {
            Ok(needs_restart) => (Reload::succeeded(&self.config, needs_restart), true),
            Err(failure) => {
                for line in failure.lines() {
                    error!("{line}");
                }
                error!("the configuration stays as it was");
                (self.shared.last_reload().failed(&failure), false)
            }
        };
        *self.shared.last_reload() = reload;
        // Of long lists, those before them.
        memory::give_back();
        taken
    }

    /// Gives the keys whose changes need a restart.
    fn try_reload(&mut self, overrides: &Overrides) -> Result<Vec<&'static str>, Failure> {
        let mut new = config::reload(overrides, &self.config)?;
        lists::warn_of(&new);
        listen_as_handed(&mut new, &self.listeners.handed);
        let mut needs_restart = self.config.changes_that_need_restart(&new);
        let mut new = new.with_fixed_from(&self.config);
        if self.decisions.is_none() && self.config.crowdsec.is_none() && new.crowdsec.is_some() {
            // The sandbox does not reach the decisions.
            needs_restart.push("crowdsec");
            new.crowdsec = None;
        }
        self.take(new)?;
        if let Some(decisions) = &mut self.decisions {
            decisions.follow(self.config.crowdsec.as_ref());
        }
        self.follow_decisions();
        if needs_restart.is_empty() {
            info!("the configuration was reloaded");
        } else {
            warn!(
                "the configuration was reloaded, but a change of {} needs a restart",
                needs_restart.join(", ")
            );
        }
        Ok(needs_restart)
    }

    /// Puts a configuration in force, or leaves all as it was.
    fn take(&mut self, new: Config) -> Result<(), Failure> {
        let hostname = new
            .hostname
            .as_ref()
            .unwrap_or(&self.found_hostname)
            .to_string();
        let settings = settings_of(&new, &hostname, self.room)?;
        let texts = texts_of(&new, &settings.replies)?;
        self.shared.configure(&policy_of(
            &new,
            &self.interfaces,
            &self.places,
            texts,
            self.banned(),
        ))?;
        self.shared.responder.configure(settings);
        let own = new.aliases.iter().chain(&self.found_aliases);
        self.shared
            .responder
            .with_foreign_domains(|domains| domains.set_own(own));
        {
            let mut told = self.shared.told();
            told.hostname = hostname;
            told.observe = new.observe;
            told.lists = ListsStatus::from(&new);
        }
        self.watched = WatchedLists::new(&new);
        self.config = new;
        self.texts = texts;
        Ok(())
    }

    /// Listens on and guards the addresses that are there now. A socket is
    /// bound before its address is guarded, and unguarded before it is closed.
    /// An error leaves all as it was.
    async fn follow_addresses(&mut self) -> Result<(), Failure> {
        let before = self.places.guarded();
        let interfaces = self.current_interfaces().await?;
        let mut places = Places::find(&self.kernel, &self.config, &interfaces, &before).await?;
        let mut refused = BTreeSet::new();
        for socket in places.sockets() {
            let absent = places.is_absent(socket);
            if let Err(failure) = self.listeners.bind(socket, absent) {
                if !self.refused.contains(&socket) {
                    error!("{failure}");
                }
                refused.insert(socket);
            }
        }
        places.remove(&refused);
        self.refused = refused;
        if places == self.places && interfaces == self.interfaces && !self.stale {
            return Ok(());
        }
        let policy = policy_of(
            &self.config,
            &interfaces,
            &places,
            self.texts,
            self.banned(),
        );
        if let Err(error) = self.shared.configure(&policy) {
            self.listeners.forget_bound();
            return Err(error.into());
        }
        self.stale = false;
        self.listeners.serve(&self.shared.responder);
        self.listeners.keep(&places, &self.shared.responder);
        self.interfaces = interfaces;
        let shown = places.shown(&self.interfaces);
        {
            let mut told = self.shared.told();
            for (told, interface) in told.interfaces.iter_mut().zip(&self.interfaces) {
                told.name.clone_from(&interface.name);
            }
            told.guarded.clone_from(&shown);
            let addresses = addresses::status_of(&self.config, &places, &self.interfaces);
            addresses::log(&told.addresses, &addresses);
            told.addresses = addresses;
        }
        if places.sockets() != self.places.sockets() {
            info!("addresses changed: listening on {}", first_of(&shown));
        }
        self.places = places;
        Ok(())
    }

    /// The guarded interfaces with the names and hardware addresses that they
    /// have now.
    async fn current_interfaces(&self) -> Result<Vec<Interface>, Failure> {
        let all = self.kernel.all().await?;
        let current = self.interfaces.iter().enumerate().map(|(place, guarded)| {
            let found = all.iter().find(|found| found.index == guarded.index);
            // The number of one that is gone may be another's by now.
            let found = found.filter(|_| !self.gone.contains(&place));
            found.map_or_else(
                || guarded.clone(),
                |found| Interface {
                    xdp_program: guarded.xdp_program,
                    xdp_generic: guarded.xdp_generic,
                    ..found.clone()
                },
            )
        });
        Ok(current.collect())
    }

    /// An interface that is deleted and comes back under its name has no program, and
    /// often another number: it is attached anew. So is one that comes for the first
    /// time. CAP_BPF suffices for that; to
    /// pin it would need root, so that such a program ends with the agent.
    async fn follow_interfaces(&mut self) -> Result<(), Failure> {
        let Ok(all) = self.kernel.all().await else {
            return Ok(());
        };
        self.refused_interfaces
            .retain(|refused| all.iter().any(|found| found.index == *refused));
        let gone = &self.gone;
        let numbers = self.interfaces.iter().enumerate();
        let mut on: Vec<_> = numbers
            .filter(|(place, _)| !gone.contains(place))
            .map(|(_, interface)| interface.index)
            .collect();
        for (place, guarded) in self.interfaces.iter_mut().enumerate() {
            let here = all.iter().find(|found| found.index == guarded.index);
            // One that was made again with the same number has no program, and is attached to
            // again as one that lost it ([`Self::watch_guard`]).
            if here.is_some() && !self.gone.contains(&place) {
                continue;
            }
            let was = guarded.index;
            if self.gone.insert(place) {
                error!(
                    "the guarded interface {} is gone: it is guarded again when it is back",
                    guarded.name
                );
                self.shared.detached(place, was);
            }
            let back = match guarded.name.as_str() {
                config::DEFAULT_ROUTE => self.kernel.of_default_route().await.ok(),
                name => {
                    let names = std::iter::once(name);
                    let names = names.chain(guarded.alternatives.iter().map(String::as_str));
                    let mut found = names.map(|name| all.iter().find(|on| on.is_called(name)));
                    found.find_map(|found| found.cloned())
                }
            };
            let back = back.filter(|back| !on.contains(&back.index));
            let Some(back) = back.as_ref() else {
                continue;
            };
            let plan = self
                .watch
                .plan(&self.kernel, self.config.xdp_mode, back.index)
                .await;
            match self.shared.attach(place, &plan, back) {
                Ok(()) => {
                    info!("the interface {} is back", back.name);
                    self.gone.remove(&place);
                    self.refused_interfaces.remove(&back.index);
                    on.push(back.index);
                    self.stale = true;
                    *guarded = Interface {
                        xdp_program: None,
                        xdp_generic: false,
                        ..back.clone()
                    };
                }
                // The service manager is to start it again, with all it needs.
                Err(failure) if failure.exit == Exit::Permission => {
                    return Err(Failure::new(Exit::Unavailable, failure.error));
                }
                Err(failure) if self.refused_interfaces.insert(back.index) => {
                    self.shared.refuse(place, &failure);
                    error!("the interface {} is back, but: {failure}", back.name);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// What the guard counted in all, and where.
#[derive(Default)]
struct Counts {
    all: GuardCounts,
    /// In the order of the interfaces.
    of_interfaces: Vec<GuardCounts>,
    /// On other interfaces.
    elsewhere: GuardCounts,
}

impl Shared {
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_reload(&self) -> std::sync::MutexGuard<'_, Reload> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interface at `place` is gone.
    fn detached(&self, place: usize, interface: u32) {
        if self.guard.is_some() {
            self.forget(interface);
            self.tell_of(place, |told| {
                told.take_off(Trouble::Gone, "the interface is gone");
            });
        }
    }

    /// Attaches to the interface that is now the one at `place`.
    fn attach(&self, place: usize, plan: &Plan, interface: &Interface) -> Result<(), Failure> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        if !interface.ethernet {
            return Err(not_ethernet(&interface.name));
        }
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        let program_id = guard.program_id()?;
        let mode = match interface.xdp_program {
            // A pin has kept it there while the interface was away.
            Some(program) if program == program_id => mode_of(interface.xdp_generic),
            Some(program) => return Err(occupied(&interface.name, Some(program))),
            None => attach_to(&mut guard, plan.mode, interface)?,
        };
        if let Some(told) = self.told().interfaces.get_mut(place) {
            told.xdp_mode = mode.to_string();
            told.program_id = program_id;
            told.trouble = None;
            plan.reason.clone_into(&mut told.reason);
        }
        Ok(())
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

    /// While it is not renewed, nobody is challenged, or XDP is in the listeners' place.
    fn renew_lease(&self) {
        if let Some(guard) = &self.guard
            && let Err(error) = guard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .renew_lease()
        {
            warn!("the guard could not be told that the agent is there: {error}");
        }
    }

    fn owed_frames(&self) -> Result<Vec<OwedFrame>, BpfError> {
        let Some(guard) = &self.guard else {
            return Ok(Vec::new());
        };
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.owed_frames()
    }

    /// For how long XDP has been in the listeners' place, if it is.
    fn has_taken_over(&self) -> Option<Duration> {
        let guard = self.guard.as_ref()?;
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.has_taken_over().ok().flatten()
    }

    /// What the guard counted so far.
    fn counts(&self) -> Result<Counts, BpfError> {
        let Some(guard) = &self.guard else {
            return Ok(Counts::default());
        };
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        let elsewhere = telling::counts_of(&guard.counters(None)?);
        let mut counts = Counts {
            all: elsewhere,
            of_interfaces: Vec::new(),
            elsewhere,
        };
        for place in 0..self.told().interfaces.len() {
            let here = telling::counts_of(&guard.counters(Some(place))?);
            counts.all += here;
            counts.of_interfaces.push(here);
        }
        Ok(counts)
    }

    /// What XDP has told of single sources since the last time.
    fn take_limited(&self) -> Vec<Limited> {
        let Some(guard) = &self.guard else {
            return Vec::new();
        };
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.take_events().unwrap_or_default()
    }

    /// SYNs over the limit by source, since each entered the table.
    fn limited_syns(&self) -> HashMap<Source, u64> {
        let Some(guard) = &self.guard else {
            return HashMap::new();
        };
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.sources() {
            Ok(counts) => counts
                .into_iter()
                .map(|count| (Source::from(count.address), count.limited))
                .collect(),
            Err(error) => {
                warn!("the table of sources cannot be read: {error}");
                HashMap::new()
            }
        }
    }

    /// What the service manager shows. Counters that cannot be read are 0.
    fn figures(&self) -> service::Figures {
        let told = self.told().clone();
        let interfaces = told.interfaces.into_iter();
        let mut figures = service::Figures {
            interfaces: interfaces
                .map(|interface| match interface.trouble {
                    Some(trouble) => (interface.name, trouble.name().to_owned()),
                    None => (interface.name, interface.xdp_mode),
                })
                .collect(),
            observe: told.observe,
            flood: self.flood.load(Ordering::Relaxed),
            connections: self.responder.snapshot().active,
            ..service::Figures::default()
        };
        if let Some(guard) = &self.guard {
            let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
            for place in std::iter::once(None).chain((0..figures.interfaces.len()).map(Some)) {
                let Ok(counters) = guard.counters(place) else {
                    continue;
                };
                figures.syns += counters.verdicts.iter().sum::<u64>();
                figures.limited += counters.verdicts[Verdict::LimitedSource as usize]
                    + counters.verdicts[Verdict::LimitedPrefix as usize];
            }
        }
        figures
    }

    fn status(&self, sources_max: usize) -> Result<Status> {
        let told = self.told().clone();
        let reload = self.last_reload().clone();
        let connections = self.responder.snapshot();
        let counts = self.counts()?;
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("NOMAIL_COMMIT").to_owned(),
            abi: abi::ABI_VERSION,
            hostname: told.hostname,
            uptime_secs: self.started.elapsed().as_secs(),
            flood: self.flood.load(Ordering::Relaxed),
            observe: told.observe,
            agent_running: true,
            guarded: told.guarded,
            responder: ResponderStatus {
                by: self.by,
                fallback: self.fallback,
                serving: match self.has_taken_over() {
                    Some(_) => Speaker::Xdp,
                    None => self.by,
                },
                takeovers: self.takeovers.load(Ordering::Relaxed),
                repeated: self.repeated.load(Ordering::Relaxed),
            },
            config_hash: format!("{:016x}", reload.config_hash),
            reload: reload.into(),
            unguarded: told.unguarded,
            lists: told.lists,
            metrics: told.metrics,
            addresses: told.addresses,
            syn: counts.all.syn,
            answers: counts.all.answers,
            contended: counts.all.contended,
            source_evictions: counts.all.source_evictions,
            elsewhere: counts.elsewhere,
            commands: commands_of(&connections.commands),
            durations: durations_of(&connections),
            interfaces: told.interfaces,
            crowdsec: told.crowdsec,
            foreign_domains: self
                .responder
                .with_foreign_domains(|domains| foreign_domains(domains, smtp::unix_now())),
            connections,
            ..Status::default()
        };
        for (interface, counts) in status.interfaces.iter_mut().zip(counts.of_interfaces) {
            interface.counts = counts;
        }
        let table = match &self.guard {
            Some(guard) => {
                let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
                guard.sources()?
            }
            None => Vec::new(),
        };
        status.sources_tracked = table.len() as u64;
        status.sources = telling::busiest(&table, self.responder.sources(), sources_max);
        Ok(status)
    }
}

fn commands_of(commands: &smtp::Commands) -> BTreeMap<String, u64> {
    let name = |verb: Option<smtp::command::Verb>| match verb {
        Some(verb) => verb.name().to_ascii_lowercase(),
        None => "other".to_owned(),
    };
    let commands = commands.iter();
    commands.map(|(verb, count)| (name(verb), count)).collect()
}

fn durations_of(connections: &smtp::Connections) -> DurationStatus {
    let durations = connections.durations.cumulative();
    DurationStatus {
        count: connections.ended.sum() - connections.ended[smtp::Outcome::Shed],
        total_micros: connections.durations.total.as_micros() as u64,
        within_millis: durations
            .map(|(bound, count)| (bound.as_millis() as u64, count))
            .collect(),
    }
}

/// Whether there is a flood, looked at in steady intervals.
#[derive(Debug, Default)]
struct FloodWatch {
    syn: u64,
    /// Looks that are left before it is over.
    left: u32,
}

impl From<u64> for FloodWatch {
    /// From this count on.
    fn from(syn: u64) -> Self {
        Self { syn, left: 0 }
    }
}

impl FloodWatch {
    fn look(&mut self, syn: u64) -> bool {
        if syn > self.syn {
            self.left = FLOOD_QUIET_SECS;
        } else {
            self.left = self.left.saturating_sub(1);
        }
        self.syn = syn;
        self.left > 0
    }
}

/// The listening sockets.
#[derive(Default)]
struct Listeners {
    handed: Handed,
    /// Nobody is to listen: it is only looked whether somebody else does.
    only_look: bool,
    /// Where nobody does.
    free: BTreeSet<ListenSocket>,
    bound: Vec<(ListenSocket, std::net::TcpListener)>,
    serving: HashMap<ListenSocket, ListenerId>,
}

impl Listeners {
    /// Binds a socket that is not bound yet, also to an address that is not there yet if
    /// it is known to be `absent`.
    fn bind(&mut self, socket: ListenSocket, absent: bool) -> Result<(), Failure> {
        if self.serving.contains_key(&socket) || self.free.contains(&socket) {
            return Ok(());
        }
        let listener = match self.handed.take(socket.address) {
            Some(handed) => smtp::adopt(handed, LISTEN_BACKLOG),
            None => smtp::bind(socket.address, LISTEN_BACKLOG, socket.found || absent),
        };
        let listener = listener.map_err(|error| cannot_listen(socket.address, error))?;
        if self.only_look {
            self.free.insert(socket);
        } else {
            self.bound.push((socket, listener));
        }
        Ok(())
    }

    /// Serves what was bound since.
    fn serve(&mut self, responder: &Responder) {
        for (socket, listener) in self.bound.drain(..) {
            self.serving.insert(socket, responder.listen(listener));
        }
    }

    /// Closes what was bound and is not served yet.
    fn forget_bound(&mut self) {
        self.bound.clear();
    }

    /// Closes all but those of `places`. Their open sessions go on.
    fn keep(&mut self, places: &Places, responder: &Responder) {
        let sockets = places.sockets();
        self.free.retain(|socket| sockets.contains(socket));
        self.serving.retain(|socket, id| {
            let kept = sockets.contains(socket);
            if !kept {
                responder.close(*id);
            }
            kept
        });
    }
}

/// What the service manager has opened is listened on, unless the configuration
/// says where to listen.
fn listen_as_handed(config: &mut Config, handed: &Handed) {
    if config.listen.is_empty() {
        config.listen = handed.listen().to_vec();
    }
}

async fn guarded_interfaces(
    kernel: &Interfaces,
    config: &Config,
    pins: Option<&Pins>,
) -> Result<Vec<Interface>, Failure> {
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut absent = Vec::new();
    for name in &config.interfaces {
        let found = if name == config::DEFAULT_ROUTE {
            kernel.of_default_route().await
        } else {
            kernel.named(name).await
        };
        match found {
            Ok(found) if interfaces.iter().any(|known| known.index == found.index) => {}
            Ok(found) => interfaces.push(found),
            Err(error @ (IfaceError::Unknown { .. } | IfaceError::NoDefaultRoute)) => {
                absent.push((Interface::absent(name), error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if interfaces.is_empty()
        && let Some((_, error)) = absent.pop()
    {
        return Err(error.into());
    }
    interfaces.extend(absent.into_iter().map(|(interface, _)| interface));
    for interface in &interfaces {
        if let Some(vrf) = &interface.vrf
            && !sockets_are_in(vrf)
        {
            return Err(not_in_vrf(&interface.name, vrf));
        }
    }
    if config.xdp_mode == XdpMode::Off {
        pinned::warn_of_kept(&interfaces, config);
        return Ok(interfaces);
    }
    for interface in &interfaces {
        if !interface.ethernet {
            return Err(not_ethernet(&interface.name));
        }
        if let Some(program) = interface.xdp_program
            && !pinned::holds(pins, interface)
        {
            return Err(occupied(&interface.name, Some(program)));
        }
    }
    Ok(interfaces)
}

fn not_ethernet(interface: &str) -> Failure {
    Failure::new(
        Exit::Unavailable,
        anyhow!(
            "{interface} is not an Ethernet interface, so there is no XDP for it: name the \
             interface below it, or run the responder alone with --xdp-mode off"
        ),
    )
}

/// It would listen, and nobody could connect.
fn not_in_vrf(interface: &str, vrf: &str) -> Failure {
    Failure::new(
        Exit::Unavailable,
        anyhow!(
            "{interface} is in the VRF {vrf}, and this process is not: start it by \
             `ip vrf exec {vrf} nomail-agent`, or set net.ipv4.tcp_l3mdev_accept to 1"
        ),
    )
}

/// Somebody else's program is never replaced.
fn occupied(interface: &str, program: Option<u32>) -> Failure {
    let name = program.and_then(guard::program_name);
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
    on: &[(&Interface, &Plan)],
    places: &Places,
    texts: Option<Texts>,
    pins: Option<Pins>,
    told: &mut Told,
) -> Result<Option<Guard>, Failure> {
    if config.xdp_mode == XdpMode::Off {
        warn!("--xdp-mode off: no SYN is counted or limited");
        told.interfaces = on
            .iter()
            .map(|(interface, _)| unguarded(interface))
            .collect();
        return Ok(None);
    }
    let ports = places.guarded().into_iter().map(|(_, port)| port);
    let ports = ports
        .chain(config.listen.iter().map(|listen| listen.port))
        .collect();
    let keep = config.on_exit == OnExit::Keep;
    // Without keep, only what is on these interfaces is taken over.
    let pins = pins.filter(|pins| {
        let held = |interface| pinned::holds(Some(pins), interface);
        keep || on.iter().any(|(interface, _)| held(interface))
    });
    let mut guard = match pins {
        Some(pins) => {
            let there = on.iter().filter(|(interface, _)| !interface.is_absent());
            let numbers: Vec<_> = there.map(|(interface, _)| interface.index).collect();
            Guard::load_pinned(&ports, texts.is_some(), &numbers, pins, keep)?
        }
        None if texts.is_some() => Guard::load_responder(&ports)?,
        None => Guard::load(&ports)?,
    };
    let interfaces: Vec<_> = on.iter().map(|&(interface, _)| interface.clone()).collect();
    guard.configure(&policy_of(config, &interfaces, places, texts, &[]))?;
    for (interface, plan) in on {
        if interface.is_absent() {
            told.interfaces.push(unguarded(interface));
            continue;
        }
        let mode = attach_to(&mut guard, plan.mode, interface)?;
        told.interfaces.push(InterfaceStatus {
            name: interface.name.clone(),
            xdp_mode: mode.to_string(),
            program_id: guard.program_id()?,
            reason: plan.reason.to_owned(),
            ..InterfaceStatus::default()
        });
    }
    Ok(Some(guard))
}

/// The places of those that are not there yet.
fn absent_places(interfaces: &[Interface]) -> BTreeSet<usize> {
    let numbered = interfaces.iter().enumerate();
    let absent = numbered.filter(|(_, interface)| interface.is_absent());
    absent.map(|(place, _)| place).collect()
}

/// The first of a list that may be long, for a line of the log.
fn first_of(pairs: &[String]) -> String {
    const SHOWN_MAX: usize = 16;
    match pairs.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => pairs.join(", "),
        Some(more) => format!("{} and {more} more", pairs[..SHOWN_MAX].join(", ")),
    }
}

fn unguarded(interface: &Interface) -> InterfaceStatus {
    InterfaceStatus {
        name: interface.name.clone(),
        xdp_mode: "off".to_owned(),
        ..InterfaceStatus::default()
    }
}

/// The mode of the program that is on the interface.
const fn mode_of(generic: bool) -> Mode {
    match generic {
        true => Mode::Generic,
        false => Mode::Native,
    }
}

/// Attaches to the interface, by the link that is there already if it can be.
fn attach_to(guard: &mut Guard, wanted: XdpMode, interface: &Interface) -> Result<Mode, Failure> {
    let name = &interface.name;
    let modes: &[Mode] = match wanted {
        XdpMode::Auto => &[Mode::Native, Mode::Generic],
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Off => &[],
    };
    let now = mode_of(interface.xdp_generic);
    if interface.xdp_program.is_some() {
        if modes.contains(&now) && guard.take_over(interface.index)? {
            info!("{name}: guarded in {now} mode, taken over from an earlier agent");
            return Ok(now);
        }
        warn!("{name}: the guard was in {now} mode: for a moment there is none");
        guard.release(interface.index)?;
    }
    let attached = pinned::attach_after_release(interface.xdp_program.is_some(), || {
        guard.attach(interface.index, modes)
    });
    let (mode, refused) = match attached {
        Ok(attached) => attached,
        Err(BpfError::Occupied) => return Err(occupied(name, None)),
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.error = failure.error.context(format!(
                "the guard cannot be attached to {name}: --xdp-mode off runs the responder alone"
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
    Ok(mode)
}

/// For what XDP owes its clients. Without it XDP answers all the same.
fn open_frame_socket() -> Option<FrameSocket> {
    let opened = FrameSocket::open().inspect_err(|error| {
        warn!("greetings of XDP that are lost will not be sent again: no packet socket: {error}");
    });
    opened.ok()
}

/// The last thing that needs root: pins what is to stay, and nothing else.
fn settle_pins(
    guard: Option<Guard>,
    interfaces: &[Interface],
    told: &mut Told,
) -> Result<Option<Guard>, Failure> {
    let Some(mut guard) = guard else {
        return Ok(None);
    };
    guard.settle_pins()?;
    for (told, interface) in told.interfaces.iter_mut().zip(interfaces) {
        told.pinned = guard.is_pinned(interface.index);
    }
    Ok(Some(guard))
}

fn policy_of(
    config: &Config,
    interfaces: &[Interface],
    places: &Places,
    responder: Option<Texts>,
    banned: &[IpNet],
) -> Policy {
    let limits = &config.limits;
    // Whatever is allowed could be banned.
    let banned = match config.lists.denies_nothing {
        true => &[],
        false => banned,
    };
    let flood_answer = match limits.flood_answer {
        FloodAnswer::Cookie if !takes_syncookies() => FloodAnswer::Challenge,
        // Also where a reload has changed what needs a restart.
        _ if responder.is_some() => FloodAnswer::Challenge,
        flood_answer => flood_answer,
    };
    Policy {
        source: Rate {
            rate: limits.syn_rate,
            burst: limits.syn_burst,
        },
        prefix: (limits.prefix_rate > 0).then_some(Rate {
            rate: limits.prefix_rate,
            burst: limits.prefix_burst,
        }),
        cap: Some(cap(limits.unproven_rate, flood_answer)),
        flood_answer,
        observe: config.observe,
        interfaces: interfaces
            .iter()
            .map(|interface| GuardedInterface {
                index: interface.index,
                hardware: interface.hardware.unwrap_or_default(),
                further_hardware: interface.further_hardware.clone(),
            })
            .collect(),
        guarded: places.guarded(),
        answerable: places.untagged(),
        own: places.own(),
        lists: Arc::new(Lists {
            allow: config.lists.allow.clone(),
            deny: decisions::denied(&config.lists.deny, banned),
        }),
        responder,
        fallback: config.fallback == Fallback::Xdp,
    }
}

/// What XDP says, where it answers. Not where a reload has brought a [relay], which never
/// says 521 first.
fn texts_of(config: &Config, replies: &Replies) -> Result<Option<Texts>, Failure> {
    use smtp::replies::Reply;
    let falls_back = config.fallback == Fallback::Xdp && config.relay.is_none();
    if config.responder != config::Responder::Xdp && !falls_back {
        return Ok(None);
    }
    let [refusal, goodbye] = match config.after_greeting {
        config::AfterGreeting::Hold => [Reply::Refusal, Reply::Goodbye].map(|r| replies.line(r)),
        config::AfterGreeting::Close => [&[][..]; 2],
    };
    let texts = Texts::new(replies.line(Reply::Greeting), refusal, goodbye);
    let too_long = || {
        let error = anyhow!(
            "the host name is too long for XDP, whose replies have at most {TEXT_MAX} octets: give \
             a shorter hostname, or use responder = \"listener\" and fallback = \"none\""
        );
        Failure::new(Exit::Configuration, error)
    };
    texts.map(Some).ok_or_else(too_long)
}

fn no_socket_wanted() -> Failure {
    Failure::new(
        Exit::Configuration,
        anyhow!(
            "the service manager hands over listening sockets, and responder = \"xdp\" answers \
             without: disable nomail-agent.socket, or use \"listener\""
        ),
    )
}

/// The unproven SYNs that may pass: those that are configured, or what a
/// listener's queue can absorb. A half-open connection that nobody completes stays
/// for 7 seconds (two SYN-ACKs more) once the queue is more than half full, and
/// longer before (`reqsk_timer_handler` of Linux). A burst of a quarter and 7
/// seconds of a sixteenth fill two thirds: a proven SYN must not meet a full
/// queue, or it gets a cookie, which hangs when a packet is lost.
///
/// The kernel's bound is read once: later the agent may not read the file, and a
/// listener keeps the queue that it began with.
fn cap(configured: u32, flood_answer: FloodAnswer) -> Rate {
    static SOMAXCONN_AT_START: OnceLock<Option<u32>> = OnceLock::new();
    let somaxconn = SOMAXCONN_AT_START.get_or_init(|| {
        let text = std::fs::read_to_string(SOMAXCONN).ok()?;
        text.trim().parse().ok()
    });
    let rate = if configured > 0 {
        configured
    } else if flood_answer == FloodAnswer::Cookie {
        return COOKIE_CAP;
    } else {
        let backlog = LISTEN_BACKLOG.min(somaxconn.unwrap_or(LISTEN_BACKLOG));
        (backlog / 16).max(1)
    };
    Rate {
        rate,
        burst: rate * 4,
    }
}

/// Whether the kernel would take a SYN cookie. Where it does not say, it has none.
fn takes_syncookies() -> bool {
    std::fs::read_to_string(SYNCOOKIES).is_ok_and(|text| text.trim() != "0")
}

fn settings_of(config: &Config, hostname: &str, room: Room) -> Result<Settings, Failure> {
    let after_greeting = match config.after_greeting {
        config::AfterGreeting::Hold => smtp::AfterGreeting::Hold,
        config::AfterGreeting::Close => smtp::AfterGreeting::Close,
    };
    let relay = config.relay.as_deref().map(relay_of).map(Arc::new);
    let replies = Replies::new(hostname, relay)
        .with_context(|| format!("hostname = {hostname:?}"))
        .map_err(|error| Failure::new(Exit::Configuration, error))?;
    Ok(Settings {
        replies: Arc::new(replies),
        refuse: match config.refuse_at {
            config::RefuseAt::Greeting => Refuse::At(RefuseAt::Greeting(after_greeting)),
            config::RefuseAt::Ehlo => Refuse::At(RefuseAt::Ehlo),
            config::RefuseAt::Mail => Refuse::At(RefuseAt::Mail),
            config::RefuseAt::Rcpt => Refuse::At(RefuseAt::Rcpt),
            config::RefuseAt::Auto => Refuse::Auto(after_greeting),
        },
        connections_max: config.limits.connections.min(room.connections) as usize,
        shed_max: room.shed,
        connections_per_source_max: config.limits.connections_per_source as usize,
        idle_timeout: Duration::from_secs(config.limits.idle_timeout_secs),
        session_timeout: Duration::from_secs(config.limits.session_timeout_secs),
        sender_age_secs: config.limits.sender_age_secs,
        monitors: config.monitors.clone(),
        unlogged: config.log.ignore.clone(),
        log_envelope: config.log.envelope,
    })
}

/// Decisions are denied by the guard.
fn decisions_of(config: &Config, guarded: bool) -> Option<Decisions> {
    let crowdsec = config.crowdsec.as_ref()?;
    if !guarded {
        warn!("[crowdsec] is of no effect with --xdp-mode off: nothing denies its decisions");
        return None;
    }
    Some(Decisions::new(crowdsec))
}

fn relay_of(relay: &config::Relay) -> Relay {
    let code = match relay.code {
        RelayCode::Listed => relay::Code::DoesNotAcceptMail,
        RelayCode::NullMx => relay::Code::NullMx,
        RelayCode::Rfc1846 => relay::Code::Host,
    };
    let domains = relay.domains.iter();
    Relay::new(
        code,
        &relay.text,
        domains.map(|domain| (&domain.name, domain.text.clone())),
        relay.postmaster.as_deref(),
    )
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
        if matches!(error.downcast_ref(), Some(error) if !matches!(error, WalkError::Io(_))) {
            return Exit::Configuration;
        }
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
    let group = Account::control_group();
    // The path is absolute; / itself fails to be bound.
    let directory = path.parent().unwrap_or(path);
    let ours = path == Path::new(config::DEFAULT_CONTROL);
    let bound = privilege::create_directory(directory, 0o755, account, ours)
        .with_context(|| format!("cannot create {}", directory.display()))
        .and_then(|()| Ok(walk::check_directory(directory, account.uid.as_raw())?))
        .and_then(|()| {
            privilege::in_directory(directory, account, group, || Control::bind(path, group))
        })
        .and_then(|control| {
            // Where only its owner can remove it.
            privilege::give_in_shared(path, account)?;
            Ok(control)
        });
    bound.map_err(|error| {
        let exit = exit_of(&error);
        Failure::new(exit, error.context("no control socket"))
    })
}

/// The memory of `auto` is kept where the directory is there, and a directory
/// that was asked for is made.
fn prepare_state(config: &Config, account: Account) -> Result<Option<State>, Failure> {
    let directory = &config.state_dir.path;
    if !config.state_dir.is_default {
        privilege::create_directory(directory, 0o750, account, false)
            .with_context(|| format!("state_dir = {directory:?} cannot be created"))?;
    }
    Ok(State::new(directory))
}

/// What a reload reads, where the control socket is removed, and where the
/// memory of `auto` is written.
fn reachable_paths(config: &Config, state: bool) -> Paths {
    Paths {
        read: vec![POSSIBLE_CPUS.into(), SYNCOOKIES.into()],
        config: config.file.clone(),
        lists: list_files(config).cloned().collect(),
        remove_in: config.control.parent().map(Path::to_owned),
        write_in: state.then(|| config.state_dir.path.clone()),
    }
}

/// A file that only root may read starts the agent, but cannot be reloaded.
fn warn_of_unreadable(config: &Config, account: Account) {
    let drop_ins = config.file.as_deref().map(config::drop_in_directory);
    let files = config.files.iter().chain(&drop_ins);
    for file in files.chain(list_files(config)) {
        if let Err(error) = std::fs::File::open(file)
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            warn!(
                "{}: a reload will fail, because uid {} may not read it: give it to a group of \
                 that user with mode 0640, a directory with 0750",
                file.display(),
                account.uid
            );
        }
    }
}

/// Files in a directory that holds everything else of the host: landlock lets a
/// reload read those that were there at the start, and none that replaces them.
fn warn_of_shared_directories(config: &Config) {
    for file in config.file.iter().chain(list_files(config)) {
        if privilege::is_in_shared_directory(file) {
            warn!(
                "{}: once another file takes its place, a reload fails until nomail-agent is \
                 restarted, because its directory holds more than nomail's files: move it to one \
                 of its own, such as /etc/nomail",
                file.display()
            );
        }
    }
}

/// What is read again beside the configuration's own files. Of decisions the whole directory
/// is replaced, as other files are.
fn list_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let decisions = config.crowdsec.iter().map(|crowdsec| &crowdsec.run_dir);
    config.list_files().map(|file| &file.path).chain(decisions)
}

/// Raises the limit of descriptors to what the most connections need that a
/// reload may ask for, if allowed. Gives the connections that it suffices for.
fn raise_descriptor_limit(config: &Config) -> Room {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let enough = Room {
        connections: config::CONNECTIONS_MAX,
        shed: smtp::listener::SHED_MAX,
    };
    let beside = enough.shed as u64 + DESCRIPTORS_SPARE;
    let most = u64::from(config::CONNECTIONS_MAX) + beside;
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return enough;
    }
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    let room = match allowed {
        Ok(hard) => room_in(hard),
        Err(error) => {
            warn!("the limit of descriptors cannot be raised: {error}");
            enough
        }
    };
    if room.connections < config.limits.connections {
        warn!(
            "limits.connections is {}, but the descriptors that are allowed suffice for \
             {}: raise LimitNOFILE to {}",
            config.limits.connections,
            room.connections,
            u64::from(config.limits.connections) + beside
        );
    }
    room
}

/// How descriptors are shared out: where there are few, half of them at most for
/// what is no connection, and half of the others for those that are shed.
fn room_in(descriptors: u64) -> Room {
    let free = descriptors - DESCRIPTORS_SPARE.min(descriptors / 2);
    let shed = (free / 2).min(smtp::listener::SHED_MAX as u64);
    Room {
        connections: u32::try_from(free - shed).unwrap_or(u32::MAX),
        shed: shed as usize,
    }
}
