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

/// How one comes back that was away.
#[derive(Clone, Copy, PartialEq)]
enum Back {
    /// As `runtime::fleet` has it: what is older than [`GC_AFTER`] is kept aside.
    AsItIs,
    /// It tells all that it knew.
    Telling,
}

/// One that knew these facts at `saved`, in milliseconds since 1970, and begins now.
fn back(common: &Common, index: usize, facts: Vec<Fact>, saved: u64) -> impl FnOnce(Now) -> Whole {
    let common = common.clone();
    move |clock| {
        let is_past = u128::from(clock.unix_ms - saved) > GC_AFTER.as_millis();
        if !is_past {
            return Whole::new(common.settings(index, restored(facts, clock), clock), clock);
        }
        let mut settings = common.settings(index, Facts::default(), clock);
        settings.about.knows_since_unix_ms = clock.unix_ms;
        let mut whole = Whole::new(settings, clock);
        whole.peer.remember(facts, saved, clock);
        whole
    }
}

/// Away for so many hours; what is left of what the others took back in that time.
fn away(seed: u64, hours: u64, how: Back) -> usize {
    let common = Common::new(seed);
    let mut net = common.fleet(3);
    let spec = upstream(10);
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
    if how == Back::AsItIs {
        net.start(2, back(&common, 2, facts, saved));
        if net.clock(2).unix_ms - saved > GC_AFTER.as_millis() as u64 {
            assert_eq!(
                drained_at(&mut net, 2, &spec),
                n,
                "alone it does as it was told"
            );
        }
    } else {
        let facts = restored(facts, net.clock(2));
        net.start(2, common.start(2, facts));
    }
    net.run(seconds(120));
    assert!(is_equal(&net));
    if how == Back::AsItIs {
        assert!(net.get(2).unwrap().peer.past().is_none());
        assert_eq!(drained_at(&mut net, 2, &spec), 0);
    }
    let counts = net.get(0).unwrap().peer.facts().counts();
    counts.overrides + counts.registrations
}

/// How many endpoints drain, as a peer sees it.
fn drained_at(net: &mut Fleet, index: usize, spec: &config::Upstream) -> usize {
    let told = told_at(net, index, spec);
    let is_off = |spoken: &&Spoken| {
        let state = spoken.state.as_ref();
        state.is_some_and(|heard| heard.value.is_some())
    };
    told.values().filter(is_off).count()
}

#[test]
fn what_was_taken_back_while_a_peer_was_away_does_not_come_back() {
    each_seed(2, 50, |seed| {
        assert_eq!(away(seed, 23, Back::AsItIs), 0);
        assert_eq!(away(seed, 25, Back::AsItIs), 0);
        let told = away(seed, 25, Back::Telling);
        assert_eq!(told, 10, "this is what would come back");
    });
}

/// All are off for a weekend, and none of what operators said is lost; what one of them had taken back while
/// another was off already stays taken back.
#[test]
fn fleet_that_was_away_as_a_whole_knows_what_it_knew() {
    each_seed(2, 50, |seed| {
        let common = Common::new(seed);
        let mut net = common.fleet(4);
        let spec = upstream(12);
        for n in 0..6 {
            say(&mut net, n % 4, n, Some(Word::Drain));
        }
        net.run(seconds(30));
        assert!(is_equal(&net));
        let early = (snapshot(&net, 3), net.clock(3).unix_ms);
        net.crash(3);
        net.run(seconds(60));
        say(&mut net, 0, 0, None);
        say(&mut net, 1, 1, Some(Word::Disable));
        net.run(seconds(30));
        let late: Vec<_> = (0..3)
            .map(|index| (snapshot(&net, index), net.clock(index).unix_ms))
            .collect();
        for index in 0..3 {
            net.crash(index);
        }
        net.run(seconds(50 * 3600));
        let all: Vec<_> = late.into_iter().chain([early]).collect();
        // Not all at once, and the one that knows least first.
        for (index, (facts, saved)) in all.into_iter().enumerate().rev() {
            net.start(index, back(&common, index, facts, saved));
            net.run(seconds(7));
        }
        for index in 0..4 {
            assert!(drained_at(&mut net, index, &spec) >= 5, "from the start");
        }
        let took = net.run_until(seconds(180), |net| {
            is_equal(net) && net.running().all(|(_, m)| m.peer.past().is_none())
        });
        println!("one again after {took:?}");
        assert!(took.is_some());
        for index in 0..4 {
            assert_eq!(drained_at(&mut net, index, &spec), 5, "{index}");
            assert_eq!(word_at(&net, index, 0), None);
            assert_eq!(word_at(&net, index, 1), Some(Word::Disable));
        }
    });
}

