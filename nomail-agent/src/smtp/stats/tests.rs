use std::net::Ipv4Addr;

use super::*;

#[test]
fn remembered_sources_are_bounded_and_forgotten_ones_counted() {
    let stats = Stats::new(Senders::new(1));
    let sources = SOURCES_MAX.get() as u32 + 10;
    for address in 0..sources {
        for _ in 0..2 {
            let source = Source::from_ipv4(address);
            stats.lock().accept(source, false, Instant::now());
        }
    }
    let counts = stats.lock().snapshot();
    assert_eq!(
        (
            counts.sources_tracked,
            counts.counters[Counter::SourcesForgotten]
        ),
        (SOURCES_MAX.get() as u64, 10)
    );
    let history = stats.lock().sources();
    assert_eq!(
        history[0].source,
        IpAddr::from(Ipv4Addr::from_bits(sources - 1))
    );
    assert!(history.iter().all(|source| source.connections == 2));
    let activity = stats.lock().take_activity();
    assert_eq!(activity.of_source.len(), ACTIVITY_SOURCES_MAX);
    assert_eq!(activity.beyond.connections, 20);
    assert_eq!(stats.lock().take_activity(), Activity::default());
}

#[test]
fn durations_are_counted_once_and_returned_as_sums() {
    let mut durations = Durations::default();
    for millis in [0, 10, 11, 1_000_000, 1_800_001] {
        durations.count(Duration::from_millis(millis));
    }
    let sums: Vec<_> = durations.cumulative().map(|(_, sum)| sum).collect();
    assert_eq!(sums, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
    assert_eq!(durations.total, Duration::from_millis(2_800_022));
}

#[test]
fn what_is_unlogged_is_counted_but_no_activity() {
    let stats = Stats::new(Senders::new(1));
    let mut stats = stats.lock();
    stats.accept(Source::from_ipv4(1), true, Instant::now());
    stats.counts.active += 1;
    stats.end(
        Source::from_ipv4(1),
        true,
        EndReason::Protocol(Protocol::Http),
    );
    assert_eq!(stats.take_activity(), Activity::default());
    let counts = stats.snapshot();
    assert_eq!(
        (
            counts.accepted,
            counts.protocols[Protocol::Http],
            counts.ended[Outcome::Closed]
        ),
        (1, 1, 1)
    );
}

#[test]
fn sources_are_ipv4_addresses_and_ipv6_networks() {
    let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
    assert_eq!(source("2001:db8::7"), source("2001:db8::8"));
    assert_ne!(source("2001:db8::7"), source("2001:db8:0:1::7"));
}
