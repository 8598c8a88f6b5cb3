//! The pins that an agent with `on_exit = "keep"` left, at the start of the next one.

use anyhow::anyhow;
use log::{debug, warn};

use super::root::Root;
use crate::{
    config::{Config, OnExit, XdpMode},
    exit::{Exit, Failure},
    guard::Pins,
    net::{Interface, Links},
};

/// Opens and locks the pins where they are needed: always with `keep`; otherwise to take
/// over what is on the interfaces, so that nothing stays pinned.
pub(super) fn find(_: &Root, links: &Links, config: &Config) -> Result<Option<Pins>, Failure> {
    if config.xdp_mode == XdpMode::Off {
        return Ok(None);
    }
    let keep = config.on_exit == OnExit::Keep;
    let pins = match keep {
        true => Some(Pins::create(&config.pin_dir)?),
        false => Pins::open(&config.pin_dir).unwrap_or_else(|error| {
            debug!("no pins to take over: {error}");
            None
        }),
    };
    let Some(pins) = pins else {
        return Ok(None);
    };
    if pins.live().all(|(number, program)| {
        let here = links.with_index(number);
        here.is_some_and(|here| here.xdp_program == Some(program))
    }) {
        return Ok(Some(pins));
    }
    match keep {
        true => Err(Failure::new(
            Exit::Unavailable,
            anyhow!(
                "pin_dir: {} has pins for interfaces of another network namespace: name another \
                 directory",
                config.pin_dir.display()
            ),
        )),
        false => Ok(None),
    }
}

/// Whether the XDP program on the interface, if there is one, is pinned there.
pub(super) fn holds(pins: Option<&Pins>, interface: &Interface) -> bool {
    let held = |program| pins.is_some_and(|pins| pins.hold(interface.index, program));
    interface.xdp_program.is_some_and(held)
}

/// Warns of pinned guards, which go on although only the responder was asked for.
pub(super) fn warn_of_pinned(interfaces: &[Interface], config: &Config) {
    let Ok(Some(pins)) = Pins::open(&config.pin_dir) else {
        return;
    };
    for interface in interfaces {
        if holds(Some(&pins), interface) {
            warn!(
                "{}: an earlier agent's guard is still attached: `nomail-agent detach` removes it",
                interface.name
            );
        }
    }
}
