//! Over which interfaces connections arrive: what a guard must have seen the SYNs of.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::net::TcpStream;

use super::socket::arrived_over;

/// Connections that are looked at in a second; of more, those that come first. So a flood of
/// connections costs no more.
const LOOKS_PER_SECOND: u32 = 16;

/// Pairs of interface and address that are counted. Those beyond are not.
const PAIRS_MAX: usize = 1024;

/// Connections, or some of them, by the number of the interface that they arrived over, and by
/// the address that they were for.
pub type Arrivals = HashMap<(u32, SocketAddr), u64>;

/// Limits the looks.
#[derive(Debug)]
pub(super) struct ArrivalSample {
    begun: Instant,
    looks: u32,
}

impl ArrivalSample {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            looks: 0,
        }
    }

    /// Looks at a connection, or at none if there were enough in this second.
    pub(super) fn look(&mut self, stream: &TcpStream, now: Instant) -> Option<(u32, SocketAddr)> {
        if now.saturating_duration_since(self.begun) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        if self.looks >= LOOKS_PER_SECOND {
            return None;
        }
        self.looks += 1;
        Some((arrived_over(stream)?, stream.local_addr().ok()?))
    }
}

/// Counts a connection.
pub(super) fn count(arrivals: &mut Arrivals, pair: (u32, SocketAddr)) {
    if arrivals.len() < PAIRS_MAX || arrivals.contains_key(&pair) {
        *arrivals.entry(pair).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use rstest::rstest;

    use super::*;

    const LOOPBACK: u32 = 1;

    fn connected(address: SocketAddr) -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (TcpStream::from_std(stream), client)
    }

    #[rstest]
    #[case(Ipv4Addr::LOCALHOST.into())]
    #[case(Ipv6Addr::LOCALHOST.into())]
    fn the_interface_of_a_connection_is_found(#[case] address: std::net::IpAddr) {
        let (stream, _client) = connected(SocketAddr::new(address, 0));
        let now = Instant::now();
        let mut sample = ArrivalSample::new(now);
        let local = stream.local_addr().unwrap();
        for _ in 0..LOOKS_PER_SECOND {
            assert_eq!(sample.look(&stream, now), Some((LOOPBACK, local)));
        }
        assert_eq!(sample.look(&stream, now), None, "enough in this second");
        let later = now + Duration::from_secs(1);
        assert_eq!(sample.look(&stream, later), Some((LOOPBACK, local)));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut arrivals = Arrivals::new();
        for port in 0..2 * PAIRS_MAX {
            let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port as u16);
            count(&mut arrivals, (LOOPBACK, address));
            count(&mut arrivals, (LOOPBACK, address));
        }
        assert_eq!(arrivals.len(), PAIRS_MAX);
        assert!(arrivals.values().all(|&count| count == 2));
    }
}
