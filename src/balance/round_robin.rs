//! `round_robin`: in turn, weights ignored; exact across workers, because they share the turn counter.

use std::any::Any;

use super::ready::Ready;
use super::schedule::Schedule;
use super::{Ask, Balancer, Member};

/// Turns over the ready members.
#[derive(Debug)]
pub(super) struct RoundRobin {
    ready: Ready,
    schedule: Schedule,
}

// === impl RoundRobin ===

impl RoundRobin {
    /// Goes on with the member that was next in `previous`, or the first ready one after it.
    pub(super) fn new(members: &[Member], ready: &[bool], previous: Option<&Self>) -> Self {
        let ready = Ready::new(members, ready);
        let due = previous.and_then(Self::due).unwrap_or(0);
        let start = ready
            .indices()
            .partition_point(|&index| (index as usize) < due);
        Self {
            schedule: Schedule::turns(ready.len(), start),
            ready,
        }
    }

    /// Index of the member whose turn is next.
    fn due(&self) -> Option<usize> {
        (!self.ready.is_empty()).then(|| self.ready.index(self.schedule.peek()))
    }
}

impl Balancer for RoundRobin {
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
    use crate::balance::PolicyKind::RoundRobin;
    use crate::balance::fixture::Bench;

    #[test]
    fn turns_ignore_weights() {
        let mut bench = Bench::new(RoundRobin, &[1, 9, 3]);
        assert_eq!(bench.picks(7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn the_turn_goes_on_after_a_flap() {
        let mut bench = Bench::new(RoundRobin, &[1; 5]);
        assert_eq!(bench.picks(2), [0, 1]);
        bench.set_ready(2, false);
        assert_eq!(bench.picks(3), [3, 4, 0]);
        bench.set_ready(2, true);
        assert_eq!(bench.picks(3), [1, 2, 3]);
    }

    #[test]
    fn turns_are_exact_across_threads() {
        let bench = Bench::new(RoundRobin, &[1; 7]);
        let counts = bench.count_in_threads(4, 7_000);
        assert_eq!(counts, [4_000; 7]);
    }
}
