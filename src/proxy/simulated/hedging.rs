//! Hedging: one of ten endpoints is slow, and a second attempt hides it; as `hedge.rs` has it.

use crate::base::clock::nanos;
use crate::config::Hedge;
use crate::upstream::{Picked, Seen};

use super::*;

/// The number of a second attempt, which has a place of its own.
pub(super) const BESIDE: u32 = u32::MAX;

// === impl Sim ===

impl Sim {
    /// `Hedging::new`: when the attempt that has just begun will be late.
    pub(super) fn hedge(&mut self, id: usize) {
        let x = self.exchanges[id].as_ref().unwrap();
        let after = match self.retry.hedge {
            Hedge::Off => None,
            Hedge::After(after) => Some(nanos(after)),
            Hedge::Percentile(p) => self.workers[x.worker].0.percentile(p),
        };
        if let (Some(after), 1) = (after, x.attempt) {
            self.schedule(self.now + after, Event::Late { exchange: id });
        }
    }

    /// `Hedging::begin`
    pub(super) fn late(&mut self, id: usize) {
        let now = self.now;
        let Some(x) = self.exchanges[id].as_mut() else {
            return;
        };
        let Some(first) = x.ticket.as_ref().map(|t| t.endpoint().clone()) else {
            return;
        };
        let (local, rng) = &mut self.workers[x.worker];
        let is_late = match self.retry.hedge {
            Hedge::Percentile(p) => local.take_late(p),
            Hedge::After(_) | Hedge::Off => true,
        };
        if !is_late || !x.tries.may_hedge(&first, local) {
            return;
        }
        let Picked::One(ticket) = local.pick(None, x.tries.tried(), false, now, rng) else {
            return;
        };
        if !x.tries.pay_for_hedge(local, x.worker, now) {
            return;
        }
        let server = ticket.index;
        x.second = Some((ticket, now));
        self.attempts.push((now, server));
        let at = self.servers[server].serve(now, &mut self.rng);
        self.schedule(
            at,
            Event::Comes {
                exchange: id,
                attempt: BESIDE,
                what: What::Answer,
            },
        );
    }

    /// `Hedging::promote`: the second attempt answered first.
    pub(super) fn second_comes(&mut self, id: usize, _: What) {
        let now = self.now;
        let Some(x) = self.exchanges[id].as_mut() else {
            return;
        };
        let Some((second, began)) = x.second.take() else {
            return;
        };
        if let Some(first) = &x.ticket {
            first.observe(Seen::Cancelled, Some(now - x.picked), now);
        }
        second.observe(Seen::Answered, Some(now - began), now);
        second.judge(&self.upstream, Seen::Answered, now);
        self.workers[x.worker].0.learn(now - x.arrived);
        self.end(id, End::Answered);
    }
}

/// The 99th percentile, and attempts for each request; one of ten endpoints is ten times slower.
fn hedged(retry: &str, rate: f64, seed: u64) -> (f64, f64) {
    let setup = Setup {
        endpoints: 10,
        workers: 2,
        retry,
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    for (i, server) in sim.servers.iter_mut().enumerate() {
        server.free_at = vec![0; 32];
        server.service = Service::Constant(if i == 0 { 100 * MS } else { 10 * MS });
    }
    sim.offer(rate);
    sim.run_until(20.0);
    sim.finish();
    let done = sim.arrived(5.0, 20.0);
    let attempts: usize = sim.attempts_by_server(0.0, 30.0).iter().sum();
    (latency_ms(&done, 99.0), attempts as f64 / done.len() as f64)
}

#[test]
fn a_learnt_percentile_halves_the_p99_for_five_percent_more_requests() {
    each_seed(2, 20, |seed| {
        // The slow one gets less of the traffic as there is more of it: at 500 a second some 6 %, of which
        // a hedge for one in twenty leaves a part, and what is late is later.
        for (rate, ratio) in [(500.0, 0.8), (2_000.0, 0.5)] {
            let (alone, once) = hedged("hedge_after = 'off'", rate, seed);
            let (hedged, more) = hedged("hedge_after = 'p95'", rate, seed);
            eprintln!(
                "{rate}/s: p99 {alone:.1} ms alone, {hedged:.1} ms hedged; {:.1} % more requests",
                100.0 * (more / once - 1.0)
            );
            assert!(
                hedged <= ratio * alone,
                "{rate}, seed {seed}: {hedged}, {alone}"
            );
            assert!(more <= 1.05 * once, "{rate}, seed {seed}: {more}, {once}");
        }
    });
}
