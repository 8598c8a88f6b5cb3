//! How what the guard counts becomes a status, and whom `status` and `top` ask for
//! it: the agent, or the guard that it has left behind.

use std::{
    cmp::Ordering,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use nix::unistd::Uid;
use nomail_common::{
    abi::{self, Counters},
    guard::source::Source,
};

use crate::{
    config,
    counts::Counts,
    guard::{BpfError, KeptGuard, SourceCount},
    net::Interfaces,
    smtp::SourceHistory,
    status::client,
    status::{
        GuardCounts, InterfaceStatus, ResponderStatus, SourceStatus, Speaker, Status, TableCounter,
    },
    text,
};

/// What was counted on an interface, or on all that are not guarded.
pub(super) fn counts_of(counters: &Counters) -> GuardCounts {
    GuardCounts {
        syn: Counts::new(counters.verdicts),
        answers: Counts::new(counters.answers),
        table: Counts::from_iter([
            (TableCounter::Contended, counters.contended),
            (TableCounter::SourceEvictions, counters.evictions),
        ]),
    }
}

/// A source in both halves. It has no text yet: of 65,536 few are shown.
struct Seen {
    address: IpAddr,
    syn: u64,
    limited: u64,
    connections: u64,
    last_seen_secs: u64,
}

impl Seen {
    /// The busiest first.
    fn order(&self, other: &Self) -> Ordering {
        let busy = |seen: &Self| seen.syn.max(seen.connections);
        let by_work = busy(other).cmp(&busy(self));
        by_work.then_with(|| self.address.cmp(&other.address))
    }
}

/// The sources that the table or the responder knows, the busiest first, and no
/// more than so many.
pub(super) fn busiest(
    table: &[SourceCount],
    history: Vec<SourceHistory>,
    max: usize,
) -> Vec<SourceStatus> {
    let mut connected: HashMap<_, _> = history
        .into_iter()
        .map(|seen| (Source::from(seen.source), seen))
        .collect();
    let mut sources: Vec<_> = table
        .iter()
        .map(|count| {
            let connected = connected.remove(&Source::from(count.address));
            let quiet_secs = count.last_seen.as_secs();
            Seen {
                address: count.address,
                syn: count.syn,
                limited: count.limited,
                connections: connected.as_ref().map_or(0, |seen| seen.connections),
                last_seen_secs: connected
                    .map_or(quiet_secs, |seen| seen.last_seen_secs.min(quiet_secs)),
            }
        })
        .collect();
    sources.extend(connected.into_values().map(|seen| Seen {
        address: seen.source,
        syn: 0,
        limited: 0,
        connections: seen.connections,
        last_seen_secs: seen.last_seen_secs,
    }));
    if max < sources.len() {
        sources.select_nth_unstable_by(max, Seen::order);
        sources.truncate(max);
    }
    sources.sort_unstable_by(Seen::order);
    sources
        .into_iter()
        .map(|seen| SourceStatus {
            source: text::source(seen.address),
            syn: seen.syn,
            limited: seen.limited,
            connections: seen.connections,
            last_seen_secs: seen.last_seen_secs,
        })
        .collect()
}

/// Whom `status` and `top` ask.
#[derive(Clone, Debug)]
pub struct Teller {
    control: PathBuf,
    config: Option<PathBuf>,
}

impl Teller {
    /// The agent on the socket that was told, or that the configuration names.
    pub fn new(control: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        Self {
            control: config::control_path(control, config.as_deref()),
            config,
        }
    }

    /// The state, with at most so many sources: the agent's, or when none answers
    /// what can be read of a guard that stayed.
    ///
    /// # Errors
    /// When nobody tells; the error of the agent with a hint.
    pub fn tell(&self, sources: usize) -> Result<Status> {
        let error = match client::ask(&self.control, sources) {
            Ok(status) => return Ok(status),
            Err(error) if nobody_is_there(&error) => error,
            Err(error) => return Err(error),
        };
        if !Uid::effective().is_root() {
            return Err(anyhow!(
                "{error:#} (what a guard counts that was kept without its agent, root can read)"
            ));
        }
        let directory = match config::pin_dir(self.config.as_deref()) {
            Ok(directory) => directory,
            Err(_) => {
                return Err(anyhow!(
                    "{error:#} (and the configuration does not tell where a kept guard is: \
                     `nomail-agent check-config` says why)"
                ));
            }
        };
        let shown = directory.display();
        match kept(&directory, sources) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(anyhow!("{error:#} (and no guard is kept in {shown})")),
            Err(kept) if matches!(kept.downcast_ref(), Some(BpfError::PinsInUse(_))) => {
                Err(anyhow!(
                    "{error:#} (but one runs, which keeps its guard in {shown}: name its --control)"
                ))
            }
            Err(kept) => Err(anyhow!(
                "{error:#} (and the guard kept in {shown} cannot be read: {kept:#})"
            )),
        }
    }
}

fn nobody_is_there(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    })
}

/// What can be told of a guard without its agent.
fn kept(directory: &Path, sources_max: usize) -> Result<Option<Status>> {
    let guard = match KeptGuard::open(directory) {
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
        status.counts += counts_of(&counters);
    }
    let sources = guard.sources()?;
    status.sources_tracked = sources.len() as u64;
    status.sources = busiest(&sources, Vec::new(), sources_max);
    Ok(Some(status))
}

/// Who serves without the agent: where XDP may, it does.
fn responder_of(guard: &KeptGuard) -> ResponderStatus {
    let (by, fallback, serving) = match guard.responder() {
        0 => (Speaker::Listener, Speaker::None, Speaker::None),
        abi::RESPOND_FOR_LISTENERS => (Speaker::Listener, Speaker::Xdp, Speaker::Xdp),
        _ => (Speaker::Xdp, Speaker::None, Speaker::Xdp),
    };
    ResponderStatus {
        by,
        fallback,
        serving,
        counts: Counts::default(),
    }
}

/// The interfaces that the guard is on, as far as this network namespace knows them.
fn interfaces_of(guard: &KeptGuard) -> Result<Vec<InterfaceStatus>> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_busiest_of_both_halves_come_first() {
        let count = |address: &str, syn| SourceCount {
            address: address.parse().unwrap(),
            syn,
            limited: 1,
            last_seen: Duration::from_secs(7),
        };
        let history = |source: &str, connections, last_seen_secs| SourceHistory {
            source: source.parse().unwrap(),
            connections,
            last_seen_secs,
        };
        let table = [
            count("192.0.2.10", 3),
            count("192.0.2.9", 3),
            count("2001:db8::", 9),
            count("192.0.2.8", 1),
        ];
        let shown = |max| {
            let responder = vec![
                history("192.0.2.8", 5, 2),
                history("198.51.100.1", 4, 1),
                history("2001:db8::", 1, 8),
            ];
            let shown = busiest(&table, responder, max).into_iter();
            let short =
                |s: SourceStatus| (s.source, s.syn, s.limited, s.connections, s.last_seen_secs);
            shown.map(short).collect::<Vec<_>>()
        };
        let all = [
            ("2001:db8::/64", 9, 1, 1, 7),
            ("192.0.2.8", 1, 1, 5, 2),
            ("198.51.100.1", 0, 0, 4, 1),
            ("192.0.2.9", 3, 1, 0, 7),
            ("192.0.2.10", 3, 1, 0, 7),
        ]
        .map(|(source, syn, limited, connections, secs)| {
            (source.to_owned(), syn, limited, connections, secs)
        });
        for max in 0..=all.len() {
            assert_eq!(shown(max), all[..max]);
        }
        assert_eq!(shown(65_536), all);
    }
}
