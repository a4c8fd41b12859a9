//! Wall clocks that are wrong.

use super::*;

/// The clock of one of five peers is wrong by so much for a while.
fn wrong(seed: u64, by_ms: i64) {
    let mut net = Common::new(seed).fleet(5);
    register(&mut net, 4, 50, seconds(3600));
    say(&mut net, 4, 10, Some(Word::Drain));
    say(&mut net, 1, 11, Some(Word::Drain));
    net.run(seconds(15));
    assert!(is_equal(&net));
    net.skew(4, by_ms);
    net.run(seconds(15));
    let before = net.get(0).unwrap().peer.facts().root();

    // What it says is not heard,
    say(&mut net, 4, 1, Some(Word::Drain));
    say(&mut net, 4, 11, None);
    assert_eq!(word_at(&net, 4, 1), Some(Word::Drain), "here it holds");
    assert_eq!(word_at(&net, 4, 11), None);
    register(&mut net, 4, 51, seconds(3600));
    net.run(seconds(30));
    for index in 0..4 {
        let peer = &net.get(index).unwrap().peer;
        assert_eq!(peer.facts().root(), before, "{index}");
    }
    let refused = |index: usize| {
        net.get(index)
            .unwrap()
            .peer
            .counts()
            .refused
            .get("clock")
            .copied()
    };
    assert!((0..4).filter_map(refused).sum::<u64>() > 3, "counted");
    // nothing of the others is lost, and it is one of them.
    say(&mut net, 0, 2, Some(Word::Drain));
    say(&mut net, 0, 11, Some(Word::Disable));
    net.run(seconds(30));
    assert!((0..4).all(|index| word_at(&net, index, 2) == Some(Word::Drain)));
    assert!((0..4).all(|index| word_at(&net, index, 10) == Some(Word::Drain)));
    assert!(is_one(&net));

    // Set right it catches up, and what it says is heard again.
    net.skew(4, 0);
    let took = net.run_until(seconds(60), |net| {
        is_equal(net) && word_at(net, 0, 1).is_some()
    });
    println!("{by_ms} ms: equal {took:?} after it was set right");
    assert!(took.is_some_and(|took| took <= seconds(30)));
    assert_eq!(word_at(&net, 4, 2), Some(Word::Drain));
    // Others said so later.
    assert!((0..5).all(|index| word_at(&net, index, 11) == Some(Word::Disable)));
    let registered = net.get(1).unwrap().peer.facts().counts().registrations;
    assert_eq!(registered, 2);
    say(&mut net, 4, 3, Some(Word::Drain));
    // Of five, two rounds of three tell all, but for one in ten thousand, who learns it by comparing.
    let is_known = |net: &Fleet| (0..5).all(|index| word_at(net, index, 3) == Some(Word::Drain));
    assert!(net.run_until(seconds(15), is_known).is_some());
}

const HOUR: i64 = 3_600_000;

#[test]
fn peer_whose_clock_is_ahead_is_not_heard_until_it_is_right() {
    each_seed(2, 200, |seed| wrong(seed, HOUR));
}

#[test]
fn peer_whose_clock_is_behind_is_not_heard_until_it_is_right() {
    each_seed(2, 200, |seed| wrong(seed, -HOUR));
}

/// Nobody knows it by its right clock: it may be a recording.
#[test]
fn peer_that_starts_with_a_wrong_clock_joins_once_it_is_right() {
    let common = Common::new(1);
    let mut net = common.fleet(3);
    net.crash(2);
    net.run(seconds(60));
    let clock = net.clock(2);
    net.skew(2, HOUR);
    net.start(2, common.start(2, restored(Vec::new(), clock)));
    net.run(seconds(30));
    assert!((0..2).all(|index| net.get(index).unwrap().peer.live().len() == 1));
    net.skew(2, 0);
    let took = net.run_until(seconds(60), |net| is_one(net) && is_equal(net));
    println!("joined {took:?} after it was set right");
    assert!(took.is_some());
}

/// A machine without a clock of its own believes that it is long ago, or long from now, until it is told: it has not
/// known since then what the fleet says.
#[test]
fn who_begins_by_a_wrong_clock_knows_nothing_since_then() {
    for by_ms in [-10_000 * HOUR, 100 * HOUR] {
        let common = Common::new(1);
        let mut net = Fleet::new(common.seed, OVERHEAD);
        let began = net.add(addr(0), common.fresh(0));
        net.run(seconds(60));
        let began = net.clock(began).unix_ms - 60_000;
        net.add(addr(1), common.fresh(1));
        net.add(addr(2), common.fresh(2));
        net.run(seconds(60));
        net.crash(2);
        net.skew(2, by_ms);
        net.run(seconds(60));
        net.start(2, common.fresh(2));
        net.run(seconds(30));
        let wrong = about_of(&net, 2, 2).knows_since_unix_ms;
        assert!(wrong.abs_diff(began) > HOUR as u64);
        net.skew(2, 0);
        let joined = net.run_until(seconds(60), |net| is_one(net) && is_equal(net));
        assert!(joined.is_some());
        net.run(seconds(60));
        for (at, of) in [(0, 0), (0, 1), (0, 2), (2, 2)] {
            let about = about_of(&net, at, of);
            assert_eq!(about.knows_since_unix_ms, began, "{by_ms}: {of}");
            assert!(about.started_unix_ms >= began);
            assert!(about.started_unix_ms <= net.clock(0).unix_ms);
        }
    }
}
