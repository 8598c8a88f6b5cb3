//! `nomail-agent detach`: removes the guard that an agent with `on_exit = "keep"` left.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::unistd::Uid;
use nomail_common::abi;

use crate::{
    cli::DetachArgs,
    config,
    exit::{Exit, Failure},
    guard::{self, BpfError, Pins},
    net::{Interface, Interfaces},
};

/// The kernel detaches a little after the last reference is gone: how often, and how many
/// times, that is checked.
const DETACH_POLL: Duration = Duration::from_millis(10);
const DETACH_POLLS: u32 = 200;

/// Removes the pins and returns what was done, in lines for the user.
///
/// # Errors
/// Without root, while an agent holds the pins, and when the kernel does not detach.
pub fn run(asked: &DetachArgs) -> Result<Vec<String>, Failure> {
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
        lines.extend(still_attached(&kernel, interface.as_ref()).await?);
        Ok(lines)
    })
}

/// Waits until the kernel has detached what was `live` and is `removed`.
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

/// Lines for the programs that stay: on the interface that was asked for, or of nomail on any.
async fn still_attached(
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
