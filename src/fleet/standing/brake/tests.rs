//! What one peer may take away, and what it may not.

use proptest::prelude::*;

use super::*;

const OWN: PeerId = PeerId(1);
const LIAR: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(3);

const SECOND: Nanos = 1_000_000_000;

fn addr(n: usize) -> EndpointAddr {
    let text = format!("10.0.{}.{}:80", n / 200, n % 200 + 1);
    EndpointAddr::Ip(text.parse().unwrap())
}

fn remover(by: By, origin: PeerId, at: u64) -> Remover {
    Remover {
        by,
        origin,
        stamp: Stamp::at(at),
        what: "drain".to_owned(),
    }
}

fn ask(n: usize, removers: &[Remover]) -> Ask {
    Ask {
        endpoint: addr(n),
        removers: removers.to_vec(),
        is_down: false,
    }
}

/// `origin` drains all of `which`, each a millisecond after the one before.
fn drains(origin: PeerId, which: impl IntoIterator<Item = usize>) -> Vec<Ask> {
    let which = which.into_iter();
    which
        .map(|n| ask(n, &[remover(By::State, origin, n as u64)]))
        .collect()
}

/// Upstream `app` with `all` endpoints is asked for `asks`: which are held.
fn judge(brake: &mut Brake, all: usize, asks: &[Ask], now: Nanos) -> Vec<usize> {
    let addrs: Vec<_> = (0..all).map(addr).collect();
    let members = addrs.iter().collect();
    let time = (now, 1000 + now / 1_000_000);
    brake.judge(&"app".into(), &members, asks, OWN, time);
    let held: BTreeSet<&EndpointAddr> = brake.held().map(|(_, addr, _)| addr).collect();
    (0..all).filter(|n| held.contains(&addr(*n))).collect()
}

#[test]
fn one_peer_takes_its_share_and_the_oldest_first() {
    let mut brake = Brake::new(0.5);
    let mut asks = drains(LIAR, 0..10);
    asks.reverse();
    assert_eq!(judge(&mut brake, 10, &asks, 0), [5, 6, 7, 8, 9]);
    let (upstream, endpoint, held) = brake.held().next().unwrap();
    assert_eq!((&**upstream, endpoint), ("app", &addr(5)));
    assert_eq!(
        *held,
        Braked {
            origin: LIAR,
            what: "drain".to_owned(),
            since_unix_ms: 1000
        }
    );
    // Again and later: the same, held since then.
    assert_eq!(judge(&mut brake, 10, &asks, SECOND), [5, 6, 7, 8, 9]);
    assert!(brake.held().all(|(_, _, held)| held.since_unix_ms == 1000));
    // Another one has a share of its own.
    let mut asks = drains(LIAR, 0..7);
    asks.extend(drains(OTHER, 7..10));
    assert_eq!(judge(&mut brake, 10, &asks, SECOND), [5, 6]);
    assert_eq!(judge(&mut brake, 10, &[], SECOND), [0; 0]);
}

#[test]
fn small_upstreams_lose_one_at_least() {
    for (all, max, held) in [
        (1, 0.5, 0),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (4, 0.5, 2),
        (3, 0.0, 2),
        (3, 1.0, 0),
    ] {
        let mut brake = Brake::new(max);
        assert_eq!(
            judge(&mut brake, all, &drains(LIAR, 0..all), 0).len(),
            held,
            "{all} {max}"
        );
    }
    assert_eq!(share(0.29, 100), 29);
    assert_eq!(share(0.5, 0), 1);
}

#[test]
fn own_word_is_never_held_and_leaves_less_to_share() {
    let mut brake = Brake::new(0.5);
    assert_eq!(judge(&mut brake, 10, &drains(OWN, 0..10), 0), [0; 0]);
    // Without a memory of that: said again by another peer it would be said by two.
    let mut brake = Brake::new(0.5);
    let mut asks = drains(OWN, 0..6);
    asks.extend(drains(LIAR, 6..10));
    assert_eq!(judge(&mut brake, 10, &asks, 0), [8, 9]);
}

#[test]
fn second_word_lets_go_at_once_or_in_place_of_the_first() {
    let mut brake = Brake::new(0.5);
    let both = [remover(By::State, LIAR, 1), remover(By::Member, OTHER, 2)];
    let mut asks = drains(LIAR, 0..3);
    asks.push(ask(3, &both));
    assert_eq!(judge(&mut brake, 4, &asks, 0), [2]);
    // The other one repeats the drain: last writer wins, and there were two.
    asks[2] = ask(2, &[remover(By::State, OTHER, 9)]);
    assert_eq!(judge(&mut brake, 4, &asks, 0), [0; 0]);
    // And takes back what it alone said of 3.
    asks[3] = ask(3, &both[..1]);
    assert_eq!(judge(&mut brake, 4, &asks, 0), [3]);
    // Said by one after a break is said by one.
    asks.remove(2);
    assert_eq!(judge(&mut brake, 4, &asks, 0), [3]);
    asks.push(ask(2, &[remover(By::State, LIAR, 10)]));
    assert_eq!(judge(&mut brake, 4, &asks, 0), [2, 3]);
}

