//! Peers that join a fleet which has long said what it says: it has effect with them as it has with the others.

use super::*;
use crate::upstream::overrides::Heard;

/// The upstream of these tests, whose endpoints are checked.
fn checked(listed: usize) -> config::Upstream {
    let list: Vec<String> = (0..listed).map(|n| format!("'{}'", endpoint(n))).collect();
    let text = format!(
        "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n[upstreams.app]\ndynamic = true\nhealth.check = 'tcp'\n\
         endpoints = [{}]\n",
        list.join(", ")
    );
    let config = config::parse("sim", &text).expect("it is right").config;
    config.upstreams[0].clone()
}

fn weigh(net: &mut Fleet, at: usize, n: usize, weight: u32) {
    let key = Key::Override {
        upstream: app(),
        endpoint: endpoint(n),
        part: Part::Weight,
    };
    net.with(at, |machine, clock| {
        let value = said(Word::Weight(weight), clock);
        machine.peer.say(key, value, clock).unwrap();
    });
}

/// Everybody hears of what was said, and looks at it.
fn settle(net: &mut Fleet, spec: &config::Upstream) {
    net.run(seconds(15));
    assert!(is_equal(net));
    let running: Vec<usize> = net.running().map(|(index, _)| index).collect();
    for index in running {
        told_at(net, index, spec);
    }
}

fn held_at(net: &Fleet, index: usize) -> usize {
    net.get(index).unwrap().peer.brake().held().count()
}

fn weight_at(net: &mut Fleet, index: usize, n: usize, spec: &config::Upstream) -> Option<u32> {
    let told = told_at(net, index, spec);
    let heard: Option<&Heard<_>> = told.get(&endpoint(n))?.weight.as_ref();
    Some(heard?.value.as_ref()?.value)
}

/// Weights that two peers have agreed on, and far more endpoints registered at one peer than one may add.
#[test]
fn who_joins_later_holds_nothing_of_what_has_effect() {
    each_seed(2, 50, |seed| {
        let common = Common::new(seed);
        let mut net = common.fleet(3);
        let spec = checked(10);
        settle(&mut net, &spec);
        weigh(&mut net, 0, 0, 1000);
        settle(&mut net, &spec);
        assert_eq!(held_at(&net, 1), 1, "what one says alone");
        weigh(&mut net, 2, 0, 1000);
        settle(&mut net, &spec);
        (10..100).for_each(|n| register(&mut net, 1, n, seconds(3600)));
        settle(&mut net, &spec);
        assert_eq!(weight_at(&mut net, 1, 0, &spec), Some(1000));
        // As a process does, it looks when it begins and whenever it hears of something.
        net.add(addr(3), common.start(3, Facts::default()));
        for _ in 0..600 {
            told_at(&mut net, 3, &spec);
            net.run(Duration::from_millis(100));
            assert_eq!(held_at(&net, 3), 0);
        }
        assert!(is_equal(&net));
        assert_eq!(weight_at(&mut net, 3, 0, &spec), Some(1000));
        assert_eq!(registered_at(&mut net, 3, &spec), 90);
        // From then on it is as careful as they are.
        weigh(&mut net, 0, 1, 1000);
        weigh(&mut net, 0, 2, 1000);
        weigh(&mut net, 0, 3, 1000);
        settle(&mut net, &spec);
        assert!(held_at(&net, 3) > 0);
    });
}

/// One that was alone for long: what a newcomer brings is new to it. One that began alone and meets a fleet that has long
/// been there: that has effect there, and so here.
#[test]
fn who_was_alone_believes_the_old_and_brakes_the_new() {
    each_seed(2, 50, |seed| {
        for is_old in [false, true] {
            let common = Common::new(seed);
            let mut net = Fleet::new(common.seed, OVERHEAD);
            let spec = checked(10);
            let (first, second) = if is_old { (1, 0) } else { (0, 1) };
            net.add(addr(0), common.fresh(0));
            net.run(seconds(60));
            net.add(addr(1), common.fresh(1));
            net.split(|index| index);
            net.run(seconds(60));
            assert!(net.running().all(|(_, m)| m.peer.live().is_empty()));
            told_at(&mut net, first, &spec);
            (10..100).for_each(|n| register(&mut net, second, n, seconds(3600)));
            weigh(&mut net, second, 0, 1000);
            net.heal();
            for _ in 0..900 {
                told_at(&mut net, first, &spec);
                net.run(Duration::from_millis(100));
            }
            assert!(is_equal(&net));
            told_at(&mut net, first, &spec);
            let held = held_at(&net, first);
            assert!(
                if is_old { held == 0 } else { held >= 80 },
                "{is_old} {held}"
            );
        }
    });
}

/// Of peers that begin together nobody knows more: they wait for nobody for long, and who is alone is as careful as any
/// once it has met somebody.
#[test]
fn fleets_that_begin_are_careful_soon() {
    each_seed(2, 50, |seed| {
        let common = Common::new(seed);
        let mut net = Fleet::new(common.seed, OVERHEAD);
        for index in 0..3 {
            net.add(addr(index), common.fresh(index));
        }
        let spec = checked(10);
        assert!(net.run_until(seconds(120), is_one).is_some());
        net.run(seconds(45));
        settle(&mut net, &spec);
        (10..100).for_each(|n| register(&mut net, 0, n, seconds(3600)));
        settle(&mut net, &spec);
        assert_eq!((held_at(&net, 1), held_at(&net, 2)), (80, 80));
    });
}
