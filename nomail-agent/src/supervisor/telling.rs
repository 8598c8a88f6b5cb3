//! How what the guard counts becomes a status, and whom `status` and `top` ask for
//! it: the agent, or the guard that it has left behind.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use nix::unistd::Uid;
use nomail_common::{
    abi::{self, Counters},
    source::Source,
    verdict::{Answer, Verdict},
};

use crate::{
    bpf::{BpfError, KeptGuard, SourceCount},
    config, control,
    iface::Interfaces,
    status::{
        AnswerStatus, GuardCounts, InterfaceStatus, SourceStatus, Status, SynStatus, shown_source,
    },
};

/// What was counted on an interface, or on all that are not guarded.
pub(super) fn counts_of(counters: &Counters) -> GuardCounts {
    let verdict = |verdict: Verdict| counters.verdicts[verdict as usize];
    let answer = |answer: Answer| counters.answers[answer as usize];
    GuardCounts {
        syn: SynStatus {
            total: counters.verdicts.iter().sum(),
            passed: verdict(Verdict::Passed),
            malformed: verdict(Verdict::Malformed),
            denied: verdict(Verdict::Denied),
            limited_source: verdict(Verdict::LimitedSource),
            limited_prefix: verdict(Verdict::LimitedPrefix),
            flood: verdict(Verdict::Flood),
        },
        answers: AnswerStatus {
            cookie: answer(Answer::Cookie),
            challenge: answer(Answer::Challenge),
            proven: answer(Answer::Proven),
            unanswerable: answer(Answer::Unanswerable),
            ..AnswerStatus::default()
        },
        contended: counters.contended,
        source_evictions: counters.evictions,
    }
}

/// Adds the table of sources to those that the responder knows.
pub(super) fn add_counts(
    status: &mut Status,
    sources: &mut HashMap<Source, SourceStatus>,
    counts: Vec<SourceCount>,
) {
    status.sources_tracked = counts.len() as u64;
    for count in counts {
        let entry = sources
            .entry(Source::from(count.address))
            .or_insert_with(|| SourceStatus {
                source: shown_source(count.address),
                last_seen_secs: u64::MAX,
                ..SourceStatus::default()
            });
        entry.syn = count.syn;
        entry.limited = count.limited;
        entry.last_seen_secs = entry.last_seen_secs.min(count.last_seen.as_secs());
    }
}

/// The busiest sources first, and no more than so many.
pub(super) fn busiest(sources: HashMap<Source, SourceStatus>, max: usize) -> Vec<SourceStatus> {
    let mut sources: Vec<_> = sources.into_values().collect();
    sources.sort_by(|a, b| {
        let busy = |source: &SourceStatus| source.syn.max(source.connections);
        busy(b).cmp(&busy(a)).then_with(|| a.source.cmp(&b.source))
    });
    sources.truncate(max);
    sources
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
        let error = match control::ask(&self.control, sources) {
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
        guarded: guard
            .guarded()
            .into_iter()
            .map(|pair| SocketAddr::from(pair).to_string())
            .collect(),
        ..Status::default()
    };
    for counters in guard.counters()? {
        let counts = counts_of(&counters);
        status.syn += counts.syn;
        status.answers += counts.answers;
        status.contended += counts.contended;
        status.source_evictions += counts.source_evictions;
    }
    let mut sources = HashMap::new();
    add_counts(&mut status, &mut sources, guard.sources()?);
    status.sources = busiest(sources, sources_max);
    Ok(Some(status))
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
