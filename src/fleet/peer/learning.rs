//! Since when this peer knows what the fleet says.
//!
//! Who begins with nothing knows what is said from then on, and of what was said before it nothing: neither what held
//! nor what was taken back. By a whole comparison it knows what the other one does, so since when that one does. It
//! says so of itself ([`About::knows_since_unix_ms`](crate::fleet::fact::About)): who was away goes by it (`past`).
//!
//! Until it has compared with one that was there before it, it is no judge of what is new: what others said long ago
//! comes in one heap, and has effect here as it has with them. So its brake waits for that. If nobody was there before
//! it, any comparison will do. Who is alone for long waits no more: what the first who comes brings is new to it. If
//! that one was there before it after all, it decides once more, as one that learns.

use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::Now;
use crate::fleet::fact::{About, Key, Value};
use crate::fleet::id::PeerId;

use super::Peer;

/// How far this peer is with what the others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learning {
    /// It has met nobody; since when it looks for somebody, once it has begun to.
    Alone(Option<Nanos>),
    /// It was alone for long, and has not compared with anybody since.
    Unmet,
    /// It has met somebody, then, and has not compared with one that was there before it.
    Since(Nanos),
    /// It knows it.
    Over,
}

/// It learns for so long at most after it has met somebody: three comparisons. That it cannot compare is no reason to go
/// without a brake; nor is it that nobody is there.
const LEARNS: Duration = Duration::from_secs(30);

// === impl Peer ===

impl Peer {
    /// Somebody is there.
    pub(super) fn has_met(&mut self, now: Nanos) {
        if let Learning::Alone(_) = self.learning {
            self.learning = Learning::Since(now);
        }
    }

    /// A comparison with another peer is over, and left nothing out: this one knows what that one does.
    pub(super) fn has_compared(&mut self, with: PeerId, now: Now) {
        let Some(theirs) = self.about_of(with).map(|about| about.knows_since_unix_ms) else {
            return;
        };
        let started = self.about.started_unix_ms;
        let is_younger = |peer: &PeerId| {
            let about = self.about_of(*peer);
            about.is_some_and(|about| about.knows_since_unix_ms >= started)
        };
        let was_there_before = theirs < started;
        if was_there_before || self.live.keys().all(is_younger) {
            if was_there_before && self.learning == Learning::Unmet {
                // What it decided alone it decided without what has effect with the others.
                self.brake.begin_again();
            }
            self.know();
        }
        self.compare_past(theirs, now);
        if theirs < self.about.knows_since_unix_ms {
            self.about.knows_since_unix_ms = theirs;
            self.introduce(now);
        }
    }

    /// Whether it does not know yet what the others do.
    pub fn is_learning(&self) -> bool {
        match self.learning {
            Learning::Alone(_) | Learning::Since(_) => true,
            Learning::Unmet | Learning::Over => false,
        }
    }

    /// Ends the time of learning, once that is over.
    pub(super) fn learn(&mut self, now: Nanos) {
        let is_long = |at: Nanos| now.saturating_sub(at) >= nanos(LEARNS);
        match self.learning {
            Learning::Alone(None) => self.learning = Learning::Alone(Some(now)),
            Learning::Alone(Some(at)) if is_long(at) => {
                self.know();
                self.learning = Learning::Unmet;
            }
            Learning::Since(at) if is_long(at) => self.know(),
            Learning::Alone(_) | Learning::Since(_) | Learning::Unmet | Learning::Over => {}
        }
    }

    /// What is said from now on is new. What has come is looked at once more before that.
    fn know(&mut self) {
        if self.learning == Learning::Over {
            return;
        }
        self.learning = Learning::Over;
        self.brake.know();
        let known: Vec<_> = self.brake.upstreams().cloned().collect();
        self.news.upstreams.extend(known);
    }

    /// What a peer says of itself.
    pub(super) fn about_of(&self, peer: PeerId) -> Option<&About> {
        match &self.facts.get(&Key::Peer(peer))?.value {
            Value::Peer(about) => Some(about),
            _ => None,
        }
    }
}
