//! The suite every policy must pass, bounded and unbounded; a new policy joins by being in
//! [`ALL`](super::fixture::ALL).

use std::collections::HashSet;

use super::fixture::{ALL, Bench, HASHING, members};
use super::{Member, Policy, PolicyKind};

/// A fresh bench of every policy, the hash policies once more with bounded load.
fn benches(weights: &[u32]) -> Vec<Bench> {
    let plain = ALL.into_iter().map(|kind| Bench::new(kind, weights));
    let bounded = HASHING
        .into_iter()
        .map(|kind| Bench::bounded(kind, weights, 1.25));
    plain.chain(bounded).collect()
}

/// Distinct members picked, with and without keys.
fn reached(bench: &mut Bench) -> HashSet<usize> {
    (0..600u32)
        .filter_map(|n| match n % 2 {
            0 => bench.pick(),
            _ => bench.pick_key(&n.to_le_bytes()),
        })
        .collect()
}

#[test]
fn nobody_there_gives_none() {
    for mut bench in benches(&[]) {
        assert_eq!(bench.pick(), None, "{bench:?}");
        assert_eq!(bench.pick_key(b"key"), None);
        assert_eq!(bench.pick_after(&[0, 7]), None);
    }
}

#[test]
fn nobody_ready_gives_none() {
    for mut bench in benches(&[1, 2, 0]) {
        bench.ready = vec![false; 3];
        bench.rebuild();
        assert_eq!(bench.pick(), None, "{bench:?}");
        assert_eq!(bench.pick_key(b"key"), None);
        bench.set_ready(1, true);
        assert_eq!(bench.pick(), Some(1), "it comes back");
    }
}

#[test]
fn the_only_ready_one_gets_everything_even_when_tried() {
    for mut bench in benches(&[3, 1, 2]) {
        bench.set_ready(0, false);
        bench.set_ready(2, false);
        assert_eq!(reached(&mut bench), HashSet::from([1]));
        assert_eq!(bench.pick_after(&[1]), Some(1));
        assert_eq!(bench.ask(Some(b"key"), &[1, 0, 2]), Some(1));
    }
}

#[test]
fn never_one_that_is_not_ready() {
    for mut bench in benches(&[1, 5, 2, 1, 1, 4]) {
        // Every readiness there is.
        for mask in 1u32..64 {
            bench.ready = (0..6).map(|i| mask >> i & 1 == 1).collect();
            bench.rebuild();
            for n in 0..40u32 {
                let tried = [n as usize % 6];
                for pick in [bench.pick(), bench.ask(Some(&n.to_le_bytes()), &tried)] {
                    assert!(bench.ready[pick.unwrap()], "{pick:?} of {:?}", bench.ready);
                }
            }
        }
    }
}

#[test]
fn weight_zero_gets_nothing_while_anyone_has_weight() {
    for mut bench in benches(&[0, 1, 0, 2]) {
        assert!(reached(&mut bench).is_subset(&HashSet::from([1, 3])));
        bench.set_ready(1, false);
        assert_eq!(reached(&mut bench), HashSet::from([3]));
    }
}

#[test]
fn all_weights_zero_count_as_one() {
    for mut bench in benches(&[0, 0, 0]) {
        let everybody = reached(&mut bench);
        assert!(everybody.len() == 3 || is_first(&bench), "{bench:?}");
        // And when only those left are zeros.
        bench.set_weight(1, 7);
        assert_eq!(reached(&mut bench), HashSet::from([1]));
        bench.set_ready(1, false);
        let left = reached(&mut bench);
        assert!(left == HashSet::from([0, 2]) || is_first(&bench) && left == HashSet::from([0]));
    }
}

#[test]
fn members_of_one_name_are_both_used() {
    for mut bench in benches(&[1, 1, 1, 2]) {
        bench.members[1].name = bench.members[0].name.clone();
        bench.members[3].name = bench.members[0].name.clone();
        bench.rebuild();
        let used = reached(&mut bench);
        assert!(used.len() == 4 || is_first(&bench), "{used:?} {bench:?}");
        bench.set_ready(0, false);
        assert!(!reached(&mut bench).contains(&0));
    }
}

#[test]
fn a_weight_change_counts_at_once() {
    for mut bench in benches(&[1, 1]) {
        reached(&mut bench);
        bench.set_weight(0, 0);
        assert_eq!(reached(&mut bench), HashSet::from([1]));
    }
    for kind in HASHING {
        let mut bench = Bench::new(kind, &[1, 1]);
        bench.set_weight(0, 9);
        let counts = bench.count_keys(10_000);
        assert!((8_700..9_300).contains(&counts[0]), "{kind:?} {counts:?}");
    }
}

