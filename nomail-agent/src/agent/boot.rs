//! The start, in stages whose types carry their order: `Opened`, `Attached`, `Confined`. What
//! needs root takes a [`Root`], which the first two have and the third has not. On an error
//! nothing stays bound or attached.

use std::collections::HashSet;

use anyhow::{Context as _, anyhow};
use caps::Capability;

use super::{
    attach::AttachedGuard,
    decisions::DecisionFiles,
    descriptors::ConnectionBudget,
    files,
    guard_settings::{GuardSettings, Targets},
    journal::Journal,
    keeper::Keeper,
    links::GuardedLinks,
    list_files,
    listeners::{ListenSockets, Listeners, listen_as_inherited},
    mode::AttachMode,
    names::FoundNames,
    network::Network,
    observers::Observers,
    pinned,
    plan::ListenPlan,
    reload::Reloader,
    retransmit::Retransmitter,
    root::{Root, not_confined},
    signals::Signals,
    smtp_settings::smtp_settings,
    survey::Surveyor,
};
use crate::{
    config::{Config, Overrides},
    exit::{Exit, Failure},
    guard::Pins,
    host::{
        privilege::{self, Account, Confinement, Thread},
        service::{InheritedSockets, Manager},
        state::SavedState,
    },
    net::{Interface, Links, Notices},
    smtp::{self, Senders, SmtpThread},
};

/// What the process starts with.
pub(super) struct Inputs {
    pub(super) config: Config,
    pub(super) overrides: Overrides,
    pub(super) inherited: InheritedSockets,
    pub(super) manager: Manager,
    pub(super) budget: ConnectionBudget,
}

/// What all stages have.
struct Common {
    account: Account,
    surveyor: Surveyor,
    notices: Notices,
    host: Links,
    links: GuardedLinks,
    plan: ListenPlan,
    sockets: ListenSockets,
    smtp: smtp::Settings,
    reloader: Reloader,
    observers: Observers,
    signals: Signals,
}

/// All sockets are bound.
pub(super) struct Opened {
    root: Root,
    common: Common,
    settings: GuardSettings,
    pins: Option<Pins>,
}

/// The guard is attached, and pinned if it is to stay.
pub(super) struct Attached {
    root: Root,
    common: Common,
    keeper: Keeper,
    state: Option<SavedState>,
}

/// Root's rights are given up, and the threads run, each with its own system calls.
pub(super) struct Confined {
    pub(super) reloader: Reloader,
    pub(super) keeper: Keeper,
    pub(super) network: Network,
    pub(super) listeners: Listeners,
    pub(super) observers: Observers,
    pub(super) journal: Journal,
    pub(super) signals: Signals,
}

impl Opened {
    /// Finds the interfaces and addresses, and binds all sockets.
    pub(super) async fn open(root: Root, inputs: Inputs) -> Result<Self, Failure> {
        let Inputs {
            mut config,
            overrides,
            inherited,
            manager,
            budget,
        } = inputs;
        list_files::warn_of(&config);
        listen_as_inherited(&mut config, &inherited);
        let signals = Signals::catch()?;
        // What changes after the survey is noticed.
        let notices = Notices::connect()?;
        let surveyor = Surveyor::connect(&root)?;
        let names = config.interfaces.iter().map(String::as_str);
        let host = surveyor.host(names).await?;
        let pins = pinned::find(&root, &host.links, &config)?;
        let links = GuardedLinks::find(&host, &config, pins.as_ref())?;
        let account = Account::resolve(
            &config.user.value,
            config.user.is_default,
            &config.state_dir.path,
        )
        .map_err(|error| Failure::new(Exit::Configuration, error))?;

        let before = HashSet::new();
        let plan = ListenPlan::find(&host, &config.listen, &links.interfaces, &before);
        plan.check_some_are_present(&host.links, &config.listen)?;
        if plan.sockets().is_empty() {
            return Err(nothing_to_listen_on(&links.interfaces));
        }
        inherited.check(|address| plan.has(address))?;
        let names = FoundNames::find(&plan);
        let smtp = smtp_settings(&config, &names.hostname(&config), budget)?;
        let settings = GuardSettings::of(&config, &smtp.replies)?;
        let mut sockets = ListenSockets::new(&config, inherited)?;
        sockets.bind_all(&plan)?;
        let observers = Observers::open(&root, &config, account, manager)?;
        Ok(Self {
            common: Common {
                account,
                surveyor,
                notices,
                host: host.links,
                links,
                plan,
                sockets,
                smtp,
                reloader: Reloader::new(config, overrides, names, budget),
                observers,
                signals,
            },
            root,
            settings,
            pins,
        })
    }

