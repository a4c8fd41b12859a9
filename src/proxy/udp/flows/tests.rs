use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::*;
use crate::base::rng::Rng;

const S: Nanos = 1_000_000_000;

fn client(host: u32, port: u16) -> (Key, Source) {
    let ip = IpAddr::V4(Ipv4Addr::from_bits(host));
    let key = Key::of_address(SocketAddr::new(ip, port), None);
    (key, Source::of(ip))
}

fn bounds(flows: usize, of_source: usize) -> Bounds {
    Bounds { flows, of_source }
}

/// Begins a flow that holds `name`, and says who had to go.
fn begin(
    flows: &mut Flows<u32>,
    (key, source): (Key, Source),
    now: Nanos,
    bounds: Bounds,
    name: u32,
) -> (Id, Vec<(Evicted, u32)>) {
    let mut gone = Vec::new();
    while let Some(evicted) = flows.make_room(source, bounds) {
        gone.push(evicted);
    }
    (flows.insert(key, source, now, name), gone)
}

#[test]
fn a_key_leads_to_its_flow_until_that_ends() {
    let mut flows = Flows::new(1);
    let (id, _) = begin(&mut flows, client(1, 1), 0, bounds(9, 9), 7);
    assert_eq!(flows.find(&client(1, 1).0), Some(id));
    assert_eq!(flows.find(&client(1, 2).0), None);
    assert_eq!(flows.get(id), Some(&mut 7));
    assert_eq!(flows.remove(id), Some(7));
    assert_eq!(flows.remove(id), None);
    assert_eq!(flows.find(&client(1, 1).0), None);
    let (next, _) = begin(&mut flows, client(2, 1), 0, bounds(9, 9), 8);
    assert_eq!(flows.get(id), None, "its slot is another's");
    assert_eq!(Id::from_bits(next.to_bits()), next);
}

#[test]
fn the_quietest_flow_goes_when_the_table_is_full() {
    let mut flows = Flows::new(1);
    let bounds = bounds(3, 9);
    let (first, _) = begin(&mut flows, client(1, 1), 1, bounds, 1);
    begin(&mut flows, client(2, 1), 2, bounds, 2);
    begin(&mut flows, client(3, 1), 3, bounds, 3);
    flows.ask(first, 4);
    let (_, gone) = begin(&mut flows, client(4, 1), 5, bounds, 4);
    assert_eq!(gone, [(Evicted::Full, 2)]);
    let (_, gone) = begin(&mut flows, client(5, 1), 6, bounds, 5);
    assert_eq!(gone, [(Evicted::Full, 3)]);
    assert_eq!(flows.len(), 3);
}

#[test]
fn a_source_above_its_share_loses_its_own_quietest_flow() {
    let mut flows = Flows::new(1);
    let bounds = bounds(9, 2);
    begin(&mut flows, client(1, 1), 0, bounds, 1);
    let (loud, _) = begin(&mut flows, client(2, 1), 1, bounds, 2);
    begin(&mut flows, client(2, 2), 2, bounds, 3);
    flows.answer(loud, 3, None);
    let (_, gone) = begin(&mut flows, client(2, 3), 4, bounds, 4);
    assert_eq!(gone, [(Evicted::Source, 3)]);
    assert_eq!(flows.len(), 3);
}

#[test]
fn all_addresses_of_a_64_are_one_source() {
    let mut flows = Flows::new(1);
    for host in 0..10u128 {
        let ip = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host));
        let key = Key::of_address(SocketAddr::new(ip, 5), None);
        begin(&mut flows, (key, Source::of(ip)), 0, bounds(9, 4), 0);
    }
    assert_eq!(flows.len(), 4);
    assert_eq!(flows.sources.len(), 1);
}

