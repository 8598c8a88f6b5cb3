//! The process: its start, its sandbox, and its signals.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use log::{error, info, warn};
use nix::sys::stat::{Mode, umask};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use super::{handover::Handover, puller::Puller, subscription::Subscription};
use crate::{
    config::{Crowdsec, CrowdsecProcess, DEFAULT_RUN_DIR, LogFormat},
    exit::{Exit, Failure},
    host::privilege::{self, Account, Paths, Thread},
    logging,
};

/// Pulls decisions until a signal ends it, or a reload without `[crowdsec]`. Without that
/// there is nothing to do.
///
/// # Errors
/// What is wrong with the configuration, the key, or the directory.
pub fn run(file: Option<&Path>, verbose: u8) -> Result<(), Failure> {
    let config =
        CrowdsecProcess::load(file).inspect_err(|_| logging::start(verbose, LogFormat::Text))?;
    logging::start(verbose, config.log_format);
    let Some(crowdsec) = config.crowdsec else {
        info!(
            "there is no [crowdsec] in {}: nothing to do",
            config.file.display()
        );
        return Ok(());
    };
    let subscription = subscribe(&crowdsec)?;
    let run_dir = crowdsec.run_dir;
    let account = Account::resolve(&config.user.value, config.user.is_default, &run_dir)
        .map_err(|error| Failure::new(Exit::Configuration, error))?;
    // The agent reads the files with another account.
    umask(Mode::from_bits_truncate(0o022));
    create(&run_dir, account)
        .with_context(|| format!("crowdsec.run_dir = {run_dir:?} cannot be created"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    let (orders, ordered) = watch::channel(Some(subscription));
    let signals = {
        let _entered = runtime.enter();
        ProcessSignals::catch()?
    };
    let paths = Paths {
        config: Some(config.file.clone()),
        lists: vec![crowdsec.api_key_file],
        write_in: Some(run_dir.clone()),
        ..Paths::default()
    };
    privilege::drop_privileges(account, &[], &paths)
        .and_then(|()| privilege::die_of_faults())
        .and_then(|()| privilege::restrict_syscalls(Thread::Crowdsec))
        .map_err(|error| {
            let error = error.context("privileges cannot be given up");
            Failure::new(Exit::Permission, error)
        })?;
    let named = file.map(Path::to_owned);
    runtime.spawn(follow(signals, named, run_dir.clone(), orders));
    Puller::new(runtime, ordered, Handover::new(&run_dir)).run();
    info!("stopping: CrowdSec's decisions are no longer denied");
    Ok(())
}

fn subscribe(crowdsec: &Crowdsec) -> Result<Subscription, Failure> {
    Subscription::new(crowdsec).map_err(|error| Failure::new(Exit::Configuration, error))
}

fn create(run_dir: &Path, account: Account) -> anyhow::Result<()> {
    privilege::create_above_run_dir(run_dir)?;
    let ours = run_dir == Path::new(DEFAULT_RUN_DIR);
    privilege::create_directory(run_dir, 0o755, account, ours)
}

struct ProcessSignals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl ProcessSignals {
    fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup()).context("SIGHUP")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
        })
    }
}

/// Makes orders of signals, until the order is to end.
async fn follow(
    mut signals: ProcessSignals,
    file: Option<PathBuf>,
    run_dir: PathBuf,
    orders: watch::Sender<Option<Subscription>>,
) {
    loop {
        let order = select! {
            _ = signals.terminate.recv() => None,
            _ = signals.interrupt.recv() => None,
            _ = signals.hangup.recv() => match reload(file.as_deref(), &run_dir) {
                Ok(order) => order,
                Err(failure) => {
                    for line in failure.lines() {
                        error!("{line}");
                    }
                    error!("the configuration stays as it was");
                    continue;
                }
            },
        };
        let ends = order.is_none();
        orders.send_if_modified(|before| {
            let differs = *before != order;
            *before = order;
            differs
        });
        if ends {
            return;
        }
    }
}

fn reload(file: Option<&Path>, run_dir: &Path) -> Result<Option<Subscription>, Failure> {
    let config = CrowdsecProcess::load(file)?;
    let order = config.crowdsec.as_ref().map(subscribe).transpose()?;
    if config.crowdsec.is_some_and(|new| new.run_dir != run_dir) {
        warn!("the configuration was reloaded, but a change of crowdsec.run_dir needs a restart");
    } else {
        info!("the configuration was reloaded");
    }
    Ok(order)
}
