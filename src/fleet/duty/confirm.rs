//! When a fellow's doubt is a reason to ask at once. Pure.

use crate::base::clock::Nanos;
use crate::fleet::id::PeerId;
use crate::fleet::stamp::Stamp;

/// The doubts of fellows about one endpoint, as far as they were followed.
#[derive(Clone, Debug, Default)]
pub struct Confirms {
    last: Option<Nanos>,
    seen: Vec<(PeerId, Stamp)>,
}

/// The least share of an interval between two questions that fellows cause: one who lies makes others ask ten times
/// as often as they do by themselves, not more.
pub const FLOOR_SHARE: u32 = 10;

// === impl Confirms ===

impl Confirms {
    /// Takes note of a failing vote; whether that is a reason to ask now, `floor` after the last time at the
    /// earliest. A vote is followed once. One that comes too soon is not followed later: the next check of one of
    /// the probers is never further than interval / k.
    pub fn hear(&mut self, fellow: PeerId, stamp: Stamp, now: Nanos, floor: Nanos) -> bool {
        if !self.note(fellow, stamp) {
            return false;
        }
        let is_due = self
            .last
            .is_none_or(|last| now >= last.saturating_add(floor));
        if is_due {
            self.last = Some(now);
        }
        is_due
    }

    /// Takes note of a failing vote without following it; whether it is new.
    pub fn note(&mut self, fellow: PeerId, stamp: Stamp) -> bool {
        match self.seen.iter_mut().find(|(of, _)| *of == fellow) {
            Some((_, seen)) if *seen >= stamp => false,
            Some((_, seen)) => {
                *seen = stamp;
                true
            }
            None => {
                self.seen.push((fellow, stamp));
                true
            }
        }
    }

    /// Forgets all who are not among `probers`.
    pub fn retain(&mut self, probers: &[PeerId]) {
        self.seen.retain(|(fellow, _)| probers.contains(fellow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);

    #[test]
    fn each_vote_is_followed_once_and_none_before_the_floor() {
        let mut confirms = Confirms::default();
        let mut hear = |of, stamp, now| confirms.hear(of, Stamp(stamp), now, 500);
        assert!(hear(A, 7, 1000));
        assert!(!hear(A, 7, 9000), "it was followed");
        assert!(!hear(A, 6, 9000), "it was overtaken");
        assert!(hear(B, 5, 1500));
        assert!(!hear(A, 8, 1999), "too soon");
        assert!(!hear(A, 8, 2000), "and not later either");
        assert!(hear(A, 9, 2000));
    }

    #[test]
    fn who_is_forgotten_is_heard_anew() {
        let mut confirms = Confirms::default();
        assert!(confirms.note(A, Stamp(7)));
        assert!(!confirms.hear(A, Stamp(7), 0, 0));
        confirms.retain(&[B]);
        assert!(confirms.hear(A, Stamp(7), 0, 0));
    }
}