#[test]
fn flows_that_were_quiet_for_too_long_expire_in_their_order() {
    let mut flows = Flows::new(1);
    let bounds = bounds(9, 9);
    let (first, _) = begin(&mut flows, client(1, 1), 0, bounds, 1);
    begin(&mut flows, client(2, 1), S, bounds, 2);
    flows.answer(first, 2 * S, None);
    flows.ask(first, 2 * S);
    begin(&mut flows, client(3, 1), 3 * S, bounds, 3);
    assert_eq!(flows.next_expiry(5 * S), Some(6 * S));
    assert_eq!(flows.expire(6 * S - 1, 5 * S), None);
    assert_eq!(flows.expire(6 * S, 5 * S), Some(2));
    assert_eq!(flows.expire(6 * S, 5 * S), None);
    assert_eq!(flows.next_expiry(5 * S), Some(7 * S));
    // A reload may make the time shorter.
    assert_eq!(flows.expire(6 * S, S), Some(1));
    assert_eq!(flows.expire(6 * S, S), Some(3));
    assert_eq!(flows.next_expiry(S), None);
}

#[test]
fn as_many_answers_as_are_due_for_each_datagram_end_a_flow() {
    let mut flows = Flows::new(1);
    let (id, _) = begin(&mut flows, client(1, 1), 0, bounds(9, 9), 1);
    // A resolver asks for A and AAAA from one port.
    flows.ask(id, 0);
    assert!(!flows.answer(id, 0, Some(1)));
    assert!(flows.answer(id, 0, Some(1)));
    let (id, _) = begin(&mut flows, client(1, 2), 0, bounds(9, 9), 1);
    assert!(!flows.answer(id, 0, Some(3)));
    assert!(!flows.answer(id, 0, Some(3)));
    assert!(flows.answer(id, 0, Some(3)));
    assert!(!flows.answer(id, 0, None));
}

#[test]
fn more_keys_lead_to_a_flow_and_go_with_it() {
    let mut flows = Flows::new(1);
    let bounds = bounds(9, 9);
    let (a, _) = begin(&mut flows, (Key::of_id(b"a"), client(1, 1).1), 0, bounds, 1);
    let (b, _) = begin(&mut flows, (Key::of_id(b"b"), client(1, 1).1), 0, bounds, 2);
    flows.add_key(a, client(1, 1).0);
    assert_eq!(flows.find(&client(1, 1).0), Some(a));
    // The newest flow of an address has it.
    flows.add_key(b, client(1, 1).0);
    assert_eq!(flows.find(&client(1, 1).0), Some(b));
    flows.remove(a);
    assert_eq!(flows.find(&client(1, 1).0), Some(b));
    for id in 0..100u8 {
        flows.add_key(b, Key::of_id(&[b'x', id]));
    }
    assert_eq!(flows.keys.len(), MAX_KEYS, "bounded");
    assert_eq!(
        flows.find(&Key::of_id(b"b")),
        Some(b),
        "its first one stays"
    );
    assert_eq!(flows.find(&Key::of_id(&[b'x', 99])), Some(b));
    assert_eq!(flows.find(&Key::of_id(&[b'x', 0])), None);
    flows.remove(b);
    assert!(flows.keys.is_empty());
    flows.add_key(b, client(1, 1).0);
    assert!(flows.keys.is_empty(), "nobody has it");
}

/// A client that took a new id after each silence lost its flow at the seventh: its address had been pushed out.
#[test]
fn a_key_that_is_added_again_is_the_last_to_go() {
    let mut flows = Flows::new(1);
    let first = (Key::of_id(b"first"), client(1, 1).1);
    let (id, _) = begin(&mut flows, first, 0, bounds(9, 9), 1);
    let address = client(1, 1).0;
    flows.add_key(id, address);
    for n in 0..100u8 {
        assert_eq!(flows.find(&address), Some(id), "{n}");
        flows.add_key(id, address);
        flows.add_key(id, Key::of_id(&[b'x', n]));
    }
    assert_eq!(flows.keys.len(), MAX_KEYS, "bounded");
    flows.remove(id);
    assert!(flows.keys.is_empty());
}

