//! Over which interfaces connections arrive: what a guard must have seen the SYNs of.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mio::net::TcpStream;

use super::socket::arrived_over;

/// Connections that are looked at in a second; of more, those that come first. So a flood of
/// connections costs no more.
const LOOKS_PER_SECOND: u32 = 16;

/// Arrivals that wait to be taken. Those beyond are lost.
const ARRIVALS_MAX: usize = 1024;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The number of the interface that it arrived over. For a connection of this host to
    /// itself the kernel names the interface that has the address.
    pub interface: u32,
    /// The address that it was for.
    pub to: SocketAddr,
    /// The client.
    pub from: IpAddr,
}

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
    pub(super) fn look(
        &mut self,
        stream: &TcpStream,
        from: IpAddr,
        now: Instant,
    ) -> Option<Arrival> {
        if now.saturating_duration_since(self.begun) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        if self.looks >= LOOKS_PER_SECOND {
            return None;
        }
        self.looks += 1;
        Some(Arrival {
            interface: arrived_over(stream)?,
            to: stream.local_addr().ok()?,
            from,
        })
    }
}

/// Keeps an arrival until it is taken.
pub(super) fn keep(arrivals: &mut Vec<Arrival>, arrival: Arrival) {
    if arrivals.len() < ARRIVALS_MAX {
        arrivals.push(arrival);
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
        let from = local.ip();
        let arrival = Arrival {
            interface: LOOPBACK,
            to: local,
            from,
        };
        for _ in 0..LOOKS_PER_SECOND {
            assert_eq!(sample.look(&stream, from, now), Some(arrival));
        }
        let more = sample.look(&stream, from, now);
        assert_eq!(more, None, "enough in this second");
        let later = now + Duration::from_secs(1);
        assert_eq!(sample.look(&stream, from, later), Some(arrival));
    }

    #[test]
    fn arrivals_that_nobody_takes_are_bounded() {
        let mut arrivals = Vec::new();
        let from = Ipv4Addr::LOCALHOST.into();
        for port in 0..2 * ARRIVALS_MAX {
            let arrival = Arrival {
                interface: LOOPBACK,
                to: SocketAddr::new(from, port as u16),
                from,
            };
            keep(&mut arrivals, arrival);
        }
        assert_eq!(arrivals.len(), ARRIVALS_MAX);
    }
}
