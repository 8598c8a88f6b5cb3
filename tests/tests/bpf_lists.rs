//! Lists that follow each other, and what is denied beside them, by
//! BPF_PROG_TEST_RUN: each configuration judges by its own, whatever was before.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use nomail_agent::guard::{Lists, Policy};
use nomail_common::guard::policy::FloodAnswer;
use nomail_tests::{
    frames::Segment,
    lab::Lab,
    program::{XDP_DROP, XDP_PASS, guard, guarding, run},
};

/// What an address is in, from itself to a network of all of them.
const PREFIXES: [&str; 12] = [
    "198.51.100.1/32",
    "198.51.100.2/32",
    "198.51.100.3/32",
    "198.51.100.0/30",
    "198.51.100.0/24",
    "198.51.0.0/16",
    "2001:db8:1::1/128",
    "2001:db8:1:1::1/128",
    "2001:db8:1::/64",
    "2001:db8:1:1::/64",
    "2001:db8:1::/48",
    "2001:db8::/33",
];
const SOURCES: [&str; 7] = [
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "198.51.100.9",
    "2001:db8:1::1",
    "2001:db8:1:1::1",
    "2001:db8:1:2::1",
];
const ROUNDS: u32 = 300;

fn policy(lists: Lists) -> Policy {
    Policy {
        lists: Arc::new(lists),
        flood_answer: FloodAnswer::Drop,
        ..guarding(&["192.0.2.7:25", "[2001:db8:f::7]:25"])
    }
}

/// Numbers that look random, the same in each run.
struct Noise(u64);

impl Noise {
    /// A part of [`PREFIXES`].
    fn some(&mut self) -> BTreeSet<IpNet> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let bits = self.0 >> 40;
        let picked = (0..PREFIXES.len()).filter(|place| bits >> place & 1 == 1);
        picked
            .map(|place| PREFIXES[place].parse().unwrap())
            .collect()
    }
}

#[test]
fn each_configuration_judges_by_its_own_lists() {
    let lab = Lab::new();
    let mut guard = guard(&policy(Lists::default()));
    lab.attach(&mut guard);
    let mut noise = Noise(2026);
    let (mut allow, mut deny) = (BTreeSet::new(), BTreeSet::new());
    let mut banned = BTreeSet::new();
    let mut counts = [0; 2];
    for round in 0..ROUNDS {
        // Lists and what is banned beside them change in turns, and now and then both.
        if round % 3 != 1 {
            (allow, deny) = (noise.some(), noise.some());
            // Few are allowed: else nothing is ever denied.
            allow = allow.intersection(&noise.some()).copied().collect();
            allow = allow.intersection(&noise.some()).copied().collect();
        }
        if round % 3 != 0 {
            banned = noise.some();
        }
        guard
            .configure(&policy(Lists {
                allow: allow.iter().copied().collect(),
                deny: deny.union(&banned).copied().collect(),
            }))
            .unwrap();
        for source in SOURCES {
            let address: IpAddr = source.parse().unwrap();
            let is_in = |list: &BTreeSet<IpNet>| list.iter().any(|net| net.contains(&address));
            let denied = (is_in(&deny) || is_in(&banned)) && !is_in(&allow);
            let segment = if address.is_ipv4() {
                Segment::syn(&format!("{source}:1"), "192.0.2.7:25")
            } else {
                Segment::syn(&format!("[{source}]:1"), "[2001:db8:f::7]:25")
            };
            let action = run(&guard, &segment.frame());
            let wanted = if denied { XDP_DROP } else { XDP_PASS };
            assert_eq!(
                action, wanted,
                "round {round}, {source}: allow {allow:?}, deny {deny:?}, banned {banned:?}"
            );
            counts[usize::from(denied)] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > ROUNDS), "{counts:?}");
}

#[test]
fn lists_are_written_in_slices_and_in_force_as_a_whole() {
    let lab = Lab::new();
    let denying = |prefixes: Vec<IpNet>| {
        Arc::new(Lists {
            deny: prefixes.into(),
            ..Lists::default()
        })
    };
    let many = |network: u8| {
        let hosts = (0..5000u32).map(|host| {
            let [.., high, low] = host.to_be_bytes();
            IpNet::from(IpAddr::from([198, network, high, low]))
        });
        denying(hosts.collect())
    };
    let old = denying(vec!["198.51.100.1/32".parse().unwrap()]);
    let (first, second) = (many(18), many(19));
    let mut guard = guard(&policy(Lists::clone(&old)));
    lab.attach(&mut guard);
    let denied = |guard: &_| {
        ["198.51.100.1", "198.18.0.1", "198.19.0.1", "198.19.19.135"].map(|source| {
            let segment = Segment::syn(&format!("{source}:1"), "192.0.2.7:25");
            run(guard, &segment.frame()) == XDP_DROP
        })
    };
    let before = [true, false, false, false];
    assert!(!guard.write_ahead(&first).unwrap());
    assert_eq!(denied(&guard), before, "a part of the first");
    // Others take the place of lists that were not completed.
    let mut slices = 1;
    while !guard.write_ahead(&second).unwrap() {
        slices += 1;
        assert_eq!(denied(&guard), before, "{slices} slices of the second");
    }
    assert!(slices > 4, "{slices}");
    assert_eq!(denied(&guard), before, "all of the second");
    let policy = Policy {
        lists: second,
        ..policy(Lists::default())
    };
    guard.configure(&policy).unwrap();
    assert_eq!(denied(&guard), [false, false, true, true]);
    assert!(guard.write_ahead(&policy.lists).unwrap(), "in force");
}
