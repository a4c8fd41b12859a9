//! `least_request`: of two candidates, the one with fewer exchanges in flight for its weight.

use std::any::Any;

use super::ready::in_flight;
use super::two_choices::TwoChoices;
use super::{Ask, Balancer, Member};

/// Two choices on shared in-flight counts.
#[derive(Debug)]
pub(super) struct LeastRequest {
    choices: TwoChoices,
}

// === impl LeastRequest ===

impl LeastRequest {
    /// See [`TwoChoices::new`].
    pub(super) fn new(
        members: &[Member],
        ready: &[bool],
        previous: Option<&Self>,
        seed: u64,
    ) -> Self {
        let previous = previous.map(|p| &p.choices);
        Self {
            choices: TwoChoices::new(members, ready, previous, seed),
        }
    }
}

impl Balancer for LeastRequest {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        let ready = self.choices.ready();
        let (first, second) = self.choices.draw(ask)?;
        let Some(second) = second else {
            return Some(ready.index(first));
        };
        let load = |position| u64::from(in_flight(ask.loads, ready.index(position)));
        let (first_load, second_load) = (load(first), load(second));
        // Both idle: the schedule's candidate, or a heavy endpoint would beat a light one at every
        // meeting and low load would never give the light one its share.
        let second_wins = (first_load | second_load) != 0
            // (in flight + 1) / weight, multiplied out: what the load will be after this pick.
            && (second_load + 1) * u64::from(ready.weight(first))
                < (first_load + 1) * u64::from(ready.weight(second));
        Some(ready.index(if second_wins { second } else { first }))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::PolicyKind::LeastRequest;
    use crate::balance::fixture::Bench;

    #[test]
    fn of_two_the_less_loaded_wins() {
        let mut bench = Bench::new(LeastRequest, &[1, 1]);
        bench.load(0, 3);
        bench.load(1, 2);
        assert_eq!(bench.count(100), [0, 100]);
    }

    #[test]
    fn load_counts_per_weight() {
        let mut bench = Bench::new(LeastRequest, &[4, 1]);
        bench.load(0, 6);
        bench.load(1, 1);
        // (6 + 1) / 4 < (1 + 1) / 1
        assert_eq!(bench.count(100), [100, 0]);
    }

    #[test]
    fn the_most_loaded_of_all_is_never_picked() {
        let mut bench = Bench::new(LeastRequest, &[1; 5]);
        for i in 0..5 {
            bench.load(i, if i == 3 { 9 } else { 1 + i as u32 % 2 });
        }
        assert_eq!(bench.count(10_000)[3], 0);
    }

    #[test]
    fn idle_endpoints_share_by_weight() {
        let mut bench = Bench::new(LeastRequest, &[5, 1]);
        assert_eq!(bench.count(600), [500, 100]);
    }
}
