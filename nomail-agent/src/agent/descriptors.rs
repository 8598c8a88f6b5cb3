//! The limit of descriptors, and the connections that it suffices for.

use log::warn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nomail_common::abi::MAX_GUARDED;

use crate::{config, smtp::settings::SHED_MAX};

/// Descriptors besides those of connections: listeners, maps, netlink, log.
pub(crate) const DESCRIPTORS_SPARE: u64 = 512 + MAX_GUARDED as u64;

/// Most connections that the descriptors suffice for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionBudget {
    /// Those that are served.
    pub(super) connections: u32,
    /// Those that are shed, and linger.
    pub(super) shed: usize,
}

impl ConnectionBudget {
    const MAX: Self = Self {
        connections: config::CONNECTIONS_MAX,
        shed: SHED_MAX,
    };

    /// Half of few descriptors at most is for everything but connections; half of the rest
    /// is for those that are shed.
    fn of(descriptors: u64) -> Self {
        let free = descriptors - DESCRIPTORS_SPARE.min(descriptors / 2);
        let shed = (free / 2).min(SHED_MAX as u64);
        Self {
            connections: u32::try_from(free - shed).unwrap_or(u32::MAX),
            shed: shed as usize,
        }
    }
}

/// Raises the limit as far as allowed, at most to what a reload may configure. Warns if it
/// does not suffice for `connections`.
pub(super) fn raise_limit(connections: u32) -> ConnectionBudget {
    let besides = SHED_MAX as u64 + DESCRIPTORS_SPARE;
    let most = u64::from(config::CONNECTIONS_MAX) + besides;
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return ConnectionBudget::MAX;
    }
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    let budget = match allowed {
        Ok(hard) => ConnectionBudget::of(hard),
        Err(error) => {
            warn!("the limit of descriptors cannot be raised: {error}");
            ConnectionBudget::MAX
        }
    };
    if budget.connections < connections {
        warn!(
            "limits.connections is {connections}, but the descriptors that are allowed suffice \
             for {}: raise LimitNOFILE to {}",
            budget.connections,
            u64::from(connections) + besides
        );
    }
    budget
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_shared_out() {
        let few = ConnectionBudget::of(1024);
        assert_eq!((few.connections, few.shed), (256, 256));
        let none = ConnectionBudget::of(0);
        assert_eq!((none.connections, none.shed), (0, 0));
        let many = ConnectionBudget::of(1 << 20);
        assert_eq!(many.shed, SHED_MAX);
        let sum = u64::from(many.connections) + many.shed as u64 + DESCRIPTORS_SPARE;
        assert_eq!(sum, 1 << 20);
    }
}
