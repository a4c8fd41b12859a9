//! What a fleet costs: the figures of distributed.md 1.9.

use super::super::net::Traffic;
use super::*;

/// Bytes and messages a second of a peer of `n` that have nothing to say: datagrams with IP and UDP, then streams.
fn idle(n: usize) -> (f64, f64) {
    let mut net = Common::new(1).met_fleet(n);
    // Until those who have just begun ask no more.
    net.run(seconds(if n > 100 { 120 } else { 60 }));
    net.clear_traffic();
    let during = if n > 100 { 60 } else { 300 };
    net.run(seconds(during));
    let share = (n as u64 * during) as f64;
    let all: Vec<_> = (0..n).map(|index| net.traffic(index)).collect();
    let sum = |of: fn(&Traffic) -> u64| all.iter().map(of).sum::<u64>() as f64 / share;
    println!(
        "{n} idle peers: each {:.0} B/s in {:.2} datagrams, {:.1} B/s in {:.2} messages of {:.3} streams",
        sum(|t| t.bytes),
        sum(|t| t.datagrams),
        sum(|t| t.message_bytes),
        sum(|t| t.messages),
        sum(|t| t.dials),
    );
    (sum(|t| t.bytes + t.message_bytes), sum(|t| t.datagrams))
}

/// After how long everybody knows what one says: the middle one, 99 of 100, and the longest.
fn known(n: usize, times: usize) -> [Duration; 3] {
    let mut net = Common::new(2).met_fleet(n);
    assert!(net.run_until(seconds(60), is_equal).is_some());
    let mut rng = Rng::new(3);
    let mut all = Vec::new();
    for _ in 0..times {
        let at = rng.below(n);
        say(&mut net, at, rng.below(1000), Some(Word::Drain));
        all.extend(net.run_until(seconds(60), is_equal));
        net.run(Duration::from_millis(rng.below(3000) as u64));
    }
    assert_eq!(all.len(), times);
    all.sort_unstable();
    let result = [all[times / 2], all[times * 99 / 100], all[times - 1]];
    println!("{n} peers know after {result:?}");
    result
}

#[test]
fn idle_fleet_costs_next_to_nothing() {
    let (bytes, messages) = idle(5);
    assert!(bytes < 600.0 && messages < 5.0, "{bytes} {messages}");
    if is_long() {
        idle(50);
        let (bytes, messages) = idle(1000);
        assert!(bytes < 1000.0 && messages < 5.0, "{bytes} {messages}");
    }
}

#[test]
fn everybody_knows_soon() {
    let [middle, _, longest] = known(if is_long() { 50 } else { 20 }, 20);
    assert!(middle <= seconds(1) && longest <= seconds(15));
    if is_long() {
        known(1000, 20);
    }
}
