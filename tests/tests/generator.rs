//! The generator of floods, on which measurements rely.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nomail_tests::{
    generator::{Generator, Syns, Then, dropper},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, Lab},
    poll::until,
};
use serde_json::Value;

fn received(lab: &Lab) -> u64 {
    let link = lab
        .host
        .ip(&format!("-s -j link show dev {HOST_INTERFACE}"));
    let link: Value = serde_json::from_str(&link).unwrap();
    let packets = link.pointer("/0/stats64/rx/packets");
    packets.and_then(Value::as_u64).unwrap()
}

/// Never faster than asked for; and slow ones, for which no machine is too slow, not
/// much slower either.
#[test]
fn a_flood_keeps_its_rate() {
    const SYNS: Syns = Syns {
        source: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)),
        source_mask: 0xff_ffff,
        port: 1024,
        port_mask: 0x3fff,
        repeated: false,
        destination: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    };
    for (rate, is_slow) in [
        (100, true),
        (5_000, true),
        (50_000, false),
        (199_999, false),
        (200_000, false),
        (400_000, false),
    ] {
        let lab = Lab::new();
        // Nobody speaks IPv6 on its own: what is received is the flood alone.
        for (namespace, interface) in [(&lab.host, HOST_INTERFACE), (&lab.client, CLIENT_INTERFACE)]
        {
            namespace.ip(&format!("-6 address flush dev {interface}"));
        }
        let _dropper = lab.host.within(|| dropper().attach(HOST_INTERFACE));
        let count = rate / 4;
        let wanted = Duration::from_secs_f64(f64::from(count) / f64::from(rate));
        let send = || {
            lab.client.within(|| {
                let interface = if_nametoindex(CLIENT_INTERFACE).unwrap();
                let generator = Generator::load(&SYNS, &Then::Send { interface, rate });
                let _attached = generator.program().attach("lo");
                let begun = Instant::now();
                generator.send(count);
                begun.elapsed()
            })
        };
        let before = received(&lab);
        let took = send();
        println!("{rate} a second: {count} frames in {took:?}, wanted {wanted:?}");
        // The first need not wait, and what comes late by less than a burst catches up.
        assert!(took >= wanted.mul_f64(0.95), "{rate} a second: {took:?}");
        if !is_slow {
            continue;
        }
        until("they are received", || {
            (received(&lab) - before >= u64::from(count)).then_some(())
        });
        assert!(
            received(&lab) - before < u64::from(count) + 20,
            "and no more"
        );
        // A machine may be busy for a moment.
        until("it is not much slower", || {
            (send() <= wanted.mul_f64(1.5)).then_some(())
        });
    }
}
