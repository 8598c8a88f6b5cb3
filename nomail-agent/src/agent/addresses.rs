//! Addresses that are not served as others are: in the status, and once in the log.

use log::{info, warn};
use nomail_common::abi::{MAX_FURTHER_HARDWARE, MAX_GUARDED, MAX_OWN};

use super::{guard_settings::GuardSettings, links::GuardedLinks, plan::ListenPlan};
use crate::{
    config::{FloodAnswer, XdpMode},
    status::AddressStatus,
};

/// What `links` and `plan` leave out.
pub(super) fn status_of(
    settings: &GuardSettings,
    links: &GuardedLinks,
    plan: &ListenPlan,
) -> AddressStatus {
    let interfaces = &links.interfaces;
    let absent = interfaces.iter().filter(|interface| interface.is_absent());
    let absent = absent.map(|interface| interface.name.clone());
    let mut status = AddressStatus {
        absent: absent.chain(plan.absent().iter().cloned()).collect(),
        ..AddressStatus::default()
    };
    if links.mode == XdpMode::Off {
        return status;
    }
    let further: usize = interfaces
        .iter()
        .map(|interface| interface.further_hardware.len())
        .sum();
    status.unguarded = plan.unguarded().iter().collect();
    status.hardware_left_out = further.saturating_sub(MAX_FURTHER_HARDWARE) as u64;
    status.own_left_out = plan.own_left_out() as u64;
    if settings.limits.flood_answer != FloodAnswer::Drop {
        status.unchallenged = plan.unchallenged().iter().collect();
    }
    status
}

/// Logs what is new since `before`.
pub(super) fn log(before: &AddressStatus, now: &AddressStatus) {
    if now.absent != before.absent {
        match now.absent.shown() {
            Some(absent) => warn!(
                "not on this host yet: {absent}: nomail serves and guards it as soon as it is \
                 there"
            ),
            None => info!("all configured addresses and interfaces are there now"),
        }
    }
    if now.unguarded != before.unguarded {
        match now.unguarded.shown() {
            Some(unguarded) => warn!(
                "not guarded: {unguarded}: XDP has room for {MAX_GUARDED} pairs of address and \
                 port, and for no whole networks; SYNs to these are not filtered: name the \
                 addresses that matter with --listen"
            ),
            None => info!("all addresses are guarded now"),
        }
    }
    if now.unchallenged != before.unchallenged {
        match now.unchallenged.shown() {
            Some(unchallenged) => warn!(
                "guarded but cannot be challenged: {unchallenged}: frames for them may have a \
                 VLAN tag that XDP does not see; guard the interface that has the address"
            ),
            None => info!("clients of all guarded addresses can be challenged now"),
        }
    }
    if now.own_left_out > before.own_left_out {
        warn!(
            "{} of this host's own addresses are unknown to XDP, which has room for {MAX_OWN}: \
             it may answer a forged SYN that names one of them as its source",
            now.own_left_out
        );
    }
    if now.hardware_left_out > before.hardware_left_out {
        warn!(
            "{} hardware addresses of devices on the guarded interfaces are unknown to XDP, \
             which has room for {MAX_FURTHER_HARDWARE}: clients of those devices are not \
             challenged",
            now.hardware_left_out
        );
    }
}
