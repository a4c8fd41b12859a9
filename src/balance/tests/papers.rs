//! M. Mitzenmacher's figures for two choices: balls in bins, and the supermarket model.
//!
//! "The Power of Two Choices in Randomized Load Balancing", PhD thesis, Berkeley 1996, and IEEE TPDS
//! 12(10), 2001. The plain rule of the paper runs beside ours in the same simulation: it shows that
//! the simulation gives the published figures, and `least_request`, whose first candidate comes from
//! a schedule, must be at least as good.

use super::queues::{exponential, run, run_with};
use crate::balance::Outcome;
use crate::balance::PolicyKind::{LeastRequest, Random};
use crate::balance::fixture::Bench;
use crate::base::rng::Rng;

/// The paper's rule: two uniform choices with replacement, the less loaded, ties at random.
fn plain_two_choices(bench: &mut Bench) -> usize {
    let n = bench.members.len();
    let (a, b) = (bench.rng.below(n), bench.rng.below(n));
    if bench.in_flight(b) < bench.in_flight(a) {
        b
    } else {
        a
    }
}

/// `n` balls into `n` bins, `runs` times: mean of the fullest bin, and the fractions of bins with at
/// least 0, 1, 2 .. balls.
fn throw(
    bench: &mut Bench,
    runs: u64,
    choose: &mut dyn FnMut(&mut Bench) -> usize,
) -> (f64, [f64; 8]) {
    let n = bench.members.len();
    let (mut fullest, mut at_least) = (0, [0.0; 8]);
    for seed in 0..runs {
        bench.rng = Rng::new(seed);
        (0..n).for_each(|bin| bench.load(bin, 0));
        for _ in 0..n {
            let bin = choose(bench);
            bench.load(bin, bench.in_flight(bin) + 1);
        }
        fullest += (0..n).map(|bin| bench.in_flight(bin)).max().unwrap();
        for bin in 0..n {
            for level in 0..=bench.in_flight(bin).min(7) {
                at_least[level as usize] += 1.0 / (n as f64 * runs as f64);
            }
        }
    }
    (f64::from(fullest) / runs as f64, at_least)
}

const BINS: usize = 10_000;
const RUNS: u64 = 30;

#[test]
fn one_choice_fills_bins_as_poisson_says() {
    // P(fullest <= k) = P(Poisson(1) <= k)^n, so the mean is the sum of 1 - that over k.
    let (mut term, mut below, mut expected) = ((-1.0f64).exp(), 0.0, 0.0);
    for k in 1..40 {
        below += term;
        term /= f64::from(k);
        expected += 1.0 - below.powi(BINS as i32);
    }
    let mut bench = Bench::new(Random, &vec![1; BINS]);
    let (fullest, _) = throw(&mut bench, RUNS, &mut |bench| bench.pick().unwrap());
    assert!((expected - 6.6).abs() < 0.1, "{expected}");
    assert!(
        (fullest - expected).abs() < 0.5,
        "{fullest}, expected {expected}, seeds 0..{RUNS}"
    );
}

#[test]
fn two_choices_fill_bins_as_the_differential_equations_say() {
    // Thesis, section 3.2: x_k' = x_(k-1)^2 - x_k^2, x_k(0) = 0, at time 1; x_1(1) = tanh 1.
    let mut x = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0f64];
    let steps = 100_000;
    for _ in 0..steps {
        for k in (1..8).rev() {
            x[k] += (x[k - 1] * x[k - 1] - x[k] * x[k]) / f64::from(steps);
        }
    }
    assert!(
        (x[1] - 1f64.tanh()).abs() < 1e-4 && (x[2] - 0.2295).abs() < 2e-4,
        "{x:?}"
    );

    let mut bench = Bench::new(LeastRequest, &vec![1; BINS]);
    let (plain, fractions) = throw(&mut bench, RUNS, &mut plain_two_choices);
    for k in 1..4 {
        assert!(
            (fractions[k] - x[k]).abs() < 0.002,
            "level {k}: {} {}",
            fractions[k],
            x[k]
        );
    }
    // The mean maximum of the paper's rule: 3, and 4 with chance n x_4.
    let expected = 3.0 + BINS as f64 * x[4];
    assert!(
        (plain - expected).abs() < 0.3,
        "{plain}, expected {expected}, seeds 0..{RUNS}"
    );

    let (ours, at_least) = throw(&mut bench, RUNS, &mut |bench| bench.pick().unwrap());
    assert!(ours <= plain, "{ours} against {plain}");
    assert!(
        at_least[3] <= fractions[3],
        "{} against {}",
        at_least[3],
        fractions[3]
    );
}

/// (load, simulated by Mitzenmacher with 100 queues, predicted for infinitely many): TPDS 2001, table 1,
/// mean time in the supermarket model with two choices, in mean service times.
const SUPERMARKET: [(f64, f64, f64); 5] = [
    (0.50, 1.2673, 1.2657),
    (0.70, 1.6202, 1.6145),
    (0.80, 1.9585, 1.9475),
    (0.90, 2.6454, 2.6141),
    (0.95, 3.4610, 3.3830),
];

#[test]
fn queues_of_two_choices_are_as_short_as_published() {
    const SERVICE: f64 = 1e6;
    let (queues, exchanges, seed) = (100, 600_000, 3);
    let mut service = |_: usize, rng: &mut Rng| ((exponential(rng) * SERVICE) as u64, Outcome::Ok);
    for (rho, simulated, predicted) in SUPERMARKET {
        // Theorem: the sum of rho^(2^i - 2), i = 1, 2 ..
        let sum: f64 = (1..12).map(|i| rho.powi((1 << i) - 2)).sum();
        assert!((sum - predicted).abs() < 2e-4, "{sum}");

        let gap = SERVICE / (rho * queues as f64);
        let mut bench = Bench::new(LeastRequest, &vec![1; queues]);
        let choose = &mut plain_two_choices;
        let plain = run_with(&mut bench, gap, exchanges, seed, &mut service, choose);
        let plain = plain.mean_sojourn / SERVICE;
        assert!(
            (plain / simulated - 1.0).abs() < 0.03,
            "rho {rho}: {plain}, seed {seed}"
        );

        let mut bench = Bench::new(LeastRequest, &vec![1; queues]);
        let ours = run(&mut bench, gap, exchanges, seed, &mut service).mean_sojourn / SERVICE;
        println!("rho {rho}: published {simulated}, plain {plain:.4}, least_request {ours:.4}");
        assert!(
            ours < plain,
            "rho {rho}: {ours} against {plain}, seed {seed}"
        );
    }
}
