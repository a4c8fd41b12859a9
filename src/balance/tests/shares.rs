//! Who gets how much: equals get equal shares, and one that fails gets next to nothing.

use super::queues::{Run, exponential, normal, run};
use crate::balance::Outcome;
use crate::balance::PolicyKind::{self, First, LeastRequest, PeakEwma, Random, Weighted};
use crate::balance::fixture::{ALL, Bench, HASHING};
use crate::base::clock::Nanos;
use crate::base::rng::Rng;

const MS: f64 = 1e6;

/// A latency distribution with a mean of some milliseconds.
type Noise = fn(&mut Rng) -> f64;

/// How latencies of equal endpoints scatter, from tame to wild.
const NOISES: [(&str, Noise); 5] = [
    ("constant", |_| MS),
    ("exponential", |rng| exponential(rng) * MS),
    ("log-normal, sigma 1", |rng| normal(rng).exp() * MS),
    ("5 % spikes of 20 times", |rng| {
        if rng.unit() < 0.05 { 20.0 * MS } else { MS }
    }),
    ("0.5 % spikes of 30 times", |rng| {
        if rng.unit() < 0.005 { 30.0 * MS } else { MS }
    }),
];

/// Mean gaps between arrivals, in ms, for mean services of about 1 ms at five endpoints: from nearly
/// idle to 50 % busy.
const GAPS: [f64; 4] = [1_000.0, 20.0, 1.0, 0.4];

fn shares(run: &Run) -> Vec<f64> {
    let mean = f64::from(run.counts.iter().sum::<u32>()) / run.counts.len() as f64;
    run.counts
        .iter()
        .map(|&count| f64::from(count) / mean)
        .collect()
}

fn least(run: &Run) -> f64 {
    shares(run).into_iter().fold(f64::INFINITY, f64::min)
}

#[test]
fn of_five_equals_none_gets_less_than_70_percent_of_its_share() {
    // `first` gives all to one by definition; hash policies follow keys.
    for kind in ALL
        .into_iter()
        .filter(|kind| *kind != First && !HASHING.contains(kind))
    {
        let mut lowest = f64::INFINITY;
        for (name, noise) in NOISES {
            for gap in GAPS {
                for seed in 0..10 {
                    let mut bench = Bench::new(kind, &[1; 5]);
                    let mut service = |_: usize, rng: &mut Rng| (noise(rng) as Nanos, Outcome::Ok);
                    let run = run(&mut bench, gap * MS, 1_500, seed, &mut service);
                    let counts = &run.counts;
                    let least = least(&run);
                    lowest = lowest.min(least);
                    assert!(
                        least >= 0.7,
                        "{kind:?}, {name}, gap {gap} ms, seed {seed}: {counts:?}"
                    );
                }
            }
        }
        println!("{kind:?}: lowest share {lowest:.3} of 200 runs");
    }
}

#[test]
fn least_request_is_fair_where_two_random_choices_are_not() {
    // 400 servers at 2 % load: published for plain two choices 0.79 to 1.23.
    let seed = 1;
    let mut bench = Bench::new(LeastRequest, &[1; 400]);
    let mut service = |_: usize, rng: &mut Rng| ((exponential(rng) * MS) as Nanos, Outcome::Ok);
    let run = run(&mut bench, MS / (400.0 * 0.02), 400_000, seed, &mut service);
    let shares = shares(&run);
    let (low, high) = (least(&run), shares.into_iter().fold(0.0, f64::max));
    assert!(
        low >= 0.95 && high <= 1.05,
        "{low:.3} to {high:.3}, seed {seed}"
    );
}

#[test]
fn an_endpoint_that_fails_at_once_is_no_magnet() {
    for gap in [100.0, 20.0, 1.0, 0.4] {
        for seed in 0..10 {
            let mut bench = Bench::new(PeakEwma, &[1; 5]);
            let mut service = |server: usize, rng: &mut Rng| match server {
                2 => (10_000, Outcome::Failed),
                _ => ((exponential(rng) * MS) as Nanos, Outcome::Ok),
            };
            let run = run(&mut bench, gap * MS, 1_500, seed, &mut service);
            // 2 % of 1,500.
            assert!(
                run.counts[2] <= 30,
                "gap {gap} ms, seed {seed}: {:?}",
                run.counts
            );
        }
    }
}

#[test]
fn an_endpoint_ten_times_as_slow_gets_little_from_peak_ewma() {
    for gap in [20.0, 1.0] {
        let seed = 4;
        let mut bench = Bench::new(PeakEwma, &[1; 5]);
        let mut service = |server: usize, rng: &mut Rng| {
            let slow = if server == 2 { 10.0 } else { 1.0 };
            ((exponential(rng) * slow * MS) as Nanos, Outcome::Ok)
        };
        let run = run(&mut bench, gap * MS, 15_000, seed, &mut service);
        assert!(
            shares(&run)[2] < 0.25,
            "gap {gap} ms, seed {seed}: {:?}",
            run.counts
        );
        assert!(run.counts[2] > 0, "and is still tried");
    }
}

#[test]
fn an_endpoint_that_recovers_is_used_again() {
    let seed = 9;
    let mut bench = Bench::new(PeakEwma, &[1; 5]);
    let mut service = |_: usize, rng: &mut Rng| ((exponential(rng) * MS) as Nanos, Outcome::Ok);
    for _ in 0..4 {
        bench.observe(2, Outcome::Failed, 1_000);
    }
    // 20 ms apart: 60 s in all.
    let run = run(&mut bench, 20.0 * MS, 3_000, seed, &mut service);
    assert!(shares(&run)[2] > 0.3, "seed {seed}: {:?}", run.counts);
}

#[test]
fn random_draws_pass_a_chi_square_test() {
    let seed = 8;
    let weights = [1, 2, 3, 4, 10];
    let mut bench = Bench::new(Random, &weights);
    bench.rng = Rng::new(seed);
    let counts = bench.count(200_000);
    let chi2: f64 = counts
        .iter()
        .zip(weights)
        .map(|(&count, weight)| {
            let expected = 200_000.0 * f64::from(weight) / 20.0;
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    // 4 degrees of freedom, 99.9 % point.
    assert!(chi2 < 18.47, "chi-square {chi2:.1}, seed {seed}");
}

#[test]
fn shares_are_exact_after_one_goes_out() {
    let expected = |kind: PolicyKind| {
        if kind == Weighted {
            [0, 4_000, 6_000]
        } else {
            [0, 5_000, 5_000]
        }
    };
    for kind in [PolicyKind::RoundRobin, Weighted] {
        let mut bench = Bench::new(kind, &[5, 2, 3]);
        bench.set_ready(0, false);
        assert_eq!(bench.count(10_000), expected(kind));
    }
}
