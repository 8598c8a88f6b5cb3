//! A model of the replacement protocol of `sources`: the real code, step by step,
//! in every order that the steps of two CPUs (in one case three) can have.
//!
//! A step is one access to a word of the line, which is sequentially consistent
//! in the kernel. A CPU is run anew up to its next step, with what it read before,
//! so that a state is the line and what each CPU has read; states that were seen
//! are not gone through again.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

use nomail_common::{
    abi::SLOTS_PER_LINE,
    guard::limiter::{Bucket, Limit, Time},
    guard::sources::{CLAIMED, Charge, EMPTY, SourceSet, charge},
    source::Source,
};

/// In jiffies.
const NOW: u64 = 1_000_000;
const BURST: u64 = 2;
const A: u32 = 1;
const B: u32 = 2;
/// Sources from here on are those that were in the line before.
const OLD: u32 = 100;

fn limit() -> Limit {
    Limit::new(10, BURST as u32, 250).unwrap()
}

/// The line, and what only the model knows.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Memory {
    keys: [u64; SLOTS_PER_LINE],
    buckets: [u64; SLOTS_PER_LINE],
    /// What was in a claimed slot.
    before: [u64; SLOTS_PER_LINE],
    evictions: Vec<u64>,
}

/// A CPU that charges some sources in turn.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Cpu {
    sources: Vec<u32>,
    jiffies: u64,
    /// Charges that are done: the source, over, evicted, contended.
    done: Vec<Done>,
    /// What the steps of the current charge gave.
    read: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Done {
    source: u32,
    over: bool,
    evicted: bool,
    contended: bool,
}

/// Gives what was read before, then does one step, then stops: whatever the code
/// does after that is not the line's, and leads to its end soon.
struct Run<'a> {
    read: &'a [u64],
    next: Cell<usize>,
    memory: RefCell<&'a mut Memory>,
    /// What the one step gave.
    step: Cell<Option<u64>>,
    stopped: Cell<bool>,
}

impl Run<'_> {
    fn step(&self, beyond: u64, access: impl FnOnce(&mut Memory) -> u64) -> u64 {
        let index = self.next.replace(self.next.get() + 1);
        if let Some(&read) = self.read.get(index) {
            return read;
        }
        if index > self.read.len() {
            self.stopped.set(true);
            return beyond;
        }
        let read = access(&mut self.memory.borrow_mut());
        self.step.set(Some(read));
        read
    }
}

impl SourceSet for Run<'_> {
    fn key(&self, slot: usize) -> u64 {
        self.step(EMPTY, |memory| memory.keys[slot])
    }
    fn replace_key(&self, slot: usize, old: u64, new: u64) -> bool {
        self.step(1, |memory| {
            let same = memory.keys[slot] == old;
            if same {
                assert_eq!(new, CLAIMED, "a key is swapped only to claim its slot");
                memory.before[slot] = old;
                memory.keys[slot] = new;
            }
            u64::from(same)
        }) != 0
    }
    fn bucket(&self, slot: usize) -> Bucket {
        Bucket(self.step(0, |memory| memory.buckets[slot]))
    }
    fn replace_bucket(&self, slot: usize, old: Bucket, new: Bucket) -> bool {
        self.step(1, |memory| {
            let same = memory.buckets[slot] == old.0;
            if same {
                memory.buckets[slot] = new.0;
            }
            u64::from(same)
        }) != 0
    }
    fn fill(&self, slot: usize, bucket: Bucket) {
        self.step(0, |memory| {
            assert_eq!(memory.keys[slot], CLAIMED, "only a claimed slot is filled");
            memory.buckets[slot] = bucket.0;
            0
        });
    }
    fn publish(&self, slot: usize, key: u64) {
        self.step(0, |memory| {
            assert_eq!(
                memory.keys[slot], CLAIMED,
                "only a claimed slot is published"
            );
            let before = memory.before[slot];
            if before != EMPTY && before != key {
                memory.evictions.push(before);
                memory.evictions.sort_unstable();
            }
            memory.keys[slot] = key;
            0
        });
    }
}