    /// Attaches the guard, and does all else that needs root.
    pub(super) async fn attach(self) -> Result<Attached, Failure> {
        let Self {
            root,
            common,
            settings,
            pins,
        } = self;
        let config = &common.reloader.config;
        let links = &common.links;
        let interfaces = links.interfaces.iter();
        let indexes = interfaces.clone().map(|on| on.index);
        let surveys = common.surveyor.links(indexes).await;
        let on: Vec<_> = interfaces
            .map(|on| {
                let survey = surveys.get(&on.index).and_then(|link| link.as_ref().ok());
                (on, AttachMode::choose(links.mode, survey))
            })
            .collect();
        let targets = Targets::of(&links.interfaces, &common.plan);
        let policy = settings.policy(&targets);
        let mut guard = AttachedGuard::attach_all(&root, config, &on, &policy, pins)?;
        let state = files::prepare_state(&root, config, common.account)?;
        files::prepare_decisions(&root, config);
        let decisions = DecisionFiles::of(config, guard.exists());
        let retransmitter = match settings.texts {
            Some(_) => Retransmitter::open(&root),
            None => Retransmitter::default(),
        };
        guard.settle_pins(&root, &links.interfaces)?;
        Ok(Attached {
            keeper: Keeper::new(guard, settings, targets, retransmitter, decisions),
            root,
            common,
            state,
        })
    }
}

impl Attached {
    /// Gives up root's rights, and starts the threads.
    pub(super) fn confine(self) -> Result<Confined, Failure> {
        let Self {
            root,
            common,
            keeper,
            mut state,
        } = self;
        let config = &common.reloader.config;
        let guarded = keeper.guard.exists();
        // Binding to addresses that appear, and maps on kernels before 5.19.
        let mut keep = vec![Capability::CAP_NET_BIND_SERVICE];
        keep.extend(guarded.then_some(Capability::CAP_BPF));
        let paths = files::reachable_paths(config, state.is_some());
        root.give_up(common.account, &keep, &paths)?;
        files::warn_of_unreadable(config, common.account);
        files::warn_of_shared_directories(config);
        let senders = load_senders(&mut state, config.limits.sender_age_secs);
        let mut domains = state
            .as_ref()
            .map(SavedState::load_domains)
            .unwrap_or_default();
        domains.set_own(common.reloader.aliases());
        privilege::die_of_faults().map_err(not_confined)?;
        let (responder, ended) = start_responder(common.smtp, senders)?;
        responder.with_foreign_domains(|of_responder| *of_responder = domains);
        privilege::restrict_syscalls(Thread::Main { guard: guarded }).map_err(not_confined)?;
        let falls_back = keeper.settings.falls_back();
        let mut listeners = Listeners::new(common.sockets, responder, ended, falls_back);
        listeners.serve(&common.plan);
        let listen = config.listen.clone();
        Ok(Confined {
            journal: Journal::new(&config.log, state),
            network: Network::new(
                common.surveyor,
                common.notices,
                common.host,
                listen,
                common.links,
                common.plan,
                &keeper,
            ),
            reloader: common.reloader,
            keeper,
            listeners,
            observers: common.observers,
            signals: common.signals,
        })
    }
}

/// Loads the memory of `auto`, and saves it, so that a directory that cannot be written is
/// reported at the start.
fn load_senders(state: &mut Option<SavedState>, age_secs: u32) -> Senders {
    let Some(state) = state else {
        return Senders::new(age_secs);
    };
    let senders = state.load(age_secs);
    state.save(&senders);
    senders
}

/// Starts the thread that speaks SMTP, confined to its own system calls. The receiver
/// resolves when it has ended.
fn start_responder(
    settings: smtp::Settings,
    senders: Senders,
) -> Result<(SmtpThread, tokio::sync::oneshot::Receiver<()>), Failure> {
    let confinement = Confinement::default();
    let of_thread = confinement.clone();
    let started = SmtpThread::start(settings, senders, move || of_thread.confine(Thread::Smtp))
        .context("the thread that serves cannot be started")?;
    confinement.check().map_err(not_confined)?;
    Ok(started)
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
