//! Checks of the configuration, of the running agent, and of what an agent needs on the host.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::Error;
use caps::{CapSet, Capability};
use nix::{
    sys::{
        resource::{Resource, getrlimit},
        socket::{getsockopt, sockopt},
    },
    unistd::User,
};
use nomail_common::abi::ABI_VERSION;

use super::{
    finding::{Check, Finding},
    kernel::number,
};
use crate::{
    agent::DESCRIPTORS_SPARE,
    config::{self, Config, ConfigError, OnExit, RefuseAt},
    host::privilege::dynamic,
    smtp::settings::SHED_MAX,
    status::Status,
    status::client,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Prefix of the name of a pinned link.
const LINK: &str = "link_";

/// The account that the agent changes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AgentAccount {
    uid: u32,
    gid: u32,
}

pub(super) fn configuration(loaded: Result<&Config, &ConfigError>) -> Vec<Finding> {
    let check = Check::Configuration;
    match loaded {
        Ok(config) => {
            let file = config.file.as_deref().filter(|file| file.exists());
            let found = match file {
                Some(file) => format!("{} is valid", file.display()),
                None => format!("there is no {}: the defaults apply", config::DEFAULT_FILE),
            };
            vec![Finding::ok(check, found)]
        }
        Err(error) => error
            .lines()
            .map(|line| {
                let remedy = "correct it; until then the checks below use the defaults";
                Finding::fail(check, line, remedy)
            })
            .collect(),
    }
}

/// The status of the running agent, if there is one.
pub(super) fn running(config: &Config) -> (Option<Status>, Finding) {
    let asked = client::ask(&config.control, 0);
    if asked.is_ok()
        && let Some(elsewhere) = elsewhere(&config.control)
    {
        // It guards another network namespace.
        return (None, elsewhere);
    }
    let finding = agent(&asked, &config.control);
    (asked.ok(), finding)
}

/// A finding if the agent runs in another network namespace. None also if that cannot be
/// seen.
fn elsewhere(control: &Path) -> Option<Finding> {
    let socket = UnixStream::connect(control).ok()?;
    // Of the process that called listen(2).
    let pid = getsockopt(&socket, sockopt::PeerCredentials).ok()?.pid();
    let its = format!("/proc/{pid}/ns/net");
    let (ours, theirs) = (namespace("/proc/self/ns/net")?, namespace(&its)?);
    (ours != theirs).then(|| {
        let name = name_of_namespace(theirs).map_or_else(String::new, |name| format!(" {name:?}"));
        Finding::fail(
            Check::Agent,
            format!(
                "nomail-agent (pid {pid}) runs in another network namespace{name}: the checks \
                 below are about this one, and not about that agent"
            ),
            format!("nsenter --net={its} nomail-agent doctor"),
        )
    })
}

/// The device and inode of a network namespace, which identify it.
fn namespace(file: impl AsRef<Path>) -> Option<(u64, u64)> {
    let found = fs::metadata(file).ok()?;
    Some((found.dev(), found.ino()))
}

/// Its name of `ip netns`, if it has one.
fn name_of_namespace(wanted: (u64, u64)) -> Option<String> {
    let named = fs::read_dir("/run/netns").ok()?.filter_map(Result::ok);
    let mut found = named.filter(|entry| namespace(entry.path()) == Some(wanted));
    found.next()?.file_name().into_string().ok()
}

fn agent(asked: &Result<Status, Error>, control: &Path) -> Finding {
    let check = Check::Agent;
    let error = match asked {
        Ok(Status { version, .. }) if version != VERSION => {
            return Finding::warn(
                check,
                format!("nomail {version} runs, and this is {VERSION}"),
                "restart the agent",
            );
        }
        Ok(Status { observe: true, .. }) => {
            return Finding::warn(
                check,
                format!("nomail {VERSION} runs, and only observes: nothing is dropped"),
                "observe = false, and send SIGHUP",
            );
        }
        Ok(_) => return Finding::ok(check, format!("nomail {VERSION} runs")),
        Err(error) => error,
    };
    let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
    match cause {
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Finding::unseen(
            check,
            format!("no agent answers on {}", control.display()),
            "start nomail-agent, and run doctor again",
        ),
        Some(io::ErrorKind::PermissionDenied) => Finding::needs_root(check, "the control socket"),
        _ => Finding::fail(check, format!("{error:#}"), "restart the agent"),
    }
}

