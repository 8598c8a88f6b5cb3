//! Other domains that mail arrives for: while an MX record of one points here, its
//! mail does not reach its readers. Without clock or file.
//!
//! A client can name any domain, so what one network says counts little. A domain that
//! several networks ask for comes before one that a single network asks for; a network has
//! a quota; and one that names many domains once each is looking for an open relay.
//!
//! Times are in seconds since the Unix epoch.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, hash_map},
    fmt::Write as _,
    net::IpAddr,
    num::NonZeroUsize,
};

use lru::LruCache;

use super::{command::DOMAIN_MAX, epoch::is_recent, network::SenderNetwork, relay::to_ascii};

/// Domains that are kept at most.
pub const DOMAINS_MAX: usize = 256;
/// Of these, domains that only one network has asked for.
const SINGLES_MAX: usize = DOMAINS_MAX / 4;
/// Domains that are kept at most of those that one network named first.
const OF_NETWORK_MAX: usize = 8;
/// Networks of a domain that are told apart.
const NETWORKS_MAX: usize = 8;
/// Networks whose new domains are counted.
const NAMING_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// A network that names more new domains than this in a day is looking for an open relay.
const PROBE_DOMAINS: u32 = 3;
/// How long a warning waits to see whether the network names other domains as well.
const SETTLE_SECS: u32 = 60;
/// A network that asks again after this time is no probe: probes do not return.
const REPEAT_SECS: u32 = 600;
/// The time after which a warning about a domain is repeated.
const WARN_SECS: u32 = 24 * 3600;
/// Warnings in that time at most, for domains of a single network and for domains of
/// several each.
const WARNINGS_MAX: u32 = 32;
/// A domain that no network asks for in this time is forgotten.
const AGE_SECS: u32 = 14 * 24 * 3600;

/// Bytes of saved domains at most.
pub const FILE_MAX: usize = HEADER.len() + 1 + DOMAINS_MAX * LINE_MAX;
/// Bytes of a line at most: a domain, three times, a count, a mark, networks.
const LINE_MAX: usize = DOMAIN_MAX + 4 * 11 + 21 + 2 + NETWORKS_MAX * 20;
/// The first line of saved domains.
const HEADER: &str = "nomail domains 1";

/// The other domains that mail arrives for, at most [`DOMAINS_MAX`].
#[derive(Clone, Debug)]
pub struct ForeignDomains {
    domains: HashMap<Box<str>, DomainRecord>,
    naming: LruCache<SenderNetwork, NewDomains>,
    own: OwnNames,
    /// Warnings since `warned_since`: for domains of one network, and of several.
    warned: [u32; 2],
    warned_since: u32,
}

/// Names of this host, whose mail is expected here.
#[derive(Clone, Debug, Default)]
struct OwnNames {
    exact: HashSet<Box<str>>,
    /// Domains of which all subdomains are names of this host.
    parents: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct DomainRecord {
    /// At least one, at most [`NETWORKS_MAX`]; the first named the domain first.
    networks: Vec<SenderNetwork>,
    recipients: u64,
    first: u32,
    last: u32,
    /// A network asked for it again after [`REPEAT_SECS`].
    repeated: bool,
    /// The last warning.
    warned: Option<u32>,
    /// The peer that asked last, since the start.
    peer: Option<IpAddr>,
}

impl DomainRecord {
    fn is_single(&self) -> bool {
        self.networks.len() == 1
    }
}

/// How many new domains a network has named.
#[derive(Clone, Copy, Debug)]
struct NewDomains {
    since: u32,
    count: u32,
}

/// One of the [`ForeignDomains`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDomain {
    /// In lower case, ASCII, without a final dot.
    pub name: String,
    /// Networks (/24, /48) that asked for it; 8 means 8 or more.
    pub networks: usize,
    /// Recipients that were refused.
    pub recipients: u64,
    /// When it was asked for first.
    pub first: u32,
    /// When it was asked for last.
    pub last: u32,
    /// Whether it does not look like a test for an open relay.
    pub suspect: bool,
    /// The peer that asked last, unless that was before the start.
    pub peer: Option<IpAddr>,
}

