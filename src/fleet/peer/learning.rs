//! Since when this peer knows what the fleet says.
//!
//! Who begins with nothing knows what is said from then on, and of what was said before it nothing: neither what held
//! nor what was taken back. By a whole comparison it knows what the other one does, so since when that one does. It
//! says so of itself ([`About::knows_since_unix_ms`](crate::fleet::fact::About)): who was away goes by it (`past`).
//!
//! Until it has compared with one that was there before it, it is no judge of what is new: what others said long ago
//! comes in one heap, and has effect here as it has with them. So its brake waits for that. If nobody was there before
//! it, any comparison will do.

use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::Now;
use crate::fleet::fact::{About, Key, Value};
use crate::fleet::id::PeerId;

use super::Peer;

/// How far this peer is with what the others know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Learning {
    /// It has met nobody.
    #[default]
    Alone,
    /// It has met somebody, then, and has not compared with one that was there before it.
    Since(Nanos),
    /// It knows it.
    Over,
}

/// It learns for so long at most after it has met somebody: three comparisons. That it cannot compare is no reason to go
/// without a brake.
const LEARNS: Duration = Duration::from_secs(30);

// === impl Peer ===

impl Peer {
    /// Somebody is there.
    pub(super) fn has_met(&mut self, now: Nanos) {
        if self.learning == Learning::Alone {
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
        if theirs < started || self.live.keys().all(is_younger) {
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
        self.learning != Learning::Over
    }

    /// Ends the time of learning, once that is over.
    pub(super) fn learn(&mut self, now: Nanos) {
        if let Learning::Since(at) = self.learning
            && now.saturating_sub(at) >= nanos(LEARNS)
        {
            self.know();
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
