//! The interfaces to guard: found at the start, and followed when they disappear, come back
//! or get another name.

use std::collections::BTreeSet;

use anyhow::anyhow;
use log::{error, info};

use super::{
    attach::{AttachedGuard, not_ethernet, occupied},
    mode::{AttachMode, BLIND},
    pinned,
    survey::{HostSurvey, LinkSurveys},
};
use crate::{
    config::{self, Config, XdpMode},
    exit::{Exit, Failure},
    guard::Pins,
    net::{IfaceError, Interface, native_xdp_is_blind, sockets_are_in},
};

/// The interfaces to guard. The index of an interface here is its slot.
pub(super) struct GuardedLinks {
    /// As they were last seen.
    pub(super) interfaces: Vec<Interface>,
    /// The slots of those that are not there, which was logged.
    pub(super) gone: BTreeSet<usize>,
    /// The numbers of those that came back and cannot be guarded, which was logged.
    refused: BTreeSet<u32>,
    /// The configured mode.
    pub(super) mode: XdpMode,
}

impl GuardedLinks {
    /// Finds the configured interfaces, of which one has to exist. Each has to be free for
    /// XDP, or guarded by `pins`.
    pub(super) fn find(
        host: &HostSurvey,
        config: &Config,
        pins: Option<&Pins>,
    ) -> Result<Self, Failure> {
        let interfaces = find_interfaces(host, config)?;
        for interface in &interfaces {
            if let Some(vrf) = &interface.vrf
                && !sockets_are_in(vrf)
            {
                return Err(not_in_vrf(&interface.name, vrf));
            }
        }
        if config.xdp_mode == XdpMode::Off {
            pinned::warn_of_pinned(&interfaces, config);
        } else {
            check_guardable(&interfaces, pins, config.xdp_mode)?;
        }
        let slots = interfaces.iter().enumerate();
        let absent = slots.filter(|(_, interface)| interface.is_absent());
        Ok(Self {
            gone: absent.map(|(slot, _)| slot).collect(),
            interfaces,
            refused: BTreeSet::new(),
            mode: config.xdp_mode,
        })
    }

    /// The interfaces with the names and hardware addresses that they have now.
    pub(super) fn current(&self, host: &HostSurvey) -> Vec<Interface> {
        let current = self.interfaces.iter().enumerate().map(|(slot, guarded)| {
            let found = host.links.with_index(guarded.index);
            // The number of one that is gone may be another's by now.
            let found = found.filter(|_| !self.gone.contains(&slot));
            found.map_or_else(
                || guarded.clone(),
                |found| Interface {
                    xdp_program: guarded.xdp_program,
                    xdp_generic: guarded.xdp_generic,
                    ..found.clone()
                },
            )
        });
        current.collect()
    }

    /// Attaches the guard to interfaces that come back, or appear for the first time.
    /// Returns whether there is one. An interface that is deleted and comes back under its
    /// name has no program, and often another number. CAP_BPF suffices for attaching; pinning
    /// would need root, so that such a program ends with the agent.
    pub(super) fn follow(
        &mut self,
        host: &HostSurvey,
        links: &LinkSurveys,
        guard: &mut AttachedGuard,
    ) -> Result<bool, Failure> {
        let is_there = |index| host.links.with_index(index).is_some();
        self.refused.retain(|refused| is_there(*refused));
        let slots = self.interfaces.iter().enumerate();
        let mut on: Vec<_> = slots
            .filter(|(slot, _)| !self.gone.contains(slot))
            .map(|(_, interface)| interface.index)
            .collect();
        let mut attached = false;
        for slot in 0..self.interfaces.len() {
            let index = self.interfaces[slot].index;
            // One that was created again with the same number has no program, and is attached
            // to as one that lost it (`Watch::look`).
            if is_there(index) && !self.gone.contains(&slot) {
                continue;
            }
            if self.gone.insert(slot) {
                error!(
                    "the guarded interface {} is gone: it is guarded again when it is back",
                    self.interfaces[slot].name
                );
                guard.lose_interface(slot, index);
            }
            let back = host.find_again(&self.interfaces[slot]).cloned();
            let Some(back) = back.filter(|back| !on.contains(&back.index)) else {
                continue;
            };
            let link = links.get(&back.index).and_then(|link| link.as_ref().ok());
            let mode = AttachMode::choose(self.mode, link);
            match guard.attach(slot, &mode, &back) {
                Ok(()) => {
                    info!("the interface {} is back", back.name);
                    self.gone.remove(&slot);
                    self.refused.remove(&back.index);
                    on.push(back.index);
                    attached = true;
                    self.interfaces[slot] = Interface {
                        xdp_program: None,
                        xdp_generic: false,
                        ..back
                    };
                }
                // The service manager is to start it again, with all it needs.
                Err(failure) if failure.exit == Exit::Permission => {
                    return Err(Failure::new(Exit::Unavailable, failure.error));
                }
                Err(failure) if self.refused.insert(back.index) => {
                    guard.refuse(slot, &failure);
                    error!("the interface {} is back, but: {failure}", back.name);
                }
                Err(_) => {}
            }
        }
        Ok(attached)
    }
}

fn find_interfaces(host: &HostSurvey, config: &Config) -> Result<Vec<Interface>, Failure> {
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut absent = Vec::new();
    for name in &config.interfaces {
        let found = if name == config::DEFAULT_ROUTE {
            host.default_route
                .as_ref()
                .ok_or(IfaceError::NoDefaultRoute)
        } else {
            host.links.named(name)
        };
        match found {
            Ok(found) if interfaces.iter().any(|known| known.index == found.index) => {}
            Ok(found) => interfaces.push(found.clone()),
            Err(error @ (IfaceError::Unknown { .. } | IfaceError::NoDefaultRoute)) => {
                absent.push((Interface::absent(name), error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if interfaces.is_empty()
        && let Some((_, error)) = absent.pop()
    {
        return Err(error.into());
    }
    interfaces.extend(absent.into_iter().map(|(interface, _)| interface));
    Ok(interfaces)
}

fn check_guardable(
    interfaces: &[Interface],
    pins: Option<&Pins>,
    mode: XdpMode,
) -> Result<(), Failure> {
    for interface in interfaces {
        if !interface.ethernet {
            return Err(not_ethernet(&interface.name));
        }
        if let Some(program) = interface.xdp_program
            && !pinned::holds(pins, interface)
        {
            return Err(occupied(&interface.name, Some(program)));
        }
        if mode == XdpMode::Native && native_xdp_is_blind(&interface.name, interface.index) {
            return Err(blind(&interface.name));
        }
    }
    Ok(())
}

/// The failure of an interface on which native XDP would see nothing.
fn blind(interface: &str) -> Failure {
    Failure::new(
        Exit::Unavailable,
        anyhow!(
            "{interface}: {BLIND}: set xdp_mode = \"auto\", or mrg_rxbuf=on for the device of \
             the virtual machine"
        ),
    )
}

/// The failure of an interface whose clients could not connect.
fn not_in_vrf(interface: &str, vrf: &str) -> Failure {
    Failure::new(
        Exit::Unavailable,
        anyhow!(
            "{interface} is in the VRF {vrf}, and this process is not: start it by \
             `ip vrf exec {vrf} nomail-agent`, or set net.ipv4.tcp_l3mdev_accept to 1"
        ),
    )
}