pub(super) fn check(config: &Config, status: Option<&Status>, root: bool) -> Vec<Finding> {
    let known = look_up(&config.user.value);
    let raisable = root.then(|| {
        caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(false)
    });
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    vec![
        user(&config.user, known),
        descriptors(
            config.limits.connections,
            number("/proc/sys/fs/nr_open").ok(),
            hard,
            raisable,
        ),
        state_dir(config, Directory::of(&config.state_dir.path, known)),
        pins(find_pins(&config.pin_dir), config, status),
    ]
}

/// Addresses that the running agent does not guard or serve as the others.
pub(super) fn addresses(status: Option<&Status>) -> Vec<Finding> {
    let check = Check::Addresses;
    let Some(status) = status else {
        return vec![Finding::skip(check, "no agent was found to ask")];
    };
    let addresses = &status.addresses;
    let mut findings = Vec::new();
    if let Some(unguarded) = addresses.unguarded.shown() {
        findings.push(Finding::warn(
            check,
            format!("not guarded, because there is no room: {unguarded}"),
            "listen = [\"ADDRESS:25\", ...] with the addresses that matter",
        ));
    }
    if let Some(unchallenged) = addresses.unchallenged.shown() {
        findings.push(Finding::warn(
            check,
            format!("guarded but cannot be challenged: {unchallenged}"),
            "interfaces = [\"NAME\"], the one that has the address",
        ));
    }
    if let Some(absent) = addresses.absent.shown() {
        findings.push(Finding::warn(
            check,
            format!("configured, but not on this host: {absent}"),
            "ip address add ADDRESS/LENGTH dev NAME, or leave it out of the configuration",
        ));
    }
    let left_out = addresses.own_left_out + addresses.hardware_left_out;
    if left_out > 0 {
        findings.push(Finding::warn(
            check,
            format!("XDP has no room for {left_out} of this host's own addresses"),
            "limits.flood_answer = \"drop\", if forged SYNs in their names matter",
        ));
    }
    if findings.is_empty() {
        let guarded = status.guarded.len();
        findings.push(Finding::ok(
            check,
            format!("all {guarded} are guarded and served"),
        ));
    }
    findings
}

/// The account of a name or a uid. A uid needs no name.
fn look_up(user: &str) -> Option<AgentAccount> {
    let found = match user.parse::<u32>() {
        Ok(uid) => {
            let found = User::from_uid(uid.into()).ok().flatten();
            return Some(AgentAccount {
                uid,
                gid: found.map_or(uid, |found| found.gid.as_raw()),
            });
        }
        Err(_) => User::from_name(user).ok().flatten()?,
    };
    Some(AgentAccount {
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    })
}

fn user(user: &config::User, known: Option<AgentAccount>) -> Finding {
    let name = &user.value;
    let create = format!(
        "useradd --system --no-create-home --shell /usr/sbin/nologin {}",
        config::User::default().value
    );
    match known {
        Some(AgentAccount { uid: 0, .. }) => Finding::fail(
            Check::User,
            format!("user = {name:?} is root"),
            format!("{create}, and user = \"nomail\""),
        ),
        Some(AgentAccount { uid, .. }) => {
            Finding::ok(Check::User, format!("{name} exists, uid {uid}"))
        }
        None if user.is_default => Finding::warn(
            Check::User,
            format!(
                "there is no user {name}: the agent runs as a uid from {} to {} that nothing else \
                 uses, and that may change at each start",
                dynamic::RANGE.start(),
                dynamic::RANGE.end()
            ),
            create,
        ),
        None => Finding::fail(
            Check::User,
            format!("there is no user {name:?}: the agent does not start"),
            create,
        ),
    }
}

/// `raisable`: whether the limit can be raised to `nr_open`; none without root.
fn descriptors(
    connections: u32,
    nr_open: Option<u64>,
    hard: u64,
    raisable: Option<bool>,
) -> Finding {
    let check = Check::Descriptors;
    let needed = u64::from(connections) + SHED_MAX as u64 + DESCRIPTORS_SPARE;
    if let Some(nr_open) = nr_open
        && nr_open < needed
    {
        return Finding::warn(
            check,
            format!(
                "limits.connections = {connections} needs {needed} descriptors, and the kernel \
                 allows {nr_open}"
            ),
            format!("sysctl -w fs.nr_open={needed}"),
        );
    }
    match raisable {
        None => Finding::needs_root(check, "what the agent is allowed"),
        Some(false) if hard < needed => Finding::warn(
            check,
            format!(
                "limits.connections = {connections} needs {needed} descriptors, and {hard} are \
                 allowed here"
            ),
            format!("LimitNOFILE={needed} in the agent's unit"),
        ),
        Some(_) => Finding::ok(
            check,
            format!(
                "limits.connections = {connections} needs {needed} descriptors, which are allowed"
            ),
        ),
    }
}

