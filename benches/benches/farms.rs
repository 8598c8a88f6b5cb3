//! A simulation: mail of a sender that retries from another of its networks each time, and how
//! long it takes until it is back. Prints Markdown. Needs no root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

use std::{
    collections::HashSet,
    env, iter,
    net::{IpAddr, Ipv4Addr},
};

use nomail_agent::{refusal::RefusalPoint, smtp::Senders};
use nomail_tests::random::Random;

/// Mails of each row.
const MAILS: u64 = 1000;
const MAILS_QUICK: u64 = 200;
/// `limits.sender_age_secs` by default.
const AGE_SECS: u32 = 518_400;
const NOW: u32 = 1_764_000_000;
const DAY: u32 = 24 * 3600;

/// When a mail server tries: seconds after the first attempt. Each is taken for one that
/// defers the mail after a greeting with 521, as Postfix, OpenSMTPD and qmail do.
struct Schedule {
    name: &'static str,
    /// The attempt by its number, from 0.
    attempt: fn(u32) -> u32,
    /// It gives up then.
    expiry: u32,
}

const SCHEDULES: [Schedule; 5] = [
    // qmgr(8): as long as the mail is old, from minimal_backoff_time to maximal_backoff_time.
    Schedule {
        name: "Postfix",
        attempt: |number| {
            let step = |at: u32| at + at.clamp(300, 4000);
            iter::successors(Some(0), |&at| Some(step(at)))
                .nth(number as usize)
                .unwrap()
        },
        expiry: 5 * DAY,
    },
    // The default rule, F,2h,15m; G,16h,1h,1.5; F,4d,6h (chapter 32 of its specification).
    Schedule {
        name: "Exim",
        attempt: |number| {
            let step = |at: u32| match at {
                0..7200 => at + 900,
                7200..57_600 => at + (f64::from(at.max(7200)) / 2.0).max(3600.0) as u32,
                _ => at + 6 * 3600,
            };
            iter::successors(Some(0), |&at| Some(step(at)))
                .nth(number as usize)
                .unwrap()
        },
        expiry: 4 * DAY,
    },
    // scheduler_backoff() of smtpd: 400 s times the square of the attempt.
    Schedule {
        name: "OpenSMTPD",
        attempt: |number| 400 * number * number,
        expiry: 4 * DAY,
    },
    // qmail-send(8): the same for remote recipients.
    Schedule {
        name: "qmail",
        attempt: |number| 400 * number * number,
        expiry: 7 * DAY,
    },
    // Message retry intervals of a mailbox server: six times 5 minutes, then 10 minutes.
    Schedule {
        name: "Exchange",
        attempt: |number| 300 * number.min(6) + 600 * number.saturating_sub(6),
        expiry: 2 * DAY,
    },
];

/// The networks of a sender: so many /24s, in turns from so many /16s.
#[derive(Clone, Copy)]
struct Pool {
    networks: u32,
    wide: u32,
}

const POOLS: [Pool; 9] = {
    const fn pool(networks: u32, wide: u32) -> Pool {
        Pool { networks, wide }
    }
    [
        pool(1, 1),
        pool(31, 1),
        pool(256, 1),
        pool(8, 8),
        pool(256, 8),
        pool(1024, 8),
        pool(32, 32),
        pool(256, 32),
        pool(1024, 32),
    ]
};

impl Pool {
    fn address(self, network: u32) -> IpAddr {
        let (wide, narrow) = (network % self.wide, network / self.wide);
        Ipv4Addr::from_bits(0x0b00_0000 | wide << 16 | narrow << 8 | 25).into()
    }
}

/// A memory of `refuse_at = "auto"`: where a contact is refused.
enum Memory {
    /// As it was: of /24s.
    Narrow(HashSet<u32>),
    /// Of /16s, and without a pause.
    Wide(HashSet<u32>),
    /// nomail's.
    Now(Box<Senders>),
}

