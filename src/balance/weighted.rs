//! `weighted`: nginx's smooth weighted round robin, exact across workers.

use std::any::Any;

use super::ready::Ready;
use super::schedule::Schedule;
use super::{Ask, Balancer, Member};

/// Weighted turns over the ready members.
#[derive(Debug)]
pub(super) struct Weighted {
    ready: Ready,
    schedule: Schedule,
}

// === impl Weighted ===

impl Weighted {
    /// Starts as far into its cycle as `previous` had come.
    pub(super) fn new(members: &[Member], ready: &[bool], previous: Option<&Self>) -> Self {
        let ready = Ready::new(members, ready);
        let phase = previous.map_or(0.0, |p| p.schedule.phase());
        Self {
            schedule: Schedule::new(ready.weights(), phase),
            ready,
        }
    }
}

impl Balancer for Weighted {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        let position = self
            .ready
            .draw(ask.tried, ask.rng, |_| self.schedule.take())?;
        Some(self.ready.index(position))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::PolicyKind::Weighted;
    use crate::balance::fixture::Bench;

    #[test]
    fn five_one_one_is_a_a_b_a_c_a_a() {
        let mut bench = Bench::new(Weighted, &[5, 1, 1]);
        assert_eq!(bench.picks(7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn shares_are_exact_among_those_that_are_left() {
        let mut bench = Bench::new(Weighted, &[5, 3, 2]);
        bench.set_ready(0, false);
        assert_eq!(bench.count(500), [0, 300, 200]);
    }

    #[test]
    fn a_weight_changed_in_mid_cycle_counts_from_the_next_pick() {
        let mut bench = Bench::new(Weighted, &[3, 1]);
        bench.picks(2);
        bench.set_weight(1, 3);
        assert_eq!(bench.count(100), [50, 50]);
    }

    #[test]
    fn shares_are_exact_across_threads() {
        let bench = Bench::new(Weighted, &[5, 1, 1]);
        assert_eq!(bench.count_in_threads(4, 7_000), [20_000, 4_000, 4_000]);
    }
}