#[test]
fn members_may_come_and_go() {
    for mut bench in benches(&[1; 8]) {
        for n in [3, 0, 12, 1, 7] {
            bench.members = members(&vec![1; n]);
            bench.ready = vec![true; n];
            bench.loads = (0..n).map(|_| std::sync::Arc::default()).collect();
            bench.rebuild();
            assert!(reached(&mut bench).iter().all(|&i| i < n));
            assert_eq!(bench.pick().is_some(), n > 0);
        }
    }
}

#[test]
fn loads_missing_for_some_members_count_as_idle() {
    for mut bench in benches(&[1; 4]) {
        bench.loads.truncate(1);
        assert!(!reached(&mut bench).is_empty());
    }
}

#[test]
fn tried_members_are_avoided_while_another_is_left() {
    for mut bench in benches(&[1, 50, 1, 1, 1]) {
        for n in 0..300u32 {
            let key = n.to_le_bytes();
            let tried = [1, n as usize % 5, (n as usize / 5) % 5];
            for key in [None, Some(&key[..])] {
                let pick = bench.ask(key, &tried).unwrap();
                assert!(!tried.contains(&pick), "{pick} of {tried:?} {bench:?}");
            }
        }
        assert!(
            bench.pick_after(&[4, 3, 2, 1, 0]).is_some(),
            "all tried: one of them again"
        );
        assert!(
            bench.pick_after(&[99, 0]).is_some(),
            "an index from another generation"
        );
    }
}

#[test]
fn the_same_seeds_give_the_same_picks() {
    for (mut one, mut two) in benches(&[1, 2, 3, 4])
        .into_iter()
        .zip(benches(&[1, 2, 3, 4]))
    {
        assert_eq!(one.picks(500), two.picks(500));
        assert_eq!(one.map_keys(100), two.map_keys(100));
    }
}

#[test]
fn a_flap_moves_only_the_keys_of_the_one_that_flaps() {
    for kind in HASHING {
        for weights in [&[1; 10][..], &[1, 2, 3, 4, 5, 1, 2, 3, 4, 5]] {
            let mut bench = Bench::new(kind, weights);
            let before = bench.map_keys(5_000);
            for flapping in [0, 4, 9] {
                bench.set_ready(flapping, false);
                for (key, (&old, new)) in before.iter().zip(bench.map_keys(5_000)).enumerate() {
                    assert!(
                        new == old || old == flapping,
                        "{kind:?} key {key}: {old} -> {new}"
                    );
                    assert_ne!(new, flapping);
                }
                bench.set_ready(flapping, true);
                assert_eq!(bench.map_keys(5_000), before, "{kind:?}");
            }
        }
    }
}

#[test]
fn a_second_one_out_moves_only_its_own_keys_too() {
    for kind in HASHING {
        let mut bench = Bench::new(kind, &[1; 10]);
        bench.set_ready(3, false);
        let before = bench.map_keys(5_000);
        bench.set_ready(7, false);
        for (&old, new) in before.iter().zip(bench.map_keys(5_000)) {
            assert!(new == old || old == 7, "{kind:?}: {old} -> {new}");
        }
    }
}

#[test]
fn hash_policies_do_not_see_the_order_of_the_members() {
    for kind in HASHING {
        let policy = Policy {
            kind,
            bounded_load: None,
        };
        let list: Vec<Member> = members(&[1, 3, 2, 1, 1, 5, 1, 2]);
        let mut turned = list.clone();
        turned.rotate_left(3);
        turned.swap(1, 6);
        let mut one = Bench::with(policy.clone(), list);
        let mut two = Bench::with(policy, turned);
        for key in 0..5_000u32 {
            let key = key.to_le_bytes();
            let (a, b) = (one.pick_key(&key).unwrap(), two.pick_key(&key).unwrap());
            assert_eq!(one.members[a], two.members[b], "{kind:?}");
        }
    }
}

#[test]
fn without_a_key_hash_policies_spread() {
    for kind in HASHING {
        let counts = Bench::new(kind, &[1; 5]).count(10_000);
        // The ring's own unevenness is the widest: 160 points each.
        assert!(
            counts.iter().all(|&c| (1_500..2_500).contains(&c)),
            "{kind:?} {counts:?}"
        );
    }
}

fn is_first(bench: &Bench) -> bool {
    bench.policy.kind == PolicyKind::First
}
