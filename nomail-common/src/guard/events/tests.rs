use std::cell::Cell;

use super::*;

#[derive(Default)]
struct OneCpu([Cell<u64>; REPORTED_PER_LINE]);

impl ReportedSet for OneCpu {
    fn entry(&self, slot: usize) -> Entry {
        Entry(self.0[slot].get())
    }
    fn replace(&self, slot: usize, old: Entry, new: Entry) -> bool {
        let same = self.0[slot].get() == old.0;
        if same {
            self.0[slot].set(new.0);
        }
        same
    }
}

#[test]
fn each_is_reported_once_in_a_pause_and_no_more_than_there_are_entries() {
    // Also where jiffies wrap: they begin five minutes before.
    for start in [0, 1000, u32::MAX - 5, u32::MAX - 75_000] {
        let line = OneCpu::default();
        let reported = |now: u32| {
            (1..=100)
                .filter(|&tag| is_due(&line, tag, now, 15_000))
                .count()
        };
        assert_eq!(reported(start), REPORTED_PER_LINE);
        assert_eq!(reported(start), 0);
        assert_eq!(reported(start.wrapping_add(14_999)), 0);
        assert_eq!(reported(start.wrapping_add(15_000)), REPORTED_PER_LINE);
    }
}

#[test]
fn bytes_are_an_event() {
    let event = Event {
        source: Source::from_ipv4(0xc000_0209).0,
        jiffies: u64::MAX - 3,
        interface: 7,
        verdict: Verdict::LimitedPrefix as u16,
        proven: 1,
    };
    let mut bytes = [0; EVENT_LENGTH];
    bytes[..8].copy_from_slice(&event.source.to_ne_bytes());
    bytes[8..16].copy_from_slice(&event.jiffies.to_ne_bytes());
    bytes[16..20].copy_from_slice(&event.interface.to_ne_bytes());
    bytes[20..22].copy_from_slice(&event.verdict.to_ne_bytes());
    bytes[22..].copy_from_slice(&event.proven.to_ne_bytes());
    assert_eq!(Event::from_bytes(&bytes), event);
    assert_eq!(event.verdict(), Some(Verdict::LimitedPrefix));
    let forged = Event { proven: 0, ..event };
    assert_eq!(
        forged.line_and_tag(9).0 + REPORTED_LINES,
        event.line_and_tag(9).0
    );
}
