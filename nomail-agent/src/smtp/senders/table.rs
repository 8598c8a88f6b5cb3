//! A table of networks that is never full: each IPv4 /16 has a place of its own, and an IPv6
//! /32 takes that of the one not seen for longest among those that share its set.

use std::net::IpAddr;

use crate::smtp::epoch::is_recent;

/// A network is refused at EHLO this often, for as many messages of a sender that
/// insists on TLS. If it leaves after EHLO again it is steadily refused at RCPT.
pub(super) const EHLO_REFUSALS_MAX: u8 = 2;

/// One for each IPv4 /16.
const IPV4_PLACES: usize = 1 << 16;
/// Sets of IPv6 /32s, and the places of each.
const SETS: usize = 1 << 11;
const WAYS: usize = 8;

/// Bits of a time that a record does without: it is exact to 64 seconds.
const TIME_SHIFT: u32 = 6;

/// The last contact of a network, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// In units of 64 seconds.
    last: u32,
    pub(super) next: NextRefusal,
    /// How often it was refused at EHLO, up to [`EHLO_REFUSALS_MAX`].
    pub(super) ehlo_refusals: u8,
}

/// Where a known network is refused at its next contact. The numbers are those of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextRefusal {
    /// At RCPT, and then at EHLO if it leaves after EHLO.
    Rcpt = 1,
    /// At EHLO.
    Ehlo = 2,
    /// At RCPT, because it was refused at EHLO last. A connection that leaves now began
    /// before that, and does not cause EHLO again: the two alternate.
    RcptAfterEhlo = 3,
}

impl Record {
    pub(super) const fn new(now: u32, next: NextRefusal) -> Self {
        Self {
            last: now >> TIME_SHIFT,
            next,
            ehlo_refusals: 0,
        }
    }

    /// Its last contact, up to 63 seconds early.
    pub(super) const fn last(self) -> u32 {
        self.last << TIME_SHIFT
    }

    /// As a word that is not 0: from above 28 bits of time (26 of them used), two bits of EHLO
    /// refusals, two bits of the next refusal.
    fn word(self) -> u32 {
        self.last << 4 | u32::from(self.ehlo_refusals) << 2 | self.next as u32
    }

    /// The record of a word; none for 0, an error for a word that no record has.
    fn of(word: u32) -> Result<Option<Self>, ()> {
        let next = match word & 3 {
            1 => NextRefusal::Rcpt,
            2 => NextRefusal::Ehlo,
            3 => NextRefusal::RcptAfterEhlo,
            _ if word == 0 => return Ok(None),
            _ => return Err(()),
        };
        let record = Self {
            last: word >> 4,
            next,
            ehlo_refusals: (word >> 2 & 3) as u8,
        };
        let exists =
            record.ehlo_refusals <= EHLO_REFUSALS_MAX && record.last <= u32::MAX >> TIME_SHIFT;
        exists.then_some(Some(record)).ok_or(())
    }
}

/// A network by its place.
enum NetworkPlace {
    Ipv4(usize),
    /// The upper 32 bits of its addresses.
    Ipv6(u32),
}

impl From<IpAddr> for NetworkPlace {
    /// An IPv4-mapped IPv6 address counts as the IPv4 address.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Ipv4((address.to_bits() >> 16) as usize),
            IpAddr::V6(address) => Self::Ipv6((address.to_bits() >> 96) as u32),
        }
    }
}

/// The places of the IPv6 networks that share a set.
fn set_of(network: u32) -> std::ops::Range<usize> {
    // Fibonacci hashing; the upper bits are the good ones.
    let set = network.wrapping_mul(0x9e37_79b9) >> (u32::BITS - SETS.ilog2());
    let begin = set as usize * WAYS;
    begin..begin + WAYS
}

/// The words of all networks; 0 where there is none.
#[derive(Clone, Debug)]
pub(super) struct NetworkTable {
    ipv4: Box<[u32]>,
    /// Network and word.
    ipv6: Box<[(u32, u32)]>,
    /// Words that are not 0.
    used: usize,
}

impl Default for NetworkTable {
    fn default() -> Self {
        Self {
            ipv4: vec![0; IPV4_PLACES].into(),
            ipv6: vec![(0, 0); SETS * WAYS].into(),
            used: 0,
        }
    }
}

impl NetworkTable {
    /// Bytes of a saved table.
    pub(super) const SAVED_LEN: usize = 4 * IPV4_PLACES + 8 * SETS * WAYS;

    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn get(&self, peer: IpAddr) -> Option<Record> {
        let word = match NetworkPlace::from(peer) {
            NetworkPlace::Ipv4(place) => self.ipv4[place],
            NetworkPlace::Ipv6(network) => {
                let mut places = self.ipv6[set_of(network)].iter();
                places
                    .find(|(found, word)| *found == network && *word != 0)?
                    .1
            }
        };
        Record::of(word).ok().flatten()
    }

    /// Remembers a network. It takes the place of another one only if its set is full.
    pub(super) fn set(&mut self, peer: IpAddr, record: Record, now: u32, age: u32) {
        let before = match NetworkPlace::from(peer) {
            NetworkPlace::Ipv4(place) => std::mem::replace(&mut self.ipv4[place], record.word()),
            NetworkPlace::Ipv6(network) => {
                let places = &mut self.ipv6[set_of(network)];
                let own = places
                    .iter()
                    .position(|&(found, word)| found == network && word != 0);
                // Without an own place: that of none, of an expired one, of the oldest.
                let place = own.or_else(|| {
                    (0..WAYS).min_by_key(|&place| match Record::of(places[place].1) {
                        Ok(Some(one)) if is_recent(age, one.last(), now) => one.last(),
                        _ => 0,
                    })
                });
                let place = &mut places[place.unwrap_or(0)];
                std::mem::replace(place, (network, record.word())).1
            }
        };
        self.used += usize::from(before == 0);
    }

    pub(super) fn save(&self, file: &mut Vec<u8>) {
        file.extend(self.ipv4.iter().flat_map(|word| word.to_le_bytes()));
        for (network, word) in &self.ipv6 {
            file.extend(network.to_le_bytes());
            file.extend(word.to_le_bytes());
        }
    }

    /// Restores what [`NetworkTable::save`] wrote, [`NetworkTable::SAVED_LEN`] bytes, without expired
    /// networks; none if it did not.
    pub(super) fn restore(file: &[u8], now: u32, age: u32) -> Option<Self> {
        let mut table = Self::default();
        let (ipv4, ipv6) = file.split_at_checked(4 * IPV4_PLACES)?;
        let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
        let kept = |word: u32| -> Option<u32> {
            let Some(record) = Record::of(word).ok()? else {
                return Some(0);
            };
            let last = record.last().min(now);
            let record = Record {
                last: last >> TIME_SHIFT,
                ..record
            };
            Some(if is_recent(age, last, now) {
                record.word()
            } else {
                0
            })
        };
        for (place, word) in table.ipv4.iter_mut().zip(ipv4.chunks_exact(4)) {
            *place = kept(number(word)?)?;
        }
        for (place, (known, entry)) in table.ipv6.iter_mut().zip(ipv6.chunks_exact(8)).enumerate() {
            let (network, word) = entry.split_at(4);
            let (network, word) = (number(network)?, kept(number(word)?)?);
            if word != 0 {
                if !set_of(network).contains(&place) {
                    return None;
                }
                *known = (network, word);
            }
        }
        let ipv4 = table.ipv4.iter().filter(|word| **word != 0).count();
        let ipv6 = table.ipv6.iter().filter(|(_, word)| *word != 0).count();
        table.used = ipv4 + ipv6;
        Some(table)
    }
}
