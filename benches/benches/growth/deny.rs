//! Time per SYN, and of writing the list, the more prefixes are denied.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use nomail_agent::guard::{Lists, Policy};
use nomail_benches::program::deny;
use nomail_common::verdict::Verdict;
use nomail_tests::{
    foreign::Program,
    frames::Segment,
    generator::{Generator, Syns, Then},
    lab::Lab,
};

use crate::{
    Measured, knee,
    program::{NO_BOUND, guard, policy, syns},
};

const PREFIXES: [usize; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];
const PREFIXES_QUICK: [usize; 3] = [0, 10_000, 100_000];
/// SYNs come from 10.0.0.0/8, or from as many /64s of 2001:db8::/40.
const BITS: u32 = 24;

struct Place {
    family: &'static str,
    lists: Arc<Lists>,
    syns: Syns,
    bare: Measured,
    beside: Measured,
    load_millis: Measured,
}

impl Place {
    fn new(count: usize, ipv6: bool) -> Self {
        let syns = syns(BITS);
        Self {
            family: if ipv6 { "IPv6" } else { "IPv4" },
            lists: deny(count, ipv6),
            syns: if ipv6 {
                Syns {
                    source: IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96)),
                    destination: "2001:db8:f::1".parse().unwrap(),
                    ..syns
                }
            } else {
                syns
            },
            bare: Measured::default(),
            beside: Measured::default(),
            load_millis: Measured::default(),
        }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.family, self.lists.deny.len())
    }

    fn measure(&mut self, bare: &Program, runs: u32) {
        let frame = Segment::syn("198.51.100.1:40000", "192.0.2.1:25").frame();
        let base = f64::from(bare.test_run(&frame, runs));
        let making = Generator::load(&self.syns, &Then::Call(bare)).test_run(runs) - base;
        self.bare.add(base);
        let (mut guard, program) = guard(&policy(NO_BOUND));
        let lists = Arc::clone(&self.lists);
        let count = lists.deny.len();
        let start = Instant::now();
        guard
            .configure(&Policy {
                lists,
                ..policy(NO_BOUND)
            })
            .unwrap();
        self.load_millis.add(start.elapsed().as_secs_f64() * 1000.0);
        let maker = Generator::load(&self.syns, &Then::Call(&program));
        maker.test_run(runs);
        self.beside.add(maker.test_run(runs) - making);
        let denied = guard.counters(Some(0)).unwrap().verdicts[Verdict::Denied as usize];
        assert!(denied > 0 || count < 10_000, "{count} prefixes deny none");
    }
}

pub(crate) fn print(quick: bool) {
    let (rounds, runs, prefixes) = if quick {
        (2, 200_000, &PREFIXES_QUICK[..])
    } else {
        (7, 400_000, &PREFIXES[..])
    };
    let families = [false, true].into_iter();
    let of_family = |ipv6| prefixes.iter().map(move |&count| Place::new(count, ipv6));
    let mut places: Vec<Place> = families.flat_map(of_family).collect();
    let lab = Lab::new();
    lab.host.within(|| {
        let bare = Program::load("bare");
        for _ in 0..rounds {
            for place in &mut places {
                place.measure(&bare, runs);
            }
        }
    });
    println!("\n## Deny prefixes: time per SYN by BPF_PROG_TEST_RUN, {rounds} rounds\n");
    println!(
        "| prefixes | bare XDP_PASS, ns | SYN beside the list, ns | to bare XDP_PASS | the list is written, ms |"
    );
    println!("|---|---|---|---|---|");
    for place in &places {
        println!(
            "| {} | {} | {} | {:.2} | {} |",
            place.name(),
            place.bare.shown(1),
            place.beside.shown(1),
            place.beside.to(&place.bare),
            place.load_millis.shown(1),
        );
    }
    println!(
        "\nMedian (least to most). SYNs of 16 million random sources, 10.0.0.0/8 or /64s of \
         2001:db8::/40, prefixes of the list at random from there: few SYNs are denied, all are \
         looked up.\n"
    );
    for family in places.chunks(prefixes.len()) {
        let times: Vec<_> = family
            .iter()
            .map(|place| (place.name(), place.beside.median()))
            .collect();
        println!("{}", knee("SYN beside the list", "ns", &times));
    }
}
