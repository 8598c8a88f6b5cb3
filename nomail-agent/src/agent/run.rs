//! The life of the agent: it starts, serves until a signal or a failure ends it, and stops.

use std::time::Instant;

use anyhow::{Context as _, anyhow};
use log::info;

use super::{
    assemble::StatusInputs,
    boot::{Confined, Inputs, Opened},
    descriptors,
    journal::Journal,
    keeper::{Keeper, KeeperEvent},
    listeners::{Listeners, ListenersEvent},
    network::Network,
    observers::Observers,
    reload::Reloader,
    root::Root,
    signals::{Signal, Signals},
};
use crate::{
    config::{Config, Overrides},
    exit::Failure,
    host::{
        memory,
        service::{InheritedSockets, Manager},
    },
};

/// Runs the agent until a signal ends it.
///
/// # Errors
/// When it cannot start or go on.
pub fn run(config: Config, overrides: &Overrides) -> Result<(), Failure> {
    memory::keep_no_large_blocks();
    let root = Root::at_start();
    let inputs = Inputs {
        // Before anything is opened: the descriptors are known by their numbers.
        inherited: InheritedSockets::receive()?,
        manager: Manager::connect(),
        budget: descriptors::raise_limit(config.limits.connections),
        config,
        overrides: overrides.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    runtime.block_on(async {
        let opened = Opened::open(root, inputs).await?;
        let confined = opened.attach().await?.confine()?;
        let mut agent = Agent::start(confined);
        let served = agent.serve().await;
        agent.stop().await;
        served
    })
}

/// The agent while it serves: the owners of its resources.
struct Agent {
    reloader: Reloader,
    keeper: Keeper,
    network: Network,
    listeners: Listeners,
    observers: Observers,
    journal: Journal,
    signals: Signals,
}

impl Agent {
    fn start(confined: Confined) -> Self {
        let Confined {
            reloader,
            keeper,
            network,
            listeners,
            observers,
            journal,
            signals,
        } = confined;
        info!(
            "{} does not accept mail: {} {}",
            reloader.hostname,
            match keeper.settings.is_stateless() {
                true => "answered by XDP, without a socket, on",
                false => "listening on",
            },
            network.shown_pairs()
        );
        let mut agent = Self {
            reloader,
            keeper,
            network,
            listeners,
            observers,
            journal,
            signals,
        };
        #[cfg(feature = "trace")]
        agent.keeper.guard.follow_trace();
        let (observers, inputs) = agent.observed();
        observers.start(&inputs);
        agent
    }

    /// Serves until SIGTERM or SIGINT.
    async fn serve(&mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                signal = self.signals.event() => match signal {
                    Signal::Reload => self.reload(),
                    Signal::Stop => return Ok(()),
                },
                event = self.listeners.event() => self.follow_listeners(event)?,
                event = self.keeper.event() => self.keep(event),
                survey = self.network.event() => {
                    self.network.handle(survey, &mut self.keeper, &mut self.listeners)?;
                }
                event = self.journal.event() => {
                    self.journal.handle(event, &self.listeners.responder, &self.keeper.guard);
                }
                event = self.observers.event() => {
                    let (observers, inputs) = self.observed();
                    observers.handle(event, &inputs);
                }
            }
        }
    }

    /// The observers, and what they may see.
    fn observed(&mut self) -> (&mut Observers, StatusInputs<'_>) {
        let inputs = StatusInputs {
            reloader: &self.reloader,
            keeper: &self.keeper,
            network: &self.network,
            responder: &self.listeners.responder,
        };
        (&mut self.observers, inputs)
    }

    fn follow_listeners(&mut self, event: ListenersEvent) -> Result<(), Failure> {
        match event {
            ListenersEvent::Ended => {
                return Err(
                    anyhow!("the serving thread has ended: start nomail-agent again").into(),
                );
            }
            ListenersEvent::Alive => self.observers.alive(),
            ListenersEvent::Heartbeat(room) => self.keeper.heartbeat(room),
            ListenersEvent::Retry => self.network.survey_again(),
        }
        Ok(())
    }

    fn keep(&mut self, event: KeeperEvent) {
        let keeper = &mut self.keeper;
        match event {
            KeeperEvent::Tick => {
                keeper.tick(&self.listeners.responder);
                self.reloader.look(keeper, Instant::now());
            }
            KeeperEvent::Slice => {
                let Some(configured) = keeper.write_slice() else {
                    return;
                };
                let (reloader, journal) = (&mut self.reloader, &mut self.journal);
                let reloaded = reloader.finish(configured, keeper, &self.listeners, journal);
                if let Some(succeeded) = reloaded {
                    self.reloaded(succeeded);
                }
            }
        }
    }

    fn reload(&mut self) {
        self.observers.reloading();
        if !self.reloader.reload(&mut self.keeper, &self.listeners) {
            self.reloaded(false);
        }
    }

    fn reloaded(&mut self, succeeded: bool) {
        let (observers, inputs) = self.observed();
        observers.reloaded(succeeded, &inputs);
    }

    async fn stop(mut self) {
        info!("stopping");
        self.observers.stop();
        self.keeper.leave();
        self.listeners.stop().await;
        let responder = &self.listeners.responder;
        self.keeper.log_limited(Instant::now(), responder);
        self.journal.report(responder, &self.keeper.guard);
        self.journal.save(responder);
    }
}
