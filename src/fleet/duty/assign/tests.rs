use super::*;
use crate::base::rng::Rng;

type Peers = Vec<(PeerId, Option<Name>)>;

fn peers(count: u64, rng: &mut Rng) -> Peers {
    (0..count).map(|_| (PeerId(rng.next_u64()), None)).collect()
}

fn endpoint(n: u32) -> EndpointAddr {
    EndpointAddr::Ip(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 80).into())
}

fn subjects(count: u32) -> Vec<u64> {
    (0..count).map(|n| subject("app", &endpoint(n))).collect()
}

#[test]
fn choice_is_the_same_in_every_process_and_version() {
    let peers: Peers = (1..=5).map(|n| (PeerId(n), None)).collect();
    let all = probers(5, &peers, "app", &endpoint(1), None);
    assert_eq!(all, GOLDEN.map(PeerId));
    assert_eq!(probers(3, &peers, "app", &endpoint(1), None), all[..3]);
    assert_ne!(probers(5, &peers, "web", &endpoint(1), None), all);
    let unix = EndpointAddr::Unix("/run/app.sock".into());
    assert_eq!(subject("app", &unix), hash(b"app\0unix:/run/app.sock"));
}

const GOLDEN: [u64; 5] = [5, 4, 2, 1, 3];

#[test]
fn order_of_the_list_does_not_matter() {
    let mut rng = Rng::new(1);
    let mut list = peers(20, &mut rng);
    for (n, (_, zone)) in list.iter_mut().enumerate() {
        *zone = [None, Some("a".into()), Some("b".into())][n % 3].clone();
    }
    // Who is there twice counts once.
    list.push((list[0].0, Some("b".into())));
    let choose = |list: &Peers, n, zone| probers(3, list, "app", &endpoint(n), zone);
    let zones = [None, Some("a"), Some("c")];
    let all = |list: &Peers| -> Vec<_> {
        let numbers = (0..100).flat_map(|n| zones.map(|zone| (n, zone)));
        numbers.map(|(n, zone)| choose(list, n, zone)).collect()
    };
    let before = all(&list);
    for _ in 0..20 {
        let (a, b) = (rng.below(list.len()), rng.below(list.len()));
        list.swap(a, b);
        assert_eq!(all(&list), before, "seed 1");
    }
}

#[test]
fn few_peers_are_all_probers_and_none_are_none() {
    let list = peers(2, &mut Rng::new(2));
    assert_eq!(probers(3, &list, "app", &endpoint(1), None).len(), 2);
    assert_eq!(probers(3, &[], "app", &endpoint(1), None), []);
    assert_eq!(probers(0, &list, "app", &endpoint(1), None), []);
}

#[test]
fn zone_asks_for_itself_if_it_has_enough_peers() {
    let mut list = peers(30, &mut Rng::new(3));
    let zone: Name = "a".into();
    let in_zone: Vec<_> = list.iter().take(3).map(|(id, _)| *id).collect();
    for (_, own) in list.iter_mut().take(3) {
        *own = Some(zone.clone());
    }
    for n in 0..50 {
        let mut chosen = probers(3, &list, "app", &endpoint(n), Some(&zone));
        chosen.sort_unstable();
        let mut expected = in_zone.clone();
        expected.sort_unstable();
        assert_eq!(chosen, expected);
    }
    // With two of three left, the zone of an endpoint does not matter.
    list[0].1 = None;
    for n in 0..50 {
        let of_zone = probers(3, &list, "app", &endpoint(n), Some(&zone));
        assert_eq!(of_zone, probers(3, &list, "app", &endpoint(n), None));
    }
}

/// distributed.md 1.6.2: mean k * M / N, and the most at mean + sqrt(2 * mean * ln N).
#[test]
fn ten_thousand_endpoints_are_spread_evenly_over_a_thousand_peers() {
    let list = peers(1000, &mut Rng::new(4));
    let roster = Roster::new(&list);
    let mut load = HashMap::<PeerId, u32>::new();
    for subject in subjects(10_000) {
        let chosen = roster.probers(3, subject, None);
        assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), 3);
        for prober in chosen {
            *load.entry(prober).or_default() += 1;
        }
    }
    assert_eq!(load.values().sum::<u32>(), 30_000);
    let max = load.values().max().copied().unwrap_or_default();
    let expected = 30.0 + (2.0 * 30.0 * 1000_f64.ln()).sqrt();
    assert!(
        (f64::from(max) - expected).abs() < 5.0,
        "seed 4: {max} of {expected}"
    );
}

#[test]
fn peer_that_comes_or_goes_moves_only_what_it_has() {
    let list = peers(100, &mut Rng::new(5));
    let (with, without) = (Roster::new(&list), Roster::new(&list[1..]));
    let (one, all) = (list[0].0, subjects(10_000));
    let mut moved = 0;
    for subject in &all {
        let with = with.probers(3, *subject, None);
        let mut without = without.probers(3, *subject, None);
        if with.contains(&one) {
            moved += 1;
            // The others stay, and the next one follows.
            let kept = with.iter().filter(|of| **of != one);
            assert!(kept.eq(without.iter().take(2)));
        } else {
            assert_eq!(with, without);
        }
        without.clear();
    }
    // k * M / N = 300.
    assert!((250..350).contains(&moved), "seed 5: {moved}");
}

/// The short way from one roster to the next leads where the long one does.
#[test]
fn steps_miss_nobody() {
    let mut rng = Rng::new(6);
    let zones: [Option<Name>; 3] = [None, Some("a".into()), Some("b".into())];
    let all = subjects(100);
    let (mut kept, mut total) = (0, 0);
    for round in 0..200 {
        let k = 1 + rng.below(4);
        let count = rng.below(16) as u64;
        let mut list = peers(count, &mut rng);
        for (_, zone) in &mut list {
            *zone = zones[rng.below(3)].clone();
        }
        let before = Roster::new(&list);
        for _ in 0..=rng.below(3) {
            match rng.below(3) {
                0 => list.push((PeerId(rng.next_u64()), zones[rng.below(3)].clone())),
                1 if !list.is_empty() => drop(list.swap_remove(rng.below(list.len()))),
                _ => {
                    let (n, zone) = (rng.below(list.len()), rng.below(3));
                    if let Some(peer) = list.get_mut(n) {
                        peer.1 = zones[zone].clone();
                    }
                }
            }
        }
        let after = Roster::new(&list);
        let step = before.step(&after, k);
        for (n, subject) in all.iter().enumerate() {
            let zone = [None, Some("a"), Some("b"), Some("c")][n % 4];
            let old = before.probers(k, *subject, zone);
            let new = after.probers(k, *subject, zone);
            total += 1;
            if !step.moves(&old, *subject, zone) {
                kept += 1;
                assert_eq!(old, new, "seed 6, round {round}, zone {zone:?}");
            }
        }
    }
    assert!(kept * 4 > total, "seed 6: {kept} of {total}");
}
