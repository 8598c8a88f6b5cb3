//! The handle of the thread that speaks SMTP.

#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use log::error;
use mio::Waker;
use tokio::sync::oneshot;

use super::{
    arrivals::Arrival,
    foreign::ForeignDomains,
    senders::Senders,
    server::{ListenerId, Order, SmtpServer},
    settings::Settings,
    stats::{Activity, Connections, SourceHistory, Stats},
};

/// The handle of the thread that speaks SMTP.
#[derive(Debug)]
pub struct SmtpThread {
    pub(super) stats: Arc<Stats>,
    orders: mpsc::Sender<Order>,
    waker: Waker,
    next: AtomicUsize,
}

impl SmtpThread {
    /// Starts the thread, which runs `prepare` first. The receiver resolves when
    /// the thread has ended: to `Ok` after [`Self::stop`], else to an error.
    ///
    /// # Errors
    /// When the system provides no thread or no epoll instance.
    pub fn start(
        settings: Settings,
        senders: Senders,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let stats = Arc::new(Stats::new(senders));
        let (orders, received) = mpsc::channel();
        let (server, waker) = SmtpServer::new(settings, Arc::clone(&stats), received)?;
        let (ready, prepared) = mpsc::sync_channel(0);
        let (ended, end) = oneshot::channel();
        thread::Builder::new()
            .name("smtp".to_owned())
            .spawn(move || {
                prepare();
                // Whether the other side still waits does not matter.
                let _ = ready.send(());
                match server.run() {
                    Ok(()) => drop(ended.send(())),
                    Err(error) => error!("port 25 is no longer served: {error}"),
                }
            })?;
        // An error means that `prepare` panicked, which `end` reports.
        let _ = prepared.recv();
        let responder = Self {
            stats,
            orders,
            waker,
            next: AtomicUsize::new(0),
        };
        Ok((responder, end))
    }

    /// Serves a bound socket.
    pub fn listen(&self, listener: std::net::TcpListener) -> ListenerId {
        let id = ListenerId(self.next.fetch_add(1, Ordering::Relaxed));
        self.order(Order::Listen(id, listener));
        id
    }

    /// Closes a listening socket. Connections in its queue are shed; open
    /// sessions go on.
    pub fn close(&self, listener: ListenerId) {
        self.order(Order::Close(listener));
    }

    /// Changes the settings for connections accepted from now on.
    pub fn configure(&self, settings: Settings) {
        self.order(Order::Configure(Arc::new(settings)));
    }

    /// Sends 421 to all sessions, closes everything, and ends the thread, which
    /// takes `within` at most.
    pub fn stop(&self, within: Duration) {
        self.order(Order::Stop(within));
    }

    /// Resolves to `Ok` in the next turn of the thread's loop: to whether the queue of
    /// every socket has space.
    pub fn prove(&self) -> oneshot::Receiver<bool> {
        let (proof, proven) = oneshot::channel();
        self.order(Order::Prove(proof));
        proven
    }

    /// Returns the counts at this moment.
    pub fn snapshot(&self) -> Connections {
        self.stats.lock().snapshot()
    }

    /// Returns the sources, the one seen last first.
    pub fn sources(&self) -> Vec<SourceHistory> {
        self.stats.lock().sources()
    }

    /// Returns connections that have arrived since the last call, or some of them.
    pub fn take_arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.stats.lock().arrivals)
    }

    /// Returns what happened since the last call.
    pub fn take_activity(&self) -> Activity {
        self.stats.lock().take_activity()
    }

    /// Returns the memory of `auto`.
    pub fn senders(&self) -> Senders {
        self.stats.lock().senders.clone()
    }

    /// Returns the other domains that mail arrives for.
    pub fn foreign_domains(&self) -> ForeignDomains {
        self.stats.lock().foreign.clone()
    }

    /// Changes the other domains that mail arrives for.
    pub fn with_foreign_domains<T>(&self, change: impl FnOnce(&mut ForeignDomains) -> T) -> T {
        change(&mut self.stats.lock().foreign)
    }

    fn order(&self, order: Order) {
        // The thread has ended only when the agent is ending, too.
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }
}