#[test]
fn a_client_that_moves_counts_where_it_is() {
    let mut flows = Flows::new(1);
    let (id, _) = begin(&mut flows, client(1, 1), 0, bounds(9, 1), 1);
    flows.set_source(id, client(2, 1).1);
    let (_, gone) = begin(&mut flows, client(1, 2), 1, bounds(9, 1), 2);
    assert_eq!(gone, []);
    let (_, gone) = begin(&mut flows, client(2, 2), 2, bounds(9, 1), 3);
    assert_eq!(gone, [(Evicted::Source, 1)]);
    assert_eq!(flows.sources.len(), 2);
}

/// Who forges a client's address has him lose what nobody has shown to be his.
#[test]
fn a_flood_in_the_name_of_a_client_leaves_him_his_flows() {
    let mut flows = Flows::new(1);
    let bounds = bounds(1000, 80);
    let mut proven = Vec::new();
    for n in 0..70 {
        let (id, _) = begin(&mut flows, client(1, n), 0, bounds, u32::from(n));
        flows.answer(id, 1, None);
        flows.ask(id, 2);
        proven.push(id);
    }
    for n in 0..10_000u16 {
        let now = u64::from(n) + 3;
        let forged = client(1, 1000 + n);
        let (id, _) = begin(&mut flows, forged, now, bounds, 1000 + u32::from(n));
        flows.answer(id, now, None);
    }
    assert!(proven.iter().all(|id| flows.get(*id).is_some()));
    assert_eq!(flows.len(), 80);
    // As many as he may have, all proven, do not keep new ones out.
    for n in 0..80 {
        let (id, _) = begin(&mut flows, client(2, n), 20_000, bounds, u32::from(n));
        flows.answer(id, 20_000, None);
        flows.ask(id, 20_000);
    }
    for n in 0..10u16 {
        let newcomer = client(2, 1000 + n);
        let (_, gone) = begin(&mut flows, newcomer, 20_001, bounds, 1000 + u32::from(n));
        assert_eq!(gone, [(Evicted::Source, u32::from(n))]);
    }
}

/// A million forged sources against a table of a thousand: its memory stays what it is, the hundred
/// clients that talk with their endpoints stay, and so does whoever the endpoint answers often enough.
#[test]
fn a_flood_of_forged_sources_evicts_itself() {
    let mut flows = Flows::new(1);
    let bounds = bounds(1000, 100);
    let mut proven = Vec::new();
    for n in 0..100 {
        let (id, _) = begin(&mut flows, client(n, 1), 0, bounds, n);
        flows.answer(id, 1, None);
        flows.ask(id, 2);
        proven.push(id);
    }
    // One datagram to us, answers ever since.
    let (listener, _) = begin(&mut flows, client(100, 1), 2, bounds, 100);
    for n in 0..1_000_000u32 {
        let now = u64::from(n) + 10;
        let (id, gone) = begin(&mut flows, client(1 << 24 | n, 1), now, bounds, 1 << 24 | n);
        assert!(
            gone.iter()
                .all(|(why, name)| *why == Evicted::Full && *name > 100)
        );
        // The endpoint answers those who do not exist, too.
        flows.answer(id, now, None);
        if n % 500 == 0 {
            flows.answer(listener, now, None);
        }
    }
    assert_eq!(flows.len(), 1000);
    assert_eq!(flows.slots.len(), 1000, "memory is bounded");
    assert_eq!(flows.sources.len(), 1000);
    assert!(flows.keys.capacity() <= 4096, "{}", flows.keys.capacity());
    for id in proven {
        assert!(flows.get(id).is_some());
    }
    assert!(flows.get(listener).is_some());
}

#[test]
fn proven_flows_leave_an_eighth_to_newcomers() {
    let mut flows = Flows::new(1);
    let bounds = bounds(80, 100);
    for n in 0..80 {
        let (id, _) = begin(&mut flows, client(n, 1), u64::from(n), bounds, n);
        flows.answer(id, u64::from(n), None);
        flows.ask(id, u64::from(n));
    }
    // The quietest ten go, then newcomers replace each other.
    for n in 0..30 {
        let now = u64::from(n) + 100;
        let (_, gone) = begin(&mut flows, client(1000 + n, 1), now, bounds, 1000 + n);
        let expected = if n < 10 { n } else { 1000 + n - 10 };
        assert_eq!(gone, [(Evicted::Full, expected)]);
    }
}

