//! The saved memory of `refuse_at = "auto"`.

use std::{collections::HashSet, net::IpAddr};

use nomail_agent::smtp::{Senders, senders::FILE_MAX};

/// The time of reading a file, and the age of its networks: common values and
/// extremes.
const TIMES: [(u32, u32); 4] = [
    (1_764_000_000, 6 * 24 * 3600),
    (1_764_000_000, u32::MAX),
    (0, 1),
    (u32::MAX, 3600),
];

/// Networks that the corpus knows, and one that it does not.
const PEERS: [&str; 4] = ["192.0.2.7", "2001:db8:1::7", "::7", "203.0.113.9"];

/// The bytes of the file: a restored memory is saved as it was, and restored as the same.
pub fn senders(file: &[u8]) {
    for (now, age) in TIMES {
        let mut senders = match Senders::restore(file, now, age) {
            Ok(senders) => senders,
            Err(error) => {
                assert!(!error.to_string().contains(char::is_control));
                continue;
            }
        };
        let saved = senders.save(now);
        assert!(saved.len() <= FILE_MAX);
        // Times in the future become now; all else is as it was written.
        let lines: HashSet<_> = file.split(|&byte| byte == b'\n').collect();
        let clamped = format!(" {now}");
        for line in saved.lines() {
            assert!(lines.contains(line.as_bytes()) || line.contains(&clamped));
        }
        let mut again = match Senders::restore(saved.as_bytes(), now, age) {
            Ok(again) => again,
            Err(error) => panic!("{error} in what was saved: {saved}"),
        };
        assert_eq!(again.len(), senders.len());
        assert_eq!(again.save(now), saved);
        for peer in PEERS.map(str::parse::<IpAddr>).into_iter().flatten() {
            assert_eq!(again.contact(peer, now), senders.contact(peer, now));
        }
        assert_eq!(again.save(now), senders.save(now));
    }
}