/// It has nobody to ask: for as long as that is so, all holds, and what is said meanwhile too. Who comes later, and is
/// new, is told.
#[test]
fn who_was_away_alone_forgets_nothing() {
    let common = Common::new(1);
    let mut net = common.fleet(1);
    let spec = upstream(6);
    for n in 0..3 {
        say(&mut net, 0, n, Some(Word::Drain));
    }
    let (facts, saved) = (snapshot(&net, 0), net.clock(0).unix_ms);
    net.crash(0);
    net.run(seconds(60 * 3600));
    net.start(0, back(&common, 0, facts, saved));
    net.run(seconds(3600));
    assert_eq!(drained_at(&mut net, 0, &spec), 3);
    say(&mut net, 0, 1, None);
    assert_eq!(drained_at(&mut net, 0, &spec), 2, "taken back");
    // Saved and started again, it is where it was.
    let peer = &net.get(0).unwrap().peer;
    let past = peer.past().unwrap();
    assert_eq!(past.saved_unix_ms(), saved);
    let facts: Vec<Fact> = peer.facts().iter().chain(past.facts()).cloned().collect();
    net.crash(0);
    net.run(seconds(60));
    net.start(0, back(&common, 0, facts, saved));
    assert_eq!(drained_at(&mut net, 0, &spec), 2);
    net.run(seconds(60));
    net.add(addr(1), common.fresh(1));
    let told = net.run_until(seconds(120), |net| {
        is_one(net) && is_equal(net) && word_at(net, 1, 2).is_some()
    });
    assert!(told.is_some());
    assert_eq!(drained_at(&mut net, 1, &spec), 2);
}

/// All are off for longer than anything is remembered. One that begins with an empty disk is there first, and alone for
/// hours: it knows nothing of what operators said, so it is no reason to drop that.
#[test]
fn who_never_knew_what_was_said_takes_nothing_back() {
    each_seed(2, 50, |seed| {
        let common = Common::new(seed);
        let mut net = common.fleet(2);
        let spec = upstream(6);
        for n in 0..3 {
            say(&mut net, n % 2, n, Some(Word::Drain));
        }
        net.run(seconds(30));
        assert!(is_equal(&net));
        let saved: Vec<_> = (0..2)
            .map(|index| (snapshot(&net, index), net.clock(index).unix_ms))
            .collect();
        net.crash(0);
        net.crash(1);
        net.run(seconds(26 * 3600));
        net.add(addr(2), common.fresh(2));
        net.run(seconds(2 * 3600));
        for (index, (facts, saved)) in saved.into_iter().enumerate() {
            net.start(index, back(&common, index, facts, saved));
            net.run(seconds(7));
        }
        let told = net.run_until(seconds(180), |net| {
            is_one(net) && is_equal(net) && net.running().all(|(_, m)| m.peer.past().is_none())
        });
        assert!(told.is_some());
        for index in 0..3 {
            assert_eq!(drained_at(&mut net, index, &spec), 3, "{index}");
        }
    });
}

/// Who compared with one that knew knows it as well, over a restart too: what was taken back stays taken back, though
/// nobody else is left who saw that.
#[test]
fn who_learnt_what_was_said_knows_what_was_taken_back() {
    each_seed(2, 50, |seed| {
        let common = Common::new(seed);
        let mut net = common.fleet(2);
        let spec = upstream(6);
        (0..3).for_each(|n| say(&mut net, 0, n, Some(Word::Drain)));
        net.run(seconds(30));
        let (facts, saved) = (snapshot(&net, 1), net.clock(1).unix_ms);
        net.crash(1);
        net.run(seconds(60));
        let began = net.clock(0).unix_ms;
        net.add(addr(2), common.fresh(2));
        let learnt = net.run_until(seconds(60), |net| is_one(net) && is_equal(net));
        assert!(learnt.is_some());
        net.run(seconds(30));
        assert!(
            about_of(&net, 0, 2).knows_since_unix_ms < began,
            "as the one that it asked"
        );
        (0..3).for_each(|n| say(&mut net, 2, n, None));
        net.run(seconds(30));
        let (learnt, of_then) = (snapshot(&net, 2), about_of(&net, 2, 2).knows_since_unix_ms);
        net.crash(0);
        net.crash(2);
        net.run(seconds(23 * 3600));
        let again = common.clone();
        net.start(2, move |clock| {
            let mut settings = again.settings(2, restored(learnt, clock), clock);
            settings.about.knows_since_unix_ms = of_then;
            Whole::new(settings, clock)
        });
        net.run(seconds(3 * 3600));
        net.start(1, back(&common, 1, facts, saved));
        assert_eq!(
            drained_at(&mut net, 1, &spec),
            3,
            "alone it does as it was told"
        );
        net.run(seconds(120));
        assert!(is_equal(&net));
        for index in [1, 2] {
            assert_eq!(drained_at(&mut net, index, &spec), 0, "{index}");
        }
    });
}
