//! A balancer on the bench: what every test of a policy needs around it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Ask, Balancer, Member, Outcome, Policy, PolicyKind, build};
use crate::base::clock::Nanos;
use crate::base::load::Load;
use crate::base::rng::Rng;

/// Every policy there is.
pub(super) const ALL: [PolicyKind; 9] = [
    PolicyKind::RoundRobin,
    PolicyKind::Weighted,
    PolicyKind::Random,
    PolicyKind::LeastRequest,
    PolicyKind::PeakEwma,
    PolicyKind::RingHash,
    PolicyKind::Maglev,
    PolicyKind::Rendezvous,
    PolicyKind::First,
];

/// Those that map keys.
pub(super) const HASHING: [PolicyKind; 3] = [
    PolicyKind::RingHash,
    PolicyKind::Maglev,
    PolicyKind::Rendezvous,
];

/// The seed of every bench unless a test sets its own.
pub(super) const SEED: u64 = 20_240_607;

/// Members 10.0.0.0:80, 10.0.0.1:80 .. with these weights.
pub(super) fn members(weights: &[u32]) -> Vec<Member> {
    weights
        .iter()
        .enumerate()
        .map(|(i, &weight)| Member {
            name: format!("10.0.{}.{}:80", i / 250, i % 250).into(),
            weight,
        })
        .collect()
}

/// An upstream without the network.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) policy: Policy,
    pub(super) members: Vec<Member>,
    pub(super) ready: Vec<bool>,
    pub(super) loads: Vec<Arc<Load>>,
    pub(super) balancer: Arc<dyn Balancer>,
    pub(super) rng: Rng,
    pub(super) now: Nanos,
}

impl Bench {
    pub(super) fn new(kind: PolicyKind, weights: &[u32]) -> Self {
        Self::with(
            Policy {
                kind,
                bounded_load: None,
            },
            members(weights),
        )
    }

    pub(super) fn bounded(kind: PolicyKind, weights: &[u32], factor: f64) -> Self {
        Self::with(
            Policy {
                kind,
                bounded_load: Some(factor),
            },
            members(weights),
        )
    }

    pub(super) fn named(kind: PolicyKind, list: &[(&str, u32)]) -> Self {
        let members = list
            .iter()
            .map(|&(name, weight)| Member {
                name: name.into(),
                weight,
            })
            .collect();
        Self::with(
            Policy {
                kind,
                bounded_load: None,
            },
            members,
        )
    }

    pub(super) fn with(policy: Policy, members: Vec<Member>) -> Self {
        let ready = vec![true; members.len()];
        let loads = members.iter().map(|_| Arc::default()).collect();
        let balancer = build(&policy, &members, &ready, None, SEED);
        Self {
            policy,
            members,
            ready,
            loads,
            balancer,
            rng: Rng::new(SEED),
            now: 0,
        }
    }

    pub(super) fn set_ready(&mut self, index: usize, is_ready: bool) {
        self.ready[index] = is_ready;
        self.rebuild();
    }

    pub(super) fn set_weight(&mut self, index: usize, weight: u32) {
        self.members[index].weight = weight;
        self.rebuild();
    }

    /// What the writer of an upstream does after a change.
    pub(super) fn rebuild(&mut self) {
        self.balancer = build(
            &self.policy,
            &self.members,
            &self.ready,
            Some(&self.balancer),
            SEED,
        );
    }

    pub(super) fn load(&mut self, index: usize, count: u32) {
        self.loads[index].in_flight.store(count, Relaxed);
    }

    pub(super) fn in_flight(&self, index: usize) -> u32 {
        self.loads[index].in_flight.load(Relaxed)
    }

    pub(super) fn observe(&self, index: usize, outcome: Outcome, elapsed: Nanos) {
        self.balancer
            .observe(&self.loads[index], outcome, elapsed, self.now);
    }

    pub(super) fn ask(&mut self, key: Option<&[u8]>, tried: &[usize]) -> Option<usize> {
        let Self {
            loads,
            balancer,
            rng,
            now,
            ..
        } = self;
        balancer.pick(&mut Ask {
            loads,
            key,
            tried,
            now: *now,
            rng,
        })
    }

    pub(super) fn pick(&mut self) -> Option<usize> {
        self.ask(None, &[])
    }

    pub(super) fn pick_key(&mut self, key: &[u8]) -> Option<usize> {
        self.ask(Some(key), &[])
    }

    pub(super) fn pick_after(&mut self, tried: &[usize]) -> Option<usize> {
        self.ask(None, tried)
    }

    pub(super) fn picks(&mut self, n: usize) -> Vec<usize> {
        (0..n).map(|_| self.pick().unwrap()).collect()
    }

    /// Picks without a key, by member.
    pub(super) fn count(&mut self, picks: u32) -> Vec<u32> {
        let mut counts = vec![0; self.members.len()];
        for _ in 0..picks {
            counts[self.pick().unwrap()] += 1;
        }
        counts
    }

    /// Picks of the keys 0 .. n, by member.
    pub(super) fn count_keys(&mut self, keys: u64) -> Vec<u32> {
        let mut counts = vec![0; self.members.len()];
        for owner in self.map_keys(keys) {
            counts[owner] += 1;
        }
        counts
    }

    /// The member of each of the keys 0 .. n.
    pub(super) fn map_keys(&mut self, keys: u64) -> Vec<usize> {
        (0..keys)
            .map(|key| self.pick_key(format!("key-{key}").as_bytes()).unwrap())
            .collect()
    }

    /// Picks from several threads on one balancer.
    pub(super) fn count_in_threads(&self, threads: u64, picks: u32) -> Vec<u32> {
        let mut counts = vec![0; self.members.len()];
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut mine = vec![0; self.members.len()];
                        let mut rng = Rng::new(thread);
                        for _ in 0..picks {
                            let mut ask = Ask {
                                loads: &self.loads,
                                key: None,
                                tried: &[],
                                now: 0,
                                rng: &mut rng,
                            };
                            mine[self.balancer.pick(&mut ask).unwrap()] += 1;
                        }
                        mine
                    })
                })
                .collect();
            for worker in workers {
                for (sum, mine) in counts.iter_mut().zip(worker.join().unwrap()) {
                    *sum += mine;
                }
            }
        });
        counts
    }
}
