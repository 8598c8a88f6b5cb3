//! Tickets: what they admit, for how long, and what wrong answers do.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use nomail_common::{
    abi::{LINES_OF_SOURCE, TICKET_LINES, TICKETS_PER_LINE},
    guard::challenge::{Round, TupleHash},
    guard::limiter::{Bucket, Limit, SharedBucket, Time},
    guard::tickets::{
        self, ALL_RESETS_BURST, ALL_RESETS_RATE, Answered, Proof, RESETS_BURST, RESETS_RATE,
        ResetLimits, TICKET_SYNS, Ticket, TicketSet,
    },
    source::Source,
};
use proptest::prelude::*;
use std::cell::Cell;

const HZ: u32 = 250;
const TICKS: u32 = 10 * HZ;
const SLOT: u32 = 77;

#[derive(Default)]
struct Word(Cell<u64>);

impl SharedBucket for &Word {
    fn bucket(&self) -> Bucket {
        Bucket(self.0.get())
    }
    fn replace(&self, old: Bucket, new: Bucket) -> bool {
        self.0.get() == old.0 && {
            self.0.set(new.0);
            true
        }
    }
}

#[derive(Default)]
struct Line {
    tickets: [Cell<u64>; TICKETS_PER_LINE],
    resets: Word,
    all: Word,
}

impl TicketSet for Line {
    fn ticket(&self, place: usize) -> Ticket {
        Ticket(self.tickets[place].get())
    }
    fn write(&self, place: usize, ticket: Ticket) {
        self.tickets[place].set(ticket.0);
    }
}

impl Line {
    /// Whose buckets have not been charged at `jiffies`.
    fn at(jiffies: u64) -> Self {
        let line = Self::default();
        let full = Bucket::full(Time::from_jiffies(jiffies)).0;
        line.resets.0.set(full);
        line.all.0.set(full);
        line
    }

    fn reset(&self, hash: TupleHash, sequence: u32, jiffies: u64) -> Answered {
        let limits = ResetLimits {
            of_source: Limit::new(RESETS_RATE, RESETS_BURST, HZ).unwrap(),
            of_all: Limit::new(ALL_RESETS_RATE, ALL_RESETS_BURST, HZ).unwrap(),
        };
        let buckets = [&&self.resets, &&self.all];
        let time = Time::from_jiffies(jiffies);
        let strict = limits.is_strict(buckets, time);
        let now = jiffies as u32;
        let answered = tickets::reset(self, strict, hash, sequence, SLOT, now, TICKS);
        if answered == Answered::Not {
            limits.charge(buckets, time);
        }
        answered
    }

    fn proof(&self, hash: TupleHash, sequence: u32, jiffies: u64) -> Proof {
        tickets::proof_of(self, hash, sequence, jiffies as u32, TICKS)
    }

    fn admit(&self, hash: TupleHash, jiffies: u64) {
        tickets::admit(self, hash, jiffies as u32, TICKS);
    }

    /// As many RSTs as are needed until a ticket takes two answers.
    fn exhaust(&self, jiffies: u64) {
        for n in 0..RESETS_BURST {
            let (hash, sequence) = wrong(u64::from(n));
            assert_eq!(self.reset(hash, sequence, jiffies), Answered::Not);
        }
    }
}

