use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;

/// The `n`th network.
fn net(n: u32) -> SenderNetwork {
    SenderNetwork::from(IpAddr::from(Ipv4Addr::from_bits(n << 8)))
}

/// The rules on a plain list of connections, in the order in which they were answered.
#[derive(Default)]
struct Model(Vec<(SenderNetwork, usize)>);

impl Model {
    fn count(&self, network: SenderNetwork) -> usize {
        self.0.iter().filter(|(of, _)| *of == network).count()
    }

    fn network_of(&self, key: usize) -> SenderNetwork {
        self.0.iter().find(|(_, k)| *k == key).unwrap().0
    }

    fn victim(&self, newcomer: SenderNetwork, share: usize, idle: &[bool]) -> Option<usize> {
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

fn victim(
    order: &EvictionOrder,
    model: &Model,
    newcomer: SenderNetwork,
    max: usize,
) -> Option<usize> {
    order.victim(newcomer, max, |key| model.network_of(key), |_| true)
}

#[test]
fn one_home_network_makes_room_for_others_and_not_for_itself() {
    let (mut order, mut model) = (EvictionOrder::new(), Model::default());
    for key in 0..10 {
        let network = net(u32::from(key >= 8));
        order.add(network, key);
        model.0.push((network, key));
    }
    assert_eq!(victim(&order, &model, net(0), 10), None);
    assert_eq!(victim(&order, &model, net(1), 10), Some(0));
    assert_eq!(victim(&order, &model, net(2), 10), Some(0));
    order.touch(net(0), 0);
    assert_eq!(victim(&order, &model, net(2), 10), Some(1));
}

#[test]
fn of_networks_with_one_place_the_idle_one_is_evicted() {
    let (mut order, mut model) = (EvictionOrder::new(), Model::default());
    for key in 0..10 {
        order.add(net(key as u32), key);
        model.0.push((net(key as u32), key));
    }
    assert_eq!(victim(&order, &model, net(10), 10), Some(0));
    assert_eq!(victim(&order, &model, net(3), 10), None);
    let busy = order.victim(net(10), 10, |key| model.network_of(key), |_| false);
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
        let (mut order, mut model) = (EvictionOrder::new(), Model::default());
        for event in events {
            match event {
                Event::Add(network) => {
                    let taken = |key: &usize| model.0.iter().any(|(_, k)| k == key);
                    let key = (0..).find(|key| !taken(key)).unwrap();
                    order.add(net(network), key);
                    model.0.push((net(network), key));
                }
                Event::Remove(at) if !model.0.is_empty() => {
                    let (network, key) = model.0.remove(at.index(model.0.len()));
                    order.remove(network, key);
                }
                Event::Touch(at) if !model.0.is_empty() => {
                    let (network, key) = model.0.remove(at.index(model.0.len()));
                    order.touch(network, key);
                    model.0.push((network, key));
                }
                Event::Remove(_) | Event::Touch(_) => {}
            }
            for newcomer in 0..6 {
                let found = order.victim(
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
