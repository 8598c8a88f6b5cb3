//! The client of `status` and `top`: asks the agent, or reads the guard that an agent with
//! `on_exit = "keep"` left.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use nix::unistd::Uid;
use nomail_common::{abi, guard::policy::RESPOND_FOR_LISTENERS};

use super::counters::{busiest, counts_of};
use crate::{
    config,
    counts::Counts,
    guard::{BpfError, PinnedGuard},
    net::Interfaces,
    status::client,
    status::{InterfaceStatus, ResponderStatus, Speaker, Status},
};

/// Asks for the status, for `status` and `top`.
#[derive(Clone, Debug)]
pub struct StatusClient {
    control: PathBuf,
    config: Option<PathBuf>,
}

impl StatusClient {
    /// Asks on this socket, or on the one that the configuration names.
    pub fn new(control: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        Self {
            control: config::control_path(control, config.as_deref()),
            config,
        }
    }

    /// The status of the agent with at most so many sources; when no agent answers, that
    /// of the pinned guard.
    ///
    /// # Errors
    /// When there is neither: the error of asking the agent, with a hint.
    pub fn ask(&self, sources: usize) -> Result<Status> {
        let error = match client::ask(&self.control, sources) {
            Ok(status) => return Ok(status),
            Err(error) if no_agent_is_there(&error) => error,
            Err(error) => return Err(error),
        };
        if !Uid::effective().is_root() {
            return Err(anyhow!(
                "{error:#} (root can read the counters of a guard that was kept without its agent)"
            ));
        }
        let directory = match config::pin_dir(self.config.as_deref()) {
            Ok(directory) => directory,
            Err(_) => {
                return Err(anyhow!(
                    "{error:#} (and the configuration does not say where a kept guard is: \
                     `nomail-agent check-config` says why)"
                ));
            }
        };
        let shown = directory.display();
        match pinned_status(&directory, sources) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(anyhow!("{error:#} (and no guard is kept in {shown})")),
            Err(pinned) if matches!(pinned.downcast_ref(), Some(BpfError::PinsInUse(_))) => {
                Err(anyhow!(
                    "{error:#} (but one runs, which keeps its guard in {shown}: name its --control)"
                ))
            }
            Err(pinned) => Err(anyhow!(
                "{error:#} (and the guard kept in {shown} cannot be read: {pinned:#})"
            )),
        }
    }
}

fn no_agent_is_there(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    })
}

/// The status of a pinned guard without its agent.
fn pinned_status(directory: &Path, sources_max: usize) -> Result<Option<Status>> {
    let guard = match PinnedGuard::open(directory) {
        Ok(Some(guard)) => guard,
        // Where nothing can be pinned, nothing is.
        Ok(None) | Err(BpfError::NoBpfFileSystem(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        abi: abi::ABI_VERSION,
        observe: guard.observe(),
        interfaces: interfaces_of(&guard)?,
        responder: responder_of(&guard),
        guarded: guard
            .guarded()
            .into_iter()
            .map(|pair| SocketAddr::from(pair).to_string())
            .collect(),
        ..Status::default()
    };
    for counters in guard.counters()? {
        let counts = counts_of(&counters);
        status.counts += counts;
    }
    let sources = guard.sources()?;
    status.sources_tracked = sources.len() as u64;
    status.sources = busiest(&sources, Vec::new(), sources_max);
    Ok(Some(status))
}

/// Without the agent XDP serves where it may.
fn responder_of(guard: &PinnedGuard) -> ResponderStatus {
    let (by, fallback, serving) = match guard.responder() {
        0 => (Speaker::Listener, Speaker::None, Speaker::None),
        RESPOND_FOR_LISTENERS => (Speaker::Listener, Speaker::Xdp, Speaker::Xdp),
        _ => (Speaker::Xdp, Speaker::None, Speaker::Xdp),
    };
    ResponderStatus {
        by,
        fallback,
        serving,
        counts: Counts::default(),
    }
}

/// The interfaces that the guard is on, with the names of this network namespace.
fn interfaces_of(guard: &PinnedGuard) -> Result<Vec<InterfaceStatus>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop can be made")?;
    let here = runtime.block_on(async { Interfaces::connect()?.all().await })?;
    let links = guard.links().iter().map(|&(index, program)| {
        let found = here
            .iter()
            .find(|found| found.index == index && found.xdp_program == Some(program));
        let (name, mode) = match found {
            Some(found) if found.xdp_generic => (found.name.clone(), "generic"),
            Some(found) => (found.name.clone(), "native"),
            None => (format!("interface {index} of another namespace"), "unknown"),
        };
        InterfaceStatus {
            name,
            xdp_mode: mode.to_owned(),
            program_id: program,
            pinned: true,
            ..InterfaceStatus::default()
        }
    });
    Ok(links.collect())
}
