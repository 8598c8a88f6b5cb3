//! Which connection is evicted for another when all places are taken.
//!
//! Connections are grouped by network, an IPv4 /24 or an
//! IPv6 /48, so that one home network with its many /64s counts as one. A newcomer
//! takes the place of a connection of the fullest network, the one that was answered
//! longest ago, and only if its own network has fewer places: no network can push out
//! those that hold less than itself.
//!
//! Every call takes constant time, or time in proportion to the logarithm of the number of
//! networks that hold more than one place.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use super::network::SenderNetwork;

/// A network that holds more than one part in this many of all places gets no grace: its
/// connection that was answered longest ago is evicted, however recent that was. This
/// many networks can fill all places without any of them being over its part.
const SHARE: u32 = 64;

/// When no connection is left, memory for this many is kept.
const KEPT_MAX: usize = 1024;

/// The active connections, in the order in which they are evicted.
#[derive(Debug)]
pub(super) struct EvictionOrder {
    groups: HashMap<SenderNetwork, Group>,
    /// Groups of more than one, the fullest last.
    crowded: BTreeSet<(u32, SenderNetwork)>,
    /// All connections, in the order in which they were answered.
    all: Recency,
    count: usize,
    /// By the key of the connection. Those of unused keys have no meaning.
    nodes: Vec<Node>,
}

/// The connections of one network.
#[derive(Debug)]
struct Group {
    count: u32,
    list: Recency,
}

/// The ends of a linked list through [`EvictionOrder::nodes`].
#[derive(Clone, Copy, Debug)]
struct Recency {
    oldest: u32,
    newest: u32,
}

/// No key.
const NONE: u32 = u32::MAX;

/// The position of a connection in both of its lists.
#[derive(Clone, Copy, Debug)]
struct Node {
    in_group: Neighbours,
    in_all: Neighbours,
}

#[derive(Clone, Copy, Debug)]
struct Neighbours {
    older: u32,
    newer: u32,
}

/// Selects one of the two lists of a [`Node`].
type Which = fn(&mut Node) -> &mut Neighbours;

const IN_GROUP: Which = |node| &mut node.in_group;
const IN_ALL: Which = |node| &mut node.in_all;

impl Recency {
    const EMPTY: Self = Self {
        oldest: NONE,
        newest: NONE,
    };

    fn push(&mut self, key: u32, nodes: &mut [Node], which: Which) {
        *which(&mut nodes[key as usize]) = Neighbours {
            older: self.newest,
            newer: NONE,
        };
        match self.newest {
            NONE => self.oldest = key,
            newest => which(&mut nodes[newest as usize]).newer = key,
        }
        self.newest = key;
    }

    fn unlink(&mut self, key: u32, nodes: &mut [Node], which: Which) {
        let Neighbours { older, newer } = *which(&mut nodes[key as usize]);
        match older {
            NONE => self.oldest = newer,
            older => which(&mut nodes[older as usize]).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => which(&mut nodes[newer as usize]).older = older,
        }
    }
}

impl EvictionOrder {
    pub(super) fn new() -> Self {
        Self {
            groups: HashMap::new(),
            crowded: BTreeSet::new(),
            all: Recency::EMPTY,
            count: 0,
            nodes: Vec::new(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Adds a connection under a key that no other has now.
    pub(super) fn add(&mut self, network: SenderNetwork, key: usize) {
        let nodes = &mut self.nodes;
        if nodes.len() <= key {
            let apart = Neighbours {
                older: NONE,
                newer: NONE,
            };
            let node = Node {
                in_group: apart,
                in_all: apart,
            };
            nodes.resize(key + 1, node);
        }
        let key = key as u32;
        let group = self.groups.entry(network).or_insert(Group {
            count: 0,
            list: Recency::EMPTY,
        });
        group.list.push(key, nodes, IN_GROUP);
        self.all.push(key, nodes, IN_ALL);
        self.count += 1;
        let count = group.count;
        group.count = count + 1;
        self.set_crowded(network, count, count + 1);
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, network: SenderNetwork, key: usize) {
        let key = key as u32;
        let Some(group) = self.groups.get_mut(&network) else {
            return;
        };
        group.list.unlink(key, &mut self.nodes, IN_GROUP);
        self.all.unlink(key, &mut self.nodes, IN_ALL);
        self.count -= 1;
        let count = group.count;
        group.count = count - 1;
        if count == 1 {
            self.groups.remove(&network);
        }
        self.set_crowded(network, count, count - 1);
        if self.groups.is_empty() && self.nodes.len() > KEPT_MAX {
            // After a flood its memory is given back.
            *self = Self::new();
        }
    }

    /// Moves a connection that was answered now to the end of the order.
    pub(super) fn touch(&mut self, network: SenderNetwork, key: usize) {
        let key = key as u32;
        if self.all.newest == key {
            return;
        }
        let Some(group) = self.groups.get_mut(&network) else {
            return;
        };
        group.list.unlink(key, &mut self.nodes, IN_GROUP);
        group.list.push(key, &mut self.nodes, IN_GROUP);
        self.all.unlink(key, &mut self.nodes, IN_ALL);
        self.all.push(key, &mut self.nodes, IN_ALL);
    }

    fn set_crowded(&mut self, network: SenderNetwork, before: u32, after: u32) {
        if before > 1 {
            self.crowded.remove(&(before, network));
        }
        if after > 1 {
            self.crowded.insert((after, network));
        }
    }

    /// Returns the connection to evict for one of `newcomer`, if there is one.
    ///
    /// `network_of` returns the network of a connection, `is_idle` whether it was answered
    /// so long ago that its dialog is not going on: outside of networks that hold more
    /// than a [`SHARE`]th of `connections_max` only such a connection is evicted, of the
    /// fullest network or else of all.
    pub(super) fn victim(
        &self,
        newcomer: SenderNetwork,
        connections_max: usize,
        network_of: impl Fn(usize) -> SenderNetwork,
        is_idle: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count_of = |network| self.groups.get(&network).map_or(0, |group| group.count);
        let own = count_of(newcomer);
        let share = (u32::try_from(connections_max).unwrap_or(u32::MAX) / SHARE).max(1);
        if let Some(&(count, network)) = self.crowded.last()
            && count > own
            && let Some(group) = self.groups.get(&network)
        {
            let oldest = group.list.oldest as usize;
            if count > share || is_idle(oldest) {
                return Some(oldest);
            }
        }
        let oldest = (self.all.oldest != NONE).then_some(self.all.oldest as usize)?;
        (count_of(network_of(oldest)) > own && is_idle(oldest)).then_some(oldest)
    }
}
