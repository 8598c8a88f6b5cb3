//! What an agent with `on_exit = "keep"` has left: found at the start, and removed
//! by `nomail-agent detach`.

use std::{thread, time::Duration};

use anyhow::{Context as _, anyhow};
use log::{debug, warn};
use nix::unistd::Uid;
use nomail_common::abi;

use crate::{
    cli::Detach,
    config::{self, Config, OnExit, XdpMode},
    exit::{Exit, Failure},
    guard::{self, BpfError, Pins},
    net::{Interface, Interfaces},
};

/// How often and how many times it is looked whether the kernel has detached.
const DETACH_POLL: Duration = Duration::from_millis(10);
const DETACH_POLLS: u32 = 200;

/// The pins, locked, where they are of use: always with `keep`; otherwise to
/// take over what is on the interfaces, so that nothing stays pinned.
pub(super) async fn find(kernel: &Interfaces, config: &Config) -> Result<Option<Pins>, Failure> {
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
    let all = kernel.all().await?;
    if pins.live().all(|(number, program)| {
        let here = all.iter().find(|interface| interface.index == number);
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

/// The responder alone was asked for: what is pinned goes on all the same.
pub(super) fn warn_of_kept(interfaces: &[Interface], config: &Config) {
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

/// Tries `attach` again while the kernel detaches what was there, if it does.
pub(super) fn attach_after_release<T>(
    released: bool,
    mut attach: impl FnMut() -> Result<T, BpfError>,
) -> Result<T, BpfError> {
    for _ in 0..if released { DETACH_POLLS } else { 0 } {
        match attach() {
            Err(BpfError::Occupied) => thread::sleep(DETACH_POLL),
            done => return done,
        }
    }
    attach()
}

/// `nomail-agent detach`: what was done, in lines for the user.
pub fn detach(asked: &Detach) -> Result<Vec<String>, Failure> {
    if !Uid::effective().is_root() {
        return Err(Failure::new(
            Exit::Permission,
            anyhow!("only root can detach: use sudo"),
        ));
    }
    let directory = config::pin_dir(asked.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    runtime.block_on(async {
        let kernel = Interfaces::connect()?;
        let interface = match &asked.interface {
            Some(name) => Some(kernel.named(name).await?),
            None => None,
        };
        let pins = match Pins::open(&directory) {
            Ok(pins) => pins,
            // Where nothing can be pinned, nothing is.
            Err(BpfError::NoBpfFileSystem(_)) => None,
            Err(error @ BpfError::PinsInUse(_)) => return Err(Failure::new(Exit::Failed, error)),
            Err(error) => return Err(error.into()),
        };
        let shown = directory.display();
        let before = kernel.all().await?;
        let removed = match pins {
            Some(pins) => {
                let live: Vec<_> = pins.live().collect();
                let removed = pins.remove(interface.as_ref().map(|interface| interface.index))?;
                wait_for_detaching(&kernel, &live, &removed).await?;
                Some(removed)
            }
            None => None,
        };
        let mut lines: Vec<_> = removed
            .iter()
            .flatten()
            .map(|&number| {
                let here = before.iter().find(|interface| interface.index == number);
                match here {
                    Some(here) => format!("{}: detached", here.name),
                    None if number == 0 => {
                        format!("{shown}: removed the pin of an interface that is gone")
                    }
                    None => format!("interface {number} of another network namespace: detached"),
                }
            })
            .collect();
        if lines.is_empty() {
            lines.push(match (&removed, &interface) {
                (Some(_), None) => format!("{shown}: no interface was attached; removed"),
                (_, Some(interface)) => {
                    format!("{}: nothing of nomail is pinned", interface.name)
                }
                (None, None) => format!("{shown}: nothing of nomail is pinned"),
            });
        }
        lines.extend(left_alone(&kernel, interface.as_ref()).await?);
        Ok(lines)
    })
}

/// The kernel detaches a little after the last reference is gone.
async fn wait_for_detaching(
    kernel: &Interfaces,
    live: &[(u32, u32)],
    removed: &[u32],
) -> Result<(), Failure> {
    for _ in 0..DETACH_POLLS {
        let all = kernel.all().await?;
        let attached = |&(number, program): &(u32, u32)| {
            removed.contains(&number)
                && all.iter().any(|interface| {
                    interface.index == number && interface.xdp_program == Some(program)
                })
        };
        if !live.iter().any(attached) {
            return Ok(());
        }
        tokio::time::sleep(DETACH_POLL).await;
    }
    Err(anyhow!("the kernel does not detach: a process holds the link open").into())
}

/// What is still on the interface that was asked for, or of nomail on any.
async fn left_alone(
    kernel: &Interfaces,
    asked: Option<&Interface>,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for interface in kernel.all().await? {
        let Some(program) = interface.xdp_program else {
            continue;
        };
        let wanted = asked.is_none_or(|asked| asked.index == interface.index);
        let name = guard::program_name(program);
        let ours = name.as_deref() == Some(abi::PROGRAM);
        if ours && wanted {
            lines.push(format!(
                "{}: left alone: XDP program {program} is a running nomail-agent's, which takes \
                 it with it when it is stopped",
                interface.name
            ));
        } else if asked.is_some() && wanted {
            lines.push(format!(
                "{}: left alone: the XDP program {:?} (id {program}) is not nomail's",
                interface.name,
                name.as_deref().unwrap_or("unknown")
            ));
        }
    }
    Ok(lines)
}
