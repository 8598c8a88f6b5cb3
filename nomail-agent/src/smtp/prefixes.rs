//! Which connection makes room for another when all places are taken.
//!
//! Connections are grouped by the prefix that they come from, an IPv4 /24 or an
//! IPv6 /48, so that one home network with its many /64s counts as one. A newcomer
//! takes the place of a connection of the fullest prefix, the one that was answered
//! longest ago, and only if its own prefix has fewer places: none can push out
//! those that hold less than itself.
//!
//! Every call takes constant time, or in proportion to the logarithm of the number of
//! prefixes that hold more than one place.

use std::collections::{BTreeSet, HashMap};

use super::senders::Network;

/// A prefix that holds more than this part of all places has no grace: the connection of
/// it that was answered longest ago makes room, however short that is. With so
/// many prefixes a table can be filled and none is over its part.
const SHARE: u32 = 64;

/// Memory for so many connections is kept when there are none.
const KEPT_MAX: usize = 1024;

/// The places that are taken.
#[derive(Debug)]
pub(super) struct Prefixes {
    groups: HashMap<Network, Group>,
    /// Groups of several, the fullest last.
    crowded: BTreeSet<(u32, Network)>,
    /// In the order in which they were answered.
    all: List,
    taken: usize,
    /// By the key of the connection. What is not taken is not looked at.
    places: Vec<Place>,
}

/// The connections of one prefix.
#[derive(Debug)]
struct Group {
    count: u32,
    list: List,
}

/// The ends of a list that goes through [`Prefixes::places`].
#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
}

/// No key.
const NONE: u32 = u32::MAX;

/// Where a connection is in both lists.
#[derive(Clone, Copy, Debug)]
struct Place {
    in_group: Neighbours,
    in_all: Neighbours,
}

#[derive(Clone, Copy, Debug)]
struct Neighbours {
    older: u32,
    newer: u32,
}

/// Which of the two lists of a [`Place`].
type Which = fn(&mut Place) -> &mut Neighbours;

const IN_GROUP: Which = |place| &mut place.in_group;
const IN_ALL: Which = |place| &mut place.in_all;

impl List {
    const EMPTY: Self = Self {
        oldest: NONE,
        newest: NONE,
    };

    fn push(&mut self, key: u32, places: &mut [Place], which: Which) {
        *which(&mut places[key as usize]) = Neighbours {
            older: self.newest,
            newer: NONE,
        };
        match self.newest {
            NONE => self.oldest = key,
            newest => which(&mut places[newest as usize]).newer = key,
        }
        self.newest = key;
    }

    fn unlink(&mut self, key: u32, places: &mut [Place], which: Which) {
        let Neighbours { older, newer } = *which(&mut places[key as usize]);
        match older {
            NONE => self.oldest = newer,
            older => which(&mut places[older as usize]).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => which(&mut places[newer as usize]).older = older,
        }
    }
}

impl Prefixes {
    pub(super) fn new() -> Self {
        Self {
            groups: HashMap::new(),
            crowded: BTreeSet::new(),
            all: List::EMPTY,
            taken: 0,
            places: Vec::new(),
        }
    }

    /// How many places are taken.
    pub(super) const fn len(&self) -> usize {
        self.taken
    }

    /// A connection takes a place. Its key is one that no other has now.
    pub(super) fn add(&mut self, network: Network, key: usize) {
        let places = &mut self.places;
        if places.len() <= key {
            let apart = Neighbours {
                older: NONE,
                newer: NONE,
            };
            let place = Place {
                in_group: apart,
                in_all: apart,
            };
            places.resize(key + 1, place);
        }
        let key = key as u32;
        let group = self.groups.entry(network).or_insert(Group {
            count: 0,
            list: List::EMPTY,
        });
        group.list.push(key, places, IN_GROUP);
        self.all.push(key, places, IN_ALL);
        self.taken += 1;
        let count = group.count;
        group.count = count + 1;
        self.move_from(count, count + 1, network);
    }

    /// It gives up its place.
    pub(super) fn remove(&mut self, network: Network, key: usize) {
        let key = key as u32;
        let Some(group) = self.groups.get_mut(&network) else {
            return;
        };
        group.list.unlink(key, &mut self.places, IN_GROUP);
        self.all.unlink(key, &mut self.places, IN_ALL);
        self.taken -= 1;
        let count = group.count;
        group.count = count - 1;
        if count == 1 {
            self.groups.remove(&network);
        }
        self.move_from(count, count - 1, network);
        if self.groups.is_empty() && self.places.len() > KEPT_MAX {
            // After a flood nothing of it is kept.
            *self = Self::new();
        }
    }

    /// It was answered now.
    pub(super) fn touch(&mut self, network: Network, key: usize) {
        let key = key as u32;
        if self.all.newest == key {
            return;
        }
        let Some(group) = self.groups.get_mut(&network) else {
            return;
        };
        group.list.unlink(key, &mut self.places, IN_GROUP);
        group.list.push(key, &mut self.places, IN_GROUP);
        self.all.unlink(key, &mut self.places, IN_ALL);
        self.all.push(key, &mut self.places, IN_ALL);
    }

