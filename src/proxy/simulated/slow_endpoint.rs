//! One of ten endpoints is four times slower.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::balance::{Ask, Balancer};

use super::*;

/// HAProxy's `leastconn`: of all servers the one with the fewest connections, ties in turn.
#[derive(Debug, Default)]
struct LeastConn(AtomicUsize);

// === impl LeastConn ===

impl Balancer for LeastConn {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let n = ask.loads.len();
        let in_turn = (0..n).map(|i| (turn + i) % n);
        in_turn.min_by_key(|i| ask.loads[*i].in_flight.load(Ordering::Relaxed))
    }
}

/// Median and 99th percentile; places for 32 each, so that the slow one bears a tenth of it, too.
fn latencies(policy: &str, rate: f64, seed: u64) -> (f64, f64) {
    let is_leastconn = policy == "leastconn";
    let ours = if is_leastconn { "first" } else { policy };
    let upstream = format!("balance = '{ours}'");
    let setup = Setup {
        endpoints: 10,
        upstream: &upstream,
        ..Setup::default()
    };
    let mut sim = if is_leastconn {
        let leastconn = Arc::new(LeastConn::default());
        setup.with_policy(seed, Factory::new(move |_, _| leastconn.clone()))
    } else {
        setup.sim(seed)
    };
    for (i, server) in sim.servers.iter_mut().enumerate() {
        server.free_at = vec![0; 32];
        server.service = Service::Exponential(if i == 0 { 40 * MS } else { 10 * MS });
    }
    sim.offer(rate);
    let seconds = 12_000.0 / rate;
    sim.run_until(seconds * 1.25);
    sim.finish();
    let done = sim.arrived(seconds * 0.25, seconds * 1.25);
    (latency_ms(&done, 50.0), latency_ms(&done, 99.0))
}

#[test]
fn the_default_and_peak_ewma_cut_the_p99_of_haproxys_default() {
    each_seed(1, 10, |seed| {
        for rate in [500.0, 4_000.0, 7_000.0] {
            let policies = ["round_robin", "leastconn", "least_request", "peak_ewma"];
            let measured = policies.map(|policy| latencies(policy, rate, seed));
            for (policy, (p50, p99)) in policies.iter().zip(measured) {
                eprintln!("{rate:>5}/s  {policy:<14} p50 {p50:>5.1} ms  p99 {p99:>6.1} ms");
            }
            // round_robin is HAProxy's default too.
            let [(_, turns), _, (_, least), (_, ewma)] = measured;
            assert!(ewma <= 0.9 * turns, "{rate}, seed {seed}: {ewma}, {turns}");
            assert!(
                least <= 0.9 * turns,
                "{rate}, seed {seed}: {least}, {turns}"
            );
        }
    });
}
