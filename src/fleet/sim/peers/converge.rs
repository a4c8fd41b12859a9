//! What is said becomes known: in foul weather, after a split, in a burst.

use super::*;

/// How long after the last of many things that happened at many peers all know the same.
fn after_the_last(seed: u64, peers: usize, operations: usize) -> Option<Duration> {
    let mut net = Common::new(seed).fleet(peers);
    net.weather = Weather::foul(0.05);
    let mut rng = Rng::new(seed);
    for _ in 0..operations {
        happen_somewhere(&mut net, &mut rng);
        net.run(Duration::from_millis(rng.below(100) as u64));
    }
    net.run_until(seconds(60), is_equal)
}

#[test]
fn what_happens_anywhere_is_known_everywhere_in_foul_weather() {
    let (peers, operations) = if is_long() { (50, 1000) } else { (50, 200) };
    each_seed(1, 200, |seed| {
        let took = after_the_last(seed, peers, operations);
        println!("equal {took:?} after the last of {operations}");
        assert!(took.is_some_and(|took| took <= seconds(30)));
    });
}

#[test]
fn halves_that_were_apart_know_the_same_soon_after_they_meet() {
    let (peers, minutes) = if is_long() { (50, 60) } else { (20, 3) };
    each_seed(1, 200, |seed| {
        let mut net = Common::new(seed).fleet(peers);
        let mut rng = Rng::new(seed);
        net.split(|index| index % 2);
        for _ in 0..minutes {
            for _ in 0..10 {
                happen_somewhere(&mut net, &mut rng);
                net.run(seconds(6));
            }
        }
        assert!(
            net.running()
                .all(|(_, m)| m.peer.live().len() == peers / 2 - 1)
        );
        assert!(!is_equal(&net));
        net.heal();
        net.clear_traffic();
        let took = net.run_until(seconds(120), is_equal);
        let (mut bytes, mut dials) = (0, 0);
        for index in 0..peers {
            bytes += net.traffic(index).message_bytes;
            dials += net.traffic(index).dials;
        }
        println!("equal {took:?} after they met, {bytes} B in {dials} streams");
        assert!(took.is_some_and(|took| took <= seconds(30)));
        assert!(net.run_until(seconds(60), is_one).is_some());
    });
}

#[test]
fn burst_reaches_everybody() {
    let (peers, updates) = if is_long() { (1000, 1000) } else { (60, 200) };
    each_seed(1, 200, |seed| {
        // What each says of itself is told at the same time: as many facts again.
        let mut net = Common::new(seed).met_fleet(peers);
        net.weather = Weather {
            loss: 0.01,
            ..Weather::FAIR
        };
        for n in 0..updates {
            say(&mut net, n * 7 % peers, n, Some(Word::Drain));
        }
        let took = net.run_until(seconds(30), is_equal);
        println!("equal {took:?} after the burst");
        for (index, machine) in net.running() {
            let known = machine.peer.facts().counts().overrides;
            assert_eq!(known, updates, "missing at {index}");
        }
    });
}