impl Memory {
    /// Whether the mail comes back.
    fn refuses_recipient(&mut self, peer: IpAddr, now: u32) -> bool {
        let IpAddr::V4(address) = peer else {
            unreachable!("all pools are of IPv4");
        };
        match self {
            Self::Narrow(known) => !known.insert(address.to_bits() >> 8),
            Self::Wide(known) => !known.insert(address.to_bits() >> 16),
            Self::Now(senders) => senders.contact(peer, now) == RefusalPoint::Rcpt,
        }
    }
}

const MEMORIES: [fn() -> Memory; 3] = [
    || Memory::Narrow(HashSet::new()),
    || Memory::Wide(HashSet::new()),
    || Memory::Now(Box::new(Senders::new(AGE_SECS))),
];

/// The attempt with which a mail came back, from 1, and the seconds until then; none if it
/// expired before.
type Returned = Option<(u32, u32)>;

fn mail(
    schedule: &Schedule,
    pool: Pool,
    in_order: bool,
    mut memory: Memory,
    seed: u64,
) -> Returned {
    let mut random = Random(seed);
    let first = random.below(u64::from(pool.networks)) as u32;
    for number in 0.. {
        let at = (schedule.attempt)(number);
        if at > schedule.expiry {
            break;
        }
        let network = match in_order {
            true => (first + number) % pool.networks,
            false => random.below(u64::from(pool.networks)) as u32,
        };
        if memory.refuses_recipient(pool.address(network), NOW + at) {
            return Some((number + 1, at));
        }
    }
    None
}

/// The value below which are so many percent of all; that of a mail that never came back is
/// none.
fn percentile(sorted: &[Option<u32>], percent: usize) -> Option<u32> {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

/// Sorts those that never came back behind all others.
fn sorted(values: impl Iterator<Item = Option<u32>>) -> Vec<Option<u32>> {
    let mut values: Vec<_> = values.collect();
    values.sort_by_key(|value| value.unwrap_or(u32::MAX));
    values
}

fn attempts(value: Option<u32>) -> String {
    value.map_or("never".to_owned(), |value| value.to_string())
}

fn hours(value: Option<u32>) -> String {
    value.map_or("never".to_owned(), |secs| {
        format!("{:.1}", f64::from(secs) / 3600.0)
    })
}

fn main() {
    let quick = env::args().any(|argument| argument == "--quick");
    let mails = if quick { MAILS_QUICK } else { MAILS };
    println!("## Until mail of a farm is back\n");
    println!(
        "A memory that is empty, and one mail. For each memory: attempts until the mail is back, \
         median and 95 %, and hours, 95 %; over the schedules of {}.\n",
        SCHEDULES.map(|schedule| schedule.name).join(", ")
    );
    println!(
        "| networks (/24) | in /16s | order | of /24 | hours | of /16 | hours | nomail | hours | goal |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    for pool in POOLS {
        for in_order in [false, true] {
            let cells = MEMORIES.map(|memory| {
                let returned: Vec<_> = SCHEDULES
                    .iter()
                    .flat_map(|schedule| {
                        (0..mails).map(move |seed| mail(schedule, pool, in_order, memory(), seed))
                    })
                    .collect();
                let tries = sorted(returned.iter().map(|mail| mail.map(|(tries, _)| tries)));
                let times = sorted(returned.iter().map(|mail| mail.map(|(_, at)| at)));
                (
                    [percentile(&tries, 50), percentile(&tries, 95)],
                    percentile(&times, 95),
                )
            });
            let [median, most] = cells[2].0.map(|tries| tries.unwrap_or(u32::MAX));
            let goal = match pool.wide {
                1 => (2, 2),
                2..=8 => (2, 4),
                _ => (u32::MAX, u32::MAX),
            };
            let judged = match (median <= goal.0 && most <= goal.1, goal.0) {
                (_, u32::MAX) => "",
                (true, _) => "met",
                (false, _) => "**MISSED**",
            };
            let order = if in_order { "in order" } else { "random" };
            print!("| {} | {} | {order} |", pool.networks, pool.wide);
            for (tries, time) in cells {
                let [median, most] = tries.map(attempts);
                print!(" {median}, {most} | {} |", hours(time));
            }
            println!(" {judged} |");
        }
    }
}
