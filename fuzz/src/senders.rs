//! The saved memory of `refuse_at = "auto"`.

use std::net::IpAddr;

use nomail_agent::smtp::{Senders, senders::FILE_LEN};

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

/// Changes of the file of an empty memory, each an offset and a word: a restored memory is
/// saved as it was, and restored as the same. Without changes, the bytes themselves.
pub fn senders(changes: &[u8]) {
    let mut file = Senders::new(1).save();
    for change in changes.chunks_exact(8) {
        let (offset, word) = change.split_at(4);
        let offset = offset
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let offset = offset % (FILE_LEN - 4);
        file[offset..offset + 4].copy_from_slice(word);
    }
    for (now, age) in TIMES {
        assert!(Senders::restore(changes, now, age).is_err());
        let mut senders = match Senders::restore(&file, now, age) {
            Ok(senders) => senders,
            Err(error) => {
                assert!(!error.to_string().contains(char::is_control));
                continue;
            }
        };
        let saved = senders.save();
        assert_eq!(saved.len(), FILE_LEN);
        let mut again = match Senders::restore(&saved, now, age) {
            Ok(again) => again,
            Err(error) => panic!("{error} in what was saved"),
        };
        assert_eq!(again.len(), senders.len());
        assert_eq!(again.save(), saved);
        for peer in PEERS.map(str::parse::<IpAddr>).into_iter().flatten() {
            assert_eq!(again.contact(peer, now), senders.contact(peer, now));
        }
        assert_eq!(again.save(), senders.save());
    }
}