/// A number that answers no challenge of a tuple.
fn wrong(salt: u64) -> (TupleHash, u32) {
    let hash = TupleHash(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let sequence = (1..=u32::MAX).find(|&n| hash.round_of(n, SLOT).is_none());
    (hash, sequence.unwrap())
}

fn first(hash: TupleHash, sequence: u32) -> u32 {
    hash.acknowledgment(sequence, SLOT, Round::First)
}

fn second(hash: TupleHash, sequence: u32) -> u32 {
    hash.acknowledgment(sequence, SLOT, Round::Second)
}

proptest! {
    /// Also across the wrap of the jiffies, and to a CPU whose clock is behind.
    #[test]
    fn a_ticket_holds_for_its_time_and_its_sequence_number(
        bits: u64, sequence: u32, other: u32, now in 1u64 << 33..1 << 40, later in 0u64..10_000,
    ) {
        let (line, hash) = (Line::at(now), TupleHash(bits));
        prop_assert_eq!(line.proof(hash, sequence, now), Proof::None);
        prop_assert_eq!(line.reset(hash, first(hash, sequence), now), Answered::Proven);
        let holds = later < u64::from(TICKS);
        let expected = if holds { Proof::New } else { Proof::None };
        prop_assert_eq!(line.proof(hash, sequence, now + later), expected);
        prop_assert_eq!(line.proof(hash, sequence, now - later % 256), Proof::New);
        let apart = (other >> 16).wrapping_sub(sequence >> 16) as u16;
        if apart > 1 && apart < u16::MAX {
            prop_assert_eq!(line.proof(hash, other, now), Proof::None);
        }
        let stranger = TupleHash(!bits);
        prop_assert_eq!(line.proof(stranger, sequence, now), Proof::None);
    }

    /// Exact replay: however often the same SYN comes and its victim answers.
    #[test]
    fn a_ticket_admits_a_few_syns_however_often_it_is_proven(bits: u64, sequence: u32) {
        let now = 1 << 34;
        let (line, hash) = (Line::at(now), TupleHash(bits));
        let mut admitted = 0;
        for n in 0..80 {
            line.reset(hash, first(hash, sequence), now + n);
            match line.proof(hash, sequence, now + n) {
                Proof::New | Proof::Used => {
                    line.admit(hash, now + n);
                    admitted += 1;
                }
                proof => prop_assert_eq!(proof, Proof::Spent),
            }
        }
        prop_assert_eq!(admitted, TICKET_SYNS);
    }

    /// The same, where the victim's kernel also resets what was opened: that spends the
    /// ticket, and costs nobody the second of two answers.
    #[test]
    fn a_reset_of_what_was_opened_spends_the_ticket(bits: u64, sequence: u32) {
        let now = 1 << 34;
        let hash = TupleHash(bits);
        let opened = sequence.wrapping_add(1);
        prop_assume!(hash.round_of(opened, SLOT).is_none());
        let line = Line::at(now);
        line.reset(hash, first(hash, sequence), now);
        line.admit(hash, now);
        for n in 0..80 {
            prop_assert_eq!(line.reset(hash, opened, now + n), Answered::Opened);
            prop_assert_eq!(line.proof(hash, sequence, now + n), Proof::Spent);
        }
        let (other, sequence) = (TupleHash(!bits), !sequence);
        prop_assert_eq!(line.reset(other, first(other, sequence), now), Answered::Proven);
    }

    /// A tuple that is opened again, with a sequence number not far from the last.
    #[test]
    fn a_ticket_moves_to_a_near_sequence_number(bits: u64, sequence: u32) {
        let now = 1 << 34;
        let (line, hash) = (Line::at(now), TupleHash(bits));
        line.reset(hash, first(hash, sequence), now);
        line.admit(hash, now);
        for next in [sequence.wrapping_sub(0x1_0000), sequence.wrapping_add(0x1_0000)] {
            line.reset(hash, first(hash, next), now);
            prop_assert_eq!(line.proof(hash, next, now), Proof::Used);
            line.reset(hash, first(hash, sequence), now);
            prop_assert_eq!(line.proof(hash, sequence, now), Proof::Used);
        }
    }

    #[test]
    fn beyond_the_limit_of_wrong_answers_a_ticket_takes_two(bits: u64, sequence: u32) {
        let now = 1 << 34;
        let (line, hash) = (Line::at(now), TupleHash(bits));
        line.exhaust(now);
        prop_assert_eq!(line.reset(hash, second(hash, sequence), now) == Answered::Proven, false);
        prop_assert_eq!(line.reset(hash, first(hash, sequence), now), Answered::Again);
        prop_assert_eq!(line.proof(hash, sequence, now), Proof::Half);
        // The first answer, given twice, is none the better.
        prop_assert_eq!(line.reset(hash, first(hash, sequence), now), Answered::Again);
        prop_assert_eq!(line.proof(hash, sequence, now), Proof::Half);
        let right = second(hash, sequence);
        prop_assume!(hash.round_of(right, SLOT) == Some(Round::Second));
        prop_assert_eq!(line.reset(hash, right, now), Answered::Proven);
        prop_assert_eq!(line.proof(hash, sequence, now), Proof::New);
    }

    /// So both numbers have to be guessed at once.
    #[test]
    fn a_wrong_answer_takes_the_first_of_two_back(bits: u64, sequence: u32, guess: u16) {
        let now = 1 << 34;
        let (line, hash) = (Line::at(now), TupleHash(bits));
        line.exhaust(now);
        line.reset(hash, first(hash, sequence), now);
        let guess = sequence & 0xffff_0000 | u32::from(guess);
        prop_assume!(hash.round_of(guess, SLOT).is_none());
        prop_assert_eq!(line.reset(hash, guess, now), Answered::Not);
        prop_assert_eq!(line.proof(hash, sequence, now), Proof::None);
    }

    /// As the kernel of a third party does, whose address was forged.
    #[test]
    fn a_reset_before_anything_was_opened_takes_the_ticket_back(bits: u64, sequence: u32) {
        let now = 1 << 34;
        let hash = TupleHash(bits);
        for reset in [sequence.wrapping_add(1), 0] {
            let line = Line::at(now);
            line.reset(hash, first(hash, sequence), now);
            prop_assume!(hash.round_of(reset, SLOT).is_none());
            prop_assert_eq!(line.reset(hash, reset, now), Answered::Not);
            prop_assert_eq!(line.proof(hash, sequence, now), Proof::None);
        }
    }
}

/// A sweep over all 65,536 numbers, in both rounds, gives no ticket for more SYNs than
/// the few wrong answers before the limit can.
#[test]
fn whoever_tries_all_numbers_gets_nothing() {
    let now = 1 << 34;
    let mut proven = 0;
    for salt in 0..20u64 {
        let hash = TupleHash(salt.wrapping_mul(0xd134_2543_de82_ef95) | 1 << 63);
        let line = Line::at(now);
        for _ in 0..2 {
            for number in 0..=0xffffu32 {
                let answered = line.reset(hash, 4711 << 16 | number, now);
                proven += u32::from(answered == Answered::Proven);
            }
        }
    }
    assert!(proven <= 4, "{proven} of 20 tuples");
}

#[test]
fn the_limit_of_all_holds_where_each_source_has_a_line_of_its_own() {
    let now = 1 << 34;
    let all = Line::at(now);
    let mut charged = 0;
    for n in 0..2 * u64::from(ALL_RESETS_BURST) {
        let line = Line::at(now);
        line.all.0.set(all.all.0.get());
        let (hash, sequence) = wrong(n);
        line.reset(hash, sequence, now);
        charged += u32::from(line.all.0.get() != all.all.0.get());
        all.all.0.set(line.all.0.get());
    }
    assert_eq!(charged, ALL_RESETS_BURST);
    let (hash, line) = (TupleHash(42 << 42), Line::at(now));
    line.all.0.set(all.all.0.get());
    line.reset(hash, first(hash, 1 << 20), now);
    assert_eq!(line.proof(hash, 1 << 20, now), Proof::Half);
    // And one line does not spend what all have.
    let line = Line::at(now);
    for n in 0..10 * u64::from(RESETS_BURST) {
        let (hash, sequence) = wrong(n);
        line.reset(hash, sequence, now);
    }
    let spent = Bucket(line.all.0.get());
    let limit = Limit::new(ALL_RESETS_RATE, ALL_RESETS_BURST, HZ).unwrap();
    assert!(!spent.is_over(Time::from_jiffies(now), limit));
}

/// A line has so many tickets at a time, and the newest.
#[test]
fn the_ticket_that_ends_first_makes_room() {
    let now = 1 << 34;
    let line = Line::at(now);
    let hash = |n: u64| TupleHash((n + 1) << 42);
    for n in 0..100u64 {
        line.reset(hash(n), first(hash(n), 7 << 16), now + n);
    }
    for n in 0..100u64 {
        let kept = n >= 100 - TICKETS_PER_LINE as u64;
        let proof = line.proof(hash(n), 7 << 16, now + 100);
        assert_eq!(proof, if kept { Proof::New } else { Proof::None }, "{n}");
    }
}

#[test]
fn a_source_has_few_of_all_lines() {
    let source = Source::from_ipv4(0xc000_0209);
    let hash = |n: u64| TupleHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let lines: std::collections::HashSet<_> = (0..100_000)
        .map(|n| tickets::line_of(source, hash(n), 7))
        .collect();
    assert_eq!(lines.len(), LINES_OF_SOURCE);
    assert!(lines.iter().all(|&line| line < TICKET_LINES));
}
