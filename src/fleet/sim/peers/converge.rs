//! What is said becomes known: in foul weather, after a split, in a burst.

use super::*;

/// How long after the last of 1,000 things that happened at 50 peers all know the same.
fn after_the_last(seed: u64, peers: usize, operations: usize) -> Duration {
    let mut net = Common::new(seed).fleet(peers);
    net.weather = Weather::foul(0.05);
    let mut rng = Rng::new(seed);
    for _ in 0..operations {
        happen_somewhere(&mut net, &mut rng);
        net.run(Duration::from_millis(rng.below(100) as u64));
    }
    let took = net.run_until(Duration::from_secs(60), is_equal);
    took.expect("all know the same within a minute")
}

#[test]
fn what_happens_anywhere_is_known_everywhere_in_foul_weather() {
    let mut worst = Duration::ZERO;
    each_seed(2, 200, |seed| {
        let took = after_the_last(seed, 50, 1000);
        worst = worst.max(took);
        println!("equal {took:?} after the last of 1,000; at worst {worst:?}");
        assert!(took <= Duration::from_secs(30));
    });
}
