//! Peers that stand still, start again, or come back after a long time.

use super::prober::World;
use super::*;

const TTL: Duration = Duration::from_secs(10);

/// `frozen` of 50 peers stand still for 12 s; endpoints are registered at all of them.
fn freeze(seed: u64, frozen: usize) {
    let world = World::new(10, seconds(2));
    let common = Common {
        world: Some(world),
        ..Common::new(seed)
    };
    let peers = if is_long() { 50 } else { 20 };
    let mut net = common.fleet(peers);
    let spec = upstream(0);
    // Of 50 peers a few hear of some of it only when they compare what they know.
    for _ in 0..10 {
        for index in 0..peers {
            register(&mut net, index, index, TTL);
        }
        net.run(seconds(4));
        if is_equal(&net) {
            break;
        }
    }
    for index in 0..frozen {
        net.freeze(index, seconds(12));
    }
    for second in 0..60 {
        for index in 0..peers {
            // Who registers at one that stands still waits for an answer.
            let stands = index < frozen && second < 12;
            if !stands && second % 3 == 0 {
                register(&mut net, index, index, TTL);
            }
            if !stands && second % 4 == index % 4 {
                let there = registered_at(&mut net, index, &spec);
                assert_eq!(there, peers, "second {second}, peer {index}");
            }
        }
        net.run(seconds(1));
        for (index, machine) in net.running() {
            let down = machine.prober.as_ref().map_or(0, Prober::down);
            assert_eq!(down, 0, "second {second}, peer {index}");
        }
    }
    assert!(is_one(&net), "all are back");
    assert!(is_equal(&net));
    for index in 0..frozen {
        let stalled = net.get(index).unwrap().peer.counts().stalled;
        assert!(stalled > 10_000_000_000, "{stalled}");
    }
    for index in frozen..peers {
        let stalled = net.get(index).unwrap().peer.counts().stalled;
        assert_eq!(stalled, 0, "nobody else stood still");
    }
}

#[test]
fn peer_that_stands_still_takes_no_endpoint_away() {
    each_seed(1, 200, |seed| freeze(seed, 1));
}

#[test]
fn peers_that_stand_still_take_no_endpoint_away() {
    each_seed(1, 200, |seed| freeze(seed, 4));
}

/// Who starts again, by the word of its snapshot or without one, and how it went.
#[test]
fn rolling_restarts_lose_nobody_and_nothing() {
    each_seed(1, 200, |seed| {
        let peers = 10;
        let common = Common::new(seed);
        let mut net = common.fleet(peers);
        let spec = upstream(0);
        let ttl = seconds(30);
        for index in 0..peers {
            register(&mut net, index, index, ttl);
        }
        let mut rng = Rng::new(seed);
        for round in 0..100 {
            let index = round % peers;
            let facts = snapshot(&net, index);
            let leaves = rng.below(2) == 0;
            let forgets = rng.below(4) == 0;
            if leaves {
                net.with(index, |machine, clock| machine.peer.leave(clock));
                net.run(Duration::from_millis(100));
            }
            net.crash(index);
            net.run(Duration::from_millis(200 + rng.below(2000) as u64));
            let clock = net.clock(index);
            let facts = if forgets { Vec::new() } else { facts };
            let facts = restored(facts, clock);
            net.start(index, common.start(index, facts));
            net.run(seconds(8));
            for at in 0..peers {
                register(&mut net, at, at, ttl);
            }
            net.run(seconds(1));
            let live = net.get(index).unwrap().peer.live().len();
            assert_eq!(live, peers - 1, "round {round}");
            assert_eq!(registered_at(&mut net, 0, &spec), peers, "round {round}");
        }
        net.run(seconds(15));
        assert!(is_one(&net), "the count is right");
        for index in 0..peers {
            assert_eq!(registered_at(&mut net, index, &spec), peers);
        }
        assert!(net.run_until(seconds(30), is_equal).is_some());
    });
}

/// Away for so many hours; what is left of what the others took back in that time. `forgets` = what is older than
/// [`GC_AFTER`] is not used, as `facts::snapshot::load` has it.
fn away(seed: u64, hours: u64, forgets: bool) -> usize {
    let common = Common::new(seed);
    let mut net = common.fleet(3);
    let n = 5;
    for n in 0..n {
        say(&mut net, 0, n, Some(Word::Drain));
        register(&mut net, 1, n, seconds(3600 * 24));
    }
    net.run(seconds(30));
    assert!(is_equal(&net));
    let (facts, saved) = (snapshot(&net, 2), net.clock(2).unix_ms);
    net.crash(2);
    net.run(seconds(60));
    for n in 0..n {
        say(&mut net, 0, n, None);
        net.with(1, |machine, clock| {
            machine.peer.deregister(&app(), &endpoint(n), clock);
        });
    }
    net.run(seconds(60));
    // Hours of nothing, without the work of it: the two start again as if they had never stopped.
    let others = [snapshot(&net, 0), snapshot(&net, 1)];
    net.crash(0);
    net.crash(1);
    net.run(seconds(hours * 3600));
    for (index, facts) in others.into_iter().enumerate() {
        let facts = restored(facts, net.clock(index));
        net.start(index, common.start(index, facts));
    }
    net.run(seconds(30));
    let clock = net.clock(2);
    let age = Duration::from_millis(clock.unix_ms - saved);
    let facts = if forgets && age > GC_AFTER {
        Vec::new()
    } else {
        facts
    };
    net.start(2, common.start(2, restored(facts, clock)));
    net.run(seconds(60));
    assert!(is_equal(&net));
    let counts = net.get(0).unwrap().peer.facts().counts();
    counts.overrides + counts.registrations
}

#[test]
fn what_was_taken_back_while_a_peer_was_away_does_not_come_back() {
    each_seed(2, 50, |seed| {
        assert_eq!(away(seed, 23, true), 0);
        assert_eq!(away(seed, 25, true), 0);
        assert_eq!(away(seed, 25, false), 10, "this is what would come back");
    });
}
