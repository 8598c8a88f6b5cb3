//! What the program enforces, and the configuration that makes it do so.

use std::{collections::HashSet, iter::repeat_with, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use nomail_common::{
    abi::{
        Config, FurtherHardware, GUARDED_SLOTS, Guarded, MAX_GUARDED, MAX_INTERFACES, MAX_OWN,
        OWN_SLOTS, Texts, VLAN_NONE,
    },
    guard::challenge::{self, PROOF_SECS},
    guard::events::PAUSE_SECS,
    guard::limiter::Limit,
    guard::policy::{FloodAnswer, RESPOND, RESPOND_FOR_LISTENERS},
    guard::tickets::{ALL_RESETS_BURST, ALL_RESETS_RATE, RESETS_BURST, RESETS_RATE, ResetLimits},
    stateless::cookie,
};

use super::{error::BpfError, secrets::random};

/// The allow and deny lists: networks without host bits, sorted, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Sources that are exempt from the deny list and from the buckets.
    pub allow: Arc<[IpNet]>,
    /// Sources whose SYNs are dropped.
    pub deny: Arc<[IpNet]>,
}

/// A limit of SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// SYNs per second.
    pub rate: u32,
    /// SYNs at once.
    pub burst: u32,
}

impl Rate {
    fn limit(self, hz: u32) -> Result<Limit, BpfError> {
        let Self { rate, burst } = self;
        Limit::new(rate, burst, hz).ok_or(BpfError::Limit(rate, burst))
    }

    /// At least this, and at least twice the cap, because the victim of each forged SYN below
    /// the cap may reset it.
    fn or_twice(self, cap: Option<Self>) -> Self {
        let cap = cap.unwrap_or(self);
        Self {
            rate: self.rate.max(cap.rate.saturating_mul(2)),
            burst: self.burst.max(cap.burst.saturating_mul(2)),
        }
    }
}

/// See [`nomail_common::guard::tickets`].
const RESETS: Rate = Rate {
    rate: RESETS_RATE,
    burst: RESETS_BURST,
};
/// See [`nomail_common::guard::tickets`].
const ALL_RESETS: Rate = Rate {
    rate: ALL_RESETS_RATE,
    burst: ALL_RESETS_BURST,
};

/// An interface that the program is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardedInterface {
    /// Its index.
    pub index: u32,
    /// Its hardware address; XDP answers only frames to it.
    pub hardware: [u8; 6],
    /// Further hardware addresses of frames on it. Of all interfaces together the first
    /// [`MAX_FURTHER_HARDWARE`](nomail_common::abi::MAX_FURTHER_HARDWARE) are used.
    pub further_hardware: Vec<[u8; 6]>,
}

/// What the program enforces. Replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The limit of one source.
    pub source: Rate,
    /// The limit of one prefix, IPv4 /24 or IPv6 /48, if any.
    pub prefix: Option<Rate>,
    /// The limit of all unproven SYNs together, if any.
    pub cap: Option<Rate>,
    /// The answer to unproven SYNs over a limit.
    pub flood_answer: FloodAnswer,
    /// Whether XDP only counts verdicts, and neither drops nor answers anything.
    pub observe: bool,
    /// The interfaces. Counters are kept by the index in here.
    pub interfaces: Vec<GuardedInterface>,
    /// The pairs of address and port that the agent listens on.
    pub guarded: HashSet<(IpAddr, u16)>,
    /// The guarded addresses that one of the interfaces itself has, so that frames for them
    /// have no VLAN tag. XDP does not answer for others.
    pub answerable: HashSet<IpAddr>,
    /// Addresses that no client has, of which the first [`MAX_OWN`] count, see
    /// [`Config::own`].
    pub own: HashSet<IpAddr>,
    /// The allow and deny lists. Giving the same again costs nothing.
    pub lists: Arc<Lists>,
    /// The texts of the stateless refusal; none: it is off.
    pub responder: Option<Texts>,
    /// Whether there are listeners all the same, whose place XDP takes while the lease is not
    /// renewed ([`Guard::renew_lease`](super::program::Guard::renew_lease)).
    pub fallback: bool,
}