impl Cpu {
    fn new(sources: &[u32]) -> Self {
        Self {
            sources: sources.to_vec(),
            jiffies: NOW,
            done: Vec::new(),
            read: Vec::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.done.len() == self.sources.len()
    }

    /// Does the next step.
    fn step(&mut self, memory: &mut Memory) {
        let source = self.sources[self.done.len()];
        let run = Run {
            read: &self.read,
            next: Cell::new(0),
            memory: RefCell::new(memory),
            step: Cell::new(None),
            stopped: Cell::new(false),
        };
        let now = Time::from_jiffies(self.jiffies);
        let charge = charge(&run, Source::from_ipv4(source), now, limit(), true);
        let (stopped, step) = (run.stopped.get(), run.step.get().unwrap());
        if stopped {
            self.read.push(step);
            return;
        }
        let Charge {
            over,
            evicted,
            contended,
            ..
        } = charge;
        self.read.clear();
        self.done.push(Done {
            source,
            over,
            evicted,
            contended,
        });
    }
}

/// A line with `sources`, each of which has sent so many SYNs so many jiffies ago.
fn line(sources: &[(u32, u64, u64)]) -> Memory {
    let mut memory = Memory {
        keys: [EMPTY; SLOTS_PER_LINE],
        buckets: [0; SLOTS_PER_LINE],
        before: [EMPTY; SLOTS_PER_LINE],
        evictions: Vec::new(),
    };
    for (slot, &(source, syns, ago)) in sources.iter().enumerate() {
        let now = Time::from_jiffies(NOW - ago);
        let mut bucket = Bucket::full(now);
        for _ in 0..syns {
            bucket = bucket.step(now, limit()).bucket;
        }
        memory.keys[slot] = Source::from_ipv4(source).0;
        memory.buckets[slot] = bucket.0;
    }
    memory
}

/// Goes through every order; `check` looks at each end. Gives the number of states.
fn explore(memory: &Memory, cpus: &[Cpu], mut check: impl FnMut(&Memory, &[Cpu])) -> usize {
    let mut seen = HashSet::new();
    let mut ends = 0;
    let mut open = vec![(memory.clone(), cpus.to_vec())];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let (memory, cpus) = state;
        one_slot_each(&memory);
        let mut ended = true;
        for index in 0..cpus.len() {
            if !cpus[index].is_done() {
                ended = false;
                let (mut memory, mut cpus) = (memory.clone(), cpus.clone());
                cpus[index].step(&mut memory);
                open.push((memory, cpus));
            }
        }
        if ended {
            ends += 1;
            assert!(!memory.keys.contains(&CLAIMED));
            let mut evicted = 0;
            for cpu in &cpus {
                evicted += cpu.done.iter().filter(|done| done.evicted).count();
            }
            assert_eq!(
                evicted,
                memory.evictions.len(),
                "evictions are counted once"
            );
            check(&memory, &cpus);
        }
    }
    println!("{} states, {ends} ends", seen.len());
    seen.len()
}

/// At every moment.
fn one_slot_each(memory: &Memory) {
    for (slot, key) in memory.keys.iter().enumerate() {
        if *key != EMPTY && *key != CLAIMED {
            assert!(
                !memory.keys[slot + 1..].contains(key),
                "a source has two slots"
            );
        }
    }
}

/// Charges of a source that were not contended, and those of them admitted.
fn charged(cpus: &[Cpu], source: u32) -> (u64, u64) {
    let of_source = cpus.iter().flat_map(|cpu| &cpu.done);
    let charged: Vec<_> = of_source
        .filter(|done| done.source == source && !done.contended)
        .collect();
    let admitted = charged.iter().filter(|done| !done.over).count();
    (charged.len() as u64, admitted as u64)
}

fn contended(cpus: &[Cpu]) -> usize {
    let done = cpus.iter().flat_map(|cpu| &cpu.done);
    done.filter(|done| done.contended).count()
}

/// SYNs that the line has counted for a source, and those of them admitted.
fn counted(memory: &Memory, source: u32) -> Option<(u64, u64)> {
    let key = Source::from_ipv4(source).0;
    let slot = memory.keys.iter().position(|&other| other == key)?;
    let bucket = Bucket(memory.buckets[slot]);
    Some((bucket.admitted() + bucket.limited(), bucket.admitted()))
}

/// Sources that make room, the first of them first.
const IDLE: [(u32, u64, u64); SLOTS_PER_LINE] = [
    (OLD, 2, 900),
    (OLD + 1, 2, 800),
    (OLD + 2, 2, 700),
    (OLD + 3, 2, 600),
];

