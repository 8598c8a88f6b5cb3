//! Who has been here: the memory of `refuse_at = "auto"`, without clock or
//! file.
//!
//! Not every sender returns the mail after a 521 greeting, but every one that
//! was tried does after a refusal at RCPT. So the first contact of a network
//! is greeted with 521, and one that comes back is refused at RCPT. One that
//! went away after EHLO wanted TLS: it is refused at EHLO at its next contact, which
//! some of these return, and at RCPT after that. Refusing at RCPT harms nobody, so
//! that is what is done whenever the memory does not know, and steadily for a
//! network that goes on to leave after EHLO as health checkers do.
//!
//! Times are in seconds since the Unix epoch.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};

/// The most networks that are remembered.
pub const SENDERS_MAX: usize = 65_536;

/// The most octets of a saved memory: more are refused without reading them.
pub const FILE_MAX: usize = HEADER.len() + (SENDERS_MAX + 2) * LINE_MAX;

/// No line of a saved memory is longer.
const LINE_MAX: usize = "ffff:ffff:ffff::/48 4294967295 steady\n".len();

/// The first line of a saved memory.
const HEADER: &str = "nomail senders 1";

/// A network is refused at EHLO so often, for as many messages of a sender that
/// insists on TLS. If it leaves after EHLO again it gets RCPT steadily.
const EHLO_REFUSALS_MAX: u8 = 2;

/// A network that was away for so long is refused at EHLO anew. No health checker is,
/// and no sender that still has mail in its queue.
const STEADY_SECS: u32 = 24 * 60 * 60;

/// A full memory is searched for expired networks at most so often.
const SWEEP_SECS: u32 = 60;

/// Where a contact is to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// 521 as the greeting.
    Greeting,
    /// 220, and 521 to EHLO and HELO.
    Ehlo,
    /// 220, 250 and 250, and 521 to RCPT.
    Rcpt,
}

/// The networks that were here, at most [`SENDERS_MAX`].
///
/// Every call takes constant time, but for one at most in a minute that looks
/// through a full memory for what has expired.
#[derive(Clone, Debug)]
pub struct Senders {
    /// A network not seen for so long is unknown again.
    age: u32,
    networks: HashMap<Network, Entry>,
    /// When an earlier memory was lost, if one was.
    forgotten: Option<u32>,
    /// When expired networks were last searched for.
    swept: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The last contact.
    last: u32,
    next: Next,
    /// How often it was refused at EHLO, up to [`EHLO_REFUSALS_MAX`].
    ehlo_refusals: u8,
}

impl Entry {
    const fn new(last: u32, next: Next) -> Self {
        Self {
            last,
            next,
            ehlo_refusals: 0,
        }
    }

    /// A contact, however it is answered.
    const fn seen(&mut self, now: u32) {
        if !is_recent(STEADY_SECS, self.last, now) {
            self.ehlo_refusals = 0;
        }
        self.last = now;
    }

    const fn is_steady(&self) -> bool {
        self.ehlo_refusals >= EHLO_REFUSALS_MAX && nomail_common::Mechanism::EhloRefusalsEnd.is_on()
    }
}

/// What a known network gets at its next contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// RCPT; EHLO after that, if it leaves after EHLO.
    Rcpt,
    /// EHLO.
    Ehlo,
    /// RCPT, because it had EHLO last. Whoever leaves now was here before
    /// that, and does not bring EHLO on again: the rungs alternate.
    RcptAfterEhlo,
}

impl Senders {
    /// A memory of nobody. Networks expire after `age_secs`.
    pub fn new(age_secs: u32) -> Self {
        Self {
            age: age_secs,
            networks: HashMap::new(),
            forgotten: None,
            swept: None,
        }
    }

    /// A memory that was lost: who was here is unknown, so every network gets
    /// RCPT, until those who were here have expired.
    pub fn forgotten(age_secs: u32, now: u32) -> Self {
        Self {
            forgotten: Some(now),
            ..Self::new(age_secs)
        }
    }

    /// Changes the age, also of the networks that are remembered.
    pub fn set_age(&mut self, age_secs: u32) {
        self.age = age_secs;
    }

