//! What looks at the agent from outside: clients of the control socket, HTTP clients, and the
//! service manager. Clients are tasks of their own, which ask the loop by message.

use std::{future::pending, mem, path::Path, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use tokio::{
    select,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{self, Interval, MissedTickBehavior, interval, interval_at},
};

use super::{
    assemble::StatusInputs, listeners::RETRY_INTERVAL, metrics_socket::MetricsSocket, root::Root,
};
use crate::{
    config,
    exit::{Exit, Failure},
    host::{
        memory,
        privilege::{self, Account},
        service::{Manager, STATUS_INTERVAL},
    },
    status::{Status, control::Control, http::View},
    walk::{self, WalkError},
};

/// Queries that wait for the loop; more clients wait to send theirs.
const QUERIES_MAX: usize = 16;

/// The sockets, and the connection to the service manager.
pub(super) struct Observers {
    started: Instant,
    control: Arc<Control>,
    control_task: Option<JoinHandle<()>>,
    metrics: MetricsSocket,
    manager: Manager,
    asker: Asker,
    queries: mpsc::Receiver<Query>,
    figures: Interval,
    retry: Interval,
    /// The agent started, or a client was answered, since the last figures: that takes memory.
    used_memory: bool,
}

/// What a client asks for, and where to send it.
pub(super) enum Query {
    /// The status with at most so many sources.
    Status(usize, oneshot::Sender<Result<Status>>),
    /// What is shown by HTTP.
    View(oneshot::Sender<Result<View>>),
}

/// Asks the loop.
#[derive(Clone)]
struct Asker(mpsc::Sender<Query>);

pub(super) enum ObserversEvent {
    Query(Query),
    Figures,
    RetryMetrics,
}

impl Asker {
    async fn ask<T>(self, query: impl FnOnce(oneshot::Sender<Result<T>>) -> Query) -> Result<T> {
        const STOPPING: &str = "the agent is stopping";
        let (reply, replied) = oneshot::channel();
        self.0.send(query(reply)).await.ok().context(STOPPING)?;
        replied.await.context(STOPPING)?
    }
}

impl Observers {
    /// Binds the sockets. `manager` was connected before.
    pub(super) fn open(
        root: &Root,
        config: &config::Config,
        account: Account,
        manager: Manager,
    ) -> Result<Self, Failure> {
        let control = bind_control(root, &config.control, account)?;
        let metrics = MetricsSocket::open(root, config.metrics.listen)?;
        let (asker, queries) = mpsc::channel(QUERIES_MAX);
        let mut retry = interval(RETRY_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            started: Instant::now(),
            control: Arc::new(control),
            control_task: None,
            metrics,
            manager,
            asker: Asker(asker),
            queries,
            // The service manager has the first ones when the agent is ready.
            figures: interval_at(time::Instant::now() + STATUS_INTERVAL, STATUS_INTERVAL),
            retry,
            used_memory: true,
        })
    }

    /// Begins to answer clients, and reports to the service manager that the agent serves.
    pub(super) fn start(&mut self, inputs: &StatusInputs<'_>) {
        self.started = Instant::now();
        let (control, asker) = (Arc::clone(&self.control), self.asker.clone());
        self.control_task = Some(tokio::spawn(async move {
            let status = move |sources_max| {
                let asker = asker.clone();
                asker.ask(move |reply| Query::Status(sources_max, reply))
            };
            control.serve(status).await;
        }));
        self.serve_metrics();
        self.manager.ready(&inputs.figures());
    }

    fn serve_metrics(&mut self) {
        let asker = self.asker.clone();
        self.metrics
            .serve(|server| server.serve(move || asker.clone().ask(Query::View)));
    }

    /// Waits for the next event. May be dropped and called again at any time.
    pub(super) async fn event(&mut self) -> ObserversEvent {
        let retry = async {
            match self.metrics.is_waiting() {
                true => self.retry.tick().await,
                false => pending().await,
            }
        };
        select! {
            // There is always an asker.
            Some(query) = self.queries.recv() => ObserversEvent::Query(query),
            _ = self.figures.tick() => ObserversEvent::Figures,
            _ = retry => ObserversEvent::RetryMetrics,
        }
    }

    pub(super) fn handle(&mut self, event: ObserversEvent, inputs: &StatusInputs<'_>) {
        self.used_memory |= matches!(event, ObserversEvent::Query(_));
        // A client that has gone needs no reply.
        match event {
            ObserversEvent::Query(Query::Status(sources_max, reply)) => {
                let metrics = self.metrics.status();
                let _ = reply.send(inputs.assemble(self.started, metrics, sources_max));
            }
            ObserversEvent::Query(Query::View(reply)) => {
                let _ = reply.send(inputs.view(self.started, self.metrics.status()));
            }
            ObserversEvent::Figures => {
                self.manager.figures(&inputs.figures());
                if mem::take(&mut self.used_memory) {
                    memory::give_back();
                }
            }
            ObserversEvent::RetryMetrics => {
                self.metrics.retry();
                self.serve_metrics();
            }
        }
    }

    /// The agent serves: see [`Manager::alive`].
    pub(super) fn alive(&mut self) {
        self.manager.alive();
    }

    /// A reload begins.
    pub(super) fn reloading(&mut self) {
        self.manager.reloading();
    }

    /// A reload is over.
    pub(super) fn reloaded(&mut self, succeeded: bool, inputs: &StatusInputs<'_>) {
        self.manager.reloaded(succeeded, &inputs.figures());
    }

    /// Answers no more.
    pub(super) fn stop(&mut self) {
        if let Some(task) = self.control_task.take() {
            task.abort();
        }
        self.metrics.close();
        self.manager.stopping();
    }
}

fn bind_control(_: &Root, path: &Path, account: Account) -> Result<Control, Failure> {
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
    bound.map_err(|error| Failure::new(exit_of(&error), error.context("no control socket")))
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if matches!(error.downcast_ref(), Some(error) if !matches!(error, WalkError::Io(_))) {
        return Exit::Configuration;
    }
    let denied = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    match denied {
        true => Exit::Permission,
        false => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_gets_its_answer_from_the_loop_or_an_error() {
        let (sender, mut queries) = mpsc::channel(QUERIES_MAX);
        let asker = Asker(sender);
        let client = tokio::spawn(asker.clone().ask(|reply| Query::Status(7, reply)));
        let Some(Query::Status(7, reply)) = queries.recv().await else {
            panic!("another query");
        };
        let status = Status {
            hostname: "mailless.example.org".to_owned(),
            ..Status::default()
        };
        assert!(reply.send(Ok(status.clone())).is_ok());
        assert_eq!(client.await.unwrap().unwrap(), status);

        let waiting = tokio::spawn(asker.clone().ask(Query::View));
        drop(queries.recv().await);
        let error = waiting.await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "the agent is stopping");
        drop(queries);
        assert!(asker.ask(Query::View).await.is_err());
    }
}
