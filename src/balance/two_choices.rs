//! Two candidates for a policy to choose between: one by turn, one by chance.
//!
//! Two uniform draws (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
//! 1996) leave shares uneven while most endpoints are idle, because nearly every comparison is a tie
//! and a tie is a plain random pick: 400 servers at 2 % load get 0.79 to 1.23 of their fair share.
//! Taking the first candidate from a shuffled schedule and letting it win ties keeps shares within
//! 0.95 to 1.05 there, and changes nothing under load.

use super::alias::Alias;
use super::ready::Ready;
use super::schedule::Schedule;
use super::{Ask, Member};
use crate::base::rng::Rng;

/// Draws of the second candidate before its neighbour is taken: with equal weights among 1,000 the
/// first draw differs from the first candidate in 99.9 % of picks.
const SECOND_DRAWS: usize = 4;

/// The drawing half of `least_request` and `peak_ewma`.
#[derive(Debug)]
pub(super) struct TwoChoices {
    ready: Ready,
    schedule: Schedule,
    alias: Alias,
}

// === impl TwoChoices ===

impl TwoChoices {
    /// The order of the schedule comes from `seed`: proxies that start together do not send their
    /// first requests to the same endpoints.
    pub(super) fn new(
        members: &[Member],
        ready: &[bool],
        previous: Option<&Self>,
        seed: u64,
    ) -> Self {
        let ready = Ready::shuffled(members, ready, &mut Rng::new(seed));
        let phase = previous.map_or(0.0, |p| p.schedule.phase());
        Self {
            schedule: Schedule::new(ready.weights(), phase),
            alias: Alias::new(ready.weights()),
            ready,
        }
    }

    /// The candidates behind the positions.
    #[inline]
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Two distinct positions; the second is `None` when there is no other untried candidate.
    #[inline]
    pub(super) fn draw(&self, ask: &mut Ask<'_>) -> Option<(usize, Option<usize>)> {
        let first = self
            .ready
            .draw(ask.tried, ask.rng, |_| self.schedule.take())?;
        if self.ready.len() == 1 {
            return Some((first, None));
        }
        for _ in 0..SECOND_DRAWS {
            let second = self.alias.draw(ask.rng);
            if second != first && !self.is_tried(second, ask.tried) {
                return Some((first, Some(second)));
            }
        }
        let taken = self.ready.index(first);
        let avoid = |index| index == taken || ask.tried.contains(&index);
        Some((first, self.ready.untried_from(first, avoid)))
    }

    #[inline]
    fn is_tried(&self, position: usize, tried: &[usize]) -> bool {
        !tried.is_empty() && tried.contains(&self.ready.index(position))
    }
}