    /// A contact from `peer`: where it is to be refused. Remembers it.
    ///
    /// A network that is not known and for which there is no room gets RCPT.
    pub fn contact(&mut self, peer: IpAddr, now: u32) -> Rung {
        let network = Network::from(peer);
        if let Some(entry) = self.known(network, now) {
            entry.seen(now);
            let (rung, next) = match entry.next {
                Next::Ehlo => {
                    entry.ehlo_refusals += 1;
                    (Rung::Ehlo, Next::RcptAfterEhlo)
                }
                Next::Rcpt | Next::RcptAfterEhlo => (Rung::Rcpt, Next::Rcpt),
            };
            entry.next = next;
            rung
        } else if self.remember(network, Next::Rcpt, now) && !self.in_doubt(now) {
            Rung::Greeting
        } else {
            Rung::Rcpt
        }
    }

    /// A contact from `peer` that was greeted with 521 whatever its rung was,
    /// because there is no room for more. It counts as a contact, but what
    /// comes next for a known network stays as it is.
    pub fn greeted(&mut self, peer: IpAddr, now: u32) {
        let network = Network::from(peer);
        if let Some(entry) = self.known(network, now) {
            entry.seen(now);
        } else {
            self.remember(network, Next::Rcpt, now);
        }
    }

    /// A contact whose rung was [`Rung::Rcpt`] left after EHLO without MAIL:
    /// it wanted TLS, or it checks whether this host answers.
    ///
    /// Not to be called for the other rungs: after a refused EHLO every
    /// client leaves.
    pub fn left_after_ehlo(&mut self, peer: IpAddr, now: u32) {
        let network = Network::from(peer);
        if let Some(entry) = self.known(network, now) {
            entry.seen(now);
            if entry.next == Next::Rcpt && !entry.is_steady() {
                entry.next = Next::Ehlo;
            }
        } else {
            self.remember(network, Next::Ehlo, now);
        }
    }

    /// How many networks are held, with those that have expired and were not
    /// in the way yet.
    pub fn len(&self) -> usize {
        self.networks.len()
    }

    /// Whether no network is held.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The memory as text, for [`Senders::restore`]: at most [`FILE_MAX`]
    /// octets.
    ///
    /// A first line with the version, a line `forgotten TIME` while a lost
    /// memory matters, and one line such as `192.0.2.0/24 1764000000 rcpt` for
    /// each network, in order: its last contact and its next rung. That is
    /// `steady` for one that was refused at EHLO often enough.
    pub fn save(&self, now: u32) -> String {
        let mut lines: Vec<_> = self
            .networks
            .iter()
            .filter(|(_, entry)| is_recent(self.age, entry.last, now))
            .collect();
        lines.sort_unstable_by_key(|(network, _)| **network);
        let mut text = format!("{HEADER}\n");
        if let Some(at) = self.forgotten.filter(|_| self.in_doubt(now)) {
            text += &format!("forgotten {at}\n");
        }
        for (network, entry) in lines {
            let next = match entry.next {
                Next::Ehlo => "ehlo",
                // Contacts do not outlive the agent, so nobody is left who
                // was here before the EHLO.
                Next::Rcpt | Next::RcptAfterEhlo if entry.is_steady() => "steady",
                Next::Rcpt | Next::RcptAfterEhlo => "rcpt",
            };
            // Writing to a String does not fail.
            let _ = writeln!(text, "{network} {} {next}", entry.last);
        }
        text
    }

    /// The memory that [`Senders::save`] wrote. What has expired is left out;
    /// times in the future, from a clock that was wrong, become `now`.
    ///
    /// Whatever is not exactly as it was written is an error: then
    /// [`Senders::forgotten`] is what is left.
    pub fn restore(file: &[u8], now: u32, age_secs: u32) -> Result<Self, StateError> {
        if file.len() > FILE_MAX {
            return Err(StateError::TooLarge);
        }
        let mut senders = Self::new(age_secs);
        // After the last line feed there is an empty piece, or the rest of a
        // line that was cut.
        let (text, cut) = match file {
            [text @ .., b'\n'] => (text, false),
            text => (text, true),
        };
        let mut line = 0;
        for text in text.split(|&octet| octet == b'\n') {
            line += 1;
            senders
                .restore_line(line, text, now)
                .map_err(|reason| StateError::Line { line, reason })?;
        }
        if cut {
            let reason = "cut off: there is no line feed at its end";
            return Err(StateError::Line { line, reason });
        }
        Ok(senders)
    }