#[test]
fn a_reload_may_make_the_table_smaller() {
    let mut flows = Flows::new(1);
    for n in 0..10 {
        begin(&mut flows, client(n, 1), u64::from(n), bounds(10, 9), n);
    }
    let (_, gone) = begin(&mut flows, client(10, 1), 10, bounds(3, 9), 10);
    assert_eq!(gone.len(), 8);
    assert_eq!(flows.len(), 3);
    let (_, gone) = begin(&mut flows, client(11, 1), 11, bounds(0, 0), 11);
    assert_eq!(gone.len(), 3, "0 counts as 1");
}

#[test]
fn all_can_be_taken_out() {
    let mut flows = Flows::new(1);
    for n in 0..10 {
        begin(&mut flows, client(n, 1), u64::from(n), bounds(10, 9), n);
    }
    let mut names = Vec::new();
    while let Some(name) = flows.pop() {
        names.push(name);
    }
    assert_eq!(names, (0..10).collect::<Vec<_>>());
    assert!(flows.keys.is_empty() && flows.sources.len() == 0);
}

/// Remembers everything, and looks through all of it each time.
#[derive(Debug, Default)]
struct Model {
    /// In the order in which they were last heard of.
    flows: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    name: u32,
    source: u32,
    last: Nanos,
    asked: u64,
    answered: u64,
    is_proven: bool,
}

impl Model {
    fn heard(&mut self, name: u32, now: Nanos) -> &mut Known {
        let at = self.flows.iter().position(|f| f.name == name).unwrap();
        let mut flow = self.flows.remove(at);
        flow.last = now;
        self.flows.push(flow);
        self.flows.last_mut().unwrap()
    }

    fn evict(&mut self, source: u32, bounds: Bounds) -> Option<(Evicted, u32)> {
        let own = |f: &Known| f.source == source;
        if self.flows.iter().filter(|f| own(f)).count() >= bounds.of_source {
            let name = self.take(bounds.of_source, own)?;
            return Some((Evicted::Source, name));
        }
        if self.flows.len() < bounds.flows {
            return None;
        }
        let name = self.take(bounds.flows, |_| true)?;
        Some((Evicted::Full, name))
    }

    /// The one that goes of those for whom there is room for `most`.
    fn take(&mut self, most: usize, is_one: impl Fn(&Known) -> bool) -> Option<u32> {
        let proven = |f: &Known| is_one(f) && f.is_proven;
        let many = self.flows.iter().filter(|f| proven(f)).count() > most - most / 8;
        let wanted = |f: &Known| is_one(f) && f.is_proven == many;
        let at = self.flows.iter().position(wanted);
        let at = at.or_else(|| self.flows.iter().position(proven))?;
        Some(self.flows.remove(at).name)
    }
}

#[test]
fn the_table_does_what_a_simple_model_does() {
    let seeds = match std::env::var("ISOBAR_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..50).collect(),
    };
    for seed in seeds {
        run(seed);
    }
}