/// The state of `state_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    Missing,
    Writable,
    /// The agent may not write to it.
    Locked,
    /// It is not a directory.
    Other,
    Unseen,
}

impl Directory {
    /// For an account, or without one for a uid that is chosen at the start and takes the
    /// directory over from the last one.
    fn of(path: &Path, account: Option<AgentAccount>) -> Self {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            Err(_) => Self::Unseen,
            Ok(found) if !found.is_dir() => Self::Other,
            Ok(found) => {
                let account = account.unwrap_or(AgentAccount {
                    uid: match found.uid() {
                        owner if dynamic::is_adopted(owner) => owner,
                        _ => u32::MAX,
                    },
                    gid: u32::MAX,
                });
                let shift = match (found.uid() == account.uid, found.gid() == account.gid) {
                    (true, _) => 6,
                    (false, true) => 3,
                    (false, false) => 0,
                };
                // Write and search.
                match found.mode() >> shift & 0o3 {
                    0o3 => Self::Writable,
                    _ => Self::Locked,
                }
            }
        }
    }
}

fn state_dir(config: &Config, found: Directory) -> Finding {
    let check = Check::StateDir;
    let path = config.state_dir.path.display();
    if config.refuse_at != RefuseAt::Auto {
        return Finding::skip(check, "only refuse_at = \"auto\" stores anything there");
    }
    let user = &config.user.value;
    let forgets = "\"auto\" forgets at each restart which networks it has refused";
    match found {
        Directory::Writable => Finding::ok(check, format!("{path} is writable for the agent")),
        Directory::Missing if !config.state_dir.is_default => {
            Finding::ok(check, format!("{path} is created at the start"))
        }
        Directory::Missing => Finding::warn(
            check,
            format!("there is no {path}: {forgets}"),
            format!("install -d -o {user} -g {user} -m 0750 {path}"),
        ),
        Directory::Locked => Finding::warn(
            check,
            format!("the agent may not write to {path}: {forgets}"),
            format!("chown {user}: {path} && chmod 0750 {path}"),
        ),
        Directory::Other => Finding::fail(
            check,
            format!("{path} is not a directory"),
            "state_dir = \"/var/lib/nomail\"",
        ),
        Directory::Unseen => Finding::needs_root(check, &path.to_string()),
    }
}

/// The number of pinned links in each versioned directory.
fn find_pins(directory: &Path) -> io::Result<Vec<(PathBuf, usize)>> {
    let mut versions = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(versions),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let links = fs::read_dir(&path)?.filter_map(Result::ok).filter(|pin| {
            pin.file_name()
                .as_encoded_bytes()
                .starts_with(LINK.as_bytes())
        });
        versions.push((path, links.count()));
    }
    versions.sort_unstable();
    Ok(versions)
}

fn pins(
    found: io::Result<Vec<(PathBuf, usize)>>,
    config: &Config,
    status: Option<&Status>,
) -> Finding {
    let check = Check::Pins;
    let directory = config.pin_dir.display();
    let versions = match found {
        Ok(versions) => versions,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Finding::needs_root(check, &directory.to_string());
        }
        Err(error) => {
            return Finding::fail(
                check,
                format!("{directory} cannot be read: {error}"),
                "pin_dir = \"/sys/fs/bpf/nomail\"",
            );
        }
    };
    let ours = config.pin_dir.join(format!("v{ABI_VERSION}"));
    let pinned = status.is_some_and(|status| status.interfaces.iter().any(|on| on.pinned));
    let left: Vec<_> = versions
        .iter()
        .filter(|(path, _)| !(pinned && *path == ours))
        .collect();
    match left.first() {
        None if pinned => Finding::ok(
            check,
            format!("{directory} has the pins of the running agent"),
        ),
        None => Finding::ok(check, format!("{directory} has no pins")),
        Some((path, links)) => Finding::warn(
            check,
            format!(
                "{} has the pins of an agent that no longer runs: {links} interfaces stay guarded \
                 without an agent",
                path.display()
            ),
            match config.on_exit {
                OnExit::Keep if status.is_none() => {
                    "start nomail-agent, which takes them over, or: nomail-agent detach"
                }
                _ => "nomail-agent detach",
            },
        ),
    }
}

#[cfg(test)]
mod tests;
