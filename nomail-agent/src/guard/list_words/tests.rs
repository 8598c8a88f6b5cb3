use std::{cell::Cell, collections::BTreeSet, net::IpAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use nomail_common::guard::lists::{LEVELS_MAX, Words, is_listed};
use proptest::{collection::vec, prelude::*};

use super::*;

/// Words that count how often they are read.
struct Counted<'a> {
    words: &'a [u64],
    reads: Cell<u32>,
}

impl Words for Counted<'_> {
    fn word(&self, index: u64) -> Option<u64> {
        self.reads.set(self.reads.get() + 1);
        self.words.word(index)
    }
}

fn words(allow: &BTreeSet<IpNet>, deny: &BTreeSet<IpNet>) -> ListWords {
    let list = |list: &BTreeSet<IpNet>| list.iter().copied().collect();
    ListWords::of(Arc::new(Lists {
        allow: list(allow),
        deny: list(deny),
    }))
    .unwrap()
}

fn left_aligned(of: IpAddr) -> Address {
    Prefix::of(&of.into()).address
}

/// Whether the address is on the lists, by their words.
fn listed(words: &ListWords, of: IpAddr) -> [bool; 2] {
    let roots = match of {
        IpAddr::V4(_) => [ListRoot::AllowIpv4, ListRoot::DenyIpv4],
        IpAddr::V6(_) => [ListRoot::AllowIpv6, ListRoot::DenyIpv6],
    };
    let counted = Counted {
        words: words.pages().as_flattened(),
        reads: Cell::new(0),
    };
    roots.map(|root| {
        counted.reads.set(0);
        let is_listed = is_listed(&counted, root as u64, left_aligned(of));
        // Of both halves, then the prefix itself.
        let most = 2 * (LEVELS_MAX + 1) + 2;
        assert!(counted.reads.get() <= most, "{counted:?}");
        assert!(!is_listed || words.filled() & root.bit() != 0, "{root:?}");
        is_listed
    })
}

impl std::fmt::Debug for Counted<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} reads", self.reads.get())
    }
}

/// The ends of a network, and its neighbours.
fn around(network: &IpNet) -> Vec<IpAddr> {
    match network {
        IpNet::V4(network) => {
            let [first, last] = [network.network(), network.broadcast()].map(|at| at.to_bits());
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            all.map(|bits| IpAddr::V4(bits.into())).to_vec()
        }
        IpNet::V6(network) => {
            let [first, last] = [network.network(), network.broadcast()].map(|at| at.to_bits());
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            all.map(|bits| IpAddr::V6(bits.into())).to_vec()
        }
    }
}

fn check(allow: &BTreeSet<IpNet>, deny: &BTreeSet<IpNet>, others: &[IpAddr]) {
    let words = words(allow, deny);
    let near = allow.iter().chain(deny).flat_map(around);
    for address in near.chain(others.iter().copied()) {
        let model = [allow, deny].map(|list| list.iter().any(|net| net.contains(&address)));
        assert_eq!(listed(&words, address), model, "{address}");
    }
}

/// Addresses near each other: a few bits differ from one of a few.
fn ipv4_bits() -> impl Strategy<Value = u32> {
    let base = prop_oneof![Just(0), Just(u32::MAX), Just(0xc633_6401), any::<u32>()];
    (base, any::<u8>(), 0..32_u32).prop_map(|(base, few, by)| base ^ u32::from(few) << by)
}

fn ipv6_bits() -> impl Strategy<Value = u128> {
    let base = prop_oneof![
        Just(0),
        Just(u128::MAX),
        Just(0x2001_0db8_0001_0001_0000_0000_0000_0001),
        any::<u128>()
    ];
    (base, any::<u8>(), 0..128_u32).prop_map(|(base, few, by)| base ^ u128::from(few) << by)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        ipv4_bits().prop_map(|bits| IpAddr::V4(bits.into())),
        ipv6_bits().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    // Short ones are in few lists: they leave nothing to the others.
    let lengths = prop_oneof![1 => 0..=128_u8, 4 => 20..=128_u8, 4 => Just(128_u8)];
    (address(), lengths).prop_map(|(address, length)| {
        let network = match address {
            IpAddr::V4(address) => Ipv4Net::new_assert(address, length.min(32)).into(),
            IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, length)),
        };
        network.trunc()
    })
}

fn list() -> impl Strategy<Value = BTreeSet<IpNet>> {
    vec(network(), 0..60).prop_map(|list| list.into_iter().collect())
}

proptest! {
    #[test]
    fn words_have_the_prefixes_of_the_lists(
        allow in list(),
        deny in list(),
        others in vec(address(), 20),
    ) {
        check(&allow, &deny, &others);
    }
}

/// Prefixes such that each branch could have one bit.
#[test]
fn a_branch_takes_as_many_bits_as_keep_the_levels_few() {
    let ipv4 = (1..=32).map(|length| {
        let bits = 1_u32 << (32 - length);
        IpNet::V4(Ipv4Net::new_assert(bits.into(), length as u8))
    });
    let ipv6 = (1..=128).map(|length| {
        let bits = 1_u128 << (128 - length);
        IpNet::V6(Ipv6Net::new_assert(bits.into(), length as u8))
    });
    let list: BTreeSet<_> = ipv4.chain(ipv6).collect();
    check(&list, &BTreeSet::new(), &[]);
    check(&BTreeSet::new(), &list, &[]);
}

#[test]
fn a_list_may_have_all_addresses() {
    let networks = ["0.0.0.0/0", "192.0.2.1/32", "::/0", "2001:db8::/32"];
    let all = networks.map(|network| network.parse().unwrap()).into();
    let others = ["0.0.0.0", "255.255.255.255", "::", "2001:db8::1", "ff::"];
    let others = others.map(|address| address.parse().unwrap());
    check(&all, &BTreeSet::new(), &others);
    check(&BTreeSet::new(), &all, &others);
}

/// Random ones, and as they are published: many in few networks.
#[test]
fn a_long_list_is_small_and_quickly_looked_up() {
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 20
    };
    let spread = |count| {
        let mut list = BTreeSet::new();
        let mut bits = || u128::from(random()) << 84 | u128::from(random()) << 40 | 0xff;
        for _ in 0..count {
            let (ipv4, ipv6) = ((bits() >> 90) as u32, bits());
            list.insert(IpNet::V4(Ipv4Net::from(std::net::Ipv4Addr::from(ipv4))));
            let near = 0x2a01 << 112 | (ipv6 & 0xff) << 96 | ipv6 >> 20;
            list.insert(IpNet::V6(std::net::Ipv6Addr::from(near).into()));
        }
        list
    };
    let mut spread = spread;
    let list = spread(50_000);
    let words = words(&BTreeSet::new(), &list);
    let size = size_of_val(words.pages());
    assert!(size < list.len() * 64, "{size}");
    let all = words.pages().as_flattened();
    let mut reads = [0, 0];
    let others = spread(10_000);
    for address in others.iter().map(IpNet::addr) {
        let counted = Counted {
            words: all,
            reads: Cell::new(0),
        };
        let ipv6 = usize::from(address.is_ipv6());
        let root = [ListRoot::DenyIpv4, ListRoot::DenyIpv6][ipv6];
        let is_listed = is_listed(&counted, root as u64, left_aligned(address));
        assert_eq!(is_listed, list.contains(&IpNet::from(address)));
        reads[ipv6] += counted.reads.get();
    }
    println!("{} bytes a prefix, reads {reads:?}", size / list.len());
    assert!(reads[0] < 10_000 * 3 && reads[1] < 10_000 * 4, "{reads:?}");
}
