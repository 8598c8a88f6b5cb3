//! The clients of a socket that any account of this host may reach: a bounded number at a
//! time, of which the one that has been idle longest makes room for the next.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    task::{AbortHandle, spawn},
    time::sleep,
};

/// How long a client is idle at least before it makes room. This bounds the rate of
/// accepted connections.
const IDLE_MIN: Duration = Duration::from_millis(50);

/// Whether a client has sent its request: until then it is idle.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// The request is complete.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Client {
    task: AbortHandle,
    since: Instant,
    asked: Asked,
}

/// The clients, the first to connect in front.
#[derive(Debug)]
pub(super) struct Clients {
    max: usize,
    clients: VecDeque<Client>,
}

impl Clients {
    /// No client yet, and at most `max` at a time.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            clients: VecDeque::with_capacity(max),
        }
    }

    /// Serves a client with `serve` as soon as there is room.
    pub(super) async fn admit<F>(&mut self, serve: impl FnOnce(Asked) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.make_room().await;
        let asked = Asked::default();
        let task = spawn(serve(asked.clone()));
        self.clients.push_back(Client {
            task: task.abort_handle(),
            since: Instant::now(),
            asked,
        });
    }

    /// Waits until a client has ended, or one that has been idle for [`IDLE_MIN`] can be ended.
    /// If all have sent a request, the first of them makes room.
    async fn make_room(&mut self) {
        loop {
            self.clients.retain(|client| !client.task.is_finished());
            if self.clients.len() < self.max {
                return;
            }
            let idle = |client: &Client| !client.asked.0.load(Ordering::Relaxed);
            let index = self.clients.iter().position(idle).unwrap_or(0);
            let Some(client) = self.clients.get(index) else {
                return;
            };
            let left = IDLE_MIN.saturating_sub(client.since.elapsed());
            if left.is_zero() {
                client.task.abort();
                self.clients.remove(index);
                return;
            }
            sleep(left).await;
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &self.clients {
            client.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    /// Tells its name when it is ended.
    struct Place(u32, mpsc::UnboundedSender<u32>);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }

    async fn admit(
        clients: &mut Clients,
        name: u32,
        asks: bool,
        ended: &mpsc::UnboundedSender<u32>,
    ) {
        let place = Place(name, ended.clone());
        let serve = move |asked: Asked| async move {
            if asks {
                asked.set();
            }
            pending::<()>().await;
            drop(place);
        };
        clients.admit(serve).await;
        // Its task begins.
        sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn the_one_that_is_idle_longest_makes_room() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut clients = Clients::new(3);
        for (name, asks) in [(0, true), (1, false), (2, false)] {
            admit(&mut clients, name, asks, &ended).await;
        }
        assert!(ends.try_recv().is_err());
        for (name, ends_first) in [(3, 1), (4, 2), (5, 3)] {
            admit(&mut clients, name, false, &ended).await;
            assert_eq!(ends.recv().await, Some(ends_first));
        }
    }

    #[tokio::test]
    async fn where_all_have_asked_the_first_makes_room() {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut clients = Clients::new(2);
        for name in 0..5 {
            admit(&mut clients, name, true, &ended).await;
        }
        for name in 0..3 {
            assert_eq!(ends.recv().await, Some(name));
        }
        assert!(ends.try_recv().is_err());
        drop(clients);
        assert_eq!(ends.recv().await, Some(3), "they end with their socket");
    }

    #[tokio::test]
    async fn those_that_hurry_have_to_wait() {
        let (ended, _ends) = mpsc::unbounded_channel();
        let mut clients = Clients::new(2);
        let begun = Instant::now();
        for name in 0..8 {
            admit(&mut clients, name, false, &ended).await;
        }
        assert!(begun.elapsed() >= IDLE_MIN * 3, "{:?}", begun.elapsed());
    }
}