#[test]
fn those_that_are_down_are_let_go_while_they_are() {
    let mut brake = Brake::new(0.5);
    let mut asks = drains(LIAR, 0..4);
    assert_eq!(judge(&mut brake, 4, &asks, 0), [2, 3]);
    asks[3].is_down = true;
    assert_eq!(judge(&mut brake, 4, &asks, 0), [2]);
    // One that takes share keeps it meanwhile.
    asks[0].is_down = true;
    assert_eq!(judge(&mut brake, 4, &asks, 0), [2]);
    asks[0].is_down = false;
    asks[3].is_down = false;
    assert_eq!(judge(&mut brake, 4, &asks, 0), [2, 3]);
}

#[test]
fn what_has_effect_keeps_it_when_the_upstream_shrinks_and_when_it_is_said_again() {
    let mut brake = Brake::new(0.5);
    assert_eq!(judge(&mut brake, 10, &drains(LIAR, 0..5), 0), [0; 0]);
    assert_eq!(judge(&mut brake, 6, &drains(LIAR, 0..5), 0), [0; 0]);
    let mut asks = drains(LIAR, 0..6);
    asks[0] = ask(0, &[remover(By::State, LIAR, 99)]);
    assert_eq!(judge(&mut brake, 6, &asks, 0), [5]);
}

#[test]
fn share_that_is_free_again_goes_to_the_oldest() {
    let mut brake = Brake::new(0.5);
    assert_eq!(judge(&mut brake, 6, &drains(LIAR, 0..6), 0), [3, 4, 5]);
    assert_eq!(judge(&mut brake, 6, &drains(LIAR, 1..6), 0), [4, 5]);
    assert_eq!(judge(&mut brake, 6, &drains(LIAR, 3..6), 0), [0; 0]);
}

#[test]
fn what_ended_takes_share_until_it_has_settled() {
    let mut brake = Brake::new(0.5);
    let ends = |which: std::ops::Range<usize>| -> Vec<Ask> {
        which
            .map(|n| ask(n, &[remover(By::End, LIAR, n as u64)]))
            .collect()
    };
    let app = "app".into();
    let settle = |brake: &mut Brake, which: std::ops::Range<usize>, now| {
        which.for_each(|n| brake.settle(&app, &addr(n), now));
    };
    let of = |brake: &mut Brake, which: std::ops::Range<usize>, now| {
        let addrs: Vec<_> = which.clone().map(addr).collect();
        brake.judge(&app, &addrs.iter().collect(), &ends(which), OWN, (now, 0));
        brake.held().count()
    };
    assert_eq!(of(&mut brake, 0..8, 0), 4);
    settle(&mut brake, 0..4, 0);
    assert_eq!(of(&mut brake, 4..8, SECOND), 4);
    assert_eq!(brake.again_at(&app), Some(nanos(SETTLES)));
    assert_eq!(of(&mut brake, 4..8, nanos(SETTLES) - 1), 4);
    assert_eq!(of(&mut brake, 4..8, nanos(SETTLES)), 2);
    settle(&mut brake, 4..6, nanos(SETTLES));
    assert_eq!(of(&mut brake, 6..8, 2 * nanos(SETTLES)), 1);
    brake.retain(|_| false);
    assert_eq!(brake.held().count(), 0);
    assert_eq!(brake.again_at(&app), None);
}

/// Which endpoint, by whose word (0 = none), and whether it is down.
fn round() -> impl Strategy<Value = Vec<(u64, bool)>> {
    prop::collection::vec((0..5u64, prop::bool::weighted(0.1)), 12)
}

proptest! {
    /// Whatever is said in whatever order, nobody has more than its share: of those that are up and of which it
    /// alone speaks, at most the share that it had at the best of times have effect.
    #[test]
    fn nobody_takes_more_than_its_share(rounds in prop::collection::vec(round(), 1..12), max in 0.0..1.0f64) {
        let mut brake = Brake::new(max);
        let most = share(max, 12);
        for (at, round) in rounds.iter().enumerate() {
            let asks: Vec<Ask> = round.iter().enumerate().filter(|(_, (origin, _))| *origin > 0).map(|(n, (origin, is_down))| {
                Ask { is_down: *is_down, ..ask(n, &[remover(By::State, PeerId(*origin), at as u64)]) }
            }).collect();
            let held = judge(&mut brake, 12, &asks, at as u64);
            let again = judge(&mut brake, 12, &asks, at as u64);
            prop_assert_eq!(&held, &again, "stable");
            let lane = &brake.upstreams["app"];
            for origin in (1..5).map(PeerId) {
                let alone = asks.iter().filter(|a| lane.asked[&a.endpoint].one_origin() == Some(origin));
                let (held, free): (Vec<_>, Vec<_>) = alone.filter(|a| !a.is_down).partition(|a| lane.asked[&a.endpoint].held.is_some());
                if origin == OWN {
                    prop_assert!(held.is_empty());
                } else {
                    prop_assert!(free.len() <= most, "{} of {most}", free.len());
                    // Nobody waits while there is share.
                    let has = lane.asked.values().filter(|a| a.has_share(origin)).count();
                    let own = asks.iter().filter(|a| a.removers[0].origin == OWN).count();
                    prop_assert!(held.is_empty() || has >= share(max, 12 - own));
                }
            }
        }
    }
}
