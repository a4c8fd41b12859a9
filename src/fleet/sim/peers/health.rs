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
