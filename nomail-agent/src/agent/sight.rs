//! Whether the guard sees the SYNs of an interface: each connection that arrives over it for a
//! guarded address began with one. A driver may take an XDP program and never run it.

use std::time::{Duration, Instant};

/// Looks with connections that have to agree.
const LOOKS: u32 = 3;
/// Connections that they have at least.
const CONNECTIONS_MIN: u64 = 4;
/// How long a connection may take from its SYN to the listener: as long as the kernel repeats
/// its answer (net.ipv4.tcp_synack_retries, by default 5). SYNs of up to twice that count.
const WINDOW: Duration = Duration::from_secs(64);
/// After the guard is attached, connections whose SYN was there before may still be accepted.
const QUEUED: Duration = Duration::from_secs(10);

/// What was seen of one interface since the guard is on it.
#[derive(Debug)]
pub(super) struct Sight {
    begun: Instant,
    /// SYNs at the last look.
    before: Option<u64>,
    window: Window,
    /// SYNs in the window before.
    earlier_syns: u64,
    blind: bool,
    /// It has seen a SYN.
    sees: bool,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    syns: u64,
    connections: u64,
    /// Looks at which there were new connections.
    looks: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            syns: 0,
            connections: 0,
            looks: 0,
        }
    }
}

impl Sight {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            before: None,
            window: Window::new(now),
            earlier_syns: 0,
            blind: false,
            sees: false,
        }
    }

    /// Takes the count of SYNs, and the connections since the last look. Returns whether the
    /// guard is blind: as before, if they do not tell.
    pub(super) fn look(&mut self, now: Instant, syns: u64, connections: u64) -> bool {
        let Some(before) = self.before.replace(syns) else {
            return self.blind;
        };
        let syns = syns.saturating_sub(before);
        self.sees |= syns > 0;
        self.window.syns += syns;
        if connections > 0 && now.saturating_duration_since(self.begun) >= QUEUED {
            self.window.connections += connections;
            self.window.looks += 1;
        }
        if self.window.looks >= LOOKS && self.window.connections >= CONNECTIONS_MIN {
            let blind = self.window.connections > self.window.syns + self.earlier_syns;
            let blind = blind && nomail_common::Mechanism::Sight.is_on();
            // What was seen while it could not see must not excuse what it misses now.
            if blind != self.blind || blind {
                self.window = Window::new(now);
                self.earlier_syns = 0;
            }
            self.blind = blind;
        }
        if now.saturating_duration_since(self.window.begun) >= WINDOW {
            self.earlier_syns = self.window.syns;
            self.window = Window::new(now);
        }
        self.blind
    }

    /// Whether the guard has seen any SYN at all.
    pub(super) fn has_seen(&self) -> bool {
        self.sees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each second at counts that grow by these steps, from a minute after the start on.
    /// Returns what each look said.
    fn looks(steps: &[(u64, u64)]) -> Vec<bool> {
        let begun = Instant::now();
        let mut sight = Sight::new(begun);
        let mut syns = 500;
        sight.look(begun, syns, 70);
        let later = begun + QUEUED;
        let mut now = later;
        let said = steps.iter().map(|(new_syns, new_connections)| {
            syns += new_syns;
            now += Duration::from_secs(1);
            sight.look(now, syns, *new_connections)
        });
        said.collect()
    }

    fn last(steps: &[(u64, u64)]) -> bool {
        looks(steps).pop().unwrap()
    }

    #[test]
    fn connections_without_syns_are_noticed() {
        assert!(last(&[(0, 2), (0, 1), (0, 1)]));
        assert!(last(&[(0, 1), (0, 0), (0, 1), (0, 1), (0, 0), (0, 1)]));
        assert!(!last(&[(0, 16), (0, 16)]), "not at once");
        assert!(!last(&[(0, 1); 3]), "nor of so few");
        assert!(last(&[(1, 4); 3]), "one queue of four");
    }

    #[test]
    fn a_guard_that_sees_is_not_blind() {
        assert!(!last(&[(1, 1); 1000]));
        assert!(!last(&[(100, 1); 1000]), "a flood");
        assert!(!last(&[(100, 0), (0, 16), (0, 16), (0, 16)]), "far away");
        let mut slow = vec![(40, 0)];
        slow.extend([(0, 0); 40]);
        slow.extend([(0, 1); 40]);
        assert!(!looks(&slow).contains(&true), "each within a minute");
        assert!(!last(&[(1000, 0); 1000]));
    }

    #[test]
    fn a_flood_of_long_ago_excuses_nothing() {
        let mut steps = vec![(100_000, 10); 60];
        steps.extend([(0, 0); 130]);
        steps.extend([(0, 2); 3]);
        assert!(last(&steps));
    }

    #[test]
    fn it_does_not_flap_and_heals() {
        let mut steps = vec![(0, 2); 3];
        steps.extend([(1, 0), (0, 1), (0, 1), (1, 2), (0, 2), (0, 1)]);
        let said = looks(&steps);
        assert!(said[2..].iter().all(|blind| *blind), "{said:?}");
        steps.extend([(2, 2); 6]);
        assert!(!last(&steps), "{:?}", looks(&steps));
    }

    #[test]
    fn connections_from_before_the_guard_do_not_count() {
        let begun = Instant::now();
        let mut sight = Sight::new(begun);
        for second in 0..QUEUED.as_secs() {
            let now = begun + Duration::from_secs(second);
            assert!(!sight.look(now, 0, 100));
        }
    }
}