    fn restore_line(&mut self, line: usize, text: &[u8], now: u32) -> Result<(), &'static str> {
        let text = str::from_utf8(text).map_err(|_| "not text")?;
        if line == 1 {
            return (text == HEADER)
                .then_some(())
                .ok_or("not \"nomail senders 1\"");
        }
        let seconds = |text: &str| {
            let seconds = text.parse::<u32>().ok();
            let seconds = seconds.filter(|seconds| seconds.to_string() == text);
            seconds
                .map(|seconds| seconds.min(now))
                .ok_or("not a time in seconds")
        };
        if line == 2
            && let Some(at) = text.strip_prefix("forgotten ")
        {
            let at = seconds(at)?;
            self.forgotten = Some(at).filter(|&at| is_recent(self.age, at, now));
            return Ok(());
        }
        let mut words = text.split(' ');
        let (Some(network), Some(last), Some(next), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("not a network, a time and a rung");
        };
        let network = Network::parse(network).ok_or("not an IPv4 /24 or IPv6 /48")?;
        let last = seconds(last)?;
        let (next, ehlo_refusals) = match next {
            "rcpt" => (Next::Rcpt, 0),
            "ehlo" => (Next::Ehlo, 0),
            "steady" => (Next::Rcpt, EHLO_REFUSALS_MAX),
            _ => return Err("neither rcpt nor ehlo nor steady"),
        };
        if is_recent(self.age, last, now) {
            if self.len() >= SENDERS_MAX {
                return Err("more networks than can be remembered");
            }
            let entry = Entry {
                ehlo_refusals,
                ..Entry::new(last, next)
            };
            if self.networks.insert(network, entry).is_some() {
                return Err("a network for the second time");
            }
        }
        Ok(())
    }

    /// A network that is remembered and has not expired.
    fn known(&mut self, network: Network, now: u32) -> Option<&mut Entry> {
        self.networks
            .get_mut(&network)
            .filter(|entry| is_recent(self.age, entry.last, now))
    }

    /// Remembers a network that is not known, if there is room or can be
    /// made. One that has not expired never makes room for another: a flood
    /// of new networks must not turn who comes back into a first contact.
    fn remember(&mut self, network: Network, next: Next, now: u32) -> bool {
        if self.len() >= SENDERS_MAX && !self.networks.contains_key(&network) {
            self.sweep(now);
            if self.len() >= SENDERS_MAX {
                return false;
            }
        }
        self.networks.insert(network, Entry::new(now, next));
        true
    }

    /// Drops what has expired, unless that was done in the last minute.
    fn sweep(&mut self, now: u32) {
        if self.swept.is_none_or(|at| !is_recent(SWEEP_SECS, at, now)) {
            self.swept = Some(now);
            let age = self.age;
            self.networks
                .retain(|_, entry| is_recent(age, entry.last, now));
        }
    }

    /// Whether one who is not known may have been here all the same.
    fn in_doubt(&self, now: u32) -> bool {
        self.forgotten
            .is_some_and(|at| is_recent(self.age, at, now))
    }
}

/// Whether `then` is less than `age` away from `now`, on either side: when the
/// clock was set back, what is in the future expires too.
pub(super) const fn is_recent(age: u32, then: u32, now: u32) -> bool {
    now.abs_diff(then) < age
}

/// Why a saved memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is longer than any that is written.
    #[error("larger than {FILE_MAX} octets")]
    TooLarge,
    /// A line is not as it is written.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What it is, or is not.
        reason: &'static str,
    },
}

/// An IPv4 /24 or an IPv6 /48: wider than what is limited, so that the hosts
/// of one sender count as one.
///
/// The upper 48 bits of an IPv6 address, or the upper 24 of an IPv4 address
/// and [`IPV4_MARK`], which no IPv6 network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Network(u64);

const IPV4_MARK: u64 = 1 << 48;