#[test]
fn a_source_that_two_cpus_enter_is_charged_exactly() {
    for before in [&[][..], &IDLE[..2], &IDLE] {
        let cpus = [Cpu::new(&[A, A, A]), Cpu::new(&[A, A])];
        explore(&line(before), &cpus, |memory, cpus| {
            let (all, admitted) = charged(cpus, A);
            assert_eq!(
                counted(memory, A),
                Some((all, admitted)),
                "no charge is lost"
            );
            assert_eq!(admitted, BURST.min(all));
            // The CPU that is in the other's way charges all of its own.
            assert!(all >= 2);
        });
    }
}

#[test]
fn a_late_cpu_changes_nothing() {
    for lag in [1, 25, 200] {
        let late = Cpu {
            jiffies: NOW - lag,
            ..Cpu::new(&[A, A])
        };
        // The bucket is used up.
        let before = line(&[(OLD, 1, 0), (A, BURST + 1, 0)]);
        explore(&before, &[Cpu::new(&[A, A]), late], |memory, cpus| {
            let (all, admitted) = charged(cpus, A);
            assert_eq!(admitted, 0);
            assert_eq!(counted(memory, A), Some((all + BURST + 1, BURST)));
        });
    }
}

#[test]
fn two_sources_enter_at_once() {
    for (first, second) in [(&[A][..], &[B][..]), (&[A, B], &[B, A]), (&[A, A], &[B, A])] {
        for before in [&[][..], &IDLE] {
            let cpus = [Cpu::new(first), Cpu::new(second)];
            explore(&line(before), &cpus, |memory, cpus| {
                for source in [A, B] {
                    let (all, admitted) = charged(cpus, source);
                    assert_eq!(counted(memory, source).unwrap_or_default(), (all, admitted));
                }
                let [a, b] = [A, B].map(|source| counted(memory, source).is_some());
                let entered = usize::from(a) + usize::from(b);
                let occupied = memory.keys.iter().filter(|&&key| key != EMPTY).count();
                assert_eq!(occupied, before.len().max(entered));
                assert_eq!(memory.evictions.len(), before.len().min(entered));
                assert!(entered == 2 || contended(cpus) > 0);
            });
        }
    }
}

#[test]
fn a_source_is_charged_while_another_takes_its_slot() {
    // A is the first to make room, and charged at the same time.
    let mut before = IDLE;
    before[0] = (A, 1, 950);
    let cpus = [Cpu::new(&[A, A, A]), Cpu::new(&[B, B, B])];
    explore(&line(&before), &cpus, |memory, cpus| {
        let (all, admitted) = charged(cpus, B);
        assert_eq!(counted(memory, B), Some((all, admitted)));
        assert_eq!(admitted, BURST.min(all));
        // What A loses with its slot is given to it anew, at most once.
        let (_, admitted) = charged(cpus, A);
        assert!(admitted <= BURST + 1);
    });
}

/// What the protocol does not prevent: two buckets that are the same word.
#[test]
fn a_late_charge_of_the_same_word_goes_to_the_newcomer_and_nowhere_else() {
    let same_jiffy = [(A, 1, 0), (OLD, 2, 0), (OLD + 1, 2, 0), (OLD + 2, 2, 0)];
    let mut misled = false;
    explore(
        &line(&same_jiffy),
        &[Cpu::new(&[A]), Cpu::new(&[B])],
        |memory, cpus| {
            let (all, _) = charged(cpus, B);
            let (counted, _) = counted(memory, B).unwrap_or_default();
            assert!(
                counted >= all && counted <= all + 1
                    || memory.evictions.contains(&Source::from_ipv4(B).0)
            );
            misled |= counted > all;
        },
    );
    assert!(misled, "the comment in sources.rs can go");
}

#[test]
fn three_cpus_enter_one_source() {
    let cpus = [Cpu::new(&[A]), Cpu::new(&[A]), Cpu::new(&[A])];
    explore(&line(&[]), &cpus, |memory, cpus| {
        let (all, admitted) = charged(cpus, A);
        assert_eq!(counted(memory, A), Some((all, admitted)));
        assert_eq!(admitted, BURST.min(all));
    });
}