impl Default for ForeignDomains {
    fn default() -> Self {
        Self {
            domains: HashMap::new(),
            naming: LruCache::new(NAMING_MAX),
            own: OwnNames::default(),
            warned: [0; 2],
            warned_since: 0,
        }
    }
}

impl ForeignDomains {
    /// Sets the host's other names; `*.example.org` means all subdomains of `example.org`.
    pub fn set_own(&mut self, names: impl IntoIterator<Item = impl AsRef<str>>) {
        self.own = OwnNames::default();
        for name in names {
            let name = name.as_ref().to_ascii_lowercase().into_boxed_str();
            match name.strip_prefix("*.") {
                Some(parent) => self.own.parents.push(parent.into()),
                None => drop(self.own.exact.insert(name)),
            }
        }
        let own = &self.own;
        self.domains.retain(|name, _| !own.has(name));
    }

    /// Records a recipient at `domain`, which is not this host's name, if `keep` is set.
    /// Returns whether it may be real mail: for a name that public DNS can have, and none of
    /// this host's.
    pub fn record(&mut self, domain: &[u8], peer: IpAddr, now: u32, keep: bool) -> bool {
        let mut buffer = [0; DOMAIN_MAX];
        let a_labels = match domain.is_ascii() {
            true => None,
            false => to_ascii(domain),
        };
        let domain = a_labels.as_ref().map_or(domain, |name| name.as_bytes());
        let Some(name) = public_name(domain, &mut buffer) else {
            return false;
        };
        if self.own.has(name) {
            return false;
        }
        if keep {
            self.keep(name, peer, now);
        }
        true
    }

    fn keep(&mut self, name: &str, peer: IpAddr, now: u32) {
        let network = SenderNetwork::from(peer);
        if let Some(entry) = self.domains.get_mut(name) {
            entry.repeated |=
                entry.networks.contains(&network) && now.saturating_sub(entry.last) >= REPEAT_SECS;
            if !entry.networks.contains(&network) && entry.networks.len() < NETWORKS_MAX {
                entry.networks.push(network);
            }
            entry.recipients = entry.recipients.saturating_add(1);
            entry.last = now;
            entry.peer = Some(peer);
            return;
        }
        let naming = self.naming.get_or_insert_mut(network, || NewDomains {
            since: now,
            count: 0,
        });
        if now.saturating_sub(naming.since) >= WARN_SECS {
            *naming = NewDomains {
                since: now,
                count: 0,
            };
        }
        naming.count = naming.count.saturating_add(1);
        // A network that makes up domains must not cause a search of all for each.
        if naming.count as usize > 4 * OF_NETWORK_MAX || !self.make_room(network, now) {
            return;
        }
        let entry = DomainRecord {
            networks: vec![network],
            recipients: 1,
            first: now,
            last: now,
            repeated: false,
            warned: None,
            peer: Some(peer),
        };
        self.domains.insert(name.into(), entry);
    }

    /// Returns whether a domain that `network` is the first to name may be kept, after
    /// making room for it.
    fn make_room(&mut self, network: SenderNetwork, now: u32) -> bool {
        self.domains
            .retain(|_, entry| is_recent(AGE_SECS, entry.last, now));
        let mut named_first: HashMap<SenderNetwork, usize> = HashMap::new();
        let mut singles = 0;
        for entry in self.domains.values() {
            *named_first.entry(entry.networks[0]).or_default() += 1;
            singles += usize::from(entry.is_single());
        }
        if named_first.get(&network).copied().unwrap_or(0) >= OF_NETWORK_MAX
            && nomail_common::Mechanism::DomainsOfNetwork.is_on()
        {
            return false;
        }
        if self.domains.len() < DOMAINS_MAX {
            return true;
        }
        // A new domain replaces one of a single network, of the network that
        // has most of them; where these are few, the one of fewest networks among the others.
        let among_singles = singles >= SINGLES_MAX;
        let rank = |entry: &DomainRecord| {
            let of_network = named_first.get(&entry.networks[0]).copied().unwrap_or(0);
            match among_singles {
                true => (usize::MAX - of_network, entry.last),
                false => (entry.networks.len(), entry.last),
            }
        };
        let entries = self.domains.iter();
        let victim = entries
            .filter(|(_, entry)| entry.is_single() == among_singles)
            .min_by_key(|(_, entry)| rank(entry))
            .map(|(name, _)| name.clone());
        victim.is_some_and(|victim| self.domains.remove(&victim).is_some())
    }

