//! From the configuration to the policy that the guard enforces.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use anyhow::anyhow;
use ipnet::IpNet;
use nomail_common::{abi::TEXT_MAX, abi::Texts};

use super::plan::ListenPlan;
use crate::{
    config::{self, Config, Fallback, FloodAnswer, Limits, Responder},
    exit::{Exit, Failure},
    guard::{GuardedInterface, Lists, Policy, Rate},
    net::Interface,
    smtp::{LISTEN_BACKLOG, Replies, replies::Reply},
    status::Speaker,
};

/// The bound of the queues of all listening sockets.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
/// 0 when the kernel accepts no SYN cookies.
pub(super) const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
/// Unproven SYNs per second that may pass while the queue is not full and SYN cookies are
/// the answer: 256 in each jiffy of 4 ms. They have to fill the queue, and must not be a
/// flood by themselves where it never fills, because the agent is stalled.
const COOKIE_CAP: Rate = Rate {
    rate: 64_000,
    burst: 256,
};

/// The part of the configuration that the guard needs.
#[derive(Clone, Debug)]
pub(super) struct GuardSettings {
    pub(super) limits: Limits,
    pub(super) observe: bool,
    /// The lists of the configuration.
    listed: Arc<Lists>,
    denies_nothing: bool,
    /// The lists in force: those, and what is banned besides.
    lists: Arc<Lists>,
    /// The replies of XDP, where it serves without a listener, or in place of one.
    pub(super) texts: Option<Texts>,
    responder: Responder,
    fallback: Fallback,
}

/// The interfaces and addresses to guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// In the order of the guarded interfaces.
    pub(super) interfaces: Vec<GuardedInterface>,
    guarded: HashSet<(IpAddr, u16)>,
    answerable: HashSet<IpAddr>,
    own: HashSet<IpAddr>,
}

impl Targets {
    /// Those of `plan` on `interfaces`.
    pub(super) fn of(interfaces: &[Interface], plan: &ListenPlan) -> Self {
        Self {
            interfaces: interfaces
                .iter()
                .map(|interface| GuardedInterface {
                    index: interface.index,
                    hardware: interface.hardware.unwrap_or_default(),
                    further_hardware: interface.further_hardware.clone(),
                })
                .collect(),
            guarded: plan.guarded(),
            answerable: plan.untagged(),
            own: plan.own(),
        }
    }
}

impl GuardSettings {
    pub(super) fn of(config: &Config, replies: &Replies) -> Result<Self, Failure> {
        let listed = Arc::new(Lists {
            allow: Arc::clone(&config.lists.allow),
            deny: Arc::clone(&config.lists.deny),
        });
        Ok(Self {
            limits: config.limits,
            observe: config.observe,
            lists: Arc::clone(&listed),
            listed,
            denies_nothing: config.lists.denies_nothing,
            texts: texts_of(config, replies)?,
            responder: config.responder,
            fallback: config.fallback,
        })
    }

    /// The same settings, with `banned` denied besides the lists; sorted, without duplicates.
    #[must_use]
    pub(super) fn banning(mut self, banned: &[IpNet]) -> Self {
        // While nothing is denied, any of them may be allowed.
        self.lists = if banned.is_empty() || self.denies_nothing {
            Arc::clone(&self.listed)
        } else {
            Arc::new(Lists {
                allow: Arc::clone(&self.listed.allow),
                deny: union(&self.listed.deny, banned),
            })
        };
        self
    }

    /// The lists in force, and what is banned besides.
    pub(super) fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// The policy for `targets`, as the kernel's settings allow it now.
    pub(super) fn policy(&self, targets: &Targets) -> Policy {
        let limits = &self.limits;
        let flood_answer = match limits.flood_answer {
            FloodAnswer::Cookie if !kernel_takes_syncookies() => FloodAnswer::Challenge,
            // Also where a reload has changed what needs a restart.
            _ if self.texts.is_some() => FloodAnswer::Challenge,
            flood_answer => flood_answer,
        };
        let targets = targets.clone();
        Policy {
            source: Rate {
                rate: limits.syn_rate,
                burst: limits.syn_burst,
            },
            prefix: (limits.prefix_rate > 0).then_some(Rate {
                rate: limits.prefix_rate,
                burst: limits.prefix_burst,
            }),
            cap: Some(cap(limits.unproven_rate, flood_answer)),
            flood_answer,
            observe: self.observe,
            interfaces: targets.interfaces,
            guarded: targets.guarded,
            answerable: targets.answerable,
            own: targets.own,
            lists: Arc::clone(&self.lists),
            responder: self.texts,
            fallback: self.falls_back(),
        }
    }

    /// Whether XDP serves in place of listeners that do not.
    pub(super) fn falls_back(&self) -> bool {
        self.fallback == Fallback::Xdp
    }

    /// Whether XDP serves without a listener.
    pub(super) fn is_stateless(&self) -> bool {
        self.responder == Responder::Xdp
    }

    /// Whether XDP sends anything at all.
    pub(super) fn sends_answers(&self) -> bool {
        let answers_floods = self.limits.flood_answer != FloodAnswer::Drop;
        !self.observe && (answers_floods || self.is_stateless() || self.falls_back())
    }

    /// Who serves, and who serves in its place.
    pub(super) fn speakers(&self) -> (Speaker, Speaker) {
        let by = match self.responder {
            Responder::Listener => Speaker::Listener,
            Responder::Xdp => Speaker::Xdp,
        };
        let fallback = match self.fallback {
            Fallback::None => Speaker::None,
            Fallback::Xdp => Speaker::Xdp,
        };
        (by, fallback)
    }
}

