//! Steps of the machine's clock. Run by `cargo xtask test vm`: only there is the clock
//! the test's own.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};
use nomail_tests::{
    agent::{Agent, on_host},
    flood::{is_served, quit, socket_from},
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, is_emulated, until},
};

const DAY_SECS: i64 = 86_400;
/// SYNs that the source in question may send at once; and one a second.
const BURST: u64 = 5;

/// Sets the clock forward, or back.
fn step(secs: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    let then = TimeSpec::new(now.tv_sec() + secs, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
}

#[test]
fn steps_of_the_clock_change_nothing() {
    assert!(
        is_emulated(),
        "it sets the clock of the machine: run `cargo xtask test vm`"
    );
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, &on_host("--syn-rate 1 --syn-burst 5"));
    let begun = Instant::now();
    let sender = lab.client.within(|| FrameSender::open(CLIENT_INTERFACE));
    let host = SocketAddr::new(HOST_IPV4.parse().unwrap(), 25);
    for (round, days) in [1, -2, 3_650, -3_649].into_iter().enumerate() {
        let open = lab.client.within(|| {
            let socket = socket_from("192.0.2.100");
            socket.connect_timeout(&host.into(), DEADLINE).unwrap();
            socket
        });
        // Its bucket is empty, and is not filled by the step.
        let source = format!("198.51.100.{round}");
        let send = |port: u64| {
            let from = format!("{source}:{}", 2000 + port);
            sender.send(&Segment::syn(&from, &host.to_string()).frame());
        };
        let limited = agent.count("/syn/limited_source");
        let emptied = Instant::now();
        (0..2 * BURST).for_each(send);
        step(days * DAY_SECS);
        (2 * BURST..4 * BURST).for_each(send);
        until("its SYNs are judged", || {
            let now = agent.count("/syn/limited_source") - limited;
            let admitted = BURST + emptied.elapsed().as_secs() + 1;
            (now + admitted >= 4 * BURST).then_some(())
        });
        // Who was served is, and who comes.
        assert!(quit(open).unwrap().contains("\r\n221 "));
        until("a new client is served", || {
            lab.client
                .within(|| is_served("192.0.2.101", HOST_IPV4))
                .then_some(())
        });
        let uptime = agent.status()["uptime_secs"].as_u64().unwrap();
        let elapsed = begun.elapsed() + Duration::from_secs(30);
        assert!(uptime <= elapsed.as_secs(), "up for {uptime} s");
    }
    agent.stop();
}