    /// Returns how many domains only this network has asked for, for each network.
    fn singles(&self) -> HashMap<SenderNetwork, u32> {
        let mut singles = HashMap::new();
        for entry in self.domains.values().filter(|entry| entry.is_single()) {
            *singles.entry(entry.networks[0]).or_default() += 1;
        }
        singles
    }

    /// Whether a domain looks like real mail and not like a test for an open relay:
    /// `singles` and the new domains of today show whether its network names many.
    fn is_suspect(&self, entry: &DomainRecord, singles: &HashMap<SenderNetwork, u32>) -> bool {
        let names_many = |network: &SenderNetwork| {
            let named = self.naming.peek(network).map_or(0, |naming| naming.count);
            let kept = singles.get(network).copied().unwrap_or(0);
            named.max(kept) > PROBE_DOMAINS
        };
        !entry.is_single() || entry.repeated || !entry.networks.iter().any(names_many)
    }

    /// Returns the domains to warn about now, those that most networks ask for first.
    pub fn take_due(&mut self, now: u32) -> Vec<ForeignDomain> {
        if now.saturating_sub(self.warned_since) >= WARN_SECS {
            self.warned = [0; 2];
            self.warned_since = now;
        }
        let singles = self.singles();
        let mut due: Vec<_> = self
            .domains
            .iter()
            .filter(|(_, entry)| {
                let settled = !entry.is_single() || now.saturating_sub(entry.first) >= SETTLE_SECS;
                let again = entry.warned.is_none_or(|warned| {
                    now.saturating_sub(warned) >= WARN_SECS && entry.last > warned
                });
                settled && again && self.is_suspect(entry, &singles)
            })
            .map(|(name, entry)| self.shown(name, entry, &singles))
            .collect();
        sort(&mut due);
        due.retain(|domain| {
            let warned = &mut self.warned[usize::from(domain.networks > 1)];
            let room = *warned < WARNINGS_MAX;
            *warned += u32::from(room);
            room
        });
        for domain in &due {
            if let Some(entry) = self.domains.get_mut(domain.name.as_str()) {
                entry.warned = Some(now);
            }
        }
        due
    }

    /// Returns all domains, suspects first, then by networks.
    pub fn list(&self, now: u32) -> Vec<ForeignDomain> {
        let recent = |entry: &&DomainRecord| is_recent(AGE_SECS, entry.last, now);
        let singles = self.singles();
        let mut list: Vec<_> = self
            .domains
            .iter()
            .filter(|(_, entry)| recent(entry))
            .map(|(name, entry)| self.shown(name, entry, &singles))
            .collect();
        sort(&mut list);
        list
    }

    fn shown(
        &self,
        name: &str,
        entry: &DomainRecord,
        singles: &HashMap<SenderNetwork, u32>,
    ) -> ForeignDomain {
        ForeignDomain {
            name: name.to_owned(),
            networks: entry.networks.len(),
            recipients: entry.recipients,
            first: entry.first,
            last: entry.last,
            suspect: self.is_suspect(entry, singles),
            peer: entry.peer,
        }
    }

