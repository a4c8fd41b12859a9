//! A simulated upstream: Poisson arrivals, one FIFO queue a server, a policy in front.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::balance::Outcome;
use crate::balance::fixture::Bench;
use crate::base::clock::Nanos;
use crate::base::rng::Rng;

/// How long one exchange takes at its server, and how it ends.
pub(super) type Service<'a> = &'a mut dyn FnMut(usize, &mut Rng) -> (Nanos, Outcome);

/// What came out.
#[derive(Debug)]
pub(super) struct Run {
    /// Exchanges by server.
    pub(super) counts: Vec<u32>,
    /// Mean time in system after the first fifth, in nanoseconds.
    pub(super) mean_sojourn: f64,
}

/// Draws the server of the next exchange; a test may put another rule in the policy's place.
pub(super) type Choose<'a> = &'a mut dyn FnMut(&mut Bench) -> usize;

/// Runs `exchanges` arrivals, `gap` nanoseconds apart on average.
pub(super) fn run(
    bench: &mut Bench,
    gap: f64,
    exchanges: u32,
    seed: u64,
    service: Service<'_>,
) -> Run {
    run_with(bench, gap, exchanges, seed, service, &mut |bench| {
        bench.pick().unwrap()
    })
}

/// [`run`] with another way to choose.
pub(super) fn run_with(
    bench: &mut Bench,
    gap: f64,
    exchanges: u32,
    seed: u64,
    service: Service<'_>,
    choose: Choose<'_>,
) -> Run {
    let mut rng = Rng::new(seed);
    bench.rng = Rng::new(seed ^ 0x5eed);
    let n = bench.members.len();
    let mut free_at: Vec<Nanos> = vec![0; n];
    let mut ends: BinaryHeap<Reverse<(Nanos, usize, Nanos, bool)>> = BinaryHeap::new();
    let mut counts = vec![0; n];
    let (mut clock, mut sum) = (0.0, 0.0);
    let warm_up = exchanges / 5;
    for exchange in 0..exchanges {
        clock += exponential(&mut rng) * gap;
        let now = clock as Nanos;
        while let Some(&Reverse((end, server, began, failed))) = ends.peek() {
            if end > now {
                break;
            }
            ends.pop();
            bench.load(server, bench.in_flight(server) - 1);
            bench.now = end;
            let outcome = if failed { Outcome::Failed } else { Outcome::Ok };
            bench.observe(server, outcome, end - began);
        }
        bench.now = now;
        let server = choose(bench);
        counts[server] += 1;
        bench.load(server, bench.in_flight(server) + 1);
        let (takes, outcome) = service(server, &mut rng);
        // A refusal does not queue.
        let failed = outcome == Outcome::Failed;
        let end = if failed {
            now + takes
        } else {
            free_at[server].max(now) + takes
        };
        if !failed {
            free_at[server] = end;
        }
        ends.push(Reverse((end, server, now, failed)));
        if exchange >= warm_up {
            sum += (end - now) as f64;
        }
    }
    Run {
        counts,
        mean_sojourn: sum / f64::from(exchanges - warm_up),
    }
}

/// Exponential with mean 1.
pub(super) fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.unit()).ln()
}

/// Standard normal, by Box and Muller.
pub(super) fn normal(rng: &mut Rng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (std::f64::consts::TAU * rng.unit()).cos()
}
