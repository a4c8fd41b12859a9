//! When enough is known of the first targets for the server to want traffic. Pure.

use std::collections::HashSet;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};

use super::Id;

/// Nobody is waited for longer: twice the longest spread of first checks. An interval of minutes,
/// or a check that takes so long, is no reason to keep a whole server from its traffic.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Of whom it is not yet known what they are.
#[derive(Debug, Default)]
pub(super) struct FirstRound {
    unknown: HashSet<Id>,
    ends_at: Nanos,
}

// === impl FirstRound ===

impl FirstRound {
    /// The round of `ids`, which begins now.
    pub(super) fn new(ids: impl Iterator<Item = Id>, now: Nanos) -> Self {
        Self {
            unknown: ids.collect(),
            ends_at: now.saturating_add(nanos(PATIENCE)),
        }
    }

    /// It is known what this one is.
    pub(super) fn knows(&mut self, id: Id) {
        self.unknown.remove(&id);
    }

    /// Forgets those who need not be asked any more.
    pub(super) fn retain(&mut self, stays: impl Fn(Id) -> bool) {
        self.unknown.retain(|id| stays(*id));
    }

    /// Whether it is over; then it stays so.
    pub(super) fn is_over(&mut self, now: Nanos) -> bool {
        if now >= self.ends_at {
            self.unknown.clear();
        }
        self.unknown.is_empty()
    }

    /// When it is over at the latest; `None` = it is.
    pub(super) fn ends_at(&self) -> Option<Nanos> {
        (!self.unknown.is_empty()).then_some(self.ends_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_all_are_known_or_gone_or_too_late() {
        let late = 7 + nanos(PATIENCE);
        assert!(FirstRound::default().is_over(0), "nobody to wait for");
        let mut round = FirstRound::new(1..=3, 7);
        round.knows(1);
        round.knows(9);
        round.retain(|id| id != 2);
        assert!(!round.is_over(late - 1));
        assert_eq!(round.ends_at(), Some(late));
        round.knows(3);
        assert!(round.is_over(8));
        assert_eq!(round.ends_at(), None);
        let mut round = FirstRound::new(1..=1, 7);
        assert!(round.is_over(late));
        assert_eq!(round.ends_at(), None);
    }
}