impl Policy {
    /// The configuration for a kernel with `hz` jiffies per second, without what depends on
    /// the maps: generation and lists.
    pub fn config(&self, hz: u32) -> Result<Box<Config>, BpfError> {
        let optional =
            |rate: Option<Rate>| rate.map_or(Ok(Limit::UNLIMITED), |rate| rate.limit(hz));
        if self.interfaces.len() > MAX_INTERFACES {
            return Err(BpfError::TooManyInterfaces(self.interfaces.len()));
        }
        let mut config = zeroed_config();
        config.limit = self.source.limit(hz)?;
        config.prefix_limit = optional(self.prefix)?;
        config.cap = optional(self.cap)?;
        config.resets = ResetLimits {
            of_source: RESETS.or_twice(self.cap).limit(hz)?,
            of_all: ALL_RESETS.or_twice(self.cap).limit(hz)?,
        };
        config.observe = u32::from(self.observe);
        config.flood_answer = self.flood_answer as u32;
        config.slot_shift = challenge::slot_shift(hz);
        config.proof_ticks = hz * PROOF_SECS as u32;
        if nomail_common::Mechanism::TicketTime.is_off() {
            config.proof_ticks /= 20;
        }
        config.pause_ticks = hz * PAUSE_SECS as u32;
        config.responder = match self.responder {
            None => 0,
            Some(_) if self.fallback => RESPOND_FOR_LISTENERS,
            Some(_) => RESPOND,
        };
        config.cookie_shift = cookie::slot_shift(hz);
        self.fill_interfaces(&mut config);
        self.fill_addresses(&mut config)?;
        Ok(config)
    }

    fn fill_interfaces(&self, config: &mut Config) {
        for (index, interface) in self.interfaces.iter().enumerate() {
            config.interfaces[index] = interface.index;
            config.hardware[index][..6].copy_from_slice(&interface.hardware);
        }
        let further = self.interfaces.iter().zip(1..).flat_map(|(of, entry)| {
            let addresses = of.further_hardware.iter();
            addresses.map(move |&address| FurtherHardware { address, entry })
        });
        for (slot, further) in config.further_hardware.iter_mut().zip(further) {
            *slot = further;
        }
    }

    fn fill_addresses(&self, config: &mut Config) -> Result<(), BpfError> {
        let pairs: Vec<_> = self
            .guarded
            .iter()
            .zip(0..)
            .map(|(&(address, port), number)| {
                let untagged = self.answerable.contains(&address);
                Guarded {
                    address: address.to_canonical().into(),
                    port,
                    vlan: if untagged { 0 } else { VLAN_NONE },
                    number,
                }
            })
            .collect();
        let mut seed = random()?;
        let mut seeds = repeat_with(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        if !config.set_guarded(&pairs, seeds.by_ref().take(SEEDS_MAX)) {
            return Err(BpfError::TooManyGuarded(pairs.len()));
        }
        // Guarded addresses first, which XDP answers for, then others while there is room.
        let guarded: HashSet<_> = self.guarded.iter().map(|(address, _)| address).collect();
        let others = self.own.iter().filter(|own| !guarded.contains(own));
        let own: Vec<_> = guarded
            .iter()
            .copied()
            .chain(others)
            .take(MAX_OWN)
            .map(|own| own.to_canonical().into())
            .collect();
        if !config.set_own(&own, seeds.take(SEEDS_MAX)) {
            return Err(BpfError::Own(own.len()));
        }
        Ok(())
    }
}

/// Most seeds that are tried for a table. Full to a quarter, as [`MAX_GUARDED`] and
/// [`MAX_OWN`] are, it needs one, seldom a second.
const SEEDS_MAX: usize = 1000;
const _: () = assert!(
    MAX_GUARDED * 4 <= GUARDED_SLOTS && MAX_OWN * 4 <= OWN_SLOTS,
    "measure again how many seeds it takes"
);

/// A configuration with no limit that guards nothing. It is too large for the stack.
fn zeroed_config() -> Box<Config> {
    // SAFETY: of integers only, for which all zeros is a value.
    unsafe { Box::<Config>::new_zeroed().assume_init() }
}