/// One random life of a table beside its model; a failure names the seed.
fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let bounds = bounds(1 + rng.below(24), 1 + rng.below(6));
    let idle = 1 + rng.below(60) as u64;
    let mut flows: Flows<u32> = Flows::new(seed);
    let mut model = Model::default();
    let mut ids: HashMap<u32, Id> = HashMap::new();
    let mut now = 0;
    for step in 0..3000 {
        now += rng.below(4) as u64;
        let context = format!("ISOBAR_SEED={seed}, step {step}");
        let name = rng.below(60) as u32;
        let source = name % 10;
        let (key, of) = client(source, name as u16);
        let id = flows.find(&key);
        let known = model.flows.iter().any(|f| f.name == name);
        assert_eq!(id.is_some(), known, "{context}");
        match (rng.below(13), id) {
            (0..4, None) => {
                let (id, gone) = begin(&mut flows, (key, of), now, bounds, name);
                let mut expected = Vec::new();
                while let Some(evicted) = model.evict(source, bounds) {
                    expected.push(evicted);
                }
                assert_eq!(gone, expected, "{context}");
                model.flows.push(Known {
                    name,
                    source,
                    last: now,
                    asked: 1,
                    answered: 0,
                    is_proven: false,
                });
                ids.insert(name, id);
            }
            (0..4, Some(id)) => {
                flows.ask(id, now);
                let flow = model.heard(name, now);
                flow.asked += 1;
                flow.is_proven = flow.answered > 0;
            }
            (4..7, Some(id)) => {
                let each = 1 + rng.below(3) as u32;
                let is_over = flows.answer(id, now, Some(each));
                let flow = model.heard(name, now);
                flow.answered += 1;
                assert_eq!(
                    is_over,
                    flow.answered >= flow.asked * u64::from(each),
                    "{context}"
                );
            }
            (7, Some(id)) => {
                assert_eq!(flows.remove(id), Some(name), "{context}");
                model.flows.retain(|f| f.name != name);
            }
            (8, _) => {
                let first = model.flows.iter().map(|f| f.last + idle).min();
                assert_eq!(flows.next_expiry(idle), first, "{context}");
                let mut gone = Vec::new();
                while let Some(name) = flows.expire(now, idle) {
                    gone.push(name);
                }
                let is_old = |f: &Known| now >= f.last + idle;
                let mut expected: Vec<_> = model
                    .flows
                    .iter()
                    .filter(|f| is_old(f))
                    .map(|f| f.name)
                    .collect();
                model.flows.retain(|f| !is_old(f));
                // Of one moment the order is no matter.
                gone.sort_unstable();
                expected.sort_unstable();
                assert_eq!(gone, expected, "{context}");
            }
            (10, Some(id)) => {
                let source = rng.below(10) as u32;
                flows.set_source(id, client(source, 0).1);
                flows.ask(id, now);
                let flow = model.heard(name, now);
                flow.source = source;
                flow.asked += 1;
                flow.is_proven = flow.answered > 0;
            }
            (11, _) => {
                let at = model.flows.iter().position(|f| !f.is_proven);
                let expected = at.map(|at| model.flows.remove(at).name);
                assert_eq!(flows.shed(), expected, "{context}");
            }
            (12, Some(id)) => {
                flows.add_key(id, Key::of_id(&[b'k', name as u8]));
                let more = flows.find(&Key::of_id(&[b'k', name as u8]));
                assert_eq!(more, Some(id), "{context}");
            }
            // What has gone stays gone, whoever has its slot.
            _ => {
                if let Some(id) = ids.get(&name).filter(|_| !known) {
                    assert_eq!(flows.get(*id), None, "{context}");
                    flows.ask(*id, now);
                    assert!(!flows.answer(*id, now, Some(1)), "{context}");
                }
            }
        }
        let more = flows.find(&Key::of_id(&[b'k', name as u8]));
        let is_there = model.flows.iter().any(|f| f.name == name);
        assert!(more.is_none() || is_there, "{context}");
        assert_eq!(flows.len(), model.flows.len(), "{context}");
        assert!(flows.len() <= bounds.flows, "{context}");
    }
}

#[test]
fn what_is_shed_is_the_quietest_flow_that_is_not_proven() {
    let mut flows = Flows::new(1);
    let bounds = bounds(9, 9);
    assert_eq!(flows.shed(), None);
    let (proven, _) = begin(&mut flows, client(1, 1), 1, bounds, 1);
    flows.answer(proven, 2, None);
    flows.ask(proven, 3);
    let (first, _) = begin(&mut flows, client(2, 1), 4, bounds, 2);
    begin(&mut flows, client(3, 1), 5, bounds, 3);
    flows.ask(first, 6);
    assert_eq!(flows.shed(), Some(3));
    assert_eq!(flows.shed(), Some(2));
    assert_eq!(flows.shed(), None, "a client that is there stays");
    assert_eq!(flows.len(), 1);
}