/// The prefixes of two sorted lists: sorted, without duplicates.
fn union(deny: &[IpNet], banned: &[IpNet]) -> Arc<[IpNet]> {
    let mut all = [deny, banned].concat();
    // Two sorted runs are quick for a stable sort.
    all.sort();
    all.dedup();
    all.into()
}

/// The replies of XDP where it serves; none where a reload has brought a `[relay]`, which
/// never greets with 521.
fn texts_of(config: &Config, replies: &Replies) -> Result<Option<Texts>, Failure> {
    let falls_back = config.fallback == Fallback::Xdp && config.relay.is_none();
    if config.responder != Responder::Xdp && !falls_back {
        return Ok(None);
    }
    let [refusal, goodbye] = match config.after_greeting {
        config::AfterGreeting::Hold => [Reply::Refusal, Reply::Goodbye].map(|r| replies.line(r)),
        config::AfterGreeting::Close => [&[][..]; 2],
    };
    let texts = Texts::new(replies.line(Reply::Greeting), refusal, goodbye);
    let too_long = || {
        let error = anyhow!(
            "the host name is too long for XDP, whose replies have at most {TEXT_MAX} bytes: give \
             a shorter hostname, or use responder = \"listener\" and fallback = \"none\""
        );
        Failure::new(Exit::Configuration, error)
    };
    texts.map(Some).ok_or_else(too_long)
}

/// The unproven SYNs that may pass: those that are configured, or what a listener's queue
/// can absorb. A half-open connection that no client completes stays for 7 seconds (two more
/// SYN-ACKs) once the queue is more than half full, and longer before
/// (`reqsk_timer_handler` of Linux). A burst of a quarter and 7 seconds of a sixteenth fill
/// two thirds: a proven SYN must not meet a full queue, or it gets a cookie, which hangs when
/// a packet is lost.
///
/// The kernel's bound is read once: later the agent may not read the file, and a listener
/// keeps the queue that it started with.
fn cap(configured: u32, flood_answer: FloodAnswer) -> Rate {
    static SOMAXCONN_AT_START: OnceLock<Option<u32>> = OnceLock::new();
    let somaxconn = SOMAXCONN_AT_START.get_or_init(|| {
        let text = fs::read_to_string(SOMAXCONN).ok()?;
        text.trim().parse().ok()
    });
    let rate = if configured > 0 {
        configured
    } else if flood_answer == FloodAnswer::Cookie {
        return COOKIE_CAP;
    } else {
        let backlog = LISTEN_BACKLOG.min(somaxconn.unwrap_or(LISTEN_BACKLOG));
        (backlog / 16).max(1)
    };
    Rate {
        rate,
        burst: rate * 4,
    }
}

/// Whether the kernel accepts SYN cookies; false where that cannot be read.
pub(super) fn kernel_takes_syncookies() -> bool {
    fs::read_to_string(SYNCOOKIES).is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &Config) -> GuardSettings {
        let replies = Replies::new("mailless.example.org", None).unwrap();
        GuardSettings::of(config, &replies).unwrap()
    }

    #[test]
    fn answers_matter_where_xdp_sends_some() {
        let mut config = Config::default();
        assert!(settings(&config).sends_answers());
        config.limits.flood_answer = FloodAnswer::Drop;
        assert!(!settings(&config).sends_answers());
        config.responder = Responder::Xdp;
        assert!(settings(&config).sends_answers());
        config.observe = true;
        assert!(!settings(&config).sends_answers());
    }

    #[test]
    fn a_change_of_addresses_copies_no_list() {
        let settings = settings(&Config::default());
        let [before, after] = [(); 2].map(|()| settings.policy(&Targets::default()));
        assert!(Arc::ptr_eq(&before.lists, &after.lists));
    }

    #[test]
    fn bans_are_beside_the_list() {
        let prefixes = |list: &[&str]| -> Arc<[IpNet]> {
            list.iter().map(|prefix| prefix.parse().unwrap()).collect()
        };
        let deny = prefixes(&["192.0.2.7/32", "2001:db8::/32"]);
        let banned = prefixes(&["192.0.2.1/32", "192.0.2.7/32"]);
        let mut config = Config::default();
        Arc::make_mut(&mut config.lists).deny = Arc::clone(&deny);
        let banning = settings(&config).banning(&banned);
        let all = prefixes(&["192.0.2.1/32", "192.0.2.7/32", "2001:db8::/32"]);
        assert_eq!(banning.lists.deny, all);
        let none = banning.banning(&[]);
        assert!(Arc::ptr_eq(&none.lists, &none.listed));
        assert!(Arc::ptr_eq(&none.lists.deny, &deny));
        Arc::make_mut(&mut config.lists).denies_nothing = true;
        let nothing = settings(&config).banning(&banned);
        assert!(Arc::ptr_eq(&nothing.lists, &nothing.listed));
    }

    #[test]
    fn xdp_has_texts_where_it_serves() {
        let mut config = Config::default();
        assert!(settings(&config).texts.is_none());
        config.fallback = Fallback::Xdp;
        assert!(settings(&config).texts.is_some());
        config.fallback = Fallback::None;
        config.responder = Responder::Xdp;
        assert!(settings(&config).texts.is_some());
    }
}
