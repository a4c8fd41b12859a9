//! Shared health: a few ask, all know.

use super::prober::World;
use super::*;

/// `peers` that check `endpoints` every two seconds, for half a minute.
fn settled(seed: u64, peers: usize, endpoints: usize) -> (Fleet, World) {
    let world = World::new(endpoints, seconds(2));
    let common = Common {
        world: Some(world.clone()),
        ..Common::new(seed)
    };
    let mut net = common.fleet(peers);
    net.run(seconds(30));
    (net, world)
}

fn all_find_down(net: &Fleet, count: usize) -> bool {
    let probers = net.running().filter_map(|(_, m)| m.prober.as_ref());
    probers.into_iter().all(|prober| prober.down() == count)
}

#[test]
fn dead_endpoint_is_down_at_every_peer_within_seconds_and_few_ask() {
    each_seed(2, 200, |seed| {
        let (mut net, world) = settled(seed, 20, 30);
        assert!(all_find_down(&net, 0));
        world.asked();
        net.run(seconds(20));
        let (asked, most) = world.asked();
        let expected = 3 * 30 * 20 / 2;
        println!("asked {asked} times for {expected}, one by at most {most}");
        assert!(asked * 10 <= expected * 11);
        assert_eq!(most, 3);

        world.kill(7);
        let took = net.run_until(seconds(30), |net| all_find_down(net, 1));
        println!("down everywhere after {took:?}");
        assert!(took.is_some_and(|took| took <= seconds(5)));
        world.raise(7);
        let took = net.run_until(seconds(60), |net| all_find_down(net, 0));
        println!("up everywhere after {took:?}");
        assert!(took.is_some_and(|took| took <= seconds(12)));

        // Those who ask may die with it.
        net.crash(4);
        world.kill(8);
        world.kill(9);
        let took = net.run_until(seconds(30), |net| all_find_down(net, 2));
        println!("two down everywhere after {took:?}");
        assert!(took.is_some_and(|took| took <= seconds(5)));
    });
}

fn falls(net: &Fleet) -> usize {
    let probers = net.running().filter_map(|(_, m)| m.prober.as_ref());
    probers.map(Prober::falls).sum()
}

/// Waits until nobody who runs is missed by one of these groups, and everybody else is.
fn await_groups(net: &mut Fleet, size: usize) {
    let apart = net.run_until(seconds(120), |net| {
        net.running().all(|(_, m)| m.peer.live().len() == size - 1)
    });
    assert!(apart.is_some());
}

/// All endpoints die before a split and are well again when it ends: what the other side found before is
/// what each side has of it until the two have compared.
#[test]
fn halves_that_meet_do_not_judge_by_what_was_found_before() {
    each_seed(2, 100, |seed| {
        let (mut net, world) = settled(seed, 10, 30);
        (0..30).for_each(|n| world.kill(n));
        let dead = net.run_until(seconds(30), |net| all_find_down(net, 30));
        assert!(dead.is_some());
        net.split(|index| index % 2);
        await_groups(&mut net, 5);
        (0..30).for_each(|n| world.raise(n));
        let well = net.run_until(seconds(60), |net| all_find_down(net, 0));
        assert!(well.is_some());
        let before = falls(&net);
        net.heal();
        await_groups(&mut net, 10);
        net.run(seconds(30));
        assert_eq!(falls(&net), before, "nothing was down");
        assert!(all_find_down(&net, 0));
    });
}

/// As soon as they have met, what dies is found as ever.
#[test]
fn what_dies_after_halves_have_met_is_found_at_once() {
    each_seed(2, 100, |seed| {
        let (mut net, world) = settled(seed, 10, 30);
        net.split(|index| index % 2);
        await_groups(&mut net, 5);
        net.run(seconds(20));
        net.heal();
        await_groups(&mut net, 10);
        // Those whose turn it is now have asked once.
        net.run(seconds(3));
        world.kill(7);
        let took = net.run_until(seconds(30), |net| all_find_down(net, 1));
        println!("down everywhere after {took:?}");
        assert!(took.is_some_and(|took| took <= seconds(5)));
    });
}

/// Two of three probers die with a dead endpoint, and come back when it is well: they have nothing to say of it
/// before they have asked.
#[test]
fn peers_that_come_back_take_nothing_down_by_what_they_found_before() {
    each_seed(2, 100, |seed| {
        let (mut net, world) = settled(seed, 4, 30);
        let common = Common {
            world: Some(world.clone()),
            ..Common::new(seed)
        };
        (0..30).for_each(|n| world.kill(n));
        let dead = net.run_until(seconds(30), |net| all_find_down(net, 30));
        assert!(dead.is_some());
        let gone = [2, 3];
        for index in gone {
            net.crash(index);
        }
        await_groups(&mut net, 2);
        (0..30).for_each(|n| world.raise(n));
        let well = net.run_until(seconds(60), |net| all_find_down(net, 0));
        assert!(well.is_some());
        let before = falls(&net);
        for index in gone {
            net.start(index, common.start(index, Facts::default()));
        }
        await_groups(&mut net, 4);
        net.run(seconds(30));
        assert_eq!(falls(&net), before, "nothing was down");
        assert!(all_find_down(&net, 0));
    });
}

/// Who is alone asks all that there is, and finds what is dead by itself: as without a fleet.
#[test]
fn peer_that_is_alone_asks_all_endpoints_itself() {
    each_seed(2, 100, |seed| {
        let (mut net, world) = settled(seed, 5, 30);
        for index in 1..5 {
            net.crash(index);
        }
        await_groups(&mut net, 1);
        net.run(seconds(10));
        world.asked();
        net.run(seconds(20));
        let (asked, most) = world.asked();
        let intervals = 30 * 20 / 2;
        println!("asked {asked} times for {intervals}");
        assert!((intervals - 30..=intervals + 30).contains(&asked));
        assert_eq!(most, 1);
        let roles = net.get(0).unwrap().prober.as_ref().unwrap();
        assert_eq!(roles.alone(), 30);
    });
}

/// A failure is told to those who ask the endpoint too, and to nobody else, without waiting for the next push.
#[test]
fn vote_is_told_to_fellows_at_once() {
    let (mut net, _) = settled(1, 8, 20);
    let probers = |net: &Fleet, n| {
        let duties = net.get(0).unwrap().peer.duties();
        duties.probers("app", &endpoint(n)).to_vec()
    };
    let mine = (0..20).find(|n| probers(&net, *n).contains(&peer(0)));
    let mine = mine.expect("one of many");
    let mut fellows = probers(&net, mine);
    fellows.retain(|fellow| *fellow != peer(0));
    fellows.sort_unstable();
    let mut told = net.with(0, |machine, clock| {
        let check = machine.prober.as_ref().map_or(0, Prober::check);
        let why = "timed out".to_owned();
        machine
            .peer
            .vote(app(), endpoint(mine), false, check, why, clock);
        let mut told = Vec::new();
        while let Some(out) = machine.peer.poll() {
            if let Out::Datagram { to, .. } = out {
                told.push(peer_at(to));
            }
        }
        told
    });
    told.sort_unstable();
    assert_eq!((told.len(), told), (2, fellows));
}