impl Network {
    /// A network exactly as it is displayed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, _) = text.split_once('/')?;
        let network = Self::from(address.parse::<IpAddr>().ok()?);
        (network.to_string() == text).then_some(network)
    }
}

impl From<IpAddr> for Network {
    /// An IPv4-mapped IPv6 address is the IPv4 address, as it is for a socket.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4_MARK | u64::from(address.to_bits() >> 8)),
            IpAddr::V6(address) => Self((address.to_bits() >> 80) as u64),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 & IPV4_MARK == 0 {
            write!(f, "{}/48", Ipv6Addr::from_bits(u128::from(self.0) << 80))
        } else {
            write!(f, "{}/24", Ipv4Addr::from_bits((self.0 as u32) << 8))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const AGE: u32 = 6 * 24 * 3600;
    const NOW: u32 = 1_764_000_000;

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    /// One address in each of many networks.
    fn nth(n: u32) -> IpAddr {
        IpAddr::from(Ipv4Addr::from_bits(n << 8 | 7))
    }

    /// A memory that is full of networks seen at `NOW`.
    fn full() -> Senders {
        static FULL: LazyLock<Senders> = LazyLock::new(|| {
            let mut senders = Senders::new(AGE);
            for n in 0..SENDERS_MAX as u32 {
                assert_eq!(senders.contact(nth(n), NOW), Rung::Greeting);
            }
            senders
        });
        FULL.clone()
    }

    const NEW: u32 = 0x0010_0000;

    #[test]
    fn the_first_contact_is_greeted_and_who_comes_back_is_refused_at_rcpt() {
        let mut senders = Senders::new(AGE);
        assert_eq!(senders.contact(ip("192.0.2.7"), NOW), Rung::Greeting);
        for later in [0, 1, 3600] {
            assert_eq!(senders.contact(ip("192.0.2.7"), NOW + later), Rung::Rcpt);
        }
        assert_eq!(senders.contact(ip("198.51.100.7"), NOW), Rung::Greeting);
    }

    #[test]
    fn who_left_after_ehlo_gets_ehlo_once_and_then_rcpt() {
        let mut senders = Senders::new(AGE);
        let peer = ip("192.0.2.7");
        senders.contact(peer, NOW);
        for _ in 0..EHLO_REFUSALS_MAX {
            assert_eq!(senders.contact(peer, NOW), Rung::Rcpt);
            senders.left_after_ehlo(peer, NOW);
            assert_eq!(senders.contact(peer, NOW), Rung::Ehlo);
        }
        assert_eq!(senders.contact(peer, NOW), Rung::Rcpt);
        assert_eq!(senders.contact(peer, NOW), Rung::Rcpt);
    }

    /// `option smtpchk` of HAProxy: EHLO and QUIT, every few seconds.
    #[test]
    fn a_health_checker_gets_one_steady_answer() {
        const WEEK: u32 = 7 * 24 * 3600;
        let mut senders = Senders::new(AGE);
        let peer = ip("192.0.2.7");
        let mut changes = 0;
        let mut last = senders.contact(peer, NOW);
        for later in (10..WEEK).step_by(10) {
            if last == Rung::Rcpt {
                senders.left_after_ehlo(peer, NOW + later - 9);
            }
            if later % 10_000 == 0 {
                // A restart, in the middle of it.
                let file = senders.save(NOW + later);
                senders = Senders::restore(file.as_bytes(), NOW + later, AGE).unwrap();
            }
            let rung = senders.contact(peer, NOW + later);
            changes += u32::from(rung != last);
            if changes > 2 * u32::from(EHLO_REFUSALS_MAX) {
                assert_eq!(rung, Rung::Rcpt, "after {later} s");
            }
            last = rung;
        }
        assert_eq!(changes, 2 * u32::from(EHLO_REFUSALS_MAX) + 1);
    }

    #[rstest]
    #[case(STEADY_SECS - 1, Rung::Rcpt)]
    #[case(STEADY_SECS, Rung::Ehlo)]
    fn who_was_away_for_a_day_is_refused_at_ehlo_anew(#[case] away: u32, #[case] expected: Rung) {
        let mut senders = Senders::new(AGE);
        let peer = ip("192.0.2.7");
        senders.contact(peer, NOW);
        for _ in 0..EHLO_REFUSALS_MAX {
            senders.left_after_ehlo(peer, NOW);
            assert_eq!(senders.contact(peer, NOW), Rung::Ehlo);
            assert_eq!(senders.contact(peer, NOW), Rung::Rcpt);
        }
        senders.left_after_ehlo(peer, NOW);
        assert_eq!(senders.contact(peer, NOW + away), Rung::Rcpt);
        senders.left_after_ehlo(peer, NOW + away);
        assert_eq!(senders.contact(peer, NOW + away), expected);
    }

    #[test]
    fn those_who_leave_one_after_the_other_do_not_pin_a_neighbour_to_ehlo() {
        let mut senders = Senders::new(AGE);
        let (prober, neighbour) = (ip("192.0.2.7"), ip("192.0.2.8"));
        for _ in 0..10 {
            senders.contact(prober, NOW);
        }
        for round in 0..4 {
            senders.left_after_ehlo(prober, NOW);
            let expected = if round < EHLO_REFUSALS_MAX {
                Rung::Ehlo
            } else {
                Rung::Rcpt
            };
            assert_eq!(senders.contact(neighbour, NOW), expected);
            senders.left_after_ehlo(prober, NOW);
            assert_eq!(senders.contact(neighbour, NOW), Rung::Rcpt);
        }
    }

    #[test]
    fn under_pressure_the_source_is_remembered() {
        let mut senders = Senders::new(AGE);
        let peer = ip("192.0.2.7");
        senders.greeted(peer, NOW);
        assert_eq!(senders.contact(peer, NOW), Rung::Rcpt);
        senders.left_after_ehlo(peer, NOW);
        senders.greeted(peer, NOW);
        assert_eq!(senders.contact(peer, NOW), Rung::Ehlo);
    }

    #[rstest]
    #[case("192.0.2.0", "192.0.2.255", true)]
    #[case("192.0.2.0", "192.0.3.0", false)]
    #[case("192.0.2.1", "::ffff:192.0.2.9", true)]
    #[case("2001:db8:1::", "2001:db8:1:ffff::1", true)]
    #[case("2001:db8:1::", "2001:db8:2::", false)]
    #[case("0.0.0.7", "::7", false)]
    #[case("::7", "::8", true)]
    fn a_slash_24_or_48_counts_as_one(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
        let mut senders = Senders::new(AGE);
        senders.contact(ip(a), NOW);
        let expected = if same { Rung::Rcpt } else { Rung::Greeting };
        assert_eq!(senders.contact(ip(b), NOW), expected);
    }

    #[rstest]
    #[case(AGE - 1, Rung::Rcpt)]
    #[case(AGE, Rung::Greeting)]
    fn who_was_not_seen_for_the_age_is_unknown(#[case] later: u32, #[case] expected: Rung) {
        let mut senders = Senders::new(AGE);
        let peer = ip("192.0.2.7");
        senders.contact(peer, NOW - 5);
        senders.greeted(peer, NOW);
        assert_eq!(senders.contact(peer, NOW + later), expected);
        assert_eq!(senders.contact(peer, NOW + later), Rung::Rcpt);
    }

    #[test]
    fn a_new_age_is_for_all() {
        let mut senders = Senders::new(AGE);
        senders.contact(ip("192.0.2.7"), NOW);
        senders.set_age(60);
        assert_eq!(senders.contact(ip("192.0.2.7"), NOW + 60), Rung::Greeting);
    }

    #[test]
    fn a_full_memory_answers_at_rcpt_and_forgets_nobody() {
        let mut senders = full();
        for n in 0..1000 {
            assert_eq!(senders.contact(nth(NEW + n), NOW + n), Rung::Rcpt);
            senders.greeted(nth(NEW + n), NOW + n);
            senders.left_after_ehlo(nth(NEW + n), NOW + n);
        }
        assert_eq!(senders.len(), SENDERS_MAX);
        for n in 0..SENDERS_MAX as u32 {
            assert_eq!(senders.contact(nth(n), NOW + 1000), Rung::Rcpt);
        }
    }

    #[test]
    fn what_has_expired_makes_room_within_a_minute() {
        let mut senders = full();
        assert_eq!(senders.contact(nth(1), NOW + 10), Rung::Rcpt);
        assert_eq!(senders.contact(nth(NEW), NOW + AGE - 1), Rung::Rcpt);
        assert_eq!(senders.contact(nth(NEW), NOW + AGE), Rung::Rcpt);
        let later = NOW + AGE - 1 + SWEEP_SECS;
        assert_eq!(senders.contact(nth(NEW), later), Rung::Greeting);
        assert_eq!(senders.len(), 1);
    }

    #[test]
    fn an_expired_network_has_its_own_room() {
        let mut senders = full();
        assert_eq!(senders.contact(nth(NEW), NOW + AGE - 1), Rung::Rcpt);
        assert_eq!(senders.contact(nth(5), NOW + AGE), Rung::Greeting);
        assert_eq!(senders.len(), SENDERS_MAX);
    }

    #[test]
    fn after_a_lost_memory_everybody_gets_rcpt_until_the_age_has_passed() {
        let mut senders = Senders::forgotten(AGE, NOW);
        assert_eq!(senders.contact(nth(1), NOW), Rung::Rcpt);
        senders.left_after_ehlo(nth(1), NOW);
        assert_eq!(senders.contact(nth(1), NOW), Rung::Ehlo);
        assert_eq!(senders.contact(nth(2), NOW + AGE - 1), Rung::Rcpt);
        assert_eq!(senders.contact(nth(3), NOW + AGE), Rung::Greeting);
        assert_eq!(senders.contact(nth(2), NOW + AGE), Rung::Rcpt);
    }

    #[test]
    fn that_a_memory_was_lost_outlives_a_restart() {
        let saved = Senders::forgotten(AGE, NOW).save(NOW + 5);
        assert_eq!(saved, format!("nomail senders 1\nforgotten {NOW}\n"));
        let mut senders = Senders::restore(saved.as_bytes(), NOW + 10, AGE).unwrap();
        assert_eq!(senders.contact(nth(1), NOW + AGE - 1), Rung::Rcpt);
        assert_eq!(senders.contact(nth(2), NOW + AGE), Rung::Greeting);
        assert_eq!(
            Senders::forgotten(AGE, NOW).save(NOW + AGE),
            "nomail senders 1\n"
        );
    }

    #[test]
    fn a_clock_that_steps_makes_nobody_immortal() {
        let mut senders = Senders::new(AGE);
        senders.contact(nth(1), u32::MAX);
        senders.contact(nth(2), NOW + 60);
        assert_eq!(senders.contact(nth(2), NOW), Rung::Rcpt);
        assert_eq!(senders.contact(nth(1), NOW), Rung::Greeting);
        assert_eq!(senders.contact(nth(1), NOW + AGE), Rung::Greeting);

        let mut senders = full();
        assert_eq!(senders.contact(nth(NEW), NOW - AGE), Rung::Greeting);
        assert_eq!(senders.len(), 1);
    }

    #[test]
    fn the_file_is_one_line_for_each_network() {
        let mut senders = Senders::new(AGE);
        senders.contact(ip("192.0.2.7"), NOW);
        senders.contact(ip("2001:db8:1:2::3"), NOW + 1);
        senders.left_after_ehlo(ip("2001:db8:1:2::3"), NOW + 2);
        senders.contact(ip("198.51.100.7"), NOW - AGE);
        for _ in 0..EHLO_REFUSALS_MAX {
            senders.contact(ip("203.0.113.7"), NOW);
            senders.left_after_ehlo(ip("203.0.113.7"), NOW);
            senders.contact(ip("203.0.113.7"), NOW);
        }
        assert_eq!(
            senders.save(NOW + 2),
            "nomail senders 1\n\
             2001:db8:1::/48 1764000002 ehlo\n\
             192.0.2.0/24 1764000000 rcpt\n\
             203.0.113.0/24 1764000000 steady\n"
        );
    }

    #[rstest]
    #[case("", "line 1: not \"nomail senders 1\"")]
    #[case("nomail senders 2\n", "line 1: not \"nomail senders 1\"")]
    #[case("nomail senders 1\r\n", "line 1: not \"nomail senders 1\"")]
    #[case(
        "nomail senders 1",
        "line 1: cut off: there is no line feed at its end"
    )]
    #[case("nomail senders 1\n\n", "line 2: not a network, a time and a rung")]
    #[case("nomail senders 1\nforgotten x\n", "line 2: not a time in seconds")]
    #[case(
        "nomail senders 1\n192.0.2.0/24 1 rcpt\nforgotten 1\n",
        "line 3: not a network, a time and a rung"
    )]
    #[case(
        "nomail senders 1\n192.0.2.0/24 1 rcpt \n",
        "line 2: not a network, a time and a rung"
    )]
    #[case(
        "nomail senders 1\n192.0.2.1/24 1 rcpt\n",
        "line 2: not an IPv4 /24 or IPv6 /48"
    )]
    #[case(
        "nomail senders 1\n192.0.2.0/25 1 rcpt\n",
        "line 2: not an IPv4 /24 or IPv6 /48"
    )]
    #[case(
        "nomail senders 1\n::ffff:0:0/48 1 rcpt\n",
        "line 2: not an IPv4 /24 or IPv6 /48"
    )]
    #[case(
        "nomail senders 1\n2001:DB8::/48 1 rcpt\n",
        "line 2: not an IPv4 /24 or IPv6 /48"
    )]
    #[case("nomail senders 1\n::/48 +1 rcpt\n", "line 2: not a time in seconds")]
    #[case(
        "nomail senders 1\n::/48 4294967296 rcpt\n",
        "line 2: not a time in seconds"
    )]
    #[case(
        "nomail senders 1\n::/48 1 greeting\n",
        "line 2: neither rcpt nor ehlo nor steady"
    )]
    #[case(
        "nomail senders 1\n::/48 1764000000 rcpt\n::/48 1764000000 ehlo\n",
        "line 3: a network for the second time"
    )]
    #[case(
        "nomail senders 1\n192.0.2.0/24 1764000000 rcpt\n192.0.3.0/24 17",
        "line 3: not a network, a time and a rung"
    )]
    #[case(
        "nomail senders 1\n192.0.2.0/24 1764000000 rcpt",
        "line 2: cut off: there is no line feed at its end"
    )]
    fn a_file_that_is_not_as_written_is_an_error(#[case] file: &str, #[case] expected: &str) {
        let error = Senders::restore(file.as_bytes(), NOW, AGE).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_file_is_bounded() {
        assert!(full().save(NOW).len() <= FILE_MAX);
        let file = vec![b'\n'; FILE_MAX + 1];
        assert_eq!(
            Senders::restore(&file, NOW, AGE).unwrap_err(),
            StateError::TooLarge
        );
        let more = full().save(NOW) + "255.255.255.0/24 1764000000 rcpt\n";
        let error = Senders::restore(more.as_bytes(), NOW, AGE).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 65538: more networks than can be remembered"
        );
    }

    #[test]
    fn restoring_drops_the_old_and_clamps_the_future() {
        let file = format!(
            "nomail senders 1\n192.0.2.0/24 {} rcpt\n192.0.3.0/24 {} ehlo\n192.0.4.0/24 {} ehlo\n",
            NOW - AGE,
            NOW - AGE + 1,
            u32::MAX
        );
        let senders = Senders::restore(file.as_bytes(), NOW, AGE).unwrap();
        let expected = format!(
            "nomail senders 1\n192.0.3.0/24 {} ehlo\n192.0.4.0/24 {NOW} ehlo\n",
            NOW - AGE + 1
        );
        assert_eq!(senders.save(NOW), expected);
    }

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Contact,
        Greeted,
        LeftAfterEhlo,
    }

    /// What happens, from which of a few peers, how long after the last.
    fn calls() -> impl Strategy<Value = Vec<(Call, IpAddr, u32)>> {
        let call = prop::sample::select(vec![
            Call::Contact,
            Call::Contact,
            Call::Greeted,
            Call::LeftAfterEhlo,
        ]);
        let peer = prop_oneof![
            (0u32..4).prop_map(nth),
            (0u128..4).prop_map(|n| IpAddr::from(Ipv6Addr::from_bits(n << 80 | n))),
        ];
        prop::collection::vec((call, peer, prop_oneof![0u32..50, 0u32..200]), 0..100)
    }

    /// The history of one network, as the rules tell it.
    #[derive(Clone, Copy, Default)]
    struct Model {
        last: Option<u32>,
        ehlo_next: bool,
        had_ehlo: bool,
        refusals: u8,
    }

    impl Model {
        fn call(&mut self, call: Call, now: u32, age: u32) -> Option<Rung> {
            if self.last.is_some_and(|last| now - last >= age) {
                *self = Self::default();
            }
            let known = self.last.replace(now).is_some();
            match call {
                Call::Greeted => None,
                Call::LeftAfterEhlo => {
                    self.ehlo_next |= !self.had_ehlo && self.refusals < EHLO_REFUSALS_MAX;
                    None
                }
                Call::Contact if !known => Some(Rung::Greeting),
                Call::Contact => {
                    self.had_ehlo = std::mem::take(&mut self.ehlo_next);
                    self.refusals += u8::from(self.had_ehlo);
                    Some(if self.had_ehlo {
                        Rung::Ehlo
                    } else {
                        Rung::Rcpt
                    })
                }
            }
        }
    }

    fn apply(senders: &mut Senders, call: Call, peer: IpAddr, now: u32) -> Option<Rung> {
        match call {
            Call::Contact => return Some(senders.contact(peer, now)),
            Call::Greeted => senders.greeted(peer, now),
            Call::LeftAfterEhlo => senders.left_after_ehlo(peer, now),
        }
        None
    }

    proptest! {
        #[test]
        fn the_rungs_are_those_of_the_rules(calls in calls()) {
            let age = 100;
            let mut now = NOW;
            let mut senders = Senders::new(age);
            let mut models = HashMap::<String, Model>::new();
            for (call, peer, wait) in calls {
                now += wait;
                let model = models.entry(Network::from(peer).to_string()).or_default();
                let expected = model.call(call, now, age);
                prop_assert_eq!(apply(&mut senders, call, peer, now), expected);
            }
            prop_assert!(senders.len() <= models.len());
        }

        #[test]
        fn no_peers_and_no_clock_break_a_bound(
            calls in prop::collection::vec((any::<IpAddr>(), any::<u32>(), 0usize..3), 0..50),
        ) {
            let mut senders = full();
            for (peer, now, call) in calls {
                let call = [Call::Contact, Call::Greeted, Call::LeftAfterEhlo][call];
                apply(&mut senders, call, peer, now);
                prop_assert!(senders.len() <= SENDERS_MAX);
            }
        }

        #[test]
        fn what_was_saved_is_what_is_restored(calls in calls(), lost: bool) {
            let mut now = NOW;
            let mut senders = if lost { Senders::forgotten(AGE, now) } else { Senders::new(AGE) };
            for &(call, peer, wait) in &calls {
                now += wait;
                apply(&mut senders, call, peer, now);
            }
            let saved = senders.save(now);
            let mut restored = Senders::restore(saved.as_bytes(), now, AGE).unwrap();
            prop_assert_eq!(restored.save(now), saved);
            prop_assert_eq!(restored.len(), senders.len());
            for (_, peer, _) in calls {
                prop_assert_eq!(restored.contact(peer, now), senders.contact(peer, now));
            }
            prop_assert_eq!(restored.contact(nth(NEW), now), senders.contact(nth(NEW), now));
        }

        #[test]
        fn every_network_is_read_as_it_is_written(peer: IpAddr) {
            let network = Network::from(peer);
            prop_assert_eq!(Network::parse(&network.to_string()), Some(network));
        }

        #[test]
        fn any_octets_as_a_file_never_panic(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            text in "([0-9a-f:./]{0,12}[ \n](rcpt|ehlo|[0-9]{0,11})[ \n]?){0,8}",
            now: u32,
            age: u32,
        ) {
            let _ = Senders::restore(&octets, now, age);
            let file = [HEADER.as_bytes(), b"\n", text.as_bytes()].concat();
            let _ = Senders::restore(&file, now, age);
            let file = [HEADER.as_bytes(), b"\n", &octets].concat();
            let _ = Senders::restore(&file, now, age);
        }
    }
}