    fn move_from(&mut self, before: u32, after: u32, network: Network) {
        if before > 1 {
            self.crowded.remove(&(before, network));
        }
        if after > 1 {
            self.crowded.insert((after, network));
        }
    }

    /// The connection that makes room for one of `newcomer`, if one does.
    ///
    /// `network_of` tells the prefix of a connection, `is_idle` whether it was answered
    /// so long ago that its dialog is not going on: outside of prefixes that hold more
    /// than [`SHARE`] of all `places_max` only such a connection is chosen, of the
    /// fullest prefix or else of all.
    pub(super) fn victim(
        &self,
        newcomer: Network,
        places_max: usize,
        network_of: impl Fn(usize) -> Network,
        is_idle: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count_of = |network| self.groups.get(&network).map_or(0, |group| group.count);
        let own = count_of(newcomer);
        let share = (u32::try_from(places_max).unwrap_or(u32::MAX) / SHARE).max(1);
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    /// The `n`th network.
    fn net(n: u32) -> Network {
        Network::from(IpAddr::from(Ipv4Addr::from_bits(n << 8)))
    }

    /// The same, of a list of connections in the order in which they were answered.
    #[derive(Default)]
    struct Model(Vec<(Network, usize)>);

    impl Model {
        fn count(&self, network: Network) -> usize {
            self.0.iter().filter(|(of, _)| *of == network).count()
        }

        fn network_of(&self, key: usize) -> Network {
            self.0.iter().find(|(_, k)| *k == key).unwrap().0
        }

        fn victim(&self, newcomer: Network, share: usize, idle: &[bool]) -> Option<usize> {
            let own = self.count(newcomer);
            let fullest = self.0.iter().map(|(of, _)| (self.count(*of), *of)).max()?;
            if fullest.0 > 1 && fullest.0 > own {
                let oldest = self.0.iter().find(|(of, _)| *of == fullest.1)?.1;
                if fullest.0 > share || idle[oldest] {
                    return Some(oldest);
                }
            }
            let (network, oldest) = self.0[0];
            (self.count(network) > own && idle[oldest]).then_some(oldest)
        }
    }

    fn victim(prefixes: &Prefixes, model: &Model, newcomer: Network, max: usize) -> Option<usize> {
        prefixes.victim(newcomer, max, |key| model.network_of(key), |_| true)
    }

    #[test]
    fn one_home_network_makes_room_for_others_and_not_for_itself() {
        let (mut prefixes, mut model) = (Prefixes::new(), Model::default());
        for key in 0..10 {
            let network = net(u32::from(key >= 8));
            prefixes.add(network, key);
            model.0.push((network, key));
        }
        assert_eq!(victim(&prefixes, &model, net(0), 10), None);
        assert_eq!(victim(&prefixes, &model, net(1), 10), Some(0));
        assert_eq!(victim(&prefixes, &model, net(2), 10), Some(0));
        prefixes.touch(net(0), 0);
        assert_eq!(victim(&prefixes, &model, net(2), 10), Some(1));
    }

    #[test]
    fn of_networks_with_one_place_the_idle_one_makes_room() {
        let (mut prefixes, mut model) = (Prefixes::new(), Model::default());
        for key in 0..10 {
            prefixes.add(net(key as u32), key);
            model.0.push((net(key as u32), key));
        }
        assert_eq!(victim(&prefixes, &model, net(10), 10), Some(0));
        assert_eq!(victim(&prefixes, &model, net(3), 10), None);
        let busy = prefixes.victim(net(10), 10, |key| model.network_of(key), |_| false);
        assert_eq!(busy, None);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Add(u32),
        Remove(prop::sample::Index),
        Touch(prop::sample::Index),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (0u32..5).prop_map(Event::Add),
            2 => any::<prop::sample::Index>().prop_map(Event::Remove),
            3 => any::<prop::sample::Index>().prop_map(Event::Touch),
        ];
        prop::collection::vec(event, 0..80)
    }

    proptest! {
        #[test]
        fn the_lists_say_what_the_rules_say(
            events in events(),
            idle in prop::collection::vec(any::<bool>(), 80),
            share in 1usize..6,
        ) {
            let (mut prefixes, mut model) = (Prefixes::new(), Model::default());
            for event in events {
                match event {
                    Event::Add(network) => {
                        let taken = |key: &usize| model.0.iter().any(|(_, k)| k == key);
                        let key = (0..).find(|key| !taken(key)).unwrap();
                        prefixes.add(net(network), key);
                        model.0.push((net(network), key));
                    }
                    Event::Remove(at) if !model.0.is_empty() => {
                        let (network, key) = model.0.remove(at.index(model.0.len()));
                        prefixes.remove(network, key);
                    }
                    Event::Touch(at) if !model.0.is_empty() => {
                        let (network, key) = model.0.remove(at.index(model.0.len()));
                        prefixes.touch(network, key);
                        model.0.push((network, key));
                    }
                    Event::Remove(_) | Event::Touch(_) => {}
                }
                for newcomer in 0..6 {
                    let found = prefixes.victim(
                        net(newcomer),
                        share * SHARE as usize,
                        |key| model.network_of(key),
                        |key| idle[key],
                    );
                    prop_assert_eq!(found, model.victim(net(newcomer), share, &idle));
                }
            }
        }
    }
}