    /// Returns the domains as text for [`Self::restore`], at most [`FILE_MAX`] bytes.
    ///
    /// A first line with the version, and a line such as
    /// `example.org 1764000000 1764000060 1764000070 12 again 192.0.2.0/24` for each, in
    /// order: first and last recipient, last warning (0: none), recipients, whether the same
    /// network asked again (`again` or `once`), networks.
    pub fn save(&self, now: u32) -> String {
        let mut text = format!("{HEADER}\n");
        let mut entries: Vec<_> = self.domains.iter().collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        for (name, entry) in entries {
            if !is_recent(AGE_SECS, entry.last, now) {
                continue;
            }
            let DomainRecord {
                networks,
                recipients,
                first,
                last,
                repeated,
                warned,
                peer: _,
            } = entry;
            let again = if *repeated { "again" } else { "once" };
            let warned = warned.unwrap_or(0);
            // Writing to a String does not fail.
            let _ = write!(text, "{name} {first} {last} {warned} {recipients} {again}");
            for network in networks {
                let _ = write!(text, " {network}");
            }
            text.push('\n');
        }
        text
    }

    /// Restores the domains that [`Self::save`] wrote, or None if they are not as written.
    /// Times in the future become `now`.
    pub fn restore(file: &[u8], now: u32) -> Option<Self> {
        let text = str::from_utf8(file)
            .ok()
            .filter(|_| file.len() <= FILE_MAX)?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != HEADER {
            return None;
        }
        let mut domains = Self::default();
        for line in lines {
            let (name, entry) = restore_line(line, now)?;
            if domains.domains.len() >= DOMAINS_MAX {
                return None;
            }
            match domains.domains.entry(name.into()) {
                hash_map::Entry::Occupied(_) => return None,
                hash_map::Entry::Vacant(vacant) => drop(vacant.insert(entry)),
            }
        }
        domains
            .domains
            .retain(|_, entry| is_recent(AGE_SECS, entry.last, now));
        Some(domains)
    }
}

fn restore_line(line: &str, now: u32) -> Option<(&str, DomainRecord)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut buffer = [0; DOMAIN_MAX];
    if public_name(name.as_bytes(), &mut buffer)? != name {
        return None;
    }
    let mut time = || Some(words.next()?.parse::<u32>().ok()?.min(now));
    let (first, last, warned) = (time()?, time()?, time()?);
    let recipients = words.next()?.parse().ok()?;
    let repeated = match words.next()? {
        "again" => true,
        "once" => false,
        _ => return None,
    };
    let networks: Option<Vec<_>> = words.map(SenderNetwork::parse).collect();
    let networks = networks.filter(|all| (1..=NETWORKS_MAX).contains(&all.len()))?;
    let entry = DomainRecord {
        networks,
        recipients,
        first,
        last,
        repeated,
        warned: (warned > 0).then_some(warned),
        peer: None,
    };
    Some((name, entry))
}

/// Suspects first, then by networks, recipients, name.
fn sort(domains: &mut [ForeignDomain]) {
    let key = |domain: &ForeignDomain| {
        let weight = (domain.suspect, domain.networks, domain.recipients);
        (std::cmp::Reverse(weight), domain.name.clone())
    };
    domains.sort_by_cached_key(key);
}

impl OwnNames {
    fn has(&self, name: &str) -> bool {
        let below = |parent: &str| {
            let head = name.strip_suffix(parent);
            head.is_some_and(|head| head.len() > 1 && head.ends_with('.'))
        };
        self.exact.contains(name) || self.parents.iter().any(|parent| below(parent))
    }
}

/// Returns `domain` in lower case and without a final dot, if public DNS can have an MX for
/// it: two labels or more of letters, digits, hyphens and underscores, the last neither a
/// number nor one that never leaves a host. An address literal is none.
fn public_name<'a>(domain: &[u8], buffer: &'a mut [u8; DOMAIN_MAX]) -> Option<&'a str> {
    let domain = domain.strip_suffix(b".").unwrap_or(domain);
    let name = buffer.get_mut(..domain.len())?;
    name.copy_from_slice(domain);
    name.make_ascii_lowercase();
    let name = str::from_utf8(name).ok()?;
    let is_label = |label: &str| {
        let fit = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(fit)
    };
    let (_, last) = name.rsplit_once('.')?;
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_local = ["localhost", "localdomain", "local", "invalid"].contains(&last);
    (name.split('.').all(is_label) && !is_number && !is_local).then_some(name)
}
