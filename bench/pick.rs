//! How many nanoseconds does a pick take? One number per policy and number of endpoints.
//!
//! `cargo bench --bench pick`. The median of 21 rounds of 200,000 picks on one thread; keys are 16
//! bytes, every one new; a sixteenth of the endpoints is busy. The last column has uneven weights
//! and a tenth of the endpoints not ready.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use isobar::balance::{Ask, Balancer, Member, Outcome, Policy, PolicyKind, build};
use isobar::base::load::Load;
use isobar::base::rng::Rng;

const ROUNDS: usize = 21;
const PICKS: u64 = 200_000;

const POLICIES: [(&str, PolicyKind, Option<f64>); 12] = [
    ("round_robin", PolicyKind::RoundRobin, None),
    ("weighted", PolicyKind::Weighted, None),
    ("random", PolicyKind::Random, None),
    ("least_request", PolicyKind::LeastRequest, None),
    ("peak_ewma", PolicyKind::PeakEwma, None),
    ("ring_hash", PolicyKind::RingHash, None),
    ("maglev", PolicyKind::Maglev, None),
    ("rendezvous", PolicyKind::Rendezvous, None),
    ("first", PolicyKind::First, None),
    ("ring_hash, bounded", PolicyKind::RingHash, Some(1.25)),
    ("maglev, bounded", PolicyKind::Maglev, Some(1.25)),
    ("rendezvous, bounded", PolicyKind::Rendezvous, Some(1.25)),
];

fn main() {
    println!(
        "{:22}{:>9}{:>9}{:>9}{:>16}",
        "ns per pick among", 3, 50, 1000, "1000, uneven"
    );
    for (name, kind, bounded_load) in POLICIES {
        let policy = Policy { kind, bounded_load };
        print!("{name:22}");
        for n in [3, 50, 1000] {
            print!("{:>9.1}", measure(&policy, n, |_| 1, |_| true));
        }
        println!(
            "{:>16.1}",
            measure(&policy, 1000, |i| 1 + i as u32 % 100, |i| i % 10 != 3)
        );
    }
}

fn measure(
    policy: &Policy,
    n: usize,
    weight: fn(usize) -> u32,
    is_ready: fn(usize) -> bool,
) -> f64 {
    let members: Vec<Member> = (0..n)
        .map(|i| Member {
            name: format!("10.0.{}.{}:8080", i / 250, i % 250).into(),
            weight: weight(i),
        })
        .collect();
    let ready: Vec<bool> = (0..n).map(is_ready).collect();
    let loads: Vec<Arc<Load>> = (0..n).map(|_| Arc::default()).collect();
    let balancer = build(policy, &members, &ready, None, 1);
    for (i, load) in loads.iter().enumerate() {
        load.in_flight.store(u32::from(i % 16 == 0), Relaxed);
        balancer.observe(load, Outcome::Ok, 1_000_000 + i as u64 * 1_000, 1);
    }
    let mut rng = Rng::new(2);
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| round(&*balancer, &loads, &mut rng))
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Nanoseconds per pick.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn round(balancer: &dyn Balancer, loads: &[Arc<Load>], rng: &mut Rng) -> f64 {
    let start = Instant::now();
    for n in 0..PICKS {
        let key = (u128::from(n) << 64 | u128::from(rng.next_u64())).to_ne_bytes();
        let mut ask = Ask {
            loads,
            key: Some(&key),
            tried: &[],
            now: 3_000_000_000,
            rng,
        };
        black_box(balancer.pick(&mut ask));
    }
    start.elapsed().as_nanos() as f64 / PICKS as f64
}
